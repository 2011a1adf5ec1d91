//! Moments as log records carry them, formatted and read a hundred thousand times a second.

use rustix::time::{ClockId, clock_gettime};
use stdx::time::Timestamp;

const DAY: i64 = 86_400;

/// UTC, as the kernel counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    seconds: i64,
    nanos: u32,
}

impl Stamp {
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::Realtime);
        Self {
            seconds: now.tv_sec,
            nanos: u32::try_from(now.tv_nsec).expect("the kernel keeps it under a second"),
        }
    }

    /// Seconds since 1970, and what is above them.
    pub(crate) fn at(seconds: i64, nanos: u32) -> Self {
        Self { seconds, nanos }
    }

    pub(crate) fn parts(self) -> (i64, u32) {
        (self.seconds, self.nanos)
    }

    pub(crate) fn timestamp(self) -> Timestamp {
        Timestamp::from_unix(self.seconds, self.nanos)
    }

    /// Month, day, and the second of the day.
    pub(crate) fn calendar(self) -> (i64, i64, i64) {
        let (_, month, day) = civil_from_days(self.seconds.div_euclid(DAY));
        (month, day, self.seconds.rem_euclid(DAY))
    }

    /// Reads `2026-11-21T10:00:00.5Z`. Anything else, an offset for one, is left to the general reader.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let fixed = |range: std::ops::Range<usize>| -> Option<i64> {
            text.get(range)?.iter().try_fold(0, |sum, digit| {
                digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0'))
            })
        };
        let (body, fraction) = match text.strip_suffix(b"Z")? {
            body if body.len() == 19 => (body, &b""[..]),
            body if body.get(19) == Some(&b'.') && (21..=29).contains(&body.len()) => {
                (&body[..19], &body[20..])
            }
            _ => return None,
        };
        if [body[4], body[7], body[10], body[13], body[16]] != *b"--T::" {
            return None;
        }
        let days = days_from_civil(fixed(0..4)?, fixed(5..7)?, fixed(8..10)?);
        let clock = fixed(11..13)? * 3600 + fixed(14..16)? * 60 + fixed(17..19)?;
        let mut nanos = 0;
        for place in 0..9 {
            let digit = fraction.get(place).copied().unwrap_or(b'0');
            nanos = nanos * 10 + u32::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        }
        Some(Self { seconds: days * DAY + clock, nanos })
    }
}

/// Reads what [`Clock`] writes, one after the other: the next is mostly of the same second.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// As it is spelled, and what it is.
    second: Option<([u8; 19], Timestamp)>,
}

impl Reading {
    /// As [`Stamp::parse`].
    pub(crate) fn parse(&mut self, text: &[u8]) -> Option<Timestamp> {
        let (spelled, rest) = text.split_first_chunk::<19>()?;
        if let (Some((known, second)), [b'.', digits @ .., b'Z']) = (&self.second, rest)
            && known == spelled
            && (1..=9).contains(&digits.len())
        {
            let mut nanos = 0;
            for digit in digits {
                nanos = nanos * 10 + u32::from(digit.is_ascii_digit().then(|| digit - b'0')?);
            }
            let places = u32::try_from(digits.len()).expect("nine at most");
            return Some(second.at_nanos(nanos * 10u32.pow(9 - places)));
        }
        let stamp = Stamp::parse(text)?;
        self.second = Some((*spelled, Stamp { nanos: 0, ..stamp }.timestamp()));
        Some(stamp.timestamp())
    }
}

/// Writes stamps as Go's RFC 3339 with nanoseconds; remembers the second it wrote last, because the next is the same.
#[derive(Debug)]
pub(crate) struct Clock {
    second: i64,
    text: [u8; 20],
}

impl Clock {
    pub(crate) fn new() -> Self {
        let mut clock = Self { second: 0, text: *b"0000-00-00T00:00:00." };
        clock.turn(0);
        clock
    }

    pub(crate) fn push(&mut self, stamp: Stamp, out: &mut Vec<u8>) {
        if stamp.seconds != self.second {
            self.turn(stamp.seconds);
        }
        out.extend_from_slice(&self.text);
        let mut digits = [b'0'; 9];
        put(&mut digits, i64::from(stamp.nanos));
        // Go drops trailing zeros, and the point with the last of them.
        match digits.iter().rposition(|digit| *digit != b'0') {
            Some(last) => out.extend_from_slice(&digits[..=last]),
            None => drop(out.pop()),
        }
        out.push(b'Z');
    }

    /// With so many digits of a second, zeros and all.
    pub(crate) fn push_short(&mut self, stamp: Stamp, digits: usize, out: &mut Vec<u8>) {
        if stamp.seconds != self.second {
            self.turn(stamp.seconds);
        }
        let mut nanos = [b'0'; 9];
        put(&mut nanos, i64::from(stamp.nanos));
        out.extend_from_slice(&self.text[..19]);
        if digits > 0 {
            out.push(b'.');
            out.extend_from_slice(&nanos[..digits.min(9)]);
        }
        out.push(b'Z');
    }

    fn turn(&mut self, second: i64) {
        self.second = second;
        let (days, clock) = (second.div_euclid(DAY), second.rem_euclid(DAY));
        let (year, month, day) = civil_from_days(days);
        for (range, value) in [(0..4, year), (5..7, month), (8..10, day)] {
            put(&mut self.text[range], value);
        }
        for (range, value) in
            [(11..13, clock / 3600), (14..16, clock / 60 % 60), (17..19, clock % 60)]
        {
            put(&mut self.text[range], value);
        }
    }
}

/// Decimal digits, right-aligned, with leading zeros.
fn put(text: &mut [u8], mut value: i64) {
    for place in text.iter_mut().rev() {
        *place = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar (Hinnant's algorithm: years begin in March, so that
/// the leap day is the last).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_timestamps_are() {
        let mut clock = Clock::new();
        for (seconds, nanos) in [
            (0, 0),
            (951_782_399, 999_999_999),
            (951_782_400, 1),
            (1_709_164_800, 500_000_000),
            (1_709_251_199, 120),
            (4_102_444_800, 0),
            (1_767_225_600, 7),
        ] {
            let stamp = Stamp::at(seconds, nanos);
            let mut text = Vec::new();
            clock.push(stamp, &mut text);
            assert_eq!(String::from_utf8(text.clone()).unwrap(), stamp.timestamp().to_string());
            assert_eq!(Stamp::parse(&text), Some(stamp));
            let mut reading = Reading::default();
            assert_eq!(reading.parse(&text), Some(stamp.timestamp()));
            // Another of the same second, and then the same again.
            let other = Stamp::at(seconds, 20).timestamp();
            assert_eq!(reading.parse(other.to_string().as_bytes()), Some(other));
            assert_eq!(reading.parse(&text), Some(stamp.timestamp()));
        }
    }

    #[test]
    fn what_is_not_utc_is_left_alone() {
        for text in [
            "2026-11-21T10:00:00+01:00",
            "2026-11-21 10:00:00Z",
            "x",
            "2026-11-21T10:00:00.Z",
            "2026-11-2aT10:00:00Z",
            "2026-11-21T10:00:00.0000000001Z",
            "2026-11-21T10:00:00.1aZ",
        ] {
            assert_eq!(Stamp::parse(text.as_bytes()), None, "{text}");
            let mut reading = Reading::default();
            assert!(reading.parse(b"2026-11-21T10:00:00Z").is_some());
            assert_eq!(reading.parse(text.as_bytes()), None, "{text}");
        }
    }
}
