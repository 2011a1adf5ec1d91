//! Where output goes.

use std::collections::BTreeMap;

use api::container::HostConfig;
use shim::logs::{Config, Driver, Identity};
use stdx::{Context, Error, Result};

use super::log_tag::{self, Named};
use crate::container::record::Record;
use crate::rooms::Settings;

/// Where output goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPlan {
    pub driver: String,
    pub options: BTreeMap<String, String>,
}

/// What a log that goes to a server is tagged with when nobody says.
const TAG: &str = "{{.ID}}";

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
    if let Some(unbuilt) =
        ["labels-regex", "env-regex"].iter().find(|name| options.contains_key(**name))
    {
        return Err(Error::not_implemented(format!("log opt '{unbuilt}' is not supported yet")));
    }
    Config::from_options(&driver, &options)?;
    log_tag::check(options.get("tag").map_or("", String::as_str))
        .context(|| "failed to initialize logging driver".to_owned())?;
    Ok(LogPlan { driver, options })
}

impl LogPlan {
    /// All that the shim needs to know, but for where the file is.
    pub(crate) fn config(&self, record: &Record) -> Result<Config> {
        let mut config = Config::from_options(&self.driver, &self.options)?;
        let given = self.options.get("tag").filter(|tag| !tag.is_empty());
        config.tag = match (given, config.driver) {
            (Some(template), _) => self.tag(template, record)?,
            (None, Driver::Syslog | Driver::Journald) => self.tag(TAG, record)?,
            (None, _) => String::new(),
        };
        config.attrs = self.attributes(record);
        if given.is_some() {
            config.attrs.insert("tag".to_owned(), config.tag.clone());
        }
        config.identity = Identity {
            id: record.id.to_string(),
            name: record.name.clone(),
            image: record.config.image.clone(),
        };
        Ok(config)
    }

    fn tag(&self, template: &str, record: &Record) -> Result<String> {
        let words = record.config.entrypoint.iter().chain(&record.config.cmd).flatten();
        let command = words.map(String::as_str).collect::<Vec<_>>().join(" ");
        let (image_id, labels) = (record.image.to_string(), record.labels());
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let named = Named {
            id: record.id.as_str(),
            name: &record.name,
            image_id: &image_id,
            image_name: &record.config.image,
            command: &command,
            hostname: &hostname,
            labels: &labels,
        };
        log_tag::render(template, &named)
    }

    /// What each line is to carry: the labels and variables named.
    fn attributes(&self, record: &Record) -> BTreeMap<String, String> {
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
        found
    }
}
