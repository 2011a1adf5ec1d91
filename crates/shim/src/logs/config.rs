//! What `--log-driver` and `--log-opt` mean.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stdx::time::Timestamp;
use stdx::{Context, Error, Result, units};

use super::remote;
use super::syslog::{Address, Syslog};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    #[default]
    JsonFile,
    /// The same records, kept compressed, and for nobody but us to read.
    Local,
    Syslog,
    Journald,
    Fluentd,
    Gelf,
    Splunk,
    Awslogs,
    Gcplogs,
    /// Somebody else's program.
    Plugin,
    None,
}

/// Every driver there is, as `docker info` lists them.
pub const DRIVERS: [&str; 10] = [
    "awslogs",
    "fluentd",
    "gcplogs",
    "gelf",
    "journald",
    "json-file",
    "local",
    "none",
    "splunk",
    "syslog",
];

/// Options and variables: some of them are secrets, so that what they say is never shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Private(BTreeMap<String, String>);

impl From<BTreeMap<String, String>> for Private {
    fn from(map: BTreeMap<String, String>) -> Self {
        Self(map)
    }
}

impl std::ops::Deref for Private {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Where logging plugins are found, and where the FIFOs are that they read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginPlaces {
    pub sockets: Vec<PathBuf>,
    pub specs: Vec<PathBuf>,
    pub fifos: PathBuf,
}

impl PluginPlaces {
    pub fn places(&self) -> plugin::Places {
        plugin::Places { sockets: self.sockets.clone(), specs: self.specs.clone() }
    }
}

/// What becomes of a container whose server takes no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It waits until the server takes more. Files and servers that are gone make nobody wait.
    #[default]
    Blocking,
    /// It goes on, and what does not fit into the buffer is dropped.
    NonBlocking,
}

/// Who speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    pub id: String,
    pub name: String,
    pub image: String,
    pub image_id: String,
    pub created: Created,
    /// The program and its arguments.
    pub path: String,
    pub args: Vec<String>,
    /// Told to plugins only.
    pub env: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

impl Identity {
    /// The program with its arguments, in one line.
    pub(super) fn command(&self) -> String {
        let words = std::iter::once(&self.path).chain(&self.args);
        words.map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

/// When a container was made; never, where nobody wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Created(pub Timestamp);

impl Default for Created {
    fn default() -> Self {
        Self(Timestamp::NEVER)
    }
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A container's log, fully decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub driver: Driver,
    /// The file being written; rotated ones are beside it (`.1`, `.2.gz`). Of a log that goes to a server, the cache.
    pub path: PathBuf,
    /// A file this large is rotated away; `None` grows for ever, as Docker's default does.
    pub max_size: Option<u64>,
    /// How many files there may be, the one being written included.
    pub max_file: u32,
    /// Rotated files are gzipped.
    pub compress: bool,
    /// Written with every record: the labels, variables and tag that were asked for.
    pub attrs: BTreeMap<String, String>,
    pub mode: Mode,
    /// Bytes that may wait for a server.
    pub buffer: u64,
    /// Of a log that goes to a server: whether it is kept here, too, for `docker logs`.
    pub cache: bool,
    /// What servers are told the messages are of.
    pub tag: String,
    pub identity: Identity,
    pub syslog: Syslog,
    /// Another place than the journal's own.
    pub journal: Option<PathBuf>,
    /// As they were given: what a driver in a process of its own reads its own from.
    pub options: Private,
    /// What such a driver may need to know of the daemon's environment: who it is to a cloud.
    pub environment: Private,
    /// Which plugin.
    pub plugin: String,
    pub plugins: PluginPlaces,
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
            mode: Mode::Blocking,
            buffer: 1 << 20,
            cache: false,
            tag: String::new(),
            identity: Identity::default(),
            syslog: Syslog::default(),
            journal: None,
            options: Private::default(),
            environment: Private::default(),
            plugin: String::new(),
            plugins: PluginPlaces::default(),
        }
    }
}

type Options = BTreeMap<String, String>;

/// Understood by the engine, which knows the labels and variables they choose from, and about the way to the driver.
const EVERYWHERE: [&str; 7] =
    ["labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"];
