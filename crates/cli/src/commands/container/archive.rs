//! Files here as an archive, and an archive as files here: the local half of `cp`.
//!
//! What comes out of a container is not to be trusted: every entry is made below a descriptor of the folder, no link on the
//! way is followed, and nothing is opened that was not just made.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;
use stdx::{Context, Error, Result};
use tar::EntryType;

use crate::pipes::Pour;

const PIECE: usize = 256 << 10;
const BLOCK: u64 = 512;

/// Writes `source`, and all below it, as an archive in which it is called `name`.
pub(super) fn pack(source: &Path, name: &str, out: impl Pour) -> io::Result<()> {
    let mut packer = Packer { tar: tar::Builder::new(out), links: HashMap::new() };
    let name = if name == "/" { "." } else { name };
    // `.` at the end of the source is what makes its last part count.
    let meta = match name {
        "." => std::fs::metadata(source)?,
        _ => std::fs::symlink_metadata(source)?,
    };
    packer.add(source, Path::new(name), &meta)?;
    packer.tar.finish()
}

struct Packer<W: Pour> {
    tar: tar::Builder<W>,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Pour> Packer<W> {
    fn add(&mut self, source: &Path, name: &Path, meta: &Metadata) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_metadata(meta);
        header.set_size(0);
        let kind = meta.file_type();
        if !kind.is_dir() && meta.nlink() > 1 {
            let first = self.links.entry((meta.dev(), meta.ino())).or_insert_with(|| name.into());
            if *first != name {
                header.set_entry_type(EntryType::Link);
                let first = first.clone();
                return self.tar.append_link(&mut header, name, first);
            }
        }
        if kind.is_dir() {
            // With its slash, as Docker's client writes it.
            self.tar.append_data(&mut header, name.join(""), io::empty())?;
            let mut names: Vec<_> = std::fs::read_dir(source)?.collect::<io::Result<Vec<_>>>()?;
            names.sort_by_key(std::fs::DirEntry::file_name);
            for entry in names {
                let below = entry.path();
                match std::fs::symlink_metadata(&below) {
                    Ok(meta) => self.add(&below, &name.join(entry.file_name()), &meta)?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        } else if kind.is_symlink() {
            self.tar.append_link(&mut header, name, std::fs::read_link(source)?)
        } else if kind.is_file() {
            let mut file = File::open(source)?;
            let size = file.metadata()?.len();
            header.set_size(size);
            self.tar.append_data(&mut header, name, io::empty())?;
            // As many bytes as the header says, whatever becomes of the file; and up to the end of a block.
            let out = self.tar.get_mut();
            let poured = out.pour(&mut file, size)?;
            let missing = size.next_multiple_of(BLOCK) - poured;
            io::copy(&mut io::repeat(0).take(missing), out).map(drop)
        } else if kind.is_socket() {
            Ok(())
        } else {
            self.tar.append_data(&mut header, name, io::empty())
        }
    }
}

/// The first part of every entry's path, and what to put in its place.
pub(super) type Rename = (String, String);

/// Extracts below `folder`. Everything belongs to who extracts, as Docker's client has it.
pub(super) fn extract(tar: impl Read, folder: &Path, rename: Option<&Rename>) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(folder, flags, Mode::empty());
    let opened = opened.context(|| format!("cannot open {}", folder.display()))?;
    let mut extractor = Extractor { folder: opened, path: folder, rename, times: BTreeMap::new() };
    let mut archive = tar::Archive::new(io::BufReader::with_capacity(PIECE, tar));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let Some(relative) = renamed(&name, rename) else { continue };
        if relative.as_os_str().is_empty() {
            continue;
        }
        let words = || format!("cannot write {}", folder.join(&relative).display());
        extractor.entry(&mut entry, &relative).context(words)?;
    }
    extractor.finish()
}

struct Extractor<'a> {
    folder: OwnedFd,
    path: &'a Path,
    rename: Option<&'a Rename>,
    /// Of directories, which get theirs when all is in them.
    times: BTreeMap<PathBuf, Timestamps>,
}

