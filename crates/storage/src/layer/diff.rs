//! What changed between two trees, as `docker diff` tells it, and the layer made of that.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use stdx::Result;

use super::apply::is_whiteout;
use super::pack::Packer;
use super::whiteout;
use crate::durable::OnDisk;
use crate::walk::{Item, Walk, split};
use crate::{beneath, xattr};

/// Bytes of two files compared at a time.
const PIECE: usize = 128 * 1024;

/// The letters C, A and D of `docker diff`; 0, 1 and 2 in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

/// One path that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// From the root, with a slash in front.
    pub path: PathBuf,
    pub kind: ChangeKind,
}

/// Changes by path, without a slash in front. A directory with a change in it is among them.
#[derive(Debug, Default)]
pub(crate) struct Changes(BTreeMap<Vec<u8>, ChangeKind>);

impl Changes {
    fn add(&mut self, path: Vec<u8>, kind: ChangeKind) {
        let mut inside = split(&path).0;
        while !inside.is_empty() && !self.0.contains_key(inside) {
            self.0.insert(inside.to_owned(), ChangeKind::Modified);
            inside = split(inside).0;
        }
        self.0.insert(path, kind);
    }

    pub(crate) fn list(self) -> Vec<Change> {
        let with_slash =
            |path: Vec<u8>| PathBuf::from(OsString::from_vec([b"/".to_vec(), path].concat()));
        self.0.into_iter().map(|(path, kind)| Change { path: with_slash(path), kind }).collect()
    }

    /// Writes the layer that turns the old tree into the new one.
    pub(crate) fn write(self, new: BorrowedFd<'_>, out: &mut dyn Write) -> Result<()> {
        let mut packer = Packer::new(out);
        let mut parent: Option<(Vec<u8>, OwnedFd)> = None;
        for (path, kind) in self.0 {
            if kind == ChangeKind::Deleted {
                packer.mark(whiteout::mark(&path))?;
                continue;
            }
            let (inside, name) = split(&path);
            if parent.as_ref().is_none_or(|(path, _)| path != inside) {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                parent =
                    Some((inside.to_owned(), beneath::open_plain(new, inside, flags).on_disk()?));
            }
            let directory = parent.as_ref().expect("it was set above").1.as_fd();
            if let Some(stat) = beneath::stat(directory, name).on_disk()? {
                packer.add(directory, name, &path, &stat)?;
            }
        }
        packer.finish()
    }
}

/// Compares two whole trees. What is only in the new one and `ours` by its path and state is no change.
pub(crate) fn trees(
    old: BorrowedFd<'_>,
    new: BorrowedFd<'_>,
    ours: fn(&[u8], &Stat) -> bool,
) -> Result<Changes> {
    let mut changes = Changes::default();
    let mut old = Old { root: old, parent: None };
    missing(&mut old, b"", new, &mut changes)?;
    let mut walk = Walk::new(new)?;
    while let Some(item) = walk.next()? {
        let before = old.stat(&item.path)?;
        if before.is_none() && ours(&item.path, &item.stat) {
            continue;
        }
        compare(&mut old, before.as_ref(), walk.directory()?, &item, Content::Trust, &mut changes)?;
        if item.is_directory()
            && before.is_some_and(|stat| beneath::kind(&stat) == FileType::Directory)
        {
            missing(
                &mut old,
                &item.path,
                beneath::child(walk.directory()?, &*item.name).on_disk()?.as_fd(),
                &mut changes,
            )?;
        }
    }
    Ok(changes)
}

/// Reads the changes off the upper directory of an overlay. `old` is all that is below it, as one tree.
///
/// `None` when the upper directory says by a redirect or a data-less copy that it cannot be read alone.
pub(crate) fn upper(old: BorrowedFd<'_>, upper: BorrowedFd<'_>) -> Result<Option<Changes>> {
    let mut changes = Changes::default();
    let mut old = Old { root: old, parent: None };
    let mut walk = Walk::new(upper)?;
    while let Some(item) = walk.next()? {
        let before = old.stat(&item.path)?;
        if is_whiteout(&item.stat) {
            if before.is_some() {
                changes.add(item.path, ChangeKind::Deleted);
            }
            continue;
        }
        let directory = walk.directory()?;
        let has = |attribute| xattr::get(directory, item.name.as_bytes(), attribute).on_disk();
        match item.kind() {
            FileType::RegularFile if has(c"trusted.overlay.metacopy")?.is_some() => {
                return Ok(None);
            }
            FileType::Directory if has(c"trusted.overlay.redirect")?.is_some() => return Ok(None),
            _ => {}
        }
        compare(&mut old, before.as_ref(), directory, &item, Content::Read, &mut changes)?;
        if item.is_directory()
            && before.is_some_and(|stat| beneath::kind(&stat) == FileType::Directory)
            && has(c"trusted.overlay.opaque")?.as_deref() == Some(b"y")
        {
            missing(
                &mut old,
                &item.path,
                beneath::child(directory, &*item.name).on_disk()?.as_fd(),
                &mut changes,
            )?;
        }
    }
    Ok(Some(changes))
}