const BUFFER: [&str; 2] = ["mode", "max-buffer-size"];
/// Of what is kept in files, and only there.
const IN_FILES: [&str; 3] = ["max-size", "max-file", "compress"];
/// Of what is kept here of a log that goes to a server.
const CACHE: [&str; 4] = ["cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"];

impl Config {
    /// Whether a container may be made with these options. Of what is kept in files only the names count then: Docker looks
    /// at their values when it starts one.
    pub fn check(driver: &str, options: &Options) -> Result<()> {
        match driver {
            "" | "json-file" | "local" => {
                mode(options)?;
                check_cache(options)?;
                let driver = if driver.is_empty() { "json-file" } else { driver };
                known(options, &IN_FILES, driver)
            }
            _ => Self::from_options(driver, options).map(drop),
        }
    }

    /// Reads a `HostConfig.LogConfig`, in Docker's words where it is wrong. `path`, `attrs`, `tag` and `identity` are the
    /// caller's to set; a name that is no driver's is a plugin's, and whether there is one is the caller's to know.
    pub fn from_options(driver: &str, options: &Options) -> Result<Self> {
        // Whatever it is told.
        if driver == "none" {
            return Ok(Self { driver: Driver::None, ..Self::default() });
        }
        let (mode, buffer) = mode(options)?;
        check_cache(options)?;
        let remote = |driver| Self::remote(driver, options);
        let config = match driver {
            "" | "json-file" => Self::json_file(options),
            "local" => Self::local(options),
            "syslog" => Self::syslog(options),
            "journald" => Self::journald(options),
            "fluentd" => remote(Driver::Fluentd),
            "gelf" => remote(Driver::Gelf),
            "splunk" => remote(Driver::Splunk),
            "awslogs" => remote(Driver::Awslogs),
            "gcplogs" => remote(Driver::Gcplogs),
            name => Ok(Self { plugin: name.to_owned(), ..remote(Driver::Plugin)? }),
        }?;
        let waits = config.mode == Mode::Blocking && mode == Mode::Blocking;
        let mode = if waits { Mode::Blocking } else { Mode::NonBlocking };
        Ok(Self { mode, buffer, ..config })
    }

    /// Whether the log goes through a process of its own.
    pub(super) fn is_remote(&self) -> bool {
        match self.driver {
            Driver::Fluentd
            | Driver::Gelf
            | Driver::Splunk
            | Driver::Awslogs
            | Driver::Gcplogs
            | Driver::Plugin => true,
            Driver::Syslog => matches!(self.syslog.address, Address::Tls(_)),
            Driver::JsonFile | Driver::Local | Driver::Journald | Driver::None => false,
        }
    }

    /// Whether `docker logs` has something to read.
    pub fn is_readable(&self) -> bool {
        match self.driver {
            Driver::JsonFile | Driver::Local => true,
            Driver::None => false,
            _ => self.cache,
        }
    }

    fn remote(driver: Driver, options: &Options) -> Result<Self> {
        let common: &[&str] = match driver {
            Driver::Awslogs => &["tag"],
            Driver::Gcplogs => &["labels", "labels-regex", "env", "env-regex"],
            _ => &["labels", "labels-regex", "env", "env-regex", "tag"],
        };
        let is_own =
            |key: &str| !common.contains(&key) && !CACHE.contains(&key) && !BUFFER.contains(&key);
        let mut own = options.clone();
        own.retain(|key, _| is_own(key));
        remote::check(driver, &own)?;
        let mode = match driver {
            Driver::Fluentd if remote::never_waits(options) => Mode::NonBlocking,
            _ => Mode::Blocking,
        };
        Ok(Self { mode, options: options.clone().into(), ..Self::cached(driver, options)? })
    }

    fn json_file(options: &Options) -> Result<Self> {
        known(options, &IN_FILES, "json-file")?;
        let mut config = Self::default();
        config.rotation(options, "", &JSON_FILE)?;
        if config.compress && (config.max_file < 2 || config.max_size.is_none()) {
            return Err(Error::invalid(
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ));
        }
        Ok(config)
    }

