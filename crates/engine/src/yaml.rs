//! YAML as the Go programs that write it mean it: as JSON.

use saphyr::{ScalarStyle, Yaml, YamlLoader};
use saphyr_parser::Parser;
use serde_json::{Number, Value};
use stdx::{Error, Result};

/// Deeper than this is nobody's document.
const DEEPEST: usize = 64;

/// The one document in `text`.
pub(crate) fn value(text: &str) -> Result<Value> {
    let mut loader: YamlLoader<'_, Yaml<'_>> = YamlLoader::default();
    // What a plain word means is decided here.
    loader.early_parse(false);
    let bad = |why: String| Error::invalid(format!("yaml: {why}"));
    Parser::new_from_str(text).load(&mut loader, true).map_err(|error| bad(error.to_string()))?;
    if let Some(error) = loader.error() {
        return Err(bad(error.to_string()));
    }
    match loader.into_documents().as_slice() {
        [document] => json(document, 0),
        documents => Err(bad(format!("there are {} documents", documents.len()))),
    }
}

fn json(yaml: &Yaml<'_>, depth: usize) -> Result<Value> {
    if depth > DEEPEST {
        return Err(Error::invalid("yaml: exceeded max depth"));
    }
    Ok(match yaml {
        Yaml::Representation(text, ScalarStyle::Plain, None) => plain(text),
        Yaml::Representation(text, ..) => Value::String(text.to_string()),
        Yaml::Sequence(items) => {
            items.iter().map(|item| json(item, depth + 1)).collect::<Result<_>>()?
        }
        Yaml::Mapping(pairs) => {
            let pair = |(key, value): (&Yaml<'_>, &Yaml<'_>)| match key {
                Yaml::Representation(key, ..) => Ok((key.to_string(), json(value, depth + 1)?)),
                _ => Err(Error::invalid("yaml: a key is not a word")),
            };
            Value::Object(pairs.iter().map(pair).collect::<Result<_>>()?)
        }
        Yaml::Tagged(_, inner) => json(inner, depth + 1)?,
        Yaml::Value(_) | Yaml::Alias(_) | Yaml::BadValue => {
            return Err(Error::invalid("yaml: it cannot be understood"));
        }
    })
}

/// A word without quotes: by the rules that Go's reader has, where a number that begins with 0 counts by eights.
fn plain(text: &str) -> Value {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let by = |base: u32, digits: &str| {
        i64::from_str_radix(&format!("{sign}{}", digits.replace('_', "")), base).ok()
    };
    let starts = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let number = match digits.as_bytes() {
        [b'0', b'x', ..] => by(16, &digits[2..]),
        [b'0', b'o', ..] => by(8, &digits[2..]),
        [b'0', b'b', ..] => by(2, &digits[2..]),
        [b'0', _, ..] if !digits.contains('.') => by(8, &digits[1..]),
        _ if starts(digits) => by(10, digits),
        _ => None,
    };
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if let Some(number) = number {
        return Value::Number(number.into());
    }
    let float = text.parse::<f64>().ok().filter(|_| starts(digits) || digits.starts_with('.'));
    match float.and_then(Number::from_f64) {
        Some(number) => Value::Number(number),
        None => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_and_numbers() {
        for (text, expected) in [
            ("0666", json!(438)),
            ("0o17", json!(15)),
            ("0x1f", json!(31)),
            ("-12", json!(-12)),
            ("1_000", json!(1000)),
            ("0", json!(0)),
            ("0.6", json!(0.6)),
            ("0.6.0", json!("0.6.0")),
            ("1.5e3", json!(1500.0)),
            ("089", json!(89.0)),
            ("yes", json!("yes")),
            ("true", json!(true)),
            ("'true'", json!("true")),
            ("\"0666\"", json!("0666")),
            ("~", json!(null)),
            ("a b", json!("a b")),
            ("!!str 12", json!("12")),
            ("[a, {b: 1}]", json!(["a", {"b": 1}])),
        ] {
            assert_eq!(value(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_none() {
        for bad in ["a: [", "--- a\n--- b\n", "? [a]\n: b", &"[".repeat(200), ""] {
            assert!(value(bad).is_err(), "{bad:?}");
        }
        // Few lines that would be many.
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let line = vec![format!("*a{}", level - 1); 10].join(", ");
            laughs += &format!("a{level}: &a{level} [{line}]\n");
        }
        assert!(value(&laughs).is_err());
    }
}
