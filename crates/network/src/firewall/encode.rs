//! The ruleset in the kernel's words: attributes in the order in which the kernel gives them back, so that "is it still
//! there?" is a comparison of bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::ruleset::{
    Connection, Element, Family, Field, Filled, Hook, Ip, Is, Rule, Set, Term, Value,
};
use super::view::Mark;
use crate::netlink::Attributes;
use crate::netlink::route::VXLAN_PORT;
use crate::records::Protocol;

pub(super) const FAMILY_IPV4: u8 = 2;
pub(super) const FAMILY_IPV6: u8 = 10;
const FAMILY_INET: u8 = 1;
const FAMILY_BRIDGE: u8 = 7;

const IFNAMSIZ: usize = 16;

/// A family's number.
pub(super) fn family(family: Family) -> u8 {
    match family {
        Family::Inet => FAMILY_INET,
        Family::Bridge => FAMILY_BRIDGE,
    }
}

/// A chain's type, hook and priority.
pub(super) fn hook(hook: Hook) -> (&'static str, u32, i32) {
    const PREROUTING: u32 = 0;
    const FORWARD: u32 = 2;
    const OUTPUT: u32 = 3;
    const POSTROUTING: u32 = 4;
    match hook {
        Hook::PreroutingMangle => ("filter", PREROUTING, -150),
        Hook::PreroutingNat => ("nat", PREROUTING, -100),
        Hook::OutputNat => ("nat", OUTPUT, -100),
        Hook::Forward => ("filter", FORWARD, 0),
        Hook::Output => ("filter", OUTPUT, 0),
        Hook::PostroutingNat => ("nat", POSTROUTING, 100),
        Hook::BridgePrerouting => ("filter", PREROUTING, -300),
    }
}

/// What a set is made of.
pub(super) struct Shape {
    pub(super) flags: u32,
    pub(super) key_type: u32,
    pub(super) key_length: u32,
    pub(super) data_type: u32,
    pub(super) data_length: u32,
    /// The lengths of a key's parts, where the kernel has to know them.
    pub(super) parts: Vec<u32>,
    /// A note for nft(8), which otherwise prints a device's name as nothing: type, length, value.
    pub(super) note: &'static [u8],
}

impl Shape {
    pub(super) fn of(set: &Set) -> Self {
        const INTERVAL: u32 = 4;
        const MAP: u32 = 8;
        const TIMEOUT: u32 = 0x10;
        const CONCATENATION: u32 = 0x80;
        const KEY_IN_HOST_ORDER: &[u8] = &[0, 4, 1, 0, 0, 0];
        let parts: Vec<u32> = set.key.iter().map(|field| length(*field)).collect();
        let ranges = set.is_interval();
        let several = parts.len() > 1;
        let mut flags = 0;
        for (flag, wanted) in [
            (INTERVAL, ranges),
            (MAP, set.is_map()),
            (TIMEOUT, set.filled == Filled::ByAnswers),
            (CONCATENATION, ranges && several),
        ] {
            flags |= if wanted { flag } else { 0 };
        }
        Self {
            flags,
            key_type: kind(set.key),
            key_length: parts.iter().map(|part| part.next_multiple_of(4)).sum(),
            data_type: kind(set.data),
            data_length: set.data.iter().map(|field| length(*field).next_multiple_of(4)).sum(),
            parts: if ranges && several { parts } else { Vec::new() },
            note: if matches!(set.key, [Field::Device]) { KEY_IN_HOST_ORDER } else { &[] },
        }
    }
}

/// Types as nft(8) numbers them; the kernel keeps them for it. Several are one number after the other.
fn kind(fields: &[Field]) -> u32 {
    const BITS: u32 = 6;
    fields.iter().fold(0, |kinds, field| {
        kinds << BITS
            | match field {
                Field::Ipv4 | Field::Subnet4 | Field::Network => 7,
                Field::Ipv6 | Field::Subnet6 => 8,
                Field::Mac => 9,
                Field::Protocol => 12,
                Field::Port => 13,
                Field::Device => 41,
            }
    })
}

