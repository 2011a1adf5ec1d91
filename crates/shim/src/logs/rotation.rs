//! The files of one log: the one being written, and the older ones behind it (`.1`, `.2.gz`, …).
//!
//! Only the shim renames them. Every file bears a running number in an extended attribute, so that a reader that holds an
//! old one finds its successor whatever it is called by now, and knows when it has missed one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{FlockOperation, XattrFlags};
use stdx::{Context, Result};

const NUMBER: &str = "user.gantry.log";

/// `<path>.<index>`, compressed or not; index 0 is the file being written.
pub(crate) fn name(path: &Path, index: u32, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    if index > 0 {
        name.push(format!(".{index}{suffix}"));
    }
    PathBuf::from(name)
}

pub(crate) const GZIP: &str = ".gz";

/// The running number of a file. `None` where the file system keeps no attributes, or the file is not ours.
pub(crate) fn number(file: impl AsFd) -> Option<u64> {
    let mut value = [0; 8];
    match rustix::fs::fgetxattr(file, NUMBER, &mut value) {
        Ok(8) => Some(u64::from_le_bytes(value)),
        _ => None,
    }
}

fn set_number(file: impl AsFd, number: u64) {
    // Readers do with less where attributes are not kept (tmpfs before 6.6): they go by inode.
    let _kept = rustix::fs::fsetxattr(file, NUMBER, &number.to_le_bytes(), XattrFlags::empty());
}

#[derive(Debug)]
pub(crate) struct Files {
    path: PathBuf,
    most: u32,
    gzip: bool,
    file: File,
    size: u64,
    number: u64,
    compressing: Compressing,
}

/// Which rotated file is to be compressed, by its index; it moves on with every rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compressing {
    No,
    Due(u32),
    Begun(u32),
}

impl Compressing {
    /// All files have moved one back, and those from `most` on are gone.
    fn moved(self, most: u32) -> Self {
        match self {
            // The newest: it stays for the longest time.
            Self::No | Self::Due(_) => Self::Due(1),
            Self::Begun(index) => Self::Begun((index + 1).min(most)),
        }
    }
}

impl Files {
    pub(crate) fn open(path: &Path, most: u32, gzip: bool) -> Result<Self> {
        let file = create(path)?;
        let number = number(&file).unwrap_or_else(|| {
            let before = File::open(name(path, 1, "")).or_else(|_| File::open(name(path, 1, GZIP)));
            let number = before.ok().and_then(number).unwrap_or(0) + 1;
            set_number(&file, number);
            number
        });
        let size = trim(&file).context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            most: most.max(1),
            gzip,
            file,
            size,
            number,
            compressing: Compressing::No,
        })
    }

    /// Bytes in the file being written.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Appends whole records, all or none of them. The last of a disk is not for logs: what stops, removes and records
    /// containers needs it.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if !has_room(&self.file, bytes.len() as u64) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let begin = self.size;
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return self.undo(begin, io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.size += written as u64;
                    bytes = &bytes[written..];
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return self.undo(begin, err),
            }
        }
        Ok(())
    }

    /// Half a record would be glued to the next one.
    fn undo(&mut self, begin: u64, err: io::Error) -> io::Result<()> {
        if self.size > begin && self.file.set_len(begin).is_ok() {
            self.size = begin;
        }
        Err(err)
    }

    /// Moves every file one back and begins a new one. One that is being compressed meanwhile moves like the others: neither
    /// does the container wait for the compressor, as dockerd's does, nor does a log grow beyond its bounds. Where a
    /// container is the faster of the two, some of its files stay as they are.
    pub(crate) fn rotate(&mut self) -> Result<()> {
        // It has its number before anybody can find it: a reader who met it without could not tell what he has missed.
        let unnamed = beside(&self.path, NEXT);
        match std::fs::remove_file(&unnamed) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                return Err(err).context(|| format!("cannot remove {}", unnamed.display()));
            }
            _ => {}
        }
        let file = create(&unnamed)?;
        set_number(&file, self.number + 1);
        // Where nobody can be kept out, nobody compresses either.
        let _held = hold_names(&self.path);
        // The only one is not truncated: who holds the old file reads it to its end.
        if self.most > 1 {
            for index in (1..self.most).rev() {
                for suffix in ["", GZIP] {
                    let from = name(&self.path, index, suffix);
                    let moved = if index == self.most - 1 {
                        std::fs::remove_file(&from)
                    } else {
                        std::fs::rename(&from, name(&self.path, index + 1, suffix))
                    };
                    match moved {
                        Err(err) if err.kind() != io::ErrorKind::NotFound => {
                            return Err(err)
                                .context(|| format!("cannot rotate {}", from.display()));
                        }
                        _ => {}
                    }
                }
            }
            std::fs::rename(&self.path, name(&self.path, 1, ""))
                .context(|| format!("cannot rotate {}", self.path.display()))?;
            if self.gzip {
                self.compressing = self.compressing.moved(self.most);
            }
        }
        std::fs::rename(&unnamed, &self.path)
            .context(|| format!("cannot rotate {}", self.path.display()))?;
        self.number += 1;
        self.file = file;
        self.size = 0;
        Ok(())
    }

    /// Opens the file by its name again: somebody else has moved it away.
    pub(crate) fn reopen(&mut self) -> Result<()> {
        let file = create(&self.path)?;
        if number(&file).is_none() {
            self.number += 1;
            set_number(&file, self.number);
        }
        self.size = trim(&file).context(|| format!("cannot read {}", self.path.display()))?;
        self.file = file;
        Ok(())
    }

    /// The work that is due, once.
    pub(crate) fn compress(&mut self) -> Option<Compress> {
        let Compressing::Due(index) = self.compressing else { return None };
        let inode = match std::fs::metadata(name(&self.path, index, "")) {
            Ok(found) => found.ino(),
            Err(_) => {
                self.compressing = Compressing::No;
                return None;
            }
        };
        self.compressing = Compressing::Begun(index);
        Some(Compress { path: self.path.clone(), most: self.most, inode })
    }

    /// The work has ended.
    pub(crate) fn compressed(&mut self) {
        let Compressing::Begun(index) = self.compressing else { return };
        let is_plain = |index: &u32| name(&self.path, *index, "").exists();
        self.compressing = match (1..self.most).find(is_plain) {
            // It came to nothing, and would again: the file stays as it is.
            _ if is_plain(&index) => Compressing::No,
            Some(next) => Compressing::Due(next),
            None => Compressing::No,
        };
    }
}

