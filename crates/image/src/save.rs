//! `docker save`: images into one archive that is an OCI layout and Docker's own format at once.
//!
//! Blobs are written as they are in the content store: what was pulled is saved byte for byte, manifest included, and
//! loads to the same ID. The same images under the same names make the same archive.

use std::collections::BTreeMap;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use futures_util::Stream;
use oci::image::{Descriptor, Index, Manifest, media_type};
use oci::{Digest, Platform, Reference};
use serde_json::json;
use stdx::time::Timestamp;
use stdx::{Error, Result};
use storage::tar::{Entry as TarEntry, Kind, Writer};
use tokio::sync::mpsc;

use crate::Images;
use crate::catalog::{Catalog, Entry};
use crate::gc::Lease;

/// Pieces of an archive that may wait for a slow reader, and their size.
const WAITING: usize = 8;
const PIECE: usize = 128 << 10;

/// An archive that is written while it is read.
pub struct Archive(mpsc::Receiver<Result<Bytes>>);

impl Stream for Archive {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

impl Images {
    /// Starts an archive of these images. A name without a tag means all tags of its repository, an ID means the image
    /// without a name. Fails before there is a stream when one of them is not here.
    pub async fn save(&self, names: Vec<String>, platform: Option<Platform>) -> Result<Archive> {
        let catalog = self.catalog();
        let lease = self.lease();
        let chosen = choose(&catalog, &names)?;
        if let Some(platform) = platform
            && chosen.iter().any(|one| !platform.matches(&one.entry.config.platform()))
        {
            return Err(Error::invalid(format!(
                "no suitable export target found for platform {platform}"
            )));
        }
        for one in &chosen {
            pin(&lease, &one.entry);
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        let images = self.clone();
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || {
            span.in_scope(|| {
                let mut out = Pieces { sender: sender.clone(), piece: Vec::with_capacity(PIECE) };
                let outcome =
                    images.write_archive(&chosen, &mut out).and_then(|()| Ok(out.flush()?));
                drop(lease);
                match outcome {
                    Ok(()) => {
                        for one in &chosen {
                            let id = one.entry.record.id.to_string();
                            images.event_of(&one.entry, "save", &id, &id);
                        }
                    }
                    Err(error) => drop(sender.blocking_send(Err(error))),
                }
            });
        });
        Ok(Archive(receiver))
    }

