//! A process is born in its namespaces: made, joined, or both.
//!
//! All new ones come from one `clone3`. Joining is done by the child itself; only what must be there *before* the others
//! are made (a user namespace to make them in, clocks to set) takes a process in the middle, which steps aside.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use oci::runtime::{NamespaceType, Spec, TimeOffset};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, WaitId, WaitIdOptions, WaitIdStatus, waitid};
use stdx::{Context, Error, Result};
use sys::process::{CloneArgs, CloneFlags, Fork, exit_now};

use crate::channel::{self, Message};
use crate::create::may_mount;
use crate::userns::in_initial_user_namespace;

/// Which namespaces a container has.
#[derive(Debug)]
pub(crate) struct Namespaces {
    new: CloneFlags,
    join: Vec<(NamespaceType, OwnedFd)>,
}

impl Namespaces {
    /// Those of the spec; `given` descriptors win over its paths.
    pub(crate) fn open(spec: &Spec, given: Vec<(NamespaceType, OwnedFd)>) -> Result<Self> {
        let mut namespaces = Self { new: CloneFlags::empty(), join: given };
        let linux = spec.linux_or_default();
        for (position, namespace) in linux.namespaces.iter().enumerate() {
            if linux.namespaces[..position].iter().any(|earlier| earlier.kind == namespace.kind) {
                return Err(Error::invalid(format!(
                    "malformed spec file: duplicated ns {:?}",
                    namespace.kind
                )));
            }
            if namespaces.joins(namespace.kind) {
                continue;
            }
            match &namespace.path {
                Some(path) if !path.as_os_str().is_empty() => {
                    let fd = rustix::fs::openat(
                        CWD,
                        path,
                        OFlags::RDONLY | OFlags::CLOEXEC,
                        Mode::empty(),
                    )
                    .context(|| format!("cannot join namespace {}", path.display()))?;
                    namespaces.join.push((namespace.kind, fd));
                }
                _ => namespaces.new |= flag(namespace.kind),
            }
        }
        if !namespaces.makes(NamespaceType::Mount) && !namespaces.joins(NamespaceType::Mount) {
            return Err(Error::invalid("a container needs a mount namespace of its own"));
        }
        Ok(namespaces)
    }

    pub(crate) fn makes(&self, kind: NamespaceType) -> bool {
        self.new.contains(flag(kind))
    }

    pub(crate) fn joins(&self, kind: NamespaceType) -> bool {
        self.join.iter().any(|(joined, _)| *joined == kind)
    }

    fn needs_middle(&self) -> bool {
        self.joins(NamespaceType::User)
            || self.makes(NamespaceType::Time)
            || self.joins(NamespaceType::Pid) && !may_come_back().unwrap_or(false)
            || self.makes(NamespaceType::User)
                && self.join.iter().any(|(kind, _)| *kind != NamespaceType::Pid)
    }

    /// What `clone3` makes. A cgroup namespace begins where its maker is, which is not yet the container's group; clocks are
    /// set before anybody lives by them.
    fn born_with(&self) -> CloneFlags {
        self.new.without(CloneFlags::NEWCGROUP | CloneFlags::NEWTIME)
    }

    /// The child's first act: joins what is still to be joined.
    pub(crate) fn enter(&self) -> Result<()> {
        if self.needs_middle() { Ok(()) } else { self.join_all(&[NamespaceType::Pid]) }
    }

    /// Joins all but the named kinds, the mount namespace last: until then paths are the host's.
    fn join_all(&self, but: &[NamespaceType]) -> Result<()> {
        let chosen = || self.join.iter().filter(|(kind, _)| !but.contains(kind));
        let mounts_last = chosen()
            .filter(|(kind, _)| *kind != NamespaceType::Mount)
            .chain(chosen().filter(|(kind, _)| *kind == NamespaceType::Mount));
        for (kind, fd) in mounts_last {
            sys::ns::setns(fd.as_fd(), flag(*kind))
                .context(|| format!("cannot join the {kind:?} namespace"))?;
        }
        Ok(())
    }

