//! As much of Protocol Buffers' encoding as CRIU's messages need: numbers, and bytes with their length.

use stdx::{Error, Result};

/// A message that grows field by field.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn number(&mut self, field: u32, value: i64) {
        self.varint(u64::from(field) << 3);
        // A negative number is ten bytes long: its two's complement of 64 bits.
        self.varint(value as u64);
    }

    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// One that is not set is not sent.
    pub(super) fn switch(&mut self, field: u32, on: bool) {
        if on {
            self.number(field, 1);
        }
    }

    pub(super) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(i64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Number(number) => number,
            Self::Bytes(_) => 0,
        }
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => &[],
        }
    }
}

/// The fields of a message in their order.
pub(super) fn fields(mut bytes: &[u8]) -> Result<Vec<(u32, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let field = u32::try_from(key >> 3).map_err(|_| garbled())?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)? as i64),
            1 => Value::Bytes(take(&mut bytes, 8)?),
            2 => {
                let length = varint(&mut bytes)?;
                Value::Bytes(take(&mut bytes, length)?)
            }
            5 => Value::Bytes(take(&mut bytes, 4)?),
            _ => return Err(garbled()),
        };
        fields.push((field, value));
    }
    Ok(fields)
}

fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(garbled())
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8]> {
    let length = usize::try_from(length).ok().filter(|length| *length <= bytes.len());
    let (taken, rest) = bytes.split_at(length.ok_or_else(garbled)?);
    *bytes = rest;
    Ok(taken)
}

fn garbled() -> Error {
    Error::internal("criu's answer is not a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let mut writer = Writer::default();
        writer.number(1, 300);
        writer.number(2, -1);
        writer.switch(3, false);
        writer.switch(26, true);
        writer.message(27, |inner| inner.bytes(1, b"pipe:[7]"));
        let bytes = writer.finish();
        assert_eq!(bytes[..3], [0x08, 0xac, 0x02], "as the encoding's description has it");
        let read = fields(&bytes).unwrap();
        assert_eq!(
            read[..3],
            [(1, Value::Number(300)), (2, Value::Number(-1)), (26, Value::Number(1))]
        );
        assert_eq!(fields(read[3].1.bytes()).unwrap(), [(1, Value::Bytes(b"pipe:[7]"))]);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [&[0x08][..], &[0x12, 5, 1], &[0x0b], &[0xff; 12]] {
            assert!(fields(bytes).is_err(), "{bytes:?}");
        }
    }
}
