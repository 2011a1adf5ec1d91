//! The container's root becomes the root, and the host's goes away.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MoveMountFlags, UnmountFlags};
use stdx::{Context, Result};

use super::root::RootFd;
use crate::create::Pivot;

/// Mounts the root on top of the present one. That one stays what absolute paths mean until [`enter`].
pub(super) fn place_root(tree: OwnedFd) -> Result<OwnedFd> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&tree, "", CWD, "/", flags)
        .context(|| "error mounting the container's root".to_owned())?;
    Ok(tree)
}

/// After this, `/` is the container's and the host's mounts are out of reach.
pub(super) fn enter(root: &RootFd, pivot: Pivot) -> Result<()> {
    rustix::process::fchdir(root).context(|| "cannot enter the container's root".to_owned())?;
    match pivot {
        Pivot::PivotRoot => {
            // The new root over the old one in the same place needs no directory to put the old one in.
            rustix::process::pivot_root(".", ".").context(|| "pivot_root".to_owned())?;
            rustix::mount::unmount(".", UnmountFlags::DETACH)
                .context(|| "cannot unmount the host's root".to_owned())?;
        }
        Pivot::MoveAndChroot => {
            forget_host_mounts()?;
            // That went from place to place.
            rustix::process::fchdir(root)
                .context(|| "cannot enter the container's root".to_owned())?;
            rustix::process::chroot(".").context(|| "chroot".to_owned())?;
        }
    }
    rustix::process::chdir("/").context(|| "cannot enter the container's root".to_owned())
}

/// Without pivot_root the host's mounts stay in the namespace, below ours. Those that show the kernel's inside must go,
/// or be hidden: a container that may mount could otherwise find a whole `/proc` there.
fn forget_host_mounts() -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")
        .context(|| "cannot read our mounts".to_owned())?;
    let points = mounts.lines().rev().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let kind = right.split(' ').next()?;
        matches!(kind, "proc" | "sysfs").then(|| left.split(' ').nth(4))?
    });
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let host = rustix::fs::openat(CWD, "/", flags, Mode::empty())
        .context(|| "cannot open the root".to_owned())?;
    for point in points {
        let Ok(place) = rustix::fs::openat(&host, point, flags, Mode::empty()) else { continue };
        rustix::process::fchdir(&place).context(|| format!("cannot enter {point}"))?;
        match rustix::mount::unmount(".", UnmountFlags::DETACH) {
            Ok(()) => {}
            // Locked by a user namespace, or busy: then it is covered.
            Err(_) => {
                rustix::mount::mount(
                    "tmpfs",
                    ".",
                    "tmpfs",
                    rustix::mount::MountFlags::empty(),
                    None,
                )
                .context(|| format!("cannot hide {point}"))?;
            }
        }
    }
    Ok(())
}
