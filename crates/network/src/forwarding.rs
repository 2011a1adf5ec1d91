//! Having the host forward packets, and no more of them than that takes.
//!
//! A host that did not forward becomes a router between all its devices when it does for us. Docker answers with a policy
//! of DROP for whatever it does not know; we refuse to forward between those devices that were there at that moment, and
//! leave alone what somebody sets up later.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};
use state::{Record, Store};
use stdx::{Context, Result};

use crate::sysctl;

/// A family for which we had the host forward packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Opened {
    family: Family,
    /// When: forwarding does not outlive the boot, or the namespace.
    life: String,
    /// The devices that were there.
    devices: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    fn switch(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4/ip_forward",
            Self::Ipv6 => "ipv6/conf/all/forwarding",
        }
    }
}

impl Record for Opened {
    const TABLE: &'static str = "forwarding";

    fn key(&self) -> String {
        self.family.switch().to_owned()
    }
}

/// Writes down what there is on a host that does not forward a family yet, for the rules that come first. `devices` are
/// those that are not ours. Tells whether it has to be opened.
pub(crate) fn prepare(
    store: &Store,
    family: Family,
    devices: impl FnOnce() -> Result<Vec<String>>,
) -> Result<bool> {
    let closed = sysctl::get(family.switch())?.is_some_and(|found| found == "0");
    if closed {
        store.put(&Opened { family, life: life()?, devices: devices()? })?;
    }
    Ok(closed)
}

/// Has the host forward packets of a family.
pub(crate) fn open(family: Family) -> Result<()> {
    if family == Family::Ipv6 {
        // A host that forwards does not listen to routers, and forgets the way out that they told.
        for device in sysctl::devices_told_by_routers() {
            let switch = format!("ipv6/conf/{device}/accept_ra");
            if sysctl::get(&switch)?.as_deref() == Some("1") {
                sysctl::set(&switch, "2")?;
            }
        }
    }
    sysctl::set(family.switch(), "1").context(|| "cannot enable IP forwarding".to_owned())
}

/// The devices that the host does not forward between, as long as it forwards because of us.
pub(crate) fn strangers(store: &Store, family: Family) -> Result<Vec<String>> {
    let Some(opened) = store.get::<Opened>(family.switch())? else { return Ok(Vec::new()) };
    Ok(if opened.life == life()? { opened.devices } else { Vec::new() })
}

/// This boot and this network namespace.
fn life() -> Result<String> {
    let failed = || "cannot tell this boot from others".to_owned();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context(failed)?;
    let namespace = fs::metadata("/proc/thread-self/ns/net").context(failed)?.ino();
    Ok(format!("{} {namespace}", boot.trim()))
}
