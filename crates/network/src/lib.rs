//! The network of containers: namespaces, bridges, addresses, the firewall, and the texts of `/etc/hosts` and
//! `/etc/resolv.conf`.
//!
//! Sits on stdx, sys, plugin and state; serves engine, builder and server. Everything is done by netlink within this process: no
//! helper program is ever run, and a whole change is one message batch where the kernel allows it. Whatever is made in
//! the kernel was written in `state` before, under a name that the record tells, so that [`Networks::recover`] can find
//! and release it. A network namespace lives by descriptors alone: it is gone with its last process.
//!
//! Start reading at [`Networks`]; what is remembered is in `records.rs`; the ruleset is a value in `firewall/rules.rs`.

mod apart;
mod attach;
mod attend;
mod bridges;
mod check;
mod config;
mod connect;
mod conntrack;
mod create;
mod cut;
mod dns;
mod doctor;
mod driver;
mod egress;
mod endpoint;
pub mod files;
mod firewall;
mod firewalld;
mod forwarding;
mod gateway;
mod host;
mod ipam;
mod leash;
mod make;
mod model;
pub mod netd;
mod netlink;
mod netns;
mod networks;
mod permit;
mod ports;
mod predefined;
mod proxy;
mod rate;
mod records;
mod release;
mod remote;
mod republish;
mod sysctl;
mod watch;
mod way_out;
mod words;

pub use attach::Attachment;
pub use attend::{Living, has_names};
pub use check::Finding;
pub use config::{AddressPool, Bridge, NetworkConfig};
pub use create::{CreateRequest, PoolRequest};
pub use doctor::{Diagnosis, Level, NetworkReport, PortReport, Reach, Report};
pub use egress::{Allowed, Egress, Whom};
pub use endpoint::{AttachRequest, EndpointRequest, PortRequest};
pub use firewall::Keeper;
pub use firewall::view::Mark;
pub use ipam::Usage;
pub use netns::{namespace_at, namespace_of};
pub use networks::Networks;
pub use rate::Rate;
pub use records::{
    BridgeDevice, DriverKind, Endpoint, GatewayMode, Ipam, IpamPool, IpvlanFlag, IpvlanMode, Lease,
    Link, Mac, MacvlanMode, Network, OverlayDevice, ParentDevice, ParentOrigin, Peer, Protocol,
    PublishedPort, RemoteEndpoint, RemoteRoute, Scope, ShareMode,
};
pub use words::listed;
