//! Every flag of `docker run`, given to Debian's dockerd and to ours by the same client: what a program inside sees, what
//! `inspect` tells and what is refused is the same, or a reason stands in `reasons.txt`. A reason that is not needed any
//! more is a failure, so the list can only shrink.

mod normal;
mod reasons;
mod side;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use reasons::Reasons;
use side::{Side, observe_all};
use table::{Row, flags_of_help, rows};
use testkit::house::{firewall, succeed};
use testkit::{House, Netns};

use crate::peer::{DOCKERD, Peer};

/// What is seen of one row: a path as `inspect.HostConfig.Init` or `probe.mounts./proc`, and a value as JSON or text.
pub(crate) type Seen = BTreeMap<String, String>;

#[test]
fn every_flag_has_a_row() {
    let mut help = Command::new("docker");
    // Asked without a daemon: it leaves out what the one it finds has not.
    help.args(["run", "--help"]).env("DOCKER_HOST", "unix:///dev/null/nobody");
    let known = flags_of_help(&succeed(help));
    let used: BTreeSet<String> = rows().iter().flat_map(Row::flags).collect();
    let missing: Vec<&String> = known.difference(&used).filter(|flag| *flag != "--help").collect();
    assert!(missing.is_empty(), "no row has {missing:?}");
    assert!(known.len() > 100, "{known:?}");
}

#[test]
fn the_same_as_dockerd() {
    if !Path::new(DOCKERD).exists() {
        return;
    }
    let shared = tempfile::Builder::new().prefix("gf-").tempdir().expect("a place for a test");
    side::lay_out(shared.path());
    let (our_net, their_net) = (Netns::new(), Netns::new());
    let house = House::within(&our_net);
    let bridge = format!("{}/24", house.gateway());
    let peer = Peer::within(&their_net, &[&["--bip", &bridge], firewall()].concat());
    let sides = [
        Side::theirs(&peer, &their_net, &house.gateway(), shared.path()),
        Side::ours(&house, &our_net, shared.path()),
    ];
    let mut rows: Vec<(usize, Row)> = rows().into_iter().enumerate().collect();
    let all = rows.len();
    let (words, part) = (asked("FLAGS"), Part::parse(&asked("PART")));
    rows.retain(|(at, row)| row.text.contains(&words) && part.has(*at));
    let (numbers, rows): (Vec<usize>, Vec<Row>) = rows.into_iter().unzip();
    let reasons = Reasons::read();
    // The same difference of many rows is told once.
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut seen = 0;
    observe_all(&sides, &rows, |at, mut theirs, mut ours| {
        only_of_one(&mut theirs, &mut ours);
        let differences = differences(&reasons, &rows[at], &theirs, &ours);
        seen += 1;
        let so_far = format!("row {} ({seen} of {})", numbers[at], rows.len());
        let differs = if differences.is_empty() { "the same" } else { "DIFFERS" };
        // Whoever waits for an hour sees where it is, and what was found if it ends before its time.
        println!("{so_far} {differs}: {}\n{}", rows[at].text, differences.concat());
        for difference in differences {
            found.entry(difference).or_default().push(rows[at].text);
        }
    });
    let mut text = String::new();
    for (difference, rows) in found {
        let some = rows.iter().take(3).map(|row| format!("  in {row}\n")).collect::<String>();
        text += &format!("{difference}{some}  ({} rows)\n", rows.len());
    }
    for unused in reasons.unused().filter(|_| rows.len() == all) {
        text += &format!("not needed any more: {unused}\n");
    }
    assert_eq!(seen, rows.len(), "each row is seen by both");
    assert!(text.is_empty(), "\n{text}");
}

/// What differs in a row without a reason.
fn differences(reasons: &Reasons, row: &Row, theirs: &Seen, ours: &Seen) -> Vec<String> {
    // What dockerd cannot do here cannot be compared.
    let said = theirs.get("stderr").map(String::as_str);
    if reasons.excuse(row, "row", said, Some("")) {
        return Vec::new();
    }
    let paths: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let differs = |path: &&String| {
        let [theirs, ours] = [theirs, ours].map(|seen| seen.get(*path).map(String::as_str));
        theirs != ours && !reasons.excuse(row, path, theirs, ours)
    };
    let difference = |path: &String| {
        let [theirs, ours] = [theirs, ours].map(|seen| seen.get(path).map_or("-", String::as_str));
        format!("{path}\n  dockerd: {theirs}\n  ours:    {ours}\n")
    };
    paths.into_iter().filter(differs).map(difference).collect()
}

/// `FLAGS=--memory cargo nextest run …` looks at rows with these words only, `PART=2/5` at a fifth of them,
/// `PART=1,3,4,5/5` at the others, `PART=200-` at those from the two hundredth, `PART=17,42` at these.
#[allow(clippy::disallowed_methods, reason = "whoever runs tests by hand says what they look at")]
fn asked(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// Which rows are looked at.
#[derive(Debug, PartialEq)]
enum Part {
    All,
    OfMany(Vec<usize>, usize),
    From(usize),
    These(Vec<usize>),
}

impl Part {
    fn parse(text: &str) -> Self {
        let number = |word: &str| word.parse::<usize>().expect("a number");
        let numbers = |words: &str| words.split(',').map(number).collect();
        match (text.split_once('/'), text.strip_suffix('-')) {
            _ if text.is_empty() => Self::All,
            (Some((parts, all)), _) => Self::OfMany(numbers(parts), number(all)),
            (None, Some(first)) => Self::From(number(first)),
            (None, None) => Self::These(numbers(text)),
        }
    }

    fn has(&self, at: usize) -> bool {
        match self {
            Self::All => true,
            Self::OfMany(parts, all) => parts.iter().any(|part| at % all == part % all),
            Self::From(first) => at >= *first,
            Self::These(these) => these.contains(&at),
        }
    }
}

#[test]
fn parts() {
    for (text, rows) in [
        ("", "0 1 2 3 4 5 6"),
        ("2/3", "2 5"),
        ("1,3/3", "0 1 3 4 6"),
        ("5-", "5 6"),
        ("6,2", "2 6"),
    ] {
        let part = Part::parse(text);
        let has: Vec<String> = (0..7).filter(|at| part.has(*at)).map(|at| at.to_string()).collect();
        assert_eq!(has.join(" "), rows, "{text}");
    }
}

/// Where only one has made a container, or only one has run it, that is the difference, and not each line of it.
fn only_of_one(theirs: &mut Seen, ours: &mut Seen) {
    for part in ["inspect.", "probe."] {
        let has = |seen: &Seen| seen.keys().any(|path| path.starts_with(part));
        let (they_have, we_have) = (has(theirs), has(ours));
        for (seen, other_has) in [(&mut *theirs, we_have), (&mut *ours, they_have)] {
            let before = seen.len();
            seen.retain(|path, _| other_has || !path.starts_with(part));
            if seen.len() < before {
                seen.insert(part.trim_end_matches('.').to_owned(), "there is one".to_owned());
            }
        }
    }
}
