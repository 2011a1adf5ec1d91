//! `--secret` and `--config`: what services of a swarm take, for single containers.

use api::secret::{ConfigReference, FileTarget, SecretReference};
use stdx::{Error, Result};

/// `name`, or `source=name,target=…,uid=…,gid=…,mode=0440`; `name` may stand first without its key. With `signal=HUP` the
/// container's first process is told when the secret has been replaced.
pub(super) fn secret(text: &str) -> Result<SecretReference> {
    let Wanted { source, file, signal } = wanted("secret", text)?;
    Ok(SecretReference { file, secret_name: source, signal, ..SecretReference::default() })
}

pub(super) fn config(text: &str) -> Result<ConfigReference> {
    let Wanted { source, file, signal } = wanted("config", text)?;
    if !signal.is_empty() {
        return Err(Error::invalid("invalid field in config request: signal"));
    }
    Ok(ConfigReference { file, config_name: source, ..ConfigReference::default() })
}

struct Wanted {
    source: String,
    file: FileTarget,
    signal: String,
}

fn wanted(noun: &str, text: &str) -> Result<Wanted> {
    let (mut source, mut signal) = (String::new(), String::new());
    let mut file = FileTarget::default();
    for (index, field) in text.split(',').enumerate() {
        let Some((key, value)) = field.split_once('=') else {
            if index == 0 && !field.is_empty() {
                field.clone_into(&mut source);
                continue;
            }
            return Err(Error::invalid(format!(
                "invalid field '{field}' must be a key=value pair"
            )));
        };
        match key.to_lowercase().as_str() {
            "source" | "src" => value.clone_into(&mut source),
            "target" => value.clone_into(&mut file.name),
            "uid" => value.clone_into(&mut file.uid),
            "gid" => value.clone_into(&mut file.gid),
            "mode" => file.mode = mode(value)?,
            "signal" => value.clone_into(&mut signal),
            _ => return Err(Error::invalid(format!("invalid field in {noun} request: {key}"))),
        }
    }
    if source.is_empty() {
        return Err(Error::invalid("source is required"));
    }
    Ok(Wanted { source, file, signal })
}

/// As Go reads a number without being told its base.
fn mode(text: &str) -> Result<u32> {
    let (base, digits) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &text[2..]),
        [b'0', b'o' | b'O', ..] => (8, &text[2..]),
        [b'0', b'b' | b'B', ..] => (2, &text[2..]),
        [b'0', _, ..] => (8, &text[1..]),
        _ => (10, text),
    };
    u32::from_str_radix(digits, base).map_err(|_| {
        Error::invalid(format!(
            "invalid mode specified: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_may_be_said() {
        let short = secret("key").unwrap();
        assert_eq!((short.secret_name.as_str(), short.file), ("key", FileTarget::default()));
        let long = secret("source=key,target=/etc/key,uid=5,gid=6,mode=0400,signal=HUP").unwrap();
        let file = FileTarget {
            name: "/etc/key".to_owned(),
            uid: "5".to_owned(),
            gid: "6".to_owned(),
            mode: 0o400,
        };
        assert_eq!(
            (long.secret_name.as_str(), long.file, long.signal.as_str()),
            ("key", file, "HUP")
        );
        assert_eq!(config("key,target=x").unwrap().file.name, "x");
        assert_eq!(mode("292").unwrap(), 0o444);
    }

    #[test]
    fn in_dockers_words() {
        for (text, words) in [
            ("source=one,foo=1", "invalid field in secret request: foo"),
            ("source=one,foo", "invalid field 'foo' must be a key=value pair"),
            ("target=x", "source is required"),
            ("", "invalid field '' must be a key=value pair"),
        ] {
            assert_eq!(secret(text).unwrap_err().to_string(), words);
        }
        assert!(secret("a,mode=9x").unwrap_err().to_string().starts_with("invalid mode specified"));
    }
}
