//! Networks.

pub mod connect;
pub mod create;
pub mod disconnect;
pub mod inspect;
pub mod ls;
pub mod prune;
pub mod rm;

use client::path_escape;

/// `/networks/<name>` with the name fit for a path.
fn path(name: &str) -> String {
    format!("/networks/{}", path_escape(name))
}
