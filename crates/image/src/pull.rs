//! `docker pull`: from a reference to an image, in one pass over every byte.
//!
//! Manifest, configuration, then all layers side by side (see unpack.rs). Each layer is work of its own that is never
//! dropped halfway: when the pull goes away it stops at the next piece, and keeps what has arrived for the next pull.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oci::image::{Descriptor, Document, ImageConfig, Manifest, media_type};
use oci::{Algorithm, Digest, Platform, Reference};
use stdx::time::Timestamp;
use stdx::{Error, Kind, Result};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::catalog::{Catalog, Change, Entry, stored_form};
use crate::distribution::{Credentials, Repository};
use crate::gc::Lease;
use crate::limits::{CONFIG, INDEX_DEPTH, LAYERS};
use crate::progress::{Detail, Progress, Reporter};
use crate::records::{ImageRecord, LayerRecord, NameRecord};
use crate::store::tagging;
use crate::unpack::{self, Layer, Ticker};
use crate::{Image, Images, platform};

/// Pieces between the network and the disk.
const WAITING: usize = 32;
/// How often a download that another, ending one still has open is tried again.
const BUSY: Duration = Duration::from_millis(20);

impl Images {
    /// Fetches an image by tag (`latest` if neither tag nor digest is given) or digest, for `platform` or this host.
    ///
    /// Fails before the first message when the registry has nothing under this reference. Whatever was fetched until a failure is used by
    /// the next pull.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        credentials: Option<Credentials>,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Arc<Image>> {
        let (start, reference) = (Instant::now(), reference.with_default_tag());
        let pull = async {
            let repository = self.room.registries().repository(&reference, credentials).await?;
            let pull = Pull::new(self, &reference, platform, &Reporter::new(progress));
            let (image, outcome) = pull.run(&repository).await?;
            pull.conclude(&image, outcome, &reference).await;
            Ok(image)
        };
        let pulled = pull.await;
        self.room.actions.pull.since(start);
        pulled.map_err(final_word)
    }

    /// Fetches every tag of a repository, one after the other.
    pub async fn pull_all(
        &self,
        name: &Reference,
        platform: Option<&Platform>,
        credentials: Option<Credentials>,
        progress: mpsc::Sender<Progress>,
    ) -> Result<()> {
        let (start, reporter) = (Instant::now(), Reporter::new(progress));
        let pulls = async {
            let repository = self.room.registries().repository(name, credentials).await?;
            let mut last = None;
            let mut newest = Outcome::UpToDate;
            for tag in repository.tags().await? {
                let reference = name.with_tag(&tag)?;
                let pull = Pull::new(self, &reference, platform, &reporter);
                let (image, outcome) = pull.run(&repository.under(&reference)).await?;
                newest = newest.max(outcome);
                last = Some((pull, image));
            }
            if let Some((pull, image)) = last {
                pull.conclude(&image, newest, name).await;
            }
            Ok(())
        };
        let pulled = pulls.await;
        self.room.actions.pull.since(start);
        pulled.map_err(final_word)
    }
}

/// What may pass is only of interest while somebody may try again.
fn final_word(error: Error) -> Error {
    match error.kind() {
        Kind::Unavailable => error.with_kind(Kind::Internal),
        _ => error,
    }
}

struct Pull {
    images: Images,
    reference: Reference,
    platform: Option<Platform>,
    reporter: Reporter,
    lease: Arc<Lease>,
}

/// What a pull has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    UpToDate,
    /// The reference leads to another image than before.
    Newer,
}

/// What a reference led to.
struct Found {
    /// The digest of what the registry has under the reference: an index, or the manifest itself.
    digest: Digest,
    /// The manifest of the image, read, and as it came.
    manifest: Manifest,
    descriptor: Descriptor,
    /// Every document on the way, the image's manifest last.
    documents: Vec<Vec<u8>>,
}

