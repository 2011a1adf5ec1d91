//! What daemon and netd say to each other: one JSON value and some descriptors a message, over a `SOCK_SEQPACKET` socket.
//!
//! A call has one reply, but for [`Call::Inventory`], which has one for each thing held before its last. The shapes of
//! [`Call::Hello`], [`Call::Inventory`] and [`Call::Retire`] never change: with them a newer daemon takes over from an
//! older netd whatever else has changed.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stdx::{Error, Result};
use sys::message;
pub(crate) use sys::message::send;

use crate::dns::zone::Member;
use crate::egress::Allowed;
use crate::records::Protocol;

/// Raised with every change to what follows.
pub(crate) const VERSION: u32 = 2;

/// netd's `argv[0]`: the hat our program wears then.
pub const NAME: &str = "gantry-netd";

/// Its socket, within the directory of its configuration.
pub(crate) const SOCKET: &str = "netd.sock";

/// The longest message: what one send takes on a socket of the usual size, with room to spare.
const LONGEST: usize = 128 * 1024;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    Hello {
        version: u32,
    },
    /// Everything held, each as the [`Change`] that would bring it back, with its descriptors.
    Inventory,
    /// All of them, in order.
    Change(Vec<Change>),
    /// Lets everything go, and ends.
    Retire,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Hello { version: u32, pid: u32 },
    Held(Change),
    Done,
    Failed(String),
}

/// One thing to be held, or not any more. Holding what is held already replaces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// With the bound socket.
    Publish(Published),
    Unpublish(Place),
    /// With the name server's sockets: UDP, TCP.
    Serve(Sandbox),
    /// The same sockets, other networks.
    Reseat(Sandbox),
    Close(String),
    /// A network, by id, and its name.
    Zone {
        id: String,
        name: String,
    },
    ForgetZone(String),
    Join {
        zone: String,
        member: Member,
    },
    Leave {
        zone: String,
        member: String,
    },
    /// From here to [`Change::Swap`] zones are made beside those there are, which they then replace at once.
    Aside,
    Swap,
    /// With a descriptor that is nobody's business here.
    Keep(String),
    Drop(String),
}

/// A place on the host where something is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) protocol: Protocol,
    pub(crate) address: SocketAddr,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) place: Place,
    /// The container's address and port.
    pub(crate) target: SocketAddr,
    /// Whose it is: the endpoint's id.
    pub(crate) endpoint: String,
}

/// A container with a name server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    /// The container's id.
    pub(crate) id: String,
    /// In the order in which they are asked.
    pub(crate) seats: Vec<Seat>,
    pub(crate) resolvers: Resolvers,
    /// `ndots` was chosen by hand: names without dots are not for the world.
    pub(crate) keeps_single_labels: bool,
    /// Is there a way out of its networks?
    pub(crate) outward: bool,
    /// Where it may not reach everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) leash: Option<Leash>,
}

impl Sandbox {
    /// Has it anything to ask a name server of ours?
    pub(crate) fn is_needed(&self) -> bool {
        !self.seats.is_empty() || self.leash.is_some()
    }
}

/// What a container may reach outside of its networks by names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leash {
    /// The firewall's table.
    pub(crate) table: String,
    pub(crate) ends: Vec<LeashEnd>,
    /// One of its networks leads out to everywhere.
    pub(crate) loose: bool,
}

/// Of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeashEnd {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) allowed: Vec<Allowed>,
}

/// A network that a container is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seat {
    pub(crate) zone: String,
    /// Whom the container calls by a name of its own there.
    pub(crate) links: BTreeMap<String, String>,
}

/// Who is asked what we do not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Resolvers {
    /// Those of the host, at the time of the question, from the host.
    Host,
    /// Those, from within the container.
    Chosen(Vec<IpAddr>),
}

/// What a change is about: the later of two changes about the same thing is the one that counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    // In the order in which things are brought back: who is on a network follows the network.
    Kept(String),
    Zone(String),
    Member(String, String),
    Sandbox(String),
    Port(Place),
}

