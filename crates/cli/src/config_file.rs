//! `config.json`: the user's settings, shared with Docker's own command. What we do not know in it is kept.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use stdx::{Context, Error, Result};

#[derive(Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    values: Map<String, Value>,
}

impl ConfigFile {
    /// No settings, wherever they would be.
    pub(crate) fn empty(directory: &Path) -> Self {
        Self { path: directory.join("config.json"), values: Map::new() }
    }

    /// Reads the file of `directory`; one that is not there is empty.
    pub(crate) fn load(directory: &Path) -> Result<Self> {
        let path = directory.join("config.json");
        let values = match std::fs::read(&path) {
            Ok(bytes) if bytes.trim_ascii().is_empty() => Map::new(),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|err| {
                Error::invalid(format!("parsing config file ({})", path.display())).caused_by(err)
            })?,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(err) => {
                return Err(err).context(|| format!("loading config file: {}", path.display()));
            }
        };
        Ok(Self { path, values })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A setting that is text (`psFormat`, `currentContext`, `credsStore` …), empty when absent.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.values.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// A setting that maps text to text (`HttpHeaders`, `credHelpers`).
    pub(crate) fn map(&self, key: &str) -> BTreeMap<String, String> {
        let entries = self.values.get(key).and_then(Value::as_object);
        let pairs = entries.into_iter().flatten();
        pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// Changes a setting; null takes it out.
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        match value {
            Value::Null => self.values.remove(key),
            value => self.values.insert(key.to_owned(), value),
        };
    }

    /// A member of a map of settings (`auths`).
    pub(crate) fn member(&self, key: &str, name: &str) -> Option<&Value> {
        self.values.get(key)?.get(name)
    }

    pub(crate) fn set_member(&mut self, key: &str, name: &str, value: Value) {
        let entry = self.values.entry(key).or_insert_with(|| Value::Object(Map::new()));
        if !entry.is_object() {
            *entry = Value::Object(Map::new());
        }
        if let Some(map) = entry.as_object_mut() {
            match value {
                Value::Null => map.remove(name),
                value => map.insert(name.to_owned(), value),
            };
        }
    }

    /// Writes the whole file beside the old one and puts it in its place. A link stays a link.
    pub(crate) fn save(&self) -> Result<()> {
        let target = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let directory = target.parent().context(|| "config.json has no directory".to_owned())?;
        std::fs::create_dir_all(directory)
            .context(|| format!("cannot create {}", directory.display()))?;
        let staged = target.with_extension(format!("json{}", std::process::id()));
        let text = crate::format::json::indent(&Value::Object(self.values.clone()).to_string(), "")
            .replace("    ", "\t");
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&staged)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| std::fs::rename(&staged, &target));
        written.context(|| format!("cannot write {}", target.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_settings_survive() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(
            directory.path().join("config.json"),
            r#"{"whatever":[1],"credsStore":"pass"}"#,
        )
        .unwrap();
        let mut config = ConfigFile::load(directory.path()).unwrap();
        assert_eq!(config.text("credsStore"), "pass");
        config.set_member("auths", "r", serde_json::json!({"auth": "x"}));
        config.save().unwrap();
        let again = ConfigFile::load(directory.path()).unwrap();
        assert_eq!(again.get("whatever"), Some(&serde_json::json!([1])));
        assert_eq!(again.member("auths", "r"), Some(&serde_json::json!({"auth": "x"})));
    }
}
