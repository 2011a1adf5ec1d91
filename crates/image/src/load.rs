//! `docker load`: images out of an archive. Docker's own format, OCI layouts, both in one, and Docker's of before 1.10.
//!
//! The archive is read once. Large files go straight into the content store under their digest, small ones are kept; only
//! then is it known what they are. Nothing in the archive is a path for us: names in it are keys of a map. Everything is
//! understood and checked before the first layer is unpacked, and all images are recorded in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use oci::image::{Descriptor, Document, History, ImageConfig, Manifest, RootFs, media_type};
use oci::{Digest, Platform, Reference};
use serde::Deserialize;
use serde_json::{Map, Value};
use stdx::time::Timestamp;
use stdx::{Context, Error, Result};
use storage::layer::{Limits, compression};
use storage::tar::{Entry, Kind, Reader};
use tokio::sync::mpsc;

use crate::gc::Lease;
use crate::limits::{ARCHIVE_ENTRIES, ARCHIVE_IMAGES, CONFIG, INDEX_DEPTH, LAYERS, MANIFEST};
use crate::progress::{Progress, Reporter};
use crate::pull::{existing, registration};
use crate::records::{ImageRecord, LayerRecord};
use crate::store::tagging;
use crate::unpack::{self, Layer, Ticker};
use crate::{Images, platform};

/// Files up to this size are kept in memory while the archive is read, and so many bytes of them.
const SMALL: u64 = 64 << 10;
const SMALL_TOTAL: u64 = 64 << 20;
/// Symlinks followed within an archive.
const LINKS: usize = 8;

/// How an archive is loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Which image of several, by platform; this host's if not given.
    pub platform: Option<Platform>,
    /// Only what was loaded is told, not how far it is.
    pub quiet: bool,
}

/// An image that was in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub id: Digest,
    pub names: Vec<Reference>,
}

impl Images {
    /// Reads an archive and keeps the images in it, with their names.
    pub async fn load(
        &self,
        archive: impl Read + Send + 'static,
        options: LoadOptions,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Vec<Loaded>> {
        let images = self.clone();
        let reporter = Reporter::new(progress);
        tokiox::blocking(move || {
            let work = images.begin("load")?;
            let lease = images.lease();
            let loader =
                Loader { images: &images, lease: &lease, options: &options, reporter: &reporter };
            let outcome = loader.run(archive);
            // What was in the archive and is in no image; a layer goes before the one it stands on.
            let (mut layers, blobs) = (lease.chains(), lease.blobs());
            drop(lease);
            layers.reverse();
            images.sweep_layers(&layers)?;
            images.sweep_blobs(&blobs)?;
            work.end();
            outcome
        })
        .await
    }
}

struct Loader<'a> {
    images: &'a Images,
    lease: &'a Lease,
    options: &'a LoadOptions,
    reporter: &'a Reporter,
}

/// An image as an archive describes it, understood and checked.
struct Described {
    config: ImageConfig,
    raw: Vec<u8>,
    /// One for each diff id.
    blobs: Vec<Descriptor>,
    names: Vec<Reference>,
    /// The manifest that describes exactly these blobs, and its bytes.
    manifest: Option<(Descriptor, Vec<u8>)>,
}

