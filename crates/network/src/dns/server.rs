//! The name servers of all containers: reads questions from their sockets, answers what the zones know at once, and has
//! the rest asked elsewhere. What is known never waits for what is not.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stdx::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::answer::{Decision, Manner, decide};
use super::forward::{Forwarder, Inside, Question};
use super::leash;
use super::ways::Ways;
use super::wire::{Outcome, Query, Transport, Unreadable};
use super::zone::{Member, Sight, Zone};
use crate::firewall::grants::Opener;
use crate::netd::protocol::Sandbox;

/// Questions of one container that wait for somebody else's answer; more are refused at once.
const WAITING: usize = 256;
/// Connections of one container; more wait until one ends.
const CONNECTIONS: usize = 32;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// Questions of one container that are read before another's turn.
const TOGETHER: usize = 64;
/// The longest question by UDP. One with everything in it is a tenth of that.
const LONGEST: usize = 4096;

pub(crate) struct NameServers {
    zones: Mutex<Zones>,
    servers: Mutex<HashMap<String, Serving>>,
    forwarder: Arc<Forwarder>,
    /// Who lets containers on a leash reach what they were told of.
    opener: Mutex<Opener>,
}

/// The networks by id.
#[derive(Default)]
pub(crate) struct Zones {
    zones: HashMap<String, Zone>,
    /// Those that will take the place of the others.
    aside: Option<HashMap<String, Zone>>,
}

impl Zones {
    fn being_made(&mut self) -> &mut HashMap<String, Zone> {
        self.aside.as_mut().unwrap_or(&mut self.zones)
    }

    pub(crate) fn add(&mut self, id: String, name: String) {
        self.being_made().entry(id).or_default().name = name;
    }

    pub(crate) fn forget(&mut self, id: &str) {
        self.being_made().remove(id);
    }

    pub(crate) fn join(&mut self, zone: &str, member: Member) {
        if let Some(zone) = self.being_made().get_mut(zone) {
            zone.join(member);
        }
    }

    pub(crate) fn leave(&mut self, zone: &str, member: &str) {
        if let Some(zone) = self.being_made().get_mut(zone) {
            zone.leave(member);
        }
    }

    pub(crate) fn aside(&mut self) {
        self.aside = Some(HashMap::new());
    }

    pub(crate) fn swap(&mut self) {
        if let Some(made) = self.aside.take() {
            self.zones = made;
        }
    }

    fn seen_by<'a>(&'a self, sandbox: &'a Sandbox) -> Vec<Sight<'a>> {
        let sight = |seat: &'a crate::netd::protocol::Seat| {
            Some(Sight { zone: self.zones.get(&seat.zone)?, links: &seat.links })
        };
        sandbox.seats.iter().filter_map(sight).collect()
    }
}

/// One container's.
struct Serving {
    client: Arc<Client>,
    sockets: Arc<(OwnedFd, OwnedFd)>,
    tasks: [JoinHandle<()>; 2],
}

impl Serving {
    /// Aborted: its sockets are closed when these have ended.
    fn end(self) -> [JoinHandle<()>; 2] {
        self.client.ways.close();
        self.tasks.iter().for_each(JoinHandle::abort);
        self.tasks
    }
}

/// A container, as its questions are answered.
struct Client {
    sandbox: Mutex<Arc<Sandbox>>,
    all: Arc<NameServers>,
    waiting: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    turn: AtomicUsize,
    /// The socket by which its namespace is found.
    inside: Arc<(OwnedFd, OwnedFd)>,
    ways: Arc<Ways>,
}

/// What becomes of a message.
enum Answer {
    Now(Vec<u8>),
    /// Not from here.
    Later(Vec<u8>),
    Never,
}

impl NameServers {
    pub(crate) fn new(stand_in: Option<IpAddr>) -> Result<Self> {
        Ok(Self {
            zones: Mutex::default(),
            servers: Mutex::default(),
            forwarder: Arc::new(Forwarder::new(stand_in)?),
            opener: Mutex::new(Opener::here()?),
        })
    }

    pub(crate) fn zones(&self) -> MutexGuard<'_, Zones> {
        self.zones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn opener(&self) -> MutexGuard<'_, Opener> {
        self.opener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<String, Serving>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.servers().is_empty()
    }

    pub(crate) fn list(&self) -> Vec<(Sandbox, Arc<(OwnedFd, OwnedFd)>)> {
        let servers = self.servers();
        let one = |serving: &Serving| {
            (Sandbox::clone(&serving.client.sandbox()), Arc::clone(&serving.sockets))
        };
        servers.values().map(one).collect()
    }

    /// Serves a container on these sockets from now on. What served it before is on its way out.
    pub(crate) fn serve(
        self: &Arc<Self>,
        sandbox: Sandbox,
        udp: OwnedFd,
        tcp: OwnedFd,
    ) -> Result<Vec<JoinHandle<()>>> {
        let failed = || format!("cannot serve container {}", sandbox.id);
        let before = self.close(&sandbox.id);
        let socket = udp.try_clone().map(std::net::UdpSocket::from).context(failed)?;
        let listener = tcp.try_clone().map(std::net::TcpListener::from).context(failed)?;
        socket.set_nonblocking(true).context(failed)?;
        listener.set_nonblocking(true).context(failed)?;
        let socket = UdpSocket::from_std(socket).context(failed)?;
        let listener = TcpListener::from_std(listener).context(failed)?;
        let sockets = Arc::new((udp, tcp));
        let id = sandbox.id.clone();
        let client = Arc::new(Client {
            sandbox: Mutex::new(Arc::new(sandbox)),
            all: Arc::clone(self),
            waiting: Arc::new(Semaphore::new(WAITING)),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            turn: AtomicUsize::new(0),
            inside: Arc::clone(&sockets),
            ways: self.forwarder.ways(),
        });
        let tasks = [
            tokio::spawn(Arc::clone(&client).answer_datagrams(Arc::new(socket))),
            tokio::spawn(Arc::clone(&client).answer_connections(listener)),
        ];
        self.servers().insert(id, Serving { client, sockets, tasks });
        Ok(before)
    }

    /// The container has been connected or disconnected.
    pub(crate) fn reseat(&self, sandbox: Sandbox) {
        if let Some(serving) = self.servers().get(&sandbox.id) {
            *serving.client.sandbox.lock().unwrap_or_else(PoisonError::into_inner) =
                Arc::new(sandbox);
            serving.client.ways.renew();
        }
    }

    pub(crate) fn close(&self, id: &str) -> Vec<JoinHandle<()>> {
        let gone = self.servers().remove(id);
        gone.map(Serving::end).into_iter().flatten().collect()
    }

    pub(crate) fn close_all(&self) -> Vec<JoinHandle<()>> {
        let gone = std::mem::take(&mut *self.servers());
        gone.into_values().flat_map(Serving::end).collect()
    }
}

