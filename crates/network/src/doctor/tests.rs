//! Facts, and what is said of them.

use std::sync::Arc;

use expect_test::{Expect, expect};
use stdx::Id;

use super::facts::Judge;
use super::*;
use crate::firewall::elements_of_port;
use crate::firewall::view::{Rules, ports_of};
use crate::records::{BridgeDevice, DriverKind, IpamPool, Protocol};

fn bridge(change: impl FnOnce(&mut Network)) -> Network {
    let mut network = Network::new("front", DriverKind::Bridge);
    network.ipam.config = vec![IpamPool::new("172.18.0.0/16".parse().unwrap())];
    network.bridge = Some(BridgeDevice { name: "br-1".to_owned(), ..BridgeDevice::default() });
    change(&mut network);
    network
}

/// A host in good health, and a container whose port 80 is published there.
fn healthy(network: Network, host: &str) -> Facts {
    let host: std::net::SocketAddr = host.parse().unwrap();
    let mut endpoint = Endpoint::new(&network, &Id::random(), "web");
    endpoint.ip = Some([172, 18, 0, 2].into());
    endpoint.ports = vec![PublishedPort {
        protocol: Protocol::Tcp,
        container_port: 80,
        host_ip: host.ip(),
        host_port: host.port(),
    }];
    let mut facts = Facts {
        forwarding: [true, true],
        addresses: vec!["192.168.1.2".parse().unwrap()],
        routes: vec![("172.18.0.0/16".parse().unwrap(), "br-1".to_owned())],
        default_routes: 1,
        uplink: Some(("eth0".to_owned(), 1500)),
        resolvers: vec![("192.168.1.1".parse().unwrap(), true)],
        ..Facts::default()
    };
    let ports = ports_of(&network, &endpoint);
    facts.elements = ports.flat_map(|port| elements_of_port(&port, &facts.choices)).collect();
    facts.networks = vec![Arc::new(network)];
    facts.endpoints = vec![Arc::new(endpoint)];
    facts
}

