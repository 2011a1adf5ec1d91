//! A stream becomes a tree.
//!
//! The parent of an entry is resolved inside the root, links included; its last component is never followed, and what
//! stands in its place is removed first. So the worst a hostile stream can do is to make a strange tree.

use std::collections::hash_map::{self, RandomState};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use stdx::{Context, Error, Kind as ErrorKind, Result};

use super::limits::exceeded;
use super::tree::{self, Checksum, Sum, Summary};
use super::whiteout::{self, Marker};
use super::{Limits, copy};
use crate::durable::OnDisk;
use crate::tar::{Entry, Kind, Reader, Time};
use crate::walk::{join, split};
use crate::{beneath, xattr};

/// As many links on the way to a file as the kernel follows.
const LINKS: usize = 40;
const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");

/// What becomes of `.wh.` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// They remove what is in the tree already.
    Delete,
    /// They become what overlayfs understands. The tree holds this layer only.
    Overlay,
    /// They are names like any other: `docker cp`.
    Literal,
}

/// What happens when a directory and something else meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clash {
    /// The entry wins.
    Replace,
    /// The stream is refused (`noOverwriteDirNonDir`).
    Refuse,
}

/// Whose numbers are whose on the other side of a mapping: lines of inside, outside and how many, of users and of groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    pub uids: Vec<(u32, u32, u32)>,
    pub gids: Vec<(u32, u32, u32)>,
}

impl Owners {
    fn uid(&self, inside: u32) -> Option<u32> {
        across(&self.uids, inside)
    }

    fn gid(&self, inside: u32) -> Option<u32> {
        across(&self.gids, inside)
    }
}

fn across(lines: &[(u32, u32, u32)], inside: u32) -> Option<u32> {
    lines.iter().find_map(|&(first, outside, count)| {
        let offset = inside.checked_sub(first).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}

/// How a stream is extracted.
#[derive(Clone, Debug)]
pub struct Options {
    pub whiteouts: Whiteouts,
    pub clash: Clash,
    /// Everything belongs to these instead of whom the stream says.
    pub owner: Option<(u32, u32)>,
    /// Who they are where the tree is written: it is mapped.
    pub owners: Option<Owners>,
    /// The stream is of what is in this directory of the tree, which itself stays as it is: `docker cp`. Links still mean
    /// the whole tree.
    pub below: Option<Vec<u8>>,
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            whiteouts: Whiteouts::Delete,
            clash: Clash::Replace,
            owner: None,
            owners: None,
            below: None,
            limits: Limits::default(),
        }
    }
}

/// What was extracted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Entries of the stream.
    pub entries: u64,
    /// Bytes of its files.
    pub size: u64,
    /// Directories that the stream needed and did not describe: made as root's with mode 0755. The root is among them
    /// as an empty path.
    pub implicit: Vec<Vec<u8>>,
    /// The root hides everything below this layer.
    pub opaque_root: bool,
    /// The tree as a whole, where it could be counted on the way.
    pub(crate) summary: Option<Summary>,
}

/// Extracts a layer into `root`, removing what its whiteouts name.
pub fn apply(root: BorrowedFd<'_>, tar: &mut dyn Read, limits: &Limits) -> Result<Applied> {
    apply_with(root, tar, &Options { limits: limits.clone(), ..Options::default() })
}

/// Extracts a stream into `root`. The stream is read to its very end, also behind the archive.
pub fn apply_with(root: BorrowedFd<'_>, tar: &mut dyn Read, options: &Options) -> Result<Applied> {
    let mut reader = Reader::new(tar, &options.limits);
    let mut extractor = Extractor::new(root, options);
    while let Some(entry) = reader.next()? {
        extractor.entry(&entry, &mut reader).map_err(|error| {
            // A clash names its path itself.
            let named = options.clash == Clash::Refuse && error.errno().is_none();
            if named {
                return error;
            }
            let words = format!("cannot extract {:?}", String::from_utf8_lossy(&entry.path));
            Error::new(error.kind(), words).caused_by(error)
        })?;
    }
    extractor.finish()
}

