//! What systemd calls a container's group, and where it puts it. Pure.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use stdx::{Error, Result};

/// Whose containers are nobody else's.
const SLICE: &str = "system.slice";
const PREFIX: &str = "gantry";

/// A scope, and the slice it is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cgroup) struct Unit {
    pub(in crate::cgroup) name: String,
    pub(in crate::cgroup) slice: String,
}

impl Unit {
    /// From a spec's `cgroupsPath`, which for this driver is `slice:prefix:name`, or nothing.
    pub(in crate::cgroup) fn parse(cgroups_path: &str, id: &str) -> Result<Self> {
        let words: Vec<&str> = cgroups_path.split(':').collect();
        let (slice, prefix, name) = match words[..] {
            [""] => ("", PREFIX, id),
            [slice, prefix, name] => (slice, prefix, name),
            _ => {
                return Err(Error::invalid(format!(
                    "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {cgroups_path:?} instead"
                )));
            }
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let unit = Self {
            name: match prefix {
                "" => format!("{name}.scope"),
                prefix => format!("{prefix}-{name}.scope"),
            },
            slice: if slice.is_empty() { SLICE } else { slice }.to_owned(),
        };
        // The longest that systemd takes, and a file name can be.
        match name.is_empty() || unit.name.len() > 255 || !unit.name.chars().all(allowed) {
            true => Err(Error::invalid(format!("invalid unit name: {}", unit.name))),
            false => Ok(unit),
        }
    }

    /// Below the root of a hierarchy.
    pub(in crate::cgroup) fn path(&self) -> Result<PathBuf> {
        Ok(expand(&self.slice)?.join(&self.name))
    }
}

/// `a-b.slice` is in `a.slice`; `-.slice` is the root.
fn expand(slice: &str) -> Result<PathBuf> {
    let invalid = || Error::invalid(format!("invalid slice name: {slice}"));
    let stem = slice.strip_suffix(".slice").ok_or_else(invalid)?;
    if stem == "-" {
        return Ok(PathBuf::new());
    }
    let mut path = PathBuf::new();
    let mut name = String::new();
    for word in stem.split('-') {
        if word.is_empty() || word.contains(['/', '\0']) {
            return Err(invalid());
        }
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(word);
        path.push(format!("{name}.slice"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(cgroups_path: &str) -> String {
        match Unit::parse(cgroups_path, "abc").and_then(|unit| unit.path()) {
            Ok(path) => path.display().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn places() {
        for (given, expected) in [
            ("", "system.slice/gantry-abc.scope"),
            (":p:n", "system.slice/p-n.scope"),
            ("user.slice::n", "user.slice/n.scope"),
            ("a-b-c.slice:p:n", "a.slice/a-b.slice/a-b-c.slice/p-n.scope"),
            ("-.slice:p:n", "p-n.scope"),
            ("a--b.slice:p:n", "invalid slice name: a--b.slice"),
            ("-a.slice:p:n", "invalid slice name: -a.slice"),
            (".slice:p:n", "invalid slice name: .slice"),
            ("a/b.slice:p:n", "invalid slice name: a/b.slice"),
            ("a:p:n", "invalid slice name: a"),
            ("a.slice:p:", "invalid unit name: p-.scope"),
            ("a.slice:p:../x", "invalid unit name: p-../x.scope"),
            (
                "/a",
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/a\" instead",
            ),
        ] {
            assert_eq!(path(given), expected, "{given}");
        }
    }
}
