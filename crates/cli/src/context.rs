//! Contexts: named daemons, kept under `contexts/` of the configuration directory in Docker's layout.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stdx::{Context as _, Error, Kind, Result};

pub(crate) const DEFAULT: &str = "default";

/// The file of one context.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) endpoints: std::collections::BTreeMap<String, EndpointMeta>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct EndpointMeta {
    #[serde(rename = "Host", skip_serializing_if = "String::is_empty")]
    pub(crate) host: String,
    #[serde(rename = "SkipTLSVerify")]
    pub(crate) skip_tls_verify: bool,
}

impl Stored {
    pub(crate) fn description(&self) -> &str {
        self.metadata.get("Description").and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn docker(&self) -> EndpointMeta {
        self.endpoints.get("docker").cloned().unwrap_or_default()
    }
}

pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    pub(crate) fn new(config_directory: &Path) -> Self {
        Self { root: config_directory.join("contexts") }
    }

    fn folder(name: &str) -> String {
        oci::Digest::of(name.as_bytes()).hex().to_owned()
    }

    pub(crate) fn meta_directory(&self, name: &str) -> PathBuf {
        self.root.join("meta").join(Self::folder(name))
    }

    pub(crate) fn tls_directory(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(Self::folder(name))
    }

    pub(crate) fn load(&self, name: &str) -> Result<Stored> {
        let path = self.meta_directory(name).join("meta.json");
        let bytes = std::fs::read(&path).map_err(|err| {
            let missing = err.kind() == std::io::ErrorKind::NotFound;
            let cause = Error::from(err).chain();
            let kind = if missing { Kind::NotFound } else { Kind::Internal };
            let words = if missing { "context not found: " } else { "" };
            Error::new(kind, format!("context {name:?}: {words}open {}: {cause}", path.display()))
        })?;
        serde_json::from_slice(&bytes)
            .map_err(|err| Error::invalid(format!("parsing {}", path.display())).caused_by(err))
    }

    /// All of them, by name.
    pub(crate) fn list(&self) -> Result<Vec<Stored>> {
        let mut all = Vec::new();
        let entries = match std::fs::read_dir(self.root.join("meta")) {
            Ok(entries) => entries,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(all),
            Err(err) => return Err(err).context(|| "failed to list contexts".to_owned()),
        };
        for entry in entries.flatten() {
            if let Ok(bytes) = std::fs::read(entry.path().join("meta.json"))
                && let Ok(stored) = serde_json::from_slice::<Stored>(&bytes)
            {
                all.push(stored);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    pub(crate) fn save(&self, stored: &Stored) -> Result<()> {
        let directory = self.meta_directory(&stored.name);
        std::fs::create_dir_all(&directory)
            .context(|| format!("cannot create {}", directory.display()))?;
        let text = serde_json::to_string(stored)
            .map_err(|err| Error::internal("cannot write context").caused_by(err))?;
        let staged = directory.join("meta.json.new");
        std::fs::write(&staged, text)
            .and_then(|()| std::fs::rename(&staged, directory.join("meta.json")))
            .context(|| format!("cannot write context {:?}", stored.name))
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.load(name)?;
        for directory in [self.meta_directory(name), self.tls_directory(name)] {
            match std::fs::remove_dir_all(&directory) {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                    return Err(err).context(|| format!("failed to remove context {name:?}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The TLS files kept for an endpoint: `ca.pem`, `cert.pem`, `key.pem`.
    pub(crate) fn tls_file(&self, name: &str, file: &str) -> Option<PathBuf> {
        Some(self.tls_directory(name).join("docker").join(file)).filter(|path| path.exists())
    }
}

pub(crate) fn check_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let right = bytes.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && name.len() > 1
        && bytes.all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'+' | b'-'));
    match (name, right) {
        ("", _) => Err(Error::invalid("context name cannot be empty")),
        (DEFAULT, _) => Err(Error::invalid("\"default\" is a reserved context name")),
        (_, true) => Ok(()),
        (_, false) => Err(Error::invalid(format!(
            "context name {name:?} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
        ))),
    }
}
