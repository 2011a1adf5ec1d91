//! Writing archives: ustar where it fits, PAX records where it does not. The same entries give the same bytes.

use std::io::{Read, Write};

use stdx::{Context, Result};

use super::header::{self, Block};
use super::{BLOCK, Entry, Kind, Time, pax};
use crate::durable::OnDisk;

const BUFFER: usize = 128 * 1024;
/// What fits into octal digits of a field.
const OWNER: u64 = 0o7_777_777;
const SIZE: u64 = 0o77_777_777_777;

/// Writes entries one after the other. [`Writer::finish`] ends the archive; without it, it is cut short.
pub struct Writer<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W) -> Self {
        Self { out, buffer: Vec::new() }
    }

    /// Writes an entry without data.
    pub fn append(&mut self, entry: &Entry) -> Result<()> {
        debug_assert!(
            entry.kind != Kind::File || entry.size == 0,
            "a file with data needs a reader"
        );
        self.header(entry)
    }

    /// Writes a file. As many bytes as the entry says, whatever the reader has: a file that shrinks while it is read
    /// ends in zeros, one that grows is cut.
    pub fn append_file(&mut self, entry: &Entry, data: &mut dyn Read) -> Result<()> {
        self.header(entry)?;
        self.buffer.resize(BUFFER, 0);
        let mut left = entry.size;
        while left > 0 {
            let want = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = match data.read(&mut self.buffer[..want]) {
                Ok(0) => {
                    self.buffer[..want].fill(0);
                    want
                }
                Ok(count) => count,
                Err(io) if io.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(io) => return Err(io).on_disk(),
            };
            self.out.write_all(&self.buffer[..count]).on_disk()?;
            left -= count as u64;
        }
        self.pad(entry.size)
    }

    /// Ends the archive and gives the stream back.
    pub fn finish(mut self) -> Result<W> {
        self.out.write_all(&[0; 2 * BLOCK]).on_disk()?;
        self.out.flush().on_disk()?;
        Ok(self.out)
    }

    fn header(&mut self, entry: &Entry) -> Result<()> {
        let records = records(entry);
        if !records.is_empty() {
            let mut about = Entry::new(Kind::File, b"PaxHeaders.0/entry".as_slice());
            about.size = records.len() as u64;
            self.out.write_all(&block(&about, b'x')).on_disk()?;
            self.out.write_all(&records).on_disk()?;
            self.pad(about.size)?;
        }
        let flag = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::Character => b'3',
            Kind::Block => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        self.out
            .write_all(&block(entry, flag))
            .on_disk()
            .context(|| "cannot write the archive".to_owned())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        self.out.write_all(&[0; BLOCK][..padding]).on_disk()
    }
}

