//! Addresses that a plugin gives out: pools for networks, addresses for endpoints, each to be given back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use plugin::{Failure, Patience, Plugin, Plugins};
use serde::Deserialize;
use serde_json::{Value, json};
use stdx::{Error, Result};

use super::replay::Replays;
use super::{ask, find};
use crate::create::{CreateRequest, Gateways, PoolRequest};
use crate::endpoint::EndpointRequest;
use crate::ipam::{self, Family};
use crate::records::{DriverKind, Lease, Mac, Network};

const INTERFACE: &str = "IpamDriver";
const TYPE: &str = "RequestAddressType";
const GATEWAY: &str = "com.docker.network.gateway";
const MAC: &str = "com.docker.network.endpoint.macaddress";
/// Pools that are held while the plugin is asked for one that overlaps with nothing.
const MOST_POOLS: usize = 64;

pub(crate) struct RemoteIpam {
    plugins: Option<Arc<Plugins>>,
    /// By driver: what those that were asked have said.
    needs: Mutex<BTreeMap<String, (Arc<Plugin>, Needs)>>,
    pub(super) replays: Replays,
}

/// What a plugin wants of those who ask it. One that does not say wants nothing.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Needs {
    /// To know the hardware address before it gives an address to its device.
    #[serde(rename = "RequiresMACAddress")]
    pub(super) mac: bool,
    /// To be asked again by each daemon for all that it has given out.
    #[serde(rename = "RequiresRequestReplay")]
    pub(super) replay: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Spaces {
    local_default_address_space: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Pool {
    #[serde(rename = "PoolID")]
    pub(super) pool_id: Option<String>,
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
    /// What the plugin calls the addresses of this host.
    pub(crate) space: String,
    pub(crate) requests: Vec<PoolRequest>,
    /// By subnet: the plugin's name for it.
    pub(crate) ids: BTreeMap<IpNet, String>,
    /// Every address that was asked for.
    pub(crate) leases: Vec<Lease>,
}

impl RemoteIpam {
    pub(crate) fn new(plugins: Option<Arc<Plugins>>) -> Self {
        Self { plugins, needs: Mutex::default(), replays: Replays::default() }
    }

    /// What the plugin wants. It is asked once.
    pub(super) fn needs(&self, plugin: &Arc<Plugin>) -> Result<Needs> {
        let known = || self.needs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((asked, needs)) = known().get(plugin.name())
            && Arc::ptr_eq(asked, plugin)
        {
            return Ok(*needs);
        }
        let method = "IpamDriver.GetCapabilities";
        let needs = match ask(plugin, method, &(), Patience::None) {
            Ok(needs) => needs,
            // Older than the question.
            Err(Failure::Refused(..)) => Needs::default(),
            Err(unheard) => return Err(unheard.into()),
        };
        known().insert(plugin.name().to_owned(), (Arc::clone(plugin), needs));
        Ok(needs)
    }

    pub(super) fn plugin(&self, driver: &str, patience: Patience) -> Result<Arc<Plugin>> {
        find(self.plugins.as_ref(), driver, INTERFACE, patience)
    }

    /// Asks for a network's pools, gateways and auxiliary addresses. A pool that nobody chose is not one of `taken`.
    pub(crate) fn pools(
        &self,
        driver: &str,
        request: &CreateRequest,
        families: (bool, bool),
        gateways: Gateways,
        taken: &[IpNet],
    ) -> Result<Pools> {
        let plugin = self.plugin(driver, Patience::None)?;
        self.needs(&plugin)?;
        let space = space(&plugin)?;
        let source = Source { plugin: &plugin, space: &space, request, taken };
        let wishes = &request.pools;
        let mut pools = Pools {
            space: space.clone(),
            requests: Vec::new(),
            ids: BTreeMap::new(),
            leases: Vec::new(),
        };
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
                self.pool(&source, (family, gateway), &wish, &mut pools)
            });
        match outcome {
            Ok(()) => Ok(pools),
            Err(error) => {
                self.give_back(driver, pools.ids.values(), &pools.leases);
                Err(error)
            }
        }
    }

    fn pool(
        &self,
        source: &Source,
        (family, gateway): (Family, bool),
        wish: &PoolRequest,
        pools: &mut Pools,
    ) -> Result<()> {
        let Source { plugin, .. } = *source;
        // Those that are held are not given again.
        let mut held = Vec::new();
        let found = loop {
            let told = match source.request_pool(family, wish) {
                Ok(told) => told,
                Err(error) => break Err(error),
            };
            let id = told.pool_id.unwrap_or_default();
            let text = told.pool.unwrap_or_default();
            let subnet = text.parse::<IpNet>().map(|net| net.trunc()).ok();
            let Some(subnet) =
                subnet.filter(|net| Family::of(net) == family && net.prefix_len() > 0)
            else {
                held.push(id);
                break Err(Error::invalid(format!("invalid pool from the IPAM driver: {text:?}")));
            };
            if !wish.subnet.is_empty()
                || !source.taken.iter().any(|net| ipam::overlap(net, &subnet))
            {
                break Ok((id, subnet, told.data));
            }
            // One and the same again: there is no other.
            if held.len() == MOST_POOLS || held.contains(&id) {
                held.push(id);
                break Err(Error::invalid(format!(
                    "the pool {subnet} from the IPAM driver overlaps with a network or a route of this host"
                )));
            }
            held.push(id);
        };
        self.give_back(plugin.name(), &held, &[]);
        let (id, subnet, data) = found?;
        pools.ids.insert(subnet, id.clone());
        let mut lease = |preferred: &str, options: Value| -> Result<IpAddr> {
            let lease = request(plugin, &id, preferred, options, &subnet)?;
            let address = lease.address;
            pools.leases.push(lease);
            Ok(address)
        };
        // The plugin may have said it with the pool.
        let said = data.unwrap_or_default().remove(GATEWAY);
        let said = said.and_then(|text| text.parse::<IpNet>().ok().map(|net| net.addr()));
        let gateway = match said.filter(|said| subnet.contains(said) && wish.gateway.is_empty()) {
            Some(said) => Some(said),
            None if wish.gateway.is_empty() && !gateway => None,
            None => Some(lease(&wish.gateway, as_gateway())?),
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

    /// Asks for the addresses of an endpoint, the wished ones where there are wishes. With them comes the hardware address
    /// that the plugin was told.
    pub(crate) fn addresses(
        &self,
        network: &Network,
        wish: &EndpointRequest,
    ) -> Result<(Vec<Lease>, Option<Mac>)> {
        let plugin = self.plugin(&network.ipam.driver, Patience::Long)?;
        // On an overlay network it follows from the address.
        let wanted = self.needs(&plugin)?.mac && network.driver != DriverKind::Overlay;
        let mac = wanted.then(|| wish.mac.unwrap_or_else(Mac::random));
        let options = with_mac(mac);
        let mut leases: Vec<Lease> = Vec::new();
        for (family, enabled, wanted) in [
            (Family::V4, network.enable_ipv4, wish.ip.map(IpAddr::from)),
            (Family::V6, network.enable_ipv6, wish.ip6.map(IpAddr::from)),
        ] {
            if !enabled {
                continue;
            }
            let mut last = None;
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
                        .map_err(|failure| last = Some(Error::from(failure)))
                        .ok()
                });
            match leased {
                Some(lease) => leases.push(lease),
                None => {
                    self.give_back(&network.ipam.driver, [], &leases);
                    return Err(last.unwrap_or_else(|| {
                        Error::forbidden("no available addresses on this network's address pools")
                    }));
                }
            }
        }
        Ok((leases, mac))
    }

    /// Gives addresses back, then pools. That a plugin does not take them keeps nobody from going on.
    pub(crate) fn give_back<'a>(
        &self,
        driver: &str,
        pools: impl IntoIterator<Item = &'a String>,
        leases: &[Lease],
    ) {
        let addresses = leases.iter().map(|Lease { pool, address, .. }| {
            ("IpamDriver.ReleaseAddress", json!({ "PoolID": pool, "Address": address }))
        });
        let pools = pools.into_iter().map(|id| ("IpamDriver.ReleasePool", json!({ "PoolID": id })));
        let mut questions = addresses.chain(pools).peekable();
        if questions.peek().is_none() {
            return;
        }
        let told = self.plugin(driver, Patience::None).and_then(|plugin| {
            questions.try_for_each(|(method, question)| {
                match ask::<Done>(&plugin, method, &question, Patience::None) {
                    Err(Failure::Unheard(error)) => Err(error),
                    Err(Failure::Refused(_, error)) => {
                        tracing::warn!(plugin = %driver, %question, error = %error.chain(), "a plugin does not take back what it gave");
                        Ok(())
                    }
                    Ok(Done {}) => Ok(()),
                }
            })
        });
        if let Err(error) = told {
            tracing::warn!(plugin = %driver, error = %error.chain(), "cannot give back what a plugin gave");
        }
    }
}

