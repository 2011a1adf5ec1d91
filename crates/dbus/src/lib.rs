//! A client of the host's message bus (D-Bus), as small as our questions: methods that are called, signals that are heard.
//! Everything has a deadline.

mod wire;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stdx::{Context, Error, Result};

pub use wire::{Absent, Kind, Message, Question, START, Value, length, parse};

/// Where every host's is.
pub const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// The bus itself.
pub const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";

/// Who we are to a bus: our user's number outside of our user namespace.
pub fn own_uid() -> u32 {
    let uid = rustix::process::geteuid().as_raw();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    outside(uid, &map).unwrap_or(uid)
}

fn outside(uid: u32, map: &str) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse);
        let (inside, outside, count): (u32, u32, u32) =
            (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        let at = uid.checked_sub(inside).filter(|at| *at < count)?;
        outside.checked_add(at)
    })
}

/// Signals that nobody has asked for yet.
const KEPT: usize = 256;
/// What the bus says before there are messages.
const LONGEST_LINE: usize = 4096;

/// The socket in an address as in `DBUS_SYSTEM_BUS_ADDRESS`; `None` where it names none in the file system.
pub fn socket_in(address: &str) -> Option<PathBuf> {
    address.split(';').find_map(|one| {
        let keys = one.trim().strip_prefix("unix:")?;
        let path = keys.split(',').find_map(|pair| pair.strip_prefix("path="))?;
        unescaped(path).filter(|path| !path.as_os_str().is_empty())
    })
}

fn unescaped(text: &str) -> Option<PathBuf> {
    let mut bytes = text.bytes();
    let mut path = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        path.push(match byte {
            b'%' => (digit(bytes.next())? << 4 | digit(bytes.next())?) as u8,
            byte => byte,
        });
    }
    Some(std::ffi::OsString::from_vec(path).into())
}

/// A connection with the bus.
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    read: Vec<u8>,
    heard: VecDeque<Message>,
    /// How long an answer may take.
    patience: Duration,
}

/// What somebody answered who was asked properly.
#[derive(Debug)]
pub enum Answer {
    Texts(Vec<String>),
    Refused { name: String, reason: String },
}

impl Answer {
    /// An answer that is none of the expected is a failure.
    pub fn ok(self, what: &str) -> Result<Vec<String>> {
        match self {
            Self::Texts(texts) => Ok(texts),
            Self::Refused { name, reason } if reason.is_empty() => {
                Err(Error::unavailable(format!("{what}: {name}")))
            }
            Self::Refused { reason, .. } => Err(Error::unavailable(format!("{what}: {reason}"))),
        }
    }
}

impl Bus {
    /// `None` where there is no bus.
    pub fn connect(socket: &Path, patience: Duration) -> Result<Option<Self>> {
        let failed = || "cannot speak with the message bus".to_owned();
        let stream = match UnixStream::connect(socket) {
            Ok(stream) => stream,
            Err(err)
                if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            Err(err) => return Err(err).context(failed),
        };
        stream.set_write_timeout(Some(patience)).context(failed)?;
        let mut bus =
            Self { stream, serial: 0, read: Vec::new(), heard: VecDeque::new(), patience };
        bus.authenticate().context(failed)?;
        bus.ask_bus("Hello", &[])?.ok("the message bus does not welcome us")?;
        Ok(Some(bus))
    }

