//! The chain that is the operator's: `DOCKER-USER`, in iptables' own table, asked first of all that is forwarded. We see to
//! it that it is there and that the way leads through it. What it says is its owner's: nothing here writes into it.

use std::collections::BTreeSet;

use stdx::{Context, Error, Result};

use super::encode::{FAMILY_IPV4, FAMILY_IPV6, counter, jump};
use super::foreign::{CHAIN as FORWARD, TABLE, Verdict, rules};
use super::nft::{
    CHAIN_HOOK, CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, CHAIN_TYPE, DELETE_RULE, ENOENT, ERESTART,
    GET_CHAIN, GET_TABLE, HOOK_NUMBER, HOOK_PRIORITY, MOST_RETRIES, NEW_CHAIN, NEW_RULE, NEW_TABLE,
    POLICY_ACCEPT, RULE_CHAIN, RULE_EXPRESSIONS, RULE_HANDLE, RULE_TABLE, TABLE_FLAGS, TABLE_NAME,
    generation, header, is_forward_hook, transaction_of,
};
use super::view::{Choices, Rules};
use crate::doctor::{Refusals, legacy_filters};
use crate::netlink::message::CREATE;
use crate::netlink::{Batch, Socket};

pub(super) const CHAIN: &str = "DOCKER-USER";
/// Where nft(8) has what it calls the forward hook, and the priority it calls `filter`.
const FORWARD_HOOK: u32 = 2;
const FILTER: u32 = 0;

/// What became of the chain in each family.
#[derive(Debug, Default)]
pub(super) struct UserChain {
    /// It was put in front of what was there when this daemon began.
    placed: bool,
    /// Why it cannot be had, as it was said.
    refused: Vec<(u8, String)>,
}

/// Where the way into the chain has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before everything else, as Docker has it when it starts.
    First,
    /// Where it is: what somebody puts above it later, he means to be above it.
    Anywhere,
}

/// What there is of it.
#[derive(Debug, Default)]
struct Found {
    table: bool,
    chain: bool,
    /// The chain that begins the way.
    forward: Option<Forward>,
}

#[derive(Debug, Default)]
struct Forward {
    hooked: bool,
    /// Rules that send everything to the chain.
    jumps: Vec<u64>,
    /// The first of all rules is one of them.
    first: bool,
}

impl UserChain {
    /// Makes the chain be there, and asked, for the families whose rules are ours. A host that cannot have it is told why,
    /// once.
    pub(super) fn ensure(&mut self, socket: &mut Socket, choices: &Choices) {
        // `foreign` says so.
        if legacy_filters() {
            return;
        }
        let place = if self.placed { Place::Anywhere } else { Place::First };
        self.placed = true;
        for family in families(choices) {
            let failure = mend(socket, family, place).err().map(|err| err.chain());
            let before = self.refused.iter().position(|(of, _)| *of == family);
            let before = before.map(|index| self.refused.swap_remove(index).1);
            let Some(failure) = failure else { continue };
            if before.as_ref() != Some(&failure) {
                tracing::warn!(table = %name(family), err = %failure, "there is no chain {CHAIN}");
            }
            self.refused.push((family, failure));
        }
    }

    /// What is missing, of what could be had.
    pub(super) fn difference(&self, socket: &mut Socket, choices: &Choices) -> Result<Vec<String>> {
        let mut differences = Vec::new();
        if !self.placed || legacy_filters() {
            return Ok(differences);
        }
        for family in families(choices) {
            if self.refused.iter().any(|(refused, _)| *refused == family) {
                continue;
            }
            let found = look(socket, family)?;
            let asked = found.forward.is_some_and(|forward| !forward.jumps.is_empty());
            if !found.chain {
                differences.push(format!("chain {CHAIN} of table {} is missing", name(family)));
            } else if !asked {
                differences.push(format!(
                    "chain {FORWARD} of table {} does not lead to {CHAIN}",
                    name(family)
                ));
            }
        }
        Ok(differences)
    }
}

fn families(choices: &Choices) -> impl Iterator<Item = u8> + use<> {
    let families = [(choices.ipv4, FAMILY_IPV4), (choices.ipv6, FAMILY_IPV6)];
    families.into_iter().filter(|(rules, _)| *rules == Rules::Ours).map(|(_, family)| family)
}

/// As nft(8) calls the table of a family.
fn name(family: u8) -> String {
    format!("{} {TABLE}", if family == FAMILY_IPV6 { "ip6" } else { "ip" })
}

/// Makes what is missing, in one transaction that others' do not come between.
fn mend(socket: &mut Socket, family: u8, place: Place) -> Result<()> {
    for _ in 0..MOST_RETRIES {
        let seen = generation(socket)?;
        let found = look(socket, family)?;
        if found.forward.as_ref().is_some_and(|forward| !forward.hooked) {
            return Err(Error::conflict(format!(
                "its chain {FORWARD} is not asked of what is forwarded"
            )));
        }
        let Some(batch) = what_is_missing(&found, family, place, seen) else { return Ok(()) };
        let replies = socket.exchange(batch)?;
        if !replies.iter().any(|reply| reply.is_refused_with(ERESTART)) {
            let failed = || format!("cannot make the chain {CHAIN}");
            return replies.into_iter().try_for_each(|reply| reply.ok().map(drop)).context(failed);
        }
    }
    Err(Error::internal("others change the firewall all the time"))
}