fn length(field: Field) -> u32 {
    match field {
        Field::Device => IFNAMSIZ as u32,
        Field::Ipv4 | Field::Subnet4 | Field::Network => 4,
        Field::Ipv6 | Field::Subnet6 => 16,
        Field::Mac => 6,
        Field::Protocol => 1,
        Field::Port => 2,
    }
}

/// An element's attributes; a range alone is two elements, its first address and the first behind it.
pub(super) fn element(element: &Element) -> Vec<Vec<u8>> {
    const KEY: u16 = 1;
    const FLAGS: u16 = 3;
    const KEY_END: u16 = 10;
    const INTERVAL_END: u32 = 1;
    const DATA: u16 = 2;
    let value = |item: &mut Attributes, kind, bytes: &[u8]| {
        item.nest(kind, |data| data.bytes(DATA_VALUE, bytes));
    };
    let mut item = Attributes::new();
    if let [Value::Subnet(subnet)] = element.key.as_slice() {
        value(&mut item, KEY, &octets(subnet.network()));
        let mut items = vec![item.into_bytes()];
        if let Some(behind) = behind(*subnet) {
            let mut end = Attributes::new();
            value(&mut end, KEY, &octets(behind));
            end.be32(FLAGS, INTERVAL_END);
            items.push(end.into_bytes());
        }
        return items;
    }
    value(&mut item, KEY, &bytes(&element.key, IpNet::network));
    if element.key.iter().any(|value| matches!(value, Value::Subnet(_))) {
        value(&mut item, KEY_END, &bytes(&element.key, IpNet::broadcast));
    }
    if !element.data.is_empty() {
        value(&mut item, DATA, &bytes(&element.data, IpNet::network));
    }
    vec![item.into_bytes()]
}

