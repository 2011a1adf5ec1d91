//! One question and its answer in HTTP/1.1 over a connection of its own, within a deadline and a size: for plugins, and
//! for whoever else in a room that blocks has something to ask.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use stdx::{Error, Result};

use crate::discovery::Address;

/// What plugins are asked for.
const ACCEPT: &str = "application/vnd.docker.plugins.v1.2+json";
/// How local plugins are called in the header that HTTP wants.
const LOCAL: &str = "plugin.moby.localhost";
/// Status line and header fields.
const LONGEST_HEAD: usize = 32 << 10;
const MOST_FIELDS: usize = 100;
/// The longest line before a chunk: a size and its extensions.
const LONGEST_LINE: usize = 4 << 10;
/// `100 Continue` and its like are skipped, but not for ever.
const MOST_INTERIM: usize = 5;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// What the server calls that status.
    pub reason: String,
    pub body: Vec<u8>,
}

/// Who is asked, and how.
pub struct Target {
    pub address: Address,
    pub tls: Option<Arc<ClientConfig>>,
    /// The name its certificate must bear, if not the host's.
    pub name: Option<String>,
}

/// What is asked. `Host`, `Content-Length` and `Connection` are added.
#[derive(Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    /// With its slash, and a query if there is one.
    pub path: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

impl Target {
    /// As it stands in errors.
    pub(crate) fn url(&self, method: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/{method}", self.host())
    }

    /// What the `Host` header says.
    pub fn host(&self) -> String {
        match &self.address {
            Address::Unix(_) => LOCAL.to_owned(),
            Address::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Address::Tcp { host, port, .. } => format!("{host}:{port}"),
        }
    }
}

/// Where in the exchange it broke.
#[derive(Debug)]
pub enum Broken {
    /// Nothing of an answer was heard: it may be asked again.
    Before(Error),
    /// In the middle of an answer.
    Within(Error),
}

impl From<Broken> for Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Before(error) | Broken::Within(error) => error,
        }
    }
}

/// Asks a plugin, and hears the answer, none of which is longer than `limit`.
pub(crate) fn post(
    target: &Target,
    method: &str,
    question: &[u8],
    deadline: Instant,
    limit: usize,
) -> Result<Answer, Broken> {
    let (path, headers) = (format!("/{method}"), [("Accept", ACCEPT)]);
    let request = Request { method: "POST", path: &path, headers: &headers, body: question };
    ask(target, &request, deadline, limit)
}

/// Asks, and hears the answer, none of which is longer than `limit`.
pub fn ask(
    target: &Target,
    request: &Request<'_>,
    deadline: Instant,
    limit: usize,
) -> Result<Answer, Broken> {
    let (mut reader, head) = question(target, request, deadline)?;
    let body = body_of(&mut reader, head.length, limit).map_err(Broken::Within)?;
    Ok(Answer { status: head.status, reason: head.reason, body })
}

/// Asks a plugin for an answer that may go on for ever. The deadline is for its beginning only.
pub(crate) fn post_for_stream(
    target: &Target,
    method: &str,
    asked: &[u8],
    deadline: Instant,
) -> Result<(u16, Body), Broken> {
    let (path, headers) = (format!("/{method}"), [("Accept", ACCEPT)]);
    let request = Request { method: "POST", path: &path, headers: &headers, body: asked };
    let (mut reader, head) = question(target, &request, deadline)?;
    // One that refuses has to do so in time.
    if head.status == 200 {
        reader.stream.has_time();
    }
    let left = match head.length {
        Length::Known(length) => Left::Bytes(length),
        Length::UntilTheEnd => Left::All,
        Length::Chunks => Left::Chunks,
    };
    Ok((head.status, Body { reader, left }))
}

/// Asks, and hears the head of the answer.
fn question(
    target: &Target,
    request: &Request<'_>,
    deadline: Instant,
) -> Result<(Reader<Box<dyn Stream>>, Head), Broken> {
    let Request { method, path, headers, body } = request;
    let mut stream = connect(target, deadline).map_err(Broken::Before)?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", target.host());
    for (name, value) in *headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len()));
    let asked = stream.write_all(&[head.as_bytes(), body].concat()).and_then(|()| stream.flush());
    // One that has its answer ready may have closed its ear already.
    let mut reader = Reader { stream, buffer: Vec::new() };
    let head = head_of(&mut reader).map_err(|heard| match asked {
        Err(error) => Broken::Before(words(&error)),
        Ok(()) => Broken::Before(heard),
    })?;
    Ok((reader, head))
}

/// What is said as long as somebody listens.
pub struct Body {
    reader: Reader<Box<dyn Stream>>,
    left: Left,
}

