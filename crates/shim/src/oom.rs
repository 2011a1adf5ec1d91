//! Out of memory: noticed while it happens, and remembered for the exit record.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use runtime::cgroup::{self, Handle};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A container that is killed again and again is one piece of news a second, not a thousand.
const QUIET: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Oom {
    /// `None` where the host has no memory controller.
    watch: Option<OwnedFd>,
    kills: u64,
    /// What v1 has told of while the group was there.
    events: u64,
    /// Kills of the groups around, before there was anybody in this one.
    around: Option<u64>,
    told: Option<Instant>,
}

/// What a first process has ended with that the kernel has killed.
const KILLED: i32 = 137;

impl Oom {
    /// `around` is what [`Location::oom_kills_around`](cgroup::Location::oom_kills_around) has said before anybody was in it.
    pub(crate) fn of(cgroup: &Handle, around: Option<u64>) -> Self {
        Self { watch: cgroup.oom_watch().ok(), kills: 0, events: 0, around, told: None }
    }

    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// Whether the kernel has killed since the last look, and it is news.
    pub(crate) fn is_news(&mut self, cgroup: &Handle) -> bool {
        let events = self.forget();
        match cgroup.oom_kills() {
            Ok(Some(kills)) => {
                self.events += events;
                self.is_more(kills)
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// The last look, when the first process has ended.
    pub(crate) fn is_last_news(&mut self, cgroup: &Handle, code: i32) -> bool {
        let events = self.forget();
        let kills = match cgroup.oom_kills() {
            Ok(Some(kills)) => kills,
            Ok(None) if code == KILLED => {
                let around = [self.around, cgroup.oom_kills_around()];
                // Of two events the second may be on its way.
                let later = if self.events == 0 && events == 1 { self.wait() } else { 0 };
                u64::from(was_unseen(self.events, events + later, around))
            }
            Ok(None) | Err(_) => 0,
        };
        self.is_more(kills)
    }

    /// For one more event, a moment.
    fn wait(&self) -> u64 {
        let Some(watch) = &self.watch else { return 0 };
        let moment = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let _in_time = poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&moment));
        self.forget()
    }

    fn forget(&self) -> u64 {
        self.watch.as_ref().map_or(0, cgroup::forget_oom)
    }

    fn is_more(&mut self, kills: u64) -> bool {
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

/// Whether a group that was gone before it could be asked, and whose first process was killed, had been out of memory. v1
/// tells of that, and once more of the group's end; v2 counts around it what has happened in it, `[then, now]`.
fn was_unseen(before: u64, at_the_end: u64, around: [Option<u64>; 2]) -> bool {
    match around {
        [then, Some(now)] => now > then.unwrap_or(0),
        [_, None] => before > 0 || at_the_end > 1,
    }
}

#[test]
fn a_group_that_is_gone() {
    for (before, at_the_end, around, expected) in [
        (0, 0, [None, None], false),
        (0, 1, [None, None], false),
        (0, 2, [None, None], true),
        (1, 1, [None, None], true),
        (0, 0, [Some(3), Some(3)], false),
        (0, 0, [Some(3), Some(4)], true),
        // Its slice was made for it, and goes with it.
        (0, 0, [None, Some(1)], true),
        (0, 0, [Some(3), None], false),
    ] {
        assert_eq!(
            was_unseen(before, at_the_end, around),
            expected,
            "{before} {at_the_end} {around:?}"
        );
    }
}
