//! A container's file system, for whoever reads it from outside: by descriptor, without a mount that anybody else can
//! see or that could be left behind.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use stdx::{Context, Error, Result};
use sys::process::CloneFlags;

use super::Container;

impl Container {
    /// The root of its tree, not to be written to. Of one that is up, the very mount it sees, without what is mounted
    /// below; but where its users are not the host's, the owners that are on disk. Blocks.
    pub(crate) fn tree(&self) -> Result<OwnedFd> {
        let record = self.record();
        if !record.state.phase.is_up() || record.ids.is_some() {
            return Ok(self.rooms.storage.snapshots.view(self.cell.id.as_str())?.root);
        }
        Ok(self.living_tree(Vec::new())?.root)
    }

    /// The root of one that is up as it sees it, and what is mounted at `places` of it. Blocks.
    pub(crate) fn living_tree(&self, places: Vec<String>) -> Result<Living> {
        let pid = self.record().state.pid;
        let living = visited(pid, move |root| {
            let mounts = places.into_iter().filter_map(|place| {
                let mounted = mounted_at(root, &place).transpose()?;
                Some(mounted.map(|tree| (place, tree)))
            });
            Ok(Living { mounts: mounts.collect::<Result<_>>()?, root: cloned(root, false)? })
        })?;
        // Its process was looked at by its number. Only while that process lives is the number its own, and only its parent
        // knows.
        let state = self.shim()?.state()?;
        if state.pid != pid || state.exit.is_some() {
            return Err(Error::conflict(format!("container {} is not running", self.cell.id)));
        }
        Ok(living)
    }
}

/// Mounts of a container that is up, attached nowhere.
pub(crate) struct Living {
    pub(crate) root: OwnedFd,
    /// What is mounted in it, by target.
    pub(crate) mounts: Vec<(String, OwnedFd)>,
}

/// A detached copy of what is mounted at `place`, below the root as process `pid` sees it. Blocks.
pub(crate) fn clone_of(pid: u32, place: &'static str) -> Result<OwnedFd> {
    visited(pid, move |root| cloned(&open_in(root, place)?, false))
}

/// What `look` finds below the root as process `pid` sees it, from inside its mount namespace: only there can a mount be
/// cloned. A thread that enters one never comes back.
fn visited<T: Send + 'static>(
    pid: u32,
    look: impl FnOnce(&OwnedFd) -> Result<T> + Send + 'static,
) -> Result<T> {
    let visitor = std::thread::Builder::new().name("visitor".to_owned()).spawn(move || {
        let context = || format!("cannot look into the mounts of process {pid}");
        let open = |path: String| {
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).context(context)
        };
        let namespace = open(format!("/proc/{pid}/ns/mnt"))?;
        let root = open(format!("/proc/{pid}/root"))?;
        // What a thread shares with its process keeps it from changing namespaces alone.
        sys::ns::unshare(CloneFlags::FS).context(context)?;
        sys::ns::setns(namespace.as_fd(), CloneFlags::NEWNS).context(context)?;
        look(&root).context(context)
    });
    let visitor = visitor.context(|| "cannot start a thread".to_owned())?;
    visitor.join().map_err(|_| Error::internal("the visitor of a container's mounts panicked"))?
}

/// The name belongs to the container: it leads nowhere but into its own tree.
fn open_in(root: &OwnedFd, place: &str) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let place = place.trim_start_matches('/');
    rustix::fs::openat2(root, place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// What is mounted there, with what is mounted below it; nothing, where the container has put something else.
fn mounted_at(root: &OwnedFd, place: &str) -> Result<Option<OwnedFd>> {
    let place = match open_in(root, place) {
        Ok(place) => place,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(&place, "", flags, StatxFlags::TYPE)?;
    match stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        true => cloned(&place, true).map(Some),
        false => Ok(None),
    }
}

/// A detached copy of a mount, alone or with all below it, that hears of nothing that happens to the first.
pub(crate) fn cloned(mount: &OwnedFd, with_all_below: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if with_all_below {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let clone = rustix::mount::open_tree(mount, "", flags)?;
    let alone = sys::mount::Change {
        propagation: Some(sys::mount::Propagation::Private),
        ..sys::mount::Change::default()
    };
    sys::mount::mount_setattr(&clone, sys::mount::Reach::Tree, &alone)?;
    Ok(clone)
}

/// A directory below `root`, which content cannot lead out of it; `None` when there is none.
pub(crate) fn directory_in(root: &OwnedFd, path: &str) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let relative = path.trim_start_matches('/');
    let relative = if relative.is_empty() { "." } else { relative };
    match rustix::fs::openat2(root, relative, flags, Mode::empty(), resolve) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno).context(|| format!("cannot open {path} in the container")),
    }
}
