//! How a command ends when it does not end well: an exit status, and mostly a sentence.

use stdx::Error;

pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

#[derive(Debug)]
pub struct Failure {
    pub status: u8,
    /// Printed on standard error at the end; `None` when all is said.
    pub message: Option<String>,
    /// The kind of the error this came from, for those who go on after some.
    pub kind: Option<stdx::Kind>,
}

impl Failure {
    pub fn new(status: u8, message: impl Into<String>) -> Self {
        Self { status, message: Some(message.into()), kind: None }
    }

    /// Exit status 1 and a sentence.
    pub fn words(message: impl Into<String>) -> Self {
        Self::new(1, message)
    }

    /// An exit status alone.
    pub fn quiet(status: u8) -> Self {
        Self { status, message: None, kind: None }
    }

    pub fn with_status(mut self, status: u8) -> Self {
        self.status = status;
        self
    }

    pub fn text(&self) -> &str {
        self.message.as_deref().unwrap_or_default()
    }

    pub fn is_not_found(&self) -> bool {
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
pub fn joined(failures: Vec<Failure>) -> Result {
    if failures.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = failures.into_iter().filter_map(|failure| failure.message).collect();
    Err(Failure::words(lines.join("\n")))
}
