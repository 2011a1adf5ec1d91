//! References: what people call images. `busybox`, `ghcr.io/owner/name:tag`, `name@sha256:…`
//!
//! The grammar is the distribution project's, with Docker's normalisation in front: no domain means `docker.io`, no
//! namespace there means `library/`. A [`Reference`] that exists is normalised; [`Reference::familiar`] gives back the
//! short form that people typed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stdx::{Error, Result};

use crate::Digest;
use crate::digest::is_lower_hex;

/// The registry that is meant when none is named.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The tag that is meant when neither tag nor digest is named.
pub const DEFAULT_TAG: &str = "latest";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const PATH_MAX: usize = 255;

/// A normalised image name, perhaps with a tag, perhaps with a digest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Understands what a person typed.
    pub fn parse_normalized(text: &str) -> Result<Self> {
        if text.len() == 64 && text.bytes().all(is_lower_hex) {
            return Err(Error::invalid(format!(
                "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )));
        }
        let (domain, remainder) = split_domain(text);
        let remote = remainder.split(':').next().unwrap_or_default();
        if remote.chars().any(char::is_uppercase) {
            return Err(Error::invalid(format!(
                "invalid reference format: repository name ({remote}) must be lowercase"
            )));
        }
        Self::parse_parts(&domain, &remainder)
    }

    fn parse_parts(domain: &str, remainder: &str) -> Result<Self> {
        let bad = || Error::invalid("invalid reference format");
        let (rest, digest) = match remainder.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (remainder, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        let right = is_domain(domain)
            && path.split('/').all(is_path_component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(looks_like_digest);
        if !right {
            return Err(bad());
        }
        if path.len() > PATH_MAX {
            return Err(Error::invalid("repository name must not be more than 255 characters"));
        }
        Ok(Self {
            domain: domain.to_owned(),
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::parse).transpose()?,
        })
    }

    /// The registry: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Domain and path: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// As people type it: `busybox:latest`, `name@sha256:…`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// As people type it, without tag and digest.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(official) if !official.contains('/') => official.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The same repository under `tag`; a digest, which said something about another image, is gone.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(Error::invalid("invalid tag format"));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository by digest, without a tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// `latest`, if it has neither tag nor digest.
    pub fn with_default_tag(&self) -> Self {
        let mut named = self.clone();
        if named.tag.is_none() && named.digest.is_none() {
            named.tag = Some(DEFAULT_TAG.to_owned());
        }
        named
    }

    /// The repository alone.
    pub fn name_only(&self) -> Self {
        Self { tag: None, digest: None, ..self.clone() }
    }

    /// Only a repository: neither tag nor digest.
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(digest.as_str());
        }
        name
    }
}

/// Which part in front of the first slash is a registry and which is a namespace: Docker's rule.
fn split_domain(text: &str) -> (String, String) {
    let Some((first, rest)) = text.split_once('/') else {
        return (DEFAULT_DOMAIN.to_owned(), format!("{OFFICIAL}{text}"));
    };
    let (domain, remainder) = match first {
        "localhost" => (first, rest),
        LEGACY_DOMAIN => (DEFAULT_DOMAIN, rest),
        _ if first.contains(['.', ':']) || first.chars().any(char::is_uppercase) => (first, rest),
        _ => (DEFAULT_DOMAIN, text),
    };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        return (domain.to_owned(), format!("{OFFICIAL}{remainder}"));
    }
    (domain.to_owned(), remainder.to_owned())
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, after)) => {
                let right = !address.is_empty()
                    && address.bytes().all(|c| c.is_ascii_hexdigit() || c == b':');
                if !right {
                    return false;
                }
                match after {
                    "" => return true,
                    _ => match after.strip_prefix(':') {
                        Some(port) => (None, Some(port)),
                        None => return false,
                    },
                }
            }
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    host.is_none_or(|host| host.split('.').all(is_domain_component))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()))
}

fn is_domain_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes.iter().all(|&c| c.is_ascii_alphanumeric() || c == b'-')
        }
        _ => false,
    }
}

/// Runs of lower-case letters and digits, separated by `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    let word = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut at = 0;
    loop {
        let start = at;
        while at < bytes.len() && word(bytes[at]) {
            at += 1;
        }
        if at == start {
            return false;
        }
        let separator = at;
        while at < bytes.len() && !word(bytes[at]) {
            at += 1;
        }
        match &bytes[separator..at] {
            b"" => return true,
            b"." | b"_" | b"__" => {}
            dashes if dashes.iter().all(|&c| c == b'-') => {}
            _ => return false,
        }
    }
}

