//! A logging plugin: asked over HTTP to begin, then fed through a FIFO with length-prefixed protobuf records.

use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::plugin::{Patience, Plugins};
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use stdx::{Context, Error, Kind, Result};

use super::frame::{Message, random_id};
use super::{Driver, Shim, wait};
use crate::logs::{Config, Identity};

const INTERFACE: &str = "LogDriver";
const ANSWER: Duration = Duration::from_secs(30);
/// How often somebody who waits for a plugin looks whether it is still worth it.
const LOOK: Duration = Duration::from_millis(500);

impl Config {
    /// Whether there is a plugin of that name, where the driver is one.
    pub fn check_plugin(&self) -> Result<()> {
        if self.driver != crate::logs::Driver::Plugin {
            return Ok(());
        }
        let found =
            Plugins::new(self.plugins.places()).get(&self.plugin, INTERFACE, Patience::None);
        let words = || format!("error looking up logging plugin {}", self.plugin);
        // Not the thing that was asked for is absent, but what it asks for.
        found.map(drop).context(words).map_err(|error| error.with_kind(Kind::Invalid))
    }
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
    container_env: &'a [String],
    container_labels: &'a std::collections::BTreeMap<String, String>,
    log_path: &'a str,
    daemon_name: &'a str,
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

pub(super) struct Plugin<'a> {
    plugin: Arc<::plugin::Plugin>,
    path: PathBuf,
    fifo: std::fs::File,
    shim: &'a Shim<'a>,
    lost: u64,
}

impl<'a> Plugin<'a> {
    pub(super) fn open(config: &Config, shim: &'a Shim<'a>) -> Result<Self> {
        let plugins = Plugins::new(config.plugins.places());
        let plugin = plugins.get(&config.plugin, INTERFACE, Patience::None)?;
        let words = || "error creating logger".to_owned();
        std::fs::create_dir_all(&config.plugins.fifos).context(words)?;
        let path = config.plugins.fifos.join(random_id());
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::from_raw_mode(0o700)).context(words)?;
        let begun = begin(&plugin, &path, config);
        if begun.is_err() {
            let _gone = std::fs::remove_file(&path);
        }
        Ok(Self { plugin, fifo: begun?, path, shim, lost: 0 })
    }
}

fn begin(plugin: &::plugin::Plugin, path: &Path, config: &Config) -> Result<std::fs::File> {
    // For reading, too: that way it is open before the plugin is, and stays so when it goes and comes back.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fifo = rustix::fs::open(path, flags, Mode::empty())?;
    let Identity { id, name, image, image_id, created, path: entrypoint, args, env, labels } =
        &config.identity;
    let file = path.to_string_lossy();
    let start = Start {
        file: &file,
        info: Info {
            config: &config.options,
            container_id: id,
            container_name: format!("/{name}"),
            container_entrypoint: entrypoint,
            container_args: args,
            container_image_id: image_id,
            container_image_name: image,
            container_created: created.to_string(),
            container_env: env,
            container_labels: labels,
            log_path: "",
            daemon_name: "docker",
        },
    };
    let answer: Answer = plugin
        .call("LogDriver.StartLogging", &start, ANSWER, Patience::None)
        .map_err(Error::from)?;
    answer.ok().context(|| "error creating logger".to_owned())?;
    Ok(fifo.into())
}

/// A record as plugins read it, with its length before it.
fn entry(message: &Message<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(message.line.len() + 64);
    bytes_field(1, message.source().as_bytes(), &mut body);
    let nanos = i64::try_from(message.unix_nanos()).unwrap_or_default();
    number_field(2, nanos.cast_unsigned(), &mut body);
    bytes_field(3, message.line, &mut body);
    if let Some(part) = message.part {
        number_field(4, 1, &mut body);
        let mut about = Vec::new();
        number_field(1, u64::from(part.last), &mut about);
        bytes_field(2, part.id.as_bytes(), &mut about);
        number_field(3, u64::from(part.ordinal), &mut about);
        bytes_field(5, &about, &mut body);
    }
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &body].concat()
}

/// Zero and nothing are not written.
fn number_field(number: u8, value: u64, out: &mut Vec<u8>) {
    if value > 0 {
        out.push(number << 3);
        varint(value, out);
    }
}

fn bytes_field(number: u8, value: &[u8], out: &mut Vec<u8>) {
    if !value.is_empty() {
        out.push(number << 3 | 2);
        varint(value.len() as u64, out);
        out.extend_from_slice(value);
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

impl Driver for Plugin<'_> {
    fn log(&mut self, message: &Message<'_>) {
        let bytes = entry(message);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match self.fifo.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Half a record would make rubbish of all that follow: what was begun is finished.
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.shim.goes_on() => {
                    wait(self.fifo.as_fd(), PollFlags::OUT, Some(LOOK));
                }
                Err(_) => {
                    self.lost += 1;
                    return;
                }
            }
        }
    }

    fn close(&mut self) {
        // The plugin reads what is there before it answers, or never.
        let stop = Stop { file: &self.path.to_string_lossy() };
        let left = self.shim.deadline(ANSWER).saturating_duration_since(std::time::Instant::now());
        let _answer: Result<Answer, _> =
            self.plugin.call("LogDriver.StopLogging", &stop, left, Patience::None);
        let _gone = std::fs::remove_file(&self.path);
    }

    fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Part;
    use super::*;
    use crate::protocol::Stream;

    #[test]
    fn a_record() {
        let part = Part { id: "i".to_owned(), ordinal: 2, last: true };
        let message = Message {
            stream: Stream::Stdout,
            seconds: 0,
            nanos: 300,
            line: b"hi",
            part: Some(&part),
        };
        let expected = b"\0\0\0\x1a\x0a\x06stdout\x10\xac\x02\x1a\x02hi\x20\x01\x2a\x07\x08\x01\x12\x01i\x18\x02";
        let bytes = entry(&message);
        assert_eq!(usize::from(bytes[3]), bytes.len() - 4);
        assert_eq!(bytes[4..], expected[4..]);
        let plain = entry(&Message { part: None, line: b"", ..message });
        assert_eq!(plain[4..], b"\x0a\x06stdout\x10\xac\x02"[..]);
    }
}
