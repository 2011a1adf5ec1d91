//! The ruleset as a value, made from what the firewall has to know.
//!
//! Networks and ports are elements of sets and maps, not rules of their own: the rules are the same however many there
//! are, a packet meets the same few, and one port more or less is one message to the kernel. To look into a set is the
//! dearest that a rule does, so what most packets would ask in vain is only asked where there is a network of the kind.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::leash;
use super::ruleset::{
    Chain, Connection, Element, Field, Filled, Hook, Ip, Is, Rule, Ruleset, Set, Term, Value,
    is_localhost,
};
use super::view::{Bridge, Choices, Family, Link, Localhost, Overlay, Port, Rules, View};
use crate::records::GatewayMode;

/// Our networks of several hosts, and who may send for which.
const OVERLAYS: &str = "overlays";
const PEERS: [&str; 2] = ["peers", "peers6"];
/// Our bridges.
const BRIDGES: &str = "bridges";
/// Pairs of one bridge and itself, where containers may talk to each other.
const ICC: &str = "icc";
/// What linked containers may ask of each other where others may not ask anything.
const LINKED: &str = "linked4";
const INTERNAL: &str = "internal";
/// Bridges without a family: nobody on them speaks it, whatever they say.
const WITHOUT: [&str; 2] = ["without4", "without6"];
/// Bridges on which the host has an address, so that it knows who lives there.
const ADDRESSED: [&str; 2] = ["addressed4", "addressed6"];
/// Bridges whose containers are reached at every port.
const OPEN: [&str; 2] = ["open4", "open6"];
/// Bridges whose published ports are reached at the container's own address.
const DIRECT: [&str; 2] = ["direct4", "direct6"];
/// Bridges whose containers answer a ping from outside.
const ROUTED: [&str; 2] = ["routed4", "routed6"];
/// Pairs of a device of the host and a bridge that is open to it as if it were direct.
const TRUSTED: &str = "trusted";
/// Devices that we do not forward between.
const STRANGERS: [&str; 2] = ["strangers4", "strangers6"];
/// Subnets, each with the bridge it is on.
pub(super) const HOME: [&str; 2] = ["home4", "home6"];
/// Subnets that the world does not know.
const MASQUERADE: [&str; 2] = ["masquerade4", "masquerade6"];
/// What may be asked of a container.
const PUBLISHED: [&str; 2] = ["published4", "published6"];
/// Where ports lead that are published on one address of the host, and on all of them.
const PORTS: [&str; 2] = ["ports4", "ports6"];
const WILDCARD: [&str; 2] = ["wildcard4", "wildcard6"];
/// The same for addresses that only the host itself can send to.
const LOCALHOST: &str = "localhost4";

/// Those that lead to published ports.
pub(super) const PORT_SETS: [&str; 7] =
    [PUBLISHED[0], PUBLISHED[1], PORTS[0], PORTS[1], WILDCARD[0], WILDCARD[1], LOCALHOST];

const INWARD: &str = "inward";
const ASKED: &str = "asked";

/// The rules that this needs.
pub(crate) fn render(table: &str, view: &View) -> Ruleset {
    let table = table.to_owned();
    let choices = &view.choices;
    if view.bridges.is_empty() && view.overlays.is_empty()
        || (choices.ipv4, choices.ipv6) == (Rules::Nobodys, Rules::Nobodys)
    {
        return Ruleset { table, ..Ruleset::default() };
    }
    let mut ruleset =
        Ruleset { table, sets: sets(), chains: chains(&Kinds::of(view)), ..Ruleset::default() };
    if !view.guards.is_empty() {
        leash::judge(&mut ruleset);
    }
    let overlays = view.overlays.iter().flat_map(of_overlay);
    let bridges = view.bridges.iter().flat_map(|bridge| of_bridge(bridge, choices));
    let links = view.links.iter().map(of_link);
    let ports = view.ports.iter().flat_map(|port| of_port(port, choices));
    let strangers = STRANGERS
        .into_iter()
        .zip(&choices.strangers)
        .flat_map(|(set, names)| names.iter().map(move |name| (set, Element::of([device(name)]))));
    let guards = view.guards.iter().flat_map(leash::of_guard);
    for (set, element) in
        bridges.chain(overlays).chain(ports).chain(links).chain(strangers).chain(guards)
    {
        ruleset.set_mut(set).expect("every set is there").add(element);
    }
    ruleset
}

