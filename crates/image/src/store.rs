//! The image store: one handle for everything that can be done with images.
//!
//! The catalog is read under a short lock; it changes only by [`Images::commit`], which writes the records first. Files
//! come before the records that need them (a [`Lease`] keeps the sweeper away meanwhile) and go after them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use oci::image::{Descriptor, ImageConfig, RunConfig};
use oci::{ChainId, Digest, Platform, Reference};
use state::{Actor, EventKind, Journal, Store};
use stdx::histogram::Times;
use stdx::time::Timestamp;
use stdx::{Context, Error, Result};
use storage::Storage;
use tokiox::OncePerKey;

use crate::catalog::{Catalog, Change, Entry, Hold, stored_form};
use crate::distribution::{Registries, RegistryConfig};
use crate::gc::{Lease, Pins};
use crate::limits::CONFIG;
use crate::records::{HoldRecord, ImageRecord, NameRecord, hold_key};

/// The images on this host. Clones share it.
#[derive(Clone)]
pub struct Images {
    pub(crate) room: Arc<Room>,
}

pub(crate) struct Room {
    pub(crate) state: Store,
    pub(crate) storage: Arc<Storage>,
    registries: RwLock<Arc<Registries>>,
    /// Two pulls of one layer fetch it once and unpack it once.
    pub(crate) fetching: OncePerKey<Digest>,
    pub(crate) unpacking: OncePerKey<ChainId>,
    pub(crate) pins: Arc<Pins>,
    journal: Journal,
    catalog: Mutex<Arc<Catalog>>,
    /// Held by who changes it, while that is written down.
    turn: Mutex<()>,
    pub(crate) actions: Actions,
}

/// How long things took, for whoever watches.
#[derive(Debug, Default)]
pub struct Actions {
    pub delete: Times,
    pub history: Times,
    /// Those that failed, too.
    pub pull: Times,
}

/// An image as others see it: a picture of the moment it was asked for.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its configuration.
    pub id: Digest,
    pub config: Arc<ImageConfig>,
    /// Its layers with what is below them, the lowest first.
    pub chain: Vec<ChainId>,
    /// Bytes of all its layers on disk.
    pub size: u64,
    pub created: Option<Timestamp>,
    /// `busybox:latest`
    pub repo_tags: Vec<String>,
    /// `busybox@sha256:…`
    pub repo_digests: Vec<String>,
    /// The image it was made from here.
    pub parent: Option<Digest>,
    pub last_tagged: Timestamp,
    /// The manifest it was pulled with.
    pub manifest: Option<Descriptor>,
}

impl Image {
    /// What it was built for.
    pub fn platform(&self) -> Platform {
        self.config.platform()
    }

    /// How it wants to be run.
    pub fn run_config(&self) -> &RunConfig {
        &self.config.config
    }

    fn of(entry: &Entry, names: &[Reference]) -> Self {
        let record = &entry.record;
        let familiar = |names: &[Reference], digests: bool| {
            let of_kind = names.iter().filter(|name| name.digest().is_some() == digests);
            of_kind.map(Reference::familiar).collect()
        };
        Self {
            id: record.id.clone(),
            config: Arc::clone(&entry.config),
            chain: record.layers.iter().map(|layer| layer.chain.clone()).collect(),
            size: record.layers.iter().map(|layer| layer.size).sum(),
            created: entry.config.created,
            repo_tags: familiar(names, false),
            repo_digests: familiar(names, true),
            parent: record.parent.clone(),
            last_tagged: record.last_tagged,
            manifest: record.manifest.clone(),
        }
    }
}

