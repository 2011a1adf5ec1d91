//! Network namespaces: made on a thread that ends with the act, kept alive by descriptors alone.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;

use rustix::fs::fstatfs;
use stdx::{Context, Error, Result};
use sys::ns::{setns, unshare};
use sys::process::CloneFlags;

use crate::netlink::{Batch, Socket};

/// What `fstatfs` says of a namespace.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

/// Does a new namespace speak IPv6 by its devices' settings only, or also as a whole? Programs look at `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ipv6 {
    Off,
    On,
}

/// Makes a namespace with loopback up and IPv6 on nothing but loopback, or `given` so, then has `work` done inside it.
///
/// Namespaces belong to threads; this one leaves the host's and never comes back, so nobody else's is touched.
pub(crate) fn create<T: Send>(
    given: Option<OwnedFd>,
    ipv6: Ipv6,
    work: impl FnOnce(&OwnedFd, Socket) -> Result<T> + Send,
) -> Result<(OwnedFd, T)> {
    thread::scope(|scope| {
        let inside = move || {
            match given {
                Some(given) => setns(given.as_fd(), CloneFlags::NEWNET)
                    .context(|| "cannot enter a network namespace".to_owned())?,
                None => unshare(CloneFlags::NEWNET)
                    .context(|| "cannot make a network namespace".to_owned())?,
            }
            let namespace = own()?;
            ipv6_on_loopback_only(ipv6);
            let mut socket = Socket::route()?;
            let mut batch = Batch::new();
            batch.loopback_up();
            socket.execute(batch).context(|| "cannot bring loopback up".to_owned())?;
            let made = work(&namespace, socket)?;
            Ok((namespace, made))
        };
        thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, inside)
            .context(|| "cannot start a thread".to_owned())?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Has `work` done inside a namespace that is there already.
pub(crate) fn enter<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce(Socket) -> Result<T> + Send,
) -> Result<T> {
    thread::scope(|scope| {
        let inside = move || {
            setns(namespace, CloneFlags::NEWNET)
                .context(|| "cannot enter a network namespace".to_owned())?;
            work(Socket::route()?)
        };
        thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, inside)
            .context(|| "cannot start a thread".to_owned())?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The namespace of the calling thread.
pub(crate) fn own() -> Result<OwnedFd> {
    open(Path::new("/proc/thread-self/ns/net"))
}

/// The network namespace of a living process: what `container:<id>` joins.
pub fn namespace_of(pid: u32) -> Result<OwnedFd> {
    open(Path::new(&format!("/proc/{pid}/ns/net")))
}

/// The network namespace behind a path, such as another container's sandbox. Anything else there is refused.
pub fn namespace_at(path: &Path) -> Result<OwnedFd> {
    let namespace = open(path)?;
    let filesystem =
        fstatfs(&namespace).context(|| format!("cannot examine {}", path.display()))?;
    if filesystem.f_type != NSFS_MAGIC {
        return Err(Error::invalid(format!("{} is not a network namespace", path.display())));
    }
    Ok(namespace)
}

fn open(path: &Path) -> Result<OwnedFd> {
    File::open(path)
        .map(OwnedFd::from)
        .context(|| format!("cannot open the network namespace {}", path.display()))
}

/// A device without an IPv6 address shall not speak IPv6 (CVE-2024-32473); programs that listen on `::1` shall still
/// work. Devices that come later begin as `default` says, which follows `all`. A kernel without IPv6 has no such files.
fn ipv6_on_loopback_only(ipv6: Ipv6) {
    let settings: &[(&str, &str)] = match ipv6 {
        Ipv6::Off => &[("all", "1"), ("lo", "0")],
        Ipv6::On => &[("default", "1")],
    };
    for (device, disabled) in settings {
        let file = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
        if let Err(err) = fs::write(&file, disabled)
            && err.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%file, %err, "cannot restrict IPv6 in a container's network namespace");
        }
    }
}
