//! Who a container's users are on the host: its own range of numbers, and what that means for the files it is given.
//!
//! Root inside is nobody outside. Layers are neither copied nor changed for it: they, volumes and binds are mounted with
//! the container's mapping, so that on disk everything keeps the numbers it has. Pure, but for [`Ranges`].

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use api::container::IdMappings;
use oci::runtime::IdMapping;
use serde::{Deserialize, Serialize};
use stdx::{Error, Id, Result};

/// As many as there are in a container that does not say: what 16 bits had room for, and images still go by.
pub const USUAL_SIZE: u32 = 65536;

/// Numbers of users and groups in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub first: u32,
    pub size: u32,
}

impl Default for Range {
    fn default() -> Self {
        Self::for_containers()
    }
}

impl Range {
    /// What systemd leaves to managers of containers on every distribution (its UIDS-GIDS document), and nobody else
    /// gives to people or services.
    pub const fn for_containers() -> Self {
        Self { first: 0x0008_0000, size: 0x6fff_ffff - 0x0008_0000 + 1 }
    }

    /// Understands `first:count`.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("invalid range of ids: {text} (want first:count)"));
        let (first, size) = text.split_once(':').ok_or_else(bad)?;
        let range = Self {
            first: first.parse().map_err(|_| bad())?,
            size: size.parse().map_err(|_| bad())?,
        };
        // The last number means nobody, and root's own range is what this is to keep away from.
        let fits = range.first > 0 && range.size > 0 && range.end() <= u64::from(u32::MAX);
        if fits { Ok(range) } else { Err(bad()) }
    }

    fn end(self) -> u64 {
        u64::from(self.first) + u64::from(self.size)
    }

    fn line(self, inside: u32) -> IdMapping {
        IdMapping { container_id: inside, host_id: self.first, size: self.size }
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Userns {
    /// Root inside is root outside.
    #[default]
    Host,
    /// A range of its own.
    Auto { size: u32 },
    /// A range of its own, but for one user, who is the same inside and outside.
    KeepId { uid: u32, gid: u32, size: u32 },
    /// The range that all share (`--userns-remap`).
    Shared(Range),
}

impl Userns {
    /// Understands `--userns`; the empty word means what the daemon says.
    pub fn parse(word: &str, default: Self) -> Result<Self> {
        let bad = || Error::invalid(format!("invalid userns mode: {word}"));
        let (mode, options) = word.split_once(':').unwrap_or((word, ""));
        let mut numbers = BTreeMap::new();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let (key, number) = option.split_once('=').ok_or_else(bad)?;
            numbers.insert(key, number.parse::<u32>().map_err(|_| bad())?);
        }
        let size = numbers.remove("size").unwrap_or(USUAL_SIZE);
        let mode = match mode {
            "" => default,
            "host" => Self::Host,
            "auto" => Self::Auto { size },
            "keep-id" => {
                let uid = numbers.remove("uid").ok_or_else(bad)?;
                let gid = numbers.remove("gid").unwrap_or(uid);
                Self::KeepId { uid, gid, size: size.max(uid.max(gid).saturating_add(1)) }
            }
            _ => return Err(bad()),
        };
        if numbers.is_empty() && size > 0 { Ok(mode) } else { Err(bad()) }
    }
}

/// A container's mapping, as it is recorded: the same from its creation to its removal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
}

impl Ids {
    /// What `range` means for who asked so; nothing where root is the host's.
    pub fn new(wanted: Userns, range: Range) -> Option<Self> {
        let whole = || vec![range.line(0)];
        match wanted {
            Userns::Host => None,
            Userns::Auto { .. } | Userns::Shared(_) => Some(Self { uids: whole(), gids: whole() }),
            Userns::KeepId { uid, gid, .. } => {
                Some(Self { uids: around(range, uid), gids: around(range, gid) })
            }
        }
    }

    /// Who root is outside.
    pub fn root(&self) -> Option<(u32, u32)> {
        let outside = |lines: &[IdMapping]| {
            lines.iter().find(|line| line.container_id == 0).map(|line| line.host_id)
        };
        Some((outside(&self.uids)?, outside(&self.gids)?))
    }

    /// Who a user and a group of the container are outside, if there are such.
    pub fn outside(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        let outside = |lines: &[IdMapping], id: u32| {
            let line = lines.iter().find(|line| {
                id.checked_sub(line.container_id).is_some_and(|distance| distance < line.size)
            })?;
            Some(line.host_id + (id - line.container_id))
        };
        Some((outside(&self.uids, uid)?, outside(&self.gids, gid)?))
    }

