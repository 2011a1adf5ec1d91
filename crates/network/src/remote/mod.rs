//! Networks and addresses that plugins have: Docker's `NetworkDriver` and `IpamDriver` protocols.
//!
//! A plugin is asked while nothing is locked, and what it answers is looked at before it is believed: names of devices,
//! addresses, routes. What it has been told of is written down before, so that it can be told that it is over.

mod attach;
mod driver;
mod ipam;
mod replay;

use std::sync::Arc;
use std::time::Duration;

use plugin::{Failure, Patience, Plugin, Plugins};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stdx::{Error, Result};

pub(crate) use driver::RemoteDriver;
pub(crate) use ipam::{Pools, RemoteIpam};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Asks a plugin. A refusal is an error in Docker's words.
fn ask<T: DeserializeOwned>(
    plugin: &Plugin,
    method: &str,
    question: &impl Serialize,
    patience: Patience,
) -> Result<T, Failure> {
    let answer: serde_json::Value = plugin.call(method, question, TIMEOUT, patience)?;
    // Some say `Err`, some `Error`.
    let refused = ["Err", "Error"].iter().find_map(|key| answer.get(key)?.as_str());
    if let Some(refused) = refused.filter(|text| !text.is_empty()) {
        let words: String = refused.chars().take(4096).collect();
        return Err(Failure::Refused(200, Error::internal(format!("remote: {words}"))));
    }
    serde_json::from_value(answer).map_err(|error| {
        let words = format!("{method}: cannot understand the plugin's answer: {error}");
        Failure::Unheard(Error::internal(words))
    })
}

fn find(
    plugins: Option<&Arc<Plugins>>,
    name: &str,
    interface: &str,
    patience: Patience,
) -> Result<Arc<Plugin>> {
    match plugins {
        Some(plugins) => plugins.get(name, interface, patience),
        None => Err(Error::not_found(format!("plugin \"{name}\" not found"))),
    }
}
