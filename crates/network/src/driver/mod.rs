//! What kinds of network differ in: how a container is connected. One file a kind.

pub(crate) mod bridge;
mod furnish;
mod host;
mod none;
mod overlay;
mod share;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use stdx::Result;

use crate::config::NetworkConfig;
use crate::host::Host;
use crate::netlink::Socket;
use crate::records::{DriverKind, Endpoint, Network};
use crate::remote::RemoteDriver;

/// In order of calls: a network is made `ready`, containers `connect` and `disconnect`, it is `remove`d. Each may be
/// asked again for what it has done already.
pub(crate) trait Driver: Send + Sync {
    /// Where its containers live.
    fn namespace(&self) -> Namespace;

    /// Makes the network, once.
    fn create(&self, network: &Network) -> Result<()> {
        self.ready(network)
    }

    /// Makes or mends what the network needs on the host.
    fn ready(&self, network: &Network) -> Result<()>;

    /// Takes away what `ready` made. Nothing is connected any more; `others` are the networks that stay.
    fn remove(&self, network: &Network, others: &[Arc<Network>]) -> Result<()>;

    /// Gives an endpoint its device, inside the container's namespace.
    fn connect(&self, network: &Network, endpoint: &Endpoint, inside: &mut Inside) -> Result<()>;

    /// Takes away what `connect` left on the host. What is inside goes with the namespace, or by
    /// [`Inside::drop_device`].
    fn disconnect(&self, endpoints: &[Arc<Endpoint>]) -> Result<()>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    Own,
    Host,
}

/// A container's namespace while it is furnished, by a thread that is in it.
pub(crate) struct Inside<'a> {
    pub(crate) namespace: BorrowedFd<'a>,
    /// Opened in there.
    pub(crate) socket: Socket,
    /// We made it, and nobody has been there yet: a device that comes begins without IPv6.
    pub(crate) untouched: bool,
}

/// One of each.
pub(crate) struct Drivers {
    bridge: bridge::BridgeDriver,
    host: host::HostDriver,
    none: none::NoneDriver,
    share: share::ShareDriver,
    overlay: overlay::OverlayDriver,
    pub(crate) remote: RemoteDriver,
}

impl Drivers {
    pub(crate) fn new(host: &Arc<Host>, config: &NetworkConfig) -> Self {
        Self {
            bridge: bridge::BridgeDriver::new(Arc::clone(host)),
            host: host::HostDriver,
            none: none::NoneDriver,
            share: share::ShareDriver::new(Arc::clone(host)),
            overlay: overlay::OverlayDriver::new(Arc::clone(host), config.namespaces.clone()),
            remote: RemoteDriver::new(config.plugins.clone(), Arc::clone(host)),
        }
    }

    pub(crate) fn of(&self, kind: DriverKind) -> &dyn Driver {
        match kind {
            DriverKind::Bridge => &self.bridge,
            DriverKind::Host => &self.host,
            DriverKind::Null => &self.none,
            DriverKind::Macvlan | DriverKind::Ipvlan => &self.share,
            DriverKind::Overlay => &self.overlay,
            DriverKind::Plugin => &self.remote,
        }
    }
}
