//! The writable trees of containers: a record in the state and a directory, the same for every driver.
//!
//! The record comes first. A directory without one is garbage; a record without a directory is a container whose tree
//! the machine lost with its power before anything was written into it, and gets an empty one again.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use stdx::{Context, Error, Result};

use super::{Garbage, Ground, Snapshot};
use crate::beneath;
use crate::durable::{self, OnDisk};

pub(super) struct Containers {
    path: PathBuf,
    directory: OwnedFd,
    ground: Ground,
}

impl Containers {
    pub(super) fn open(root: &Path, ground: &Ground) -> Result<Self> {
        durable::directory(root)?;
        let path = root.join("containers");
        Ok(Self { directory: durable::directory(&path)?, path, ground: ground.clone() })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Remembers a new container and makes its directory, empty.
    pub(super) fn add(&self, snapshot: &Snapshot) -> Result<OwnedFd> {
        validate(&snapshot.name)?;
        self.ground.durable.writable()?;
        self.ground.state.transaction(|tx| match tx.get::<Snapshot>(&snapshot.name)? {
            Some(_) => Err(Error::conflict(format!(
                "container {} has a file system already",
                snapshot.name
            ))),
            None => tx.put(snapshot),
        })?;
        let directory = self.make(&snapshot.name);
        if directory.is_err() {
            self.remove(&snapshot.name)?;
        }
        directory
    }

    fn make(&self, name: &str) -> Result<OwnedFd> {
        let doing = || format!("cannot make the directory of container {name}");
        let mkdir = || rustix::fs::mkdirat(&self.directory, name, Mode::from_raw_mode(0o700));
        match mkdir() {
            Err(rustix::io::Errno::EXIST) => {
                self.ground.trash.take(self.directory.as_fd(), name)?;
                mkdir().on_disk().context(doing)?;
            }
            outcome => outcome.on_disk().context(doing)?,
        }
        durable::open_directory(self.directory.as_fd(), name).context(doing)
    }

    pub(super) fn get(&self, name: &str) -> Result<Snapshot> {
        let found = self.ground.state.get::<Snapshot>(name)?;
        found.ok_or_else(|| Error::not_found(format!("container {name} has no file system")))
    }

    /// The directory of a container; `None` when it was lost.
    pub(super) fn directory(&self, name: &str) -> Result<Option<OwnedFd>> {
        match beneath::child(self.directory.as_fd(), name) {
            Ok(directory) => Ok(Some(directory)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno)
                .on_disk()
                .context(|| format!("cannot open the directory of container {name}")),
        }
    }

    /// Makes the directory again that was lost.
    pub(super) fn restore(&self, name: &str) -> Result<OwnedFd> {
        tracing::warn!(
            container = name,
            "the container's files were lost; it starts with those of its image"
        );
        self.make(name)
    }

    pub(super) fn remove(&self, name: &str) -> Result<()> {
        validate(name)?;
        self.ground.state.delete::<Snapshot>(name)?;
        self.ground.trash.take(self.directory.as_fd(), name)
    }

    pub(super) fn names(&self) -> Result<Vec<String>> {
        Ok(self
            .ground
            .state
            .list::<Snapshot>()?
            .into_iter()
            .map(|snapshot| snapshot.name)
            .collect())
    }

    pub(super) fn garbage(&self) -> Result<Vec<Garbage>> {
        let known: std::collections::HashSet<String> = self.names()?.into_iter().collect();
        let names = beneath::names(self.directory.as_fd()).on_disk()?;
        let names = names.into_iter().map(|name| name.to_string_lossy().into_owned());
        Ok(names.filter(|name| !known.contains(name)).map(Garbage::Container).collect())
    }

    pub(super) fn discard(&self, garbage: &Garbage) -> Result<()> {
        match garbage {
            Garbage::Container(name) => self.ground.trash.take(self.directory.as_fd(), name),
            Garbage::Layer(_) | Garbage::Staging(_) => Ok(()),
        }
    }
}

/// A name becomes a directory.
fn validate(name: &str) -> Result<()> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    let starts = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    match starts && name.len() <= 128 && name.bytes().all(plain) {
        true => Ok(()),
        false => Err(Error::invalid(format!("invalid snapshot name {name:?}"))),
    }
}
