//! DNS messages (RFC 1035, 2782, 6891), as far as a name server for containers has to read and write them.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Types of records, as IANA numbers them.
pub(super) const A: u16 = 1;
const CNAME: u16 = 5;
pub(super) const PTR: u16 = 12;
pub(super) const MX: u16 = 15;
pub(super) const AAAA: u16 = 28;
pub(super) const SRV: u16 = 33;
const OPT: u16 = 41;

pub(super) const INTERNET: u16 = 1;
/// The question itself asks for any class.
pub(super) const ANY_CLASS: u16 = 255;

const HEADER: usize = 12;
/// What a client can take by UDP unless it says more (RFC 1035).
const LEAST: usize = 512;
/// What we tell clients that we take: no fragment on any link.
const OURS: u16 = 1232;
/// The first name of a message, as a later one refers to it.
const QUESTION: [u8; 2] = [0xc0, HEADER as u8];

const RESPONSE: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;
const CHECKING_DISABLED: u16 = 0x0010;
const RCODE: u16 = 0x000f;

/// How a question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    NoError = 0,
    FormatError = 1,
    ServerFailure = 2,
    NoSuchName = 3,
    NotImplemented = 4,
    Refused = 5,
    BadVersion = 16,
}

/// One question, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query<'a> {
    id: u16,
    flags: u16,
    /// The question section, as it came: spelling is the client's.
    question: &'a [u8],
    /// Lower case, without the dot at the end.
    pub(super) name: String,
    pub(super) kind: u16,
    pub(super) class: u16,
    edns: Option<Edns>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edns {
    payload: u16,
    version: u8,
}

/// Why there is no question to be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// No message at all, or an answer: whoever answers that answers itself.
    Ignore,
    /// To be sent back.
    Answer(Vec<u8>),
}

/// A record in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) owner: Owner,
    pub(super) data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The name that was asked for.
    Asked,
    Other(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Ptr(String),
    Srv { port: u16, target: String },
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) records: Vec<Record>,
    /// What the client would ask for next.
    pub(super) additional: Vec<Record>,
}

/// How the question came, which is how the answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// Docker's.
const TIME_TO_LIVE: u32 = 600;

impl<'a> Query<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let (Some(id), Some(flags)) = (u16_at(bytes, 0), u16_at(bytes, 2)) else {
            return Err(Unreadable::Ignore);
        };
        if bytes.len() < HEADER || flags & RESPONSE != 0 {
            return Err(Unreadable::Ignore);
        }
        let refuse = |outcome| Unreadable::Answer(header(id, flags, outcome, 0).to_vec());
        if flags & OPCODE != 0 {
            return Err(refuse(Outcome::NotImplemented));
        }
        Self::read(bytes, id, flags).ok_or_else(|| refuse(Outcome::FormatError))
    }

    fn read(bytes: &'a [u8], id: u16, flags: u16) -> Option<Self> {
        let count = |at| u16_at(bytes, at).map(usize::from);
        if count(4)? != 1 {
            return None;
        }
        let (name, after) = read_name(bytes, HEADER)?;
        let (kind, class) = (u16_at(bytes, after)?, u16_at(bytes, after + 2)?);
        let question = bytes.get(HEADER..after + 4)?;
        let mut at = after + 4;
        let mut edns = None;
        for _ in 0..count(6)? + count(8)? + count(10)? {
            at = skip_name(bytes, at)?;
            let kind = u16_at(bytes, at)?;
            let length = usize::from(u16_at(bytes, at + 8)?);
            if kind == OPT {
                let payload = u16_at(bytes, at + 2)?;
                // A second one is a mistake (RFC 6891, 6.1.1).
                if edns.replace(Edns { payload, version: *bytes.get(at + 5)? }).is_some() {
                    return None;
                }
            }
            at += 10;
            bytes.get(at..at + length)?;
            at += length;
        }
        Some(Self { id, flags, question, name, kind, class, edns })
    }

    /// A name without a dot: one that a search domain may be meant to follow.
    pub(super) fn is_single_label(&self) -> bool {
        !self.name.contains('.')
    }

    /// Must this be answered with a refusal, whatever it asks?
    pub(super) fn speaks_unknown_version(&self) -> bool {
        self.edns.is_some_and(|edns| edns.version != 0)
    }

    /// The message that carries an answer; what does not fit is left out and said to be.
    pub(super) fn reply(&self, answer: &Answer, transport: Transport) -> Vec<u8> {
        let limit = match (transport, self.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, Some(edns)) => usize::from(edns.payload).max(LEAST),
            (Transport::Udp, None) => LEAST,
        };
        let limit = limit - if self.edns.is_some() { OPT_LENGTH } else { 0 };
        let mut message = self.begin(Outcome::NoError);
        for record in &answer.records {
            let Some(encoded) = record.encode() else { return self.fail(Outcome::ServerFailure) };
            if message.len() + encoded.len() > limit {
                message[2] |= (TRUNCATED >> 8) as u8;
                return self.end(message, Outcome::NoError);
            }
            message.extend(encoded);
            increment(&mut message, 6);
        }
        // Nobody misses these.
        for encoded in answer.additional.iter().filter_map(Record::encode) {
            if message.len() + encoded.len() > limit {
                break;
            }
            message.extend(encoded);
            increment(&mut message, 10);
        }
        self.end(message, Outcome::NoError)
    }

    /// The message that carries no answer but this.
    pub(super) fn fail(&self, outcome: Outcome) -> Vec<u8> {
        self.end(self.begin(outcome), outcome)
    }

    /// Does this message answer this question, asked with another `id`? Whoever else can send us packets is not to
    /// answer for an upstream.
    pub(super) fn is_answered_by(&self, id: u16, message: &[u8]) -> bool {
        let answers = u16_at(message, 0) == Some(id)
            && u16_at(message, 2).is_some_and(|flags| flags & RESPONSE != 0)
            && u16_at(message, 4) == Some(1);
        // Some servers do not keep the spelling.
        answers
            && message
                .get(HEADER..HEADER + self.question.len())
                .is_some_and(|question| question.eq_ignore_ascii_case(self.question))
    }

    /// An upstream's answer, as ours.
    pub(super) fn adopt(&self, mut message: Vec<u8>) -> Vec<u8> {
        message[..2].copy_from_slice(&self.id.to_be_bytes());
        message
    }

    fn begin(&self, outcome: Outcome) -> Vec<u8> {
        let mut message = header(self.id, self.flags, outcome, 1).to_vec();
        message.extend(self.question);
        message
    }

    fn end(&self, mut message: Vec<u8>, outcome: Outcome) -> Vec<u8> {
        if self.edns.is_some() {
            message.push(0);
            for number in [OPT, OURS, u16::from((outcome as u16 >> 4) as u8) << 8, 0, 0] {
                message.extend(number.to_be_bytes());
            }
            increment(&mut message, 10);
        }
        message
    }
}

