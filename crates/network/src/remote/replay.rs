//! Plugins that remember nothing: each daemon asks them again for what they have given out to one before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use ipnet::IpNet;
use plugin::{Failure, Patience, Plugin};
use serde_json::Value;
use stdx::{Context, Result};

use super::ipam::{as_gateway, request, request_pool, space, with_mac};
use crate::ipam::Family;
use crate::networks::{Core, Networks};
use crate::records::{Endpoint, Lease, Network};

/// By driver: whether it has been told. Whoever wants something of one that is being told waits.
#[derive(Default)]
pub(crate) struct Replays(Mutex<BTreeMap<String, Arc<Mutex<bool>>>>);

impl Replays {
    fn of(&self, driver: &str) -> Arc<Mutex<bool>> {
        let mut drivers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(drivers.entry(driver.to_owned()).or_default())
    }
}

impl Networks {
    /// Tells all that are there, beside everything else: one that does not answer keeps no daemon from starting. It is tried
    /// again when something is wanted of it.
    pub(crate) fn replay_all(&self) -> Result<()> {
        let drivers: BTreeSet<String> = {
            let model = self.core.model();
            let remote = model.networks.values().filter(|network| network.ipam.is_remote());
            remote.map(|network| network.ipam.driver.clone()).collect()
        };
        for driver in drivers {
            let core = Arc::clone(&self.core);
            let tell = move || {
                if let Err(error) = core.replay(&driver) {
                    tracing::warn!(plugin = %driver, error = %error.chain(), "cannot tell a plugin what it has given out");
                }
            };
            thread::Builder::new()
                .name("ipam-replay".to_owned())
                .spawn(tell)
                .context(|| "cannot start a thread".to_owned())?;
        }
        Ok(())
    }
}

impl Core {
    /// Tells a plugin that wants it, once, before anything else is asked of it.
    pub(crate) fn replay(&self, driver: &str) -> Result<()> {
        let told = self.ipam.replays.of(driver);
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told {
            return Ok(());
        }
        let plugin = self.ipam.plugin(driver, Patience::None)?;
        let needs = self.ipam.needs(&plugin)?;
        if needs.replay {
            let space = space(&plugin)?;
            let networks: Vec<_> = self.model().networks.values().cloned().collect();
            for network in networks.iter().filter(|network| network.ipam.driver == driver) {
                let network = self.replay_pools(&plugin, &space, network)?;
                let endpoints = self.model().present(|one| one.network_id == network.id);
                for endpoint in endpoints {
                    let mac = endpoint.mac.filter(|_| needs.mac);
                    self.replay_addresses(&plugin, &network, &endpoint, &with_mac(mac))?;
                }
            }
        }
        *told = true;
        Ok(())
    }

    fn replay_pools(
        &self,
        plugin: &Plugin,
        space: &str,
        network: &Network,
    ) -> Result<Arc<Network>> {
        let mut network = network.clone();
        let options = network.ipam.options.clone().unwrap_or_default();
        for pool in &mut network.ipam.config {
            let subnet = pool.subnet.to_string();
            let range = pool.ip_range.map(|range| range.to_string()).unwrap_or_default();
            let family = Family::of(&pool.subnet);
            match request_pool(plugin, space, family, [&subnet, &range], &options) {
                Ok(told) => pool.id = told.pool_id.unwrap_or_default(),
                Err(Failure::Unheard(error)) => return Err(error),
                Err(Failure::Refused(_, error)) => {
                    tracing::warn!(plugin = %plugin.name(), network = %network.name, pool = %subnet, error = %error.chain(), "a plugin does not give the pool that it gave");
                }
            }
            for lease in &mut pool.leases {
                lease.pool.clone_from(&pool.id);
                let leads_out = pool.gateway == Some(lease.address);
                let options = if leads_out { as_gateway() } else { with_mac(None) };
                again(plugin, lease, &pool.subnet, options)?;
            }
        }
        let network = Arc::new(network);
        let _turn = self.turn();
        // It may have been removed meanwhile.
        if self.model().networks.contains_key(&network.id) {
            self.store.put(&*network)?;
            self.model().networks.insert(network.id.clone(), Arc::clone(&network));
        }
        Ok(network)
    }

    fn replay_addresses(
        &self,
        plugin: &Plugin,
        network: &Network,
        endpoint: &Endpoint,
        options: &Value,
    ) -> Result<()> {
        let mut leases = endpoint.leases.clone();
        for lease in &mut leases {
            let mut pools = network.ipam.config.iter();
            let Some(pool) = pools.find(|pool| pool.subnet.contains(&lease.address)) else {
                continue;
            };
            lease.pool.clone_from(&pool.id);
            again(plugin, lease, &pool.subnet, options.clone())?;
        }
        let _turn = self.turn();
        let now = self.model().endpoints.get(&endpoint.endpoint_id).map(|one| Endpoint::clone(one));
        if let Some(now) = now {
            let endpoint = Endpoint { leases, ..now };
            self.store.put(&endpoint)?;
            self.model().endpoints.insert(endpoint.endpoint_id.clone(), Arc::new(endpoint));
        }
        Ok(())
    }
}

fn again(plugin: &Plugin, lease: &Lease, subnet: &IpNet, options: Value) -> Result<()> {
    let wanted = lease.address.to_string();
    match request(plugin, &lease.pool, &wanted, options, subnet) {
        Err(Failure::Unheard(error)) => Err(error),
        Err(Failure::Refused(_, error)) => {
            tracing::warn!(plugin = %plugin.name(), address = %wanted, error = %error.chain(), "a plugin does not give the address that it gave");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}
