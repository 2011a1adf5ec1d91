//! A logging plugin: asked over HTTP to begin, then fed through a FIFO; where it can read, asked for what it has kept.

mod entry;
mod reader;

use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::plugin::{Patience, Plugins};
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use stdx::{Context, Error, Kind, Result};

pub use reader::{Reader, Stopper};

use super::frame::{Message, random_id};
use super::{Driver, Shim, wait};
use crate::logs::{Config, DRIVERS, Identity, PluginPlaces};

const INTERFACE: &str = "LogDriver";
const ANSWER: Duration = Duration::from_secs(30);
/// How often somebody who waits for a plugin looks whether it is still worth it.
const LOOK: Duration = Duration::from_millis(500);

impl Config {
    /// Whether there is a plugin of that name, where it is no driver's.
    pub fn check_plugin(driver: &str, places: &PluginPlaces) -> Result<()> {
        if driver.is_empty() || DRIVERS.contains(&driver) {
            return Ok(());
        }
        let words = || format!("error looking up logging plugin {driver}");
        // Not the thing that was asked for is absent, but what it asks for.
        find(driver, places)
            .map(drop)
            .context(words)
            .map_err(|error| error.with_kind(Kind::Invalid))
    }

    /// What a plugin keeps and gives back need not be kept here, too.
    pub fn leave_keeping_to_plugin(&mut self) {
        if self.cache && self.is_read_by_plugin() {
            self.cache = false;
        }
    }

    /// Whether it is a plugin's to say what the container said. One that does not say so does not read.
    fn is_read_by_plugin(&self) -> bool {
        if self.driver != crate::logs::Driver::Plugin {
            return false;
        }
        let asked = find(&self.plugin, &self.plugins).ok().and_then(|plugin| {
            plugin.call("LogDriver.Capabilities", &(), ANSWER, Patience::None).ok()
        });
        asked.is_some_and(|Capabilities { err, cap }| err.is_empty() && cap.read_logs)
    }
}

fn find(name: &str, places: &PluginPlaces) -> Result<Arc<::plugin::Plugin>> {
    Plugins::new(places.places()).get(name, INTERFACE, Patience::None)
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Capabilities {
    err: String,
    cap: Capability,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Capability {
    read_logs: bool,
}

/// What plugins know of a container.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Info<'a> {
    config: &'a std::collections::BTreeMap<String, String>,
    #[serde(rename = "ContainerID")]
    container_id: &'a str,
    container_name: String,
    container_entrypoint: &'a str,
    container_args: &'a [String],
    #[serde(rename = "ContainerImageID")]
    container_image_id: &'a str,
    container_image_name: &'a str,
    container_created: String,
    container_env: Option<&'a [String]>,
    container_labels: &'a std::collections::BTreeMap<String, String>,
    log_path: &'a str,
    daemon_name: &'a str,
}

impl<'a> Info<'a> {
    fn of(config: &'a Config) -> Self {
        let Identity { id, name, image, image_id, created, path, args, env, labels } =
            &config.identity;
        Self {
            config: &config.options,
            container_id: id,
            container_name: format!("/{name}"),
            container_entrypoint: path,
            container_args: args,
            container_image_id: image_id,
            container_image_name: image,
            container_created: created.to_string(),
            container_env: (!env.is_empty()).then_some(env),
            container_labels: labels,
            log_path: "",
            daemon_name: "docker",
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Start<'a> {
    file: &'a str,
    info: Info<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Stop<'a> {
    file: &'a str,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Answer {
    err: String,
}

impl Answer {
    fn ok(self) -> Result<()> {
        if self.err.is_empty() { Ok(()) } else { Err(Error::unavailable(self.err)) }
    }
}

/// A FIFO that a plugin has been told to read.
struct Session {
    plugin: Arc<::plugin::Plugin>,
    path: PathBuf,
    fifo: std::fs::File,
}

impl Session {
    fn begin(config: &Config) -> Result<Self> {
        let plugin = find(&config.plugin, &config.plugins)?;
        let words = || "error creating logger".to_owned();
        std::fs::create_dir_all(&config.plugins.fifos).context(words)?;
        let path = config.plugins.fifos.join(random_id());
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::from_raw_mode(0o700)).context(words)?;
        let begun = || -> Result<std::fs::File> {
            // For reading, too: that way it is open before the plugin is, and stays so when it goes and comes back.
            let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let fifo = rustix::fs::open(&path, flags, Mode::empty())?;
            let start = Start { file: &path.to_string_lossy(), info: Info::of(config) };
            let answer: Answer = plugin
                .call("LogDriver.StartLogging", &start, ANSWER, Patience::None)
                .map_err(Error::from)?;
            answer.ok().context(words)?;
            Ok(fifo.into())
        };
        match begun() {
            Ok(fifo) => Ok(Self { plugin, path, fifo }),
            Err(error) => {
                let _gone = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// The plugin reads what is there before it answers, or never.
    fn end(&self, patience: Duration) {
        let stop = Stop { file: &self.path.to_string_lossy() };
        let _answer: Result<Answer, _> =
            self.plugin.call("LogDriver.StopLogging", &stop, patience, Patience::None);
        let _gone = std::fs::remove_file(&self.path);
    }
}

pub(super) struct Plugin<'a> {
    session: Session,
    shim: &'a Shim<'a>,
    lost: u64,
}

impl<'a> Plugin<'a> {
    pub(super) fn open(config: &Config, shim: &'a Shim<'a>) -> Result<Self> {
        Ok(Self { session: Session::begin(config)?, shim, lost: 0 })
    }
}

impl Driver for Plugin<'_> {
    fn log(&mut self, message: &Message<'_>) {
        let bytes = entry::encode(message);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match self.session.fifo.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Half a record would make rubbish of all that follow: what was begun is finished.
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.shim.goes_on() => {
                    wait(self.session.fifo.as_fd(), PollFlags::OUT, Some(LOOK));
                }
                Err(_) => {
                    self.lost += 1;
                    return;
                }
            }
        }
    }

    fn close(&mut self) {
        self.session.end(self.shim.deadline(ANSWER).saturating_duration_since(Instant::now()));
    }

    fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}
