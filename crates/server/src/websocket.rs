//! `attach/ws`: a container's streams as a websocket (RFC 6455), for browsers.
//!
//! Both outputs go as they are, one frame a piece, and what the client sends is input.

use std::io;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use engine::{Attached, DetachKeys, LogStream, Over};
use http::{HeaderMap, header};
use ring::digest;
use stdx::{Error, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

/// What RFC 6455 has a server add to a client's key.
const SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const PIECE: usize = 32 * 1024;
/// The longest frame that a client may send.
const LONGEST: usize = 1 << 20;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// How output is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Text,
    Binary,
}

/// What the server says to the client's key, where the client asks for a websocket.
pub(crate) fn accept(headers: &HeaderMap) -> Result<String> {
    let field = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let asks = field(header::UPGRADE).is_some_and(|word| word.eq_ignore_ascii_case("websocket"));
    let key = field(header::SEC_WEBSOCKET_KEY).filter(|_| asks);
    let key = key.ok_or_else(|| Error::invalid("not websocket protocol"))?;
    let text = format!("{key}{SUFFIX}");
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    Ok(BASE64_STANDARD.encode(hash))
}

/// Joins a container to a websocket whose bytes go through the stream that is given back.
pub(crate) fn join(attached: Attached, payload: Payload) -> Result<UnixStream> {
    let (client, ours) = UnixStream::pair()?;
    tokio::spawn(async move {
        // What ends a connection early is the client's to know, and it does.
        let _early = carry(attached, ours, payload).await;
    });
    Ok(client)
}

async fn carry(attached: Attached, client: UnixStream, payload: Payload) -> io::Result<()> {
    let Attached { tty, stream, detach, replay, over } = attached;
    let (from_container, to_container) = stream.into_split();
    let (from_client, to_client) = client.into_split();
    // Answers to pings go between the frames of output.
    let (answers, answered) = mpsc::channel(16);
    // Neither lasts longer than the other: a websocket is not closed by halves.
    tokio::select! {
        outcome = outward(Outward { tty, payload, to_client }, replay, from_container, over, answered) => outcome,
        outcome = inward(from_client, to_container, detach, answers) => outcome,
    }
}

struct Outward {
    tty: bool,
    payload: Payload,
    to_client: OwnedWriteHalf,
}

async fn outward(
    mut out: Outward,
    replay: Option<LogStream>,
    mut from_container: OwnedReadHalf,
    over: Option<Over>,
    mut answers: mpsc::Receiver<Answer>,
) -> io::Result<()> {
    let mut plain = Plain::new(out.tty);
    if let Some(mut log) = replay {
        while let Some(bytes) = log.next().await {
            out.send(&plain.feed(&bytes)).await?;
        }
    }
    let mut buffer = vec![0; PIECE];
    let mut open = true;
    let end = async {
        if let Some(over) = over {
            over.wait().await;
        }
    };
    tokio::pin!(end);
    loop {
        tokio::select! {
            count = from_container.read(&mut buffer), if open => match count? {
                0 => open = false,
                count => out.send(&plain.feed(&buffer[..count])).await?,
            },
            () = &mut end, if !open => break,
            Some(answer) = answers.recv() => match answer {
                Answer::Pong(bytes) => out.to_client.write_all(&frame(PONG, &bytes)).await?,
                Answer::Close => break,
            },
        }
    }
    // 1000: all has been said.
    out.to_client.write_all(&frame(CLOSE, &1000u16.to_be_bytes())).await?;
    out.to_client.shutdown().await
}

impl Outward {
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let kind = if self.payload == Payload::Text { TEXT } else { BINARY };
        self.to_client.write_all(&frame(kind, bytes)).await
    }
}

enum Answer {
    Pong(Vec<u8>),
    /// The client is done, or has typed the keys that part it.
    Close,
}

async fn inward(
    mut from_client: OwnedReadHalf,
    mut to_container: OwnedWriteHalf,
    mut detach: Option<DetachKeys>,
    answers: mpsc::Sender<Answer>,
) -> io::Result<()> {
    let mut frames = Frames::default();
    let mut buffer = vec![0; PIECE];
    loop {
        while let Some(Frame { kind, bytes }) = frames.next()? {
            let answer = match kind {
                CONTINUATION | TEXT | BINARY => {
                    let (bytes, parted) = match &mut detach {
                        Some(keys) => keys.feed(&bytes),
                        None => (bytes, false),
                    };
                    to_container.write_all(&bytes).await?;
                    parted.then_some(Answer::Close)
                }
                PING => Some(Answer::Pong(bytes)),
                CLOSE => Some(Answer::Close),
                _ => None,
            };
            if let Some(answer) = answer {
                // Nobody listens any more: the output has ended.
                let _over = answers.send(answer).await;
            }
        }
        match from_client.read(&mut buffer).await? {
            0 => return to_container.shutdown().await,
            count => frames.feed(&buffer[..count]),
        }
    }
}

