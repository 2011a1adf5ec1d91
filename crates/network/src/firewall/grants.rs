//! What answers of a name server open: from a container to an address, for as long as the answer is good.
//!
//! They are elements with a time and a comment, which is the name; the kernel has the only list of them. The daemon takes
//! them away, netd adds them, through the one socket that the table belongs to. Only the daemon reads from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use stdx::{Error, Result};

use super::encode;
use super::leash::{NAMED, NAMED_PORT};
use super::nft::{
    self, DELETE_ELEMENT, ENOENT, GET_ELEMENT, NEW_ELEMENT, elements_in, elements_of, header,
    list_elements, transaction,
};
use super::ruleset::{Element, Family, Value};
use crate::netlink::message::{CREATE, text};
use crate::netlink::{Attributes, Batch, Socket, attribute};
use crate::records::Protocol;

/// One way that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) port: Option<(Protocol, u16)>,
    /// What was asked for.
    pub(crate) name: String,
}

/// No answer is good for longer, whatever it says.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Nor for less: programs look up a name once and connect again and again.
const SHORTEST: Duration = Duration::from_secs(5 * 60);
/// Between an answer and the packet that follows from it.
const SLACK: Duration = Duration::from_secs(60);

const ELEMENT_KEY: u16 = 1;
const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENT_EXPIRATION: u16 = 5;
const ELEMENT_USERDATA: u16 = 6;
const COMMENT: u8 = 0;

/// Who opens: through the owner's socket, from which he must not read, or his own where nobody owns the table.
pub(crate) struct Opener {
    reader: Socket,
    owner: Option<Socket>,
}

impl Opener {
    /// For the network namespace of this thread.
    pub(crate) fn here() -> Result<Self> {
        Ok(Self { reader: Socket::netfilter()?, owner: None })
    }

    /// The table belongs to this socket from now on.
    pub(crate) fn own(&mut self, socket: Socket) {
        self.owner = Some(socket);
    }

