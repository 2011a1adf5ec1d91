//! Doing it: a ruleset becomes one transaction of nf_tables, and is read back for comparison.
//!
//! Attributes are written in the order in which the kernel gives them back, so that "is it still there?" is a comparison
//! of bytes.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use stdx::{Context, Result};

use super::rules::{Chain, Elements, Hook, Rule, Ruleset, Set, Term};
use crate::netlink::message::{APPEND, CREATE};
use crate::netlink::{Attributes, Batch, Socket, attribute, attributes};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
pub(super) const GET_CHAIN: u16 = SUBSYSTEM | 4;
pub(super) const NEW_RULE: u16 = SUBSYSTEM | 6;
pub(super) const GET_RULE: u16 = SUBSYSTEM | 7;
pub(super) const DELETE_RULE: u16 = SUBSYSTEM | 8;
const NEW_SET: u16 = SUBSYSTEM | 9;
const GET_SET: u16 = SUBSYSTEM | 10;
const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
const GET_ELEMENT: u16 = SUBSYSTEM | 13;

pub(super) const FAMILY_INET: u8 = 1;
pub(super) const FAMILY_IPV4: u8 = 2;
const FAMILY_UNSPEC: u8 = 0;

const TABLE_NAME: u16 = 1;

pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_FORWARD: u32 = 2;
const HOOK_POSTROUTING: u32 = 4;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SRCNAT: i32 = 100;

pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_HANDLE: u16 = 3;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_USERDATA: u16 = 7;

const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_ID: u16 = 10;
const SET_USERDATA: u16 = 13;
/// A note for nft(8), which otherwise prints a device's name as nothing: type, length, value.
const KEY_IN_HOST_ORDER: [u8; 6] = [0, 4, 1, 0, 0, 0];
const INTERVAL: u32 = 4;
const MAP: u32 = 8;
const DATA_TYPE_VERDICT: u32 = 0xffff_ff00;
/// Types as nft(8) numbers them; the kernel keeps them for it.
const TYPE_IPV4: u32 = 7;
const TYPE_IFNAME: u32 = 41;
const TYPE_BITS: u32 = 6;

const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS_LIST: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_FLAGS: u16 = 3;
const INTERVAL_END: u32 = 1;

const LIST_ITEM: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const VERDICT_REGISTER: u32 = 0;
const REGISTER_1: u32 = 1;
const REGISTER_2: u32 = 2;

const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;

const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const CT_STATE: u32 = 0;
const CT_ESTABLISHED_RELATED: u32 = 2 | 4;
const NETWORK_HEADER: u32 = 1;
const IPV4_SOURCE: (u32, u32) = (12, 4);

const IFNAMSIZ: usize = 16;
const ENOENT: i32 = 2;

/// Replaces the table by this one, all at once: a packet meets the old rules or the new, never half of them.
pub(super) fn apply(socket: &mut Socket, ruleset: &Ruleset) -> Result<()> {
    socket
        .execute(transaction(|batch| {
            let table = |message: &mut Attributes| message.text(TABLE_NAME, &ruleset.table);
            // Made first, so that deleting it cannot fail.
            batch.push_silent(NEW_TABLE, CREATE, &header(FAMILY_INET, 0), table);
            batch.push(DELETE_TABLE, 0, &header(FAMILY_INET, 0), table);
            if ruleset.is_empty() {
                return;
            }
            batch.push_silent(NEW_TABLE, CREATE, &header(FAMILY_INET, 0), table);
            for chain in &ruleset.chains {
                add_chain(batch, &ruleset.table, chain);
            }
            for (index, set) in ruleset.sets.iter().enumerate() {
                add_set(batch, &ruleset.table, set, index as u32 + 1);
            }
            for chain in &ruleset.chains {
                for rule in &chain.rules {
                    batch.push(NEW_RULE, CREATE | APPEND, &header(FAMILY_INET, 0), |message| {
                        message.text(RULE_TABLE, &ruleset.table);
                        message.text(RULE_CHAIN, &chain.name);
                        message.nest(RULE_EXPRESSIONS, |list| expressions(list, rule));
                    });
                }
            }
        }))
        .context(|| format!("cannot set the firewall table {}", ruleset.table))
}

