//! The functions a template may call: Go's own, and Docker's additions.

use std::cmp::Ordering;

use crate::print;
use crate::value::{Escape, Value};

type Result = std::result::Result<Value, String>;

struct Function {
    name: &'static str,
    /// Least and most arguments.
    takes: (usize, usize),
    call: fn(&[Value]) -> Result,
}

const MANY: usize = usize::MAX;

/// `and` and `or` are here for their names; the evaluator stops at the deciding argument.
static GOS: [Function; 18] = [
    Function { name: "and", takes: (1, MANY), call: |args| Ok(decided(args, false)) },
    Function { name: "or", takes: (1, MANY), call: |args| Ok(decided(args, true)) },
    Function { name: "not", takes: (1, 1), call: |args| Ok(Value::Bool(!args[0].is_true())) },
    Function { name: "len", takes: (1, 1), call: |args| len(&args[0]) },
    Function { name: "index", takes: (1, MANY), call: |args| index(&args[0], &args[1..]) },
    Function { name: "slice", takes: (1, 4), call: |args| slice(&args[0], &args[1..]) },
    Function { name: "print", takes: (0, MANY), call: |args| Ok(Value::text(print::sprint(args))) },
    Function {
        name: "println",
        takes: (0, MANY),
        call: |args| Ok(Value::text(print::sprintln(args))),
    },
    Function {
        name: "printf",
        takes: (1, MANY),
        call: |args| Ok(Value::text(print::sprintf(&text(&args[0])?, &args[1..]))),
    },
    Function {
        name: "html",
        takes: (0, MANY),
        call: |args| Ok(Value::text(html(&print::sprint(args)))),
    },
    Function {
        name: "js",
        takes: (0, MANY),
        call: |args| Ok(Value::text(js(&print::sprint(args)))),
    },
    Function {
        name: "urlquery",
        takes: (0, MANY),
        call: |args| Ok(Value::text(urlquery(&print::sprint(args)))),
    },
    Function { name: "eq", takes: (1, MANY), call: equal },
    Function {
        name: "ne",
        takes: (2, 2),
        call: |args| Ok(Value::Bool(!same(&args[0], &args[1])?)),
    },
    Function {
        name: "lt",
        takes: (2, 2),
        call: |args| Ok(Value::Bool(order(args)? == Ordering::Less)),
    },
    Function {
        name: "le",
        takes: (2, 2),
        call: |args| Ok(Value::Bool(order(args)? != Ordering::Greater)),
    },
    Function {
        name: "gt",
        takes: (2, 2),
        call: |args| Ok(Value::Bool(order(args)? == Ordering::Greater)),
    },
    Function {
        name: "ge",
        takes: (2, 2),
        call: |args| Ok(Value::Bool(order(args)? != Ordering::Less)),
    },
];

static DOCKERS: [Function; 8] = [
    Function {
        name: "json",
        takes: (1, 1),
        call: |args| Ok(Value::text(args[0].to_json(Escape::Plain))),
    },
    Function {
        name: "split",
        takes: (2, 2),
        call: |args| split(&text(&args[0])?, &text(&args[1])?),
    },
    Function { name: "join", takes: (2, 2), call: |args| join(&args[0], &text(&args[1])?) },
    Function {
        name: "title",
        takes: (1, 1),
        call: |args| Ok(Value::text(title(&text(&args[0])?))),
    },
    Function {
        name: "lower",
        takes: (1, 1),
        call: |args| Ok(Value::text(text(&args[0])?.to_lowercase())),
    },
    Function {
        name: "upper",
        takes: (1, 1),
        call: |args| Ok(Value::text(text(&args[0])?.to_uppercase())),
    },
    Function {
        name: "pad",
        takes: (3, 3),
        call: |args| pad(&text(&args[0])?, int(&args[1])?, int(&args[2])?),
    },
    Function {
        name: "truncate",
        takes: (2, 2),
        call: |args| truncate(&text(&args[0])?, int(&args[1])?),
    },
];

/// Functions beside those that Go has itself.
pub trait Functions {
    /// Least and most arguments; `None` for what is not defined.
    fn takes(&self, name: &str) -> Option<(usize, usize)>;

