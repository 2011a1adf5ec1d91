//! Living with other people's rules. An accept of ours does not overrule a drop in another table: dockerd and ufw leave
//! the policy of iptables' FORWARD chain at DROP, so what our bridges forward has to be let through there as well. Where
//! that is not ours to do, we say what is.

use std::collections::BTreeSet;

use stdx::{Context, Result};

use super::encode::{FAMILY_IPV4, FAMILY_IPV6, Side, accept, counter, device_is};
use super::nft::{
    CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, DELETE_RULE, ENOENT, GET_CHAIN, GET_RULE, NEW_RULE,
    RULE_CHAIN, RULE_EXPRESSIONS, RULE_HANDLE, RULE_POSITION, RULE_TABLE, RULE_USERDATA, be32_of,
    header, is_forward_hook, only, text_of, transaction,
};
use super::user_chain;
use super::view::Bridge;
use crate::doctor::{Judge, Refusals, legacy_filters};
use crate::netlink::message::{APPEND, CREATE, text};
use crate::netlink::{Attributes, Batch, Socket, attribute, attributes};

pub(super) const TABLE: &str = "filter";
pub(super) const CHAIN: &str = "FORWARD";
const DROP: u32 = 0;
const JUMP: u32 = super::encode::JUMP.cast_unsigned();
const GOTO: u32 = super::encode::GOTO.cast_unsigned();
const FIREWALLD: &str = "firewalld";
/// nft's and iptables' form of a comment: type, length, text with its NUL.
const COMMENT: u8 = 0;

/// What was said already.
#[derive(Debug, Default)]
pub(super) struct Warned {
    legacy: bool,
    chains: Vec<String>,
    /// firewalld judges what is forwarded. What there is to be said of that, `firewalld` knows.
    pub(super) firewalld: bool,
}

/// Whether what happens in a table of this name can be of concern to us.
pub(super) fn concerned(table: &str) -> bool {
    matches!(table, TABLE | FIREWALLD)
}

/// Lets these bridges through where others drop what they do not know, and takes rules for others of `owner`'s away.
pub(super) fn let_through(
    socket: &mut Socket,
    owner: &str,
    bridges: &[Bridge],
    warned: &mut Warned,
) -> Result<()> {
    let names = |which: fn(&Bridge) -> bool| -> Vec<&str> {
        bridges.iter().filter(|bridge| which(bridge)).map(|bridge| bridge.name.as_str()).collect()
    };
    let_through_family(socket, FAMILY_IPV4, owner, &names(|bridge| bridge.ipv4.is_some()))?;
    let_through_family(socket, FAMILY_IPV6, owner, &names(|bridge| bridge.ipv6.is_some()))?;
    if bridges.is_empty() {
        return Ok(());
    }
    warn_of_legacy(warned);
    warn_of_others(socket, owner, warned)
}

