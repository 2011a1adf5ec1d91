//! A connection to a server, over whatever it listens on.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::RecvFlags;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use stdx::{Context, Error, Result};

use super::{Shim, wait};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How often somebody who waits for a server looks whether it is still worth it.
const LOOK: Duration = Duration::from_millis(500);

/// Where a server listens.
#[derive(Clone)]
pub(super) enum Place {
    Unix(PathBuf),
    Unixgram(PathBuf),
    Tcp { host: String, port: u16 },
    Tls { host: String, port: u16, config: Arc<ClientConfig> },
}

pub(super) enum Wire {
    Unix(UnixStream),
    Unixgram(UnixDatagram),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    pub(super) fn dial(place: &Place, shim: &Shim<'_>) -> Result<Self> {
        let words = |kind: &str, path: &std::path::Path| format!("dial {kind} {}", path.display());
        Ok(match place {
            Place::Unix(path) => {
                Self::Unix(UnixStream::connect(path).context(|| words("unix", path))?)
            }
            Place::Unixgram(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path).context(|| words("unixgram", path))?;
                Self::Unixgram(socket)
            }
            Place::Tcp { host, port } => Self::Tcp(dial_tcp(host, *port, shim)?),
            Place::Tls { host, port, config } => {
                let mut socket = dial_tcp(host, *port, shim)?;
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| Error::invalid(format!("{host} is no name for TLS")))?;
                let mut session = ClientConnection::new(Arc::clone(config), name)
                    .map_err(|error| Error::internal(error.to_string()))?;
                let end = shim.deadline(CONNECT);
                while session.is_handshaking() {
                    let step = session.complete_io(&mut socket);
                    match step {
                        Ok(_) => {}
                        Err(error) if is_later(&error) && Instant::now() < end => {}
                        Err(error) => {
                            return Err(Error::unavailable(format!("tls: {error}")));
                        }
                    }
                }
                Self::Tls(Box::new(StreamOwned::new(session, socket)))
            }
        }
        .patient()?)
    }

    /// Nothing waits for longer than it takes to look whether waiting is still worth it.
    fn patient(self) -> io::Result<Self> {
        match &self {
            Self::Unix(socket) => {
                socket.set_write_timeout(Some(LOOK))?;
                socket.set_read_timeout(Some(LOOK))?;
            }
            Self::Unixgram(socket) => {
                socket.set_write_timeout(Some(LOOK))?;
                socket.set_read_timeout(Some(LOOK))?;
            }
            Self::Tcp(_) | Self::Tls(_) => {}
        }
        Ok(self)
    }

    /// Sends all of it; `limit` is how long that may take while the container lives.
    pub(super) fn send(
        &mut self,
        mut bytes: &[u8],
        limit: Option<Duration>,
        shim: &Shim<'_>,
    ) -> io::Result<()> {
        let end = limit.map(|limit| Instant::now() + limit);
        let goes_on = || shim.goes_on() && end.is_none_or(|end| Instant::now() < end);
        while !bytes.is_empty() {
            let sent = match self {
                Self::Unix(socket) => socket.write(bytes),
                Self::Unixgram(socket) => socket.send(bytes).map(|_| bytes.len()),
                Self::Tcp(socket) => socket.write(bytes),
                Self::Tls(stream) => stream.write(bytes),
            };
            match sent {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_later(&error) && goes_on() => {}
                Err(error) => return Err(error),
            }
        }
        if let Self::Tls(stream) = self {
            while let Err(error) = stream.flush() {
                if !(is_later(&error) && goes_on()) {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Reads something, waiting for it.
    pub(super) fn receive(&mut self, bytes: &mut [u8], shim: &Shim<'_>) -> io::Result<usize> {
        loop {
            let read = match self {
                Self::Unix(socket) => socket.read(bytes),
                Self::Unixgram(socket) => socket.recv(bytes),
                Self::Tcp(socket) => socket.read(bytes),
                Self::Tls(stream) => stream.read(bytes),
            };
            match read {
                Err(error) if is_later(&error) && shim.goes_on() => {}
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                other => return other,
            }
        }
    }

    /// Whether the server has hung up, as far as can be seen without waiting: what is sent then would be lost.
    pub(super) fn is_over(&self) -> bool {
        let fd = match self {
            Self::Unixgram(_) => return false,
            Self::Unix(socket) => socket.as_fd(),
            Self::Tcp(socket) => socket.as_fd(),
            Self::Tls(stream) => stream.sock.as_fd(),
        };
        wait(fd, PollFlags::IN, Some(Duration::ZERO)) && is_at_end(fd)
    }
}

fn is_at_end(fd: BorrowedFd<'_>) -> bool {
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    !matches!(
        rustix::net::recv(fd, &mut [0; 1][..], flags),
        Ok((1, _)) | Err(rustix::io::Errno::AGAIN)
    )
}

fn dial_tcp(host: &str, port: u16, shim: &Shim<'_>) -> Result<TcpStream> {
    let addresses =
        (host, port).to_socket_addrs().context(|| format!("dial tcp: lookup {host}"))?;
    let mut last = Error::not_found(format!("dial tcp: lookup {host}: no such host"));
    let end = shim.deadline(CONNECT);
    for address in addresses {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&address, left) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                socket.set_write_timeout(Some(LOOK))?;
                socket.set_read_timeout(Some(LOOK))?;
                return Ok(socket);
            }
            Err(error) => {
                last = Error::unavailable(format!("dial tcp {address}: connect"))
                    .caused_by(kernels(error));
            }
        }
    }
    Err(last)
}

/// The kernel's words without Rust's number behind them.
fn kernels(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(errno) => Error::from(io::Error::from_raw_os_error(errno)),
        None if error.kind() == ErrorKind::TimedOut => Error::unavailable("i/o timeout"),
        None => Error::unavailable(error.to_string()),
    }
}

/// Not yet, or interrupted.
fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
