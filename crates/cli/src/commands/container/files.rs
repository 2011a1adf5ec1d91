//! Files named by flags: environment and label files, security profiles.

use std::fs;

use stdx::{Error, Result};

use crate::env;

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|err| {
        Error::invalid(match err.kind() {
            std::io::ErrorKind::InvalidData => format!("invalid utf8 bytes at line 1: {path}"),
            _ => format!("open {path}: {}", Error::from(err)),
        })
    })
}

/// The variables of env files, then those of `-e`. A name alone takes the value we have ourselves.
pub(crate) fn environment(files: &[&str], flags: &[&str]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for path in files {
        for line in lines(path)? {
            match line.split_once('=') {
                Some(_) => all.push(line),
                None => all.extend(env::var(&line).map(|value| format!("{line}={value}"))),
            }
        }
    }
    for flag in flags {
        match flag.contains('=') {
            true => all.push((*flag).to_owned()),
            // A name we do not know either is passed on: it takes the variable away.
            false => all.push(
                env::var(flag)
                    .map_or_else(|| (*flag).to_owned(), |value| format!("{flag}={value}")),
            ),
        }
    }
    Ok(all)
}

/// The labels of label files, then those of `-l`.
pub(crate) fn labels(files: &[&str], flags: &[&str]) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for path in files {
        all.extend(lines(path)?);
    }
    all.extend(flags.iter().map(|flag| (*flag).to_owned()));
    Ok(all
        .into_iter()
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (pair, String::new()),
        })
        .collect())
}

/// The lines that say something. A name must not contain blanks.
fn lines(path: &str) -> Result<Vec<String>> {
    let text = read(path)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default().trim_start();
        if name.contains([' ', '\t']) {
            return Err(Error::invalid(format!(
                "invalid env file ({path}): variable '{name}' contains whitespaces"
            )));
        }
        if name.is_empty() {
            return Err(Error::invalid(format!(
                "invalid env file ({path}): no variable name on line '{line}'"
            )));
        }
        lines.push(line.to_owned());
    }
    Ok(lines)
}

/// What `--security-opt` becomes in the request.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Security {
    pub(super) options: Vec<String>,
    /// `systempaths=unconfined`: nothing is masked or read-only.
    pub(super) open_system_paths: bool,
}

/// Reads seccomp profiles from their files; the daemon gets their text.
pub(super) fn security(flags: &[&str]) -> Result<Security> {
    let mut security = Security::default();
    for flag in flags {
        let pair = flag.split_once('=').or_else(|| flag.split_once(':'));
        match (pair, *flag) {
            (Some(("systempaths", "unconfined")), _) => security.open_system_paths = true,
            (Some(("seccomp", profile)), _) if profile != "unconfined" && profile != "builtin" => {
                let text = read(profile).map_err(|err| {
                    Error::invalid(format!("opening seccomp profile ({profile}) failed: {err}"))
                })?;
                let document: serde_json::Value = serde_json::from_str(&text).map_err(|err| {
                    Error::invalid(format!(
                        "compacting json for seccomp profile ({profile}) failed: {err}"
                    ))
                })?;
                security.options.push(format!("seccomp={document}"));
            }
            (Some(_), _) | (None, "no-new-privileges") => security.options.push((*flag).to_owned()),
            (None, _) => return Err(Error::invalid(format!("Invalid --security-opt: {flag:?}"))),
        }
    }
    Ok(security)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        fs::write(&path, "# comment\nA=1\n\n  B = x y\n\nGANTRY_SURELY_NOT_SET\n").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(
            environment(&[path], &["C=3", "GANTRY_SURELY_NOT_SET"]).unwrap_err().to_string(),
            format!("invalid env file ({path}): variable 'B ' contains whitespaces")
        );
        fs::write(path, "# comment\nA=1\nB=x y\nGANTRY_SURELY_NOT_SET\n").unwrap();
        assert_eq!(
            environment(&[path], &["C=3", "GANTRY_SURELY_NOT_SET"]).unwrap(),
            ["A=1", "B=x y", "C=3", "GANTRY_SURELY_NOT_SET"]
        );
        assert_eq!(
            environment(&["/nope"], &[]).unwrap_err().to_string(),
            "open /nope: no such file or directory"
        );
    }

    #[test]
    fn security_options() {
        let parsed =
            security(&["no-new-privileges", "seccomp=unconfined", "systempaths=unconfined"])
                .unwrap();
        assert_eq!(parsed.options, ["no-new-privileges", "seccomp=unconfined"]);
        assert!(parsed.open_system_paths);
        assert_eq!(security(&["x"]).unwrap_err().to_string(), "Invalid --security-opt: \"x\"");
    }
}