impl Loader<'_> {
    fn run(&self, archive: impl Read + Send) -> Result<Vec<Loaded>> {
        let files = Files::read(self.images, self.lease, archive)?;
        let described = describe(&files, self.options.platform.as_ref())?;
        let mut complete = Vec::with_capacity(described.len());
        for image in described {
            let layers = self.layers(&image)?;
            complete.push((image, layers));
        }
        let loaded = self.register(complete)?;
        for image in &loaded {
            let id = image.id.to_string();
            self.images.event("load", &id, &image.id, &id);
            for name in &image.names {
                self.say(format!("Loaded image: {}\n", name.familiar()));
            }
            if image.names.is_empty() {
                self.say(format!("Loaded image ID: {id}\n"));
            }
        }
        Ok(loaded)
    }

    fn say(&self, text: String) {
        self.reporter.say_blocking(Progress::stream(text));
    }

    fn layers(&self, image: &Described) -> Result<Vec<LayerRecord>> {
        let layers = unpack::layers(&image.config.rootfs.diff_ids);
        for layer in &layers {
            self.lease.pin_chain(&layer.chain);
        }
        layers.iter().zip(&image.blobs).map(|(layer, blob)| self.layer(layer, blob)).collect()
    }

    fn layer(&self, layer: &Layer, blob: &Descriptor) -> Result<LayerRecord> {
        if let Some(record) = existing(self.images, layer, Some(blob)) {
            return Ok(record);
        }
        let ticker = if self.options.quiet {
            Ticker::silent()
        } else {
            Ticker::new(self.reporter, layer.diff.short(), "Loading layer", blob.size)
        };
        let size = unpack::unpack_blob(&self.images.room.storage, layer, &blob.digest, ticker)?;
        Ok(LayerRecord {
            diff: layer.diff.clone(),
            chain: layer.chain.clone(),
            size,
            blob: blob.clone(),
        })
    }

    /// All images and names of the archive, in one step.
    fn register(&self, complete: Vec<(Described, Vec<LayerRecord>)>) -> Result<Vec<Loaded>> {
        let storage = &self.images.room.storage;
        let mut loaded = Vec::new();
        for (image, _) in &complete {
            self.lease.put(&storage.content, &image.raw)?;
            if let Some((_, bytes)) = &image.manifest {
                self.lease.put(&storage.content, bytes)?;
            }
        }
        let mut catalog = self.images.change();
        let mut changes = Vec::new();
        let mut moved = Vec::new();
        // A scratch copy, because a later image may take a name from an earlier one.
        let mut next = catalog.clone();
        for (image, layers) in complete {
            let same = layers
                .iter()
                .zip(&image.blobs)
                .all(|(layer, blob)| layer.blob.digest == blob.digest);
            let record = ImageRecord {
                id: Digest::of(&image.raw),
                layers,
                manifest: image.manifest.filter(|_| same).map(|(descriptor, _)| descriptor),
                parent: None,
                last_tagged: Timestamp::NEVER,
            };
            let id = record.id.clone();
            let mut step = registration(&next, record, image.config);
            for change in &step {
                next.apply(change.clone());
            }
            for name in &image.names {
                if let Some(old) = next.named(name).filter(|old| **old != id) {
                    moved.push((name.clone(), old.clone()));
                }
                for change in tagging(&next, &id, name)? {
                    next.apply(change.clone());
                    step.push(change);
                }
            }
            changes.extend(step);
            loaded.push(Loaded { id, names: image.names });
        }
        self.images.commit(&mut catalog, changes)?;
        drop(catalog);
        self.images.room.state.sync()?;
        for (name, old) in moved {
            self.say(format!(
                "The image {} already exists, renaming the old one with ID {old} to empty string\n",
                name.familiar()
            ));
        }
        Ok(loaded)
    }
}

/// What the archive has, by name.
struct Files<'a> {
    images: &'a Images,
    lease: &'a Lease,
    files: BTreeMap<String, Content>,
}

enum Content {
    Small(Vec<u8>),
    Blob(Digest, u64),
    Link(String),
}

impl<'a> Files<'a> {
    fn read(images: &'a Images, lease: &'a Lease, archive: impl Read + Send) -> Result<Self> {
        let limits =
            Limits { entries: ARCHIVE_ENTRIES as u64, bytes: u64::MAX, ..Limits::default() };
        let mut archive = compression::decoder_within(archive, &limits)
            .context(|| "cannot read the archive".to_owned())?;
        let mut reader = Reader::new(&mut archive, &limits);
        let mut files = Self { images, lease, files: BTreeMap::new() };
        let mut small = 0;
        while let Some(entry) = reader.next()? {
            let name = name_of(&entry)?;
            let content = match entry.kind {
                Kind::Directory => continue,
                Kind::File => files.take(&name, &entry, &mut reader, &mut small)?,
                Kind::Symlink => Content::Link(String::from_utf8_lossy(&entry.link).into_owned()),
                _ => {
                    return Err(Error::invalid(format!(
                        "invalid archive: {name:?} is neither a file nor a directory"
                    )));
                }
            };
            if files.files.insert(name.clone(), content).is_some() {
                return Err(Error::invalid(format!("invalid archive: {name:?} is there twice")));
            }
        }
        Ok(files)
    }

