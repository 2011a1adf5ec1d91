//! Volumes.

pub(crate) mod copy;
pub(crate) mod create;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod ls;
pub(crate) mod prune;
pub(crate) mod rename;
pub(crate) mod rm;

use client::path_escape;

/// `/volumes/<name>` with the name fit for a path.
fn path(name: &str) -> String {
    format!("/volumes/{}", path_escape(name))
}

/// What Docker's API has no word for.
fn own(name: &str, verb: &str) -> String {
    format!("/gantry/volumes/{}/{verb}", path_escape(name))
}
