//! Bytes on disk: blobs by digest, layers and containers as trees, volumes.
//!
//! Sits on oci and state; serves image, engine and builder. Blocking. It knows no images and no containers, only their
//! bytes: who needs what is for those above to say.
//!
//! What must stay true: what is named is complete and on disk; nothing that came from outside decides a path, a size or
//! a count; deleting is a rename, and freeing the space is nobody's wait.
//!
//! Start reading at [`Storage`], then `content/`, `layer/apply.rs`, `snapshot/mod.rs`.

pub mod beneath;
pub mod check;
pub mod content;
mod durable;
pub mod layer;
mod quota;
pub mod snapshot;
pub mod tar;
mod trash;
pub mod volume;
mod walk;
mod xattr;

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use stdx::Result;

pub use check::{Finding, Known, Remedy, Subject};
pub use layer::Depth;
use quota::Limited;

/// Everything under one data root.
pub struct Storage {
    pub content: content::Store,
    pub snapshots: Arc<dyn snapshot::Driver>,
    pub volumes: volume::Local,
    pub volume_plugins: volume::PluginDrivers,
    trash: trash::Trash,
    quotas: quota::Quotas,
    durable: durable::Durable,
}

impl Storage {
    /// Opens or makes the storage under `root`. Without a `driver` it takes the one used before, or the best that works.
    pub fn open(root: &Path, driver: Option<&str>, state: &state::Store) -> Result<Self> {
        durable::directory(root)?;
        let durable = durable::Durable::default();
        let trash = trash::Trash::open(root)?;
        let quotas = quota::Quotas::default();
        let ground = snapshot::Ground {
            state: state.clone(),
            trash: trash.clone(),
            durable: durable.clone(),
        };
        Ok(Self {
            content: content::Store::open_with(root, durable.clone())?,
            snapshots: snapshot::open(root, driver, &ground)?,
            volumes: volume::Local::open(root, &trash, &quotas)?,
            volume_plugins: volume::PluginDrivers::default(),
            trash,
            quotas,
            durable,
        })
    }

    /// Refuses when the disk has failed to keep what was written: nothing new is taken until the daemon starts again.
    pub fn writable(&self) -> Result<()> {
        self.durable.writable()
    }

    /// The same, with volumes that plugins have.
    pub fn with_plugins(mut self, plugins: Arc<plugin::Plugins>) -> Self {
        self.volume_plugins = volume::PluginDrivers::new(plugins);
        self
    }

    /// Limits what a new container may write, together; 0 is no limit. Refused in Docker's words where none can be seen to.
    pub fn limit_container(&self, name: &str, bytes: u64) -> Result<()> {
        let directories = self.snapshots.writable_directories(name)?;
        let directories: Vec<_> = directories.iter().map(AsFd::as_fd).collect();
        let limited = match bytes {
            0 => self.quotas.support(&directories)?,
            bytes => self.quotas.limit(&directories, bytes)?,
        };
        match limited {
            Limited::Yes => Ok(()),
            Limited::CannotBe => Err(stdx::Error::invalid(
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
            )),
        }
    }

    /// Makes a directory of somebody else's below the data root disappear at once; its space is freed by and by. One that
    /// is not there is gone already.
    pub fn discard(&self, directory: &Path) -> Result<()> {
        self.trash.take_path(directory)
    }

    /// Frees the space of what was removed. Slow; returns how many things that were.
    pub fn reap(&self) -> Result<usize> {
        self.trash.reap()
    }

    /// How many removed things wait for [`Storage::reap`].
    pub fn trash(&self) -> Result<usize> {
        self.trash.waiting()
    }
}