/// What there is still to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Of the whole.
    Bytes(u64),
    /// As long as the connection.
    All,
    /// A chunk that has not begun.
    Chunks,
    /// Of this chunk.
    Chunk(u64),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Body {
    /// What ends the listening from elsewhere, when it is shut down.
    pub fn socket(&self) -> std::io::Result<OwnedFd> {
        self.reader.stream.socket().try_clone_to_owned()
    }
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        read_body(&mut self.reader, &mut self.left, into)
            .map_err(|error| std::io::Error::other(error.chain()))
    }
}

/// Reads what is there of the body; nothing is its end.
fn read_body(reader: &mut Reader<impl Read>, left: &mut Left, into: &mut [u8]) -> Result<usize> {
    if *left == Left::Chunks {
        *left = match chunk(reader)? {
            0 => Left::Bytes(0),
            size => Left::Chunk(size),
        };
    }
    let most = match *left {
        Left::Bytes(left) | Left::Chunk(left) => usize::try_from(left).unwrap_or(usize::MAX),
        Left::All | Left::Chunks => usize::MAX,
    };
    if most == 0 || into.is_empty() {
        return Ok(0);
    }
    if reader.buffer.is_empty() && !reader.more()? {
        return if *left == Left::All { Ok(0) } else { Err(Error::internal("unexpected EOF")) };
    }
    let count = most.min(into.len()).min(reader.buffer.len());
    into[..count].copy_from_slice(&reader.buffer[..count]);
    reader.buffer.drain(..count);
    match left {
        Left::Bytes(left) => *left -= count as u64,
        Left::Chunk(rest) => {
            *rest -= count as u64;
            if *rest == 0 {
                end_of_chunk(reader)?;
                *left = Left::Chunks;
            }
        }
        Left::All | Left::Chunks => {}
    }
    Ok(count)
}

struct Head {
    status: u16,
    reason: String,
    length: Length,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Known(u64),
    Chunks,
    /// As long as the connection.
    UntilTheEnd,
}

fn head_of(reader: &mut Reader<impl Read>) -> Result<Head> {
    for _ in 0..=MOST_INTERIM {
        let head = loop {
            if let Some((head, used)) = parse_head(&reader.buffer)? {
                reader.buffer.drain(..used);
                break head;
            }
            if reader.buffer.len() > LONGEST_HEAD {
                return Err(Error::internal("the answer has too long a header"));
            }
            if !reader.more()? {
                return Err(Error::internal("EOF"));
            }
        };
        if head.status >= 200 {
            return Ok(head);
        }
    }
    Err(Error::internal("the answer does not begin"))
}

/// The head at the beginning of `bytes` and how long it is; `None` if it is not there in full.
fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let bad = |why: &str| Error::internal(format!("malformed HTTP response: {why}"));
    let used = match response.parse(bytes).map_err(|error| bad(&error.to_string()))? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(used) => used,
    };
    let status = response.code.unwrap_or_default();
    let mut length = Length::UntilTheEnd;
    for field in response.headers.iter() {
        let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
        if field.name.eq_ignore_ascii_case("content-length") && length != Length::Chunks {
            let number = value.parse().map_err(|_| bad("bad Content-Length"))?;
            match length {
                Length::Known(other) if other != number => return Err(bad("two lengths")),
                _ => length = Length::Known(number),
            }
        }
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(bad("unknown transfer encoding"));
            }
            length = Length::Chunks;
        }
    }
    if matches!(status, 204 | 304) {
        length = Length::Known(0);
    }
    let reason = response.reason.unwrap_or_default().to_owned();
    Ok(Some((Head { status, reason, length }, used)))
}

fn body_of(reader: &mut Reader<impl Read>, length: Length, limit: usize) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    match length {
        Length::Known(length) => {
            let length = within(length, limit)?;
            reader.take(length, &mut body)?;
        }
        Length::UntilTheEnd => loop {
            body.append(&mut reader.buffer);
            within(body.len() as u64, limit)?;
            if !reader.more()? {
                break;
            }
        },
        Length::Chunks => loop {
            let size = chunk(reader)?;
            // What follows the last one is of no interest, and the connection ends.
            if size == 0 {
                break;
            }
            within((body.len() as u64).saturating_add(size), limit)?;
            reader.take(within(size, limit)?, &mut body)?;
            end_of_chunk(reader)?;
        },
    }
    Ok(body)
}

/// How long the chunk is that begins here.
fn chunk(reader: &mut Reader<impl Read>) -> Result<u64> {
    match httparse::parse_chunk_size(&reader.line()?) {
        Ok(httparse::Status::Complete((_, size))) => Ok(size),
        _ => Err(bad_chunk()),
    }
}

