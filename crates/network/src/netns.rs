//! Network namespaces: made on a thread that ends with the act, kept alive by descriptors alone.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fs::fstatfs;
use stdx::{Context, Error, Result};
use sys::ns::{setns, unshare};
use sys::process::CloneFlags;

use crate::netlink::{Batch, Socket};
use crate::sysctl::Procfs;

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
            ipv6_on_loopback_only(ipv6)?;
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

/// How many are made in advance.
const READY: usize = 4;

/// Namespaces made before anybody asks, as most containers want them: loopback up, and IPv6 on nothing but loopback. They
/// have no name and need no record: each lives by a descriptor of this process and goes with it.
#[derive(Default)]
pub(crate) struct Ready(Mutex<Vec<OwnedFd>>);

impl Ready {
    fn lock(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes those that are missing.
    pub(crate) fn fill(&self) -> Result<()> {
        while self.lock().len() < READY {
            let (namespace, ()) = create(None, Ipv6::Off, |_, _| Ok(()))?;
            self.lock().push(namespace);
        }
        Ok(())
    }

    /// As [`create`], with one that is ready where there is one and none was given.
    pub(crate) fn create<T: Send>(
        &self,
        given: Option<OwnedFd>,
        ipv6: Ipv6,
        work: impl FnOnce(&OwnedFd, Socket) -> Result<T> + Send,
    ) -> Result<(OwnedFd, T)> {
        let fits = given.is_none() && ipv6 == Ipv6::Off;
        let ready = if fits { self.lock().pop() } else { None };
        let Some(namespace) = ready else { return create(given, ipv6, work) };
        let made = enter(namespace.as_fd(), |socket| work(&namespace, socket))?;
        Ok((namespace, made))
    }
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
/// work. Devices that come later begin as `default` says, which follows `all`.
fn ipv6_on_loopback_only(ipv6: Ipv6) -> Result<()> {
    let settings: &[(&str, &str)] = match ipv6 {
        Ipv6::Off => &[("all", "1"), ("lo", "0")],
        Ipv6::On => &[("default", "1")],
    };
    let proc = Procfs::open()?;
    for (device, disabled) in settings {
        let switch = format!("ipv6/conf/{device}/disable_ipv6");
        if let Err(err) = proc.set(&switch, disabled) {
            tracing::warn!(%switch, %err, "cannot restrict IPv6 in a container's network namespace");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn those_that_are_ready_are_used_once() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let ready = Ready::default();
        ready.fill().unwrap();
        ready.fill().unwrap();
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        let made: Vec<u64> = ready.lock().iter().map(inode).collect();
        assert_eq!(made.len(), READY);
        // One more than there are, and none of them twice.
        let mut seen = std::collections::BTreeSet::from([inode(&own().unwrap())]);
        for number in 0..=READY {
            let (namespace, inside) = ready
                .create(None, Ipv6::Off, |_, _| {
                    let disabled = fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6");
                    Ok((inode(&own()?), disabled.map_or(true, |text| text == "1\n")))
                })
                .unwrap();
            assert_eq!(inside, (inode(&namespace), true));
            assert!(seen.insert(inode(&namespace)));
            assert_eq!(made.contains(&inode(&namespace)), number < READY);
        }
        // Who speaks IPv6 gets one of his own.
        ready.fill().unwrap();
        ready.create(None, Ipv6::On, |_, _| Ok(())).unwrap();
        assert_eq!(ready.lock().len(), READY);
    }
}
