//! The engine as a whole, and what has no noun of its own: version, events, login, search.

pub mod check;
pub mod df;
pub mod dial_stdio;
pub mod events;
pub mod info;
pub mod inspect;
pub mod login;
pub mod logout;
pub mod prune;
pub mod search;
pub mod version;
