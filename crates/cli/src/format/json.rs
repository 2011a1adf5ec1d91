//! JSON laid out anew without being understood: what the daemon sent is shown as it was sent.

/// As Go's `json.Indent` with four blanks; `prefix` stands before every line but the first.
pub(crate) fn indent(raw: &str, prefix: &str) -> String {
    let mut out = String::with_capacity(raw.len() * 2);
    let mut depth = 0usize;
    let mut in_text = false;
    let mut escaped = false;
    // An opening bracket waits for what comes next: nothing, and it stays on one line with its partner.
    let mut opened = false;
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(prefix);
        out.push_str(&"    ".repeat(depth));
    };
    for c in raw.chars() {
        if in_text {
            out.push(c);
            in_text = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        if matches!(c, ' ' | '\t' | '\r' | '\n') {
            continue;
        }
        let closes = matches!(c, '}' | ']');
        if opened && !closes {
            depth += 1;
            newline(&mut out, depth);
        }
        if closes && !opened {
            depth = depth.saturating_sub(1);
            newline(&mut out, depth);
        }
        opened = matches!(c, '{' | '[');
        in_text = c == '"';
        out.push(c);
        match c {
            ',' => newline(&mut out, depth),
            ':' => out.push(' '),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laid_out() {
        assert_eq!(
            indent(r#"{"a":[1,2.50],"b":{},"c":[ ],"d":"x:,{\"}"}"#, ""),
            "{\n    \"a\": [\n        1,\n        2.50\n    ],\n    \"b\": {},\n    \"c\": [],\n    \"d\": \"x:,{\\\"}\"\n}"
        );
    }
}
