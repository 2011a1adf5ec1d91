//! Volumes that plugins have: found, made, mounted for containers, given back.
//!
//! A plugin may take its time over everything, so nothing here is done while others wait: only the name that is asked
//! about is held. Who mounts what is written down before the plugin is told, so that a daemon that wakes up can say for
//! whom a mount is not needed any more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use api::container::MountPoint;
use plugin::Patience;
use serde::{Deserialize, Serialize};
use stdx::time::Timestamp;
use stdx::{Context, Error, Id, Kind, Result};
use storage::volume::{Driver, PluginDriver, Volume};

use super::{LOCAL, Record};
use crate::container::mounts::{Making, check_volume_name};
use crate::container::volumes::is_foreign;
use crate::rooms::Rooms;

/// A container has a plugin's volume mounted, or is about to.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Mounted {
    container: Id,
    volume: String,
    driver: String,
    mountpoint: Option<PathBuf>,
    /// The run is over; the plugin has still to be told.
    leaving: bool,
}

impl state::Record for Mounted {
    const TABLE: &'static str = "volume_mounts";

    fn key(&self) -> String {
        key(&self.container, &self.volume)
    }
}

fn key(container: &Id, volume: &str) -> String {
    format!("{container}/{volume}")
}

/// Which names somebody works on, and whether the daemon has woken up.
#[derive(Default)]
pub(crate) struct Foreign {
    busy: Mutex<BTreeMap<String, Doing>>,
    free: Condvar,
    awake: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Using,
    Removing,
}

/// Nobody else works on the name.
struct Alone<'a> {
    foreign: &'a Foreign,
    name: &'a str,
}

impl Foreign {
    fn busy(&self) -> MutexGuard<'_, BTreeMap<String, Doing>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone<'a>(&'a self, name: &'a str, doing: Doing) -> Alone<'a> {
        let mut busy = self.busy();
        while busy.contains_key(name) {
            busy = self.free.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        busy.insert(name.to_owned(), doing);
        Alone { foreign: self, name }
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.foreign.busy().remove(self.name);
        self.foreign.free.notify_all();
    }
}

/// Who has, or would have, the volume of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Local,
    Plugin(String),
}

impl Whose {
    pub(crate) fn of(driver: &str) -> Self {
        if driver == LOCAL { Self::Local } else { Self::Plugin(driver.to_owned()) }
    }
}

/// A plugin's volume.
pub(crate) struct Found {
    pub(crate) driver: Arc<PluginDriver>,
    pub(crate) volume: Volume,
    pub(crate) record: Record,
}

impl Rooms {
    /// The names of the drivers in use.
    pub(crate) fn volume_drivers(&self) -> Vec<String> {
        let mut names = self.storage.volume_plugins.names();
        names.push(LOCAL.to_owned());
        names.sort();
        names
    }

    /// Who shall be asked for a volume, when `driver` was asked for (nobody in particular if empty).
    pub(crate) fn whose(&self, name: &str, driver: &str) -> Result<Whose> {
        let recorded = self.store.get::<Record>(name)?.map(|record| record.driver);
        let holder = match recorded {
            Some(driver) if driver != LOCAL => Some(driver),
            _ => self.storage.volumes.path(name).is_ok().then(|| LOCAL.to_owned()),
        };
        match holder {
            Some(holder) if driver.is_empty() || holder == driver => Ok(Whose::of(&holder)),
            Some(holder) => {
                if holder != LOCAL && self.is_stale(name, &holder)? {
                    self.store.delete::<Record>(name)?;
                    return Ok(Whose::of(driver));
                }
                Err(must_be_unique(format!("driver '{holder}' already has volume '{name}'")))
            }
            None if driver.is_empty() => Ok(self
                .ask_all(name)?
                .map_or(Whose::Local, |found| Whose::of(&found.record.driver))),
            None => Ok(Whose::of(driver)),
        }
    }

    /// Whether a driver has lost a volume that is recorded as its own.
    fn is_stale(&self, name: &str, holder: &str) -> Result<bool> {
        let there = self
            .storage
            .volume_plugins
            .get(holder, Patience::None)
            .and_then(|driver| driver.get(name))
            .map_err(|error| {
                must_be_unique(format!(
                    "found reference to volume '{name}' in driver '{holder}', but got an error while checking the \
                     driver: {}",
                    error.chain()
                ))
            })?;
        if there.is_none() && self.registry.users_of_volumes().contains_key(name) {
            return Err(must_be_unique(format!(
                "found references to volume '{name}' in driver '{holder}' but the volume was not found in the driver \
                 -- you may need to remove containers referencing this volume or force remove the volume to re-create \
                 it"
            )));
        }
        Ok(there.is_none())
    }

