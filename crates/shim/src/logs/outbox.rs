//! Messages on their way to a log server: queued, sent as far as its socket takes them, and sent again from the beginning
//! when a connection was lost in the middle of one.
//!
//! Nothing here waits, but for the first connection: who asks for a server that is not there is told at the start.

use std::collections::VecDeque;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with, sockopt,
};
use stdx::{Context, Error, Result};

use super::lines::LONGEST;
use super::{Config, remote};

/// After a connection is lost, how long until the next attempt.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the first connection may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// When the container has ended: how long a server may take nothing of what is left, and how long all of it may take.
const FAREWELL: Duration = Duration::from_secs(5);
const LONGEST_FAREWELL: Duration = Duration::from_secs(60);

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Unix {
        path: PathBuf,
        kind: Kind,
    },
    Net {
        address: SocketAddr,
        kind: Kind,
    },
    /// A driver in a process of its own.
    Process(Box<Config>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Datagram,
    Stream,
}

impl Kind {
    fn socket_type(self) -> SocketType {
        match self {
            Self::Datagram => SocketType::DGRAM,
            Self::Stream => SocketType::STREAM,
        }
    }
}

impl Target {
    pub(super) fn unix(path: &Path, kind: Kind) -> Self {
        Self::Unix { path: path.to_owned(), kind }
    }

    /// `host:port`, looked up now; later connections go to the same address.
    pub(super) fn net(host: &str, kind: Kind) -> Result<Self> {
        let protocol = if kind == Kind::Stream { "tcp" } else { "udp" };
        let words = || format!("dial {protocol}: lookup {host}");
        let address = host.to_socket_addrs().context(words)?.next();
        let address =
            address.ok_or_else(|| Error::not_found(format!("{}: no such host", words())))?;
        Ok(Self::Net { address, kind })
    }

    /// Whether there is something to hear from it: that it goes, at least.
    fn speaks(&self) -> bool {
        self.kind() == Kind::Stream || matches!(self, Self::Process(_))
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Unix { kind, .. } | Self::Net { kind, .. } => *kind,
            Self::Process(_) => Kind::Datagram,
        }
    }

    /// Begins a connection; one to a far server may not be there yet.
    fn connect(&self) -> rustix::io::Result<(OwnedFd, Link)> {
        if let Self::Process(config) = self {
            let begun = remote::begin(config);
            let failed = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
            return Ok((begun.map_err(failed)?, Link::Up));
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let kind = self.kind().socket_type();
        let (socket, connected) = match self {
            Self::Unix { path, .. } => {
                let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
                let connected = connect(&socket, &SocketAddrUnix::new(path)?);
                (socket, connected)
            }
            Self::Net { address, .. } => {
                let family = match address {
                    SocketAddr::V4(_) => AddressFamily::INET,
                    SocketAddr::V6(_) => AddressFamily::INET6,
                };
                let socket = socket_with(family, kind, flags, None)?;
                let connected = connect(&socket, address);
                (socket, connected)
            }
            Self::Process(_) => return Err(Errno::INVAL),
        };
        match connected {
            Ok(()) => Ok((socket, Link::Up)),
            Err(Errno::INPROGRESS) => Ok((socket, Link::Coming)),
            Err(errno) => Err(errno),
        }
    }
}

impl std::fmt::Display for Target {
    /// As Go's `net` names it in its failures.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self, self.kind()) {
            (Self::Unix { path, .. }, Kind::Datagram) => {
                write!(f, "dial unixgram {}", path.display())
            }
            (Self::Unix { path, .. }, Kind::Stream) => write!(f, "dial unix {}", path.display()),
            (Self::Net { address, .. }, Kind::Datagram) => write!(f, "dial udp {address}"),
            (Self::Net { address, .. }, Kind::Stream) => write!(f, "dial tcp {address}"),
            (Self::Process(_), _) => f.write_str("cannot begin the logging driver"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Coming,
    Up,
}

/// What is to be done when there is no room for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The container waits, as long as there is a server that takes something.
    Waits,
    Drops,
}

/// How much may wait for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) bytes: usize,
    pub(super) messages: usize,
}