    pub(crate) fn joined(&self, kind: NamespaceType) -> Option<BorrowedFd<'_>> {
        self.join.iter().find(|(joined, _)| *joined == kind).map(|(_, fd)| fd.as_fd())
    }
}

pub(crate) fn flag(kind: NamespaceType) -> CloneFlags {
    match kind {
        NamespaceType::Pid => CloneFlags::NEWPID,
        NamespaceType::Network => CloneFlags::NEWNET,
        NamespaceType::Mount => CloneFlags::NEWNS,
        NamespaceType::Ipc => CloneFlags::NEWIPC,
        NamespaceType::Uts => CloneFlags::NEWUTS,
        NamespaceType::User => CloneFlags::NEWUSER,
        NamespaceType::Cgroup => CloneFlags::NEWCGROUP,
        NamespaceType::Time => CloneFlags::NEWTIME,
    }
}

/// Gives birth. An error is always the parent's: the child only ever comes back as [`Fork::Child`], and must call
/// [`Namespaces::enter`].
pub(crate) fn spawn(
    namespaces: &Namespaces,
    cgroup: Option<BorrowedFd>,
    offsets: &BTreeMap<String, TimeOffset>,
) -> Result<Fork> {
    if namespaces.needs_middle() {
        return through_middle(namespaces, cgroup, offsets);
    }
    let args = CloneArgs { flags: namespaces.born_with(), cgroup };
    born_in_pid_namespace(namespaces.joined(NamespaceType::Pid), &args)
}

