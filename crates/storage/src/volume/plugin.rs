//! Volumes that a program beside the daemon has: Docker's `VolumeDriver` protocol.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::plugin::{Failure, Patience, Plugin};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stdx::{Error, Kind, Result};

use super::{Driver, Scope, Volume};

/// What may take long: making a volume, and mounting it.
const LONG: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_secs(60);

pub struct PluginDriver {
    plugin: Arc<Plugin>,
    scope: OnceLock<Scope>,
}

/// Every answer. What a method does not tell is absent.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Answer {
    err: Option<String>,
    mountpoint: Option<String>,
    volume: Option<Told>,
    volumes: Option<Vec<Option<Told>>>,
    capabilities: Option<Capabilities>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Told {
    name: Option<String>,
    mountpoint: Option<String>,
    created_at: Option<String>,
    status: Option<BTreeMap<String, Value>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Capabilities {
    scope: Option<String>,
}

impl PluginDriver {
    pub(super) fn new(plugin: Arc<Plugin>) -> Self {
        Self { plugin, scope: OnceLock::new() }
    }

    pub(super) fn is(&self, plugin: &Arc<Plugin>) -> bool {
        Arc::ptr_eq(&self.plugin, plugin)
    }

    fn call(&self, method: &str, question: Value, timeout: Duration) -> Result<Answer, Failure> {
        self.call_with(method, &question, timeout, Patience::Long)
    }

    fn call_with(
        &self,
        method: &str,
        question: &Value,
        timeout: Duration,
        patience: Patience,
    ) -> Result<Answer, Failure> {
        let answer: Answer = self.ask(method, question, timeout, patience)?;
        match &answer.err {
            Some(sentence) if !sentence.is_empty() => {
                let sentence: String = sentence.chars().take(LONGEST_WORDS).collect();
                Err(Failure::Refused(200, Error::internal(sentence)))
            }
            _ => Ok(answer),
        }
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        question: &Value,
        timeout: Duration,
        patience: Patience,
    ) -> Result<T, Failure> {
        self.plugin.call(&format!("VolumeDriver.{method}"), question, timeout, patience)
    }
}

/// Of a refusal, for people to read.
const LONGEST_WORDS: usize = 4096;

impl Driver for PluginDriver {
    fn name(&self) -> &str {
        self.plugin.name()
    }

    /// A driver that does not say is as good as one that says `local`.
    fn scope(&self) -> Scope {
        if let Some(scope) = self.scope.get() {
            return *scope;
        }
        match self.call_with("Capabilities", &json!({}), SHORT, Patience::None) {
            Ok(answer) => *self.scope.get_or_init(|| {
                let told = answer.capabilities.and_then(|capabilities| capabilities.scope);
                match told.unwrap_or_default().to_ascii_lowercase().as_str() {
                    "global" => Scope::Global,
                    "local" | "" => Scope::Local,
                    other => {
                        tracing::warn!(driver = %self.name(), scope = %other, "a volume driver with an invalid scope");
                        Scope::Local
                    }
                }
            }),
            Err(_) => Scope::Local,
        }
    }

    fn create(&self, name: &str, options: &BTreeMap<String, String>) -> Result<()> {
        self.call("Create", json!({"Name": name, "Opts": options}), LONG)?;
        Ok(())
    }

    fn get(&self, name: &str) -> Result<Option<Volume>> {
        let told = match self.call_with("Get", &json!({"Name": name}), SHORT, Patience::None) {
            Ok(Answer { volume: Some(told), .. }) => told,
            Ok(_) => return Ok(None),
            Err(Failure::Refused(_, error)) => {
                tracing::debug!(driver = %self.name(), volume = %name, error = %error.chain(), "not there");
                return Ok(None);
            }
            Err(Failure::Unheard(error)) => return Err(error),
        };
        let mut volume = understand(told).unwrap_or_default();
        volume.name = name.to_owned();
        if volume.mountpoint.is_none() {
            let told = self.call_with("Path", &json!({"Name": name}), SHORT, Patience::None);
            volume.mountpoint = told.ok().and_then(|answer| path(answer.mountpoint?).ok());
        }
        Ok(Some(volume))
    }

    fn list(&self) -> Result<Vec<Volume>> {
        let answer = self.call_with("List", &json!({}), SHORT, Patience::None)?;
        let told = answer.volumes.unwrap_or_default().into_iter().flatten();
        Ok(told.filter_map(understand).collect())
    }

    fn mount(&self, name: &str, user: &str) -> Result<PathBuf> {
        let answer =
            self.call("Mount", json!({"Name": name, "ID": user}), LONG).map_err(|failure| {
                match failure {
                    Failure::Refused(_, error) => error,
                    Failure::Unheard(error) => error.with_kind(Kind::Unavailable),
                }
            })?;
        path(answer.mountpoint.unwrap_or_default())
    }

    fn unmount(&self, name: &str, user: &str) -> Result<()> {
        let question = json!({"Name": name, "ID": user});
        match self.call("Unmount", question, SHORT) {
            Err(Failure::Refused(_, error)) => {
                // It counts differently; there is nothing to be done about that.
                tracing::warn!(driver = %self.name(), volume = %name, error = %error.chain(), "not unmounted");
                Ok(())
            }
            outcome => Ok(outcome.map(drop)?),
        }
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.call("Remove", json!({"Name": name}), SHORT)?;
        Ok(())
    }
}

/// One without a name that can be said is none.
fn understand(told: Told) -> Option<Volume> {
    let name = told.name.unwrap_or_default();
    let sayable =
        (1..=255).contains(&name.len()) && !name.contains(|c: char| c.is_control() || c == '/');
    sayable.then(|| Volume {
        name,
        mountpoint: told.mountpoint.and_then(|told| path(told).ok()),
        created: told.created_at.filter(|text| !text.is_empty()),
        status: told.status.unwrap_or_default(),
    })
}

/// A directory of the host: absolute, and nothing that could be read in two ways.
fn path(told: String) -> Result<PathBuf> {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let path = Path::new(&told);
    if path.is_absolute() && path.components().all(plain) && !told.contains('\0') {
        return Ok(told.into());
    }
    Err(Error::internal(format!(
        "the volume driver's mountpoint is not an absolute path: {told:?}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountpoints_are_absolute() {
        for bad in ["", "x", "../x", "/a/../b", "/a\0b"] {
            assert!(path(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert_eq!(path("/mnt/x".to_owned()).unwrap(), Path::new("/mnt/x"));
    }

    #[test]
    fn what_is_told_may_be_null() {
        let told = r#"{"Err": null, "Volumes": [null, {"Name": null}, {"Name": "a/b"}, {"Name": "a", "Mountpoint": "x", "Status": null}]}"#;
        let answer: Answer = serde_json::from_str(told).unwrap();
        let volumes: Vec<_> =
            answer.volumes.unwrap().into_iter().flatten().filter_map(understand).collect();
        assert_eq!(volumes, [Volume { name: "a".to_owned(), ..Volume::default() }]);
    }
}
