//! Volumes as people see them: names with labels, held by the containers that mount them.
//!
//! The directory is the volume; a record adds what the directory cannot say. A container's own (anonymous) volumes and
//! those that a bind named into being have no record, and need none.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use api::volume::{CreateBody, ListResponse, PruneReport, Volume};
use serde::{Deserialize, Serialize};
use stdx::time::Timestamp;
use stdx::{Context, Error, Id, Kind, Result};

use crate::containers::Containers;
use crate::filters::Filters;
use crate::rooms::Rooms;

/// The label that tells volumes nobody named.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// The handle that the doors hold.
#[derive(Clone)]
pub struct Volumes {
    containers: Containers,
}

/// What was said when a volume was made by hand.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    name: String,
    created: Timestamp,
    labels: BTreeMap<String, String>,
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
            volumes.retain(|volume| {
                filters.any("name", |wanted| volume.name.contains(wanted))
                    && filters.exact("driver", &volume.driver)
                    && filters.labels("label", volume.labels.as_ref().unwrap_or(&BTreeMap::new()))
                    && dangling.is_none_or(|wanted| wanted != users.contains_key(&volume.name))
            });
            Ok(ListResponse { volumes, warnings: None })
        })
        .await
    }

    /// Makes a volume, or finds the one that is there already. Without a name it gets one.
    pub async fn create(&self, body: CreateBody) -> Result<Volume> {
        if !matches!(body.driver.as_str(), "" | "default" | "local") {
            let driver = body.driver;
            return Err(Error::not_found(format!(
                "error looking up volume plugin {driver}: plugin \"{driver}\" not found"
            )));
        }
        if !body.driver_opts.is_empty() {
            return Err(Error::not_implemented(
                "options of the local volume driver are not supported yet",
            ));
        }
        self.blocking(move |rooms| {
            let mut labels = body.labels;
            let name = match body.name.is_empty() {
                false => body.name,
                true => {
                    labels.insert(ANONYMOUS.to_owned(), String::new());
                    Id::random().to_string()
                }
            };
            if rooms.storage.volumes.path(&name).is_err() {
                rooms.storage.volumes.create(&name).context(|| format!("create {name}"))?;
                rooms.store.put(&Record {
                    name: name.clone(),
                    created: Timestamp::now(),
                    labels,
                })?;
                rooms.volume_event("create", &name);
            }
            picture(rooms, &name)
        })
        .await
    }

    pub async fn inspect(&self, name: &str) -> Result<Volume> {
        let name = name.to_owned();
        self.blocking(move |rooms| picture(rooms, &name)).await
    }

    /// Removes a volume that no container mounts, running or not. With `force`, one that is not there is gone already.
    pub async fn remove(&self, name: &str, force: bool) -> Result<()> {
        let name = name.to_owned();
        self.blocking(move |rooms| match rooms.storage.volumes.path(&name) {
            Err(error) if force && error.kind() == Kind::NotFound => Ok(()),
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
                let wanted = (named_too || labels.contains_key(ANONYMOUS))
                    && filters.labels("label", &labels)
                    && !(filters.has("label!") && filters.labels("label!", &labels));
                if !wanted {
                    continue;
                }
                let size = crate::system::size_of_tree(volume.mountpoint.as_ref());
                match Self::remove_unused(rooms, &volume.name) {
                    Ok(()) => {
                        report.volumes_deleted.get_or_insert_default().push(volume.name);
                        report.space_reclaimed += u64::try_from(size).unwrap_or(0);
                    }
                    Err(error) if error.kind() == Kind::Conflict => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(report)
        })
        .await
    }

    fn remove_unused(rooms: &Rooms, name: &str) -> Result<()> {
        // Nobody begins to use it between the question and the end.
        let _nobody = rooms.creations.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(users) = rooms.registry.users_of_volumes().get(name) {
            let users: Vec<&str> = users.iter().map(String::as_str).collect();
            return Err(Error::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        rooms.storage.volumes.remove(name).context(|| format!("remove {name}"))?;
        rooms.store.delete::<Record>(name)?;
        rooms.volume_event("destroy", name);
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

fn all(rooms: &Rooms) -> Result<Vec<Volume>> {
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
            Record { name: name.to_owned(), created, labels: anonymous.into_iter().collect() }
        }
    };
    let seconds = Timestamp::from_unix_nanos(i128::from(record.created.unix()) * 1_000_000_000);
    Ok(Volume {
        created_at: seconds.to_string(),
        driver: "local".to_owned(),
        labels: (!record.labels.is_empty()).then_some(record.labels),
        mountpoint: path.to_string_lossy().into_owned(),
        name: name.to_owned(),
        scope: "local".to_owned(),
        ..Volume::default()
    })
}
