//! A container's file system with what is mounted into it, for `docker cp`: its root, its volumes and its binds, and none
//! of what the kernel or the container itself has mounted, as Docker has it.
//!
//! Everything is taken by descriptor: from the mount namespace of one that is up, from disk for one that is not. It is put
//! together in a mount namespace that one thread has for itself and that is gone when the thread is, so a container may
//! exchange any path for any link meanwhile: it hits nothing but its own files.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::MoveMountFlags;
use stdx::{Context, Error, Kind, Result};
use storage::layer;
use sys::mount::{Attr, Change, Propagation, Reach, mount_setattr};
use sys::process::CloneFlags;

use super::Container;
use super::mounts::{Recursive, Source, joined};
use super::plan::Plan;
use super::spec::What;
use super::state::Phase;
use super::tree::cloned;
use super::volumes::{Held, is_foreign};

/// What a view is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// What a view is made of, all of it attached nowhere.
pub(crate) struct Parts {
    root: OwnedFd,
    /// By target, those above before those below.
    mounts: Vec<(String, OwnedFd)>,
    /// A directory of ours that the view may cover where nobody sees it.
    at: PathBuf,
    /// Last, so that nothing of it is open any more when the plugins hear of its end.
    visit: Option<Visit>,
}

/// Plugins have their volumes mounted for somebody who looks into a container that is not up, and hear when he is done. If
/// it has come up meanwhile, they hear when it ends.
struct Visit(Container);

impl Visit {
    /// With the gate held, as what goes with it.
    fn begin(container: &Container) -> Self {
        container.cell.live().visits += 1;
        Self(container.clone())
    }

    /// It came to nothing, while the gate is still held.
    fn call_off(self) {
        self.0.end_visit();
        std::mem::forget(self);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let _gate = self.0.cell.gate.blocking_lock();
        self.0.end_visit();
    }
}

/// Files of ours that are mounted into every container that runs.
const FILES: [&str; 3] = ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts"];

impl Container {
    /// Takes what a view of the container is made of. Who wants to write to one that is not up holds its gate until the
    /// view is gone. Blocks.
    pub(crate) fn parts(&self, access: Access) -> Result<Parts> {
        let record = self.record();
        let id = &record.id;
        match record.state.phase {
            Phase::Removing => {
                return Err(Error::conflict(format!("container {id} is being removed")));
            }
            Phase::Dead => return Err(Error::conflict(format!("container {id} is dead"))),
            _ => {}
        }
        let plan = record.plan(&self.rooms.settings())?;
        let at = self.rooms.settings().exec_root.clone();
        // What is read shall have the owners that are on disk, and what is written those inside.
        let mapped = record.ids.is_some() && access == Access::Read;
        let mut visit = None;
        let (root, mut mounts) = if record.state.phase.is_up() && !mapped {
            let ours = FILES.map(str::to_owned);
            let theirs = joined(&plan.mounts, &record.of_others).into_iter();
            let theirs = theirs.filter(|mount| !is_tmpfs(&mount.source));
            let places = ours.into_iter().chain(theirs.map(|mount| mount.target.clone()));
            let living = self.living_tree(places.collect())?;
            (living.root, living.mounts)
        } else {
            if !record.state.phase.is_up() && record.mounts.iter().any(is_foreign) {
                visit = Some(Visit::begin(self));
            }
            let taken = self
                .mounts_at_rest(&plan)
                .and_then(|mounts| Ok((self.tree_at_rest(access, &plan, &mounts)?, mounts)));
            match (taken, visit.take()) {
                (Ok(taken), begun) => {
                    visit = begun;
                    taken
                }
                (Err(error), begun) => {
                    if let Some(begun) = begun {
                        begun.call_off();
                    }
                    return Err(error);
                }
            }
        };
        mounts.sort_by_key(|(target, _)| target.matches('/').count());
        Ok(Parts { root, mounts, at, visit })
    }

    fn end_visit(&self) {
        let last = {
            let mut live = self.cell.live();
            live.visits -= 1;
            live.visits == 0
        };
        let record = self.record();
        if last && !record.state.phase.is_up() && !record.gone {
            self.unmount_foreign();
        }
    }

    /// The volumes and binds of a container that is not up.
    fn mounts_at_rest(&self, plan: &Plan) -> Result<Vec<(String, OwnedFd)>> {
        let mut held = Held::default();
        let mut mounts = Vec::new();
        for mount in self.resolve_mounts(&self.record(), plan, None, &mut held)? {
            let What::Bind { source, recursive, .. } = mount.what else { continue };
            let ours = held.trees.iter().position(|(place, _)| *place == *mount.target);
            let words = || format!("cannot look into {}", source.display());
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let tree = match ours {
                Some(index) => held.trees.swap_remove(index).1,
                None => {
                    let place = rustix::fs::open(&source, flags, Mode::empty()).context(words)?;
                    cloned(&place, recursive != Recursive::Disabled).context(words)?
                }
            };
            if mount.read_only {
                let reach =
                    if recursive == Recursive::Writable { Reach::Mount } else { Reach::Tree };
                close(&tree, reach)?;
            }
            mounts.push((mount.target, tree));
        }
        Ok(mounts)
    }