    fn local(options: &Options) -> Result<Self> {
        known(options, &IN_FILES, "local")?;
        let mut config = Self { driver: Driver::Local, compress: true, ..Self::default() };
        config.rotation(options, "", &LOCAL)?;
        config.check_kept()?;
        Ok(config)
    }

    fn syslog(options: &Options) -> Result<Self> {
        const OWN: [&str; 8] = [
            "syslog-address",
            "syslog-facility",
            "syslog-format",
            "syslog-tls-ca-cert",
            "syslog-tls-cert",
            "syslog-tls-key",
            "syslog-tls-skip-verify",
            "cache-disabled",
        ];
        known(options, &OWN, "syslog")?;
        let config = Self::cached(Driver::Syslog, options)?;
        let syslog = Syslog::from_options(options)?;
        Ok(Self { syslog, options: options.clone().into(), ..config })
    }

    fn journald(options: &Options) -> Result<Self> {
        known(options, &[], "journald")?;
        Self::cached(Driver::Journald, options)
    }

    /// A log that goes to a server, and is kept here in a few compressed files.
    fn cached(driver: Driver, options: &Options) -> Result<Self> {
        let disabled = options.get("cache-disabled").map(|text| boolean(text)).transpose()?;
        let cache = disabled != Some(true);
        let mut config = Self { driver, compress: true, cache, ..Self::default() };
        config.rotation(options, "cache-", &LOCAL)?;
        config.check_kept()?;
        Ok(config)
    }

    fn rotation(&mut self, options: &Options, prefix: &str, words: &Words) -> Result<()> {
        let get = |name: &str| options.get(&format!("{prefix}{name}"));
        let bad = |prefix: fn(&str) -> String, text: &str, error: Error| match prefix(text) {
            prefix if prefix.is_empty() => error,
            prefix => Error::invalid(prefix).caused_by(error),
        };
        if let Some(text) = get("max-size") {
            self.max_size = max_size(text).map_err(|error| bad(words.size, text, error))?;
        }
        if let Some(text) = get("max-file") {
            let count: i64 = text.parse().map_err(|_| {
                let words_of_go = format!("strconv.Atoi: parsing {text:?}: invalid syntax");
                bad(words.file, text, Error::invalid(words_of_go))
            })?;
            if count < words.least {
                return Err(Error::invalid(words.too_few));
            }
            self.max_file = u32::try_from(count).unwrap_or(u32::MAX);
        }
        if let Some(text) = get("compress") {
            self.compress = boolean(text).map_err(|error| bad(words.compress, text, error))?;
        } else if self.max_file == 1 {
            self.compress = false;
        }
        Ok(())
    }

    fn check_kept(&self) -> Result<()> {
        if self.max_size.is_none() {
            return Err(Error::invalid("max size should be a positive number"));
        }
        if self.compress && self.max_file < 2 {
            return Err(Error::invalid("compression cannot be enabled when max file count is 1"));
        }
        Ok(())
    }
}

/// What stands before the words of Go where a number is none, and how few files there may be.
struct Words {
    size: fn(&str) -> String,
    file: fn(&str) -> String,
    compress: fn(&str) -> String,
    least: i64,
    too_few: &'static str,
}

const JSON_FILE: Words = Words {
    size: |_| String::new(),
    file: |_| String::new(),
    compress: |_| String::new(),
    least: 1,
    too_few: "max-file cannot be less than 1",
};

const LOCAL: Words = Words {
    size: |text| format!("invalid value for max-size: {text}"),
    file: |text| format!("invalid value for max-file: {text}"),
    compress: |_| "error reading compress log option".to_owned(),
    least: 0,
    too_few: "max file count cannot be less than 0",
};

fn check_cache(options: &Options) -> Result<()> {
    let Some(text) = options.get("cache-disabled") else { return Ok(()) };
    let bad = |_| Error::invalid(format!("invalid value for option cache-disabled: {text}"));
    boolean(text).map(drop).map_err(bad)
}