/// Name, type, class, time to live, length.
const OPT_LENGTH: usize = 11;

/// The question as it is asked of somebody else.
pub(super) fn with_id(query: &[u8], id: u16) -> Vec<u8> {
    let mut message = query.to_vec();
    message[..2].copy_from_slice(&id.to_be_bytes());
    message
}

/// Has whoever sent this message failed to find out? Then another may know.
pub(super) fn is_failure(message: &[u8]) -> bool {
    let rcode = u16_at(message, 2).map(|flags| flags & RCODE);
    rcode == Some(Outcome::ServerFailure as u16) || rcode == Some(Outcome::Refused as u16)
}

/// The addresses that an answer says a name has, by whichever other names, and how long each is good.
pub(super) fn addresses(message: &[u8], name: &str) -> Vec<(IpAddr, Duration)> {
    let mut found = Vec::new();
    let mut meant = vec![name.to_owned()];
    // Whoever answers gives another name before what it means.
    for record in answers(message).unwrap_or_default() {
        if !meant.contains(&record.owner) {
            continue;
        }
        let good = Duration::from_secs(record.time_to_live.into());
        match record.data {
            Found::Address(address) => found.push((address, good)),
            Found::Name(name) => meant.push(name),
            Found::Other => {}
        }
    }
    found
}

struct FoundRecord {
    owner: String,
    time_to_live: u32,
    data: Found,
}

enum Found {
    Address(IpAddr),
    Name(String),
    Other,
}

