//! JSON as Docker's server reads it: with the rules of Go's `encoding/json`.
//!
//! `null` leaves a field at its zero value, names match whatever their case, unknown fields are ignored, a short array
//! fills up with zeros; a wrong type is refused in Go's words, because clients print them.

use std::fmt;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};

/// Reads one value; anything but white space behind it is refused.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let mut documents = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    let value = match documents.next() {
        None => return Err(Refusal::Empty),
        Some(Err(error)) => return Err(Refusal::Syntax(syntax_words(bytes, &error))),
        Some(Ok(value)) => value,
    };
    if bytes[documents.byte_offset()..].iter().any(|byte| !byte.is_ascii_whitespace()) {
        return Err(Refusal::Trailing);
    }
    from_value(&value).map_err(Refusal::Mismatch)
}

/// Reads what is already a tree.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, Mismatch> {
    T::deserialize(Reader(value))
}

/// For `skip_serializing_if`: Go's `omitempty`.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// For a flattened field: Go's embedded struct, with all of this reader's tolerance.
pub(crate) fn embedded<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<T, D::Error> {
    from_value(&Value::Object(Deserialize::deserialize(deserializer)?)).map_err(de::Error::custom)
}

/// For `Cmd` and its like: a list of words, or one word.
pub(crate) fn words<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(word) => Ok(Some(vec![word])),
        value => from_value(&value).map_err(de::Error::custom),
    }
}

/// Why a body was not understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// Nothing but white space.
    Empty,
    /// Something behind the value.
    Trailing,
    /// Not JSON, in Go's words.
    Syntax(String),
    /// JSON, but of another shape.
    Mismatch(Mismatch),
}

/// dockerd's words for it.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("invalid JSON: got EOF while reading request body"),
            Self::Trailing => f.write_str("unexpected content after JSON"),
            Self::Syntax(words) => write!(f, "invalid JSON: {words}"),
            Self::Mismatch(mismatch) => write!(f, "invalid JSON: {mismatch}"),
        }
    }
}

impl std::error::Error for Refusal {}

/// A value of the wrong type, and where.
#[derive(Clone, Debug, PartialEq)]
pub enum Mismatch {
    Type {
        /// `string`, `number 1.5`: what was found.
        found: String,
        /// Go's name of the type that belongs there.
        wanted: &'static str,
        /// The innermost struct.
        holder: &'static str,
        /// Names of fields from the outermost struct to the place, innermost first.
        path: Vec<&'static str>,
    },
    Other(String),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(words) => f.write_str(words),
            Self::Type { found, wanted, path, .. } if path.is_empty() => {
                write!(f, "json: cannot unmarshal {found} into Go value of type {wanted}")
            }
            Self::Type { found, wanted, holder, path } => {
                let path: Vec<_> = path.iter().rev().copied().collect();
                write!(
                    f,
                    "json: cannot unmarshal {found} into Go struct field {holder}.{} of type {wanted}",
                    path.join(".")
                )
            }
        }
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    fn custom<T: fmt::Display>(words: T) -> Self {
        Self::Other(words.to_string())
    }
}

impl Mismatch {
    fn new(found: &Value, wanted: &'static str) -> Self {
        let found = match found {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(_) if wanted == "string" || wanted == "bool" => "number".to_owned(),
            Value::Number(number) => format!("number {number}"),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        Self::Type { found, wanted, holder: "", path: Vec::new() }
    }

    fn inside(mut self, name: &'static str, field: &'static str) -> Self {
        if let Self::Type { holder, path, .. } = &mut self {
            if path.is_empty() {
                *holder = name;
            }
            path.push(field);
        }
        self
    }
}

/// serde_json's complaint as Go would put it.
fn syntax_words(bytes: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected EOF".to_owned();
    }
    let line =
        bytes.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let column = error.column().saturating_sub(1);
    let culprit = match std::str::from_utf8(line) {
        Ok(text) => text.get(column..).and_then(|rest| rest.chars().next()).unwrap_or('\n'),
        Err(_) => char::from(line.get(column).copied().unwrap_or(b'\n')),
    };
    let place = match error.to_string() {
        text if text.starts_with("key must be a string") => "object key string",
        _ => "value",
    };
    format!("invalid character {culprit:?} looking for beginning of {place}")
}

