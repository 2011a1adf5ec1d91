//! A command that stays with its process: passes signals on, carries a terminal's bytes, and ends as it ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios};
use stdx::{Context, Result};
use sys::signal::{self, Set};

use crate::spawn::reap;

const SIGINT: i32 = 2;
const SIGCHLD: i32 = 17;
const SIGURG: i32 = 23;
const SIGWINCH: i32 = 28;
/// Cannot be caught, or are the kernel's word on mistakes of our own.
const NOT_OURS: [i32; 8] = [4, 5, 7, 8, 9, 11, 19, 31];

/// Waits for the process and answers its exit code, 128 + n for a signal.
pub(super) fn follow(pidfd: &OwnedFd, terminal: Option<OwnedFd>) -> Result<u8> {
    let watched = Set::all().without(&NOT_OURS);
    let before = signal::set_mask(&watched).context(|| "cannot block signals".to_owned())?;
    let signals = signal::Fd::new(&watched).context(|| "cannot watch signals".to_owned())?;
    let raw = terminal.as_ref().map(|_| RawMode::enter()).transpose()?;
    let followed = watch(pidfd, terminal.as_ref(), &signals);
    drop(raw);
    signal::set_mask(&before).context(|| "cannot unblock signals".to_owned())?;
    followed?;
    let status = reap(pidfd)?;
    Ok(match status.map(|status| (status.exit_status(), status.terminating_signal())) {
        Some((Some(code), _)) => code as u8,
        Some((None, Some(signal))) => 128u8.wrapping_add(signal as u8),
        _ => 255,
    })
}

fn watch(pidfd: &OwnedFd, terminal: Option<&OwnedFd>, signals: &signal::Fd) -> Result<()> {
    let mut input = terminal.is_some();
    if let Some(terminal) = terminal {
        copy_size(terminal);
    }
    loop {
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if let Some(terminal) = terminal {
            fds.push(PollFd::new(terminal, PollFlags::IN));
            if input {
                fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
            }
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            other => other.context(|| "cannot wait".to_owned())?,
        };
        let ready = |position: usize| fds.get(position).is_some_and(|fd| !fd.revents().is_empty());
        let (ended, signalled, output, typed) = (ready(0), ready(1), ready(2), ready(3));
        drop(fds);
        while let Some(info) =
            signals.read().context(|| "cannot read signals".to_owned())?.filter(|_| signalled)
        {
            match (info.signal, terminal) {
                (SIGCHLD | SIGURG, _) => {}
                (SIGWINCH, Some(terminal)) => copy_size(terminal),
                // From the keyboard it reaches the process by its own terminal.
                (SIGINT, Some(_)) if info.code > 0 => {}
                (number, _) => {
                    // It may have ended this moment; the descriptor says so next.
                    let _sent = signal::send(pidfd.as_fd(), number);
                }
            }
        }
        if let Some(terminal) = terminal {
            if output && !carry(terminal.as_fd(), rustix::stdio::stdout())? && ended {
                return Ok(());
            }
            if typed && !carry(rustix::stdio::stdin(), terminal.as_fd())? {
                input = false;
            }
        }
        // What it wrote last is read before we go.
        if ended && !output {
            return Ok(());
        }
    }
}

/// One portion from here to there; `false` at the end.
fn carry(from: BorrowedFd, to: BorrowedFd) -> Result<bool> {
    let mut bytes = [0; 32 << 10];
    let length = match rustix::io::read(from, &mut bytes) {
        // Nobody has the other end of the terminal open.
        Ok(0) | Err(Errno::IO) => return Ok(false),
        Err(Errno::INTR | Errno::AGAIN) => return Ok(true),
        other => other.context(|| "cannot read".to_owned())?,
    };
    let mut rest = &bytes[..length];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(Errno::PIPE | Errno::IO) => return Ok(false),
            Err(err) => return Err(err).context(|| "cannot write".to_owned()),
        }
    }
    Ok(true)
}

fn copy_size(terminal: &OwnedFd) {
    // Without a terminal of our own there is no size to pass on.
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        let _resized = rustix::termios::tcsetwinsize(terminal, size);
    }
}

/// Our own terminal passes every key on while this lives.
struct RawMode(Option<Termios>);

impl RawMode {
    fn enter() -> Result<Self> {
        let stdin = rustix::stdio::stdin();
        let Ok(before) = rustix::termios::tcgetattr(stdin) else { return Ok(Self(None)) };
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw)
            .context(|| "cannot set the terminal".to_owned())?;
        Ok(Self(Some(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing better can be done on the way out.
            let _restored =
                rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}
