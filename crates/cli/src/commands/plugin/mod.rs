//! Managed plugins: those that an engine installs and runs itself.

pub(crate) mod enable;
pub(crate) mod inspect;
pub(crate) mod install;
pub(crate) mod ls;
pub(crate) mod rm;
pub(crate) mod set;

use client::path_escape;

fn path(name: &str, verb: &str) -> String {
    format!("/plugins/{}{verb}", path_escape(name))
}
