//! `--format`: Go's templates over what a command shows.
//!
//! `listing.rs` has the table machinery of the `ls` commands, `inspect.rs` gives the daemon's documents the shape Docker's
//! client types have.

pub(crate) mod inspect;
pub(crate) mod json;
pub(crate) mod listing;

/// What Docker's client calls what is found at `A.B.C`, in error messages.
pub(crate) type GoType = (&'static str, &'static str);

/// The failure of a template with the names of types that are not those of structs: lists and numbers of other sizes.
pub(crate) fn with_go_types(failure: String, types: &[GoType]) -> String {
    let named = || {
        let (words, _) = failure.rsplit_once(" in type ")?;
        let (_, asked) = words.split_once("at <.")?;
        let (path, field) = asked.split_once(">: ")?.0.rsplit_once('.')?;
        let is_it = words.ends_with(&format!("can't evaluate field {field}"));
        let (_, name) = types.iter().find(|(known, _)| is_it && *known == path)?;
        Some(format!("{words} in type {name}"))
    };
    named().unwrap_or(failure)
}

pub(crate) use template::{Absent, Docker, Escape, Row, Template, Value};
