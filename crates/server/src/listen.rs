//! Where clients come in: unix sockets, TCP, and sockets that somebody else has opened for us.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustix::fs::{AtFlags, Gid, Mode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use stdx::{Context, Error, Result};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

/// The groups whose members may use the socket, the first that exists.
pub const GROUPS: [&str; 2] = ["docker", "gantry"];

/// How long a TLS client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Bytes on their way to a local client that has not read them.
const MOST_WAITING: usize = 1 << 20;

/// An open socket that clients connect to.
pub struct Listener {
    socket: Socket,
    /// What is printed about it: `unix:///run/gantry.sock`.
    name: String,
    /// The file that goes with it when it closes; none where somebody else has made the socket.
    _file: Option<SocketFile>,
}

/// A socket in the file system, known by its number: what another has put in its place stays.
struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let meta = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), id: (meta.dev(), meta.ino()) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let now = std::fs::symlink_metadata(&self.path);
        if now.is_ok_and(|now| (now.dev(), now.ino()) == self.id) {
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

enum Socket {
    Unix(UnixListener),
    Tcp { listener: TcpListener, tls: Option<TlsAcceptor> },
}

/// What TCP clients must show.
#[derive(Clone)]
pub enum TcpSecurity {
    /// Anybody who can connect is root here. Only when the operator said so.
    Plain,
    /// What is served there may be known to anybody who can connect.
    Public,
    Tls(Arc<ServerConfig>),
}

/// The files of `--tlscacert`, `--tlscert` and `--tlskey`.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Who signed the clients' certificates; `None` lets everybody in who trusts ours.
    pub client_ca: Option<PathBuf>,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Listener {
    /// Opens one `--host`: `unix://path`, `tcp://address:port` or `fd://[name]`, which may be several.
    ///
    /// `inherited` is what socket activation left us, by name. Without `tcp` a TCP host is refused.
    pub fn open(
        host: &str,
        tcp: Option<&TcpSecurity>,
        inherited: &[(String, u32)],
    ) -> Result<Vec<Self>> {
        let (scheme, rest) = host.split_once("://").unwrap_or(("unix", host));
        match scheme {
            "unix" => Ok(vec![Self::unix(Path::new(rest), &GROUPS)?]),
            "tcp" => Ok(vec![Self::tcp(rest, tcp.ok_or_else(|| refuse_plain(host))?)?]),
            "fd" => Self::activated(rest, tcp, inherited),
            _ => Err(Error::invalid(format!(
                "invalid bind address (\"{host}\"): unsupported proto '{scheme}'"
            ))),
        }
    }

    /// A unix socket for root and one group. A stale one is replaced, a living one is not.
    pub fn unix(path: &Path, groups: &[&str]) -> Result<Self> {
        remove_stale(path)?;
        let context = || format!("cannot listen on unix://{}", path.display());
        let socket = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
            None,
        )
        .context(context)?;
        // The mode of the socket's own inode, less the umask, is what bind gives the file: there is no moment when others
        // could connect. The umask may take the group away too, hence chmod below.
        rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o660)).context(context)?;
        let address = rustix::net::SocketAddrUnix::new(path).context(context)?;
        rustix::net::bind(&socket, &address).context(context)?;
        if let Some(group) = groups.iter().find_map(|name| group(name)) {
            rustix::fs::chownat(
                rustix::fs::CWD,
                path,
                None,
                Some(group),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .context(context)?;
        }
        rustix::fs::chmod(path, Mode::from_raw_mode(0o660)).context(context)?;
        rustix::net::listen(&socket, 1024).context(context)?;
        let file = SocketFile::of(path).context(context)?;
        Ok(Self {
            _file: Some(file),
            ..Self::from_unix(socket, format!("unix://{}", path.display()))?
        })
    }

    /// A TCP socket.
    pub fn tcp(address: &str, security: &TcpSecurity) -> Result<Self> {
        let context = || format!("cannot listen on tcp://{address}");
        let address: SocketAddr = match address.parse() {
            Ok(address) => address,
            Err(_) => std::net::ToSocketAddrs::to_socket_addrs(address)
                .context(context)?
                .next()
                .context(context)?,
        };
        let listener = std::net::TcpListener::bind(address).context(context)?;
        Self::of_tcp(listener.into(), security)
    }

    fn activated(
        wanted: &str,
        tcp: Option<&TcpSecurity>,
        inherited: &[(String, u32)],
    ) -> Result<Vec<Self>> {
        let mut listeners = Vec::new();
        for (name, number) in inherited {
            if !wanted.is_empty() && wanted != "*" && wanted != name && wanted != number.to_string()
            {
                continue;
            }
            let context = || format!("cannot use inherited descriptor {number}");
            let socket = sys::process::inherited_fd(*number).context(context)?;
            let family = rustix::net::getsockname(&socket).context(context)?.address_family();
            listeners.push(match family {
                rustix::net::AddressFamily::UNIX => {
                    Self::from_unix(socket, format!("fd://{name}"))?
                }
                _ => {
                    Self::of_tcp(socket, tcp.ok_or_else(|| refuse_plain(&format!("fd://{name}")))?)?
                }
            });
        }
        match listeners.is_empty() {
            true => {
                Err(Error::invalid(format!("no socket was passed to the daemon for fd://{wanted}")))
            }
            false => Ok(listeners),
        }
    }

    fn from_unix(socket: OwnedFd, name: String) -> Result<Self> {
        let listener = std::os::unix::net::UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Self { socket: Socket::Unix(UnixListener::from_std(listener)?), name, _file: None })
    }

    /// A TCP socket that listens already.
    pub fn of_tcp(socket: OwnedFd, security: &TcpSecurity) -> Result<Self> {
        let listener = std::net::TcpListener::from(socket);
        listener.set_nonblocking(true)?;
        let name = format!("tcp://{}", listener.local_addr()?);
        let tls = match security {
            TcpSecurity::Plain => {
                tracing::warn!(host = %name, "whoever can reach this address without TLS has root on this host");
                None
            }
            TcpSecurity::Public => None,
            TcpSecurity::Tls(config) => Some(TlsAcceptor::from(Arc::clone(config))),
        };
        Ok(Self {
            socket: Socket::Tcp { listener: TcpListener::from_std(listener)?, tls },
            name,
            _file: None,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next client, before it has said anything.
    pub(crate) async fn accept(&self) -> io::Result<Incoming> {
        match &self.socket {
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                // As much as the kernel's administrator allows: the fewer times two processes wake each other.
                let _less =
                    rustix::net::sockopt::set_socket_send_buffer_size(&stream, MOST_WAITING);
                Ok(Incoming::Unix(stream))
            }
            Socket::Tcp { listener, tls } => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
                Ok(Incoming::Tcp(stream, tls.clone()))
            }
        }
    }
}