impl Pull {
    fn new(
        images: &Images,
        reference: &Reference,
        platform: Option<&Platform>,
        reporter: &Reporter,
    ) -> Self {
        Self {
            images: images.clone(),
            reference: reference.clone(),
            platform: platform.cloned(),
            reporter: reporter.clone(),
            lease: Arc::new(images.lease()),
        }
    }

    async fn run(&self, repository: &Repository) -> Result<(Arc<Image>, Outcome)> {
        let found = self.find(repository).await?;
        let (raw, config) = self.config(repository, &found.manifest).await?;
        let layers = self.layers(repository, &found.manifest, &config).await?;
        let id = found.manifest.config.digest.clone();
        let outcome = self.register(&found, raw, config, layers).await?;
        self.reporter.say(Progress::status(format!("Digest: {}", found.digest))).await;
        let image =
            self.images.get(&id).ok_or_else(|| Error::not_found(format!("No such image: {id}")))?;
        Ok((image, outcome))
    }

    /// The last words, about what was asked for.
    async fn conclude(&self, image: &Image, outcome: Outcome, asked: &Reference) {
        let name = asked.familiar();
        let status = match outcome {
            Outcome::Newer => "Downloaded newer image for",
            Outcome::UpToDate => "Image is up to date for",
        };
        self.reporter.say(Progress::status(format!("Status: {status} {name}"))).await;
        self.images.event("pull", &name, &image.id, &asked.familiar_name());
        let wanted = self.platform.as_ref();
        if let Some(wanted) = wanted.filter(|wanted| !wanted.matches(&image.platform())) {
            let words = format!(
                "WARNING: image with reference {name} was found but does not match the specified platform: wanted {wanted}, actual: {}",
                image.platform()
            );
            self.reporter.say(Progress::status(words)).await;
        }
    }

    /// From the reference through indexes to the manifest of one image.
    async fn find(&self, repository: &Repository) -> Result<Found> {
        let which = self
            .reference
            .digest()
            .map(Digest::as_str)
            .or(self.reference.tag())
            .unwrap_or_default();
        let mut fetched = repository.manifest(which).await?;
        let digest = fetched.digest.clone();
        if digest.algorithm() != Algorithm::Sha256 {
            return Err(Error::invalid("unsupported digest algorithm"));
        }
        let pulling = format!("Pulling from {}", self.reference.path());
        let whole =
            self.reference.digest().map(|digest| format!("{}@{digest}", self.reference.name()));
        self.reporter.say(Progress::message(whole.as_deref().unwrap_or(which), pulling)).await;
        let mut documents = Vec::new();
        for _ in 0..=INDEX_DEPTH {
            let document = Document::parse(&fetched.media_type, &fetched.bytes)?;
            let size = fetched.bytes.len() as u64;
            documents.push(fetched.bytes);
            let index = match document {
                Document::Manifest(manifest) => {
                    let media_type = [&manifest.media_type, &fetched.media_type]
                        .into_iter()
                        .find(|text| media_type::is_manifest(text))
                        .map_or(media_type::OCI_MANIFEST, |text| text.as_str());
                    let descriptor = Descriptor::new(media_type, fetched.digest, size);
                    return Ok(Found { digest, manifest, descriptor, documents });
                }
                Document::Index(index) => index,
            };
            let wanted = self.platform.clone().unwrap_or_else(Platform::host);
            let chosen = platform::choose(&index, &wanted).ok_or_else(|| {
                Error::not_found(format!(
                    "no matching manifest for {wanted} in the manifest list entries"
                ))
            })?;
            fetched = repository.manifest(chosen.digest.as_str()).await?;
            if fetched.digest.algorithm() != Algorithm::Sha256 {
                return Err(Error::invalid("unsupported digest algorithm"));
            }
            if fetched.bytes.len() as u64 != chosen.size {
                return Err(Error::invalid(format!(
                    "manifest {} has {} bytes, its index says {}",
                    chosen.digest,
                    fetched.bytes.len(),
                    chosen.size
                )));
            }
            // What the index says weighs as much as what the registry says: both must agree with the document.
            Document::parse(&chosen.media_type, &fetched.bytes)?;
        }
        Err(Error::invalid("manifest list contains manifest lists nested too deeply"))
    }

