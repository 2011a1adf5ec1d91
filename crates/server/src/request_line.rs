//! A request's first line as Go reads it: what a client should have escaped and has not (`?filters={"name":["a"]}`, from
//! many a script) is escaped for it, as hyper would turn the line away.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A line that is longer is nobody's request.
const LONGEST: usize = 64 * 1024;
const METHODS: [&[u8]; 7] =
    [b"GET /", b"HEAD /", b"POST /", b"PUT /", b"DELETE /", b"PATCH /", b"OPTIONS /"];

/// Says that what comes next is a line of a request. Only who knows that nothing else can come may say so.
#[derive(Clone, Default)]
pub(crate) struct Expecting(Arc<AtomicBool>);

impl Expecting {
    pub(crate) fn a_request(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A connection whose requests are looked at where they begin; all else passes.
pub(crate) struct Lenient<S> {
    inner: S,
    expecting: Expecting,
    state: State,
}

enum State {
    /// The beginning of a line.
    Line(BytesMut),
    /// What was read and not yet given on.
    Given(Bytes),
}

impl<S> Lenient<S> {
    pub(crate) fn new(inner: S) -> (Self, Expecting) {
        let expecting = Expecting::default();
        expecting.a_request();
        (Self { inner, expecting: expecting.clone(), state: State::Given(Bytes::new()) }, expecting)
    }

    /// The connection, and what was read of it for nobody.
    pub(crate) fn into_parts(self) -> (S, Bytes) {
        let rest = match self.state {
            State::Line(line) => line.freeze(),
            State::Given(bytes) => bytes,
        };
        (self.inner, rest)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Given(bytes) if bytes.has_remaining() => {
                    let count = bytes.len().min(into.remaining());
                    into.put_slice(&bytes.split_to(count));
                    return Poll::Ready(Ok(()));
                }
                State::Given(_) if this.expecting.0.swap(false, Ordering::AcqRel) => {
                    this.state = State::Line(BytesMut::new());
                }
                State::Given(_) => return Pin::new(&mut this.inner).poll_read(cx, into),
                State::Line(line) => {
                    let mut piece = [0; 4096];
                    let mut piece = ReadBuf::new(&mut piece);
                    ready!(Pin::new(&mut this.inner).poll_read(cx, &mut piece))?;
                    line.extend_from_slice(piece.filled());
                    let over = piece.filled().is_empty() || is_whole(line);
                    if over {
                        let ended = line.is_empty();
                        this.state = State::Given(escaped(line));
                        if ended {
                            return Poll::Ready(Ok(()));
                        }
                    }
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// Whether no more has to be read to understand its first line, or to see that it is none.
fn is_whole(bytes: &[u8]) -> bool {
    let may_be_one = |method: &&[u8]| {
        let length = method.len().min(bytes.len());
        bytes[..length] == method[..length]
    };
    bytes.contains(&b'\n') || bytes.len() > LONGEST || !METHODS.iter().any(may_be_one)
}

/// The same with what may not stand in a target escaped, where it begins with the line of a request.
fn escaped(bytes: &[u8]) -> Bytes {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let line = &bytes[..end];
    let is_request = METHODS.iter().any(|method| line.starts_with(method));
    let target = match (line.iter().position(|c| *c == b' '), line.iter().rposition(|c| *c == b' '))
    {
        (Some(first), Some(last)) if is_request && first < last => first + 1..last,
        _ => return Bytes::copy_from_slice(bytes),
    };
    let mut out = Vec::with_capacity(bytes.len());
    out.extend_from_slice(&bytes[..target.start]);
    for byte in &bytes[target.clone()] {
        match byte {
            b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80.. => {
                out.extend_from_slice(format!("%{byte:02X}").as_bytes());
            }
            plain => out.push(*plain),
        }
    }
    out.extend_from_slice(&bytes[target.end..]);
    out.into()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn check(line: &str, expected: &str) {
        assert_eq!(escaped(line.as_bytes()), expected.as_bytes());
    }

    #[test]
    fn what_should_have_been_escaped_is() {
        check(
            "GET /a?b={\"c\":[\"é#|\"]} HTTP/1.1\r\nX: \"y\"\r\n\r\n",
            "GET /a?b=%7B%22c%22:[%22%C3%A9%23%7C%22]%7D HTTP/1.1\r\nX: \"y\"\r\n\r\n",
        );
        for same in [
            "GET /a?b=%22 HTTP/1.1\r\n",
            "PRI * HTTP/2.0\r\n",
            "GET \"\r\n",
            "{\"a\": \"b c\"}\n",
            "GET /\"",
        ] {
            check(same, same);
        }
    }

    /// What comes out of a connection into which these pieces are written, each read by itself.
    async fn through(pieces: &[&str], again: bool) -> String {
        let (mut client, server) = tokio::io::duplex(8);
        let (mut lenient, expecting) = Lenient::new(server);
        let mut out = String::new();
        for piece in pieces {
            let write = client.write_all(piece.as_bytes());
            let mut bytes = vec![0; 1024];
            let end = &piece.as_bytes()[piece.len().saturating_sub(3)..];
            let read = async {
                let mut got = 0;
                while !bytes[..got].ends_with(end) {
                    got += lenient.read(&mut bytes[got..]).await.unwrap();
                }
                got
            };
            let (written, got) = tokio::join!(write, read);
            written.unwrap();
            out.push_str(std::str::from_utf8(&bytes[..got]).unwrap());
            if again {
                expecting.a_request();
            }
        }
        out
    }

    #[tokio::test]
    async fn only_where_a_request_begins() {
        let piece = "GET /?\"x HTTP/1.1\r\n\r\n";
        let right = "GET /?%22x HTTP/1.1\r\n\r\n";
        assert_eq!(through(&[piece, piece], false).await, format!("{right}{piece}"));
        assert_eq!(through(&[piece, piece], true).await, format!("{right}{right}"));
        // What is no request is not waited for.
        assert_eq!(through(&["\u{16}\"", "{\"a\"}"], true).await, "\u{16}\"{\"a\"}");
    }
}
