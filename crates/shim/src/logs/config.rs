//! What `--log-driver` and `--log-opt` mean.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stdx::{Context, Error, Result, units};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    #[default]
    JsonFile,
    None,
}

/// A container's log, fully decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub driver: Driver,
    /// The file being written; rotated ones are beside it (`.1`, `.2.gz`).
    pub path: PathBuf,
    /// A file this large is rotated away; `None` grows for ever, as Docker's default does.
    pub max_size: Option<u64>,
    /// How many files there may be, the one being written included.
    pub max_file: u32,
    /// Rotated files are gzipped.
    pub compress: bool,
    /// Written with every record: the labels, variables and tag that were asked for.
    pub attrs: BTreeMap<String, String>,
}

impl Default for Config {
    /// Bounded, because an unbounded default has filled many a disk (moby#27957).
    fn default() -> Self {
        Self {
            driver: Driver::JsonFile,
            path: PathBuf::new(),
            max_size: Some(20_000_000),
            max_file: 5,
            compress: false,
            attrs: BTreeMap::new(),
        }
    }
}

/// Understood by the engine, which knows the labels and variables they choose from, or about the way to the driver.
const ELSEWHERE: [&str; 7] =
    ["labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"];

impl Config {
    /// Reads a `HostConfig.LogConfig`, in Docker's words where it is wrong. `path` and `attrs` are the caller's to set.
    pub fn from_options(driver: &str, options: &BTreeMap<String, String>) -> Result<Self> {
        match driver {
            "" | "json-file" => Self::json_file(options),
            "none" => Ok(Self { driver: Driver::None, ..Self::default() }),
            "local" | "syslog" | "journald" | "gelf" | "fluentd" | "awslogs" | "splunk"
            | "gcplogs" => {
                Err(Error::not_implemented(format!("logging driver {driver} is not supported yet")))
            }
            other => {
                Err(Error::invalid(format!("logger: no log driver named '{other}' is registered")))
            }
        }
    }

    fn json_file(options: &BTreeMap<String, String>) -> Result<Self> {
        let mut config = Self::default();
        for (key, value) in options {
            match key.as_str() {
                "max-size" => config.max_size = max_size(value)?,
                "max-file" => {
                    config.max_file = value.parse().map_err(|_| {
                        Error::invalid(format!("strconv.Atoi: parsing {value:?}: invalid syntax"))
                    })?;
                    if config.max_file < 1 {
                        return Err(Error::invalid("max-file cannot be less than 1"));
                    }
                }
                "compress" => config.compress = boolean(value)?,
                key if ELSEWHERE.contains(&key) => {}
                key => {
                    return Err(Error::invalid(format!(
                        "unknown log opt '{key}' for json-file log driver"
                    )));
                }
            }
        }
        if config.compress && (config.max_file < 2 || config.max_size.is_none()) {
            return Err(Error::invalid(
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ));
        }
        Ok(config)
    }
}

fn max_size(text: &str) -> Result<Option<u64>> {
    if text == "-1" {
        return Ok(None);
    }
    let size =
        units::size_in_bytes(text).context(|| format!("invalid value for max-size: {text}"))?;
    match u64::try_from(size) {
        Ok(size) if size > 0 => Ok(Some(size)),
        _ => Err(Error::invalid("max-size must be a positive number")),
    }
}

/// Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Result<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(Error::invalid(format!("strconv.ParseBool: parsing {text:?}: invalid syntax"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<Config> {
        let options =
            options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Config::from_options("json-file", &options)
    }

    #[test]
    fn options_are_understood() {
        let config =
            read(&[("max-size", "10m"), ("max-file", "3"), ("compress", "true"), ("tag", "x")])
                .unwrap();
        assert_eq!(
            (config.max_size, config.max_file, config.compress),
            (Some(10_000_000), 3, true)
        );
        assert_eq!(read(&[("max-size", "-1")]).unwrap().max_size, None);
    }

    #[test]
    fn refusals_are_dockers() {
        for (options, words) in [
            (&[("max-files", "3")][..], "unknown log opt 'max-files' for json-file log driver"),
            (&[("max-file", "0")][..], "max-file cannot be less than 1"),
            (&[("max-size", "0")][..], "max-size must be a positive number"),
            (
                &[("compress", "true"), ("max-file", "1")][..],
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ),
        ] {
            assert_eq!(read(options).unwrap_err().to_string(), words);
        }
        let unknown = Config::from_options("foo", &BTreeMap::new()).unwrap_err();
        assert_eq!(unknown.to_string(), "logger: no log driver named 'foo' is registered");
    }
}