/// Wraps messages in the beginning and the end that make them one transaction.
pub(super) fn transaction(fill: impl FnOnce(&mut Batch)) -> Batch {
    let mut batch = Batch::new();
    batch.push_silent(BATCH_BEGIN, 0, &header(FAMILY_UNSPEC, SUBSYSTEM >> 8), |_| {});
    fill(&mut batch);
    batch.push_silent(BATCH_END, 0, &header(FAMILY_UNSPEC, SUBSYSTEM >> 8), |_| {});
    batch
}

/// `struct nfgenmsg`
pub(super) fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn add_chain(batch: &mut Batch, table: &str, chain: &Chain) {
    batch.push_silent(NEW_CHAIN, CREATE, &header(FAMILY_INET, 0), |message| {
        message.text(CHAIN_TABLE, table);
        message.text(CHAIN_NAME, &chain.name);
        let Some(hook) = chain.hook else { return };
        let (kind, number, priority) = hook_words(hook);
        message.nest(CHAIN_HOOK, |hook| {
            hook.be32(HOOK_NUMBER, number);
            hook.be32(HOOK_PRIORITY, priority.cast_unsigned());
        });
        message.be32(CHAIN_POLICY, ACCEPT.cast_unsigned());
        message.text(CHAIN_TYPE, kind);
    });
}

fn hook_words(hook: Hook) -> (&'static str, u32, i32) {
    match hook {
        Hook::Forward => ("filter", HOOK_FORWARD, PRIORITY_FILTER),
        Hook::PostroutingNat => ("nat", HOOK_POSTROUTING, PRIORITY_SRCNAT),
    }
}

fn add_set(batch: &mut Batch, table: &str, set: &Set, id: u32) {
    let (flags, key_type, key_length) = match &set.elements {
        Elements::Devices(_) => (0, TYPE_IFNAME, IFNAMSIZ),
        Elements::DevicePairs(_) => (0, TYPE_IFNAME << TYPE_BITS | TYPE_IFNAME, 2 * IFNAMSIZ),
        Elements::Subnets(_) => (INTERVAL | MAP, TYPE_IPV4, 4),
    };
    batch.push_silent(NEW_SET, CREATE, &header(FAMILY_INET, 0), |message| {
        message.text(SET_TABLE, table);
        message.text(SET_NAME, set.name);
        message.be32(SET_FLAGS, flags);
        message.be32(SET_KEY_TYPE, key_type);
        message.be32(SET_KEY_LENGTH, key_length as u32);
        if flags & MAP != 0 {
            message.be32(SET_DATA_TYPE, DATA_TYPE_VERDICT);
            message.be32(SET_DATA_LENGTH, 0);
        }
        message.be32(SET_ID, id);
        if matches!(set.elements, Elements::Devices(_)) {
            message.bytes(SET_USERDATA, &KEY_IN_HOST_ORDER);
        }
    });
    let elements = elements(&set.elements);
    if elements.is_empty() {
        return;
    }
    batch.push_silent(NEW_ELEMENT, CREATE, &header(FAMILY_INET, 0), |message| {
        message.text(ELEMENTS_TABLE, table);
        message.text(ELEMENTS_SET, set.name);
        message.nest(ELEMENTS_LIST, |list| {
            for element in &elements {
                list.nest(LIST_ITEM, |item| item.raw(element));
            }
        });
    });
}

/// Each element's attributes, ready to be sent and to be compared.
fn elements(elements: &Elements) -> Vec<Vec<u8>> {
    let item = |key: &[u8], flags: u32, jump: Option<&str>| {
        let mut item = Attributes::new();
        item.nest(ELEMENT_KEY, |data| data.bytes(DATA_VALUE, key));
        if let Some(chain) = jump {
            item.nest(ELEMENT_DATA, |data| verdict(data, JUMP, Some(chain)));
        }
        if flags != 0 {
            item.be32(ELEMENT_FLAGS, flags);
        }
        item.into_bytes()
    };
    match elements {
        Elements::Devices(devices) => {
            devices.iter().map(|device| item(&device_name(device), 0, None)).collect()
        }
        Elements::DevicePairs(pairs) => pairs
            .iter()
            .map(|(input, output)| {
                item(&[device_name(input), device_name(output)].concat(), 0, None)
            })
            .collect(),
        Elements::Subnets(subnets) => subnets
            .iter()
            .flat_map(|(subnet, chain)| {
                let end = u32::from(subnet.broadcast()).checked_add(1).map(Ipv4Addr::from);
                let start = item(&subnet.network().octets(), 0, Some(chain));
                std::iter::once(start).chain(end.map(|end| item(&end.octets(), INTERVAL_END, None)))
            })
            .collect(),
    }
}

