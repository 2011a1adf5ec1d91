//! Doing it: a ruleset becomes one transaction of nf_tables, an element or two become a smaller one, and all is read back
//! for comparison.

use std::collections::{BTreeMap, BTreeSet};

use stdx::{Context, Error, Result};

use super::encode::{self, Shape};
use super::ruleset::{Chain, Element, Family, Filled, Ruleset, Set};
use crate::netlink::message::{APPEND, CREATE};
use crate::netlink::{Attributes, Batch, Reply, Socket, attribute, attributes};

pub(super) const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
pub(super) const NEW_TABLE: u16 = SUBSYSTEM;
pub(super) const GET_TABLE: u16 = SUBSYSTEM | 1;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
pub(super) const NEW_CHAIN: u16 = SUBSYSTEM | 3;
pub(super) const GET_CHAIN: u16 = SUBSYSTEM | 4;
pub(super) const NEW_RULE: u16 = SUBSYSTEM | 6;
pub(super) const GET_RULE: u16 = SUBSYSTEM | 7;
pub(super) const DELETE_RULE: u16 = SUBSYSTEM | 8;
const NEW_SET: u16 = SUBSYSTEM | 9;
const GET_SET: u16 = SUBSYSTEM | 10;
pub(super) const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
pub(super) const GET_ELEMENT: u16 = SUBSYSTEM | 13;
pub(super) const DELETE_ELEMENT: u16 = SUBSYSTEM | 14;

const GET_GENERATION: u16 = SUBSYSTEM | 16;
const GENERATION_ID: u16 = 1;
const BATCH_GENERATION: u16 = 1;
/// Something was changed since the generation that a transaction is about.
pub(super) const ERESTART: i32 = 85;
/// On a host where somebody changes rules all the time, ours have to come in some day.
pub(super) const MOST_RETRIES: usize = 32;

pub(super) const FAMILY_INET: u8 = 1;
const FAMILY_UNSPEC: u8 = 0;

pub(super) const TABLE_NAME: u16 = 1;
pub(super) const TABLE_FLAGS: u16 = 2;
const TABLE_OWNER: u16 = 7;
const FLAG_OWNER: u32 = 2;
const FLAG_PERSIST: u32 = 4;

pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
pub(super) const CHAIN_TYPE: u16 = 7;
pub(super) const HOOK_NUMBER: u16 = 1;
pub(super) const HOOK_PRIORITY: u16 = 2;
pub(super) const POLICY_ACCEPT: u32 = 1;

pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_HANDLE: u16 = 3;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_POSITION: u16 = 6;
pub(super) const RULE_USERDATA: u16 = 7;

const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_DESCRIPTION: u16 = 9;
const SET_ID: u16 = 10;
const SET_USERDATA: u16 = 13;
const DESCRIPTION_PARTS: u16 = 2;
const PART_LENGTH: u16 = 1;

const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS_LIST: u16 = 3;
pub(super) const LIST_ITEM: u16 = 1;
/// Elements in one message: an attribute is no longer than 64 KiB.
const TOGETHER: usize = 256;

pub(super) const ENOENT: i32 = 2;

/// What the kernel can promise about a table of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// Nobody else can change it, and it stays when its owner dies (Linux 6.9).
    Persistent,
    /// Nobody else can change it, and it goes with its owner (Linux 5.12).
    Owned,
    /// Everybody can do everything.
    Shared,
}

impl Ownership {
    fn flags(self) -> u32 {
        match self {
            Self::Persistent => FLAG_OWNER | FLAG_PERSIST,
            Self::Owned => FLAG_OWNER,
            Self::Shared => 0,
        }
    }

    /// Asks the kernel, with a table that is made and taken away in one transaction.
    pub(super) fn of_kernel(socket: &mut Socket) -> Result<Self> {
        let name = format!("gantry-probe-{}", socket.port()?);
        for ownership in [Self::Persistent, Self::Owned] {
            let replies = socket.exchange(transaction(|batch| {
                new_table(batch, Family::Inet, &name, ownership);
                batch.push(DELETE_TABLE, 0, &header(FAMILY_INET, 0), |message| {
                    message.text(TABLE_NAME, &name);
                });
            }))?;
            if replies.iter().all(|reply| reply.failure.is_none()) {
                return Ok(ownership);
            }
        }
        Ok(Self::Shared)
    }
}

/// Replaces the table by this one, all at once: a packet meets the old rules or the new, never half of them.
///
/// What is opened to somebody by an answer while we are at it is not lost: then all is read again.
pub(super) fn apply(socket: &mut Socket, ruleset: &Ruleset, ownership: Ownership) -> Result<()> {
    apply_after(socket, ruleset, ownership, || {})
}

