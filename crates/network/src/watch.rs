//! Listens to what others do to the host's network, on one thread, and has ours looked at.

use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::pipe::{PipeFlags, pipe_with};
use stdx::{Context, Result};

/// Others change many things at once: we look when they have been quiet for a moment, or after a longer one.
const QUIET: Duration = Duration::from_millis(30);
const PATIENCE: Duration = Duration::from_millis(200);

/// Can what is told here matter to us?
type Concerns = dyn Fn(&[u8]) -> bool + Send;

/// A netlink socket that tells of changes.
pub(crate) struct Source {
    pub(crate) news: OwnedFd,
    pub(crate) concerns: Box<Concerns>,
    pub(crate) changed: Box<dyn Fn() + Send>,
}

/// Watches until it is dropped.
pub(crate) struct Monitor {
    /// Closed to stop.
    stop: Option<OwnedFd>,
    watcher: Option<JoinHandle<()>>,
}

impl Monitor {
    pub(crate) fn start(sources: Vec<Source>) -> Result<Self> {
        let failed = || "cannot watch the host's network".to_owned();
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC).context(failed)?;
        let watcher = thread::Builder::new()
            .name("network-monitor".to_owned())
            .spawn(move || watch(&sources, &stopped))
            .context(failed)?;
        Ok(Self { stop: Some(stop), watcher: Some(watcher) })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop = None;
        // The last to hold the networks may be the watcher itself.
        let other = |watcher: &JoinHandle<()>| watcher.thread().id() != thread::current().id();
        if let Some(Err(_)) = self.watcher.take().filter(other).map(JoinHandle::join) {
            tracing::error!("the network's monitor has panicked");
        }
    }
}

/// What is to be looked at: since when, and when it was last told of.
#[derive(Clone, Copy)]
struct Concern {
    first: Instant,
    last: Instant,
}

impl Concern {
    fn time_left(self) -> Duration {
        QUIET.saturating_sub(self.last.elapsed()).min(PATIENCE.saturating_sub(self.first.elapsed()))
    }
}

fn watch(sources: &[Source], stopped: &OwnedFd) {
    let mut buffer = vec![0; 64 * 1024];
    let mut concerns: Vec<Option<Concern>> = vec![None; sources.len()];
    loop {
        let patience = concerns.iter().flatten().map(|concern| concern.time_left()).min();
        let patience = patience.map(|time| Timespec {
            tv_sec: time.as_secs().cast_signed(),
            tv_nsec: time.subsec_nanos().into(),
        });
        let mut polled = vec![PollFd::new(stopped, PollFlags::IN)];
        polled.extend(sources.iter().map(|source| PollFd::new(&source.news, PollFlags::IN)));
        match poll(&mut polled, patience.as_ref()) {
            Err(Errno::INTR) => continue,
            Err(err) => return tracing::error!(%err, "the host's network is not watched any more"),
            Ok(_) if !polled[0].revents().is_empty() => return,
            Ok(_) => {}
        }
        let spoke: Vec<bool> = polled[1..].iter().map(|fd| !fd.revents().is_empty()).collect();
        for ((source, concern), spoke) in sources.iter().zip(&mut concerns).zip(spoke) {
            if spoke {
                let matters = match recv(&source.news, &mut buffer[..], RecvFlags::DONTWAIT) {
                    Ok((length, _)) => (source.concerns)(&buffer[..length.min(buffer.len())]),
                    // More happened than the socket could hold.
                    Err(Errno::NOBUFS) => true,
                    Err(Errno::INTR | Errno::AGAIN) => false,
                    Err(err) => {
                        return tracing::error!(%err, "the host's network is not watched any more");
                    }
                };
                if matters {
                    let now = Instant::now();
                    concern.get_or_insert(Concern { first: now, last: now }).last = now;
                }
            }
            if concern.is_some_and(|concern| concern.time_left().is_zero()) {
                *concern = None;
                (source.changed)();
            }
        }
    }
}
