//! `bridge`: a bridge on the host, and a pair of devices for each container.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::{IpNet, Ipv6Net};
use stdx::{Context, Error, Result};

use super::{Driver, Inside, Namespace};
use crate::host::Host;
use crate::netlink::Batch;
use crate::netlink::route::{EEXIST, Link, Pair, link_of};
use crate::records::{BridgeDevice, Endpoint, Mac, Network};
use crate::{rate, sysctl};

pub(crate) struct BridgeDriver {
    host: Arc<Host>,
    /// Asked when a network is made ready: containers are connected from within their own namespaces.
    isolating: AtomicBool,
}

impl BridgeDriver {
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self { host, isolating: AtomicBool::new(true) }
    }

    /// The bridge's index, of a bridge that somebody may have removed since.
    fn index(&self, network: &Network) -> Result<u32> {
        let device = device(network)?;
        if let Some(link) = self.host.route().link(&device.name)? {
            return Ok(link.index);
        }
        tracing::warn!(bridge = %device.name, network = %network.name, "the bridge is gone; making it again");
        self.make(device).map(|link| link.index)
    }

    fn make(&self, device: &BridgeDevice) -> Result<Link> {
        let mut route = self.host.route();
        let link = match route.link(&device.name)? {
            Some(link) => link,
            None if device.ours => {
                let mut batch = Batch::new();
                batch.add_bridge(&device.name, mac(device), device.mtu);
                batch.get_link(&device.name);
                let mut replies = route.exchange(batch)?.into_iter();
                replies.next().expect("two replies").ok_or(&[EEXIST])?;
                link_of(replies.next().expect("two replies"))?
                    .context(|| format!("the bridge {} vanished", device.name))?
            }
            None => {
                return Err(Error::not_found(format!("the bridge {} does not exist", device.name)));
            }
        };
        if link.kind != "bridge" {
            return Err(Error::conflict(format!("device {} is not a bridge", device.name)));
        }
        let wanted = addresses(device);
        if device.address6.is_some() || device.ours {
            set_ipv6(device);
        }
        if device.ours {
            let link_local =
                |ip: IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
            for address in route.addresses(link.index)? {
                if !wanted.contains(&address) && !link_local(address.addr()) {
                    route.drop_address(link.index, address)?;
                }
            }
        }
        let mut batch = Batch::new();
        if device.ours {
            batch.bridge_up(&device.name, device.mtu);
        } else {
            batch.link_up(&device.name);
        }
        for address in wanted {
            batch.add_address(link.index, address);
        }
        for reply in route.exchange(batch)? {
            reply.ok_or(&[EEXIST])?;
        }
        Ok(link)
    }
}

impl Driver for BridgeDriver {
    fn namespace(&self) -> Namespace {
        Namespace::Own
    }

    fn ready(&self, network: &Network) -> Result<()> {
        self.isolating.store(must_be_isolated()?, Ordering::Relaxed);
        let device = device(network)?;
        self.make(device).map(drop).context(|| format!("cannot set up the bridge {}", device.name))
    }

    fn remove(&self, network: &Network, _: &[Arc<Network>]) -> Result<()> {
        let device = device(network)?;
        if !device.ours {
            return Ok(());
        }
        self.host
            .route()
            .delete_links([device.name.as_str()])
            .context(|| format!("cannot remove the bridge {}", device.name))
    }

    fn connect(&self, network: &Network, endpoint: &Endpoint, inside: &mut Inside) -> Result<()> {
        let device = device(network)?;
        let bridge = self.index(network)?;
        let mut batch = Batch::new();
        batch.add_pair(&Pair {
            host: &endpoint.host_device(),
            bridge,
            namespace: inside.namespace,
            container: &endpoint.ifname,
            mac: endpoint.mac.context(|| "an endpoint on a bridge has a MAC address".to_owned())?,
            mtu: device.mtu,
            isolated: !device.icc && self.isolating.load(Ordering::Relaxed),
        });
        self.host
            .route()
            .execute(batch)
            .context(|| format!("cannot add the pair {}", endpoint.host_device()))?;
        rate::apply(&self.host, endpoint, device.mtu)?;
        inside.furnish(endpoint)
    }

    fn disconnect(&self, endpoints: &[Arc<Endpoint>]) -> Result<()> {
        let detoured = endpoints.iter().filter(|endpoint| endpoint.rate.is_some());
        let detours = detoured.map(|endpoint| rate::detour_of(endpoint));
        let names: Vec<String> =
            endpoints.iter().map(|endpoint| endpoint.host_device()).chain(detours).collect();
        self.host.farewell().delete_links(names.iter().map(String::as_str))
    }
}

/// Ports that may not talk are kept apart by the bridge, unless rules see all that it carries: those know that a published
/// port may be asked for, while the bridge would not carry what was translated already.
pub(crate) fn must_be_isolated() -> Result<bool> {
    let [all, _] = sysctl::bridges_are_filtered()?;
    Ok(!all)
}

fn device(network: &Network) -> Result<&BridgeDevice> {
    network.bridge.as_ref().context(|| format!("network {} has no bridge", network.name))
}

/// Stable where there is an address to make it from.
fn mac(device: &BridgeDevice) -> Mac {
    let v4 = device.address.map(|net| net.addr().into());
    v4.or(device.address6.map(|net| net.addr().into())).map_or_else(Mac::random, Mac::of)
}

/// What the host has on the bridge. With IPv6 a router is spoken to at its link-local address, too.
fn addresses(device: &BridgeDevice) -> Vec<IpNet> {
    let link_local = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 64);
    let v6 = device.address6.map(|net| [net.into(), link_local.into()]);
    device.address.map(IpNet::from).into_iter().chain(v6.into_iter().flatten()).collect()
}

/// The host speaks IPv6 on the bridge where it has an address, and nowhere else; it believes nobody who says that he is a
/// router.
fn set_ipv6(device: &BridgeDevice) {
    let disabled = if device.address6.is_some() { "0" } else { "1" };
    for (setting, value) in [("accept_ra", "0"), ("disable_ipv6", disabled)] {
        let file = format!("/proc/sys/net/ipv6/conf/{}/{setting}", device.name);
        // A kernel without IPv6 has no such files.
        if let Err(err) = std::fs::write(&file, value)
            && err.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%file, %err, "cannot set a bridge's IPv6");
        }
    }
}
