//! Records = kernel: found after a crash, asked for by `gantry system check`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stdx::{Id, Result};

use crate::driver::bridge::must_be_isolated;
use crate::ipam;
use crate::model::Model;
use crate::netlink::Batch;
use crate::netlink::route::{ENODEV, Link};
use crate::networks::{Core, Networks};
use crate::records::{Endpoint, is_host_device};

/// Something that should not be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which promise is broken: `I4` devices, `I5` firewall, `I6` ports and names, `I7` addresses.
    pub invariant: &'static str,
    pub subject: String,
    pub problem: String,
}

impl Networks {
    /// Makes kernel and records agree after a crash: mends bridges and rules, and releases what no container owns.
    /// `known` are the containers that live. Asking twice is fine.
    pub fn recover(&self, known: &[Id]) -> Result<()> {
        let known: BTreeSet<&Id> = known.iter().collect();
        let core = &self.core;
        core.ready()?;
        let gone =
            |endpoint: &&Arc<Endpoint>| endpoint.left || !known.contains(&endpoint.container);
        let dead: Vec<_> = core.model().endpoints.values().filter(gone).cloned().collect();
        if !dead.is_empty() {
            tracing::info!(
                endpoints = dead.len(),
                "releasing the endpoints of containers that are gone"
            );
            let ids: Vec<Id> = dead.iter().map(|endpoint| endpoint.endpoint_id.clone()).collect();
            core.model().leaving.extend(ids.iter().cloned());
            core.close(&dead);
            core.cut_links(&dead);
            core.release(&ids)?;
        }
        let links = core.host.route().links()?;
        let strays: Vec<Link> = core.strays(&links);
        for link in &strays {
            tracing::info!(device = %link.name, "removing a device that belongs to no container");
        }
        core.host.route().delete_links(strays.iter().map(|link| link.name.as_str()))?;
        core.reconnect(&links)?;
        core.limit_again();
        self.replay_all()
    }

    /// Compares records and kernel, changing neither.
    pub fn check(&self, known: &[Id]) -> Result<Vec<Finding>> {
        self.core.differences(known)
    }
}

impl Core {
    pub(crate) fn differences(&self, known: &[Id]) -> Result<Vec<Finding>> {
        let core = self;
        let links = core.host.route().links()?;
        let mut findings = devices(&core.model(), &links);
        findings.extend(core.strays(&links).into_iter().map(|link| Finding {
            invariant: "I4",
            subject: link.name,
            problem: "a device on our bridge belongs to no endpoint".to_owned(),
        }));
        findings.extend(core.misrule()?.into_iter().map(|problem| Finding {
            invariant: "I5",
            subject: core.config.table(),
            problem,
        }));
        findings.extend(core.unattended()?.into_iter().map(|problem| Finding {
            invariant: "I6",
            subject: "netd".to_owned(),
            problem,
        }));
        findings.extend(addresses(&core.model(), known));
        Ok(findings)
    }

    /// Ports of our bridges with a name like ours that no record tells of. Names alone prove nothing: Docker's look the
    /// same.
    fn strays(&self, links: &[Link]) -> Vec<Link> {
        let model = self.model();
        let ours: BTreeSet<&str> = model
            .networks
            .values()
            .filter_map(|network| network.bridge.as_ref())
            .map(|bridge| bridge.name.as_str())
            .collect();
        let bridges: BTreeSet<u32> = links
            .iter()
            .filter(|link| ours.contains(link.name.as_str()))
            .map(|link| link.index)
            .collect();
        let recorded: BTreeSet<String> =
            model.endpoints.values().map(|endpoint| endpoint.host_device()).collect();
        links
            .iter()
            .filter(|link| {
                is_host_device(&link.name)
                    && link.master.is_some_and(|master| bridges.contains(&master))
            })
            .filter(|link| !recorded.contains(&link.name))
            .cloned()
            .collect()
    }

