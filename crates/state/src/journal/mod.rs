//! The journal: what happened, in one total order, kept for a while and told to whoever listens.
//!
//! Rooms append; `docker events`, the UI and the cluster agent read. A listener that is too slow is told which events it
//! missed; nothing is dropped in silence.

mod ring;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::params;
use serde::{Deserialize, Serialize};
use stdx::Result;
use stdx::time::Timestamp;

use self::ring::{Ring, Written};
use crate::Store;
use crate::store::failed;

/// Events kept in memory for listeners.
const RING: usize = 8192;
/// The most that are kept because they are not on disk yet.
const UNSAVED: usize = 8 * RING;
/// Events kept on disk for `--since`.
const KEPT: i64 = 20_000;
/// Bytes of attributes that an event carries. Labels come with images, and an image may bring megabytes of them.
const ATTRIBUTES: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    Builder,
    Config,
    Container,
    Daemon,
    Image,
    Network,
    Node,
    Plugin,
    Secret,
    Service,
    Volume,
}

/// What it happened to: an identifier and what else is known of it (labels, name, image, exit code …).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    pub id: String,
    pub attributes: BTreeMap<String, String>,
}

impl Actor {
    /// Without its longest attributes, where they are too much in all.
    fn bounded(mut self) -> Self {
        let size = |(key, value): (&String, &String)| key.len() + value.len();
        let mut total: usize = self.attributes.iter().map(size).sum();
        if total > ATTRIBUTES {
            let mut sizes: Vec<_> =
                self.attributes.iter().map(|pair| (size(pair), pair.0.clone())).collect();
            sizes.sort();
            while let Some((size, key)) = sizes.pop().filter(|_| total > ATTRIBUTES) {
                total -= size;
                self.attributes.remove(&key);
            }
        }
        self
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the total order; grows by one.
    pub sequence: u64,
    pub at: Timestamp,
    pub kind: EventKind,
    /// `create`, `die`, `exec_create: sh` …: Docker's word.
    pub action: String,
    pub actor: Actor,
}

/// Appends events and hands them out. Clones share it.
#[derive(Clone)]
pub struct Journal {
    store: Store,
    shared: Arc<Shared>,
}

struct Shared {
    /// Who listens on behalf of somebody else.
    listeners: AtomicUsize,
    kept: Mutex<Kept>,
    /// Called after each append; wakes listeners that do not block (see [`Journal::on_append`]).
    wakers: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
}

struct Kept {
    ring: Ring,
    /// The last that is on disk.
    saved: u64,
}

impl Journal {
    /// Continues the journal in `store`.
    pub fn open(store: &Store) -> Result<Self> {
        let last: i64 = store
            .reader()
            .query_row("SELECT coalesce(max(sequence), 0) FROM events", [], |row| row.get(0))
            .map_err(failed)?;
        let last = last as u64;
        let kept = Kept { ring: Ring::new(last + 1), saved: last };
        let shared = Shared {
            listeners: AtomicUsize::new(0),
            kept: Mutex::new(kept),
            wakers: Mutex::default(),
        };
        Ok(Self { store: store.clone(), shared: Arc::new(shared) })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what happened now. Never fails: an event that cannot be kept on disk is still told to listeners.
    pub fn append(&self, kind: EventKind, action: impl Into<String>, actor: Actor) {
        let event = {
            let Kept { ring, saved } = &mut *self.kept();
            let event = Event {
                sequence: ring.next(),
                at: Timestamp::now(),
                kind,
                action: action.into(),
                actor: actor.bounded(),
            };
            ring.push(&event);
            // What is not on disk yet waits for that, on a disk that answers.
            let last = event.sequence + 1;
            let bound = |most: usize| last.saturating_sub(most as u64);
            ring.forget(bound(RING).min(*saved + 1).max(bound(UNSAVED)));
            event
        };
        for wake in self.shared.wakers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            wake();
        }
        // Behind the colon stands what somebody typed: a command line, with whatever secret is in it.
        let action = event.action.split(':').next().unwrap_or_default();
        tracing::debug!(action, actor = %event.actor.id, "event");
    }

    /// Has `wake` called after each append.
    pub fn on_append(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.shared.wakers.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(wake));
    }

