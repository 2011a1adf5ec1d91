//! Talking to the kernel: a batch of messages goes out in one send, the answers come back in order.
//!
//! Messages are written and read by the attribute (`message.rs`), not through a model of the whole protocol: a host has
//! devices of kinds nobody foresaw, and listing them must not fail on what we never asked about.

pub(crate) mod conntrack;
pub(crate) mod message;
pub(crate) mod queue;
pub(crate) mod route;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

pub(crate) use message::{Attributes, Batch, attribute, attributes, messages};
use message::{Expect, HEADER, u16_at, u32_at};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};
use stdx::{Context, Error, Result};
use sys::netlink::Protocol;

/// How long an answer of the kernel may be missing.
const PATIENCE: Duration = Duration::from_secs(60);
/// The kernel answers a dump in pieces of up to 32 KiB, when the buffer offered is as large.
const BUFFER: usize = 32 * 1024;
/// A socket takes this much without being asked to.
const ROOM: usize = 64 * 1024;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// `struct nlmsgerr` without the message it quotes.
const ERROR_HEADER: usize = 4;

/// An open socket; it belongs to the network namespace it was opened in, wherever its user goes.
pub(crate) struct Socket {
    inner: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What one message of a batch brought back.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// The objects asked for: message type and body.
    pub(crate) objects: Vec<(u16, Vec<u8>)>,
    pub(crate) failure: Option<Failure>,
}

/// The kernel's refusal: its number, and where it has one its sentence.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) errno: i32,
    words: String,
}

impl Failure {
    fn error(self) -> Error {
        let cause = Error::from(io::Error::from_raw_os_error(self.errno));
        if self.words.is_empty() { cause } else { Error::internal(self.words).caused_by(cause) }
    }
}

impl Reply {
    pub(crate) fn is_refused_with(&self, errno: i32) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.errno == errno)
    }

    pub(crate) fn ok(self) -> Result<Vec<(u16, Vec<u8>)>> {
        match self.failure {
            None => Ok(self.objects),
            Some(failure) => Err(failure.error()),
        }
    }

    /// Success, or a refusal with one of these numbers.
    pub(crate) fn ok_or(self, tolerated: &[i32]) -> Result<Vec<(u16, Vec<u8>)>> {
        match &self.failure {
            Some(failure) if tolerated.contains(&failure.errno) => Ok(Vec::new()),
            _ => self.ok(),
        }
    }
}

impl Socket {
    /// Links, addresses, routes.
    pub(crate) fn route() -> Result<Self> {
        Self::open(Protocol::Route).context(|| "cannot open a route netlink socket".to_owned())
    }

    /// The firewall.
    pub(crate) fn netfilter() -> Result<Self> {
        Self::open(Protocol::Netfilter)
            .context(|| "cannot open a netfilter netlink socket".to_owned())
    }

