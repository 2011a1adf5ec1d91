//! Docker's `json-file` format, byte for byte: one JSON object a line, `log`, `stream`, `attrs`, `time`.
//!
//! Tools read these files directly, so the escaping is Go's and not serde's.

mod escape;
mod parse;
mod reader;
mod segment;
mod writer;

pub use reader::Reader;
pub(crate) use writer::Writer;
