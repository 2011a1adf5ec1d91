//! What containers may reach outside of their networks: one chain that asks where a packet goes, as it is still written on
//! it, before the host makes anything else of it; and a table of bridges that asks whether it is from whom it says.
//!
//! A packet of a container with such rules is judged when it enters the host, so that it makes no difference whether it
//! would go out, to another network, to the host itself or to one of its published ports. What is told is told by elements:
//! the rules are the same for one container and for a thousand, and packets of others meet one of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::rules::{FAMILIES, HOME};
use super::ruleset::{
    Chain, Element, Family, Field, Filled, Hook, Ip, Rule, Ruleset, Set, Term, Value,
};
use super::view::{Guard, View};
use crate::egress::{Allowed, Whom};

/// Whom this is about.
const LEASHED: [&str; 2] = ["leashed4", "leashed6"];
/// From whom to whom, by every protocol and at one port.
const ALLOWED: [&str; 2] = ["allowed4", "allowed6"];
const ALLOWED_PORT: [&str; 2] = ["allowedport4", "allowedport6"];
/// The same where a name was allowed, and somebody was told what it means.
pub(super) const NAMED: [&str; 2] = ["named4", "named6"];
pub(super) const NAMED_PORT: [&str; 2] = ["namedport4", "namedport6"];
const OUTWARD: [&str; 2] = ["outward4", "outward6"];

/// Ports of bridges that are behind a leash, and who lives there.
const PORTS: &str = "ports";
const TENANTS: [&str; 2] = ["tenants4", "tenants6"];
const TENANT: &str = "tenant";

/// Adds what has to be asked of packets.
pub(super) fn judge(ruleset: &mut Ruleset) {
    use Field::{Ipv4, Ipv6, Port, Protocol, Subnet4, Subnet6};
    use Filled::{ByAnswers, ByUs};
    let sets: [(&'static str, &'static [Field], Filled); 10] = [
        (LEASHED[0], &[Ipv4], ByUs),
        (LEASHED[1], &[Ipv6], ByUs),
        (ALLOWED[0], &[Ipv4, Subnet4], ByUs),
        (ALLOWED[1], &[Ipv6, Subnet6], ByUs),
        (ALLOWED_PORT[0], &[Ipv4, Subnet4, Protocol, Port], ByUs),
        (ALLOWED_PORT[1], &[Ipv6, Subnet6, Protocol, Port], ByUs),
        (NAMED[0], &[Ipv4, Ipv4], ByAnswers),
        (NAMED[1], &[Ipv6, Ipv6], ByAnswers),
        (NAMED_PORT[0], &[Ipv4, Ipv4, Protocol, Port], ByAnswers),
        (NAMED_PORT[1], &[Ipv6, Ipv6, Protocol, Port], ByAnswers),
    ];
    ruleset.sets.extend(sets.map(|(name, key, filled)| set(name, key, filled)));
    let guard = ruleset.chains.iter_mut().find(|chain| chain.hook == Some(Hook::PreroutingMangle));
    let begin = FAMILIES.map(|(index, ip)| {
        Rule(vec![Term::SourceIn(ip, LEASHED[index]), Term::Goto(OUTWARD[index])])
    });
    guard.expect("there is one").rules.extend(begin);
    ruleset
        .chains
        .extend(FAMILIES.map(|(index, ip)| chain(OUTWARD[index], None, outward(index, ip))));
}

fn outward(index: usize, ip: Ip) -> Vec<Vec<Term>> {
    let mut rules = vec![
        vec![Term::PathIn(ip, ALLOWED[index]), Term::Accept],
        vec![Term::PathPortIn(ip, ALLOWED_PORT[index]), Term::Accept],
    ];
    if ip == Ip::V6 {
        rules.push(vec![Term::Discovery, Term::Accept]);
    }
    rules.extend([
        // The host is outside, by whichever of its addresses. A name never leads to it, whatever an answer says.
        vec![Term::ToNobodyElse, Term::Drop],
        vec![Term::TargetInputIn(ip, HOME[index]), Term::Accept],
        vec![Term::PathIn(ip, NAMED[index]), Term::Accept],
        vec![Term::PathPortIn(ip, NAMED_PORT[index]), Term::Accept],
        vec![Term::Drop],
    ]);
    rules
}

