//! Out of memory: noticed while it happens, and remembered for the exit record.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use runtime::cgroup::{self, Handle};

/// A container that is killed again and again is one piece of news a second, not a thousand.
const QUIET: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Oom {
    /// `None` where the host has no memory controller.
    watch: Option<OwnedFd>,
    kills: u64,
    told: Option<Instant>,
}

impl Oom {
    pub(crate) fn of(cgroup: &Handle) -> Self {
        Self { watch: cgroup.oom_watch().ok(), kills: 0, told: None }
    }

    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// Whether the kernel has killed since the last look, and it is news.
    pub(crate) fn is_news(&mut self, cgroup: &Handle) -> bool {
        if let Some(watch) = &self.watch {
            cgroup::forget_oom(watch);
        }
        let kills = cgroup.oom_kills().unwrap_or(self.kills);
        let more = kills > self.kills;
        self.kills = self.kills.max(kills);
        let quiet = self.told.is_none_or(|told| told.elapsed() >= QUIET);
        if more && quiet {
            self.told = Some(Instant::now());
        }
        more && quiet
    }

    pub(crate) fn seen(&self) -> bool {
        self.kills > 0
    }

    /// The cgroup is about to go; its eventfd would be readable for ever.
    pub(crate) fn stop(&mut self) {
        self.watch = None;
    }
}
