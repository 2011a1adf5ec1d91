//! Values a template works on: JSON that remembers its order, with the distinctions Go's templates make visible.

use std::fmt;
use std::rc::Rc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value as Go would have it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// What is not there: `<no value>`.
    Missing,
    /// A nil pointer or interface: `<nil>`.
    Nil,
    /// Nil, where a list would be: `[]`.
    NilList,
    /// Nil, where a map would be: `map[]`.
    NilMap,
    Bool(bool),
    Int(i64),
    /// More than `Int` can hold, as subnets of IPv6 have addresses.
    Large(u64),
    Float(f64),
    Text(Rc<str>),
    List(Rc<[Value]>),
    /// Keys are data: any may be asked for, and they print sorted.
    Map(Rc<[(Rc<str>, Value)]>),
    /// Keys are fields: asking for another is an error, and only the values print. A field is asked for by its name in
    /// Go, which may differ from that in JSON. First Go's name for the type, in error messages; none of what is a map to
    /// whoever reads them.
    Struct(&'static str, Rc<[(Rc<str>, Value)]>),
    /// A field with its zero value, which JSON leaves out.
    Omitted(Rc<Value>),
    /// A row of a listing: its columns, and labels to ask for by name.
    Row(Rc<Row>),
}

/// One line of a listing.
#[derive(Debug, PartialEq)]
pub struct Row {
    /// Go's name for it, in error messages.
    pub type_name: &'static str,
    pub columns: Vec<(&'static str, Value)>,
    pub labels: Vec<(String, String)>,
}

impl Value {
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Text(text.as_ref().into())
    }

    pub fn list(items: impl IntoIterator<Item = Value>) -> Self {
        Self::List(items.into_iter().collect())
    }

