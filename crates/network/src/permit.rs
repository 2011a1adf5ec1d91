//! Letting through what the records allow: forwarding, the firewall, published ports.

use std::collections::BTreeSet;
use std::sync::Arc;

use stdx::Result;

use crate::bridges;
use crate::driver::bridge::must_be_isolated;
use crate::firewall::view::{Choices, Localhost, Port, Rules, View, ports_of};
use crate::firewall::{Firewall, Survey};
use crate::forwarding::{self, Family};
use crate::host::Host;
use crate::netlink::Batch;
use crate::networks::Core;
use crate::records::{Endpoint, Network};
use crate::sysctl;
use crate::watch::Monitor;

impl Core {
    /// Makes host and firewall be as the networks need them, whatever became of them.
    pub(crate) fn permit(&self) -> Result<()> {
        let closed = self.closed()?;
        let mut firewall = self.firewall();
        let view = self.view(self.choices(&firewall)?);
        firewall.ensure(&view)?;
        // What nobody guards yet is not opened.
        closed.into_iter().try_for_each(forwarding::open)?;
        answer_for_linked(&view)?;
        route_localhost(&self.host, &view)
    }

    /// The same after a change of ours, when nobody else's is expected.
    pub(crate) fn permit_change(&self) -> Result<()> {
        let closed = self.closed()?;
        let mut firewall = self.firewall();
        let view = self.view(self.choices(&firewall)?);
        firewall.adjust(&view)?;
        closed.into_iter().try_for_each(forwarding::open)?;
        answer_for_linked(&view)
    }

    /// Lets containers reach those that they are linked to, where others do not reach each other.
    pub(crate) fn carry_links(&self, changed: &[Arc<Endpoint>]) -> Result<()> {
        let concerned = {
            let model = self.model();
            changed.iter().any(|endpoint| {
                let network = model.networks.get(&endpoint.network_id);
                let bridge = network.and_then(|network| network.bridge.as_ref());
                let linked = |other: &Arc<Endpoint>| {
                    other.network_id == endpoint.network_id
                        && other.links.iter().any(|link| link.container == endpoint.container)
                };
                bridge.is_some_and(|bridge| !bridge.icc)
                    && (!endpoint.links.is_empty() || model.endpoints.values().any(linked))
            })
        };
        if concerned { self.permit_change() } else { Ok(()) }
    }

    /// The same for endpoints that go. Where that fails, the firewall is set anew when next it is looked at.
    pub(crate) fn cut_links(&self, endpoints: &[Arc<Endpoint>]) {
        if let Err(err) = self.carry_links(endpoints) {
            tracing::error!(err = %err.chain(), "cannot cut links");
        }
    }

    /// Opens the ports of these endpoints, and closes those.
    pub(crate) fn publish(
        &self,
        gone: &[Arc<Endpoint>],
        new_endpoints: &[Arc<Endpoint>],
    ) -> Result<()> {
        let (gone, new) = (self.ports(gone), self.ports(new_endpoints));
        if gone.is_empty() && new.is_empty() {
            return Ok(());
        }
        let mut firewall = self.firewall();
        let choices = self.choices(&firewall)?;
        firewall.publish(&gone, &new, || self.view(choices.clone()))?;
        self.forget_strays(&new);
        self.turn_back(new_endpoints)?;
        route_localhost(
            &self.host,
            &View { ports: new.into_iter().collect(), choices, ..View::default() },
        )
    }

    /// Has netd hold the firewall from the first container on that it guards. Without netd it is the daemon's alone.
    pub(crate) fn hold_firewall(&self, endpoints: &[Arc<Endpoint>]) {
        let guarded = |endpoint: &Arc<Endpoint>| {
            let model = self.model();
            model.networks.get(&endpoint.network_id).is_some_and(|network| network.bridge.is_some())
        };
        if !endpoints.iter().any(guarded) {
            return;
        }
        if let Err(err) = self.firewall().hold(self.netd.keeper()) {
            tracing::warn!(err = %err.chain(), "nobody holds the firewall while no daemon runs");
        }
    }

    /// Lets a container reach itself by a port of the host: where bridges' frames are filtered as packets, they are
    /// translated before they leave the bridge, and have to go back by the port that they came by.
    fn turn_back(&self, endpoints: &[Arc<Endpoint>]) -> Result<()> {
        let [_, filtered] = sysctl::bridges_are_filtered()?;
        if !filtered {
            return Ok(());
        }
        let mut batch = Batch::new();
        {
            let model = self.model();
            let bridged = |endpoint: &&Arc<Endpoint>| {
                let network = model.networks.get(&endpoint.network_id);
                !endpoint.ports.is_empty()
                    && network.is_some_and(|network| network.bridge.is_some())
            };
            for endpoint in endpoints.iter().filter(bridged) {
                batch.turn_port_back(&endpoint.host_device());
            }
        }
        if batch.is_empty() { Ok(()) } else { self.host.route().execute(batch) }
    }

    /// Closes the ports of endpoints that go. Where that fails, the firewall is set anew when next it is looked at.
    pub(crate) fn close(&self, endpoints: &[Arc<Endpoint>]) {
        if let Err(err) = self.publish(endpoints, &[]) {
            tracing::error!(err = %err.chain(), "cannot close ports");
        }
    }