/// The elements that stand for one endpoint.
pub(super) fn of_guard(guard: &Guard) -> Vec<(&'static str, Element)> {
    let mut elements = Vec::new();
    let allowed = widest(&guard.allowed);
    for address in &guard.addresses {
        let index = usize::from(address.is_ipv6());
        let from = || Value::Address(*address);
        elements.push((LEASHED[index], Element::of([from()])));
        for (subnet, port) in allowed.iter().filter(|(subnet, _)| of_family(subnet, *address)) {
            let to = Value::Subnet(*subnet);
            elements.push(match port {
                None => (ALLOWED[index], Element::of([from(), to])),
                Some((protocol, port)) => {
                    let key = [from(), to, Value::Protocol(*protocol), Value::Port(*port)];
                    (ALLOWED_PORT[index], Element::of(key))
                }
            });
        }
    }
    elements
}

type Opening = (IpNet, Option<(crate::records::Protocol, u16)>);

/// The subnets, without those that are part of another one: the kernel wants no two answers to one question.
fn widest(allowed: &[Allowed]) -> Vec<Opening> {
    let mut all: Vec<Opening> = allowed
        .iter()
        .filter_map(|one| match &one.whom {
            Whom::Addresses(subnet) => Some((*subnet, one.port)),
            Whom::Name(_) | Whom::Below(_) => None,
        })
        .collect();
    all.sort();
    all.dedup();
    let part_of_another = |one: &Opening| {
        all.iter().any(|other| other != one && other.1 == one.1 && other.0.contains(&one.0))
    };
    all.iter().filter(|one| !part_of_another(one)).copied().collect()
}

fn of_family(subnet: &IpNet, address: IpAddr) -> bool {
    subnet.addr().is_ipv4() == address.is_ipv4()
}

/// The table of frames; empty where nobody is on a leash.
pub(super) fn of_frames(table: &str, view: &View) -> Ruleset {
    let empty = Ruleset { family: Family::Bridge, table: table.to_owned(), ..Ruleset::default() };
    if view.guards.is_empty() {
        return empty;
    }
    use Field::{Device, Ipv4, Ipv6, Mac};
    let sets = vec![
        set(PORTS, &[Device], Filled::ByUs),
        set(TENANTS[0], &[Device, Mac, Ipv4], Filled::ByUs),
        set(TENANTS[1], &[Device, Mac, Ipv6], Filled::ByUs),
    ];
    let chains = vec![
        chain(
            "frames",
            Some(Hook::BridgePrerouting),
            vec![vec![Term::InputIn(PORTS), Term::Goto(TENANT)]],
        ),
        chain(
            TENANT,
            None,
            vec![
                vec![Term::FrameIn(Ip::V4, TENANTS[0]), Term::Accept],
                vec![Term::FrameIn(Ip::V6, TENANTS[1]), Term::Accept],
                vec![Term::AskerIn(TENANTS[0]), Term::Accept],
                vec![Term::LinkLocalDiscovery, Term::Accept],
                vec![Term::UnspecifiedDiscovery, Term::Accept],
                vec![Term::Drop],
            ],
        ),
    ];
    let mut ruleset = Ruleset { sets, chains, ..empty };
    for guard in &view.guards {
        let device = || Value::Device(guard.device.clone());
        let tenants = guard.addresses.iter().map(|address| {
            let key = [device(), Value::Mac(guard.mac), Value::Address(*address)];
            (TENANTS[usize::from(address.is_ipv6())], Element::of(key))
        });
        for (set, element) in tenants.chain([(PORTS, Element::of([device()]))]) {
            ruleset.set_mut(set).expect("every set is there").add(element);
        }
    }
    ruleset
}

fn set(name: &'static str, key: &'static [Field], filled: Filled) -> Set {
    Set { name, key, data: &[], elements: BTreeMap::new(), filled }
}

fn chain(name: &'static str, hook: Option<Hook>, rules: Vec<Vec<Term>>) -> Chain {
    Chain { name, hook, rules: rules.into_iter().map(Rule).collect() }
}
