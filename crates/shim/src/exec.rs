//! One more process in a container, and what became of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use stdx::time::Timestamp;
use stdx::{Context, Error, Result};
use sys::process::{Fork, exit_now};

use crate::container::Terminal;
use crate::protocol::{AttachOptions, ExecExit, ExecState, Failure};
use crate::stdio::Stdio;
use crate::task::Executed;

/// How long the streams of what has ended are read while somebody else holds them open: a background job that an exec
/// left behind, a descriptor passed out of the container. Docker waits as long.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);

/// Ended execs that are remembered for a daemon that was away.
pub(crate) const REMEMBERED: usize = 256;
/// Execs at a time.
pub(crate) const MOST: usize = 256;

#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) pid: Pid,
    pub(crate) stdio: Stdio,
    phase: Phase,
    /// When its time is over.
    until: Option<Instant>,
    overdue: bool,
}

/// What is asked for, beside the process itself.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) id: String,
    pub(crate) terminal: Terminal,
    pub(crate) client: Option<(AttachOptions, UnixStream)>,
    pub(crate) limit: Option<Duration>,
}

#[derive(Debug)]
enum Phase {
    Running,
    /// It has ended; its streams may have not.
    Draining(Instant),
    /// Only clients that have not taken everything keep it.
    Ended,
}

impl Exec {
    pub(crate) fn new(id: String, pid: Pid, stdio: Stdio, limit: Option<Duration>) -> Self {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        Self { id, pid, stdio, phase: Phase::Running, until, overdue: false }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    pub(crate) fn state(&self) -> ExecState {
        ExecState { id: self.id.clone(), pid: self.pid.as_raw_nonzero().get().unsigned_abs() }
    }

    pub(crate) fn exited(&mut self, code: i32, at: Timestamp) -> ExecExit {
        self.stdio.wait_no_more();
        self.phase = Phase::Draining(Instant::now() + DRAIN);
        ExecExit { id: self.id.clone(), code, at, overdue: self.overdue }
    }

    /// It leads a session of its own, so what it has started goes with it. Our child keeps its number until it is reaped.
    fn kill(&self) {
        let pid = self.pid.as_raw_nonzero().get();
        if sys::signal::kill(-pid, 9).is_err() {
            let _gone = sys::signal::kill(pid, 9);
        }
    }

    /// What time brings. Its output is nobody's log.
    pub(crate) fn tick(&mut self, now: Instant) {
        match self.phase {
            Phase::Draining(until) if self.stdio.is_drained() || now >= until => {
                self.stdio.end(&mut crate::logs::Log::None);
                self.phase = Phase::Ended;
            }
            Phase::Ended => self.stdio.drop_the_stuck(now),
            Phase::Running if self.until.is_some_and(|until| now >= until) => {
                self.until = None;
                self.overdue = true;
                self.kill();
            }
            Phase::Running | Phase::Draining(_) => {}
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running => self.until,
            Phase::Draining(until) => Some(until),
            Phase::Ended => self.stdio.next_deadline(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended) && !self.stdio.has_clients()
    }
}

/// Which connection waits for an answer.
pub(crate) type Asker = u64;

/// An exec on its way. Joining a container takes as long as the container lets it (a CPU limit, a file system that hangs),
/// so a helper does it: a copy of the shim that says what came of it and ends. As the shim is a subreaper, the process
/// is its child then.
#[derive(Debug)]
pub(crate) struct Starting {
    pub(crate) id: String,
    asker: Asker,
    limit: Option<Duration>,
    stdio: Stdio,
    helper: OwnedFd,
    channel: OwnedFd,
}

/// What the helper says; the terminal's master comes as a descriptor.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    Started { pid: i32 },
    Failed(Failure),
}

/// A runtime's longest complaint and its surroundings.
const MOST_WORDS: usize = 64 * 1024;

impl Starting {
    pub(crate) fn begin(
        asker: Asker,
        (id, limit): (String, Option<Duration>),
        stdio: Stdio,
        work: impl FnOnce() -> Result<Executed, Failure>,
    ) -> Result<Self> {
        let (channel, theirs) =
            sys::socket::pair().context(|| "cannot make a socket".to_owned())?;
        match sys::process::fork().context(|| "cannot fork for an exec".to_owned())? {
            Fork::Child => {
                let outcome = catch_unwind(AssertUnwindSafe(work))
                    .unwrap_or_else(|_| Err(Error::internal("the exec panicked").into()));
                exit_now(i32::from(say(&theirs, outcome).is_err()))
            }
            Fork::Parent { pidfd, .. } => {
                Ok(Self { id, asker, limit, stdio, helper: pidfd, channel })
            }
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// The container is over; nobody needs to join it.
    pub(crate) fn give_up(&self) {
        // Who has ended already needs no signal.
        let _gone = sys::signal::send(self.helper.as_fd(), 9);
    }

    /// The helper has spoken, or its end was heard.
    pub(crate) fn finish(self) -> (Asker, Result<Exec, Failure>) {
        let asker = self.asker;
        (asker, self.hear())
    }

    fn hear(mut self) -> Result<Exec, Failure> {
        let mut bytes = vec![0; MOST_WORDS];
        let received = sys::socket::recv_with_fds(&self.channel, &mut bytes)
            .context(|| "cannot hear of the exec".to_owned())?;
        if received.bytes == 0 {
            return Err(Error::unavailable("the exec was given up").into());
        }
        let said = serde_json::from_slice(&bytes[..received.bytes])
            .map_err(std::io::Error::from)
            .context(|| "cannot understand the exec".to_owned())?;
        let pid = match said {
            Said::Failed(failure) => return Err(failure),
            Said::Started { pid } => Pid::from_raw(pid).context(|| "no process id".to_owned())?,
        };
        if let Some(master) = received.fds.into_iter().next() {
            self.stdio.set_master(master)?;
        }
        Ok(Exec::new(self.id, pid, self.stdio, self.limit))
    }
}

fn say(channel: &OwnedFd, outcome: Result<Executed, Failure>) -> Result<()> {
    let (said, terminal) = match outcome {
        Ok(executed) => {
            (Said::Started { pid: executed.pid.as_raw_nonzero().get() }, executed.terminal)
        }
        Err(mut failure) => {
            // Longer sentences are somebody's output.
            let end = failure.message.floor_char_boundary(MOST_WORDS / 8);
            failure.message.truncate(end);
            (Said::Failed(failure), None)
        }
    };
    let bytes = serde_json::to_vec(&said).map_err(std::io::Error::from)?;
    let terminal: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
    sys::socket::send_with_fds(channel, &bytes, &terminal)?;
    Ok(())
}
