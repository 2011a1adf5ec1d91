//! Entering and leaving namespaces. They are per thread: only for processes of one thread, or threads that end with the act.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

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
