//! Out of memory: who is told, and how often it has killed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, inotify};
use stdx::{Context, Result};

use super::dir::{Dir, is_gone};

/// What is readable when a container has been out of memory.
#[derive(Debug)]
pub struct Watch {
    news: OwnedFd,
    /// Of a group that may go before it can be asked: readable when it has gone, after the other.
    end: Option<OwnedFd>,
}

impl Watch {
    /// v1: an eventfd, tied to `memory.oom_control` through `cgroup.event_control`.
    pub(super) fn v1(dir: &Dir) -> Result<Self> {
        Ok(Self { news: event(dir, "memory.oom_control", "")?, end: None })
    }

    /// The same, of a group that is removed by somebody else. All events of a group are told of its end, and this one, which
    /// no usage of memory can bring about, of nothing but that. The kernel waits for its readers before it tells it, so
    /// that the other has been told by then.
    pub(super) fn v1_to_the_end(dir: &Dir) -> Result<Self> {
        let end = event(dir, "memory.usage_in_bytes", " -1")?;
        Ok(Self { end: Some(end), ..Self::v1(dir)? })
    }

    /// v2: `memory.events` is modified.
    pub(super) fn v2(dir: &Dir) -> Result<Self> {
        let what = || cannot(dir);
        let notify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .context(what)?;
        inotify::add_watch(&notify, dir.path().join("memory.events"), inotify::WatchFlags::MODIFY)
            .context(what)?;
        Ok(Self { news: notify, end: None })
    }

    /// Reads it empty, so that the next event can be waited for. How many there were, on v1: v2 tells of a file that is
    /// modified for whatever reason, which counts as none.
    pub fn forget(&self) -> u64 {
        const OF_EVENTFD: usize = size_of::<u64>();
        let mut buffer = [0; 4096];
        let mut events = 0;
        // An eventfd is empty after one read, an inotify after a few; either says EAGAIN then.
        while let Ok(count) = rustix::io::read(&self.news, &mut buffer)
            && count > 0
        {
            if let (OF_EVENTFD, Some(number)) = (count, buffer.first_chunk()) {
                events += u64::from_ne_bytes(*number);
            }
        }
        events
    }

    /// Waits until all has been told of a group that is gone.
    pub fn hear_all(&self) {
        let Some(end) = &self.end else { return };
        let in_time = Timespec { tv_sec: 2, tv_nsec: 0 };
        let _told = poll(&mut [PollFd::new(end, PollFlags::IN)], Some(&in_time));
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }
}

/// An eventfd for something that a file tells of.
fn event(dir: &Dir, file: &str, when: &str) -> Result<OwnedFd> {
    let what = || cannot(dir);
    let event =
        rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context(what)?;
    let file = dir.open_file(file, OFlags::RDONLY).context(what)?;
    let [event_number, file] = [event.as_fd(), file.as_fd()].map(sys::fd::number);
    dir.try_write("cgroup.event_control", &format!("{event_number} {file}{when}")).context(what)?;
    Ok(event)
}

fn cannot(dir: &Dir) -> String {
    format!("cannot watch {} for out of memory", dir.path().display())
}

/// `oom_kill N` of the file. Nothing where it is not: the files of a group that is removed go before the group.
pub(super) fn kills(dir: &Dir, file: &str) -> Result<Option<u64>> {
    match dir.try_read(file) {
        Ok(text) => Ok(Some(count(&text))),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => {
            Err(error).context(|| format!("cannot read {file} of {}", dir.path().display()))
        }
    }
}

/// The same of all groups with the same parent, where the kernel counts what happens below: v2's.
pub(super) fn kills_around(group: &Path) -> Option<u64> {
    let above = group.parent()?.join("memory.events");
    std::fs::read_to_string(above).ok().map(|text| count(&text))
}

fn count(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_count_alike() {
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
        assert_eq!(count("low 0\nhigh 0\nmax 12\noom 1\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(count(""), 0);
    }
}
