//! A connection taken over: after `101 Switching Protocols` it carries the container's streams.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};

/// Both directions, and what the daemon said it will send.
pub struct Hijacked {
    pub reader: Reader,
    pub writer: Writer,
    /// `application/vnd.docker.multiplexed-stream`, `…raw-stream`, or empty from daemons before 1.42.
    pub content_type: String,
}

pub struct Reader(ReadHalf<TokioIo<Upgraded>>);
pub struct Writer(WriteHalf<TokioIo<Upgraded>>);

impl Hijacked {
    pub(crate) fn new(upgraded: Upgraded, content_type: String) -> Self {
        let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
        Self { reader: Reader(reader), writer: Writer(writer), content_type }
    }
}

impl Writer {
    /// Half-close: the container's stdin ends, its output goes on.
    pub async fn close(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
