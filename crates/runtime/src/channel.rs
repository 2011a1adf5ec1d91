//! What the two sides of a start tell each other, over one socket pair whose ends close themselves at `execve`.
//!
//! The child speaks in messages; the parent answers with single bytes that mean "go on". After [`Message::Ready`] the
//! child uses `read` and `write` only: the container's seccomp filter is on by then.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use stdx::{Context, Error, Kind, Result};

/// Far more than a sentence needs; a socket message of this size needs no luck to be allocated.
const MAX_MESSAGE: usize = 4096;

/// From child to parent.
#[derive(Debug)]
pub(crate) enum Message {
    /// Namespaces and mounts are there: time for the hooks that run in the runtime's namespaces.
    Hooks,
    /// The master of the container's terminal.
    Terminal(OwnedFd),
    /// The descriptor that hears of trapped system calls.
    Listener(OwnedFd),
    /// Something is not as asked, and goes on without.
    Warning(String),
    /// Everything is in place.
    Ready,
    /// It is over, for this reason.
    Failed(Error),
}

/// The child's end.
#[derive(Debug)]
pub(crate) struct Child(pub OwnedFd);

/// The parent's end.
#[derive(Debug)]
pub(crate) struct Parent(pub OwnedFd);

pub(crate) fn pair() -> Result<(Parent, Child)> {
    let (parent, child) =
        sys::socket::pair().context(|| "cannot create a socket pair".to_owned())?;
    Ok((Parent(parent), Child(child)))
}

impl Child {
    pub(crate) fn tell(&self, message: &Message) -> Result<()> {
        let (bytes, fd) = encode(message);
        let sent = match fd {
            Some(fd) => sys::socket::send_with_fds(&self.0, &bytes, &[fd]).map(drop),
            None => rustix::io::write(&self.0, &bytes).map(drop).map_err(io::Error::from),
        };
        sent.context(|| "cannot reach the parent".to_owned())
    }

    /// Waits until the parent says "go on". That the parent is gone is an error: nobody is left to run for.
    pub(crate) fn wait(&self) -> Result<()> {
        wait_for_go(self.0.as_fd())
    }
}

impl Parent {
    pub(crate) fn go(&self) -> Result<()> {
        match rustix::io::write(&self.0, b"g") {
            // The child is gone; what it said before is what counts.
            Ok(_) | Err(rustix::io::Errno::PIPE) => Ok(()),
            Err(err) => Err(err).context(|| "cannot reach the container's init".to_owned()),
        }
    }

    /// The next message; `None` when the child has closed its end, by `execve` or by its death.
    pub(crate) fn next(&self) -> Result<Option<Message>> {
        let mut bytes = [0; MAX_MESSAGE];
        match sys::socket::recv_with_fds(&self.0, &mut bytes) {
            Ok(received) if received.bytes == 0 => Ok(None),
            Ok(received) => {
                decode(&bytes[..received.bytes], received.fds.into_iter().next()).map(Some)
            }
            // What the child had not read when it died; its own messages all arrived before.
            Err(err) if err.raw_os_error() == Some(rustix::io::Errno::CONNRESET.raw_os_error()) => {
                Ok(None)
            }
            Err(err) => Err(err).context(|| "cannot hear the container's init".to_owned()),
        }
    }
}

/// Reads one byte from a socket or FIFO; its end is an error.
pub(crate) fn wait_for_go(from: BorrowedFd) -> Result<()> {
    let mut byte = [0];
    loop {
        match rustix::io::read(from, &mut byte) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => return Err(Error::unavailable("nobody is left to start the container")),
            Ok(_) => return Ok(()),
            Err(err) => return Err(err).context(|| "cannot wait for the start".to_owned()),
        }
    }
}

pub(crate) fn encode(message: &Message) -> (Vec<u8>, Option<BorrowedFd<'_>>) {
    match message {
        Message::Hooks => (b"h".to_vec(), None),
        Message::Terminal(fd) => (b"t".to_vec(), Some(fd.as_fd())),
        Message::Listener(fd) => (b"l".to_vec(), Some(fd.as_fd())),
        Message::Warning(text) => ([b"w", clip(text).as_bytes()].concat(), None),
        Message::Ready => (b"r".to_vec(), None),
        Message::Failed(error) => {
            let mut bytes = vec![b'f', kind_to_byte(error.kind())];
            bytes.extend(error.errno().unwrap_or(0).to_le_bytes());
            bytes.extend(clip(&error.chain()).as_bytes());
            (bytes, None)
        }
    }
}

pub(crate) fn decode(bytes: &[u8], fd: Option<OwnedFd>) -> Result<Message> {
    match (bytes, fd) {
        ([b'h'], None) => Ok(Message::Hooks),
        ([b't'], Some(fd)) => Ok(Message::Terminal(fd)),
        ([b'l'], Some(fd)) => Ok(Message::Listener(fd)),
        ([b'w', text @ ..], None) => {
            Ok(Message::Warning(String::from_utf8_lossy(text).into_owned()))
        }
        ([b'r'], None) => Ok(Message::Ready),
        ([b'f', kind, a, b, c, d, sentence @ ..], None) => {
            let error = Error::new(kind_from_byte(*kind), String::from_utf8_lossy(sentence));
            Ok(Message::Failed(match i32::from_le_bytes([*a, *b, *c, *d]) {
                0 => error,
                errno => error.with_errno(errno),
            }))
        }
        _ => Err(Error::internal("the container's init said something that has no meaning")),
    }
}

const KINDS: [Kind; 9] = [
    Kind::Internal,
    Kind::NotFound,
    Kind::Invalid,
    Kind::Conflict,
    Kind::Unauthorized,
    Kind::Forbidden,
    Kind::NotImplemented,
    Kind::Unavailable,
    Kind::NotModified,
];

fn kind_to_byte(kind: Kind) -> u8 {
    KINDS.iter().position(|known| *known == kind).map_or(0, |position| position as u8)
}

fn kind_from_byte(byte: u8) -> Kind {
    KINDS.get(usize::from(byte)).copied().unwrap_or(Kind::Internal)
}

/// As much of a sentence as one message carries.
fn clip(text: &str) -> &str {
    let mut end = text.len().min(MAX_MESSAGE - 16);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_arrives_as_it_was_sent() {
        let (parent, child) = pair().unwrap();
        let sent = Error::invalid("exec: \"x\": executable file not found in $PATH").with_errno(2);
        child.tell(&Message::Failed(sent)).unwrap();
        drop(child);
        let Some(Message::Failed(error)) = parent.next().unwrap() else {
            panic!("another message")
        };
        assert_eq!((error.kind(), error.errno()), (Kind::Invalid, Some(2)));
        assert_eq!(error.to_string(), "exec: \"x\": executable file not found in $PATH");
        assert!(parent.next().unwrap().is_none());
    }

    #[test]
    fn nonsense_is_an_error() {
        for bytes in [&b""[..], b"x", b"t", b"f", b"f\0\0\0\0"] {
            assert!(decode(bytes, None).is_err());
        }
    }

    #[test]
    fn a_long_sentence_is_clipped() {
        let (bytes, _) = encode(&Message::Warning("ä".repeat(4000))).clone();
        assert!(bytes.len() <= MAX_MESSAGE);
    }
}
