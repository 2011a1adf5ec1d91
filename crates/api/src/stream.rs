//! How stdout and stderr share one connection when there is no terminal: frames of an eight-byte header and a payload.
//!
//! The header is the stream's number, three zeros, and the payload's length as a big-endian `u32`.

pub const HEADER: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    /// The engine itself has something to say: the attach or the log failed.
    System = 3,
}

impl Stream {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Stdin, Self::Stdout, Self::Stderr, Self::System]
            .into_iter()
            .find(|stream| *stream as u8 == number)
    }
}

/// The header in front of `length` bytes of `stream`.
pub fn header(stream: Stream, length: u32) -> [u8; HEADER] {
    let [a, b, c, d] = length.to_be_bytes();
    [stream as u8, 0, 0, 0, a, b, c, d]
}

/// One whole frame.
pub fn frame(stream: Stream, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("payloads are buffers, far below 4 GiB");
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend_from_slice(&header(stream, length));
    frame.extend_from_slice(payload);
    frame
}

/// Takes frames apart as their bytes arrive, in whatever pieces.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER],
    have: usize,
    /// The frame that is being read: its stream, and what is still to come.
    open: Option<(Stream, usize)>,
}

/// Not a frame: the other end does not speak this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAFrame(pub u8);

impl std::fmt::Display for NotAFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unrecognized stream: {}", self.0)
    }
}

impl std::error::Error for NotAFrame {}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// The next piece of payload at the front of `bytes`, which shrinks by what was used; `None` when all is used.
    pub fn next<'a>(
        &mut self,
        bytes: &mut &'a [u8],
    ) -> Result<Option<(Stream, &'a [u8])>, NotAFrame> {
        loop {
            if let Some((stream, left)) = self.open.take() {
                let (payload, rest) = bytes.split_at(left.min(bytes.len()));
                *bytes = rest;
                if payload.len() < left {
                    self.open = Some((stream, left - payload.len()));
                }
                match payload.is_empty() {
                    true if bytes.is_empty() => return Ok(None),
                    true => continue,
                    false => return Ok(Some((stream, payload))),
                }
            }
            let (part, rest) = bytes.split_at((HEADER - self.have).min(bytes.len()));
            self.header[self.have..self.have + part.len()].copy_from_slice(part);
            self.have += part.len();
            *bytes = rest;
            if self.have < HEADER {
                return Ok(None);
            }
            self.have = 0;
            let [number, _, _, _, a, b, c, d] = self.header;
            let stream = Stream::from_number(number).ok_or(NotAFrame(number))?;
            self.open = Some((stream, u32::from_be_bytes([a, b, c, d]) as usize));
        }
    }

    /// True between frames: an end of the connection here loses nothing.
    pub fn at_boundary(&self) -> bool {
        self.have == 0 && self.open.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Vec<(Stream, Vec<u8>)> {
        let mut decoder = Decoder::new();
        let mut out: Vec<(Stream, Vec<u8>)> = Vec::new();
        for piece in pieces {
            let mut bytes = *piece;
            while let Some((stream, payload)) = decoder.next(&mut bytes).unwrap() {
                match out.last_mut() {
                    Some((last, text)) if *last == stream => text.extend_from_slice(payload),
                    _ => out.push((stream, payload.to_vec())),
                }
            }
        }
        out
    }

    #[test]
    fn whatever_the_pieces() {
        let mut wire = frame(Stream::Stdout, b"out");
        wire.extend(frame(Stream::Stderr, b""));
        wire.extend(frame(Stream::Stderr, b"err"));
        assert_eq!(wire[..HEADER], [1, 0, 0, 0, 0, 0, 0, 3]);
        let want = [(Stream::Stdout, b"out".to_vec()), (Stream::Stderr, b"err".to_vec())];
        for size in 1..=wire.len() {
            let pieces: Vec<_> = wire.chunks(size).collect();
            assert_eq!(decode(&pieces), want, "pieces of {size}");
        }
    }

    #[test]
    fn something_else_is_refused() {
        let mut bytes = &b"HTTP/1.1 200"[..];
        assert_eq!(Decoder::new().next(&mut bytes), Err(NotAFrame(b'H')));
    }
}
