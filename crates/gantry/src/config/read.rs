//! Flags and the file that they name, brought together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use stdx::{Context, Error, Result};

use super::Config;
use super::file::understand;
use super::flags::{SETTINGS, Shape};
use crate::user;

/// What a command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    Run(Box<Config>, Box<Told>),
    Help,
    Version,
    /// Only whether the configuration is right.
    Validated(Box<Config>),
}

/// Where `daemon.json` lies when nobody says.
const FILE: &str = "/etc/gantry/daemon.json";

/// Reads flags, then the file they name; one thing said in both is refused, as dockerd does.
pub(crate) fn read(args: &[String]) -> Result<Asked> {
    let mut said: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    let mut words = args.iter();
    let mut only_validate = false;
    while let Some(word) = words.next() {
        match word.as_str() {
            "-h" | "--help" => return Ok(Asked::Help),
            "-v" | "--version" => return Ok(Asked::Version),
            "--validate" => {
                only_validate = true;
                continue;
            }
            _ => {}
        }
        let (name, inline) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let found = match name.strip_prefix("--") {
            Some(long) => SETTINGS.iter().find(|setting| setting.flag == long),
            None => name.strip_prefix('-').and_then(|rest| {
                let mut letters = rest.chars();
                let letter = letters.next()?;
                letters
                    .as_str()
                    .is_empty()
                    .then(|| SETTINGS.iter().find(|setting| setting.short == Some(letter)))?
            }),
        };
        let Some(setting) = found else {
            return Err(match name.starts_with('-') {
                true => Error::invalid(format!("unknown flag: {name}")),
                false => Error::invalid(format!("unexpected argument: {name}")),
            });
        };
        let value = match (setting.shape, inline) {
            (_, Some(value)) => value,
            (Shape::Switch, None) => "true".to_owned(),
            (_, None) => words
                .next()
                .cloned()
                .ok_or_else(|| Error::invalid(format!("flag needs an argument: {name}")))?,
        };
        said.entry(setting.flag).or_default().push(value);
    }
    let told = Told::new(said, user::places()?);
    let config = told.read()?.config;
    if only_validate {
        return Ok(Asked::Validated(Box::new(config)));
    }
    Ok(Asked::Run(Box::new(config), Box::new(told)))
}

/// Where the configuration comes from: it can be read again.
#[derive(Debug, PartialEq)]
pub(crate) struct Told {
    flags: BTreeMap<&'static str, Vec<String>>,
    pub(crate) file: String,
    /// Somebody named the file: it has to be there.
    named: bool,
    places: Option<user::Places>,
}

/// All that was said, at this moment.
pub(crate) struct Read {
    pub(crate) config: Config,
    /// What the file speaks of, by the names of flags.
    pub(crate) in_file: BTreeSet<&'static str>,
}

impl Told {
    fn new(mut flags: BTreeMap<&'static str, Vec<String>>, places: Option<user::Places>) -> Self {
        let named = flags.remove("config-file").and_then(|mut files| files.pop());
        let own = places.as_ref().map(|places| places.config_file().display().to_string());
        let is_named = named.is_some();
        let file = named.or(own).unwrap_or_else(|| FILE.to_owned());
        Self { flags, file, named: is_named, places }
    }

    pub(crate) fn read(&self) -> Result<Read> {
        let file = &self.file;
        let mut in_file = BTreeMap::new();
        if self.named || Path::new(file).exists() {
            let text = std::fs::read_to_string(file)
                .context(|| format!("unable to configure the Docker daemon with file {file}"))?;
            in_file = understand(&text, file)?;
        }
        if let Some((flag, words)) = in_file.iter().find(|(flag, _)| self.flags.contains_key(*flag))
        {
            return Err(Error::invalid(format!(
                "unable to configure the Docker daemon with file {file}: the following directives are specified both as a flag and in the configuration file: {flag}: (from flag: {}, from file: {})",
                self.flags[flag].join(" "),
                words.join(" ")
            )));
        }
        let mut config = self.places.as_ref().map_or_else(Config::default, user::Places::defaults);
        for (flag, value) in self
            .flags
            .iter()
            .chain(&in_file)
            .flat_map(|(flag, values)| values.iter().map(move |value| (*flag, value)))
        {
            config.set(flag, value).context(|| format!("invalid value {value:?} for --{flag}"))?;
        }
        // An empty list says something, too.
        if in_file.contains_key("cdi-spec-dir") {
            config.cdi_spec_dirs.get_or_insert_default();
        }
        if let Some(places) = &self.places {
            places.complete(&mut config)?;
        }
        if config.hosts.is_empty() {
            config.hosts.push("unix:///run/gantry.sock".to_owned());
        }
        // An address without a scheme is one of TCP, for Docker; a path leads to a socket.
        for host in &mut config.hosts {
            if !host.contains("://") && !host.starts_with('/') {
                host.insert_str(0, "tcp://");
            }
        }
        // Who says one twice means it once.
        let mut seen = BTreeSet::new();
        config.hosts.retain(|host| seen.insert(host.clone()));
        Ok(Read { config, in_file: in_file.into_keys().collect() })
    }
}

#[cfg(test)]
mod tests {
    use runtime::cgroup::Driver;

    use super::*;

    fn run(args: &str) -> Result<Config> {
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        match read(&args)? {
            Asked::Run(config, _) => Ok(*config),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_in_all_their_spellings() {
        let config = run(
            "-H unix:///a --host=unix:///b -H unix:///a -D --data-root /x --icc=false --log-opt max-size=1m",
        )
        .unwrap();
        assert_eq!(config.hosts, ["unix:///a", "unix:///b"]);
        assert!(config.debug && !config.icc);
        assert_eq!(config.log_opts["max-size"], "1m");
        assert_eq!(run("--nope").unwrap_err().to_string(), "unknown flag: --nope");
    }

    #[test]
    fn options_of_execution() {
        let check =
            |value: &str| run(&format!("--exec-opt {value}")).map(|config| config.cgroup_driver);
        assert_eq!(check("Native.CgroupDriver=cgroupfs").unwrap(), Some(Driver::Cgroupfs));
        for (value, why) in [
            ("native.cgroupdriver", "must be formatted 'opt=value'"),
            ("isolation=process", "option 'isolation' is only supported on windows"),
            ("other=x", "unknown option: 'other'"),
        ] {
            let error = check(value).unwrap_err().chain();
            assert!(error.ends_with(&format!("invalid exec-opt ({value}): {why}")), "{error}");
        }
    }
}