    /// Fetches the configuration and holds it against the manifest.
    async fn config(
        &self,
        repository: &Repository,
        manifest: &Manifest,
    ) -> Result<(Vec<u8>, ImageConfig)> {
        let descriptor = &manifest.config;
        check_manifest(manifest)?;
        self.lease.pin_blob(&descriptor.digest);
        let here = self.images.room.storage.content.contains(&descriptor.digest);
        let raw = if here {
            let (images, digest) = (self.images.clone(), descriptor.digest.clone());
            tokiox::blocking(move || images.raw_config(&digest)).await?
        } else {
            repository.small_blob(&descriptor.digest, CONFIG).await?
        };
        if raw.len() as u64 != descriptor.size {
            return Err(Error::invalid(format!(
                "image configuration {} has {} bytes, its manifest says {}",
                descriptor.digest,
                raw.len(),
                descriptor.size
            )));
        }
        let config = ImageConfig::parse(&raw)?;
        let (layers, diffs) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        if layers != diffs {
            return Err(Error::invalid(format!(
                "invalid rootfs in image configuration: {diffs} diff ids for {layers} layers"
            )));
        }
        let os = config.platform().os;
        if os != "linux" {
            return Err(Error::invalid(format!(
                "image operating system {os:?} cannot be used on this platform"
            )));
        }
        Ok((raw, config))
    }

