//! Who is called what: the names of a network's members, and what a container sees of the networks it is on.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::records::Protocol;

/// An endpoint, as its neighbours know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The endpoint's id.
    pub(crate) id: String,
    /// The first is what its addresses are called.
    pub(crate) names: Vec<String>,
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) ip6: Option<Ipv6Addr>,
    /// What it says that it listens on.
    pub(crate) services: Vec<Service>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// A network and its members.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zone {
    pub(crate) name: String,
    members: HashMap<String, Arc<Member>>,
    names: HashMap<String, Vec<Arc<Member>>>,
    addresses: HashMap<IpAddr, Arc<Member>>,
}

/// A network, as one container sees it.
#[derive(Clone, Debug)]
pub(crate) struct Sight<'a> {
    pub(crate) zone: &'a Zone,
    /// What this container alone calls others (`--link db:alias`): the alias, and who is meant.
    pub(crate) links: &'a BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Zone {
    /// Adds a member, or puts it in the place of what it was before.
    pub(crate) fn join(&mut self, member: Member) {
        self.leave(&member.id);
        let member = Arc::new(member);
        for name in names(&member) {
            self.names.entry(name).or_default().push(Arc::clone(&member));
        }
        for address in addresses(&member) {
            self.addresses.insert(address, Arc::clone(&member));
        }
        self.members.insert(member.id.clone(), member);
    }

    pub(crate) fn leave(&mut self, id: &str) {
        let Some(member) = self.members.remove(id) else { return };
        for name in names(&member) {
            if let Some(called) = self.names.get_mut(&name) {
                called.retain(|other| other.id != id);
                if called.is_empty() {
                    self.names.remove(&name);
                }
            }
        }
        for address in addresses(&member) {
            if self.addresses.get(&address).is_some_and(|other| other.id == id) {
                self.addresses.remove(&address);
            }
        }
    }

    fn called(&self, name: &str) -> &[Arc<Member>] {
        self.names.get(name).map_or(&[], Vec::as_slice)
    }
}

fn names(member: &Member) -> Vec<String> {
    let mut names: Vec<String> =
        member.names.iter().map(|name| name.to_ascii_lowercase()).collect();
    names.sort();
    names.dedup();
    names
}

fn addresses(member: &Member) -> impl Iterator<Item = IpAddr> {
    let v6 = member.ip6.map(IpAddr::from);
    member.ip.map(IpAddr::from).into_iter().chain(v6)
}

/// Whoever bears this name on any of these networks, the first network first; `None` if nobody does. Names and networks
/// may contain dots, so `a.b.c` is looked for as itself everywhere, then as `a.b` on `c`, then as `a` on `b.c`.
pub(crate) fn members<'a>(
    sights: &[Sight<'a>],
    name: &str,
) -> Option<(&'a Zone, &'a [Arc<Member>])> {
    let dots = name.rmatch_indices('.').map(|(at, _)| (&name[..at], Some(&name[at + 1..])));
    for (name, network) in std::iter::once((name, None)).chain(dots) {
        let there = sights.iter().filter(|sight| {
            network.is_none_or(|network| sight.zone.name.eq_ignore_ascii_case(network))
        });
        for sight in there.clone() {
            let meant = sight.links.get(name).map(|meant| meant.to_ascii_lowercase());
            let called = meant.map_or(&[][..], |meant| sight.zone.called(&meant));
            if !called.is_empty() {
                return Some((sight.zone, called));
            }
        }
        for sight in there {
            let called = sight.zone.called(name);
            if !called.is_empty() {
                return Some((sight.zone, called));
            }
        }
    }
    None
}

