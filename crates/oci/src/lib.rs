//! OCI's words: digests, references and platforms; image documents; runtime documents.
//!
//! Sits on stdx; serves every room that reads or writes images, and the runtime. Types and pure functions only. What is
//! parsed here is right from then on: a [`Digest`] is well-formed, a [`Reference`] is normalised.

mod digest;
pub mod image;
mod platform;
mod reference;
pub mod runtime;

pub use digest::{Algorithm, Digest, Hasher};
pub use image::ChainId;
pub use platform::Platform;
pub use reference::{DEFAULT_DOMAIN, DEFAULT_TAG, Reference, is_tag};
