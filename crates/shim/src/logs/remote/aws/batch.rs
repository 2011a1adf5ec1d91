//! What one `PutLogEvents` may carry. Pure.

use serde::Serialize;

/// CloudWatch counts this much for every event besides its text.
const EACH: usize = 26;
const MOST_BYTES: usize = 1_048_576;
const MOST_EVENTS: usize = 10_000;
pub(super) const MOST_EVENT_BYTES: usize = 262_144 - EACH;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Event {
    pub(super) message: String,
    /// In milliseconds.
    pub(super) timestamp: i64,
}

#[derive(Debug, Default)]
pub(super) struct Batch {
    events: Vec<Event>,
    bytes: usize,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(super) fn has_room(&self, text: &str) -> bool {
        self.events.len() < MOST_EVENTS && self.bytes + text.len() + EACH <= MOST_BYTES
    }

    pub(super) fn push(&mut self, text: &str, timestamp: i64) {
        self.bytes += text.len() + EACH;
        self.events.push(Event { message: text.to_owned(), timestamp });
    }

    /// All of it, in the order of time, as CloudWatch wants it.
    pub(super) fn take(&mut self) -> Vec<Event> {
        self.bytes = 0;
        let mut events = std::mem::take(&mut self.events);
        events.sort_by_key(|event| event.timestamp);
        events
    }
}

/// A text in pieces that are not longer than `most` bytes; none of nothing. Characters stay whole.
pub(super) fn pieces(mut text: &str, most: usize) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let (piece, rest) = text.split_at(text.floor_char_boundary(most));
        text = rest;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits() {
        let mut batch = Batch::default();
        for _ in 0..MOST_EVENTS {
            assert!(batch.has_room("x"));
            batch.push("x", 1);
        }
        assert!(!batch.has_room("x"));
        assert_eq!(batch.take().len(), MOST_EVENTS);
        let long = "x".repeat(MOST_EVENT_BYTES);
        for _ in 0..4 {
            assert!(batch.has_room(&long));
            batch.push(&long, 1);
        }
        assert!(!batch.has_room("x"));
    }

    #[test]
    fn in_the_order_of_time() {
        let mut batch = Batch::default();
        for (text, at) in [("b", 2), ("a", 1), ("c", 2)] {
            batch.push(text, at);
        }
        let texts: Vec<_> = batch.take().into_iter().map(|event| event.message).collect();
        assert_eq!(texts, ["a", "b", "c"]);
        assert!(batch.is_empty());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(pieces("abcde", 2).collect::<Vec<_>>(), ["ab", "cd", "e"]);
        assert_eq!(pieces("aéb", 2).collect::<Vec<_>>(), ["a", "é", "b"]);
        assert_eq!(pieces("", 2).count(), 0);
    }
}
