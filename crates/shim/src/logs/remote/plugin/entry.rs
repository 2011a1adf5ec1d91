//! A record as plugins write and read it: protobuf, with its length before it.

use stdx::{Error, Result};

use super::super::frame::Message;

/// No record of ours is longer, and no plugin's has reason to be.
const LONGEST: u32 = 4 << 20;

pub(super) fn encode(message: &Message<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(message.line.len() + 64);
    bytes_field(1, message.source().as_bytes(), &mut body);
    let nanos = i64::try_from(message.unix_nanos()).unwrap_or_default();
    number_field(2, nanos.cast_unsigned(), &mut body);
    bytes_field(3, message.line, &mut body);
    if let Some(part) = message.part {
        number_field(4, 1, &mut body);
        let mut about = Vec::new();
        number_field(1, u64::from(part.last), &mut about);
        bytes_field(2, part.id.as_bytes(), &mut about);
        number_field(3, u64::from(part.ordinal), &mut about);
        bytes_field(5, &about, &mut body);
    }
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &body].concat()
}

/// Zero and nothing are not written.
fn number_field(number: u8, value: u64, out: &mut Vec<u8>) {
    if value > 0 {
        out.push(number << 3);
        varint(value, out);
    }
}

fn bytes_field(number: u8, value: &[u8], out: &mut Vec<u8>) {
    if !value.is_empty() {
        out.push(number << 3 | 2);
        varint(value.len() as u64, out);
        out.extend_from_slice(value);
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// A record that a plugin gives back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) source: String,
    pub(super) nanos: i64,
    pub(super) line: Vec<u8>,
}

/// How long the record is that follows these bytes.
pub(super) fn length(head: [u8; 4]) -> Result<usize> {
    match u32::from_be_bytes(head) {
        length if length <= LONGEST => Ok(length as usize),
        _ => Err(Error::internal("a record of the plugin is too long")),
    }
}

/// Fields that are not known are skipped.
pub(super) fn decode(mut bytes: &[u8]) -> Result<Entry> {
    let bad = || Error::internal("proto: LogEntry: wrong wire");
    let mut entry = Entry::default();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes).ok_or_else(bad)?;
        let length = match key & 7 {
            0 => {
                let value = take_varint(&mut bytes).ok_or_else(bad)?;
                if key >> 3 == 2 {
                    entry.nanos = value.cast_signed();
                }
                continue;
            }
            1 => 8,
            2 => take_varint(&mut bytes).ok_or_else(bad)?,
            5 => 4,
            _ => return Err(bad()),
        };
        let length = usize::try_from(length).map_err(|_| bad())?;
        let (value, rest) = bytes.split_at_checked(length).ok_or_else(bad)?;
        bytes = rest;
        match key {
            0x0a => entry.source = String::from_utf8_lossy(value).into_owned(),
            0x1a => entry.line = value.to_vec(),
            _ => {}
        }
    }
    Ok(entry)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::super::frame::Part;
    use super::*;
    use crate::protocol::Stream;

    #[test]
    fn a_record() {
        let part = Part { id: "i".to_owned(), ordinal: 2, last: true };
        let message = Message {
            stream: Stream::Stdout,
            seconds: 0,
            nanos: 300,
            line: b"hi",
            part: Some(&part),
        };
        let expected = b"\0\0\0\x1a\x0a\x06stdout\x10\xac\x02\x1a\x02hi\x20\x01\x2a\x07\x08\x01\x12\x01i\x18\x02";
        let bytes = encode(&message);
        assert_eq!(usize::from(bytes[3]), bytes.len() - 4);
        assert_eq!(bytes[4..], expected[4..]);
        let plain = encode(&Message { part: None, line: b"", ..message });
        assert_eq!(plain[4..], b"\x0a\x06stdout\x10\xac\x02"[..]);
    }

    #[test]
    fn records_come_back() {
        let part = Part { id: "i".to_owned(), ordinal: 2, last: true };
        let message = Message {
            stream: Stream::Stderr,
            seconds: 7,
            nanos: 300,
            line: b"hi\n",
            part: Some(&part),
        };
        let bytes = encode(&message);
        let head = bytes[..4].try_into().unwrap();
        assert_eq!(length(head).unwrap(), bytes.len() - 4);
        let expected =
            Entry { source: "stderr".to_owned(), nanos: 7_000_000_300, line: b"hi\n".to_vec() };
        assert_eq!(decode(&bytes[4..]).unwrap(), expected);
        assert!(length([255; 4]).is_err());
        for torn in [&b"\x0a"[..], b"\x0a\x05ab", b"\xff\xff", b"\x0b"] {
            assert!(decode(torn).is_err(), "{torn:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_read_does_harm(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100)) {
            let _whatever = decode(&bytes);
        }
    }
}
