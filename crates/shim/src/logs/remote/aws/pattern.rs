//! What the first line of an event looks like: a pattern, or the form of a date.

use regex::bytes::Regex;
use stdx::{Error, Result};

use super::super::options::{Options, given};

/// What may stand for each of `strftime`'s letters.
const LETTERS: [(char, &str); 19] = [
    ('a', "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"),
    ('A', "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"),
    ('w', "[0-6]"),
    ('d', "(?:0[1-9]|[1,2][0-9]|3[0,1])"),
    ('b', "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"),
    (
        'B',
        "(?:January|February|March|April|May|June|July|August|September|October|November|December)",
    ),
    ('m', "(?:0[1-9]|1[0-2])"),
    ('Y', r"\d{4}"),
    ('y', r"\d{2}"),
    ('H', "(?:[0,1][0-9]|2[0-3])"),
    ('I', "(?:0[0-9]|1[0-2])"),
    ('p', "[A,P]M"),
    ('M', "[0-5][0-9]"),
    ('S', "[0-5][0-9]"),
    ('f', r"\d{6}"),
    ('z', r"[+-]\d{4}"),
    ('Z', "[A-Z]{1,4}T"),
    ('j', "(?:0[0-9][1-9]|[1,2][0-9][0-9]|3[0-5][0-9]|36[0-6])"),
    ('L', r"\.\d{3}"),
];

pub(super) fn of(options: &Options) -> Result<Option<Regex>> {
    let pattern = match given(options, "awslogs-datetime-format") {
        Some(format) => of_date(format),
        None => given(options, "awslogs-multiline-pattern").unwrap_or_default().to_owned(),
    };
    if pattern.is_empty() {
        return Ok(None);
    }
    Regex::new(&pattern).map(Some).map_err(|_| {
        Error::invalid(format!("awslogs could not parse multiline pattern key {pattern:?}"))
            .caused_by(Error::invalid(format!(
                "error parsing regexp: invalid pattern: `{pattern}`"
            )))
    })
}

/// A letter that means nothing matches nothing; what is between them is a pattern, too.
fn of_date(format: &str) -> String {
    let mut pattern = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        match (c, c == '%') {
            (_, true) => {
                let Some(letter) = rest.next() else {
                    pattern.push('%');
                    break;
                };
                let known = LETTERS.iter().find(|(known, _)| *known == letter);
                pattern.push_str(known.map_or("", |(_, pattern)| pattern));
            }
            (c, false) => pattern.push(c),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let matches = |format: &str, line: &str| {
            Regex::new(&of_date(format)).unwrap().is_match(line.as_bytes())
        };
        assert!(matches("%Y-%m-%d %H:%M:%S%L", "2026-11-21 10:00:00.123 x"));
        assert!(!matches("%Y-%m-%d", "2026-13-21"));
        assert!(matches(r"\[%b %d, %Y %I:%M:%S %p", "[Nov 21, 2026 09:00:00 AM] x"));
        assert!(matches("%a, %j %z", "Sat, 325 +0000"));
        assert_eq!(of_date("%q%"), "%");
    }
}
