//! What stays of a container between two commands: `<root>/<id>/state.json`.

use std::fs::{self, DirBuilder};
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use oci::runtime::{Rootfs, Spec, State, Status};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use stdx::{Context, Error, Result};

use super::Global;
use crate::cgroup::{self, Location};

/// More than any honest document.
const LIMIT: usize = 16 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub id: String,
    pub bundle: PathBuf,
    pub pid: i32,
    /// When that process began, in the kernel's ticks: a number that is used again belongs to another.
    pub start_time: u64,
    pub created: String,
    pub owner: u32,
    pub spec: Spec,
    pub rootfs: Rootfs,
    pub cgroup: Location,
}

/// A container's directory under the root.
#[derive(Debug)]
pub(super) struct Place(PathBuf);

impl Place {
    /// Checks the id: it becomes a name in the file system.
    pub(super) fn of(global: &Global, id: &str) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
        if id.is_empty() {
            return Err(Error::invalid("container id cannot be empty"));
        }
        if matches!(id, "." | "..") || id.len() > 1024 || !id.chars().all(allowed) {
            return Err(Error::invalid("invalid container ID format"));
        }
        Ok(Self(global.root.join(id)))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it; two containers of one name there are not.
    pub(super) fn make(&self) -> Result<()> {
        let parent = self.0.parent().unwrap_or(Path::new("/"));
        let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.context(|| format!("cannot create {}", parent.display()))?;
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Err(err) if err.kind() == ErrorKind::AlreadyExists => {
                Err(Error::conflict("container with given ID already exists"))
            }
            other => other.context(|| format!("cannot create {}", self.0.display())),
        }
    }

    pub(super) fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(err) if err.kind() != ErrorKind::NotFound => {
                Err(err).context(|| format!("cannot remove {}", self.0.display()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn write(&self, record: &Record) -> Result<()> {
        let bytes = serde_json::to_vec(record).expect("a record has only names and numbers");
        write_whole(&self.0.join("state.json"), &bytes)
    }

    pub(super) fn read(&self) -> Result<Record> {
        match read_json(&self.0.join("state.json")) {
            Err(err) if err.errno() == Some(rustix::io::Errno::NOENT.raw_os_error()) => {
                Err(Error::not_found("container does not exist"))
            }
            other => other,
        }
    }
}

/// Under another name first: nobody ever sees half of it.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let words = || format!("cannot write {}", path.display());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let staging = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&staging)
        .context(words)?;
    file.write_all(bytes).context(words)?;
    fs::rename(&staging, path).context(words)
}

pub(super) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let name = path.display().to_string();
    let file = fs::File::open(path).context(|| format!("open {name}"))?;
    let bytes = stdx::bounded::read_to_end(file, LIMIT, &name)?;
    serde_json::from_slice(&bytes).map_err(|err| Error::invalid(format!("{name}: {err}")))
}

/// An existing container.
#[derive(Debug)]
pub(super) struct Container {
    pub place: Place,
    pub record: Record,
}

impl Container {
    pub(super) fn open(global: &Global, id: &str) -> Result<Self> {
        let place = Place::of(global, id)?;
        let record = place.read()?;
        Ok(Self { place, record })
    }

    /// Its first process, held so that its number cannot become another's; `None` when it has ended.
    pub(super) fn process(&self) -> Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.record.pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            other => other.context(|| "cannot hold the container's process".to_owned())?,
        };
        // Looked at after it is held: if it is the one meant now, it was so from the beginning.
        Ok((start_time(self.record.pid)? == Some(self.record.start_time)).then_some(pidfd))
    }

    pub(super) fn status(&self) -> Result<Status> {
        if self.process()?.is_none() {
            return Ok(Status::Stopped);
        }
        match self.cgroup() {
            // As runc: also before its start.
            Ok(cgroup) if cgroup.frozen()? => Ok(Status::Paused),
            _ if crate::waits_for_start(self.place.path()) => Ok(Status::Created),
            _ => Ok(Status::Running),
        }
    }

    pub(super) fn cgroup(&self) -> Result<cgroup::Handle> {
        cgroup::Handle::open(&self.record.cgroup)
    }

    pub(super) fn state(&self, status: Status) -> State {
        State {
            oci_version: self.record.spec.oci_version.clone(),
            id: self.record.id.clone(),
            status,
            pid: (status != Status::Stopped).then_some(self.record.pid),
            bundle: self.record.bundle.clone(),
            annotations: self.record.spec.annotations.clone(),
        }
    }
}

/// When a process began; `None` when it is no more, or no more than a name in the table.
pub(super) fn start_time(pid: i32) -> Result<Option<u64>> {
    let stat = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Err(err) if err.kind() == ErrorKind::NotFound || err.raw_os_error() == Some(3) => {
            return Ok(None);
        }
        other => other.context(|| format!("cannot look at process {pid}"))?,
    };
    // The name stands in parentheses and may hold anything, more of them too.
    let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    let mut fields = after.split(' ');
    if matches!(fields.next(), Some("Z" | "X") | None) {
        return Ok(None);
    }
    Ok(fields.nth(18).and_then(|field| field.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_and_nothing_else() {
        let log = super::super::log::Log::default();
        let global =
            Global { root: "/r".into(), driver: cgroup::Driver::Cgroupfs, criu: None, log: &log };
        for good in ["a", "a.b", "a_b-c+d", "0"] {
            assert!(Place::of(&global, good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../x", "a b", "ä"] {
            assert!(Place::of(&global, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn we_began_once() {
        let own = std::process::id() as i32;
        assert!(start_time(own).unwrap().is_some());
        assert_eq!(start_time(own).unwrap(), start_time(own).unwrap());
    }
}