    fn take(
        &self,
        name: &str,
        entry: &Entry,
        reader: &mut Reader<'_>,
        small: &mut u64,
    ) -> Result<Content> {
        let document =
            matches!(name, "manifest.json" | "index.json" | "oci-layout" | "repositories");
        if document && entry.size > MANIFEST as u64 {
            return Err(Error::invalid(format!(
                "invalid archive: {name} is larger than {MANIFEST} bytes"
            )));
        }
        let promised = name
            .strip_prefix("blobs/")
            .map(|rest| rest.replacen('/', ":", 1).parse::<Digest>())
            .transpose();
        let promised = promised.map_err(|_| {
            Error::invalid(format!("invalid archive: {name:?} is no name for a blob"))
        })?;
        let kept = entry.size <= SMALL && *small + entry.size <= SMALL_TOTAL;
        if document || kept {
            let bytes = reader.bytes(entry, MANIFEST)?;
            *small += entry.size;
            if let Some(promised) = promised {
                let mut hasher = oci::Hasher::new(promised.algorithm());
                hasher.update(&bytes);
                if hasher.finish() != promised {
                    return Err(Error::invalid(format!(
                        "invalid archive: {name:?} is not what its name says"
                    )));
                }
            }
            return Ok(Content::Small(bytes));
        }
        let content = &self.images.room.storage.content;
        let mut ingest = content.ingest_once()?;
        let written = reader.data(entry, |_, piece| {
            ingest.write_all(piece).context(|| "cannot store the archive".to_owned())
        });
        if let Err(error) = written.and_then(|()| no_holes(name, entry)) {
            ingest.abort()?;
            return Err(error);
        }
        let stored = self
            .lease
            .commit(ingest, promised.as_ref(), Some(entry.size))
            .context(|| format!("invalid archive: {name:?}"))?;
        Ok(Content::Blob(stored.digest, stored.size))
    }

    /// Follows symlinks, by name only.
    fn find(&self, name: &str) -> Result<&Content> {
        let missing = || Error::invalid(format!("invalid archive: there is no file {name:?}"));
        let mut at = normal(name).ok_or_else(missing)?;
        for _ in 0..LINKS {
            match self.files.get(&at).ok_or_else(missing)? {
                Content::Link(target) => {
                    let directory = at.rsplit_once('/').map_or("", |(directory, _)| directory);
                    at = normal(&format!("{directory}/{target}")).ok_or_else(missing)?;
                }
                content => return Ok(content),
            }
        }
        Err(Error::invalid(format!("invalid archive: too many links on the way to {name:?}")))
    }

    /// A document: a regular file, not a link to one.
    fn document(&self, name: &str) -> Result<Option<&[u8]>> {
        match self.files.get(name) {
            None => Ok(None),
            Some(Content::Small(bytes)) => Ok(Some(bytes)),
            Some(_) => {
                Err(Error::invalid(format!("invalid archive: {name} is not a regular file")))
            }
        }
    }

    fn bytes(&self, name: &str, limit: usize) -> Result<Vec<u8>> {
        match self.find(name)? {
            Content::Small(bytes) if bytes.len() > limit => {
                Err(Error::invalid(format!("{name} is larger than {limit} bytes")))
            }
            Content::Small(bytes) => Ok(bytes.clone()),
            Content::Blob(digest, _) => self.images.room.storage.content.read(digest, limit),
            Content::Link(_) => unreachable!("find follows links"),
        }
    }

