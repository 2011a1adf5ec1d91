//! A program that nobody can write (CVE-2019-5736): before a command makes processes in a container it becomes a copy of
//! itself that cannot be reached for writing through `/proc/<pid>/exe`.
//!
//! First choice is our own file seen through a read-only overlay that is mounted nowhere: nothing is copied. Where that
//! is not allowed, a sealed copy in memory.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use stdx::{Context, Error, Result};
use sys::process::StringArray;

/// Returns when the running program is such a copy; else becomes one and begins anew.
pub(super) fn ensure() -> Result<()> {
    let words = || "cannot make a sealed copy of this program".to_owned();
    if is_sealed().context(words)? {
        return Ok(());
    }
    let copy = match through_overlay() {
        Ok(copy) => copy,
        Err(_) => sys::memfd::seal_self("gantry-runtime").context(words)?,
    };
    // As they were given, names and order: those of /proc are what the kernel was told.
    let argv = StringArray::new(own_strings("/proc/self/cmdline").context(words)?);
    let envp = StringArray::new(own_strings("/proc/self/environ").context(words)?);
    Err(Error::from(sys::process::fexecve(copy.as_fd(), &argv, &envp))).context(words)
}

const OVERLAYFS_SUPER_MAGIC: rustix::fs::FsWord = 0x794c_7630;

fn is_sealed() -> std::io::Result<bool> {
    let own = File::open("/proc/self/exe")?;
    let read_only = rustix::fs::fstatvfs(&own)?.f_flag.contains(StatVfsMountFlags::RDONLY);
    Ok(rustix::fs::fstatfs(&own)?.f_type == OVERLAYFS_SUPER_MAGIC && read_only
        || sys::memfd::is_sealed_self()?)
}

fn through_overlay() -> Result<OwnedFd> {
    let path = std::fs::read_link("/proc/self/exe")?;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::internal("this program has no file"));
    };
    // An overlay without a writable layer wants two others: the second is an empty one.
    let empty = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&empty)?;
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let empty = rustix::mount::fsmount(&empty, FsMountFlags::FSMOUNT_CLOEXEC, read_only)?;
    let overlay = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&overlay, "lowerdir+", directory)?;
    rustix::mount::fsconfig_set_string(&overlay, "lowerdir+", sys::fd::path(empty.as_fd()))?;
    rustix::mount::fsconfig_create(&overlay)?;
    let flags = read_only | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let overlay = rustix::mount::fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let copy = rustix::fs::openat(&overlay, name, flags, Mode::empty())?;
    // The file may have been replaced since we were started (an upgrade): then it is not us.
    let (seen, own) = (rustix::fs::fstat(&copy)?, File::open("/proc/self/exe")?.metadata()?);
    if (seen.st_ino, seen.st_size as u64) != (own.ino(), own.len()) {
        return Err(Error::internal("the file of this program has been replaced"));
    }
    Ok(copy)
}

fn own_strings(path: &str) -> std::io::Result<Vec<CString>> {
    let bytes = std::fs::read(path)?;
    let strings = bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec);
    let mut strings: Vec<CString> = strings
        .map(|string| CString::new(OsString::from_vec(string).into_vec()).expect("split at NUL"))
        .collect();
    // The last one ends with a NUL too.
    if bytes.last() == Some(&0) {
        strings.pop();
    }
    Ok(strings)
}
