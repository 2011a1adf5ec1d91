//! Published ports that the kernel does not translate: what comes to the bound socket is carried to the container. TCP is
//! spliced, so its bytes never come up here; an end in one direction is passed on as an end in that direction.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{set_socket_keepalive, set_socket_linger};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendFlags, Shutdown, SocketFlags,
    SocketType, connect, ipproto, recv, recvmsg, send, shutdown, socket_with,
};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use sys::datagram::{self, Local};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::netd::protocol::Place;
use crate::records::Protocol;

/// How long a container may take to answer a connection.
const CONNECTING: Duration = Duration::from_secs(30);
/// How long a client is remembered that sends nothing and is sent nothing (Docker's).
const SILENCE: Duration = Duration::from_secs(90);
/// Clients of one port that are remembered; the most silent one makes room for another.
const CLIENTS: usize = 4096;
/// Datagrams carried before another socket's turn.
const TOGETHER: usize = 64;
/// What one splice moves at most: a pipe's size.
const PIECE: usize = 64 * 1024;
/// The longest message that goes on as one: what an SCTP socket sends has to fit its buffer, 208 KiB on most hosts.
const MESSAGE: usize = 192 * 1024;
/// Emptied pipes that wait for the next connection.
const SPARE: usize = 32;
const OUT_OF_BREATH: Duration = Duration::from_millis(100);

/// What all ports share.
#[derive(Default)]
pub(crate) struct Proxy {
    pipes: Arc<Mutex<Vec<Pipe>>>,
    /// Nothing is kept in it: one is enough for all.
    buffer: Arc<Mutex<Vec<u8>>>,
}

impl Proxy {
    /// Carries what comes to `socket` to `target`, until the task is aborted. A listening socket; or a datagram one that
    /// tells where datagrams came to.
    pub(crate) fn serve(
        &self,
        socket: OwnedFd,
        place: Place,
        target: SocketAddr,
    ) -> io::Result<JoinHandle<()>> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(match place.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::from_std(socket.into())?;
                tokio::spawn(streams(listener, target, Arc::clone(&self.pipes)))
            }
            Protocol::Udp => {
                let socket = Arc::new(UdpSocket::from_std(socket.into())?);
                tokio::spawn(datagrams(socket, target, Arc::clone(&self.buffer)))
            }
            // Of another protocol than its name says, which only its making would notice.
            Protocol::Sctp => {
                tokio::spawn(associations(TcpListener::from_std(socket.into())?, target))
            }
        })
    }
}

async fn streams(listener: TcpListener, target: SocketAddr, pipes: Arc<Mutex<Vec<Pipe>>>) {
    // Aborted with the port: what is connected ends with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let pipes = Arc::clone(&pipes);
                    connections.spawn(async move {
                        let _over = carry(client, target, &pipes).await;
                    });
                }
                Err(_) => sleep(OUT_OF_BREATH).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(client: TcpStream, target: SocketAddr, pipes: &Mutex<Vec<Pipe>>) -> io::Result<()> {
    let server = match timeout(CONNECTING, TcpStream::connect(target)).await {
        Ok(Ok(server)) => server,
        refused => {
            // As it would look without us in between.
            set_socket_linger(&client, Some(Duration::ZERO))?;
            return refused?.map(drop);
        }
    };
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        set_socket_keepalive(stream, true)?;
    }
    let outcome = tokio::try_join!(pump(&client, &server, pipes), pump(&server, &client, pipes));
    if outcome.is_err() {
        // One side broke off: so it looks to the other.
        for stream in [&client, &server] {
            set_socket_linger(stream, Some(Duration::ZERO))?;
        }
    }
    outcome.map(drop)
}

/// One direction, to its end.
async fn pump(from: &TcpStream, to: &TcpStream, pipes: &Mutex<Vec<Pipe>>) -> io::Result<()> {
    let pipe = Pipe::take(pipes)?;
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    loop {
        let mut held = from
            .async_io(Interest::READABLE, || {
                Ok(splice(from, None, &pipe.write, None, PIECE, flags)?)
            })
            .await?;
        if held == 0 {
            // It may have gone altogether by now.
            let _gone = shutdown(to, Shutdown::Write);
            pipe.give_back(pipes);
            return Ok(());
        }
        while held > 0 {
            held -= to
                .async_io(Interest::WRITABLE, || {
                    Ok(splice(&pipe.read, None, to, None, held, flags)?)
                })
                .await?;
        }
    }
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    fn take(spare: &Mutex<Vec<Self>>) -> io::Result<Self> {
        if let Some(pipe) = lock(spare).pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { read, write })
    }

    /// Only an empty one.
    fn give_back(self, spare: &Mutex<Vec<Self>>) {
        let mut spare = lock(spare);
        if spare.len() < SPARE {
            spare.push(self);
        }
    }
}

/// SCTP has neither splice nor half an end: messages are copied, each as the one that it is, until one side is done.
async fn associations(listener: TcpListener, target: SocketAddr) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(async move {
                        let _over = relay(client, target).await;
                    });
                }
                Err(_) => sleep(OUT_OF_BREATH).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let family = match target {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let server = socket_with(family, SocketType::STREAM, flags, Some(ipproto::SCTP))?;
    match connect(&server, &target) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(err) => return Err(err.into()),
    }
    let server = TcpStream::from_std(server.into())?;
    timeout(CONNECTING, server.writable()).await??;
    if let Some(err) = server.take_error()? {
        return Err(err);
    }
    tokio::select! {
        done = messages(&client, &server) => done,
        done = messages(&server, &client) => done,
    }
}

