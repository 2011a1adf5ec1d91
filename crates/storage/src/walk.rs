//! A walk through a tree: every name once, in the order of their bytes, a directory before what is in it.
//!
//! A container may nest directories as deep as a path is long, so a walk holds few descriptors and no stack frames for
//! the depth: below [`HELD_OPEN`] levels a directory is closed on the way down and opened again on the way up.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags, Stat};
use stdx::{Context, Result};

use crate::beneath;
use crate::durable::OnDisk;

const HELD_OPEN: usize = 32;

pub(crate) struct Walk<'a> {
    root: BorrowedFd<'a>,
    levels: Vec<Level>,
    /// The directory that the last item was, and that the next step enters.
    enter: Option<(Vec<u8>, CString)>,
}

struct Level {
    path: Vec<u8>,
    directory: Option<OwnedFd>,
    names: std::vec::IntoIter<CString>,
}

/// One name in the tree.
pub(crate) struct Item {
    /// From the root, without a slash in front.
    pub path: Vec<u8>,
    pub name: CString,
    pub stat: Stat,
}

impl Item {
    pub(crate) fn kind(&self) -> FileType {
        beneath::kind(&self.stat)
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }
}

impl<'a> Walk<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>) -> Result<Self> {
        Self::from(root, b"")
    }

    /// Walks what is inside the directory `path`; the paths of the items still begin at the root.
    pub(crate) fn from(root: BorrowedFd<'a>, path: &[u8]) -> Result<Self> {
        let mut walk = Self { root, levels: Vec::new(), enter: None };
        let directory = walk.reopen(path)?;
        walk.push(path.to_owned(), directory)?;
        Ok(walk)
    }

    /// The next name; `None` at the end. A name that vanished meanwhile is passed over.
    pub(crate) fn next(&mut self) -> Result<Option<Item>> {
        if let Some((path, name)) = self.enter.take() {
            match beneath::child(self.directory()?, &*name) {
                Ok(directory) => self.push(path, directory)?,
                Err(
                    rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP,
                ) => {}
                Err(errno) => return Err(errno).on_disk().context(|| self.doing(&path)),
            }
        }
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.names.next() else {
                self.levels.pop();
                continue;
            };
            let path = join(&level.path, name.as_bytes());
            let Some(stat) = beneath::stat(self.directory()?, name.as_bytes()).on_disk()? else {
                continue;
            };
            if beneath::kind(&stat) == FileType::Directory {
                self.enter = Some((path.clone(), name.clone()));
            }
            return Ok(Some(Item { path, name, stat }));
        }
        Ok(None)
    }

    /// The directory that the last item is in.
    pub(crate) fn directory(&mut self) -> Result<BorrowedFd<'_>> {
        let last = self.levels.last().expect("an item has a level it came from");
        if last.directory.is_none() {
            let opened = self.reopen(&last.path)?;
            self.levels.last_mut().expect("it was there a line above").directory = Some(opened);
        }
        Ok(self
            .levels
            .last()
            .and_then(|level| level.directory.as_ref())
            .expect("it was opened above")
            .as_fd())
    }

    fn push(&mut self, path: Vec<u8>, directory: OwnedFd) -> Result<()> {
        let names =
            beneath::names(directory.as_fd()).on_disk().context(|| self.doing(&path))?.into_iter();
        if self.levels.len() >= HELD_OPEN {
            self.levels.last_mut().expect("there are many").directory = None;
        }
        self.levels.push(Level { path, directory: Some(directory), names });
        Ok(())
    }

    fn reopen(&self, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        beneath::open_plain(self.root, path, flags).on_disk().context(|| self.doing(path))
    }

    fn doing(&self, path: &[u8]) -> String {
        format!("cannot read the directory /{}", String::from_utf8_lossy(path))
    }
}

pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(parent.len() + 1 + name.len());
    path.extend_from_slice(parent);
    if !parent.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// `a/b/c` is `c` in `a/b`.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|c| *c == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}
