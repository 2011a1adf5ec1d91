//! `docker checkpoint`: a container's processes kept on disk, to go on from there later.
//!
//! A checkpoint is a directory of CRIU's images, `containers/<id>/checkpoints/<name>` or under a directory of the client's.
//! CRIU needs nothing of ours to dump; to come back a container is started as always, but for where its processes are from.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use api::container::{Checkpoint, CheckpointCreateBody};
use runtime::criu::{self, Criu, Dump, Settings};
use rustix::process::Pid;
use stdx::{Context, Error, Result};

use super::record::Record;
use super::{Container, plan};

/// How long a container may take to be seen as ended after CRIU has ended it.
const DEATH: std::time::Duration = std::time::Duration::from_secs(10);

impl Container {
    /// Keeps the container as it is now; with `Exit` it ends there. `asked` is how the client calls it.
    pub async fn checkpoint(&self, asked: &str, body: CheckpointCreateBody) -> Result<()> {
        self.must_be_up()?;
        if self.record().config.tty {
            return Err(Error::invalid("checkpoint not support on containers with tty"));
        }
        let (this, name) = (self.clone(), asked.to_owned());
        tokiox::to_the_end(async move {
            let words = || format!("cannot checkpoint container {name}");
            let place = this.checkpoint_place(&body.checkpoint_dir, &body.checkpoint_id)?;
            make(&place, &body.checkpoint_id, &name).context(words)?;
            // Ended so, it shall not be begun anew by its policy.
            let by_hand = this.record().stopped_by_hand;
            if body.exit {
                this.stay_down().await?;
            }
            let mut exited = this.cell.subscribe();
            let (container, images) = (this.clone(), place.clone());
            let dumped = tokiox::blocking(move || container.dump(&images, !body.exit)).await;
            if let Err(error) = dumped {
                // Half of it is none.
                let _half = fs::remove_dir_all(&place);
                this.is_stopped_by_hand(by_hand).await?;
                return Err(error).context(|| format!("Cannot checkpoint container {name}"));
            }
            if body.exit {
                let down = exited.wait_for(|record| !record.state.phase.is_up());
                let _late = tokio::time::timeout(DEATH, down).await;
            }
            this.event("checkpoint", &[]);
            Ok(())
        })
        .await
    }

    /// What is kept of it, by name.
    pub async fn checkpoints(&self, directory: &str) -> Result<Vec<Checkpoint>> {
        let place = self.checkpoints_in(directory);
        tokiox::blocking(move || list(&place)).await
    }

    pub async fn remove_checkpoint(&self, asked: &str, directory: &str, id: &str) -> Result<()> {
        let place = self.existing_checkpoint(asked, directory, id)?;
        tokiox::blocking(move || {
            fs::remove_dir_all(&place).context(|| format!("cannot remove {}", place.display()))
        })
        .await
    }

    /// Starts the container where a checkpoint left it.
    pub async fn start_from(&self, asked: &str, directory: &str, id: &str) -> Result<()> {
        if !self.rooms.settings().experimental {
            return Err(Error::invalid("checkpoint is only supported in experimental mode"));
        }
        let images = self.existing_checkpoint(asked, directory, id)?;
        let criu = Criu::find(&self.rooms.settings().program_dirs)?.program().to_owned();
        self.start_with(Some(shim::Checkpoint { images, criu })).await
    }