struct Extractor<'a> {
    root: BorrowedFd<'a>,
    options: &'a Options,
    /// The directory that the last entry was in: the next one usually is too.
    parent: Option<Rc<Parent>>,
    /// The names this stream made, for opaque directories in a tree that held others before.
    made: HashSet<u64>,
    hash: RandomState,
    /// What can be said of directories only when they are complete.
    directories: BTreeMap<Vec<u8>, Finish>,
    implicit: BTreeSet<Vec<u8>>,
    applied: Applied,
    sum: Sum,
    /// Whether the summary holds: nothing was replaced or reached through a link.
    summed: bool,
    links: HashMap<u64, (Stat, Vec<u8>)>,
    process: Process,
}

struct Parent {
    path: Vec<u8>,
    directory: OwnedFd,
    inode: u64,
    set_group: bool,
}

#[derive(Default)]
struct Finish {
    mode: u32,
    uid: u32,
    gid: u32,
    times: Option<Timestamps>,
    /// A default ACL changes the mode of what is made in the directory, so it comes last.
    acl: Option<(Vec<u8>, Vec<u8>)>,
}

/// What the kernel gives new files by itself.
struct Process {
    uid: u32,
    gid: u32,
    umask: u32,
}

impl Process {
    /// Without a readable umask every file gets its mode by a call of its own.
    fn this() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            umask: umask
                .and_then(|text| u32::from_str_radix(text.trim(), 8).ok())
                .unwrap_or(0o7777),
        }
    }
}

/// What stands where something is to be made.
enum Found {
    Nothing,
    Whiteout,
    Other,
}

impl<'a> Extractor<'a> {
    fn new(root: BorrowedFd<'a>, options: &'a Options) -> Self {
        Self {
            root,
            options,
            parent: None,
            made: HashSet::new(),
            hash: RandomState::new(),
            directories: BTreeMap::new(),
            implicit: BTreeSet::from([Vec::new()]),
            applied: Applied::default(),
            sum: Sum::default(),
            summed: options.whiteouts == Whiteouts::Overlay,
            links: HashMap::new(),
            process: Process::this(),
        }
    }

    fn entry(&mut self, entry: &Entry, reader: &mut Reader<'_>) -> Result<()> {
        self.applied.entries += 1;
        let path = clean(&entry.path, &self.options.limits)?;
        let path = match &self.options.below {
            Some(_) if path.is_empty() => return Ok(()),
            Some(below) => join(below, &path),
            None => path,
        };
        let (parent, name) = split(&path);
        if name.is_empty() {
            return self.root(entry);
        }
        if name.len() > 255 {
            return Err(Error::invalid("file name too long"));
        }
        if self.options.whiteouts != Whiteouts::Literal {
            match whiteout::parse(&path, name)? {
                Some(Marker::Ignored) => return Ok(()),
                Some(Marker::Opaque) => return self.opaque(parent),
                Some(Marker::Gone(gone)) => return self.whiteout(parent, gone),
                // To overlayfs such a device is a whiteout, so it is one everywhere.
                None if entry.kind == Kind::Character && entry.device == (0, 0) => {
                    return self.whiteout(parent, name);
                }
                None => {}
            }
        }
        match entry.kind {
            Kind::File => self.file(entry, parent, name, reader),
            Kind::Directory => self.directory(entry, &path, parent, name),
            Kind::HardLink => self.hard_link(entry, &path, parent, name),
            Kind::Symlink => self.symlink(entry, &path, parent, name),
            Kind::Character | Kind::Block | Kind::Fifo => self.node(entry, &path, parent, name),
        }
    }

