//! The daemon's half of talking to a container that lives. Blocking, each call with a deadline.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use oci::runtime::Resources;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::de::DeserializeOwned;
use stdx::{Context, Error, Kind, Result};

use crate::descriptors;
use crate::protocol::{
    AttachOptions, Call, Decoder, Event, ExecFailure, ExecReply, ExecRequest, Failure, Reply,
    Request, Size, State, Target, Whom, frame,
};

/// A shim answers at once or something is wrong with it (somebody has stopped it, F3).
const DEADLINE: Duration = Duration::from_secs(5);
/// Freezing waits for every task of the container; an exec waits for its program to be found and executed.
const PATIENT: Duration = Duration::from_secs(30);

/// A living container. Each call is a connection of its own, so calls do not wait for one another.
#[derive(Debug)]
pub struct Client {
    dir: OwnedFd,
    /// The connection that has shown that it lives, for the first call.
    first: Mutex<Option<Answers>>,
}

impl Client {
    /// Finds the shim of the container whose directory this is. `NotFound` when no shim lives there: then the exit record
    /// tells the rest.
    pub fn connect(dir: &Path) -> Result<Self> {
        let client = Self { dir: descriptors::open_dir(dir)?, first: Mutex::default() };
        let first = client.dial(DEADLINE)?;
        Ok(Self { first: Mutex::new(Some(first)), ..client })
    }

    pub fn state(&self) -> Result<State> {
        self.call(Request::State, DEADLINE)
    }

    pub fn kill(&self, signal: i32, whom: Whom) -> Result<()> {
        self.call(Request::Kill { signal, whom }, DEADLINE)
    }

    pub fn pause(&self) -> Result<()> {
        self.call(Request::Pause, PATIENT)
    }

    pub fn resume(&self) -> Result<()> {
        self.call(Request::Resume, PATIENT)
    }

    pub fn update(&self, resources: &Resources) -> Result<()> {
        self.call(Request::Update { resources: Box::new(resources.clone()) }, DEADLINE)
    }

    pub fn stats(&self) -> Result<runtime::cgroup::Stats> {
        self.call(Request::Stats, DEADLINE)
    }

    /// Host pids of all processes in the container.
    pub fn processes(&self) -> Result<Vec<u32>> {
        self.call(Request::Processes, DEADLINE)
    }

    pub fn resize(&self, target: Target, size: Size) -> Result<()> {
        self.call(Request::Resize { target, size }, DEADLINE)
    }

    pub fn close_stdin(&self, target: Target) -> Result<()> {
        self.call(Request::CloseStdin { target }, DEADLINE)
    }

    /// Runs one more process in the container; answers its host pid. Its end arrives as an event.
    pub fn exec(&self, exec: ExecRequest) -> Result<u32, ExecFailure> {
        let ExecRequest { id, process, tty, size, attach, limit } = exec;
        let (options, stream) = attach.unzip();
        let process = Box::new(process);
        let request = Request::Exec { id, process, tty, size, attach: options, limit };
        let passed: Vec<_> = stream.iter().map(AsFd::as_fd).collect();
        let reply = self.ask::<ExecReply>(request, &passed, PATIENT);
        match reply.map(Reply::into_result) {
            Ok(Ok(ExecReply { pid })) => Ok(pid),
            Ok(Err(failure)) => {
                Err(ExecFailure { exit_code: failure.exit_code, error: failure.into() })
            }
            Err(error) => Err(ExecFailure { exit_code: None, error }),
        }
    }

    /// Gives the container one more client. Towards it the stream carries Docker's wire format: raw bytes of a terminal,
    /// else frames with an 8-byte header. What it sends is stdin; the end of its sending half is the end of its stdin.
    pub fn attach(&self, options: AttachOptions, stream: &UnixStream) -> Result<()> {
        self.ask::<()>(Request::Attach { options }, &[stream.as_fd()], DEADLINE)?
            .into_result()
            .map_err(Error::from)
    }

    /// Events from now on. The first is the present state, so nothing that happened before is missed.
    pub fn watch(&self) -> Result<Watch> {
        let mut answers = self.connection(DEADLINE)?;
        answers.send(&frame(&Call::new(Request::Watch))?, &[])?;
        answers.next::<Reply<()>>()?.into_result()?;
        answers.into_watch()
    }

    /// Begins a new log file now.
    pub fn rotate_logs(&self) -> Result<()> {
        self.call(Request::RotateLogs, DEADLINE)
    }

    /// Opens the log file anew after somebody else (logrotate) has moved it.
    pub fn reopen_logs(&self) -> Result<()> {
        self.call(Request::ReopenLogs, DEADLINE)
    }

    /// Of a container that has ended: the shim removes its directory and leaves. The mounts go after the answer.
    pub fn delete(&self) -> Result<Leaving> {
        let mut answers = self.connection(DEADLINE)?;
        answers.send(&frame(&Call::new(Request::Delete))?, &[])?;
        answers.next::<Reply<()>>()?.into_result()?;
        Ok(Leaving(answers.stream))
    }