    /// Looks again when somebody else has changed the host's rules, or taken a bridge away.
    pub(crate) fn watch(self: &Arc<Self>) -> Result<Monitor> {
        let core = Arc::downgrade(self);
        let rules = self.firewall().watch(move || {
            let Some(core) = core.upgrade() else { return };
            if let Err(err) = core.permit() {
                tracing::error!(err = %err.chain(), "somebody changed the firewall, and it cannot be mended");
            }
            core.firewalld.glimpse();
        })?;
        let bridges = bridges::source(Arc::downgrade(self))?;
        Monitor::start(rules.into_iter().chain([bridges]).collect())
    }

    /// What the kernel's rules let reach our ports, and who else has a say.
    pub(crate) fn survey(&self) -> Result<(Survey, Choices)> {
        let mut firewall = self.firewall();
        let choices = self.choices(&firewall)?;
        Ok((firewall.survey()?, choices))
    }

    /// Is this device a bridge of a network's?
    pub(crate) fn is_bridge(&self, device: &str) -> bool {
        self.bridged(|network| network.bridge.as_ref().is_some_and(|bridge| bridge.name == device))
    }

    /// How the kernel's rules differ from what the networks need.
    pub(crate) fn misrule(&self) -> Result<Vec<String>> {
        let mut firewall = self.firewall();
        let view = self.view(self.choices(&firewall)?);
        firewall.difference(&view)
    }

    /// The families that our networks need forwarded, and that the host does not forward.
    fn closed(&self) -> Result<Vec<Family>> {
        if !self.config.ip_forward {
            return Ok(Vec::new());
        }
        let families = [
            (Family::Ipv4, self.bridged(|network| network.enable_ipv4)),
            (Family::Ipv6, self.bridged(|network| network.enable_ipv6)),
        ];
        let mut closed = Vec::new();
        for (family, _) in families.into_iter().filter(|(_, wanted)| *wanted) {
            if forwarding::prepare(&self.store, family, || self.foreign_devices())? {
                closed.push(family);
            }
        }
        Ok(closed)
    }

    fn bridged(&self, which: impl Fn(&Network) -> bool) -> bool {
        let model = self.model();
        model.networks.values().any(|network| network.bridge.is_some() && which(network))
    }

    /// The host's devices but for loopback and our bridges.
    fn foreign_devices(&self) -> Result<Vec<String>> {
        let links = self.host.route().links()?;
        let model = self.model();
        let bridges = || model.networks.values().filter_map(|network| network.bridge.as_ref());
        let foreign = |name: &String| name != "lo" && !bridges().any(|bridge| bridge.name == *name);
        Ok(links.into_iter().map(|link| link.name).filter(foreign).collect())
    }

    fn choices(&self, firewall: &Firewall) -> Result<Choices> {
        let mut choices = firewall.choices();
        if !self.config.ip_forward_no_drop {
            choices.strangers = [
                forwarding::strangers(&self.store, Family::Ipv4)?,
                forwarding::strangers(&self.store, Family::Ipv6)?,
            ];
        }
        Ok(choices)
    }

    /// The model is locked for a moment, with the firewall locked before: never the other way round.
    fn view(&self, choices: Choices) -> View {
        let model = self.model();
        View::of(
            model.networks.values().map(|network| &**network),
            model.endpoints.values().map(|endpoint| &**endpoint),
            &model.leaving,
            &model.withdrawn,
            choices,
        )
    }

    fn ports(&self, endpoints: &[Arc<Endpoint>]) -> Vec<Port> {
        let model = self.model();
        let ports = endpoints.iter().filter_map(|endpoint| {
            let network = model.networks.get(&endpoint.network_id)?;
            Some(ports_of(network, endpoint))
        });
        ports.flatten().collect()
    }
}

/// Ports of a bridge that are kept apart find each other by the host alone: it answers for those that somebody is linked to,
/// and the rules decide what it carries.
fn answer_for_linked(view: &View) -> Result<()> {
    for bridge in view.bridges.iter().filter(|bridge| !bridge.icc) {
        let linked = view.links.iter().any(|link| link.bridge == bridge.name);
        let answers = if linked && must_be_isolated()? { "1" } else { "0" };
        if answers == "1" {
            // A host that answers for others takes its time, to be sure that they do not.
            sysctl::set(&format!("ipv4/neigh/{}/proxy_delay", bridge.name), "0")?;
        }
        sysctl::set(&format!("ipv4/conf/{}/proxy_arp_pvlan", bridge.name), answers)?;
    }
    Ok(())
}

/// Lets what the host sends to its own `127.0.0.1` out by the bridges whose ports are published there. The rules that keep
/// neighbours from answering to it are in place.
fn route_localhost(host: &Host, view: &View) -> Result<()> {
    if view.choices.localhost != Localhost::Kernel || view.choices.ipv4 != Rules::Ours {
        return Ok(());
    }
    let reached = |port: &&Port| {
        let (host, _) = port.host;
        host.is_ipv4() && (host.is_unspecified() || host.is_loopback())
    };
    let bridges: BTreeSet<&str> =
        view.ports.iter().filter(reached).map(|port| port.bridge.as_str()).collect();
    bridges.into_iter().try_for_each(|bridge| host.devices.set(bridge, "route_localnet", "1"))
}