    fn root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(Error::invalid("the root of the tree can only be a directory"));
        }
        let root = beneath::open(self.root, b"", OFlags::RDONLY | OFlags::DIRECTORY).on_disk()?;
        self.describe(&root, entry, Vec::new())
    }

    fn directory(&mut self, entry: &Entry, path: &[u8], parent: &[u8], name: &[u8]) -> Result<()> {
        let parent = self.parent(parent)?;
        let at = parent.directory.as_fd();
        let mut hides = false;
        let make = || rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o700));
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let found = beneath::stat(at, name).on_disk()?;
                if !found.is_some_and(|stat| beneath::kind(&stat) == FileType::Directory) {
                    hides =
                        matches!(self.displace(&parent, name, Kind::Directory)?, Found::Whiteout);
                    make().on_disk()?;
                }
            }
            Err(errno) => return Err(errno).on_disk(),
        }
        let directory = beneath::child(at, name).on_disk()?;
        if hides {
            set_xattr(&directory, OPAQUE)?;
        }
        self.note(&parent, name);
        self.describe(&directory, entry, path.to_owned())?;
        // What follows a directory is usually what is in it.
        let inode = self.inode(&directory)?;
        let set_group = entry.mode & 0o2000 != 0;
        self.parent = Some(Rc::new(Parent { path: path.to_owned(), directory, inode, set_group }));
        Ok(())
    }

    /// Gives a directory what the entry says of it; times and a default ACL at the end.
    fn describe(&mut self, directory: &OwnedFd, entry: &Entry, path: Vec<u8>) -> Result<()> {
        let (uid, gid) = self.owner(entry)?;
        rustix::fs::fchown(directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .on_disk()?;
        rustix::fs::fchmod(directory, Mode::from_raw_mode(entry.mode)).on_disk()?;
        let mut acl = None;
        for (name, value) in &entry.xattrs {
            match &**name {
                b"system.posix_acl_default" => acl = Some((name.clone(), value.clone())),
                name => self.xattr(name, |name| {
                    rustix::fs::fsetxattr(directory, name, value, XattrFlags::empty())
                })?,
            }
        }
        self.implicit.remove(&path);
        let finish = Finish { mode: entry.mode, uid, gid, times: Some(times(entry)), acl };
        self.directories.insert(path, finish);
        Ok(())
    }

    fn file(
        &mut self,
        entry: &Entry,
        parent: &[u8],
        name: &[u8],
        reader: &mut Reader<'_>,
    ) -> Result<()> {
        let parent = self.parent(parent)?;
        let at = parent.directory.as_fd();
        // Created with its final mode where the umask leaves that alone: one call less for nearly every file.
        let plain = entry.mode & !0o777 == 0 && entry.mode & self.process.umask == 0;
        let mode = Mode::from_raw_mode(if plain { entry.mode } else { 0o600 });
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            self.make(&parent, name, Kind::File, || rustix::fs::openat(at, name, flags, mode))?;
        let mut file = File::from(file);
        let mut sum = Checksum::default();
        let summed = self.summed;
        let mut end = 0;
        reader.data(entry, |offset, piece| {
            if summed {
                sum.zeros(offset - end);
                sum.update(piece);
                end = offset + piece.len() as u64;
            }
            match entry.segments {
                None => file.write_all(piece).on_disk(),
                Some(_) => file.write_all_at(piece, offset).on_disk(),
            }
        })?;
        if entry.segments.is_some() {
            rustix::fs::ftruncate(&file, entry.size).map_err(their_fault)?;
            if summed {
                sum.zeros(entry.size - end);
            }
        }
        let (uid, gid) = self.owner(entry)?;
        if (uid, gid) != (self.process.uid, self.process.gid) || parent.set_group {
            rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .on_disk()?;
        }
        if !plain {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode)).on_disk()?;
        }
        for (name, value) in &entry.xattrs {
            self.xattr(name, |name| {
                rustix::fs::fsetxattr(&file, name, value, XattrFlags::empty())
            })?;
        }
        rustix::fs::futimens(&file, &times(entry)).on_disk()?;
        self.applied.size += entry.size;
        self.note(&parent, name);
        if self.summed {
            let path = join(&parent.path, name);
            self.sum.add_as(
                &path,
                (tree::file_mode(entry.mode), uid, gid),
                entry.size,
                &sum.finish(),
            );
            self.count(entry.size);
        }
        Ok(())
    }

    fn symlink(&mut self, entry: &Entry, path: &[u8], parent: &[u8], name: &[u8]) -> Result<()> {
        if entry.link.is_empty() {
            return Err(Error::invalid("invalid symlink: no target"));
        }
        let parent = self.parent(parent)?;
        let at = parent.directory.as_fd();
        self.make(&parent, name, Kind::Symlink, || rustix::fs::symlinkat(&*entry.link, at, name))?;
        self.dress(entry, &parent, path, name, FileType::Symlink.as_raw_mode() | 0o777, &entry.link)
    }

    fn node(&mut self, entry: &Entry, path: &[u8], parent: &[u8], name: &[u8]) -> Result<()> {
        let parent = self.parent(parent)?;
        let at = parent.directory.as_fd();
        let (kind, device) = match entry.kind {
            Kind::Fifo => (FileType::Fifo, 0),
            Kind::Block => (FileType::BlockDevice, device(entry)?),
            _ => (FileType::CharacterDevice, device(entry)?),
        };
        let mode = Mode::from_raw_mode(entry.mode);
        self.make(&parent, name, entry.kind, || rustix::fs::mknodat(at, name, kind, mode, device))?;
        let content =
            if entry.kind == Kind::Fifo { Vec::new() } else { device.to_le_bytes().to_vec() };
        self.dress(entry, &parent, path, name, kind.as_raw_mode() | entry.mode, &content)?;
        Ok(())
    }

    /// Owner, mode, attributes and times of what must not be opened.
    fn dress(
        &mut self,
        entry: &Entry,
        parent: &Parent,
        path: &[u8],
        name: &[u8],
        mode: u32,
        content: &[u8],
    ) -> Result<()> {
        let at = parent.directory.as_fd();
        let (uid, gid) = self.owner(entry)?;
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(at, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), nofollow)
            .on_disk()?;
        if entry.kind != Kind::Symlink {
            // It was made just now and is no link, so there is nothing to follow.
            rustix::fs::chmodat(at, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .on_disk()?;
        }
        for (attribute, value) in &entry.xattrs {
            self.xattr(attribute, |attribute| xattr::set(at, name, (attribute, value)))?;
        }
        rustix::fs::utimensat(at, name, &times(entry), nofollow).on_disk()?;
        self.note(parent, name);
        if self.summed {
            self.sum.add_as(path, (mode, uid, gid), 0, content);
            self.count(0);
        }
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, path: &[u8], parent: &[u8], name: &[u8]) -> Result<()> {
        let mut target = clean(&entry.link, &self.options.limits)?;
        if let Some(below) = &self.options.below {
            target = join(below, &target);
        }
        let missing = || {
            Error::invalid(format!(
                "link /{} /{}: no such file or directory",
                lossy(&target),
                lossy(path)
            ))
        };
        let (above, target_name) = split(&target);
        if target_name.is_empty() {
            return Err(missing());
        }
        let parent = self.parent(parent)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let above = match beneath::open(self.root, above, flags) {
            Ok(above) => above,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(missing()),
            Err(errno) => return Err(errno).on_disk(),
        };
        let stat = match beneath::stat(above.as_fd(), target_name).on_disk()? {
            Some(stat) if !self.is_whiteout(&stat) => stat,
            _ => return Err(missing()),
        };
        if beneath::kind(&stat) == FileType::Directory {
            return Err(Error::invalid(format!(
                "link /{}: operation not permitted",
                lossy(&target)
            )));
        }
        let at = parent.directory.as_fd();
        if beneath::stat(at, name).on_disk()?.is_some_and(|found| found.st_ino == stat.st_ino) {
            return Ok(());
        }
        let link = || rustix::fs::linkat(&above, target_name, at, name, AtFlags::empty());
        match self.make(&parent, name, Kind::HardLink, link) {
            Err(error) if error.errno() == Some(Errno::NOENT.raw_os_error()) => {
                return Err(missing());
            }
            outcome => outcome?,
        }
        self.note(&parent, name);
        if self.summed {
            let (stat, content) = match self.links.entry(stat.st_ino) {
                hash_map::Entry::Occupied(known) => known.into_mut(),
                hash_map::Entry::Vacant(first) => {
                    first.insert(tree::known(above.as_fd(), target_name)?)
                }
            };
            self.sum.add(path, stat, content);
            self.count(0);
        }
        Ok(())
    }

    /// Nothing below this layer of that name; what this layer itself has of that name stays, in whatever order they
    /// come.
    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<()> {
        let path = join(parent, name);
        let parent = self.parent(parent)?;
        let at = parent.directory.as_fd();
        if self.options.whiteouts == Whiteouts::Delete {
            let Some(stat) = beneath::stat(at, name).on_disk()? else {
                return Ok(());
            };
            let directory = beneath::kind(&stat) == FileType::Directory;
            match self.made.contains(&self.key(&parent, name)) {
                true if directory => return self.clear(&beneath::child(at, name).on_disk()?),
                true => return Ok(()),
                false => {}
            }
            self.forget(&path);
            return beneath::remove(at, name);
        }
        match rustix::fs::mknodat(at, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) if self.summed => {
                let mode = FileType::CharacterDevice.as_raw_mode();
                self.sum.add_as(
                    &path,
                    (mode, self.process.uid, self.process.gid),
                    0,
                    &0u64.to_le_bytes(),
                );
                self.summed &= !parent.set_group;
                self.count(0);
            }
            Ok(()) => {}
            Err(Errno::EXIST) => {
                if beneath::stat(at, name)
                    .on_disk()?
                    .is_some_and(|stat| beneath::kind(&stat) == FileType::Directory)
                {
                    set_xattr(&beneath::child(at, name).on_disk()?, OPAQUE)?;
                }
            }
            Err(errno) => return Err(errno).on_disk(),
        }
        Ok(())
    }

    /// Nothing below this layer in that directory.
    fn opaque(&mut self, path: &[u8]) -> Result<()> {
        let directory = self.parent(path)?;
        match self.options.whiteouts {
            Whiteouts::Delete => self.clear(&directory.directory),
            _ if path.is_empty() => {
                self.applied.opaque_root = true;
                Ok(())
            }
            _ => set_xattr(&directory.directory, OPAQUE),
        }
    }

    /// Removes what this stream did not make.
    fn clear(&mut self, directory: &OwnedFd) -> Result<()> {
        self.parent = None;
        let inode = self.inode(directory)?;
        for name in beneath::names(directory.as_fd()).on_disk()? {
            let name = name.as_bytes();
            if !self.made.contains(&self.hash.hash_one((inode, name))) {
                beneath::remove(directory.as_fd(), name)?;
            } else if beneath::stat(directory.as_fd(), name)
                .on_disk()?
                .is_some_and(|stat| beneath::kind(&stat) == FileType::Directory)
            {
                self.clear(&beneath::child(directory.as_fd(), name).on_disk()?)?;
            }
        }
        Ok(())
    }

    /// Makes something by `attempt`, in the place of whatever has that name.
    fn make<T>(
        &mut self,
        parent: &Parent,
        name: &[u8],
        kind: Kind,
        attempt: impl Fn() -> Result<T, Errno>,
    ) -> Result<T> {
        match attempt() {
            Err(Errno::EXIST) => {
                self.displace(parent, name, kind)?;
                attempt().on_disk()
            }
            outcome => outcome.on_disk(),
        }
    }

    fn displace(&mut self, parent: &Parent, name: &[u8], by: Kind) -> Result<Found> {
        let at = parent.directory.as_fd();
        let Some(stat) = beneath::stat(at, name).on_disk()? else {
            return Ok(Found::Nothing);
        };
        if self.options.clash == Clash::Refuse {
            let path = join(&parent.path, name);
            let path = lossy(&path);
            let into = lossy(self.options.below.as_deref().unwrap_or_default());
            match (beneath::kind(&stat) == FileType::Directory, by == Kind::Directory) {
                (true, false) => {
                    return Err(Error::invalid(format!(
                        "cannot overwrite directory \"/{path}\" with non-directory \"/{into}\""
                    )));
                }
                (false, true) => {
                    return Err(Error::invalid(format!(
                        "cannot overwrite non-directory \"/{path}\" with directory \"/{into}\""
                    )));
                }
                _ => {}
            }
        }
        let found = if self.is_whiteout(&stat) { Found::Whiteout } else { Found::Other };
        self.forget(&join(&parent.path, name));
        beneath::remove(at, name)?;
        Ok(found)
    }

    /// Something is about to go: descriptors and plans that lead to it must not be used again.
    fn forget(&mut self, path: &[u8]) {
        self.parent = None;
        self.summed = false;
        self.directories.remove(path);
        self.implicit.remove(path);
        // All paths that begin with this one and a slash: '0' is what comes after '/'.
        let below = [path, b"/"].concat()..[path, b"0"].concat();
        let planned: Vec<_> =
            self.directories.range(below.clone()).map(|(path, _)| path.clone()).collect();
        for path in planned {
            self.directories.remove(&path);
        }
        let planned: Vec<_> = self.implicit.range(below).cloned().collect();
        for path in planned {
            self.implicit.remove(&path);
        }
    }

    /// The directory `path`, which is made where it is missing.
    fn parent(&mut self, path: &[u8]) -> Result<Rc<Parent>> {
        if let Some(parent) = self.parent.as_ref().filter(|parent| parent.path == path) {
            return Ok(parent.clone());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = match beneath::open_plain(self.root, path, flags) {
            Ok(directory) => directory,
            Err(Errno::LOOP | Errno::NOENT | Errno::NOTDIR) => {
                match beneath::open(self.root, path, flags) {
                    Ok(directory) => {
                        self.summed = false;
                        directory
                    }
                    Err(Errno::NOENT | Errno::NOTDIR) => {
                        self.make_parents(path)?;
                        beneath::open(self.root, path, flags).map_err(their_fault)?
                    }
                    Err(errno) => return Err(their_fault(errno)),
                }
            }
            Err(errno) => return Err(their_fault(errno)),
        };
        let stat = rustix::fs::fstat(&directory).on_disk()?;
        if self.options.whiteouts == Whiteouts::Delete {
            // Filling a directory is not describing it: it keeps its times.
            let times = Some(copy::times(&stat));
            let kept = Finish { times, ..Finish::default() };
            self.directories.entry(path.to_owned()).or_insert(kept);
        }
        let set_group = stat.st_mode & 0o2000 != 0;
        let parent =
            Rc::new(Parent { path: path.to_owned(), directory, inode: stat.st_ino, set_group });
        self.parent = Some(parent.clone());
        Ok(parent)
    }

    /// Makes the directories that are missing on the way to `path`, following links inside the root, also those whose
    /// target does not exist yet: `var/run -> /run` in a layer that has no `run` of its own.
    fn make_parents(&mut self, path: &[u8]) -> Result<()> {
        let mut ahead: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_owned).collect();
        let mut here: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == b".." {
                here.pop();
                continue;
            }
            if here.len() >= self.options.limits.depth {
                return Err(exceeded(self.options.limits.depth, "nested directories"));
            }
            let above = here.join(&b'/');
            let directory =
                beneath::open_plain(self.root, &above, OFlags::RDONLY | OFlags::DIRECTORY)
                    .on_disk()?;
            let at = directory.as_fd();
            let found = beneath::stat(at, &name).on_disk()?;
            match found.as_ref().map(beneath::kind) {
                Some(FileType::Directory) => here.push(name),
                Some(FileType::Symlink) => {
                    links += 1;
                    self.summed = false;
                    if links > LINKS {
                        return Err(Error::invalid("too many levels of symbolic links"));
                    }
                    let target =
                        rustix::fs::readlinkat(at, &*name, Vec::new()).on_disk()?.into_bytes();
                    if target.starts_with(b"/") {
                        here.clear();
                    }
                    let target: Vec<Vec<u8>> = components(&target).map(<[u8]>::to_owned).collect();
                    target.into_iter().rev().for_each(|component| ahead.push_front(component));
                }
                Some(_) if !found.is_some_and(|stat| self.is_whiteout(&stat)) => {
                    return Err(Error::invalid(format!(
                        "mkdir /{}: not a directory",
                        lossy(&join(&above, &name))
                    )));
                }
                whiteout => {
                    let full = join(&above, &name);
                    if whiteout.is_some() {
                        self.forget(&full);
                        beneath::remove(at, &name)?;
                    }
                    rustix::fs::mkdirat(at, &*name, Mode::from_raw_mode(0o755)).on_disk()?;
                    let made = beneath::child(at, &*name).on_disk()?;
                    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755)).on_disk()?;
                    if whiteout.is_some() {
                        set_xattr(&made, OPAQUE)?;
                    }
                    let (uid, gid) = self.outside(self.options.owner.unwrap_or((0, 0)))?;
                    rustix::fs::fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                        .on_disk()?;
                    if self.options.whiteouts == Whiteouts::Delete {
                        self.made.insert(self.hash.hash_one((self.inode(&directory)?, &*name)));
                    }
                    self.directories.insert(
                        full.clone(),
                        Finish { mode: 0o755, uid, gid, ..Finish::default() },
                    );
                    self.implicit.insert(full);
                    here.push(name);
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Applied> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        for (path, finish) in self.directories.iter().rev() {
            if self.summed && !path.is_empty() {
                let mode = FileType::Directory.as_raw_mode() | finish.mode;
                self.sum.add_as(path, (mode, finish.uid, finish.gid), 0, &[]);
                self.applied.summary.get_or_insert_default().names += 1;
            }
            if finish.times.is_none() && finish.acl.is_none() {
                continue;
            }
            let directory = match beneath::open(self.root, path, flags) {
                Ok(directory) => directory,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Err(errno).on_disk(),
            };
            if let Some((name, value)) = &finish.acl {
                tolerate(rustix::fs::fsetxattr(&directory, &**name, value, XattrFlags::empty()))
                    .on_disk()?;
            }
            if let Some(times) = &finish.times {
                rustix::fs::futimens(&directory, times).on_disk()?;
            }
        }
        let hash = self.sum.hash();
        self.applied.summary.get_or_insert_default().hash = hash;
        if !self.summed {
            self.applied.summary = None;
        }
        self.applied.implicit = self.implicit.into_iter().collect();
        Ok(self.applied)
    }

    fn owner(&self, entry: &Entry) -> Result<(u32, u32)> {
        self.outside(self.options.owner.unwrap_or((entry.uid, entry.gid)))
    }

    fn outside(&self, (uid, gid): (u32, u32)) -> Result<(u32, u32)> {
        let Some(owners) = &self.options.owners else { return Ok((uid, gid)) };
        let known = owners.uid(uid).zip(owners.gid(gid));
        known.ok_or_else(|| {
            Error::invalid(format!(
                "owner {uid}:{gid} does not exist in the container's user namespace"
            ))
        })
    }

    /// Sets an attribute of the stream's. Overlay's own would change what the layer means; what the file system does not
    /// have is left out, as Docker does.
    fn xattr(&mut self, name: &[u8], set: impl FnOnce(&[u8]) -> Result<(), Errno>) -> Result<()> {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            return Ok(());
        }
        if name.starts_with(b"system.posix_acl") {
            self.summed = false;
        }
        match tolerate(set(name)) {
            Err(Errno::INVAL | Errno::RANGE) => {
                Err(Error::invalid(format!("invalid extended attribute {}", lossy(name))))
            }
            outcome => outcome
                .on_disk()
                .context(|| format!("cannot set extended attribute {}", lossy(name))),
        }
    }

    fn is_whiteout(&self, stat: &Stat) -> bool {
        self.options.whiteouts == Whiteouts::Overlay && is_whiteout(stat)
    }

    fn key(&self, parent: &Parent, name: &[u8]) -> u64 {
        self.hash.hash_one((parent.inode, name))
    }

    /// Remembers that this stream made `name`.
    fn note(&mut self, parent: &Parent, name: &[u8]) {
        if self.options.whiteouts == Whiteouts::Delete {
            let key = self.key(parent, name);
            self.made.insert(key);
        }
    }

    fn count(&mut self, bytes: u64) {
        let summary = self.applied.summary.get_or_insert_default();
        summary.names += 1;
        summary.bytes += bytes;
    }

    /// Known only where somebody asks for it.
    fn inode(&self, directory: &OwnedFd) -> Result<u64> {
        match self.options.whiteouts {
            Whiteouts::Delete => Ok(rustix::fs::fstat(directory).on_disk()?.st_ino),
            _ => Ok(0),
        }
    }
}

