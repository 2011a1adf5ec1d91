//! Printing as Go's fmt does it: `%v` of any value, and the verbs of `printf`.

use std::fmt::Write;

use crate::value::Value;

/// As `print` and a template's output show it.
pub(crate) fn show(value: &Value) -> String {
    match value {
        Value::Missing => "<no value>".to_owned(),
        value => plain(value),
    }
}

/// `%v`.
fn plain(value: &Value) -> String {
    match value {
        Value::Missing | Value::Nil => "<nil>".to_owned(),
        Value::Omitted(value) => plain(value),
        Value::NilList => "[]".to_owned(),
        Value::NilMap => "map[]".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Large(value) => value.to_string(),
        Value::Float(value) => float(*value),
        Value::Text(text) => text.to_string(),
        Value::List(items) => format!("[{}]", joined(items.iter().map(plain))),
        Value::Map(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            format!(
                "map[{}]",
                joined(entries.into_iter().map(|(key, value)| format!("{key}:{}", plain(value))))
            )
        }
        Value::Struct(_, entries) => {
            format!("{{{}}}", joined(entries.iter().map(|(_, value)| plain(value))))
        }
        Value::Row(row) => {
            format!("{{{}}}", joined(row.columns.iter().map(|(_, value)| plain(value))))
        }
    }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(" ")
}

/// A float as `%v` and JSON write it: no exponent until it is needed.
pub(crate) fn float(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-5..1e21).contains(&size) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    value.to_string()
}

/// `print`: spaces only between operands that are both not text.
pub(crate) fn sprint(values: &[Value]) -> String {
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        let between_texts = index > 0
            && (matches!(value, Value::Text(_)) || matches!(values[index - 1], Value::Text(_)));
        if index > 0 && !between_texts {
            out.push(' ');
        }
        out.push_str(&plain(value));
    }
    out
}

/// `println`.
pub(crate) fn sprintln(values: &[Value]) -> String {
    format!("{}\n", joined(values.iter().map(plain)))
}

/// `printf`.
pub(crate) fn sprintf(format: &str, values: &[Value]) -> String {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest
            .find(|c: char| c.is_ascii_alphabetic() || c == '%' || !c.is_ascii())
            .unwrap_or(rest.len());
        let spec = &rest[..end];
        let Some(verb) = rest[end..].chars().next() else {
            out.push_str("%!(NOVERB)");
            return out;
        };
        rest = &rest[end + verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        match values.next() {
            Some(value) => out.push_str(&verb_of(spec, verb, value)),
            None => write!(out, "%!{verb}(MISSING)").unwrap_or_default(),
        }
    }
    out.push_str(rest);
    let extra: Vec<String> =
        values.map(|value| format!("{}={}", value.type_name(), plain(value))).collect();
    if !extra.is_empty() {
        write!(out, "%!(EXTRA {})", extra.join(", ")).unwrap_or_default();
    }
    out
}

fn verb_of(spec: &str, verb: char, value: &Value) -> String {
    let flags_end = spec.find(|c| !matches!(c, '-' | '+' | '#' | ' ' | '0')).unwrap_or(spec.len());
    let (flags, numbers) = spec.split_at(flags_end);
    let (width, precision) = numbers.split_once('.').map_or((numbers, None), |(w, p)| (w, Some(p)));
    let width: usize = width.parse().unwrap_or(0);
    let precision: Option<usize> = precision.map(|p| p.parse().unwrap_or(0));
    let text = match (verb, value) {
        ('v', value) => plain(value),
        ('s', Value::Int(_) | Value::Bool(_) | Value::Float(_)) => bad_verb(verb, value),
        ('s', value) => {
            let text = plain(value);
            precision.map_or(text.clone(), |most| text.chars().take(most).collect())
        }
        ('q', value) => format!("{:?}", plain(value)),
        ('d', Value::Int(number)) => number.to_string(),
        ('d', Value::Large(number)) => number.to_string(),
        ('t', Value::Bool(value)) => value.to_string(),
        ('x', Value::Int(number)) => format!("{number:x}"),
        ('X', Value::Int(number)) => format!("{number:X}"),
        ('o', Value::Int(number)) => format!("{number:o}"),
        ('b', Value::Int(number)) => format!("{number:b}"),
        ('c', Value::Int(number)) => {
            u32::try_from(*number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}').into()
        }
        ('x', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('f' | 'F', Value::Float(number)) => format!("{number:.*}", precision.unwrap_or(6)),
        ('g' | 'G', Value::Float(number)) => float(*number),
        ('e', Value::Float(number)) => format!("{number:.*e}", precision.unwrap_or(6)),
        ('T', value) => value.type_name().to_owned(),
        (verb, value) => bad_verb(verb, value),
    };
    let text = if flags.contains('+') && matches!(value, Value::Int(n) if *n >= 0) {
        format!("+{text}")
    } else {
        text
    };
    let missing = width.saturating_sub(text.chars().count());
    match (
        flags.contains('-'),
        flags.contains('0') && matches!(value, Value::Int(_) | Value::Float(_)),
    ) {
        (true, _) => format!("{text}{}", " ".repeat(missing)),
        (false, true) => format!("{}{text}", "0".repeat(missing)),
        (false, false) => format!("{}{text}", " ".repeat(missing)),
    }
}

fn bad_verb(verb: char, value: &Value) -> String {
    format!("%!{verb}({}={})", value.type_name(), plain(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printf() {
        let values = [Value::text("a"), Value::Int(7), Value::Bool(true)];
        assert_eq!(sprintf("%-4s|%03d|%v%%", &values), "a   |007|true%");
        assert_eq!(sprintf("%d", &values[..1]), "%!d(string=a)");
        assert_eq!(sprintf("%s %s", &values[..1]), "a %!s(MISSING)");
        assert_eq!(sprintf("x", &values[..1]), "x%!(EXTRA string=a)");
    }

    #[test]
    fn go_shapes() {
        let map =
            Value::map([("b", Value::list([Value::Int(1), Value::Nil])), ("a", Value::text("x"))]);
        assert_eq!(show(&map), "map[a:x b:[1 <nil>]]");
        assert_eq!(
            show(&Value::fields("", [("A", Value::text("")), ("B", Value::Int(2))])),
            "{ 2}"
        );
        assert_eq!(
            sprint(&[Value::text("a"), Value::text("b"), Value::Int(1), Value::Int(2)]),
            "ab1 2"
        );
        assert_eq!(float(1e21), "1e+21");
        assert_eq!(float(0.5), "0.5");
    }
}
