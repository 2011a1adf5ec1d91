//! An engine for a user who is not root: namespaces in which he is, and the process that stays outside of them.
//!
//! ```text
//!            host's namespaces                       the user's: user, mount, network
//!  gantry daemon ── enter() ─────────────────────▶  the same process: the daemon, root there
//!       │ executes once                                 │ launcher, shims, netd, containers
//!       ▼                                               │
//!  gantry-outside  ◀──── outside.sock: sockets ─────────┘
//!       ├─ anchor: a child that only lives in the namespaces, so that they have an address: /proc/<pid>/ns
//!       └─ pasta or slirp4netns: the way out of the network namespace
//! ```
//!
//! The daemon joins and can die; the process outside keeps what must survive it, and ends when nobody lives in the
//! namespaces any more. It knows nothing of containers: it gives sockets of the host's network to whoever asks in there, and
//! keeps the link up. What it started is written down, so that a successor finds it should it be killed itself.
//!
//! `ids` says who is whom inside, `link` what a link is told, both pure. `namespaces` makes them, `keeper` is the process,
//! `client` the daemon's half. `readiness` says what a host lacks.

mod client;
mod ids;
mod keeper;
mod link;
mod namespaces;
mod program;
mod protocol;
mod readiness;
mod record;

pub use client::{Outside, enter};
pub use keeper::main;
pub use link::Kind as LinkKind;
pub use protocol::{NAME, Settings};
pub use readiness::{Lack, lacks};
