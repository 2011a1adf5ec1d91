//! PAX records: `length key=value\n`, one after the other, the last of a key counting.

use super::{Time, invalid_header};
use crate::layer::Limits;
use crate::layer::limits::exceeded;
use stdx::Result;

const XATTR: &[u8] = b"SCHILY.xattr.";

/// What the records of one entry say. What they do not say stays as the header has it.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub modified: Option<Time>,
    pub accessed: Option<Time>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Sparse,
}

/// The three ways GNU tar has put a sparse map into PAX.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    major: Vec<u8>,
    minor: Vec<u8>,
    pub name: Option<Vec<u8>>,
    size: Option<u64>,
    real_size: Option<u64>,
    /// `offset,length,offset,length` of version 0.1, or 0.0's repeated records.
    numbers: Vec<u64>,
}

/// Where the map of a sparse file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Map {
    /// In the records.
    Records(Vec<(u64, u64)>),
    /// At the beginning of the data.
    Data,
}

impl Sparse {
    /// Go's order of guesses; a version nobody knows is refused instead of extracted as it lies there.
    pub(super) fn map(&self) -> Result<Option<Map>> {
        match (&*self.major, &*self.minor) {
            (b"1", b"0") => Ok(Some(Map::Data)),
            (b"0", b"0" | b"1") => self.records().map(Some),
            (b"", b"") if self.numbers.is_empty() => Ok(None),
            (b"", b"") => self.records().map(Some),
            _ => Err(invalid_header()),
        }
    }

    pub(super) fn size(&self) -> Option<u64> {
        self.size.or(self.real_size)
    }

    fn records(&self) -> Result<Map> {
        if !self.numbers.len().is_multiple_of(2) {
            return Err(invalid_header());
        }
        Ok(Map::Records(self.numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()))
    }
}

/// Reads the records of one extended header.
pub(super) fn parse(mut records: &[u8], limits: &Limits) -> Result<Pax> {
    let mut pax = Pax::default();
    while !records.is_empty() {
        let (key, value, rest) = record(records)?;
        pax.take(key, value, limits)?;
        records = rest;
    }
    Ok(pax)
}

fn record(records: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(21).position(|c| *c == b' ').ok_or_else(invalid_header)?;
    let length = usize::try_from(decimal(&records[..space])?).map_err(|_| invalid_header())?;
    if length < 5 || length > records.len() || space + 1 >= length {
        return Err(invalid_header());
    }
    let (record, rest) = records.split_at(length);
    let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(invalid_header)?;
    let equals = record.iter().position(|c| *c == b'=').ok_or_else(invalid_header)?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    let plain =
        if matches!(key, b"path" | b"linkpath" | b"uname" | b"gname") { value } else { key };
    if key.is_empty() || plain.contains(&0) {
        return Err(invalid_header());
    }
    Ok((key, value, rest))
}

impl Pax {
    fn take(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<()> {
        if let Some(name) = key.strip_prefix(XATTR) {
            return self.take_xattr(name, value, limits);
        }
        let given = !value.is_empty();
        let number = || u64::try_from(decimal(value)?).map_err(|_| invalid_header());
        match key {
            b"path" => self.path = given.then(|| value.to_owned()),
            b"linkpath" => self.link = given.then(|| value.to_owned()),
            b"size" => self.size = given.then(number).transpose()?,
            b"uid" => self.uid = given.then(|| decimal(value)).transpose()?,
            b"gid" => self.gid = given.then(|| decimal(value)).transpose()?,
            b"mtime" => self.modified = given.then(|| time(value)).transpose()?,
            b"atime" => self.accessed = given.then(|| time(value)).transpose()?,
            b"GNU.sparse.major" => self.sparse.major = value.to_owned(),
            b"GNU.sparse.minor" => self.sparse.minor = value.to_owned(),
            b"GNU.sparse.name" => self.sparse.name = given.then(|| value.to_owned()),
            b"GNU.sparse.size" => self.sparse.size = given.then(number).transpose()?,
            b"GNU.sparse.realsize" => self.sparse.real_size = given.then(number).transpose()?,
            b"GNU.sparse.map" => {
                let numbers = value.split(|c| *c == b',').filter(|_| given);
                self.sparse.numbers = numbers
                    .take(limits.segments * 2 + 1)
                    .map(|text| u64::try_from(decimal(text)?).map_err(|_| invalid_header()))
                    .collect::<Result<_>>()?;
            }
            b"GNU.sparse.offset" if self.sparse.numbers.len().is_multiple_of(2) => {
                self.sparse.numbers.push(number()?)
            }
            b"GNU.sparse.numbytes" if !self.sparse.numbers.len().is_multiple_of(2) => {
                self.sparse.numbers.push(number()?)
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => return Err(invalid_header()),
            _ => {}
        }
        match self.sparse.numbers.len() > limits.segments * 2 {
            true => Err(exceeded(limits.segments, "segments in a sparse file")),
            false => Ok(()),
        }
    }

    fn take_xattr(&mut self, name: &[u8], value: &[u8], limits: &Limits) -> Result<()> {
        if value.len() > limits.xattr {
            return Err(exceeded(limits.xattr, "bytes in an extended attribute"));
        }
        if name.is_empty() {
            return Err(invalid_header());
        }
        self.xattrs.retain(|(known, _)| known != name);
        self.xattrs.push((name.to_owned(), value.to_owned()));
        Ok(())
    }
}

/// Go's `ParseInt`: a sign is allowed.
pub(super) fn decimal(text: &[u8]) -> Result<i64> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(invalid_header)
}

/// `-1.5`: seconds and a fraction, of which nanoseconds are kept.
fn time(text: &[u8]) -> Result<Time> {
    let text = std::str::from_utf8(text).map_err(|_| invalid_header())?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().map_err(|_| invalid_header())?;
    if !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return Err(invalid_header());
    }
    let nanos: u32 = format!("{fraction:0<9.9}").parse().map_err(|_| invalid_header())?;
    match seconds.starts_with('-') && nanos > 0 {
        true => {
            let seconds = whole.checked_sub(1).ok_or_else(invalid_header)?;
            Ok(Time { seconds, nanos: 1_000_000_000 - nanos })
        }
        false => Ok(Time { seconds: whole, nanos }),
    }
}

