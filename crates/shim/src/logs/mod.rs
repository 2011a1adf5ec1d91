//! What a container says, kept: written by its shim, read by anybody from the files.
//!
//! One file per driver. A writer never blocks the container and never fails it: what the disk does not take is dropped and
//! counted. A reader needs no shim: it works on the files alone, across rotation, while they are written.

mod config;
pub mod json_file;
mod lines;
mod rotation;
mod stamp;

pub use config::{Config, Driver};
pub(crate) use lines::Lines;
pub use rotation::Compress;
pub(crate) use stamp::Clock;
use stamp::Stamp;
use stdx::time::Timestamp;
use stdx::{Error, Result};

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
        match config.driver {
            Driver::JsonFile => Self::open(&config.path, options),
            Driver::None => {
                Err(Error::not_implemented("configured logging driver does not support reading"))
            }
        }
    }
}

/// Where the shim puts what it reads from the container.
#[derive(Debug)]
pub(crate) enum Log {
    JsonFile(Box<json_file::Writer>),
    None,
}

impl Log {
    pub(crate) fn open(config: &Config) -> Result<Self> {
        Ok(match config.driver {
            Driver::JsonFile => Self::JsonFile(Box::new(json_file::Writer::open(config)?)),
            Driver::None => Self::None,
        })
    }

    /// Takes one line without its newline; `ended` says whether it had one.
    pub(crate) fn write(&mut self, at: Stamp, stream: Stream, line: &[u8], ended: bool) {
        match self {
            Self::JsonFile(writer) => writer.write(at, stream, line, ended),
            Self::None => {}
        }
    }

    /// Gives what was collected to the kernel.
    pub(crate) fn flush(&mut self) {
        match self {
            Self::JsonFile(writer) => writer.flush(),
            Self::None => {}
        }
    }

    pub(crate) fn is_kept(&self) -> bool {
        !matches!(self, Self::None)
    }

    pub(crate) fn dropped(&self) -> u64 {
        match self {
            Self::JsonFile(writer) => writer.dropped(),
            Self::None => 0,
        }
    }

    pub(crate) fn rotate(&mut self) -> Result<()> {
        match self {
            Self::JsonFile(writer) => writer.rotate(),
            Self::None => Ok(()),
        }
    }

    pub(crate) fn reopen(&mut self) -> Result<()> {
        match self {
            Self::JsonFile(writer) => writer.reopen(),
            Self::None => Ok(()),
        }
    }

    /// A rotated file to be compressed, by another process than the one that must go on writing.
    pub(crate) fn compress(&mut self) -> Option<Compress> {
        match self {
            Self::JsonFile(writer) => writer.compress(),
            Self::None => None,
        }
    }

    /// That process has ended.
    pub(crate) fn compressed(&mut self) {
        match self {
            Self::JsonFile(writer) => writer.compressed(),
            Self::None => {}
        }
    }

    /// Gives memory back that only a busy log needs.
    pub(crate) fn rest(&mut self) {
        match self {
            Self::JsonFile(writer) => writer.rest(),
            Self::None => {}
        }
    }
}
