//! The process itself: takes what the daemon gives it, serves on it, and gives it back when asked.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::RecvFlags;
use rustix::net::sockopt::socket_peercred;
use stdx::{Context, Error, Result};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::address::Address;
use super::protocol::{self, Call, Change, Place, Published, Reply, VERSION};
use crate::dns::server::NameServers;
use crate::firewall;
use crate::netlink::Socket;
use crate::proxy::Proxy;

/// So long after the last connection began, what only a beginning needs is given back.
const REST: Duration = Duration::from_secs(5);

/// netd, until nothing is left to do. Its standard input is the socket it listens on.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run() -> Result<()> {
    let failed = || "cannot begin".to_owned();
    rustix::thread::set_name(c"gantry-netd").context(failed)?;
    sys::process::close_all_but(&[]).context(failed)?;
    // A terminal's signals are for the daemon.
    rustix::process::setsid().context(failed)?;
    let listener = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).context(failed)?;
    let null = std::fs::File::open("/dev/null").context(failed)?;
    rustix::stdio::dup2_stdin(&null).context(failed)?;
    open_many_files();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "cannot start netd's loop".to_owned())?;
    runtime.block_on(serve(listener))
}

/// Where the host's own name server can be asked, if it listens on a loopback that is not ours: our second argument.
fn stand_in() -> Option<std::net::IpAddr> {
    std::env::args().nth(2)?.parse().ok()
}

/// Each published port and each connection through it is a descriptor or more.
fn open_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // With fewer it works, too.
    let _refused = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Everything netd has.
struct Desk {
    held: Mutex<Held>,
    servers: Arc<NameServers>,
    proxy: Proxy,
    /// How many are connected, and a word when there may be nobody left.
    connected: Mutex<usize>,
    idle: Notify,
    /// Nobody finds us any more: when those who are connected have gone, nobody will come.
    lost: AtomicBool,
}

#[derive(Default)]
struct Held {
    kept: HashMap<String, OwnedFd>,
    ports: HashMap<Place, Port>,
    retired: bool,
    /// What was ended, and may still be on its way out: its socket is free when it has gone.
    ending: Vec<JoinHandle<()>>,
}

impl Held {
    fn end(&mut self, port: Option<Port>) {
        if let Some(Port { task, .. }) = port {
            task.abort();
            self.ending.push(task);
        }
    }
}

struct Port {
    published: Published,
    socket: OwnedFd,
    task: JoinHandle<()>,
}

async fn serve(listener: OwnedFd) -> Result<()> {
    let failed = || "cannot listen".to_owned();
    rustix::io::ioctl_fionbio(&listener, true).context(failed)?;
    // Of another type than its name says, which nobody who only accepts notices.
    let listener = UnixListener::from_std(listener.into()).context(failed)?;
    let desk = Arc::new(Desk {
        held: Mutex::default(),
        servers: Arc::new(NameServers::new(stand_in())?),
        proxy: Proxy::default(),
        connected: Mutex::new(0),
        idle: Notify::new(),
        lost: AtomicBool::new(false),
    });
    let address = Address::of(std::env::args_os().nth(1));
    let mut rested = false;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                rested = false;
                let (connection, _) = accepted.context(|| "cannot accept".to_owned())?;
                *desk.connected() += 1;
                let desk = Arc::clone(&desk);
                tokio::spawn(async move {
                    // Whoever talks nonsense, or nothing any more, is let go; what it gave us stays.
                    let _over = desk.converse(connection).await;
                    *desk.connected() -= 1;
                    desk.idle.notify_one();
                });
            }
            () = desk.idle.notified() => {
                if desk.is_done() {
                    return Ok(());
                }
            }
            () = address.lost(), if !desk.is_lost() => {
                desk.lost.store(true, Ordering::Relaxed);
                if desk.is_done() {
                    return Ok(());
                }
            }
            () = tokio::time::sleep(REST), if !rested => {
                rested = true;
                sys::memory::trim();
                // What stays mapped is a little more, and nothing else.
                sys::memory::forget_program().unwrap_or_default();
            }
        }
    }
}

impl Desk {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connected(&self) -> MutexGuard<'_, usize> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_done(&self) -> bool {
        let held = self.held();
        let empty = held.kept.is_empty() && held.ports.is_empty() && self.servers.is_empty();
        held.retired || ((empty || self.is_lost()) && *self.connected() == 0)
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    async fn converse(&self, connection: UnixStream) -> io::Result<()> {
        let peer = socket_peercred(&connection)?;
        if peer.uid != rustix::process::geteuid() {
            return Ok(());
        }
        loop {
            let call = connection.async_io(Interest::READABLE, || {
                // Only a message that came needs the room.
                rustix::net::recv(&connection, &mut [0u8; 1][..], RecvFlags::PEEK)?;
                protocol::receive::<Call>(&connection)
            });
            let Some((call, descriptors)) = call.await? else { return Ok(()) };
            let last = matches!(call, Call::Retire);
            let replies = self.answer(call, descriptors);
            let ending = std::mem::take(&mut self.held().ending);
            for task in ending {
                // Aborted, so it has nothing to say.
                let _ended = task.await;
            }
            for (reply, descriptors) in replies {
                let fds: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                connection
                    .async_io(Interest::WRITABLE, || protocol::send(&connection, &reply, &fds))
                    .await?;
            }
            if last {
                return Ok(());
            }
        }
    }

