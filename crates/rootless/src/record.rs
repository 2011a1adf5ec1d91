//! What the process outside has started, written down for a successor. A number alone is nobody: with the time of its birth
//! it is a process.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use stdx::{Context, Result};

/// The file, beside the socket.
const FILE: &str = "outside.json";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) anchor: Option<Process>,
    pub(crate) link: Option<Process>,
}

/// A process that may have ended since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// In ticks since the machine was started.
    born: u64,
}

impl Record {
    /// What a predecessor wrote; nothing readable is nothing.
    pub(crate) fn read(dir: &Path) -> Self {
        let text = std::fs::read(dir.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let (new, file) = (dir.join(format!("{FILE}.new")), dir.join(FILE));
        let text = serde_json::to_vec(self).expect("numbers can be written");
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &file))
            .context(|| format!("cannot write {}", file.display()))
    }

    pub(crate) fn remove(dir: &Path) {
        // Nobody who finds it without its processes believes it.
        let _gone = std::fs::remove_file(dir.join(FILE));
    }
}

impl Process {
    pub(crate) fn of(pid: i32) -> Result<Self> {
        let born = birth(pid).context(|| format!("process {pid} has gone"))?;
        Ok(Self { pid, born })
    }

    /// A hold on it, if it still is who was written down.
    pub(crate) fn open(self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Looked at after it is held: the number cannot become another's in between.
        (birth(self.pid) == Some(self.born)).then_some(pidfd)
    }
}

/// The 22nd field of `/proc/<pid>/stat`; the second may contain anything, and ends with the last `)`.
fn birth(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_more_than_its_number() {
        let own = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.open().is_some());
        assert!(Process { born: own.born + 1, ..own }.open().is_none());
        assert!(Process { pid: i32::MAX, born: 1 }.open().is_none());
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()), Record::default());
        let record = Record { anchor: Some(Process { pid: 3, born: 4 }), link: None };
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()), record);
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(Record::read(dir.path()), Record::default());
    }
}
