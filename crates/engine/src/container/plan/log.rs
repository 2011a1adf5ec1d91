//! Where output goes.

use std::collections::BTreeMap;

use api::container::HostConfig;
use regex::Regex;
use shim::logs::{Config, Created, Driver, Identity};
use stdx::{Context, Error, Kind, Result};

use super::log_tag::{self, Named};
use crate::container::record::Record;
use crate::rooms::Settings;

/// Where output goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPlan {
    pub driver: String,
    pub options: BTreeMap<String, String>,
}

/// The driver's options; the daemon's defaults hold where the container names the same driver or none. What a driver's own
/// options say is looked at when the container starts, as far as Docker does so.
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
    Config::check(&driver, &options)?;
    Ok(LogPlan { driver, options })
}

/// What messages are said to be of when nobody says.
fn usual_tag(driver: Driver) -> &'static str {
    match driver {
        Driver::Awslogs => "{{.FullID}}",
        Driver::Syslog | Driver::Journald | Driver::Fluentd | Driver::Gelf | Driver::Splunk => {
            "{{.ID}}"
        }
        Driver::JsonFile | Driver::Local | Driver::Gcplogs | Driver::Plugin | Driver::None => "",
    }
}

impl LogPlan {
    /// All that the shim needs to know, but for where the file is.
    pub(crate) fn config(&self, record: &Record, settings: &Settings) -> Result<Config> {
        let config = self.understood(record, settings);
        config
            .map_err(|error| error.with_kind(Kind::Internal))
            .context(|| "failed to initialize logging driver".to_owned())
    }

    fn understood(&self, record: &Record, settings: &Settings) -> Result<Config> {
        let mut config = Config::from_options(&self.driver, &self.options)?;
        let given = self.options.get("tag").map(String::as_str);
        config.tag = match (given, config.driver) {
            // Of Splunk's events it can be taken away.
            (Some(""), Driver::Splunk) => String::new(),
            (Some(template), _) if !template.is_empty() => self.tag(template, record)?,
            (_, driver) => self.tag(usual_tag(driver), record)?,
        };
        config.attrs = self.attributes(record)?;
        let in_files = matches!(config.driver, Driver::JsonFile | Driver::Local);
        if in_files && !config.tag.is_empty() {
            config.attrs.insert("tag".to_owned(), config.tag.clone());
        }
        let mut command = record.config.entrypoint.iter().chain(&record.config.cmd).flatten();
        config.identity = Identity {
            id: record.id.to_string(),
            name: record.name.clone(),
            image: record.config.image.clone(),
            image_id: record.image.to_string(),
            created: Created(record.created),
            path: command.next().cloned().unwrap_or_default(),
            args: command.cloned().collect(),
            ..Identity::default()
        };
        if config.driver == Driver::Plugin {
            config.identity.env = record.config.env.clone().unwrap_or_default();
            config.identity.labels = record.labels();
            config.plugins = settings.log_plugins.clone();
        }
        if matches!(config.driver, Driver::Awslogs | Driver::Gcplogs | Driver::Splunk) {
            config.environment = settings.log_environment.clone();
        }
        Ok(config)
    }

    /// Whether there is such a driver, where it is somebody else's program.
    pub(crate) fn check_plugin(&self, settings: &Settings) -> Result<()> {
        Config::check_plugin(&self.driver, &settings.log_plugins)
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

    /// What each line is to carry: the labels and variables named, and those whose names match.
    fn attributes(&self, record: &Record) -> Result<BTreeMap<String, String>> {
        let variables = record.config.env.iter().flatten();
        let variables = variables.filter_map(|pair| pair.split_once('='));
        let variables: BTreeMap<_, _> =
            variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut found = BTreeMap::new();
        for (option, all) in [("labels", &record.labels()), ("env", &variables)] {
            let wanted = Wanted::of(&self.options, option)?;
            let wanted = all.iter().filter(|(name, _)| wanted.has(name));
            found.extend(wanted.map(|(name, value)| (name.clone(), value.clone())));
        }
        Ok(found)
    }
}

/// Names, and what names may look like.
struct Wanted<'a> {
    names: Vec<&'a str>,
    pattern: Option<Regex>,
}

impl<'a> Wanted<'a> {
    fn of(options: &'a BTreeMap<String, String>, option: &str) -> Result<Self> {
        let names = options.get(option).map_or("", String::as_str).split(',');
        let pattern = options.get(&format!("{option}-regex")).filter(|text| !text.is_empty());
        let pattern = pattern.map(|text| {
            Regex::new(text).map_err(|_| {
                Error::invalid(format!("error parsing regexp: invalid pattern: `{text}`"))
            })
        });
        Ok(Self { names: names.collect(), pattern: pattern.transpose()? })
    }

    fn has(&self, name: &str) -> bool {
        self.names.contains(&name)
            || self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_patterns() {
        let options = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let both: BTreeMap<_, _> = options(&[("labels", "a,b"), ("labels-regex", "^c.*e$")]);
        let wanted = Wanted::of(&both, "labels").unwrap();
        let has = ["a", "b", "cde", "cd", "ab"].map(|name| wanted.has(name));
        assert_eq!(has, [true, true, true, false, false]);
        let none = options(&[]);
        assert!(!Wanted::of(&none, "env").unwrap().has("a"));
        let bad = options(&[("env-regex", "(")]);
        assert!(Wanted::of(&bad, "env").is_err());
    }
}