impl Change {
    /// How many descriptors come with it.
    pub(crate) fn descriptors(&self) -> usize {
        match self {
            Self::Publish(_) | Self::Keep(_) => 1,
            Self::Serve(_) => 2,
            _ => 0,
        }
    }

    pub(crate) fn key(&self) -> Option<Key> {
        Some(match self {
            Self::Publish(published) => Key::Port(published.place),
            Self::Unpublish(place) => Key::Port(*place),
            Self::Serve(sandbox) | Self::Reseat(sandbox) => Key::Sandbox(sandbox.id.clone()),
            Self::Close(id) => Key::Sandbox(id.clone()),
            Self::Zone { id, .. } | Self::ForgetZone(id) => Key::Zone(id.clone()),
            Self::Join { zone, member } => Key::Member(zone.clone(), member.id.clone()),
            Self::Leave { zone, member } => Key::Member(zone.clone(), member.clone()),
            Self::Keep(name) | Self::Drop(name) => Key::Kept(name.clone()),
            Self::Aside | Self::Swap => return None,
        })
    }

    /// Is it the end of something?
    pub(crate) fn lets_go(&self) -> bool {
        matches!(
            self,
            Self::Unpublish(_)
                | Self::Close(_)
                | Self::ForgetZone(_)
                | Self::Leave { .. }
                | Self::Drop(_)
        )
    }
}

/// `None` at the end.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    message::receive(socket, LONGEST * 2)
}

/// Cuts a list of changes into messages that can be sent: not too long, and with no more descriptors than one carries.
pub(crate) fn messages(
    changes: impl IntoIterator<Item = (Change, Vec<OwnedFd>)>,
) -> Result<Vec<(Vec<Change>, Vec<OwnedFd>)>> {
    let mut messages: Vec<(Vec<Change>, Vec<OwnedFd>)> = Vec::new();
    let mut room = 0;
    for (change, descriptors) in changes {
        if change.descriptors() != descriptors.len() {
            return Err(Error::internal("a change for netd lacks its descriptors"));
        }
        let length = serde_json::to_vec(&change)
            .map_err(|err| Error::internal("cannot write a change for netd").caused_by(err))?
            .len();
        let full = messages
            .last()
            .is_none_or(|(_, fds)| fds.len() + descriptors.len() > sys::socket::MAX_FDS);
        if full || room < length {
            messages.push(Default::default());
            room = LONGEST;
        }
        room = room.saturating_sub(length + 1);
        let (together, fds) = messages.last_mut().expect("there is one");
        together.push(change);
        fds.extend(descriptors);
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(port: u16) -> (Change, Vec<OwnedFd>) {
        let address = SocketAddr::from(([0, 0, 0, 0], port));
        let published = Published {
            place: Place { protocol: Protocol::Tcp, address },
            target: SocketAddr::from(([172, 17, 0, 2], port)),
            endpoint: "e".to_owned(),
        };
        let null = std::fs::File::open("/dev/null").unwrap();
        (Change::Publish(published), vec![null.into()])
    }

    #[test]
    fn messages_are_small_enough() {
        let (ours, theirs) = sys::socket::pair().unwrap();
        let name = "x".repeat(3000);
        let zones = (0..200)
            .map(|id| (Change::Zone { id: id.to_string(), name: name.clone() }, Vec::new()));
        let all: Vec<_> = zones.chain((1..=150).map(publish)).collect();
        let count = all.len();
        let mut received = (0, 0);
        for (changes, descriptors) in messages(all).unwrap() {
            let fds: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            send(&ours, &Call::Change(changes), &fds).unwrap();
            let (call, fds) = receive::<Call>(&theirs).unwrap().unwrap();
            let Call::Change(changes) = call else { panic!("{call:?}") };
            assert_eq!(fds.len(), changes.iter().map(Change::descriptors).sum::<usize>());
            received = (received.0 + changes.len(), received.1 + fds.len());
        }
        assert_eq!(received, (count, 150));
    }
}
