//! Moments: UTC with nanoseconds, written as Go's RFC 3339 with trailing zeros dropped.

use std::fmt;

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result};

/// A moment in UTC. Go's zero time stands for "never", as in Docker's answers (`0001-01-01T00:00:00Z`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(OffsetDateTime);

impl Timestamp {
    /// `0001-01-01T00:00:00Z`: never.
    pub const NEVER: Self = Self(::time::macros::datetime!(0001-01-01 00:00:00 UTC));

    pub fn now() -> Self {
        Self(OffsetDateTime::now_utc())
    }

    pub fn is_never(self) -> bool {
        self == Self::NEVER
    }

    /// Nanoseconds since the epoch (negative before it).
    pub fn unix_nanos(self) -> i128 {
        self.0.unix_timestamp_nanos()
    }

    /// Whole seconds since the epoch.
    pub fn unix(self) -> i64 {
        self.0.unix_timestamp()
    }

    /// Out of range is never.
    pub fn from_unix_nanos(nanos: i128) -> Self {
        OffsetDateTime::from_unix_timestamp_nanos(nanos).map_or(Self::NEVER, Self)
    }

    /// The same for who has both parts: a log's reader does this for each line.
    pub fn from_unix(seconds: i64, nanos: u32) -> Self {
        OffsetDateTime::from_unix_timestamp(seconds)
            .and_then(|second| second.replace_nanosecond(nanos))
            .map_or(Self::NEVER, Self)
    }

    /// The same second, so many nanoseconds after its beginning.
    ///
    /// # Panics
    ///
    /// If these are a second.
    pub fn at_nanos(self, nanos: u32) -> Self {
        Self(self.0.replace_nanosecond(nanos).expect("a part of a second"))
    }

    pub fn parse(text: &str) -> Result<Self> {
        OffsetDateTime::parse(text, &Rfc3339)
            .map(|at| Self(at.to_offset(::time::UtcOffset::UTC)))
            .map_err(|_| Error::invalid(format!("invalid time {text:?}: not RFC 3339")))
    }

    /// Reads what `--since` and `--until` carry over the API: seconds since the epoch with an optional fraction
    /// (`1700000000.000000005`), or RFC 3339.
    pub fn parse_api(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("invalid value for time: {text:?}"));
        if text.contains('T') {
            return Self::parse(text);
        }
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        if fraction.len() > 9 {
            return Err(bad());
        }
        let negative = seconds.starts_with('-');
        let seconds: i128 = seconds.parse().map_err(|_| bad())?;
        let nanos: i128 = format!("{fraction:0<9}").parse().map_err(|_| bad())?;
        Ok(Self::from_unix_nanos(seconds * 1_000_000_000 + if negative { -nanos } else { nanos }))
    }

    /// The calendar and clock behind it.
    pub fn date_time(self) -> OffsetDateTime {
        self.0
    }

    /// RFC 3339 with always nine digits behind the point, as `docker logs -t` prints.
    pub fn fixed_nanos(self) -> String {
        let at = self.0;
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.nanosecond()
        )
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fixed = self.fixed_nanos();
        let short = fixed.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
        write!(f, "{short}Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::NEVER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_writes_them() {
        for text in
            ["2026-11-21T10:00:00Z", "2026-11-21T10:00:00.5Z", "2026-11-21T10:00:00.000000001Z"]
        {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Timestamp::NEVER.to_string(), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn as_the_api_carries_them() {
        assert_eq!(
            Timestamp::parse_api("1700000000.000000005").unwrap().unix_nanos(),
            1_700_000_000_000_000_005
        );
        assert_eq!(Timestamp::parse_api("1700000000").unwrap().unix(), 1_700_000_000);
        assert!(Timestamp::parse_api("yesterday").is_err());
    }
}