/// The elements for what a view has and another of the same choices has not.
pub(super) fn of_missing(view: &View, other: &View) -> Vec<(&'static str, Element)> {
    let choices = &view.choices;
    let known: BTreeMap<&str, &Bridge> =
        other.bridges.iter().map(|bridge| (bridge.name.as_str(), bridge)).collect();
    let bridges =
        view.bridges.iter().filter(|bridge| known.get(bridge.name.as_str()) != Some(bridge));
    let overlays = view.overlays.iter().filter(|overlay| !other.overlays.contains(overlay));
    let ports = view.ports.difference(&other.ports);
    let links = view.links.difference(&other.links);
    bridges
        .flat_map(|bridge| of_bridge(bridge, choices))
        .chain(overlays.flat_map(of_overlay))
        .chain(ports.flat_map(|port| of_port(port, choices)))
        .chain(links.map(of_link))
        .collect()
}

/// The elements that stand for one published port.
pub(crate) fn of_port(port: &Port, choices: &Choices) -> Vec<(&'static str, Element)> {
    let (host, host_port) = port.host;
    let (container, container_port) = port.container;
    let family = usize::from(host.is_ipv6());
    let protocol = || Value::Protocol(port.protocol);
    let published =
        Element::of([Value::Address(container), protocol(), Value::Port(container_port)]);
    let published = (PUBLISHED[family], published);
    if port.mode == GatewayMode::Routed {
        return vec![published];
    }
    let at = |address: IpAddr| {
        Element::of([Value::Address(address), protocol(), Value::Port(host_port)])
            .leads_to(container, container_port)
    };
    let everywhere = Element::of([protocol(), Value::Port(host_port)]);
    match host {
        _ if host.is_unspecified() => {
            vec![published, (WILDCARD[family], everywhere.leads_to(container, container_port))]
        }
        IpAddr::V4(_) if is_localhost(host) => match choices.localhost {
            Localhost::Kernel => vec![(LOCALHOST, at(host))],
            Localhost::Proxy => Vec::new(),
        },
        _ if is_localhost(host) => Vec::new(),
        _ => vec![published, (PORTS[family], at(host))],
    }
}

fn of_link(link: &Link) -> (&'static str, Element) {
    let (to, port) = link.to;
    let element = Element::of([
        device(&link.bridge),
        Value::Address(link.from.into()),
        Value::Address(to.into()),
        Value::Protocol(link.protocol),
        Value::Port(port),
    ]);
    (LINKED, element)
}

fn of_overlay(overlay: &Overlay) -> Vec<(&'static str, Element)> {
    let network = || Value::Network(overlay.vni);
    let mut elements = vec![(OVERLAYS, Element::of([network()]))];
    let peer = |vtep: &IpAddr| {
        let set = PEERS[usize::from(vtep.is_ipv6())];
        (set, Element::of([Value::Address(*vtep), network()]))
    };
    elements.extend(overlay.peers.iter().map(peer));
    elements
}

