//! `--net-rate in=10mbit,out=5mbit`, understood.

use api::container::NetRate;
use stdx::{Error, Result};

/// By how much a unit is larger than a bit: those that end with a B are bytes, those with an i are powers of two.
const UNITS: [(&str, u64); 14] = [
    ("bit", 1),
    ("kbit", 1_000),
    ("mbit", 1_000_000),
    ("gbit", 1_000_000_000),
    ("kibit", 1 << 10),
    ("mibit", 1 << 20),
    ("gibit", 1 << 30),
    ("b", 8),
    ("kb", 8_000),
    ("mb", 8_000_000),
    ("gb", 8_000_000_000),
    ("kib", 8 << 10),
    ("mib", 8 << 20),
    ("gib", 8 << 30),
];

pub(super) fn parse(text: &str) -> Result<NetRate> {
    let bad = |why: &str| Error::invalid(format!("invalid net rate {text:?}: {why}"));
    let mut rate = NetRate::default();
    for part in text.split(',') {
        let (way, speed) =
            part.split_once('=').ok_or_else(|| bad("it is not in=RATE, out=RATE, or both"))?;
        let side = match way {
            "in" => &mut rate.r#in,
            "out" => &mut rate.out,
            _ => return Err(bad("it is not in=RATE, out=RATE, or both")),
        };
        let bits = bits(speed).ok_or_else(|| {
            bad("a rate is a number and bit, kbit, mbit, gbit, kB, MB, GB, KiB, MiB or GiB, or 0 for no limit")
        })?;
        if side.replace(bits).is_some() {
            return Err(bad("it says the same twice"));
        }
    }
    Ok(rate)
}

fn bits(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let text = text.strip_suffix("/s").unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let (_, factor) = UNITS.into_iter().find(|(name, _)| unit.eq_ignore_ascii_case(name))?;
    let bits = number.parse::<f64>().ok()? * factor as f64;
    // Something that rounds to nothing would be no limit.
    (1.0..1e15).contains(&bits).then_some(bits as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said() {
        let rate = |text: &str| parse(text).map(|rate| (rate.r#in, rate.out)).unwrap();
        assert_eq!(rate("in=10mbit,out=5mbit"), (Some(10_000_000), Some(5_000_000)));
        assert_eq!(rate("out=1.5Gbit"), (None, Some(1_500_000_000)));
        assert_eq!(rate("in=0"), (Some(0), None));
        assert_eq!(rate("in=2MB/s,out=1KiB"), (Some(16_000_000), Some(8192)));
        assert_eq!(rate("out=64kbit,in=512bit"), (Some(512), Some(64_000)));
    }

    #[test]
    fn what_makes_no_sense() {
        let words = |text: &str| parse(text).unwrap_err().to_string();
        let unit = "a rate is a number and bit, kbit, mbit, gbit, kB, MB, GB, KiB, MiB or GiB, or 0 for no limit";
        for bad in ["in=10", "in=fast", "in=-1mbit", "in=0.1bit", "in=10mbps", "in=", "in=1e9bit"] {
            assert_eq!(words(bad), format!("invalid net rate {bad:?}: {unit}"));
        }
        for bad in ["", "10mbit", "up=1mbit"] {
            assert_eq!(
                words(bad),
                format!("invalid net rate {bad:?}: it is not in=RATE, out=RATE, or both")
            );
        }
        assert_eq!(
            words("in=1mbit,in=2mbit"),
            "invalid net rate \"in=1mbit,in=2mbit\": it says the same twice"
        );
    }
}
