//! The fingerprint of a tree: names, kinds, modes, owners, sizes and content, whatever order they come in.
//!
//! It is the sum of one hash a name, so it can grow while a layer is extracted and be counted again by walking the
//! directory years later. It finds damage, not forgery: layers are verified by their digest when they come in.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use stdx::{Context, Result};

use crate::beneath;
use crate::durable::OnDisk;
use crate::walk::{Item, Walk};

/// What is known of a tree as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many names, the root not counted.
    pub names: u64,
    /// Bytes of its files, each counted once however many names it has.
    pub bytes: u64,
    /// 64 hex digits.
    pub hash: String,
}

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Names and sizes.
    Quick,
    /// Every byte.
    Strict,
}

/// Counts a tree from its directory. [`Depth::Quick`] leaves the hash empty.
pub(crate) fn summarize(root: BorrowedFd<'_>, depth: Depth) -> Result<Summary> {
    let mut sum = Sum::default();
    let mut linked = std::collections::HashMap::new();
    let mut walk = Walk::new(root)?;
    let mut quick = Summary::default();
    while let Some(item) = walk.next()? {
        let file = item.kind() == FileType::RegularFile;
        let first = !file || item.stat.st_nlink == 1 || !linked.contains_key(&item.stat.st_ino);
        quick.names += 1;
        quick.bytes += if file && first { item.stat.st_size as u64 } else { 0 };
        let content = match depth {
            Depth::Quick => Vec::new(),
            Depth::Strict if !first => Vec::clone(&linked[&item.stat.st_ino]),
            Depth::Strict => content(walk.directory()?, &item)?,
        };
        if depth == Depth::Strict {
            sum.add(&item.path, &item.stat, &content);
        }
        if file && first && item.stat.st_nlink > 1 {
            linked.insert(item.stat.st_ino, content);
        }
    }
    if depth == Depth::Strict {
        quick.hash = sum.hash();
    }
    Ok(quick)
}

/// What a name stands for, in as few bytes as tell it apart.
fn content(directory: BorrowedFd<'_>, item: &Item) -> Result<Vec<u8>> {
    Ok(match item.kind() {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file =
                rustix::fs::openat(directory, &*item.name, flags, Mode::empty()).on_disk()?;
            checksum(&File::from(file), item.stat.st_size as u64)
                .context(|| format!("cannot read /{}", String::from_utf8_lossy(&item.path)))?
                .finish()
        }
        FileType::Symlink => {
            rustix::fs::readlinkat(directory, &*item.name, Vec::new()).on_disk()?.into_bytes()
        }
        FileType::CharacterDevice | FileType::BlockDevice => {
            item.stat.st_rdev.to_le_bytes().to_vec()
        }
        _ => Vec::new(),
    })
}

/// The checksum of an open file, its holes not read.
pub(crate) fn checksum(file: &File, size: u64) -> Result<Checksum> {
    use std::os::unix::fs::FileExt;
    let mut sum = Checksum::default();
    let mut buffer = vec![0; 128 * 1024];
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            Err(Errno::NXIO) => size,
            Err(Errno::INVAL) => at,
            Err(errno) => return Err(errno).on_disk(),
        };
        sum.zeros(data - at);
        at = data;
        let end = match rustix::fs::seek(file, SeekFrom::Hole(at)) {
            Ok(end) if end > at => end.min(size),
            _ => size,
        };
        while at < end {
            let want = buffer.len().min((end - at) as usize);
            match file.read_at(&mut buffer[..want], at).on_disk()? {
                0 => return Ok(sum),
                count => {
                    sum.update(&buffer[..count]);
                    at += count as u64;
                }
            }
        }
    }
    Ok(sum)
}

/// The growing fingerprint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sum([u64; 4]);

impl Sum {
    pub(crate) fn add(&mut self, path: &[u8], stat: &Stat, content: &[u8]) {
        let size =
            if beneath::kind(stat) == FileType::RegularFile { stat.st_size as u64 } else { 0 };
        self.add_as(path, (stat.st_mode, stat.st_uid, stat.st_gid), size, content);
    }

    /// Takes back what [`Sum::add`] added.
    pub(crate) fn take(&mut self, path: &[u8], stat: &Stat, content: &[u8]) {
        let mut other = Self::default();
        other.add(path, stat, content);
        for (lane, word) in self.0.iter_mut().zip(other.0) {
            *lane = lane.wrapping_sub(word);
        }
    }

