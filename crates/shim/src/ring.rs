//! What one attached client has not taken yet, in Docker's wire format: 1 MiB, before whoever is waited for is waited for, or
//! the others have lost their stream.
//!
//! A client that falls further behind loses its stream, not the container its pipe: it gets what was queued, then a
//! sentence saying how much it missed, then the end. One who was owed all is told that this is a failure.

use std::collections::VecDeque;
use std::io::IoSlice;

use crate::protocol::Stream;

pub(crate) const LIMIT: usize = 1 << 20;

/// How output is told apart on the way to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// A terminal has one stream of bytes.
    Raw,
    /// Eight bytes before each piece: the stream's number, three zeros, the length in big-endian.
    Multiplexed,
}

/// Whether a client sees all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    /// The process waits for it.
    All,
    /// It is there to look on.
    WhatItTakes,
}

#[derive(Debug)]
pub(crate) struct Ring {
    framing: Framing,
    owed: Owed,
    queue: VecDeque<u8>,
    lost: u64,
    over: bool,
}

/// What comes after it is full and before whoever speaks has stopped: what is in the pipes.
const REST: usize = 512 << 10;
/// The stream of a frame that says why there are no more: `Systemerr` of Docker's `stdcopy`.
const FAILURE: u8 = 3;

impl Ring {
    pub(crate) fn new(framing: Framing, owed: Owed) -> Self {
        Self { framing, owed, queue: VecDeque::new(), lost: 0, over: false }
    }

    /// A read more, and something would be lost.
    pub(crate) fn is_full(&self) -> bool {
        !self.over && self.lost == 0 && self.queue.len() >= LIMIT
    }

    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let limit = match self.owed {
            Owed::All => LIMIT + REST,
            Owed::WhatItTakes => LIMIT,
        };
        if self.over || bytes.is_empty() {
            return;
        }
        if self.lost > 0 || self.queue.len() + bytes.len() + 8 > limit {
            self.lost += bytes.len() as u64;
            return;
        }
        self.append(stream as u8, bytes);
    }

    /// Nothing more will come; what is queued is still to be taken.
    pub(crate) fn end(&mut self) {
        if !self.over && self.lost > 0 {
            self.trail();
        }
        self.over = true;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Everything was taken and nothing more will come.
    pub(crate) fn is_done(&self) -> bool {
        self.over && self.queue.is_empty()
    }

    pub(crate) fn pieces(&self) -> [IoSlice<'_>; 2] {
        let (front, back) = self.queue.as_slices();
        [IoSlice::new(front), IoSlice::new(back)]
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.queue.drain(..count);
        if self.queue.is_empty() {
            if self.lost > 0 && !self.over {
                self.trail();
                self.over = true;
            } else {
                // An idle client costs nothing.
                self.queue = VecDeque::new();
            }
        }
    }

    fn trail(&mut self) {
        let words = match self.framing {
            Framing::Raw => format!("\r\noverrun: {} bytes lost\r\n", self.lost),
            Framing::Multiplexed => format!("overrun: {} bytes lost\n", self.lost),
        };
        self.append(Stream::Stderr as u8, words.as_bytes());
        if self.owed == Owed::All && self.framing == Framing::Multiplexed {
            self.append(FAILURE, b"the client took nothing for too long");
        }
    }

    fn append(&mut self, stream: u8, bytes: &[u8]) {
        if self.framing == Framing::Multiplexed {
            let length = u32::try_from(bytes.len()).expect("a piece is smaller than the ring");
            let [a, b, c, d] = length.to_be_bytes();
            self.queue.extend([stream, 0, 0, 0, a, b, c, d]);
        }
        self.queue.extend(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(ring: &mut Ring) -> Vec<u8> {
        let bytes: Vec<u8> = ring.pieces().iter().flat_map(|piece| piece.to_vec()).collect();
        ring.consume(bytes.len());
        bytes
    }

    #[test]
    fn frames_are_dockers() {
        let mut ring = Ring::new(Framing::Multiplexed, Owed::WhatItTakes);
        ring.push(Stream::Stdout, b"hi\n");
        ring.push(Stream::Stderr, b"!");
        assert_eq!(taken(&mut ring), b"\x01\0\0\0\0\0\0\x03hi\n\x02\0\0\0\0\0\0\x01!");
        let mut ring = Ring::new(Framing::Raw, Owed::WhatItTakes);
        ring.push(Stream::Stdout, b"hi\n");
        assert_eq!(taken(&mut ring), b"hi\n");
        assert!(!ring.is_done());
        ring.end();
        assert!(ring.is_done());
    }

    #[test]
    fn who_lags_is_told_how_much_it_missed() {
        let mut ring = Ring::new(Framing::Raw, Owed::WhatItTakes);
        let block = vec![b'x'; 64 * 1024];
        for _ in 0..20 {
            ring.push(Stream::Stdout, &block);
        }
        assert_eq!(taken(&mut ring), vec![b'x'; 15 * 64 * 1024]);
        assert!(!ring.is_done());
        ring.push(Stream::Stdout, b"too late");
        assert_eq!(taken(&mut ring), b"\r\noverrun: 327680 bytes lost\r\n");
        assert!(ring.is_done());
    }

    #[test]
    fn an_overrun_client_of_a_container_that_ends_is_told_too() {
        let mut ring = Ring::new(Framing::Multiplexed, Owed::WhatItTakes);
        let block = vec![b'x'; LIMIT - 8];
        ring.push(Stream::Stdout, &block);
        ring.push(Stream::Stdout, b"abc");
        ring.end();
        let bytes = taken(&mut ring);
        assert!(bytes.ends_with(b"\x02\0\0\0\0\0\0\x16overrun: 3 bytes lost\n"));
        assert!(ring.is_done());
    }

    #[test]
    fn who_is_owed_all_loses_nothing_before_he_is_waited_for() {
        let mut ring = Ring::new(Framing::Raw, Owed::All);
        let piece = [0; 64 << 10];
        let mut pieces = 0;
        while !ring.is_full() {
            ring.push(Stream::Stdout, &piece);
            pieces += 1;
        }
        // What two pipes hold may still come.
        ring.push(Stream::Stdout, &piece);
        ring.push(Stream::Stderr, &piece);
        ring.end();
        assert_eq!(taken(&mut ring).len(), (pieces + 2) * piece.len());
        assert!(ring.is_done());
    }

    #[test]
    fn who_is_owed_all_is_told_of_a_failure() {
        let mut ring = Ring::new(Framing::Multiplexed, Owed::All);
        ring.push(Stream::Stdout, &vec![b'x'; LIMIT + REST - 8]);
        ring.push(Stream::Stdout, b"abc");
        ring.end();
        let words =
            "overrun: 3 bytes lost\n\x03\0\0\0\0\0\0\x24the client took nothing for too long";
        assert!(taken(&mut ring).ends_with(words.as_bytes()));
    }
}