/// What a file is called until it takes its place: one to be written, and a compressed one.
const NEXT: &str = ".next";
const STAGED: &str = ".gz.new";

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// As long as this lives no other process that asks for it gives names to the files of the log.
fn hold_names(path: &Path) -> io::Result<File> {
    let dir = File::open(path.parent().unwrap_or(Path::new("/")))?;
    rustix::fs::flock(&dir, FlockOperation::LockExclusive)?;
    Ok(dir)
}

/// One rotated file to be gzipped, by another process than the one that writes the log, and that may outlive it.
#[derive(Debug)]
pub struct Compress {
    path: PathBuf,
    most: u32,
    inode: u64,
}

impl Compress {
    /// The file becomes a `.gz`, whole, or not at all.
    pub fn run(self) -> Result<()> {
        let staged = beside(&self.path, STAGED);
        let outcome = self.find().and_then(|(_, from)| gzip(from, &staged)).and_then(|()| {
            let _held = hold_names(&self.path)?;
            let (index, _) = self.find()?;
            std::fs::rename(&staged, name(&self.path, index, GZIP))?;
            std::fs::remove_file(name(&self.path, index, ""))
        });
        if outcome.is_err() {
            // What is left of the attempt; an uncompressed file stays and serves, and one that is gone needs nothing.
            let _gone = std::fs::remove_file(&staged);
        }
        outcome.context(|| format!("cannot compress a file of {}", self.path.display()))
    }