/// One frame as servers write them: whole, and not masked.
fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | kind];
    match bytes.len() {
        length @ 0..126 => out.push(length.to_le_bytes()[0]),
        length @ 126..65536 => {
            out.push(126);
            out.extend_from_slice(&length.to_be_bytes()[6..]);
        }
        length => {
            out.push(127);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(bytes);
    out
}

#[derive(Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    bytes: Vec<u8>,
}

/// Frames out of what a client has sent.
#[derive(Default)]
struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn next(&mut self) -> io::Result<Option<Frame>> {
        let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let [first, second, rest @ ..] = &self.bytes[..] else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(bad("a client's frame is not masked"));
        }
        let width = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some((length, rest)) = rest.split_at_checked(width) else { return Ok(None) };
        let length = match width {
            0 => usize::from(second & 0x7f),
            _ => length.iter().fold(0, |sum: usize, byte| sum.wrapping_shl(8) | usize::from(*byte)),
        };
        if length > LONGEST {
            return Err(bad("a client's frame is too long"));
        }
        let Some((mask, rest)) = rest.split_at_checked(4) else { return Ok(None) };
        let Some(masked) = rest.get(..length) else { return Ok(None) };
        let bytes =
            masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        let frame = Frame { kind: first & 0x0f, bytes };
        self.bytes.drain(..2 + width + 4 + length);
        Ok(Some(frame))
    }
}

/// Output without the heads that tell its streams apart.
struct Plain {
    tty: bool,
    head: Vec<u8>,
    left: usize,
}

impl Plain {
    fn new(tty: bool) -> Self {
        Self { tty, head: Vec::new(), left: 0 }
    }

    fn feed(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        if self.tty {
            return bytes.to_vec();
        }
        let mut out = Vec::with_capacity(bytes.len());
        while !bytes.is_empty() {
            if self.left == 0 {
                let missing = (8 - self.head.len()).min(bytes.len());
                self.head.extend_from_slice(&bytes[..missing]);
                bytes = &bytes[missing..];
                if let [_, _, _, _, length @ ..] = &self.head[..]
                    && let Ok(length) = <[u8; 4]>::try_from(length)
                {
                    self.left = u32::from_be_bytes(length) as usize;
                    self.head.clear();
                }
                continue;
            }
            let (piece, rest) = bytes.split_at(self.left.min(bytes.len()));
            out.extend_from_slice(piece);
            self.left -= piece.len();
            bytes = rest;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_handshake_of_the_standard() {
        let mut headers = HeaderMap::new();
        assert!(accept(&headers).is_err());
        headers.insert(header::UPGRADE, HeaderValue::from_static("WebSocket"));
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
        assert_eq!(accept(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_out() {
        assert_eq!(frame(BINARY, b"hi"), b"\x82\x02hi");
        assert_eq!(frame(TEXT, &[0; 300])[..4], [0x81, 126, 1, 44]);
        assert_eq!(frame(TEXT, &vec![0; 70_000])[..10], [0x81, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
    }

    #[test]
    fn frames_in() {
        let mut whole = vec![0x82, 0x80 | 5, 1, 2, 3, 4];
        whole.extend(b"hello".iter().zip([1, 2, 3, 4, 1]).map(|(byte, mask)| byte ^ mask));
        let mut frames = Frames::default();
        for byte in &whole {
            assert_eq!(frames.next().unwrap(), None);
            frames.feed(&[*byte]);
        }
        let expected = Frame { kind: BINARY, bytes: b"hello".to_vec() };
        assert_eq!(frames.next().unwrap(), Some(expected));
        assert_eq!(frames.next().unwrap(), None);
        frames.feed(&[0x82, 5]);
        assert!(frames.next().is_err());
        let mut frames = Frames::default();
        frames.feed(&[0x82, 0xff, 0, 0, 0, 0, 0xff, 0, 0, 0]);
        assert!(frames.next().is_err());
    }

    #[test]
    fn heads_are_taken_away_wherever_they_are_cut() {
        let framed = b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x01!";
        for cut in 0..framed.len() {
            let mut plain = Plain::new(false);
            let mut out = plain.feed(&framed[..cut]);
            out.extend(plain.feed(&framed[cut..]));
            assert_eq!(out, b"hi!", "{cut}");
        }
        assert_eq!(Plain::new(true).feed(framed), framed);
    }
}