/// Whether files that look the same are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Size and time tell, as with Docker: a whole tree would have to be read.
    Trust,
    /// What is in an upper directory was touched, so there is not much of it.
    Read,
}

fn compare(
    old: &mut Old<'_>,
    before: Option<&Stat>,
    directory: BorrowedFd<'_>,
    item: &Item,
    content: Content,
    changes: &mut Changes,
) -> Result<()> {
    let Some(before) = before else {
        changes.add(item.path.clone(), ChangeKind::Added);
        return Ok(());
    };
    let name = item.name.as_bytes();
    let differs = differs(before, &item.stat)
        || match item.kind() {
            FileType::RegularFile => {
                old.capability(&item.path)? != capability(directory, name)?
                    || (content == Content::Read
                        && !old.same_content(&item.path, directory, name)?)
            }
            FileType::Symlink => old.link(&item.path)? != link(directory, name)?,
            _ => false,
        };
    if differs {
        changes.add(item.path.clone(), ChangeKind::Modified);
    }
    Ok(())
}

/// Reports what the old directory `path` has and the new one has not.
fn missing(
    old: &mut Old<'_>,
    path: &[u8],
    new: BorrowedFd<'_>,
    changes: &mut Changes,
) -> Result<()> {
    let Some(before) = old.directory(path)? else {
        return Ok(());
    };
    let now: std::collections::HashSet<_> = beneath::names(new).on_disk()?.into_iter().collect();
    for name in beneath::names(before).on_disk()? {
        if !now.contains(&name) {
            changes.add(crate::walk::join(path, name.as_bytes()), ChangeKind::Deleted);
        }
    }
    Ok(())
}

/// Docker's notion: nothing that a copy changes, and neither size nor time of a directory.
fn differs(old: &Stat, new: &Stat) -> bool {
    let same_time = old.st_mtime == new.st_mtime
        && (old.st_mtime_nsec == new.st_mtime_nsec
            || old.st_mtime_nsec == 0
            || new.st_mtime_nsec == 0);
    let owner = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
    owner(old) != owner(new)
        || (beneath::kind(new) != FileType::Directory && (!same_time || old.st_size != new.st_size))
}

/// The tree as it was, with the directory last looked into.
struct Old<'a> {
    root: BorrowedFd<'a>,
    parent: Option<(Vec<u8>, Option<OwnedFd>)>,
}

impl Old<'_> {
    /// `None` where there is no such directory.
    fn directory(&mut self, path: &[u8]) -> Result<Option<BorrowedFd<'_>>> {
        if self.parent.as_ref().is_none_or(|(known, _)| known != path) {
            let opened =
                match beneath::open_plain(self.root, path, OFlags::RDONLY | OFlags::DIRECTORY) {
                    Ok(directory) => Some(directory),
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
                    Err(errno) => return Err(errno).on_disk(),
                };
            self.parent = Some((path.to_owned(), opened));
        }
        Ok(self.parent.as_ref().and_then(|(_, directory)| directory.as_ref()).map(AsFd::as_fd))
    }

    fn stat(&mut self, path: &[u8]) -> Result<Option<Stat>> {
        let (parent, name) = split(path);
        match self.directory(parent)? {
            Some(directory) => beneath::stat(directory, name).on_disk(),
            None => Ok(None),
        }
    }

    /// The directory that has `path` in it, and the name there.
    fn place<'p>(&mut self, path: &'p [u8]) -> Result<Option<(BorrowedFd<'_>, &'p [u8])>> {
        let (parent, name) = split(path);
        Ok(self.directory(parent)?.map(|directory| (directory, name)))
    }

    fn capability(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.place(path)? {
            Some((directory, name)) => capability(directory, name),
            None => Ok(None),
        }
    }

    fn link(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.place(path)? {
            Some((directory, name)) => link(directory, name),
            None => Ok(None),
        }
    }

    fn same_content(&mut self, path: &[u8], new: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
        let Some((old, old_name)) = self.place(path)? else {
            return Ok(false);
        };
        let open = |directory: BorrowedFd<'_>, name: &[u8]| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            rustix::fs::openat(directory, name, flags, Mode::empty()).map(File::from).on_disk()
        };
        let (old, new) = (open(old, old_name)?, open(new, name)?);
        let (mut was, mut is) = (Vec::with_capacity(PIECE), Vec::with_capacity(PIECE));
        loop {
            was.clear();
            is.clear();
            (&old).take(PIECE as u64).read_to_end(&mut was).on_disk()?;
            (&new).take(PIECE as u64).read_to_end(&mut is).on_disk()?;
            if was != is || was.is_empty() {
                return Ok(was == is);
            }
        }
    }
}

fn capability(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Vec<u8>>> {
    xattr::get(directory, name, c"security.capability").on_disk()
}

fn link(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Vec<u8>>> {
    match rustix::fs::readlinkat(directory, name, Vec::new()) {
        Ok(target) => Ok(Some(target.into_bytes())),
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(errno) => Err(errno).on_disk(),
    }
}
