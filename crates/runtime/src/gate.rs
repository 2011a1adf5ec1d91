//! A created container that waits on its own: two FIFOs in its state directory stand between it and its start.
//!
//! `start.fifo` brings the word; `report.fifo` closes when `execve` has succeeded, or brings the reason why not. Its init
//! holds both ends of both, so nobody need hold anything; it uses only `read` and `write` on them.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use stdx::{Context, Error, Result};

use crate::channel::{self, Message};
use crate::init::Gate;

const START: &str = "start.fifo";
const REPORT: &str = "report.fifo";

/// Makes the FIFOs and opens init's ends.
pub(crate) fn make(dir: &Path) -> Result<Gate> {
    let dir = open_dir(dir)?;
    let make = |name: &str| {
        let words = || format!("cannot make {name}");
        rustix::fs::mknodat(&dir, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .context(words)?;
        // Both ends at once: opening does not wait for anybody.
        rustix::fs::openat(
            &dir,
            name,
            OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .context(words)
    };
    Ok(Gate { start: make(START)?, report: make(REPORT)? })
}

/// Whether the container in this state directory still waits for its start.
pub(crate) fn waits(dir: &Path) -> bool {
    dir.join(START).exists()
}

/// Lets the container start; answers once `execve` has succeeded. Only one caller can.
pub(crate) fn start(dir: &Path) -> Result<()> {
    let dir = open_dir(dir)?;
    let open = |name: &str, flags: OFlags| {
        rustix::fs::openat(
            &dir,
            name,
            flags | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    let report = open(REPORT, OFlags::RDONLY)
        .context(|| "cannot start a container that has been started".to_owned())?;
    let start = match open(START, OFlags::WRONLY) {
        Ok(start) => start,
        Err(Errno::NXIO) => {
            return Err(Error::conflict("cannot start a container that has stopped"));
        }
        Err(err) => {
            return Err(err)
                .context(|| "cannot start a container that has been started".to_owned());
        }
    };
    // Whoever removes the name is the one who starts it.
    rustix::fs::unlinkat(&dir, START, AtFlags::empty())
        .context(|| "cannot start a container that has been started".to_owned())?;
    rustix::io::write(&start, b"g").context(|| "cannot reach the container's init".to_owned())?;
    wait(&report)
}

fn wait(report: &OwnedFd) -> Result<()> {
    let mut bytes = [0; 4096];
    loop {
        match poll(&mut [PollFd::new(report, PollFlags::IN)], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(err) => return Err(err).context(|| "cannot wait for the start".to_owned()),
        }
        match rustix::io::read(report, &mut bytes) {
            Ok(0) => return Ok(()),
            Ok(length) => match channel::decode(&bytes[..length], None)? {
                Message::Failed(error) => return Err(error),
                _ => {
                    return Err(Error::internal(
                        "the container's init said something that has no meaning",
                    ));
                }
            },
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(err) => return Err(err).context(|| "cannot wait for the start".to_owned()),
        }
    }
}

fn open_dir(dir: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("cannot open {}", dir.display()))
}
