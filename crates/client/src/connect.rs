//! Dialling: an endpoint becomes a byte stream, whatever carries it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::endpoint::{Endpoint, SshTarget};

/// Bytes of a local connection; the kernel takes the most that its administrator allows.
const MOST_WAITING: usize = 1 << 20;

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(crate) type Stream = Box<dyn Io>;

pub(crate) async fn dial(
    endpoint: &Endpoint,
    tls: Option<&Arc<rustls::ClientConfig>>,
    ssh_program: &str,
) -> io::Result<Stream> {
    match endpoint {
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(path).await?;
            // As much as anybody may have on its way: threads of two processes wake each other less often.
            let _less = rustix::net::sockopt::set_socket_send_buffer_size(&stream, MOST_WAITING);
            Ok(Box::new(stream))
        }
        Endpoint::Tcp { authority, .. } => {
            let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
            let stream = TcpStream::connect(authority.as_str()).await?;
            stream.set_nodelay(true)?;
            let Some(config) = tls else { return Ok(Box::new(stream)) };
            let name =
                rustls::pki_types::ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                    .map_err(|err| io::Error::new(io::ErrorKind::InvalidInput, err))?;
            let stream =
                tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
            Ok(Box::new(stream))
        }
        Endpoint::Ssh(target) => Ok(Box::new(SshStream::spawn(target, ssh_program)?)),
    }
}

/// The standard streams of an `ssh … dial-stdio`. The child is killed when the stream is dropped.
struct SshStream {
    words: String,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: ChildStderr,
    child: Child,
    received: bool,
}

impl SshStream {
    fn spawn(target: &SshTarget, program: &str) -> io::Result<Self> {
        let arguments = target.arguments(program);
        let mut child = Command::new("ssh")
            .args(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let missing = || io::Error::other("ssh has no standard streams");
        Ok(Self {
            words: format!("ssh {}", arguments.join(" ")),
            stdin: Some(child.stdin.take().ok_or_else(missing)?),
            stdout: child.stdout.take().ok_or_else(missing)?,
            stderr: child.stderr.take().ok_or_else(missing)?,
            child,
            received: false,
        })
    }

    /// What ssh said before it left without an answer, in Docker's words.
    fn poll_failure(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let status = {
            let wait = std::pin::pin!(self.child.wait());
            std::task::ready!(wait.poll(cx))
        };
        let mut text = vec![0; 4096];
        let mut said = String::new();
        let mut read = std::pin::pin!(self.stderr.read(&mut text));
        if let Poll::Ready(Ok(count)) = read.as_mut().poll(cx) {
            said = String::from_utf8_lossy(&text[..count]).into_owned();
        }
        let status = status
            .map_or_else(|err| err.to_string(), |status| status.code().unwrap_or(-1).to_string());
        Poll::Ready(io::Error::other(format!(
            "command [{}] has exited with exit status {status}, make sure the URL is valid, and Docker 18.09 or later is \
             installed on the remote host: stderr={said}",
            self.words
        )))
    }
}

impl AsyncRead for SshStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.stdout).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.received = true;
            return Poll::Ready(Ok(()));
        }
        if self.received {
            return Poll::Ready(Ok(()));
        }
        self.poll_failure(cx).map(Err)
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Closing ssh's standard input is the half-close.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}
