//! A tree becomes another tree: shared blocks where the file system can, else real copies; links stay links.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use stdx::{Context, Result};

use crate::durable::OnDisk;
use crate::walk::{Walk, split};
use crate::{beneath, xattr};

const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Copies all of `from` into the empty directory `to`, the root's own description too.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let mut links: HashMap<u64, Vec<u8>> = HashMap::new();
    let mut directories = vec![(Vec::new(), rustix::fs::fstat(from).on_disk()?)];
    let mut parent: (Vec<u8>, OwnedFd) = (Vec::new(), open(to, b"")?);
    let mut walk = Walk::new(from)?;
    while let Some(item) = walk.next()? {
        let (inside, _) = split(&item.path);
        if parent.0 != inside {
            parent = (inside.to_owned(), open(to, inside)?);
        }
        let (source, target) = (walk.directory()?, parent.1.as_fd());
        let doing = || format!("cannot copy /{}", String::from_utf8_lossy(&item.path));
        if !item.is_directory() && item.stat.st_nlink > 1 {
            if let Some(first) = links.get(&item.stat.st_ino) {
                rustix::fs::linkat(to, &**first, target, &*item.name, AtFlags::empty())
                    .on_disk()
                    .context(doing)?;
                continue;
            }
            links.insert(item.stat.st_ino, item.path.clone());
        }
        let made = one(source, target, item.name.as_bytes(), &item.stat).context(doing)?;
        if made {
            dress(source, target, item.name.as_bytes(), &item.stat).context(doing)?;
        }
        if item.is_directory() {
            directories.push((item.path, item.stat));
        }
    }
    root(from, to)?;
    for (path, stat) in directories.iter().rev() {
        let target = open(to, path)?;
        if let Some(acl) =
            xattr::get(open(from, path)?.as_fd(), b"", c"system.posix_acl_default").on_disk()?
        {
            tolerate(xattr::set(target.as_fd(), b"", (DEFAULT_ACL, &acl)))?;
        }
        rustix::fs::futimens(target, &times(stat)).on_disk()?;
    }
    Ok(())
}

/// Gives the directory `to` what `from` has besides its content: owner, mode, attributes.
pub(crate) fn root(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let stat = rustix::fs::fstat(from).on_disk()?;
    dress(from, to, b"", &stat)?;
    rustix::fs::futimens(to, &times(&stat)).on_disk()
}

/// `false` for a socket, which is left out.
fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> Result<bool> {
    match beneath::kind(stat) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700)).on_disk()?
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new()).on_disk()?;
            rustix::fs::symlinkat(&*target, to, name).on_disk()?;
        }
        FileType::RegularFile => {
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let source = File::from(rustix::fs::openat(from, name, read, Mode::empty()).on_disk()?);
            let write =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = File::from(
                rustix::fs::openat(to, name, write, Mode::from_raw_mode(0o600)).on_disk()?,
            );
            content(&source, &target, stat.st_size as u64)?;
        }
        FileType::Socket | FileType::Unknown => return Ok(false),
        node => rustix::fs::mknodat(to, name, node, Mode::from_raw_mode(0o600), stat.st_rdev)
            .on_disk()?,
    }
    Ok(true)
}

fn content(source: &File, target: &File, size: u64) -> Result<()> {
    if size == 0 || rustix::fs::ioctl_ficlone(target, source).is_ok() {
        return Ok(());
    }
    rustix::fs::ftruncate(target, size).on_disk()?;
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno).on_disk(),
        };
        let end = rustix::fs::seek(source, SeekFrom::Hole(data)).on_disk()?;
        at = data;
        let mut written = data;
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
            match rustix::fs::copy_file_range(
                source,
                Some(&mut at),
                target,
                Some(&mut written),
                want,
            )
            .on_disk()?
            {
                0 => return Ok(()),
                _ => debug_assert_eq!(at, written),
            }
        }
    }
    Ok(())
}

/// An owner takes set-id bits and capabilities away, so it comes first.
fn dress(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    let at = if name.is_empty() { b"." } else { name };
    rustix::fs::chownat(to, at, uid, gid, AtFlags::SYMLINK_NOFOLLOW).on_disk()?;
    if beneath::kind(stat) != FileType::Symlink {
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        rustix::fs::chmodat(to, at, mode, AtFlags::empty()).on_disk()?;
    }
    for (attribute, value) in xattr::all(from, name).on_disk()? {
        if attribute.starts_with(b"trusted.overlay.") || attribute.starts_with(b"user.overlay.") {
            continue;
        }
        // What is made in the directory would inherit it: it waits until everything is made.
        if attribute != DEFAULT_ACL {
            tolerate(xattr::set(to, name, (&attribute, &value)))?;
        }
    }
    rustix::fs::utimensat(to, at, &times(stat), AtFlags::SYMLINK_NOFOLLOW).on_disk()
}

fn tolerate(outcome: Result<(), Errno>) -> Result<()> {
    match outcome {
        Err(Errno::NOTSUP | Errno::PERM) => Ok(()),
        outcome => outcome.on_disk(),
    }
}

pub(crate) fn times(stat: &Stat) -> Timestamps {
    let spec = |seconds: i64, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: nanos as i64 };
    Timestamps {
        last_access: spec(stat.st_atime, stat.st_atime_nsec),
        last_modification: spec(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    beneath::open_plain(root, path, OFlags::RDONLY | OFlags::DIRECTORY).on_disk()
}
