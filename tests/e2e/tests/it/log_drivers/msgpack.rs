//! MessagePack read, as far as logging drivers write it.

use serde_json::{Map, Value, json};

/// All the values there are.
pub(crate) fn values(mut bytes: &[u8]) -> Vec<Value> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        values.push(value(&mut bytes));
    }
    values
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn number(bytes: &mut &[u8], width: usize) -> u64 {
    take(bytes, width).iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn length(bytes: &mut &[u8], width: usize) -> usize {
    usize::try_from(number(bytes, width)).expect("a length")
}

fn string(bytes: &mut &[u8], length: usize) -> Value {
    Value::String(String::from_utf8_lossy(take(bytes, length)).into_owned())
}

fn array(bytes: &mut &[u8], length: usize) -> Value {
    (0..length).map(|_| value(bytes)).collect()
}

fn map(bytes: &mut &[u8], length: usize) -> Value {
    let mut map = Map::new();
    for _ in 0..length {
        let name = value(bytes).as_str().expect("a name").to_owned();
        map.insert(name, value(bytes));
    }
    Value::Object(map)
}

fn value(bytes: &mut &[u8]) -> Value {
    let head = take(bytes, 1)[0];
    match head {
        0x00..=0x7f => json!(head),
        0x80..=0x8f => map(bytes, usize::from(head & 0x0f)),
        0x90..=0x9f => array(bytes, usize::from(head & 0x0f)),
        0xa0..=0xbf => string(bytes, usize::from(head & 0x1f)),
        0xc0 => Value::Null,
        0xcc..=0xcf => json!(number(bytes, 1 << (head - 0xcc))),
        0xd0..=0xd3 => json!(number(bytes, 1 << (head - 0xd0))),
        // Fluentd's time: seconds and nanoseconds.
        0xd7 => {
            let kind = number(bytes, 1);
            let (seconds, nanos) = (number(bytes, 4), number(bytes, 4));
            json!({ "ext": kind, "seconds": seconds, "precise": nanos > 0 })
        }
        0xd9 => {
            let length = length(bytes, 1);
            string(bytes, length)
        }
        0xda => {
            let length = length(bytes, 2);
            string(bytes, length)
        }
        0xdb => {
            let length = length(bytes, 4);
            string(bytes, length)
        }
        0xde => {
            let length = length(bytes, 2);
            map(bytes, length)
        }
        other => panic!("a value that begins with {other:#x}"),
    }
}