    /// Goes on from a finished fingerprint.
    pub(crate) fn parse(hash: &str) -> Result<Self> {
        let lane = |at: usize| u64::from_str_radix(hash.get(at * 16..at * 16 + 16)?, 16).ok();
        let lanes = [lane(0), lane(1), lane(2), lane(3)];
        match lanes {
            [Some(a), Some(b), Some(c), Some(d)] => Ok(Self([a, b, c, d])),
            _ => Err(stdx::Error::internal("the fingerprint of a layer is damaged")),
        }
    }

    pub(crate) fn add_as(
        &mut self,
        path: &[u8],
        (mode, uid, gid): (u32, u32, u32),
        size: u64,
        content: &[u8],
    ) {
        let mut record = Vec::with_capacity(path.len() + content.len() + 29);
        record.extend_from_slice(&(path.len() as u64).to_le_bytes());
        record.extend_from_slice(path);
        for number in [mode, uid, gid] {
            record.extend_from_slice(&number.to_le_bytes());
        }
        record.extend_from_slice(&size.to_le_bytes());
        record.extend_from_slice(content);
        let hash = ring::digest::digest(&ring::digest::SHA256, &record);
        for (lane, word) in self.0.iter_mut().zip(hash.as_ref().chunks_exact(8)) {
            *lane = lane.wrapping_add(u64::from_le_bytes(
                word.try_into().expect("chunks are of eight bytes"),
            ));
        }
    }

    pub(crate) fn hash(&self) -> String {
        self.0.iter().map(|lane| format!("{lane:016x}")).collect()
    }
}

/// CRC-32 of a file's content; a hole costs the logarithm of its length.
#[derive(Default)]
pub(crate) struct Checksum(flate2::Crc);

impl Checksum {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn zeros(&mut self, mut count: u64) {
        let mut run = flate2::Crc::new();
        run.update(&[0]);
        while count > 0 {
            if count & 1 == 1 {
                self.0.combine(&run);
            }
            let mut half = flate2::Crc::new();
            half.combine(&run);
            run.combine(&half);
            count >>= 1;
        }
    }

    pub(crate) fn finish(&self) -> Vec<u8> {
        self.0.sum().to_le_bytes().to_vec()
    }
}

/// A regular file as the sum sees it.
pub(crate) fn file_mode(permissions: u32) -> u32 {
    FileType::RegularFile.as_raw_mode() | permissions
}

/// The fingerprint of an open regular file, for a second name of it.
pub(crate) fn known(directory: BorrowedFd<'_>, name: &[u8]) -> Result<(Stat, Vec<u8>)> {
    let stat =
        rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).on_disk()?;
    let name = std::ffi::CString::new(name).expect("a name holds no NUL");
    let item = Item { path: Vec::new(), name, stat };
    let bytes = content(directory.as_fd(), &item)?;
    Ok((item.stat, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_sum_as_zeros() {
        for count in [0, 1, 2, 3, 511, 512, 4097] {
            let mut slow = Checksum::default();
            slow.update(b"before");
            slow.update(&vec![0; count]);
            slow.update(b"after");
            let mut fast = Checksum::default();
            fast.update(b"before");
            fast.zeros(count as u64);
            fast.update(b"after");
            assert_eq!(slow.finish(), fast.finish(), "{count}");
        }
    }

    #[test]
    fn the_order_does_not_matter_and_everything_else_does() {
        let of = |names: &[(&[u8], u32, &[u8])]| {
            let mut sum = Sum::default();
            for (path, mode, content) in names {
                sum.add_as(path, (*mode, 0, 0), content.len() as u64, content);
            }
            sum.hash()
        };
        assert_eq!(
            of(&[(b"a", 1, b"x"), (b"b", 2, b"y")]),
            of(&[(b"b", 2, b"y"), (b"a", 1, b"x")])
        );
        assert_ne!(of(&[(b"a", 1, b"x")]), of(&[(b"a", 2, b"x")]));
        assert_ne!(of(&[(b"a", 1, b"x")]), of(&[(b"a", 1, b"y")]));
        assert_ne!(of(&[(b"a", 1, b"x")]), of(&[(b"ab", 1, b"")]));
    }
}