fn what_is_missing(found: &Found, family: u8, place: Place, seen: u32) -> Option<Batch> {
    let at = header(family, 0);
    let (jumps, first) =
        found.forward.as_ref().map_or((&[][..], false), |forward| (&forward.jumps, forward.first));
    // More than one is what two who came at the same time have made.
    let (new, stale) = match (jumps, place) {
        ([], _) => (true, jumps),
        (_, Place::First) if !first => (true, jumps),
        (jumps, _) => (false, &jumps[1..]),
    };
    if found.table && found.chain && !new && stale.is_empty() {
        return None;
    }
    Some(transaction_of(Some(seen), |batch| {
        if !found.table {
            batch.push(NEW_TABLE, CREATE, &at, |message| {
                message.text(TABLE_NAME, TABLE);
                message.be32(TABLE_FLAGS, 0);
            });
        }
        if !found.chain {
            batch.push(NEW_CHAIN, CREATE, &at, |message| {
                message.text(CHAIN_TABLE, TABLE);
                message.text(CHAIN_NAME, CHAIN);
            });
        }
        if found.forward.is_none() {
            batch.push(NEW_CHAIN, CREATE, &at, |message| {
                message.text(CHAIN_TABLE, TABLE);
                message.text(CHAIN_NAME, FORWARD);
                message.nest(CHAIN_HOOK, |hook| {
                    hook.be32(HOOK_NUMBER, FORWARD_HOOK);
                    hook.be32(HOOK_PRIORITY, FILTER);
                });
                message.be32(CHAIN_POLICY, POLICY_ACCEPT);
                message.text(CHAIN_TYPE, "filter");
            });
        }
        for handle in stale {
            batch.push(DELETE_RULE, 0, &at, |message| {
                message.text(RULE_TABLE, TABLE);
                message.text(RULE_CHAIN, FORWARD);
                message.bytes(RULE_HANDLE, &handle.to_be_bytes());
            });
        }
        if new {
            // Without a position, and not at the end: at the beginning.
            batch.push(NEW_RULE, CREATE, &at, |message| {
                message.text(RULE_TABLE, TABLE);
                message.text(RULE_CHAIN, FORWARD);
                message.nest(RULE_EXPRESSIONS, |list| {
                    counter(list);
                    jump(list, CHAIN);
                });
            });
        }
    }))
}

fn look(socket: &mut Socket, family: u8) -> Result<Found> {
    let mut batch = Batch::new();
    let at = header(family, 0);
    batch.push(GET_TABLE, 0, &at, |message| message.text(TABLE_NAME, TABLE));
    for chain in [CHAIN, FORWARD] {
        batch.push(GET_CHAIN, 0, &at, |message| {
            message.text(CHAIN_TABLE, TABLE);
            message.text(CHAIN_NAME, chain);
        });
    }
    let mut objects = Vec::new();
    for reply in socket.exchange(batch)? {
        objects.push(reply.ok_or(&[ENOENT])?);
    }
    let (table, chain) = (!objects[0].is_empty(), !objects[1].is_empty());
    let Some((_, forward)) = objects[2].first() else {
        return Ok(Found { table, chain, forward: None });
    };
    let hooked = is_forward_hook(forward.get(4..).unwrap_or_default());
    let mut forward = Forward { hooked, ..Forward::default() };
    for (index, rule) in rules(socket, family, Some(FORWARD))?.into_iter().enumerate() {
        if rule.everything && rule.verdict == Some(Verdict::Ask(CHAIN.to_owned())) {
            forward.first |= index == 0;
            forward.jumps.push(rule.handle);
        }
    }
    Ok(Found { table, chain, forward: Some(forward) })
}

/// What the operators of a family refuse; nothing where there is no such chain.
pub(super) fn refusals(socket: &mut Socket, family: u8) -> Result<Option<Refusals>> {
    let rules = rules(socket, family, None)?;
    let mut asked = BTreeSet::from([CHAIN]);
    loop {
        let of_asked = rules.iter().filter(|rule| asked.contains(rule.chain.as_str()));
        let chains = of_asked.filter_map(|rule| match &rule.verdict {
            Some(Verdict::Ask(chain)) => Some(chain.as_str()),
            _ => None,
        });
        let further: Vec<&str> = chains.filter(|chain| !asked.contains(chain)).collect();
        if further.is_empty() {
            break;
        }
        asked.extend(further);
    }
    let refusing = || rules.iter().filter(|rule| rule.verdict == Some(Verdict::Refuse));
    let count = refusing().filter(|rule| asked.contains(rule.chain.as_str())).count();
    Ok((count > 0).then(|| Refusals {
        chain: format!("{} {CHAIN}", name(family)),
        rules: count,
        everything: refusing().any(|rule| rule.chain == CHAIN && rule.everything),
    }))
}
