//! API versions: `1.24` to `1.55`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Ordered as numbers: 1.9 is before 1.24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApiVersion {
    major: u16,
    minor: u16,
}

impl ApiVersion {
    /// The oldest we speak.
    pub const MIN: Self = Self::new(1, 24);
    /// The newest we speak, and what is spoken when a client names none.
    pub const MAX: Self = Self::new(1, 55);

    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl Default for ApiVersion {
    fn default() -> Self {
        Self::MAX
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl From<ApiVersion> for String {
    fn from(version: ApiVersion) -> Self {
        version.to_string()
    }
}

/// Digits, one point, digits; nothing else.
impl FromStr for ApiVersion {
    type Err = stdx::Error;

    fn from_str(text: &str) -> stdx::Result<Self> {
        let number = |digits: &str| {
            let right = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            right.then(|| digits.parse().ok()).flatten()
        };
        text.split_once('.')
            .and_then(|(major, minor)| Some(Self::new(number(major)?, number(minor)?)))
            .ok_or_else(|| stdx::Error::invalid(format!("invalid API version: {text:?}")))
    }
}

impl TryFrom<String> for ApiVersion {
    type Error = stdx::Error;

    fn try_from(text: String) -> stdx::Result<Self> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_numbers() {
        let version = |text: &str| text.parse::<ApiVersion>().unwrap();
        assert!(version("1.9") < version("1.24"));
        assert!(version("2.0") > ApiVersion::MAX);
        assert_eq!(ApiVersion::MAX.to_string(), "1.55");
        for bad in ["", "1", "1.", ".1", "1.2.3", "1.-4", "1.+4", "a.b", "1.99999999"] {
            assert!(bad.parse::<ApiVersion>().is_err(), "{bad:?}");
        }
    }
}
