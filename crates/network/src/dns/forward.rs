//! Asking somebody else. Several servers are asked one after the other, each next one as soon as one has failed or has
//! been silent for a while; the first good answer counts, whoever it is from.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use stdx::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::PORT;
use super::inside::Entrance;
use super::upstream::{From, Upstream, Upstreams};
use super::wire::{self, Outcome, Query, Transport};
use crate::netd::protocol::Sandbox;

/// Before a client gives up: resolvers wait for five seconds.
const PATIENCE: Duration = Duration::from_millis(4500);
/// How long a server may be silent before the next one is asked, too.
const SILENCE: Duration = Duration::from_millis(400);
/// How many times somebody is asked in all: datagrams may be lost.
const ATTEMPTS: usize = 11;
/// The longest answer by UDP, whatever the client said that it takes.
const LONGEST: usize = u16::MAX as usize;

pub(super) struct Question {
    pub(super) message: Vec<u8>,
    pub(super) transport: Transport,
}

pub(super) struct Forwarder {
    entrance: Entrance,
    upstreams: Upstreams,
    buffer: Arc<Buffer>,
}

/// Where datagrams are received. Nothing is kept in it: one is enough for all.
type Buffer = Mutex<Vec<u8>>;

impl Forwarder {
    pub(super) fn new(stand_in: Option<IpAddr>) -> Result<Self> {
        Ok(Self {
            entrance: Entrance::here()?,
            upstreams: Upstreams::new(stand_in),
            buffer: Arc::default(),
        })
    }

    /// The answer to a question, good or bad. `inside` is a socket in the container's namespace.
    pub(super) async fn ask(
        &self,
        question: Question,
        sandbox: &Sandbox,
        inside: BorrowedFd<'_>,
    ) -> Vec<u8> {
        let question = Arc::new(question);
        let Ok(query) = Query::parse(&question.message) else { return Vec::new() };
        let upstreams = self.upstreams.of(sandbox);
        let mut refusal = None;
        let mut asked = JoinSet::new();
        let mut tried = vec![0; upstreams.len()];
        let end = Instant::now() + PATIENCE;
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = sleep_until(end) => break,
                () = sleep_until(next), if may_ask(&tried) => {
                    let index = self.upstreams.next(&upstreams, &tried);
                    let upstream = upstreams[index];
                    tried[index] += 1;
                    match self.open(upstream, question.transport, inside) {
                        Ok(way) => {
                            next = Instant::now() + SILENCE;
                            let question = Arc::clone(&question);
                            let buffer = Arc::clone(&self.buffer);
                            asked.spawn(async move {
                                (upstream, exchange(way, &question, &buffer, end).await)
                            });
                        }
                        // No way there: the next one, at once.
                        Err(_) => self.upstreams.doubt(upstream),
                    }
                }
                Some(outcome) = asked.join_next() => {
                    let Ok((upstream, answer)) = outcome else { continue };
                    match answer {
                        Ok(answer) if wire::is_failure(&answer) => {
                            refusal = Some(answer);
                            next = Instant::now();
                        }
                        Ok(answer) => {
                            self.upstreams.trust(upstream);
                            self.doubt_before(&upstreams, upstream);
                            return query.adopt(answer);
                        }
                        Err(_) => {
                            self.upstreams.doubt(upstream);
                            next = Instant::now();
                        }
                    }
                }
                else => break,
            }
        }
        match refusal {
            Some(answer) => query.adopt(answer),
            None => query.fail(Outcome::ServerFailure),
        }
    }

    /// Whoever was asked before the one that answered has been silent.
    fn doubt_before(&self, upstreams: &[Upstream], answered: Upstream) {
        for silent in upstreams.iter().take_while(|one| **one != answered) {
            self.upstreams.doubt(*silent);
        }
    }

    fn open(
        &self,
        upstream: Upstream,
        transport: Transport,
        inside: BorrowedFd,
    ) -> io::Result<Way> {
        let to = SocketAddr::new(upstream.address, PORT);
        let make = || match transport {
            Transport::Udp => {
                let any: IpAddr = match upstream.address {
                    IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                // The kernel chooses a port that nobody can guess; only `to` is heard.
                let socket = std::net::UdpSocket::bind((any, 0))?;
                socket.connect(to)?;
                socket.set_nonblocking(true)?;
                Ok(Way::Datagrams(UdpSocket::from_std(socket)?))
            }
            Transport::Tcp => Ok(Way::Stream(
                match to {
                    SocketAddr::V4(_) => TcpSocket::new_v4()?,
                    SocketAddr::V6(_) => TcpSocket::new_v6()?,
                },
                to,
            )),
        };
        match upstream.from {
            From::Host => make(),
            From::Container => self.entrance.within(inside, make),
        }
    }
}

fn may_ask(tried: &[usize]) -> bool {
    !tried.is_empty() && tried.iter().sum::<usize>() < ATTEMPTS
}

enum Way {
    Datagrams(UdpSocket),
    Stream(TcpSocket, SocketAddr),
}

async fn exchange(
    way: Way,
    question: &Question,
    buffer: &Buffer,
    end: Instant,
) -> io::Result<Vec<u8>> {
    let mut id = [0; 2];
    getrandom(&mut id[..], GetRandomFlags::empty())?;
    let id = u16::from_ne_bytes(id);
    let message = wire::with_id(&question.message, id);
    let query = Query::parse(&question.message)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    match way {
        Way::Datagrams(socket) => {
            socket.send(&message).await?;
            loop {
                timeout_at(end, socket.readable()).await??;
                let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
                buffer.resize(LONGEST, 0);
                match socket.try_recv(&mut buffer) {
                    Ok(length) if query.is_answered_by(id, &buffer[..length]) => {
                        return Ok(buffer[..length].to_vec());
                    }
                    // Not the answer to this.
                    Ok(_) => {}
                    Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                    Err(err) => return Err(err),
                }
            }
        }
        Way::Stream(socket, to) => {
            let mut stream = timeout(SILENCE * 2, socket.connect(to)).await??;
            stream.set_nodelay(true)?;
            let length = u16::try_from(message.len())
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            stream.write_all(&[&length.to_be_bytes()[..], &message].concat()).await?;
            let length = timeout_at(end, stream.read_u16()).await??;
            let mut answer = vec![0; usize::from(length)];
            timeout_at(end, stream.read_exact(&mut answer)).await??;
            match query.is_answered_by(id, &answer) {
                true => Ok(answer),
                false => Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}