    pub fn map<K: AsRef<str>>(entries: impl IntoIterator<Item = (K, Value)>) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.as_ref().into(), value)).collect())
    }

    pub fn fields<K: AsRef<str>>(
        type_name: &'static str,
        entries: impl IntoIterator<Item = (K, Value)>,
    ) -> Self {
        let entries = entries.into_iter().map(|(key, value)| (key.as_ref().into(), value));
        Self::Struct(type_name, entries.collect())
    }

    /// Gives structs inside their types' names, by the way to them: `A.B.C`. Lists are passed through.
    pub fn with_types(&self, types: &[(&str, &'static str)]) -> Self {
        self.typed("", types)
    }

    fn typed(&self, path: &str, types: &[(&str, &'static str)]) -> Self {
        match self {
            Self::Struct(name, entries) => {
                let found = types.iter().find(|(known, _)| *known == path).map(|(_, name)| *name);
                let entries = entries.iter().map(|(key, value)| {
                    let dot = if path.is_empty() { "" } else { "." };
                    let below = value.typed(&format!("{path}{dot}{}", go_name(key)), types);
                    (Rc::clone(key), below)
                });
                Self::Struct(found.unwrap_or(name), entries.collect())
            }
            Self::List(items) => Self::list(items.iter().map(|item| item.typed(path, types))),
            other => other.clone(),
        }
    }

    /// Looks a key up in what has keys.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Map(entries) => {
                entries.iter().find(|(name, _)| &**name == key).map(|(_, value)| value)
            }
            Self::Struct(_, entries) => entries
                .iter()
                .find(|(name, _)| go_name(name) == key)
                .map(|(_, value)| value.shown()),
            Self::Row(row) => {
                row.columns.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The value itself, were JSON to leave it out or not.
    pub fn shown(&self) -> &Value {
        match self {
            Self::Omitted(value) => value,
            value => value,
        }
    }

    /// Follows `A.B.C`.
    pub fn at(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(self, |value, key| value.get(key))
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text at `A.B.C`, empty when there is none.
    pub fn str_at(&self, path: &str) -> &str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn int_at(&self, path: &str) -> i64 {
        match self.at(path) {
            Some(Self::Int(value)) => *value,
            Some(Self::Float(value)) => *value as i64,
            _ => 0,
        }
    }

    pub fn bool_at(&self, path: &str) -> bool {
        matches!(self.at(path), Some(Self::Bool(true)))
    }

    pub fn items(&self) -> &[Value] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    pub fn items_at(&self, path: &str) -> &[Value] {
        self.at(path).map(Value::items).unwrap_or_default()
    }

    pub fn entries(&self) -> &[(Rc<str>, Value)] {
        match self {
            Self::Map(entries) | Self::Struct(_, entries) => entries,
            _ => &[],
        }
    }

    pub fn entries_at(&self, path: &str) -> &[(Rc<str>, Value)] {
        self.at(path).map(Value::entries).unwrap_or_default()
    }

    /// Whether `if` and `and` take it for true.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Missing | Self::Nil | Self::NilList | Self::NilMap => false,
            Self::Omitted(value) => value.is_true(),
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Large(_) => true,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Map(entries) => !entries.is_empty(),
            Self::Struct(..) | Self::Row(_) => true,
        }
    }

    /// Go's name of the type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Missing | Self::Nil => "interface {}",
            Self::NilList | Self::List(_) => "[]interface {}",
            Self::NilMap | Self::Map(_) => "map[string]interface {}",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Large(_) => "uint64",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Struct("", _) => "struct",
            Self::Struct(name, _) => name,
            Self::Row(row) => row.type_name,
            Self::Omitted(value) => value.type_name(),
        }
    }

    /// The whole value as JSON on one line.
    pub fn to_json(&self, escape: Escape) -> String {
        let mut out = String::new();
        self.write_json(&mut out, escape);
        out
    }

    fn write_json(&self, out: &mut String, escape: Escape) {
        match self {
            Self::Missing | Self::Nil | Self::NilList | Self::NilMap | Self::Omitted(_) => {
                out.push_str("null")
            }
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int(value) => out.push_str(&value.to_string()),
            Self::Large(value) => out.push_str(&value.to_string()),
            Self::Float(value) => out.push_str(&crate::print::float(*value)),
            Self::Text(text) => quote(text, out, escape),
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write_json(out, escape);
                }
                out.push(']');
            }
            Self::Map(entries) | Self::Struct(_, entries) => {
                let mut entries: Vec<_> =
                    entries.iter().map(|(key, value)| (&**key, value)).collect();
                match self {
                    Self::Map(_) => entries.sort_by_key(|(key, _)| *key),
                    _ => entries.retain(|(_, value)| !matches!(value, Self::Omitted(_))),
                }
                write_object(&entries, out, escape);
            }
            Self::Row(row) => {
                let mut entries: Vec<_> =
                    row.columns.iter().map(|(key, value)| (*key, value)).collect();
                entries.sort_by_key(|(key, _)| *key);
                // Go marshals a row through its own method, which escapes for HTML whatever the encoder says.
                write_object(&entries, out, Escape::Html);
            }
        }
    }
}

fn write_object(entries: &[(&str, &Value)], out: &mut String, escape: Escape) {
    out.push('{');
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        quote(key, out, escape);
        out.push(':');
        value.write_json(out, escape);
    }
    out.push('}');
}

/// The name of a field in Docker's Go types, where it is not that in JSON.
fn go_name(json: &str) -> &str {
    const NAMES: [(&str, &str); 11] = [
        ("ApiVersion", "APIVersion"),
        ("AuxiliaryAddresses", "AuxAddress"),
        ("CpuCfsPeriod", "CPUCfsPeriod"),
        ("CpuCfsQuota", "CPUCfsQuota"),
        ("Dns", "DNS"),
        ("DnsOptions", "DNSOptions"),
        ("DnsSearch", "DNSSearch"),
        ("HostIp", "HostIP"),
        ("HttpProxy", "HTTPProxy"),
        ("HttpsProxy", "HTTPSProxy"),
        ("Id", "ID"),
    ];
    NAMES.iter().find(|(known, _)| *known == json).map_or(json, |(_, go)| go)
}

/// Whether `<`, `>` and `&` are written as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    Plain,
    Html,
}

fn quote(text: &str, out: &mut String, escape: Escape) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' if escape == Escape::Html => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)))
            }
            '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Json)
    }
}

struct Json;

impl<'de> Visitor<'de> for Json {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Large(value), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            entries.push((Rc::from(key), value));
        }
        Ok(Value::Map(entries.into()))
    }
}
