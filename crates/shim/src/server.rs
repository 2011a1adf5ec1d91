//! The shim's life: a launch, then one loop over everything that can happen, until nobody needs it.
//!
//! One thread, one `poll`. Nothing in the loop may wait for anybody: sockets are written as far as they take it, and what
//! takes long is done after everybody has been told.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use serde_json::Value;
use stdx::{Context, Error, Kind, Result};
use sys::signal;

use crate::container::{Container, Source, Terminal};
use crate::descriptors::{self, SOCKET};
use crate::exec::{Asker, Wanted};
use crate::protocol::{
    Call, Decoder, Event, Failure, Hello, LaunchCall, LaunchReply, Reply, Request, VERSION, frame,
};
use crate::task::BUNDLE_SPEC;

const SIGCHLD: i32 = 17;

/// After so long without work, memory that only work needs is given back.
const REST: Duration = Duration::from_secs(1);
/// A container that ended before its daemon came to watch waits so long for it.
const LINGER: Duration = Duration::from_secs(10);
/// Connections at a time; the daemon needs a handful.
const MOST_CONNECTIONS: usize = 256;
/// A watcher that does not read is let go with this much unread; when it comes back it gets the state.
const MOST_UNREAD: usize = 1 << 20;

/// Lives the life of one shim. `socket` is where the launch request comes from.
pub(crate) fn run(socket: UnixStream) -> Result<()> {
    let hello = Hello { version: VERSION, shim_pid: std::process::id() };
    descriptors::send(&socket, &frame(&hello)?, &[])
        .context(|| "cannot greet the daemon".to_owned())?;
    let (call, passed) = receive_launch(&socket)?;
    let dir = call.dir.clone();
    std::panic::set_hook(Box::new({
        let dir = dir.clone();
        move |panic| note(&dir, &panic.to_string())
    }));
    let outcome = listen(&dir).map_err(Failure::from).and_then(|listener| {
        let container = Container::launch(call, passed)?;
        Ok((listener, container))
    });
    match outcome {
        Ok((listener, container)) => {
            let reply = LaunchReply { pid: container.pid(), started_at: container.started_at() };
            let mut server = Server::new(listener, container)?;
            // A daemon that has died meanwhile learns of the container from its successor.
            if descriptors::send(&socket, &frame(&Reply::Done(reply))?, &[]).is_ok() {
                server.welcome_launcher(socket)?;
            }
            server.run()
        }
        Err(failure) => {
            forget_files(&dir);
            descriptors::send(&socket, &frame(&Reply::<()>::Failed(failure))?, &[])
                .context(|| "cannot tell the daemon why the launch failed".to_owned())
        }
    }
}

fn receive_launch(socket: &UnixStream) -> Result<(LaunchCall, Vec<OwnedFd>)> {
    let (mut decoder, mut passed) = (Decoder::new(), Vec::new());
    // Every page of it is one more that this process does not share with the launcher.
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let received = sys::socket::recv_with_fds(socket, &mut bytes)
            .context(|| "cannot read the launch request".to_owned())?;
        if received.bytes == 0 {
            return Err(Error::unavailable("the daemon went away before it said what to launch"));
        }
        passed.extend(received.fds);
        decoder.feed(&bytes[..received.bytes]);
        if let Some(call) = decoder.next()? {
            return Ok((call, passed));
        }
    }
}

fn listen(dir: &Path) -> Result<UnixListener> {
    let what = || format!("cannot listen in {}", dir.display());
    let by_descriptor = descriptors::open_dir(dir)?;
    let path = descriptors::socket_path(by_descriptor.as_fd());
    match fs::remove_file(&path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err).context(what),
        _ => {}
    }
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(&path);
    rustix::process::umask(before);
    let listener = listener.context(what)?;
    listener.set_nonblocking(true).context(what)?;
    Ok(listener)
}

struct Server {
    /// `None` once the directory is gone.
    listener: Option<UnixListener>,
    signals: signal::Fd,
    container: Container,
    connections: Vec<Connection>,
    accepted: Asker,
    /// When something last happened.
    active: Instant,
    /// Since when nobody needs the shim.
    idle_since: Option<Instant>,
}

/// What `poll` has found ready.
#[derive(Clone, Copy)]
enum Ready {
    Listener,
    Signals,
    Connection(usize),
    Container(Source),
}

impl Server {
    fn new(listener: UnixListener, container: Container) -> Result<Self> {
        // Blocked since the launcher; whatever ended before this line is found by the first look.
        let signals = signal::Fd::new(&signal::Set::of(&[SIGCHLD]))
            .context(|| "cannot wait for children".to_owned())?;
        Ok(Self {
            listener: Some(listener),
            signals,
            container,
            connections: Vec::new(),
            accepted: 0,
            active: Instant::now(),
            idle_since: None,
        })
    }

