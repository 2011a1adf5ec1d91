//! One process's standard streams, and the clients attached to them.
//!
//! What must stay true: output is read as fast as it comes, whatever those do who come to look on; whoever has the process
//! run (`run`, `exec`) gets all of it, and is waited for as by a pipe. Stdin is read from clients only as fast as the
//! process takes it.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use stdx::{Context, Error, Result};

use crate::logs::{Lines, Log};
use crate::protocol::{AttachOptions, Size, Stream};
use crate::ring::{Framing, Owed, Ring};
use crate::tty;

/// The size of a pipe, and so the most one read brings.
pub(crate) const SCRATCH: usize = 64 * 1024;
/// Reads of one stream before the others have their turn.
const TURN: usize = 4;
/// A client that a container waits for may be slow, but must move.
const STALL: Duration = Duration::from_secs(30);
/// So must one that looked on at something that has ended. Whoever is owed all of it has time: nobody waits for him.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clients of one process. The ring of each may hold 1 MiB.
const MOST_CLIENTS: usize = 128;

/// What ends a process's stdin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StdinMode {
    /// There is none: `/dev/null`.
    Closed,
    /// Only the process itself, or a request.
    Open,
    /// The end of the first client's.
    Once,
}

#[derive(Debug)]
pub(crate) struct Stdio {
    framing: Framing,
    mode: StdinMode,
    stdin: Stdin,
    outputs: Vec<Output>,
    clients: Vec<Attached>,
    /// The process lives, and can be made to wait.
    waits: bool,
    /// For one who takes nothing: not longer.
    stall: Option<Duration>,
}

/// A part of [`Stdio`] that `poll` watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Stdin,
    Output(usize),
    Client(usize),
}

/// The ends a process gets.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

impl Stdio {
    /// Pipes: our ends and the process's.
    pub(crate) fn pipes(mode: StdinMode) -> Result<(Self, Ends)> {
        let what = || "cannot make pipes for standard streams".to_owned();
        let pipe = || pipe_with(PipeFlags::CLOEXEC).context(what);
        let (stdin, ours) = match mode {
            StdinMode::Closed => (open_null()?, None),
            StdinMode::Open | StdinMode::Once => {
                let (theirs, ours) = pipe()?;
                (theirs, Some(Rc::new(ours)))
            }
        };
        let ((our_out, stdout), (our_err, stderr)) = (pipe()?, pipe()?);
        let mut stdio = Self::new(Framing::Multiplexed, mode, ours)?;
        stdio.add_output(Stream::Stdout, Rc::new(our_out))?;
        stdio.add_output(Stream::Stderr, Rc::new(our_err))?;
        Ok((stdio, Ends { stdin, stdout, stderr }))
    }

    /// A terminal, whose master is known only once the process exists.
    pub(crate) fn terminal(mode: StdinMode) -> Result<Self> {
        Self::new(Framing::Raw, mode, None)
    }

    pub(crate) fn set_master(&mut self, master: OwnedFd) -> Result<()> {
        let master = Rc::new(master);
        if self.mode != StdinMode::Closed {
            self.stdin.fd = Some(Rc::clone(&master));
        }
        self.add_output(Stream::Stdout, master)
    }

    fn new(framing: Framing, mode: StdinMode, stdin: Option<Rc<OwnedFd>>) -> Result<Self> {
        if let Some(fd) = &stdin {
            set_nonblocking(fd)?;
        }
        let stdin = Stdin { fd: stdin, ..Stdin::default() };
        let (outputs, clients) = (Vec::new(), Vec::new());
        Ok(Self { framing, mode, stdin, outputs, clients, waits: true, stall: None })
    }

    fn add_output(&mut self, stream: Stream, fd: Rc<OwnedFd>) -> Result<()> {
        set_nonblocking(&fd)?;
        self.outputs.push(Output { stream, fd: Some(fd), lines: Lines::default() });
        Ok(())
    }

    /// Nobody holds it up for longer than those whom it serves can bear: a container, and what writes its log.
    pub(crate) fn wait_not_for_ever(&mut self) {
        self.stall = Some(STALL);
    }

    /// The process has ended: what it has left is read, whoever takes it.
    pub(crate) fn wait_no_more(&mut self) {
        self.waits = false;
    }

    /// Somebody who is owed all of it has enough for now.
    fn holds(&self) -> bool {
        self.waits && self.clients.iter().any(|client| client.holds(self.stall))
    }

    /// When somebody will have held it up for too long.
    pub(crate) fn next_release(&self) -> Option<Instant> {
        let stall = self.stall.filter(|_| self.waits)?;
        self.clients
            .iter()
            .filter(|client| client.holds(Some(stall)))
            .map(|one| one.moved + stall)
            .min()
    }

