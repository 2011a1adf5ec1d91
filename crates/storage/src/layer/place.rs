//! One name in a tree that somebody else may be changing: found once, and held by descriptors from then on.
//!
//! Links on the way are followed inside the tree only; the last name is not followed, but where a slash or a dot behind it
//! asks for the directory it leads to.

use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use stdx::{Error, Kind, Result};

use super::pack::Packer;
use crate::beneath;
use crate::durable::OnDisk;
use crate::walk::{Walk, split};

/// As many links as Docker follows when it tells where one leads.
const LINKS: usize = 255;

/// Something in a tree.
#[derive(Debug)]
pub struct Place {
    /// What it is in; of a directory that was asked for with a slash, itself.
    directory: OwnedFd,
    name: Vec<u8>,
    stat: Stat,
}

impl Place {
    /// Finds `path` below `root`. What is not there is [`Kind::NotFound`].
    pub fn find(root: BorrowedFd<'_>, path: &[u8]) -> Result<Self> {
        let words = |errno| refusal("lstat", path, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let relative = relative(path);
        if relative.is_empty() || path.ends_with(b"/") || path.ends_with(b"/.") {
            let directory = beneath::open(root, &relative, flags).map_err(words)?;
            let stat = rustix::fs::fstat(&directory).on_disk()?;
            return Ok(Self { directory, name: b".".to_vec(), stat });
        }
        let (above, name) = split(&relative);
        let directory = beneath::open(root, above, flags).map_err(words)?;
        let stat = beneath::stat(directory.as_fd(), name).map_err(words)?;
        let stat = stat.ok_or_else(|| words(Errno::NOENT))?;
        Ok(Self { directory, name: name.to_owned(), stat })
    }

    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    pub fn kind(&self) -> FileType {
        beneath::kind(&self.stat)
    }

    /// Writes it, and all below it, as an archive in which it is called `name`: `docker cp` out of a container.
    pub fn pack(&self, name: &[u8], out: &mut dyn Write) -> Result<()> {
        let mut packer = Packer::new(out);
        packer.add(self.directory.as_fd(), &self.name, name, &self.stat)?;
        if self.kind() == FileType::Directory {
            let directory = beneath::child(self.directory.as_fd(), &*self.name).on_disk()?;
            let mut walk = Walk::new(directory.as_fd())?;
            while let Some(item) = walk.next()? {
                let path = below(name, &item.path);
                packer.add(walk.directory()?, item.name.as_bytes(), &path, &item.stat)?;
            }
        }
        packer.finish()
    }
}

/// Where `path` leads when all links on it are followed, as text from the root. What does not exist leads to itself. Only to
/// be told: nothing may be opened by it.
pub fn destination(root: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<u8>> {
    let parts = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|c| *c == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .map(<[u8]>::to_owned)
            .collect()
    };
    let mut ahead = VecDeque::from(parts(path));
    let mut here: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        if part == b".." {
            here.pop();
            continue;
        }
        let target = beneath::open_plain(root, &here.join(&b'/'), OFlags::PATH | OFlags::DIRECTORY)
            .and_then(|above| rustix::fs::readlinkat(above, &*part, Vec::new()));
        let Ok(target) = target else {
            here.push(part);
            continue;
        };
        links += 1;
        if links > LINKS {
            let path = String::from_utf8_lossy(path);
            return Err(Error::internal(format!("evalSymlinksInScope: too many links in {path}")));
        }
        let target = target.into_bytes();
        if target.starts_with(b"/") {
            here.clear();
        }
        parts(&target).into_iter().rev().for_each(|part| ahead.push_front(part));
    }
    Ok([b"/".as_slice(), &here.join(&b'/')].concat())
}

/// A directory below `root`, all links to it followed.
pub fn directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    beneath::open(root, &relative(path), flags).map_err(|errno| refusal("open", path, errno))
}

/// Makes the directories on the way to `path` where they are missing, also those that links lead to, and at its end a
/// directory or an empty file.
pub fn make(root: BorrowedFd<'_>, path: &[u8], kind: FileType) -> Result<()> {
    let words = |errno| refusal("mkdir", path, errno);
    let path = relative(&destination(root, path)?);
    let ends = path.iter().enumerate().filter(|(_, c)| **c == b'/').map(|(at, _)| at);
    for end in ends.chain([path.len()]) {
        let (above, name) = split(&path[..end]);
        let above = beneath::open(root, above, OFlags::PATH | OFlags::DIRECTORY).map_err(words)?;
        let made = match kind {
            FileType::RegularFile if end == path.len() => rustix::fs::mknodat(
                &above,
                name,
                FileType::RegularFile,
                Mode::from_raw_mode(0o644),
                0,
            ),
            _ => rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)),
        };
        match made {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(words(errno)),
        }
    }
    Ok(())
}

