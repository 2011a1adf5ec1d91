//! The host's side: its netlink sockets and the one switch we turn.

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

use stdx::{Context, Result};

use crate::netlink::Socket;

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const IPV6_FORWARD: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// The network namespace the daemon was started in.
pub(crate) struct Host {
    route: Mutex<Socket>,
    farewell: Mutex<Socket>,
}

impl Host {
    pub(crate) fn open() -> Result<Self> {
        Ok(Self { route: Mutex::new(Socket::route()?), farewell: Mutex::new(Socket::route()?) })
    }

    /// Held for one exchange with the kernel, which does one at a time anyway.
    pub(crate) fn route(&self) -> MutexGuard<'_, Socket> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For devices that go. The kernel answers when nobody can see them any more (`rcu_barrier` in `netdev_run_todo`: 15 ms,
    /// not under its lock), which whoever connects meanwhile need not wait for.
    pub(crate) fn farewell(&self) -> MutexGuard<'_, Socket> {
        self.farewell.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the host forward packets between its devices, when it does not yet.
pub(crate) fn enable_forwarding() -> Result<()> {
    enable(IP_FORWARD)
}

/// As [`enable_forwarding`], for IPv6.
pub(crate) fn enable_forwarding6() -> Result<()> {
    enable(IPV6_FORWARD)
}

fn enable(switch: &str) -> Result<()> {
    let failed = || "cannot enable IP forwarding".to_owned();
    if fs::read_to_string(switch).context(failed)?.trim() == "0" {
        fs::write(switch, "1").context(failed)?;
        tracing::info!(switch, "enabled IP forwarding");
    }
    Ok(())
}