    pub(crate) fn attach(
        &mut self,
        options: AttachOptions,
        stream: UnixStream,
        owed: Owed,
    ) -> Result<()> {
        if self.clients.len() >= MOST_CLIENTS {
            return Err(Error::conflict(format!("{MOST_CLIENTS} clients are attached already")));
        }
        let framing = match options.framed {
            None => self.framing,
            Some(true) => Framing::Multiplexed,
            Some(false) => Framing::Raw,
        };
        let reading = options.stdin && self.mode != StdinMode::Closed && !self.stdin.over;
        self.clients.push(Attached {
            stream,
            options,
            ring: Ring::new(framing, owed),
            reading,
            gone: false,
            moved: Instant::now(),
            owed,
        });
        Ok(())
    }

    pub(crate) fn resize(&self, size: Size) -> Result<()> {
        match (self.framing, self.outputs.first().and_then(|output| output.fd.as_ref())) {
            (Framing::Raw, Some(master)) => tty::resize(master.as_fd(), size),
            // Docker accepts a resize of what has no terminal, and nothing happens.
            _ => Ok(()),
        }
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin.close();
    }

    /// Everything to wait for.
    pub(crate) fn watch<'a>(&'a self, mut add: impl FnMut(Part, BorrowedFd<'a>, PollFlags)) {
        if let (Some(fd), false) = (&self.stdin.fd, self.stdin.pending.is_empty()) {
            add(Part::Stdin, fd.as_fd(), PollFlags::OUT);
        }
        let outputs = if self.holds() { &[][..] } else { &self.outputs };
        for (index, output) in outputs.iter().enumerate() {
            if let Some(fd) = &output.fd {
                add(Part::Output(index), fd.as_fd(), PollFlags::IN);
            }
        }
        for (index, client) in self.clients.iter().enumerate() {
            let wants_input = client.reading && self.stdin.pending.is_empty();
            // poll reports a hang-up whether asked or not: one that cannot be dealt with yet must not be watched.
            if client.gone && !wants_input {
                continue;
            }
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, wants_input);
            flags.set(PollFlags::OUT, !client.ring.is_empty());
            add(Part::Client(index), client.stream.as_fd(), flags);
        }
    }

    /// Something of this is ready.
    pub(crate) fn ready(
        &mut self,
        part: Part,
        flags: PollFlags,
        scratch: &mut Vec<u8>,
        log: &mut Log,
    ) {
        match part {
            Part::Stdin => self.stdin.write(),
            Part::Output(index) => self.read_output(index, scratch, log),
            Part::Client(index) => self.client_ready(index, flags, scratch),
        }
    }

    fn read_output(&mut self, index: usize, scratch: &mut Vec<u8>, log: &mut Log) {
        for _ in 0..TURN {
            if self.holds() {
                return;
            }
            let Some(output) = self.outputs.get_mut(index) else { return };
            let Some(fd) = &output.fd else { return };
            // Not filled before: most containers say little, and what is never touched costs no page.
            scratch.clear();
            scratch.reserve(SCRATCH);
            match rustix::io::read(fd, spare_capacity(scratch)) {
                Ok(count) if count > 0 => {
                    let bytes = &scratch[..];
                    output.log(bytes, log);
                    for client in &mut self.clients {
                        client.push(output.stream, bytes);
                    }
                    if count < SCRATCH {
                        return;
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                // The end: nobody holds the other end of the pipe, or (EIO) of the terminal.
                Ok(_) | Err(_) => {
                    output.end(log);
                    return;
                }
            }
        }
    }

    fn client_ready(&mut self, index: usize, flags: PollFlags, scratch: &mut Vec<u8>) {
        let Some(client) = self.clients.get_mut(index) else { return };
        if flags.contains(PollFlags::OUT) {
            client.flush();
        }
        if flags.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            client.gone = true;
        }
        if client.reading
            && self.stdin.pending.is_empty()
            && flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
        {
            scratch.clear();
            scratch.reserve(SCRATCH);
            match rustix::net::recv(
                &client.stream,
                spare_capacity(scratch),
                rustix::net::RecvFlags::DONTWAIT,
            ) {
                Ok((count, _)) if count > 0 => {
                    client.moved = Instant::now();
                    self.stdin.accept(scratch);
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Ok(_) | Err(_) => self.client_is_silent(index),
            }
        }
    }

    /// A client will send no more. Docker ends the process's stdin with it where that was asked for, and otherwise the
    /// client's own stream: it has detached.
    fn client_is_silent(&mut self, index: usize) {
        self.clients[index].reading = false;
        if self.ends_with_its_client() {
            self.stdin.close();
        } else {
            self.clients[index].ring.end();
        }
    }

    /// Forgets clients that are gone or have everything. To be called when no index is in use.
    pub(crate) fn sweep(&mut self) {
        let mut stdin_ends = false;
        self.clients.retain_mut(|client| {
            client.reading &= !self.stdin.over;
            let stays = !client.ring.is_done() && (client.reading || !client.gone);
            stdin_ends |= !stays && client.reading;
            stays
        });
        if stdin_ends && self.ends_with_its_client() {
            self.stdin.close();
        }
    }

    fn ends_with_its_client(&self) -> bool {
        self.mode == StdinMode::Once && self.framing == Framing::Multiplexed
    }

    /// Sends what is queued, as far as clients take it now.
    pub(crate) fn flush_clients(&mut self) {
        for client in &mut self.clients {
            if !client.ring.is_empty() && !client.gone {
                client.flush();
            }
        }
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.outputs.iter().all(|output| output.fd.is_none())
    }

    /// Whether anybody would notice if its output were no more read.
    pub(crate) fn has_clients(&self) -> bool {
        !self.clients.is_empty()
    }

    /// The process is over, and so are its streams: the log gets what is left of a line, clients what is queued for them.
    pub(crate) fn end(&mut self, log: &mut Log) {
        for output in &mut self.outputs {
            output.end(log);
        }
        self.stdin.end();
        for client in &mut self.clients {
            client.reading = false;
            client.ring.end();
            client.moved = Instant::now();
        }
        self.flush_clients();
        self.sweep();
    }

    /// Of something that has ended: when there has been patience enough with the slowest of those who looked on.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.clients.iter().filter_map(Attached::stuck_from).min()
    }

    pub(crate) fn drop_the_stuck(&mut self, now: Instant) {
        self.clients.retain(|client| client.stuck_from().is_none_or(|from| from > now));
    }
}

