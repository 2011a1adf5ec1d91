//! Project quotas: directories that count what is in them, and stop at a limit.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    padding: [u8; 8],
}

const FS_IOC_FSGETXATTR: u64 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;
/// What is made in a directory belongs to its project.
const INHERIT: u32 = 0x200;

/// `struct if_dqblk`: spaces are bytes, limits are blocks of 1024.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Quota {
    space_hard: u64,
    space_soft: u64,
    space: u64,
    inodes_hard: u64,
    inodes_soft: u64,
    inodes: u64,
    space_time: u64,
    inode_time: u64,
    valid: u32,
}

const BLOCK: u64 = 1024;
const SPACE_LIMITS: u32 = 1;
const GET: u32 = 0x80_0007;
const SET: u32 = 0x80_0008;
const PROJECTS: u32 = 2;

/// How much a project may hold, and holds. In bytes; no limit is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    pub limit: u64,
    pub used: u64,
}

/// The project of a directory; 0 is none.
pub fn project(directory: BorrowedFd) -> io::Result<u32> {
    attributes(directory).map(|attributes| attributes.project)
}

/// Makes a directory part of a project, and what will be made in it.
pub fn join_project(directory: BorrowedFd, project: u32) -> io::Result<()> {
    let mut attributes = attributes(directory)?;
    attributes.project = project;
    attributes.flags |= INHERIT;
    // SAFETY: reads one `struct fsxattr`.
    let set =
        unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_FSSETXATTR, &raw const attributes) };
    check(set.into())?;
    Ok(())
}

fn attributes(directory: BorrowedFd) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: writes one `struct fsxattr`.
    let got = unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut attributes) };
    check(got.into())?;
    Ok(attributes)
}

/// What a project of the file system that `on` lies on may hold. `ESRCH` where projects are not counted.
pub fn space(on: BorrowedFd, project: u32) -> io::Result<Space> {
    let mut quota = Quota::default();
    quotactl(on, GET, project, &mut quota)?;
    Ok(Space { limit: quota.space_hard * BLOCK, used: quota.space })
}

/// Sets the limit of a project, rounded up to whole KiB; 0 takes it away.
pub fn set_limit(on: BorrowedFd, project: u32, bytes: u64) -> io::Result<()> {
    let blocks = bytes.div_ceil(BLOCK);
    let mut quota =
        Quota { space_hard: blocks, space_soft: blocks, valid: SPACE_LIMITS, ..Quota::default() };
    quotactl(on, SET, project, &mut quota)
}

fn quotactl(on: BorrowedFd, command: u32, project: u32, quota: &mut Quota) -> io::Result<()> {
    let command = command << 8 | PROJECTS;
    let (fd, quota) = (on.as_raw_fd(), std::ptr::from_mut(quota));
    // SAFETY: both commands that are used take one `struct if_dqblk`, to read or to write it.
    check(unsafe { libc::syscall(libc::SYS_quotactl_fd, fd, command, project, quota) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_kernels_sizes() {
        assert_eq!((size_of::<Attributes>(), size_of::<Quota>()), (28, 72));
    }

    #[test]
    fn where_nothing_is_counted_it_is_said() {
        let proc = std::fs::File::open("/proc").unwrap();
        assert!(space(proc.as_fd(), 1).is_err());
        assert!(project(proc.as_fd()).is_err());
    }
}