    /// Opens these ways for at least as long as an answer is good. When this returns, they are open.
    pub(crate) fn open(&mut self, table: &str, grants: &[Grant], good: Duration) -> Result<()> {
        let time = good.clamp(SHORTEST, LONGEST) + SLACK;
        let (mut stale, mut new) = (Vec::new(), Vec::new());
        for grant in grants {
            match self.left(table, grant)? {
                Some(left) if left >= good.min(LONGEST) + SLACK / 2 => {}
                // A time cannot be changed in every kernel: another element takes its place at once.
                Some(_) => {
                    stale.push(grant);
                    new.push(grant);
                }
                None => new.push(grant),
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let batch = transaction(|batch| {
            stale.iter().for_each(|grant| push(batch, DELETE_ELEMENT, table, grant, None));
            new.iter().for_each(|grant| push(batch, NEW_ELEMENT, table, grant, Some(time)));
        });
        match &mut self.owner {
            Some(owner) => owner.tell(batch)?,
            None => self.reader.execute(batch)?,
        }
        match new.iter().all(|grant| self.left(table, grant).is_ok_and(|left| left.is_some())) {
            true => Ok(()),
            false => {
                Err(Error::internal(format!("cannot open ways through the firewall table {table}")))
            }
        }
    }

    /// How long a way is still open; `None` for one that is not.
    fn left(&mut self, table: &str, grant: &Grant) -> Result<Option<Duration>> {
        let (set, key) = key(grant);
        let mut batch = Batch::new();
        batch.push(GET_ELEMENT, 0, &header(encode::family(Family::Inet), 0), |message| {
            list_elements(message, table, set, &encode::element(&key));
        });
        let replies = self.reader.exchange(batch)?;
        let objects =
            replies.into_iter().next().expect("one message, one reply").ok_or(&[ENOENT])?;
        let bodies = objects.iter().filter_map(|(_, body)| body.get(4..));
        let element = elements_in(bodies).into_iter().next();
        let expiration =
            element.as_deref().and_then(|element| attribute(element, ELEMENT_EXPIRATION));
        let milliseconds =
            expiration.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        Ok(milliseconds.map(Duration::from_millis))
    }
}

/// Closes what is open to these addresses, but for what `stays`; returns that.
pub(super) fn revoke(
    socket: &mut Socket,
    table: &str,
    from: &[IpAddr],
    stays: impl Fn(&Grant) -> bool,
) -> Result<Vec<Grant>> {
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    for (index, set) in NAMED.into_iter().chain(NAMED_PORT).enumerate() {
        let ipv6 = index % 2 == 1;
        if !from.iter().any(|address| address.is_ipv6() == ipv6) {
            continue;
        }
        let elements = elements_of(socket, Family::Inet, table, set)?;
        let grants = elements.iter().filter_map(|element| read(element, ipv6));
        let of_these = grants.filter(|grant| from.contains(&grant.from));
        let (stay, go): (Vec<_>, Vec<_>) = of_these.partition(&stays);
        kept.extend(stay);
        gone.extend(go);
    }
    // One by one: another may have ended by itself meanwhile.
    for grant in gone {
        let replies = socket.exchange(transaction(|batch| {
            let (set, key) = key(&grant);
            batch.push(DELETE_ELEMENT, 0, &header(encode::family(Family::Inet), 0), |message| {
                list_elements(message, table, set, &encode::element(&key));
            });
        }))?;
        replies.into_iter().try_for_each(|reply| reply.ok_or(&[nft::ENOENT]).map(drop))?;
    }
    Ok(kept)
}

fn push(batch: &mut Batch, kind: u16, table: &str, grant: &Grant, time: Option<Duration>) {
    let (set, key) = key(grant);
    let mut item = Attributes::new();
    encode::element(&key).iter().for_each(|bytes| item.raw(bytes));
    if let Some(time) = time {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        item.bytes(ELEMENT_TIMEOUT, &milliseconds.to_be_bytes());
        let mut comment = vec![COMMENT, grant.name.len() as u8 + 1];
        comment.extend(grant.name.as_bytes());
        comment.push(0);
        // A name has 253 letters at most, and a comment 256 bytes.
        item.bytes(ELEMENT_USERDATA, &comment);
    }
    batch.push_silent(kind, CREATE, &header(encode::family(Family::Inet), 0), |message| {
        list_elements(message, table, set, &[item.into_bytes()]);
    });
}

fn key(grant: &Grant) -> (&'static str, Element) {
    let index = usize::from(grant.from.is_ipv6());
    let (from, to) = (Value::Address(grant.from), Value::Address(grant.to));
    match grant.port {
        None => (NAMED[index], Element::of([from, to])),
        Some((protocol, port)) => {
            let key = [from, to, Value::Protocol(protocol), Value::Port(port)];
            (NAMED_PORT[index], Element::of(key))
        }
    }
}

fn read(element: &[u8], ipv6: bool) -> Option<Grant> {
    let key = attribute(attribute(element, ELEMENT_KEY)?, 1)?;
    let length = if ipv6 { 16 } else { 4 };
    let address = |bytes: &[u8]| -> Option<IpAddr> {
        match ipv6 {
            false => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
            true => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        }
    };
    let (from, rest) = key.split_at_checked(length)?;
    let (to, rest) = rest.split_at_checked(length)?;
    let port = match rest {
        [protocol, _, _, _, high, low, ..] => {
            let protocol = match protocol {
                6 => Protocol::Tcp,
                17 => Protocol::Udp,
                132 => Protocol::Sctp,
                _ => return None,
            };
            Some((protocol, u16::from_be_bytes([*high, *low])))
        }
        _ => None,
    };
    let comment = attribute(element, ELEMENT_USERDATA).and_then(|data| data.get(2..));
    let name = comment.map(text).unwrap_or_default();
    Some(Grant { from: address(from)?, to: address(to)?, port, name })
}

#[cfg(test)]
mod tests {
    use super::super::nft::{Ownership, apply_after};
    use super::super::rules;
    use super::super::view::{Bridge, Guard, View};
    use super::*;
    use crate::records::Mac;

    /// The table is replaced while somebody is told what a name means.
    #[test]
    fn what_is_opened_meanwhile_stays_open() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let host = std::thread::spawn(|| {
            sys::ns::unshare(sys::process::CloneFlags::NEWNET).unwrap();
            let mut socket = Socket::netfilter().unwrap();
            let bridge = Bridge {
                name: "gantry0".to_owned(),
                icc: true,
                internal: false,
                ipv4: None,
                ipv6: None,
                trusted: Vec::new(),
            };
            let guard = Guard {
                device: "gv0".to_owned(),
                mac: Mac([2, 0x42, 10, 0, 0, 2]),
                addresses: vec!["10.0.0.2".parse().unwrap()],
                allowed: vec!["example.com".parse().unwrap()],
            };
            let view = View { bridges: vec![bridge], guards: vec![guard], ..View::default() };
            let ruleset = rules::render("t", &view);
            nft::apply(&mut socket, &ruleset, Ownership::Shared).unwrap();
            let grant = |last: u8| Grant {
                from: "10.0.0.2".parse().unwrap(),
                to: Ipv4Addr::new(192, 0, 2, last).into(),
                port: None,
                name: "example.com".to_owned(),
            };
            let mut opener = Opener::here().unwrap();
            let good = Duration::from_secs(60);
            opener.open("t", &[grant(1)], good).unwrap();
            let mut answers = 2..4;
            apply_after(&mut socket, &ruleset, Ownership::Shared, || {
                if let Some(last) = answers.next() {
                    opener.open("t", &[grant(last)], good).unwrap();
                }
            })
            .unwrap();
            assert!(answers.is_empty(), "it was tried again after each");
            for last in 1..4 {
                assert!(opener.left("t", &grant(last)).unwrap().is_some(), "{last}");
            }
        });
        host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}
