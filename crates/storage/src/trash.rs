//! Where removed things wait: a rename makes them gone at once, and a reaper frees the space when nobody waits.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use stdx::{Context, Id, Result};

use crate::beneath;
use crate::durable::{self, OnDisk};

/// The trash of one data root. Clones share it.
#[derive(Clone)]
pub(crate) struct Trash {
    directory: Arc<OwnedFd>,
}

impl Trash {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        Ok(Self { directory: Arc::new(durable::directory(&root.join("trash"))?) })
    }

    /// Moves `name` out of `from`. Nothing of that name is fine: it is gone already.
    pub(crate) fn take(&self, from: BorrowedFd<'_>, name: &str) -> Result<()> {
        match self.bury(from, Path::new(name)) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => {
                Err(errno).on_disk().context(|| format!("cannot move {name} to the trash"))
            }
        }
    }

    /// As [`Trash::take`], of a path. What lies on another file system cannot wait here and is removed now.
    pub(crate) fn take_path(&self, path: &Path) -> Result<()> {
        let gone = match self.bury(rustix::fs::CWD, path) {
            Ok(()) => return Ok(()),
            Err(Errno::XDEV) => std::fs::remove_dir_all(path),
            Err(errno) => Err(errno.into()),
        };
        match gone {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// On a full disk there may be no room for one more name, until those that lie here have gone.
    fn bury(&self, from: BorrowedFd<'_>, path: &Path) -> Result<(), Errno> {
        let grave = Id::random();
        let bury = || rustix::fs::renameat(from, path, &*self.directory, grave.as_str());
        match bury() {
            Err(Errno::NOSPC | Errno::DQUOT) if self.reap().is_ok_and(|freed| freed > 0) => bury(),
            outcome => outcome,
        }
    }

    /// Frees what lies here. Returns how many things that were; one that resists does not keep the others.
    pub(crate) fn reap(&self) -> Result<usize> {
        let mut first = None;
        let mut freed = 0;
        for name in beneath::names(self.directory.as_fd()).on_disk()? {
            match beneath::remove(self.directory.as_fd(), name.as_bytes()) {
                Ok(()) => freed += 1,
                Err(error) => first = first.or(Some(error)),
            }
        }
        match first {
            Some(error) => Err(error).context(|| "cannot empty the trash".to_owned()),
            None => Ok(freed),
        }
    }

    /// How many things wait here.
    pub(crate) fn waiting(&self) -> Result<usize> {
        Ok(beneath::names(self.directory.as_fd()).on_disk()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_waits_for_the_reaper() {
        let root = tempfile::tempdir().unwrap();
        let trash = Trash::open(root.path()).unwrap();
        let directory = root.path().join("c1");
        std::fs::create_dir_all(directory.join("deep")).unwrap();
        trash.take_path(&directory).unwrap();
        assert!(!directory.exists() && trash.waiting().unwrap() == 1);
        // Gone already.
        trash.take_path(&directory).unwrap();
        assert_eq!(trash.reap().unwrap(), 1);
        assert_eq!(trash.waiting().unwrap(), 0);
    }

    #[test]
    fn another_file_system_cannot_wait() {
        let (root, other) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let trash = Trash::open(root.path()).unwrap();
        let directory = other.path().join("c1");
        std::fs::create_dir_all(directory.join("deep")).unwrap();
        trash.take_path(&directory).unwrap();
        assert!(!directory.exists());
    }
}