/// Whom pools are asked of, and for which network.
struct Source<'a> {
    plugin: &'a Plugin,
    space: &'a str,
    request: &'a CreateRequest,
    taken: &'a [IpNet],
}

impl Source<'_> {
    fn request_pool(&self, family: Family, wish: &PoolRequest) -> Result<Pool> {
        let options = self.request.ipam_options.clone().unwrap_or_default();
        let wish = [wish.subnet.as_str(), wish.ip_range.as_str()];
        Ok(request_pool(self.plugin, self.space, family, wish, &options)?)
    }
}

/// What the plugin calls the addresses of this host.
pub(super) fn space(plugin: &Plugin) -> Result<String> {
    let method = "IpamDriver.GetDefaultAddressSpaces";
    let spaces: Spaces = ask(plugin, method, &(), Patience::None)?;
    Ok(spaces.local_default_address_space.unwrap_or_default())
}

pub(super) fn request_pool(
    plugin: &Plugin,
    space: &str,
    family: Family,
    [subnet, ip_range]: [&str; 2],
    options: &BTreeMap<String, String>,
) -> Result<Pool, Failure> {
    let question = json!({
        "AddressSpace": space, "Pool": subnet, "SubPool": ip_range, "Options": options,
        "V6": family == Family::V6,
    });
    ask(plugin, "IpamDriver.RequestPool", &question, Patience::None)
}

