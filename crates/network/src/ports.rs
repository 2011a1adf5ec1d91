//! Published ports: which places on the host are asked for, and the sockets that take them. The bound socket is the
//! allocation: what it has nobody else can have, and nothing else needs to be remembered.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rootless::Outside;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with};
use stdx::{Error, Result};

use crate::endpoint::PortRequest;
use crate::records::{Protocol, PublishedPort};

/// The kernel cuts it to its own limit.
const BACKLOG: i32 = 65535;

/// A port that is taken.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) port: PublishedPort,
    pub(crate) socket: OwnedFd,
}

/// Where ports listen when nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Defaults {
    pub(crate) v4: Option<IpAddr>,
    pub(crate) v6: Option<IpAddr>,
    /// Families in which the container has a place on the host at all.
    pub(crate) takes_v4: bool,
    pub(crate) takes_v6: bool,
}

/// One port inside, at several addresses outside: all get the same number there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) protocol: Protocol,
    pub(crate) container_port: u16,
    pub(crate) host_ports: Option<RangeInclusive<u16>>,
    /// Whether it may do without, as an address of a family that nobody asked for by name.
    pub(crate) addresses: Vec<(IpAddr, Need)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    Asked,
    Implied,
}

/// What the numbers are taken from.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    /// Who has the host's sockets, where our own network is not the host's.
    outside: Option<Arc<Outside>>,
    /// The number given last, for each protocol: one that was just given back is not given to the next.
    last: Mutex<BTreeMap<Protocol, u16>>,
}

impl Ports {
    pub(crate) fn new(outside: Option<Arc<Outside>>) -> Self {
        Self { outside, ..Self::default() }
    }

    /// Takes all ports that are asked for, or none. `holder` knows who of ours has a place already.
    pub(crate) fn bind(
        &self,
        requests: &[PortRequest],
        defaults: Defaults,
        holder: impl Fn(Protocol, SocketAddr) -> Option<IpAddr>,
    ) -> Result<Vec<Bound>> {
        self.bind_groups(&groups(requests, defaults), holder)
    }

    /// The same, of requests that are understood.
    pub(crate) fn bind_groups(
        &self,
        groups: &[Group],
        holder: impl Fn(Protocol, SocketAddr) -> Option<IpAddr>,
    ) -> Result<Vec<Bound>> {
        let mut bound = Vec::new();
        for group in groups {
            bound.extend(self.bind_group(group, &holder)?);
        }
        Ok(bound)
    }

    fn bind_group(
        &self,
        group: &Group,
        holder: &impl Fn(Protocol, SocketAddr) -> Option<IpAddr>,
    ) -> Result<Vec<Bound>> {
        let refused = |failure: Failure| {
            let Failure { address, error } = failure;
            match error.kind() {
                io::ErrorKind::AddrInUse => match holder(group.protocol, address) {
                    Some(ip) => Error::internal(format!(
                        "Bind for {ip}:{} failed: port is already allocated",
                        address.port()
                    )),
                    None => self.in_words(group.protocol, address, &error),
                },
                _ => self.in_words(group.protocol, address, &error),
            }
        };
        let range = match &group.host_ports {
            Some(range) if range.start() == range.end() => {
                return self.bind_all(group, *range.start()).map_err(refused);
            }
            Some(range) => range.clone(),
            None => ephemeral(),
        };
        let given = group.host_ports.is_none().then(|| self.last(group.protocol)).flatten();
        let after = given.filter(|last| range.contains(last) && last < range.end());
        let first = after.map_or(*range.start(), |last| last + 1);
        let mut failure = None;
        for port in (first..=*range.end()).chain(*range.start()..first) {
            match self.bind_all(group, port) {
                Ok(bound) => {
                    if group.host_ports.is_none() {
                        self.remember(group.protocol, port);
                    }
                    return Ok(bound);
                }
                Err(busy) if busy.error.kind() == io::ErrorKind::AddrInUse => failure = Some(busy),
                Err(other) => return Err(refused(other)),
            }
        }
        Err(match failure {
            Some(busy) if holder(group.protocol, busy.address).is_none() => refused(busy),
            _ => Error::internal("all ports are allocated"),
        })
    }