/// The records of the answer's section; `None` where they make no sense.
fn answers(message: &[u8]) -> Option<Vec<FoundRecord>> {
    let count = |at| u16_at(message, at).map(usize::from);
    let mut at = HEADER;
    for _ in 0..count(4)? {
        at = skip_name(message, at)? + 4;
    }
    let mut records = Vec::new();
    for _ in 0..count(6)? {
        let owner = follow_name(message, at)?;
        at = skip_name(message, at)?;
        let (kind, class) = (u16_at(message, at)?, u16_at(message, at + 2)?);
        let time_to_live = u32::from_be_bytes(message.get(at + 4..at + 8)?.try_into().ok()?);
        let length = usize::from(u16_at(message, at + 8)?);
        at += 10;
        let bytes = message.get(at..at + length)?;
        let data = match (class, kind) {
            (INTERNET, A) => {
                Found::Address(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into())
            }
            (INTERNET, AAAA) => {
                Found::Address(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
            }
            (INTERNET, CNAME) => Found::Name(follow_name(message, at)?),
            _ => Found::Other,
        };
        at += length;
        records.push(FoundRecord { owner, time_to_live, data });
    }
    Some(records)
}

/// A name in a record, which may go on in one before it.
fn follow_name(bytes: &[u8], mut at: usize) -> Option<String> {
    let mut name = Vec::new();
    let mut limit = at;
    loop {
        match *bytes.get(at)? {
            0 => break,
            length @ 1..=63 => {
                name.extend(bytes.get(at..=at + usize::from(length))?);
                at += 1 + usize::from(length);
            }
            0xc0.. => {
                at = usize::from(u16_at(bytes, at)? & 0x3fff);
                // Always further back, so there is an end to it.
                if at >= limit {
                    return None;
                }
                limit = at;
            }
            _ => return None,
        }
        if name.len() > 254 {
            return None;
        }
    }
    name.push(0);
    read_name(&name, 0).map(|(name, _)| name)
}

impl Record {
    /// `None` for a name that cannot be written.
    fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = match &self.owner {
            Owner::Asked => QUESTION.to_vec(),
            Owner::Other(name) => encode_name(name)?,
        };
        let (kind, data) = match &self.data {
            Data::A(ip) => (A, ip.octets().to_vec()),
            Data::Aaaa(ip) => (AAAA, ip.octets().to_vec()),
            Data::Ptr(name) => (PTR, encode_name(name)?),
            Data::Srv { port, target } => {
                let mut data = Vec::new();
                for number in [0, 0, *port] {
                    data.extend(number.to_be_bytes());
                }
                data.extend(encode_name(target)?);
                (SRV, data)
            }
        };
        bytes.extend(kind.to_be_bytes());
        bytes.extend(INTERNET.to_be_bytes());
        bytes.extend(TIME_TO_LIVE.to_be_bytes());
        bytes.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        bytes.extend(data);
        Some(bytes)
    }
}

fn header(id: u16, asked: u16, outcome: Outcome, questions: u16) -> [u8; HEADER] {
    let kept = asked & (OPCODE | RECURSION_DESIRED | CHECKING_DISABLED);
    let flags = RESPONSE | RECURSION_AVAILABLE | kept | (outcome as u16 & RCODE);
    let mut bytes = [0; HEADER];
    for (index, number) in [id, flags, questions].into_iter().enumerate() {
        bytes[index * 2..index * 2 + 2].copy_from_slice(&number.to_be_bytes());
    }
    bytes
}

fn increment(message: &mut [u8], at: usize) {
    let count = u16_at(message, at).unwrap_or_default().saturating_add(1);
    message[at..at + 2].copy_from_slice(&count.to_be_bytes());
}

/// A name in a question, where nothing can be referred to yet. What is no letter of a host's name is written so that it
/// can never be taken for one.
fn read_name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let start = at;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        match length {
            0 => break,
            1..=63 => {}
            _ => return None,
        }
        if !name.is_empty() {
            name.push('.');
        }
        for byte in bytes.get(at..at + length)? {
            match byte {
                b'.' | b'\\' | 0..=b' ' | 0x7f.. => {
                    write!(name, "\\{byte:03}").expect("a String takes all");
                }
                _ => name.push(byte.to_ascii_lowercase().into()),
            }
        }
        at += length;
        if at - start > 254 {
            return None;
        }
    }
    Some((name, at))
}

/// The end of a name in a record.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