/// Without slashes around it and dots in it, as `openat2` wants it.
fn relative(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> =
        path.split(|c| *c == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    parts.join(&b'/')
}

/// The name of something below `name`, which may be `/`.
fn below(name: &[u8], path: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if name.ends_with(b"/") { b"" } else { b"/" };
    [name, slash, path].concat()
}

/// In Go's words, which clients see.
fn refusal(call: &str, path: &[u8], errno: Errno) -> Error {
    let words = match errno {
        Errno::NOTDIR => "not a directory",
        Errno::LOOP => "too many levels of symbolic links",
        Errno::NAMETOOLONG => "file name too long",
        Errno::NOENT => "no such file or directory",
        _ => return errno.into(),
    };
    let kind = if errno == Errno::NOENT { Kind::NotFound } else { Kind::Internal };
    let path = String::from_utf8_lossy(path);
    Error::new(kind, format!("{call} {path}: {words}")).with_errno(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> (tempfile::TempDir, fs::File) {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("d/e")).unwrap();
        fs::write(at("d/f"), "text").unwrap();
        for (target, name) in [
            ("/d", "ld"),
            ("f", "d/lf"),
            ("nowhere", "broken"),
            ("/a/b", "lost"),
            ("loop2", "loop1"),
            ("loop1", "loop2"),
            ("/ld/../d/e/../f", "lx"),
            ("../../../../../etc", "out"),
        ] {
            symlink(target, at(name)).unwrap();
        }
        let root = fs::File::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn the_last_name_is_followed_where_a_slash_asks_for_it() {
        let (_dir, root) = tree();
        let kind =
            |path: &str| Place::find(root.as_fd(), path.as_bytes()).map(|place| place.kind());
        for (path, expected) in [
            ("/", FileType::Directory),
            ("/d", FileType::Directory),
            ("/d/.", FileType::Directory),
            ("/d/f", FileType::RegularFile),
            ("/ld", FileType::Symlink),
            ("/ld/", FileType::Directory),
            ("/ld/.", FileType::Directory),
            ("/ld/lf", FileType::Symlink),
            ("/loop1", FileType::Symlink),
        ] {
            assert_eq!(kind(path).unwrap(), expected, "{path}");
        }
        for (path, words) in [
            ("/d/f/", "lstat /d/f/: not a directory"),
            ("/d/f/x", "lstat /d/f/x: not a directory"),
            ("/loop1/x", "lstat /loop1/x: too many levels of symbolic links"),
            ("/nope", "lstat /nope: no such file or directory"),
            // The host has one.
            ("/out/passwd", "lstat /out/passwd: no such file or directory"),
        ] {
            assert_eq!(kind(path).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn where_links_lead_is_told_even_when_nothing_is_there() {
        let (_dir, root) = tree();
        let told = |path: &str| match destination(root.as_fd(), path.as_bytes()) {
            Ok(path) => String::from_utf8(path).unwrap(),
            Err(error) => error.to_string(),
        };
        for (path, expected) in [
            ("/d/lf", "/d/f"),
            ("/broken", "/nowhere"),
            ("/lost", "/a/b"),
            ("/lx", "/d/f"),
            ("/out", "/etc"),
            ("/loop1", "evalSymlinksInScope: too many links in /loop1"),
        ] {
            assert_eq!(told(path), expected, "{path}");
        }
    }

    #[test]
    fn places_for_mounts_are_made_inside() {
        let (dir, root) = tree();
        make(root.as_fd(), b"/out/a/b", FileType::Directory).unwrap();
        make(root.as_fd(), b"/ld/c/f", FileType::RegularFile).unwrap();
        make(root.as_fd(), b"/d/e", FileType::Directory).unwrap();
        assert!(dir.path().join("d/c/f").is_file());
        assert!(dir.path().join("etc/a/b").is_dir() && !std::path::Path::new("/etc/a").exists());
        assert!(make(root.as_fd(), b"/d/f/x", FileType::Directory).is_err());
    }

    #[test]
    fn an_archive_begins_with_the_name_that_was_asked_for() {
        let (_dir, root) = tree();
        let names = |path: &str, name: &str| {
            let mut archive = Vec::new();
            let place = Place::find(root.as_fd(), path.as_bytes()).unwrap();
            place.pack(name.as_bytes(), &mut archive).unwrap();
            let limits = crate::layer::Limits::default();
            let mut reader = &archive[..];
            let mut reader = crate::tar::Reader::new(&mut reader, &limits);
            let mut names = Vec::new();
            while let Some(entry) = reader.next().unwrap() {
                names.push(String::from_utf8(entry.path.clone()).unwrap());
            }
            names.join(" ")
        };
        assert_eq!(names("/ld/", "ld"), "ld/ ld/e/ ld/f ld/lf");
        assert_eq!(names("/d/.", "."), "./ ./e/ ./f ./lf");
        assert_eq!(names("/ld", "ld"), "ld");
        assert!(names("/", "/").starts_with("/ /broken /d/ /d/e/"));
    }
}