/// Values one after the other, each on a border of four bytes.
fn bytes(values: &[Value], end: impl Fn(&IpNet) -> IpAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        match value {
            Value::Device(name) => bytes.extend(device_name(name)),
            Value::Subnet(subnet) => bytes.extend(octets(end(subnet))),
            Value::Address(address) => bytes.extend(octets(*address)),
            Value::Mac(mac) => bytes.extend(mac.0),
            Value::Protocol(protocol) => bytes.push(number(*protocol)),
            Value::Port(port) => bytes.extend(port.to_be_bytes()),
            Value::Network(vni) => bytes.extend((vni << 8).to_be_bytes()),
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

fn behind(subnet: IpNet) -> Option<IpAddr> {
    match subnet.broadcast() {
        IpAddr::V4(last) => u32::from(last).checked_add(1).map(|next| Ipv4Addr::from(next).into()),
        IpAddr::V6(last) => u128::from(last).checked_add(1).map(|next| Ipv6Addr::from(next).into()),
    }
}

fn device_name(device: &str) -> [u8; IFNAMSIZ] {
    let mut name = [0; IFNAMSIZ];
    let length = device.len().min(IFNAMSIZ - 1);
    name[..length].copy_from_slice(&device.as_bytes()[..length]);
    name
}

const LIST_ITEM: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_REGISTER: u32 = 0;
/// Registers are of 16 bytes, numbered from 1, or parts of them of 4 bytes, numbered from 8.
const REGISTER_1: u32 = 1;
const REGISTER_2: u32 = 2;
const REGISTER_3: u32 = 3;
/// The second part of the first, and so on.
const PART_1: u32 = 9;
const PART_2: u32 = 10;
const PART_3: u32 = 11;
const PART_5: u32 = 13;
const PART_6: u32 = 14;
const PART_7: u32 = 15;
const PART_9: u32 = 17;

const DROP: i32 = 0;
const ACCEPT: i32 = 1;
pub(super) const JUMP: i32 = -3;
pub(super) const GOTO: i32 = -4;

const META_PROTOCOL: u32 = 1;
const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;
const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const ICMP: [u8; 2] = [1, 58];
const ETHERTYPE: [[u8; 2]; 2] = [[0x08, 0x00], [0x86, 0xdd]];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ICMP_REDIRECT: [u8; 2] = [5, 137];

/// A rule's expressions.
pub(super) fn expressions(list: &mut Attributes, rule: &Rule) {
    // nft(8) looks at the family once a rule.
    let mut family = None;
    for term in &rule.0 {
        term_of(list, term, &mut family);
    }
}

fn term_of(list: &mut Attributes, term: &Term, family: &mut Option<Ip>) {
    match term {
        Term::Family(ip) => only(list, *ip, family),
        Term::InputIn(set) => {
            meta(list, META_IIFNAME, REGISTER_1);
            lookup(list, set, Is::Yes, None);
        }
        Term::OutputIn(is, set) => {
            meta(list, META_OIFNAME, REGISTER_1);
            lookup(list, set, *is, None);
        }
        Term::PairIn(set) => {
            meta(list, META_IIFNAME, REGISTER_1);
            meta(list, META_OIFNAME, REGISTER_2);
            lookup(list, set, Is::Yes, None);
        }
        Term::NotFromLoopback => {
            meta(list, META_IIFNAME, REGISTER_1);
            compare(list, NOT_EQUAL, &device_name("lo"));
        }
        Term::FromLocalhost => {
            only(list, Ip::V4, family);
            payload(list, NETWORK_HEADER, source(Ip::V4).0, 1, REGISTER_1);
            compare(list, EQUAL, &[127]);
        }
        Term::ToLocalhost(is) => {
            only(list, Ip::V4, family);
            payload(list, NETWORK_HEADER, target(Ip::V4).0, 1, REGISTER_1);
            compare(list, how(*is), &[127]);
        }
        Term::ToLocalhost6(is) => {
            only(list, Ip::V6, family);
            address(list, target(Ip::V6));
            compare(list, how(*is), &Ipv6Addr::LOCALHOST.octets());
        }
        Term::SourceIn(ip, set) => {
            only(list, *ip, family);
            address(list, source(*ip));
            lookup(list, set, Is::Yes, None);
        }
        Term::PathIn(ip, set) => {
            only(list, *ip, family);
            path(list, *ip);
            lookup(list, set, Is::Yes, None);
        }
        Term::PathPortIn(ip, set) => {
            only(list, *ip, family);
            path(list, *ip);
            meta(list, META_L4PROTO, [PART_2, REGISTER_3][index(*ip)]);
            payload(list, TRANSPORT_HEADER, 2, 2, [PART_3, PART_9][index(*ip)]);
            lookup(list, set, Is::Yes, None);
        }
        Term::TargetInputIn(ip, set) => {
            only(list, *ip, family);
            address(list, target(*ip));
            meta(list, META_IIFNAME, [PART_1, REGISTER_2][index(*ip)]);
            lookup(list, set, Is::Yes, None);
        }
        Term::SourceOutputIn(ip, is, set) => {
            only(list, *ip, family);
            address(list, source(*ip));
            meta(list, META_OIFNAME, [PART_1, REGISTER_2][index(*ip)]);
            lookup(list, set, *is, None);
        }
        Term::TargetIn(ip, set) => {
            only(list, *ip, family);
            target_protocol_port(list, *ip);
            lookup(list, set, Is::Yes, None);
        }
        Term::LinkIn(set) => {
            only(list, Ip::V4, family);
            meta(list, META_IIFNAME, REGISTER_1);
            let (source, target) = (source(Ip::V4), target(Ip::V4));
            payload(list, NETWORK_HEADER, source.0, source.1, REGISTER_2);
            payload(list, NETWORK_HEADER, target.0, target.1, PART_5);
            meta(list, META_L4PROTO, PART_6);
            payload(list, TRANSPORT_HEADER, 2, 2, PART_7);
            lookup(list, set, Is::Yes, None);
        }
        Term::Vxlan => {
            meta(list, META_L4PROTO, REGISTER_1);
            compare(list, EQUAL, &[number(Protocol::Udp)]);
            payload(list, TRANSPORT_HEADER, 2, 2, REGISTER_1);
            compare(list, EQUAL, &VXLAN_PORT.to_be_bytes());
        }
        Term::NetworkIn(set) => {
            payload(list, TRANSPORT_HEADER, 12, 4, REGISTER_1);
            lookup(list, set, Is::Yes, None);
        }
        Term::SourceNetworkIn(ip, is, set) => {
            only(list, *ip, family);
            address(list, source(*ip));
            payload(list, TRANSPORT_HEADER, 12, 4, [PART_1, REGISTER_2][index(*ip)]);
            lookup(list, set, *is, None);
        }
        Term::ToHost => {
            fib(list, FIB_DESTINATION, FIB_TYPE);
            compare(list, EQUAL, &ROUTE_LOCAL.to_ne_bytes());
        }
        Term::ToNobodyElse => {
            fib(list, FIB_DESTINATION, FIB_TYPE);
            compare(list, NOT_EQUAL, &ROUTE_UNICAST.to_ne_bytes());
        }
        Term::ToInputDevice(is) => {
            fib(list, FIB_DESTINATION | FIB_INPUT, FIB_TYPE);
            compare(list, how(*is), &ROUTE_LOCAL.to_ne_bytes());
        }
        Term::NoWayBack => {
            fib(list, FIB_SOURCE | FIB_INPUT | FIB_PRESENT, FIB_OUTPUT_DEVICE);
            compare(list, EQUAL, &[0; 4]);
        }
        Term::Icmp(ip) => {
            meta(list, META_L4PROTO, REGISTER_1);
            compare(list, EQUAL, &[ICMP[index(*ip)]]);
        }
        Term::Redirect(ip) => {
            only(list, *ip, family);
            meta(list, META_L4PROTO, REGISTER_1);
            compare(list, EQUAL, &[ICMP[index(*ip)]]);
            payload(list, TRANSPORT_HEADER, 0, 1, REGISTER_1);
            compare(list, EQUAL, &[ICMP_REDIRECT[index(*ip)]]);
        }
        Term::Discovery => {
            only(list, Ip::V6, family);
            icmp6_between(list, 133, 136);
        }
        Term::FrameIn(ip, set) => {
            meta(list, META_PROTOCOL, REGISTER_1);
            compare(list, EQUAL, &ETHERTYPE[index(*ip)]);
            let (offset, length) = source(*ip);
            sender(list, offset, length);
            lookup(list, set, Is::Yes, None);
        }
        Term::AskerIn(set) => {
            payload(list, LINK_HEADER, 12, 2, REGISTER_1);
            compare(list, EQUAL, &ETHERTYPE_ARP);
            sender(list, 14, 4);
            lookup(list, set, Is::Yes, None);
        }
        Term::LinkLocalDiscovery => {
            meta(list, META_PROTOCOL, REGISTER_1);
            compare(list, EQUAL, &ETHERTYPE[1]);
            let (offset, length) = source(Ip::V6);
            payload(list, NETWORK_HEADER, offset, length, REGISTER_1);
            let bits = |first: [u8; 2]| [&first[..], &[0; 14]].concat();
            mask_wide(list, &bits([0xff, 0xc0]));
            compare(list, EQUAL, &bits([0xfe, 0x80]));
            icmp6_between(list, 130, 136);
        }
        Term::UnspecifiedDiscovery => {
            meta(list, META_PROTOCOL, REGISTER_1);
            compare(list, EQUAL, &ETHERTYPE[1]);
            let (offset, length) = source(Ip::V6);
            payload(list, NETWORK_HEADER, offset, length, REGISTER_1);
            compare(list, EQUAL, &[0; 16]);
            icmp6_between(list, 130, 136);
        }
        Term::Connection(connection) => {
            const STATE: u32 = 0;
            const STATUS: u32 = 2;
            const INVALID: u32 = 1;
            const ESTABLISHED: u32 = 2;
            const RELATED: u32 = 4;
            const NEW: u32 = 8;
            const DESTINATION_TRANSLATED: u32 = 1 << 5;
            let (key, bits) = match connection {
                Connection::Established => (STATE, ESTABLISHED | RELATED),
                Connection::NewOrInvalid => (STATE, INVALID | NEW),
                Connection::Translated => (STATUS, DESTINATION_TRANSLATED),
            };
            expression(list, "ct", |ct| {
                ct.be32(1, REGISTER_1);
                ct.be32(2, key);
            });
            mask(list, bits);
            compare(list, NOT_EQUAL, &[0; 4]);
        }
        Term::Marked(Mark { value, mask: bits }) => {
            meta(list, META_MARK, REGISTER_1);
            if *bits != u32::MAX {
                mask(list, *bits);
            }
            compare(list, EQUAL, &value.to_ne_bytes());
        }
        Term::TranslateTarget(ip, map) => {
            only(list, *ip, family);
            target_protocol_port(list, *ip);
            lookup(list, map, Is::Yes, Some(REGISTER_1));
            translate(list, *ip);
        }
        Term::TranslatePort(ip, map) => {
            meta(list, META_L4PROTO, REGISTER_1);
            payload(list, TRANSPORT_HEADER, 2, 2, PART_1);
            lookup(list, map, Is::Yes, Some(REGISTER_1));
            translate(list, *ip);
        }
        Term::Masquerade => expression(list, "masq", |_| {}),
        Term::Accept => decide(list, ACCEPT, None),
        Term::Drop => decide(list, DROP, None),
        Term::Goto(chain) => decide(list, GOTO, Some(chain)),
    }
}

fn index(ip: Ip) -> usize {
    match ip {
        Ip::V4 => 0,
        Ip::V6 => 1,
    }
}

fn how(is: Is) -> u32 {
    match is {
        Is::Yes => EQUAL,
        Is::Not => NOT_EQUAL,
    }
}

/// Where addresses stand in a header, and their length.
fn source(ip: Ip) -> (u32, u32) {
    [(12, 4), (8, 16)][index(ip)]
}

fn target(ip: Ip) -> (u32, u32) {
    [(16, 4), (24, 16)][index(ip)]
}

fn only(list: &mut Attributes, ip: Ip, family: &mut Option<Ip>) {
    if *family == Some(ip) {
        return;
    }
    *family = Some(ip);
    meta(list, META_NFPROTO, REGISTER_1);
    compare(list, EQUAL, &[[FAMILY_IPV4, FAMILY_IPV6][index(ip)]]);
}

fn address(list: &mut Attributes, (offset, length): (u32, u32)) {
    payload(list, NETWORK_HEADER, offset, length, REGISTER_1);
}

fn target_protocol_port(list: &mut Attributes, ip: Ip) {
    address(list, target(ip));
    meta(list, META_L4PROTO, [PART_1, REGISTER_2][index(ip)]);
    payload(list, TRANSPORT_HEADER, 2, 2, [PART_2, PART_5][index(ip)]);
}

/// From whom to whom.
fn path(list: &mut Attributes, ip: Ip) {
    address(list, source(ip));
    let (offset, length) = target(ip);
    payload(list, NETWORK_HEADER, offset, length, [PART_1, REGISTER_2][index(ip)]);
}

/// The device a frame came by, whom it says it is from, and what it says at this place behind its header.
fn sender(list: &mut Attributes, offset: u32, length: u32) {
    meta(list, META_IIFNAME, REGISTER_1);
    payload(list, LINK_HEADER, 6, 6, REGISTER_2);
    payload(list, NETWORK_HEADER, offset, length, PART_6);
}

fn icmp6_between(list: &mut Attributes, first: u8, last: u8) {
    meta(list, META_L4PROTO, REGISTER_1);
    compare(list, EQUAL, &[ICMP[1]]);
    payload(list, TRANSPORT_HEADER, 0, 1, REGISTER_1);
    compare(list, AT_LEAST, &[first]);
    payload(list, TRANSPORT_HEADER, 0, 1, REGISTER_1);
    compare(list, AT_MOST, &[last]);
}

/// To the address in the first register, and the port behind it.
fn translate(list: &mut Attributes, ip: Ip) {
    const DESTINATION: u32 = 1;
    /// The kernel adds them by itself, and tells them.
    const ADDRESS_AND_PORT: u32 = 3;
    let port = [PART_1, REGISTER_2][index(ip)];
    expression(list, "nat", |nat| {
        nat.be32(1, DESTINATION);
        nat.be32(2, u32::from([FAMILY_IPV4, FAMILY_IPV6][index(ip)]));
        nat.be32(3, REGISTER_1);
        nat.be32(4, REGISTER_1);
        nat.be32(5, port);
        nat.be32(6, port);
        nat.be32(7, ADDRESS_AND_PORT);
    });
}

pub(super) fn expression(list: &mut Attributes, name: &str, data: impl FnOnce(&mut Attributes)) {
    list.nest(LIST_ITEM, |item| {
        item.text(1, name);
        item.nest(2, data);
    });
}

pub(super) fn accept(list: &mut Attributes) {
    decide(list, ACCEPT, None);
}

pub(super) fn jump(list: &mut Attributes, chain: &str) {
    decide(list, JUMP, Some(chain));
}

/// Counts from nothing.
pub(super) fn counter(list: &mut Attributes) {
    expression(list, "counter", |counter| {
        counter.bytes(1, &0u64.to_be_bytes());
        counter.bytes(2, &0u64.to_be_bytes());
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Input,
    Output,
}

/// One device's name coming in or going out.
pub(super) fn device_is(list: &mut Attributes, side: Side, device: &str) {
    let key = match side {
        Side::Input => META_IIFNAME,
        Side::Output => META_OIFNAME,
    };
    meta(list, key, REGISTER_1);
    // As long as the name and its NUL: so iptables-nft writes it, and understands it.
    let mut name = device.as_bytes().to_vec();
    name.push(0);
    compare(list, EQUAL, &name);
}

fn meta(list: &mut Attributes, key: u32, register: u32) {
    expression(list, "meta", |meta| {
        meta.be32(2, key);
        meta.be32(1, register);
    });
}

fn payload(list: &mut Attributes, base: u32, offset: u32, length: u32, register: u32) {
    expression(list, "payload", |payload| {
        payload.be32(1, register);
        payload.be32(2, base);
        payload.be32(3, offset);
        payload.be32(4, length);
    });
}

const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 2;
const FIB_INPUT: u32 = 8;
const FIB_PRESENT: u32 = 32;
const FIB_OUTPUT_DEVICE: u32 = 1;
const FIB_TYPE: u32 = 3;
const ROUTE_UNICAST: u32 = 1;
const ROUTE_LOCAL: u32 = 2;

/// Asks the routes.
fn fib(list: &mut Attributes, flags: u32, result: u32) {
    expression(list, "fib", |fib| {
        fib.be32(1, REGISTER_1);
        fib.be32(2, result);
        fib.be32(3, flags);
    });
}

fn mask(list: &mut Attributes, bits: u32) {
    mask_wide(list, &bits.to_ne_bytes());
}

fn mask_wide(list: &mut Attributes, bits: &[u8]) {
    expression(list, "bitwise", |bitwise| {
        bitwise.be32(1, REGISTER_1);
        bitwise.be32(2, REGISTER_1);
        bitwise.be32(3, bits.len() as u32);
        bitwise.be32(6, 0);
        bitwise.nest(4, |mask| mask.bytes(DATA_VALUE, bits));
        bitwise.nest(5, |xor| xor.bytes(DATA_VALUE, &vec![0; bits.len()]));
    });
}

fn compare(list: &mut Attributes, how: u32, value: &[u8]) {
    expression(list, "cmp", |cmp| {
        cmp.be32(1, REGISTER_1);
        cmp.be32(2, how);
        cmp.nest(3, |data| data.bytes(DATA_VALUE, value));
    });
}

fn lookup(list: &mut Attributes, set: &str, is: Is, into: Option<u32>) {
    const INVERTED: u32 = 1;
    expression(list, "lookup", |lookup| {
        lookup.text(1, set);
        lookup.be32(2, REGISTER_1);
        if let Some(register) = into {
            lookup.be32(3, register);
        }
        lookup.be32(5, if is == Is::Not { INVERTED } else { 0 });
    });
}

fn decide(list: &mut Attributes, code: i32, chain: Option<&str>) {
    expression(list, "immediate", |immediate| {
        immediate.be32(1, VERDICT_REGISTER);
        immediate.nest(2, |data| {
            data.nest(DATA_VERDICT, |verdict| {
                verdict.be32(1, code.cast_unsigned());
                if let Some(chain) = chain {
                    verdict.text(2, chain);
                }
            });
        });
    });
}
