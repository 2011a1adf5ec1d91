//! Containers: `run` and everything that can be done with what it made.

pub mod attach;
mod body;
mod checks;
pub mod commit;
pub mod cp;
pub mod create;
mod create_flags;
pub mod diff;
pub mod exec;
pub mod export;
mod files;
pub mod inspect;
pub mod kill;
pub mod logs;
pub mod ls;
mod mounts;
pub mod pause;
pub mod port;
mod ports;
pub mod prune;
pub mod rename;
pub mod restart;
pub mod rm;
pub mod run;
pub mod start;
pub mod stats;
pub mod stop;
pub mod top;
pub mod unpause;
pub mod update;
mod values;
pub mod wait;

use client::{Client, path_escape};

use crate::failure::Result;
use crate::format::Value;

/// `/containers/<name>` with the name fit for a path.
fn path(name: &str) -> String {
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
