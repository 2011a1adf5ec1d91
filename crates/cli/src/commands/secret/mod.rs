//! Secrets and configs: two nouns with the same verbs.

pub(crate) mod create;
pub(crate) mod inspect;
pub(crate) mod ls;
pub(crate) mod rm;
pub(crate) mod update;

use std::io::Read;

use client::path_escape;

pub(crate) use create::labels as labels_of;

use crate::failure::{Failure, Result};

/// What differs between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noun {
    Secret,
    Config,
}

impl Noun {
    fn word(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }

    fn path(self, rest: &str) -> String {
        format!("/{}s{rest}", self.word())
    }

    fn path_of(self, name: &str) -> String {
        self.path(&format!("/{}", path_escape(name)))
    }

    /// What is in a file, or comes from standard input. Docker says it in two ways.
    fn content(self, file: &str) -> Result<Vec<u8>> {
        let (name, mut data) = match file {
            "-" => ("STDIN", Vec::new()),
            file => (file, Vec::new()),
        };
        let read = match file {
            "-" => std::io::stdin().lock().read_to_end(&mut data),
            file => std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut data)),
        };
        let words = match read {
            Ok(0) => format!("error reading from {name}: data is empty"),
            Ok(_) => return Ok(data),
            Err(error) => {
                let cause = stdx::Error::from(error).chain().to_lowercase();
                format!("error reading from {name}: open {name}: {cause}")
            }
        };
        Err(Failure::words(match self {
            Self::Secret => words,
            Self::Config => format!("Error reading content from {file:?}: {words}"),
        }))
    }
}