/// The rules go to the end of the chain, just before the policy or what stands for one: whatever an administrator or Docker
/// refuses above them stays refused, and what they let in is still judged by our own table.
fn let_through_family(
    socket: &mut Socket,
    family: u8,
    owner: &str,
    bridges: &[&str],
) -> Result<()> {
    let Some(forward) = forward(socket, family)? else { return Ok(()) };
    let prefix = format!("{owner}: ");
    let is_ours = |rule: &&Found| rule.comment.starts_with(&prefix);
    let ours: Vec<&Found> = forward.heard().iter().filter(is_ours).collect();
    let unheard = forward.unheard().iter().filter(is_ours);
    let wanted: Vec<(Side, &str, String)> = if forward.drops() {
        bridges
            .iter()
            .flat_map(|bridge| [(Side::Input, *bridge), (Side::Output, *bridge)])
            .map(|(side, bridge)| (side, bridge, comment(owner, side, bridge)))
            .collect()
    } else {
        Vec::new()
    };
    let there: BTreeSet<&str> = ours.iter().map(|rule| rule.comment.as_str()).collect();
    let needed: BTreeSet<&str> = wanted.iter().map(|(_, _, comment)| comment.as_str()).collect();
    let unneeded = ours.iter().filter(|rule| !needed.contains(rule.comment.as_str())).copied();
    let stale: Vec<u64> = unneeded.chain(unheard).map(|rule| rule.handle).collect();
    let missing: Vec<_> =
        wanted.iter().filter(|(_, _, comment)| !there.contains(comment.as_str())).collect();
    if stale.is_empty() && missing.is_empty() {
        return Ok(());
    }
    if !missing.is_empty() {
        tracing::info!(
            ?bridges,
            "the host drops what it forwards by default; letting our bridges through"
        );
    }
    let in_chain = |message: &mut Attributes| {
        message.text(RULE_TABLE, TABLE);
        message.text(RULE_CHAIN, CHAIN);
    };
    let place = if forward.wall().is_some() { CREATE } else { CREATE | APPEND };
    socket
        .execute(transaction(|batch| {
            for handle in &stale {
                batch.push(DELETE_RULE, 0, &header(family, 0), |message| {
                    in_chain(message);
                    message.bytes(RULE_HANDLE, &handle.to_be_bytes());
                });
            }
            for (side, bridge, comment) in &missing {
                batch.push(NEW_RULE, place, &header(family, 0), |message| {
                    in_chain(message);
                    message.nest(RULE_EXPRESSIONS, |list| {
                        device_is(list, *side, bridge);
                        counter(list);
                        accept(list);
                    });
                    if let Some(wall) = forward.wall() {
                        message.bytes(RULE_POSITION, &wall.handle.to_be_bytes());
                    }
                    message.bytes(RULE_USERDATA, &userdata(comment));
                });
            }
        }))
        .context(|| "cannot let our bridges through the chain FORWARD".to_owned())
}

/// The old iptables' rules can be changed by nobody but itself.
fn warn_of_legacy(warned: &mut Warned) {
    if warned.legacy || !legacy_filters() {
        return;
    }
    warned.legacy = true;
    tracing::warn!(
        "this host filters with iptables-legacy, which gantry cannot change: if the policy of its FORWARD chain is DROP, \
         containers reach nothing until you allow it (iptables-legacy -I FORWARD -i BRIDGE -j ACCEPT, and -o), and \
         there is no chain DOCKER-USER: what you refuse belongs into FORWARD"
    );
}

/// Other chains that drop what they do not know belong to somebody who wrote them so.
fn warn_of_others(socket: &mut Socket, owner: &str, warned: &mut Warned) -> Result<()> {
    const FAMILIES: [(u8, &str); 3] = [(1, "inet"), (2, "ip"), (10, "ip6")];
    warned.firewalld = false;
    let mut batch = Batch::new();
    batch.push_dump(GET_CHAIN, &header(0, 0), |_| {});
    for (_, body) in only(socket.exchange(batch)?).ok()? {
        let Some((header, chain)) = body.split_at_checked(4) else { continue };
        let Some((_, family)) = FAMILIES.iter().find(|(family, _)| *family == header[0]) else {
            continue;
        };
        let (table, name) = (text_of(chain, CHAIN_TABLE), text_of(chain, CHAIN_NAME));
        let handled = table == owner || (table == TABLE && name == CHAIN && *family != "inet");
        if handled || !is_forward_hook(chain) {
            continue;
        }
        // While it is reloaded it has another one, which drops everything.
        if table.starts_with(FIREWALLD) {
            warned.firewalld = true;
            continue;
        }
        let said = format!("{family} {table} {name}");
        if warned.chains.contains(&said) {
            continue;
        }
        if be32_of(chain, CHAIN_POLICY) == Some(DROP) {
            tracing::warn!(
                chain = %said,
                "this host drops what it forwards by default, and not by iptables: containers reach nothing until you \
                 allow it (nft insert rule {said} iifname BRIDGE accept, and oifname)"
            );
        } else {
            continue;
        }
        warned.chains.push(said);
    }
    Ok(())
}

