//! Out of memory: who is told, and how often it has killed.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::EventfdFlags;
use rustix::fs::{OFlags, inotify};
use stdx::{Context, Result};

use super::dir::{Dir, is_gone};

/// v1: an eventfd, tied to `memory.oom_control` through `cgroup.event_control`.
pub(super) fn watch_v1(dir: &Dir) -> Result<OwnedFd> {
    let what = || format!("cannot watch {} for out of memory", dir.path().display());
    let event =
        rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context(what)?;
    let control = dir.open_file("memory.oom_control", OFlags::RDONLY).context(what)?;
    let pair = format!("{} {}", sys::fd::number(event.as_fd()), sys::fd::number(control.as_fd()));
    dir.try_write("cgroup.event_control", &pair).context(what)?;
    Ok(event)
}

/// v2: `memory.events` is modified.
pub(super) fn watch_v2(dir: &Dir) -> Result<OwnedFd> {
    let what = || format!("cannot watch {} for out of memory", dir.path().display());
    let notify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .context(what)?;
    inotify::add_watch(&notify, dir.path().join("memory.events"), inotify::WatchFlags::MODIFY)
        .context(what)?;
    Ok(notify)
}

/// Reads the watch empty, so that the next event can be waited for. How many there were, on v1: v2 tells of a file that is
/// modified for whatever reason, which counts as none.
pub fn forget(watch: impl AsFd) -> u64 {
    const OF_EVENTFD: usize = size_of::<u64>();
    let mut buffer = [0; 4096];
    let mut events = 0;
    // An eventfd is empty after one read, an inotify after a few; either says EAGAIN then.
    while let Ok(count) = rustix::io::read(&watch, &mut buffer)
        && count > 0
    {
        if let (OF_EVENTFD, Some(number)) = (count, buffer.first_chunk()) {
            events += u64::from_ne_bytes(*number);
        }
    }
    events
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
