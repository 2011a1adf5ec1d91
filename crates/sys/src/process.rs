//! Processes are born, become other programs, and end.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

pub use rustix::process::Pid;

use crate::check;

/// Which of the two we are after a fork.
#[derive(Debug)]
pub enum Fork {
    Child,
    Parent { pid: Pid, pidfd: OwnedFd },
}

/// What a new process shares with its parent and what it gets for itself: the `CLONE_*` bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneFlags(u64);

impl CloneFlags {
    /// Root, working directory and umask, which the threads of a process share unless one leaves them.
    pub const FS: Self = Self(libc::CLONE_FS as u64);
    pub const NEWCGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    pub const NEWIPC: Self = Self(libc::CLONE_NEWIPC as u64);
    pub const NEWNET: Self = Self(libc::CLONE_NEWNET as u64);
    pub const NEWNS: Self = Self(libc::CLONE_NEWNS as u64);
    pub const NEWPID: Self = Self(libc::CLONE_NEWPID as u64);
    /// Not for `clone3`: its offsets must be written before anyone lives in it, so it is `unshare`d.
    pub const NEWTIME: Self = Self(0x80);
    pub const NEWUSER: Self = Self(libc::CLONE_NEWUSER as u64);
    pub const NEWUTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// The child's parent is the caller's parent: how a process in the middle steps aside.
    pub const PARENT: Self = Self(libc::CLONE_PARENT as u64);

    pub const fn empty() -> Self {
        Self(0)
    }

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }
}

impl std::ops::BitOr for CloneFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for CloneFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct CloneArgs<'a> {
    pub flags: CloneFlags,
    /// A cgroup v2 directory the child is born in (`CLONE_INTO_CGROUP`, 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// The kernel's `struct clone_args`, first version with `cgroup`.
#[repr(C)]
#[derive(Default)]
struct RawCloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Copies the calling process. The child goes on from here with a copy of all memory and all descriptors.
///
/// To be called by single-threaded processes (launcher, shim, a command): in a copy of a process with threads, locks that
/// another thread held stay locked for ever.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: fork takes nothing; libc puts its own state right in the child.
    match check(unsafe { libc::fork() }.into())? {
        0 => Ok(Fork::Child),
        pid => {
            let pid = Pid::from_raw(pid as i32).expect("fork answers a process id");
            let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
            Ok(Fork::Parent { pid, pidfd })
        }
    }
}

/// As [`fork`], for a parent that will wait for any child and watch none: `None` in the child. Makes no other call, which a
/// system call filter might refuse half-way.
pub fn fork_unwatched() -> io::Result<Option<Pid>> {
    // SAFETY: as for `fork`.
    Ok(Pid::from_raw(check(unsafe { libc::fork() }.into())? as i32))
}

/// Copies the calling process into new namespaces, all made at once, and into its cgroup. The rule of [`fork`] applies.
///
/// Handlers of signals are back to their defaults in the child (`CLONE_CLEAR_SIGHAND`, 5.5).
pub fn clone3(args: &CloneArgs) -> io::Result<Fork> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    let mut pidfd: libc::c_int = -1;
    let parent = args.flags.contains(CloneFlags::PARENT);
    let mut raw = RawCloneArgs {
        flags: args.flags.bits() | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND,
        pidfd: &raw mut pidfd as u64,
        // With CLONE_PARENT the exit signal is inherited and must not be named.
        exit_signal: if parent { 0 } else { libc::SIGCHLD as u64 },
        ..RawCloneArgs::default()
    };
    if let Some(cgroup) = args.cgroup {
        raw.flags |= CLONE_INTO_CGROUP;
        raw.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM and no stack: the child gets its own copy of everything, as with fork. `raw` outlives the call
    // and `pidfd` is where the kernel writes one int.
    let answer =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const raw, size_of::<RawCloneArgs>()) };
    match check(answer)? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent {
            pid: Pid::from_raw(pid as i32).expect("clone3 answers a process id"),
            // SAFETY: the kernel has just opened it for us (CLONE_PIDFD).
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// Ends this process at once: no destructors, no buffers, no handlers. The way out of a forked child.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not come back.
    unsafe { libc::_exit(code) }
}

/// Arguments or environment as the kernel wants them: built before the point of no return.
#[derive(Debug)]
pub struct StringArray {
    pointers: Vec<*const libc::c_char>,
    strings: Vec<CString>,
}

impl StringArray {
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, strings }
    }

    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// Becomes the program at `path`; comes back only with the reason why not.
pub fn execve(path: &CStr, argv: &StringArray, envp: &StringArray) -> io::Error {
    // SAFETY: `path` ends with a NUL; both arrays end with a null pointer and point into strings that live in them.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Becomes the program open at `file`; comes back only with the reason why not.
pub fn fexecve(file: BorrowedFd, argv: &StringArray, envp: &StringArray) -> io::Error {
    let (argv, envp) = (argv.pointers.as_ptr(), envp.pointers.as_ptr());
    // SAFETY: as for `execve`; the path is the empty string and `file` is open for as long as it is borrowed.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv,
            envp,
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Every descriptor from `first` on will be closed by the next `execve`.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: marks descriptors; closes none, so nothing owned becomes invalid.
    check(unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
    })?;
    Ok(())
}

/// Closes every descriptor but the standard three and those kept. For a process that stays without an `execve`: what it
/// owned elsewhere is gone, so it must never return into code that still holds descriptors.
pub fn close_all_but(keep: &[BorrowedFd]) -> io::Result<()> {
    let mut keep: Vec<u32> =
        keep.iter().map(|fd| fd.as_raw_fd() as u32).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut first = 3;
    for kept in keep.into_iter().map(Some).chain([None]) {
        let last = kept.map_or(u32::MAX, |kept| kept - 1);
        if first <= last {
            // SAFETY: the caller promises (above) that nobody uses what is closed here.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
        }
        first = kept.map_or(u32::MAX, |kept| kept + 1);
    }
    Ok(())
}

/// Takes possession of a descriptor that was passed to this program by number (`--preserve-fds`, `LISTEN_FDS`).
pub fn inherited_fd(number: u32) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: F_GETFD only looks; it fails for what is not open.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) }.into())?;
    // SAFETY: it is open, and by the protocol of inheritance nobody in this process has claimed it yet.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The execution domain of this process (`personality(2)`).
pub fn set_personality(persona: u32) -> io::Result<()> {
    // SAFETY: takes an integer.
    check(unsafe { libc::personality(persona.into()) }.into())?;
    Ok(())
}

/// Which process a pidfd stands for, as seen from here; `None` when it has been reaped.
pub fn pid_of(pidfd: BorrowedFd) -> io::Result<Option<Pid>> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = info
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .and_then(|pid| pid.trim().parse().ok());
    Ok(pid.filter(|pid: &i32| *pid > 0).and_then(Pid::from_raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_add_up() {
        let mut flags = CloneFlags::NEWNS | CloneFlags::NEWPID;
        assert!(flags.contains(CloneFlags::NEWPID) && !flags.contains(CloneFlags::NEWNET));
        flags |= CloneFlags::NEWNET;
        assert_eq!(flags.without(CloneFlags::NEWNET), CloneFlags::NEWNS | CloneFlags::NEWPID);
    }
}