    /// Fetches and unpacks all layers; what they are on disk afterwards.
    async fn layers(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        config: &ImageConfig,
    ) -> Result<Vec<LayerRecord>> {
        let layers = unpack::layers(&config.rootfs.diff_ids);
        for (layer, blob) in layers.iter().zip(&manifest.layers) {
            self.lease.pin_chain(&layer.chain);
            self.lease.pin_blob(&blob.digest);
        }
        let (cancel, cancelled) = watch::channel(());
        let mut jobs = JoinSet::new();
        let mut known: BTreeMap<usize, LayerRecord> = BTreeMap::new();
        for (at, (layer, blob)) in layers.iter().zip(&manifest.layers).enumerate() {
            known.extend(self.existing(layer, blob).map(|record| (at, record)));
        }
        // Of an image that is here, whole, there is nothing to tell.
        if known.len() == layers.len() && self.images.get(&manifest.config.digest).is_some() {
            return Ok(known.into_values().collect());
        }
        for (at, blob) in manifest.layers.iter().enumerate() {
            let step = if known.contains_key(&at) { "Already exists" } else { "Pulling fs layer" };
            self.reporter.say(Progress::step(blob.digest.short(), step, Detail::default())).await;
        }
        // Where a layer is a copy of the one below it, downloads come first and trees are made in order.
        let ordered = self.images.room.storage.snapshots.needs_parent();
        for (at, (layer, blob)) in layers.iter().zip(&manifest.layers).enumerate() {
            if known.contains_key(&at) {
                continue;
            }
            let job = Job {
                images: self.images.clone(),
                repository: repository.clone(),
                reporter: self.reporter.clone(),
                _lease: Arc::clone(&self.lease),
                layer: layer.clone(),
                blob: blob.clone(),
                cancelled: cancelled.clone(),
            };
            jobs.spawn(async move { (at, tokio::spawn(job.run(ordered)).await) });
        }
        let mut cancel = Some(cancel);
        let mut failure = None;
        while let Some(done) = jobs.join_next().await {
            let lost = |_| Error::internal("a download panicked; see the daemon's log");
            let outcome =
                done.map_err(lost).and_then(|(at, outcome)| Ok((at, outcome.map_err(lost)??)));
            match outcome {
                Ok((at, record)) => known.extend(record.map(|record| (at, record))),
                // One failure ends them all; its reason is the first. What they hold they give back before we answer.
                Err(error) => {
                    drop(cancel.take());
                    failure.get_or_insert(error);
                }
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        if ordered {
            for (at, (layer, blob)) in layers.iter().zip(&manifest.layers).enumerate() {
                if let MapEntry::Vacant(vacant) = known.entry(at) {
                    vacant.insert(self.unpack_in_order(layer, blob).await?);
                }
            }
        }
        Ok(known.into_values().collect())
    }

    async fn unpack_in_order(&self, layer: &Layer, blob: &Descriptor) -> Result<LayerRecord> {
        let (images, reporter) = (self.images.clone(), self.reporter.clone());
        let (layer, blob) = (layer.clone(), blob.clone());
        let gate = &self.images.room.unpacking;
        gate.run(
            layer.chain.clone(),
            tokiox::blocking(move || unpack_stored(&images, &layer, &blob, &reporter)),
        )
        .await
    }

    /// The layer as it is here already, tree and tar.
    fn existing(&self, layer: &Layer, blob: &Descriptor) -> Option<LayerRecord> {
        existing(&self.images, layer, Some(blob))
    }

    /// Writes everything down.
    async fn register(
        &self,
        found: &Found,
        raw: Vec<u8>,
        config: ImageConfig,
        layers: Vec<LayerRecord>,
    ) -> Result<Outcome> {
        let images = self.images.clone();
        let reference = self.reference.clone();
        let (digest, descriptor) = (found.digest.clone(), found.descriptor.clone());
        let complete = layers
            .iter()
            .zip(&found.manifest.layers)
            .all(|(layer, blob)| layer.blob.digest == blob.digest);
        // Kept is what a record leads to: what the registry has under the reference, and the manifest if it is the image's.
        let manifest = complete.then_some(&found.descriptor.digest);
        let documents: Vec<Vec<u8>> = found
            .documents
            .iter()
            .filter(|document| {
                [Some(&found.digest), manifest].contains(&Some(&Digest::of(document)))
            })
            .cloned()
            .collect();
        for document in &documents {
            self.lease.pin_blob(&Digest::of(document));
        }
        tokiox::blocking(move || {
            for document in documents.iter().chain([&raw]) {
                images.room.storage.content.put(document)?;
            }
            let mut catalog = images.change();
            let record = ImageRecord {
                id: Digest::of(&raw),
                layers,
                manifest: complete.then_some(descriptor),
                parent: None,
                last_tagged: Timestamp::NEVER,
            };
            let newer = catalog.named(&reference) != Some(&record.id);
            let mut changes = registration(&catalog, record.clone(), config);
            let by_digest = reference.with_digest(digest);
            changes.push(Change::PutName(NameRecord {
                reference: stored_form(&by_digest),
                image: record.id.clone(),
            }));
            images.commit(&mut catalog, changes)?;
            if newer && reference.digest().is_none() {
                let changes = tagging(&catalog, &record.id, &reference)?;
                images.commit(&mut catalog, changes)?;
            }
            drop(catalog);
            images.room.state.sync()?;
            Ok(if newer { Outcome::Newer } else { Outcome::UpToDate })
        })
        .await
    }
}

/// What it takes to have this image. One that is here already keeps what it knows of its past.
pub(crate) fn registration(
    catalog: &Catalog,
    mut record: ImageRecord,
    config: ImageConfig,
) -> Vec<Change> {
    if let Some(old) = catalog.images.get(&record.id) {
        record.parent = record.parent.or_else(|| old.record.parent.clone());
        record.last_tagged = record.last_tagged.max(old.record.last_tagged);
        record.manifest = record
            .manifest
            .or_else(|| old.record.manifest.clone().filter(|_| record.layers == old.record.layers));
    }
    vec![Change::PutImage(Arc::new(Entry { record, config: Arc::new(config) }))]
}

/// A layer as it is here already, tree and tar. The tar may be packed otherwise than `wanted`: the tree is the same.
pub(crate) fn existing(
    images: &Images,
    layer: &Layer,
    wanted: Option<&Descriptor>,
) -> Option<LayerRecord> {
    let storage = &images.room.storage;
    if !storage.snapshots.has_layer(&layer.chain) {
        return None;
    }
    let catalog = images.catalog();
    let mut all = catalog.images.values().flat_map(|entry| &entry.record.layers);
    let known = all.find(|known| known.chain == layer.chain)?.clone();
    drop(catalog);
    if let Some(wanted) = wanted.filter(|wanted| storage.content.contains(&wanted.digest)) {
        return Some(LayerRecord { blob: plain(wanted), ..known });
    }
    storage.content.contains(&known.blob.digest).then_some(known)
}

/// Makes a tree from a tar that is here, unless it is there already.
pub(crate) fn unpack_stored(
    images: &Images,
    layer: &Layer,
    blob: &Descriptor,
    reporter: &Reporter,
) -> Result<LayerRecord> {
    let id = blob.digest.short();
    let ticker = Ticker::new(reporter, id, "Extracting", blob.size);
    let size = unpack::unpack_blob(&images.room.storage, layer, &blob.digest, ticker)?;
    reporter.say_blocking(Progress::step(id, "Pull complete", Detail::default()));
    Ok(LayerRecord {
        diff: layer.diff.clone(),
        chain: layer.chain.clone(),
        size,
        blob: plain(blob),
    })
}

/// Without what the manifest's author wrote beside it.
fn plain(descriptor: &Descriptor) -> Descriptor {
    Descriptor::new(&descriptor.media_type, descriptor.digest.clone(), descriptor.size)
}

/// Refuses what no honest image is, before anything of it is fetched.
fn check_manifest(manifest: &Manifest) -> Result<()> {
    let config = &manifest.config;
    if !matches!(
        config.media_type.as_str(),
        media_type::OCI_CONFIG | media_type::DOCKER_CONFIG | "" | "application/octet-stream"
    ) {
        return Err(Error::invalid(format!(
            "unsupported image configuration media type {:?}",
            config.media_type
        )));
    }
    if config.digest.algorithm() != Algorithm::Sha256 {
        return Err(Error::invalid("unsupported digest algorithm"));
    }
    if config.size > CONFIG as u64 {
        return Err(Error::invalid(format!(
            "image configuration {} is larger than {CONFIG} bytes",
            config.digest
        )));
    }
    if manifest.layers.len() > LAYERS {
        return Err(Error::invalid(format!(
            "image has {} layers, {LAYERS} is the limit",
            manifest.layers.len()
        )));
    }
    for layer in &manifest.layers {
        if !media_type::is_layer(&layer.media_type) {
            return Err(Error::invalid(format!(
                "unsupported layer media type {:?}",
                layer.media_type
            )));
        }
        if layer.media_type.contains("foreign") || layer.media_type.contains("nondistributable") {
            return Err(Error::invalid(format!(
                "layer {} is not in the registry: foreign layers are not fetched",
                layer.digest
            )));
        }
    }
    Ok(())
}

/// One layer's work.
struct Job {
    images: Images,
    repository: Repository,
    reporter: Reporter,
    /// Keeps what this fetches until it is recorded, even when the pull has gone.
    _lease: Arc<Lease>,
    layer: Layer,
    blob: Descriptor,
    /// Closed when the pull has gone away.
    cancelled: watch::Receiver<()>,
}

impl Job {
    /// The layer's record; `None` where only the tar was fetched.
    async fn run(self, only_fetch: bool) -> Result<Option<LayerRecord>> {
        let gate = self.layer.chain.clone();
        let images = self.images.clone();
        images.room.unpacking.run(gate, self.fetch_and_unpack(only_fetch)).await
    }

    async fn fetch_and_unpack(self, only_fetch: bool) -> Result<Option<LayerRecord>> {
        // Somebody else may have brought it while we waited for the gate.
        if let Some(record) = existing(&self.images, &self.layer, Some(&self.blob)) {
            self.say("Pull complete").await;
            return Ok(Some(record));
        }
        let images = self.images.clone();
        let digest = self.blob.digest.clone();
        let unpacked = images.room.fetching.run(digest.clone(), self.fetch(only_fetch)).await?;
        match unpacked {
            Some(size) => {
                let detail = Detail { current: self.blob.size, total: self.blob.size };
                self.reporter.say(Progress::step(digest.short(), "Extracting", detail)).await;
                self.say("Pull complete").await;
                let (diff, chain) = (self.layer.diff.clone(), self.layer.chain.clone());
                Ok(Some(LayerRecord { diff, chain, size, blob: plain(&self.blob) }))
            }
            None if only_fetch => Ok(None),
            None => {
                let (images, reporter) = (self.images.clone(), self.reporter.clone());
                let (layer, blob) = (self.layer.clone(), self.blob.clone());
                tokiox::blocking(move || unpack_stored(&images, &layer, &blob, &reporter))
                    .await
                    .map(Some)
            }
        }
    }

    async fn say(&self, status: &str) {
        self.reporter
            .say(Progress::step(self.blob.digest.short(), status, Detail::default()))
            .await;
    }

    /// Sees to it that the blob is here. The size of the tree, if one was made on the way.
    async fn fetch(&self, only_fetch: bool) -> Result<Option<u64>> {
        let mut pieced_together = false;
        match self.fetch_once(only_fetch, &mut pieced_together).await {
            // An earlier piece may have been the wrong one: from one piece it is right, or the registry is wrong.
            Err(error) if error.kind() == Kind::Invalid && pieced_together => {
                tracing::info!(blob = %self.blob.digest, error = %error.chain(), "fetching the whole blob again");
                self.fetch_once(only_fetch, &mut pieced_together).await
            }
            outcome => outcome,
        }
    }

    async fn fetch_once(
        &self,
        only_fetch: bool,
        pieced_together: &mut bool,
    ) -> Result<Option<u64>> {
        let storage = &self.images.room.storage;
        if storage.content.contains(&self.blob.digest) {
            self.say("Download complete").await;
            return Ok(None);
        }
        let registries = self.images.room.registries();
        let downloads = &registries.downloads;
        let _permit = match downloads.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                self.say("Waiting").await;
                downloads
                    .acquire()
                    .await
                    .map_err(|_| Error::unavailable("the daemon is shutting down"))?
            }
        };
        let ingest = self.open_ingest().await?;
        let offset = ingest.offset();
        *pieced_together = offset > 0;
        // A tree is made while the bytes arrive; of those that came earlier, only from the whole blob.
        let streaming =
            !only_fetch && offset == 0 && !storage.snapshots.has_layer(&self.layer.chain);
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut unpacking = None;
        let mut forward = None;
        if streaming {
            let (storing, arriving) = unpack::pipe();
            forward = Some(storing);
            let (storage, layer) = (Arc::clone(storage), self.layer.clone());
            unpacking = Some(tokio::task::spawn_blocking(move || {
                unpack::unpack(&storage, &layer, arriving)
            }));
        }
        let (blob, reporter, id) =
            (self.blob.clone(), self.reporter.clone(), self.blob.digest.short().to_owned());
        let storing = tokio::task::spawn_blocking(move || {
            unpack::store(ingest, receiver, forward, &blob, &reporter, &id)
        });
        let downloaded = self.download(sender, offset, pieced_together).await;
        let panicked = |_| Error::internal("a download panicked; see the daemon's log");
        let stored = storing.await.map_err(panicked)?;
        let unpacked = match unpacking {
            Some(unpacking) => Some(unpacking.await.map_err(panicked)?),
            None => None,
        };
        // The first in this order is the cause of the others.
        match (downloaded, stored, unpacked) {
            (Err(error), ..) => Err(error),
            (Ok(()), Ok(()), None) => Ok(None),
            (Ok(()), Ok(()), Some(unpacked)) => unpacked.map(Some),
            // Storing ends early when unpacking has failed: then that says why.
            (Ok(()), Err(error), Some(Err(cause))) if error.kind() == Kind::Internal => Err(cause),
            (Ok(()), Err(error), _) => Err(error),
        }
    }