    /// With as many arguments as it takes. The error is its own sentence.
    fn call(&self, name: &str, args: &[Value]) -> std::result::Result<Value, String>;
}

/// What Docker's commands add: over a table's headings they give back their first argument.
#[derive(Clone, Copy, Debug)]
pub struct Docker;

impl Functions for Docker {
    fn takes(&self, name: &str) -> Option<(usize, usize)> {
        DOCKERS.iter().find(|function| function.name == name).map(|function| function.takes)
    }

    fn call(&self, name: &str, args: &[Value]) -> Result {
        match DOCKERS.iter().find(|function| function.name == name) {
            Some(function) => (function.call)(args),
            None => Err(undefined(name)),
        }
    }
}

fn gos(name: &str) -> Option<&'static Function> {
    GOS.iter().find(|function| function.name == name)
}

fn takes(name: &str, more: &dyn Functions) -> Option<(usize, usize)> {
    more.takes(name).or_else(|| gos(name).map(|function| function.takes))
}

fn undefined(name: &str) -> String {
    format!("{name:?} is not a defined function")
}

pub(crate) fn exists(name: &str, more: &dyn Functions) -> bool {
    takes(name, more).is_some()
}

/// What is wrong with calling `name` with so many arguments.
pub(crate) fn check_count(
    name: &str,
    given: usize,
    more: &dyn Functions,
) -> std::result::Result<(), String> {
    let (least, most) = takes(name, more).ok_or_else(|| undefined(name))?;
    if given < least {
        let at_least = if most == MANY { "at least " } else { "" };
        return Err(format!("wrong number of args for {name}: want {at_least}{least} got {given}"));
    }
    if given > most {
        return Err(format!("wrong number of args for {name}: want {most} got {given}"));
    }
    Ok(())
}

/// Calls a function whose argument count was checked. The error is its own sentence.
pub(crate) fn call(name: &str, args: &[Value], more: &dyn Functions) -> Result {
    match gos(name).filter(|_| more.takes(name).is_none()) {
        Some(function) => (function.call)(args),
        None => more.call(name, args),
    }
}

fn decided(args: &[Value], at: bool) -> Value {
    let decided = args.iter().find(|value| value.is_true() == at).or(args.last());
    decided.cloned().unwrap_or(Value::Missing)
}

fn text(value: &Value) -> std::result::Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.to_string()),
        Value::Missing => Ok(String::new()),
        other => Err(format!("wrong type for value; expected string; got {}", other.type_name())),
    }
}

fn int(value: &Value) -> std::result::Result<i64, String> {
    match value {
        Value::Int(number) => Ok(*number),
        other => Err(format!("wrong type for value; expected int; got {}", other.type_name())),
    }
}

fn len(value: &Value) -> Result {
    let len = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Map(entries) => entries.len(),
        Value::NilList | Value::NilMap => 0,
        Value::Nil | Value::Missing => return Err("len of nil pointer".to_owned()),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(i64::try_from(len).unwrap_or(i64::MAX)))
}

fn index(value: &Value, keys: &[Value]) -> Result {
    let mut value = value.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::List(items), Value::Int(at)) => {
                let found = usize::try_from(*at).ok().and_then(|at| items.get(at));
                found.cloned().ok_or_else(|| format!("index out of range: {at}"))?
            }
            (Value::NilList, Value::Int(at)) => return Err(format!("index out of range: {at}")),
            (Value::Text(text), Value::Int(at)) => {
                let found = usize::try_from(*at).ok().and_then(|at| text.as_bytes().get(at));
                Value::Int(i64::from(*found.ok_or_else(|| format!("index out of range: {at}"))?))
            }
            (Value::Map(_), Value::Text(key)) => match value.get(key) {
                Some(found) => found.clone(),
                None => absent(&value),
            },
            (Value::NilMap, Value::Text(_)) => Value::text(""),
            (Value::Map(_) | Value::NilMap, key) => {
                return Err(format!("value has type {}; should be string", key.type_name()));
            }
            (Value::List(_) | Value::Text(_) | Value::NilList, Value::Nil | Value::Missing) => {
                return Err("cannot index slice/array with nil".to_owned());
            }
            (Value::List(_) | Value::Text(_) | Value::NilList, key) => {
                return Err(format!("cannot index slice/array with type {}", key.type_name()));
            }
            (Value::Nil | Value::Missing, _) => return Err("index of untyped nil".to_owned()),
            (other, _) => return Err(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(value)
}