fn of_bridge(bridge: &Bridge, choices: &Choices) -> Vec<(&'static str, Element)> {
    let name = || device(&bridge.name);
    let this = || Element::of([name()]);
    let mut elements = vec![(BRIDGES, this())];
    if bridge.icc {
        elements.push((ICC, Element::of([name(), name()])));
    }
    if bridge.internal {
        elements.push((INTERNAL, this()));
    }
    for trusted in &bridge.trusted {
        elements.push((TRUSTED, Element::of([device(trusted), name()])));
    }
    for (index, family) in [&bridge.ipv4, &bridge.ipv6].into_iter().enumerate() {
        let Some(Family { subnets, mode, masquerade, addressed }) = family else {
            elements.push((WITHOUT[index], this()));
            continue;
        };
        if *addressed {
            elements.push((ADDRESSED[index], this()));
        }
        let home = subnets.iter().map(|subnet| Element::of([Value::Subnet(*subnet), name()]));
        elements.extend(home.map(|element| (HOME[index], element)));
        if bridge.internal {
            continue;
        }
        let translated = matches!(mode, GatewayMode::Nat | GatewayMode::NatUnprotected);
        if translated && *masquerade {
            let subnets = subnets.iter().map(|subnet| Element::of([Value::Subnet(*subnet)]));
            elements.extend(subnets.map(|element| (MASQUERADE[index], element)));
        }
        if *mode == GatewayMode::NatUnprotected {
            elements.push((OPEN[index], this()));
        }
        if *mode == GatewayMode::Routed {
            elements.push((ROUTED[index], this()));
        }
        if *mode == GatewayMode::Routed || choices.direct_routing {
            elements.push((DIRECT[index], this()));
        }
    }
    elements
}

fn device(name: &str) -> Value {
    Value::Device(name.to_owned())
}

