//! What a plugin has kept of a container's output, asked for again.

use std::io::Read;
use std::os::fd::OwnedFd;

use ::plugin::http::Body;
use rustix::net::Shutdown;
use serde::Serialize;
use stdx::time::Timestamp;
use stdx::{Context, Result};

use super::entry::{self, Entry};
use super::{ANSWER, Info, Session, find};
use crate::logs::{Config, Follow, Options};
use crate::protocol::Stream;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Question<'a> {
    info: Info<'a>,
    config: ReadConfig,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ReadConfig {
    since: String,
    until: String,
    /// All, if negative.
    tail: i64,
    follow: bool,
}

impl From<Options> for ReadConfig {
    fn from(options: Options) -> Self {
        let moment = |at: Option<Timestamp>| at.unwrap_or(Timestamp::NEVER).to_string();
        Self {
            since: moment(options.since),
            until: moment(options.until),
            tail: options.tail.map_or(-1, |count| i64::try_from(count).unwrap_or(i64::MAX)),
            follow: options.follow == Follow::Yes,
        }
    }
}

/// Reads until the plugin says no more, or until it is stopped.
pub struct Reader {
    body: Body,
    options: Options,
    /// Begun only to read: a plugin knows the containers that it was begun for.
    session: Option<Session>,
    line: Vec<u8>,
}

/// Ends a [`Reader`] that waits for its plugin.
pub struct Stopper(OwnedFd);

impl Stopper {
    pub fn stop(&self) {
        let _gone = rustix::net::shutdown(&self.0, Shutdown::Both);
    }
}

impl Reader {
    /// Asks the plugin, if it is one that can be asked. `ended` containers have no session of their own any more.
    pub fn of(config: &Config, options: Options, ended: bool) -> Result<Option<Self>> {
        if !config.is_read_by_plugin() {
            return Ok(None);
        }
        let session = ended
            .then(|| Session::begin(config))
            .transpose()
            .context(|| "failed to initialize logging driver".to_owned())?;
        let mut options = options;
        if ended {
            options.follow = Follow::No;
        }
        let question = Question { info: Info::of(config), config: options.into() };
        let asked = find(&config.plugin, &config.plugins)
            .and_then(|plugin| Ok(plugin.stream("LogDriver.ReadLogs", &question, ANSWER)?))
            .context(|| "error getting log reader from plugin".to_owned());
        match asked {
            Ok(body) => Ok(Some(Self { body, options, session, line: Vec::new() })),
            Err(error) => {
                if let Some(session) = session {
                    session.end(ANSWER);
                }
                Err(error)
            }
        }
    }

    pub fn stopper(&self) -> Result<Stopper> {
        Ok(Stopper(self.body.socket()?))
    }

    /// The next record; none is the end.
    pub fn next_entry(&mut self) -> Result<Option<crate::logs::Entry<'_>>> {
        loop {
            let decoding = || "error decoding log message".to_owned();
            let Some(Entry { source, nanos, line }) = self.read().context(decoding)? else {
                return Ok(None);
            };
            let at = Timestamp::from_unix_nanos(i128::from(nanos));
            // It has been told, but not everybody listens.
            if self.options.since.is_some_and(|since| at < since) {
                continue;
            }
            if self.options.until.is_some_and(|until| at > until) {
                return Ok(None);
            }
            let stream = if source == "stderr" { Stream::Stderr } else { Stream::Stdout };
            self.line = line;
            return Ok(Some(crate::logs::Entry { at, stream, line: &self.line, attrs: None }));
        }
    }

    fn read(&mut self) -> Result<Option<Entry>> {
        let mut head = [0; 4];
        // Between two records is where it may end.
        if self.body.read(&mut head[..1])? == 0 {
            return Ok(None);
        }
        self.body.read_exact(&mut head[1..])?;
        let mut record = vec![0; entry::length(head)?];
        self.body.read_exact(&mut record)?;
        entry::decode(&record).map(Some)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            session.end(ANSWER);
        }
    }
}
