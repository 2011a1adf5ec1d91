//! What containers are called: the rule for names, and names for those who were given none.

use stdx::{Error, Result};

const MANNERS: [&str; 48] = [
    "agile", "amber", "brave", "bright", "brisk", "calm", "candid", "clever", "cosmic", "crisp",
    "daring", "deft", "eager", "early", "fair", "fleet", "gentle", "glad", "golden", "hardy",
    "honest", "jolly", "keen", "kind", "lively", "lucid", "lunar", "mellow", "merry", "mighty",
    "modest", "noble", "patient", "plucky", "polite", "proud", "quick", "quiet", "ready", "sharp",
    "silver", "solid", "steady", "sunny", "tidy", "vivid", "warm", "witty",
];

/// People whose work ships, ports and loads stand on.
const PEOPLE: [&str; 48] = [
    "archimedes",
    "babbage",
    "bernoulli",
    "borg",
    "brunel",
    "carnot",
    "chips",
    "codd",
    "cray",
    "curie",
    "darby",
    "dijkstra",
    "eiffel",
    "erlang",
    "euler",
    "faraday",
    "fermi",
    "fourier",
    "galileo",
    "gauss",
    "hamilton",
    "hollerith",
    "hopper",
    "hypatia",
    "joule",
    "kepler",
    "knuth",
    "lamarr",
    "lamport",
    "liskov",
    "lovelace",
    "maxwell",
    "mclean",
    "meitner",
    "newton",
    "noether",
    "otis",
    "pascal",
    "perlman",
    "ritchie",
    "shannon",
    "stevin",
    "telford",
    "thompson",
    "torvalds",
    "turing",
    "volta",
    "watt",
];

/// A name nobody chose; `attempt` makes later tries longer, as the short ones may be taken.
pub(crate) fn random(attempt: usize) -> String {
    let mut bytes = [0u8; 4];
    stdx::id::fill_random(&mut bytes);
    let name = format!(
        "{}_{}",
        MANNERS[bytes[0] as usize % MANNERS.len()],
        PEOPLE[bytes[1] as usize % PEOPLE.len()]
    );
    match attempt {
        0 => name,
        _ => format!("{name}{}", u16::from_le_bytes([bytes[2], bytes[3]])),
    }
}

/// Understands a name a user gave, with or without the leading slash that Docker's answers have.
pub(crate) fn parse(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    if !is_restricted(bare) {
        return Err(Error::invalid(format!(
            "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )));
    }
    Ok(bare)
}

/// Docker's rule for what people may call things: at least two characters that are safe in any place.
pub(crate) fn is_restricted(name: &str) -> bool {
    let mut characters = name.bytes();
    name.len() >= 2
        && characters.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule() {
        for good in ["ab", "/web-1", "a.b_c", "0x"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "-a", "../x", "a/b", "a b", "ä1", "a\0"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn random_names_are_right() {
        assert!(parse(&random(0)).is_ok());
        assert!(parse(&random(1)).is_ok());
    }
}
