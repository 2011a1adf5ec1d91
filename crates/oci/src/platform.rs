//! Platforms: `linux/arm64/v8`, as people write them and as indexes list them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use stdx::{Error, Result};

use crate::image::nullable;

/// What an image was built for. Always in its normal form when it was parsed: `amd64`, not `x86_64`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    #[serde(deserialize_with = "nullable")]
    pub architecture: String,
    #[serde(deserialize_with = "nullable")]
    pub os: String,
    #[serde(
        rename = "os.version",
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    #[serde(
        rename = "os.features",
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

const SYSTEMS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
];
const ARCHITECTURES: [&str; 19] = [
    "386", "amd64", "amd64p32", "arm", "armbe", "arm64", "arm64be", "ppc64", "ppc64le", "loong64",
    "mips", "mipsle", "mips64", "mips64le", "riscv", "riscv64", "s390x", "sparc64", "wasm",
];

impl Platform {
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..Self::default()
        }
        .normalized()
    }

    /// The machine we run on.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, "")
    }

    /// The same with common other spellings resolved (`x86_64`, `aarch64`, `armhf`, arm64's `v8`).
    pub fn normalized(mut self) -> Self {
        self.os = match self.os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        let architecture = self.architecture.to_ascii_lowercase();
        let variant = self.variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386" | "x86", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            other => other,
        };
        (self.architecture, self.variant) = (architecture.to_owned(), variant.to_owned());
        self
    }

    /// What a machine of this platform can run, the best first.
    fn runnable(&self) -> Vec<Self> {
        let here = self.clone().normalized();
        let others: &[(&str, &str)] = match (here.architecture.as_str(), here.variant.as_str()) {
            ("amd64", "v4") => &[("amd64", "v3"), ("amd64", "v2"), ("amd64", ""), ("386", "")],
            ("amd64", "v3") => &[("amd64", "v2"), ("amd64", ""), ("386", "")],
            ("amd64", "v2") => &[("amd64", ""), ("386", "")],
            ("amd64", _) => &[("386", "")],
            ("arm64", _) => &[("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")],
            ("arm", "v8") => &[("arm", "v7"), ("arm", "v6"), ("arm", "v5")],
            ("arm", "v7") => &[("arm", "v6"), ("arm", "v5")],
            ("arm", "v6") => &[("arm", "v5")],
            _ => &[],
        };
        let others =
            others.iter().map(|(architecture, variant)| Self::new(&here.os, architecture, variant));
        std::iter::once(here.clone()).chain(others).collect()
    }

    /// How well something built for `candidate` runs on this platform: 0 is best, `None` not at all.
    pub fn preference(&self, candidate: &Self) -> Option<usize> {
        let candidate = candidate.clone().normalized();
        self.runnable().iter().position(|runs| runs.same_machine(&candidate))
    }

    /// Something built for `candidate` runs on this platform.
    pub fn matches(&self, candidate: &Self) -> bool {
        self.preference(candidate).is_some()
    }

    fn same_machine(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && self.variant == other.variant
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// `os`, `architecture`, `os/architecture` or `os/architecture/variant`; what is left out is the host's.
    fn from_str(text: &str) -> Result<Self> {
        if text.contains('*') {
            return Err(Error::invalid(format!(
                "{text:?}: wildcards not yet supported: invalid argument"
            )));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let is_of = |part: &str, others: &[u8]| {
            let right = |c: u8| c.is_ascii_alphanumeric() || others.contains(&c);
            !part.is_empty() && part.bytes().all(right)
        };
        let first = parts[0];
        if !is_of(first.split_once('(').map_or(first, |(os, _)| os), b"_-") {
            return Err(Error::invalid(format!(
                "{first:?} is an invalid OS component of {text:?}: OSAndVersion specifier component must match \
                 \"^([A-Za-z0-9_-]+)(?:\\\\(([A-Za-z0-9_.-]*)\\\\))?$\": invalid argument"
            )));
        }
        for part in &parts[1..] {
            if !is_of(part, b"_.-") {
                return Err(Error::invalid(format!(
                    "{part:?} is an invalid component of {text:?}: platform specifier component must match \
                     \"^[A-Za-z0-9_.-]+$\": invalid argument"
                )));
            }
        }
        let (system, os_version) = match parts[0].split_once('(') {
            Some((os, version)) => (os, version.trim_end_matches(')')),
            None => (parts[0], ""),
        };
        let host = Self::host();
        let mut platform = match parts.as_slice() {
            [one] => {
                let as_system = Self::new(system, &host.architecture, &host.variant);
                let as_machine = Self::new(&host.os, one, "");
                if SYSTEMS.contains(&as_system.os.as_str()) {
                    as_system
                } else if ARCHITECTURES.contains(&as_machine.architecture.as_str()) {
                    as_machine
                } else {
                    return Err(Error::invalid(format!(
                        "{text:?}: unknown operating system or architecture: invalid argument"
                    )));
                }
            }
            [_, architecture] => Self::new(system, architecture, ""),
            [_, architecture, variant] => Self::new(system, architecture, variant),
            _ => {
                return Err(Error::invalid(format!(
                    "{text:?}: cannot parse platform specifier: invalid argument"
                )));
            }
        };
        platform.os_version = os_version.to_owned();
        Ok(platform)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_unknown =
            |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
        f.write_str(&or_unknown(&self.os))?;
        if !self.os_version.is_empty() {
            write!(f, "({})", self.os_version)?;
        }
        if !self.architecture.is_empty() {
            write!(f, "/{}", self.architecture)?;
        }
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        let check = |text: &str, normal: &str| {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), normal)
        };
        check("linux/x86_64", "linux/amd64");
        check("linux/amd64/v1", "linux/amd64");
        check("linux/amd64/v3", "linux/amd64/v3");
        check("linux/aarch64/v8", "linux/arm64");
        check("linux/arm", "linux/arm/v7");
        check("linux/armhf", "linux/arm/v7");
        check("arm64", "linux/arm64");
        check("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64");
        for bad in ["", "linux/", "linux/amd64/v1/x", "plan10", "linux/*", "a b"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_better_match_is_preferred() {
        let v7: Platform = "linux/arm/v7".parse().unwrap();
        assert_eq!(v7.preference(&v7), Some(0));
        assert_eq!(v7.preference(&"linux/arm/v6".parse().unwrap()), Some(1));
        assert_eq!(v7.preference(&"linux/arm64".parse().unwrap()), None);
        assert!(Platform::new("linux", "arm64", "").matches(&v7));
        assert!(Platform::new("linux", "amd64", "").matches(&Platform::new("linux", "386", "")));
        assert!(
            !Platform::new("linux", "amd64", "").matches(&Platform::new("windows", "amd64", ""))
        );
        assert!(
            !Platform::new("linux", "amd64", "").matches(&Platform::new("linux", "amd64", "v3"))
        );
    }
}