/// Adds one record to an extended header: its length counts its own digits.
pub(super) fn write(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + digits(body);
    if digits(length) != digits(body) {
        length = body + digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(records: &[u8]) -> Result<Pax> {
        parse(records, &Limits::default())
    }

    #[test]
    fn the_last_of_a_key_counts_and_an_empty_one_takes_it_back() {
        assert_eq!(of(b"9 path=a\n9 path=b\n").unwrap().path.unwrap(), b"b");
        assert_eq!(of(b"9 path=a\n8 path=\n").unwrap().path, None);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for bad in [
            &b"9 path=a"[..],
            b"8 path=a\n",
            b"11 path=a\n",
            b"99 path=a\n",
            b"-9 path=a\n",
            b"7 path\n",
            b"5 =a\n",
            b"10 path=\0a\n",
            b"12 size=1e9\n",
            b"11 size=-1\n",
            b"18446744073709551616 a=b\n",
            b"000000000000000000000009 path=a\n",
        ] {
            assert!(of(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_before_the_epoch() {
        let check = |text: &str, seconds, nanos| {
            assert_eq!(time(text.as_bytes()).unwrap(), Time { seconds, nanos })
        };
        check("1", 1, 0);
        check("1.5", 1, 500_000_000);
        check("-1", -1, 0);
        check("-1.5", -2, 500_000_000);
        check("-0.25", -1, 750_000_000);
        check("1.0000000019", 1, 1);
        assert!(time(b"1.x").is_err());
        assert!(time(b"").is_err());
    }

    #[test]
    fn a_written_record_reads_back() {
        for length in [1, 5, 88, 89, 90, 91, 92, 93, 990, 991, 992, 9_984, 9_985, 9_990] {
            let value = vec![b'x'; length];
            let mut out = Vec::new();
            write(&mut out, b"path", &value);
            assert_eq!(of(&out).unwrap().path.unwrap(), value, "{length}");
        }
    }

    #[test]
    fn sparse_maps() {
        let map = |records: &[u8]| of(records).and_then(|pax| pax.sparse.map());
        assert_eq!(
            map(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n").unwrap(),
            Some(Map::Data)
        );
        assert_eq!(
            map(b"26 GNU.sparse.map=0,1,5,2\n").unwrap(),
            Some(Map::Records(vec![(0, 1), (5, 2)]))
        );
        let repeated = b"23 GNU.sparse.offset=0\n25 GNU.sparse.numbytes=1\n";
        assert_eq!(map(repeated).unwrap(), Some(Map::Records(vec![(0, 1)])));
        assert!(map(b"24 GNU.sparse.map=0,1,5\n").is_err());
        assert!(map(b"25 GNU.sparse.numbytes=1\n").is_err());
        assert!(map(b"22 GNU.sparse.major=2\n22 GNU.sparse.minor=0\n").is_err());
    }
}
