//! Frames with descriptors over unix sockets, and the trick that keeps socket paths short.

use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use stdx::{Context, Result};

pub(crate) const SOCKET: &str = "shim.sock";

/// Sends all of a frame on a blocking socket; the descriptors travel with its first bytes.
pub(crate) fn send(
    mut socket: &UnixStream,
    frame: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let sent = loop {
        match sys::socket::send_with_fds(socket, frame, descriptors) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    socket.write_all(&frame[sent..])
}

/// A directory by descriptor, so that a socket in it has a short name however deep it lies: an address holds 108 bytes.
pub(crate) fn open_dir(dir: &Path) -> Result<OwnedFd> {
    rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("cannot open {}", dir.display()))
}

/// The shim's socket seen through its directory's descriptor.
pub(crate) fn socket_path(dir: BorrowedFd<'_>) -> PathBuf {
    sys::fd::path(dir).join(SOCKET)
}
