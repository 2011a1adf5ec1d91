//! The directories of layers: staged, described, synced, renamed; the same for every driver.
//!
//! `layers/<hex>/fs` is the tree, `layers/<hex>/layer.json` says what it must look like and is written last.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oci::ChainId;
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};
use stdx::{Context, Error, Id, Result, bounded};

use super::{Garbage, Ground, LayerInfo};
use crate::beneath;
use crate::durable::{self, OnDisk};
use crate::layer::tree::summarize;
use crate::layer::{Depth, Summary};

const STAGING: &str = "staging";
const RECORD: &str = "layer.json";
const TREE: &str = "fs";
/// A record is small; its list of directories still waiting is what makes it grow.
const LARGEST_RECORD: usize = 256 << 20;

/// What is known of a layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub chain: ChainId,
    pub parent: Option<ChainId>,
    /// Bytes and entries of its stream.
    pub size: u64,
    pub entries: u64,
    /// What the directory must look like.
    pub names: u64,
    pub bytes: u64,
    pub hash: String,
    /// Its root hides everything below.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opaque: bool,
    /// Directories whose owner and mode are those of the layers below, which were not there yet. Bytes, in Latin-1, as
    /// names need not be UTF-8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<String>,
}

impl Record {
    pub(super) fn waiting_paths(&self) -> impl Iterator<Item = Vec<u8>> {
        self.waiting.iter().map(|text| text.chars().map(|c| c as u32 as u8).collect())
    }
}

/// Bytes as a string of the characters with those numbers.
pub(super) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

pub(super) struct Layers {
    path: PathBuf,
    directory: OwnedFd,
    staging: OwnedFd,
    ground: Ground,
    known: Mutex<HashMap<ChainId, Arc<Record>>>,
}

impl Layers {
    /// Opens or makes `layers/` and `staging/` in `root`; what an earlier process left half done goes to the trash.
    pub(super) fn open(root: &Path, ground: &Ground) -> Result<Self> {
        durable::directory(root)?;
        let path = root.join("layers");
        let layers = Self {
            directory: durable::directory(&path)?,
            staging: durable::directory(&root.join(STAGING))?,
            path,
            ground: ground.clone(),
            known: Mutex::default(),
        };
        for name in beneath::names(layers.staging.as_fd()).on_disk()? {
            ground.trash.take(layers.staging.as_fd(), &name.to_string_lossy())?;
        }
        Ok(layers)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ChainId, Arc<Record>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of a layer that is complete.
    pub(super) fn get(&self, chain: &ChainId) -> Option<Arc<Record>> {
        if let Some(record) = self.known().get(chain) {
            return Some(record.clone());
        }
        let record =
            self.read(chain.hex()).ok().filter(|record| record.chain == *chain).map(Arc::new)?;
        self.known().insert(chain.clone(), record.clone());
        Some(record)
    }

    pub(super) fn need(&self, chain: &ChainId) -> Result<Arc<Record>> {
        self.get(chain).ok_or_else(|| Error::not_found(format!("layer {chain} does not exist")))
    }

    fn read(&self, name: &str) -> Result<Record> {
        let directory = beneath::child(self.directory.as_fd(), name).on_disk()?;
        let flags =
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
        let file = std::fs::File::from(
            rustix::fs::openat(&directory, RECORD, flags, Mode::empty()).on_disk()?,
        );
        let text = bounded::read_to_end(file, LARGEST_RECORD, RECORD)?;
        serde_json::from_slice(&text)
            .map_err(|cause| Error::internal(format!("{RECORD} is damaged")).caused_by(cause))
    }

    /// Where the tree of a layer is.
    pub(super) fn path(&self, chain: &ChainId) -> PathBuf {
        self.path.join(chain.hex()).join(TREE)
    }

    pub(super) fn tree(&self, chain: &ChainId) -> Result<OwnedFd> {
        let directory = durable::open_directory(self.directory.as_fd(), chain.hex());
        let directory = directory.context(|| format!("layer {chain} is not complete"))?;
        durable::open_directory(directory.as_fd(), TREE)
            .context(|| format!("layer {chain} is not complete"))
    }

    pub(super) fn stage(&self) -> Result<Staged<'_>> {
        self.ground.durable.writable()?;
        let name = Id::random();
        let make = |at: BorrowedFd<'_>, name: &str, mode| -> Result<OwnedFd> {
            rustix::fs::mkdirat(at, name, Mode::from_raw_mode(mode)).on_disk()?;
            durable::open_directory(at, name)
        };
        let doing = || "cannot make a directory for a layer".to_owned();
        let directory = make(self.staging.as_fd(), name.as_str(), 0o700).context(doing)?;
        let tree = make(directory.as_fd(), TREE, 0o755).context(doing)?;
        rustix::fs::fchmod(&tree, Mode::from_raw_mode(0o755)).on_disk()?;
        Ok(Staged { layers: self, name: name.as_str().to_owned(), directory, tree, done: false })
    }

    /// Replaces what is known of a layer.
    pub(super) fn rewrite(&self, record: Record) -> Result<Arc<Record>> {
        let directory = durable::open_directory(self.directory.as_fd(), record.chain.hex())?;
        self.ground.durable.write_file(directory.as_fd(), RECORD, &json(&record))?;
        let record = Arc::new(record);
        self.known().insert(record.chain.clone(), record.clone());
        Ok(record)
    }

    pub(super) fn remove(&self, chain: &ChainId) -> Result<()> {
        if let Some(child) =
            self.list()?.into_iter().find(|layer| layer.parent.as_ref() == Some(chain))
        {
            return Err(Error::conflict(format!(
                "layer {chain} is in use by layer {}",
                child.chain
            )));
        }
        let snapshots: Vec<super::Snapshot> = self.ground.state.list()?;
        if let Some(snapshot) = snapshots.iter().find(|snapshot| snapshot.parent.contains(chain)) {
            return Err(Error::conflict(format!(
                "layer {chain} is in use by container {}",
                snapshot.name
            )));
        }
        self.known().remove(chain);
        self.ground.trash.take(self.directory.as_fd(), chain.hex())
    }

    pub(super) fn list(&self) -> Result<Vec<LayerInfo>> {
        Ok(self.records()?.iter().map(|record| info(record)).collect())
    }

    fn records(&self) -> Result<Vec<Arc<Record>>> {
        let names = beneath::names(self.directory.as_fd()).on_disk()?;
        let chains = names.iter().filter_map(|name| chain_of(&name.to_string_lossy()));
        Ok(chains.filter_map(|chain| self.get(&chain)).collect())
    }

    /// What is wrong with a layer's directory, if anything.
    pub(super) fn verify(&self, chain: &ChainId, depth: Depth) -> Result<Option<String>> {
        // From the disk, not from memory: that is the question.
        let record = match self.read(chain.hex()) {
            Ok(record) => record,
            Err(error) => return Ok(Some(format!("cannot read {RECORD}: {}", error.chain()))),
        };
        let tree = match self.tree(chain) {
            Ok(tree) => tree,
            Err(error) => return Ok(Some(error.chain())),
        };
        let found = summarize(tree.as_fd(), depth)?;
        let expected = Summary {
            names: record.names,
            bytes: record.bytes,
            hash: if depth == Depth::Strict { record.hash } else { String::new() },
        };
        Ok(match () {
            () if record.chain != *chain => Some(format!("it describes {}", record.chain)),
            () if found.names != expected.names => {
                Some(format!("{} names, not {}", found.names, expected.names))
            }
            () if found.bytes != expected.bytes => {
                Some(format!("{} bytes, not {}", found.bytes, expected.bytes))
            }
            () if found.hash != expected.hash => Some("its content has changed".to_owned()),
            () => None,
        })
    }

    pub(super) fn garbage(&self) -> Result<Vec<Garbage>> {
        let text = |name: std::ffi::CString| name.to_string_lossy().into_owned();
        let staged = beneath::names(self.staging.as_fd())
            .on_disk()?
            .into_iter()
            .map(text)
            .map(Garbage::Staging);
        let broken = beneath::names(self.directory.as_fd()).on_disk()?.into_iter().map(text);
        let broken =
            broken.filter(|name| chain_of(name).is_none_or(|chain| self.get(&chain).is_none()));
        Ok(staged.chain(broken.map(Garbage::Layer)).collect())
    }

    pub(super) fn discard(&self, garbage: &Garbage) -> Result<()> {
        match garbage {
            Garbage::Layer(name) => {
                if let Some(chain) = chain_of(name) {
                    self.known().remove(&chain);
                }
                self.ground.trash.take(self.directory.as_fd(), name)
            }
            Garbage::Staging(name) => self.ground.trash.take(self.staging.as_fd(), name),
            Garbage::Container(_) => Ok(()),
        }
    }
}

