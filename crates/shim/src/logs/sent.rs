//! A log that goes to a server, and the files beside it that `docker logs` reads.

use rustix::event::PollFlags;
use stdx::{Context, Error, Result};

use super::config::{Driver, Mode};
use super::json_file::Writer;
use super::outbox::{Full, Outbox, Room, Target};
use super::{Config, Stamp, journald, remote, syslog};
use crate::protocol::Stream;

#[derive(Debug)]
pub(crate) struct Sent {
    formatter: Formatter,
    outbox: Outbox,
    /// None when the cache is switched off.
    pub(super) cache: Option<Writer>,
}

#[derive(Debug)]
enum Formatter {
    Syslog(syslog::Formatter),
    Journald(journald::Formatter),
    /// As it is, for a process that knows how to say it.
    Remote,
}

impl Sent {
    pub(super) fn open(config: &Config) -> Result<Self> {
        let words = || "failed to initialize logging driver".to_owned();
        let (formatter, targets) = match config.driver {
            _ if config.is_remote() => {
                (Formatter::Remote, vec![Target::Process(Box::new(config.clone()))])
            }
            Driver::Journald => {
                let formatter = Formatter::Journald(journald::Formatter::new(config));
                (formatter, vec![journald::target(config)])
            }
            _ => {
                let formatter = syslog::Formatter::new(&config.syslog, &config.tag);
                (Formatter::Syslog(formatter), config.syslog.address.targets().context(words)?)
            }
        };
        let outbox = first_that_answers(targets, config);
        let outbox = match config.driver {
            Driver::Journald => {
                outbox.map_err(|_| Error::unavailable("journald is not enabled on this host"))
            }
            _ => outbox,
        };
        let outbox = outbox.context(words)?;
        let cache = config.cache.then(|| Writer::open(config)).transpose().context(words)?;
        Ok(Self { formatter, outbox, cache })
    }

    pub(super) fn write(&mut self, at: Stamp, stream: Stream, line: &[u8], ended: bool) {
        if let Some(cache) = &mut self.cache {
            cache.write(at, stream, line, ended);
        }
        // As in files: what a line that was cut ends with may be nothing.
        if line.is_empty() && !ended {
            return;
        }
        let message = match &mut self.formatter {
            Formatter::Syslog(formatter) => formatter.message(at, stream, line),
            Formatter::Journald(formatter) => formatter.message(at, stream, line, ended),
            Formatter::Remote => remote::encode(at, stream, line, ended),
        };
        self.outbox.push(message);
    }

    pub(super) fn flush(&mut self) {
        if let Some(cache) = &mut self.cache {
            cache.flush();
        }
        self.outbox.send();
    }

    pub(super) fn dropped(&self) -> u64 {
        self.outbox.dropped() + self.cache.as_ref().map_or(0, Writer::dropped)
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    pub(super) fn ready(&mut self, flags: PollFlags) {
        self.outbox.ready(flags);
    }

    pub(super) fn end(&mut self) {
        self.outbox.end();
        self.outbox.send();
    }
}

fn first_that_answers(targets: Vec<Target>, config: &Config) -> Result<Outbox> {
    let full = match config.mode {
        Mode::Blocking => Full::Waits,
        Mode::NonBlocking => Full::Drops,
    };
    let most = Room::of(config);
    let several = targets.len() > 1;
    let mut outcome = Err(Error::unavailable("Unix syslog delivery error"));
    for target in targets {
        match Outbox::open(target, most, full) {
            Ok(outbox) => return Ok(outbox),
            // Of one place its own words; of a list of guesses, that none was right.
            Err(error) if !several => outcome = Err(error),
            Err(_) => {}
        }
    }
    outcome
}
