//! How a command ends when it does not end well: an exit status, and mostly a sentence.

use stdx::Error;

pub(crate) type Result<T = (), E = Failure> = std::result::Result<T, E>;

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    /// Printed on standard error at the end; `None` when all is said.
    pub(crate) message: Option<String>,
    /// The kind of the error this came from, for those who go on after some.
    pub(crate) kind: Option<stdx::Kind>,
}

impl Failure {
    pub(crate) fn new(status: u8, message: impl Into<String>) -> Self {
        Self { status, message: Some(message.into()), kind: None }
    }

    /// Exit status 1 and a sentence.
    pub(crate) fn words(message: impl Into<String>) -> Self {
        Self::new(1, message)
    }

    /// An exit status alone.
    pub(crate) fn quiet(status: u8) -> Self {
        Self { status, message: None, kind: None }
    }

    /// Whoever read what we print has left: what a shell reports for a program that died of SIGPIPE, as Docker's does.
    pub(crate) fn unheard() -> Self {
        Self::quiet(141)
    }

    pub(crate) fn text(&self) -> &str {
        self.message.as_deref().unwrap_or_default()
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.kind == Some(stdx::Kind::NotFound)
    }
}

impl From<Error> for Failure {
    fn from(err: Error) -> Self {
        Self { status: 1, message: Some(err.chain()), kind: Some(err.kind()) }
    }
}

impl From<std::io::Error> for Failure {
    fn from(err: std::io::Error) -> Self {
        Error::from(err).into()
    }
}

/// Several things were asked for, some failed: their sentences, each on its line.
pub(crate) fn joined(failures: Vec<Failure>) -> Result {
    if failures.iter().all(|failure| failure.status == 0) {
        return Ok(());
    }
    let lines: Vec<String> = failures.into_iter().filter_map(|failure| failure.message).collect();
    Err(Failure::words(lines.join("\n")))
}
