//! Volumes.

pub(crate) mod create;
pub(crate) mod inspect;
pub(crate) mod ls;
pub(crate) mod prune;
pub(crate) mod rm;

use client::path_escape;

/// `/volumes/<name>` with the name fit for a path.
fn path(name: &str) -> String {
    format!("/volumes/{}", path_escape(name))
}