fn encode_name(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let length = u8::try_from(label.len()).ok().filter(|length| *length <= 63)?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= 255).then_some(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A question as clients send it.
    pub(crate) fn question(name: &str, kind: u16, payload: Option<u16>) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(payload.is_some())];
        bytes.extend(encode_name(name).unwrap());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(INTERNET.to_be_bytes());
        if let Some(payload) = payload {
            bytes.extend([0, 0, OPT as u8]);
            bytes.extend(payload.to_be_bytes());
            bytes.extend([0; 6]);
        }
        bytes
    }

    fn addresses(count: u8) -> Answer {
        let record =
            |last| Record { owner: Owner::Asked, data: Data::A(Ipv4Addr::new(172, 18, 0, last)) };
        Answer { records: (0..count).map(record).collect(), additional: Vec::new() }
    }

    #[test]
    fn a_question_is_read() {
        let bytes = question("Web.Back", AAAA, Some(4096));
        let query = Query::parse(&bytes).unwrap();
        assert_eq!((query.name.as_str(), query.kind, query.class), ("web.back", AAAA, INTERNET));
        assert!(!query.is_single_label() && !query.speaks_unknown_version());
    }

    #[test]
    fn an_answer_keeps_the_spelling() {
        let bytes = question("WeB", A, None);
        let reply = Query::parse(&bytes).unwrap().reply(&addresses(1), Transport::Udp);
        let expected = [
            &[0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0][..],
            b"\x03WeB\0\0\x01\0\x01",
            b"\xc0\x0c\0\x01\0\x01\0\0\x02\x58\0\x04\xac\x12\0\0",
        ];
        assert_eq!(reply, expected.concat());
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let many = addresses(100);
        let plain = question("web", A, None);
        let reply = Query::parse(&plain).unwrap().reply(&many, Transport::Udp);
        assert!(reply.len() <= LEAST && reply[2] & 2 != 0, "{}", reply.len());
        let larger = question("web", A, Some(4096));
        let reply = Query::parse(&larger).unwrap().reply(&many, Transport::Udp);
        assert!(reply[2] & 2 == 0);
        assert_eq!(u16_at(&reply, 6), Some(100));
        let reply = Query::parse(&plain).unwrap().reply(&many, Transport::Tcp);
        assert_eq!((reply[2] & 2, u16_at(&reply, 6)), (0, Some(100)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(Query::parse(b"").unwrap_err(), Unreadable::Ignore);
        let mut answer = question("web", A, None);
        answer[2] |= 0x80;
        assert_eq!(Query::parse(&answer).unwrap_err(), Unreadable::Ignore);
        let outcome = |bytes: &[u8]| match Query::parse(bytes) {
            Err(Unreadable::Answer(answer)) => answer[3] & 15,
            other => panic!("{other:?}"),
        };
        let mut update = question("web", A, None);
        update[2] |= 0x28;
        assert_eq!(outcome(&update), 4);
        let mut none = question("web", A, None);
        none[5] = 0;
        assert_eq!(outcome(&none), 1);
        let whole = question("web", A, Some(512));
        for cut in HEADER..whole.len() {
            assert_eq!(outcome(&whole[..cut]), 1, "{cut}");
        }
        let mut pointer = question("web", A, None);
        pointer[HEADER] = 0xc0;
        assert_eq!(outcome(&pointer), 1);
    }

    #[test]
    fn names_that_only_look_like_hosts() {
        let mut bytes = question("a-b", A, None);
        bytes[HEADER + 2] = b'.';
        assert_eq!(Query::parse(&bytes).unwrap().name, "a\\046b");
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let bytes = question("web", A, None);
        let query = Query::parse(&bytes).unwrap();
        let answer = with_id(&query.fail(Outcome::NoError), 7);
        assert!(query.is_answered_by(7, &answer));
        assert!(!query.is_answered_by(8, &answer));
        let other = question("wob", A, None);
        let forged = with_id(&Query::parse(&other).unwrap().fail(Outcome::NoError), 7);
        assert!(!query.is_answered_by(7, &forged));
        assert!(!query.is_answered_by(7, &with_id(&bytes, 7)));
        assert_eq!(query.adopt(answer)[..2], [0xab, 0xcd]);
    }

    proptest! {
        #[test]
        fn nothing_that_comes_in_does_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(query) = Query::parse(&bytes) {
                for transport in [Transport::Udp, Transport::Tcp] {
                    let reply = query.reply(&addresses(9), transport);
                    prop_assert_eq!(&reply[..2], &bytes[..2]);
                }
                query.is_answered_by(7, &bytes);
            }
            is_failure(&bytes);
        }

        /// A real message with some bytes changed gets further than noise does.
        #[test]
        fn nor_does_what_was_tampered_with(
            name in "[a-z]{1,20}(\\.[a-z]{1,20}){0,5}",
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            payload in prop::option::of(any::<u16>()),
        ) {
            let mut bytes = question(&name, A, payload);
            for (index, byte) in changes {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(query) = Query::parse(&bytes) {
                let reply = query.reply(&addresses(200), Transport::Udp);
                let limit = payload_of(&query).max(LEAST);
                prop_assert!(reply.len() <= limit);
                let failure = query.fail(Outcome::ServerFailure);
                prop_assert!(is_failure(&failure));
                prop_assert!(query.is_answered_by(query.id, &failure));
            }
        }

        #[test]
        fn names_come_back(name in "[a-z0-9_-]{1,63}(\\.[a-z0-9_-]{1,40}){0,3}") {
            let bytes = question(&name, PTR, Some(1232));
            prop_assert_eq!(Query::parse(&bytes).unwrap().name, name);
        }
    }

    fn payload_of(query: &Query) -> usize {
        query.edns.map_or(0, |edns| usize::from(edns.payload))
    }
}