/// A letter, digit or underscore, then up to 127 of those, dots and dashes.
pub fn is_tag(text: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    match text.as_bytes() {
        [first, rest @ ..] => {
            word(*first)
                && rest.len() < 128
                && rest.iter().all(|&c| word(c) || c == b'.' || c == b'-')
        }
        [] => false,
    }
}

/// The grammar's digest, which knows no algorithms; whether we know the algorithm is another question.
fn looks_like_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let component = |part: &str| {
        part.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
            && part.bytes().all(|c| c.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(component)
        && hex.len() >= 32
        && hex.bytes().all(|c| c.is_ascii_hexdigit())
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse_normalized(text)
    }
}

/// In full: `docker.io/library/busybox:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.name()))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse_normalized(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_completed_and_shortened() {
        let check = |text: &str, full: &str, familiar: &str| {
            let reference = Reference::parse_normalized(text).unwrap();
            assert_eq!(
                (reference.to_string(), reference.familiar()),
                (full.to_owned(), familiar.to_owned()),
                "{text}"
            );
        };
        check("busybox", "docker.io/library/busybox", "busybox");
        check("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36");
        check("docker.io/busybox", "docker.io/library/busybox", "busybox");
        check("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox");
        check("owner/name", "docker.io/owner/name", "owner/name");
        check("library/a/b", "docker.io/library/a/b", "library/a/b");
        check("localhost/name", "localhost/name", "localhost/name");
        check("localhost:5000/a/b:t", "localhost:5000/a/b:t", "localhost:5000/a/b:t");
        check("Host/name", "Host/name", "Host/name");
        check("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x");
        check("a__b/c.d_e--f", "docker.io/a__b/c.d_e--f", "a__b/c.d_e--f");
        check(
            &format!("x:t@{DIGEST}"),
            &format!("docker.io/library/x:t@{DIGEST}"),
            &format!("x:t@{DIGEST}"),
        );
    }

    #[test]
    fn refusals_in_dockers_words() {
        let check = |text: &str, words: &str| {
            assert_eq!(Reference::parse_normalized(text).unwrap_err().to_string(), words, "{text}");
        };
        let format = "invalid reference format";
        for text in [
            "", ":", "a:", "a:b:c", "a@", "a@b", "-a", "a-", "a..b", "a___b", "a/./b", "a//b",
            "/a", "a/", "a b", "a:-x", "a.b./c", "a.b:x/c", "[::1/x", "[x]/y", "ä",
        ] {
            check(text, format);
        }
        check("X", "invalid reference format: repository name (library/X) must be lowercase");
        check(
            "owner/Name:T",
            "invalid reference format: repository name (owner/Name) must be lowercase",
        );
        check(&format!("x@{DIGEST}0"), "invalid checksum digest length");
        check(&format!("x@sha255:{}", "a".repeat(64)), "unsupported digest algorithm");
        check(&format!("x@{}", &DIGEST[..40]), "invalid checksum digest length");
        check(&format!("x@{}", &DIGEST[..30]), format);
        let hex = "a".repeat(64);
        check(
            &hex,
            &format!("invalid repository name ({hex}), cannot specify 64-byte hexadecimal strings"),
        );
        check(&"a".repeat(256), "repository name must not be more than 255 characters");
        check(&format!("a:{}", "t".repeat(129)), format);
    }

    #[test]
    fn tags_and_digests_replace_each_other() {
        let name = Reference::parse_normalized("x").unwrap();
        assert!(name.is_name_only());
        assert_eq!(name.with_default_tag().familiar(), "x:latest");
        assert_eq!(name.with_tag("1").unwrap().with_default_tag().familiar(), "x:1");
        let by_digest = name.with_tag("1").unwrap().with_digest(DIGEST.parse().unwrap());
        assert_eq!(by_digest.familiar(), format!("x@{DIGEST}"));
        assert_eq!(by_digest.with_default_tag(), by_digest);
        assert_eq!(by_digest.with_tag("2").unwrap().familiar(), "x:2");
        assert_eq!(name.with_tag("a b").unwrap_err().to_string(), "invalid tag format");
    }
}
