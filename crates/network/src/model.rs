//! The records in memory: who is there, who is on his way out, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use stdx::{Error, Id, Result};

use crate::attend;
use crate::netd::protocol::Place;
use crate::records::{Endpoint, Network};

/// The records, in memory for readers. Written to the store first.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) networks: BTreeMap<Id, Arc<Network>>,
    pub(crate) endpoints: BTreeMap<Id, Arc<Endpoint>>,
    /// Detached, and not yet gone from the kernel: nobody sees them, and nobody gets their addresses.
    pub(crate) leaving: BTreeSet<Id>,
    /// Of these the ports are free again, whatever their records say until they are gone.
    pub(crate) withdrawn: BTreeSet<Id>,
}

impl Model {
    pub(crate) fn network(&self, id: &Id) -> Result<Arc<Network>> {
        self.networks
            .get(id)
            .cloned()
            .ok_or_else(|| Error::not_found(format!("network {id} not found")))
    }

    /// Docker's order: the whole id, the whole name, a unique beginning of the id. A network may be named as another's id.
    pub(crate) fn find(&self, term: &str) -> Result<Arc<Network>> {
        let all = || self.networks.values();
        let exact = all()
            .find(|network| network.id.as_str() == term)
            .or_else(|| all().find(|network| network.name == term));
        if let Some(network) = exact {
            return Ok(Arc::clone(network));
        }
        let matches: Vec<_> = all()
            .filter(|network| !term.is_empty() && network.id.as_str().starts_with(term))
            .collect();
        match matches.as_slice() {
            [] => Err(Error::not_found(format!("network {term} not found"))),
            [network] => Ok(Arc::clone(network)),
            several => Err(Error::invalid(format!(
                "network {term} is ambiguous ({} matches found based on ID prefix)",
                several.len()
            ))),
        }
    }

    /// The subnets of all networks.
    pub(crate) fn subnets(&self) -> Vec<IpNet> {
        let real = self.networks.values().filter(|network| network.has_subnets());
        real.flat_map(|network| &network.ipam.config).map(|pool| pool.subnet).collect()
    }

    pub(crate) fn remember(&mut self, endpoint: Endpoint) {
        let id = endpoint.endpoint_id.clone();
        if endpoint.left {
            self.leaving.insert(id.clone());
            self.withdrawn.insert(id.clone());
        }
        self.endpoints.insert(id, Arc::new(endpoint));
    }

    /// Those of them who are on their way out, as they are to be written down.
    pub(crate) fn departing(&self, which: impl Fn(&Endpoint) -> bool) -> Vec<Endpoint> {
        let gone = self.withdrawn.iter().filter_map(|id| self.endpoints.get(id));
        gone.filter(|endpoint| !endpoint.left && which(endpoint))
            .map(|endpoint| Endpoint { left: true, ..Endpoint::clone(endpoint) })
            .collect()
    }

    pub(crate) fn present(&self, which: impl Fn(&Endpoint) -> bool) -> Vec<Arc<Endpoint>> {
        let here = |endpoint: &&Arc<Endpoint>| {
            which(endpoint) && !self.leaving.contains(&endpoint.endpoint_id)
        };
        self.endpoints.values().filter(here).cloned().collect()
    }

    /// Who has a place on the host.
    pub(crate) fn holder(&self, place: Place) -> Option<IpAddr> {
        let holding = |endpoint: &&Arc<Endpoint>| !self.withdrawn.contains(&endpoint.endpoint_id);
        attend::holder(self.endpoints.values().filter(holding), place)
    }

    pub(crate) fn of(&self, container: &Id) -> Vec<Arc<Endpoint>> {
        let mut endpoints = self.present(|endpoint| endpoint.container == *container);
        endpoints.sort_by(|a, b| (a.ifname.len(), &a.ifname).cmp(&(b.ifname.len(), &b.ifname)));
        endpoints
    }
}
