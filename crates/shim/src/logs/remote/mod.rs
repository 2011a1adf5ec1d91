//! Drivers whose servers speak TLS, HTTP or anything else that takes time: each in a process of its own, forked by the
//! shim for the containers that have such a driver and for no other.
//!
//! The shim gives records to a socket, as it gives datagrams to a local log server: what that does not take waits in the
//! [`Outbox`](super::outbox::Outbox), and then the container does, or records are dropped. What happens behind the socket
//! (a handshake, a retry, a batch of five seconds) keeps neither the container's streams nor its end waiting, and a driver
//! that dies is begun anew.

mod aws;
mod drivers;
mod fluentd;
mod frame;
mod gcp;
mod gelf;
mod json;
mod msgpack;
mod options;
mod plugin;
mod splunk;
mod syslog;
mod wire;

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

pub(super) use aws::most_messages;
pub(super) use drivers::check;
pub(super) use fluentd::never_waits;
pub(super) use frame::encode;
use frame::{Message, Parts};
pub use plugin::{Reader as PluginReader, Stopper};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use stdx::{Error, Result};
use sys::process::Fork;

use super::Config;
use super::lines::LONGEST;

/// How long a driver may go on when its container has ended.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long the first connection may take, with all that a driver does before it is ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// Records between two looks at the clock.
const TURN: usize = 256;

/// What a driver's process says to its shim.
const READY: u8 = b'r';
const FAILED: u8 = b'f';
const LOST: u8 = b'l';

/// One way to a server. Each may block for as long as its options say: what waits then is its container, or nobody.
trait Driver {
    fn log(&mut self, message: &Message<'_>);

    /// When there is something to do without a record.
    fn due(&self) -> Option<Instant> {
        None
    }

    fn tick(&mut self) {}

    /// There will be no more.
    fn close(&mut self) {}

    /// Records that went nowhere since this was last asked.
    fn take_lost(&mut self) -> u64 {
        0
    }
}

/// Begins a driver; answers the socket that takes its records.
pub(super) fn begin(config: &Config) -> std::io::Result<OwnedFd> {
    let (ours, theirs) = sys::socket::pair()?;
    match sys::process::fork()? {
        Fork::Parent { .. } => Ok(ours),
        Fork::Child => {
            // The container's streams and clients are not its to hold, and a panic must not climb into the shim's loop.
            let done = std::panic::catch_unwind(|| live(&theirs, config));
            sys::process::exit_now(i32::from(!matches!(done, Ok(Ok(())))))
        }
    }
}

/// Waits for a driver that has just begun.
pub(super) fn is_ready(socket: &OwnedFd) -> Result<()> {
    let dead = || Error::unavailable("the logging driver's process has ended");
    if !wait(socket, PollFlags::IN, Some(PATIENCE)) {
        return Err(Error::unavailable("i/o timeout"));
    }
    let mut bytes = vec![0; 16 * 1024];
    let (count, _) = rustix::net::recv(socket, &mut bytes[..], RecvFlags::empty())?;
    match bytes.get(..count) {
        Some([READY, ..]) => Ok(()),
        Some([FAILED, words @ ..]) => {
            Err(Error::unavailable(String::from_utf8_lossy(words).into_owned()))
        }
        _ => Err(dead()),
    }
}

/// The records that a driver says it has lost.
pub(super) fn lost(word: &[u8]) -> u64 {
    match word {
        [LOST, count @ ..] => count.try_into().map_or(0, u64::from_le_bytes),
        _ => 0,
    }
}

/// The life of the process.
fn live(socket: &OwnedFd, config: &Config) -> std::io::Result<()> {
    sys::process::close_all_but(&[socket.as_fd()])?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    sys::fd::install_stdio(null.as_fd(), null.as_fd(), null.as_fd())?;
    drop(null);
    rustix::thread::set_name(c"gantry-log")?;
    serve(socket, config);
    Ok(())
}

fn serve(socket: &OwnedFd, config: &Config) {
    let shim = Shim { socket, ends: Cell::new(None) };
    let mut driver = match drivers::open(config, &shim) {
        Ok(driver) => driver,
        Err(error) => return shim.tell(FAILED, error.chain().as_bytes()),
    };
    shim.tell(READY, &[]);
    let mut parts = [Parts::default(), Parts::default()];
    let mut bytes = vec![0; LONGEST + frame::HEAD];
    loop {
        let now = Instant::now();
        let left = driver.due().map(|due| due.saturating_duration_since(now));
        if left == Some(Duration::ZERO) {
            driver.tick();
        } else {
            wait(socket, PollFlags::IN, left);
        }
        let over = (0..TURN).find_map(|_| {
            match rustix::net::recv(socket, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((count, _)) if count > 0 => {
                    if let Some(frame) = frame::decode(&bytes[..count]) {
                        let part = parts[frame.part_index()].next(frame.ended);
                        driver.log(&frame.message(part.as_ref()));
                    }
                    None
                }
                Err(Errno::INTR) => None,
                Err(Errno::AGAIN) => Some(false),
                Ok(_) | Err(_) => Some(true),
            }
        });
        let lost = driver.take_lost();
        if lost > 0 {
            shim.tell(LOST, &lost.to_le_bytes());
        }
        if over == Some(true) {
            shim.ends();
            return driver.close();
        }
    }
}

/// The process whose records these are.
struct Shim<'a> {
    socket: &'a OwnedFd,
    /// When what is left must be given up: the container has ended.
    ends: Cell<Option<Instant>>,
}

impl Shim<'_> {
    fn tell(&self, kind: u8, words: &[u8]) {
        let mut message = vec![kind];
        message.extend_from_slice(&words[..words.len().min(8192)]);
        // One that is gone needs not to know.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _gone = rustix::net::send(self.socket, &message, flags);
    }

    fn ends(&self) -> Option<Instant> {
        if self.ends.get().is_none() && wait(self.socket, PollFlags::RDHUP, Some(Duration::ZERO)) {
            self.ends.set(Some(Instant::now() + FAREWELL));
        }
        self.ends.get()
    }

    /// Whether it is worth to try again.
    fn goes_on(&self) -> bool {
        self.ends().is_none_or(|ends| Instant::now() < ends)
    }

    /// A time between two attempts; shorter where the container ends meanwhile.
    fn pause(&self, pause: Duration) {
        match self.ends() {
            None => drop(wait(self.socket, PollFlags::RDHUP, Some(pause))),
            Some(ends) => {
                let left = ends.saturating_duration_since(Instant::now());
                let _slept = poll(&mut [], Timespec::try_from(pause.min(left)).ok().as_ref());
            }
        }
    }

    /// The end of what may take so long.
    fn deadline(&self, most: Duration) -> Instant {
        let end = Instant::now() + most;
        self.ends().map_or(end, |ends| ends.min(end))
    }
}

/// Whether the socket became so in time.
fn wait(socket: impl AsFd, flags: PollFlags, patience: Option<Duration>) -> bool {
    let timeout = patience.and_then(|patience| {
        // Rounded up, so that what was waited for is due.
        Timespec::try_from(patience + Duration::from_micros(u64::from(!patience.is_zero()))).ok()
    });
    matches!(poll(&mut [PollFd::new(&socket, flags)], timeout.as_ref()), Ok(1))
}
