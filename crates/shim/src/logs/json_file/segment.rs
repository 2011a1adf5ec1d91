//! One file of a log, opened for reading; and all of them, oldest first.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use stdx::time::Timestamp;
use stdx::{Context, Result};

use crate::logs::rotation::{self, GZIP};

const BLOCK: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    input: Input,
    /// Lines of a compressed file that the reader does not want.
    pub(super) skip: u64,
    inode: u64,
    pub(super) number: Option<u64>,
}

#[derive(Debug)]
enum Input {
    Plain,
    Gzip(Box<MultiGzDecoder<File>>),
}

impl Segment {
    fn open(path: &Path, suffix: &str) -> io::Result<Self> {
        let file = File::open(path)?;
        let input = match suffix {
            GZIP => Input::Gzip(Box::new(MultiGzDecoder::new(file.try_clone()?))),
            _ => Input::Plain,
        };
        let (inode, number) = (file.metadata()?.ino(), rotation::number(&file));
        Ok(Self { file, input, skip: 0, inode, number })
    }

    /// The same log file, by whatever name, compressed or not.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.inode == other.inode || (self.number.is_some() && self.number == other.number)
    }

    pub(super) fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.input {
            Input::Plain => self.file.read(bytes),
            Input::Gzip(decoder) => decoder.read(bytes),
        }
    }

    /// Somebody has cut the file shorter than what was read of it (`copytruncate`): begin again.
    pub(super) fn rewind_if_truncated(&mut self) -> io::Result<bool> {
        if matches!(self.input, Input::Gzip(_))
            || self.file.stream_position()? <= self.file.metadata()?.len()
        {
            return Ok(false);
        }
        self.file.rewind()?;
        Ok(true)
    }

    /// Whether nothing in it can be as late as `moment`, as far as its time of modification tells.
    pub(super) fn is_before(&self, moment: Timestamp) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.mtime() < moment.unix() - 1)
    }

    pub(super) fn seek_to_end(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::End(0)).map(drop)
    }

    /// Sets out from the last `wanted` lines; answers how many of them are here.
    pub(super) fn tail(&mut self, wanted: u64) -> io::Result<u64> {
        match self.input {
            Input::Plain => {
                let (offset, lines) = tail_offset(&self.file, wanted)?;
                self.file.seek(SeekFrom::Start(offset))?;
                Ok(lines)
            }
            Input::Gzip(_) => {
                // A decoder reads the header when it is made.
                self.file.rewind()?;
                let lines = count_lines(MultiGzDecoder::new(&self.file))?;
                self.file.rewind()?;
                self.input = Input::Gzip(Box::new(MultiGzDecoder::new(self.file.try_clone()?)));
                self.skip = lines.saturating_sub(wanted);
                Ok(lines - self.skip)
            }
        }
    }
}

/// Where the last `wanted` whole lines begin, and how many there are: reads backwards, as far as needed.
fn tail_offset(file: &File, wanted: u64) -> io::Result<(u64, u64)> {
    let mut block = vec![0; BLOCK];
    let mut end = file.metadata()?.len();
    // The newline at the end of line n is in front of line n+1: one more than is wanted.
    let mut newlines = 0;
    while end > 0 {
        let begin = end.saturating_sub(BLOCK as u64);
        let part = &mut block[..usize::try_from(end - begin).expect("a block's length")];
        file.read_exact_at(part, begin)?;
        let mut rest = &*part;
        while let Some(at) = rest.iter().rposition(|byte| *byte == b'\n') {
            if newlines == wanted {
                return Ok((begin + at as u64 + 1, wanted));
            }
            newlines += 1;
            rest = &rest[..at];
        }
        end = begin;
    }
    Ok((0, newlines))
}

fn count_lines(mut reader: impl Read) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut lines = 0;
    loop {
        match reader.read(&mut block) {
            Ok(0) => return Ok(lines),
            // Cut short by a crash.
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(lines),
            Err(err) => return Err(err),
            Ok(count) => {
                lines += block[..count].iter().filter(|byte| **byte == b'\n').count() as u64
            }
        }
    }
}

/// All files of a log, oldest first. The log may be rotated while they are being opened: then look again.
pub(super) fn all(path: &Path) -> Result<Vec<Segment>> {
    const TRIES: usize = 16;
    let mut segments = look(path)?;
    for _ in 1..TRIES {
        let newest = match File::open(path) {
            Ok(file) => {
                Some(file.metadata().context(|| format!("cannot read {}", path.display()))?.ino())
            }
            Err(_) => None,
        };
        if segments.last().map(|segment| segment.inode) == newest && is_unbroken(&segments) {
            break;
        }
        segments = look(path)?;
    }
    Ok(segments)
}

/// Whether each is the one after the one before, as far as their numbers tell.
fn is_unbroken(segments: &[Segment]) -> bool {
    segments.windows(2).all(|pair| match (pair[0].number, pair[1].number) {
        (Some(one), Some(next)) => next == one + 1,
        _ => true,
    })
}

fn look(path: &Path) -> Result<Vec<Segment>> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut missing = 0;
    for index in 0.. {
        let plain = Segment::open(&rotation::name(path, index, ""), "");
        let found = match plain {
            Err(err) if err.kind() == io::ErrorKind::NotFound && index > 0 => {
                Segment::open(&rotation::name(path, index, GZIP), GZIP)
            }
            other => other,
        };
        match found {
            Ok(segment) => {
                missing = 0;
                if !segments.iter().any(|known| known.is(&segment)) {
                    segments.push(segment);
                }
            }
            // While files move up one name is nobody's, and the newest has none before the next is made.
            Err(err) if err.kind() == io::ErrorKind::NotFound && missing == 0 => missing = 1,
            Err(err) if err.kind() == io::ErrorKind::NotFound => break,
            Err(err) => {
                return Err(err).context(|| format!("cannot open the log {}", path.display()));
            }
        }
    }
    segments.reverse();
    if segments.iter().all(|segment| segment.number.is_some()) {
        segments.sort_by_key(|segment| segment.number);
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look that falls between two renames must not take the newest file for the only one.
    #[test]
    fn a_name_that_is_nobodys_does_not_end_the_look() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for suffix in ["", ".2", ".3"] {
            std::fs::write(dir.path().join(format!("log{suffix}")), suffix).unwrap();
        }
        let mut found = all(&path).unwrap();
        let mut text = String::new();
        for segment in &mut found {
            segment.file.read_to_string(&mut text).unwrap();
        }
        assert_eq!((found.len(), text.as_str()), (3, ".3.2"));
    }

    #[test]
    fn the_tail_is_found_from_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let line = format!("{}\n", "x".repeat(99));
        std::fs::write(&path, line.repeat(2000)).unwrap();
        for (wanted, offset, lines) in
            [(0, 200_000, 0), (1, 199_900, 1), (1999, 100, 1999), (2000, 0, 2000), (9999, 0, 2000)]
        {
            assert_eq!(tail_offset(&File::open(&path).unwrap(), wanted).unwrap(), (offset, lines));
        }
        std::fs::write(&path, "a\nb\ntorn").unwrap();
        assert_eq!(tail_offset(&File::open(&path).unwrap(), 1).unwrap(), (2, 1));
        std::fs::write(&path, "").unwrap();
        assert_eq!(tail_offset(&File::open(&path).unwrap(), 1).unwrap(), (0, 0));
    }
}
