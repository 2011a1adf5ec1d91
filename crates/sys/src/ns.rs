//! Entering and leaving namespaces. They are per thread: only for processes of one thread, or threads that end with the act.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::check;
use crate::process::CloneFlags;

/// Leaves the named namespaces for new ones.
pub fn unshare(kinds: CloneFlags) -> io::Result<()> {
    // SAFETY: takes an integer; without CLONE_FILES and CLONE_VM no memory or descriptor changes hands.
    check(unsafe { libc::unshare(kinds.bits() as libc::c_int) }.into())?;
    Ok(())
}

/// Enters one namespace, given its descriptor; or, given a pidfd (5.8), all the named ones of that process at once.
pub fn setns(of: BorrowedFd, kinds: CloneFlags) -> io::Result<()> {
    // SAFETY: takes two integers; `of` is open for as long as it is borrowed.
    check(unsafe { libc::setns(of.as_raw_fd(), kinds.bits() as libc::c_int) }.into())?;
    Ok(())
}

/// The mount namespace that a process is in (6.11): whoever holds it keeps its mounts.
pub fn mounts_of(pidfd: BorrowedFd) -> io::Result<OwnedFd> {
    const PIDFD_GET_MNT_NAMESPACE: libc::c_ulong = 0xff03;
    // SAFETY: takes no argument; `pidfd` is open for as long as it is borrowed.
    let answer =
        check(unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_MNT_NAMESPACE, 0) }.into())?;
    // SAFETY: the answer is a descriptor that the kernel has just opened for us.
    Ok(unsafe { OwnedFd::from_raw_fd(answer as i32) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_process_is_where_it_is() {
        let own = rustix::process::pidfd_open(
            rustix::process::getpid(),
            rustix::process::PidfdFlags::empty(),
        )
        .unwrap();
        match mounts_of(own.as_fd()) {
            Ok(mounts) => {
                let here = std::fs::File::open("/proc/self/ns/mnt").unwrap();
                let inode = |fd: BorrowedFd| rustix::fs::fstat(fd).unwrap().st_ino;
                assert_eq!(inode(mounts.as_fd()), inode(here.as_fd()));
            }
            // An older kernel.
            Err(err) => assert_eq!(err.raw_os_error(), Some(libc::ENOTTY)),
        }
    }
}
