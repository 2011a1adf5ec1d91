//! The process outside: has the namespaces and the link, and gives sockets of the host to who asks from within.
//!
//! One thread and one loop. It ends when nobody is connected and nobody lives in the namespaces but what it put there.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, accept_with, socket_with};
use stdx::{Context, Error, Result};

use crate::link::{self, Link, Program};
use crate::protocol::{self, Call, Reply, SOCKET, Settings};
use crate::record::{Process, Record};
use crate::{namespaces, program};

/// How long it waits for the first who asks.
const FIRST: Duration = Duration::from_secs(10);
/// Between attempts to have a link again.
const AGAIN: Duration = Duration::from_secs(1);
const LINK_PID: &str = "link.pid";
const LINK_LOG: &str = "link.log";

/// The hat: `args` are the program's, the second of which is its [`Settings`]. Its standard input is the socket it listens
/// on.
pub fn main(args: &[std::ffi::OsString]) -> ExitCode {
    let settings = args.get(1).and_then(|text| serde_json::from_str(text.to_str()?).ok());
    match settings.map(run) {
        Some(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn run(settings: Settings) -> Result<()> {
    let failed = || "cannot begin".to_owned();
    rustix::thread::set_name(c"gantry-outside").context(failed)?;
    sys::process::close_all_but(&[]).context(failed)?;
    // A terminal's signals are for the daemon.
    rustix::process::setsid().context(failed)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let listener = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).context(failed)?;
    let null = File::open("/dev/null").context(failed)?;
    rustix::stdio::dup2_stdin(&null).context(failed)?;
    match Keeper::open(settings) {
        Ok(keeper) => keeper.serve(&listener),
        Err(error) => tell(&listener, &error),
    }
}

/// Says why there is nothing to join, to the one who waits to hear it.
fn tell(listener: &OwnedFd, error: &Error) -> Result<()> {
    let mut ready = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut ready, Some(&timespec(FIRST))).context(|| "cannot wait".to_owned())?;
    let client =
        accept_with(listener, SocketFlags::CLOEXEC).context(|| "nobody asks".to_owned())?;
    let _call: Option<(Call, _)> =
        protocol::receive(&client).context(|| "nobody asks".to_owned())?;
    protocol::send(&client, &failed(error), &[]).context(|| "nobody listens".to_owned())
}

fn failed(error: &Error) -> Reply {
    Reply::Failed { sentence: error.chain(), errno: error.errno() }
}

struct Keeper {
    settings: Settings,
    anchor: Process,
    anchor_hold: OwnedFd,
    /// User, mount, network.
    namespaces: Vec<OwnedFd>,
    link: Wanted,
    clients: Vec<OwnedFd>,
}

/// The link, as far as there is one.
enum Wanted {
    Nothing,
    Running(Process, OwnedFd),
    /// It has ended, and another is started soon.
    Missing,
}

impl Keeper {
    /// Finds what a predecessor left, and makes what is missing.
    fn open(settings: Settings) -> Result<Self> {
        let chosen = link::choose(settings.link, &settings.path)?;
        let record = Record::read(&settings.dir);
        if let Some((anchor, hold)) =
            record.anchor.and_then(|anchor| Some((anchor, anchor.open()?)))
        {
            let namespaces = namespaces::of(anchor.pid)?;
            let link = match record.link.and_then(|link| Some((link, link.open()?))) {
                Some((process, hold)) => Wanted::Running(process, hold),
                None if chosen.is_none() => Wanted::Nothing,
                None => Wanted::Missing,
            };
            return Ok(Self {
                settings,
                anchor,
                anchor_hold: hold,
                namespaces,
                link,
                clients: Vec::new(),
            });
        }
        let anchor = Process::of(namespaces::make(&settings.path)?)?;
        let hold = anchor.open().context(|| "the anchor has gone".to_owned())?;
        let furnished = || -> Result<_> {
            let link = match chosen {
                None => Wanted::Nothing,
                Some(chosen) => {
                    let (process, hold) = start_link(&settings, chosen, anchor)?;
                    Wanted::Running(process, hold)
                }
            };
            Ok((namespaces::of(anchor.pid)?, link))
        };
        let (namespaces, link) = furnished().inspect_err(|_| namespaces::end(&hold))?;
        let keeper =
            Self { settings, anchor, anchor_hold: hold, namespaces, link, clients: Vec::new() };
        keeper.write_down()?;
        Ok(keeper)
    }

    fn write_down(&self) -> Result<()> {
        let link = match &self.link {
            Wanted::Running(process, _) => Some(*process),
            Wanted::Nothing | Wanted::Missing => None,
        };
        Record { anchor: Some(self.anchor), link }.write(&self.settings.dir)
    }

    fn serve(mut self, listener: &OwnedFd) -> Result<()> {
        let mut visited = false;
        let mut resident: Option<OwnedFd> = None;
        loop {
            if self.clients.is_empty() && visited && resident.is_none() {
                resident = self.resident();
                if resident.is_none() {
                    self.end();
                    return Ok(());
                }
            }
            let mut watched = vec![PollFd::new(listener, PollFlags::IN)];
            watched.extend(self.clients.iter().map(|client| PollFd::new(client, PollFlags::IN)));
            let link_at = watched.len();
            if let Wanted::Running(_, hold) = &self.link {
                watched.push(PollFd::new(hold, PollFlags::IN));
            }
            let resident_at = watched.len();
            watched.extend(resident.iter().map(|hold| PollFd::new(hold, PollFlags::IN)));
            let patience = match (&self.link, visited) {
                (Wanted::Missing, _) => Some(timespec(AGAIN)),
                (_, false) => Some(timespec(FIRST)),
                _ => None,
            };
            match poll(&mut watched, patience.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.context(|| "cannot wait".to_owned())?,
            };
            let ready: Vec<bool> =
                watched.iter().map(|watched| !watched.revents().is_empty()).collect();
            drop(watched);
            let is_ready = |at: usize| ready.get(at).copied().unwrap_or(false);
            if is_ready(resident_at) {
                resident = None;
            }
            if link_at < resident_at && is_ready(link_at) {
                self.bury_link();
            }
            if matches!(self.link, Wanted::Missing) {
                self.mend_link();
            }
            let talkative: Vec<bool> = (0..self.clients.len()).map(|at| is_ready(at + 1)).collect();
            self.hear(&talkative);
            if is_ready(0)
                && let Ok(client) = accept_with(listener, SocketFlags::CLOEXEC)
            {
                self.clients.push(client);
            }
            // Whoever executed us has not come.
            visited |= !self.clients.is_empty() || !ready.contains(&true);
        }
    }

    /// Answers whoever has asked something, and forgets who has left.
    fn hear(&mut self, talkative: &[bool]) {
        let clients = std::mem::take(&mut self.clients);
        for (client, asks) in
            clients.into_iter().zip(talkative.iter().chain(std::iter::repeat(&false)))
        {
            if !asks || self.converse(&client).is_ok() {
                self.clients.push(client);
            }
        }
    }

    fn converse(&self, client: &OwnedFd) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
        if socket_peercred(client)?.uid != rustix::process::getuid() {
            return Err(gone());
        }
        let (call, _) = protocol::receive::<Call>(client)?.ok_or_else(gone)?;
        match call {
            Call::Hello => {
                let pid = rustix::process::getpid().as_raw_nonzero().get();
                let dns = (!matches!(self.link, Wanted::Nothing)).then_some(link::DNS);
                let fds: Vec<_> = self.namespaces.iter().map(AsFd::as_fd).collect();
                let reply = Reply::Hello { pid, anchor: self.anchor.pid, dns };
                protocol::send(client, &reply, &fds)
            }
            Call::Socket { family, kind, protocol } => match socket(family, kind, protocol) {
                Ok(socket) => protocol::send(client, &Reply::Socket, &[socket.as_fd()]),
                Err(errno) => {
                    let errno = Some(errno.raw_os_error());
                    let sentence = "cannot make a socket".to_owned();
                    protocol::send(client, &Reply::Failed { sentence, errno }, &[])
                }
            },
            Call::FirstPort => {
                let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
                let port = text.unwrap_or_default().trim().parse().unwrap_or(1024);
                protocol::send(client, &Reply::Port(port), &[])
            }
            Call::Lookup { host } => {
                let client = client.try_clone()?;
                let answer = move || {
                    // Whoever asked may have left.
                    let _gone = protocol::send(&client, &lookup(&host), &[]);
                };
                std::thread::Builder::new().name("lookup".to_owned()).spawn(answer).map(drop)
            }
        }
    }

    /// A hold on somebody who needs us still.
    fn resident(&self) -> Option<OwnedFd> {
        let mut ours = vec![self.anchor.pid];
        if let Wanted::Running(process, _) = &self.link {
            ours.push(process.pid);
        }
        loop {
            let pid = namespaces::resident(self.namespaces.first()?, &ours)?;
            // Gone meanwhile: perhaps there is another.
            if let Some(hold) = Process::of(pid).ok().and_then(Process::open) {
                return Some(hold);
            }
        }
    }

    fn bury_link(&mut self) {
        if let Wanted::Running(_, hold) = std::mem::replace(&mut self.link, Wanted::Missing) {
            namespaces::reap(&hold);
        }
    }

    /// Tries to have a link again; the caller comes back as long as there is none.
    fn mend_link(&mut self) {
        let started = link::choose(self.settings.link, &self.settings.path).and_then(|chosen| {
            chosen.map(|chosen| start_link(&self.settings, chosen, self.anchor)).transpose()
        });
        match started {
            Ok(Some((process, hold))) => {
                self.link = Wanted::Running(process, hold);
                // Who comes after us starts another beside it, which fails and is tried again.
                let _unwritten = self.write_down();
            }
            Ok(None) => self.link = Wanted::Nothing,
            Err(_) => {}
        }
    }

    /// Nobody is left: what was made goes, the anchor last.
    fn end(self) {
        let dir = &self.settings.dir;
        for file in [SOCKET, LINK_PID, LINK_LOG] {
            // Some were never there.
            let _gone = std::fs::remove_file(dir.join(file));
        }
        Record::remove(dir);
        if let Wanted::Running(_, hold) = &self.link {
            namespaces::end(hold);
        }
        namespaces::end(&self.anchor_hold);
    }
}

