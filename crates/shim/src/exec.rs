//! One more process in a container, and what became of it.

use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::protocol::{ExecExit, ExecState};
use crate::stdio::Stdio;

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
    pub(crate) fn new(id: String, pid: Pid, stdio: Stdio) -> Self {
        Self { id, pid, stdio, phase: Phase::Running }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    pub(crate) fn state(&self) -> ExecState {
        ExecState { id: self.id.clone(), pid: self.pid.as_raw_nonzero().get().unsigned_abs() }
    }

    pub(crate) fn exited(&mut self, code: i32, at: stdx::time::Timestamp) -> ExecExit {
        self.phase = Phase::Draining(Instant::now() + DRAIN);
        ExecExit { id: self.id.clone(), code, at }
    }

    /// What time brings. Its output is nobody's log.
    pub(crate) fn tick(&mut self, now: Instant) {
        match self.phase {
            Phase::Draining(until) if self.stdio.is_drained() || now >= until => {
                self.stdio.end(&mut crate::logs::Log::None);
                self.phase = Phase::Ended;
            }
            Phase::Ended => self.stdio.drop_the_stuck(now),
            Phase::Running | Phase::Draining(_) => {}
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running => None,
            Phase::Draining(until) => Some(until),
            Phase::Ended => self.stdio.next_deadline(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended) && !self.stdio.has_clients()
    }
}
