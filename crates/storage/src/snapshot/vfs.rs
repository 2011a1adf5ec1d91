//! The copying driver, for file systems on which overlayfs does not work: every layer is the whole tree up to it, every
//! container a copy of one. Slow and large, and right; blocks are shared where the file system can.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci::ChainId;
use oci::runtime::Rootfs;
use rustix::fs::Mode;
use stdx::{Context, Error, Result};

use super::containers::Containers;
use super::layers::{Layers, Record};
use super::{Driver, Garbage, Ground, LayerInfo, Snapshot, Unpacked, View, places};
use crate::durable::{self, OnDisk};
use crate::layer::tree::summarize;
use crate::layer::{self, Change, Depth, Limits, copy, diff};

const TREE: &str = "fs";

pub struct Vfs {
    layers: Layers,
    containers: Containers,
    /// The tree of an image without layers.
    empty: OwnedFd,
}

impl Vfs {
    pub(crate) fn open(root: &Path, ground: &Ground) -> Result<Self> {
        let root = root.join("vfs");
        durable::directory(&root)?;
        Ok(Self {
            layers: Layers::open(&root, ground)?,
            containers: Containers::open(&root, ground)?,
            empty: durable::directory(&root.join("empty"))?,
        })
    }

    /// The topmost layer of a chain is all of it.
    fn top(&self, chain: &[ChainId]) -> Result<OwnedFd> {
        for chain in chain {
            self.layers.need(chain)?;
        }
        match chain.last() {
            Some(top) => self.layers.tree(top),
            None => self.empty.try_clone().on_disk(),
        }
    }

    fn fill(&self, directory: &OwnedFd, parent: &[ChainId]) -> Result<()> {
        // Under another name until it is complete.
        const HALF: &str = "fs.half";
        rustix::fs::mkdirat(directory, HALF, Mode::from_raw_mode(0o755)).on_disk()?;
        let half = durable::open_directory(directory.as_fd(), HALF)?;
        rustix::fs::fchmod(&half, Mode::from_raw_mode(0o755)).on_disk()?;
        if !parent.is_empty() {
            copy::copy(self.top(parent)?.as_fd(), half.as_fd())?;
        }
        places::add(half.as_fd())?;
        rustix::fs::renameat(directory, HALF, directory, TREE).on_disk()
    }

    fn tree(&self, name: &str) -> Result<(Snapshot, OwnedFd)> {
        let snapshot = self.containers.get(name)?;
        let found = self.containers.directory(name)?;
        let found =
            found.and_then(|directory| durable::open_directory(directory.as_fd(), TREE).ok());
        let tree = match found {
            Some(tree) => tree,
            None => {
                let directory = self.containers.restore(name)?;
                self.fill(&directory, &snapshot.parent)?;
                durable::open_directory(directory.as_fd(), TREE)?
            }
        };
        Ok((snapshot, tree))
    }

    fn compare(&self, name: &str) -> Result<(diff::Changes, OwnedFd)> {
        let (snapshot, tree) = self.tree(name)?;
        Ok((
            diff::trees(self.top(&snapshot.parent)?.as_fd(), tree.as_fd(), places::untouched)?,
            tree,
        ))
    }
}

impl Driver for Vfs {
    fn name(&self) -> &'static str {
        "vfs"
    }

    fn needs_parent(&self) -> bool {
        true
    }

    fn has_layer(&self, chain: &ChainId) -> bool {
        self.layers.get(chain).is_some()
    }

    fn unpack(
        &self,
        chain: &ChainId,
        parent: Option<&ChainId>,
        tar: &mut dyn Read,
    ) -> Result<Unpacked> {
        if let Some(record) = self.layers.get(chain) {
            return Ok(Unpacked { size: record.size, entries: record.entries });
        }
        let below = parent
            .map(|parent| self.layers.need(parent).and_then(|_| self.layers.tree(parent)))
            .transpose();
        let below = below.map_err(|error| {
            Error::conflict("the layer below has to be unpacked first").caused_by(error)
        })?;
        let staged = self.layers.stage()?;
        if let Some(below) = below {
            copy::copy(below.as_fd(), staged.tree.as_fd())?;
        }
        let applied = layer::apply(staged.tree.as_fd(), tar, &Limits::default())?;
        let summary = summarize(staged.tree.as_fd(), Depth::Strict)?;
        let record = staged.commit(Record {
            chain: chain.clone(),
            parent: parent.cloned(),
            size: applied.size,
            entries: applied.entries,
            names: summary.names,
            bytes: summary.bytes,
            hash: summary.hash,
            opaque: false,
            waiting: Vec::new(),
        })?;
        Ok(Unpacked { size: record.size, entries: record.entries })
    }

    fn remove_layer(&self, chain: &ChainId) -> Result<()> {
        self.layers.remove(chain)
    }

    fn layers(&self) -> Result<Vec<LayerInfo>> {
        self.layers.list()
    }

    fn prepare(&self, name: &str, parent: &[ChainId]) -> Result<()> {
        self.top(parent)?;
        let directory =
            self.containers.add(&Snapshot { name: name.to_owned(), parent: parent.to_vec() })?;
        self.fill(&directory, parent).or_else(|error| {
            self.containers.remove(name)?;
            Err(error)
        })
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.containers.remove(name)
    }

    fn names(&self) -> Result<Vec<String>> {
        self.containers.names()
    }

    fn rootfs(&self, name: &str) -> Result<Rootfs> {
        self.tree(name)?;
        Ok(Rootfs::Directory { path: self.containers.path(name).join(TREE) })
    }

    fn view(&self, name: &str) -> Result<View> {
        Ok(View { root: self.tree(name)?.1, mounted: false })
    }

    fn view_writable(&self, name: &str) -> Result<View> {
        self.view(name)
    }

    fn view_layers(&self, chain: &[ChainId]) -> Result<View> {
        Ok(View { root: self.top(chain)?, mounted: false })
    }

    fn changes(&self, name: &str) -> Result<Vec<Change>> {
        Ok(self.compare(name)?.0.list())
    }

    fn diff(&self, name: &str, out: &mut dyn Write) -> Result<()> {
        let (changes, tree) = self.compare(name)?;
        changes.write(tree.as_fd(), out)
    }

    fn layer_tar(&self, chain: &ChainId, out: &mut dyn Write) -> Result<()> {
        let record = self.layers.need(chain)?;
        let tree = self.layers.tree(chain)?;
        let below: Vec<ChainId> = record.parent.iter().cloned().collect();
        let below = self.top(&below).context(|| format!("the layer below {chain} is missing"))?;
        diff::trees(below.as_fd(), tree.as_fd(), |_, _| false)?.write(tree.as_fd(), out)
    }

    /// The whole tree: that is what it costs.
    fn usage(&self, name: &str) -> Result<u64> {
        super::overlay::usage(&self.tree(name)?.1)
    }

    fn verify_layer(&self, chain: &ChainId, depth: Depth) -> Result<Option<String>> {
        self.layers.verify(chain, depth)
    }

    fn garbage(&self) -> Result<Vec<Garbage>> {
        let mut garbage = self.layers.garbage()?;
        garbage.extend(self.containers.garbage()?);
        Ok(garbage)
    }

    fn discard(&self, garbage: &Garbage) -> Result<()> {
        self.layers.discard(garbage)?;
        self.containers.discard(garbage)
    }
}