fn device_name(device: &str) -> [u8; IFNAMSIZ] {
    let mut name = [0; IFNAMSIZ];
    let length = device.len().min(IFNAMSIZ - 1);
    name[..length].copy_from_slice(&device.as_bytes()[..length]);
    name
}

fn expressions(list: &mut Attributes, rule: &Rule) {
    for term in &rule.0 {
        match term {
            Term::InputIn(set) => {
                meta(list, META_IIFNAME, REGISTER_1);
                lookup(list, set, None);
            }
            Term::OutputIn(set) => {
                meta(list, META_OIFNAME, REGISTER_1);
                lookup(list, set, None);
            }
            Term::OutputIsNot(device) => {
                meta(list, META_OIFNAME, REGISTER_1);
                compare(list, NOT_EQUAL, &device_name(device));
            }
            Term::PairIn(set) => {
                meta(list, META_IIFNAME, REGISTER_1);
                meta(list, META_OIFNAME, REGISTER_2);
                lookup(list, set, None);
            }
            Term::Established => {
                expression(list, "ct", |ct| {
                    ct.be32(1, REGISTER_1);
                    ct.be32(2, CT_STATE);
                });
                expression(list, "bitwise", |bits| {
                    bits.be32(1, REGISTER_1);
                    bits.be32(2, REGISTER_1);
                    bits.be32(3, 4);
                    bits.be32(6, 0);
                    bits.nest(4, |mask| mask.u32(DATA_VALUE, CT_ESTABLISHED_RELATED));
                    bits.nest(5, |xor| xor.u32(DATA_VALUE, 0));
                });
                compare(list, NOT_EQUAL, &[0; 4]);
            }
            Term::SourceMap(map) => {
                meta(list, META_NFPROTO, REGISTER_1);
                compare(list, EQUAL, &[FAMILY_IPV4]);
                expression(list, "payload", |payload| {
                    payload.be32(1, REGISTER_1);
                    payload.be32(2, NETWORK_HEADER);
                    payload.be32(3, IPV4_SOURCE.0);
                    payload.be32(4, IPV4_SOURCE.1);
                });
                lookup(list, map, Some(VERDICT_REGISTER));
            }
            Term::Masquerade => expression(list, "masq", |_| {}),
            Term::Accept => decide(list, ACCEPT, None),
            Term::Drop => decide(list, DROP, None),
            Term::Goto(chain) => decide(list, GOTO, Some(chain)),
        }
    }
}

pub(super) fn expression(list: &mut Attributes, name: &str, data: impl FnOnce(&mut Attributes)) {
    list.nest(LIST_ITEM, |item| {
        item.text(EXPRESSION_NAME, name);
        item.nest(EXPRESSION_DATA, data);
    });
}

pub(super) fn accept(list: &mut Attributes) {
    decide(list, ACCEPT, None);
}

/// One device's name coming in or going out.
pub(super) fn device_is(list: &mut Attributes, side: Side, device: &str) {
    meta(
        list,
        match side {
            Side::Input => META_IIFNAME,
            Side::Output => META_OIFNAME,
        },
        REGISTER_1,
    );
    // As long as the name and its NUL: so iptables-nft writes it, and understands it.
    let mut name = device.as_bytes().to_vec();
    name.push(0);
    compare(list, EQUAL, &name);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Input,
    Output,
}

fn meta(list: &mut Attributes, key: u32, register: u32) {
    expression(list, "meta", |meta| {
        meta.be32(2, key);
        meta.be32(1, register);
    });
}

fn compare(list: &mut Attributes, how: u32, value: &[u8]) {
    expression(list, "cmp", |cmp| {
        cmp.be32(1, REGISTER_1);
        cmp.be32(2, how);
        cmp.nest(3, |data| data.bytes(DATA_VALUE, value));
    });
}

fn lookup(list: &mut Attributes, set: &str, into: Option<u32>) {
    expression(list, "lookup", |lookup| {
        lookup.text(1, set);
        lookup.be32(2, REGISTER_1);
        if let Some(register) = into {
            lookup.be32(3, register);
        }
        lookup.be32(5, 0);
    });
}

fn decide(list: &mut Attributes, code: i32, chain: Option<&str>) {
    expression(list, "immediate", |immediate| {
        immediate.be32(1, VERDICT_REGISTER);
        immediate.nest(2, |data| verdict(data, code, chain));
    });
}