pub(super) fn info(record: &Record) -> LayerInfo {
    LayerInfo { chain: record.chain.clone(), parent: record.parent.clone(), size: record.size }
}

/// Directories are named by the digits alone, whose number tells the algorithm.
fn chain_of(name: &str) -> Option<ChainId> {
    let algorithm = if name.len() == 128 { "sha512" } else { "sha256" };
    format!("{algorithm}:{name}").parse().ok()
}

fn json(record: &Record) -> Vec<u8> {
    serde_json::to_vec(record).expect("a record is made of numbers and strings")
}

/// A layer on its way. Dropped before it is committed, it is gone, and its space is free at once.
pub(super) struct Staged<'a> {
    layers: &'a Layers,
    name: String,
    directory: OwnedFd,
    pub tree: OwnedFd,
    done: bool,
}

impl Staged<'_> {
    pub(super) fn path(&self) -> PathBuf {
        self.layers.path.with_file_name(STAGING).join(&self.name).join(TREE)
    }

    /// Syncs everything, describes it, and gives it its name. Whoever was faster has made the same.
    pub(super) fn commit(mut self, record: Record) -> Result<Arc<Record>> {
        let layers = self.layers;
        let durable = &layers.ground.durable;
        durable.sync_file_system(&self.tree)?;
        durable.write_file(self.directory.as_fd(), RECORD, &json(&record))?;
        let name = record.chain.hex().to_owned();
        let rename = || {
            durable::rename_new(layers.staging.as_fd(), &self.name, layers.directory.as_fd(), &name)
        };
        while !rename()? {
            if let Some(theirs) = layers.get(&record.chain) {
                return Ok(theirs);
            }
            layers.ground.trash.take(layers.directory.as_fd(), &name)?;
        }
        durable.sync_directory(&layers.directory)?;
        self.done = true;
        let record = Arc::new(record);
        layers.known().insert(record.chain.clone(), record.clone());
        Ok(record)
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = beneath::remove(self.layers.staging.as_fd(), self.name.as_bytes())
        {
            tracing::warn!(error = error.chain(), "half a layer stays until the next start");
        }
    }
}
