//! An error is a kind, a sentence, and perhaps a cause.
//!
//! What a client of the engine can observe of a failure is a status code and a sentence; so that is what an error is.
//! The kind decides the status code (`server`), the exit code (`cli`) and the gRPC code (`builder`), each in one table.

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure this is, as far as somebody outside can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The thing named does not exist.
    NotFound,
    /// The request itself is wrong, whatever the state of the engine.
    Invalid,
    /// The request is right, but not now: a name is taken, a thing is held, a container is not running.
    Conflict,
    /// Nobody has logged in, or with the wrong secret.
    Unauthorized,
    /// Logged in, and still not allowed.
    Forbidden,
    /// Understood and not built yet.
    NotImplemented,
    /// May work later: starting up, disk full, a peer that does not answer.
    Unavailable,
    /// The state asked for is the state already (304 to a client).
    NotModified,
    /// Ours, or the kernel's.
    Internal,
}

/// A failure: its kind, its own sentence, and what caused it.
///
/// `Display` prints the own sentence only; [`Error::chain`] joins it with its causes by `": "`, which is also how Docker
/// words nested failures.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    sentence: String,
    errno: Option<i32>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub fn new(kind: Kind, sentence: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, sentence: sentence.into(), errno: None, cause: None }))
    }

    pub fn not_found(sentence: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, sentence)
    }

    pub fn invalid(sentence: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, sentence)
    }

    pub fn conflict(sentence: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, sentence)
    }

    pub fn unauthorized(sentence: impl Into<String>) -> Self {
        Self::new(Kind::Unauthorized, sentence)
    }

    pub fn forbidden(sentence: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, sentence)
    }

    pub fn not_implemented(sentence: impl Into<String>) -> Self {
        Self::new(Kind::NotImplemented, sentence)
    }

    pub fn unavailable(sentence: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, sentence)
    }

    pub fn internal(sentence: impl Into<String>) -> Self {
        Self::new(Kind::Internal, sentence)
    }

    /// The same failure with another kind: for the caller who knows what the cause means to somebody outside.
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// The same failure with the kernel's number, for one that another process told us of in words.
    pub fn with_errno(mut self, errno: i32) -> Self {
        self.0.errno = Some(errno);
        self
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The own sentence and those of all causes, joined by `": "`.
    pub fn chain(&self) -> String {
        let mut text = self.0.sentence.clone();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }

    /// The OS error number in the chain, where there is one.
    pub fn errno(&self) -> Option<i32> {
        if self.0.errno.is_some() {
            return self.0.errno;
        }
        let cause: &(dyn std::error::Error + 'static) = self.0.cause.as_deref()?;
        match cause.downcast_ref::<Error>() {
            Some(ours) => ours.errno(),
            None => cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.sentence)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.chain())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as _)
    }
}

/// A file *we* miss is not a container *they* miss: an I/O error is internal until somebody says otherwise. But for a disk
/// that is full: it may be emptied.
impl From<std::io::Error> for Error {
    fn from(io: std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let errno = io.raw_os_error();
        let kind = match io.kind() {
            StorageFull | QuotaExceeded => Kind::Unavailable,
            _ => Kind::Internal,
        };
        Self(Box::new(Inner { kind, sentence: io_words(&io), errno, cause: None }))
    }
}

/// Adds what *we* were doing to what went wrong.
pub trait Context<T> {
    /// Wraps a failure in a sentence of ours. Keeps the cause's kind.
    fn context(self, sentence: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for Result<T, Error> {
    fn context(self, sentence: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|cause| Error::new(cause.kind(), sentence()).caused_by(cause))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, sentence: impl FnOnce() -> String) -> Result<T> {
        self.map_err(Error::from).context(sentence)
    }
}

/// rustix speaks its own `Errno`; to us it is an I/O error like any other.
impl<T> Context<T> for Result<T, rustix::io::Errno> {
    fn context(self, sentence: impl FnOnce() -> String) -> Result<T> {
        self.map_err(std::io::Error::from).context(sentence)
    }
}

impl<T> Context<T> for Option<T> {
    /// Nothing where something had to be: internal.
    fn context(self, sentence: impl FnOnce() -> String) -> Result<T> {
        self.ok_or_else(|| Error::internal(sentence()))
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        std::io::Error::from(errno).into()
    }
}

/// The kernel's words as C prints them and Go does not capitalise them: no "(os error 2)" behind.
fn io_words(io: &std::io::Error) -> String {
    let words = io.to_string();
    match words.split_once(" (os error ") {
        Some((plain, _)) => {
            let mut plain = plain.to_owned();
            if let Some(first) = plain.get_mut(..1) {
                first.make_ascii_lowercase();
            }
            plain
        }
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_reads_like_dockers() {
        let io = std::io::Error::from_raw_os_error(2);
        let error = Err::<(), _>(io)
            .context(|| "cannot open /x".to_owned())
            .context(|| "cannot start".to_owned());
        let error = error.unwrap_err();
        assert_eq!(error.to_string(), "cannot start");
        assert_eq!(error.chain(), "cannot start: cannot open /x: no such file or directory");
        assert_eq!(error.errno(), Some(2));
    }

    #[test]
    fn a_full_disk_may_be_emptied() {
        let check = |errno, kind| {
            let io = std::io::Error::from_raw_os_error(errno);
            let error = Err::<(), _>(io).context(|| "cannot make /x".to_owned()).unwrap_err();
            assert_eq!(error.kind(), kind, "{error:?}");
        };
        check(2, Kind::Internal);
        check(28, Kind::Unavailable);
        check(122, Kind::Unavailable);
    }

    #[test]
    fn context_keeps_the_kind() {
        let error = Err::<(), _>(Error::not_found("No such image: x"))
            .context(|| "cannot create".to_owned());
        assert_eq!(error.unwrap_err().kind(), Kind::NotFound);
    }
}