fn verdict(data: &mut Attributes, code: i32, chain: Option<&str>) {
    data.nest(DATA_VERDICT, |verdict| {
        verdict.be32(VERDICT_CODE, code.cast_unsigned());
        if let Some(chain) = chain {
            verdict.text(VERDICT_CHAIN, chain);
        }
    });
}

/// How the kernel's table differs from what it should be, in words; nothing when it does not.
pub(super) fn difference(socket: &mut Socket, ruleset: &Ruleset) -> Result<Vec<String>> {
    let mut differences = Vec::new();
    let table = &ruleset.table;

    let mut batch = Batch::new();
    batch.push_dump(GET_CHAIN, &header(FAMILY_INET, 0), |_| {});
    batch.push_dump(GET_RULE, &header(FAMILY_INET, 0), |message| message.text(RULE_TABLE, table));
    batch.push_dump(GET_SET, &header(FAMILY_INET, 0), |message| message.text(SET_TABLE, table));
    // One question at a time: a socket has room for one dump.
    let mut answers = Vec::new();
    for question in batch.split() {
        let reply = socket.exchange(question)?.into_iter().next().expect("one message, one reply");
        answers.push(reply.ok_or(&[ENOENT])?);
    }
    let [chains, rules, sets] = &answers[..] else { unreachable!("three questions") };

    let chains: BTreeSet<(String, Option<(u32, i32)>)> = chains
        .iter()
        .map(|(_, body)| &body[4..])
        .filter(|chain| text_of(chain, CHAIN_TABLE) == *table)
        .map(|chain| (text_of(chain, CHAIN_NAME), attribute(chain, CHAIN_HOOK).and_then(hook_of)))
        .collect();
    let wanted: BTreeSet<(String, Option<(u32, i32)>)> = ruleset
        .chains
        .iter()
        .map(|chain| {
            (
                chain.name.clone(),
                chain.hook.map(hook_words).map(|(_, number, priority)| (number, priority)),
            )
        })
        .collect();
    differences
        .extend(wanted.difference(&chains).map(|(name, _)| format!("chain {name} is missing")));
    differences
        .extend(chains.difference(&wanted).map(|(name, _)| format!("chain {name} is not ours")));

    for chain in &ruleset.chains {
        let found = rules
            .iter()
            .map(|(_, body)| &body[4..])
            .filter(|rule| text_of(rule, RULE_CHAIN) == chain.name)
            .map(|rule| attribute(rule, RULE_EXPRESSIONS).unwrap_or_default());
        let wanted = chain.rules.iter().map(|rule| {
            let mut list = Attributes::new();
            expressions(&mut list, rule);
            list.into_bytes()
        });
        if !found.eq(wanted) {
            differences.push(format!("the rules of chain {} were changed", chain.name));
        }
    }

    let found: BTreeSet<String> =
        sets.iter().map(|(_, body)| text_of(&body[4..], SET_NAME)).collect();
    for set in &ruleset.sets {
        if !found.contains(set.name) {
            differences.push(format!("set {} is missing", set.name));
            continue;
        }
        let mut batch = Batch::new();
        batch.push_dump(GET_ELEMENT, &header(FAMILY_INET, 0), |message| {
            message.text(ELEMENTS_TABLE, table);
            message.text(ELEMENTS_SET, set.name);
        });
        let reply = socket.exchange(batch)?.into_iter().next().expect("one message, one reply");
        let answer = reply.ok_or(&[ENOENT])?;
        let found: BTreeSet<&[u8]> = answer
            .iter()
            .filter_map(|(_, body)| attribute(&body[4..], ELEMENTS_LIST))
            .flat_map(attributes)
            .map(|(_, element)| element)
            .collect();
        let wanted = elements(&set.elements);
        if found != wanted.iter().map(Vec::as_slice).collect() {
            differences.push(format!("the elements of set {} were changed", set.name));
        }
    }
    Ok(differences)
}

fn hook_of(hook: &[u8]) -> Option<(u32, i32)> {
    Some((be32_of(hook, HOOK_NUMBER)?, be32_of(hook, HOOK_PRIORITY)?.cast_signed()))
}

pub(super) fn be32_of(bytes: &[u8], kind: u16) -> Option<u32> {
    attribute(bytes, kind)?.try_into().ok().map(u32::from_be_bytes)
}

pub(super) fn text_of(bytes: &[u8], kind: u16) -> String {
    attribute(bytes, kind).map(crate::netlink::message::text).unwrap_or_default()
}