/// What the header has no room for, by key.
fn records(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| pax::write(&mut records, key, value);
    for (name, value) in &entry.xattrs {
        add(&[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    if u64::from(entry.gid) > OWNER {
        add(b"gid", entry.gid.to_string().as_bytes());
    }
    if long(&entry.link, header::LINK.len()) {
        add(b"linkpath", &entry.link);
    }
    if entry.modified.seconds < 0
        || entry.modified.seconds as u64 > SIZE
        || entry.modified.nanos > 0
    {
        add(b"mtime", seconds(entry.modified).as_bytes());
    }
    if long(&entry.path, header::NAME.len()) {
        add(b"path", &entry.path);
    }
    if entry.size > SIZE {
        add(b"size", entry.size.to_string().as_bytes());
    }
    if u64::from(entry.uid) > OWNER {
        add(b"uid", entry.uid.to_string().as_bytes());
    }
    records
}

fn long(text: &[u8], room: usize) -> bool {
    text.len() > room || !text.is_ascii()
}

/// `-1.5` is half a second before -1: the fraction counts away from zero.
fn seconds(time: Time) -> String {
    let (sign, whole, nanos) = match time.seconds < 0 && time.nanos > 0 {
        true => ("-", -(time.seconds + 1), 1_000_000_000 - time.nanos),
        false if time.seconds < 0 => ("-", time.seconds.saturating_neg(), 0),
        false => ("", time.seconds, time.nanos),
    };
    let text = format!("{sign}{whole}.{nanos:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn block(entry: &Entry, flag: u8) -> Block {
    let mut block = [0; BLOCK];
    let mut put = |field: std::ops::Range<usize>, text: &[u8]| {
        let length = text.len().min(field.len());
        block[field.start..field.start + length].copy_from_slice(&text[..length]);
    };
    let ascii = |text: &[u8]| -> Vec<u8> { text.iter().copied().filter(u8::is_ascii).collect() };
    put(header::NAME, &ascii(&entry.path));
    put(header::MODE, format!("{:07o}", entry.mode & 0o7777).as_bytes());
    put(header::UID, format!("{:07o}", fitting(entry.uid.into(), OWNER)).as_bytes());
    put(header::GID, format!("{:07o}", fitting(entry.gid.into(), OWNER)).as_bytes());
    put(header::SIZE, format!("{:011o}", fitting(entry.size, SIZE)).as_bytes());
    let modified = u64::try_from(entry.modified.seconds).unwrap_or(0);
    put(header::MTIME, format!("{:011o}", fitting(modified, SIZE)).as_bytes());
    put(header::LINK, &ascii(&entry.link));
    put(header::MAGIC, b"ustar\x0000");
    put(header::MAJOR, format!("{:07o}", fitting(entry.device.0.into(), OWNER)).as_bytes());
    put(header::MINOR, format!("{:07o}", fitting(entry.device.1.into(), OWNER)).as_bytes());
    block[header::TYPE] = flag;
    let (sum, _) = header::checksums(&block);
    block[header::CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A number too large for its field is in a record, and 0 here.
fn fitting(number: u64, largest: u64) -> u64 {
    if number > largest { 0 } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Limits;
    use crate::tar::Reader;

    /// What is written reads back as it was.
    fn check(entry: Entry) {
        let mut writer = Writer::new(Vec::new());
        let data = vec![7; entry.size as usize];
        match entry.kind {
            Kind::File => writer.append_file(&entry, &mut &data[..]).unwrap(),
            _ => writer.append(&entry).unwrap(),
        }
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let limits = Limits::default();
        let mut stream = &bytes[..];
        let mut reader = Reader::new(&mut stream, &limits);
        assert_eq!(reader.next().unwrap(), Some(entry));
        assert_eq!(reader.next().unwrap(), None);
    }

    #[test]
    fn whatever_an_entry_holds() {
        check(Entry { size: 513, ..Entry::new(Kind::File, b"a".as_slice()) });
        check(Entry {
            mode: 0o4755,
            uid: 1000,
            gid: 1000,
            ..Entry::new(Kind::Directory, b"d/".as_slice())
        });
        check(Entry {
            uid: u32::MAX - 1,
            gid: 3_000_000,
            ..Entry::new(Kind::Fifo, b"f".as_slice())
        });
        check(Entry { device: (10, 229), ..Entry::new(Kind::Character, b"dev/fuse".as_slice()) });
        check(Entry { device: (259, 1_048_575), ..Entry::new(Kind::Block, b"dev/x".as_slice()) });
        check(Entry { link: vec![b'l'; 300], ..Entry::new(Kind::Symlink, vec![b'p'; 255]) });
        check(Entry {
            link: b"\xc3\xa4".to_vec(),
            ..Entry::new(Kind::HardLink, b"\xff\xfe\n".as_slice())
        });
        let xattrs = vec![
            (b"security.capability".to_vec(), vec![0, 1, 2, b'\n']),
            (b"user.e".to_vec(), Vec::new()),
        ];
        check(Entry { xattrs, ..Entry::new(Kind::File, b"a".as_slice()) });
    }

    #[test]
    fn any_time() {
        for (seconds, nanos) in
            [(0, 0), (0, 1), (-1, 0), (-1, 500_000_000), (-2, 999_999_999), (1 << 40, 7)]
        {
            let modified = Time { seconds, nanos };
            check(Entry { modified, ..Entry::new(Kind::File, b"a".as_slice()) });
        }
    }
}
