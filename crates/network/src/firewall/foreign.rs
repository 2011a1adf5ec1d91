//! Living with other people's rules. An accept of ours does not overrule a drop in another table: dockerd leaves the
//! policy of iptables' FORWARD chain at DROP, so what our bridges forward has to be let through there as well.

use std::fs;

use stdx::{Context, Result};

use super::nft::{
    CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, DELETE_RULE, FAMILY_IPV4, GET_CHAIN, GET_RULE, NEW_RULE,
    RULE_CHAIN, RULE_EXPRESSIONS, RULE_HANDLE, RULE_TABLE, RULE_USERDATA, Side, accept, be32_of,
    device_is, expression, header, transaction,
};
use crate::netlink::message::{APPEND, CREATE};
use crate::netlink::{Attributes, Batch, Socket, attribute};

const TABLE: &str = "filter";
const CHAIN: &str = "FORWARD";
const DROP: u32 = 0;
const ENOENT: i32 = 2;
/// nft's and iptables' form of a comment: type, length, text with its NUL.
const COMMENT: u8 = 0;

/// Lets these bridges through FORWARD when its policy is DROP, and takes rules for others of `owner`'s away.
///
/// The rules go to the end of the chain, just before the policy: whatever an administrator or Docker refuses above them
/// stays refused, and what they let in is still judged by our own table.
pub(super) fn let_through(socket: &mut Socket, owner: &str, bridges: &[&str]) -> Result<()> {
    let dropping = policy(socket)? == Some(DROP);
    let found = if dropping || !bridges.is_empty() { rules(socket, owner)? } else { Vec::new() };
    let wanted: Vec<(Side, &str, String)> = match dropping {
        false => Vec::new(),
        true => bridges
            .iter()
            .flat_map(|bridge| [(Side::Input, *bridge), (Side::Output, *bridge)])
            .map(|(side, bridge)| (side, bridge, comment(owner, side, bridge)))
            .collect(),
    };
    let stale: Vec<u64> = found
        .iter()
        .filter(|rule| !wanted.iter().any(|(_, _, comment)| *comment == rule.comment))
        .map(|rule| rule.handle)
        .collect();
    let missing: Vec<_> = wanted
        .iter()
        .filter(|(_, _, comment)| !found.iter().any(|rule| rule.comment == *comment))
        .collect();
    if stale.is_empty() && missing.is_empty() {
        return Ok(());
    }
    tracing::info!(bridges = ?bridges, "the host drops what it forwards by default; letting our bridges through");
    let in_chain = |message: &mut Attributes| {
        message.text(RULE_TABLE, TABLE);
        message.text(RULE_CHAIN, CHAIN);
    };
    socket
        .execute(transaction(|batch| {
            for handle in &stale {
                batch.push(DELETE_RULE, 0, &header(FAMILY_IPV4, 0), |message| {
                    in_chain(message);
                    message.bytes(RULE_HANDLE, &handle.to_be_bytes());
                });
            }
            for (side, bridge, comment) in &missing {
                batch.push(NEW_RULE, CREATE | APPEND, &header(FAMILY_IPV4, 0), |message| {
                    in_chain(message);
                    message.nest(RULE_EXPRESSIONS, |list| {
                        device_is(list, *side, bridge);
                        expression(list, "counter", |counter| {
                            counter.bytes(1, &0u64.to_be_bytes());
                            counter.bytes(2, &0u64.to_be_bytes());
                        });
                        accept(list);
                    });
                    message.bytes(RULE_USERDATA, &userdata(comment));
                });
            }
        }))
        .context(|| "cannot let our bridges through the chain FORWARD".to_owned())
}

/// Whether the host also filters by the old iptables, whose rules nobody but itself can change.
pub(super) fn legacy_iptables() -> bool {
    fs::read_to_string("/proc/thread-self/net/ip_tables_names")
        .is_ok_and(|names| names.lines().any(|name| name == TABLE))
}

struct Found {
    handle: u64,
    comment: String,
}

/// The chain's policy; `None` when there is no such chain.
fn policy(socket: &mut Socket) -> Result<Option<u32>> {
    let mut batch = Batch::new();
    batch.push(GET_CHAIN, 0, &header(FAMILY_IPV4, 0), |message| {
        message.text(CHAIN_TABLE, TABLE);
        message.text(CHAIN_NAME, CHAIN);
    });
    let reply = socket.exchange(batch)?.into_iter().next().expect("one message, one reply");
    let objects = reply.ok_or(&[ENOENT])?;
    Ok(objects.first().and_then(|(_, body)| be32_of(&body[4..], CHAIN_POLICY)))
}

/// Our rules in it, known by their comment.
fn rules(socket: &mut Socket, owner: &str) -> Result<Vec<Found>> {
    let mut batch = Batch::new();
    batch.push_dump(GET_RULE, &header(FAMILY_IPV4, 0), |message| {
        message.text(RULE_TABLE, TABLE);
        message.text(RULE_CHAIN, CHAIN);
    });
    let reply = socket.exchange(batch)?.into_iter().next().expect("one message, one reply");
    let prefix = format!("{owner}: ");
    let found = reply.ok_or(&[ENOENT])?.into_iter().filter_map(|(_, body)| {
        let rule = body.get(4..)?;
        let comment = comment_in(attribute(rule, RULE_USERDATA)?)?;
        let handle = u64::from_be_bytes(attribute(rule, RULE_HANDLE)?.try_into().ok()?);
        comment.starts_with(&prefix).then_some(Found { handle, comment })
    });
    Ok(found.collect())
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
    Some(crate::netlink::message::text(rest.get(..usize::from(*length))?))
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