    fn open(protocol: Protocol) -> io::Result<Self> {
        let inner = sys::netlink::open(protocol, 0)?;
        // The kernel answers within the call that asks; what does not come then is lost.
        sockopt::set_socket_timeout(&inner, sockopt::Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { inner, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// A socket that somebody kept for us, with answers in it that nobody waits for any more.
    pub(crate) fn adopt(inner: OwnedFd) -> Self {
        let mut socket = Self { inner, sequence: 0, buffer: vec![0; BUFFER] };
        socket.drain();
        socket
    }

    /// One that somebody else reads from: what it is told is done when that returns, and what became of it is heard by him,
    /// who does not take it for an answer to himself.
    pub(crate) fn shared(inner: OwnedFd) -> Self {
        Self { inner, sequence: 1 << 31, buffer: Vec::new() }
    }

    /// Sends a batch of which no message is acknowledged.
    pub(crate) fn tell(&mut self, mut batch: Batch) -> Result<()> {
        self.sequence = (self.sequence.wrapping_add(batch.len() as u32)) | 1 << 31;
        batch.number(self.sequence);
        send(&self.inner, batch.bytes(), SendFlags::empty())
            .map(drop)
            .context(|| "netlink failed".to_owned())
    }

    /// Reads away what is there. A socket that has overrun gets nothing more until it has been read empty.
    fn drain(&mut self) {
        while matches!(
            recv(&self.inner, &mut self.buffer[..], RecvFlags::DONTWAIT),
            Ok(_) | Err(Errno::NOBUFS | Errno::INTR)
        ) {}
    }

    /// The number by which the kernel knows us.
    pub(crate) fn port(&self) -> Result<u32> {
        sys::netlink::port(&self.inner).context(|| "cannot name a netlink socket".to_owned())
    }

    /// Sends the batch at once and waits for every answer that was asked for: one [`Reply`] a message, in order.
    pub(crate) fn exchange(&mut self, mut batch: Batch) -> Result<Vec<Reply>> {
        loop {
            match self.attempt(&mut batch)? {
                Some(replies) => return Ok(replies),
                // What was listed changed meanwhile.
                None => tracing::debug!("netlink dump interrupted"),
            }
        }
    }

    fn attempt(&mut self, batch: &mut Batch) -> Result<Option<Vec<Reply>>> {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(batch.len() as u32);
        batch.number(first);
        let failed = || "netlink failed".to_owned();
        if batch.bytes().len() > ROOM {
            // A transaction is one message, however long. With twice the room: the kernel counts its own bookkeeping.
            sockopt::set_socket_send_buffer_size_force(&self.inner, 2 * batch.bytes().len())
                .context(failed)?;
        }
        send(&self.inner, batch.bytes(), SendFlags::empty()).context(failed)?;

        let mut replies: Vec<Reply> = Vec::new();
        replies.resize_with(batch.len(), Reply::default);
        let mut open = batch.expected().filter(|expect| *expect != Expect::Nothing).count();
        let mut interrupted = false;
        while open > 0 {
            let received = rustix::io::retry_on_intr(|| {
                recv(&self.inner, &mut self.buffer[..], RecvFlags::empty())
            });
            if received.is_err() {
                self.drain();
            }
            let (length, _) = received.context(failed)?;
            let mut rest = &self.buffer[..length.min(BUFFER)];
            while rest.len() >= HEADER {
                let size = (u32_at(rest, 0) as usize).clamp(HEADER, rest.len());
                let (kind, flags) = (u16_at(rest, 4), u16_at(rest, 6));
                let index = u32_at(rest, 8).wrapping_sub(first) as usize;
                let body = &rest[HEADER..size];
                rest = &rest[message::align(size).min(rest.len())..];
                let Some(reply) = replies.get_mut(index) else { continue };
                let expect = batch.expect(index);
                interrupted |= flags & NLM_F_DUMP_INTR != 0;
                match kind {
                    NLMSG_ERROR => {
                        reply.failure = failure(flags, body);
                        // A batch of nf_tables that is refused as a whole is refused in its first message.
                        let refused = reply.failure.is_some() && index == 0;
                        match expect {
                            Expect::Nothing if refused => open = 0,
                            Expect::Nothing => {}
                            Expect::Ack | Expect::Dump => open -= 1,
                        }
                    }
                    NLMSG_DONE => {
                        // A dump that fails half-way says so at its end.
                        let errno = -(body.get(..4).map_or(0, |_| u32_at(body, 0)) as i32);
                        if errno > 0 {
                            reply.failure = Some(Failure { errno, words: String::new() });
                        }
                        open -= 1;
                    }
                    _ => reply.objects.push((kind, body.to_vec())),
                }
            }
        }
        Ok((!interrupted).then_some(replies))
    }

    /// Sends the batch; every message must succeed.
    pub(crate) fn execute(&mut self, batch: Batch) -> Result<()> {
        self.exchange(batch)?.into_iter().try_for_each(|reply| reply.ok().map(drop))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// Reads `struct nlmsgerr`; number 0 is the acknowledgement.
fn failure(flags: u16, body: &[u8]) -> Option<Failure> {
    let errno = -(body.get(..4).map_or(0, |_| u32_at(body, 0)) as i32);
    if errno == 0 {
        return None;
    }
    let quoted = match flags & NLM_F_CAPPED {
        0 => body.get(4..8).map_or(HEADER, |_| u32_at(body, 4) as usize),
        _ => HEADER,
    };
    let extra = (flags & NLM_F_ACK_TLVS != 0)
        .then(|| body.get(ERROR_HEADER + message::align(quoted)..))
        .flatten()
        .unwrap_or_default();
    let words = attribute(extra, NLMSGERR_ATTR_MSG).map(message::text).unwrap_or_default();
    Some(Failure { errno, words })
}