    fn tree_at_rest(
        &self,
        access: Access,
        plan: &Plan,
        mounts: &[(String, OwnedFd)],
    ) -> Result<OwnedFd> {
        let snapshots = &self.rooms.storage.snapshots;
        let id = self.cell.id.as_str();
        let missing = |root: BorrowedFd<'_>, target: &str| {
            let found = layer::Place::find(root, target.as_bytes());
            found.is_err_and(|error| error.kind() == Kind::NotFound)
        };
        let mut view = snapshots.view(id)?;
        let places: Vec<_> =
            mounts.iter().filter(|(target, _)| missing(view.as_fd(), target)).collect();
        if access == Access::Write || !places.is_empty() {
            let writable = snapshots.view_writable(id)?;
            for (target, tree) in places {
                let stat =
                    rustix::fs::fstat(tree).context(|| format!("cannot look at {target}"))?;
                let kind = match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => FileType::Directory,
                    _ => FileType::RegularFile,
                };
                layer::make(writable.as_fd(), target.as_bytes(), kind)?;
            }
            view = match access {
                Access::Write => writable,
                Access::Read => {
                    drop(writable);
                    snapshots.view(id)?
                }
            };
        }
        let root = if view.mounted { view.root } else { cloned(&view.root, false)? };
        if plan.read_only {
            close(&root, Reach::Mount)?;
        }
        Ok(root)
    }
}

impl Container {
    /// A place in a mount that is attached nowhere, as a mount of its own. Content cannot lead out of it. Blocks.
    pub(crate) fn part_of(&self, tree: OwnedFd, below: &str) -> Result<OwnedFd> {
        let at = self.rooms.settings().exec_root.clone();
        let below = below.to_owned();
        let (tell, told) = std::sync::mpsc::channel();
        let parts = Parts { root: tree, mounts: Vec::new(), at, visit: None };
        let looking = std::thread::Builder::new().name("view".to_owned()).spawn(move || {
            let part = parts.attach_root().and_then(|()| {
                let resolve =
                    rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let place =
                    rustix::fs::openat2(&parts.root, &*below, flags, Mode::empty(), resolve);
                let place = place.map_err(|_| {
                    Error::invalid(format!(
                        "cannot access path {below}: it is not a plain path inside what is mounted"
                    ))
                })?;
                cloned(&place, true)
            });
            let _gone = tell.send(part);
        });
        looking.context(|| "cannot start a thread".to_owned())?;
        told.recv().map_err(|_| Error::internal("the thread that looked into a mount panicked"))?
    }
}

impl Parts {
    /// Puts the view together and passes its root to `work`, on a thread that ends with it.
    pub(crate) fn look(
        self,
        work: impl FnOnce(Result<BorrowedFd<'_>>) + Send + 'static,
    ) -> Result<()> {
        let span = tracing::Span::current();
        let mut parts = self;
        let visit = parts.visit.take();
        let looking = move || {
            let _in_span = span.entered();
            let together = parts.put_together();
            work(together.map(|()| parts.root.as_fd()));
        };
        let words = || "cannot start a thread".to_owned();
        let thread = || std::thread::Builder::new().name("view".to_owned());
        let Some(visit) = visit else {
            return thread().spawn(looking).map(drop).context(words);
        };
        // With the thread that looks goes its mount namespace: then nothing holds what plugins have mounted.
        let waiting = move || {
            match thread().spawn(looking) {
                Ok(looking) => drop(looking.join()),
                Err(error) => tracing::warn!(%error, "cannot start a thread"),
            }
            drop(visit);
        };
        thread().spawn(waiting).map(drop).context(words)
    }

    fn put_together(&self) -> Result<()> {
        let words = || "cannot put the container's file system together".to_owned();
        if self.mounts.is_empty() {
            return Ok(());
        }
        self.attach_root()?;
        for (target, tree) in &self.mounts {
            match place_in(&self.root, target) {
                Ok(place) => attach(tree, &place)
                    .context(|| format!("cannot mount at {target}"))
                    .context(words)?,
                // The container has taken it away.
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
                Err(errno) => return Err(errno).context(words),
            }
        }
        Ok(())
    }

    /// Gives the root a place in a mount namespace of this thread's own.
    fn attach_root(&self) -> Result<()> {
        let words = || "cannot put the container's file system together".to_owned();
        sys::ns::unshare(CloneFlags::FS | CloneFlags::NEWNS).context(words)?;
        let alone = Change { propagation: Some(Propagation::Private), ..Change::default() };
        let host = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        mount_setattr(host.context(words)?, Reach::Tree, &alone).context(words)?;
        let at = rustix::fs::open(&self.at, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        attach(&self.root, &at.context(words)?).context(words)
    }
}

fn place_in(root: &OwnedFd, target: &str) -> Result<OwnedFd, rustix::io::Errno> {
    let target = target.trim_start_matches('/').as_bytes();
    storage::beneath::open(root.as_fd(), target, OFlags::PATH)
}

fn attach(tree: &OwnedFd, place: &OwnedFd) -> Result<(), rustix::io::Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", place, "", flags)
}

/// Makes a detached mount read-only.
fn close(tree: &OwnedFd, reach: Reach) -> Result<()> {
    let closed = Change { set: Attr::RDONLY, ..Change::default() };
    mount_setattr(tree, reach, &closed).context(|| "cannot make a mount read-only".to_owned())
}

fn is_tmpfs(source: &Source) -> bool {
    matches!(source, Source::Tmpfs { .. })
}
