//! The last events, in memory: as they are written to disk, one behind the other in a few large pieces. As values they were
//! ten thousands of small ones, which outlive what is made beside them and leave the allocator holes that grow for as long
//! as there is work.

use std::collections::VecDeque;
use std::ops::Range;

use super::Event;

/// Bytes of a piece: as many as the allocator takes from the kernel by themselves.
const PIECE: usize = 256 << 10;

pub(super) struct Ring {
    pieces: VecDeque<Piece>,
    /// The first that is kept, or the next if none is.
    oldest: u64,
    next: u64,
}

struct Piece {
    first: u64,
    text: Vec<u8>,
    index: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    /// Nanoseconds since 1970.
    at: i64,
    /// Where its text ends in the piece.
    end: usize,
}

/// An event as it is written.
pub(super) struct Written<'a> {
    pub sequence: u64,
    /// Nanoseconds since 1970.
    pub at: i64,
    pub text: &'a [u8],
}

impl Ring {
    pub(super) fn new(next: u64) -> Self {
        Self { pieces: VecDeque::new(), oldest: next, next }
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The first that is kept, or the next if none is.
    pub(super) fn oldest(&self) -> u64 {
        self.oldest
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        (self.next - self.oldest) as usize
    }

    /// `event` is the next.
    pub(super) fn push(&mut self, event: &Event) {
        debug_assert_eq!(event.sequence, self.next);
        let text = serde_json::to_vec(event).unwrap_or_default();
        let fits = |piece: &&mut Piece| piece.text.len() + text.len() <= PIECE;
        let entry = |end| Entry { at: event.at.unix_nanos() as i64, end };
        match self.pieces.back_mut().filter(fits) {
            Some(piece) => {
                piece.text.extend_from_slice(&text);
                piece.index.push(entry(piece.text.len()));
            }
            None => {
                let mut room = Vec::with_capacity(PIECE.max(text.len()));
                room.extend_from_slice(&text);
                let index = vec![entry(text.len())];
                self.pieces.push_back(Piece { first: self.next, text: room, index });
            }
        }
        self.next += 1;
    }

    /// Forgets all before `sequence`.
    pub(super) fn forget(&mut self, sequence: u64) {
        self.oldest = sequence.clamp(self.oldest, self.next);
        while self.pieces.front().is_some_and(|piece| piece.after() <= self.oldest) {
            self.pieces.pop_front();
        }
    }

    /// Those of `range` that are kept, in order.
    pub(super) fn iter(&self, range: Range<u64>) -> impl Iterator<Item = Written<'_>> {
        let range = range.start.max(self.oldest)..range.end.min(self.next);
        self.pieces.iter().flat_map(move |piece| {
            let place = |sequence: u64| sequence.clamp(piece.first, piece.after()) - piece.first;
            let places = place(range.start) as usize..place(range.end) as usize;
            places.map(|place| piece.written(place))
        })
    }
}

impl Piece {
    /// The sequence behind its last.
    fn after(&self) -> u64 {
        self.first + self.index.len() as u64
    }

    fn written(&self, place: usize) -> Written<'_> {
        let begin = place.checked_sub(1).map_or(0, |before| self.index[before].end);
        let Entry { at, end } = self.index[place];
        Written { sequence: self.first + place as u64, at, text: &self.text[begin..end] }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use stdx::time::Timestamp;

    use super::*;
    use crate::journal::{Actor, EventKind};

    fn event(sequence: u64, action: String) -> Event {
        let actor = Actor { id: "x".to_owned(), attributes: BTreeMap::new() };
        Event { sequence, at: Timestamp::now(), kind: EventKind::Container, action, actor }
    }

    #[test]
    fn what_is_kept_is_what_was_put_in() {
        let mut ring = Ring::new(7);
        // Some fill a piece alone.
        let events: Vec<Event> = (7..507)
            .map(|number| {
                event(number, "a".repeat(if number % 50 == 0 { 2 * PIECE } else { 2000 }))
            })
            .collect();
        for event in &events {
            ring.push(event);
        }
        let read = |ring: &Ring, range: Range<u64>| -> Vec<Event> {
            ring.iter(range)
                .map(|written| {
                    let event: Event = serde_json::from_slice(written.text).unwrap();
                    assert_eq!(event.sequence, written.sequence);
                    assert_eq!(event.at.unix_nanos() as i64, written.at);
                    event
                })
                .collect()
        };
        assert_eq!(read(&ring, 0..u64::MAX), events);
        assert_eq!(read(&ring, 30..410), events[23..403]);
        assert!(read(&ring, 600..700).is_empty());
        ring.forget(300);
        assert_eq!((ring.oldest(), ring.len()), (300, 207));
        assert_eq!(read(&ring, 0..u64::MAX), events[293..]);
        assert!(ring.pieces.front().unwrap().after() > 300);
        ring.forget(1000);
        assert_eq!((ring.oldest(), ring.len(), ring.pieces.len()), (507, 0, 0));
        ring.push(&event(507, "start".to_owned()));
        assert_eq!(read(&ring, 0..u64::MAX).len(), 1);
    }
}
