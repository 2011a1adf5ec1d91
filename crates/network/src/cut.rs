//! Rules that become stricter hold for what is open, too: flows that would not begin any more are forgotten, and their next
//! packet is judged like a first one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::conntrack::forget_all;
use crate::egress::{Allowed, Whom};
use crate::firewall::grants::Grant;
use crate::firewall::view::Guard;
use crate::model::Model;
use crate::netlink::conntrack::{Flow, number};
use crate::networks::Core;
use crate::records::{Endpoint, Network, Protocol};

/// What an endpoint may reach, as the firewall has it.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    from: Vec<IpAddr>,
    allowed: Vec<Allowed>,
    /// Its neighbours are inside, but for the host among them.
    home: Vec<IpNet>,
    host: Vec<IpAddr>,
    granted: Vec<Grant>,
}

impl Reach {
    fn of(network: &Network, guard: Guard) -> Self {
        let bridge = network.bridge.as_ref();
        let v4 = bridge.and_then(|bridge| bridge.address).map(|address| address.addr().into());
        let v6 = bridge.and_then(|bridge| bridge.address6).map(|address| address.addr().into());
        Self {
            from: guard.addresses,
            allowed: guard.allowed,
            home: network.ipam.config.iter().map(|pool| pool.subnet).collect(),
            host: v4.into_iter().chain(v6).collect(),
            granted: Vec::new(),
        }
    }

    /// Whether all that was allowed still is: then nothing that is open has to go, whatever name it was opened by.
    fn is_as_wide_as(&self, before: &[Allowed]) -> bool {
        before.iter().all(|one| self.allowed.contains(one))
    }

    /// Whether a flow is of this endpoint and would not begin any more.
    fn forbids(&self, flow: &Flow) -> bool {
        self.from.contains(&flow.original.source.ip())
            && !self.lets(flow.protocol, flow.original.target)
    }

    fn lets(&self, protocol: u8, target: SocketAddr) -> bool {
        let by = |port: &Option<(Protocol, u16)>| {
            port.is_none_or(|(wanted, port)| number(wanted) == protocol && port == target.port())
        };
        let listed = |one: &Allowed| match one.whom {
            Whom::Addresses(subnet) => subnet.contains(&target.ip()) && by(&one.port),
            Whom::Name(_) | Whom::Below(_) => false,
        };
        let neighbour = || {
            self.home.iter().any(|subnet| subnet.contains(&target.ip()))
                && !self.host.contains(&target.ip())
        };
        self.allowed.iter().any(listed)
            || neighbour()
            || self.granted.iter().any(|grant| grant.to == target.ip() && by(&grant.port))
    }
}

impl Model {
    /// What the endpoints that somebody restricts may reach.
    pub(crate) fn reaches(&self, endpoints: &[Arc<Endpoint>]) -> Vec<Reach> {
        let reach = |endpoint: &Arc<Endpoint>| {
            let network = self.networks.get(&endpoint.network_id)?;
            Some(Reach::of(network, Guard::of(network, endpoint)?))
        };
        endpoints.iter().filter_map(reach).collect()
    }
}

impl Core {
    /// What endpoints have open and may not reach any more ends. `before` is what was let out, `granted` what answers have
    /// opened and still is.
    pub(crate) fn cut(&self, endpoints: &[Arc<Endpoint>], before: &[Reach], granted: &[Grant]) {
        let mut reaches = self.model().reaches(endpoints);
        reaches.retain(|reach| {
            let known = before.iter().find(|before| before.from == reach.from);
            !known.is_some_and(|before| reach.is_as_wide_as(&before.allowed))
        });
        for reach in &mut reaches {
            let of_this = granted.iter().filter(|grant| reach.from.contains(&grant.from));
            reach.granted = of_this.cloned().collect();
        }
        if !reaches.is_empty() {
            forget_all(|flow| reaches.iter().any(|reach| reach.forbids(flow)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rules: &[&str], target: &str, stays: bool) {
        let reach = Reach {
            from: vec!["10.0.0.2".parse().unwrap()],
            allowed: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
            home: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
            host: vec!["10.0.0.1".parse().unwrap()],
            granted: vec![Grant {
                from: "10.0.0.2".parse().unwrap(),
                to: "192.0.2.7".parse().unwrap(),
                port: Some((Protocol::Tcp, 443)),
                name: "example.com".to_owned(),
            }],
        };
        let (protocol, target) = target.split_once(' ').unwrap();
        let protocol = number(protocol.parse().unwrap());
        assert_eq!(reach.lets(protocol, target.parse().unwrap()), stays, "{rules:?} {target}");
    }

    #[test]
    fn what_stays_open() {
        check(&[], "tcp 192.0.2.1:80", false);
        check(&["192.0.2.0/24"], "udp 192.0.2.1:80", true);
        check(&["192.0.2.0/24:80"], "tcp 192.0.2.1:80", true);
        check(&["192.0.2.0/24:80"], "udp 192.0.2.1:80", false);
        check(&["192.0.2.0/24:80"], "tcp 192.0.2.1:81", false);
        check(&["[2001:db8::/32]:53/udp"], "udp [2001:db8::1]:53", true);
        check(&["[2001:db8::/32]:53/udp"], "udp [2001:db9::1]:53", false);
        // Neighbours, the host among them, and what an answer has opened.
        check(&[], "tcp 10.0.0.9:80", true);
        check(&[], "tcp [fd00::9]:80", true);
        check(&[], "tcp 10.0.0.1:80", false);
        check(&["10.0.0.1"], "tcp 10.0.0.1:80", true);
        check(&["example.com:443"], "tcp 192.0.2.7:443", true);
        check(&["example.com:443"], "tcp 192.0.2.7:80", false);
    }

    #[test]
    fn what_is_wider() {
        let reach = |rules: &[&str]| Reach {
            allowed: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
            ..Reach::default()
        };
        let before = reach(&["example.com", "10.0.0.0/8"]).allowed;
        assert!(reach(&["10.0.0.0/8", "example.com", "192.0.2.1"]).is_as_wide_as(&before));
        assert!(!reach(&["10.0.0.0/8"]).is_as_wide_as(&before));
    }
}
