//! Addresses that a plugin gives out: pools for networks, addresses for endpoints, each to be given back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use plugin::{Patience, Plugin, Plugins};
use serde::Deserialize;
use serde_json::{Value, json};
use stdx::{Error, Result};

use super::{ask, find};
use crate::create::{Gateways, PoolRequest};
use crate::endpoint::EndpointRequest;
use crate::ipam::Family;
use crate::records::{Lease, Network};

const INTERFACE: &str = "IpamDriver";
const TYPE: &str = "RequestAddressType";
const GATEWAY: &str = "com.docker.network.gateway";
const MAC: &str = "com.docker.network.endpoint.macaddress";

pub(crate) struct RemoteIpam {
    plugins: Option<Arc<Plugins>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Spaces {
    local_default_address_space: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Pool {
    #[serde(rename = "PoolID")]
    pool_id: Option<String>,
    pool: Option<String>,
    data: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Address {
    address: Option<String>,
}

#[derive(Deserialize)]
struct Done {}

/// What a network has from a plugin. It is given back unless it is kept.
pub(crate) struct Pools {
    pub(crate) requests: Vec<PoolRequest>,
    /// By subnet: the plugin's name for it.
    pub(crate) ids: BTreeMap<IpNet, String>,
    /// Every address that was asked for.
    pub(crate) leases: Vec<Lease>,
}

impl RemoteIpam {
    pub(crate) fn new(plugins: Option<Arc<Plugins>>) -> Self {
        Self { plugins }
    }

    fn plugin(&self, driver: &str, patience: Patience) -> Result<Arc<Plugin>> {
        find(self.plugins.as_ref(), driver, INTERFACE, patience)
    }

    /// Asks for a network's pools, gateways and auxiliary addresses.
    pub(crate) fn pools(
        &self,
        driver: &str,
        wishes: &[PoolRequest],
        options: &BTreeMap<String, String>,
        families: (bool, bool),
        gateways: Gateways,
    ) -> Result<Pools> {
        let plugin = self.plugin(driver, Patience::None)?;
        let method = "IpamDriver.GetDefaultAddressSpaces";
        let spaces: Spaces = ask(&plugin, method, &(), Patience::None)?;
        let space = spaces.local_default_address_space.unwrap_or_default();
        let mut pools = Pools { requests: Vec::new(), ids: BTreeMap::new(), leases: Vec::new() };
        let v6 = |wish: &PoolRequest| wish.subnet.contains(':');
        let outcome = [(Family::V4, families.0), (Family::V6, families.1)]
            .into_iter()
            .filter(|(_, enabled)| *enabled)
            .flat_map(|(family, _)| {
                let of_family = |wish: &&PoolRequest| v6(wish) == (family == Family::V6);
                let mut chosen: Vec<_> = wishes.iter().filter(of_family).cloned().collect();
                if chosen.is_empty() {
                    chosen.push(PoolRequest::default());
                }
                chosen.into_iter().map(move |wish| (family, wish))
            })
            .try_for_each(|(family, wish)| {
                let gateway = gateways.of(family);
                self.pool(&plugin, &space, (family, gateway), &wish, options, &mut pools)
            });
        match outcome {
            Ok(()) => Ok(pools),
            Err(error) => {
                self.give_back(driver, &pools.ids, &pools.leases);
                Err(error)
            }
        }
    }

    fn pool(
        &self,
        plugin: &Plugin,
        space: &str,
        (family, gateway): (Family, bool),
        wish: &PoolRequest,
        options: &BTreeMap<String, String>,
        pools: &mut Pools,
    ) -> Result<()> {
        let question = json!({
            "AddressSpace": space, "Pool": wish.subnet, "SubPool": wish.ip_range, "Options": options,
            "V6": family == Family::V6,
        });
        let told: Pool = ask(plugin, "IpamDriver.RequestPool", &question, Patience::None)?;
        let id = told.pool_id.unwrap_or_default();
        let text = told.pool.unwrap_or_default();
        let subnet = text.parse::<IpNet>().map(|net| net.trunc()).ok();
        let Some(subnet) = subnet.filter(|net| Family::of(net) == family && net.prefix_len() > 0)
        else {
            self.give_back(plugin.name(), &BTreeMap::from([(IpNet::default(), id)]), &[]);
            return Err(Error::invalid(format!("invalid pool from the IPAM driver: {text:?}")));
        };
        pools.ids.insert(subnet, id.clone());
        let mut lease = |preferred: &str, options: Value| -> Result<IpAddr> {
            let lease = request(plugin, &id, preferred, options, &subnet)?;
            let address = lease.address;
            pools.leases.push(lease);
            Ok(address)
        };
        // The plugin may have said it with the pool.
        let said = told.data.unwrap_or_default().remove(GATEWAY);
        let said = said.and_then(|text| text.parse::<IpNet>().ok().map(|net| net.addr()));
        let gateway = match said.filter(|said| subnet.contains(said) && wish.gateway.is_empty()) {
            Some(said) => Some(said),
            None if wish.gateway.is_empty() && !gateway => None,
            None => Some(lease(&wish.gateway, json!({ TYPE: GATEWAY }))?),
        };
        let mut auxiliary = BTreeMap::new();
        for (name, wanted) in &wish.auxiliary {
            auxiliary.insert(name.clone(), lease(wanted, json!({}))?.to_string());
        }
        pools.requests.push(PoolRequest {
            subnet: subnet.to_string(),
            ip_range: wish.ip_range.clone(),
            gateway: gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
            auxiliary,
        });
        Ok(())
    }

    /// Asks for the addresses of an endpoint, the wished ones where there are wishes.
    pub(crate) fn addresses(
        &self,
        network: &Network,
        wish: &EndpointRequest,
    ) -> Result<Vec<Lease>> {
        let plugin = self.plugin(&network.ipam.driver, Patience::Long)?;
        let mut leases: Vec<Lease> = Vec::new();
        for (family, enabled, wanted) in [
            (Family::V4, network.enable_ipv4, wish.ip.map(IpAddr::from)),
            (Family::V6, network.enable_ipv6, wish.ip6.map(IpAddr::from)),
        ] {
            if !enabled {
                continue;
            }
            let mut last = None;
            let options = wish.mac.map_or_else(|| json!({}), |mac| json!({ MAC: mac.to_string() }));
            let leased = network
                .ipam
                .config
                .iter()
                .filter(|pool| Family::of(&pool.subnet) == family)
                .filter(|pool| wanted.is_none_or(|wanted| pool.subnet.contains(&wanted)))
                .find_map(|pool| {
                    let wanted = wanted.map(|ip| ip.to_string()).unwrap_or_default();
                    let (id, options) = (&pool.id, options.clone());
                    request(&plugin, id, &wanted, options, &pool.subnet)
                        .map_err(|error| last = Some(error))
                        .ok()
                });
            match leased {
                Some(lease) => leases.push(lease),
                None => {
                    self.give_back(&network.ipam.driver, &BTreeMap::new(), &leases);
                    return Err(last.unwrap_or_else(|| {
                        Error::forbidden("no available addresses on this network's address pools")
                    }));
                }
            }
        }
        Ok(leases)
    }

    /// Gives addresses back, then pools. That a plugin does not take them keeps nobody from going on.
    pub(crate) fn give_back(
        &self,
        driver: &str,
        pools: &BTreeMap<IpNet, String>,
        leases: &[Lease],
    ) {
        let given = self.plugin(driver, Patience::None).and_then(|plugin| {
            for Lease { pool, address, .. } in leases {
                let question = json!({ "PoolID": pool, "Address": address });
                let method = "IpamDriver.ReleaseAddress";
                ask::<Done>(&plugin, method, &question, Patience::None)?;
            }
            for id in pools.values() {
                let question = json!({ "PoolID": id });
                ask::<Done>(&plugin, "IpamDriver.ReleasePool", &question, Patience::None)?;
            }
            Ok(())
        });
        if let Err(error) = given {
            tracing::warn!(plugin = %driver, error = %error.chain(), "cannot give addresses back");
        }
    }
}

fn request(
    plugin: &Plugin,
    pool: &str,
    preferred: &str,
    options: Value,
    subnet: &IpNet,
) -> Result<Lease> {
    let question = json!({ "PoolID": pool, "Address": preferred, "Options": options });
    let told: Address = ask(plugin, "IpamDriver.RequestAddress", &question, Patience::None)?;
    let text = told.address.unwrap_or_default();
    let (address, _) = text.split_once('/').unwrap_or((&text, ""));
    let address: IpAddr = address
        .parse()
        .map_err(|_| Error::invalid(format!("invalid address from the IPAM driver: {text:?}")))?;
    let lease = Lease { driver: plugin.name().to_owned(), pool: pool.to_owned(), address };
    if subnet.contains(&address) {
        return Ok(lease);
    }
    Err(Error::invalid(format!("the IPAM driver's address {address} is not in its pool {subnet}")))
}