    fn answer(&self, call: Call, descriptors: Vec<OwnedFd>) -> Vec<(Reply, Vec<OwnedFd>)> {
        match call {
            Call::Hello { .. } => {
                let pid = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
                vec![(Reply::Hello { version: VERSION, pid }, Vec::new())]
            }
            Call::Inventory => {
                let held = self.inventory();
                let mut replies = held.unwrap_or_else(|err| vec![(failed(&err), Vec::new())]);
                replies.push((Reply::Done, Vec::new()));
                replies
            }
            Call::Change(changes) => {
                let mut descriptors = descriptors.into_iter();
                let done = changes.into_iter().try_for_each(|change| {
                    let own: Vec<_> = descriptors.by_ref().take(change.descriptors()).collect();
                    self.change(change, own)
                });
                let reply = done.map_or_else(|err| failed(&err), |()| Reply::Done);
                vec![(reply, Vec::new())]
            }
            Call::Retire => {
                let mut held = self.held();
                held.kept.clear();
                for port in std::mem::take(&mut held.ports).into_values() {
                    held.end(Some(port));
                }
                held.ending.extend(self.servers.close_all());
                held.retired = true;
                vec![(Reply::Done, Vec::new())]
            }
        }
    }

    fn inventory(&self) -> Result<Vec<(Reply, Vec<OwnedFd>)>> {
        let copy = |fd: &OwnedFd| fd.try_clone().context(|| "cannot give back".to_owned());
        let held = self.held();
        let mut replies = Vec::new();
        for (name, fd) in &held.kept {
            replies.push((Reply::Held(Change::Keep(name.clone())), vec![copy(fd)?]));
        }
        for (sandbox, sockets) in self.servers.list() {
            replies.push((
                Reply::Held(Change::Serve(sandbox)),
                vec![copy(&sockets.0)?, copy(&sockets.1)?],
            ));
        }
        for port in held.ports.values() {
            let change = Change::Publish(port.published.clone());
            replies.push((Reply::Held(change), vec![copy(&port.socket)?]));
        }
        Ok(replies)
    }

    fn end(&self, place: Place) {
        let mut held = self.held();
        let port = held.ports.remove(&place);
        held.end(port);
    }

    fn change(&self, change: Change, descriptors: Vec<OwnedFd>) -> Result<()> {
        let mut descriptors = descriptors.into_iter();
        let mut descriptor =
            || descriptors.next().ok_or_else(|| Error::invalid("a change without its descriptor"));
        match change {
            Change::Publish(published) => {
                let socket = descriptor()?;
                // Not both at once: they would take connections from each other.
                self.end(published.place);
                let copy = socket.try_clone().context(|| "cannot serve a port".to_owned())?;
                let task = self
                    .proxy
                    .serve(copy, published.place, published.target)
                    .context(|| "cannot serve a port".to_owned())?;
                let port = Port { socket, task, published };
                self.held().ports.insert(port.published.place, port);
            }
            Change::Unpublish(place) => self.end(place),
            Change::Serve(sandbox) => {
                let (udp, tcp) = (descriptor()?, descriptor()?);
                let before = self.servers.serve(sandbox, udp, tcp)?;
                self.held().ending.extend(before);
            }
            Change::Reseat(sandbox) => self.servers.reseat(sandbox),
            Change::Close(id) => {
                let ending = self.servers.close(&id);
                self.held().ending.extend(ending);
            }
            Change::Zone { id, name } => self.servers.zones().add(id, name),
            Change::ForgetZone(id) => self.servers.zones().forget(&id),
            Change::Join { zone, member } => self.servers.zones().join(&zone, member),
            Change::Leave { zone, member } => self.servers.zones().leave(&zone, &member),
            Change::Aside => self.servers.zones().aside(),
            Change::Swap => self.servers.zones().swap(),
            Change::Keep(name) => {
                let fd = descriptor()?;
                if name == firewall::KEPT {
                    let copy = fd.try_clone().context(|| "cannot use a descriptor".to_owned())?;
                    self.servers.opener().own(Socket::shared(copy));
                }
                self.held().kept.insert(name, fd);
            }
            Change::Drop(name) => drop(self.held().kept.remove(&name)),
        }
        Ok(())
    }
}

fn failed(err: &Error) -> Reply {
    Reply::Failed(err.chain())
}