/// One direction, to its end.
async fn messages(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let mut message = vec![0; MESSAGE];
    loop {
        let mut held = 0;
        loop {
            let rest = &mut message[held..];
            let (bytes, flags) =
                from.async_io(Interest::READABLE, || Ok(receive(from, rest)?)).await?;
            if bytes == 0 {
                return Ok(());
            }
            held += bytes;
            if flags.contains(ReturnFlags::EOR) || held == message.len() {
                break;
            }
        }
        to.async_io(Interest::WRITABLE, || Ok(send(to, &message[..held], SendFlags::NOSIGNAL)?))
            .await?;
    }
}

fn receive(from: &TcpStream, into: &mut [u8]) -> rustix::io::Result<(usize, ReturnFlags)> {
    let mut none = RecvAncillaryBuffer::default();
    let into = &mut [io::IoSliceMut::new(into)];
    let received = recvmsg(from, into, &mut none, RecvFlags::empty())?;
    Ok((received.bytes, received.flags))
}

/// A client of a datagram port, and which of our addresses it talks to.
type Client = (SocketAddr, Option<Local>);

/// Whose answers go to whom.
struct Session {
    socket: Arc<UdpSocket>,
    /// Milliseconds after the beginning.
    heard: AtomicU64,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

struct Sessions {
    listener: Arc<UdpSocket>,
    target: SocketAddr,
    began: Instant,
    by_client: Mutex<HashMap<Client, Arc<Session>>>,
}

async fn datagrams(listener: Arc<UdpSocket>, target: SocketAddr, buffer: Arc<Mutex<Vec<u8>>>) {
    let sessions = Arc::new(Sessions {
        listener: Arc::clone(&listener),
        target,
        began: Instant::now(),
        by_client: Mutex::default(),
    });
    loop {
        if listener.readable().await.is_err() {
            return;
        }
        for _ in 0..TOGETHER {
            let mut buffer = lock(&buffer);
            buffer.resize(PIECE, 0);
            let arrived = listener
                .try_io(Interest::READABLE, || datagram::receive(listener.as_fd(), &mut buffer));
            match arrived {
                Ok(arrival) => sessions.carry((arrival.from, arrival.at), &buffer[..arrival.bytes]),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                // An answer that did not reach its client is told here.
                Err(_) => {}
            }
        }
        tokio::task::yield_now().await;
    }
}

impl Sessions {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A datagram that cannot be carried is lost, as datagrams are.
    fn carry(self: &Arc<Self>, client: Client, bytes: &[u8]) {
        if let Ok(session) = self.session(client) {
            session.heard.store(self.now(), Ordering::Relaxed);
            // Of a socket that was just made the runtime does not know yet that it can be written to.
            let _lost = send(&session.socket, bytes, SendFlags::NOSIGNAL);
        }
    }

    fn session(self: &Arc<Self>, client: Client) -> io::Result<Arc<Session>> {
        let mut by_client = lock(&self.by_client);
        if let Some(session) = by_client.get(&client) {
            return Ok(Arc::clone(session));
        }
        if by_client.len() >= CLIENTS {
            let heard = |session: &Arc<Session>| session.heard.load(Ordering::Relaxed);
            let quietest = by_client.iter().min_by_key(|(_, one)| heard(one)).map(|(one, _)| *one);
            quietest.and_then(|client| by_client.remove(&client));
        }
        let any: IpAddr = match self.target {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.connect(self.target)?;
        socket.set_nonblocking(true)?;
        let session = Arc::new(Session {
            socket: Arc::new(UdpSocket::from_std(socket)?),
            heard: AtomicU64::new(self.now()),
            task: Mutex::default(),
        });
        let task = tokio::spawn(Arc::clone(self).answer(client, Arc::downgrade(&session)));
        *lock(&session.task) = Some(task);
        by_client.insert(client, Arc::clone(&session));
        Ok(session)
    }

    /// Carries answers back, until nothing has been said for a while.
    async fn answer(self: Arc<Self>, client: Client, session: std::sync::Weak<Session>) {
        let Some(socket) = session.upgrade().map(|session| Arc::clone(&session.socket)) else {
            return;
        };
        let silence = u64::try_from(SILENCE.as_millis()).unwrap_or(u64::MAX);
        loop {
            if timeout(SILENCE, socket.readable()).await.is_ok() {
                let mut buffer = [0; 2048];
                if let Some(session) = session.upgrade() {
                    session.heard.store(self.now(), Ordering::Relaxed);
                }
                self.send_answers(&socket, client, &mut buffer).await;
                continue;
            }
            let heard = session.upgrade().map(|session| session.heard.load(Ordering::Relaxed));
            if heard.is_none_or(|heard| heard + silence <= self.now()) {
                // Dropped last: it ends this task.
                let _gone = lock(&self.by_client).remove(&client);
                return;
            }
        }
    }

    async fn send_answers(&self, socket: &UdpSocket, client: Client, small: &mut [u8]) {
        for _ in 0..TOGETHER {
            // Most answers are small; the size of a large one is known before it is taken.
            let length = match socket.try_io(Interest::READABLE, || {
                Ok(recv(socket, &mut small[..], RecvFlags::PEEK | RecvFlags::TRUNC)?.1)
            }) {
                Ok(length) => length,
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return,
                // The container does not listen: its client is not told, as by any router.
                Err(_) => continue,
            };
            let mut large = Vec::new();
            let buffer = if length > small.len() {
                large.resize(length, 0);
                &mut large[..]
            } else {
                &mut small[..]
            };
            if let Ok(length) = socket.try_recv(buffer) {
                drop(datagram::send(self.listener.as_fd(), &buffer[..length], client.0, client.1));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
