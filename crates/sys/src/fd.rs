//! Descriptors by name: the bridge to things that only take paths.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// `/proc/self/fd/<n>`: a path that means this descriptor, for interfaces that take paths only. Goes through the *current*
/// `/proc`, so not for use once a container's file system is the root.
pub fn path(fd: BorrowedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// `/proc/<pid>/fd/<n>`: the same for another process, as long as this one holds the descriptor.
pub fn path_for_others(fd: BorrowedFd) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()))
}

/// The number, to be told to another process that inherits the descriptor.
pub fn number(fd: BorrowedFd) -> u32 {
    fd.as_raw_fd() as u32
}

/// A copy that survives `execve`.
pub fn keep_on_exec(fd: impl AsFd) -> io::Result<()> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
    Ok(())
}

/// Makes `fd` the standard input, output or error of this process.
pub fn install_stdio(stdin: BorrowedFd, stdout: BorrowedFd, stderr: BorrowedFd) -> io::Result<()> {
    // A source that is itself one of the three would be overwritten half-way: copy those out of the way first.
    let lift =
        |fd: BorrowedFd| -> io::Result<OwnedFd> { Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?) };
    let (stdin, stdout, stderr) = (lift(stdin)?, lift(stdout)?, lift(stderr)?);
    rustix::stdio::dup2_stdin(&stdin)?;
    rustix::stdio::dup2_stdout(&stdout)?;
    rustix::stdio::dup2_stderr(&stderr)?;
    Ok(())
}

/// Duplicates `fd` onto exactly this number, without close-on-exec (the numbers of `--preserve-fds` begin at 3).
pub fn install_at(fd: BorrowedFd, number: u32) -> io::Result<()> {
    // SAFETY: dup2 closes what was at `number`; the caller places descriptors just before execve, when nobody uses the old.
    crate::check(unsafe { libc::dup2(fd.as_raw_fd(), number as i32) }.into())?;
    if fd.as_raw_fd() == number as i32 {
        keep_on_exec(fd)?;
    }
    Ok(())
}
