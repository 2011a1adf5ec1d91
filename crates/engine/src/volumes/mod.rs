//! Volumes as people see them: names with labels, held by the containers that mount them.
//!
//! The directory is the volume; a record adds what the directory cannot say. A container's own (anonymous) volumes and
//! those that a bind named into being may have no record, and need none; those of plugins always have one ([`foreign`]).

pub(crate) mod foreign;
mod wholes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use api::volume::{CreateBody, ListResponse, PruneReport, Volume};
use serde::{Deserialize, Serialize};
use stdx::time::Timestamp;
use stdx::{Context, Error, Id, Kind, Result};
use storage::volume::Driver;

use self::foreign::{Found, Whose};
use crate::container::mounts::Making;
use crate::containers::Containers;
use crate::filters::Filters;
use crate::rooms::Rooms;

/// The label that tells volumes nobody named.
pub(crate) const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// The driver that is ours.
pub(crate) const LOCAL: &str = "local";

/// The handle that the doors hold.
#[derive(Clone)]
pub struct Volumes {
    containers: Containers,
}

/// What was said when a volume was made by hand.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    name: String,
    #[serde(default = "local")]
    driver: String,
    created: Timestamp,
    labels: BTreeMap<String, String>,
    #[serde(default)]
    options: BTreeMap<String, String>,
}

fn local() -> String {
    LOCAL.to_owned()
}

impl state::Record for Record {
    const TABLE: &'static str = "volumes";

    fn key(&self) -> String {
        self.name.clone()
    }
}

impl Volumes {
    pub fn new(containers: &Containers) -> Self {
        Self { containers: containers.clone() }
    }

    pub async fn list(&self, filters: Filters) -> Result<ListResponse> {
        filters.allow(&["dangling", "driver", "label", "name"])?;
        let dangling = filters.flag("dangling")?;
        self.blocking(move |rooms| {
            let users = rooms.registry.users_of_volumes();
            let mut volumes = all(rooms)?;
            let (foreign, warnings) = rooms.all_foreign()?;
            volumes.extend(foreign.into_iter().map(picture_of_foreign));
            volumes.sort_by(|a, b| a.name.cmp(&b.name));
            volumes.retain(|volume| {
                filters.matches("name", &volume.name)
                    && filters.exact("driver", &volume.driver)
                    && filters.labels("label", volume.labels.as_ref().unwrap_or(&BTreeMap::new()))
                    && dangling.is_none_or(|wanted| wanted != users.contains_key(&volume.name))
            });
            Ok(ListResponse { volumes, warnings: (!warnings.is_empty()).then_some(warnings) })
        })
        .await
    }

    /// Makes a volume, or finds the one that is there already. Without a name it gets one.
    pub async fn create(&self, body: CreateBody) -> Result<Volume> {
        let driver = if body.driver == "default" { LOCAL.to_owned() } else { body.driver };
        self.blocking(move |rooms| {
            let mut labels = body.labels;
            let name = match body.name.is_empty() {
                false => body.name,
                true => {
                    labels.insert(ANONYMOUS.to_owned(), String::new());
                    Id::random().to_string()
                }
            };
            let whose = rooms.whose(&name, &driver).context(|| format!("create {name}"))?;
            if let Whose::Plugin(driver) = whose {
                let making = Making { driver: String::new(), options: body.driver_opts, labels };
                let (found, _) = rooms.make_foreign(&name, &driver, &making)?;
                return Ok(picture_of_foreign(found));
            }
            let record = Record::new(&name, LOCAL, body.driver_opts, labels);
            rooms.make_local(record).context(|| format!("create {name}"))?;
            picture(rooms, &name)
        })
        .await
    }

    pub async fn inspect(&self, name: &str) -> Result<Volume> {
        let name = name.to_owned();
        self.blocking(move |rooms| {
            match rooms.foreign(&name).context(|| format!("get {name}"))? {
                Some(found) => Ok(picture_of_foreign(found)),
                None => picture(rooms, &name),
            }
        })
        .await
    }