fn end_of_chunk(reader: &mut Reader<impl Read>) -> Result<()> {
    if reader.line()? == b"\r\n" { Ok(()) } else { Err(bad_chunk()) }
}

fn bad_chunk() -> Error {
    Error::internal("malformed chunk in the answer")
}

fn within(length: u64, limit: usize) -> Result<usize> {
    usize::try_from(length)
        .ok()
        .filter(|length| *length <= limit)
        .ok_or_else(|| Error::internal(format!("the answer is larger than {limit} bytes")))
}

/// What has been read and not yet understood.
struct Reader<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: Read> Reader<S> {
    /// Reads some more; `false` at the end.
    fn more(&mut self) -> Result<bool> {
        let mut piece = [0; 8192];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.buffer.extend_from_slice(&piece[..count]);
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // TLS that ends without a goodbye: the length tells whether something is missing.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(words(&error)),
            }
        }
    }

    fn take(&mut self, length: usize, into: &mut Vec<u8>) -> Result<()> {
        while self.buffer.len() < length {
            if !self.more()? {
                return Err(Error::internal("unexpected EOF"));
            }
        }
        into.extend(self.buffer.drain(..length));
        Ok(())
    }

    /// Up to and with the next line's end.
    fn line(&mut self) -> Result<Vec<u8>> {
        let mut seen = 0;
        loop {
            if let Some(at) = self.buffer[seen..].iter().position(|&byte| byte == b'\n') {
                return Ok(self.buffer.drain(..=seen + at).collect());
            }
            seen = self.buffer.len();
            if seen > LONGEST_LINE {
                return Err(bad_chunk());
            }
            if !self.more()? {
                return Err(Error::internal("unexpected EOF"));
            }
        }
    }
}

fn connect(target: &Target, deadline: Instant) -> Result<Box<dyn Stream>> {
    let plain = match &target.address {
        Address::Unix(path) => {
            let dial = |error: std::io::Error| {
                let doing = format!("dial unix {}: connect", path.display());
                Error::internal(doing).caused_by(words(&error))
            };
            Socket::Unix(connect_unix(path, deadline).map_err(dial)?)
        }
        Address::Tcp { host, port, .. } => {
            let dial = |error: std::io::Error| {
                Error::internal(format!("dial tcp {}: connect", target.host()))
                    .caused_by(words(&error))
            };
            let stream = connect_tcp(host, *port, deadline).map_err(dial)?;
            Socket::Tcp(stream)
        }
    };
    let timed = Timed { socket: plain, deadline: Some(deadline) };
    match (&target.tls, &target.address) {
        (Some(config), Address::Tcp { host, .. }) => {
            let host = target.name.as_ref().unwrap_or(host);
            let name = ServerName::try_from(host.clone())
                .map_err(|_| Error::invalid(format!("{host} is no name for TLS")))?;
            let session = ClientConnection::new(Arc::clone(config), name)
                .map_err(|error| Error::internal(error.to_string()))?;
            Ok(Box::new(StreamOwned::new(session, timed)))
        }
        _ => Ok(Box::new(timed)),
    }
}

/// A plugin that does not accept keeps those waiting who connect, too: that is bounded before it begins.
fn connect_unix(path: &std::path::Path, deadline: Instant) -> std::io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(left(deadline)?))?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}

fn connect_tcp(host: &str, port: u16, deadline: Instant) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

trait Stream: Read + Write + Send {
    fn socket(&self) -> BorrowedFd<'_>;

    /// Nobody waits for the end of what is read from now on.
    fn has_time(&mut self);
}

impl Stream for Timed {
    fn socket(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Unix(socket) => socket.as_fd(),
            Socket::Tcp(socket) => socket.as_fd(),
        }
    }

    fn has_time(&mut self) {
        self.deadline = None;
    }
}

impl Stream for StreamOwned<ClientConnection, Timed> {
    fn socket(&self) -> BorrowedFd<'_> {
        self.sock.socket()
    }

    fn has_time(&mut self) {
        self.sock.has_time();
    }
}

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A socket on which nothing lasts longer than until the deadline, if there is one, however slowly the other end goes
/// about it.
struct Timed {
    socket: Socket,
    deadline: Option<Instant>,
}