/// A character device 0:0, which is what overlayfs takes for "not here".
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    beneath::kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// `./a//b/../c` is `a/c`; the root is empty. What would leave the root is refused, as Docker does.
fn clean(path: &[u8], limits: &Limits) -> Result<Vec<u8>> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for component in components(path) {
        if component != b".." {
            kept.push(component);
        } else if kept.pop().is_none() {
            return Err(Error::invalid(format!("{:?} is outside of the tree", lossy(path))));
        }
    }
    match kept.len() > limits.depth {
        true => Err(exceeded(limits.depth, "nested directories")),
        false => Ok(kept.join(&b'/')),
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|c| *c == b'/').filter(|component| !component.is_empty() && *component != b".")
}

fn times(entry: &Entry) -> Timestamps {
    let spec = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
    // Docker's: never read before it was written.
    let accessed = entry.accessed.map_or(entry.modified, |accessed| accessed.max(entry.modified));
    Timestamps { last_access: spec(accessed), last_modification: spec(entry.modified) }
}

fn device(entry: &Entry) -> Result<u64> {
    let (major, minor) = entry.device;
    match major < 1 << 12 && minor < 1 << 20 {
        true => Ok(rustix::fs::makedev(major, minor)),
        false => Err(Error::invalid(format!("invalid device number {major}:{minor}"))),
    }
}

