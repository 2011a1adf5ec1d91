//! The end of a container, and the record of it: the one thing that is never lost.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use stdx::time::Timestamp;
use stdx::{Context, Result, bounded};

const RECORD: &str = "exit.json";
const STAGING: &str = "exit.json.new";
const LIMIT: usize = 64 * 1024;

/// How a container's first process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// As a shell says it: the status, or 128 plus the signal.
    pub code: i32,
    pub at: Timestamp,
    /// The kernel killed something in the container for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// Words for people where the code does not say enough (`shim lost`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Exit {
    /// What is known of a container whose shim died without a record: its init was killed together with it.
    pub fn shim_lost(at: Timestamp) -> Self {
        Self { code: 137, at, oom_killed: false, reason: Some("shim lost".to_owned()) }
    }
}

/// Writes the record so that it is there whole or not at all, also after a power cut, before returning.
pub(crate) fn write(dir: &Path, exit: &Exit) -> Result<()> {
    let bytes = serde_json::to_vec(exit).map_err(io::Error::from)?;
    let staging = dir.join(STAGING);
    let mut file =
        File::create(&staging).context(|| format!("cannot create {}", staging.display()))?;
    file.write_all(&bytes)
        .and_then(|()| file.sync_all())
        .context(|| format!("cannot write {}", staging.display()))?;
    std::fs::rename(&staging, dir.join(RECORD))
        .context(|| format!("cannot rename {}", staging.display()))?;
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .context(|| format!("cannot sync {}", dir.display()))
}

/// The record in a container's directory, `None` while it runs (or when its shim was lost).
pub fn read(dir: &Path) -> Result<Option<Exit>> {
    let path = dir.join(RECORD);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err).context(|| format!("cannot open {}", path.display())),
    };
    let bytes = bounded::read_to_end(file, LIMIT, "the exit record")?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(io::Error::from)
        .context(|| format!("cannot read {}", path.display()))
}

/// Removes a record of an earlier run.
pub(crate) fn forget(dir: &Path) -> Result<()> {
    match std::fs::remove_file(dir.join(RECORD)) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(err).context(|| "cannot remove the old exit record".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        let exit = Exit { code: 137, at: Timestamp::now(), oom_killed: true, reason: None };
        write(dir.path(), &exit).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(exit));
        forget(dir.path()).unwrap();
        forget(dir.path()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
    }

    #[test]
    fn fields_of_a_later_version_are_tolerated() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join(RECORD),
            r#"{"code":3,"at":"2026-11-21T10:00:00Z","core":"x"}"#,
        )
        .unwrap();
        assert_eq!(read(dir.path()).unwrap().unwrap().code, 3);
    }
}
