//! The container's terminal: made in its own devpts, mastered outside.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci::runtime::ConsoleSize;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use stdx::{Context, Error, Result};

/// Both ends of a new terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub master: OwnedFd,
    pub terminal: OwnedFd,
}

impl Terminal {
    /// In the devpts we have mounted ourselves and hold: no path of the container is looked at.
    pub(crate) fn open_in(devpts: &OwnedFd) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = rustix::fs::openat(devpts, "ptmx", flags, Mode::empty());
        Self::of(master.context(|| "cannot open the container's ptmx".to_owned())?)
    }

    /// In the devpts a container has at `/dev/pts`, reached without any link, and verified to be one.
    pub(crate) fn open_below(root: impl AsFd) -> Result<Self> {
        const DEVPTS_SUPER_MAGIC: rustix::fs::FsWord = 0x1cd1;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let words = || "cannot open the container's /dev/pts/ptmx".to_owned();
        let master =
            rustix::fs::openat2(root, Path::new("dev/pts/ptmx"), flags, Mode::empty(), resolve)
                .context(words)?;
        if rustix::fs::fstatfs(&master).context(words)?.f_type != DEVPTS_SUPER_MAGIC {
            return Err(Error::invalid("the container's /dev/pts is no devpts file system"));
        }
        let status = rustix::fs::fcntl_getfl(&master).context(words)?;
        rustix::fs::fcntl_setfl(&master, status.difference(OFlags::NONBLOCK)).context(words)?;
        Self::of(master)
    }

    fn of(master: OwnedFd) -> Result<Self> {
        let words = || "cannot open a terminal".to_owned();
        rustix::pty::unlockpt(&master).context(words)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        // The other end through the master, not by its name (CVE-2025-52565).
        let terminal = rustix::pty::ioctl_tiocgptpeer(&master, flags).context(words)?;
        Ok(Self { master, terminal })
    }

    pub(crate) fn resize(&self, size: ConsoleSize) -> Result<()> {
        let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.master, size)
            .context(|| "cannot set the size of the terminal".to_owned())
    }
}

/// Makes it the terminal of this session and its standard streams.
pub(crate) fn control(terminal: &OwnedFd) -> Result<()> {
    let words = || "cannot take the terminal".to_owned();
    rustix::process::ioctl_tiocsctty(terminal).context(words)?;
    let fd = terminal.as_fd();
    sys::fd::install_stdio(fd, fd, fd).context(words)
}
