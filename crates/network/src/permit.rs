//! Letting through what the records allow: forwarding, the firewall, published ports.

use std::sync::Arc;

use stdx::Result;

use crate::firewall::view::{Choices, Port, View, ports_of};
use crate::host;
use crate::networks::Core;
use crate::records::Endpoint;

impl Core {
    /// Makes host and firewall be as the networks need them, whatever became of them.
    pub(crate) fn permit(&self) -> Result<()> {
        self.forward()?;
        let mut firewall = self.firewall();
        let view = self.view(firewall.choices());
        firewall.ensure(&view)
    }

    /// The same after a change of ours, when nobody else's is expected.
    pub(crate) fn permit_change(&self) -> Result<()> {
        self.forward()?;
        let mut firewall = self.firewall();
        let view = self.view(firewall.choices());
        firewall.adjust(&view)
    }

    /// Opens the ports of these endpoints, and closes those.
    pub(crate) fn publish(&self, gone: &[Arc<Endpoint>], new: &[Arc<Endpoint>]) -> Result<()> {
        let (gone, new) = (self.ports(gone), self.ports(new));
        if gone.is_empty() && new.is_empty() {
            return Ok(());
        }
        self.firewall().publish(&gone, &new, |choices| self.view(choices))
    }

    /// Closes the ports of endpoints that go. Where that fails, the firewall is set anew when next it is looked at.
    pub(crate) fn close(&self, endpoints: &[Arc<Endpoint>]) {
        if let Err(err) = self.publish(endpoints, &[]) {
            tracing::error!(err = %err.chain(), "cannot close ports");
        }
    }

    /// How the kernel's rules differ from what the networks need.
    pub(crate) fn misrule(&self) -> Result<Vec<String>> {
        let mut firewall = self.firewall();
        let view = self.view(firewall.choices());
        firewall.difference(&view)
    }

    fn forward(&self) -> Result<()> {
        if !self.config.ip_forward {
            return Ok(());
        }
        let (mut four, mut six) = (false, false);
        for network in self.model().networks.values().filter(|network| network.bridge.is_some()) {
            four |= network.enable_ipv4;
            six |= network.enable_ipv6;
        }
        if four {
            host::enable_forwarding()?;
        }
        if six {
            host::enable_forwarding6()?;
        }
        Ok(())
    }

    /// The model is locked for a moment, with the firewall locked before: never the other way round.
    fn view(&self, choices: Choices) -> View {
        let model = self.model();
        let present =
            model.endpoints.values().filter(|one| !model.leaving.contains(&one.endpoint_id));
        View::of(
            model.networks.values().map(|network| &**network),
            present.map(|endpoint| &**endpoint),
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
