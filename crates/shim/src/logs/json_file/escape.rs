//! A JSON string as dockerd's log writer spells it.

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Bytes that stand for themselves. Go escapes `<`, `>` and `&` for the sake of HTML.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 0x20 {
        plain[byte] = false;
        byte += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain[b'<' as usize] = false;
    plain[b'>' as usize] = false;
    plain[b'&' as usize] = false;
    // The first byte of U+2028 and U+2029, which JavaScript took for line ends.
    plain[0xe2] = false;
    plain
};

/// Appends `text` without the quotes around it. What is not UTF-8 becomes `\ufffd`, byte by byte.
pub(super) fn push(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        push_valid(chunk.valid().as_bytes(), out);
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

fn push_valid(text: &[u8], out: &mut Vec<u8>) {
    let mut begin = 0;
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        if PLAIN[byte as usize] {
            at += 1;
            continue;
        }
        let mut length = 1;
        let mut hex =
            [b'\\', b'u', b'0', b'0', HEX[(byte >> 4) as usize], HEX[(byte & 15) as usize]];
        let escaped: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            0xe2 => {
                length = 3;
                match &text[at..at + 3] {
                    [_, 0x80, 0xa8] => b"\\u2028",
                    [_, 0x80, 0xa9] => b"\\u2029",
                    _ => {
                        at += 3;
                        continue;
                    }
                }
            }
            _ => &mut hex,
        };
        out.extend_from_slice(&text[begin..at]);
        out.extend_from_slice(escaped);
        at += length;
        begin = at;
    }
    out.extend_from_slice(&text[begin..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &[u8], spelled: &str) {
        let mut out = Vec::new();
        push(text, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), spelled);
    }

    #[test]
    fn as_go_spells_it() {
        check(b"plain", "plain");
        check(b"a\"b\\c\n\r\t\x00\x1b\x7f", "a\\\"b\\\\c\\n\\r\\u0009\\u0000\\u001b\x7f");
        check(b"<a href=\"x\">&</a>", "\\u003ca href=\\\"x\\\"\\u003e\\u0026\\u003c/a\\u003e");
        check("grüße €—\u{2028}\u{2029}".as_bytes(), "grüße €—\\u2028\\u2029");
    }

    #[test]
    fn what_is_not_utf8_is_replaced_byte_by_byte() {
        check(b"a\xffb", "a\\ufffdb");
        check(b"\xe2\x82", "\\ufffd\\ufffd");
        check(b"\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd");
        check(b"\xf0\x9f\x98\x80\xf0\x9f", "\u{1f600}\\ufffd\\ufffd");
    }
}