/// As [`apply`], with something that happens each time between what is read and what is written.
pub(super) fn apply_after(
    socket: &mut Socket,
    ruleset: &Ruleset,
    ownership: Ownership,
    mut meanwhile: impl FnMut(),
) -> Result<()> {
    let failed = || format!("cannot set the firewall table {}", ruleset.table);
    for _ in 0..MOST_RETRIES {
        let generation = generation(socket)?;
        let Some(batch) = replacement(socket, ruleset, ownership, Some(generation))? else {
            return Ok(());
        };
        meanwhile();
        let replies = socket.exchange(batch)?;
        // It is refused as a whole, in its first message.
        if !replies.first().is_some_and(|reply| reply.is_refused_with(ERESTART)) {
            let mut replies = replies.into_iter();
            return replies.try_for_each(|reply| reply.ok().map(drop)).context(failed);
        }
    }
    match replacement(socket, ruleset, ownership, None)? {
        Some(batch) => socket.execute(batch).context(failed),
        None => Ok(()),
    }
}

/// The number that changes with whatever is changed in this network namespace's tables.
pub(super) fn generation(socket: &mut Socket) -> Result<u32> {
    let mut batch = Batch::new();
    batch.push(GET_GENERATION, 0, &header(FAMILY_UNSPEC, 0), |_| {});
    let objects = only(socket.exchange(batch)?).ok()?;
    let told = objects.first().and_then(|(_, body)| be32_of(body.get(4..)?, GENERATION_ID));
    told.ok_or_else(|| Error::internal("the kernel does not tell the generation of its firewall"))
}

/// What makes the table be this one; nothing where it is neither there nor wanted.
fn replacement(
    socket: &mut Socket,
    ruleset: &Ruleset,
    ownership: Ownership,
    generation: Option<u32>,
) -> Result<Option<Batch>> {
    let (family, name) = (ruleset.family, &ruleset.table);
    let at = header(encode::family(family), 0);
    let found = table(socket, family, name)?;
    if found.is_none() && ruleset.is_empty() {
        return Ok(None);
    }
    if let Some(found) = &found
        && let Some(owner) = found.owner
        && owner != socket.port()?
    {
        return Err(Error::conflict(format!(
            "the firewall table {name} belongs to another process: is another daemon with the same bridge running?"
        )));
    }
    // What was opened to somebody stays open to him.
    let answers = ruleset.sets.iter().filter(|set| set.filled == Filled::ByAnswers);
    let kept = match found {
        Some(_) => answers
            .map(|set| Ok((set.name, elements_of(socket, family, name, set.name)?)))
            .collect::<Result<Vec<_>>>()?,
        None => Vec::new(),
    };
    let batch = transaction_of(generation, |batch| {
        if found.is_some() {
            batch.push(DELETE_TABLE, 0, &at, |message| {
                message.text(TABLE_NAME, name);
            });
        }
        if ruleset.is_empty() {
            return;
        }
        new_table(batch, family, name, ownership);
        for chain in &ruleset.chains {
            add_chain(batch, family, name, chain);
        }
        for (index, set) in ruleset.sets.iter().enumerate() {
            add_set(batch, family, name, set, index as u32 + 1);
            let elements = set.elements.keys().flat_map(encode::element).collect();
            change_elements(batch, NEW_ELEMENT, (family, name, set.name), elements);
        }
        for (set, elements) in kept {
            change_elements(batch, NEW_ELEMENT, (family, name, set), elements);
        }
        for chain in &ruleset.chains {
            for rule in &chain.rules {
                batch.push(NEW_RULE, CREATE | APPEND, &at, |message| {
                    message.text(RULE_TABLE, name);
                    message.text(RULE_CHAIN, chain.name);
                    message.nest(RULE_EXPRESSIONS, |list| encode::expressions(list, rule));
                });
            }
        }
    });
    Ok(Some(batch))
}

/// Elements that go and come, by the name of their set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) gone: Vec<(&'static str, Element)>,
    pub(super) new: Vec<(&'static str, Element)>,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.new.is_empty()
    }
}

/// Changes elements of a table that is there, all at once. Costs what the change costs, however large the table is.
pub(super) fn change(
    socket: &mut Socket,
    family: Family,
    table: &str,
    change: &Change,
) -> Result<()> {
    socket.execute(transaction(|batch| {
        for (kind, elements) in [(DELETE_ELEMENT, &change.gone), (NEW_ELEMENT, &change.new)] {
            // Few messages: each is acknowledged, and there is only so much room for answers that nobody reads yet.
            let mut by_set: BTreeMap<&str, Vec<&Element>> = BTreeMap::new();
            for (set, element) in elements {
                by_set.entry(set).or_default().push(element);
            }
            for (set, elements) in by_set {
                let elements = elements.into_iter().flat_map(encode::element).collect();
                change_elements(batch, kind, (family, table, set), elements);
            }
        }
    }))
}

