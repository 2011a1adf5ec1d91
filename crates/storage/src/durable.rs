//! How bytes reach the disk for good: staged, synced, renamed, and the directory synced.
//!
//! What must stay true: nobody is told that something is stored before it would survive a loss of power; and after a
//! failed sync nothing is acknowledged any more, because the kernel drops the dirty pages and forgets (fsyncgate).

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use stdx::{Context, Error, Result};

/// The right to promise that something is on disk. Clones share the memory of a failure.
#[derive(Clone, Default)]
pub(crate) struct Durable {
    failed: Arc<AtomicBool>,
}

impl Durable {
    /// Refuses new work after a sync has failed.
    pub(crate) fn writable(&self) -> Result<()> {
        match self.failed.load(Ordering::Acquire) {
            true => Err(Error::unavailable(
                "the storage is read-only: the disk failed to keep what was written; check it and restart",
            )),
            false => Ok(()),
        }
    }

    pub(crate) fn sync_file(&self, file: impl AsFd) -> Result<()> {
        self.judge(rustix::fs::fdatasync(file)).context(|| "cannot write to the disk".to_owned())
    }

    pub(crate) fn sync_directory(&self, directory: impl AsFd) -> Result<()> {
        self.judge(rustix::fs::fsync(directory))
            .context(|| "cannot write a directory to the disk".to_owned())
    }

    /// All that was written to the file system of `inside`: one call instead of one per file.
    pub(crate) fn sync_file_system(&self, inside: impl AsFd) -> Result<()> {
        self.judge(rustix::fs::syncfs(inside)).context(|| "cannot write to the disk".to_owned())
    }

    /// A full disk is an answer; anything else means that data may be gone.
    fn judge(&self, outcome: Result<(), Errno>) -> Result<()> {
        if let Err(errno) = outcome {
            if !matches!(errno, Errno::NOSPC | Errno::DQUOT | Errno::INTR) {
                self.failed.store(true, Ordering::Release);
                tracing::error!(%errno, "the disk failed to keep what was written; the storage is read-only from here");
            }
            return Err(errno.into());
        }
        Ok(())
    }

    /// Writes `bytes` as the new file `name` in `directory`, whole or not at all.
    pub(crate) fn write_file(
        &self,
        directory: BorrowedFd<'_>,
        name: &str,
        bytes: &[u8],
    ) -> Result<()> {
        let staged = format!(".{name}.new");
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut file = File::from(
            rustix::fs::openat(directory, &staged, flags, Mode::from_raw_mode(0o600)).on_disk()?,
        );
        file.write_all(bytes).on_disk()?;
        self.sync_file(&file)?;
        rustix::fs::renameat(directory, &staged, directory, name).on_disk()?;
        self.sync_directory(directory)
    }
}

/// Renames without ever replacing: `false` when something has that name already.
pub(crate) fn rename_new(
    from: BorrowedFd<'_>,
    old: &str,
    to: BorrowedFd<'_>,
    new: &str,
) -> Result<bool> {
    match rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(false),
        Err(errno) => Err(errno).context(|| format!("cannot rename {old} to {new}")),
    }
}

/// Opens the directory `path`, made with mode 0700 where it is missing.
pub(crate) fn directory(path: &Path) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => {
            return Err(errno).context(|| format!("cannot make {}", path.display()));
        }
    }
    open_directory(CWD, path).context(|| format!("cannot open {}", path.display()))
}

pub(crate) fn open_directory(at: BorrowedFd<'_>, path: impl rustix::path::Arg) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(at, path, flags, Mode::empty()).on_disk()
}

/// Whether there is no room left, which may pass.
pub(crate) fn is_full(error: &Error) -> bool {
    [Errno::NOSPC, Errno::DQUOT].iter().any(|full| error.errno() == Some(full.raw_os_error()))
}

/// Turns the kernel's answers into ours, and back what had to pass through `std::io`.
pub(crate) trait OnDisk<T> {
    fn on_disk(self) -> Result<T>;
}

impl<T> OnDisk<T> for Result<T, Errno> {
    fn on_disk(self) -> Result<T> {
        self.map_err(Error::from)
    }
}

impl<T> OnDisk<T> for std::io::Result<T> {
    fn on_disk(self) -> Result<T> {
        self.map_err(from_io)
    }
}

/// The way back for an [`Error`] that had to pass through `std::io::Read` or `Write`.
pub(crate) fn from_io(io: std::io::Error) -> Error {
    if io.raw_os_error().is_some() {
        return io.into();
    }
    match io.downcast::<Error>() {
        Ok(ours) => ours,
        Err(io) => match io.kind() {
            std::io::ErrorKind::InvalidData
            | std::io::ErrorKind::InvalidInput
            | std::io::ErrorKind::UnexpectedEof => Error::invalid(io.to_string()),
            _ => io.into(),
        },
    }
}

/// The way there.
pub(crate) fn into_io(error: Error) -> std::io::Error {
    std::io::Error::other(error)
}