/// Who else judges what is forwarded.
pub(super) struct Others {
    pub(super) judges: Vec<(bool, Judge)>,
    pub(super) refusals: Vec<Refusals>,
    pub(super) ufw: bool,
}

/// What others have to say of what is forwarded, and whom they let through because of `owner`.
pub(super) fn survey(socket: &mut Socket, owner: &str) -> Result<Others> {
    const INET: u8 = 1;
    let (mut judges, mut refusals) = (Vec::new(), Vec::new());
    for (family, ipv6) in [(FAMILY_IPV4, false), (FAMILY_IPV6, true)] {
        refusals.extend(user_chain::refusals(socket, family)?);
        let Some(forward) = forward(socket, family)? else { continue };
        let into = format!("{owner}: into ");
        let let_through =
            forward.heard().iter().filter_map(|rule| rule.comment.strip_prefix(&into));
        judges.push((
            ipv6,
            Judge {
                name: format!("{} {TABLE} {CHAIN}", if ipv6 { "ip6" } else { "ip" }),
                drops: forward.drops(),
                let_through: let_through.map(str::to_owned).collect(),
            },
        ));
    }
    let mut batch = Batch::new();
    batch.push_dump(GET_CHAIN, &header(0, 0), |_| {});
    let mut ufw = false;
    for (_, body) in only(socket.exchange(batch)?).ok()? {
        let Some((header, chain)) = body.split_at_checked(4) else { continue };
        let (table, name) = (text_of(chain, CHAIN_TABLE), text_of(chain, CHAIN_NAME));
        ufw |= table == TABLE && name.starts_with("ufw-");
        let known = table == owner || (table == TABLE && name == CHAIN && header[0] != INET);
        if known || !is_forward_hook(chain) || be32_of(chain, CHAIN_POLICY) != Some(DROP) {
            continue;
        }
        let (word, families): (_, &[bool]) = match header[0] {
            INET => ("inet", &[false, true]),
            FAMILY_IPV4 => ("ip", &[false]),
            FAMILY_IPV6 => ("ip6", &[true]),
            _ => continue,
        };
        judges.extend(families.iter().map(|ipv6| {
            let name = format!("{word} {table} {name}");
            (*ipv6, Judge { name, drops: true, let_through: Vec::new() })
        }));
    }
    Ok(Others { judges, refusals, ufw })
}

/// A rule of somebody's.
pub(super) struct Found {
    pub(super) chain: String,
    pub(super) handle: u64,
    comment: String,
    /// It asks nothing: what it does is done to everything.
    pub(super) everything: bool,
    pub(super) verdict: Option<Verdict>,
}

/// What becomes of packets that a rule is about, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Refuse,
    /// Another chain is asked.
    Ask(String),
}

impl Found {
    fn refuses_all(&self) -> bool {
        self.everything && self.verdict == Some(Verdict::Refuse)
    }
}

/// iptables' chain of what is forwarded.
struct Forward {
    policy: u32,
    rules: Vec<Found>,
    /// How many are asked before one that refuses everything, or sends it to a chain that does (`ufw default reject routed`).
    heard: usize,
}

impl Forward {
    fn drops(&self) -> bool {
        self.policy == DROP || self.wall().is_some()
    }

    fn heard(&self) -> &[Found] {
        &self.rules[..self.heard]
    }

    fn unheard(&self) -> &[Found] {
        &self.rules[self.heard..]
    }

    fn wall(&self) -> Option<&Found> {
        self.unheard().first()
    }
}

/// `None` when there is no such chain.
fn forward(socket: &mut Socket, family: u8) -> Result<Option<Forward>> {
    let Some(policy) = policy(socket, family)? else { return Ok(None) };
    let found = rules(socket, family, Some(CHAIN))?;
    let mut heard = found.len();
    for (number, rule) in found.iter().enumerate() {
        let refuses = match &rule.verdict {
            // What its owner refuses there is nobody's to let through.
            Some(Verdict::Ask(chain)) if rule.everything && chain != user_chain::CHAIN => {
                rules(socket, family, Some(chain))?.iter().any(Found::refuses_all)
            }
            _ => rule.refuses_all(),
        };
        if refuses {
            heard = number;
            break;
        }
    }
    Ok(Some(Forward { policy, rules: found, heard }))
}

