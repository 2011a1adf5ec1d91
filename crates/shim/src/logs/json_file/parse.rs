//! One line of a json-file log, understood without building a tree: readers do this hundreds of thousands of times.

use std::ops::Range;

use stdx::time::Timestamp;

use crate::logs::Stamp;
use crate::logs::stamp::Reading;
use crate::protocol::Stream;

/// What stands in a line; the text went into the buffer given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) at: Timestamp,
    pub(super) stream: Stream,
    /// Where in the line the object of attributes is.
    pub(super) attrs: Option<Range<usize>>,
}

/// `None` for what is not a record: torn by a power cut, or somebody else's.
pub(super) fn parse(line: &[u8], text: &mut Vec<u8>, clock: &mut Reading) -> Option<Parsed> {
    text.clear();
    as_written(line, text, clock).or_else(|| {
        text.clear();
        any_spelling(line, text)
    })
}

/// A record as dockerd and we write it, if it has no attributes and nothing escaped but ends of lines and quotes: most do.
fn as_written(line: &[u8], text: &mut Vec<u8>, clock: &mut Reading) -> Option<Parsed> {
    let mut rest = line.strip_prefix(b"{\"log\":\"")?;
    loop {
        let at = memchr::memchr2(b'"', b'\\', rest)?;
        text.extend_from_slice(&rest[..at]);
        if rest[at] == b'"' {
            rest = &rest[at + 1..];
            break;
        }
        text.push(match rest.get(at + 1)? {
            b'n' => b'\n',
            plain @ (b'"' | b'\\') => *plain,
            _ => return None,
        });
        rest = &rest[at + 2..];
    }
    let rest = rest.strip_prefix(b",\"stream\":\"std")?;
    let (stream, rest) = match rest.strip_prefix(b"out") {
        Some(rest) => (Stream::Stdout, rest),
        None => (Stream::Stderr, rest.strip_prefix(b"err")?),
    };
    let spelled = rest.strip_prefix(b"\",\"time\":\"")?.strip_suffix(b"\"}")?;
    Some(Parsed { at: clock.parse(spelled)?, stream, attrs: None })
}

fn any_spelling(line: &[u8], text: &mut Vec<u8>) -> Option<Parsed> {
    let mut scan = Scan { line, at: 0 };
    let (mut at, mut stream, mut attrs) = (None, Stream::Stdout, None);
    // A power cut may leave a hole of zeros before the first record written after it.
    while scan.peek() == Some(0) {
        scan.at += 1;
    }
    scan.expect(b'{')?;
    loop {
        let key = scan.string()?;
        scan.expect(b':')?;
        match &line[key] {
            b"log" => {
                let value = scan.string()?;
                unescape(&line[value], text)?;
            }
            b"stream" => {
                let value = scan.string()?;
                stream = if &line[value] == b"stderr" { Stream::Stderr } else { Stream::Stdout };
            }
            b"time" => {
                let value = &line[scan.string()?];
                at = Some(match Stamp::parse(value) {
                    Some(stamp) => stamp.timestamp(),
                    None => Timestamp::parse(std::str::from_utf8(value).ok()?).ok()?,
                });
            }
            b"attrs" => attrs = Some(scan.value()?),
            _ => {
                scan.value()?;
            }
        }
        match scan.next()? {
            b',' => {}
            b'}' => return Some(Parsed { at: at?, stream, attrs }),
            _ => return None,
        }
    }
}

struct Scan<'a> {
    line: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    /// The next byte that is not white space.
    fn next(&mut self) -> Option<u8> {
        loop {
            let byte = self.peek()?;
            self.at += 1;
            if !matches!(byte, b' ' | b'\t' | b'\r') {
                return Some(byte);
            }
        }
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    /// Where a string's inside is.
    fn string(&mut self) -> Option<Range<usize>> {
        self.expect(b'"')?;
        let begin = self.at;
        loop {
            let ahead = self.line.get(self.at..)?;
            self.at += memchr::memchr2(b'"', b'\\', ahead)?;
            if self.line[self.at] == b'"' {
                self.at += 1;
                return Some(begin..self.at - 1);
            }
            self.at += 2;
        }
    }

    /// Where any value is, brackets and all.
    fn value(&mut self) -> Option<Range<usize>> {
        let first = self.next()?;
        let begin = self.at - 1;
        if first == b'"' {
            self.at = begin;
            self.string()?;
            return Some(begin..self.at);
        }
        let mut depth = 0usize;
        self.at = begin;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 0 => break,
                b'}' | b']' => depth -= 1,
                b',' if depth == 0 => break,
                _ => {}
            }
            self.at += 1;
            if depth == 0 && matches!(byte, b'}' | b']') {
                break;
            }
        }
        Some(begin..self.at)
    }
}

