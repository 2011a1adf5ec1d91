//! Identifiers: 32 random bytes as 64 hex digits, and their short form of 12.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A container, network or exec identifier: 64 lower-case hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(String);

impl Id {
    /// A new one from the kernel's random numbers. Never all digits in its short form, so that it cannot be taken for a
    /// number (Docker avoids the same, because a host name of digits only upsets some programs).
    pub fn random() -> Self {
        loop {
            let mut bytes = [0u8; 32];
            fill_random(&mut bytes);
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            if text[..12].bytes().any(|c| c.is_ascii_alphabetic()) {
                return Self(text);
            }
        }
    }

    /// Understands a full identifier; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let right = text.len() == 64
            && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
        right.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, as people see them.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Fills `bytes` from getrandom(2).
pub fn fill_random(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => panic!("getrandom fails only on kernels before 3.17: {errno}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_parse() {
        let id = Id::random();
        assert_eq!(Id::parse(id.as_str()), Some(id));
        assert_eq!(Id::parse("ABC"), None);
    }
}
