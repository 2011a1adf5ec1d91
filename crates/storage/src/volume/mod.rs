//! Volumes: directories that outlive containers. A file a driver.

mod local;
mod options;
mod plugin;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ::plugin::{Patience, Plugins};
use serde_json::Value;
use stdx::{Context, Result};

pub use local::{Local, validate};
pub use options::{Options, size};
pub use plugin::PluginDriver;

/// In order of calls: a volume is made, containers mount and unmount it, it is removed. Each may be asked again for what
/// it has done already.
pub trait Driver: Send + Sync {
    fn name(&self) -> &str;

    /// Whether the volumes of one host are those of all.
    fn scope(&self) -> Scope;

    fn create(&self, name: &str, options: &BTreeMap<String, String>) -> Result<()>;

    /// What there is of that name. A failure means that the driver cannot tell.
    fn get(&self, name: &str) -> Result<Option<Volume>>;

    fn list(&self) -> Result<Vec<Volume>>;

    /// A user (a container's id) begins to need it. Where it is from now on. When nobody can tell whether it has been
    /// mounted, the failure is `Kind::Unavailable`.
    fn mount(&self, name: &str, user: &str) -> Result<PathBuf>;

    /// The user needs it no more.
    fn unmount(&self, name: &str, user: &str) -> Result<()>;

    fn remove(&self, name: &str) -> Result<()>;
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    #[default]
    Local,
    Global,
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Global => "global",
        }
    }
}

/// What a driver tells of a volume.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Volume {
    pub name: String,
    /// None where it is nowhere until somebody mounts it.
    pub mountpoint: Option<PathBuf>,
    /// In the driver's words.
    pub created: Option<String>,
    pub status: BTreeMap<String, Value>,
}

/// Drivers that are plugins, as they come and go.
#[derive(Default)]
pub struct PluginDrivers {
    plugins: Option<Arc<Plugins>>,
    known: Mutex<HashMap<String, Arc<PluginDriver>>>,
}

const INTERFACE: &str = "VolumeDriver";

impl PluginDrivers {
    pub(crate) fn new(plugins: Arc<Plugins>) -> Self {
        Self { plugins: Some(plugins), known: Mutex::default() }
    }

    /// The driver of that name, in Docker's words if there is none.
    pub fn get(&self, name: &str, patience: Patience) -> Result<Arc<PluginDriver>> {
        let plugin = match &self.plugins {
            Some(plugins) => plugins.get(name, INTERFACE, patience),
            None => Err(stdx::Error::not_found(format!("plugin \"{name}\" not found"))),
        };
        plugin
            .map(|plugin| self.driver(plugin))
            .context(|| format!("error looking up volume plugin {name}"))
    }

    /// All that are there and answer.
    pub fn all(&self) -> Vec<Arc<PluginDriver>> {
        let plugins = self.plugins.iter().flat_map(|plugins| plugins.all(INTERFACE));
        plugins.map(|plugin| self.driver(plugin)).collect()
    }

    /// The names of those that have been asked for something.
    pub fn names(&self) -> Vec<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.keys().cloned().collect()
    }

    fn driver(&self, plugin: Arc<::plugin::Plugin>) -> Arc<PluginDriver> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(plugin.name()) {
            Some(driver) if driver.is(&plugin) => Arc::clone(driver),
            _ => {
                let driver = Arc::new(PluginDriver::new(Arc::clone(&plugin)));
                known.insert(plugin.name().to_owned(), Arc::clone(&driver));
                driver
            }
        }
    }
}
