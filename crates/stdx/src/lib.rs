//! What std could have had: errors with a kind and a sentence, identifiers, sizes, times, histograms,
//! bounded readers.
//!
//! Sits on nothing of ours; serves everyone. It is read on every floor, so it should hardly ever change.

pub mod bounded;
pub mod duration;
mod error;
pub mod histogram;
pub mod id;
pub mod time;
pub mod units;

pub use error::{Context, Error, Kind, Result};
pub use id::Id;