impl Client {
    fn sandbox(&self) -> Arc<Sandbox> {
        Arc::clone(&self.sandbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn answer_datagrams(self: Arc<Self>, socket: Arc<UdpSocket>) {
        // They end with this: what they hold is in the container's namespace.
        let mut asked = JoinSet::new();
        loop {
            tokio::select! {
                readable = socket.readable() => {
                    // Only the end of the runtime ends it.
                    if readable.is_err() {
                        return;
                    }
                }
                Some(_) = asked.join_next() => continue,
            }
            let mut message = [0; LONGEST];
            for _ in 0..TOGETHER {
                match socket.try_recv_from(&mut message) {
                    Ok((length, from)) => {
                        self.answer_datagram(&socket, &message[..length], from, &mut asked);
                    }
                    Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                    // Somebody did not wait for the answer before this one.
                    Err(_) => {}
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn answer_datagram(
        self: &Arc<Self>,
        socket: &Arc<UdpSocket>,
        message: &[u8],
        from: SocketAddr,
        asked: &mut JoinSet<()>,
    ) {
        match self.answer(message, Transport::Udp) {
            Answer::Never => {}
            // A datagram that finds no room is lost, and asked for again.
            Answer::Now(reply) => drop(socket.try_send_to(&reply, from)),
            Answer::Later(query) => {
                let (this, socket) = (Arc::clone(self), Arc::clone(socket));
                let Ok(permit) = Arc::clone(&this.waiting).try_acquire_owned() else {
                    if let Ok(query) = Query::parse(&query) {
                        drop(socket.try_send_to(&query.fail(Outcome::Refused), from));
                    }
                    return;
                };
                asked.spawn(async move {
                    let reply = this.ask(query, Transport::Udp).await;
                    drop(socket.send_to(&reply, from).await);
                    drop(permit);
                });
            }
        }
    }

    async fn answer_connections(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors: it may be better soon.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let this = Arc::clone(&self);
            tokio::spawn(async move {
                let _over = this.converse(stream).await;
                drop(permit);
            });
        }
    }

    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        loop {
            let length = timeout(SILENCE, stream.read_u16()).await??;
            let mut message = vec![0; usize::from(length)];
            timeout(SILENCE, stream.read_exact(&mut message)).await??;
            let reply = match self.answer(&message, Transport::Tcp) {
                Answer::Never => return Ok(()),
                Answer::Now(reply) => reply,
                Answer::Later(query) => match self.waiting.try_acquire() {
                    Ok(_permit) => self.ask(query, Transport::Tcp).await,
                    Err(_) => match Query::parse(&query) {
                        Ok(query) => query.fail(Outcome::Refused),
                        Err(_) => return Ok(()),
                    },
                },
            };
            let Ok(length) = u16::try_from(reply.len()) else { return Ok(()) };
            let framed = [&length.to_be_bytes()[..], &reply].concat();
            timeout(SILENCE, stream.write_all(&framed)).await??;
        }
    }

    fn answer(&self, message: &[u8], transport: Transport) -> Answer {
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(Unreadable::Ignore) => return Answer::Never,
            Err(Unreadable::Answer(reply)) => return Answer::Now(reply),
        };
        let sandbox = self.sandbox();
        let manner = Manner {
            keeps_single_labels: sandbox.keeps_single_labels,
            turn: self.turn.fetch_add(1, Ordering::Relaxed),
        };
        let zones = self.all.zones();
        match decide(&query, &zones.seen_by(&sandbox), manner) {
            Decision::Answer(answer) => Answer::Now(query.reply(&answer, transport)),
            Decision::Fail(outcome) => Answer::Now(query.fail(outcome)),
            // What it may not reach does not exist, and nobody is told that it was asked for.
            Decision::Forward if !leash::may_ask(&sandbox, &query) => {
                Answer::Now(query.fail(Outcome::NoSuchName))
            }
            Decision::Forward => Answer::Later(message.to_vec()),
        }
    }

    async fn ask(&self, query: Vec<u8>, transport: Transport) -> Vec<u8> {
        let sandbox = self.sandbox();
        let question = Question { message: query.clone(), transport };
        let inside = Inside { socket: self.inside.0.as_fd(), ways: &self.ways };
        let answer = self.all.forwarder.ask(question, &sandbox, inside).await;
        let Ok(query) = Query::parse(&query) else { return answer };
        // As it is now: it may have been changed meanwhile.
        let sandbox = self.sandbox();
        match leash::open(&sandbox, &query, &answer, || self.all.opener()) {
            Ok(()) => answer,
            Err(_) => query.fail(Outcome::ServerFailure),
        }
    }
}
