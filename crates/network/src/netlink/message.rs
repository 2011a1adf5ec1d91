//! The wire format: messages of a header, a fixed body and attributes, all aligned to four bytes.

use std::net::IpAddr;

pub(super) const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// The two upper bits of an attribute's type are flags.
const TYPE_MASK: u16 = 0x3fff;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
/// Flags of requests that make something.
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;

/// What the kernel is asked to answer to a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expect {
    /// Only a refusal is answered.
    Nothing,
    Ack,
    Dump,
}

/// Messages that go out together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    messages: Vec<(usize, Expect)>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Appends a message that is acknowledged.
    pub(crate) fn push(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        fill: impl FnOnce(&mut Attributes),
    ) {
        self.write(Expect::Ack, kind, flags | NLM_F_ACK, body, fill);
    }

    /// Appends a message of which only a failure is heard.
    pub(crate) fn push_silent(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        fill: impl FnOnce(&mut Attributes),
    ) {
        self.write(Expect::Nothing, kind, flags, body, fill);
    }

    /// Appends a question for all objects of a kind.
    pub(crate) fn push_dump(&mut self, kind: u16, body: &[u8], fill: impl FnOnce(&mut Attributes)) {
        self.write(Expect::Dump, kind, NLM_F_DUMP, body, fill);
    }

    fn write(
        &mut self,
        expect: Expect,
        kind: u16,
        flags: u16,
        body: &[u8],
        fill: impl FnOnce(&mut Attributes),
    ) {
        let start = self.bytes.len();
        self.messages.push((start, expect));
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend([0; 8]);
        self.bytes.extend(body);
        let mut attributes = Attributes(std::mem::take(&mut self.bytes));
        attributes.pad();
        fill(&mut attributes);
        self.bytes = attributes.0;
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn expect(&self, index: usize) -> Expect {
        self.messages[index].1
    }

    pub(super) fn expected(&self) -> impl Iterator<Item = Expect> {
        self.messages.iter().map(|(_, expect)| *expect)
    }

    /// Gives the messages their sequence numbers.
    pub(super) fn number(&mut self, first: u32) {
        for (index, (start, _)) in self.messages.iter().enumerate() {
            let sequence = first.wrapping_add(index as u32);
            self.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
        }
    }
}

/// A message that was received.
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    /// The number of the socket that is behind it.
    pub(crate) port: u32,
    pub(crate) body: &'a [u8],
}

/// The messages in `bytes`. Ends quietly where they stop making sense.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        if bytes.len() < HEADER {
            return None;
        }
        let length = u32_at(bytes, 0) as usize;
        let (kind, port) = (u16_at(bytes, 4), u32_at(bytes, 12));
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some(Message { kind, port, body })
    })
}

/// Attributes being written, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |attributes| attributes.0.extend(value));
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// nf_tables speaks network byte order.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn ip(&mut self, kind: u16, value: IpAddr) {
        match value {
            IpAddr::V4(ip) => self.bytes(kind, &ip.octets()),
            IpAddr::V6(ip) => self.bytes(kind, &ip.octets()),
        }
    }

    pub(crate) fn u16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.nest(kind, |attributes| {
            attributes.0.extend(value.as_bytes());
            attributes.0.push(0);
        });
    }

    /// An attribute made of attributes. Its type goes without `NLA_F_NESTED`: the kernel does not insist on it here, and
    /// gives nf_tables' attributes back without.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        fill(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    /// What stands between a nest's header and its attributes, as in `IFLA_INFO_DATA` of veth.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(align(self.0.len()), 0);
    }
}

/// The attributes in `bytes`: type and value. Ends quietly where they stop making sense.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        if bytes.len() < ATTRIBUTE_HEADER {
            return None;
        }
        let length = usize::from(u16_at(bytes, 0));
        let kind = u16_at(bytes, 2) & TYPE_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a type.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Text as the kernel writes it, up to its NUL.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

pub(super) const fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut written = Attributes::new();
        written.text(3, "eth0");
        written.nest(18, |inner| {
            inner.u32(1, 7);
            inner.u8(2, 9);
        });
        written.ip(5, Ipv4Addr::LOCALHOST.into());
        let bytes = written.into_bytes();
        assert_eq!(bytes.len() % 4, 0);
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(text(read[0].1), "eth0");
        assert_eq!(attribute(read[1].1, 2), Some(&[9][..]));
        assert_eq!(attribute(&bytes, 5), Some(&[127, 0, 0, 1][..]));
    }

    #[test]
    fn nonsense_ends_the_reading() {
        for bytes in [&[][..], &[1], &[0, 0, 0, 0], &[3, 0, 0, 0], &[200, 0, 1, 0, 0]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
    }

    #[test]
    fn messages_are_numbered_in_order() {
        let mut batch = Batch::new();
        batch.push(16, CREATE, &[0; 3], |message| message.text(3, "x"));
        batch.push_dump(18, &[], |_| {});
        batch.number(41);
        assert_eq!(u32_at(batch.bytes(), 0), 28);
        assert_eq!(u32_at(batch.bytes(), 8), 41);
        assert_eq!(u32_at(batch.bytes(), 28 + 8), 42);
    }
}