    /// For files that are written from outside.
    pub fn owners(&self) -> storage::layer::Owners {
        let lines = |lines: &[IdMapping]| {
            lines.iter().map(|line| (line.container_id, line.host_id, line.size)).collect()
        };
        storage::layer::Owners { uids: lines(&self.uids), gids: lines(&self.gids) }
    }

    /// As podman shows it in `inspect`.
    pub fn shown(&self) -> IdMappings {
        let texts = |lines: &[IdMapping]| {
            let text =
                |one: &IdMapping| format!("{}:{}:{}", one.container_id, one.host_id, one.size);
            lines.iter().map(text).collect()
        };
        IdMappings { uid_map: texts(&self.uids), gid_map: texts(&self.gids) }
    }

    /// How many groups there are from 0 on: the kernel wants a range of them to exist.
    pub fn groups_from_root(&self) -> u32 {
        let mut lines = self.gids.clone();
        lines.sort_by_key(|line| line.container_id);
        let count = lines.iter().fold(0, |next, line| {
            if line.container_id == next { next.saturating_add(line.size) } else { next }
        });
        count.min(0x8000_0000)
    }
}

/// A range with a hole for one number, which stays what it is.
fn around(range: Range, own: u32) -> Vec<IdMapping> {
    let below = Range { first: range.first, size: own.min(range.size) };
    let above = Range {
        first: range.first.saturating_add(own).saturating_add(1),
        size: range.size.saturating_sub(own.saturating_add(1)),
    };
    let same = IdMapping { container_id: own, host_id: own, size: 1 };
    let lines = [below.line(0), same, above.line(own.saturating_add(1))];
    lines.into_iter().filter(|line| line.size > 0).collect()
}

/// The mapping of a mount whose files belong to `on_disk`, and shall belong to `inside`; who has that number on disk
/// appears as the other in turn, and everybody else as himself.
pub fn exchanged(container: &[IdMapping], on_disk: u32, inside: u32) -> Vec<IdMapping> {
    let outside = |id: u32| {
        let line = container.iter().find(|line| {
            id >= line.container_id
                && u64::from(id) < u64::from(line.container_id) + u64::from(line.size)
        })?;
        Some(line.host_id + (id - line.container_id))
    };
    let single = |disk: u32, to: u32| {
        outside(to).map(|host_id| IdMapping { container_id: disk, host_id, size: 1 })
    };
    if on_disk == inside {
        return container.to_vec();
    }
    let mut cuts = [on_disk, inside];
    cuts.sort_unstable();
    let mut lines = Vec::new();
    for line in container {
        let (mut from, end) =
            (u64::from(line.container_id), u64::from(line.container_id) + u64::from(line.size));
        let whole = from..end;
        for cut in cuts.iter().map(|cut| u64::from(*cut)).filter(|cut| whole.contains(cut)) {
            if cut > from {
                lines.push(piece(line, from, cut));
            }
            from = cut + 1;
        }
        if end > from {
            lines.push(piece(line, from, end));
        }
    }
    lines.extend(single(on_disk, inside));
    lines.extend(single(inside, on_disk));
    lines
}

/// Part of a line: the container's numbers from `from` up to, not including, `stop`.
fn piece(line: &IdMapping, from: u64, stop: u64) -> IdMapping {
    let offset = from - u64::from(line.container_id);
    IdMapping {
        container_id: from as u32,
        host_id: (u64::from(line.host_id) + offset) as u32,
        size: (stop - from) as u32,
    }
}

/// Everybody is himself: the host's own mapping.
pub fn everybody() -> Vec<IdMapping> {
    vec![IdMapping { container_id: 0, host_id: 0, size: u32::MAX }]
}

/// Who has which range now. What is recorded is entered when the daemon wakes.
#[derive(Default)]
pub(crate) struct Ranges(Mutex<BTreeMap<Id, Range>>);

impl Ranges {
    /// The lowest part of `pool` that nobody has, for a container.
    pub(crate) fn take(&self, container: &Id, pool: Range, size: u32) -> Result<Range> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let others: Vec<Range> = taken.values().copied().collect();
        let range = free(pool, &others, size).ok_or_else(|| {
            Error::unavailable(format!(
                "no {size} user ids are left for a user namespace among the {} from {} on",
                pool.size, pool.first
            ))
        })?;
        taken.insert(container.clone(), range);
        Ok(range)
    }

    pub(crate) fn enter(&self, container: &Id, range: Range) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(container.clone(), range);
    }

    pub(crate) fn give_back(&self, container: &Id) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(container);
    }
}