    /// The file as a blob in the content store.
    fn blob(&self, name: &str) -> Result<(Digest, u64)> {
        match self.find(name)? {
            Content::Small(bytes) => {
                let stored = self.lease.put(&self.images.room.storage.content, bytes)?;
                Ok((stored.digest, stored.size))
            }
            Content::Blob(digest, size) => Ok((digest.clone(), *size)),
            Content::Link(_) => unreachable!("find follows links"),
        }
    }

    fn by_digest(&self, digest: &Digest, limit: usize) -> Result<Vec<u8>> {
        self.bytes(&blob_name(digest), limit)
    }

    fn has(&self, digest: &Digest) -> bool {
        self.files.contains_key(&blob_name(digest))
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// A sparse file's holes would be missing in the blob.
fn no_holes(name: &str, entry: &Entry) -> Result<()> {
    match entry.segments {
        Some(_) => Err(Error::invalid(format!("invalid archive: {name:?} is a sparse file"))),
        None => Ok(()),
    }
}

fn name_of(entry: &Entry) -> Result<String> {
    let text = String::from_utf8_lossy(&entry.path).into_owned();
    let bad = || Error::invalid(format!("invalid archive: {text:?} is no name for a file in it"));
    if entry.path.first() == Some(&b'/')
        || entry.path.split(|c| *c == b'/').any(|part| part == b"..")
    {
        return Err(bad());
    }
    // The directory itself is an entry of many archives.
    normal(&text).or_else(|| (entry.kind == Kind::Directory).then(String::new)).ok_or_else(bad)
}

/// `a/./b//c` → `a/b/c`; nothing that leaves the archive or is not text.
fn normal(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part if part.contains(['\0', char::REPLACEMENT_CHARACTER]) => return None,
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Understands the archive, whichever format it is in.
fn describe(files: &Files<'_>, wanted: Option<&Platform>) -> Result<Vec<Described>> {
    let wanted = wanted.cloned().unwrap_or_else(Platform::host);
    let layout = files.document("index.json")?.map(|index| Layout { files, wanted }.images(index));
    if let Some(manifest) = files.document("manifest.json")? {
        let mut images = docker_images(files, manifest)?;
        // In an archive of both formats the layout adds manifests; it must not tell another story.
        for described in layout.transpose()?.into_iter().flatten() {
            adopt(&mut images, described)?;
        }
        return Ok(images);
    }
    if let Some(images) = layout {
        return images;
    }
    match files.document("repositories")? {
        Some(repositories) => Old { files }.images(repositories),
        None => Err(Error::invalid("invalid archive: does not contain a manifest.json")),
    }
}

fn adopt(images: &mut [Described], from_layout: Described) -> Result<()> {
    for image in images {
        let same = image.raw == from_layout.raw;
        if !same
            && let Some(name) = image.names.iter().find(|name| from_layout.names.contains(name))
        {
            return Err(Error::invalid(format!(
                "invalid archive: manifest.json and index.json have different images for {}",
                name.familiar()
            )));
        }
        if same
            && image
                .blobs
                .iter()
                .map(|blob| &blob.digest)
                .eq(from_layout.blobs.iter().map(|blob| &blob.digest))
        {
            image.manifest.clone_from(&from_layout.manifest);
            image.blobs.clone_from(&from_layout.blobs);
        }
    }
    Ok(())
}

/// Checks that configuration and layers fit together.
fn described(raw: Vec<u8>, blobs: Vec<Descriptor>, names: Vec<Reference>) -> Result<Described> {
    let config = ImageConfig::parse(&raw)?;
    let expected = config.rootfs.diff_ids.len();
    if expected != blobs.len() {
        return Err(Error::invalid(format!(
            "invalid manifest, layers length mismatch: expected {expected}, got {}",
            blobs.len()
        )));
    }
    if blobs.len() > LAYERS {
        return Err(Error::invalid(format!(
            "image has {} layers, {LAYERS} is the limit",
            blobs.len()
        )));
    }
    let os = config.platform().os;
    if os != "linux" {
        return Err(Error::invalid(format!("cannot load {os} image on linux")));
    }
    Ok(Described { config, raw, blobs, names, manifest: None })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerItem {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Docker's format: `manifest.json` names the files of each image.
fn docker_images(files: &Files<'_>, manifest: &[u8]) -> Result<Vec<Described>> {
    let items: Vec<DockerItem> = serde_json::from_slice(manifest).map_err(|cause| {
        Error::invalid("invalid archive: cannot read manifest.json").caused_by(cause)
    })?;
    if items.len() > ARCHIVE_IMAGES {
        return Err(Error::invalid(format!("invalid archive: more than {ARCHIVE_IMAGES} images")));
    }
    let mut images = Vec::with_capacity(items.len());
    for item in items {
        let raw = files.bytes(&item.config, CONFIG)?;
        let layers = item.layers.unwrap_or_default();
        let names = item
            .repo_tags
            .unwrap_or_default()
            .iter()
            .map(|tag| tag_of(tag))
            .collect::<Result<_>>()?;
        if layers.len() > LAYERS {
            return Err(Error::invalid(format!(
                "image has {} layers, {LAYERS} is the limit",
                layers.len()
            )));
        }
        let config = ImageConfig::parse(&raw)?;
        let mut blobs = Vec::with_capacity(layers.len());
        for (at, path) in layers.iter().enumerate() {
            let (digest, size) = files.blob(path)?;
            let plain = config.rootfs.diff_ids.get(at) == Some(&digest);
            // What it is packed with shows when it is unpacked; gzip is what it usually is.
            let media_type = if plain { media_type::OCI_LAYER } else { media_type::OCI_LAYER_GZIP };
            blobs.push(Descriptor::new(media_type, digest, size));
        }
        images.push(described(raw, blobs, names)?);
    }
    Ok(images)
}

fn tag_of(text: &str) -> Result<Reference> {
    let reference = Reference::parse_normalized(text)?;
    match (reference.tag(), reference.digest()) {
        (Some(_), None) => Ok(reference),
        _ => Err(Error::invalid(format!("invalid tag {text:?}"))),
    }
}

/// An OCI layout: `index.json` leads to manifests in `blobs/`.
struct Layout<'a> {
    files: &'a Files<'a>,
    wanted: Platform,
}

const CONTAINERD_NAME: &str = "io.containerd.image.name";
const OCI_NAME: &str = "org.opencontainers.image.ref.name";

impl Layout<'_> {
    fn images(&self, index: &[u8]) -> Result<Vec<Described>> {
        let Document::Index(index) = Document::parse("", index)? else {
            return Err(Error::invalid("invalid archive: index.json is not an index"));
        };
        if index.manifests.len() > ARCHIVE_IMAGES {
            return Err(Error::invalid(format!(
                "invalid archive: more than {ARCHIVE_IMAGES} images"
            )));
        }
        let mut images: Vec<Described> = Vec::new();
        for descriptor in &index.manifests {
            if descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown") {
                continue;
            }
            let Some(mut image) = self.image(descriptor, 0)? else { continue };
            image.names = name_in(descriptor).into_iter().collect();
            match images.iter_mut().find(|other| other.raw == image.raw) {
                Some(other) => other.names.extend(image.names),
                None => images.push(image),
            }
        }
        Ok(images)
    }

    /// The image a descriptor leads to; `None` for what is no image.
    fn image(&self, descriptor: &Descriptor, depth: usize) -> Result<Option<Described>> {
        let bytes = self.files.by_digest(&descriptor.digest, MANIFEST)?;
        if bytes.len() as u64 != descriptor.size {
            return Err(Error::invalid(format!(
                "invalid archive: {} has not the size its index says",
                descriptor.digest
            )));
        }
        match Document::parse(&descriptor.media_type, &bytes)? {
            Document::Index(_) if depth >= INDEX_DEPTH => {
                Err(Error::invalid("manifest list contains manifest lists nested too deeply"))
            }
            Document::Index(index) => {
                // An archive of one platform keeps the index of all.
                let here: Vec<_> = index
                    .manifests
                    .iter()
                    .filter(|manifest| self.files.has(&manifest.digest))
                    .cloned()
                    .collect();
                let present = oci::image::Index { manifests: here, ..index };
                let chosen = platform::choose(&present, &self.wanted).ok_or_else(|| {
                    Error::not_found(format!(
                        "no matching manifest for {} in the manifest list entries",
                        self.wanted
                    ))
                })?;
                self.image(chosen, depth + 1)
            }
            Document::Manifest(manifest) => self.manifest(descriptor, manifest, bytes),
        }
    }

    fn manifest(
        &self,
        descriptor: &Descriptor,
        manifest: Manifest,
        bytes: Vec<u8>,
    ) -> Result<Option<Described>> {
        if !manifest.artifact_type.is_empty()
            || manifest.layers.iter().any(|layer| !media_type::is_layer(&layer.media_type))
        {
            return Ok(None);
        }
        let raw = self.files.by_digest(&manifest.config.digest, CONFIG)?;
        if Digest::of(&raw) != manifest.config.digest {
            return Err(Error::invalid("unsupported digest algorithm"));
        }
        let mut blobs = Vec::with_capacity(manifest.layers.len());
        for layer in &manifest.layers {
            let (digest, size) = self.files.blob(&blob_name(&layer.digest))?;
            if size != layer.size {
                return Err(Error::invalid(format!(
                    "invalid archive: {} has not the size its manifest says",
                    layer.digest
                )));
            }
            blobs.push(Descriptor::new(&layer.media_type, digest, size));
        }
        let media_type = if manifest.media_type.is_empty() {
            media_type::OCI_MANIFEST
        } else {
            &manifest.media_type
        };
        let own = Descriptor::new(media_type, descriptor.digest.clone(), descriptor.size);
        let mut image = described(raw, blobs, Vec::new())?;
        // A manifest that is named otherwise than by SHA-256 could not be found again.
        image.manifest = (Digest::of(&bytes) == descriptor.digest).then_some((own, bytes));
        Ok(Some(image))
    }
}

/// The name an index gives to an image: whole, or not at all. A bare tag names nothing.
fn name_in(descriptor: &Descriptor) -> Option<Reference> {
    let annotation =
        |key: &str| descriptor.annotations.get(key).map(String::as_str).unwrap_or_default();
    let whole =
        |text: &str| Reference::parse_normalized(text).ok().filter(|name| name.digest().is_none());
    let name = whole(annotation(CONTAINERD_NAME)).or_else(|| {
        let text = annotation(OCI_NAME);
        whole(text).filter(|_| text.contains([':', '/']))
    })?;
    Some(name.with_default_tag())
}

/// Docker's format of before 1.10: a directory for each layer with its own JSON, which names its parent.
struct Old<'a> {
    files: &'a Files<'a>,
}

impl Old<'_> {
    fn images(&self, repositories: &[u8]) -> Result<Vec<Described>> {
        let repositories: BTreeMap<String, BTreeMap<String, String>> =
            serde_json::from_slice(repositories).map_err(|cause| {
                Error::invalid("invalid archive: cannot read repositories").caused_by(cause)
            })?;
        let mut names: BTreeMap<String, Vec<Reference>> = BTreeMap::new();
        for (name, tags) in repositories {
            for (tag, id) in tags {
                names.entry(id).or_default().push(tag_of(&format!("{name}:{tag}"))?);
            }
        }
        if names.len() > ARCHIVE_IMAGES {
            return Err(Error::invalid(format!(
                "invalid archive: more than {ARCHIVE_IMAGES} images"
            )));
        }
        names.into_iter().map(|(id, names)| self.image(&id, names)).collect()
    }

