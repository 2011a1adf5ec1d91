//! Where output goes.

use std::collections::BTreeMap;

use api::container::HostConfig;
use stdx::{Error, Result};

use crate::rooms::Settings;

/// Where output goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPlan {
    pub driver: String,
    pub options: BTreeMap<String, String>,
}

/// The driver's options; the daemon's defaults hold where the container names the same driver or none.
pub(crate) fn log(host: &HostConfig, settings: &Settings) -> Result<LogPlan> {
    let driver = match host.log_config.r#type.as_str() {
        "" => settings.log_driver.clone(),
        other => other.to_owned(),
    };
    let mut options = host.log_config.config.clone().unwrap_or_default();
    if driver == settings.log_driver {
        for (name, value) in &settings.log_opts {
            options.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    if options.get("mode").is_some_and(|mode| mode == "non-blocking")
        || options.contains_key("max-buffer-size")
    {
        // Output is never held up by its log here: the shim drops lines it cannot write and counts them.
        tracing::debug!("a log never blocks its container: mode=non-blocking changes nothing");
    }
    if let Some(unbuilt) =
        ["labels-regex", "env-regex"].iter().find(|name| options.contains_key(**name))
    {
        return Err(Error::not_implemented(format!("log opt '{unbuilt}' is not supported yet")));
    }
    shim::logs::Config::from_options(&driver, &options)?;
    Ok(LogPlan { driver, options })
}

impl LogPlan {
    /// What each line is to carry: the labels and variables named, and the tag.
    pub(crate) fn attributes(
        &self,
        record: &crate::container::record::Record,
    ) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let names = |option: &str| self.options.get(option).cloned().unwrap_or_default();
        let labels = record.labels();
        for name in names("labels").split(',').filter(|name| !name.is_empty()) {
            if let Some(value) = labels.get(name) {
                found.insert(name.to_owned(), value.clone());
            }
        }
        for name in names("env").split(',').filter(|name| !name.is_empty()) {
            let pair = record
                .config
                .env
                .iter()
                .flatten()
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            if let Some(value) = pair {
                found.insert(name.to_owned(), value.to_owned());
            }
        }
        if let Some(tag) = self.options.get("tag") {
            let tag = tag
                .replace("{{.ID}}", record.id.short())
                .replace("{{.FullID}}", record.id.as_str())
                .replace("{{.Name}}", &record.name)
                .replace("{{.ImageName}}", &record.config.image);
            found.insert("tag".to_owned(), tag);
        }
        found
    }
}