/// The chain's policy; `None` when there is no such chain.
fn policy(socket: &mut Socket, family: u8) -> Result<Option<u32>> {
    let mut batch = Batch::new();
    batch.push(GET_CHAIN, 0, &header(family, 0), |message| {
        message.text(CHAIN_TABLE, TABLE);
        message.text(CHAIN_NAME, CHAIN);
    });
    let objects = only(socket.exchange(batch)?).ok_or(&[ENOENT])?;
    Ok(objects.first().and_then(|(_, body)| be32_of(&body[4..], CHAIN_POLICY)))
}

/// The rules of a chain, or of the whole table, in order.
pub(super) fn rules(socket: &mut Socket, family: u8, chain: Option<&str>) -> Result<Vec<Found>> {
    let mut batch = Batch::new();
    batch.push_dump(GET_RULE, &header(family, 0), |message| {
        message.text(RULE_TABLE, TABLE);
        if let Some(chain) = chain {
            message.text(RULE_CHAIN, chain);
        }
    });
    let objects = only(socket.exchange(batch)?).ok_or(&[ENOENT])?;
    let found = objects.into_iter().filter_map(|(_, body)| {
        let rule = body.get(4..)?;
        let (everything, verdict) = attribute(rule, RULE_EXPRESSIONS).map_or((true, None), reading);
        Some(Found {
            chain: text_of(rule, RULE_CHAIN),
            handle: u64::from_be_bytes(attribute(rule, RULE_HANDLE)?.try_into().ok()?),
            comment: attribute(rule, RULE_USERDATA).and_then(comment_in).unwrap_or_default(),
            everything,
            verdict,
        })
    });
    Ok(found.collect())
}

/// Whether these expressions ask nothing, and what they end with: `-j DROP`, `-j REJECT`, `-j CHAIN`.
fn reading(expressions: &[u8]) -> (bool, Option<Verdict>) {
    let (mut everything, mut verdict) = (true, None);
    for (_, expression) in attributes(expressions) {
        let data = attribute(expression, 2).unwrap_or_default();
        match attribute(expression, 1).map(text).unwrap_or_default().as_str() {
            "counter" => {}
            "reject" => verdict = Some(Verdict::Refuse),
            "target" => {
                if attribute(data, 1).map(text).is_some_and(|name| name == "REJECT") {
                    verdict = Some(Verdict::Refuse);
                }
            }
            "immediate" => {
                let told = attribute(data, 2).and_then(|data| attribute(data, 2));
                verdict = told.and_then(|told| match be32_of(told, 1)? {
                    DROP => Some(Verdict::Refuse),
                    JUMP | GOTO => Some(Verdict::Ask(text_of(told, 2))),
                    _ => None,
                });
            }
            _ => everything = false,
        }
    }
    (everything, verdict)
}

fn comment(owner: &str, side: Side, bridge: &str) -> String {
    match side {
        Side::Input => format!("{owner}: out of {bridge}"),
        Side::Output => format!("{owner}: into {bridge}"),
    }
}

fn userdata(comment: &str) -> Vec<u8> {
    let mut data = vec![COMMENT, comment.len() as u8 + 1];
    data.extend(comment.as_bytes());
    data.push(0);
    data
}

fn comment_in(userdata: &[u8]) -> Option<String> {
    let [COMMENT, length, rest @ ..] = userdata else { return None };
    Some(text(rest.get(..usize::from(*length))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_survive() {
        let text = comment("gantry", Side::Input, "gantry0");
        assert_eq!(text, "gantry: out of gantry0");
        assert_eq!(comment_in(&userdata(&text)), Some(text));
        for nonsense in [&[][..], &[0], &[0, 9, b'x'], &[1, 1, 0]] {
            assert_eq!(comment_in(nonsense), None, "{nonsense:?}");
        }
    }
}
