//! What every container has below its image: places for the files and file systems that are mounted into it.
//!
//! Were they made on top when a container starts, `docker diff` and `commit` would tell of them. Below all layers they
//! are there when the image has none, and hidden when it has its own.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Mode, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use stdx::Result;

use crate::beneath;
use crate::durable::OnDisk;
use crate::layer::copy;

enum Place {
    Directory,
    File,
    Link(&'static str),
}

/// Those that Docker makes: `docker export` shows them. Parents come first.
const PLACES: [(&str, Place); 12] = [
    (".dockerenv", Place::File),
    ("dev", Place::Directory),
    ("dev/console", Place::File),
    ("dev/pts", Place::Directory),
    ("dev/shm", Place::Directory),
    ("etc", Place::Directory),
    ("etc/hostname", Place::File),
    ("etc/hosts", Place::File),
    ("etc/mtab", Place::Link("/proc/mounts")),
    ("etc/resolv.conf", Place::File),
    ("proc", Place::Directory),
    ("sys", Place::Directory),
];

/// Makes those that are missing. Content of the tree cannot lead out of it: a parent that is no directory stays as it is.
pub(super) fn add(root: BorrowedFd<'_>) -> Result<()> {
    for (path, place) in &PLACES {
        let (inside, name) = path.rsplit_once('/').unwrap_or(("", path));
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        let inside = match beneath::open_plain(root, inside.as_bytes(), flags) {
            Ok(inside) => inside,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(errno) => return Err(errno).on_disk(),
        };
        let mode = Mode::from_raw_mode(0o755);
        let before = rustix::fs::fstat(&inside).on_disk()?;
        let made = match place {
            Place::Directory => rustix::fs::mkdirat(&inside, name, mode),
            Place::File => rustix::fs::mknodat(&inside, name, FileType::RegularFile, mode, 0),
            Place::Link(target) => rustix::fs::symlinkat(*target, &inside, name),
        };
        match made {
            Err(Errno::EXIST) => continue,
            made => made.on_disk()?,
        }
        if !matches!(place, Place::Link(_)) {
            // Whatever the umask was.
            rustix::fs::chmodat(&inside, name, mode, AtFlags::empty()).on_disk()?;
        }
        rustix::fs::utimensat(&inside, name, &EPOCH, AtFlags::SYMLINK_NOFOLLOW).on_disk()?;
        rustix::fs::futimens(&inside, &copy::times(&before)).on_disk()?;
    }
    Ok(())
}

/// Whether this is a place as [`add`] made it.
pub(super) fn untouched(path: &[u8], stat: &Stat) -> bool {
    PLACES.iter().any(|(known, place)| {
        known.as_bytes() == path
            && match place {
                Place::Directory => beneath::kind(stat) == FileType::Directory,
                Place::File => {
                    beneath::kind(stat) == FileType::RegularFile
                        && stat.st_size == 0
                        && stat.st_mtime == 0
                }
                Place::Link(_) => beneath::kind(stat) == FileType::Symlink && stat.st_mtime == 0,
            }
    })
}

const EPOCH: Timestamps = {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    Timestamps { last_access: zero, last_modification: zero }
};
