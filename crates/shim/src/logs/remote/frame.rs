//! One record on its way from the shim to a driver's process: a message of a socket that keeps their borders.

use stdx::time::Timestamp;

use crate::logs::Stamp;
use crate::protocol::Stream;

/// Stream, end, seconds, nanoseconds.
pub(super) const HEAD: usize = 14;

pub(in crate::logs) fn encode(at: Stamp, stream: Stream, line: &[u8], ended: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + line.len());
    out.push(if stream == Stream::Stderr { 2 } else { 1 });
    out.push(u8::from(ended));
    let (seconds, nanos) = at.parts();
    out.extend_from_slice(&seconds.to_le_bytes());
    out.extend_from_slice(&nanos.to_le_bytes());
    out.extend_from_slice(line);
    out
}

/// A record that has arrived.
pub(super) struct Frame<'a> {
    stream: Stream,
    pub(super) ended: bool,
    seconds: i64,
    nanos: u32,
    line: &'a [u8],
}

/// `None` is rubbish.
pub(super) fn decode(bytes: &[u8]) -> Option<Frame<'_>> {
    let (head, line) = bytes.split_at_checked(HEAD)?;
    Some(Frame {
        stream: if head[0] == 2 { Stream::Stderr } else { Stream::Stdout },
        ended: head[1] == 1,
        seconds: i64::from_le_bytes(head[2..10].try_into().ok()?),
        nanos: u32::from_le_bytes(head[10..14].try_into().ok()?),
        line,
    })
}

impl<'a> Frame<'a> {
    /// Each stream has its own unfinished line.
    pub(super) fn part_index(&self) -> usize {
        usize::from(self.stream == Stream::Stderr)
    }

    pub(super) fn message(&self, part: Option<&'a Part>) -> Message<'a> {
        let Self { stream, seconds, nanos, line, .. } = *self;
        Message { stream, seconds, nanos, line, part }
    }
}

/// A record as drivers see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) stream: Stream,
    pub(super) seconds: i64,
    pub(super) nanos: u32,
    /// Without its newline.
    pub(super) line: &'a [u8],
    /// Of a line that is longer than a record.
    pub(super) part: Option<&'a Part>,
}

impl Message<'_> {
    pub(super) fn source(&self) -> &'static str {
        self.stream.as_str()
    }

    pub(super) fn timestamp(&self) -> Timestamp {
        Timestamp::from_unix_nanos(self.unix_nanos())
    }

    pub(super) fn unix_nanos(&self) -> i128 {
        i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos)
    }

    pub(super) fn unix_millis(&self) -> i64 {
        self.seconds * 1000 + i64::from(self.nanos / 1_000_000)
    }

    /// As text; what is none is shown as such.
    pub(super) fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.line)
    }
}

/// Which part of a long line it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) id: String,
    /// From 1.
    pub(super) ordinal: u32,
    pub(super) last: bool,
}

/// Counts the parts of one stream's lines.
#[derive(Debug, Default)]
pub(super) struct Parts {
    begun: Option<Part>,
}

impl Parts {
    pub(super) fn next(&mut self, ended: bool) -> Option<Part> {
        let part = match (self.begun.take(), ended) {
            (None, true) => return None,
            (None, false) => Part { id: random_id(), ordinal: 1, last: false },
            // Docker's numbers: the last one is counted, too.
            (Some(part), _) => Part { ordinal: part.ordinal + 1, last: ended, ..part },
        };
        if !ended {
            self.begun = Some(part.clone());
        }
        Some(part)
    }
}

/// 64 hexadecimal digits.
pub(super) fn random_id() -> String {
    random::<32>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same, as a UUID is written.
pub(super) fn random_uuid() -> String {
    let id = random_id();
    format!("{}-{}-4{}-a{}-{}", &id[..8], &id[8..12], &id[13..16], &id[17..20], &id[20..32])
}

pub(super) fn random<const COUNT: usize>() -> [u8; COUNT] {
    let mut bytes = [0; COUNT];
    // So few bytes the kernel gives whole, once it has booted.
    let _filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let at = Stamp::at(1_763_719_200, 5);
        let bytes = encode(at, Stream::Stderr, b"line", false);
        let frame = decode(&bytes).unwrap();
        assert!(!frame.ended);
        let message = frame.message(None);
        assert_eq!((message.source(), message.line), ("stderr", &b"line"[..]));
        assert_eq!(message.unix_nanos(), 1_763_719_200_000_000_005);
        assert!(decode(&bytes[..5]).is_none());
    }

    #[test]
    fn parts_are_counted_until_the_last() {
        let mut parts = Parts::default();
        assert_eq!(parts.next(true), None);
        let first = parts.next(false).unwrap();
        assert_eq!((first.id.len(), first.ordinal, first.last), (64, 1, false));
        let second = parts.next(false).unwrap();
        assert_eq!((&second.id, second.ordinal, second.last), (&first.id, 2, false));
        let last = parts.next(true).unwrap();
        assert_eq!((&last.id, last.ordinal, last.last), (&first.id, 3, true));
        assert_eq!(parts.next(true), None);
    }
}
