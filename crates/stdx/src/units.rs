//! Sizes and ages as Docker writes and reads them (go-units' rules).

use crate::{Error, Result};

/// `1.234MB`: four significant digits, powers of 1000.
pub fn human_size(bytes: f64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"], 4)
}

/// `1.5GiB`: four significant digits, powers of 1024.
pub fn bytes_size(bytes: f64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"], 4)
}

/// As [`human_size`] with a chosen number of significant digits (`docker images` and progress bars use three).
pub fn human_size_precise(bytes: f64, digits: usize) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"], digits)
}

fn scaled(mut value: f64, base: f64, names: &[&str], digits: usize) -> String {
    let mut step = 0;
    while value >= base && step + 1 < names.len() {
        value /= base;
        step += 1;
    }
    format!("{}{}", significant(value, digits), names[step])
}

/// C's `%.Ng`, for values that need no exponent.
pub fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let exponent = format!("{value:.*e}", digits.saturating_sub(1));
    let exponent: i32 = exponent.rsplit('e').next().and_then(|e| e.parse().ok()).unwrap_or(0);
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Reads `512m`, `1.5GiB`, `2 kB`, `100`: powers of 1024 whatever the spelling, as `--memory` takes them.
pub fn ram_in_bytes(text: &str) -> Result<i64> {
    parse(text, 1024.0)
}

/// Reads the same spellings in powers of 1000, as `--log-opt max-size` of some drivers takes them.
pub fn size_in_bytes(text: &str) -> Result<i64> {
    parse(text, 1000.0)
}

fn parse(text: &str, base: f64) -> Result<i64> {
    let bad = || Error::invalid(format!("invalid size: '{text}'"));
    let split = text.rfind(|c: char| c.is_ascii_digit() || c == '.').ok_or_else(bad)? + 1;
    let number = text[..split].trim_end();
    if number.is_empty() || number.starts_with('+') {
        return Err(bad());
    }
    let number: f64 = number.parse().map_err(|_| bad())?;
    if number < 0.0 || !number.is_finite() {
        return Err(bad());
    }
    let suffix = text[split..].trim_start().to_ascii_lowercase();
    let power = match suffix.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(Error::invalid(format!("invalid suffix: '{suffix}'"))),
    };
    Ok((number * base.powi(power)) as i64)
}

/// `About a minute`, `3 hours`, `2 weeks`: an age or duration for people.
pub fn human_duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds as f64 / 3600.0).round() as i64;
    match seconds {
        s if s < 1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        s if s < 60 => format!("{s} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", (seconds as f64 / 3600.0 / 24.0 / 365.0) as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        assert_eq!(human_size(0.0), "0B");
        assert_eq!(human_size(1_000.0), "1kB");
        assert_eq!(human_size(13_256.0), "13.26kB");
        assert_eq!(human_size_precise(77_900_000.0, 3), "77.9MB");
        assert_eq!(bytes_size(1024.0 * 1024.0 * 1.5), "1.5MiB");
    }

    #[test]
    fn sizes_from_people() {
        assert_eq!(ram_in_bytes("32m").unwrap(), 32 << 20);
        assert_eq!(ram_in_bytes("1.5GiB").unwrap(), 3 << 29);
        assert_eq!(ram_in_bytes("2 kB").unwrap(), 2048);
        assert!(ram_in_bytes("-1").is_err());
        assert!(ram_in_bytes("x").is_err());
        assert_eq!(ram_in_bytes("1q").unwrap_err().to_string(), "invalid suffix: 'q'");
    }

    #[test]
    fn ages() {
        assert_eq!(human_duration(0), "Less than a second");
        assert_eq!(human_duration(61), "About a minute");
        assert_eq!(human_duration(3600 * 5), "5 hours");
        assert_eq!(human_duration(3600 * 24 * 20), "2 weeks");
    }
}
