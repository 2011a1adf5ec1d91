//! An archive as a stream of entries, in bounded memory.

use std::io::Read;

use stdx::{Error, Result};

use super::header::{self, Block, Format};
use super::pax::{self, Map, Pax};
use super::{BLOCK, Entry, Kind, Time, invalid_header};
use crate::durable::from_io;
use crate::layer::Limits;
use crate::layer::limits::exceeded;

/// Bytes read at a time, and the largest piece of data handed on.
const BUFFER: usize = 256 * 1024;

/// Reads one archive. [`Reader::next`] and, for those that want the data, [`Reader::data`] after it.
pub struct Reader<'a> {
    source: Source<'a>,
    limits: &'a Limits,
    entries: u64,
    /// Bytes of files announced so far, holes included.
    announced: u64,
    /// Data of the current entry not read yet, and the padding behind it.
    left: u64,
    padding: usize,
    done: bool,
}

struct Source<'a> {
    reader: &'a mut dyn Read,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    taken: u64,
    budget: u64,
}

impl<'a> Reader<'a> {
    pub fn new(reader: &'a mut dyn Read, limits: &'a Limits) -> Self {
        let source = Source {
            reader,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            taken: 0,
            budget: limits.bytes,
        };
        Self { source, limits, entries: 0, announced: 0, left: 0, padding: 0, done: false }
    }

