//! What a container says, kept: written by its shim, read by anybody from the files.
//!
//! One file per driver. A writer never fails the container: what a disk or a server does not take is dropped and counted;
//! only a server that is there and slow, in blocking mode, makes it wait. A reader needs no shim: it works on the files alone, across rotation, while they are written.

mod config;
mod journald;
pub mod json_file;
mod lines;
mod outbox;
mod remote;
mod rotation;
mod sent;
mod stamp;
mod syslog;

use std::os::fd::BorrowedFd;
use std::time::Instant;

pub use config::{Config, Created, DRIVERS, Driver, Identity, Mode, PluginPlaces, Private};
pub use journald::socket as journal_socket;
pub(crate) use lines::Lines;
pub use remote::{PluginReader, Stopper};
pub use rotation::Compress;
use rustix::event::PollFlags;
use sent::Sent;
pub(crate) use stamp::Clock;
use stamp::Stamp;
use stdx::time::Timestamp;
use stdx::{Error, Result};
pub use syslog::{Address, Format, Syslog};

use crate::protocol::Stream;

/// One record of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub at: Timestamp,
    pub stream: Stream,
    /// With its newline, unless it is a part of a line longer than 16 KiB (or the output ended without one).
    pub line: &'a [u8],
    /// What `--log-opt labels/env/tag` asked for: a JSON object.
    pub attrs: Option<&'a [u8]>,
}

impl Entry<'_> {
    /// More of the same line follows in the next record of this stream.
    pub fn is_partial(&self) -> bool {
        !self.line.ends_with(b"\n")
    }
}

/// What a reader has next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'a> {
    Entry(Entry<'a>),
    /// So many files were rotated away before they could be read: a follower slower than its container.
    Lost(u64),
    /// Nothing now: wait until [`Reader::wake`] is readable.
    Wait,
    End,
}

/// Which entries, in Docker's order: the last `tail` of all, and of these the ones between `since` and `until`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub tail: Option<u64>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub follow: Follow,
}

/// What to do at the end of what has been written so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follow {
    #[default]
    No,
    Yes,
}

pub use json_file::Reader;

impl Reader {
    /// Opens the log that `config` describes; an empty one if nothing was written yet.
    pub fn of(config: &Config, options: Options) -> Result<Self> {
        if config.is_readable() {
            return Self::open(&config.path, options);
        }
        Err(Error::not_implemented("configured logging driver does not support reading"))
    }
}

/// Where the shim puts what it reads from the container.
#[derive(Debug)]
pub(crate) enum Log {
    File(Box<json_file::Writer>),
    Sent(Box<Sent>),
    None,
}

impl Log {
    pub(crate) fn open(config: &Config) -> Result<Self> {
        Ok(match config.driver {
            Driver::JsonFile | Driver::Local => {
                Self::File(Box::new(json_file::Writer::open(config)?))
            }
            Driver::None => Self::None,
            _ => Self::Sent(Box::new(Sent::open(config)?)),
        })
    }

    /// Takes one line without its newline; `ended` says whether it had one.
    pub(crate) fn write(&mut self, at: Stamp, stream: Stream, line: &[u8], ended: bool) {
        match self {
            Self::File(writer) => writer.write(at, stream, line, ended),
            Self::Sent(sent) => sent.write(at, stream, line, ended),
            Self::None => {}
        }
    }

    /// Gives what was collected to the kernel.
    pub(crate) fn flush(&mut self) {
        match self {
            Self::File(writer) => writer.flush(),
            Self::Sent(sent) => sent.flush(),
            Self::None => {}
        }
    }

    pub(crate) fn is_kept(&self) -> bool {
        !matches!(self, Self::None)
    }

    pub(crate) fn dropped(&self) -> u64 {
        match self {
            Self::File(writer) => writer.dropped(),
            Self::Sent(sent) => sent.dropped(),
            Self::None => 0,
        }
    }

    /// A server that takes no more now: the container is not to be read from until it does.
    pub(crate) fn holds_up(&self) -> bool {
        matches!(self, Self::Sent(sent) if sent.outbox().holds_up())
    }

    /// The server's socket, and what to wait for.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match self {
            Self::Sent(sent) => sent.outbox().interest(),
            Self::File(_) | Self::None => None,
        }
    }

    pub(crate) fn ready(&mut self, flags: PollFlags) {
        if let Self::Sent(sent) = self {
            sent.ready(flags);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self {
            Self::Sent(sent) => sent.outbox().deadline(),
            Self::File(_) | Self::None => None,
        }
    }

    /// The container has said all it will: what a server does not take soon is lost.
    pub(crate) fn end(&mut self) {
        self.rest();
        if let Self::Sent(sent) = self {
            sent.end();
        }
    }

    /// Whether a server has everything.
    pub(crate) fn is_sent(&self) -> bool {
        !matches!(self, Self::Sent(sent) if !sent.outbox().is_empty())
    }

    pub(crate) fn rotate(&mut self) -> Result<()> {
        self.file().map_or(Ok(()), json_file::Writer::rotate)
    }

    pub(crate) fn reopen(&mut self) -> Result<()> {
        self.file().map_or(Ok(()), json_file::Writer::reopen)
    }

    /// A rotated file to be compressed, by another process than the one that must go on writing.
    pub(crate) fn compress(&mut self) -> Option<Compress> {
        self.file()?.compress()
    }

    /// That process has ended.
    pub(crate) fn compressed(&mut self) {
        if let Some(writer) = self.file() {
            writer.compressed();
        }
    }

    /// Gives memory back that only a busy log needs.
    pub(crate) fn rest(&mut self) {
        if let Some(writer) = self.file() {
            writer.rest();
        }
    }

    fn file(&mut self) -> Option<&mut json_file::Writer> {
        match self {
            Self::File(writer) => Some(writer),
            Self::Sent(sent) => sent.cache.as_mut(),
            Self::None => None,
        }
    }
}