    /// The file, wherever it has moved meanwhile. That is only ever further back, so that one look at each name finds it.
    fn find(&self) -> io::Result<(u32, File)> {
        for index in 1..self.most {
            match File::open(name(&self.path, index, "")) {
                Ok(file) if file.metadata()?.ino() == self.inode => return Ok((index, file)),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

fn gzip(mut from: File, to: &Path) -> io::Result<()> {
    let to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(to)?;
    if let Some(number) = number(&from) {
        set_number(&to, number);
    }
    let mut encoder = GzEncoder::new(to, Compression::fast());
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()?.sync_data()
}

/// What logs leave of a disk: a twentieth, or 64 MiB of a large one.
const RESERVE: u64 = 64 << 20;

fn has_room(file: &File, bytes: u64) -> bool {
    // A file system that does not tell is believed to have room, until it says no.
    let Ok(disk) = rustix::fs::fstatvfs(file) else { return true };
    let reserve = (disk.f_blocks * disk.f_frsize / 20).min(RESERVE);
    disk.f_blocks == 0 || disk.f_bavail * disk.f_frsize >= reserve + bytes
}

fn create(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
        .context(|| format!("cannot open {}", path.display()))
}

/// After a power cut the last record may be torn: what follows the last newline goes. Answers the size that is left.
fn trim(file: &File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let whole = last_newline(file, size)?.map_or(0, |at| at + 1);
    if whole < size {
        file.set_len(whole)?;
    }
    Ok(whole)
}

/// Where the last newline before `end` is.
fn last_newline(file: &File, mut end: u64) -> io::Result<Option<u64>> {
    let mut block = [0; 4096];
    while end > 0 {
        let begin = end.saturating_sub(block.len() as u64);
        let length = usize::try_from(end - begin).expect("a block's length");
        file.read_exact_at(&mut block[..length], begin)?;
        if let Some(at) = block[..length].iter().rposition(|byte| *byte == b'\n') {
            return Ok(Some(begin + at as u64));
        }
        end = begin;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut files = Files::open(&path, 3, false).unwrap();
        for text in ["a\n", "b\n", "c\n", "d\n"] {
            files.append(text.as_bytes()).unwrap();
            files.rotate().unwrap();
        }
        assert_eq!(names(dir.path()), ["log", "log.1", "log.2"]);
        assert_eq!(std::fs::read_to_string(dir.path().join("log.2")).unwrap(), "c\n");
    }

    fn letters(dir: &Path, name: &str) -> String {
        std::fs::read_to_string(dir.join(name)).unwrap()
    }

    #[test]
    fn compression_is_somebody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::open(&dir.path().join("log"), 3, true).unwrap();
        files.append(b"a\n").unwrap();
        files.rotate().unwrap();
        let work = files.compress().unwrap();
        assert!(files.compress().is_none());
        assert_eq!(names(dir.path()), ["log", "log.1"]);
        work.run().unwrap();
        files.compressed();
        assert_eq!(names(dir.path()), ["log", "log.1.gz"]);
        assert!(files.compress().is_none());
        files.rotate().unwrap();
        assert_eq!(names(dir.path()), ["log", "log.1", "log.2.gz"]);
    }

    /// A container that is faster than its compressor neither waits nor has more than it may.
    #[test]
    fn rotation_does_not_wait_for_the_compressor() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::open(&dir.path().join("log"), 4, true).unwrap();
        files.append(b"a\n").unwrap();
        files.rotate().unwrap();
        let work = files.compress().unwrap();
        files.append(b"b\n").unwrap();
        files.rotate().unwrap();
        assert_eq!(names(dir.path()), ["log", "log.1", "log.2"]);
        work.run().unwrap();
        assert_eq!(names(dir.path()), ["log", "log.1", "log.2.gz"]);
        files.rotate().unwrap();
        files.compressed();
        assert_eq!(names(dir.path()), ["log", "log.1", "log.2", "log.3.gz"]);
        assert_eq!(letters(dir.path(), "log.2"), "b\n");
        // Those that it had no time for are next, the newest first.
        files.compress().unwrap().run().unwrap();
        files.compressed();
        assert_eq!(names(dir.path()), ["log", "log.1.gz", "log.2", "log.3.gz"]);
        files.compress().unwrap().run().unwrap();
        files.compressed();
        assert_eq!(names(dir.path()), ["log", "log.1.gz", "log.2.gz", "log.3.gz"]);
    }

    #[test]
    fn what_was_rotated_away_leaves_no_compressed_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::open(&dir.path().join("log"), 2, true).unwrap();
        files.append(b"a\n").unwrap();
        files.rotate().unwrap();
        let work = files.compress().unwrap();
        files.append(b"b\n").unwrap();
        files.rotate().unwrap();
        assert!(work.run().is_err());
        files.compressed();
        assert_eq!(names(dir.path()), ["log", "log.1"]);
        assert_eq!(letters(dir.path(), "log.1"), "b\n");
        // One that fails is not tried again and again.
        drop(files.compress().unwrap());
        files.compressed();
        assert!(files.compress().is_none());
        assert_eq!(names(dir.path()), ["log", "log.1"]);
    }

    #[test]
    fn a_torn_tail_is_trimmed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "whole\ntorn").unwrap();
        assert_eq!(Files::open(&path, 1, false).unwrap().size(), 6);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\n");
        std::fs::write(&path, vec![0; 9000]).unwrap();
        assert_eq!(Files::open(&path, 1, false).unwrap().size(), 0);
    }
}