impl Timed {
    fn arm(&self, which: Timeout) -> std::io::Result<()> {
        let left = self.deadline.map(left).transpose()?;
        Ok(set_socket_timeout(self.socket(), which, left)?)
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.arm(Timeout::Recv)?;
        match &mut self.socket {
            Socket::Unix(socket) => socket.read(buffer),
            Socket::Tcp(socket) => socket.read(buffer),
        }
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.arm(Timeout::Send)?;
        match &mut self.socket {
            Socket::Unix(socket) => socket.write(bytes),
            Socket::Tcp(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn left(deadline: Instant) -> std::io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// Go's words for a deadline, the kernel's for all else.
fn words(error: &std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Error::internal("context deadline exceeded"),
        _ => match error.raw_os_error() {
            Some(errno) => Error::from(std::io::Error::from_raw_os_error(errno)),
            None => Error::internal(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hear(bytes: &[u8], limit: usize) -> Result<(u16, Vec<u8>)> {
        let mut reader = Reader { stream: bytes, buffer: Vec::new() };
        let head = head_of(&mut reader)?;
        Ok((head.status, body_of(&mut reader, head.length, limit)?))
    }

    fn heard(text: &str) -> (u16, String) {
        let (status, body) = hear(text.as_bytes(), 100).unwrap();
        (status, String::from_utf8(body).unwrap())
    }

    fn refused(text: &str) -> String {
        hear(text.as_bytes(), 10).unwrap_err().to_string()
    }

    #[test]
    fn bodies_end_in_three_ways() {
        let known = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}rest";
        assert_eq!(heard(known), (200, "{}".to_owned()));
        let chunked = "HTTP/1.1 500 No\r\nTransfer-Encoding: Chunked\r\n\r\n1;x=y\r\n{\r\n1\r\n}\r\n0\r\n\r\n";
        assert_eq!(heard(chunked), (500, "{}".to_owned()));
        assert_eq!(heard("HTTP/1.0 200 OK\r\n\r\n{}"), (200, "{}".to_owned()));
        let continued = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{}";
        assert_eq!(heard(continued), (200, "{}".to_owned()));
    }

    fn streamed(text: &str) -> Result<String> {
        let mut reader = Reader { stream: text.as_bytes(), buffer: Vec::new() };
        let mut left = match head_of(&mut reader)?.length {
            Length::Known(length) => Left::Bytes(length),
            Length::UntilTheEnd => Left::All,
            Length::Chunks => Left::Chunks,
        };
        let (mut body, mut piece) = (Vec::new(), [0; 3]);
        loop {
            match read_body(&mut reader, &mut left, &mut piece)? {
                0 => return Ok(String::from_utf8(body).unwrap()),
                count => body.extend_from_slice(&piece[..count]),
            }
        }
    }

    #[test]
    fn bodies_in_pieces() {
        let known = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfourrest";
        assert_eq!(streamed(known).unwrap(), "four");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let whole = format!("{chunked}5\r\nabcde\r\n1;x\r\nf\r\n0\r\n\r\n");
        assert_eq!(streamed(&whole).unwrap(), "abcdef");
        assert_eq!(streamed("HTTP/1.0 200 OK\r\n\r\nuntil").unwrap(), "until");
        for (torn, words) in [("5\r\nab", "unexpected EOF"), ("1\r\nabc\r\n", "malformed chunk")] {
            let error = streamed(&format!("{chunked}{torn}")).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let short = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfou";
        assert_eq!(streamed(short).unwrap_err().to_string(), "unexpected EOF");
    }

    #[test]
    fn what_is_too_much_or_too_little() {
        assert!(refused("").contains("EOF"));
        assert!(refused("garbage\r\n\r\n").contains("malformed"));
        assert!(
            refused("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}").contains("unexpected EOF")
        );
        for long in [
            "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n01234567890",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n",
        ] {
            assert_eq!(refused(long), "the answer is larger than 10 bytes", "{long:?}");
        }
        let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for bad in ["x\r\n", "1\r\nabc\r\n", "-1\r\n"] {
            assert!(refused(&format!("{chunk}{bad}")).contains("malformed chunk"), "{bad:?}");
        }
        let fields = "X: y\r\n".repeat(MOST_FIELDS + 1);
        assert!(refused(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).contains("malformed"));
        let field = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(LONGEST_HEAD));
        assert!(refused(&field).contains("too long a header"));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(MOST_INTERIM + 1);
        assert!(refused(&interim).contains("does not begin"));
        assert!(
            refused("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12")
                .contains("two lengths")
        );
    }

    proptest! {
        #[test]
        fn nothing_that_is_heard_does_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let body = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &bytes[..]].concat();
            for text in [&bytes, &body] {
                if let Ok((_, body)) = hear(text, 64) {
                    prop_assert!(body.len() <= 64);
                }
            }
        }
    }
}
