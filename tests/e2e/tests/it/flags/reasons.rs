//! Why something may differ.

use std::cell::Cell;
use std::path::Path;

use super::table::Row;

const REASONS: &str = include_str!("reasons.txt");

/// `row | path | dockerd's value | ours | because`: `*` is anything, and a row is any that contains the words. A `?` before
/// it stands for what differs on some hosts only, `v1` and `v2` for what does where control groups are of that version.
struct Reason {
    line: &'static str,
    row: &'static str,
    path: &'static str,
    theirs: &'static str,
    ours: &'static str,
    used: Cell<bool>,
}

pub(crate) struct Reasons(Vec<Reason>);

impl Reasons {
    pub(crate) fn read() -> Self {
        let one_tree = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let (here, elsewhere) = if one_tree { ("v2 ", "v1 ") } else { ("v1 ", "v2 ") };
        let lines = REASONS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let lines = lines.filter(|line| !line.starts_with(elsewhere));
        let reason = |line: &'static str| {
            let line = line.strip_prefix(here).unwrap_or(line);
            let (line, used) = match line.strip_prefix("? ") {
                Some(line) => (line, Cell::new(true)),
                None => (line, Cell::new(false)),
            };
            let parts: Vec<&str> = line.split(" | ").map(str::trim).collect();
            let [row, path, theirs, ours, because] = parts[..] else {
                panic!("five parts: {line}")
            };
            assert!(!because.is_empty(), "{line}");
            Reason { line, row, path, theirs, ours, used }
        };
        Self(lines.map(reason).collect())
    }

    /// Whether there is a reason for this difference. A missing value is `-`.
    pub(crate) fn excuse(
        &self,
        row: &Row,
        path: &str,
        theirs: Option<&str>,
        ours: Option<&str>,
    ) -> bool {
        let fits = |reason: &&Reason| {
            (reason.row == "*" || row.text.contains(reason.row))
                && like(reason.path, path)
                && like(reason.theirs, theirs.unwrap_or("-"))
                && like(reason.ours, ours.unwrap_or("-"))
        };
        let found = self.0.iter().find(fits);
        found.is_some_and(|reason| {
            reason.used.set(true);
            true
        })
    }

    pub(crate) fn unused(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().filter(|reason| !reason.used.get()).map(|reason| reason.line)
    }
}

/// `*` is any text.
fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, rest)) => text.strip_prefix(before).is_some_and(|text| {
            rest.is_empty()
                || (0..=text.len()).any(|at| text.is_char_boundary(at) && like(rest, &text[at..]))
        }),
    }
}

#[test]
fn patterns() {
    for (pattern, text, fits) in [
        ("a", "a", true),
        ("a*", "abc", true),
        ("*c", "abc", true),
        ("a*d", "abc", false),
        ("*", "", true),
    ] {
        assert_eq!(like(pattern, text), fits, "{pattern} {text}");
    }
}