    /// Writes what was appended since the last call to disk, in one transaction. The daemon calls it once in a while
    /// and when it ends: events are a convenience, not a promise worth an fsync each.
    pub fn save(&self) -> Result<()> {
        if self.last() == self.kept().saved {
            return Ok(());
        }
        let saved = self.store.transaction(|transaction| {
            // With the store held: of two who save, the second finds nothing.
            let (pending, last) = {
                let Kept { ring, saved } = &*self.kept();
                let pending = ring.iter(saved + 1..ring.next());
                let pending: Vec<_> = pending
                    .map(|event| (event.sequence as i64, event.at, event.text.to_vec()))
                    .collect();
                (pending, ring.next() - 1)
            };
            let mut insert = transaction
                .inner
                .prepare_cached(
                    "INSERT OR REPLACE INTO events (sequence, nanos, value) VALUES (?1, ?2, ?3)",
                )
                .map_err(failed)?;
            transaction.adds.set(true);
            for (sequence, at, text) in &pending {
                insert.execute(params![sequence, at, text]).map_err(failed)?;
            }
            transaction
                .inner
                .execute(
                    "DELETE FROM events WHERE sequence <= (SELECT max(sequence) FROM events) - ?1",
                    params![KEPT],
                )
                .map_err(failed)?;
            Ok(last)
        })?;
        let Kept { ring, saved: known } = &mut *self.kept();
        *known = saved.max(*known);
        // Who comes later reads it from there.
        if self.listeners() == 0 {
            ring.forget(*known + 1);
        }
        Ok(())
    }

    /// All kept events at or after `since`, and a subscription that continues right behind them.
    pub fn replay(&self, since: Timestamp) -> Result<(Vec<Event>, Subscription)> {
        let subscription = self.subscribe();
        // What is not on disk yet is in memory; nobody who asks waits until it is written.
        let nanos = i64::try_from(since.unix_nanos()).unwrap_or(i64::MIN);
        let (saved, recent) = {
            let Kept { ring, saved } = &*self.kept();
            let recent = ring.iter(saved + 1..subscription.next);
            (*saved, text_of(recent.filter(|event| event.at >= nanos)))
        };
        let connection = self.store.reader();
        let mut statement = connection
            .prepare_cached(
                "SELECT value FROM events WHERE nanos >= ?1 AND sequence <= ?2 ORDER BY sequence",
            )
            .map_err(failed)?;
        let last = saved.min(subscription.next - 1) as i64;
        let rows = statement
            .query_map(params![nanos, last], |row| row.get::<_, Vec<u8>>(0))
            .map_err(failed)?;
        let mut events = Vec::new();
        for row in rows {
            if let Ok(event) = serde_json::from_slice(&row.map_err(failed)?) {
                events.push(event);
            }
        }
        events.extend(read(&recent));
        drop(statement);
        drop(connection);
        Ok((events, subscription))
    }

    /// Everything from now on.
    pub fn subscribe(&self) -> Subscription {
        self.shared.listeners.fetch_add(1, Ordering::Relaxed);
        Subscription { journal: self.clone(), next: self.kept().ring.next() }
    }

    /// How many subscriptions there are.
    pub fn listeners(&self) -> usize {
        self.shared.listeners.load(Ordering::Relaxed)
    }

    /// The place in the total order that the last event has; 0 before the first.
    pub fn last(&self) -> u64 {
        self.kept().ring.next() - 1
    }
}

/// A reader's place in the journal.
pub struct Subscription {
    journal: Journal,
    next: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.journal.shared.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A range of events that a slow listener can no longer have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    pub first: u64,
    pub last: u64,
}

impl Subscription {
    /// What there is now, without waiting; a gap is reported before what follows it.
    pub fn take(&mut self) -> (Option<Missed>, Vec<Event>) {
        let (oldest, next, text) = {
            let ring = &self.journal.kept().ring;
            (ring.oldest(), ring.next(), text_of(ring.iter(self.next..ring.next())))
        };
        let missed = (self.next < oldest).then(|| Missed { first: self.next, last: oldest - 1 });
        self.next = next;
        (missed, read(&text))
    }
}