    fn write_archive(&self, chosen: &[Chosen], out: &mut dyn Write) -> Result<()> {
        let content = &self.room.storage.content;
        let mut blobs: BTreeMap<Digest, Blob> = BTreeMap::new();
        let mut docker = Vec::new();
        let mut index = Vec::new();
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for one in chosen {
            let record = &one.entry.record;
            let (descriptor, manifest) = match &record.manifest {
                Some(descriptor) => {
                    (descriptor.clone(), content.read(&descriptor.digest, crate::limits::MANIFEST)?)
                }
                None => manifest_of(&one.entry, content.size(&record.id)?),
            };
            blobs.insert(descriptor.digest.clone(), Blob::Bytes(manifest));
            let (size, created) = (content.size(&record.id)?, one.entry.config.created);
            blobs.insert(record.id.clone(), Blob::Stored { size, created });
            for layer in &record.layers {
                let size = layer.blob.size;
                blobs.insert(layer.blob.digest.clone(), Blob::Stored { size, created: None });
            }
            docker.push(json!({
                "Config": path_of(&record.id),
                "RepoTags": one.names.iter().map(Reference::familiar).collect::<Vec<_>>(),
                "Layers": record.layers.iter().map(|layer| path_of(&layer.blob.digest)).collect::<Vec<_>>(),
            }));
            let mut descriptor = descriptor;
            descriptor.platform = Some(one.entry.config.platform());
            if one.names.is_empty() {
                index.push(descriptor.clone());
            }
            for name in &one.names {
                let tag = name.tag().unwrap_or_default();
                let mut named = descriptor.clone();
                named.annotations.insert("io.containerd.image.name".to_owned(), name.to_string());
                named
                    .annotations
                    .insert("org.opencontainers.image.ref.name".to_owned(), tag.to_owned());
                index.push(named);
                let top = record.layers.last().map_or(&record.id, |layer| &layer.blob.digest);
                repositories
                    .entry(name.familiar_name())
                    .or_default()
                    .insert(tag.to_owned(), top.hex().to_owned());
            }
        }
        let index = Index {
            schema_version: 2,
            media_type: media_type::OCI_INDEX.to_owned(),
            artifact_type: String::new(),
            manifests: index,
            subject: None,
            annotations: BTreeMap::new(),
        };
        let mut archive = Writer::new(out);
        directory(&mut archive, "blobs/")?;
        directory(&mut archive, "blobs/sha256/")?;
        for (digest, blob) in &blobs {
            match blob {
                Blob::Bytes(bytes) => file(&mut archive, &path_of(digest), bytes)?,
                Blob::Stored { size, created } => {
                    let mut entry = TarEntry::new(Kind::File, path_of(digest));
                    entry.size = *size;
                    entry.modified.seconds = created.map_or(0, Timestamp::unix);
                    archive.append_file(&entry, &mut content.open_blob(digest)?)?;
                }
            }
        }
        let plain = |cause| Error::internal("cannot write an archive's document").caused_by(cause);
        file(&mut archive, "index.json", &serde_json::to_vec(&index).map_err(plain)?)?;
        file(&mut archive, "manifest.json", &serde_json::to_vec(&docker).map_err(plain)?)?;
        file(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        if !repositories.is_empty() {
            file(&mut archive, "repositories", &serde_json::to_vec(&repositories).map_err(plain)?)?;
        }
        archive.finish().map(drop)
    }
}

/// An image to save, and the names it is to have in the archive.
struct Chosen {
    entry: Arc<Entry>,
    names: Vec<Reference>,
}

enum Blob {
    Bytes(Vec<u8>),
    /// A configuration is as old as its image.
    Stored {
        size: u64,
        created: Option<Timestamp>,
    },
}

fn choose(catalog: &Catalog, names: &[String]) -> Result<Vec<Chosen>> {
    let mut chosen: Vec<Chosen> = Vec::new();
    let mut add = |entry: &Arc<Entry>, name: Option<Reference>| {
        let at = chosen
            .iter()
            .position(|one| one.entry.record.id == entry.record.id)
            .unwrap_or_else(|| {
                chosen.push(Chosen { entry: Arc::clone(entry), names: Vec::new() });
                chosen.len() - 1
            });
        let names = &mut chosen[at].names;
        names.extend(name.filter(|name| !names.contains(name)));
    };
    for text in names {
        let reference = Reference::parse_normalized(text).ok();
        let repository = reference.as_ref().filter(|reference| reference.is_name_only());
        let mut found = false;
        if let Some(repository) = repository {
            let tags = catalog
                .names()
                .filter(|(name, _)| name.digest().is_none() && name.name() == repository.name());
            for (name, id) in tags {
                if let Some(entry) = catalog.images.get(id) {
                    add(entry, Some(name.clone()));
                    found = true;
                }
            }
        }
        if !found {
            let entry = catalog.resolve(text)?;
            // By its tag it keeps that; by a digest or an ID it has no name.
            let tagged = reference.filter(|name| {
                name.tag().is_some()
                    && name.digest().is_none()
                    && catalog.named(name) == Some(&entry.record.id)
            });
            add(entry, tagged);
        }
    }
    if chosen.is_empty() {
        return Err(Error::invalid("no images to save"));
    }
    for one in &mut chosen {
        one.names.sort();
    }
    Ok(chosen)
}

fn pin(lease: &Lease, entry: &Entry) {
    let record = &entry.record;
    let layers = record.layers.iter().map(|layer| &layer.blob.digest);
    for digest in
        layers.chain([&record.id]).chain(record.manifest.iter().map(|manifest| &manifest.digest))
    {
        lease.pin_blob(digest);
    }
}

/// A manifest for an image that came without one.
fn manifest_of(entry: &Entry, config_size: u64) -> (Descriptor, Vec<u8>) {
    let record = &entry.record;
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        artifact_type: String::new(),
        config: Descriptor::new(media_type::OCI_CONFIG, record.id.clone(), config_size),
        layers: record.layers.iter().map(|layer| oci_layer(&layer.blob)).collect(),
        subject: None,
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest).expect("a manifest is plain data");
    (Descriptor::of(media_type::OCI_MANIFEST, &bytes), bytes)
}

/// The same blob by OCI's name for it.
fn oci_layer(blob: &Descriptor) -> Descriptor {
    let media_type = match blob.media_type.as_str() {
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        media_type::DOCKER_LAYER | "" => media_type::OCI_LAYER,
        other => other,
    };
    Descriptor::new(media_type, blob.digest.clone(), blob.size)
}

fn path_of(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn directory(archive: &mut Writer<&mut dyn Write>, path: &str) -> Result<()> {
    archive.append(&TarEntry::new(Kind::Directory, path))
}

fn file(archive: &mut Writer<&mut dyn Write>, path: &str, mut bytes: &[u8]) -> Result<()> {
    let mut entry = TarEntry::new(Kind::File, path);
    entry.size = bytes.len() as u64;
    archive.append_file(&entry, &mut bytes)
}

/// The writing end: waits for a slow reader, fails when it is gone.
struct Pieces {
    sender: mpsc::Sender<Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.sender
            .blocking_send(Ok(piece.into()))
            .map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tests::add;

    #[test]
    fn what_is_saved_under_which_names() {
        let mut catalog = Catalog::default();
        let a = add(&mut catalog, "a", None, &["x:1", "x:2", "y:1"]);
        let b = add(&mut catalog, "b", None, &["x:3"]);
        let check = |names: &[&str], expected: &[(&Digest, &[&str])]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let chosen = choose(&catalog, &names).unwrap();
            let found: Vec<(Digest, Vec<String>)> = chosen
                .iter()
                .map(|one| {
                    (
                        one.entry.record.id.clone(),
                        one.names.iter().map(Reference::familiar).collect(),
                    )
                })
                .collect();
            let expected: Vec<(Digest, Vec<String>)> = expected
                .iter()
                .map(|(id, names)| {
                    ((*id).clone(), names.iter().map(|name| (*name).to_owned()).collect())
                })
                .collect();
            assert_eq!(found, expected, "{names:?}");
        };
        check(&["x:1"], &[(&a, &["x:1"])]);
        check(&["x"], &[(&a, &["x:1", "x:2"]), (&b, &["x:3"])]);
        check(&["x:3", "y:1", "x:2", "x:2"], &[(&b, &["x:3"]), (&a, &["x:2", "y:1"])]);
        check(&[a.short()], &[(&a, &[])]);
        assert_eq!(
            choose(&catalog, &["z".to_owned()]).map(drop).unwrap_err().to_string(),
            "No such image: z:latest"
        );
    }
}