    /// The next entry; `None` once the archive *and the stream behind it* have ended, so that a reader that verifies
    /// what passes through it has seen everything.
    #[allow(
        clippy::should_implement_trait,
        reason = "its data has to be read before the next one, so it cannot be"
    )]
    pub fn next(&mut self) -> Result<Option<Entry>> {
        if self.done {
            return Ok(None);
        }
        self.skip_data()?;
        match self.entry()? {
            Some(entry) => Ok(Some(entry)),
            None => {
                self.done = true;
                while self.source.fill()? > 0 {
                    self.source.start = self.source.end;
                }
                Ok(None)
            }
        }
    }

    /// Hands the data of the entry just read to `take`, piece by piece with its offset in the file; holes are left out.
    pub fn data(
        &mut self,
        entry: &Entry,
        mut take: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        match &entry.segments {
            None => self.pass(0, entry.size, &mut take),
            Some(segments) => {
                for (offset, length) in segments {
                    self.pass(*offset, *length, &mut take)?;
                }
                Ok(())
            }
        }
    }

    /// The data of a small file as bytes; more than `limit` is refused.
    pub fn bytes(&mut self, entry: &Entry, limit: usize) -> Result<Vec<u8>> {
        if entry.size > limit as u64 {
            let name = String::from_utf8_lossy(&entry.path);
            return Err(Error::invalid(format!("{name} is larger than {limit} bytes")));
        }
        let mut bytes = vec![0; entry.size as usize];
        self.data(entry, |offset, piece| {
            bytes[offset as usize..][..piece.len()].copy_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn pass(
        &mut self,
        offset: u64,
        length: u64,
        take: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        while done < length {
            let piece = self.source.piece(length - done)?;
            let count = piece.len();
            if count == 0 {
                return Err(cut_short());
            }
            take(offset + done, piece)?;
            self.source.start += count;
            self.left -= count as u64;
            done += count as u64;
        }
        Ok(())
    }

    fn skip_data(&mut self) -> Result<()> {
        while self.left > 0 {
            let count = self.source.piece(self.left)?.len();
            if count == 0 {
                return Err(cut_short());
            }
            self.source.start += count;
            self.left -= count as u64;
        }
        // An archive that ends in the padding of its last file is complete, says Go.
        while self.padding > 0 {
            let count = self.source.piece(self.padding as u64)?.len();
            self.source.start += count;
            self.padding = if count == 0 { 0 } else { self.padding - count };
        }
        Ok(())
    }

    /// Gathers the headers that belong together.
    fn entry(&mut self) -> Result<Option<Entry>> {
        let mut pax = Pax::default();
        let (mut long_name, mut long_link) = (None, None);
        let mut extended = 0;
        loop {
            let Some(block) = self.header()? else {
                return Ok(None);
            };
            let format = header::format(&block)?;
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(exceeded(self.limits.entries, "entries"));
            }
            match block[header::TYPE] {
                b'x' => pax = pax::parse(&self.extension(&block, &mut extended)?, self.limits)?,
                // Global records would change the entries after them; Docker ignores them too.
                b'g' => drop(self.extension(&block, &mut extended)?),
                b'L' => {
                    long_name =
                        Some(header::text(&self.extension(&block, &mut extended)?).to_owned())
                }
                b'K' => {
                    long_link =
                        Some(header::text(&self.extension(&block, &mut extended)?).to_owned())
                }
                _ => {
                    // GNU's long names count more than the records, as Go has it.
                    pax.path = long_name.filter(|name: &Vec<u8>| !name.is_empty()).or(pax.path);
                    pax.link = long_link.filter(|link: &Vec<u8>| !link.is_empty()).or(pax.link);
                    let entry = self.understand(&block, format, pax)?;
                    self.measure(&entry)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    fn header(&mut self) -> Result<Option<Block>> {
        let Some(block) = self.source.block()? else {
            return Ok(None);
        };
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        // Two blocks of zeros end an archive; one of them alone only where the stream ends too.
        match self.source.block()? {
            Some(block) if block != [0; BLOCK] => Err(invalid_header()),
            _ => Ok(None),
        }
    }

    /// The data of a header that says something about the next one.
    fn extension(&mut self, block: &Block, extended: &mut usize) -> Result<Vec<u8>> {
        let size =
            u64::try_from(header::number(&block[header::SIZE])?).map_err(|_| invalid_header())?;
        if size > (self.limits.header - *extended) as u64 {
            return Err(exceeded(self.limits.header, "bytes of extended headers for one entry"));
        }
        *extended += size as usize;
        let mut bytes = Vec::with_capacity(size as usize);
        self.begin(size);
        self.pass(0, size, &mut |_, piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        self.skip_data()?;
        Ok(bytes)
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = padding(size);
    }

    fn understand(&mut self, block: &Block, format: Format, pax: Pax) -> Result<Entry> {
        let mut path = header::name(block, format);
        let link = pax.link.unwrap_or_else(|| header::text(&block[header::LINK]).to_owned());
        let header_size = header::number(&block[header::SIZE])?;
        let mut size = match pax.size {
            Some(size) => size,
            None => u64::try_from(header_size).map_err(|_| invalid_header())?,
        };
        if let Some(longer) = pax.path {
            path = longer;
        }
        let (kind, sparse) = match block[header::TYPE] {
            0 if path.ends_with(b"/") => (Kind::Directory, false),
            0 | b'0' | b'7' => (Kind::File, false),
            b'1' => (Kind::HardLink, false),
            b'2' => (Kind::Symlink, false),
            b'3' => (Kind::Character, false),
            b'4' => (Kind::Block, false),
            b'5' => (Kind::Directory, false),
            b'6' => (Kind::Fifo, false),
            b'S' => (Kind::File, true),
            other => return Err(Error::invalid(format!("unhandled tar header type {other}"))),
        };
        // Only files have data, whatever the size says.
        if kind != Kind::File {
            size = 0;
        }
        self.begin(size);
        let mut segments = None;
        if sparse {
            if format != Format::Gnu {
                return Err(invalid_header());
            }
            let (real, map) = self.old_map(block)?;
            segments = Some(check_map(map, real, self.left)?);
            size = real;
        } else if kind == Kind::File
            && let Some(map) = pax.sparse.map()?
        {
            if let Some(name) = pax.sparse.name.clone() {
                path = name;
            }
            let real = pax.sparse.size().unwrap_or(size);
            let map = match map {
                Map::Records(map) => map,
                Map::Data => self.data_map()?,
            };
            segments = Some(check_map(map, real, self.left)?);
            size = real;
        }
        let numbers = matches!(kind, Kind::Character | Kind::Block) && format != Format::V7;
        let device = match numbers {
            true => (device(&block[header::MAJOR])?, device(&block[header::MINOR])?),
            false => (0, 0),
        };
        Ok(Entry {
            path,
            kind,
            link,
            mode: (header::number(&block[header::MODE])? & 0o7777) as u32,
            uid: owner(pax.uid.map_or_else(|| header::number(&block[header::UID]), Ok)?)?,
            gid: owner(pax.gid.map_or_else(|| header::number(&block[header::GID]), Ok)?)?,
            size,
            modified: match pax.modified {
                Some(modified) => modified,
                None => Time { seconds: header::number(&block[header::MTIME])?, nanos: 0 },
            },
            accessed: pax.accessed,
            device,
            xattrs: pax.xattrs,
            segments,
        })
    }

    /// Old GNU: four segments in the header, then blocks of twenty-one before the data.
    fn old_map(&mut self, block: &Block) -> Result<(u64, Vec<(u64, u64)>)> {
        let (size, mut map) = header::sparse_header(block)?;
        let mut segments = map.segments;
        while map.extended {
            map = header::sparse_extension(&self.source.block()?.ok_or_else(cut_short)?)?;
            segments.append(&mut map.segments);
            // An extension may be empty, so it is counted as one segment at least: a chain of them ends.
            self.entries += 1;
            if segments.len() > self.limits.segments || self.entries > self.limits.entries {
                return Err(exceeded(self.limits.segments, "segments in a sparse file"));
            }
        }
        Ok((size, segments))
    }

    /// GNU 1.0: decimal lines in front of the data, padded to a block.
    fn data_map(&mut self) -> Result<Vec<(u64, u64)>> {
        let mut lines = Lines { reader: self, text: Vec::new(), at: 0 };
        let count = lines.number()?;
        if count > lines.reader.limits.segments as u64 {
            return Err(exceeded(lines.reader.limits.segments, "segments in a sparse file"));
        }
        (0..count).map(|_| Ok((lines.number()?, lines.number()?))).collect()
    }

    /// The budgets of an entry that is known now.
    fn measure(&mut self, entry: &Entry) -> Result<()> {
        let limits = self.limits;
        if entry.path.len() > limits.path || entry.link.len() > limits.path {
            return Err(exceeded(limits.path, "bytes in a path"));
        }
        if entry.path.contains(&0) || entry.link.contains(&0) {
            return Err(invalid_header());
        }
        self.announced = self.announced.saturating_add(entry.size);
        match self.announced > limits.bytes {
            true => Err(exceeded(limits.bytes, "bytes")),
            false => Ok(()),
        }
    }
}

/// The text lines at the head of a GNU 1.0 sparse file.
struct Lines<'a, 'b> {
    reader: &'a mut Reader<'b>,
    text: Vec<u8>,
    at: usize,
}

impl Lines<'_, '_> {
    fn number(&mut self) -> Result<u64> {
        loop {
            if let Some(end) = self.text[self.at..].iter().position(|c| *c == b'\n') {
                let number = pax::decimal(&self.text[self.at..self.at + end])?;
                self.at += end + 1;
                return u64::try_from(number).map_err(|_| invalid_header());
            }
            if self.text.len() - self.at > 20 || self.reader.left < BLOCK as u64 {
                return Err(invalid_header());
            }
            self.text.drain(..self.at);
            self.at = 0;
            let block = self.reader.source.block()?.ok_or_else(cut_short)?;
            self.reader.left -= BLOCK as u64;
            self.text.extend_from_slice(&block);
        }
    }
}

/// Segments in order, apart from each other, inside the file, and exactly as many bytes as are stored.
fn check_map(map: Vec<(u64, u64)>, size: u64, stored: u64) -> Result<Vec<(u64, u64)>> {
    let mut end = 0;
    let mut data = 0;
    for (offset, length) in &map {
        if *offset < end {
            return Err(invalid_header());
        }
        end = offset.checked_add(*length).filter(|end| *end <= size).ok_or_else(invalid_header)?;
        data += length;
    }
    if size > i64::MAX as u64 || data != stored {
        return Err(invalid_header());
    }
    Ok(map)
}

/// `chown` takes 4294967295 for "leave it", so that is nobody's number.
fn owner(number: i64) -> Result<u32> {
    u32::try_from(number)
        .ok()
        .filter(|number| *number != u32::MAX)
        .ok_or_else(|| Error::invalid(format!("archive/tar: owner {number} is out of range")))
}

fn device(field: &[u8]) -> Result<u32> {
    u32::try_from(header::number(field)?).map_err(|_| invalid_header())
}

fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

fn cut_short() -> Error {
    Error::invalid("unexpected EOF")
}

impl Source<'_> {
    /// Makes sure that something is in the buffer; 0 at the end of the stream.
    fn fill(&mut self) -> Result<usize> {
        if self.start == self.end {
            self.start = 0;
            self.end = self.read(0)?;
        }
        Ok(self.end - self.start)
    }

    fn read(&mut self, at: usize) -> Result<usize> {
        loop {
            match self.reader.read(&mut self.buffer[at..]) {
                Ok(count) => {
                    self.taken += count as u64;
                    return if self.taken > self.budget {
                        Err(exceeded(self.budget, "bytes"))
                    } else {
                        Ok(count)
                    };
                }
                Err(io) if io.kind() == std::io::ErrorKind::Interrupted => {}
                Err(io) => return Err(from_io(io)),
            }
        }
    }

    /// What is in the buffer, at most `limit` bytes of it; empty at the end of the stream.
    fn piece(&mut self, limit: u64) -> Result<&[u8]> {
        let count = (self.fill()? as u64).min(limit) as usize;
        Ok(&self.buffer[self.start..self.start + count])
    }

    /// The next block; `None` at the end of the stream, an error in the middle of one.
    fn block(&mut self) -> Result<Option<Block>> {
        if self.end - self.start < BLOCK {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            while self.end < BLOCK {
                match self.read(self.end)? {
                    0 if self.end == 0 => return Ok(None),
                    0 => return Err(cut_short()),
                    count => self.end += count,
                }
            }
        }
        let block = self.buffer[self.start..self.start + BLOCK]
            .try_into()
            .expect("it is as long as a block");
        self.start += BLOCK;
        Ok(Some(block))
    }
}
