//! D-Bus as bytes: the messages that we send, and what we understand of those that come. Little-endian only.

use stdx::{Error, Result};

/// Nobody whom we ask has more to say.
pub(super) const LONGEST: usize = 1 << 20;
/// So much of a message tells how long it is.
pub const START: usize = 16;

const LITTLE_ENDIAN: u8 = b'l';
const VERSION: u8 = 1;
/// Nobody is started for the sake of our question.
const NO_AUTO_START: u8 = 2;

/// What if nobody has the name that is asked?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    Fails,
    /// The bus starts who has it, or waits for him who is on his way.
    IsAwaited,
}

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    Call = 1,
    Answer = 2,
    Refusal = 3,
    #[default]
    Signal = 4,
}

/// Whom a question is for, and which it is.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
    pub absent: Absent,
}

/// What a question can carry.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    Flag(bool),
    Number(u64),
    Text(&'a str),
    Texts(&'a [&'a str]),
    Bytes(&'a [u8]),
    /// `au`
    Numbers(&'a [u32]),
    /// `a{sv}`
    Settings(&'a [(&'a str, Value<'a>)]),
    /// `a(sv)`
    Properties(&'a [(&'a str, Value<'a>)]),
    Struct(&'a [Value<'a>]),
    /// An array of nothing, which would be of this type.
    Nothing(&'static str),
}

impl Value<'_> {
    fn signature(&self) -> String {
        match self {
            Self::Flag(_) => "b".to_owned(),
            Self::Number(_) => "t".to_owned(),
            Self::Bytes(_) => "ay".to_owned(),
            Self::Numbers(_) => "au".to_owned(),
            Self::Properties(_) => "a(sv)".to_owned(),
            Self::Text(_) => "s".to_owned(),
            Self::Texts(_) => "as".to_owned(),
            Self::Settings(_) => "a{sv}".to_owned(),
            Self::Struct(fields) => format!("({})", signature(fields)),
            Self::Nothing(element) => format!("a{element}"),
        }
    }
}

fn signature(values: &[Value<'_>]) -> String {
    values.iter().map(Value::signature).collect()
}

/// A call, ready to be sent.
pub(super) fn call(serial: u32, question: &Question<'_>, arguments: &[Value<'_>]) -> Vec<u8> {
    let mut body = Writer::default();
    arguments.iter().for_each(|value| body.value(value));
    let mut message = Writer::default();
    let flags = match question.absent {
        Absent::Fails => NO_AUTO_START,
        Absent::IsAwaited => 0,
    };
    message.bytes.extend([LITTLE_ENDIAN, Kind::Call as u8, flags, VERSION]);
    message.number(body.bytes.len() as u32);
    message.number(serial);
    message.array(8, |fields| {
        for (code, kind, text) in [
            (PATH, "o", question.path),
            (INTERFACE, "s", question.interface),
            (MEMBER, "s", question.member),
            (DESTINATION, "s", question.destination),
        ] {
            fields.align(8);
            fields.bytes.push(code);
            fields.signature(kind);
            fields.text(text);
        }
        if !arguments.is_empty() {
            fields.align(8);
            fields.bytes.push(SIGNATURE);
            fields.signature("g");
            fields.signature(&signature(arguments));
        }
    });
    message.align(8);
    message.bytes.extend(body.bytes);
    message.bytes
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.bytes.push(signature.len() as u8);
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    /// The length does not count what brings the first element to its place.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.number(0);
        let place = self.bytes.len() - 4;
        self.align(alignment);
        let first = self.bytes.len();
        elements(self);
        let length = (self.bytes.len() - first) as u32;
        self.bytes[place..place + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn value(&mut self, value: &Value<'_>) {
        match value {
            Value::Flag(flag) => self.number((*flag).into()),
            Value::Text(text) => self.text(text),
            Value::Texts(texts) => {
                self.array(4, |array| texts.iter().for_each(|text| array.text(text)));
            }
            Value::Number(number) => {
                self.align(8);
                self.bytes.extend(number.to_le_bytes());
            }
            Value::Bytes(bytes) => self.array(1, |array| array.bytes.extend(*bytes)),
            Value::Numbers(numbers) => {
                self.array(4, |array| numbers.iter().for_each(|number| array.number(*number)));
            }
            // Pairs and structs of two are laid out alike.
            Value::Settings(settings) | Value::Properties(settings) => self.array(8, |array| {
                for (name, value) in *settings {
                    array.align(8);
                    array.text(name);
                    array.signature(&value.signature());
                    array.value(value);
                }
            }),
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().for_each(|field| self.value(field));
            }
            Value::Nothing(element) => {
                self.array(if element.starts_with(['(', '{']) { 8 } else { 4 }, |_| {});
            }
        }
    }
}

/// A message from somebody else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub kind: Kind,
    pub reply_to: u32,
    pub interface: String,
    pub member: String,
    pub error: String,
    pub sender: String,
    /// The texts that it begins with, those in lists included; numbers between them are passed over.
    pub texts: Vec<String>,
}

/// How long a message is that begins like this.
pub fn length(start: &[u8; START]) -> Result<usize> {
    if start[0] != LITTLE_ENDIAN || start[3] != VERSION {
        return Err(broken());
    }
    let number =
        |at: usize| u32::from_le_bytes(start[at..at + 4].try_into().expect("four bytes")) as usize;
    let (body, fields) = (number(4), number(12));
    if body > LONGEST || fields > LONGEST {
        return Err(broken());
    }
    Ok((START + fields).next_multiple_of(8) + body)
}

/// Reads a whole message, of which [`length`] has told the length.
pub fn parse(bytes: &[u8]) -> Result<Message> {
    parsed(bytes).ok_or_else(broken)
}

fn broken() -> Error {
    Error::unavailable("the system bus says what cannot be understood")
}

fn parsed(bytes: &[u8]) -> Option<Message> {
    let mut message = Message {
        kind: match bytes.get(1)? {
            1 => Kind::Call,
            2 => Kind::Answer,
            3 => Kind::Refusal,
            4 => Kind::Signal,
            _ => return None,
        },
        ..Message::default()
    };
    let mut reader = Reader { bytes, at: 12 };
    let end = reader.number()? as usize + START;
    let mut of_body = String::new();
    while reader.at < end {
        reader.align(8)?;
        let code = reader.byte()?;
        let kind = reader.signature()?;
        match (code, kind) {
            (INTERFACE, "s") => message.interface = reader.text()?,
            (MEMBER, "s") => message.member = reader.text()?,
            (ERROR_NAME, "s") => message.error = reader.text()?,
            (SENDER, "s") => message.sender = reader.text()?,
            (SIGNATURE, "g") => reader.signature()?.clone_into(&mut of_body),
            (REPLY_SERIAL, "u") => message.reply_to = reader.number()?,
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.number()?),
            _ => return None,
        }
    }
    reader.align(8)?;
    let mut body = Reader { bytes: &bytes[reader.at..], at: 0 };
    let mut signature = of_body.as_str();
    loop {
        signature = match signature.as_bytes() {
            [b's' | b'o', ..] => {
                message.texts.push(body.text()?);
                &signature[1..]
            }
            [b'u' | b'i' | b'b', ..] => {
                body.number()?;
                &signature[1..]
            }
            [b'a', b's' | b'o', ..] => {
                let length = body.number()? as usize;
                let end = body.at.checked_add(length).filter(|end| *end <= body.bytes.len())?;
                while body.at < end {
                    message.texts.push(body.text()?);
                }
                &signature[2..]
            }
            _ => return Some(message),
        };
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn align(&mut self, to: usize) -> Option<()> {
        self.take(self.at.next_multiple_of(to) - self.at).map(drop)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4)?;
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    /// Text, and the NUL after it.
    fn ended(&mut self, length: usize) -> Option<&'a str> {
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        (self.byte()? == 0).then_some(text)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        self.ended(length).map(str::to_owned)
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = self.byte()?;
        self.ended(length.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HELLO: Question<'_> = Question {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member: "Hello",
        absent: Absent::Fails,
    };

    /// As the specification lays it out.
    #[test]
    fn a_call_by_hand() {
        let mut expected =
            b"l\x01\x02\x01\x00\x00\x00\x00\x01\x00\x00\x00\x6d\x00\x00\x00".to_vec();
        expected.extend(b"\x01\x01o\x00\x15\x00\x00\x00/org/freedesktop/DBus\x00\x00\x00");
        expected.extend(b"\x02\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00");
        expected.extend(b"\x03\x01s\x00\x05\x00\x00\x00Hello\x00\x00\x00");
        expected.extend(b"\x06\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00");
        let sent = call(1, &HELLO, &[]);
        assert_eq!(sent, expected);
        assert_eq!(length(sent.first_chunk().unwrap()).unwrap(), sent.len());
    }

    #[test]
    fn settings_are_aligned() {
        let mut body = Writer::default();
        body.value(&Value::Settings(&[("on", Value::Flag(true)), ("l", Value::Texts(&["x"]))]));
        let mut expected = b"\x26\x00\x00\x00\x00\x00\x00\x00".to_vec();
        expected.extend(b"\x02\x00\x00\x00on\x00\x01b\x00\x00\x00\x01\x00\x00\x00");
        expected.extend(
            b"\x01\x00\x00\x00l\x00\x02as\x00\x00\x00\x06\x00\x00\x00\x01\x00\x00\x00x\x00",
        );
        assert_eq!(body.bytes, expected);
    }

    #[test]
    fn numbers_have_their_places() {
        let mut body = Writer::default();
        body.value(&Value::Properties(&[
            ("a", Value::Number(258)),
            ("b", Value::Numbers(&[7])),
            ("c", Value::Bytes(&[3, 1])),
        ]));
        let mut expected = b"\x36\x00\x00\x00\x00\x00\x00\x00".to_vec();
        expected.extend(b"\x01\x00\x00\x00a\x00\x01t\x00\x00\x00\x00\x00\x00\x00\x00");
        expected.extend(b"\x02\x01\x00\x00\x00\x00\x00\x00");
        expected.extend(b"\x01\x00\x00\x00b\x00\x02au\x00\x00\x00\x04\x00\x00\x00");
        expected.extend(b"\x07\x00\x00\x00\x00\x00\x00\x00");
        expected.extend(b"\x01\x00\x00\x00c\x00\x02ay\x00\x00\x00\x02\x00\x00\x00\x03\x01");
        let length = (expected.len() - 8) as u8;
        expected[0] = length;
        assert_eq!(body.bytes, expected);
    }

    #[test]
    fn signatures() {
        let pairs = Value::Nothing("(ss)");
        let fields = [Value::Text(""), Value::Flag(false), pairs, Value::Texts(&[])];
        assert_eq!(signature(&[Value::Text(""), Value::Struct(&fields)]), "s(sba(ss)as)");
        assert_eq!(Value::Settings(&[]).signature(), "a{sv}");
    }

    #[test]
    fn too_long_is_not_read() {
        let mut start = *b"l\x02\x01\x01\x00\x00\x00\x00\x01\x00\x00\x00\x10\x00\x00\x00";
        assert_eq!(length(&start).unwrap(), 32);
        start[7] = 1;
        length(&start).unwrap_err();
        start[7] = 0;
        start[0] = b'B';
        length(&start).unwrap_err();
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            serial in 1u32..,
            member in "[A-Za-z]{1,30}",
            first in ".{0,40}",
            list in proptest::collection::vec("[^\0]{0,20}", 0..6),
        ) {
            let texts: Vec<&str> = list.iter().map(String::as_str).collect();
            let question = Question { member: &member, ..HELLO };
            let arguments = [Value::Text(&first), Value::Texts(&texts), Value::Flag(true)];
            let sent = call(serial, &question, &arguments);
            prop_assert_eq!(length(sent.first_chunk().unwrap()).unwrap(), sent.len());
            let read = parse(&sent).unwrap();
            prop_assert_eq!((read.kind, &read.member), (Kind::Call, &member));
            prop_assert_eq!(&read.interface, HELLO.interface);
            prop_assert_eq!(&read.texts[0], &first);
            prop_assert_eq!(&read.texts[1..], &list[..]);
        }

        #[test]
        fn nonsense_is_refused_in_peace(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _any = parse(&bytes);
            if let Some(start) = bytes.first_chunk() {
                let _any = length(start);
            }
        }

        #[test]
        fn a_changed_byte_does_no_harm(at in 0usize..120, byte in any::<u8>()) {
            let mut sent = call(7, &HELLO, &[Value::Text("one"), Value::Texts(&["two", "three"])]);
            let at = at % sent.len();
            sent[at] = byte;
            let _any = parse(&sent);
        }
    }
}
