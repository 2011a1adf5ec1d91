//! One mount comes to its place in the container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};
use stdx::{Context, Error, Result};
use sys::mount::{Attr, Change, Propagation, Reach, mount_setattr};

use super::plan::{Kind, PlannedMount};
use super::root::{Found, Make, RootFd, is_procfs, quoted};
use super::sources::{OPTION_MAX, clone_tree, told};
use super::{Assembly, cgroupfs, copy_up};
use crate::cgroup;

impl Assembly<'_> {
    pub(super) fn mount(
        &mut self,
        mount: &PlannedMount,
        source: Option<OwnedFd>,
        location: &cgroup::Location,
    ) -> Result<()> {
        match &mount.kind {
            Kind::Bind => {
                let source = source.context(|| "nothing was opened to be bound".to_owned())?;
                let kind = FileType::from_raw_mode(rustix::fs::fstat(&source)?.st_mode);
                let make = if kind == FileType::Directory { Make::Directory } else { Make::File };
                attach_to(&source, &place(&self.root, &mount.destination, make)?)
            }
            Kind::Proc => {
                let proc = self.mount_new(mount, "proc", &real_directory(&self.root, mount)?)?;
                if mount.destination == Path::new("/proc") {
                    self.proc = Some(proc);
                }
                Ok(())
            }
            Kind::Sysfs => self.mount_sysfs(mount),
            Kind::Tmpfs => self.mount_tmpfs(mount),
            Kind::Devpts => {
                let devpts = self.mount_new(mount, "devpts", &self.directory(mount)?)?;
                if mount.destination == Path::new("/dev/pts") {
                    self.devpts = Some(devpts);
                }
                Ok(())
            }
            Kind::Mqueue => self.mount_new(mount, "mqueue", &self.directory(mount)?).map(drop),
            Kind::Cgroup => cgroupfs::mount(&self.root, mount, self.plan.cgroups, location),
            Kind::Other(kind) => match source {
                Some(made) => {
                    let change = Change { set: mount.options.fresh(), ..Change::default() };
                    mount_setattr(&made, Reach::Mount, &change)?;
                    spread(&made, mount)?;
                    attach(&made, &self.directory(mount)?)
                }
                None => self.mount_new(mount, kind, &self.directory(mount)?).map(drop),
            },
        }
    }

    fn directory(&self, mount: &PlannedMount) -> Result<OwnedFd> {
        directory(&self.root, &mount.destination)
    }

    fn mount_new(&self, mount: &PlannedMount, kind: &str, place: &OwnedFd) -> Result<OwnedFd> {
        let made = new_mount(kind, mount, &[], mount.options.fresh())?;
        attach(&made, place)?;
        Ok(made)
    }

    /// Without a network namespace that belongs to its user namespace a container may not mount sysfs; it gets the host's
    /// to read, as the host sees it.
    fn mount_sysfs(&self, mount: &PlannedMount) -> Result<()> {
        let place = real_directory(&self.root, mount)?;
        match new_mount("sysfs", mount, &[], mount.options.fresh()) {
            Ok(made) => attach(&made, &place),
            Err(err) if err.errno() == Some(Errno::PERM.raw_os_error()) => {
                let host = clone_tree(Path::new("/sys"), Reach::Tree)
                    .context(|| "cannot copy /sys".to_owned())?;
                let change = Change { set: Attr::RDONLY, ..Change::default() };
                mount_setattr(&host, Reach::Tree, &change)
                    .context(|| "cannot make /sys read-only".to_owned())?;
                attach(&host, &place)
            }
            Err(err) => Err(err),
        }
    }

    fn mount_tmpfs(&mut self, mount: &PlannedMount) -> Result<()> {
        let covers = self.root.find(&mount.destination)?.is_some();
        let place = self.directory(mount)?;
        // A tmpfs over a directory of the image looks like that directory, unless told otherwise.
        let mode = format!("{:04o}", rustix::fs::fstat(&place)?.st_mode & 0o7777);
        let has_mode = mount.options.data.iter().any(|word| word.starts_with("mode="));
        let extra = [("mode", mode.as_str())];
        let dev = mount.destination == Path::new("/dev");
        // /dev is still to be filled, and so is what copies up: read-only comes after that.
        let late = (dev || mount.options.copy_up) && mount.options.fresh().contains(Attr::RDONLY);
        let attr =
            if late { mount.options.fresh().without(Attr::RDONLY) } else { mount.options.fresh() };
        let first: &[_] = if covers && !has_mode { &extra } else { &[] };
        let made = new_mount("tmpfs", mount, first, attr)?;
        if mount.options.copy_up {
            copy_up::copy(place.as_fd(), made.as_fd())
                .context(|| "cannot copy the image's content".to_owned())?;
        }
        attach(&made, &place)?;
        if late && dev {
            self.later_readonly.push(made);
        } else if late {
            mount_setattr(&made, Reach::Mount, &Change { set: Attr::RDONLY, ..Change::default() })?;
        }
        Ok(())
    }
}

