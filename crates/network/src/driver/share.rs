//! `macvlan` and `ipvlan`: containers share a device of the host, and its wire.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use stdx::{Context, Error, Result};

use super::{Driver, Inside, Namespace};
use crate::host::Host;
use crate::netlink::Batch;
use crate::netlink::route::{EADDRINUSE, EBUSY, EEXIST, EOPNOTSUPP, Link, Share};
use crate::records::{Endpoint, Network, ParentDevice, ParentOrigin, ShareMode};

/// How long a device may be there after its container: the kernel takes the namespaces of the dead apart when it finds the
/// time, and until then nobody else on the same parent has the address.
const DEPARTURE: Duration = Duration::from_secs(5);

pub(crate) struct ShareDriver {
    host: Arc<Host>,
}

impl ShareDriver {
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self { host }
    }

    fn parent(&self, network: &Network) -> Result<Link> {
        let parent = parent(network)?;
        if let Some(link) = self.host.route().link(&parent.name)? {
            return Ok(link);
        }
        let mut batch = Batch::new();
        match parent.origin {
            ParentOrigin::Existing => {
                return Err(Error::not_found(format!(
                    "the requested parent interface {} was not found on the Docker host",
                    parent.name
                )));
            }
            ParentOrigin::Dummy => batch.add_dummy(&parent.name),
            ParentOrigin::Vlan(id) => {
                let below = parent.name.split('.').next().unwrap_or_default();
                let device = self.host.route().link(below)?.ok_or_else(|| {
                    Error::not_found(format!(
                        "failed to find master interface {below} on the Docker host"
                    ))
                })?;
                batch.add_vlan(&parent.name, device.index, id);
            }
        }
        let kind = if parent.origin == ParentOrigin::Dummy { "dummy" } else { "vlan" };
        let mut replies = self.host.route().exchange(batch)?.into_iter();
        let reply = replies.next().expect("one reply");
        if reply.failure.as_ref().is_some_and(|failure| failure.errno == EOPNOTSUPP) {
            return Err(match parent.origin {
                ParentOrigin::Dummy => Error::not_implemented(
                    "the kernel of this host has no dummy devices: name a parent (-o parent=)",
                ),
                _ => unsupported(kind),
            });
        }
        reply
            .ok_or(&[EEXIST])
            .context(|| format!("failed to create {} {kind} link", parent.name))?;
        self.host
            .route()
            .link(&parent.name)?
            .context(|| format!("the device {} vanished", parent.name))
    }
}

impl Driver for ShareDriver {
    fn namespace(&self) -> Namespace {
        Namespace::Own
    }

    fn ready(&self, network: &Network) -> Result<()> {
        let kind = network.driver.as_str();
        if !self.host.route().knows(kind)? {
            return Err(unsupported(kind));
        }
        self.parent(network).map(drop)
    }

    fn remove(&self, network: &Network, others: &[Arc<Network>]) -> Result<()> {
        let parent = parent(network)?;
        let still_used = others
            .iter()
            .filter_map(|other| other.parent.as_ref())
            .any(|other| other.name == parent.name);
        if parent.origin == ParentOrigin::Existing || still_used {
            return Ok(());
        }
        self.host
            .route()
            .delete_links([parent.name.as_str()])
            .context(|| format!("cannot remove the device {}", parent.name))
    }

    fn connect(&self, network: &Network, endpoint: &Endpoint, inside: &mut Inside) -> Result<()> {
        let mode = parent(network)?.mode;
        let link = self.parent(network)?;
        let deadline = Instant::now() + DEPARTURE;
        loop {
            let mut batch = Batch::new();
            batch.add_share(&Share {
                parent: link.index,
                namespace: inside.namespace,
                container: &endpoint.ifname,
                mac: endpoint.mac.filter(|_| matches!(mode, ShareMode::Macvlan(_))),
                mode,
            });
            self.host
                .route()
                .execute(batch)
                .context(|| format!("failed to create the {} port", network.driver.as_str()))?;
            match inside.furnish(endpoint) {
                Err(err) if is_taken(&err) && Instant::now() < deadline => {
                    inside.drop_device(&endpoint.ifname)?;
                    pause();
                }
                furnished => return furnished,
            }
        }
    }

    fn disconnect(&self, _: &[Arc<Endpoint>]) -> Result<()> {
        Ok(())
    }
}

/// Whether another device on the parent has the address (ipvlan), or the hardware address (macvlan).
fn is_taken(err: &Error) -> bool {
    err.errno().is_some_and(|errno| [EADDRINUSE, EBUSY].contains(&errno))
}

#[expect(clippy::disallowed_methods, reason = "the kernel tells nobody when a namespace has gone")]
fn pause() {
    thread::sleep(Duration::from_millis(5));
}

fn parent(network: &Network) -> Result<&ParentDevice> {
    network.parent.as_ref().context(|| format!("network {} has no parent device", network.name))
}

fn unsupported(kind: &str) -> Error {
    Error::not_implemented(format!("the kernel of this host has no {kind} devices"))
}
