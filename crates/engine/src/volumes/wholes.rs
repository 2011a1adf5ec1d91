//! Volumes as wholes: copied, renamed, carried away and brought back. Docker has none of it; its users put up helper
//! containers for it.
//!
//! What is new is filled where nobody sees it and has its name when it is complete. Who runs with a volume is paused while
//! it is copied, so that the copy is of one moment.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::PoisonError;

use api::volume::{CloneBody, Volume};
use bytes::Bytes;
use futures_util::Stream;
use stdx::{Context, Error, Kind, Result};
use storage::layer::{Limits, Options, Whiteouts};

use super::{LOCAL, Record, Volumes, picture};
use crate::ByteStream;
use crate::container::Container;
use crate::rooms::Rooms;

/// The label of a copy that was made to go back to: what it is a copy of.
const SNAPSHOT_OF: &str = "gantry.volume.snapshot-of";

impl Volumes {
    /// Makes a new volume with the content of another.
    pub async fn copy(&self, name: &str, body: CloneBody) -> Result<Volume> {
        let mut labels = body.labels;
        let copy = match body.name.as_str() {
            "" if body.snapshot => {
                let now = stdx::time::Timestamp::now().date_time();
                let day = format!("{:04}{:02}{:02}", now.year(), u8::from(now.month()), now.day());
                let time = format!("{:02}{:02}{:02}", now.hour(), now.minute(), now.second());
                format!("{name}-{day}-{time}")
            }
            "" => return Err(Error::invalid("a copy needs a name")),
            name => name.to_owned(),
        };
        if body.snapshot {
            labels.insert(SNAPSHOT_OF.to_owned(), name.to_owned());
        }
        let name = name.to_owned();
        let paused = if body.no_pause { Vec::new() } else { self.users_up(&name) };
        self.while_paused(paused, move |rooms| {
            let source = rooms.content_of(&name)?;
            let options = rooms.limit_of(&name)?;
            rooms.make_filled(Record::new(&copy, LOCAL, options, labels), |data| {
                storage::layer::duplicate(source.as_fd(), data)
            })?;
            picture(rooms, &copy)
        })
        .await
    }

    /// Gives a volume that nobody has another name.
    pub async fn rename(&self, name: &str, new: &str) -> Result<()> {
        let (name, new) = (name.to_owned(), new.to_owned());
        self.blocking(move |rooms| {
            let _nobody = rooms.creations.write().unwrap_or_else(PoisonError::into_inner);
            rooms.must_be_local(&name)?;
            rooms.refuse_if_used(&name).map_err(|_| {
                let users = rooms.registry.users_of_volumes().remove(&name).unwrap_or_default();
                let users: Vec<String> = users.into_iter().collect();
                let users = users.join(", ");
                Error::conflict(format!("rename {name}: volume is in use - [{users}]"))
            })?;
            rooms.must_be_free(&new)?;
            // What it is called after this is written down under both names first: a record without a volume means nothing.
            let before = rooms.store.get::<Record>(&name)?;
            if let Some(record) = &before {
                rooms.store.put(&Record { name: new.clone(), ..record.clone() })?;
                rooms.store.sync()?;
            }
            let renamed = rooms.storage.volumes.rename(&name, &new);
            let stale = if renamed.is_ok() { &name } else { &new };
            if before.is_some() {
                rooms.store.delete::<Record>(stale)?;
            }
            renamed.context(|| format!("rename {name}"))?;
            rooms.volume_event("destroy", &name, LOCAL);
            rooms.volume_event("create", &new, LOCAL);
            Ok(())
        })
        .await
    }

    /// All that is in a volume, as an archive.
    pub async fn export(&self, name: &str) -> Result<ByteStream> {
        let name = name.to_owned();
        let source = self.blocking(move |rooms| rooms.content_of(&name)).await?;
        let (mut writer, stream) = ByteStream::pair();
        tokio::task::spawn_blocking(move || {
            let outcome = storage::layer::export(source.as_fd(), &mut writer);
            writer.finish(outcome);
        });
        Ok(stream)
    }

