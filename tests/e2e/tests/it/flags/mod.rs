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
    let mut rows = rows();
    let all = rows.len();
    let (words, part) = (asked("FLAGS"), asked("PART"));
    rows.retain(|row| row.text.contains(&words));
    if let Some((wanted, parts)) = part.split_once('/') {
        let number = |word: &str| word.parse::<usize>().expect("a number");
        let (wanted, parts) = (wanted.split(',').map(number).collect::<Vec<_>>(), number(parts));
        let mut at = 0..;
        rows.retain(|_| {
            at.next().is_some_and(|at| wanted.iter().any(|part| at % parts == part % parts))
        });
    }
    let [mut theirs, mut ours] = observe_all(&sides, &rows);
    theirs.iter_mut().zip(&mut ours).for_each(|(theirs, ours)| only_of_one(theirs, ours));
    let reasons = Reasons::read();
    // The same difference of many rows is told once.
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for ((row, theirs), ours) in rows.iter().zip(&theirs).zip(&ours) {
        // What dockerd cannot do here cannot be compared.
        let said = theirs.get("stderr").map(String::as_str);
        if reasons.excuse(row, "row", said, Some("")) {
            continue;
        }
        let paths: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
        for path in paths {
            let [theirs, ours] = [theirs, ours].map(|seen| seen.get(path).map(String::as_str));
            if theirs != ours && !reasons.excuse(row, path, theirs, ours) {
                let [theirs, ours] = [theirs, ours].map(|value| value.unwrap_or("-"));
                let difference = format!("{path}\n  dockerd: {theirs}\n  ours:    {ours}\n");
                found.entry(difference).or_default().push(row.text);
            }
        }
    }
    let mut text = String::new();
    for (difference, rows) in found {
        let some = rows.iter().take(3).map(|row| format!("  in {row}\n")).collect::<String>();
        text += &format!("{difference}{some}  ({} rows)\n", rows.len());
    }
    for unused in reasons.unused().filter(|_| rows.len() == all) {
        text += &format!("not needed any more: {unused}\n");
    }
    assert!(text.is_empty(), "\n{text}");
}

/// `FLAGS=--memory cargo nextest run …` looks at rows with these words only, `PART=2/5` at
/// a fifth of them, `PART=1,3,4,5/5` at the others.
#[allow(clippy::disallowed_methods, reason = "whoever runs tests by hand says what they look at")]
fn asked(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
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