#[track_caller]
fn check(facts: &Facts, expected: Expect) {
    let report = report(facts);
    let mut lines: Vec<String> = Vec::new();
    lines.extend(
        report
            .networks
            .iter()
            .map(|one| format!("{}: {} | {}", one.name, one.reaches, one.reached_by)),
    );
    lines.extend(
        report.ports.iter().map(|one| format!("{}:{} {:?}", one.host_ip, one.host_port, one.reach)),
    );
    lines.extend(
        report
            .findings
            .iter()
            .map(|one| format!("{:?} {}: {}", one.level, one.subject, one.problem)),
    );
    expected.assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn nothing_is_wrong() {
    check(
        &healthy(bridge(|_| {}), "127.0.0.1:8080"),
        expect![[r#"
        front: each other, everything | this host, everybody at published ports
        127.0.0.1:8080 Host
    "#]],
    );
    check(
        &healthy(bridge(|_| {}), "0.0.0.0:8080"),
        expect![[r#"
        front: each other, everything | this host, everybody at published ports
        0.0.0.0:8080 Lan
    "#]],
    );
}

#[test]
fn who_reaches_what() {
    let mut public = healthy(bridge(|_| {}), "0.0.0.0:8080");
    public.addresses.push("198.51.100.7".parse().unwrap());
    check(
        &public,
        expect![[r#"
        front: each other, everything | this host, everybody at published ports
        0.0.0.0:8080 Anywhere
        Warning web 80/tcp: 0.0.0.0:8080 is reachable from the internet: publish on 127.0.0.1 or one address if that is not meant
    "#]],
    );
    let narrow = bridge(|network| {
        network.egress = Some(Egress::Only(vec!["example.com:443".parse().unwrap()]));
        network.bridge.as_mut().unwrap().icc = false;
    });
    check(
        &healthy(narrow, "192.168.1.2:80"),
        expect![[r#"
        front: example.com:443 | this host, everybody at published ports
        192.168.1.2:80 Lan
    "#]],
    );
    let inner = bridge(|network| network.internal = true);
    let mut inner = healthy(inner, "0.0.0.0:1");
    inner.endpoints.clear();
    check(
        &inner,
        expect![[r#"
        front: each other, this host | this host
    "#]],
    );
}

#[test]
fn what_stands_in_the_way() {
    let mut facts =
        healthy(bridge(|network| network.bridge.as_mut().unwrap().mtu = 9000), "0.0.0.0:8080");
    facts.elements.clear();
    facts.forwarding = [false, false];
    facts.routes.push(("172.18.5.0/24".parse().unwrap(), "vpn0".to_owned()));
    facts.resolvers = vec![("127.0.0.53".parse().unwrap(), false)];
    let refusals =
        |chain: &str, everything| Refusals { chain: chain.to_owned(), rules: 2, everything };
    facts.refusals =
        vec![refusals("ip filter DOCKER-USER", false), refusals("ip6 filter DOCKER-USER", true)];
    (facts.unowned, facts.legacy, facts.filtered, facts.ufw) = (true, true, true, true);
    facts.strict = vec!["eth0".to_owned()];
    facts.default_routes = 2;
    check(
        &facts,
        expect![[r#"
        front: each other, everything | this host, everybody at published ports
        0.0.0.0:8080 Nobody
        Broken front: the host does not forward IPv4 packets: nothing leaves it
        Broken host: no name server of the host answers: 127.0.0.53
        Broken web 80/tcp: the firewall has no rule that leads 0.0.0.0:8080 to it
        Warning front: its subnet 172.18.0.0/16 overlaps the host's route 172.18.5.0/24 by vpn0
        Warning front: its MTU of 9000 is larger than that of eth0, 1500: long packets may be lost on the way
        Warning host: this kernel cannot let our firewall table have an owner: whoever flushes it opens all networks until it is set again
        Warning host: iptables-legacy filters here, of which nothing can be said: see iptables-legacy -S FORWARD
        Warning host: chain ip6 filter DOCKER-USER refuses whatever its rules before do not let through
        Warning host: eth0 drops what came by another way than the answer takes (rp_filter=1), and there are 2 default routes
        Note host: chain ip filter DOCKER-USER refuses some of what is forwarded, by 2 of its rules
        Note host: what bridges carry is filtered like what is forwarded (bridge-nf-call-iptables)
        Note host: the host's name servers listen on its loopback: containers on the default bridge cannot ask them, those on networks of their own ask through ours
    "#]],
    );
}

#[test]
fn what_others_drop() {
    let judge = |let_through: &[&str]| Judge {
        name: "ip filter FORWARD".to_owned(),
        drops: true,
        let_through: let_through.iter().map(|&name| name.to_owned()).collect(),
    };
    let mut facts = healthy(bridge(|_| {}), "0.0.0.0:8080");
    facts.judges = vec![(false, judge(&["br-1"])), (true, judge(&[]))];
    check(
        &facts,
        expect![[r#"
        front: each other, everything | this host, everybody at published ports
        0.0.0.0:8080 Lan
    "#]],
    );
    // Who has no such address is served by the host.
    let by_the_host = Facts { ufw: true, ..healthy(bridge(|_| {}), "[::]:8080") };
    check(
        &Facts { judges: vec![(true, judge(&[]))], ..by_the_host },
        expect![[r#"
        front: each other, everything | this host, everybody at published ports
        :::8080 Lan
        Note web 80/tcp: ufw judges it as a port of the host itself, which serves it for a container without such an address
    "#]],
    );
    facts.judges = vec![(false, judge(&["br-2"]))];
    check(
        &facts,
        expect![[r#"
        front: each other, everything | this host, everybody at published ports
        0.0.0.0:8080 Nobody
        Broken front: chain ip filter FORWARD drops what is forwarded, and does not let br-1 through
        Broken web 80/tcp: chain ip filter FORWARD drops what is forwarded, and does not let br-1 through
    "#]],
    );
    facts.judges.clear();
    facts.choices.ipv4 = Rules::Nobodys;
    check(
        &facts,
        expect![[r#"
        front: each other, everything | this host, everybody at published ports
        0.0.0.0:8080 Lan
        Note web 80/tcp: the firewall is not ours (--iptables=false): who reaches it is up to others
    "#]],
    );
}

#[test]
fn what_is_said_of_firewalld() {
    let said = |standing| {
        let facts = Facts { firewalld: standing, ..healthy(bridge(|_| {}), "192.168.1.2:80") };
        let findings = report(&facts).findings.into_iter();
        findings.map(|one| (one.level, one.problem)).collect::<Vec<_>>()
    };
    assert_eq!(said(Standing::Absent), []);
    let (level, problem) = said(Standing::Silent("no answer".to_owned())).remove(0);
    assert_eq!(level, Level::Warning);
    assert_eq!(problem, "firewalld does not know of our bridges: no answer");
    let elsewhere = [("br-1".to_owned(), "trusted".to_owned())].into();
    let findings = said(Standing::Follows { elsewhere });
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(findings[0].1.starts_with("br-1 is in firewalld's zone trusted"), "{findings:?}");
    assert_eq!(findings[1].0, Level::Note);
}
