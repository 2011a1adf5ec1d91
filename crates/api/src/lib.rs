//! The words of the Engine API 1.55: what clients send and what they are answered, a file per noun.
//!
//! Sits on stdx; serves `engine` and the doors (`server`, `client`, `cli`). Nothing here decides anything.
//!
//! Three rules hold everywhere:
//! - Fields stand in the order in which dockerd prints them.
//! - `Option<Vec<_>>` and `Option<BTreeMap<_>>` are lists and maps that dockerd prints as `null` when nobody gave them;
//!   a plain `Vec` is never `null`. What dockerd omits when empty is skipped by [`json::is_default`].
//! - What comes from outside is read by [`json::from_slice`], which is as tolerant as Docker's own reader. Plain
//!   `serde_json` reads back what we wrote ourselves.

pub mod container;
pub mod error;
pub mod event;
pub mod exec;
pub mod image;
pub mod json;
pub mod network;
pub mod secret;
pub mod stream;
pub mod system;
pub mod version;
pub mod volume;

use std::collections::BTreeMap;

pub use version::ApiVersion;

/// Labels, options, annotations: text by name.
pub type StringMap = BTreeMap<String, String>;

/// Go's `map[string]struct{}`: names, written as `{"80/tcp":{}}`.
pub type Set = BTreeMap<String, Empty>;

/// Go's `struct{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Empty {}