impl TcpSecurity {
    /// Reads the files; clients must show a certificate where `client_ca` is given.
    pub fn tls(files: &TlsFiles) -> Result<Self> {
        let certificates = certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|cause| {
            Error::invalid(format!("cannot read the key {}", files.key.display())).caused_by(cause)
        })?;
        let provider = tls::provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in self::certificates(path)? {
                    roots.add(certificate).map_err(unusable)?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(unusable)?)
            }
        };
        let mut config = builder.with_single_cert(certificates, key).map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self::Tls(Arc::new(config)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let unreadable = |cause| {
        Error::invalid(format!("cannot read the certificates in {}", path.display()))
            .caused_by(cause)
    };
    read().map_err(|cause: rustls::pki_types::pem::Error| unreadable(cause))
}

fn unusable(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::invalid("these TLS files cannot be used").caused_by(cause)
}

fn refuse_plain(host: &str) -> Error {
    Error::invalid(format!(
        "{host} without TLS would give root on this host to everybody who can reach it; give TLS files, or say that this is \
         wanted"
    ))
}

/// Removes a socket that nobody listens on. Anything else in its place stays.
fn remove_stale(path: &Path) -> Result<()> {
    let context = || format!("cannot listen on unix://{}", path.display());
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(context),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(Error::conflict(format!(
                "{}: there is something that is not a socket",
                context()
            )));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).context(context)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(Error::conflict(format!("{}: another daemon listens there", context()))),
    }
}

/// A group's number, from /etc/group.
fn group(name: &str) -> Option<Gid> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    let number = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)).flatten()
    })?;
    number.parse().ok().map(Gid::from_raw)
}

/// A client that has connected.
pub(crate) enum Incoming {
    Unix(UnixStream),
    Tcp(TcpStream, Option<TlsAcceptor>),
}

impl Incoming {
    /// Is it root on this host? Only a unix socket can tell.
    pub(crate) fn is_root(&self) -> bool {
        match self {
            Self::Unix(stream) => stream.peer_cred().is_ok_and(|peer| peer.uid() == 0),
            Self::Tcp(..) => false,
        }
    }

    /// The stream behind it, after shaking hands where that is needed.
    pub(crate) async fn stream(self) -> io::Result<Stream> {
        match self {
            Self::Unix(stream) => Ok(Stream::Unix(stream)),
            Self::Tcp(stream, None) => Ok(Stream::Tcp(stream)),
            Self::Tcp(stream, Some(tls)) => {
                match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                    Ok(stream) => Ok(Stream::Tls(Box::new(stream?))),
                    Err(_) => Err(io::ErrorKind::TimedOut.into()),
                }
            }
        }
    }
}

/// Bytes to and from a client, however they travel.
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

impl Stream {
    /// Ready when the client has closed both its ways. `None` over TCP, where that looks like the end of its input alone,
    /// and where there is no descriptor for it.
    pub(crate) fn gone(&self) -> Option<BoxFuture<'static, ()>> {
        let Self::Unix(stream) = self else { return None };
        let copy = rustix::io::fcntl_dupfd_cloexec(stream, 3).ok()?;
        #[allow(
            deprecated,
            reason = "its successor is unsafe; an OwnedFd keeps the promise that one asks for"
        )]
        // A hang-up is told whatever is waited for. Data and room for more would wake us with every piece the client takes.
        let copy = AsyncFd::with_interest(copy, Interest::PRIORITY).ok()?;
        let gone = async move {
            while let Ok(mut ready) = copy.ready(Interest::PRIORITY).await {
                if ready.ready().is_read_closed() {
                    return;
                }
                ready.clear_ready();
            }
        };
        Some(gone.boxed())
    }

    /// Returns when the client has taken everything that was sent, or does not for [`HEAD_START`]. Where that cannot be
    /// seen (inside TLS) at once.
    pub(crate) async fn taken(&self) -> io::Result<()> {
        let Self::Unix(stream) = self else { return Ok(()) };
        let begun = Instant::now();
        while sys::socket::unreceived(stream)? > 0 {
            match begun.elapsed() {
                waited if waited < SPIN => tokio::task::yield_now().await,
                waited if waited < HEAD_START => tokio::time::sleep(SPIN).await,
                _ => break,
            }
        }
        Ok(())
    }
}

/// How long a client may take to receive an answer's head before the bytes of a container follow.
const HEAD_START: Duration = Duration::from_millis(250);
/// A client that waits takes it within this time, which is too short to sleep for.
const SPIN: Duration = Duration::from_micros(500);

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        !matches!(self, Self::Tls(_))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