    fn call<T: DeserializeOwned>(&self, request: Request, deadline: Duration) -> Result<T> {
        self.ask(request, &[], deadline)?.into_result().map_err(Error::from)
    }

    fn ask<T: DeserializeOwned>(
        &self,
        request: Request,
        passed: &[BorrowedFd<'_>],
        deadline: Duration,
    ) -> Result<Reply<T>> {
        let mut answers = self.connection(deadline)?;
        answers.send(&frame(&Call::new(request))?, passed)?;
        answers.next()
    }

    fn connection(&self, deadline: Duration) -> Result<Answers> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        match first {
            Some(answers) => Answers::over(answers.stream, deadline),
            None => self.dial(deadline),
        }
    }

    fn dial(&self, deadline: Duration) -> Result<Answers> {
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .context(|| "cannot make a socket".to_owned())?;
        // Before connecting: with a stopped shim behind a full backlog the connect itself would wait for ever.
        sockopt::set_socket_timeout(&socket, Timeout::Send, Some(deadline))
            .context(|| "cannot set a deadline".to_owned())?;
        let address = SocketAddrUnix::new(descriptors::socket_path(self.dir.as_fd()))
            .context(|| "bad socket path".to_owned())?;
        rustix::net::connect(&socket, &address).map_err(|errno| match errno {
            rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOENT => {
                Error::not_found("the container's shim is gone")
            }
            errno => words_of(errno.into()),
        })?;
        Answers::over(UnixStream::from(socket), deadline)
    }
}

/// One connection to a shim, and what comes back on it.
#[derive(Debug)]
pub(crate) struct Answers {
    stream: UnixStream,
    decoder: Decoder,
}

impl Answers {
    pub(crate) fn over(stream: UnixStream, deadline: Duration) -> Result<Self> {
        stream.set_read_timeout(Some(deadline)).context(|| "cannot set a deadline".to_owned())?;
        stream.set_write_timeout(Some(deadline)).context(|| "cannot set a deadline".to_owned())?;
        Ok(Self { stream, decoder: Decoder::new() })
    }

    pub(crate) fn send(&self, frame: &[u8], passed: &[BorrowedFd<'_>]) -> Result<()> {
        descriptors::send(&self.stream, frame, passed).map_err(words_of)
    }

    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(message) = self.decoder.next()? {
                return Ok(message);
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(Error::unavailable("the shim has died")),
                Ok(count) => self.decoder.feed(&bytes[..count]),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(words_of(err)),
            }
        }
    }

    /// Whether the process at the other end has closed its socket, which it does only by ending.
    pub(crate) fn peer_is_gone(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&now)), Ok(1))
            && fds[0].revents().intersects(PollFlags::HUP | PollFlags::RDHUP)
    }

    pub(crate) fn into_watch(self) -> Result<Watch> {
        self.stream.set_read_timeout(None).context(|| "cannot take a deadline away".to_owned())?;
        Ok(Watch { stream: self.stream, decoder: self.decoder })
    }
}

/// A slow shim is not an internal error, it is one that may answer later.
pub(crate) fn words_of(err: io::Error) -> Error {
    match err.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            Error::unavailable("shim unresponsive").caused_by(err)
        }
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            Error::unavailable("the shim has died").caused_by(err)
        }
        _ => Error::new(Kind::Internal, "cannot talk to the shim").caused_by(Error::from(err)),
    }
}

impl From<Failure> for ExecFailure {
    fn from(failure: Failure) -> Self {
        Self { exit_code: failure.exit_code, error: failure.into() }
    }
}

/// A shim that takes the last of its container apart. The connection ends when nothing is mounted any more: until then the
/// container's file system is no other run's.
#[derive(Debug)]
pub struct Leaving(UnixStream);

impl Leaving {
    /// For whoever waits in another way than by blocking: reads nothing, and then the end.
    pub fn into_stream(self) -> UnixStream {
        self.0
    }
}

/// The events of one container. To wait in another way than [`Watch::next`], take it apart.
#[derive(Debug)]
pub struct Watch {
    stream: UnixStream,
    decoder: Decoder,
}

impl Watch {
    /// Waits for the next event; `None` when the shim has left (or died, if no [`Event::Exit`] came before).
    #[expect(clippy::should_implement_trait, reason = "it fails, and its end is not a loop's")]
    pub fn next(&mut self) -> Result<Option<Event>> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(event) = Event::decode(&mut self.decoder)? {
                return Ok(Some(event));
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(None),
                Ok(count) => self.decoder.feed(&bytes[..count]),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) if err.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(err) => return Err(words_of(err)),
            }
        }
    }

    /// The connection, and the decoder with what has arrived already.
    pub fn into_parts(self) -> (UnixStream, Decoder) {
        (self.stream, self.decoder)
    }
}