    /// The kernel tells the bus who we are, and so do we.
    fn authenticate(&mut self) -> Result<()> {
        let uid = own_uid().to_string();
        let hex: String = uid.bytes().map(|digit| format!("{digit:02x}")).collect();
        self.send(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let deadline = Instant::now() + self.patience;
        let end = loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                break end;
            }
            if self.read.len() > LONGEST_LINE {
                return Err(Error::unavailable("the message bus says what cannot be understood"));
            }
            self.receive(deadline)?;
        };
        let line: Vec<u8> = self.read.drain(..end + 2).collect();
        if !line.starts_with(b"OK ") {
            return Err(Error::unavailable("the message bus does not let us in"));
        }
        self.send(b"BEGIN\r\n")
    }

    /// Asks the bus itself.
    pub fn ask_bus(&mut self, member: &str, arguments: &[Value<'_>]) -> Result<Answer> {
        let absent = Absent::Fails;
        let question =
            Question { destination: BUS, path: BUS_PATH, interface: BUS, member, absent };
        self.ask(&question, arguments)
    }

    /// Asks, and waits for the answer; signals that come meanwhile are kept.
    pub fn ask(&mut self, question: &Question<'_>, arguments: &[Value<'_>]) -> Result<Answer> {
        self.serial = self.serial.checked_add(1).unwrap_or(1);
        let serial = self.serial;
        let failed = || format!("{} has not answered {}", question.destination, question.member);
        self.send(&wire::call(serial, question, arguments)).context(failed)?;
        let deadline = Instant::now() + self.patience;
        loop {
            let Some(message) = self.next()? else {
                self.receive(deadline).context(failed)?;
                continue;
            };
            match message.kind {
                Kind::Answer if message.reply_to == serial => {
                    return Ok(Answer::Texts(message.texts));
                }
                Kind::Refusal if message.reply_to == serial => {
                    let reason = message.texts.into_iter().next().unwrap_or_default();
                    return Ok(Answer::Refused { name: message.error, reason });
                }
                Kind::Signal => self.keep(message),
                Kind::Call | Kind::Answer | Kind::Refusal => {}
            }
        }
    }

    /// Waits for a signal that is `wanted`; what else is heard meanwhile is kept.
    pub fn wait_for(&mut self, mut wanted: impl FnMut(&Message) -> bool) -> Result<Message> {
        if let Some(at) = self.heard.iter().position(&mut wanted) {
            return Ok(self.heard.remove(at).expect("it has just been found there"));
        }
        let deadline = Instant::now() + self.patience;
        loop {
            match self.next()? {
                None => self.receive(deadline)?,
                Some(message) if message.kind == Kind::Signal && wanted(&message) => {
                    return Ok(message);
                }
                Some(message) if message.kind == Kind::Signal => self.keep(message),
                Some(_) => {}
            }
        }
    }

    /// What has been heard since, without waiting for more. That the bus is gone is an error.
    pub fn heard(&mut self) -> Result<Vec<Message>> {
        let mut buffer = [0; 4096];
        loop {
            while let Some(message) = self.next()? {
                self.keep(message);
            }
            let flags = rustix::net::RecvFlags::DONTWAIT;
            match rustix::net::recv(&self.stream, &mut buffer[..], flags) {
                Ok((0, _)) => return Err(gone()),
                Ok((length, _)) => self.read.extend(&buffer[..length.min(buffer.len())]),
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => continue,
                Err(err) => return Err(err).context(|| "the message bus is gone".to_owned()),
            }
        }
        Ok(self.heard.drain(..).collect())
    }

    fn keep(&mut self, message: Message) {
        if self.heard.len() < KEPT {
            self.heard.push_back(message);
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context(|| "the message bus is gone".to_owned())
    }

    /// The next message that is here wholly.
    fn next(&mut self) -> Result<Option<Message>> {
        let Some(start) = self.read.first_chunk() else { return Ok(None) };
        let length = wire::length(start)?;
        if self.read.len() < length {
            return Ok(None);
        }
        let message: Vec<u8> = self.read.drain(..length).collect();
        wire::parse(&message).map(Some)
    }

    fn receive(&mut self, deadline: Instant) -> Result<()> {
        let late = || Error::unavailable(format!("no answer for {} s", self.patience.as_secs()));
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        let lost = || "the message bus is gone".to_owned();
        self.stream.set_read_timeout(Some(left)).context(lost)?;
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(gone()),
            Ok(length) => {
                self.read.extend(&buffer[..length]);
                Ok(())
            }
            Err(err) if err.kind() == ErrorKind::WouldBlock => Err(late()),
            Err(err) if err.kind() == ErrorKind::Interrupted => Ok(()),
            Err(err) => Err(err).context(lost),
        }
    }
}

impl AsFd for Bus {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn gone() -> Error {
    Error::unavailable("the message bus is gone")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn addresses() {
        let path = |address| socket_in(address).map(|path| path.display().to_string());
        assert_eq!(path("unix:path=/run/bus"), Some("/run/bus".to_owned()));
        assert_eq!(path("unix:guid=1,path=/a%20b;tcp:host=x"), Some("/a b".to_owned()));
        assert_eq!(path("tcp:host=x;unix:path=/b"), Some("/b".to_owned()));
        for none in ["", "unix:abstract=/tmp/x", "unix:path=", "unix:path=%zz", "unix:path=%"] {
            assert_eq!(path(none), None, "{none}");
        }
    }

    #[test]
    fn users_outside() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        for (map, uid, expected) in [
            (map, 0, Some(1000)),
            (map, 1, Some(100_000)),
            (map, 65_537, None),
            ("0 0 4294967295\n", 7, Some(7)),
            ("", 7, None),
        ] {
            assert_eq!(outside(uid, map), expected, "{uid}");
        }
    }

    #[test]
    fn no_bus_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        let connected = Bus::connect(&dir.path().join("none"), Duration::from_secs(9)).unwrap();
        assert!(connected.is_none());
    }

    #[test]
    fn who_is_not_let_in_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bus");
        let listener = UnixListener::bind(&path).unwrap();
        let bus = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            (&stream).write_all(b"REJECTED EXTERNAL\r\n").unwrap();
            line
        });
        let refused = Bus::connect(&path, Duration::from_secs(9)).err().unwrap();
        assert!(refused.chain().ends_with("the message bus does not let us in"), "{refused}");
        assert!(bus.join().unwrap().starts_with("\0AUTH EXTERNAL 3"));
    }

    #[test]
    fn silence_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bus");
        let _silent = UnixListener::bind(&path).unwrap();
        let err = Bus::connect(&path, Duration::from_millis(20)).err().unwrap();
        assert!(err.chain().contains("no answer"), "{}", err.chain());
    }
}