static NULL: Value = Value::Null;

#[derive(Clone, Copy)]
struct Reader<'a>(&'a Value);

macro_rules! integers {
    ($($method:ident $visit:ident $int:ident $name:literal)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            match self.0 {
                Value::Null => visitor.$visit(0),
                Value::Number(number) => match integer::<$int>(number) {
                    Some(value) => visitor.$visit(value),
                    None => Err(Mismatch::new(self.0, $name)),
                },
                other => Err(Mismatch::new(other, $name)),
            }
        }
    )*};
}

fn integer<T: TryFrom<i64> + TryFrom<u64>>(number: &Number) -> Option<T> {
    match number.as_i64() {
        Some(value) => T::try_from(value).ok(),
        None => T::try_from(number.as_u64()?).ok(),
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Mismatch;

    integers! {
        deserialize_i8 visit_i8 i8 "int8"
        deserialize_i16 visit_i16 i16 "int16"
        deserialize_i32 visit_i32 i32 "int"
        deserialize_i64 visit_i64 i64 "int64"
        deserialize_u8 visit_u8 u8 "uint8"
        deserialize_u16 visit_u16 u16 "uint16"
        deserialize_u32 visit_u32 u32 "uint"
        deserialize_u64 visit_u64 u64 "uint64"
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(value) => visitor.visit_bool(*value),
            other => Err(Mismatch::new(other, "bool")),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Null => visitor.visit_f64(0.0),
            Value::Number(number) => visitor.visit_f64(number.as_f64().unwrap_or_default()),
            other => Err(Mismatch::new(other, "float64")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Null => visitor.visit_str(""),
            Value::String(text) => visitor.visit_str(text),
            other => Err(Mismatch::new(other, "string")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Null => visitor.visit_seq(Items { items: [].iter(), padding: 0 }),
            Value::Array(items) => visitor.visit_seq(Items { items: items.iter(), padding: 0 }),
            other => Err(Mismatch::new(other, "[]string")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Null => visitor.visit_seq(Items { items: [].iter(), padding: length }),
            Value::Array(items) => {
                let items = &items[..items.len().min(length)];
                visitor.visit_seq(Items { items: items.iter(), padding: length - items.len() })
            }
            other => Err(Mismatch::new(other, "array")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Null => visitor.visit_map(Entries { entries: None, value: &NULL }),
            Value::Object(map) => {
                visitor.visit_map(Entries { entries: Some(map.iter()), value: &NULL })
            }
            other => Err(Mismatch::new(other, "map[string]string")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Null => {
                visitor.visit_map(Fields { name, fields, entries: None, current: ("", &NULL) })
            }
            Value::Object(map) => {
                let mut known: Vec<Option<&Value>> = vec![None; fields.len()];
                for (key, value) in map {
                    if let Some(index) = field(fields, key) {
                        // The exact name wins over one that differs in case.
                        if known[index].is_none() || fields[index] == key {
                            known[index] = Some(value);
                        }
                    }
                }
                let entries =
                    fields.iter().zip(known).filter_map(|(field, value)| Some((*field, value?)));
                let entries: Vec<_> = entries.filter(|(_, value)| !value.is_null()).collect();
                visitor.visit_map(Fields {
                    name,
                    fields,
                    entries: Some(entries.into_iter()),
                    current: ("", &NULL),
                })
            }
            other => Err(Mismatch::new(other, name)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_unit()
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(_) => self.deserialize_bool(visitor),
            Value::Number(number) => number.deserialize_any(visitor).map_err(de::Error::custom),
            Value::String(_) => self.deserialize_string(visitor),
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple_struct enum identifier
    }
}

fn field(fields: &[&str], key: &str) -> Option<usize> {
    let exact = fields.iter().position(|field| *field == key);
    exact.or_else(|| fields.iter().position(|field| field.eq_ignore_ascii_case(key)))
}

struct Items<'a> {
    items: std::slice::Iter<'a, Value>,
    /// Zero values to add at the end.
    padding: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Mismatch> {
        let item = match self.items.next() {
            Some(item) => item,
            None if self.padding > 0 => {
                self.padding -= 1;
                &NULL
            }
            None => return Ok(None),
        };
        seed.deserialize(Reader(item)).map(Some)
    }
}

struct Entries<'a> {
    entries: Option<serde_json::map::Iter<'a>>,
    value: &'a Value,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Mismatch> {
        let Some((key, value)) = self.entries.as_mut().and_then(Iterator::next) else {
            return Ok(None);
        };
        self.value = value;
        seed.deserialize(key.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mismatch> {
        seed.deserialize(Reader(self.value))
    }
}

struct Fields<'a> {
    name: &'static str,
    fields: &'static [&'static str],
    entries: Option<std::vec::IntoIter<(&'static str, &'a Value)>>,
    current: (&'static str, &'a Value),
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Mismatch> {
        let Some(entry) = self.entries.as_mut().and_then(Iterator::next) else { return Ok(None) };
        self.current = entry;
        debug_assert!(self.fields.contains(&entry.0));
        seed.deserialize(entry.0.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mismatch> {
        let (field, value) = self.current;
        seed.deserialize(Reader(value)).map_err(|mismatch| mismatch.inside(self.name, field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{CreateBody, HostConfig};

    fn refusal(body: &str) -> String {
        from_slice::<CreateBody>(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn null_is_absent_and_case_is_no_matter() {
        let body = br#"{"image":"busybox","Cmd":"true","Env":null,"Tty":null,"Labels":{"a":null},"Nonsense":[{}],
            "HostConfig":{"Memory":null,"cpushares":7,"CapAdd":null,"PortBindings":{"80/tcp":null},"ConsoleSize":[3],
                "RestartPolicy":{"name":"always"}}}"#;
        let body: CreateBody = from_slice(body).unwrap();
        assert_eq!(body.config.image, "busybox");
        assert_eq!(body.config.cmd, Some(vec!["true".to_owned()]));
        assert_eq!(body.config.labels.unwrap()["a"], "");
        let host = body.host_config.unwrap();
        assert_eq!((host.resources.memory, host.resources.cpu_shares), (0, 7));
        assert_eq!(host.port_bindings.unwrap()["80/tcp"], None);
        assert_eq!(host.console_size, [3, 0]);
        assert_eq!(host.restart_policy.name, "always");
    }

    #[test]
    fn what_we_wrote_reads_back_the_same() {
        let host =
            HostConfig { cap_add: Some(Vec::new()), init: Some(false), ..HostConfig::default() };
        let text = serde_json::to_string(&host).unwrap();
        assert!(text.contains(r#""CapAdd":[],"CapDrop":null,"#), "{text}");
        assert_eq!(serde_json::from_str::<HostConfig>(&text).unwrap(), host);
        assert_eq!(from_slice::<HostConfig>(text.as_bytes()).unwrap(), host);
    }

    #[test]
    fn refused_in_gos_words() {
        assert_eq!(refusal(" "), "invalid JSON: got EOF while reading request body");
        assert_eq!(refusal("{"), "invalid JSON: unexpected EOF");
        assert_eq!(
            refusal("x"),
            "invalid JSON: invalid character 'x' looking for beginning of value"
        );
        assert_eq!(
            refusal("{x"),
            "invalid JSON: invalid character 'x' looking for beginning of object key string"
        );
        assert_eq!(refusal("{} {}"), "unexpected content after JSON");
        assert_eq!(
            refusal(r#"{"HostConfig":{"RestartPolicy":{"MaximumRetryCount":"3"}}}"#),
            "invalid JSON: json: cannot unmarshal string into Go struct field \
             RestartPolicy.MaximumRetryCount of type int64"
        );
        assert_eq!(
            refusal("[]"),
            "invalid JSON: json: cannot unmarshal array into Go value of type map[string]string"
        );
        assert!(
            refusal(r#"{"HostConfig":{"Memory":1.5}}"#)
                .contains("cannot unmarshal number 1.5 into Go struct field")
        );
    }
}