fn set_xattr(directory: &OwnedFd, (name, value): (&[u8], &[u8])) -> Result<()> {
    rustix::fs::fsetxattr(directory, name, value, XattrFlags::empty())
        .on_disk()
        .context(|| format!("cannot set {}", lossy(name)))
}

fn tolerate(outcome: Result<(), Errno>) -> Result<(), Errno> {
    match outcome {
        Err(Errno::NOTSUP | Errno::PERM) => Ok(()),
        outcome => outcome,
    }
}

/// What the kernel refuses because of what the stream says: links in a circle, or a file larger than files can be.
fn their_fault(errno: Errno) -> Error {
    let error = Error::from(errno);
    match errno {
        Errno::LOOP | Errno::FBIG | Errno::NAMETOOLONG => error.with_kind(ErrorKind::Invalid),
        _ => error,
    }
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_text() {
        let of = |path: &[u8]| clean(path, &Limits::default());
        assert_eq!(of(b"./a//b/../c/").unwrap(), b"a/c");
        assert_eq!(of(b"/").unwrap(), b"");
        assert_eq!(of(b"/etc/./x").unwrap(), b"etc/x");
        assert_eq!(of(b"../x").unwrap_err().to_string(), "\"../x\" is outside of the tree");
        assert_eq!(
            of(b"a/../../x").unwrap_err().to_string(),
            "\"a/../../x\" is outside of the tree"
        );
        assert!(of(&b"a/".repeat(255)).is_ok());
        assert!(of(&b"a/".repeat(256)).is_err());
    }
}