    fn image(&self, top: &str, names: Vec<Reference>) -> Result<Described> {
        let mut chain = Vec::new();
        let mut seen = BTreeSet::new();
        let mut next = Some(top.to_owned());
        while let Some(id) = next {
            if Digest::from_sha256_hex(&id).is_err() {
                return Err(Error::invalid(format!("image ID {id:?} is invalid")));
            }
            if !seen.insert(id.clone()) || chain.len() == LAYERS {
                return Err(Error::invalid(format!(
                    "invalid archive: image {top} is its own parent"
                )));
            }
            let json = self.files.bytes(&format!("{id}/json"), CONFIG)?;
            let json: Map<String, Value> = serde_json::from_slice(&json).map_err(|cause| {
                Error::invalid(format!("invalid archive: cannot read {id}/json")).caused_by(cause)
            })?;
            next = json
                .get("parent")
                .and_then(Value::as_str)
                .filter(|parent| !parent.is_empty())
                .map(str::to_owned);
            chain.push((id, json));
        }
        let mut config = chain[0].1.clone();
        let (mut diffs, mut blobs, mut history) = (Vec::new(), Vec::new(), Vec::new());
        for (id, json) in chain.iter().rev() {
            let throwaway = json.get("throwaway").and_then(Value::as_bool).unwrap_or(false);
            history.push(step_of(json, throwaway));
            if throwaway {
                continue;
            }
            let path = format!("{id}/layer.tar");
            let (digest, size) = self.files.blob(&path)?;
            let diff = self.diff_of(&digest)?;
            let media_type =
                if diff == digest { media_type::OCI_LAYER } else { media_type::OCI_LAYER_GZIP };
            blobs.push(Descriptor::new(media_type, digest, size));
            diffs.push(diff);
        }
        for key in ["id", "parent", "Size", "parent_id", "layer_id", "throwaway"] {
            config.remove(key);
        }
        let value = |of: serde_json::Result<Value>| of.expect("digests and texts are plain JSON");
        config.insert("rootfs".to_owned(), value(serde_json::to_value(RootFs::layers(diffs))));
        config.insert("history".to_owned(), value(serde_json::to_value(history)));
        let raw = serde_json::to_vec(&config).expect("what was JSON is JSON");
        described(raw, blobs, names)
    }

