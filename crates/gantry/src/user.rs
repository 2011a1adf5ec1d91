//! Whose daemon it is. Root has the system's places; every other user has his own for everything, and namespaces in which he
//! is root.

use std::path::PathBuf;

use rootless::LinkKind;
use stdx::{Error, Result};

use crate::config::{self, Config};

/// How a user's daemon is connected to the host: the flags that begin with `--rootless-`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rootless {
    pub(crate) link: LinkKind,
    pub(crate) mtu: Option<u32>,
    pub(crate) host_loopback: bool,
    /// Where programs of the system are looked for.
    pub(crate) path: String,
}

/// The directories a user has by the XDG rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) runtime: Option<PathBuf>,
    pub(crate) data: PathBuf,
    pub(crate) config: PathBuf,
}

/// `None` for root.
pub(crate) fn places() -> Result<Option<Places>> {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return Ok(None);
    }
    let home = config::variable("HOME").map(PathBuf::from);
    let (runtime, data, config) = (
        config::variable("XDG_RUNTIME_DIR").map(PathBuf::from),
        config::variable("XDG_DATA_HOME").map(PathBuf::from),
        config::variable("XDG_CONFIG_HOME").map(PathBuf::from),
    );
    let usual = PathBuf::from(format!("/run/user/{uid}"));
    let at_home = |place: &str| {
        let home = home.as_ref().ok_or_else(|| Error::invalid("HOME needs to be set"))?;
        Ok::<_, Error>(home.join(place))
    };
    Ok(Some(Places {
        runtime: runtime.or_else(|| usual.is_dir().then_some(usual)),
        data: data.map_or_else(|| at_home(".local/share"), Ok)?,
        config: config.map_or_else(|| at_home(".config"), Ok)?,
    }))
}

impl Places {
    pub(crate) fn config_file(&self) -> PathBuf {
        self.config.join("gantry/daemon.json")
    }

    /// The defaults of a user who is not root.
    pub(crate) fn defaults(&self) -> Config {
        // Without a directory that is gone after a reboot these have to be named; `complete` insists.
        let run = self.runtime.clone().unwrap_or_default();
        Config {
            data_root: self.data.join("gantry"),
            exec_root: run.join("gantry"),
            pidfile: run.join("gantry.pid"),
            plugin_directories: Vec::new(),
            rootless: Some(Rootless {
                path: config::variable("PATH").unwrap_or_default(),
                ..Rootless::default()
            }),
            ..Config::default()
        }
    }

    /// What follows from all that was said.
    pub(crate) fn complete(&self, config: &mut Config) -> Result<()> {
        if config.hosts.is_empty() {
            let run = self.runtime.clone().unwrap_or_default();
            config.hosts.push(format!("unix://{}", run.join("gantry.sock").display()));
        }
        let unknown = |path: &std::path::Path| !path.is_absolute();
        if unknown(&config.exec_root)
            || unknown(&config.pidfile)
            || config.hosts == ["unix://gantry.sock"]
        {
            return Err(Error::invalid(
                "XDG_RUNTIME_DIR needs to be set: without it a user has no place for sockets",
            ));
        }
        if !config.userns.is_empty() && config.userns != "host" || !config.userns_remap.is_empty() {
            return Err(Error::invalid(
                "--userns and --userns-remap are root's: containers of a user are in his user namespace already",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places {
            runtime: Some("/run/user/7".into()),
            data: "/home/a/.local/share".into(),
            config: "/home/a/.config".into(),
        }
    }

    #[test]
    fn a_user_has_places_of_his_own() {
        let mut config = places().defaults();
        places().complete(&mut config).unwrap();
        assert_eq!(config.hosts, ["unix:///run/user/7/gantry.sock"]);
        assert_eq!(config.exec_root, PathBuf::from("/run/user/7/gantry"));
        assert_eq!(config.data_root, PathBuf::from("/home/a/.local/share/gantry"));
        assert_eq!(places().config_file(), PathBuf::from("/home/a/.config/gantry/daemon.json"));
    }

    #[test]
    fn without_a_runtime_directory_places_must_be_named() {
        let bare = Places { runtime: None, ..places() };
        let mut config = bare.defaults();
        let error = bare.complete(&mut config).unwrap_err().to_string();
        assert!(error.starts_with("XDG_RUNTIME_DIR needs to be set"), "{error}");
        let mut config = Config {
            hosts: vec!["unix:///x/s".to_owned()],
            exec_root: "/x/run".into(),
            pidfile: "/x/pid".into(),
            ..bare.defaults()
        };
        bare.complete(&mut config).unwrap();
    }
}