    /// The volume of that name, if it is a plugin's.
    pub(crate) fn foreign(&self, name: &str) -> Result<Option<Found>> {
        let Some(record) = self.store.get::<Record>(name)? else {
            let local = self.storage.volumes.path(name).is_ok();
            return if local { Ok(None) } else { self.ask_all(name) };
        };
        if record.driver == LOCAL {
            return Ok(None);
        }
        let holder = &record.driver;
        let found = self
            .storage
            .volume_plugins
            .get(holder, Patience::None)
            .and_then(|driver| Ok((driver.get(name)?, driver)))
            .context(|| {
                format!("error while checking if volume \"{name}\" exists in driver \"{holder}\"")
            })?;
        match found {
            (Some(volume), driver) => Ok(Some(Found { driver, volume, record })),
            (None, _) => {
                self.store.delete::<Record>(name)?;
                Ok(None)
            }
        }
    }

    /// What is written down of a plugin's volume.
    pub(crate) fn foreign_record(&self, name: &str) -> Result<Option<Record>> {
        Ok(self.store.get::<Record>(name)?.filter(|record| record.driver != LOCAL))
    }

    /// Whoever of the plugins has it is remembered. Those that cannot tell do not have it.
    fn ask_all(&self, name: &str) -> Result<Option<Found>> {
        if check_volume_name(name).is_err() {
            return Ok(None);
        }
        let drivers = self.storage.volume_plugins.all();
        let told = std::thread::scope(|scope| {
            let asked: Vec<_> =
                drivers.iter().map(|driver| scope.spawn(|| driver.get(name))).collect();
            asked.into_iter().map(|asked| asked.join()).collect::<Vec<_>>()
        });
        for (driver, told) in drivers.into_iter().zip(told) {
            if let Ok(Ok(Some(volume))) = told {
                let record = Record::new(name, driver.name(), BTreeMap::new(), BTreeMap::new());
                self.store.put(&record)?;
                return Ok(Some(Found { driver, volume, record }));
            }
        }
        Ok(None)
    }

    /// Those of all plugins, and what could not be asked.
    pub(crate) fn all_foreign(&self) -> Result<(Vec<Found>, Vec<String>)> {
        let drivers = self.storage.volume_plugins.all();
        let told = std::thread::scope(|scope| {
            let asked: Vec<_> =
                drivers.iter().map(|driver| scope.spawn(|| driver.list())).collect();
            asked.into_iter().map(|asked| asked.join()).collect::<Vec<_>>()
        });
        let mut records: BTreeMap<String, Record> = self
            .store
            .list::<Record>()?
            .into_iter()
            .map(|record| (record.name.clone(), record))
            .collect();
        let (mut all, mut warnings, mut heard) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (driver, told) in drivers.into_iter().zip(told) {
            let told = told.unwrap_or_else(|_| Err(Error::internal("panicked")));
            match told.context(|| format!("list {}", driver.name())) {
                Ok(volumes) => {
                    heard.insert(driver.name().to_owned());
                    for volume in volumes {
                        let fresh = || {
                            Record::new(
                                &volume.name,
                                driver.name(),
                                BTreeMap::new(),
                                BTreeMap::new(),
                            )
                        };
                        let record = records.remove(&volume.name).unwrap_or_else(fresh);
                        // Who had the name first has it.
                        if record.driver == driver.name() {
                            all.push(Found { driver: Arc::clone(&driver), volume, record });
                        }
                    }
                }
                Err(error) => {
                    // What is remembered of it is better than nothing.
                    for record in records.values().filter(|record| record.driver == driver.name()) {
                        let volume = Volume { name: record.name.clone(), ..Volume::default() };
                        let (driver, record) = (Arc::clone(&driver), record.clone());
                        all.push(Found { driver, volume, record });
                    }
                    warnings.push(error.chain());
                }
            }
        }
        Ok((all, warnings))
    }

    /// Makes a volume, or finds the one that is there. Returns whether it is new.
    pub(crate) fn make_foreign(
        &self,
        name: &str,
        driver: &str,
        making: &Making,
    ) -> Result<(Found, bool)> {
        check_volume_name(name)?;
        let doing = || format!("create {name}");
        let _alone = self.foreign.alone(name, Doing::Using);
        let driver = self.storage.volume_plugins.get(driver, Patience::None).context(doing)?;
        let there = driver.get(name).ok().flatten();
        let fresh = there.is_none();
        let volume = match there {
            Some(volume) => volume,
            None => {
                driver.create(name, &making.options).context(doing)?;
                driver.get(name).ok().flatten().unwrap_or_default()
            }
        };
        let record = match self.store.get::<Record>(name)? {
            Some(record) if !fresh && record.driver == driver.name() => record,
            _ => {
                let Making { options, labels, .. } = making.clone();
                let record = Record::new(name, driver.name(), options, labels);
                self.store.put(&record)?;
                record
            }
        };
        if fresh {
            self.volume_event("create", name, driver.name());
        }
        Ok((Found { driver, volume, record }, fresh))
    }

    /// Removes a volume that no container mounts. With `force`, what its driver says does not keep us from forgetting it.
    pub(crate) fn remove_foreign(&self, found: &Record, force: bool) -> Result<()> {
        let name = &found.name;
        let _alone = self.foreign.alone(name, Doing::Removing);
        {
            // Whoever comes later sees that it is being removed.
            let _nobody = self.creations.write().unwrap_or_else(PoisonError::into_inner);
            self.refuse_if_used(name)?;
        }
        let removed = self
            .storage
            .volume_plugins
            .get(&found.driver, Patience::None)
            .and_then(|driver| driver.remove(name))
            .context(|| format!("remove {name}"));
        if removed.is_ok() || force {
            self.store.delete::<Record>(name)?;
        }
        removed?;
        self.volume_event("destroy", name, &found.driver);
        Ok(())
    }