/// Wraps messages in the beginning and the end that make them one transaction.
pub(super) fn transaction(fill: impl FnOnce(&mut Batch)) -> Batch {
    transaction_of(None, fill)
}

/// The same, refused by the kernel when anything was changed since this generation.
pub(super) fn transaction_of(generation: Option<u32>, fill: impl FnOnce(&mut Batch)) -> Batch {
    let mut batch = Batch::new();
    batch.push_silent(BATCH_BEGIN, 0, &header(FAMILY_UNSPEC, SUBSYSTEM >> 8), |message| {
        if let Some(generation) = generation {
            message.be32(BATCH_GENERATION, generation);
        }
    });
    fill(&mut batch);
    batch.push_silent(BATCH_END, 0, &header(FAMILY_UNSPEC, SUBSYSTEM >> 8), |_| {});
    batch
}

/// `struct nfgenmsg`
pub(super) fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn new_table(batch: &mut Batch, family: Family, name: &str, ownership: Ownership) {
    batch.push_silent(NEW_TABLE, CREATE, &header(encode::family(family), 0), |message| {
        message.text(TABLE_NAME, name);
        message.be32(TABLE_FLAGS, ownership.flags());
    });
}

fn add_chain(batch: &mut Batch, family: Family, table: &str, chain: &Chain) {
    batch.push_silent(NEW_CHAIN, CREATE, &header(encode::family(family), 0), |message| {
        message.text(CHAIN_TABLE, table);
        message.text(CHAIN_NAME, chain.name);
        let Some(hook) = chain.hook else { return };
        let (kind, number, priority) = encode::hook(hook);
        message.nest(CHAIN_HOOK, |hook| {
            hook.be32(HOOK_NUMBER, number);
            hook.be32(HOOK_PRIORITY, priority.cast_unsigned());
        });
        message.be32(CHAIN_POLICY, POLICY_ACCEPT);
        message.text(CHAIN_TYPE, kind);
    });
}

fn add_set(batch: &mut Batch, family: Family, table: &str, set: &Set, id: u32) {
    let shape = Shape::of(set);
    batch.push_silent(NEW_SET, CREATE, &header(encode::family(family), 0), |message| {
        message.text(SET_TABLE, table);
        message.text(SET_NAME, set.name);
        message.be32(SET_FLAGS, shape.flags);
        message.be32(SET_KEY_TYPE, shape.key_type);
        message.be32(SET_KEY_LENGTH, shape.key_length);
        if set.is_map() {
            message.be32(SET_DATA_TYPE, shape.data_type);
            message.be32(SET_DATA_LENGTH, shape.data_length);
        }
        if !shape.parts.is_empty() {
            message.nest(SET_DESCRIPTION, |description| {
                description.nest(DESCRIPTION_PARTS, |parts| {
                    for part in &shape.parts {
                        parts.nest(LIST_ITEM, |one| one.be32(PART_LENGTH, *part));
                    }
                });
            });
        }
        message.be32(SET_ID, id);
        if !shape.note.is_empty() {
            message.bytes(SET_USERDATA, shape.note);
        }
    });
}

/// Adds or takes away elements, each as its attributes, of the set at a place.
fn change_elements(
    batch: &mut Batch,
    kind: u16,
    (family, table, set): (Family, &str, &str),
    items: Vec<Vec<u8>>,
) {
    for items in items.chunks(TOGETHER) {
        batch.push(kind, CREATE, &header(encode::family(family), 0), |message| {
            list_elements(message, table, set, items);
        });
    }
}

/// Names elements of a set, each by its attributes.
pub(super) fn list_elements(message: &mut Attributes, table: &str, set: &str, items: &[Vec<u8>]) {
    message.text(ELEMENTS_TABLE, table);
    message.text(ELEMENTS_SET, set);
    message.nest(ELEMENTS_LIST, |list| {
        items.iter().for_each(|item| list.nest(LIST_ITEM, |element| element.raw(item)));
    });
}

/// The elements of a set, each as its attributes; none where there is no such set.
pub(super) fn elements_of(
    socket: &mut Socket,
    family: Family,
    table: &str,
    set: &str,
) -> Result<Vec<Vec<u8>>> {
    let answer = dump(socket, family, GET_ELEMENT, |message| {
        message.text(ELEMENTS_TABLE, table);
        message.text(ELEMENTS_SET, set);
    })?;
    Ok(elements_in(answer.iter().map(Vec::as_slice)))
}

/// The elements that messages tell of.
pub(super) fn elements_in<'a>(bodies: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let lists = bodies.filter_map(|body| attribute(body, ELEMENTS_LIST));
    lists.flat_map(attributes).map(|(_, element)| element.to_vec()).collect()
}

pub(super) struct Table {
    flags: u32,
    /// The socket that it belongs to, while that is open.
    owner: Option<u32>,
}

