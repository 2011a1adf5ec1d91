//! What kinds of network differ in: how a container is connected. One file a kind.

pub(crate) mod bridge;
mod host;
mod none;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use stdx::Result;

use crate::host::Host;
use crate::netlink::Socket;
use crate::records::{DriverKind, Endpoint, Network};

/// In order of calls: a network is made `ready`, containers `connect` and `disconnect`, it is `remove`d. Each may be
/// asked again for what it has done already.
pub(crate) trait Driver: Send + Sync {
    /// Where its containers live.
    fn namespace(&self) -> Namespace;

    /// Makes or mends what the network needs on the host.
    fn ready(&self, network: &Network) -> Result<()>;

    /// Takes away what `ready` made. Nothing is connected any more.
    fn remove(&self, network: &Network) -> Result<()>;

    /// Gives an endpoint its device, inside the container's namespace.
    fn connect(&self, network: &Network, endpoint: &Endpoint, inside: &mut Inside) -> Result<()>;

    /// Takes away what `connect` left on the host.
    fn disconnect(&self, endpoints: &[Arc<Endpoint>]) -> Result<()>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    Own,
    Host,
}

/// A container's namespace while it is furnished.
pub(crate) struct Inside<'a> {
    pub(crate) namespace: BorrowedFd<'a>,
    /// Opened in there.
    pub(crate) socket: Socket,
    /// Shall this endpoint's gateway be the default route?
    pub(crate) default_route: bool,
}

/// One of each.
pub(crate) struct Drivers {
    bridge: bridge::BridgeDriver,
    host: host::HostDriver,
    none: none::NoneDriver,
}

impl Drivers {
    pub(crate) fn new(host: &Arc<Host>) -> Self {
        Self {
            bridge: bridge::BridgeDriver::new(Arc::clone(host)),
            host: host::HostDriver,
            none: none::NoneDriver,
        }
    }

    pub(crate) fn of(&self, kind: DriverKind) -> &dyn Driver {
        match kind {
            DriverKind::Bridge => &self.bridge,
            DriverKind::Host => &self.host,
            DriverKind::Null => &self.none,
        }
    }
}
