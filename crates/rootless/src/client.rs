//! The daemon's half: finds the process outside or executes it, joins its namespaces, and asks it for sockets.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType};
use stdx::{Context, Error, Result};
use sys::socket::{connect_in, listen_in};

use crate::namespaces::KINDS;
use crate::protocol::{self, Call, NAME, Reply, SOCKET, Settings};

/// Longer than it takes to make everything, a slow link included.
const DEADLINE: Duration = Duration::from_secs(30);

/// The process outside, as seen from within.
#[derive(Debug)]
pub struct Outside {
    dir: PathBuf,
    socket: Mutex<OwnedFd>,
    dns: Option<IpAddr>,
}

/// Moves this process, which must have one thread, into the namespaces of its user; makes them if there are none. Whoever
/// calls has `settings.dir` to himself.
pub fn enter(program: &Path, settings: &Settings) -> Result<Outside> {
    let found = connect_to(&settings.dir).ok().and_then(|socket| {
        let joined = hello(&socket).ok()?;
        Some((socket, joined))
    });
    let (socket, (namespaces, dns)) = match found {
        Some(found) => found,
        None => {
            let socket = execute(program, settings)?;
            let joined = hello(&socket)?;
            (socket, joined)
        }
    };
    for ((kind, flag), namespace) in KINDS.iter().zip(&namespaces) {
        sys::ns::setns(namespace.as_fd(), *flag)
            .context(|| format!("cannot join the {kind} namespace"))?;
    }
    Ok(Outside { dir: settings.dir.clone(), socket: Mutex::new(socket), dns })
}

impl Outside {
    /// Where the host's name server can be asked from within, if it listens on the host's loopback.
    pub fn dns(&self) -> Option<IpAddr> {
        self.dns
    }

    /// A socket of the host's network. The kernel lets it bind what the user may.
    pub fn socket(
        &self,
        family: AddressFamily,
        kind: SocketType,
        flags: SocketFlags,
        protocol: Option<Protocol>,
    ) -> io::Result<OwnedFd> {
        let protocol = protocol.map_or(0, |protocol| protocol.as_raw().get());
        let call = Call::Socket { family: family.as_raw(), kind: kind.as_raw(), protocol };
        match self.ask(&call)? {
            (Reply::Socket, fds) => {
                let socket = fds.into_iter().next().ok_or_else(|| io::Error::other("no socket"))?;
                if flags.contains(SocketFlags::NONBLOCK) {
                    rustix::io::ioctl_fionbio(&socket, true)?;
                }
                Ok(socket)
            }
            (Reply::Failed { errno: Some(errno), .. }, _) => {
                Err(io::Error::from_raw_os_error(errno))
            }
            (other, _) => Err(io::Error::other(format!("unexpected answer {other:?}"))),
        }
    }

    /// The first port that a user may bind on the host.
    pub fn first_port(&self) -> io::Result<u16> {
        match self.ask(&Call::FirstPort)?.0 {
            Reply::Port(port) => Ok(port),
            other => Err(io::Error::other(format!("unexpected answer {other:?}"))),
        }
    }

    /// The addresses of a name, as the host's programs see it.
    pub fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let socket = connect_to(&self.dir)?;
        protocol::send(&socket, &Call::Lookup { host: host.to_owned() }, &[])?;
        match protocol::receive(&socket)?.ok_or(io::ErrorKind::UnexpectedEof)? {
            (Reply::Addresses(found), _) => Ok(found),
            (Reply::Failed { sentence, .. }, _) => Err(io::Error::other(sentence)),
            (other, _) => Err(io::Error::other(format!("unexpected answer {other:?}"))),
        }
    }

    fn ask(&self, call: &Call) -> io::Result<(Reply, Vec<OwnedFd>)> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = |cause: io::Error| {
            io::Error::new(
                cause.kind(),
                format!(
                    "cannot reach {NAME}, which has the host's sockets; a daemon that is started anew finds or makes it \
                     ({cause})"
                ),
            )
        };
        protocol::send(&*socket, call, &[]).map_err(lost)?;
        let answer = protocol::receive(&*socket).map_err(lost)?;
        answer.ok_or_else(|| lost(io::ErrorKind::UnexpectedEof.into()))
    }
}

type Joined = (Vec<OwnedFd>, Option<IpAddr>);

fn hello(socket: &OwnedFd) -> Result<Joined> {
    let words = || format!("{NAME} does not answer");
    protocol::send(socket, &Call::Hello, &[]).context(words)?;
    match protocol::receive(socket).context(words)?.context(words)? {
        (Reply::Hello { dns, .. }, namespaces) if namespaces.len() == KINDS.len() => {
            Ok((namespaces, dns))
        }
        (Reply::Failed { sentence, .. }, _) => Err(Error::internal(sentence)),
        _ => Err(Error::internal(words())),
    }
}

/// Executes it. Its socket is made here, so that whoever connects waits for it instead of failing.
fn execute(program: &Path, settings: &Settings) -> Result<OwnedFd> {
    let failed = || format!("cannot start {NAME}");
    let socket = listen_in(&settings.dir, SOCKET, 16).context(failed)?;
    let told =
        serde_json::to_string(settings).map_err(|err| Error::internal(failed()).caused_by(err))?;
    Command::new(program)
        .arg0(NAME)
        .arg(told)
        .env_clear()
        .current_dir("/")
        .stdin(socket)
        // It outlives whoever reads the daemon's output.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context(failed)?;
    connect_to(&settings.dir).context(failed)
}

fn connect_to(dir: &Path) -> io::Result<OwnedFd> {
    connect_in(dir, SOCKET, DEADLINE)
}