fn known(options: &Options, own: &[&str], driver: &str) -> Result<()> {
    // Of a log that is kept here anyway they mean nothing, and are taken all the same.
    let is_known =
        |key: &str| own.contains(&key) || EVERYWHERE.contains(&key) || CACHE.contains(&key);
    match options.keys().find(|key| !is_known(key)) {
        Some(key) if driver == "local" => {
            Err(Error::invalid(format!("unknown log opt '{key}' for log driver local")))
        }
        Some(key) => {
            Err(Error::invalid(format!("unknown log opt '{key}' for {driver} log driver")))
        }
        None => Ok(()),
    }
}

fn mode(options: &Options) -> Result<(Mode, u64)> {
    let mode = match options.get("mode").map(String::as_str) {
        None | Some("" | "blocking") => Mode::Blocking,
        Some("non-blocking") => Mode::NonBlocking,
        Some(other) => {
            return Err(Error::invalid(format!("logger: logging mode not supported: {other}")));
        }
    };
    let Some(text) = options.get("max-buffer-size") else { return Ok((mode, 1 << 20)) };
    if mode != Mode::NonBlocking {
        return Err(Error::invalid(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ));
    }
    let size =
        units::ram_in_bytes(text).context(|| "error parsing option max-buffer-size".to_owned())?;
    Ok((mode, u64::try_from(size).unwrap_or(0)))
}

fn max_size(text: &str) -> Result<Option<u64>> {
    if text == "-1" {
        return Ok(None);
    }
    let size = units::size_in_bytes(text)?;
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

    #[test]
    fn each_driver_has_its_own() {
        let read = |driver: &str, options: &[(&str, &str)]| {
            let options = options
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect();
            Config::from_options(driver, &options).map_err(|error| error.chain())
        };
        let local = read("local", &[]).unwrap();
        assert_eq!((local.driver, local.compress, local.max_file), (Driver::Local, true, 5));
        assert!(!read("local", &[("max-file", "1")]).unwrap().compress);
        let syslog = read("syslog", &[("cache-max-file", "3"), ("tag", "x")]).unwrap();
        assert_eq!((syslog.cache, syslog.max_file), (true, 3));
        assert!(!read("journald", &[("cache-disabled", "true")]).unwrap().is_readable());
        let mode =
            read("journald", &[("mode", "non-blocking"), ("max-buffer-size", "4k")]).unwrap();
        assert_eq!((mode.mode, mode.buffer), (Mode::NonBlocking, 4096));
        for (driver, option, words) in [
            ("local", ("max-file", "0"), "compression cannot be enabled when max file count is 1"),
            ("local", ("max-file", "-1"), "max file count cannot be less than 0"),
            ("local", ("max-size", "x"), "invalid value for max-size: x: invalid size: 'x'"),
            ("local", ("max-size", "-1"), "max size should be a positive number"),
            ("local", ("x", "1"), "unknown log opt 'x' for log driver local"),
            ("syslog", ("max-size", "1"), "unknown log opt 'max-size' for syslog log driver"),
            ("json-file", ("cache-disabled", "x"), "invalid value for option cache-disabled: x"),
            ("json-file", ("mode", "x"), "logger: logging mode not supported: x"),
            (
                "journald",
                ("max-buffer-size", "1m"),
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
            ),
        ] {
            assert_eq!(read(driver, &[option]).unwrap_err(), words);
        }
        assert!(read("none", &[("whatever", "x")]).is_ok());
    }

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
            (&[("max-file", "-1")][..], "max-file cannot be less than 1"),
            (&[("max-size", "x")][..], "invalid size: 'x'"),
            (&[("max-size", "0")][..], "max-size must be a positive number"),
            (
                &[("compress", "true"), ("max-file", "1")][..],
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ),
        ] {
            assert_eq!(read(options).unwrap_err().to_string(), words);
        }
        let other = Config::from_options("foo", &BTreeMap::new()).unwrap();
        assert_eq!((other.driver, other.plugin.as_str()), (Driver::Plugin, "foo"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let options = BTreeMap::from([
            ("splunk-url".to_owned(), "https://h:1".to_owned()),
            ("splunk-token".to_owned(), "secret".to_owned()),
        ]);
        let config = Config::from_options("splunk", &options).unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }
}