fn sets() -> Vec<Set> {
    use Field::{Device, Ipv4, Ipv6, Network, Port, Protocol, Subnet4, Subnet6};
    let tables: [(&'static str, &'static [Field], &'static [Field]); 30] = [
        (OVERLAYS, &[Network], &[]),
        (PEERS[0], &[Ipv4, Network], &[]),
        (PEERS[1], &[Ipv6, Network], &[]),
        (BRIDGES, &[Device], &[]),
        (ICC, &[Device, Device], &[]),
        (LINKED, &[Device, Ipv4, Ipv4, Protocol, Port], &[]),
        (INTERNAL, &[Device], &[]),
        (TRUSTED, &[Device, Device], &[]),
        (STRANGERS[0], &[Device], &[]),
        (STRANGERS[1], &[Device], &[]),
        (WITHOUT[0], &[Device], &[]),
        (WITHOUT[1], &[Device], &[]),
        (ADDRESSED[0], &[Device], &[]),
        (ADDRESSED[1], &[Device], &[]),
        (OPEN[0], &[Device], &[]),
        (OPEN[1], &[Device], &[]),
        (DIRECT[0], &[Device], &[]),
        (DIRECT[1], &[Device], &[]),
        (ROUTED[0], &[Device], &[]),
        (ROUTED[1], &[Device], &[]),
        (HOME[0], &[Subnet4, Device], &[]),
        (HOME[1], &[Subnet6, Device], &[]),
        (MASQUERADE[0], &[Subnet4], &[]),
        (MASQUERADE[1], &[Subnet6], &[]),
        (PUBLISHED[0], &[Ipv4, Protocol, Port], &[]),
        (PUBLISHED[1], &[Ipv6, Protocol, Port], &[]),
        (PORTS[0], &[Ipv4, Protocol, Port], &[Ipv4, Port]),
        (PORTS[1], &[Ipv6, Protocol, Port], &[Ipv6, Port]),
        (WILDCARD[0], &[Protocol, Port], &[Ipv4, Port]),
        (WILDCARD[1], &[Protocol, Port], &[Ipv6, Port]),
    ];
    let local: (&'static str, &'static [Field], &'static [Field]) =
        (LOCALHOST, &[Ipv4, Protocol, Port], &[Ipv4, Port]);
    let set = |(name, key, data)| Set {
        name,
        key,
        data,
        elements: BTreeMap::new(),
        filled: Filled::ByUs,
    };
    tables.into_iter().chain([local]).map(set).collect()
}

pub(super) const FAMILIES: [(usize, Ip); 2] = [(0, Ip::V4), (1, Ip::V6)];

/// What the rules depend on. Everything else is elements.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kinds<'a> {
    choices: &'a Choices,
    /// Are there bridges that do not speak a family?
    without: [bool; 2],
    internal: bool,
    overlays: bool,
}

impl<'a> Kinds<'a> {
    pub(super) fn of(view: &'a View) -> Self {
        let bridges = &view.bridges;
        Self {
            choices: &view.choices,
            without: [
                bridges.iter().any(|bridge| bridge.ipv4.is_none()),
                bridges.iter().any(|bridge| bridge.ipv6.is_none()),
            ],
            internal: bridges.iter().any(|bridge| bridge.internal),
            overlays: !view.overlays.is_empty(),
        }
    }
}

fn chains(kinds: &Kinds) -> Vec<Chain> {
    let choices = kinds.choices;
    let chain = |name, hook, rules: Vec<Vec<Term>>| {
        let rules = match hook {
            Some(_) => not_ours(choices).chain(rules).map(Rule).collect(),
            None => rules.into_iter().map(Rule).collect(),
        };
        Chain { name, hook, rules }
    };
    vec![
        chain("guard", Some(Hook::PreroutingMangle), guard(kinds)),
        chain("prerouting", Some(Hook::PreroutingNat), translate()),
        chain("output", Some(Hook::OutputNat), from_host(choices)),
        chain("forward", Some(Hook::Forward), forward(kinds)),
        chain(INWARD, None, inward(choices)),
        chain(ASKED, None, asked()),
        chain("redirect", Some(Hook::Output), redirect()),
        chain("postrouting", Some(Hook::PostroutingNat), masquerade()),
    ]
}

/// A family that the operator keeps for himself.
fn not_ours(choices: &Choices) -> impl Iterator<Item = Vec<Term>> + use<> {
    let ours = [(choices.ipv4, Ip::V4), (choices.ipv6, Ip::V6)];
    ours.into_iter()
        .filter(|(rules, _)| *rules == Rules::Nobodys)
        .map(|(_, ip)| vec![Term::Family(ip), Term::Accept])
}

/// What no network may see, whatever else is configured, and whom nobody believes. Every packet comes by here, most of
/// them of a conversation that was let begin.
fn guard(kinds: &Kinds) -> Vec<Vec<Term>> {
    // A device that routes the loopback's addresses would let its neighbours speak to what listens there
    // (CVE-2020-8558, CVE-2025-54388).
    let mut rules = vec![vec![Term::ToLocalhost(Is::Yes), Term::NotFromLoopback, Term::Drop]];
    // CVE-2020-13401, CVE-2024-32473.
    let without = FAMILIES.into_iter().filter(|(index, _)| kinds.without[*index]);
    rules.extend(
        without
            .map(|(index, ip)| vec![Term::Family(ip), Term::InputIn(WITHOUT[index]), Term::Drop]),
    );
    if kinds.internal {
        // An internal network sees its own gateway and no other address of the host.
        let input = Term::ToInputDevice(Is::Not);
        rules.push(vec![Term::InputIn(INTERNAL), Term::ToHost, input, Term::Drop]);
    }
    if kinds.overlays {
        // VXLAN believes whoever knows the number of a network.
        rules.extend(FAMILIES.map(|(index, ip)| {
            let stranger = Term::SourceNetworkIn(ip, Is::Not, PEERS[index]);
            vec![Term::Vxlan, Term::NetworkIn(OVERLAYS), stranger, Term::Drop]
        }));
    }
    rules.push(vec![Term::Connection(Connection::Established), Term::Accept]);
    // Who begins a conversation says who he is.
    rules.extend(FAMILIES.map(|(index, ip)| {
        vec![
            Term::Family(ip),
            // What finds neighbours belongs to none, and may come from nobody.
            Term::Connection(Connection::NewOrInvalid),
            Term::InputIn(ADDRESSED[index]),
            Term::NoWayBack,
            Term::Drop,
        ]
    }));
    rules
}

fn translate() -> Vec<Vec<Term>> {
    let address = FAMILIES.map(|(index, ip)| vec![Term::TranslateTarget(ip, PORTS[index])]);
    let wildcard = FAMILIES.map(|(index, ip)| {
        vec![Term::Family(ip), Term::ToHost, Term::TranslatePort(ip, WILDCARD[index])]
    });
    address.into_iter().chain(wildcard).collect()
}

/// What the host itself sends to a published port.
fn from_host(choices: &Choices) -> Vec<Vec<Term>> {
    let localhost = match choices.localhost {
        Localhost::Kernel => vec![Term::TranslateTarget(Ip::V4, LOCALHOST)],
        Localhost::Proxy => vec![Term::ToLocalhost(Is::Yes), Term::Accept],
    };
    // No kernel routes ::1: whoever listens on the port serves it.
    let localhost6 = vec![Term::ToLocalhost6(Is::Yes), Term::Accept];
    [localhost, localhost6].into_iter().chain(translate()).collect()
}

/// What begins to be forwarded to a bridge of ours has to have a reason. What leaves one for elsewhere goes, unless the
/// network is internal: by nobody's conversation. Everything else is not ours to judge, except that we did not mean to make
/// a router of the host.
fn forward(kinds: &Kinds) -> Vec<Vec<Term>> {
    let mut rules = Vec::new();
    if kinds.internal {
        let elsewhere = Term::OutputIn(Is::Not, BRIDGES);
        rules.push(vec![Term::InputIn(INTERNAL), elsewhere, Term::Drop]);
    }
    rules.push(vec![Term::Connection(Connection::Established), Term::Accept]);
    rules.push(vec![Term::OutputIn(Is::Yes, BRIDGES), Term::Goto(INWARD)]);
    let strangers = FAMILIES.map(|(index, ip)| {
        let set = STRANGERS[index];
        vec![Term::Family(ip), Term::InputIn(set), Term::OutputIn(Is::Yes, set), Term::Drop]
    });
    rules.extend(strangers);
    rules
}

fn inward(choices: &Choices) -> Vec<Vec<Term>> {
    let mut rules =
        vec![vec![Term::PairIn(ICC), Term::Accept], vec![Term::LinkIn(LINKED), Term::Accept]];
    rules.extend(choices.accepted_mark.map(|mark| vec![Term::Marked(mark), Term::Accept]));
    rules.push(vec![Term::InputIn(INTERNAL), Term::Drop]);
    rules.push(vec![Term::OutputIn(Is::Yes, INTERNAL), Term::Drop]);
    for (index, ip) in FAMILIES {
        rules.push(vec![Term::Family(ip), Term::OutputIn(Is::Yes, OPEN[index]), Term::Accept]);
        rules.push(vec![Term::Icmp(ip), Term::OutputIn(Is::Yes, ROUTED[index]), Term::Accept]);
        rules.push(vec![Term::TargetIn(ip, PUBLISHED[index]), Term::Goto(ASKED)]);
    }
    rules.push(vec![Term::Drop]);
    rules
}

/// A published port is asked for: by its address on the host, or directly where that is allowed.
fn asked() -> Vec<Vec<Term>> {
    let mut rules = vec![
        vec![Term::Connection(Connection::Translated), Term::Accept],
        vec![Term::PairIn(TRUSTED), Term::Accept],
    ];
    for (index, ip) in FAMILIES {
        rules.push(vec![Term::Family(ip), Term::OutputIn(Is::Yes, DIRECT[index]), Term::Accept]);
    }
    rules.push(vec![Term::Drop]);
    rules
}

/// A container that reaches its neighbour by a port of the host would be told of a shorter way, which leads nowhere.
fn redirect() -> Vec<Vec<Term>> {
    FAMILIES
        .map(|(_, ip)| vec![Term::Redirect(ip), Term::OutputIn(Is::Yes, BRIDGES), Term::Drop])
        .into()
}

fn masquerade() -> Vec<Vec<Term>> {
    let mut rules =
        vec![vec![Term::FromLocalhost, Term::OutputIn(Is::Yes, BRIDGES), Term::Masquerade]];
    for (index, ip) in FAMILIES {
        rules.push(vec![
            Term::SourceIn(ip, MASQUERADE[index]),
            Term::SourceOutputIn(ip, Is::Not, HOME[index]),
            Term::Masquerade,
        ]);
        // To a neighbour by a port of the host: the answer has to come back the same way.
        rules.push(vec![
            Term::Connection(Connection::Translated),
            Term::SourceOutputIn(ip, Is::Yes, HOME[index]),
            Term::Masquerade,
        ]);
    }
    rules
}