fn unescape(mut spelled: &[u8], text: &mut Vec<u8>) -> Option<()> {
    while let Some(at) = memchr::memchr(b'\\', spelled) {
        text.extend_from_slice(&spelled[..at]);
        let mut length = 2;
        let plain = match *spelled.get(at + 1)? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'f' => 12,
            b'u' => {
                let (character, used) = unicode(&spelled[at..])?;
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                spelled = &spelled[at + used..];
                continue;
            }
            other @ (b'"' | b'\\' | b'/') => other,
            _ => {
                length = 1;
                b'\\'
            }
        };
        text.push(plain);
        spelled = &spelled[at + length..];
    }
    text.extend_from_slice(spelled);
    Some(())
}

/// The character that `\uXXXX`, or a pair of them, stands for, and how many bytes that took.
fn unicode(spelled: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| -> Option<u32> {
        let digits = spelled.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let first = unit(0)?;
    if let Some(character) = char::from_u32(first) {
        return Some((character, 6));
    }
    let pair = unit(6).filter(|second| first < 0xdc00 && (0xdc00..0xe000).contains(second));
    let whole = pair
        .and_then(|second| char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)));
    Some(whole.map_or((char::REPLACEMENT_CHARACTER, 6), |character| (character, 12)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<(String, Stream, String, Option<String>)> {
        let mut text = Vec::new();
        let parsed = parse(line.as_bytes(), &mut text, &mut Reading::default())?;
        let attrs = parsed.attrs.map(|range| line[range].to_owned());
        Some((String::from_utf8(text).unwrap(), parsed.stream, parsed.at.to_string(), attrs))
    }

    #[test]
    fn dockers_lines() {
        assert_eq!(
            read(r#"{"log":"a\u003cb\"\n","stream":"stderr","time":"2026-11-21T10:00:00.5Z"}"#),
            Some(("a<b\"\n".to_owned(), Stream::Stderr, "2026-11-21T10:00:00.5Z".to_owned(), None))
        );
        let (_, _, _, attrs) = read(
            r#"{"log":"x","stream":"stdout","attrs":{"tag":"a}\"b","n":"{"},"time":"2026-11-21T10:00:00Z"}"#,
        )
        .unwrap();
        assert_eq!(attrs.as_deref(), Some(r#"{"tag":"a}\"b","n":"{"}"#));
    }

    #[test]
    fn both_ways_read_the_same() {
        let record = |log: &str, stream: &str, time: &str| {
            format!("{{\"log\":\"{log}\",\"stream\":\"{stream}\",\"time\":\"{time}\"}}")
        };
        let (mut clock, time) = (Reading::default(), "2026-11-21T10:00:00");
        for (line, quick) in [
            (record("a\\n", "stdout", &format!("{time}.5Z")), true),
            (record("a\\\\\\\"b", "stderr", &format!("{time}.000000001Z")), true),
            (record("", "stdout", &format!("{time}Z")), true),
            (record("a\\u0026\\n", "stdout", &format!("{time}.5Z")), false),
            (record("a\\n", "other", &format!("{time}.5Z")), false),
            (record("a\\n", "stdout", &format!("{time}+00:00")), false),
        ] {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            let slowly = any_spelling(line.as_bytes(), &mut other);
            assert!(slowly.is_some(), "{line}");
            let quickly = as_written(line.as_bytes(), &mut one, &mut clock);
            assert_eq!(quickly.is_some(), quick, "{line}");
            if quick {
                assert_eq!((quickly, one), (slowly, other), "{line}");
            }
        }
    }

    #[test]
    fn other_spellings_are_understood() {
        let (text, _, at, _) = read(
            "\0\0{ \"time\": \"2026-11-21T12:00:00+02:00\", \"x\": [1, {\"y\": \"]\"}], \"log\": \"\\ud83d\\ude00\\t\\/\\ud800\", \"n\": 1.5 }",
        )
        .unwrap();
        assert_eq!((text.as_str(), at.as_str()), ("\u{1f600}\t/\u{fffd}", "2026-11-21T10:00:00Z"));
    }

    #[test]
    fn torn_lines_are_nothing() {
        let whole = r#"{"log":"a\n","stream":"stdout","time":"2026-11-21T10:00:00Z"}"#;
        for cut in 0..whole.len() {
            assert_eq!(read(&whole[..cut]), None, "{}", &whole[..cut]);
        }
        assert_eq!(read("\0\0\0"), None);
        assert_eq!(read("no json"), None);
    }

    #[test]
    fn what_is_written_is_read() {
        let text: Vec<u8> = (0..=0x7f).chain("€\u{2028}\u{1f600}".bytes()).collect();
        let mut line = b"{\"log\":\"".to_vec();
        super::super::escape::push(&text, &mut line);
        line.extend_from_slice(b"\",\"stream\":\"stdout\",\"time\":\"2026-11-21T10:00:00Z\"}");
        let mut back = Vec::new();
        parse(&line, &mut back, &mut Reading::default()).unwrap();
        assert_eq!(back, text);
    }
}
