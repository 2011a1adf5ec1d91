//! Times for people: ages, local clocks, and what `--since` may say.

use stdx::time::Timestamp;
use stdx::{Error, Result, duration, units};

/// `5 minutes ago`.
pub(crate) fn ago(unix: i64) -> String {
    format!("{} ago", units::human_duration(Timestamp::now().unix() - unix))
}

/// `2026-11-21 12:07:31 +0000 UTC`, as Go prints a moment.
pub(crate) fn go(unix: i64) -> String {
    let at = Timestamp::from_unix_nanos(i128::from(unix) * 1_000_000_000).date_time();
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02} +0000 UTC",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// As [`go`], with the fraction of the second where there is one.
pub(crate) fn go_with_fraction(text: &str) -> String {
    match Timestamp::parse(text) {
        Ok(at) => {
            let whole = go(at.unix());
            let nanos = format!("{:09}", at.date_time().nanosecond());
            match nanos.trim_end_matches('0') {
                "" => whole,
                fraction => whole.replacen(" +0000", &format!(".{fraction} +0000"), 1),
            }
        }
        Err(_) => text.to_owned(),
    }
}

/// `2026-11-21T12:07:31Z`.
pub(crate) fn rfc3339(unix: i64) -> String {
    Timestamp::from_unix_nanos(i128::from(unix) * 1_000_000_000).to_string()
}

/// A moment as the API takes it: an RFC 3339 time or date, seconds, or a duration before now (`10m`).
pub(crate) fn moment(text: &str) -> Result<String> {
    if let Ok(before) = duration::parse(text)
        && !text.is_empty()
        && text != "0"
    {
        let nanos = Timestamp::now().unix_nanos() - i128::try_from(before.as_nanos()).unwrap_or(0);
        return Ok(format!(
            "{}.{:09}",
            nanos.div_euclid(1_000_000_000),
            nanos.rem_euclid(1_000_000_000)
        ));
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if digits(seconds.trim_start_matches('-')) && digits(fraction) {
        return Ok(text.to_owned());
    }
    let whole = match (text.len(), text.contains('T')) {
        (10, false) => format!("{text}T00:00:00Z"),
        (13, true) => format!("{text}:00:00Z"),
        (16, true) => format!("{text}:00Z"),
        (19, true) => format!("{text}Z"),
        (11, false) if text.ends_with('Z') => format!("{}T00:00:00Z", &text[..10]),
        _ => text.to_owned(),
    };
    let at = Timestamp::parse(&whole).map_err(|_| {
        Error::invalid(format!("failed to parse value as time or duration: {text:?}"))
    })?;
    let nanos = at.unix_nanos();
    Ok(format!("{}.{:09}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        assert_eq!(moment("1700000000.5").unwrap(), "1700000000.5");
        assert_eq!(moment("2023-11-14T22:13:20Z").unwrap(), "1700000000.000000000");
        assert_eq!(moment("2023-11-14").unwrap(), "1699920000.000000000");
        assert!(moment("10m").unwrap().contains('.'));
        assert!(moment("yesterday").is_err());
    }

    #[test]
    fn as_go_prints() {
        assert_eq!(go(1_700_000_000), "2023-11-14 22:13:20 +0000 UTC");
        assert_eq!(go_with_fraction("2023-11-14T22:13:20.5Z"), "2023-11-14 22:13:20.5 +0000 UTC");
    }
}