    /// Takes ports again that a record says are ours.
    pub(crate) fn bind_again(&self, port: PublishedPort) -> Result<Bound> {
        let address = SocketAddr::new(port.host_ip, port.host_port);
        self.take(port.protocol, address)
            .map(|socket| Bound { port, socket })
            .map_err(|error| self.in_words(port.protocol, address, &error))
    }

    fn bind_all(&self, group: &Group, port: u16) -> Result<Vec<Bound>, Failure> {
        let mut bound = Vec::with_capacity(group.addresses.len());
        for &(host_ip, need) in &group.addresses {
            let address = SocketAddr::new(host_ip, port);
            match self.take(group.protocol, address) {
                Ok(socket) => bound.push(Bound {
                    port: PublishedPort {
                        protocol: group.protocol,
                        container_port: group.container_port,
                        host_ip,
                        host_port: port,
                    },
                    socket,
                }),
                // A host without IPv6.
                Err(error) if need == Need::Implied && lacks_family(&error) => {}
                Err(error) => return Err(Failure { address, error }),
            }
        }
        Ok(bound)
    }

    /// A socket that has the place to itself. A stream's listens at once: one that is only bound can be shared, and would be
    /// lost to whoever listens first.
    fn take(&self, protocol: Protocol, address: SocketAddr) -> io::Result<OwnedFd> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let (kind, number) = match protocol {
            Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
            Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
            Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match &self.outside {
            Some(outside) => outside.socket(family, kind, flags, Some(number))?,
            None => socket_with(family, kind, flags, Some(number))?,
        };
        if address.is_ipv6() {
            set_ipv6_v6only(&socket, true)?;
        }
        match protocol {
            // Connections of a container before may linger; they are in nobody's way.
            Protocol::Tcp => set_socket_reuseaddr(&socket, true)?,
            // Answers go out from where questions came to.
            Protocol::Udp => sys::datagram::tell_local_address(socket.as_fd(), address.is_ipv6())?,
            Protocol::Sctp => {}
        }
        bind(&socket, &address)?;
        if protocol != Protocol::Udp {
            listen(&socket, BACKLOG)?;
        }
        Ok(socket)
    }

    /// What a user may not have is said in more words than what is taken.
    fn in_words(&self, protocol: Protocol, address: SocketAddr, error: &io::Error) -> Error {
        let plain = failure_in_words(protocol, address, error);
        let port = address.port();
        let first = self.outside.as_ref().and_then(|outside| outside.first_port().ok());
        match first {
            Some(first) if error.kind() == io::ErrorKind::PermissionDenied && port < first => {
                Error::internal(format!(
                    "cannot expose privileged port {port}, you can add 'net.ipv4.ip_unprivileged_port_start={port}' to \
                     /etc/sysctl.conf (currently {first}), or choose a larger port number (>= {first}): {plain}"
                ))
            }
            _ => plain,
        }
    }

    fn last(&self, protocol: Protocol) -> Option<u16> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).get(&protocol).copied()
    }

    /// Goes on after this number.
    pub(crate) fn remember(&self, protocol: Protocol, port: u16) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(protocol, port);
    }
}

/// Exact numbers first, so that no range takes them away; then as they are counted.
pub(crate) fn groups(requests: &[PortRequest], defaults: Defaults) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for request in requests {
        let addresses = match request.host_ip {
            Some(ip) => vec![(ip.to_canonical(), Need::Asked)],
            None => implied(defaults),
        };
        let same = |group: &&mut Group| {
            (group.protocol, group.container_port, &group.host_ports)
                == (request.protocol, request.container_port, &request.host_ports)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.addresses.extend(addresses),
            None => groups.push(Group {
                protocol: request.protocol,
                container_port: request.container_port,
                host_ports: request.host_ports.clone(),
                addresses,
            }),
        }
    }
    for group in &mut groups {
        group.addresses.retain(|(ip, _)| match ip {
            IpAddr::V4(_) => defaults.takes_v4,
            IpAddr::V6(_) => defaults.takes_v6,
        });
        group.addresses.sort();
        group.addresses.dedup_by_key(|(ip, _)| *ip);
    }
    groups.retain(|group| !group.addresses.is_empty());
    let exact = |range: &Option<RangeInclusive<u16>>| {
        range.as_ref().is_some_and(|range| range.start() == range.end())
    };
    groups.sort_by_key(|group| {
        let range =
            group.host_ports.as_ref().map_or((0, 0), |range| (*range.start(), *range.end()));
        (!exact(&group.host_ports), group.container_port, group.protocol, range)
    });
    groups
}