/// What is said with a wish for the address that leads out.
pub(super) fn as_gateway() -> Value {
    json!({ TYPE: GATEWAY })
}

/// What is said with a wish for an endpoint's address.
pub(super) fn with_mac(mac: Option<Mac>) -> Value {
    mac.map_or_else(|| json!({}), |mac| json!({ MAC: mac.to_string() }))
}

pub(super) fn request(
    plugin: &Plugin,
    pool: &str,
    preferred: &str,
    options: Value,
    subnet: &IpNet,
) -> Result<Lease, Failure> {
    let question = json!({ "PoolID": pool, "Address": preferred, "Options": options });
    let told: Address = ask(plugin, "IpamDriver.RequestAddress", &question, Patience::None)?;
    let no_use = |why: String| Failure::Refused(200, Error::invalid(why));
    let text = told.address.unwrap_or_default();
    let (address, _) = text.split_once('/').unwrap_or((&text, ""));
    let address: IpAddr = address
        .parse()
        .map_err(|_| no_use(format!("invalid address from the IPAM driver: {text:?}")))?;
    if subnet.contains(&address) {
        return Ok(Lease { driver: plugin.name().to_owned(), pool: pool.to_owned(), address });
    }
    Err(no_use(format!("the IPAM driver's address {address} is not in its pool {subnet}")))
}
