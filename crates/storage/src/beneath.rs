//! Paths inside a tree that somebody else filled. Nothing here ever leaves the tree, whatever links it holds.
//!
//! Everything goes through a descriptor of the tree's root and `openat2(RESOLVE_IN_ROOT)`: an absolute link means the
//! root of the tree, `..` stops there, and magic links of /proc are not followed at all.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::durable::OnDisk;
use stdx::{Result, id};

/// Directories deeper than this are pulled up before they are emptied, so that no tree costs many descriptors.
const HELD_OPEN: usize = 64;

/// Opens `path` inside `root`, following links inside `root` only.
pub fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    open_with(root, path, flags, ResolveFlags::IN_ROOT)
}

/// As [`open`], but a link anywhere on the way is an error (`ELOOP`).
pub fn open_plain(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    open_with(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
}

fn open_with(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    how: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    loop {
        let resolve = how | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // Somebody renamed on the way while the kernel walked: it may be asked again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            outcome => return outcome,
        }
    }
}

/// What `name` in `directory` is, without following it; `None` when nothing has that name.
pub(crate) fn stat(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The names in a directory, sorted by their bytes.
pub(crate) fn names(directory: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    // A descriptor of its own: the position in a directory belongs to the open file.
    let own = rustix::fs::openat(
        directory,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut names = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut reader = RawDir::new(own.as_fd(), &mut buffer);
    while let Some(entry) = reader.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Opens the directory `name` in `directory`; a link of that name is an error.
pub(crate) fn child(
    directory: BorrowedFd<'_>,
    name: impl rustix::path::Arg,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// Removes `name` in `directory` with all that is below it, however deep, never following a link.
///
/// Containers can make directories nested a million deep: below [`HELD_OPEN`] levels they are moved up next to `name`
/// and emptied from there, so that neither the stack nor the table of descriptors grows with them.
pub(crate) fn remove(directory: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let mut waiting = vec![CString::new(name).expect("a name holds no NUL")];
    while let Some(top) = waiting.pop() {
        match unlink(directory, &top) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(errno).on_disk(),
        }
        let opened = child(directory, &*top).on_disk()?;
        empty(directory, opened, 1, &mut waiting)?;
        rustix::fs::unlinkat(directory, &*top, AtFlags::REMOVEDIR).on_disk()?;
    }
    Ok(())
}

/// Removes everything inside `directory`; what is too deep goes to `top` under a new name in `waiting`.
fn empty(
    top: BorrowedFd<'_>,
    directory: OwnedFd,
    depth: usize,
    waiting: &mut Vec<CString>,
) -> Result<()> {
    for name in names(directory.as_fd()).on_disk()? {
        match unlink(directory.as_fd(), &name) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) if depth < HELD_OPEN => {
                let inner = child(directory.as_fd(), &*name).on_disk()?;
                empty(top, inner, depth + 1, waiting)?;
                rustix::fs::unlinkat(&directory, &*name, AtFlags::REMOVEDIR).on_disk()?;
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let random = id::Id::random();
                let moved =
                    CString::new(format!(".deep-{}", random.short())).expect("hex holds no NUL");
                rustix::fs::renameat(&directory, &*name, top, &*moved).on_disk()?;
                waiting.push(moved);
            }
            Err(errno) => return Err(errno).on_disk(),
        }
    }
    Ok(())
}

/// Removes a file or an empty directory.
fn unlink(directory: BorrowedFd<'_>, name: &CString) -> Result<(), Errno> {
    let outcome = match rustix::fs::unlinkat(directory, &**name, AtFlags::empty()) {
        // Linux says EISDIR for a directory; other file systems say EPERM as POSIX wants it, as for an immutable file.
        Err(Errno::ISDIR) => return rustix::fs::unlinkat(directory, &**name, AtFlags::REMOVEDIR),
        Err(Errno::PERM) => {
            release(directory, name);
            rustix::fs::unlinkat(directory, &**name, AtFlags::empty())
        }
        outcome => outcome,
    };
    match outcome {
        Err(Errno::ISDIR | Errno::PERM) => {
            rustix::fs::unlinkat(directory, &**name, AtFlags::REMOVEDIR)
        }
        outcome => outcome,
    }
}

/// Takes the immutable and append-only flags away, which a privileged container may have set. Best effort: the removal
/// that follows tells.
fn release(directory: BorrowedFd<'_>, name: &CString) {
    let clear = |file: BorrowedFd<'_>| -> Result<(), Errno> {
        let flags = rustix::fs::ioctl_getflags(file)?;
        let held = rustix::fs::IFlags::IMMUTABLE | rustix::fs::IFlags::APPEND;
        if flags.intersects(held) { rustix::fs::ioctl_setflags(file, flags - held) } else { Ok(()) }
    };
    clear(directory).ok();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let plain = stat(directory, name.as_bytes());
    if let Ok(Some(stat)) = plain
        && matches!(kind(&stat), FileType::RegularFile | FileType::Directory)
        && let Ok(file) = rustix::fs::openat(directory, &**name, flags, Mode::empty())
    {
        clear(file.as_fd()).ok();
    }
}
