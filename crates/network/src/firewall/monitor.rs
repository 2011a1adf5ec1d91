//! Notices when somebody else changes the host's rules, and has ours looked at. A table of ours that we own cannot be
//! changed by others; what they do beside it can still stop our packets.

use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::pipe::{PipeFlags, pipe_with};
use stdx::{Context, Result};
use sys::netlink::Protocol;

use super::foreign;
use super::nft::{CHAIN_TABLE, NEW_CHAIN, SUBSYSTEM, text_of};
use crate::netlink::messages;

/// Those who hear of changes to nf_tables: the seventh group.
const TABLES: u32 = 1 << 6;
/// Others change many things at once: we look when they have been quiet for a moment, or after a longer one.
const QUIET: Duration = Duration::from_millis(30);
const PATIENCE: Duration = Duration::from_millis(200);

/// Watches until it is dropped.
pub(crate) struct Monitor {
    /// Closed to stop.
    stop: Option<OwnedFd>,
    watcher: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Calls `changed` on a thread of its own after changes that concern the table, but not after those that the socket
    /// with the number `own` made.
    pub(crate) fn start(
        table: String,
        own: u32,
        changed: impl Fn() + Send + 'static,
    ) -> Result<Self> {
        let failed = || "cannot watch the firewall".to_owned();
        let news = sys::netlink::open(Protocol::Netfilter, TABLES).context(failed)?;
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC).context(failed)?;
        let watcher = thread::Builder::new()
            .name("firewall-monitor".to_owned())
            .spawn(move || watch(&news, &stopped, &table, own, changed))
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
            tracing::error!("the firewall's monitor has panicked");
        }
    }
}

fn watch(news: &OwnedFd, stopped: &OwnedFd, table: &str, own: u32, changed: impl Fn()) {
    let mut buffer = vec![0; 64 * 1024];
    let mut since: Option<Instant> = None;
    loop {
        let patience = since.map(|since| QUIET.min(PATIENCE.saturating_sub(since.elapsed())));
        let patience = patience.map(|time| Timespec {
            tv_sec: time.as_secs().cast_signed(),
            tv_nsec: time.subsec_nanos().into(),
        });
        let mut sources = [PollFd::new(news, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        match poll(&mut sources, patience.as_ref()) {
            Err(Errno::INTR) => continue,
            Err(err) => return tracing::error!(%err, "the firewall is not watched any more"),
            Ok(_) if !sources[1].revents().is_empty() => return,
            Ok(0) => {
                since = None;
                changed();
                continue;
            }
            Ok(_) => {}
        }
        let concerns = match recv(news, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((length, _)) => concerns(&buffer[..length.min(buffer.len())], table, own),
            // More happened than the socket could hold.
            Err(Errno::NOBUFS) => true,
            Err(Errno::INTR | Errno::AGAIN) => false,
            Err(err) => return tracing::error!(%err, "the firewall is not watched any more"),
        };
        if concerns {
            since.get_or_insert_with(Instant::now);
        }
        if since.is_some_and(|since| since.elapsed() >= PATIENCE) {
            since = None;
            changed();
        }
    }
}

/// Whether any of these messages tells of a change that can matter to us.
fn concerns(news: &[u8], table: &str, own: u32) -> bool {
    messages(news).any(|message| {
        let Some(body) = message.body.get(4..) else { return false };
        if message.port == own || message.kind & 0xff00 != SUBSYSTEM {
            return false;
        }
        let concerned = text_of(body, CHAIN_TABLE);
        concerned == table || foreign::concerned(&concerned) || message.kind == NEW_CHAIN
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc::channel;

    use sys::ns::unshare;
    use sys::process::CloneFlags;

    use super::*;
    use crate::netlink::Socket;

    #[test]
    fn others_are_heard_and_we_are_not() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let host = thread::spawn(|| {
            unshare(CloneFlags::NEWNET).unwrap();
            let own = Socket::netfilter().unwrap();
            let (told, changes) = channel();
            let monitor = Monitor::start("gantry".to_owned(), own.port().unwrap(), move || {
                told.send(()).unwrap();
            });
            let nft =
                |words: &str| assert!(Command::new("nft").arg(words).status().unwrap().success());
            nft("add table inet gantry");
            changes.recv().unwrap();
            nft("add table ip filter");
            changes.recv().unwrap();
            nft("add table inet theirs; add set inet theirs s { type ipv4_addr; }");
            nft("add element inet theirs s { 10.0.0.1 }");
            nft("delete table inet gantry");
            changes.recv().unwrap();
            drop(monitor.unwrap());
            assert_eq!(changes.try_iter().count(), 0, "what is theirs is theirs");
        });
        host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}
