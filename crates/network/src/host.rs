//! The host's side: its netlink sockets.

use std::sync::{Mutex, MutexGuard, PoisonError};

use stdx::Result;

use crate::netlink::Socket;
use crate::sysctl::Devices;

/// The network namespace the daemon was started in.
pub(crate) struct Host {
    route: Mutex<Socket>,
    farewell: Mutex<Socket>,
    /// The switches of its devices.
    pub(crate) devices: Devices,
}

impl Host {
    pub(crate) fn open() -> Result<Self> {
        Ok(Self {
            route: Mutex::new(Socket::route()?),
            farewell: Mutex::new(Socket::route()?),
            devices: Devices::open(),
        })
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