    /// Removes a volume that no container mounts, running or not. With `force`, one that is not there is gone already.
    pub async fn remove(&self, name: &str, force: bool) -> Result<()> {
        let name = name.to_owned();
        self.blocking(move |rooms| match rooms.storage.volumes.path(&name) {
            Err(error) if error.kind() == Kind::NotFound => {
                let recorded = rooms.foreign_record(&name)?;
                let found = match (rooms.foreign(&name), recorded) {
                    (Ok(Some(found)), _) => found.record,
                    (Ok(None), _) if force => return Ok(()),
                    (Ok(None), _) => return Err(error),
                    // The only way to be rid of what belongs to a driver that is gone for good.
                    (Err(_), Some(record)) if force => record,
                    (Err(error), _) => return Err(error).context(|| format!("get {name}")),
                };
                rooms.remove_foreign(&found, force)
            }
            Err(error) => Err(error),
            Ok(_) => Self::remove_unused(rooms, &name),
        })
        .await
    }

    /// Removes what no container mounts; only what nobody named, unless the filter `all` says otherwise.
    pub async fn prune(&self, filters: Filters) -> Result<PruneReport> {
        filters.allow(&["all", "label", "label!"])?;
        let named_too = filters.flag("all")?.unwrap_or(false);
        self.blocking(move |rooms| {
            let mut report = PruneReport::default();
            for volume in all(rooms)? {
                let labels = volume.labels.unwrap_or_default();
                // What is elsewhere is not ours to throw away, as Docker has it.
                let wanted = (named_too || labels.contains_key(ANONYMOUS))
                    && volume.options.is_none()
                    && filters.labels("label", &labels)
                    && !(filters.has("label!") && filters.labels("label!", &labels));
                if !wanted {
                    continue;
                }
                let size = rooms.storage.volumes.usage(&volume.name).unwrap_or(0);
                match Self::remove_unused(rooms, &volume.name) {
                    Ok(()) => {
                        report.volumes_deleted.get_or_insert_default().push(volume.name);
                        report.space_reclaimed += size;
                    }
                    Err(error) if error.kind() == Kind::Conflict => {}
                    Err(error) => return Err(error),
                }
            }
            rooms.pruned(state::EventKind::Volume, report.space_reclaimed);
            Ok(report)
        })
        .await
    }

    fn remove_unused(rooms: &Rooms, name: &str) -> Result<()> {
        // Nobody begins to use it between the question and the end.
        let _nobody = rooms.creations.write().unwrap_or_else(PoisonError::into_inner);
        rooms.refuse_if_used(name)?;
        rooms.take_back_volume(name).context(|| format!("remove {name}"))?;
        rooms.volume_event("destroy", name, LOCAL);
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Rooms) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let rooms = Arc::clone(&self.containers.rooms);
        tokiox::to_the_end(async move { tokiox::blocking(move || work(&rooms)).await }).await
    }
}

impl Rooms {
    /// Makes a volume of our own, or finds the one that is there. Where its directory is, and whether it is new.
    pub(crate) fn make_local(&self, record: Record) -> Result<(PathBuf, bool)> {
        let name = record.name.clone();
        if let Ok(path) = self.storage.volumes.path(&name) {
            return Ok((path, false));
        }
        storage::volume::Options::of(&record.options)?;
        storage::volume::validate(&name)?;
        // Written down first: what is a mount of something else must never be taken for a directory.
        if !(record.options.is_empty() && record.labels.is_empty()) {
            self.store.put(&record)?;
        }
        let made = match storage::volume::size(&record.options)? {
            Some(bytes) => self.storage.volumes.create_limited(&name, bytes),
            None => self.storage.volumes.create(&name),
        };
        let path = made.or_else(|error| {
            self.take_back_volume(&name)?;
            Err(error)
        })?;
        self.volume_event("create", &name, LOCAL);
        Ok((path, true))
    }

