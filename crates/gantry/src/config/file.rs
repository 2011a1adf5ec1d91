//! `daemon.json`, said in the words of flags.

use std::collections::BTreeMap;

use serde_json::Value;
use stdx::{Error, Result};

use super::flags::SETTINGS;
use super::flags::Shape::{Many, Pairs};

/// The file's keys as the flags' words.
pub(super) fn understand(text: &str, file: &str) -> Result<BTreeMap<&'static str, Vec<String>>> {
    let fail = |why: String| {
        Error::invalid(format!("unable to configure the Docker daemon with file {file}: {why}"))
    };
    if text.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    let object: serde_json::Map<String, Value> =
        serde_json::from_str(text).map_err(|cause| fail(cause.to_string()))?;
    let mut said = BTreeMap::new();
    for (key, value) in object {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key && !key.is_empty())
        else {
            return Err(fail(format!(
                "the following directives don't match any configuration option: {key}"
            )));
        };
        let plain = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(yes) => Some(yes.to_string()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let words = match (&value, setting.shape) {
            (Value::Array(list), Many) => {
                list.iter().map(|one| plain(one).or_else(|| pool(one))).collect()
            }
            (Value::Object(map), Pairs) if setting.flag == "default-network-opt" => {
                map.iter().flat_map(|(driver, options)| by_driver(driver, options)).collect()
            }
            (Value::Object(map), Pairs) => {
                map.iter().map(|(key, value)| pair(key, value)).collect()
            }
            (value, _) => plain(value).map(|word| vec![word]),
        };
        let words: Option<Vec<String>> = words;
        said.insert(setting.flag, words.ok_or_else(|| fail(format!("{key} has the wrong type")))?);
    }
    Ok(said)
}

/// `{"base": "10.0.0.0/8", "size": 24}`
fn pool(value: &Value) -> Option<String> {
    Some(format!("base={},size={}", value.get("base")?.as_str()?, value.get("size")?.as_u64()?))
}

/// `"bridge": {"com.docker.network.driver.mtu": "1400"}`
fn by_driver(driver: &str, options: &Value) -> Vec<Option<String>> {
    let Value::Object(options) = options else { return vec![None] };
    let one =
        |(name, value): (&String, &Value)| Some(format!("{driver}={name}={}", value.as_str()?));
    options.iter().map(one).collect()
}

/// `"runc": {"path": "/usr/sbin/runc"}`, `"nofile": {"Soft": 1, "Hard": 2}`, `"max-size": "10m"`.
fn pair(key: &str, value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(format!("{key}={text}")),
        Value::Bool(wanted) => Some(format!("{key}={wanted}")),
        Value::Object(map) => match (map.get("path"), map.get("Soft"), map.get("Hard")) {
            (Some(path), _, _) => Some(format!("{key}={}", path.as_str()?)),
            (None, soft, hard) => {
                let hard = hard?.as_i64()?;
                Some(format!("{key}={}:{hard}", soft.and_then(Value::as_i64).unwrap_or(hard)))
            }
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_words() {
        let said = understand(
            r#"{"debug": true, "dns": ["1.1.1.1"], "runtimes": {"x": {"path": "/x"}}}"#,
            "f",
        )
        .unwrap();
        assert_eq!(said["debug"], ["true"]);
        assert_eq!(said["add-runtime"], ["x=/x"]);
        let said = understand(r#"{"default-network-opts": {"bridge": {"a": "1", "b": "2"}}}"#, "f")
            .unwrap();
        assert_eq!(said["default-network-opt"], ["bridge=a=1", "bridge=b=2"]);
        let error = understand(r#"{"nope": 1}"#, "f").unwrap_err();
        assert!(
            error.to_string().ends_with("don't match any configuration option: nope"),
            "{error}"
        );
    }
}
