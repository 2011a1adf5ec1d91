//! `RootFd`: the only way to touch a path inside a container.
//!
//! Every lookup begins at a descriptor of the container's root and stays below it, whatever symbolic links and races the
//! content holds (CVE-2021-30465, CVE-2024-45310, CVE-2025-52565 and their kin were paths checked as strings and resolved
//! again later). What comes back are descriptors, which can be mounted on, not opened by surprise: `O_PATH` only, unless
//! we have just created the file ourselves.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// As the kernel: more links than this are a loop.
const MAX_LINKS: usize = 40;

#[derive(Debug)]
pub(crate) struct RootFd(OwnedFd);

/// What stands at a place, and where that is.
#[derive(Debug)]
pub(crate) struct Found {
    pub fd: OwnedFd,
    pub kind: FileType,
}

/// What a missing last component becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Make {
    Directory,
    File,
}

impl RootFd {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self(root)
    }

    /// What is at `path`, links followed within the root; `None` where there is nothing.
    pub(crate) fn find(&self, path: &Path) -> io::Result<Option<Found>> {
        match self.lookup(path, OFlags::PATH, ResolveFlags::empty()) {
            Ok(fd) => Found::of(fd).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(err) => Err(err.into()),
        }
    }

    /// The directory at `path`, reached without following a single link.
    pub(crate) fn find_plain_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        Ok(self.lookup(path, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::NO_SYMLINKS)?)
    }

    /// What is at `path`, made where it is missing: directories on the way, and at the end what `make` says. Links are
    /// followed within the root, also those that point at nothing yet.
    pub(crate) fn find_or_make(&self, path: &Path, make: Make) -> io::Result<Found> {
        match self.find(path)? {
            Some(found) => Ok(found),
            None => self.walk(path, make),
        }
    }

    /// The directory at `path`, made where it is missing.
    pub(crate) fn make_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let found = self.find_or_make(path, Make::Directory)?;
        if found.kind == FileType::Directory { Ok(found.fd) } else { Err(Errno::NOTDIR.into()) }
    }

    /// The directory that holds `path` (made where missing), and the name in it.
    pub(crate) fn make_parent(&self, path: &Path) -> io::Result<(OwnedFd, OsString)> {
        let path = clean(path);
        let name = path.file_name().ok_or(Errno::INVAL)?.to_owned();
        let parent = self.make_directory(path.parent().unwrap_or(Path::new("/")))?;
        Ok((parent, name))
    }

    fn lookup(
        &self,
        path: &Path,
        flags: OFlags,
        resolve: ResolveFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = relative(path);
        loop {
            match rustix::fs::openat2(
                &self.0,
                &path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            ) {
                // Somewhere a rename raced with a `..`: the kernel asks to look again.
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
    }

    /// The long way, for what does not exist entirely: component by component, holding each directory.
    fn walk(&self, path: &Path, make: Make) -> io::Result<Found> {
        let mut inside: Vec<OwnedFd> = Vec::new();
        let mut pending: VecDeque<OsString> = names(path).collect();
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                inside.pop();
                continue;
            }
            let here = inside.last().map_or(self.0.as_fd(), AsFd::as_fd);
            let last = pending.is_empty();
            let found = open_or_make(here, &name, if last { make } else { Make::Directory })?;
            match found.kind {
                FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS || is_procfs(found.fd.as_fd())? {
                        return Err(Errno::LOOP.into());
                    }
                    let target = rustix::fs::readlinkat(&found.fd, "", Vec::new())?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    if target.is_absolute() {
                        inside.clear();
                    }
                    for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                        pending.push_front(name);
                    }
                }
                FileType::Directory => inside.push(found.fd),
                _ if last => return Ok(found),
                _ => return Err(Errno::NOTDIR.into()),
            }
        }
        match inside.pop() {
            Some(fd) => Found::of(fd),
            None => Found::of(self.0.try_clone()?),
        }
    }
}

impl AsFd for RootFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Found {
    fn of(fd: OwnedFd) -> io::Result<Self> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
        Ok(Self { fd, kind })
    }
}

/// One component: opened without following it, made where missing. Somebody who makes it first is welcome; what he made is
/// looked at like anything else.
fn open_or_make(here: BorrowedFd, name: &OsStr, make: Make) -> io::Result<Found> {
    let open = || {
        rustix::fs::openat(
            here,
            name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    match open() {
        Err(Errno::NOENT) => {}
        found => return Found::of(found?),
    }
    let made = match make {
        Make::Directory => rustix::fs::mkdirat(here, name, Mode::from_raw_mode(0o755)),
        Make::File => {
            let flags =
                OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(here, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => Found::of(open()?),
        Err(err) => Err(err.into()),
    }
}

pub(super) fn is_procfs(fd: BorrowedFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(fd)?.f_type == PROC_SUPER_MAGIC)
}

pub(crate) const PROC_SUPER_MAGIC: rustix::fs::FsWord = 0x9fa0;

/// The components of a path, `..` included.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

/// For `openat2`: the root itself is ".".
fn relative(path: &Path) -> PathBuf {
    let path = path.strip_prefix("/").unwrap_or(path);
    if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() }
}

/// A path as the specification's reader means it: absolute, without `.` and `..`.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for name in names(path) {
        if name == ".." {
            clean.pop();
        } else {
            clean.push(name);
        }
    }
    clean
}

/// Removes a name that is not a directory; that there is none is fine.
pub(crate) fn remove_file(parent: BorrowedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

/// For messages: paths as Go quotes them.
pub(crate) fn quoted(path: &Path) -> String {
    format!("{:?}", String::from_utf8_lossy(path.as_os_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root(dir: &Path) -> RootFd {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        RootFd::new(rustix::fs::open(dir, flags, Mode::empty()).unwrap())
    }

    #[test]
    fn paths_are_cleaned() {
        for (given, expected) in [("a/b", "/a/b"), ("/a/../../b/.", "/b"), ("", "/"), ("/..", "/")]
        {
            assert_eq!(clean(Path::new(given)), Path::new(expected));
        }
    }

    #[test]
    fn links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("root");
        fs::create_dir_all(inside.join("etc")).unwrap();
        symlink("/etc", inside.join("absolute")).unwrap();
        symlink("../../../etc", inside.join("dots")).unwrap();
        symlink("/new/place", inside.join("dangling")).unwrap();
        symlink("/loop", inside.join("loop")).unwrap();
        let root = root(&inside);
        for path in ["/absolute/x/y", "/dots/z", "/dangling/deep"] {
            root.find_or_make(Path::new(path), Make::Directory).unwrap();
        }
        assert!(inside.join("etc/x/y").is_dir() && inside.join("etc/z").is_dir());
        assert!(inside.join("new/place/deep").is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let error = root.find_or_make(Path::new("/loop/x"), Make::Directory).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
    }

    #[test]
    fn files_are_made_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let root = root(dir.path());
        root.find_or_make(Path::new("/a/b"), Make::File).unwrap();
        fs::write(dir.path().join("a/b"), "kept").unwrap();
        let found = root.find_or_make(Path::new("/a/b"), Make::File).unwrap();
        assert_eq!(found.kind, FileType::RegularFile);
        assert_eq!(fs::read(dir.path().join("a/b")).unwrap(), b"kept");
        assert!(root.make_directory(Path::new("/a/b/c")).is_err());
        assert!(root.find(Path::new("/a/b/c")).unwrap().is_none());
    }
}
