//! Volumes.

pub mod create;
pub mod inspect;
pub mod ls;
pub mod prune;
pub mod rm;

use client::path_escape;

/// `/volumes/<name>` with the name fit for a path.
fn path(name: &str) -> String {
    format!("/volumes/{}", path_escape(name))
}
