//! Asking somebody else. Several servers are asked one after the other, each next one as soon as one has failed or has
//! been silent for a while; the first good answer counts, whoever it is from.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use stdx::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::PORT;
use super::inside::Entrance;
use super::upstream::{From, Upstream, Upstreams};
use super::ways::{Room, Taken, Way, Ways};
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
    room: Room,
    /// From the host's own namespace.
    ways: Arc<Ways>,
}

/// The namespace of a container: a socket in it, and the ways out of it.
pub(super) struct Inside<'a> {
    pub(super) socket: BorrowedFd<'a>,
    pub(super) ways: &'a Arc<Ways>,
}

/// Where datagrams are received. Nothing is kept in it: one is enough for all.
type Buffer = Mutex<Vec<u8>>;

impl Forwarder {
    pub(super) fn new(stand_in: Option<IpAddr>) -> Result<Self> {
        let room = Room::default();
        Ok(Self {
            entrance: Entrance::here()?,
            upstreams: Upstreams::new(stand_in),
            buffer: Arc::default(),
            ways: Ways::new(room.clone()),
            room,
        })
    }

    /// For the ways out of a namespace.
    pub(super) fn ways(&self) -> Arc<Ways> {
        Ways::new(self.room.clone())
    }

    /// The answer to a question, good or bad.
    pub(super) async fn ask(
        &self,
        question: Question,
        sandbox: &Sandbox,
        inside: Inside<'_>,
    ) -> Vec<u8> {
        let question = Arc::new(question);
        let Ok(query) = Query::parse(&question.message) else { return Vec::new() };
        let upstreams = self.upstreams.of(sandbox);
        let mut refusal = None;
        let mut asked = JoinSet::new();
        let mut tried = vec![0; upstreams.len()];
        let end = Instant::now() + PATIENCE;
        let mut next = end;
        // Not by an alarm for this very moment: alarms ring at the next millisecond.
        let mut due = true;
        loop {
            while due && may_ask(&tried) {
                let index = self.upstreams.next(&upstreams, &tried);
                let upstream = upstreams[index];
                tried[index] += 1;
                let opened = Chance::now().and_then(|chance| {
                    let way = self.open(upstream, question.transport, &inside, chance.way)?;
                    Ok((way, chance.id))
                });
                match opened {
                    Ok((way, id)) => {
                        due = false;
                        next = Instant::now() + SILENCE;
                        let question = Arc::clone(&question);
                        let buffer = Arc::clone(&self.buffer);
                        asked.spawn(async move {
                            (upstream, exchange(way, &question, id, &buffer).await)
                        });
                    }
                    // No way there: the next one, at once.
                    Err(_) => self.upstreams.doubt(upstream),
                }
            }
            let patience = if may_ask(&tried) { next.min(end) } else { end };
            tokio::select! {
                biased;
                outcome = asked.join_next() => {
                    // Nobody is asked, and nobody can be.
                    let Some(outcome) = outcome else { break };
                    let Ok((upstream, answer)) = outcome else { continue };
                    match answer {
                        Ok(answer) if wire::is_failure(&answer) => {
                            refusal = Some(answer);
                            due = true;
                        }
                        Ok(answer) => {
                            self.upstreams.trust(upstream);
                            self.doubt_before(&upstreams, upstream);
                            return query.adopt(answer);
                        }
                        Err(_) => {
                            self.upstreams.doubt(upstream);
                            due = true;
                        }
                    }
                }
                () = sleep_until(patience) => {
                    if patience == end {
                        break;
                    }
                    due = true;
                }
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
        inside: &Inside,
        chance: usize,
    ) -> io::Result<Opened> {
        let server = upstream.address;
        match (transport, upstream.from) {
            (Transport::Udp, From::Host) => {
                let taken = self.ways.take(server, chance, || Way::make(server))?;
                Ok(Opened::Datagrams(taken, Arc::clone(&self.ways)))
            }
            (Transport::Udp, From::Container) => {
                let make = || self.entrance.within(inside.socket, || Way::make(server));
                let taken = inside.ways.take(server, chance, make)?;
                Ok(Opened::Datagrams(taken, Arc::clone(inside.ways)))
            }
            (Transport::Tcp, from) => {
                let make = || match server {
                    IpAddr::V4(_) => TcpSocket::new_v4(),
                    IpAddr::V6(_) => TcpSocket::new_v6(),
                };
                let socket = match from {
                    From::Host => make(),
                    From::Container => self.entrance.within(inside.socket, make),
                };
                Ok(Opened::Stream(socket?, SocketAddr::new(server, PORT)))
            }
        }
    }
}

fn may_ask(tried: &[usize]) -> bool {
    !tried.is_empty() && tried.iter().sum::<usize>() < ATTEMPTS
}

/// What nobody is to guess about a question.
struct Chance {
    id: u16,
    way: usize,
}

impl Chance {
    fn now() -> io::Result<Self> {
        let mut bytes = [0; 4];
        getrandom(&mut bytes[..], GetRandomFlags::empty())?;
        let [id, way] = [[bytes[0], bytes[1]], [bytes[2], bytes[3]]].map(u16::from_ne_bytes);
        Ok(Self { id, way: way.into() })
    }
}

enum Opened {
    /// And where it belongs when it is answered.
    Datagrams(Taken, Arc<Ways>),
    Stream(TcpSocket, SocketAddr),
}

/// Whoever waits for it stops when his patience ends.
async fn exchange(
    opened: Opened,
    question: &Question,
    id: u16,
    buffer: &Buffer,
) -> io::Result<Vec<u8>> {
    let message = wire::with_id(&question.message, id);
    let query = Query::parse(&question.message)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    match opened {
        Opened::Datagrams(taken, ways) => {
            let socket = &taken.way.socket;
            socket.send(&message).await?;
            let answer = loop {
                socket.readable().await?;
                let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
                buffer.resize(LONGEST, 0);
                match socket.try_recv(&mut buffer) {
                    Ok(length) if query.is_answered_by(id, &buffer[..length]) => {
                        break buffer[..length].to_vec();
                    }
                    // Not the answer to this.
                    Ok(_) => {}
                    Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                    Err(err) => return Err(err),
                }
            };
            ways.give_back(taken);
            Ok(answer)
        }
        Opened::Stream(socket, to) => {
            let mut stream = timeout(SILENCE * 2, socket.connect(to)).await??;
            stream.set_nodelay(true)?;
            let length = u16::try_from(message.len())
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            stream.write_all(&[&length.to_be_bytes()[..], &message].concat()).await?;
            let length = stream.read_u16().await?;
            let mut answer = vec![0; usize::from(length)];
            stream.read_exact(&mut answer).await?;
            match query.is_answered_by(id, &answer) {
                true => Ok(answer),
                false => Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::net::{Ipv4Addr, UdpSocket};
    use std::os::fd::AsFd;
    use std::pin::{Pin, pin};
    use std::task::Poll;

    use super::super::wire::tests::question;
    use super::*;
    use crate::netd::protocol::Resolvers;
    use crate::netns;

    /// More than it takes without waiting for anything.
    const TURNS: usize = 100;

    fn asking(resolvers: Resolvers) -> Sandbox {
        Sandbox {
            id: "c".to_owned(),
            seats: Vec::new(),
            resolvers,
            keeps_single_labels: false,
            outward: false,
            leash: None,
        }
    }

    /// How it ends without time going by.
    async fn at_once<T>(mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        for _ in 0..TURNS {
            let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
            if let Poll::Ready(value) = polled {
                return Some(value);
            }
            tokio::task::yield_now().await;
        }
        None
    }

    /// Alarms ring at full milliseconds, and to wait for one is ten times longer than an answer takes.
    #[test]
    fn the_first_server_is_asked_without_an_alarm() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let within = |_: &_, _| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, PORT)).unwrap();
                server.set_nonblocking(true).unwrap();
                let forwarder = Forwarder::new(None).unwrap();
                let ways = forwarder.ways();
                let inside = || Inside { socket: server.as_fd(), ways: &ways };
                let sandbox = asking(Resolvers::Chosen(vec![Ipv4Addr::LOCALHOST.into()]));
                let message = question("example.org", wire::A, None);
                let asked = || Question { message: message.clone(), transport: Transport::Udp };
                let mut ask = pin!(forwarder.ask(asked(), &sandbox, inside()));
                assert_eq!(at_once(ask.as_mut()).await, None);
                let mut heard = [0; 512];
                let length = server.recv(&mut heard).expect("it has been asked");
                assert_eq!(heard[2..length], message[2..]);
                // And who has nobody to ask is told so.
                let nobody = asking(Resolvers::Host);
                let ask = pin!(forwarder.ask(asked(), &nobody, inside()));
                let failure = Query::parse(&message).unwrap().fail(Outcome::ServerFailure);
                assert_eq!(at_once(ask).await, Some(failure));
            });
            Ok(())
        };
        netns::create(None, netns::Ipv6::Off, within).unwrap();
    }
}
