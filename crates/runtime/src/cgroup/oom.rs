//! Out of memory: who is told, and how often it has killed.

use std::os::fd::{AsFd, OwnedFd};

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

/// Reads the watch empty, so that the next event can be waited for.
pub fn forget(watch: impl AsFd) {
    let mut buffer = [0u8; 4096];
    // An eventfd is empty after one read, an inotify after a few; either says EAGAIN then.
    while rustix::io::read(&watch, &mut buffer).is_ok_and(|count| count > 0) {}
}

/// `oom_kill N` of the file. A group that is gone has been asked too late: zero.
pub(super) fn kills(dir: &Dir, file: &str) -> Result<u64> {
    match dir.try_read(file) {
        Ok(text) => Ok(count(&text)),
        Err(error) if is_gone(&error) => Ok(0),
        Err(error) => {
            Err(error).context(|| format!("cannot read {file} of {}", dir.path().display()))
        }
    }
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