    fn dump(&self, images: &Path, leave_running: bool) -> Result<()> {
        let record = self.record();
        if plan::runtime(&record.host().runtime, &self.rooms.settings())?.is_some() {
            return Err(Error::not_implemented("checkpoints need the built-in runtime"));
        }
        if plan::init(record.host(), &self.rooms.settings()) {
            // Its first process is a copy of the runtime, and executes no file that CRIU could find again.
            return Err(Error::not_implemented(
                "checkpoint not supported for containers with --init: their first process cannot be dumped",
            ));
        }
        let pid = i32::try_from(record.state.pid).ok().and_then(Pid::from_raw);
        let criu = Criu::find(&self.rooms.settings().program_dirs)?;
        let shim = self.rooms.exec_dir(&record.id);
        let (spec, cgroup) = shim::spec_of(&shim)?;
        // Logs go where the container's other passing things are: of images only what is needed is kept.
        let settings = Settings { work: Some(shim), ..Settings::default() };
        criu::dump(
            &criu,
            &Dump {
                pid: pid.context(|| "the container has no process".to_owned())?,
                spec: &spec,
                cgroup: &cgroup,
                images,
                leave_running,
                pre_dump: false,
                parent_images: None,
                link_remap: false,
                tcp_skip_in_flight: false,
                network: criu::Network::Given,
                settings: &settings,
            },
        )
    }

    async fn is_stopped_by_hand(&self, by_hand: bool) -> Result<()> {
        let _gate = self.cell.gate.lock().await;
        let mut record = Record::clone(&self.record());
        record.stopped_by_hand = by_hand;
        self.save(record)
    }

    fn checkpoints_in(&self, directory: &str) -> PathBuf {
        let id = &self.cell.id;
        let below = match directory {
            "" => self.rooms.data_dir(id),
            directory => Path::new(directory).join(id.as_str()),
        };
        below.join("checkpoints")
    }

    fn checkpoint_place(&self, directory: &str, id: &str) -> Result<PathBuf> {
        check_name(id)?;
        Ok(self.checkpoints_in(directory).join(id))
    }

    fn existing_checkpoint(&self, asked: &str, directory: &str, id: &str) -> Result<PathBuf> {
        let place = self.checkpoint_place(directory, id)?;
        match fs::metadata(&place) {
            Ok(found) if found.is_dir() => Ok(place),
            Ok(_) => {
                Err(Error::conflict(format!("{} exists and is not a directory", place.display())))
            }
            Err(_) => Err(Error::not_found(format!(
                "checkpoint {id} does not exist for container {asked}"
            ))),
        }
    }
}

/// It becomes a name in the file system.
fn check_name(id: &str) -> Result<()> {
    match crate::names::is_restricted(id) {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "Invalid checkpoint ID ({id}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        ))),
    }
}

fn make(place: &Path, id: &str, asked: &str) -> Result<()> {
    let words = || format!("cannot make {}", place.display());
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700);
    if let Some(parent) = place.parent() {
        builder.recursive(true).create(parent).context(words)?;
    }
    match builder.recursive(false).create(place) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && place.is_dir() => {
            Err(Error::conflict(format!(
                "checkpoint with name {id} already exists for container {asked}"
            )))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Error::conflict(format!("{} exists and is not a directory", place.display())))
        }
        other => other.context(words),
    }
}

fn list(place: &Path) -> Result<Vec<Checkpoint>> {
    let words = || format!("cannot read {}", place.display());
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context(words)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.context(words)?;
        if entry.file_type().context(words)?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names.into_iter().map(|name| Checkpoint { name }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_names() {
        for good in ["c1", "a.b-c_d", "00"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "..", ".", "a/b", "../x", "-a", "a b", "ü1"] {
            let refused = check_name(bad).unwrap_err();
            assert!(refused.chain().starts_with("Invalid checkpoint ID ("), "{bad}");
        }
    }

    #[test]
    fn there_is_one_of_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("checkpoints");
        assert_eq!(list(&place).unwrap(), []);
        make(&place.join("c1"), "c1", "web").unwrap();
        let refused = make(&place.join("c1"), "c1", "web").unwrap_err();
        assert_eq!(refused.chain(), "checkpoint with name c1 already exists for container web");
        fs::write(place.join("file"), "").unwrap();
        let refused = make(&place.join("file"), "file", "web").unwrap_err();
        assert!(refused.chain().ends_with("file exists and is not a directory"));
        make(&place.join("a0"), "a0", "web").unwrap();
        let names = list(&place).unwrap();
        assert_eq!(names.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a0", "c1"]);
    }
}
