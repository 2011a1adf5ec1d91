//! What a container sees: its root, its mounts, its devices; hidden and read-only paths.
//!
//! In reading order: [`plan`] decides, [`sources`] opens what is needed of the host, [`Assembly`] puts it together inside
//! the container's mount namespace, [`RootFd`] is how anything in there is reached.

mod attach;
mod cgroupfs;
mod copy_up;
mod devices;
mod mask;
mod options;
mod pivot;
mod plan;
mod root;
mod sources;

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags};
use stdx::{Context, Result};
use sys::mount::{Attr, Change, Propagation, Reach, mount_setattr};

pub(crate) use plan::{Mapping, Plan, bind_places};
pub(crate) use root::{Make, PROC_SUPER_MAGIC, RootFd, quoted};
pub(crate) use sources::Sources;

use crate::cgroup;

/// The words mounts may be described by, for whoever asks what is supported.
pub(crate) fn mount_options() -> Vec<String> {
    options::Options::known()
}

/// A container's file system on its way to being one. Lives in the container's mount namespace, before it is the root.
#[derive(Debug)]
pub(crate) struct Assembly<'a> {
    plan: &'a Plan,
    pub root: RootFd,
    /// The terminal file system mounted at `/dev/pts`, held so that no path leads us to another.
    pub devpts: Option<OwnedFd>,
    /// The procfs mounted at `/proc`, held for the same reason.
    pub proc: Option<OwnedFd>,
    /// Mounts to be made read-only when everything in them is in place.
    later_readonly: Vec<OwnedFd>,
}

impl<'a> Assembly<'a> {
    /// Puts root and mounts in place. The process must be in its final namespaces.
    pub(crate) fn new(
        plan: &'a Plan,
        sources: Sources,
        location: &cgroup::Location,
    ) -> Result<Self> {
        isolate()?;
        let root = pivot::place_root(sources.root)?;
        let mut assembly = Self {
            plan,
            root: RootFd::new(root),
            devpts: None,
            proc: None,
            later_readonly: Vec::new(),
        };
        for (mount, source) in plan.mounts.iter().zip(sources.mounts) {
            assembly.mount(mount, source, location).context(|| {
                format!(
                    "error mounting {} to rootfs at {}",
                    quoted(&mount.source),
                    quoted(&mount.destination)
                )
            })?;
        }
        if plan.populate_dev {
            devices::populate(&assembly.root, plan)?;
        }
        // Docker's WORKDIR need not exist in the image.
        if plan.cwd.is_absolute() {
            match assembly.root.find_or_make(&plan.cwd, Make::Directory) {
                // Whether it is one that can be entered is seen when it is entered, by the user who shall.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(assembly)
    }

    /// Mounts the terminal on `/dev/console`.
    pub(crate) fn mount_console(&self, terminal: &OwnedFd) -> Result<()> {
        devices::mount_console(&self.root, terminal)
    }

    /// Hides and protects what the plan says, then makes the root the root.
    pub(crate) fn finish(self) -> Result<()> {
        for path in &self.plan.readonly {
            mask::make_readonly(&self.root, path)?;
        }
        mask::hide(&self.root, &self.plan.masked)?;
        let readonly = Change { set: Attr::RDONLY, ..Change::default() };
        for mount in &self.later_readonly {
            mount_setattr(mount, Reach::Mount, &readonly)
                .context(|| "cannot make /dev read-only".to_owned())?;
        }
        pivot::enter(&self.root, self.plan.pivot)?;
        if let Some((propagation, reach)) = self.plan.root_propagation {
            let change = Change { propagation: Some(propagation), ..Change::default() };
            mount_setattr(&self.root, reach, &change)
                .context(|| "cannot set the propagation of the root".to_owned())?;
        }
        if self.plan.readonly_root {
            mount_setattr(&self.root, Reach::Mount, &readonly)
                .context(|| "cannot make the root read-only".to_owned())?;
        }
        Ok(())
    }
}

/// Nothing mounted or unmounted from here on is seen outside.
pub(crate) fn isolate() -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let host = rustix::fs::openat(CWD, "/", flags, Mode::empty())
        .context(|| "cannot open the root".to_owned())?;
    let change = Change { propagation: Some(Propagation::Slave), ..Change::default() };
    mount_setattr(&host, Reach::Tree, &change)
        .context(|| "cannot leave the propagation of mounts".to_owned())
}
