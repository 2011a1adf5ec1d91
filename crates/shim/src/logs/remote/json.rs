//! JSON as Go's `encoding/json` spells it: what HTML could trip over is escaped.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// The text of a value. Drivers' values are plain data with text keys.
pub(super) fn text(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut out, Go(CompactFormatter)))
        .expect("plain data with text keys");
    out
}

struct Go(CompactFormatter);

impl Formatter for Go {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        escape(writer, fragment)
    }

    /// Numbers with nothing behind the point are written without it.
    fn write_f64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write!(writer, "{value}")
    }

    /// Of JSON that is there already: without white space, and escaped all the same.
    fn write_raw_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let (mut quoted, mut escaped) = (false, false);
        let mut compact = String::with_capacity(fragment.len());
        for c in fragment.chars() {
            if quoted {
                quoted = c != '"' || escaped;
                escaped = c == '\\' && !escaped;
            } else {
                quoted = c == '"';
                if c.is_ascii_whitespace() {
                    continue;
                }
            }
            compact.push(c);
        }
        escape(writer, &compact)
    }
}

fn escape<W: io::Write + ?Sized>(writer: &mut W, text: &str) -> io::Result<()> {
    let mut rest = text;
    while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        let c = rest[at..].chars().next().unwrap_or_default();
        write!(writer, "{}\\u{:04x}", &rest[..at], u32::from(c))?;
        rest = &rest[at + c.len_utf8()..];
    }
    writer.write_all(rest.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_writes_it() {
        let value = serde_json::json!({ "a": "<b>&\u{2028}\t\"", "t": 1_763_719_200.0, "u": 1.25 });
        let expected = r#"{"a":"\u003cb\u003e\u0026\u2028\t\"","t":1763719200,"u":1.25}"#;
        assert_eq!(String::from_utf8(text(&value)).unwrap(), expected);
        let raw: &serde_json::value::RawValue =
            serde_json::from_str(" { \"x y\" : [ 1, \"a \\\" < b\" ] } ").unwrap();
        let expected = r#"{"x y":[1,"a \" \u003c b"]}"#;
        assert_eq!(String::from_utf8(text(&raw)).unwrap(), expected);
    }
}