/// What is read later, by who does not keep others from appending.
fn text_of<'a>(events: impl Iterator<Item = Written<'a>>) -> Vec<u8> {
    events.fold(Vec::new(), |mut text, event| {
        text.extend_from_slice(event.text);
        text
    })
}

fn read(text: &[u8]) -> Vec<Event> {
    serde_json::Deserializer::from_slice(text).into_iter().filter_map(Result::ok).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor() -> Actor {
        Actor { id: "x".to_owned(), attributes: BTreeMap::new() }
    }

    #[test]
    fn replay_joins_the_kept_and_the_live() {
        let store = Store::in_memory();
        let journal = Journal::open(&store).unwrap();
        journal.append(EventKind::Container, "create", actor());
        let (kept, mut live) = journal.replay(Timestamp::NEVER).unwrap();
        journal.append(EventKind::Container, "start", actor());
        assert_eq!(kept.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1]);
        assert_eq!(live.take().1.iter().map(|event| event.sequence).collect::<Vec<_>>(), [2]);
        journal.save().unwrap();
        let again = Journal::open(&store).unwrap();
        assert_eq!(again.replay(Timestamp::NEVER).unwrap().0.len(), 2);
    }

    #[test]
    fn nothing_is_lost_between_the_kept_and_the_live() {
        let journal = Journal::open(&Store::in_memory()).unwrap();
        const EVENTS: u64 = 2000;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..EVENTS {
                    journal.append(EventKind::Container, "create", actor());
                }
            });
            scope.spawn(|| {
                for _ in 0..50 {
                    journal.save().unwrap();
                }
            });
            for _ in 0..50 {
                let (kept, mut live) = journal.replay(Timestamp::NEVER).unwrap();
                let (missed, more) = live.take();
                assert_eq!(missed, None);
                let sequences: Vec<u64> =
                    kept.iter().chain(&more).map(|event| event.sequence).collect();
                assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
            }
        });
    }

    #[test]
    fn an_event_is_not_as_large_as_an_image_wants_it() {
        let journal = Journal::open(&Store::in_memory()).unwrap();
        let mut live = journal.subscribe();
        let mut attributes: BTreeMap<String, String> =
            (0..100).map(|i| (format!("label{i}"), "x".repeat(i * 100))).collect();
        attributes.insert("name".to_owned(), "web".to_owned());
        journal.append(EventKind::Container, "create", Actor { id: "x".to_owned(), attributes });
        let told = &live.take().1[0].actor.attributes;
        let size: usize = told.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(size <= ATTRIBUTES && told["name"] == "web" && told.contains_key("label10"));
    }

    #[test]
    fn what_is_not_on_disk_is_not_forgotten() {
        let journal = Journal::open(&Store::in_memory()).unwrap();
        for _ in 0..2 * RING {
            journal.append(EventKind::Container, "create", actor());
        }
        let (kept, listener) = journal.replay(Timestamp::NEVER).unwrap();
        assert_eq!(kept.len(), 2 * RING);
        journal.save().unwrap();
        journal.append(EventKind::Container, "start", actor());
        assert_eq!(journal.kept().ring.len(), RING);
        assert_eq!(journal.replay(Timestamp::NEVER).unwrap().0.len(), 2 * RING + 1);
        // Nobody listens any more, and who begins to finds it on disk.
        drop(listener);
        journal.save().unwrap();
        assert_eq!(journal.kept().ring.len(), 0);
        assert_eq!(journal.replay(Timestamp::NEVER).unwrap().0.len(), 2 * RING + 1);
        for _ in 0..UNSAVED + 1 {
            journal.append(EventKind::Container, "create", actor());
        }
        assert_eq!(journal.kept().ring.len(), UNSAVED);
    }

    #[test]
    fn a_slow_listener_is_told_what_it_missed() {
        let journal = Journal::open(&Store::in_memory()).unwrap();
        let mut slow = journal.subscribe();
        for number in 0..RING + 5 {
            if number == RING {
                journal.save().unwrap();
            }
            journal.append(EventKind::Container, "create", actor());
        }
        let (missed, events) = slow.take();
        assert_eq!(missed, Some(Missed { first: 1, last: 5 }));
        assert_eq!(events.len(), RING);
    }
}
