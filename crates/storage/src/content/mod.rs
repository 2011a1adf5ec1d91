//! Blobs by digest: what registries send and layers are made of. Read in this order: store, ingest.
//!
//! What must stay true: a file under `blobs/` has exactly the bytes its name says, and was on disk before it got it.

mod ingest;
mod store;

pub use ingest::Ingest;
pub use store::{Blob, Descriptor, Partial, Store};