impl Room {
    pub(super) fn of(config: &Config) -> Self {
        let bytes = usize::try_from(config.buffer).unwrap_or(usize::MAX);
        match remote::most_messages(config) {
            // Who says how many means it, however long they are.
            Some(messages) => Self { bytes: bytes.max(messages.saturating_mul(LONGEST)), messages },
            None => Self { bytes, messages: usize::MAX },
        }
    }
}

#[derive(Debug)]
pub(super) struct Outbox {
    target: Target,
    socket: Option<(OwnedFd, Link)>,
    queue: VecDeque<Vec<u8>>,
    /// Bytes of the first message that a stream has taken.
    taken: usize,
    bytes: usize,
    most: Room,
    full: Full,
    /// Without a socket: when to try again.
    again: Instant,
    dropped: u64,
    ends: Option<Farewell>,
}

#[derive(Clone, Copy, Debug)]
struct Farewell {
    /// When the server's patience is over, as far as it has shown any.
    at: Instant,
    last: Instant,
}

impl Outbox {
    /// Connects; fails where nobody is.
    pub(super) fn open(target: Target, most: Room, full: Full) -> Result<Self> {
        let socket = match &target {
            // Its words are whole sentences.
            Target::Process(_) => reach(&target)?,
            _ => reach(&target).context(|| format!("{target}: connect"))?,
        };
        Ok(Self {
            target,
            socket: Some((socket, Link::Up)),
            queue: VecDeque::new(),
            taken: 0,
            bytes: 0,
            most,
            full,
            again: Instant::now(),
            dropped: 0,
            ends: None,
        })
    }

    /// Queues a message. A container that waits has been heard already when it is asked to: what it has said goes in.
    pub(super) fn push(&mut self, message: Vec<u8>) {
        let waits = self.full == Full::Waits && self.socket.is_some();
        let is_full =
            self.bytes + message.len() > self.most.bytes || self.queue.len() >= self.most.messages;
        if is_full && !(waits && self.bytes < self.most.bytes.saturating_mul(2)) {
            self.dropped += 1;
            return;
        }
        self.bytes += message.len();
        self.queue.push_back(message);
    }

    /// No more is to be read from the container until there is room.
    pub(super) fn holds_up(&self) -> bool {
        let is_full = self.bytes >= self.most.bytes || self.queue.len() >= self.most.messages;
        is_full && self.full == Full::Waits && self.socket.is_some()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The container has ended: what is not taken soon is lost.
    pub(super) fn end(&mut self) {
        self.full = Full::Drops;
        let now = Instant::now();
        let farewell = Farewell { at: now + FAREWELL, last: now + LONGEST_FAREWELL };
        self.ends.get_or_insert(farewell);
    }

    /// What to wait for.
    pub(super) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let (socket, link) = self.socket.as_ref()?;
        let mut flags = PollFlags::empty();
        // A server that closes its end says so before the next message would be lost in it.
        flags.set(PollFlags::IN, self.target.speaks() && *link == Link::Up);
        flags.set(PollFlags::OUT, !self.queue.is_empty() || *link == Link::Coming);
        (!flags.is_empty()).then(|| (socket.as_fd(), flags))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let retry = (self.socket.is_none() && !self.queue.is_empty()).then_some(self.again);
        let end = self.ends.filter(|_| !self.queue.is_empty()).map(|ends| ends.at);
        retry.into_iter().chain(end).min()
    }