/// The addresses behind a name. `None` if nobody bears it, nothing if who does has no address of that family.
pub(crate) fn resolve(sights: &[Sight], name: &str, family: Family) -> Option<Vec<IpAddr>> {
    let (_, members) = members(sights, name)?;
    let mut found: Vec<IpAddr> = Vec::new();
    for address in members.iter().filter_map(|member| match family {
        Family::V4 => member.ip.map(IpAddr::from),
        Family::V6 => member.ip6.map(IpAddr::from),
    }) {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    Some(found)
}

/// What an address is called: `web.network`.
pub(crate) fn reverse(sights: &[Sight], address: IpAddr) -> Option<String> {
    sights.iter().find_map(|sight| {
        let member = sight.zone.addresses.get(&address)?;
        Some(format!("{}.{}", member.names.first()?, sight.zone.name))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn member(id: &str, names: &[&str], ip: Option<&str>, ip6: Option<&str>) -> Member {
        Member {
            id: id.to_owned(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            ip: ip.map(|ip| ip.parse().unwrap()),
            ip6: ip6.map(|ip| ip.parse().unwrap()),
            services: Vec::new(),
        }
    }

    pub(crate) fn zone(name: &str, members: Vec<Member>) -> Zone {
        let mut zone = Zone { name: name.to_owned(), ..Zone::default() };
        members.into_iter().for_each(|member| zone.join(member));
        zone
    }

    fn answers(zones: &[&Zone], links: &[(&str, &str)], name: &str, family: Family) -> String {
        let links: BTreeMap<_, _> =
            links.iter().map(|(alias, meant)| ((*alias).to_owned(), (*meant).to_owned())).collect();
        let sights: Vec<_> = zones.iter().map(|&zone| Sight { zone, links: &links }).collect();
        match resolve(&sights, name, family) {
            None => "unknown".to_owned(),
            Some(found) => format!("{found:?}"),
        }
    }

    #[test]
    fn by_every_name() {
        let back = zone(
            "back",
            vec![
                member("1", &["db", "0123456789ab", "Store"], Some("172.18.0.2"), None),
                member("2", &["a.b"], Some("172.18.0.3"), Some("fd00::3")),
                member("3", &["replica", "store"], Some("172.18.0.4"), None),
            ],
        );
        let front = zone("my.front", vec![member("4", &["db"], Some("172.19.0.2"), None)]);
        let ask = |name, family| answers(&[&back, &front], &[], name, family);
        assert_eq!(ask("db", Family::V4), "[172.18.0.2]");
        assert_eq!(ask("0123456789ab", Family::V4), "[172.18.0.2]");
        assert_eq!(ask("store", Family::V4), "[172.18.0.2, 172.18.0.4]");
        assert_eq!(ask("db.back", Family::V4), "[172.18.0.2]");
        assert_eq!(ask("db.my.front", Family::V4), "[172.19.0.2]");
        assert_eq!(ask("a.b", Family::V4), "[172.18.0.3]");
        assert_eq!(ask("a.b.back", Family::V6), "[fd00::3]");
        assert_eq!(ask("db", Family::V6), "[]");
        assert_eq!(ask("nobody", Family::V4), "unknown");
        assert_eq!(ask("db.elsewhere", Family::V4), "unknown");
        assert_eq!(ask("", Family::V4), "unknown");
        assert_eq!(ask(".", Family::V4), "unknown");
    }

    #[test]
    fn a_link_comes_first() {
        let back = zone(
            "back",
            vec![
                member("1", &["db"], Some("172.18.0.2"), None),
                member("2", &["store"], Some("172.18.0.3"), None),
            ],
        );
        assert_eq!(answers(&[&back], &[("store", "DB")], "store", Family::V4), "[172.18.0.2]");
        assert_eq!(answers(&[&back], &[("x", "gone")], "x", Family::V4), "unknown");
    }

    #[test]
    fn who_leaves_is_forgotten() {
        let mut back = zone(
            "back",
            vec![
                member("1", &["db", "store"], Some("172.18.0.2"), None),
                member("2", &["store"], Some("172.18.0.3"), None),
            ],
        );
        back.leave("1");
        assert_eq!(answers(&[&back], &[], "db", Family::V4), "unknown");
        assert_eq!(answers(&[&back], &[], "store", Family::V4), "[172.18.0.3]");
        // Its address has been given to another before it was heard that the first left.
        back.join(member("3", &["new"], Some("172.18.0.2"), None));
        back.join(member("2", &["renamed"], Some("172.18.0.3"), None));
        assert_eq!(answers(&[&back], &[], "store", Family::V4), "unknown");
        let links = BTreeMap::new();
        let name = |ip: &str| reverse(&[Sight { zone: &back, links: &links }], ip.parse().unwrap());
        assert_eq!(name("172.18.0.2").as_deref(), Some("new.back"));
        assert_eq!(name("172.18.0.3").as_deref(), Some("renamed.back"));
        assert_eq!(name("172.18.0.9"), None);
        back.leave("2");
        back.leave("3");
        assert!(back.members.is_empty() && back.names.is_empty() && back.addresses.is_empty());
    }
}
