//! API versions, and how client and daemon agree on one without asking first.

use std::fmt;

use stdx::{Error, Result};

/// `1.55`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    pub major: u32,
    pub minor: u32,
}

impl ApiVersion {
    /// The newest this client speaks.
    pub const NEWEST: Self = Self { major: 1, minor: 55 };
    /// The oldest anybody still serves.
    pub const OLDEST: Self = Self { major: 1, minor: 24 };

    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("invalid API version {text:?}"));
        let (major, minor) = text.trim().trim_start_matches('v').split_once('.').ok_or_else(bad)?;
        Ok(Self {
            major: major.parse().map_err(|_| bad())?,
            minor: minor.parse().map_err(|_| bad())?,
        })
    }

    /// The daemon's limit in a refusal such as `client version 1.55 is too new. Maximum supported API version is 1.41`.
    pub(crate) fn limit_in(message: &str) -> Option<Self> {
        let (_, rest) = message.split_once("aximum supported API version is ")?;
        Self::parse(rest.trim_end_matches(['.', '"'])).ok()
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What is known so far about the version to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreement {
    pub(crate) version: ApiVersion,
    pub(crate) settled: bool,
}

impl Agreement {
    pub(crate) fn start(fixed: Option<ApiVersion>) -> Self {
        match fixed {
            Some(version) => Self { version, settled: true },
            None => Self { version: ApiVersion::NEWEST, settled: false },
        }
    }

    /// What the `Api-Version` header of an answer teaches.
    pub(crate) fn learn(&mut self, daemon: Option<ApiVersion>) {
        if let (false, Some(daemon)) = (self.settled, daemon) {
            *self = Self { version: self.version.min(daemon), settled: true };
        }
    }

    /// What a refusal teaches. A version that was fixed stays.
    pub(crate) fn refused(&mut self, message: &str) {
        if let (false, Some(limit)) = (self.settled, ApiVersion::limit_in(message)) {
            *self = Self { version: self.version.min(limit), settled: true };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_lowers_the_version() {
        let mut agreement = Agreement::start(None);
        agreement.refused("No such container: x");
        assert_eq!(agreement, Agreement::start(None));
        agreement.refused("client version 1.55 is too new. Maximum supported API version is 1.41");
        assert_eq!(agreement.version.to_string(), "1.41");
    }

    #[test]
    fn a_fixed_version_stays() {
        let mut agreement = Agreement::start(ApiVersion::parse("1.50").ok());
        agreement.refused("client version 1.50 is too new. Maximum supported API version is 1.41");
        agreement.learn(ApiVersion::parse("1.41").ok());
        assert_eq!(agreement.version.to_string(), "1.50");
    }

    #[test]
    fn a_header_settles_it() {
        let mut agreement = Agreement::start(None);
        agreement.learn(ApiVersion::parse("1.44").ok());
        agreement.learn(ApiVersion::parse("1.41").ok());
        assert_eq!(agreement.version.to_string(), "1.44");
    }
}