    /// Something has come from the server, or it is gone.
    pub(super) fn ready(&mut self, flags: PollFlags) {
        if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
            && let Some((socket, _)) = &self.socket
        {
            // Log servers have nothing to say, but for drivers of ours: what others say is read and forgotten.
            let mut bytes = [0; 1024];
            match recv(socket, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((count, _)) if count > 0 => {
                    if matches!(self.target, Target::Process(_)) {
                        self.dropped += remote::lost(&bytes[..count.min(1024)]);
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Ok(_) if !self.target.speaks() => {}
                Ok(_) | Err(_) => self.lose(),
            }
        }
        self.send();
    }

    /// Sends what the socket takes.
    pub(super) fn send(&mut self) {
        if self.ends.is_some_and(|ends| Instant::now() >= ends.at) {
            self.dropped += self.queue.len() as u64;
            self.queue.clear();
            (self.bytes, self.taken) = (0, 0);
        }
        self.send_all();
        // A driver of ours goes on alone once it has everything.
        if self.ends.is_some() && self.queue.is_empty() && matches!(self.target, Target::Process(_))
        {
            self.socket = None;
        }
    }

    fn send_all(&mut self) {
        let mut refused = false;
        while !self.queue.is_empty() && self.link() {
            let (Some((socket, _)), Some(message)) = (&self.socket, self.queue.front()) else {
                return;
            };
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(socket, &message[self.taken..], flags) {
                Ok(count) if self.target.kind() == Kind::Stream => {
                    self.taken += count;
                    if self.taken == message.len() {
                        self.done();
                    }
                }
                Ok(_) => self.done(),
                Err(Errno::AGAIN | Errno::NOBUFS) => return,
                Err(Errno::INTR) => {}
                // Of a message before this one, to a port where nobody listened: UDP goes on.
                Err(Errno::CONNREFUSED)
                    if matches!(self.target, Target::Net { kind: Kind::Datagram, .. })
                        && !refused =>
                {
                    refused = true;
                }
                Err(Errno::MSGSIZE) => self.give_up(),
                Err(_) if matches!(self.target, Target::Net { kind: Kind::Datagram, .. }) => {
                    self.give_up();
                }
                Err(_) => {
                    self.lose();
                    return;
                }
            }
        }
    }

    /// Whether there is a socket that takes messages now.
    fn link(&mut self) -> bool {
        if self.socket.is_none() && Instant::now() >= self.again {
            match self.target.connect() {
                Ok(socket) => self.socket = Some(socket),
                Err(_) => self.again = Instant::now() + PAUSE,
            }
        }
        if let Some((socket, link @ Link::Coming)) = &mut self.socket {
            if !is_ready(socket, PollFlags::OUT, Duration::ZERO) {
                return false;
            }
            match sockopt::socket_error(&*socket) {
                Ok(Ok(())) => *link = Link::Up,
                Ok(Err(_)) | Err(_) => {
                    self.lose();
                    return false;
                }
            }
        }
        self.socket.is_some()
    }

    fn done(&mut self) {
        if let Some(Farewell { at, last }) = &mut self.ends {
            *at = (Instant::now() + FAREWELL).min(*last);
        }
        if let Some(message) = self.queue.pop_front() {
            self.bytes -= message.len();
        }
        self.taken = 0;
    }

    fn give_up(&mut self) {
        self.dropped += 1;
        self.done();
    }

    /// The connection is gone. Half a message is none.
    fn lose(&mut self) {
        self.socket = None;
        self.taken = 0;
        self.again = Instant::now() + PAUSE;
    }
}

/// The first connection, waited for.
fn reach(target: &Target) -> Result<OwnedFd> {
    let (socket, link) = target.connect()?;
    if link == Link::Coming {
        if !is_ready(&socket, PollFlags::OUT, PATIENCE) {
            return Err(Error::unavailable("i/o timeout"));
        }
        sockopt::socket_error(&socket)??;
    }
    if matches!(target, Target::Process(_)) {
        remote::is_ready(&socket)?;
    }
    Ok(socket)
}

fn is_ready(socket: &OwnedFd, flags: PollFlags, patience: Duration) -> bool {
    let mut fds = [PollFd::new(socket, flags)];
    let timeout = Timespec::try_from(patience).ok();
    matches!(poll(&mut fds, timeout.as_ref()), Ok(1))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    const ROOMY: Room = Room { bytes: 1000, messages: usize::MAX };

    fn settle(outbox: &mut Outbox) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !outbox.is_empty() {
            assert!(Instant::now() < deadline, "{outbox:?}");
            outbox.send();
        }
    }

    fn heard(receive: impl FnOnce(&mut [u8]) -> std::io::Result<usize>) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        let count = receive(&mut bytes).unwrap();
        bytes.truncate(count);
        bytes
    }