    /// Makes a volume of an archive, in any compression. It is there when all of it is.
    pub async fn import(
        &self,
        name: &str,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + 'static,
    ) -> Result<Volume> {
        let name = name.to_owned();
        let body: Box<dyn Read + Send> = Box::new(image::reader(body));
        self.blocking(move |rooms| {
            let record = Record::new(&name, LOCAL, Default::default(), Default::default());
            rooms.make_filled(record, |data| {
                let mut tar = storage::layer::compression::decoder(body)?;
                let options = Options {
                    whiteouts: Whiteouts::Literal,
                    limits: Limits::default(),
                    ..Options::default()
                };
                storage::layer::apply_with(data, &mut tar, &options).map(drop)
            })?;
            picture(rooms, &name)
        })
        .await
    }

    /// Those who run with it.
    fn users_up(&self, name: &str) -> Vec<Container> {
        let mut all = self.containers.all();
        all.retain(|container| {
            let record = container.record();
            let has = record.mounts.iter().any(|m| m.r#type == "volume" && m.name == *name);
            has && record.state.phase.is_up()
        });
        all
    }

    async fn while_paused<T: Send + 'static>(
        &self,
        containers: Vec<Container>,
        work: impl FnOnce(&Rooms) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let rooms = self.containers.rooms.clone();
        tokiox::to_the_end(async move {
            let mut paused = Vec::new();
            let mut outcome = Ok(());
            for container in containers {
                match container.freeze().await {
                    Ok(true) => paused.push(container),
                    Ok(false) => {}
                    Err(error) => {
                        outcome = Err(error);
                        break;
                    }
                }
            }
            let done = match outcome {
                Ok(()) => tokiox::blocking(move || work(&rooms)).await,
                Err(error) => Err(error),
            };
            for container in paused {
                container.thaw().await;
            }
            done
        })
        .await
    }
}

impl Rooms {
    /// A volume of our own, and not a plugin's.
    fn must_be_local(&self, name: &str) -> Result<()> {
        if let Some(record) = self.foreign_record(name)? {
            return Err(Error::not_implemented(format!(
                "this is not supported for volumes of driver {}",
                record.driver
            )));
        }
        self.storage.volumes.path(name).map(drop)
    }

    fn must_be_free(&self, name: &str) -> Result<()> {
        storage::volume::validate(name)?;
        let exists = || Error::conflict(format!("volume {name} already exists"));
        match self.storage.volumes.path(name) {
            Ok(_) => Err(exists()),
            Err(_) if self.foreign_record(name)?.is_some() => Err(exists()),
            Err(_) => Ok(()),
        }
    }

    /// What is in it: its directory, or what it is instead.
    fn content_of(&self, name: &str) -> Result<OwnedFd> {
        self.must_be_local(name)?;
        let path = self.storage.volumes.path(name)?;
        match self.options_of(name)? {
            Some(options) if options.is_in_memory() => Err(Error::invalid(format!(
                "volume {name} is in memory: there is nothing of it to be copied"
            ))),
            Some(options) => options.mount(&path),
            None => {
                let directory = std::fs::File::open(&path);
                Ok(directory.context(|| format!("cannot open {}", path.display()))?.into())
            }
        }
    }

    /// The option that limits it, if it is a directory that has a limit: a copy has the same.
    fn limit_of(&self, name: &str) -> Result<BTreeMap<String, String>> {
        let Some(record) = self.store.get::<Record>(name)? else { return Ok(BTreeMap::new()) };
        let mut options = record.options;
        let is_directory = storage::volume::Options::of(&options)?.is_none();
        options.retain(|key, _| is_directory && key == "size");
        Ok(options)
    }

    /// Makes a volume with what `fill` puts into it.
    fn make_filled(
        &self,
        record: Record,
        fill: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> Result<()>,
    ) -> Result<()> {
        let name = record.name.clone();
        self.must_be_free(&name)?;
        let says_something = !(record.options.is_empty() && record.labels.is_empty());
        if says_something {
            self.store.put(&record)?;
        }
        let bytes = storage::volume::size(&record.options)?;
        let made = self.storage.volumes.create_filled(&name, bytes, fill);
        if made.is_err() && says_something {
            self.store.delete::<Record>(&name)?;
        }
        made.map_err(|error| match error.kind() {
            Kind::Conflict => Error::conflict(format!("volume {name} already exists")),
            _ => error,
        })
        .context(|| format!("create {name}"))?;
        self.volume_event("create", &name, LOCAL);
        Ok(())
    }
}
