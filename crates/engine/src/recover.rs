//! Waking up: what runs is adopted, what ended is finished, what was left halfway is taken back.
//!
//! Nothing here is a second way of doing things: an exit that happened while nobody listened goes through
//! [`crate::container::exit`], a removal that stopped halfway goes on where it stopped.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shim::{Exit, Status};
use stdx::time::Timestamp;
use stdx::{Context, Id, Kind, Result};
use tokio::task::JoinSet;

use crate::Containers;
use crate::container::exit;
use crate::container::record::Record;
use crate::container::state::{Event, Phase};
use crate::container::volumes::Wish;
use crate::container::{Cell, Container, userns};

/// What a container that ran when the host went down is said to have exited with, as Docker says it.
const LOST_WITH_THE_HOST: i32 = 255;
/// When to look again for a shim that does not answer.
const SILENCE: Duration = Duration::from_secs(1);
/// The first time; doubled until then.
const FIRST_SILENCE: Duration = Duration::from_millis(10);

impl Containers {
    /// Fills the index from the records.
    pub(crate) fn load(&self) -> Result<()> {
        for record in self.rooms.store.list::<Record>()? {
            if let Err(error) = self.rooms.registry.reserve(&record.name, &record.id) {
                tracing::error!(container = %record.id, error = %error.chain(), "two records share a name");
            }
            userns::enter(&record, &self.rooms);
            self.rooms.registry.insert(Arc::new(Cell::new(record)));
        }
        Ok(())
    }

    /// Makes records, kernel and disk agree again. The API may answer meanwhile: what is not adopted yet says what its
    /// record says.
    pub async fn recover(&self) -> Result<()> {
        let mut work = JoinSet::new();
        for container in self.all() {
            work.spawn(async move {
                let id = container.id().clone();
                if let Err(error) = container.wake().await {
                    tracing::error!(container = %id, error = %error.chain(), "cannot adopt");
                }
            });
        }
        while work.join_next().await.is_some() {}
        let this = self.clone();
        tokiox::blocking(move || {
            let up: Vec<Id> = this
                .all()
                .iter()
                .filter(|container| container.record().state.phase.is_up())
                .map(|container| container.id().clone())
                .collect();
            this.sweep(&up)?;
            if let Err(error) = this.rooms.images.take_back_unfinished() {
                tracing::error!(error = %error.chain(), "cannot take back what unfinished work has left");
            }
            this.rooms.forget_unmade_volumes()?;
            if this.rooms.wake_foreign(&up)? {
                let rooms = Arc::clone(&this.rooms);
                // Nobody waits for plugins that may not be there yet.
                std::thread::Builder::new()
                    .name("unmounting".to_owned())
                    .spawn(move || {
                        if let Err(error) = rooms.tell_all() {
                            tracing::error!(error = %error.chain(), "cannot give volumes back");
                        }
                    })
                    .context(|| "cannot start a thread".to_owned())?;
            }
            this.rooms.networks.restore(&this.living())
        })
        .await?;
        for container in self.all() {
            if let Err(error) = container.finish_republishing().await {
                tracing::error!(container = %container.id(), error = %error.chain(), "cannot finish a change of ports");
            }
        }
        self.boot();
        Ok(())
    }

    /// Those whose ports and names are to be served.
    fn living(&self) -> Vec<network::Living> {
        let living = |container: &Container| {
            let record = container.record();
            if !record.state.phase.is_up() || record.state.pid == 0 {
                return None;
            }
            let plan = record.plan(&self.rooms.settings());
            match plan.and_then(|plan| container.attach_request(&record, &plan)) {
                Ok(request) => Some(network::Living { request, pid: record.state.pid }),
                Err(error) => {
                    tracing::error!(container = %record.id, error = %error.chain(), "cannot serve");
                    None
                }
            }
        };
        self.all().iter().filter_map(living).collect()
    }

