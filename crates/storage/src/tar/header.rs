//! One block of 512 bytes, field by field.

use super::{BLOCK, invalid_header};
use stdx::Result;

pub(super) type Block = [u8; BLOCK];

pub(super) const NAME: std::ops::Range<usize> = 0..100;
pub(super) const MODE: std::ops::Range<usize> = 100..108;
pub(super) const UID: std::ops::Range<usize> = 108..116;
pub(super) const GID: std::ops::Range<usize> = 116..124;
pub(super) const SIZE: std::ops::Range<usize> = 124..136;
pub(super) const MTIME: std::ops::Range<usize> = 136..148;
pub(super) const CHECKSUM: std::ops::Range<usize> = 148..156;
pub(super) const TYPE: usize = 156;
pub(super) const LINK: std::ops::Range<usize> = 157..257;
pub(super) const MAGIC: std::ops::Range<usize> = 257..265;
pub(super) const MAJOR: std::ops::Range<usize> = 329..337;
pub(super) const MINOR: std::ops::Range<usize> = 337..345;
const PREFIX: std::ops::Range<usize> = 345..500;
const STAR_PREFIX: std::ops::Range<usize> = 345..476;
const STAR_TRAILER: std::ops::Range<usize> = 508..512;
const GNU_ACCESSED: std::ops::Range<usize> = 345..357;
const GNU_CHANGED: std::ops::Range<usize> = 357..369;
const GNU_SPARSE: std::ops::Range<usize> = 386..482;
const GNU_EXTENDED: usize = 482;
const GNU_REAL_SIZE: std::ops::Range<usize> = 483..495;
const EXTENSION_SPARSE: std::ops::Range<usize> = 0..504;
const EXTENSION_EXTENDED: usize = 504;

/// Which dialect a block is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// Recognises the dialect; a wrong checksum is no header at all.
pub(super) fn format(block: &Block) -> Result<Format> {
    let (unsigned, signed) = checksums(block);
    let given = number(&block[CHECKSUM])?;
    if given != unsigned && given != signed {
        return Err(invalid_header());
    }
    Ok(match &block[MAGIC] {
        b"ustar\x0000" if &block[STAR_TRAILER] == b"tar\0" => Format::Star,
        magic if magic.starts_with(b"ustar\0") => Format::Ustar,
        b"ustar  \0" => Format::Gnu,
        _ => Format::V7,
    })
}

/// The sum of all bytes with the checksum's own as blanks; some old writers took bytes as signed.
pub(super) fn checksums(block: &Block) -> (i64, i64) {
    let mut sums = (0, 0);
    for (at, byte) in block.iter().enumerate() {
        let byte = if CHECKSUM.contains(&at) { b' ' } else { *byte };
        sums.0 += i64::from(byte);
        sums.1 += i64::from(byte as i8);
    }
    sums
}

/// The name with its prefix, where the dialect has one.
pub(super) fn name(block: &Block, format: Format) -> Vec<u8> {
    let name = text(&block[NAME]);
    let prefix = match format {
        Format::V7 => b"",
        Format::Ustar => text(&block[PREFIX]),
        Format::Star => text(&block[STAR_PREFIX]),
        // Go before 1.8 wrote a prefix where GNU has two times; what cannot be a time is such a prefix.
        Format::Gnu => match [GNU_ACCESSED, GNU_CHANGED]
            .iter()
            .any(|field| number(&block[field.clone()]).is_err())
        {
            true if text(&block[PREFIX]).is_ascii() => text(&block[PREFIX]),
            _ => b"",
        },
    };
    if prefix.is_empty() { name.to_owned() } else { [prefix, b"/", name].concat() }
}

/// Up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|c| *c == 0).unwrap_or(field.len())]
}

/// An octal number between blanks and NULs, or a binary one when the first bit is set.
pub(super) fn number(field: &[u8]) -> Result<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => binary(field),
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Result<i64> {
    let blank = |c: &u8| *c == b' ' || *c == 0;
    let start = field.iter().position(|c| !blank(c)).unwrap_or(field.len());
    let digits = text(&field[start..]);
    let end = digits.iter().rposition(|c| !blank(c)).map_or(0, |last| last + 1);
    let mut value: i64 = 0;
    for digit in &digits[..end] {
        if !(b'0'..=b'7').contains(digit) {
            return Err(invalid_header());
        }
        value = value.checked_mul(8).ok_or_else(invalid_header)? + i64::from(digit - b'0');
    }
    Ok(value)
}

/// Two's complement, big-endian, the first bit only marks it.
fn binary(field: &[u8]) -> Result<i64> {
    let negative = field[0] & 0x40 != 0;
    let mut value: u64 = 0;
    for (at, byte) in field.iter().enumerate() {
        let byte = if negative { !byte } else { *byte };
        let byte = if at == 0 { byte & 0x7f } else { byte };
        if value >> 56 != 0 {
            return Err(invalid_header());
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).map_err(|_| invalid_header())?;
    Ok(if negative { !value } else { value })
}

/// The map of an old GNU sparse file. More blocks follow while the flag says so.
pub(super) struct SparseMap {
    pub segments: Vec<(u64, u64)>,
    pub extended: bool,
}

pub(super) fn sparse_header(block: &Block) -> Result<(u64, SparseMap)> {
    let size = u64::try_from(number(&block[GNU_REAL_SIZE])?).map_err(|_| invalid_header())?;
    Ok((
        size,
        SparseMap { segments: pairs(&block[GNU_SPARSE])?, extended: block[GNU_EXTENDED] > 0 },
    ))
}

pub(super) fn sparse_extension(block: &Block) -> Result<SparseMap> {
    Ok(SparseMap {
        segments: pairs(&block[EXTENSION_SPARSE])?,
        extended: block[EXTENSION_EXTENDED] > 0,
    })
}

fn pairs(field: &[u8]) -> Result<Vec<(u64, u64)>> {
    let read = |field: &[u8]| u64::try_from(number(field)?).map_err(|_| invalid_header());
    field
        .chunks_exact(24)
        .take_while(|pair| pair[0] != 0)
        .map(|pair| Ok((read(&pair[..12])?, read(&pair[12..])?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_go_reads_them() {
        // Cases of Go's own TestParseNumeric.
        let good: [(&[u8], i64); 15] = [
            (b"", 0),
            (b"\x80", 0),
            (b"\x80\x00", 0),
            (b"\xbf", 0x3f),
            (b"\xbf\xff", (1 << 14) - 1),
            (b"\xff", -1),
            (b"\xff\xff", -1),
            (b"\xc0", -64),
            (b"\xc0\x00", -(1 << 14)),
            (b"\x87\x76\xa2\x22\xeb\x8a\x72\x61", 537_795_476_381_659_745),
            (b"\x80\x00\x00\x00\x07\x76\xa2\x22\xeb\x8a\x72\x61", 537_795_476_381_659_745),
            (b"\xf7\x76\xa2\x22\xeb\x8a\x72\x61", -615_126_028_225_187_231),
            (b"0000000\0", 0),
            (b" 0000123 \0", 0o123),
            (b"01750\0 ", 0o1750),
        ];
        for (field, value) in good {
            assert_eq!(number(field).unwrap(), value, "{field:?}");
        }
        let bad: [&[u8]; 6] = [
            b"0123\x7fx",
            b"9\0",
            b"-1\0",
            b"\x80\xff\xff\xff\xff\xff\xff\xff\xff",
            b"1 2\0",
            b"777777777777777777777777",
        ];
        for field in bad {
            assert!(number(field).is_err(), "{field:?}");
        }
    }
}