fn implied(defaults: Defaults) -> Vec<(IpAddr, Need)> {
    match (defaults.v4, defaults.v6) {
        (None, None) => vec![
            (Ipv4Addr::UNSPECIFIED.into(), Need::Asked),
            (Ipv6Addr::UNSPECIFIED.into(), Need::Implied),
        ],
        (v4, v6) => v4.into_iter().chain(v6).map(|ip| (ip, Need::Asked)).collect(),
    }
}

struct Failure {
    address: SocketAddr,
    error: io::Error,
}

fn lacks_family(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

fn failure_in_words(protocol: Protocol, address: SocketAddr, error: &io::Error) -> Error {
    const EACCES: i32 = 13;
    const EPROTONOSUPPORT: i32 = 93;
    const ESOCKTNOSUPPORT: i32 = 94;
    const EAFNOSUPPORT: i32 = 97;
    const EADDRINUSE: i32 = 98;
    const EADDRNOTAVAIL: i32 = 99;
    let protocol = protocol.as_str();
    let made = |words| format!("failed to create socket for {address}/{protocol}: {words}");
    let bound = |words| format!("failed to bind host port {address}/{protocol}: {words}");
    Error::internal(match error.raw_os_error() {
        Some(EPROTONOSUPPORT) => made("protocol not supported"),
        Some(ESOCKTNOSUPPORT) => made("socket type not supported"),
        Some(EAFNOSUPPORT) => made("address family not supported by protocol"),
        Some(EADDRINUSE) => bound("address already in use"),
        Some(EADDRNOTAVAIL) => bound("cannot assign requested address"),
        Some(EACCES) => bound("permission denied"),
        _ => bound(&error.to_string()),
    })
}

/// The numbers that programs get who do not ask for one, without those that the operator keeps.
fn ephemeral() -> RangeInclusive<u16> {
    let text =
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) if first > 0 && first <= last => first..=last,
        // The kernel's own.
        _ => 32768..=60999,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANYWHERE: Defaults = Defaults { v4: None, v6: None, takes_v4: true, takes_v6: true };

    fn request(ip: &str, ports: Option<RangeInclusive<u16>>, container_port: u16) -> PortRequest {
        PortRequest {
            protocol: Protocol::Tcp,
            container_port,
            host_ip: (!ip.is_empty()).then(|| ip.parse().unwrap()),
            host_ports: ports,
        }
    }

    fn shown(bound: &[Bound]) -> Vec<String> {
        let one = |bound: &Bound| {
            let port = bound.port;
            format!("{} -> {}", SocketAddr::new(port.host_ip, port.host_port), port.container_port)
        };
        bound.iter().map(one).collect()
    }

    fn nobody(_: Protocol, _: SocketAddr) -> Option<IpAddr> {
        None
    }

    /// A network of the test's own, in which every number is free.
    fn alone(test: impl FnOnce() + Send) {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        std::thread::scope(|scope| {
            let inside = || {
                sys::ns::unshare(sys::process::CloneFlags::NEWNET).unwrap();
                sys::net::loopback_up().unwrap();
                test();
            };
            scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }

    #[test]
    fn exact_numbers_come_first() {
        let requests = [
            request("", None, 80),
            request("", Some(8000..=8010), 81),
            request("::1", Some(8000..=8000), 443),
            request("127.0.0.1", Some(8000..=8000), 443),
            request("::ffff:127.0.0.1", Some(8000..=8000), 443),
        ];
        let groups = groups(&requests, ANYWHERE);
        let ports: Vec<_> = groups.iter().map(|group| group.container_port).collect();
        assert_eq!(ports, [443, 80, 81]);
        assert_eq!(
            groups[0].addresses,
            [("127.0.0.1", Need::Asked), ("::1", Need::Asked)]
                .map(|(ip, need)| (ip.parse().unwrap(), need))
        );
    }

    #[test]
    fn both_families_get_the_same_number() {
        alone(|| {
            let ports = Ports::default();
            let _thief = std::net::TcpListener::bind("[::]:32768").unwrap();
            let first = ports.bind(&[request("", None, 80)], ANYWHERE, nobody).unwrap();
            assert_eq!(shown(&first), ["0.0.0.0:32769 -> 80", "[::]:32769 -> 80"]);
            drop(first);
            let second = ports.bind(&[request("", None, 80)], ANYWHERE, nobody).unwrap();
            assert_eq!(shown(&second), ["0.0.0.0:32770 -> 80", "[::]:32770 -> 80"]);
            let chosen = Defaults { v4: Some("127.0.0.1".parse().unwrap()), ..ANYWHERE };
            let third = ports.bind(&[request("", None, 80)], chosen, nobody).unwrap();
            assert_eq!(shown(&third), ["127.0.0.1:32771 -> 80"]);
        });
    }

    #[test]
    fn a_range_goes_on_behind_what_is_taken() {
        alone(|| {
            let ports = Ports::default();
            let ask = |ip| ports.bind(&[request(ip, Some(8000..=8001), 80)], ANYWHERE, nobody);
            let first = ask("127.0.0.1").unwrap();
            let second = ask("").unwrap();
            assert_eq!(shown(&first), ["127.0.0.1:8000 -> 80"]);
            assert_eq!(shown(&second), ["0.0.0.0:8001 -> 80", "[::]:8001 -> 80"]);
            assert_eq!(
                ask("").unwrap_err().to_string(),
                "failed to bind host port 0.0.0.0:8001/tcp: address already in use"
            );
            // All or nothing: the address that was free is free again.
            let ours = |_: Protocol, address: SocketAddr| Some(address.ip());
            let range = request("127.0.0.2", Some(8000..=8001), 80);
            let more = [range, request("127.0.0.1", Some(8000..=8000), 81)];
            let err = ports.bind(&more, ANYWHERE, ours).unwrap_err();
            assert_eq!(
                err.to_string(),
                "Bind for 127.0.0.1:8000 failed: port is already allocated"
            );
            assert!(std::net::TcpListener::bind("127.0.0.2:8000").is_ok());
        });
    }

    #[test]
    fn who_shares_does_not_get_in() {
        alone(|| {
            let ports = Ports::default();
            let exact =
                |protocol, ip: &str| PortRequest { protocol, ..request(ip, Some(5000..=5000), 53) };
            let requests = [exact(Protocol::Tcp, ""), exact(Protocol::Udp, "")];
            let bound = ports.bind(&requests, ANYWHERE, nobody).unwrap();
            assert_eq!(bound.len(), 4);
            for (kind, number) in
                [(SocketType::STREAM, ipproto::TCP), (SocketType::DGRAM, ipproto::UDP)]
            {
                let thief =
                    socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, Some(number))
                        .unwrap();
                set_socket_reuseaddr(&thief, true).unwrap();
                let address: SocketAddr = "127.0.0.1:5000".parse().unwrap();
                let taken = bind(&thief, &address).and_then(|()| listen(&thief, 1));
                assert_eq!(taken.unwrap_err(), rustix::io::Errno::ADDRINUSE);
            }
            drop(bound);
            assert_eq!(ports.bind(&requests, ANYWHERE, nobody).unwrap().len(), 4);
        });
    }

    #[test]
    fn words_of_refusals() {
        alone(|| {
            let ports = Ports::default();
            let words = |request| ports.bind(&[request], ANYWHERE, nobody).unwrap_err().to_string();
            assert_eq!(
                words(request("10.9.9.9", Some(80..=80), 80)),
                "failed to bind host port 10.9.9.9:80/tcp: cannot assign requested address"
            );
            assert_eq!(
                words(request("fd00::9", Some(80..=80), 80)),
                "failed to bind host port [fd00::9]:80/tcp: cannot assign requested address"
            );
        });
    }
}