/// The table of this name; `None` when there is none.
pub(super) fn table(socket: &mut Socket, family: Family, name: &str) -> Result<Option<Table>> {
    let mut batch = Batch::new();
    let at = header(encode::family(family), 0);
    batch.push(GET_TABLE, 0, &at, |message| message.text(TABLE_NAME, name));
    let objects = only(socket.exchange(batch)?).ok_or(&[ENOENT])?;
    Ok(objects.first().map(|(_, body)| Table {
        flags: be32_of(&body[4..], TABLE_FLAGS).unwrap_or(0),
        owner: be32_of(&body[4..], TABLE_OWNER),
    }))
}

/// How the kernel's table differs from what it should be, in words; nothing when it does not.
pub(super) fn difference(
    socket: &mut Socket,
    ruleset: &Ruleset,
    ownership: Ownership,
) -> Result<Vec<String>> {
    let mut differences = Vec::new();
    let (family, name) = (ruleset.family, &ruleset.table);
    let Some(found) = table(socket, family, name)? else {
        if !ruleset.is_empty() {
            differences.push("the table is missing".to_owned());
        }
        return Ok(differences);
    };
    if ruleset.is_empty() {
        differences.push("there is nothing to say, and yet a table".to_owned());
        return Ok(differences);
    }
    let owner = (ownership != Ownership::Shared).then_some(socket.port()?);
    if (found.flags, found.owner) != (ownership.flags(), owner) {
        differences.push("the table is not held by us".to_owned());
    }
    let named = |kind| move |message: &mut Attributes| message.text(kind, name);
    let chains = dump(socket, family, GET_CHAIN, |_| {})?;
    let rules = dump(socket, family, GET_RULE, named(RULE_TABLE))?;
    let sets = dump(socket, family, GET_SET, named(SET_TABLE))?;

    let chains: BTreeSet<(String, Option<(u32, i32)>)> = chains
        .iter()
        .filter(|chain| text_of(chain, CHAIN_TABLE) == *name)
        .map(|chain| (text_of(chain, CHAIN_NAME), attribute(chain, CHAIN_HOOK).and_then(hook_of)))
        .collect();
    let wanted: BTreeSet<(String, Option<(u32, i32)>)> = ruleset
        .chains
        .iter()
        .map(|chain| {
            let hook = chain.hook.map(encode::hook);
            (chain.name.to_owned(), hook.map(|(_, number, priority)| (number, priority)))
        })
        .collect();
    differences
        .extend(wanted.difference(&chains).map(|(name, _)| format!("chain {name} is missing")));
    differences
        .extend(chains.difference(&wanted).map(|(name, _)| format!("chain {name} is not ours")));

    for chain in &ruleset.chains {
        let found = rules
            .iter()
            .filter(|rule| text_of(rule, RULE_CHAIN) == chain.name)
            .map(|rule| attribute(rule, RULE_EXPRESSIONS).unwrap_or_default());
        let wanted = chain.rules.iter().map(|rule| {
            let mut list = Attributes::new();
            encode::expressions(&mut list, rule);
            list.into_bytes()
        });
        if !found.eq(wanted) {
            differences.push(format!("the rules of chain {} were changed", chain.name));
        }
    }

    let found: BTreeSet<String> = sets.iter().map(|set| text_of(set, SET_NAME)).collect();
    for set in &ruleset.sets {
        if !found.contains(set.name) {
            differences.push(format!("set {} is missing", set.name));
            continue;
        }
        if set.filled == Filled::ByAnswers {
            continue;
        }
        let found: BTreeSet<Vec<u8>> =
            elements_of(socket, family, name, set.name)?.into_iter().collect();
        if found != set.elements.keys().flat_map(encode::element).collect() {
            differences.push(format!("the elements of set {} were changed", set.name));
        }
    }
    Ok(differences)
}

/// All objects of a kind, without their header; none where the table is gone.
fn dump(
    socket: &mut Socket,
    family: Family,
    kind: u16,
    which: impl FnOnce(&mut Attributes),
) -> Result<Vec<Vec<u8>>> {
    let mut batch = Batch::new();
    batch.push_dump(kind, &header(encode::family(family), 0), which);
    let objects = only(socket.exchange(batch)?).ok_or(&[ENOENT])?;
    Ok(objects.into_iter().map(|(_, body)| body.get(4..).unwrap_or_default().to_vec()).collect())
}

pub(super) fn only(replies: Vec<Reply>) -> Reply {
    replies.into_iter().next().expect("one message, one reply")
}

/// Whether a chain judges what the host forwards.
pub(super) fn is_forward_hook(chain: &[u8]) -> bool {
    const FORWARD: u32 = 2;
    let hook = attribute(chain, CHAIN_HOOK).and_then(hook_of);
    hook.is_some_and(|(number, _)| number == FORWARD)
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