    /// Takes back what belongs to no record. `up` are those that run: what they have stays. What resists is no reason to do
    /// without a daemon.
    pub(crate) fn sweep(&self, up: &[Id]) -> Result<()> {
        let resists = |what: &str, outcome: Result<()>| {
            if let Err(error) = outcome {
                tracing::error!(what, error = %error.chain(), "cannot take back what belongs to no container");
            }
        };
        let rooms = &self.rooms;
        let all = self.all();
        let known: BTreeSet<String> =
            all.iter().map(|container| container.id().to_string()).collect();
        rooms.networks.recover(up)?;
        for (holder, image) in rooms.images.holders() {
            if !known.contains(&holder) {
                rooms.images.drop_hold(&image, &holder)?;
            }
        }
        for name in rooms.storage.snapshots.names()? {
            if !known.contains(&name) {
                tracing::info!(snapshot = %name, "removing a snapshot that belongs to no container");
                resists(&name, rooms.storage.snapshots.remove(&name));
            }
        }
        for wish in rooms.store.list::<Wish>()? {
            if !known.contains(wish.container.as_str()) {
                for name in &wish.volumes {
                    tracing::info!(volume = %name, "removing a volume whose container never came to be");
                    resists(name, rooms.take_back_volume(name));
                }
            }
            rooms.store.delete::<Wish>(wish.container.as_str())?;
        }
        for dir in [
            rooms.settings().exec_root.join("containers"),
            rooms.settings().data_root.join("containers"),
        ] {
            let entries =
                std::fs::read_dir(&dir).context(|| format!("cannot read {}", dir.display()))?;
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                if name.to_str().is_some_and(|name| known.contains(name)) {
                    continue;
                }
                tracing::info!(directory = %entry.path().display(), "removing what belongs to no container");
                let path = entry.path().display().to_string();
                match shim::Client::connect(&entry.path()) {
                    Ok(shim) => {
                        // A container whose record never came to be: it goes.
                        let _dead = shim.kill(9, shim::Whom::All);
                        let _gone = shim.delete();
                    }
                    Err(_) => resists(&path, exit::take_cgroup_back(&entry.path())),
                }
                let gone = std::fs::remove_dir_all(entry.path());
                resists(&path, gone.context(|| format!("cannot remove {path}")));
            }
        }
        Ok(())
    }
}

/// What is found of a container's last run.
enum Found {
    Alive(Box<shim::State>, shim::Watch),
    /// A shim is there and says nothing: somebody has stopped it, or the host is out of breath.
    Silent,
    Ended(Exit),
    /// Its shim died, and left no record.
    Lost,
    Nothing,
}

impl Container {
    async fn wake(&self) -> Result<()> {
        if self.record().state.phase == Phase::Removing {
            let _gate = self.cell.gate.lock().await;
            return self.finish_removal().await;
        }
        // What kept the daemon before from removing it may have passed.
        if self.record().state.phase == Phase::Dead {
            let _gate = self.cell.gate.lock().await;
            return self.remove_held(self.record().removes_volumes).await;
        }
        match self.found().await? {
            Found::Silent => {
                tracing::warn!(container = %self.id(), "shim unresponsive");
                let this = self.clone();
                tokio::spawn(async move { this.find_again().await });
                Ok(())
            }
            found => self.settle(found).await,
        }
    }

    /// Looks until it is clear what has become of the container. One that lives is taken over at the second look: a shim
    /// that lets go of its daemon again and again must not keep both busy.
    pub(crate) async fn find_again(&self) {
        let mut pause = FIRST_SILENCE;
        for look in 0.. {
            let outcome = match self.found().await {
                // One that dies closes its doors one after the other: it may be gone the next moment.
                Ok(Found::Silent) => Ok(false),
                Ok(Found::Alive(..)) if look == 0 => {
                    pause = SILENCE;
                    Ok(false)
                }
                Ok(found) => self.settle(found).await.map(|()| true),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(container = %self.id(), error = %error.chain(), "cannot adopt");
                }
            }
            if self.record().gone {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(SILENCE);
        }
    }

