//! Whose the files of a mount are inside, where somebody has said so: `uid=`, `gid=` and `idmap=` behind `-v`, or in a
//! mount's own `Ids`. Pure.

use oci::runtime::IdMapping;
use serde::{Deserialize, Serialize};

/// What was said; nothing, as a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// Whoever owns the source appears as this user and group (`uid=`, `gid=`).
    pub owner: Option<(u32, u32)>,
    /// Who on the disk is who inside (`idmap=`).
    pub map: Option<IdMap>,
}

/// `uids=1000-0-1#2000-1-10;gids=1000-0-1`: the first number on disk, the first inside, and how many. Podman's spelling; its
/// `@` in front of a range is understood and says nothing, since the second number is the container's in any case.
///
/// Who is in no range is nobody. Where only users or only groups are named, the others are who they would be without.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    uids: Vec<IdMapping>,
    gids: Vec<IdMapping>,
}

/// Ranges that the kernel takes.
const RANGES: usize = 340;

impl Owners {
    /// Understands words that are separated by commas; `None` if one of them is about something else, or makes no sense.
    pub(crate) fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let (mut uid, mut gid, mut map, mut count) = (None, None, None, 0);
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "uid" => uid = Some(value.parse().ok()?),
                "gid" => gid = Some(value.parse().ok()?),
                // By itself it asks for what is done anyway: that the container's users are those of the disk.
                "idmap" if word == key => map = Some(IdMap::default()),
                "idmap" => map = Some(IdMap::parse(value)?),
                _ => return None,
            }
            count += 1;
        }
        let owner = (uid.is_some() || gid.is_some()).then(|| (uid.unwrap_or(0), gid.unwrap_or(0)));
        let said = [uid.is_some(), gid.is_some(), map.is_some()].iter().filter(|it| **it).count();
        if owner.is_some() && map.is_some() || said != count {
            return None;
        }
        Some(Self { owner, map: map.filter(|map| *map != IdMap::default()) })
    }

    pub(crate) fn is_said(&self) -> bool {
        *self != Self::default()
    }
}

impl IdMap {
    fn parse(text: &str) -> Option<Self> {
        let mut map = Self::default();
        for half in text.split(';') {
            let (key, ranges) = half.split_once('=')?;
            let lines = match key {
                "uids" => &mut map.uids,
                "gids" => &mut map.gids,
                _ => return None,
            };
            if !lines.is_empty() {
                return None;
            }
            *lines = ranges.split('#').map(line).collect::<Option<_>>()?;
            let overlaps = |first: fn(&IdMapping) -> u32| {
                let mut ranges: Vec<_> =
                    lines.iter().map(|line| (first(line), line.size)).collect();
                ranges.sort_unstable();
                ranges.windows(2).any(|two| two[1].0 - two[0].0 < two[0].1)
            };
            let twice = overlaps(|line| line.container_id) || overlaps(|line| line.host_id);
            if lines.len() > RANGES || twice {
                return None;
            }
        }
        Some(map)
    }

    /// The mapping of a mount for a container with these users and groups; `None` if it would leave nobody.
    pub(crate) fn within(
        &self,
        uids: &[IdMapping],
        gids: &[IdMapping],
    ) -> Option<(Vec<IdMapping>, Vec<IdMapping>)> {
        let half = |said: &[IdMapping], all: &[IdMapping]| match said {
            [] => all.to_vec(),
            said => through(said, all),
        };
        let (uids, gids) = (half(&self.uids, uids), half(&self.gids, gids));
        (!uids.is_empty() && !gids.is_empty()).then_some((uids, gids))
    }
}

/// `1000-0-1`
fn line(text: &str) -> Option<IdMapping> {
    let mut numbers = text.strip_prefix('@').unwrap_or(text).split('-');
    let mut next = || numbers.next()?.parse::<u32>().ok();
    let line = IdMapping { container_id: next()?, host_id: next()?, size: next()? };
    let fits = |first: u32| first.checked_add(line.size - 1).is_some_and(|last| last < u32::MAX);
    (numbers.next().is_none() && line.size > 0 && fits(line.container_id) && fits(line.host_id))
        .then_some(line)
}

/// What `said`, whose second numbers are a container's, is to the host. Users that the container has not are left out.
fn through(said: &[IdMapping], container: &[IdMapping]) -> Vec<IdMapping> {
    let end = |first: u32, size: u32| u64::from(first) + u64::from(size);
    let meet = |said: &IdMapping, all: &IdMapping| {
        let from = said.host_id.max(all.container_id);
        let stop = end(said.host_id, said.size).min(end(all.container_id, all.size));
        let size = stop.checked_sub(u64::from(from)).filter(|size| *size > 0)?;
        Some(IdMapping {
            container_id: said.container_id + (from - said.host_id),
            host_id: all.host_id + (from - all.container_id),
            size: size as u32,
        })
    };
    said.iter().flat_map(|said| container.iter().filter_map(move |all| meet(said, all))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Owners> {
        Owners::parse(text.split(',').filter(|word| !word.is_empty()))
    }

    fn text(lines: &[IdMapping]) -> String {
        let line = |it: &IdMapping| format!("{}:{}:{}", it.container_id, it.host_id, it.size);
        lines.iter().map(line).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn words() {
        assert_eq!(parse(""), Some(Owners::default()));
        assert_eq!(parse("idmap"), Some(Owners::default()));
        assert_eq!(parse("uid=7").unwrap().owner, Some((7, 0)));
        assert_eq!(parse("gid=8,uid=7").unwrap().owner, Some((7, 8)));
        let map = parse("idmap=uids=0-1-10#10-11-10;gids=@0-100-10").unwrap().map.unwrap();
        assert_eq!(
            (text(&map.uids), text(&map.gids)),
            ("0:1:10 10:11:10".into(), "0:100:10".into())
        );
        for bad in [
            "uid=",
            "uid=x",
            "uid=-1",
            "uid=1,uid=2",
            "ro",
            "idmap=",
            "idmap=1000",
            "idmap,uid=1",
            "idmap=uids=1-2",
            "idmap=uids=1-2-0",
            "idmap=uids=1-2-3-4",
            "idmap=uids=1-2-x",
            "idmap=uids=0-5-10#9-50-1",
            "idmap=uids=0-5-10#20-14-1",
            "idmap=both=0-0-1",
            "idmap=uids=0-0-1;uids=1-1-1",
            "idmap=uids=4294967295-0-1",
            "idmap=uids=0-4294967290-9",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn who_is_who_to_the_host() {
        let line = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        let own = [line(0, 5000, 100), line(100, 70, 10)];
        let within = |text: &str, own: &[IdMapping]| {
            let (uids, gids) = parse(text)?.map?.within(own, own)?;
            Some((super::tests::text(&uids), super::tests::text(&gids)))
        };
        let both = |uids: &str, gids: &str| Some((uids.to_owned(), gids.to_owned()));
        assert_eq!(
            within("idmap=uids=1000-0-1#7-95-10", &own),
            both("1000:5000:1 7:5095:5 12:70:5", "0:5000:100 100:70:10")
        );
        assert_eq!(within("idmap=gids=0-109-9", &own), both("0:5000:100 100:70:10", "0:79:1"));
        assert_eq!(within("idmap=uids=0-500-9", &own), None);
    }
}