    /// Removes a volume of our own, whoever uses it; one that is not there is gone already.
    pub(crate) fn take_back_volume(&self, name: &str) -> Result<()> {
        self.storage.volumes.remove(name)?;
        match self.store.get::<Record>(name)? {
            Some(record) if record.driver == LOCAL => self.store.delete::<Record>(name),
            _ => Ok(()),
        }
    }

    /// What a volume of our own is instead of its directory.
    pub(crate) fn options_of(&self, name: &str) -> Result<Option<storage::volume::Options>> {
        match self.store.get::<Record>(name)? {
            Some(record) if record.driver == LOCAL => storage::volume::Options::of(&record.options),
            _ => Ok(None),
        }
    }

    /// Forgets what was written down of volumes of our own that never came to be. To be asked before anybody can make one.
    pub(crate) fn forget_unmade_volumes(&self) -> Result<()> {
        for record in self.store.list::<Record>()? {
            if record.driver == LOCAL && self.storage.volumes.path(&record.name).is_err() {
                self.store.delete::<Record>(&record.name)?;
            }
        }
        Ok(())
    }

    /// To be asked while nobody can begin to use it.
    fn refuse_if_used(&self, name: &str) -> Result<()> {
        let users = self.registry.users_of_volumes();
        let Some(users) = users.get(name) else { return Ok(()) };
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        Err(Error::conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))))
    }
}

/// Those of our own.
pub(crate) fn all(rooms: &Rooms) -> Result<Vec<Volume>> {
    let names = rooms.storage.volumes.list()?;
    // One that has just been removed is no failure of the list.
    let there = |picture: &Result<Volume>| !matches!(picture, Err(e) if e.kind() == Kind::NotFound);
    names.iter().map(|name| picture(rooms, name)).filter(there).collect()
}

/// A volume in Docker's words.
fn picture(rooms: &Rooms, name: &str) -> Result<Volume> {
    let path = rooms.storage.volumes.path(name)?;
    let record = match rooms.store.get::<Record>(name)? {
        Some(record) => record,
        None => {
            let anonymous = Id::parse(name).map(|_| (ANONYMOUS.to_owned(), String::new()));
            let made = path.parent().and_then(|path| path.metadata().ok()?.modified().ok());
            let made = made
                .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
                .unwrap_or_default();
            // To the second, as Docker tells it.
            let created = Timestamp::from_unix_nanos(i128::from(made.as_secs()) * 1_000_000_000);
            let labels = anonymous.into_iter().collect();
            Record { created, ..Record::new(name, LOCAL, BTreeMap::new(), labels) }
        }
    };
    let seconds = Timestamp::from_unix_nanos(i128::from(record.created.unix()) * 1_000_000_000);
    Ok(Volume {
        created_at: seconds.to_string(),
        driver: "local".to_owned(),
        labels: (!record.labels.is_empty()).then_some(record.labels),
        options: (!record.options.is_empty()).then_some(record.options),
        mountpoint: path.to_string_lossy().into_owned(),
        name: name.to_owned(),
        scope: "local".to_owned(),
        ..Volume::default()
    })
}

/// A plugin's volume in Docker's words.
fn picture_of_foreign(found: Found) -> Volume {
    let Found { driver, volume, record } = found;
    let seconds = Timestamp::from_unix_nanos(i128::from(record.created.unix()) * 1_000_000_000);
    Volume {
        created_at: volume.created.unwrap_or_else(|| seconds.to_string()),
        driver: record.driver,
        labels: (!record.labels.is_empty()).then_some(record.labels),
        mountpoint: volume.mountpoint.unwrap_or_default().to_string_lossy().into_owned(),
        name: record.name,
        options: (!record.options.is_empty()).then_some(record.options),
        scope: driver.scope().as_str().to_owned(),
        status: volume.status,
        ..Volume::default()
    }
}