/// What goes to the process.
#[derive(Default)]
struct Stdin {
    fd: Option<Rc<OwnedFd>>,
    /// Read from a client and not yet taken: the next is not read before.
    pending: Vec<u8>,
    closing: bool,
    over: bool,
}

impl Stdin {
    fn accept(&mut self, bytes: &[u8]) {
        if self.fd.is_some() {
            self.pending.extend_from_slice(bytes);
            self.write();
        }
    }

    fn write(&mut self) {
        let Some(fd) = &self.fd else { return };
        while !self.pending.is_empty() {
            match rustix::io::write(fd, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // It reads no more.
                Err(_) => return self.end(),
            }
        }
        self.pending = Vec::new();
        if self.closing {
            self.end();
        }
    }

    fn end(&mut self) {
        *self = Self { over: true, ..Self::default() };
    }

    /// Ends it behind what is still to be taken.
    fn close(&mut self) {
        self.closing = true;
        self.write();
    }
}

impl fmt::Debug for Stdin {
    /// What somebody types is nobody's business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdin")
            .field("open", &self.fd.is_some())
            .field("pending", &self.pending.len())
            .finish()
    }
}

/// What comes from the process.
#[derive(Debug)]
struct Output {
    stream: Stream,
    fd: Option<Rc<OwnedFd>>,
    lines: Lines,
}

impl Output {
    fn log(&mut self, bytes: &[u8], log: &mut Log) {
        if log.is_kept() {
            self.lines.push(bytes, &mut |at, line, ended| log.write(at, self.stream, line, ended));
        }
    }

    fn end(&mut self, log: &mut Log) {
        if self.fd.take().is_some() {
            self.lines.finish(&mut |at, line, ended| log.write(at, self.stream, line, ended));
        }
    }
}

/// A client.
#[derive(Debug)]
struct Attached {
    stream: UnixStream,
    options: AttachOptions,
    ring: Ring,
    /// Its sending half is open and goes to stdin.
    reading: bool,
    /// It has closed its receiving half too.
    gone: bool,
    /// When it last took or sent something, or was first given something to take.
    moved: Instant,
    owed: Owed,
}

impl Attached {
    fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let wanted = match stream {
            Stream::Stderr => self.options.stderr,
            Stream::Stdin | Stream::Stdout => self.options.stdout,
        };
        if !wanted || self.gone {
            return;
        }
        if self.ring.is_empty() {
            self.moved = Instant::now();
        }
        self.ring.push(stream, bytes);
    }

    /// Whether the process waits for it, unless it has taken nothing for so long.
    fn holds(&self, stall: Option<Duration>) -> bool {
        let patient = || stall.is_none_or(|stall| self.moved.elapsed() < stall);
        self.owed == Owed::All && !self.gone && self.ring.is_full() && patient()
    }

    fn stuck_from(&self) -> Option<Instant> {
        (self.owed == Owed::WhatItTakes).then(|| self.moved + PATIENCE)
    }

    fn flush(&mut self) {
        while !self.ring.is_empty() {
            match send_pieces(&self.stream, &self.ring.pieces()) {
                Ok(count) => {
                    self.moved = Instant::now();
                    self.ring.consume(count);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
    }
}

fn send_pieces(stream: &UnixStream, pieces: &[IoSlice<'_>]) -> rustix::io::Result<usize> {
    rustix::net::sendmsg(
        stream,
        pieces,
        &mut SendAncillaryBuffer::default(),
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
    )
}

/// Only our end: whether an end blocks is a property of the end.
fn set_nonblocking(fd: &OwnedFd) -> Result<()> {
    rustix::fs::fcntl_getfl(fd)
        .and_then(|flags| rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK))
        .context(|| "cannot make a stream non-blocking".to_owned())
}

fn open_null() -> Result<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, rustix::fs::Mode::empty())
        .map_err(io::Error::from)
        .context(|| "cannot open /dev/null".to_owned())
}
