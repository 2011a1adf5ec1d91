//! Signals as values: sets, waiting for them, and descriptors that deliver them.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use crate::check;

/// A set of signal numbers.
#[derive(Clone, Copy)]
pub struct Set(libc::sigset_t);

impl Set {
    pub fn empty() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset fills the set it is given.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            Self(set.assume_init())
        }
    }

    pub fn all() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigfillset fills the set it is given.
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            Self(set.assume_init())
        }
    }

    pub fn of(signals: &[i32]) -> Self {
        let mut set = Self::empty();
        for signal in signals {
            // SAFETY: `set` is initialised; a number that is no signal is refused with EINVAL, which leaves the set alone.
            unsafe { libc::sigaddset(&raw mut set.0, *signal) };
        }
        set
    }

    pub fn without(mut self, signals: &[i32]) -> Self {
        for signal in signals {
            // SAFETY: as above.
            unsafe { libc::sigdelset(&raw mut self.0, *signal) };
        }
        self
    }
}

/// Makes `set` the blocked signals of this thread; answers what was blocked before.
pub fn set_mask(set: &Set) -> io::Result<Set> {
    let mut old = Set::empty();
    // SAFETY: both sets are initialised and live across the call.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set.0, &raw mut old.0) } {
        0 => Ok(old),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// What a program expects to find when it starts: every signal with its default action. (`execve` resets handlers but
/// keeps what is ignored, and Rust's own start ignores SIGPIPE.)
pub fn reset_all() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL installs no code of ours; for SIGKILL, SIGSTOP and libc's own signals the call fails and nothing
        // changes.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// A signal as it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    pub signal: i32,
    /// Who sent it (or which child ended), 0 where the kernel did or the sender is not visible from here.
    pub pid: i32,
    /// `si_code`: positive when the kernel sent it.
    pub code: i32,
}

/// Waits for one of `set`, which must be blocked.
pub fn wait(set: &Set) -> io::Result<Info> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    loop {
        // SAFETY: `set` is initialised and `info` is room for one siginfo.
        match check(unsafe { libc::sigwaitinfo(&raw const set.0, info.as_mut_ptr()) }.into()) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
            Ok(signal) => {
                // SAFETY: sigwaitinfo succeeded, so it is filled; it was zeroed before.
                let info = unsafe { info.assume_init() };
                // SAFETY: every layout of the union that has a sender has it there; in the others it reads as a number.
                let pid = unsafe { info.si_pid() };
                return Ok(Info { signal: signal as i32, pid, code: info.si_code });
            }
        }
    }
}

/// Signals as something to poll and read (`signalfd`). The set must be blocked for the descriptor to see them.
#[derive(Debug)]
pub struct Fd(OwnedFd);

impl Fd {
    pub fn new(set: &Set) -> io::Result<Self> {
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        check(fd.into())?;
        // SAFETY: the kernel has just opened it for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that waits; `None` when none does.
    pub fn read(&self) -> io::Result<Option<Info>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: room for exactly one record, which is what the kernel writes.
        match check(unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size) }
            as libc::c_long)
        {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(err) => Err(err),
            Ok(_) => {
                // SAFETY: signalfd reads whole records.
                let info = unsafe { info.assume_init() };
                Ok(Some(Info {
                    signal: info.ssi_signo as i32,
                    pid: info.ssi_pid as i32,
                    code: info.ssi_code,
                }))
            }
        }
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends any signal number, real-time ones too, to the process behind a pidfd.
pub fn send(pidfd: BorrowedFd, signal: i32) -> io::Result<()> {
    // SAFETY: takes integers and no siginfo; `pidfd` is open for as long as it is borrowed.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    })?;
    Ok(())
}

/// Sends any signal number by process id: for children of ours (which cannot be someone else before we reap them) and for
/// process groups (negative).
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes two integers.
    check(unsafe { libc::kill(pid, signal) }.into())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_can_be_read() {
        let usr1 = Set::of(&[libc::SIGUSR1]);
        let old = set_mask(&usr1).unwrap();
        let fd = Fd::new(&usr1).unwrap();
        assert_eq!(fd.read().unwrap(), None);
        // SAFETY: to this thread, where it is blocked.
        unsafe { libc::raise(libc::SIGUSR1) };
        assert_eq!(fd.read().unwrap().map(|info| info.signal), Some(libc::SIGUSR1));
        set_mask(&old).unwrap();
    }
}