fn lookup(host: &str) -> Reply {
    use std::net::ToSocketAddrs;
    match (host, 0).to_socket_addrs() {
        Ok(found) => Reply::Addresses(found.map(|address| address.ip()).collect()),
        Err(error) => Reply::Failed { sentence: error.to_string(), errno: error.raw_os_error() },
    }
}

fn socket(family: u16, kind: u32, protocol: u32) -> rustix::io::Result<OwnedFd> {
    let protocol = std::num::NonZeroU32::new(protocol).map(Protocol::from_raw);
    let (family, kind) = (AddressFamily::from_raw(family), SocketType::from_raw(kind));
    match family {
        AddressFamily::INET | AddressFamily::INET6 => {
            socket_with(family, kind, SocketFlags::CLOEXEC, protocol)
        }
        _ => Err(rustix::io::Errno::AFNOSUPPORT),
    }
}

/// Starts one, and returns when packets pass.
fn start_link(
    settings: &Settings,
    (program, path): (Program, std::path::PathBuf),
    anchor: Process,
) -> Result<(Process, OwnedFd)> {
    let routes = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let link = Link {
        program,
        path,
        mtu: settings.mtu.unwrap_or(link::MTU),
        host_loopback: settings.host_loopback,
        ipv6: link::has_ipv6(&routes),
    };
    let name = link.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let log_path = settings.dir.join(LINK_LOG);
    let started = match program {
        Program::Pasta => start_pasta(settings, &link, anchor, &log_path),
        Program::Slirp4netns => start_slirp4netns(settings, &link, anchor, &log_path),
    };
    started.map_err(|error| {
        let log = std::fs::read(&log_path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        match program::last_words(&log) {
            "" => Error::internal(format!("cannot start {name}")).caused_by(error),
            words => Error::internal(format!("cannot start {name}: {words}")),
        }
    })
}

/// It goes to the background by itself, once everything is in place.
fn start_pasta(
    settings: &Settings,
    link: &Link,
    anchor: Process,
    log: &Path,
) -> Result<(Process, OwnedFd)> {
    let pid_file = settings.dir.join(LINK_PID);
    let failed = || "it cannot be executed".to_owned();
    let status = program::command(&link.path, &settings.path)
        .args(link.args(anchor.pid, &pid_file.display().to_string(), 1))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(log).context(failed)?)
        .status()
        .context(failed)?;
    if !status.success() {
        return Err(Error::internal(status.to_string()));
    }
    let text = std::fs::read_to_string(&pid_file).context(|| "it wrote no number".to_owned())?;
    held(text.trim().parse().map_err(|_| Error::internal("it wrote no number"))?)
}

