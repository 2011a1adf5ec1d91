//! What must survive: typed records in one transactional store, and the journal of events.
//!
//! Sits on stdx; serves every room that has something to remember. There is no second truth beside it: `inspect` and
//! not a file is the interface to what it holds. Rooms define their records; this crate keeps them.
//!
//! Start reading at [`Store`], then [`Record`], then [`Journal`].

mod journal;
mod store;

pub use journal::{Actor, Event, EventKind, Journal, Missed, Subscription};
pub use store::{Record, Store, Transaction};
