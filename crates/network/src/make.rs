//! Networks made and removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use state::{Actor, EventKind};
use stdx::{Error, Result};

use crate::create::{self, CreateRequest, Surroundings};
use crate::networks::{Core, Networks};
use crate::records::Network;

impl Networks {
    /// Makes a network. Record first; when the kernel refuses, both are taken back.
    pub fn create(&self, request: &CreateRequest) -> Result<Arc<Network>> {
        let core = &self.core;
        let routes = core.host.route().routes()?;
        let devices = core.host.route().links()?;
        let (driver, ipam) = create::plugins_wanted(request);
        let families = create::families(request)?;
        let plugin = driver
            .map(|name| core.drivers.remote.character(name, request, families))
            .transpose()?;
        let gateways = create::gateways(request, plugin);
        let pools = ipam
            .map(|name| {
                core.replay(name)?;
                let taken: Vec<_> = routes.iter().copied().chain(core.model().subnets()).collect();
                core.ipam.pools(name, request, families, gateways, &taken)
            })
            .transpose()?;
        let planned = || {
            let _turn = core.turn();
            let model = core.model();
            let around = Surroundings {
                plugin,
                pools: pools.as_ref(),
                networks: model.networks.values().map(|network| &**network).collect(),
                devices: &devices,
                routes: &routes,
                default_pools: &core.config.default_address_pools,
                default_options: &core.config.default_network_options,
            };
            let network = Arc::new(create::plan(request, &around)?);
            drop(model);
            core.store.put(&*network)?;
            core.model().networks.insert(network.id.clone(), Arc::clone(&network));
            Ok(network)
        };
        let network = planned().inspect_err(|_: &Error| {
            if let (Some(name), Some(pools)) = (ipam, &pools) {
                core.ipam.give_back(name, pools.ids.values(), &pools.leases);
            }
        })?;
        let made = core.drivers.of(network.driver).create(&network);
        match made.and_then(|()| core.permit_change()) {
            Ok(()) => {
                core.follow_bridge(&network);
                core.tell_of("create", &network);
                Ok(network)
            }
            Err(err) => {
                if let Err(err) = core.forget(&network) {
                    tracing::error!(network = %network.name, err = %err.chain(), "cannot take back a network");
                }
                Err(err)
            }
        }
    }

    /// Removes a network that nobody is connected to.
    pub fn remove(&self, term: &str) -> Result<()> {
        let network = self.find(term)?;
        if network.is_predefined() {
            return Err(Error::forbidden(format!(
                "{} is a pre-defined network and cannot be removed",
                network.name
            )));
        }
        if network.config_only {
            return self.core.forget(&network);
        }
        // What is on its way out is not in the way.
        self.settle();
        let endpoints = self.endpoints(&network.id);
        if !endpoints.is_empty() {
            let who = endpoints.iter().map(|endpoint| {
                format!("name:{:?} id:{:?}", endpoint.container_name, endpoint.endpoint_id.short())
            });
            return Err(Error::forbidden(format!(
                "error while removing network: network {} has active endpoints ({})",
                network.name,
                who.collect::<Vec<_>>().join(", ")
            )));
        }
        self.core.forget(&network)?;
        self.core.tell_of("destroy", &network);
        Ok(())
    }

    /// Tells that unused networks were removed, each of which was told of before.
    pub fn pruned(&self) {
        let attributes = BTreeMap::from([("reclaimed".to_owned(), "0".to_owned())]);
        let actor = Actor { id: String::new(), attributes };
        self.core.journal.append(EventKind::Network, "prune", actor);
    }
}

impl Core {
    /// Takes a network out of the kernel and the records.
    fn forget(&self, network: &Arc<Network>) -> Result<()> {
        let others: Vec<_> = {
            let _turn = self.turn();
            let mut model = self.model();
            if model.endpoints.values().any(|endpoint| endpoint.network_id == network.id) {
                return Err(Error::forbidden(format!(
                    "error while removing network: network {} has active endpoints",
                    network.name
                )));
            }
            let copied = |other: &Arc<Network>| other.config_from == network.name;
            if network.config_only && model.networks.values().any(copied) {
                return Err(Error::forbidden(format!(
                    "error while removing network: configuration network {:?} is in use",
                    network.name
                )));
            }
            // From here on nobody can connect to it; its record stays until the kernel is rid of it.
            model.networks.remove(&network.id);
            model.networks.values().cloned().collect()
        };
        let gone = self.drivers.of(network.driver).remove(network, &others).and_then(|()| {
            self.permit_change()?;
            if network.ipam.is_remote() {
                let pools = &network.ipam.config;
                let leases: Vec<_> = pools.iter().flat_map(|pool| pool.leases.clone()).collect();
                let ids = pools.iter().map(|pool| &pool.id);
                self.ipam.give_back(&network.ipam.driver, ids, &leases);
            }
            self.store.delete::<Network>(network.id.as_str())
        });
        match &gone {
            Ok(()) => {
                self.follow_bridge(network);
                self.forget_names(network);
            }
            Err(_) => {
                self.model().networks.insert(network.id.clone(), Arc::clone(network));
            }
        }
        gone
    }

    /// A bridge has come or gone.
    fn follow_bridge(&self, network: &Network) {
        if network.bridge.is_some() {
            self.firewalld.follow();
        }
    }

    fn tell_of(&self, action: &str, network: &Network) {
        let attributes = BTreeMap::from([
            ("name".to_owned(), network.name.clone()),
            ("type".to_owned(), network.driver_name().to_owned()),
        ]);
        self.journal.append(
            EventKind::Network,
            action,
            Actor { id: network.id.to_string(), attributes },
        );
    }
}