/// A child of ours; it says when it is ready.
fn start_slirp4netns(
    settings: &Settings,
    link: &Link,
    anchor: Process,
    log: &Path,
) -> Result<(Process, OwnedFd)> {
    let failed = || "it cannot be executed".to_owned();
    let (ready, word) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context(failed)?;
    sys::fd::keep_on_exec(&word).context(failed)?;
    let log = File::create(log).context(failed)?;
    let child = program::command(&link.path, &settings.path)
        .args(link.args(anchor.pid, "", sys::fd::number(word.as_fd())))
        .stdin(Stdio::null())
        .stdout(log.try_clone().context(failed)?)
        .stderr(log)
        .spawn()
        .context(failed)?;
    drop(word);
    let held = held(child.id().cast_signed())?;
    let device = CString::new(link::DEVICE).expect("a name has no zero in it");
    let finish = || match rustix::io::read(&ready, &mut [0; 1]) {
        Ok(1) if link.ipv6 => namespaces::within(anchor.pid, || {
            sys::net::way_out6(&device, link::ADDRESS6, link::PREFIX6, link::GATEWAY6)
        }),
        Ok(1) => Ok(()),
        _ => Err(Error::internal("it ended before it was ready")),
    };
    match finish() {
        Ok(()) => Ok(held),
        Err(error) => {
            namespaces::end(&held.1);
            Err(error)
        }
    }
}

fn held(pid: i32) -> Result<(Process, OwnedFd)> {
    let process = Process::of(pid)?;
    let hold = process.open().context(|| "it has ended".to_owned())?;
    Ok((process, hold))
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() }
}
