//! Networks.

pub(crate) mod connect;
pub(crate) mod create;
pub(crate) mod disconnect;
pub(crate) mod doctor;
pub(crate) mod inspect;
pub(crate) mod ls;
pub(crate) mod prune;
pub(crate) mod rm;

use client::path_escape;

/// `/networks/<name>` with the name fit for a path.
fn path(name: &str) -> String {
    format!("/networks/{}", path_escape(name))
}