    #[test]
    fn datagrams_are_messages() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let server = UnixDatagram::bind(&path).unwrap();
        let target = Target::unix(&path, Kind::Datagram);
        let mut outbox = Outbox::open(target, ROOMY, Full::Drops).unwrap();
        outbox.push(b"one".to_vec());
        outbox.push(b"two".to_vec());
        settle(&mut outbox);
        assert_eq!(heard(|bytes| server.recv(bytes)), b"one");
        // Another server at the same place.
        drop(server);
        outbox.push(b"three".to_vec());
        outbox.send();
        std::fs::remove_file(&path).unwrap();
        let server = UnixDatagram::bind(&path).unwrap();
        settle(&mut outbox);
        assert_eq!(heard(|bytes| server.recv(bytes)), b"three");
    }

    #[test]
    fn udp_does_not_care() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let target = Target::net(&address.to_string(), Kind::Datagram).unwrap();
        let mut outbox = Outbox::open(target, ROOMY, Full::Drops).unwrap();
        drop(server);
        for _ in 0..5 {
            outbox.push(b"lost".to_vec());
            settle(&mut outbox);
        }
        let server = UdpSocket::bind(address).unwrap();
        outbox.push(b"heard".to_vec());
        outbox.push(b"heard".to_vec());
        settle(&mut outbox);
        assert_eq!(heard(|bytes| server.recv(bytes)), b"heard");
    }

    #[test]
    fn a_broken_stream_begins_its_message_again() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap().to_string();
        let target = Target::net(&address, Kind::Stream).unwrap();
        let mut outbox = Outbox::open(target, ROOMY, Full::Drops).unwrap();
        let (mut client, _) = server.accept().unwrap();
        outbox.push(b"one\n".to_vec());
        settle(&mut outbox);
        let mut bytes = [0; 4];
        client.read_exact(&mut bytes).unwrap();
        drop(client);
        let (socket, flags) = outbox.interest().unwrap();
        assert!(is_ready(&socket.try_clone_to_owned().unwrap(), flags, PATIENCE));
        outbox.ready(PollFlags::IN);
        outbox.push(b"two\n".to_vec());
        settle(&mut outbox);
        let (mut client, _) = server.accept().unwrap();
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"two\n");
    }

    #[test]
    fn who_is_full_waits_or_drops() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let _server = UnixListener::bind(&path).unwrap();
        let open_with =
            |most, full| Outbox::open(Target::unix(&path, Kind::Stream), most, full).unwrap();
        let open = |full| open_with(Room { bytes: 10, messages: usize::MAX }, full);
        let mut drops = open(Full::Drops);
        drops.push(vec![0; 8]);
        drops.push(vec![0; 8]);
        assert_eq!((drops.dropped(), drops.holds_up()), (1, false));
        let mut waits = open(Full::Waits);
        waits.push(vec![0; 8]);
        assert!(!waits.holds_up());
        waits.push(vec![0; 8]);
        assert_eq!((waits.dropped(), waits.holds_up()), (0, true));
        settle(&mut waits);
        assert!(!waits.holds_up());
        // Counted, too, where somebody wants it; what has been heard already is not lost.
        let few = Room { bytes: 1000, messages: 2 };
        let mut drops = open_with(few, Full::Drops);
        let mut waits = open_with(few, Full::Waits);
        for _ in 0..3 {
            assert!(!drops.holds_up());
            drops.push(vec![0; 8]);
            waits.push(vec![0; 8]);
        }
        assert_eq!((drops.dropped(), waits.dropped(), waits.holds_up()), (1, 0, true));
    }

    #[test]
    fn how_much_may_wait() {
        let options = [("awslogs-group", "g"), ("awslogs-max-buffered-events", "1000")];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let room = Room::of(&Config::from_options("awslogs", &options).unwrap());
        assert_eq!(room, Room { bytes: 1000 * LONGEST, messages: 1000 });
        assert_eq!(Room::of(&Config::default()), Room { bytes: 1 << 20, messages: usize::MAX });
    }

    #[test]
    fn nobody_there_is_said() {
        let nowhere = Target::unix(Path::new("/nonexistent/log"), Kind::Datagram);
        let words = Outbox::open(nowhere, ROOMY, Full::Drops).unwrap_err().chain();
        assert_eq!(words, "dial unixgram /nonexistent/log: connect: no such file or directory");
    }
}