fn free(pool: Range, taken: &[Range], size: u32) -> Option<Range> {
    let mut taken = taken.to_vec();
    taken.sort_by_key(|range| range.first);
    let mut first = u64::from(pool.first);
    for other in taken {
        if first + u64::from(size) <= u64::from(other.first) {
            break;
        }
        first = first.max(other.end());
    }
    let fits = size > 0 && first + u64::from(size) <= pool.end();
    fits.then_some(Range { first: first as u32, size })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(lines: &[IdMapping]) -> String {
        let one =
            |line: &IdMapping| format!("{}:{}:{}", line.container_id, line.host_id, line.size);
        lines.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn words() {
        let default = Userns::Auto { size: 9 };
        for (word, expected) in [
            ("", Some(default)),
            ("host", Some(Userns::Host)),
            ("auto", Some(Userns::Auto { size: USUAL_SIZE })),
            ("auto:size=100", Some(Userns::Auto { size: 100 })),
            ("keep-id:uid=7", Some(Userns::KeepId { uid: 7, gid: 7, size: USUAL_SIZE })),
            ("keep-id:uid=70000,gid=5", Some(Userns::KeepId { uid: 70000, gid: 5, size: 70001 })),
            ("keep-id", None),
            ("auto:size=0", None),
            ("auto:uid=1", None),
            ("auto:size=-1", None),
            ("private", None),
        ] {
            assert_eq!(Userns::parse(word, default).ok(), expected, "{word}");
        }
    }

    #[test]
    fn the_lowest_free_range() {
        let pool = Range { first: 100, size: 50 };
        let range = |first, size| Range { first, size };
        assert_eq!(free(pool, &[], 20), Some(range(100, 20)));
        assert_eq!(free(pool, &[range(120, 10), range(100, 10)], 10), Some(range(110, 10)));
        assert_eq!(free(pool, &[range(120, 10), range(100, 10)], 15), Some(range(130, 15)));
        assert_eq!(free(pool, &[range(0, 120)], 31), None);
        assert_eq!(free(pool, &[], 51), None);
    }

    #[test]
    fn one_stays_who_he_is() {
        let range = Range { first: 1000, size: 100 };
        assert_eq!(text(&around(range, 7)), "0:1000:7 7:7:1 8:1008:92");
        assert_eq!(text(&around(range, 0)), "0:0:1 1:1001:99");
        assert_eq!(text(&around(range, 99)), "0:1000:99 99:99:1");
    }

    #[test]
    fn two_change_places() {
        let range = Range { first: 5000, size: 100 };
        let lines = [range.line(0)];
        assert_eq!(text(&exchanged(&lines, 0, 0)), "0:5000:100");
        assert_eq!(text(&exchanged(&lines, 7, 0)), "1:5001:6 8:5008:92 7:5000:1 0:5007:1");
        assert_eq!(text(&exchanged(&lines, 1000, 0)), "1:5001:99 1000:5000:1");
        // A cut that lies before a line takes nothing of it.
        let lines = around(Range { first: 1000, size: 100 }, 0);
        assert_eq!(text(&exchanged(&lines, 0, 1)), "2:1002:98 0:1001:1 1:0:1");
        let ids = Ids::new(Userns::KeepId { uid: 7, gid: 7, size: 100 }, range).unwrap();
        assert_eq!(ids.groups_from_root(), 100);
    }

    proptest! {
        #[test]
        fn nobody_is_two(on_disk in 0u32..300, inside in 0u32..200, own in 0u32..200) {
            let range = Range { first: 10_000, size: 200 };
            let ids = Ids::new(Userns::KeepId { uid: own, gid: own, size: 200 }, range).unwrap();
            let lines = exchanged(&ids.uids, on_disk, inside);
            let all = |number: fn(&IdMapping) -> u32| {
                let mut all: Vec<u32> = lines.iter().flat_map(|line| number(line)..number(line) + line.size).collect();
                let count = all.len();
                all.sort_unstable();
                all.dedup();
                (count, all.len())
            };
            let (count, different) = all(|line| line.container_id);
            prop_assert_eq!(count, different);
            let (count, different) = all(|line| line.host_id);
            prop_assert_eq!(count, different);
            prop_assert_eq!(count, 200);
        }
    }
}