    /// The digest of the tar in a blob, whatever that is packed with.
    fn diff_of(&self, digest: &Digest) -> Result<Digest> {
        let file = self.files.images.room.storage.content.open_blob(digest)?;
        let mut tar = compression::decoder(file)?;
        let mut hasher = oci::Hasher::sha256();
        std::io::copy(&mut tar, &mut hasher)?;
        Ok(hasher.finish())
    }
}

fn step_of(json: &Map<String, Value>, throwaway: bool) -> History {
    let text = |key: &str| json.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let command =
        json.get("container_config").and_then(|config| config.get("Cmd")).and_then(Value::as_array);
    let words: Vec<&str> = command.into_iter().flatten().filter_map(Value::as_str).collect();
    History {
        created: Timestamp::parse(&text("created")).ok(),
        created_by: words.join(" "),
        author: text("author"),
        comment: text("comment"),
        empty_layer: throwaway,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_archive() {
        assert_eq!(normal("./a//b/../c"), Some("a/c".to_owned()));
        assert_eq!(normal("a/../../b"), None);
        assert_eq!(normal(""), None);
        assert_eq!(normal("a\0b"), None);
    }

    #[test]
    fn only_whole_names_are_names() {
        let check = |annotations: &[(&str, &str)], expected: Option<&str>| {
            let mut descriptor = Descriptor::new("", Digest::of(b""), 0);
            for (key, value) in annotations {
                descriptor.annotations.insert((*key).to_owned(), (*value).to_owned());
            }
            assert_eq!(
                name_in(&descriptor).map(|name| name.familiar()).as_deref(),
                expected,
                "{annotations:?}"
            );
        };
        check(&[(OCI_NAME, "latest")], None);
        check(&[(OCI_NAME, "busybox:1")], Some("busybox:1"));
        check(&[(OCI_NAME, "1.0"), (CONTAINERD_NAME, "docker.io/library/x:1.0")], Some("x:1.0"));
        check(&[(OCI_NAME, "Not a name:1")], None);
        check(&[], None);
    }
}
