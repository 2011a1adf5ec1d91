//! A container's file system, for whoever reads it from outside: by descriptor, without a mount that anybody else can
//! see or that could be left behind.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::OpenTreeFlags;
use stdx::{Context, Error, Result};
use sys::process::CloneFlags;

use super::Container;

impl Container {
    /// The root of its tree. Of one that is up, the very mount it sees, without what is mounted below: a second overlay
    /// over the same writable layer would not be defined. Blocks.
    pub(crate) fn tree(&self) -> Result<OwnedFd> {
        let state = &self.record().state;
        if !state.phase.is_up() {
            return Ok(self.rooms.storage.snapshots.view(self.cell.id.as_str())?.root);
        }
        clone_of(state.pid, ".")
    }
}

/// A detached copy of what is mounted at `place`, below the root as process `pid` sees it. Blocks.
pub(crate) fn clone_of(pid: u32, place: &'static str) -> Result<OwnedFd> {
    // A mount can be cloned only from inside its own mount namespace, and a thread that enters one never comes back.
    let visitor =
        std::thread::Builder::new().name("visitor".to_owned()).spawn(move || visit(pid, place));
    let visitor = visitor.context(|| "cannot start a thread".to_owned())?;
    visitor.join().map_err(|_| Error::internal("the visitor of a container's mounts panicked"))?
}

fn visit(pid: u32, place: &str) -> Result<OwnedFd> {
    let context = || format!("cannot look into the mounts of process {pid}");
    let open = |path: String| {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).context(context)
    };
    let namespace = open(format!("/proc/{pid}/ns/mnt"))?;
    let root = open(format!("/proc/{pid}/root"))?;
    // What a thread shares with its process keeps it from changing namespaces alone.
    sys::ns::unshare(CloneFlags::FS).context(context)?;
    sys::ns::setns(namespace.as_fd(), CloneFlags::NEWNS).context(context)?;
    // The name belongs to the container: it leads nowhere but into its own tree.
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let place =
        rustix::fs::openat2(&root, place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
            .context(context)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(&place, "", flags).context(context)
}

/// A directory below `root`, which content cannot lead out of it; `None` when there is none.
pub(crate) fn directory_in(root: &OwnedFd, path: &str) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let relative = path.trim_start_matches('/');
    let relative = if relative.is_empty() { "." } else { relative };
    match rustix::fs::openat2(root, relative, flags, Mode::empty(), resolve) {
        Ok(directory) => Ok(Some(directory)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            Ok(None)
        }
        Err(errno) => Err(errno).context(|| format!("cannot open {path} in the container")),
    }
}