    /// Makes ports of their bridge again those devices that lost it, as when somebody removed the bridge.
    pub(crate) fn reconnect(&self, links: &[Link]) -> Result<()> {
        let by_name: BTreeMap<&str, &Link> =
            links.iter().map(|link| (link.name.as_str(), link)).collect();
        let mut batch = Batch::new();
        {
            let model = self.model();
            for endpoint in model.endpoints.values() {
                let bridge = model
                    .networks
                    .get(&endpoint.network_id)
                    .and_then(|network| network.bridge.as_ref());
                let Some(bridge) = bridge else { continue };
                let name = endpoint.host_device();
                let (Some(link), Some(master)) =
                    (by_name.get(name.as_str()), by_name.get(bridge.name.as_str()))
                else {
                    continue;
                };
                if link.master != Some(master.index) {
                    tracing::info!(device = %name, bridge = %bridge.name, "reconnecting a device to its bridge");
                    batch.set_master(&name, master.index);
                    if !bridge.icc && must_be_isolated()? {
                        batch.isolate_port(&name, true);
                    }
                    if !endpoint.ports.is_empty() {
                        batch.turn_port_back(&name);
                    }
                }
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let replies = self.host.route().exchange(batch)?;
        replies.into_iter().try_for_each(|reply| reply.ok_or(&[ENODEV]).map(drop))
    }
}

fn devices(model: &Model, links: &[Link]) -> Vec<Finding> {
    let by_name: BTreeMap<&str, &Link> =
        links.iter().map(|link| (link.name.as_str(), link)).collect();
    let mut findings = Vec::new();
    let mut find = |subject: &str, problem: String| {
        findings.push(Finding { invariant: "I4", subject: subject.to_owned(), problem });
    };
    for network in model.networks.values() {
        let Some(bridge) = &network.bridge else { continue };
        match by_name.get(bridge.name.as_str()) {
            None => {
                find(&bridge.name, format!("the bridge of network {} is missing", network.name))
            }
            Some(link) if !link.up => {
                find(&bridge.name, format!("the bridge of network {} is down", network.name))
            }
            Some(_) => {}
        }
    }
    for parent in model.networks.values().filter_map(|network| network.parent.as_ref()) {
        if !by_name.contains_key(parent.name.as_str()) {
            find(&parent.name, "the parent device of a network is missing".to_owned());
        }
    }
    for endpoint in model.present(|endpoint| !endpoint.ifname.is_empty()) {
        let bridge =
            model.networks.get(&endpoint.network_id).and_then(|network| network.bridge.as_ref());
        // What shares a device of the host's is seen in its container only.
        let Some(bridge) = bridge else { continue };
        let master = by_name.get(bridge.name.as_str()).map(|link| link.index);
        let name = endpoint.host_device();
        match by_name.get(name.as_str()) {
            None => {
                find(&name, format!("the device of container {} is missing", endpoint.container))
            }
            Some(link) if link.master != master => {
                find(
                    &name,
                    format!("the device of container {} is not on its bridge", endpoint.container),
                );
            }
            Some(_) => {}
        }
    }
    findings
}

fn addresses(model: &Model, known: &[Id]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |subject: String, problem: &str| {
        findings.push(Finding { invariant: "I7", subject, problem: problem.to_owned() });
    };
    let mut seen = BTreeSet::new();
    for endpoint in model.present(|_| true) {
        if !known.contains(&endpoint.container) {
            find(endpoint.endpoint_id.to_string(), "an endpoint of a container that does not run");
        }
        let pools = model
            .networks
            .get(&endpoint.network_id)
            .map_or(&[][..], |network| &network.ipam.config);
        for ip in endpoint.addresses() {
            if !seen.insert((endpoint.network_id.clone(), ip)) {
                find(ip.to_string(), "two endpoints have this address");
            }
            if !pools.iter().any(|pool| pool.subnet.contains(&ip)) {
                find(ip.to_string(), "outside of its network's subnets");
            }
        }
    }
    let mut subnets = Vec::new();
    for network in model.networks.values().filter(|network| network.has_subnets()) {
        for pool in &network.ipam.config {
            if subnets.iter().any(|other| ipam::overlap(&pool.subnet, other)) {
                find(pool.subnet.to_string(), "two networks overlap");
            }
            subnets.push(pool.subnet);
        }
    }
    findings
}