    /// Opens the blob for writing. A download that was cancelled a moment ago may still be closing it.
    async fn open_ingest(&self) -> Result<storage::content::Ingest> {
        loop {
            let content = self.images.room.storage.content.clone();
            let (key, size) = (self.blob.digest.to_string(), self.blob.size);
            let opened: Result<storage::content::Ingest> = tokiox::blocking(move || {
                let mut ingest = content.ingest(&key)?;
                if ingest.offset() > size {
                    ingest.restart()?;
                }
                Ok(ingest)
            })
            .await;
            match opened {
                Err(error)
                    if error.kind() == Kind::Unavailable
                        && self.cancelled.has_changed().is_ok() =>
                {
                    tokio::time::sleep(BUSY).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Fetches the bytes from `received` on, trying again where that may help. Whoever stores them says if they are right.
    async fn download(
        &self,
        sender: mpsc::Sender<bytes::Bytes>,
        mut received: u64,
        pieced_together: &mut bool,
    ) -> Result<()> {
        let registries = self.images.room.registries();
        let config = &registries.config;
        let mut ticker =
            Ticker::new(&self.reporter, self.blob.digest.short(), "Downloading", self.blob.size);
        ticker.advance(received);
        let mut delay = config.retry_delay;
        let mut attempt = 1;
        while received < self.blob.size {
            *pieced_together |= received > 0;
            match self.attempt(&sender, &mut received, &mut ticker).await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == Kind::Unavailable && attempt < config.attempts => {
                    tracing::info!(blob = %self.blob.digest, attempt, error = %error.chain(), "download failed, trying again");
                    let seconds = delay.as_secs().max(1);
                    let plural = if seconds == 1 { "" } else { "s" };
                    self.say(&format!("Retrying in {seconds} second{plural}")).await;
                    self.unless_cancelled(async {
                        tokio::time::sleep(delay).await;
                        Ok(())
                    })
                    .await?;
                    delay *= 2;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn attempt(
        &self,
        sender: &mpsc::Sender<bytes::Bytes>,
        received: &mut u64,
        ticker: &mut Ticker,
    ) -> Result<()> {
        let digest = &self.blob.digest;
        let mut download = self.unless_cancelled(self.repository.blob(digest, *received)).await?;
        let mut skip = *received - download.starts_at;
        loop {
            let piece = self.unless_cancelled(async { download.next().await.transpose() }).await?;
            let Some(mut piece) = piece else { break };
            let skipped = skip.min(piece.len() as u64);
            skip -= skipped;
            let piece = piece.split_off(skipped as usize);
            if piece.is_empty() {
                continue;
            }
            if *received + piece.len() as u64 > self.blob.size {
                return Err(Error::invalid(format!(
                    "blob {digest} is larger than the {} bytes its manifest says",
                    self.blob.size
                )));
            }
            *received += piece.len() as u64;
            ticker.advance(piece.len() as u64);
            if sender.send(piece).await.is_err() {
                // Whoever stores has failed and will say why.
                return Ok(());
            }
        }
        if *received < self.blob.size { Err(Error::unavailable("unexpected EOF")) } else { Ok(()) }
    }

    async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut cancelled = self.cancelled.clone();
        tokio::select! {
            outcome = work => outcome,
            _ = cancelled.changed() => Err(Error::internal("context canceled")),
        }
    }
}
