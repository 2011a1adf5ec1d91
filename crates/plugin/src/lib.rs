//! Programs beside the daemon that drive volumes, networks and addresses: found by a file, asked by HTTP.
//!
//! Sits on stdx; serves storage and network, which know what is to be asked. Blocking.
//!
//! What must stay true: a plugin is a stranger. Every question has a deadline, every answer a largest size, and nothing
//! that a plugin says is a path, a name or a number until somebody has looked at it.
//!
//! Start reading at [`Plugins`], then `discovery.rs`, `http.rs`.

mod call;
mod discovery;
pub mod http;
pub mod tls;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use stdx::{Context, Error, Kind, Result};

pub use call::{Failure, Patience, Plugin};
pub use discovery::{Address, Places, TlsFiles};

use crate::call::backoff;

/// The plugins of a host. They come and go as their files do; what has been activated once is remembered.
pub struct Plugins {
    places: Places,
    active: Mutex<HashMap<String, Arc<Plugin>>>,
}

/// The answer to `Plugin.Activate`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Manifest {
    implements: Option<Vec<String>>,
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Plugins").field(&self.places).finish()
    }
}

impl Plugins {
    pub fn new(places: Places) -> Self {
        Self { places, active: Mutex::default() }
    }

    /// The plugin of that name, activated, if it is what is wanted: a `VolumeDriver`, a `NetworkDriver`.
    ///
    /// With [`Patience::Long`] one that is not there yet is waited for, as at boot plugins and containers start together.
    pub fn get(&self, name: &str, interface: &str, patience: Patience) -> Result<Arc<Plugin>> {
        let absent = || Error::not_found(format!("plugin \"{name}\" not found"));
        let found = backoff(
            patience,
            |error: &Error| error.kind() == Kind::NotFound,
            || self.places.find(name)?.ok_or_else(absent),
        );
        let plugin = found.and_then(|address| match self.remembered(name, &address) {
            Some(plugin) => Ok(plugin),
            None => self.activate(name, address, patience),
        });
        let plugin = match plugin {
            Err(error) if error.kind() != Kind::NotFound => {
                return Err(error).context(|| "legacy plugin".to_owned());
            }
            plugin => plugin?,
        };
        if plugin.implements(interface) {
            return Ok(plugin);
        }
        Err(Error::internal(format!(
            "legacy plugin: Plugin does not implement the requested driver: plugin=\"{name}\", requested \
             implementation=\"{interface}\""
        )))
    }

    /// All that are there and answer and are what is wanted, in the order of their names. All are asked at the same time,
    /// and none twice.
    pub fn all(&self, interface: &str) -> Vec<Arc<Plugin>> {
        let names = self.places.names();
        std::thread::scope(|scope| {
            let asked: Vec<_> = names
                .iter()
                .map(|name| scope.spawn(move || self.get(name, interface, Patience::None)))
                .collect();
            let mut plugins = Vec::new();
            for (name, asked) in names.iter().zip(asked) {
                match asked.join() {
                    Ok(Ok(plugin)) => plugins.push(plugin),
                    Ok(Err(error)) => {
                        tracing::debug!(plugin = %name, interface, error = %error.chain(), "not usable");
                    }
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            plugins
        })
    }

    fn remembered(&self, name: &str, address: &discovery::Address) -> Option<Arc<Plugin>> {
        let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.get(name).filter(|plugin| plugin.is_at(address)).cloned()
    }

    fn activate(
        &self,
        name: &str,
        address: discovery::Address,
        patience: Patience,
    ) -> Result<Arc<Plugin>> {
        let mut plugin = Plugin::new(name, address)?;
        let manifest: Manifest = plugin.call("Plugin.Activate", &(), call::SHORT, patience)?;
        plugin.is(manifest.implements.unwrap_or_default());
        tracing::info!(plugin = %name, implements = ?plugin.interfaces(), "plugin activated");
        let plugin = Arc::new(plugin);
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.insert(name.to_owned(), Arc::clone(&plugin));
        Ok(plugin)
    }
}