impl Extractor<'_> {
    fn entry(&mut self, entry: &mut tar::Entry<'_, impl Read>, relative: &Path) -> Result<()> {
        let header = entry.header();
        let kind = header.entry_type();
        let mode = Mode::from_raw_mode(header.mode().unwrap_or(0o644) & 0o7777);
        let time = Timespec {
            tv_sec: i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0),
            tv_nsec: 0,
        };
        let times = Timestamps { last_access: time, last_modification: time };
        let parent = self.parent(relative)?;
        let name = relative.file_name().context(|| "an entry has no name".to_owned())?;
        if kind.is_dir() {
            self.make_way(&parent, relative, FileType::Directory)?;
            match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
            rustix::fs::fchmod(&made, mode)?;
            self.times.insert(relative.to_owned(), times);
            return Ok(());
        }
        let target = entry.link_name()?.map(|target| target.into_owned());
        if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            self.make_way(&parent, relative, FileType::RegularFile)?;
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600))?;
            let mut file = File::from(file);
            copy(entry, &mut file)?;
            rustix::fs::fchmod(&file, mode)?;
            rustix::fs::futimens(&file, &times)?;
        } else if let Some(target) = target.as_ref().filter(|_| kind.is_symlink()) {
            self.make_way(&parent, relative, FileType::Symlink)?;
            rustix::fs::symlinkat(target, &parent, name)?;
            rustix::fs::utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        } else if let Some(target) = target.as_ref().filter(|_| kind.is_hard_link()) {
            let Some(target) = renamed(target, self.rename) else { return Ok(()) };
            let above = self.parent(&target)?;
            let first = target.file_name().context(|| "a link leads nowhere".to_owned())?;
            self.make_way(&parent, relative, FileType::RegularFile)?;
            rustix::fs::linkat(&above, first, &parent, name, AtFlags::empty())?;
        } else if kind == EntryType::Fifo {
            self.make_way(&parent, relative, FileType::Fifo)?;
            rustix::fs::mknodat(&parent, name, FileType::Fifo, mode, 0)?;
            rustix::fs::utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        // What is left are devices: a container does not decide which of them can be opened here.
        Ok(())
    }

    /// The directory that an entry is in, made where it is missing. A link on the way is refused.
    fn parent(&self, relative: &Path) -> Result<OwnedFd> {
        let mut at = rustix::io::fcntl_dupfd_cloexec(&self.folder, 0)?;
        for part in relative.parent().unwrap_or(Path::new("")).components() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let open = || rustix::fs::openat2(&at, part.as_os_str(), flags, Mode::empty(), resolve);
            let next = match open() {
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(&at, part.as_os_str(), Mode::from_raw_mode(0o777))?;
                    open()
                }
                outcome => outcome,
            };
            at = match next {
                Err(Errno::LOOP) => {
                    return Err(Error::invalid(format!(
                        "refusing to write through a link: {}",
                        relative.display()
                    )));
                }
                outcome => outcome?,
            };
        }
        Ok(at)
    }

    /// Removes what stands where something of `kind` shall be; between a directory and anything else there is no exchange.
    fn make_way(&self, parent: &OwnedFd, relative: &Path, kind: FileType) -> Result<()> {
        let name = relative.file_name().unwrap_or_default();
        let found = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            outcome => FileType::from_raw_mode(outcome?.st_mode),
        };
        let (path, into) = (self.path.join(relative), self.path);
        match (found == FileType::Directory, kind == FileType::Directory) {
            (true, true) => Ok(()),
            (true, false) => Err(Error::conflict(format!(
                "cannot overwrite directory {path:?} with non-directory {into:?}"
            ))),
            (false, true) => Err(Error::conflict(format!(
                "cannot overwrite non-directory {path:?} with directory {into:?}"
            ))),
            (false, false) => Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?),
        }
    }

    fn finish(self) -> Result<()> {
        for (relative, times) in self.times.iter().rev() {
            let parent = self.parent(relative)?;
            let name = relative.file_name().unwrap_or_default();
            rustix::fs::utimensat(&parent, name, times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }
}

fn copy(from: &mut impl Read, to: &mut File) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&piece[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The entry's path with its first part exchanged; `None` for what must not be written at all.
fn renamed(name: &Path, rename: Option<&Rename>) -> Option<PathBuf> {
    let mut parts: Vec<&std::ffi::OsStr> = Vec::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    let whole = |parts: &[&std::ffi::OsStr]| parts.iter().collect::<PathBuf>();
    let below = |to: &str, parts: &[&std::ffi::OsStr]| match parts {
        [] => PathBuf::from(to),
        parts => Path::new(to).join(whole(parts)),
    };
    match rename {
        Some((from, to)) if from == "." || from == "/" => Some(below(to, &parts)),
        Some((from, to)) if parts.first().is_some_and(|first| *first == from.as_str()) => {
            Some(below(to, &parts[1..]))
        }
        _ => Some(whole(&parts)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn there_and_back() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), "text").unwrap();
        fs::hard_link(source.join("file"), source.join("twin")).unwrap();
        symlink("file", source.join("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            source.join("pipe"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let old = Timespec { tv_sec: 981158400, tv_nsec: 0 };
        let times = Timestamps { last_access: old, last_modification: old };
        rustix::fs::utimensat(rustix::fs::CWD, &source, &times, AtFlags::empty()).unwrap();
        let mut archive = Vec::new();
        pack(&source, "source", &mut archive).unwrap();
        let rename = ("source".to_owned(), "copy".to_owned());
        extract(&archive[..], directory.path(), Some(&rename)).unwrap();
        let copy = directory.path().join("copy");
        assert_eq!(fs::read_to_string(copy.join("file")).unwrap(), "text");
        assert_eq!(fs::read_link(copy.join("link")).unwrap(), Path::new("file"));
        assert!(fs::metadata(copy.join("pipe")).unwrap().file_type().is_fifo());
        let inode = |name: &str| fs::metadata(copy.join(name)).unwrap().ino();
        assert_eq!(inode("file"), inode("twin"));
        assert_eq!(fs::metadata(&copy).unwrap().mtime(), 981158400);
        // Once more, over itself.
        extract(&archive[..], directory.path(), Some(&rename)).unwrap();
    }

    #[test]
    fn a_file_under_another_name() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a"), "text").unwrap();
        let mut archive = Vec::new();
        pack(&directory.path().join("a"), "a", &mut archive).unwrap();
        extract(&archive[..], directory.path(), Some(&("a".to_owned(), "b".to_owned()))).unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("b")).unwrap(), "text");
    }

    /// An archive of a link called `door` that leads out, and an entry behind it.
    fn behind_the_door(kind: EntryType, link: Option<&str>, name: &str) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, "door", "/tmp").unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o644);
        match link {
            Some(link) => tar.append_link(&mut header, name, link).unwrap(),
            None => tar.append_data(&mut header, name, io::empty()).unwrap(),
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn nothing_leaves_the_folder() {
        let canary = tempfile::Builder::new().prefix("gantry-cp-").tempfile_in("/tmp").unwrap();
        let canary = canary.path().file_name().unwrap().to_str().unwrap();
        let through = format!("door/{canary}");
        for (archive, words) in [
            (behind_the_door(EntryType::Regular, None, &through), through.as_str()),
            (behind_the_door(EntryType::Directory, None, "door/x/y"), "door/x/y"),
            (behind_the_door(EntryType::Link, Some(&through), "mine"), through.as_str()),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let error = extract(&archive[..], directory.path(), None).unwrap_err();
            let expected = format!("refusing to write through a link: {words}");
            assert!(error.chain().ends_with(&expected), "{}", error.chain());
            assert!(!directory.path().join("mine").exists());
        }
    }

    #[test]
    fn a_directory_and_a_file_do_not_take_each_others_place() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("source")).unwrap();
        fs::write(directory.path().join("a"), "text").unwrap();
        let mut archive = Vec::new();
        pack(&directory.path().join("a"), "source", &mut archive).unwrap();
        let error = extract(&archive[..], directory.path(), None).unwrap_err();
        assert!(error.chain().contains("cannot overwrite directory"), "{}", error.chain());
    }
}
