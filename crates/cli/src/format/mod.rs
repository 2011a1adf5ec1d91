//! `--format`: Go's templates over what a command shows.
//!
//! `listing.rs` has the table machinery of the `ls` commands, `inspect.rs` gives the daemon's documents the shape Docker's
//! client types have.

pub(crate) mod inspect;
pub(crate) mod json;
pub(crate) mod listing;

pub(crate) use template::{Absent, Escape, Row, Template, Value};
