//! A new image: a configuration, and perhaps one more layer on top of another image. What commit and import end in.

use std::io::Write;
use std::sync::Arc;

use oci::image::{Descriptor, History, ImageConfig, RootFs, media_type};
use oci::{Digest, Platform, Reference};
use stdx::time::Timestamp;
use stdx::{Context, Error, Result};

use crate::gc::Lease;
use crate::pull::{existing, registration};
use crate::records::{ImageRecord, LayerRecord};
use crate::store::tagging;
use crate::unpack::{self, Ticker};
use crate::{Image, Images};

/// What a new image is to be.
#[derive(Clone, Debug, Default)]
pub struct NewImage {
    /// The image whose layers and history it continues.
    pub parent: Option<Digest>,
    /// How it wants to be run, who made it, of which container. Its layers, history and platform are filled in.
    pub config: ImageConfig,
    /// The step that made it. `empty_layer` is filled in.
    pub step: History,
    /// Its name, if it is to have one.
    pub reference: Option<Reference>,
    pub by: By,
}

/// What makes an image; each is told of in its own way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    #[default]
    Commit,
    Import,
}

impl Images {
    /// Makes an image with one more layer than its parent, which `write` writes as an uncompressed tar. `docker commit`.
    pub async fn create_from_layer(
        &self,
        new: NewImage,
        write: impl FnOnce(&mut dyn Write) -> Result<()> + Send + 'static,
    ) -> Result<Arc<Image>> {
        let images = self.clone();
        tokiox::to_the_end(async move {
            tokiox::blocking(move || images.create_blocking(new, write)).await
        })
        .await
    }

    pub(crate) fn create_blocking(
        &self,
        new: NewImage,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<Arc<Image>> {
        let work = self.begin("commit")?;
        let lease = self.lease();
        let made = self.create_under(&lease, new, write);
        if made.is_err() {
            // What was stored for it is of no use to anybody.
            let (blobs, chains) = (lease.blobs(), lease.chains());
            drop(lease);
            self.sweep_layers(&chains)?;
            self.sweep_blobs(&blobs)?;
        }
        work.end();
        made
    }

    fn create_under(
        &self,
        lease: &Lease,
        new: NewImage,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<Arc<Image>> {
        let storage = &self.room.storage;
        let NewImage { parent, mut config, mut step, reference, by } = new;
        let mut layers: Vec<LayerRecord> = Vec::new();
        if let Some(parent) = &parent {
            let catalog = self.catalog();
            let below = catalog
                .images
                .get(parent)
                .ok_or_else(|| Error::not_found(format!("No such image: {parent}")))?;
            layers.clone_from(&below.record.layers);
            config.history.clone_from(&below.config.history);
            config.rootfs.clone_from(&below.config.rootfs);
            config.os.clone_from(&below.config.os);
            config.architecture.clone_from(&below.config.architecture);
            config.variant.clone_from(&below.config.variant);
            drop(catalog);
            for layer in &layers {
                lease.pin_chain(&layer.chain);
                lease.pin_blob(&layer.blob.digest);
            }
        }
        if layers.len() >= crate::limits::LAYERS {
            return Err(Error::invalid("max depth exceeded"));
        }
        let mut ingest = storage.content.ingest_once()?;
        let mut out = std::io::BufWriter::with_capacity(1 << 20, &mut ingest);
        let written = write(&mut out)
            .and_then(|()| out.flush().context(|| "cannot store the new layer".to_owned()));
        drop(out);
        if let Err(error) = written {
            ingest.abort()?;
            return Err(error);
        }
        let stored = lease.commit(ingest, None, None)?;

        let mut diffs = config.rootfs.diff_ids;
        diffs.push(stored.digest.clone());
        let layer = unpack::layers(&diffs).pop().expect("one was pushed a line above");
        lease.pin_chain(&layer.chain);
        let blob = Descriptor::new(media_type::OCI_LAYER, stored.digest, stored.size);
        layers.push(match existing(self, &layer, Some(&blob)) {
            Some(record) => record,
            None => {
                let size = unpack::unpack_blob(storage, &layer, &blob.digest, Ticker::silent())?;
                LayerRecord { diff: layer.diff.clone(), chain: layer.chain.clone(), size, blob }
            }
        });
        config.rootfs = RootFs::layers(diffs);
        let created = *config.created.get_or_insert_with(Timestamp::now);
        step.created.get_or_insert(created);
        step.empty_layer = false;
        config.history.push(step);
        if config.os.is_empty() {
            let host = Platform::host();
            (config.os, config.architecture, config.variant) =
                (host.os, host.architecture, host.variant);
        }
        let image = self.finish_creation(lease, parent, config, layers, reference.as_ref())?;
        self.tell_of_creation(&image.id, reference.as_ref(), by);
        Ok(image)
    }

    fn finish_creation(
        &self,
        lease: &Lease,
        parent: Option<Digest>,
        config: ImageConfig,
        layers: Vec<LayerRecord>,
        reference: Option<&Reference>,
    ) -> Result<Arc<Image>> {
        let raw = config.to_bytes();
        let id = Digest::of(&raw);
        lease.put(&self.room.storage.content, &raw)?;
        let record = ImageRecord {
            id: id.clone(),
            layers,
            manifest: None,
            parent,
            last_tagged: Timestamp::NEVER,
        };
        let mut catalog = self.change();
        let changes = registration(&catalog, record, config);
        self.commit(&mut catalog, changes)?;
        if let Some(reference) = reference {
            let changes = tagging(&catalog, &id, &reference.with_default_tag())?;
            self.commit(&mut catalog, changes)?;
        }
        drop(catalog);
        self.room.state.sync()?;
        self.get(&id).ok_or_else(|| Error::internal(format!("image {id} is gone already")))
    }

    /// In Docker's order.
    fn tell_of_creation(&self, id: &Digest, reference: Option<&Reference>, by: By) {
        let event = |action, name: &str| self.event(action, id.as_str(), id, name);
        if by == By::Commit {
            event("create", id.as_str());
        }
        if let Some(reference) = reference {
            event("tag", &reference.with_default_tag().familiar());
        }
        if by == By::Import {
            event("import", id.as_str());
        }
    }
}