    /// Whoever has launched the container watches it from the first moment.
    fn welcome_launcher(&mut self, socket: UnixStream) -> Result<()> {
        socket.set_nonblocking(true).context(|| "cannot talk to the daemon".to_owned())?;
        self.connections.push(Connection { watching: true, ..Connection::new(0, socket) });
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        self.container.reap();
        sys::memory::trim();
        loop {
            self.settle();
            if self.may_leave() {
                self.leave();
                return Ok(());
            }
            for (ready, flags) in self.wait()? {
                match ready {
                    Ready::Listener => self.accept(),
                    Ready::Signals => self.children_ended()?,
                    Ready::Connection(index) => self.connection_ready(index, flags),
                    Ready::Container(source) => self.container.ready(source, flags),
                }
            }
        }
    }

    /// After every round: what is due, who must be told, who is gone.
    fn settle(&mut self) {
        let now = Instant::now();
        // Who has ended is told before the streams end.
        self.tell_news();
        self.container.tick(now);
        for (asker, outcome) in self.container.take_answers() {
            let asking = |connection: &Connection| connection.number == asker;
            if let Some(index) = self.connections.iter().position(asking) {
                self.connections[index].waiting = false;
                self.connections[index].reply(outcome);
                self.understand(index);
            }
        }
        self.tell_news();
        self.container.after_telling();
        self.connections.retain(|connection| !connection.is_over());
        if self.listener.is_none() && self.connections.iter().all(Connection::is_sent) {
            // Deleted, and who asked has the answer. That all is gone is told by the connection's end.
            self.container.let_go();
            self.connections.clear();
        }
    }

    fn tell_news(&mut self) {
        for event in self.container.take_news() {
            self.tell(&event);
        }
    }

    fn wait(&mut self) -> Result<Vec<(Ready, PollFlags)>> {
        let rest = self.container.is_busy().then(|| self.active + REST);
        let deadlines =
            [self.container.next_deadline(), rest, self.idle_since.map(|since| since + LINGER)];
        let ready = self.watchlist().poll(deadlines.into_iter().flatten().min())?;
        let now = Instant::now();
        if !ready.is_empty() {
            self.active = now;
        } else if rest.is_some_and(|at| at <= now) {
            self.container.rest();
            sys::memory::trim();
        }
        Ok(ready)
    }

    fn watchlist(&self) -> Watchlist<'_> {
        let mut list = Watchlist::default();
        if let Some(listener) = &self.listener {
            list.add(Ready::Listener, listener.as_fd(), PollFlags::IN);
        }
        list.add(Ready::Signals, self.signals.as_fd(), PollFlags::IN);
        for (index, connection) in self.connections.iter().enumerate() {
            list.add(Ready::Connection(index), connection.stream.as_fd(), connection.interest());
        }
        self.container.watch(|source, fd, flags| list.add(Ready::Container(source), fd, flags));
        list
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok((stream, _)) = listener.accept() {
            if self.connections.len() < MOST_CONNECTIONS && stream.set_nonblocking(true).is_ok() {
                self.accepted += 1;
                self.connections.push(Connection::new(self.accepted, stream));
            }
        }
    }

    fn children_ended(&mut self) -> Result<()> {
        while self.signals.read().context(|| "cannot read signals".to_owned())?.is_some() {}
        self.container.reap();
        Ok(())
    }

    fn connection_ready(&mut self, index: usize, flags: PollFlags) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        if flags.contains(PollFlags::OUT) {
            connection.flush();
        }
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        connection.read();
        self.understand(index);
    }

    /// Answers every whole request that has arrived.
    fn understand(&mut self, index: usize) {
        loop {
            let connection = &mut self.connections[index];
            if connection.waiting {
                return;
            }
            match connection.decoder.next::<Call>() {
                Ok(None) => return,
                Ok(Some(call)) => self.answer(index, call.request),
                Err(error) if error.kind() == Kind::NotImplemented => {
                    let words = "the container's shim is older than the daemon and does not know this request";
                    connection.reply(Err(Error::not_implemented(words).caused_by(error).into()));
                }
                Err(_) => {
                    connection.broken = true;
                    return;
                }
            }
        }
    }

    fn answer(&mut self, index: usize, request: Request) {
        let passed = std::mem::take(&mut self.connections[index].passed);
        match request {
            Request::Watch => {
                let state = Event::State(Box::new(self.container.state()));
                let connection = &mut self.connections[index];
                connection.reply(Ok(Value::Null));
                connection.watching = true;
                connection.send(&state);
            }
            Request::Delete => {
                let outcome = self.delete();
                self.connections[index].reply(outcome.map(|()| Value::Null).map_err(Failure::from));
            }
            Request::Exec { id, process, tty, size, attach, limit } => {
                let client = attach.zip(passed.into_iter().next().map(UnixStream::from));
                let asker = self.connections[index].number;
                let terminal = Terminal::of(tty, size);
                let wanted = Wanted { id, terminal, client, limit };
                match self.container.exec(asker, &process, wanted) {
                    Ok(()) => self.connections[index].waiting = true,
                    Err(failure) => self.connections[index].reply(Err(failure)),
                }
            }
            request => {
                let outcome = self.container.answer(request, passed);
                self.connections[index].reply(outcome);
            }
        }
    }

    /// Nobody will ask for the record any more.
    fn delete(&mut self) -> Result<()> {
        if self.container.exit().is_none() {
            return Err(Error::conflict("the container has not ended"));
        }
        self.listener = None;
        let dir = self.container.dir();
        match fs::remove_dir_all(dir) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                Err(err).context(|| format!("cannot remove {}", dir.display()))
            }
            _ => Ok(()),
        }
    }

    fn tell(&mut self, event: &Event) {
        for connection in self.connections.iter_mut().filter(|connection| connection.watching) {
            connection.send(event);
        }
    }

    /// The record is on disk, attached clients have what was theirs, and no daemon is connected: the record is the truth.
    fn may_leave(&mut self) -> bool {
        if self.container.exit().is_none() || self.container.has_clients() {
            self.idle_since = None;
            return false;
        }
        if self.listener.is_none() {
            // Deleted: stay only until the answer is out.
            return self.connections.is_empty();
        }
        if !self.connections.is_empty() {
            self.idle_since = None;
            return false;
        }
        self.idle_since.get_or_insert_with(Instant::now).elapsed() >= LINGER
    }

    fn leave(&mut self) {
        if self.listener.take().is_some() {
            forget_files(self.container.dir());
        }
    }
}

