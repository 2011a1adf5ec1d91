//! Snapshots: layers as directories nobody changes, and one writable tree for each container. A file a driver.
//!
//! What must stay true: a layer's directory has its `layer.json`, or it is garbage; a container's tree has its record in
//! the state, or it is garbage; and neither appears before it is complete and, for layers, on disk.
//!
//! The story of a driver, in the order of calls: [`Driver::unpack`] each layer of an image; [`Driver::prepare`] a
//! container on top of them; [`Driver::rootfs`] at each start; [`Driver::changes`] and [`Driver::diff`] whenever somebody
//! asks; [`Driver::remove`] the container, and one day [`Driver::remove_layer`].

mod containers;
mod layers;
mod overlay;
mod places;
#[cfg(test)]
mod suite;
mod vfs;

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use oci::ChainId;
use oci::runtime::Rootfs;
use serde::{Deserialize, Serialize};
use stdx::{Context, Error, Result};

use crate::durable::Durable;
use crate::layer::{Change, Depth};
use crate::trash::Trash;

pub use overlay::Overlay;
pub(crate) use overlay::usage;

pub use vfs::Vfs;

/// What keeps trees. Blocking; any thread may call anything, also at once.
pub trait Driver: Send + Sync {
    /// As `docker info` prints it.
    fn name(&self) -> &'static str;

    /// Whether a layer can only be unpacked when those below it are. Else layers may come in any order, side by side.
    fn needs_parent(&self) -> bool;

    fn has_layer(&self, chain: &ChainId) -> bool;

    /// Extracts a layer, on top of `parent`. The stream is read to its end before the layer appears, so a reader that
    /// fails there ([`crate::layer::Verified`]) keeps it from appearing. A layer that is there already is left alone and
    /// nothing is read. On disk when this returns.
    fn unpack(
        &self,
        chain: &ChainId,
        parent: Option<&ChainId>,
        tar: &mut dyn Read,
    ) -> Result<Unpacked>;

    /// Removes a layer; refused while another layer or a container stands on it. One that is not there is gone already.
    fn remove_layer(&self, chain: &ChainId) -> Result<()>;

    /// All layers that are complete.
    fn layers(&self) -> Result<Vec<LayerInfo>>;

    /// Makes the writable tree of a container on top of the layers `parent`, the lowest first. The record is in the state
    /// when this returns.
    fn prepare(&self, name: &str, parent: &[ChainId]) -> Result<()>;

    /// The directories of a container's own, the outermost first, where the kernel writes to them and to nothing else.
    fn writable_directories(&self, _name: &str) -> Result<Vec<OwnedFd>> {
        Ok(Vec::new())
    }

    /// Removes a container's tree; one that is not there is gone already.
    fn remove(&self, name: &str) -> Result<()>;

    /// All containers that have a tree.
    fn names(&self) -> Result<Vec<String>>;

    /// How a container's root file system is to be put together in its own mount namespace.
    fn rootfs(&self, name: &str) -> Result<Rootfs>;

    /// The whole tree of a container, mounted nowhere. Not to be written to. It may run meanwhile, or start: then it is
    /// undefined which of its changes are seen, and nothing else.
    fn view(&self, name: &str) -> Result<View>;

    /// The whole tree of a *stopped* container, writable, mounted nowhere. Whoever asks keeps it from starting until the
    /// view is gone: two mounts of one writable layer take each other's ground away.
    fn view_writable(&self, name: &str) -> Result<View>;

    /// The whole tree of an image, the lowest layer first, mounted nowhere. Not to be written to.
    fn view_layers(&self, chain: &[ChainId]) -> Result<View>;

    /// What the container changed, by path: `docker diff`.
    fn changes(&self, name: &str) -> Result<Vec<Change>>;

    /// Writes what the container changed as a layer.
    fn diff(&self, name: &str, out: &mut dyn Write) -> Result<()>;

    /// Writes a layer again from its directory. The tree is the same; the bytes need not be those it came in.
    fn layer_tar(&self, chain: &ChainId, out: &mut dyn Write) -> Result<()>;

    /// Bytes of the files in the writable layer.
    fn usage(&self, name: &str) -> Result<u64>;

    /// Looks at a layer; a sentence says what is wrong with it.
    fn verify_layer(&self, chain: &ChainId, depth: Depth) -> Result<Option<String>>;

    /// What lies about: directories of layers that are not complete and of containers without a record.
    fn garbage(&self) -> Result<Vec<Garbage>>;

    /// Moves one of those to the trash.
    fn discard(&self, garbage: &Garbage) -> Result<()>;
}

/// What a layer cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of the layer's files.
    pub size: u64,
    /// Entries of its stream.
    pub entries: u64,
}

/// A layer in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    pub chain: ChainId,
    pub parent: Option<ChainId>,
    pub size: u64,
}

/// A tree by the descriptor of its root. It is there as long as this is.
#[derive(Debug)]
pub struct View {
    pub root: OwnedFd,
    /// Whether it is a mount of its own, attached nowhere; else a directory of this host.
    pub mounted: bool,
}

impl AsFd for View {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Something on disk that belongs to nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Garbage {
    /// A directory under `layers/` without a valid `layer.json`.
    Layer(String),
    /// A directory under `containers/` without a record.
    Container(String),
    /// Half of something, left by a process that died.
    Staging(String),
}

/// A container's tree, as remembered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub name: String,
    /// The lowest first.
    pub parent: Vec<ChainId>,
}

impl state::Record for Snapshot {
    const TABLE: &'static str = "snapshots";

    fn key(&self) -> String {
        self.name.clone()
    }
}

/// What drivers are made from.
#[derive(Clone)]
pub(crate) struct Ground {
    pub state: state::Store,
    pub trash: Trash,
    pub durable: Durable,
}

/// Opens the driver that is asked for, or the best that works here. What has kept trees before goes on keeping them.
pub(crate) fn open(root: &Path, wanted: Option<&str>, ground: &Ground) -> Result<Arc<dyn Driver>> {
    let vfs = || Vfs::open(root, ground).map(|driver| Arc::new(driver) as Arc<dyn Driver>);
    // Asked before anything is tried: that makes directories.
    let kept = |driver: &str| root.join(driver).join("layers").exists();
    let (overlay_kept, vfs_kept) = (kept("overlay2"), kept("vfs"));
    let overlay = || match Overlay::open(root, ground) {
        Ok(driver) => Ok(Arc::new(driver) as Arc<dyn Driver>),
        Err(error) => {
            // What the trial has made would be taken for something kept.
            if !overlay_kept {
                remove_tree(&root.join("overlay2"))?;
            }
            Err(error)
        }
    };
    match wanted {
        Some("overlay2" | "overlay" | "overlayfs") => {
            overlay().context(|| "driver not supported: overlay2".to_owned())
        }
        Some("vfs") => vfs(),
        Some(other) => Err(Error::invalid(format!("driver not supported: {other}"))),
        None if vfs_kept && !overlay_kept => vfs(),
        None => match overlay() {
            Ok(driver) => Ok(driver),
            Err(error) if overlay_kept => Err(error),
            Err(error) => {
                tracing::warn!(
                    reason = error.chain(),
                    "overlayfs cannot be used here; files will be copied instead"
                );
                vfs()
            }
        },
    }
}

fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
