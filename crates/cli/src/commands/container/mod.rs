//! Containers: `run` and everything that can be done with what it made.

mod archive;
pub(crate) mod attach;
mod body;
mod checks;
pub(crate) mod commit;
pub(crate) mod cp;
pub(crate) mod create;
mod create_flags;
pub(crate) mod diff;
pub(crate) mod exec;
pub(crate) mod export;
mod files;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod logs;
pub(crate) mod ls;
mod mounts;
pub(crate) mod pause;
pub(crate) mod port;
mod ports;
pub(crate) mod prune;
mod rate;
mod references;
pub(crate) mod rename;
pub(crate) mod restart;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod top;
pub(crate) mod unpause;
pub(crate) mod update;
mod values;
pub(crate) mod wait;

use client::{Client, path_escape};

use crate::failure::Result;
use crate::format::Value;

/// `/containers/<name>` with the name fit for a path.
pub(super) fn path(name: &str) -> String {
    format!("/containers/{}", path_escape(name))
}

/// The container as `inspect` has it.
async fn fetch(client: &Client, name: &str) -> Result<Value> {
    Ok(client.get(format!("{}/json", path(name))).fetch().await?)
}

/// A plain `POST /containers/<name>/<verb>`.
async fn post(client: &Client, name: &str, verb: &str) -> Result {
    Ok(client.post(format!("{}/{verb}", path(name))).done().await?)
}
