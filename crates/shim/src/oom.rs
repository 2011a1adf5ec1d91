//! Out of memory: noticed while it happens, and remembered for the exit record.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use runtime::cgroup::{Handle, Watch};

/// A container that is killed again and again is one piece of news a second, not a thousand.
const QUIET: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Oom {
    /// `None` where the host has no memory controller.
    watch: Option<Watch>,
    kills: u64,
    /// How often v1 has told, and how often of that while the group was there.
    told: u64,
    told_while_there: u64,
    /// Kills of the groups around, before there was anybody in this one.
    around: Option<u64>,
    last_news: Option<Instant>,
}

/// What a first process has ended with that the kernel has killed.
const KILLED: i32 = 137;

impl Oom {
    /// `around` is what [`oom_kills_around`](runtime::cgroup::Location::oom_kills_around) has said before anybody was in it.
    pub(crate) fn of(cgroup: &mut Handle, around: Option<u64>) -> Self {
        let watch = cgroup.early_watch().or_else(|| cgroup.oom_watch().ok());
        Self { watch, kills: 0, told: 0, told_while_there: 0, around, last_news: None }
    }

    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// Whether the kernel has killed since the last look, and it is news.
    pub(crate) fn is_news(&mut self, cgroup: &Handle) -> bool {
        self.hear();
        match cgroup.oom_kills() {
            Ok(Some(kills)) => {
                self.told_while_there = self.told;
                self.is_more(kills)
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// The last look, when the first process has ended.
    pub(crate) fn is_last_news(&mut self, cgroup: &Handle, code: i32) -> bool {
        self.hear();
        let kills = match cgroup.oom_kills() {
            Ok(Some(kills)) => kills,
            Ok(None) if code == KILLED => {
                let around = [self.around, cgroup.oom_kills_around()];
                if let Some(watch) = &self.watch {
                    watch.hear_all();
                }
                self.hear();
                u64::from(was_unseen(self.told_while_there, self.told, around))
            }
            Ok(None) | Err(_) => 0,
        };
        self.is_more(kills)
    }

    fn hear(&mut self) {
        self.told += self.watch.as_ref().map_or(0, Watch::forget);
    }

    fn is_more(&mut self, kills: u64) -> bool {
        let more = kills > self.kills;
        self.kills = self.kills.max(kills);
        let quiet = self.last_news.is_none_or(|last| last.elapsed() >= QUIET);
        if more && quiet {
            self.last_news = Some(Instant::now());
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
fn was_unseen(told_while_there: u64, told: u64, around: [Option<u64>; 2]) -> bool {
    match around {
        [then, Some(now)] => now > then.unwrap_or(0),
        [_, None] => told_while_there > 0 || told > 1,
    }
}

#[test]
fn a_group_that_is_gone() {
    for (told_while_there, told, around, expected) in [
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
            was_unseen(told_while_there, told, around),
            expected,
            "{told_while_there} {told} {around:?}"
        );
    }
}
