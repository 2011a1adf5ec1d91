//! What nobody needs goes: layers and blobs that no record reaches and no work in progress has pinned.
//!
//! Work pins what it will need before it looks whether that is here; the sweeper decides and removes under the same
//! lock. So whatever was seen stays until the record that needs it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oci::{ChainId, Digest};
use stdx::{Kind, Result};
use storage::content::{self, Ingest};

use crate::Images;

/// What work in progress needs, and how many times.
#[derive(Default)]
pub(crate) struct Pins(Mutex<Pinned>);

#[derive(Default)]
struct Pinned {
    blobs: BTreeMap<Digest, usize>,
    chains: BTreeMap<ChainId, usize>,
}

impl Pins {
    fn lock(&self) -> MutexGuard<'_, Pinned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One piece of work's pins. Dropping it lets go of them.
pub(crate) struct Lease {
    pins: Arc<Pins>,
    held: Mutex<(Vec<Digest>, Vec<ChainId>)>,
}

impl Lease {
    pub(crate) fn new(pins: &Arc<Pins>) -> Self {
        Self { pins: Arc::clone(pins), held: Mutex::default() }
    }

    pub(crate) fn pin_blob(&self, digest: &Digest) {
        *self.pins.lock().blobs.entry(digest.clone()).or_default() += 1;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).0.push(digest.clone());
    }

    pub(crate) fn pin_chain(&self, chain: &ChainId) {
        *self.pins.lock().chains.entry(chain.clone()).or_default() += 1;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).1.push(chain.clone());
    }

    /// Stores bytes that are at hand. They are pinned before they can be found: the same may be here already, of an image
    /// that is just being removed.
    pub(crate) fn put(
        &self,
        content: &content::Store,
        bytes: &[u8],
    ) -> Result<content::Descriptor> {
        self.pin_blob(&Digest::of(bytes));
        content.put(bytes)
    }

    /// Gives what was written its name, pinned before it has it; `expected` is what it must turn out to be.
    pub(crate) fn commit(
        &self,
        ingest: Ingest,
        expected: Option<&Digest>,
        size: Option<u64>,
    ) -> Result<content::Descriptor> {
        match expected {
            Some(digest) => self.pin_blob(digest),
            None => self.pin_blob(&ingest.digest()),
        }
        ingest.commit(expected, size)
    }

    /// The blobs pinned so far.
    pub(crate) fn blobs(&self) -> Vec<Digest> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// The layers pinned so far.
    pub(crate) fn chains(&self) -> Vec<ChainId> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut pinned = self.pins.lock();
        let (blobs, chains) =
            std::mem::take(self.held.get_mut().unwrap_or_else(PoisonError::into_inner));
        for digest in blobs {
            release(&mut pinned.blobs, &digest);
        }
        for chain in chains {
            release(&mut pinned.chains, &chain);
        }
    }
}

fn release<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// What a sweep removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub layers: Vec<ChainId>,
    pub blobs: Vec<Digest>,
    /// Bytes of the layers' files.
    pub layer_bytes: u64,
}

impl Images {
    /// Removes every layer and blob that nothing needs. For the start, after the engine has renewed its holds: a pull
    /// that was killed leaves such things behind, as does one that failed and was never tried again.
    pub async fn collect(&self) -> Result<Swept> {
        let images = self.clone();
        tokiox::blocking(move || images.collect_blocking()).await
    }

    pub(crate) fn collect_blocking(&self) -> Result<Swept> {
        let storage = &self.room.storage;
        let layers = storage.snapshots.layers()?;
        let sizes: BTreeMap<ChainId, u64> =
            layers.iter().map(|layer| (layer.chain.clone(), layer.size)).collect();
        let candidates: Vec<ChainId> = sizes.keys().cloned().collect();
        let mut swept = Swept::default();
        // A layer goes before the one it stands on; whatever order they are listed in, more rounds find them all.
        loop {
            let removed = self.sweep_layers(&candidates)?;
            if removed.is_empty() {
                break;
            }
            swept.layers.extend(removed);
        }
        swept.layer_bytes = swept.layers.iter().filter_map(|chain| sizes.get(chain)).sum();
        let blobs: Vec<Digest> =
            storage.content.list()?.into_iter().map(|blob| blob.digest).collect();
        swept.blobs = self.sweep_blobs(&blobs)?;
        Ok(swept)
    }

    /// What the records need, for `system check`. What work in progress needs is told apart.
    pub fn known(&self) -> Result<storage::Known> {
        let pinned = self.room.pins.lock();
        let catalog = self.catalog();
        Ok(storage::Known {
            layers: catalog.chains().into_iter().cloned().collect(),
            blobs: catalog.blobs().into_iter().cloned().collect(),
            spared_layers: pinned.chains.keys().cloned().collect(),
            spared_blobs: pinned.blobs.keys().cloned().collect(),
            ..storage::Known::default()
        })
    }

    /// Removes those of `candidates` that nothing needs. Waits on the disk.
    pub(crate) fn sweep_layers(&self, candidates: &[ChainId]) -> Result<Vec<ChainId>> {
        let pinned = self.room.pins.lock();
        let needed: BTreeSet<ChainId> = self.catalog().chains().into_iter().cloned().collect();
        let mut removed = Vec::new();
        for chain in candidates {
            let wanted = needed.contains(chain) || pinned.chains.contains_key(chain);
            if wanted || !self.room.storage.snapshots.has_layer(chain) {
                continue;
            }
            match self.room.storage.snapshots.remove_layer(chain) {
                Ok(()) => removed.push(chain.clone()),
                // Something stands on it that no record of ours knows.
                Err(error) if error.kind() == Kind::Conflict => {
                    tracing::debug!(layer = %chain, reason = %error.chain(), "layer stays");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Removes those of `candidates` that nothing needs. Waits on the disk.
    pub(crate) fn sweep_blobs(&self, candidates: &[Digest]) -> Result<Vec<Digest>> {
        let pinned = self.room.pins.lock();
        let needed: BTreeSet<Digest> = self.catalog().blobs().into_iter().cloned().collect();
        let mut removed = Vec::new();
        for digest in candidates {
            if !needed.contains(digest) && !pinned.blobs.contains_key(digest) {
                self.room.storage.content.delete(digest)?;
                removed.push(digest.clone());
            }
        }
        Ok(removed)
    }
}
