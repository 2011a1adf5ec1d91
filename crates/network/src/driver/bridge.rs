//! `bridge`: a bridge on the host, and a pair of devices for each container.

use std::sync::Arc;

use ipnet::Ipv4Net;
use stdx::{Context, Error, Result};

use super::{Driver, Inside, Namespace};
use crate::host::Host;
use crate::netlink::Batch;
use crate::netlink::route::{EEXIST, Link, Pair, link_of};
use crate::records::{BridgeDevice, Endpoint, Mac, Network};

pub(crate) struct BridgeDriver {
    host: Arc<Host>,
}

impl BridgeDriver {
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self { host }
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
                batch.add_bridge(
                    &device.name,
                    device.address.map(|ip| Mac::of(ip.addr())),
                    device.mtu,
                );
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
        if !device.ours {
            return Ok(link);
        }
        for address in route.addresses(link.index)? {
            if Some(address) != device.address {
                route.drop_address(link.index, address)?;
            }
        }
        let mut batch = Batch::new();
        batch.bridge_up(&device.name, device.mtu);
        if let Some(address) = device.address {
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
        let device = device(network)?;
        self.make(device).map(drop).context(|| format!("cannot set up the bridge {}", device.name))
    }

    fn remove(&self, network: &Network) -> Result<()> {
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
        let ip = endpoint.ip.context(|| "an endpoint on a bridge has an address".to_owned())?;
        let address =
            Ipv4Net::new(ip, endpoint.prefix).map_err(|err| Error::internal(err.to_string()))?;
        let bridge = self.index(network)?;

        let mut batch = Batch::new();
        batch.add_pair(&Pair {
            host: &endpoint.host_device(),
            bridge,
            namespace: inside.namespace,
            container: &endpoint.ifname,
            mac: endpoint.mac.unwrap_or_else(|| Mac::of(ip)),
            mtu: device.mtu,
            isolated: !device.icc,
        });
        self.host
            .route()
            .execute(batch)
            .context(|| format!("cannot add the pair {}", endpoint.host_device()))?;

        let failed = || format!("cannot configure {}", endpoint.ifname);
        let mut batch = Batch::new();
        batch.link_up(&endpoint.ifname);
        batch.get_link(&endpoint.ifname);
        let mut replies = inside.socket.exchange(batch)?.into_iter();
        replies.next().expect("two replies").ok().context(failed)?;
        let link = link_of(replies.next().expect("two replies"))?.context(failed)?;
        let mut batch = Batch::new();
        batch.add_address(link.index, address);
        if let (Some(gateway), true) = (endpoint.gateway, inside.default_route) {
            batch.add_default_route(gateway);
        }
        inside.socket.execute(batch).context(failed)
    }

    fn disconnect(&self, endpoints: &[Arc<Endpoint>]) -> Result<()> {
        let names: Vec<String> = endpoints.iter().map(|endpoint| endpoint.host_device()).collect();
        self.host.farewell().delete_links(names.iter().map(String::as_str))
    }
}

fn device(network: &Network) -> Result<&BridgeDevice> {
    network.bridge.as_ref().context(|| format!("network {} has no bridge", network.name))
}