    async fn found(&self) -> Result<Found> {
        let this = self.clone();
        tokiox::blocking(move || this.look()).await
    }

    async fn settle(&self, found: Found) -> Result<()> {
        let record = self.record();
        let up = record.state.phase.is_up();
        match found {
            Found::Silent => Ok(()),
            Found::Alive(state, watch) => self.adopt(&state, watch).await,
            Found::Ended(exit) => {
                // It began and ended before the daemon could write down even that it ran.
                if !up && exit.at > record.state.finished_at {
                    self.apply(Event::Started { pid: 0, at: exit.at })?;
                }
                if self.record().state.phase.is_up() {
                    self.exited(exit).await
                } else {
                    self.rest().await
                }
            }
            Found::Lost if up => self.exited(Exit::shim_lost(Timestamp::now())).await,
            Found::Nothing if up => {
                let at = Timestamp::now();
                self.exited(Exit { code: LOST_WITH_THE_HOST, at, oom_killed: false, reason: None })
                    .await
            }
            Found::Lost | Found::Nothing => self.rest().await,
        }
    }

    /// Nothing of it runs: what may be left of its last run goes, and perhaps itself.
    async fn rest(&self) -> Result<()> {
        let _gate = self.cell.gate.lock().await;
        let record = self.record();
        if record.gone || record.state.phase.is_up() {
            return Ok(());
        }
        self.release().await;
        // The daemon died between writing the exit down and removing what is to be removed.
        if record.state.phase == Phase::Exited && record.host().auto_remove {
            return self.remove_held(true).await;
        }
        Ok(())
    }

    fn look(&self) -> Result<Found> {
        let dir = self.rooms.exec_dir(self.id());
        if !dir.exists() {
            return Ok(Found::Nothing);
        }
        let shim = match shim::Client::connect(&dir) {
            Ok(shim) => Some(shim),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(_) => return Ok(Found::Silent),
        };
        let exit = shim::exit::read(&dir)?;
        match (shim, exit) {
            (_, Some(exit)) => Ok(Found::Ended(exit)),
            (Some(shim), None) => match shim.state().and_then(|state| Ok((state, shim.watch()?))) {
                Ok((state, watch)) => Ok(Found::Alive(Box::new(state), watch)),
                Err(_) => Ok(Found::Silent),
            },
            (None, None) => Ok(Found::Lost),
        }
    }

    /// Takes over a container that runs, whatever its record says: it may have started or been paused in the last moment
    /// of the daemon before.
    async fn adopt(&self, state: &shim::State, watch: shim::Watch) -> Result<()> {
        let _gate = self.cell.gate.lock().await;
        if !self.record().state.phase.is_up() {
            let mut record = self.after(Event::Started { pid: state.pid, at: state.started_at })?;
            record.endpoints = self.connected_now(&record);
            record.ports = self.published_now(&record);
            self.save(record)?;
        }
        match (self.record().state.phase, state.status) {
            (Phase::Running, Status::Paused) => self.apply(Event::Paused)?,
            (Phase::Paused, Status::Running) => self.apply(Event::Unpaused)?,
            _ => {}
        }
        self.thaw_held().await?;
        let this = self.clone();
        if let Err(error) = tokiox::blocking(move || this.agree_on_networks()).await {
            tracing::error!(container = %self.id(), error = %error.chain(), "cannot finish a change of networks");
        }
        self.rooms.images.set_running(self.id().as_str(), true);
        if let Err(error) = self.finish_update().await {
            tracing::warn!(container = %self.id(), error = %error.chain(), "cannot finish an update");
        }
        let this = self.clone();
        // Replaced when the daemon before died between the record and the container.
        if let Err(error) = tokiox::blocking(move || this.renew_secrets_held()).await {
            tracing::warn!(container = %self.id(), error = %error.chain(), "cannot replace a secret");
        }
        tracing::info!(container = %self.id(), pid = state.pid, "adopted");
        self.found_checked();
        self.follow(watch);
        Ok(())
    }
}