/// A process cannot move to another pid namespace, it must be born there: the parent lends itself for the moment of the
/// birth, which costs two calls where a process in the middle would cost a fork.
pub(crate) fn born_in_pid_namespace(
    namespace: Option<BorrowedFd>,
    args: &CloneArgs,
) -> Result<Fork> {
    let clone = || {
        sys::process::clone3(args)
            .context(|| "cannot create the container's first process".to_owned())
    };
    let Some(namespace) = namespace else { return clone() };
    let own = rustix::fs::openat(
        CWD,
        "/proc/self/ns/pid",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .context(|| "cannot open our own pid namespace".to_owned())?;
    let lend = |to: BorrowedFd| {
        sys::ns::setns(to, CloneFlags::NEWPID)
            .context(|| "cannot join the pid namespace".to_owned())
    };
    lend(namespace)?;
    // Who is in there already sees the child from its first moment, and must not look into it (CVE-2016-9962): not being
    // dumpable is inherited.
    let dumpable = rustix::process::dumpable_behavior();
    let hide = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let born = hide.context(|| "unable to become undumpable".to_owned()).and_then(|()| clone());
    if matches!(born, Ok(Fork::Child)) {
        return born;
    }
    let shown = dumpable.and_then(rustix::process::set_dumpable_behavior);
    lend(own.as_fd())?;
    shown.context(|| "unable to become dumpable again".to_owned())?;
    born
}

/// As [`born_in_pid_namespace`], for whom nobody would let back into his own: by way of a process in the middle, and of
/// the container's user namespace where it has one.
pub(crate) fn born_for_good(
    target: BorrowedFd,
    user: bool,
    cgroup: Option<BorrowedFd>,
) -> Result<Fork> {
    let kinds = [(user, NamespaceType::User), (true, NamespaceType::Pid)];
    let join = kinds.into_iter().filter(|(wanted, _)| *wanted).map(|(_, kind)| {
        let held = target.try_clone_to_owned();
        Ok((kind, held.context(|| "cannot hold the container's process".to_owned())?))
    });
    let namespaces =
        Namespaces { new: CloneFlags::empty(), join: join.collect::<Result<Vec<_>>>()? };
    // As above: its root may look into who comes.
    let dumpable = rustix::process::dumpable_behavior();
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context(|| "unable to become undumpable".to_owned())?;
    let born = through_middle(&namespaces, cgroup, &BTreeMap::new());
    if !matches!(born, Ok(Fork::Child)) {
        let shown = dumpable.and_then(rustix::process::set_dumpable_behavior);
        shown.context(|| "unable to become dumpable again".to_owned())?;
    }
    born
}

/// Whether we could come back to our own pid namespace: it belongs to the host's root.
pub(crate) fn may_come_back() -> Result<bool> {
    Ok(in_initial_user_namespace() && may_mount()?)
}

fn through_middle(
    namespaces: &Namespaces,
    cgroup: Option<BorrowedFd>,
    offsets: &BTreeMap<String, TimeOffset>,
) -> Result<Fork> {
    let (ours, theirs) =
        sys::socket::pair().context(|| "cannot create a socket pair".to_owned())?;
    match sys::process::fork().context(|| "cannot fork".to_owned())? {
        Fork::Child => {
            drop(ours);
            // A panic must not climb into what the parent was doing when it made this copy.
            let born = catch_unwind(AssertUnwindSafe(|| middle(namespaces, cgroup, offsets)))
                .unwrap_or_else(|_| Err(Error::internal("the process in the middle panicked")));
            let sent = match born {
                Ok(Fork::Child) => return Ok(Fork::Child),
                Ok(Fork::Parent { pid, pidfd }) => {
                    let bytes = pid.as_raw_nonzero().get().to_le_bytes();
                    sys::socket::send_with_fds(
                        &theirs,
                        &[&b"p"[..], &bytes].concat(),
                        &[pidfd.as_fd()],
                    )
                }
                Err(error) => {
                    let (bytes, _) = channel::encode(&Message::Failed(error));
                    sys::socket::send_with_fds(&theirs, &bytes, &[])
                }
            };
            exit_now(i32::from(sent.is_err()))
        }
        Fork::Parent { pidfd: middle, .. } => {
            drop(theirs);
            let mut bytes = [0; 4096];
            let received = sys::socket::recv_with_fds(&ours, &mut bytes);
            reap(&middle)?;
            let received =
                received.context(|| "cannot hear the process in the middle".to_owned())?;
            let mut fds = received.fds.into_iter();
            match (&bytes[..received.bytes], fds.next()) {
                ([b'p', a, b, c, d], Some(pidfd)) => {
                    let pid = Pid::from_raw(i32::from_le_bytes([*a, *b, *c, *d]));
                    Ok(Fork::Parent {
                        pid: pid.context(|| "no process was born".to_owned())?,
                        pidfd,
                    })
                }
                (other, fd) => match channel::decode(other, fd) {
                    Ok(Message::Failed(error)) => Err(error),
                    _ => Err(Error::internal("the process in the middle died")),
                },
            }
        }
    }
}

/// In the middle: enters what the others shall belong to, sets the clocks, gives birth, and is done.
fn middle(
    namespaces: &Namespaces,
    cgroup: Option<BorrowedFd>,
    offsets: &BTreeMap<String, TimeOffset>,
) -> Result<Fork> {
    // What belongs to the host is joined while we are still its root; the rest once we are root in the joined one.
    let mut refused = Vec::new();
    for (kind, fd) in namespaces
        .join
        .iter()
        .filter(|(kind, _)| !matches!(kind, NamespaceType::User | NamespaceType::Mount))
    {
        match sys::ns::setns(fd.as_fd(), flag(*kind)) {
            Err(err)
                if err.raw_os_error() == Some(Errno::PERM.raw_os_error())
                    && namespaces.joins(NamespaceType::User) =>
            {
                refused.push(*kind);
            }
            other => other.context(|| format!("cannot join the {kind:?} namespace"))?,
        }
    }
    let mut cgroup = cgroup;
    if let Some(user) = namespaces.joined(NamespaceType::User) {
        // The container's root may not put anybody into a group of the host's: we go there, and the child is born there.
        if let Some(group) = cgroup.take() {
            let procs = rustix::fs::openat(
                group,
                "cgroup.procs",
                OFlags::WRONLY | OFlags::CLOEXEC,
                Mode::empty(),
            );
            procs
                .and_then(|procs| rustix::io::write(&procs, b"0"))
                .context(|| "cannot join the container's cgroup".to_owned())?;
        }
        sys::ns::setns(user, CloneFlags::NEWUSER)
            .context(|| "cannot join the User namespace".to_owned())?;
        become_root()?;
    }
    let others: Vec<NamespaceType> = namespaces
        .join
        .iter()
        .map(|(kind, _)| *kind)
        .filter(|kind| !refused.contains(kind))
        .collect();
    namespaces.join_all(&others)?;
    if namespaces.makes(NamespaceType::Time) {
        sys::ns::unshare(CloneFlags::NEWTIME)
            .context(|| "cannot create a time namespace".to_owned())?;
        if !offsets.is_empty() {
            fs::write("/proc/self/timens_offsets", clocks(offsets))
                .context(|| "cannot set the clocks".to_owned())?;
        }
    }
    if let Some(mounts) = namespaces.joined(NamespaceType::Mount) {
        sys::ns::setns(mounts, CloneFlags::NEWNS)
            .context(|| "cannot join the Mount namespace".to_owned())?;
    }
    let args = CloneArgs { flags: namespaces.born_with() | CloneFlags::PARENT, cgroup };
    sys::process::clone3(&args).context(|| "cannot create the container's first process".to_owned())
}

/// Root of the user namespace we are in, who need not be the one we were.
pub(crate) fn become_root() -> Result<()> {
    let (root, group) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    rustix::thread::set_thread_res_gid(group, group, group)
        .context(|| "cannot become the namespace's root group".to_owned())?;
    rustix::thread::set_thread_res_uid(root, root, root)
        .context(|| "cannot become the namespace's root".to_owned())
}

fn clocks(offsets: &BTreeMap<String, TimeOffset>) -> String {
    offsets.iter().fold(String::new(), |mut text, (clock, offset)| {
        let _infallible = writeln!(text, "{clock} {} {}", offset.secs, offset.nanosecs);
        text
    })
}

/// Waits for a child of ours to end and takes its status.
pub(crate) fn reap(pidfd: &OwnedFd) -> Result<Option<WaitIdStatus>> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            // Somebody has (a parent that ignores SIGCHLD).
            Err(Errno::CHILD) => return Ok(None),
            other => return other.context(|| "cannot wait for a child".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use oci::runtime::{Linux, Namespace};

    use super::*;

    fn spec(kinds: &[NamespaceType]) -> Spec {
        let namespaces = kinds.iter().map(|kind| Namespace { kind: *kind, path: None }).collect();
        Spec { linux: Some(Linux { namespaces, ..Linux::default() }), ..Spec::default() }
    }

    #[test]
    fn what_is_given_is_not_made() {
        let fd = OwnedFd::from(fs::File::open("/proc/self/ns/net").unwrap());
        let spec = spec(&[NamespaceType::Mount, NamespaceType::Network, NamespaceType::Cgroup]);
        let namespaces = Namespaces::open(&spec, vec![(NamespaceType::Network, fd)]).unwrap();
        assert!(
            namespaces.joins(NamespaceType::Network) && !namespaces.makes(NamespaceType::Network)
        );
        assert_eq!(namespaces.born_with(), CloneFlags::NEWNS);
        assert!(!namespaces.needs_middle());
    }

    #[test]
    fn refused() {
        assert!(Namespaces::open(&spec(&[NamespaceType::Pid]), vec![]).is_err());
        assert!(
            Namespaces::open(&spec(&[NamespaceType::Mount, NamespaceType::Mount]), vec![]).is_err()
        );
    }
}
