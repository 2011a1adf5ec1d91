//! Digests: the name of some bytes is their hash.
//!
//! A [`Digest`] that exists is well-formed: lower-case hex of the right length for an algorithm we can compute. Whatever
//! is stored under a digest can therefore use its text as a file name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stdx::{Error, Result};

/// The hash functions registries use, and that we can verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hex digits its digests have.
    pub fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `sha256:e3b0c442…`
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    text: Box<str>,
}

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Understands the 64 hex digits of a SHA-256, without the algorithm in front.
    pub fn from_sha256_hex(hex: &str) -> Result<Self> {
        format!("sha256:{hex}").parse()
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Everything behind the colon.
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.name().len() + 1..]
    }

    /// The first twelve hex digits, as people see them.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, hex) = text
            .split_once(':')
            .filter(|(name, hex)| !name.is_empty() && !hex.is_empty())
            .ok_or_else(|| Error::invalid("invalid checksum digest format"))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ if name.bytes().all(|c| c.is_ascii_alphanumeric() || b"+._-".contains(&c)) => {
                return Err(Error::invalid("unsupported digest algorithm"));
            }
            _ => return Err(Error::invalid("invalid checksum digest format")),
        };
        if hex.len() != algorithm.hex_length() {
            return Err(Error::invalid("invalid checksum digest length"));
        }
        if !hex.bytes().all(is_lower_hex) {
            return Err(Error::invalid("invalid checksum digest format"));
        }
        Ok(Self { algorithm, text: text.into() })
    }
}

pub(crate) fn is_lower_hex(c: u8) -> bool {
    c.is_ascii_digit() || (b'a'..=b'f').contains(&c)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl AsRef<str> for Digest {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a digest of bytes that come in pieces.
#[derive(Clone)]
pub struct Hasher {
    algorithm: Algorithm,
    context: ring::digest::Context,
}

impl Hasher {
    pub fn new(algorithm: Algorithm) -> Self {
        let ring = match algorithm {
            Algorithm::Sha256 => &ring::digest::SHA256,
            Algorithm::Sha512 => &ring::digest::SHA512,
        };
        Self { algorithm, context: ring::digest::Context::new(ring) }
    }

    /// The hasher most things are named by.
    pub fn sha256() -> Self {
        Self::new(Algorithm::Sha256)
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    pub fn finish(self) -> Digest {
        use fmt::Write as _;
        let hash = self.context.finish();
        let mut text =
            String::with_capacity(self.algorithm.name().len() + 1 + self.algorithm.hex_length());
        text.push_str(self.algorithm.name());
        text.push(':');
        for byte in hash.as_ref() {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        }
        Digest { algorithm: self.algorithm, text: text.into() }
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_string_has_its_well_known_digest() {
        let digest = Digest::of(b"");
        assert_eq!(
            digest.to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert_eq!(digest.as_str().parse::<Digest>().unwrap(), digest);
    }

    #[test]
    fn pieces_hash_as_the_whole() {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"a");
        hasher.update(b"bc");
        assert!(hasher.finish().as_str().starts_with("sha512:ddaf35a193617aba"));
    }

    #[test]
    fn what_could_be_taken_for_a_digest_is_refused() {
        let check = |text: &str, words: &str| {
            assert_eq!(text.parse::<Digest>().unwrap_err().to_string(), words, "{text}")
        };
        let hex = "a".repeat(64);
        check("", "invalid checksum digest format");
        check(&hex, "invalid checksum digest format");
        check("sha256:", "invalid checksum digest format");
        check("sha256:abc", "invalid checksum digest length");
        check(&format!("sha256:{}", "A".repeat(64)), "invalid checksum digest format");
        check(&format!("sha256:../{}", "a".repeat(61)), "invalid checksum digest format");
        check(&format!("md5:{}", "a".repeat(32)), "unsupported digest algorithm");
        check(&format!("sha/256:{hex}"), "invalid checksum digest format");
        check(&format!("SHA256:{hex}"), "unsupported digest algorithm");
    }
}