/// Where a mount goes, made where it is missing. The plan has judged the words of the destination; a link of the image's may
/// mean something else by them, and nothing but the plan's exceptions goes over a part of the container's procfs.
pub(super) fn place(root: &RootFd, destination: &Path, make: Make) -> Result<Found> {
    let found = root.find_or_make(destination, make)?;
    let Some(proc) = root.find(Path::new("/proc"))? else { return Ok(found) };
    let same = rustix::fs::fstat(&found.fd)?.st_dev == rustix::fs::fstat(&proc.fd)?.st_dev;
    if same && is_procfs(proc.fd.as_fd())? && !destination.starts_with("/proc") {
        let destination = quoted(destination);
        return Err(Error::invalid(format!(
            "{destination} cannot be mounted because it is inside /proc"
        )));
    }
    Ok(found)
}

pub(super) fn directory(root: &RootFd, destination: &Path) -> Result<OwnedFd> {
    let found = place(root, destination, Make::Directory)?;
    if found.kind == FileType::Directory { Ok(found.fd) } else { Err(Errno::NOTDIR.into()) }
}

/// Where `/proc` and `/sys` go must be a directory of the image's own, not a link to somewhere (CVE-2019-19921 and after).
fn real_directory(root: &RootFd, mount: &PlannedMount) -> Result<OwnedFd> {
    match root.find_plain_directory(&mount.destination) {
        Ok(directory) => Ok(directory),
        Err(err) if err.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {
            Ok(root.make_directory(&mount.destination)?)
        }
        Err(_) => {
            let kind = if mount.kind == Kind::Proc { "proc" } else { "sysfs" };
            let place = quoted(&mount.destination);
            Err(Error::invalid(format!(
                "filesystem {kind:?} must be mounted on ordinary directory, {place} is none"
            )))
        }
    }
}

/// A new file system with the options of `mount` (those given here first, so that the mount's win), detached.
pub(super) fn new_mount(
    kind: &str,
    mount: &PlannedMount,
    first: &[(&str, &str)],
    attr: Attr,
) -> Result<OwnedFd> {
    let fs = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
        .context(|| format!("cannot open the file system type {kind}"))?;
    let pseudo = matches!(
        kind,
        "proc" | "sysfs" | "tmpfs" | "devpts" | "mqueue" | "cgroup" | "cgroup2" | "ramfs"
    );
    let source = mount.source.as_os_str();
    if !source.is_empty() && !pseudo {
        rustix::mount::fsconfig_set_string(&fs, "source", source)
            .map_err(|errno| told(&fs, errno))?;
    } else if pseudo && !source.is_empty() {
        // Only a name, for those who read the table of mounts.
        rustix::mount::fsconfig_set_string(&fs, "source", source)
            .map_err(|errno| told(&fs, errno))?;
    }
    if attr.contains(Attr::RDONLY) && !pseudo {
        rustix::mount::fsconfig_set_flag(&fs, "ro").map_err(|errno| told(&fs, errno))?;
    }
    for (key, value) in first {
        rustix::mount::fsconfig_set_string(&fs, *key, *value).map_err(|errno| told(&fs, errno))?;
    }
    for word in
        mount.options.data.iter().flat_map(|words| words.split(',')).filter(|word| !word.is_empty())
    {
        give_option(&fs, kind, word)
            .map_err(|errno| told(&fs, errno))
            .context(|| format!("option {word:?}"))?;
    }
    rustix::mount::fsconfig_create(&fs).map_err(|errno| told(&fs, errno))?;
    let flags = MountAttrFlags::from_bits_retain(attr.0 as u32);
    let made = rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)
        .map_err(|errno| told(&fs, errno))?;
    spread(&made, mount)?;
    Ok(made)
}

fn spread(made: &OwnedFd, mount: &PlannedMount) -> Result<()> {
    for (propagation, reach) in &mount.options.propagation {
        // A new mount is private already.
        if *propagation != Propagation::Private {
            let change = Change { propagation: Some(*propagation), ..Change::default() };
            mount_setattr(made, *reach, &change)?;
        }
    }
    Ok(())
}

fn give_option(fs: &OwnedFd, kind: &str, word: &str) -> rustix::io::Result<()> {
    match word.split_once('=') {
        // An overlay's many layers are given one by one.
        Some(("lowerdir", layers)) if kind == "overlay" && layers.len() > OPTION_MAX => layers
            .split(':')
            .try_for_each(|layer| rustix::mount::fsconfig_set_string(fs, "lowerdir+", layer)),
        Some((key, value)) => rustix::mount::fsconfig_set_string(fs, key, value),
        None => rustix::mount::fsconfig_set_flag(fs, word),
    }
}

/// Moves a detached mount onto a place that is held by descriptor: nothing is looked up.
pub(super) fn attach(mount: impl AsFd, place: impl AsFd) -> Result<()> {
    fn inner(mount: BorrowedFd, place: BorrowedFd) -> rustix::io::Result<()> {
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(mount, "", place, "", flags)
    }
    Ok(inner(mount.as_fd(), place.as_fd())?)
}

/// As [`attach`], onto something found.
pub(super) fn attach_to(mount: impl AsFd, place: &Found) -> Result<()> {
    attach(mount, &place.fd)
}