    /// Refuses for a container that is being made what has gone, or is about to go. To be asked while nobody can begin to
    /// remove it.
    pub(crate) fn must_stay(&self, name: &str) -> Result<()> {
        let leaves = self.foreign.busy().get(name) == Some(&Doing::Removing);
        if leaves || self.store.get::<Record>(name)?.is_none() {
            return Err(Error::not_found(format!("get {name}: no such volume")));
        }
        Ok(())
    }

    /// Mounts a volume for a container, once for each of its runs.
    pub(crate) fn mount_foreign(
        &self,
        container: &Id,
        volume: &str,
        driver: &str,
    ) -> Result<PathBuf> {
        let _alone = self.foreign.alone(volume, Doing::Using);
        let before = self.store.get::<Mounted>(&key(container, volume))?;
        if let Some(Mounted { leaving: false, mountpoint: Some(path), .. }) = before {
            return Ok(path);
        }
        let plugin = self.storage.volume_plugins.get(driver, Patience::Long)?;
        if before.is_some() {
            plugin.unmount(volume, container.as_str())?;
        }
        let mut mounted = Mounted {
            container: container.clone(),
            volume: volume.to_owned(),
            driver: driver.to_owned(),
            mountpoint: None,
            leaving: false,
        };
        self.store.put(&mounted)?;
        let path = plugin.mount(volume, container.as_str()).or_else(|error| {
            // What is not mounted is not unmounted: some count.
            if error.kind() != Kind::Unavailable {
                self.store.delete::<Mounted>(&key(container, volume))?;
            }
            Err(error.with_kind(Kind::Internal))
        })?;
        mounted.mountpoint = Some(path.clone());
        self.store.put(&mounted)?;
        Ok(path)
    }

    /// A driver may say only now where its volumes are.
    pub(crate) fn tell_mountpoints(&self, container: &Id, mounts: &mut [MountPoint]) -> Result<()> {
        for point in mounts.iter_mut().filter(|point| is_foreign(point)) {
            if let Some(Mounted { mountpoint: Some(path), .. }) =
                self.store.get::<Mounted>(&key(container, &point.name))?
            {
                point.source = path.to_string_lossy().into_owned();
            }
        }
        Ok(())
    }

    /// A run is over. Before the daemon has woken up the plugins are not waited for: see [`wake_foreign`](Self::wake_foreign).
    pub(crate) fn unmount_foreign(&self, container: &Id) -> Result<()> {
        for mut mounted in self.store.list::<Mounted>()? {
            if mounted.container == *container {
                mounted.leaving = true;
                self.store.put(&mounted)?;
                if self.foreign.awake.load(Ordering::Acquire) {
                    self.tell(&mounted);
                }
            }
        }
        Ok(())
    }

    /// Marks what nobody of those that are `up` has mounted. Returns whether there is somebody to be told.
    pub(crate) fn wake_foreign(&self, up: &[Id]) -> Result<bool> {
        let mut anybody = false;
        for mut mounted in self.store.list::<Mounted>()? {
            if !up.contains(&mounted.container) {
                mounted.leaving = true;
                self.store.put(&mounted)?;
            }
            anybody |= mounted.leaving;
        }
        self.foreign.awake.store(true, Ordering::Release);
        Ok(anybody)
    }

    /// Tells plugins what they have not been told.
    pub(crate) fn tell_all(&self) -> Result<()> {
        for mounted in self.store.list::<Mounted>()?.iter().filter(|mounted| mounted.leaving) {
            self.tell(mounted);
        }
        Ok(())
    }

    fn tell(&self, mounted: &Mounted) {
        let Mounted { container, volume, driver, .. } = mounted;
        let _alone = self.foreign.alone(volume, Doing::Using);
        let outcome = self.store.get::<Mounted>(&key(container, volume)).and_then(|now| {
            // The next run may have begun.
            if !now.is_some_and(|now| now.leaving) {
                return Ok(());
            }
            let driver = self.storage.volume_plugins.get(driver, Patience::Long)?;
            driver.unmount(volume, container.as_str())?;
            self.store.delete::<Mounted>(&key(container, volume))
        });
        if let Err(error) = outcome {
            tracing::warn!(%container, %volume, error = %error.chain(), "cannot unmount a volume");
        }
    }
}

impl Record {
    pub(crate) fn new(
        name: &str,
        driver: &str,
        options: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
    ) -> Self {
        let driver = driver.to_owned();
        Self { name: name.to_owned(), driver, created: Timestamp::now(), labels, options }
    }
}

fn must_be_unique(why: String) -> Error {
    Error::new(Kind::Conflict, why).caused_by(Error::conflict("volume name must be unique"))
}