/// The zero value of a map's values: `index` gives it for a key that is not there.
fn absent(map: &Value) -> Value {
    match map.entries().first() {
        Some((_, Value::Text(_))) | None => Value::text(""),
        Some((_, Value::Int(_))) => Value::Int(0),
        Some((_, Value::List(_) | Value::NilList)) => Value::NilList,
        Some(_) => Value::Nil,
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Result {
    let len = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::NilList => 0,
        Value::Nil | Value::Missing => return Err("slice of untyped nil".to_owned()),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    let mut range = [0, len];
    for (slot, bound) in range.iter_mut().zip(bounds) {
        let at = int(bound)
            .map_err(|_| format!("cannot index slice/array with type {}", bound.type_name()))?;
        *slot = usize::try_from(at)
            .ok()
            .filter(|at| *at <= len)
            .ok_or_else(|| format!("index out of range: {at}"))?;
    }
    let [from, to] = range;
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    Ok(match value {
        Value::Text(text) => Value::text(String::from_utf8_lossy(&text.as_bytes()[from..to])),
        Value::List(items) => Value::list(items[from..to].iter().cloned()),
        other => other.clone(),
    })
}

fn equal(args: &[Value]) -> Result {
    if args.len() < 2 {
        return Err("missing argument for comparison".to_owned());
    }
    for other in &args[1..] {
        if same(&args[0], other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn is_nil(value: &Value) -> bool {
    matches!(value, Value::Nil | Value::NilList | Value::NilMap | Value::Missing)
}

fn same(a: &Value, b: &Value) -> std::result::Result<bool, String> {
    match (a, b) {
        (Value::Bool(_), Value::Bool(_))
        | (Value::Int(_), Value::Int(_))
        | (Value::Text(_), Value::Text(_)) => Ok(a == b),
        (Value::Float(a), Value::Float(b)) => Ok(a == b),
        (a, b) if is_nil(a) || is_nil(b) => Ok(is_nil(a) && is_nil(b)),
        (Value::List(_) | Value::Map(_), _) | (_, Value::List(_) | Value::Map(_)) => {
            Err(format!("non-comparable type {}: {}", print::show(a), a.type_name()))
        }
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn order(args: &[Value]) -> std::result::Result<Ordering, String> {
    match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => Ok(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => {
            a.partial_cmp(b).ok_or_else(|| "invalid type for comparison".to_owned())
        }
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        (
            Value::Int(_) | Value::Float(_) | Value::Text(_),
            Value::Int(_) | Value::Float(_) | Value::Text(_),
        ) => Err("incompatible types for comparison".to_owned()),
        _ => Err("invalid type for comparison".to_owned()),
    }
}

fn split(text: &str, by: &str) -> Result {
    Ok(match by {
        "" => Value::list(text.chars().map(|c| Value::text(c.to_string()))),
        by => Value::list(text.split(by).map(Value::text)),
    })
}

fn join(list: &Value, by: &str) -> Result {
    match list {
        Value::List(items) => {
            let texts: std::result::Result<Vec<String>, String> = items.iter().map(text).collect();
            Ok(Value::text(texts?.join(by)))
        }
        Value::NilList | Value::Nil | Value::Missing => Ok(Value::text("")),
        other => Err(format!("wrong type for value; expected []string; got {}", other.type_name())),
    }
}

fn title(text: &str) -> String {
    let mut start = true;
    let mut out = String::new();
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        start = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    out
}

fn pad(text: &str, before: i64, after: i64) -> Result {
    if text.is_empty() {
        return Ok(Value::text(""));
    }
    let blanks = |count: i64| " ".repeat(usize::try_from(count).unwrap_or(0));
    Ok(Value::text(format!("{}{text}{}", blanks(before), blanks(after))))
}

fn truncate(text: &str, most: i64) -> Result {
    let most = usize::try_from(most).unwrap_or(0);
    Ok(match text.get(..most) {
        Some(head) => Value::text(head),
        None => Value::text(text),
    })
}

fn html(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

fn urlquery(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte))
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
