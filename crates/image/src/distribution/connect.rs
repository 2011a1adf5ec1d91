//! Connections to registries: TCP by the system's resolver (and so /etc/hosts), TLS by the system's CA certificates.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rootless::Outside;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// Opens connections for the HTTP client.
#[derive(Clone)]
pub(super) struct Connector {
    trust: Trust,
    tls: Arc<OnceLock<Arc<ClientConfig>>>,
    /// Who has the host's network, where ours is another.
    outside: Option<Arc<Outside>>,
}

/// Whose certificates are believed: only two kinds of registries there are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    System,
    /// For registries the operator called insecure.
    Anybody,
}

impl From<Trust> for tls::Trust {
    fn from(trust: Trust) -> Self {
        match trust {
            Trust::System => Self::System,
            Trust::Anybody => Self::Anybody,
        }
    }
}

impl Connector {
    pub(super) fn new(trust: Trust, outside: Option<Arc<Outside>>) -> Self {
        Self { trust, tls: Arc::default(), outside }
    }

    fn tls(&self) -> io::Result<Arc<ClientConfig>> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(tls::client(self.trust.into(), None).map_err(io::Error::other)?);
        Ok(Arc::clone(self.tls.get_or_init(|| config)))
    }

    async fn connect(self, uri: Uri) -> Result<Stream, DialError> {
        let https = uri.scheme_str() == Some("https");
        let host =
            uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let tcp = tokio::time::timeout(DIAL_TIMEOUT, dial(self.outside.clone(), &host, port))
            .await
            .map_err(|_| DialError::new(format!("dial tcp: {host}:{port}: i/o timeout")))??;
        if !https {
            return Ok(Stream::Plain(TokioIo::new(tcp)));
        }
        let config = self.tls().map_err(|error| DialError::new(error.to_string()))?;
        let name =
            ServerName::try_from(host).map_err(|_| DialError::new("tls: invalid server name"))?;
        let handshake = TlsConnector::from(config).connect(name, tcp);
        let tls = tokio::time::timeout(DIAL_TIMEOUT, handshake)
            .await
            .map_err(|_| DialError::new("net/http: TLS handshake timeout"))?
            .map_err(|error| tls_failure(&error))?;
        Ok(Stream::Tls(Box::new(TokioIo::new(tls))))
    }
}

/// Tries each address of a name; the last failure is told.
async fn dial(
    outside: Option<Arc<Outside>>,
    host: &str,
    port: u16,
) -> Result<TcpStream, DialError> {
    let addresses = lookup(outside.clone(), host, port)
        .await
        .map_err(|_| DialError::new(format!("dial tcp: lookup {host}: no such host")))?;
    let mut last = DialError::new(format!("dial tcp: lookup {host}: no such host"));
    for address in addresses {
        match connect(outside.clone(), address).await {
            Ok(tcp) => {
                // Requests are small and answers are waited for.
                let _best_effort = tcp.set_nodelay(true);
                return Ok(tcp);
            }
            Err(error) => {
                last = DialError::new(format!(
                    "dial tcp {address}: connect: {}",
                    stdx::Error::from(error)
                ));
            }
        }
    }
    Err(last)
}

async fn lookup(
    outside: Option<Arc<Outside>>,
    host: &str,
    port: u16,
) -> io::Result<Vec<SocketAddr>> {
    let Some(outside) = outside else {
        return Ok(tokio::net::lookup_host((host, port)).await?.collect());
    };
    let name = host.to_owned();
    let found = tokiox::blocking(move || outside.lookup(&name)).await?;
    Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

async fn connect(outside: Option<Arc<Outside>>, address: SocketAddr) -> io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let Some(outside) = outside else { return TcpStream::connect(address).await };
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let made = move || outside.socket(family, SocketType::STREAM, flags, None);
    let socket = tokiox::blocking(made).await?;
    TcpSocket::from_std_stream(socket.into()).connect(address).await
}

fn tls_failure(error: &io::Error) -> DialError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(_)) => {
            DialError::new("http: server gave HTTP response to HTTPS client")
        }
        Some(rustls::Error::InvalidCertificate(reason)) => DialError::new(format!(
            "tls: failed to verify certificate: x509: {}",
            certificate_words(reason)
        )),
        _ => DialError::new(error.to_string()),
    }
}

fn certificate_words(reason: &rustls::CertificateError) -> String {
    match reason {
        rustls::CertificateError::UnknownIssuer => {
            "certificate signed by unknown authority".to_owned()
        }
        rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. } => {
            "certificate has expired or is not yet valid".to_owned()
        }
        other => other.to_string(),
    }
}

/// Why there is no connection, in Go's words.
#[derive(Debug)]
pub(super) struct DialError(String);

impl DialError {
    fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

impl std::fmt::Display for DialError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DialError {}

impl tower_service::Service<Uri> for Connector {
    type Response = Stream;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A connection, with or without TLS.
pub(super) enum Stream {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