impl Room {
    pub(crate) fn registries(&self) -> Arc<Registries> {
        Arc::clone(&self.registries.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Images {
    /// Opens what is recorded. An image whose configuration is lost or damaged is left out and said so: it can be pulled
    /// again, and `system check` finds it.
    pub fn open(
        state: &Store,
        storage: Arc<Storage>,
        journal: &Journal,
        registries: RegistryConfig,
    ) -> Result<Self> {
        let mut catalog = Catalog::default();
        for record in state.list::<ImageRecord>()? {
            match read_config(&storage, &record.id) {
                Ok(config) => catalog
                    .apply(Change::PutImage(Arc::new(Entry { record, config: Arc::new(config) }))),
                Err(error) => {
                    tracing::error!(image = %record.id, error = %error.chain(), "the configuration of an image is unreadable");
                }
            }
        }
        for name in state.list::<NameRecord>()? {
            if catalog.images.contains_key(&name.image) {
                catalog.apply(Change::PutName(name));
            }
        }
        for record in state.list::<HoldRecord>()? {
            catalog.apply(Change::PutHold(Hold { record, running: false }));
        }
        let room = Room {
            state: state.clone(),
            storage,
            registries: RwLock::new(Arc::new(Registries::new(registries))),
            fetching: OncePerKey::new(),
            unpacking: OncePerKey::new(),
            pins: Arc::default(),
            journal: journal.clone(),
            catalog: Mutex::new(Arc::new(catalog)),
            turn: Mutex::default(),
            actions: Actions::default(),
        };
        Ok(Self { room: Arc::new(room) })
    }

    /// Registries are used otherwise from now on; who talks to one already goes on as he began.
    pub fn use_registries(&self, config: RegistryConfig) {
        let now = Arc::new(self.room.registries().with(config));
        *self.room.registries.write().unwrap_or_else(PoisonError::into_inner) = now;
    }

    pub fn actions(&self) -> &Actions {
        &self.room.actions
    }

    /// Finds an image by name, ID or the beginning of an ID, in Docker's order.
    pub fn resolve(&self, name: &str) -> Result<Arc<Image>> {
        let catalog = self.catalog();
        let entry = catalog.resolve(name)?;
        Ok(Arc::new(Image::of(entry, &catalog.names_of(&entry.record.id))))
    }

    /// Whether a name means this image now.
    pub fn is_named(&self, name: &str, id: &Digest) -> bool {
        self.catalog().resolve(name).is_ok_and(|entry| entry.record.id == *id)
    }

    /// The image with this ID.
    pub fn get(&self, id: &Digest) -> Option<Arc<Image>> {
        let catalog = self.catalog();
        let entry = catalog.images.get(id)?;
        Some(Arc::new(Image::of(entry, &catalog.names_of(id))))
    }

    /// The bytes of the configuration: what the ID is the digest of.
    pub fn raw_config(&self, id: &Digest) -> Result<Vec<u8>> {
        self.room.storage.content.read(id, CONFIG)
    }

    /// Gives an image another name, taking that from the image that had it.
    pub fn tag(&self, source: &str, target: &str) -> Result<()> {
        let target = Reference::parse_normalized(target)?;
        if target.digest().is_some() {
            return Err(Error::invalid("refusing to create a tag with a digest reference"));
        }
        let mut catalog = self.change();
        let id = catalog.resolve(source)?.record.id.clone();
        let target = target.with_default_tag();
        let changes = tagging(&catalog, &id, &target)?;
        self.commit(&mut catalog, changes)?;
        drop(catalog);
        self.event("tag", id.as_str(), &id, &target.familiar());
        Ok(())
    }

    /// A container needs the image from now on, which it has asked for by `name`: it cannot be removed without force, and its
    /// layers not at all.
    pub fn hold(&self, image: &Digest, holder: &str, name: &str) -> Result<()> {
        let mut catalog = self.change();
        let entry = catalog
            .images
            .get(image)
            .ok_or_else(|| Error::not_found(format!("No such image: {image}")))?;
        let chain = entry.record.layers.iter().map(|layer| layer.chain.clone()).collect();
        let before = catalog.hold(holder, image);
        let mut names = before.map(|hold| hold.record.names.clone()).unwrap_or_default();
        let name = Reference::parse_normalized(name).map(|name| stored_form(&name)).ok();
        names.extend(name.filter(|name| catalog.named(name) == Some(image)));
        let record = HoldRecord { holder: holder.to_owned(), image: image.clone(), names, chain };
        self.commit(&mut catalog, vec![Change::PutHold(Hold { record, running: false })])
    }

    /// Whether the holder runs decides how an image refuses to be removed. Not written down: whoever recovers says it again.
    pub fn set_running(&self, holder: &str, running: bool) {
        for hold in Arc::make_mut(&mut self.catalog_now()).holds_of_mut(holder) {
            hold.running = running;
        }
    }

    /// The holder is gone. Layers that only it needed go with it.
    pub fn drop_hold(&self, image: &Digest, holder: &str) -> Result<()> {
        let mut catalog = self.change();
        let Some(hold) = catalog.hold(holder, image).cloned() else { return Ok(()) };
        self.commit(&mut catalog, vec![Change::DeleteHold(holder.to_owned(), image.clone())])?;
        let image_is_gone = !catalog.images.contains_key(image);
        drop(catalog);
        if image_is_gone {
            let from_the_top: Vec<ChainId> = hold.record.chain.iter().rev().cloned().collect();
            self.sweep_layers(&from_the_top)?;
        }
        Ok(())
    }

    /// How many images there are.
    pub fn count(&self) -> usize {
        self.catalog().images.len()
    }

    /// Everybody who holds an image: for `system check` and recovery.
    pub fn holders(&self) -> Vec<(String, Digest)> {
        let catalog = self.catalog();
        catalog
            .holds()
            .map(|hold| (hold.record.holder.clone(), hold.record.image.clone()))
            .collect()
    }

    /// The catalog as it is now. Nobody who looks waits for somebody who writes.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog_now())
    }

    fn catalog_now(&self) -> MutexGuard<'_, Arc<Catalog>> {
        self.room.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The catalog for somebody who decides by it what it shall be next: one at a time.
    pub(crate) fn change(&self) -> Changing<'_> {
        let turn = self.room.turn.lock().unwrap_or_else(PoisonError::into_inner);
        Changing { _turn: turn, catalog: self.catalog() }
    }

    pub(crate) fn lease(&self) -> Lease {
        Lease::new(&self.room.pins)
    }

    /// The only way the catalog changes: all of it is recorded, then all of it is so.
    pub(crate) fn commit(&self, catalog: &mut Changing<'_>, changes: Vec<Change>) -> Result<()> {
        self.room.state.transaction(|tx| {
            for change in &changes {
                match change {
                    Change::PutImage(entry) => tx.put(&entry.record)?,
                    Change::DeleteImage(id) => tx.delete::<ImageRecord>(id.as_str())?,
                    Change::PutName(name) => tx.put(name)?,
                    Change::DeleteName(reference) => {
                        tx.delete::<NameRecord>(&reference.to_string())?
                    }
                    Change::PutHold(hold) => tx.put(&hold.record)?,
                    Change::DeleteHold(holder, image) => {
                        tx.delete::<HoldRecord>(&hold_key(holder, image))?;
                    }
                }
            }
            Ok(())
        })?;
        // Of who changes it there is one: it is copied only if somebody looks just now.
        catalog.catalog = Arc::default();
        let mut now = self.catalog_now();
        let changed = Arc::make_mut(&mut now);
        for change in changes {
            changed.apply(change);
        }
        catalog.catalog = Arc::clone(&now);
        Ok(())
    }

    /// Tells what happened to an image. Docker's attributes: the image's labels, and `name`.
    pub(crate) fn event(&self, action: &str, actor: &str, image: &Digest, name: &str) {
        let entry = self.catalog().images.get(image).cloned();
        if let Some(entry) = entry {
            self.event_of(&entry, action, actor, name);
        }
    }

    /// The same for an image that may be gone by now.
    pub(crate) fn event_of(&self, entry: &Entry, action: &str, actor: &str, name: &str) {
        let mut attributes = entry.config.config.labels.clone();
        attributes.insert("name".to_owned(), name.to_owned());
        self.room.journal.append(
            EventKind::Image,
            action,
            Actor { id: actor.to_owned(), attributes },
        );
    }

    /// Tells of something that happened to no image in particular.
    pub(crate) fn plain_event(
        &self,
        action: &str,
        attributes: impl IntoIterator<Item = (String, String)>,
    ) {
        let actor = Actor { id: String::new(), attributes: attributes.into_iter().collect() };
        self.room.journal.append(EventKind::Image, action, actor);
    }
}

/// The right to change the catalog, and how it is until then.
pub(crate) struct Changing<'a> {
    _turn: MutexGuard<'a, ()>,
    catalog: Arc<Catalog>,
}

impl std::ops::Deref for Changing<'_> {
    type Target = Catalog;

    fn deref(&self) -> &Catalog {
        &self.catalog
    }
}

/// What it takes to give `id` the name `target`.
pub(crate) fn tagging(catalog: &Catalog, id: &Digest, target: &Reference) -> Result<Vec<Change>> {
    if target.familiar_name() == "sha256" {
        return Err(Error::invalid(
            "refusing to create an ambiguous tag using digest algorithm as name",
        ));
    }
    let mut changes =
        vec![Change::PutName(NameRecord { reference: stored_form(target), image: id.clone() })];
    if let Some(entry) = catalog.images.get(id) {
        let mut entry = Entry::clone(entry);
        entry.record.last_tagged = Timestamp::now();
        changes.push(Change::PutImage(Arc::new(entry)));
    }
    Ok(changes)
}

fn read_config(storage: &Storage, id: &Digest) -> Result<ImageConfig> {
    let bytes = storage.content.read(id, CONFIG)?;
    ImageConfig::parse(&bytes).context(|| format!("cannot read image {id}"))
}