/// All descriptors of one round, and what each is.
#[derive(Default)]
struct Watchlist<'a> {
    names: Vec<Ready>,
    fds: Vec<PollFd<'a>>,
}

impl<'a> Watchlist<'a> {
    fn add(&mut self, name: Ready, fd: BorrowedFd<'a>, flags: PollFlags) {
        self.names.push(name);
        self.fds.push(PollFd::from_borrowed_fd(fd, flags));
    }

    /// What is ready; nothing when the time has come, or a signal.
    fn poll(mut self, until: Option<Instant>) -> Result<Vec<(Ready, PollFlags)>> {
        let timeout = until.map(|at| {
            // Rounded up, so that what was waited for is due.
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match poll(&mut self.fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno).context(|| "cannot poll".to_owned()),
        }
        let flags = self.fds.iter().map(PollFd::revents);
        Ok(self.names.into_iter().zip(flags).filter(|(_, flags)| !flags.is_empty()).collect())
    }
}

/// A daemon, or a part of one.
struct Connection {
    number: Asker,
    stream: UnixStream,
    decoder: Decoder,
    passed: Vec<OwnedFd>,
    unsent: Vec<u8>,
    watching: bool,
    /// Its answer takes a while; the next request is not looked at before.
    waiting: bool,
    /// It has hung up, or makes no sense.
    broken: bool,
}

impl Connection {
    fn new(number: Asker, stream: UnixStream) -> Self {
        Self {
            number,
            waiting: false,
            stream,
            decoder: Decoder::new(),
            passed: Vec::new(),
            unsent: Vec::new(),
            watching: false,
            broken: false,
        }
    }

    fn interest(&self) -> PollFlags {
        if self.unsent.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT }
    }

    fn is_over(&self) -> bool {
        self.broken
    }

    fn is_sent(&self) -> bool {
        self.unsent.is_empty() || self.broken
    }

    fn read(&mut self) {
        let mut bytes = [0; 16 * 1024];
        match sys::socket::recv_with_fds(&self.stream, &mut bytes) {
            Ok(received) if received.bytes > 0 => {
                self.passed.extend(received.fds);
                self.decoder.feed(&bytes[..received.bytes]);
            }
            Err(err)
                if matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            }
            Ok(_) | Err(_) => self.broken = true,
        }
    }

    fn reply(&mut self, outcome: Result<Value, Failure>) {
        match frame(&Reply::from(outcome)) {
            Ok(frame) => self.push(&frame),
            Err(_) => self.broken = true,
        }
    }

    fn send(&mut self, event: &Event) {
        match frame(event) {
            Ok(frame) => self.push(&frame),
            Err(_) => self.broken = true,
        }
    }

    fn push(&mut self, frame: &[u8]) {
        self.unsent.extend_from_slice(frame);
        self.flush();
        if self.unsent.len() > MOST_UNREAD {
            self.broken = true;
        }
    }

    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match rustix::net::send(&self.stream, &self.unsent, rustix::net::SendFlags::NOSIGNAL) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
        self.unsent = Vec::new();
    }
}

/// What a shim leaves that lives no more; the exit record stays.
fn forget_files(dir: &Path) {
    for name in [SOCKET, BUNDLE_SPEC] {
        // What cannot be removed does no harm: nobody listens there.
        let _stays = fs::remove_file(dir.join(name));
    }
}

/// A shim has nobody to complain to: its complaints are beside its record.
pub(crate) fn report(dir: &Path, error: &Error) {
    note(dir, &error.chain());
}

fn note(dir: &Path, words: &str) {
    let file = fs::OpenOptions::new().append(true).create(true).open(dir.join("shim.log"));
    // Nowhere left to say it.
    let _unheard =
        file.and_then(|mut file| writeln!(file, "{} {words}", stdx::time::Timestamp::now()));
}
