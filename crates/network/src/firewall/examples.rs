//! Views to look at, and what becomes of them: as text, and in the kernel.

use std::os::fd::AsFd;
use std::process::Command;

use expect_test::{Expect, expect};
use sys::ns::unshare;
use sys::process::CloneFlags;

use super::grants::{Grant, Opener};
use super::leash::of_frames;
use super::nft::{self, Change, Ownership};
use super::rules::{Kinds, of_port, render};
use super::ruleset::{Chain, Connection, Family as TableFamily, Rule, Ruleset, Term};
use super::view::{
    Bridge, Choices, Family, Guard, Link, Localhost, Mark, Overlay, Port, Rules, View,
};
use crate::netlink::Socket;
use crate::records::{GatewayMode, Mac, Protocol};

fn family(subnet: &str) -> Family {
    Family {
        subnets: vec![subnet.parse().unwrap()],
        mode: GatewayMode::Nat,
        masquerade: true,
        addressed: true,
    }
}

fn bridge(name: &str, subnet: &str) -> Bridge {
    Bridge {
        name: name.to_owned(),
        icc: true,
        internal: false,
        ipv4: Some(family(subnet)),
        ipv6: None,
        trusted: Vec::new(),
    }
}

/// Two containers that may not reach everything.
fn leashed() -> View {
    let guard = |device: &str, addresses: &[&str], allowed: &[&str]| Guard {
        device: device.to_owned(),
        mac: Mac([2, 0x42, 0xac, 0x12, 0, 2]),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        allowed: allowed.iter().map(|rule| rule.parse().unwrap()).collect(),
    };
    let some =
        ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.1:53/udp", "[2001:db8::/32]:443", "example.com"];
    let guards = vec![
        guard("veth0000001", &["172.18.0.2", "fd00:18::2"], &some),
        guard("veth0000002", &["172.18.0.3"], &[]),
    ];
    View { bridges: vec![both("br-1", "172.18.0.0/16", "fd00:18::/64")], guards, ..View::default() }
}

fn both(name: &str, subnet: &str, subnet6: &str) -> Bridge {
    Bridge { ipv6: Some(family(subnet6)), ..bridge(name, subnet) }
}

/// The default bridge and one change to it.
fn gantry0(change: impl FnOnce(&mut Bridge)) -> View {
    let mut bridge = bridge("gantry0", "172.17.0.0/16");
    change(&mut bridge);
    View { bridges: vec![bridge], ..View::default() }
}

fn choosing(choices: Choices) -> View {
    View { choices, ..gantry0(|_| {}) }
}

fn port(protocol: Protocol, host: &str, container: &str) -> Port {
    let ends = |text: &str| {
        let address: std::net::SocketAddr = text.parse().unwrap();
        (address.ip(), address.port())
    };
    Port {
        bridge: "br-1".to_owned(),
        protocol,
        host: ends(host),
        container: ends(container),
        mode: GatewayMode::Nat,
    }
}

fn published(localhost: Localhost) -> View {
    use Protocol::{Sctp, Tcp, Udp};
    let ports = [
        port(Tcp, "0.0.0.0:8080", "172.18.0.2:80"),
        port(Tcp, "[::]:8080", "[fd00:18::2]:80"),
        port(Udp, "192.0.2.1:53", "172.18.0.2:53"),
        port(Sctp, "[2001:db8::1]:9", "[fd00:18::2]:9"),
        port(Tcp, "127.0.0.1:5432", "172.18.0.3:5432"),
        port(Tcp, "[::1]:5432", "[fd00:18::3]:5432"),
    ];
    View {
        bridges: vec![both("br-1", "172.18.0.0/16", "fd00:18::/64")],
        ports: ports.into(),
        choices: Choices { localhost, ..Choices::default() },
        ..View::default()
    }
}

fn of_several_hosts() -> View {
    let overlay = |vni, peers: &[[u8; 4]]| Overlay {
        vni,
        peers: peers.iter().map(|peer| (*peer).into()).collect(),
    };
    let overlays =
        vec![overlay(4096, &[[192, 0, 2, 2], [192, 0, 2, 3]]), overlay(4097, &[[192, 0, 2, 3]])];
    View { overlays, ..gantry0(|_| {}) }
}

fn linked() -> View {
    let link = |protocol, port| Link {
        bridge: "gantry0".to_owned(),
        from: [172, 17, 0, 3].into(),
        to: ([172, 17, 0, 2].into(), port),
        protocol,
    };
    let links = [link(Protocol::Tcp, 6379), link(Protocol::Udp, 53)].into();
    View { links, ..gantry0(|bridge| bridge.icc = false) }
}

fn routed() -> View {
    let mut bridge = both("br-1", "172.18.0.0/16", "fd00:18::/64");
    for family in [&mut bridge.ipv4, &mut bridge.ipv6] {
        family.as_mut().unwrap().mode = GatewayMode::Routed;
    }
    let mode = GatewayMode::Routed;
    let port = Port { mode, ..port(Protocol::Tcp, "0.0.0.0:0", "172.18.0.2:80") };
    View { bridges: vec![bridge], ports: [port].into(), ..View::default() }
}

fn mode(mode: GatewayMode) -> View {
    gantry0(|bridge| bridge.ipv4.as_mut().unwrap().mode = mode)
}

fn isolated() -> View {
    gantry0(|bridge| {
        bridge.internal = true;
        let family = bridge.ipv4.as_mut().unwrap();
        (family.mode, family.addressed) = (GatewayMode::Isolated, false);
    })
}

fn several() -> View {
    let internal = Bridge { internal: true, ..bridge("br-2", "172.19.0.0/16") };
    let bridges = vec![
        bridge("gantry0", "172.17.0.0/16"),
        both("br-1", "172.18.0.0/16", "fd00:18::/64"),
        internal,
    ];
    View { bridges, ..View::default() }
}

fn only_ipv6() -> View {
    let mut view = gantry0(|_| {});
    view.bridges[0].ipv6 = Some(family("fd00:17::/64"));
    view.bridges[0].ipv4 = None;
    view
}

/// What is in the sets, and which rules are not those of the default bridge.
fn picture(view: &View) -> String {
    let usual = render("gantry", &gantry0(|_| {}));
    let ruleset = render("gantry", view);
    let filled = ruleset.sets.iter().filter(|set| !set.elements.is_empty());
    let mut lines: Vec<String> = filled
        .map(|set| {
            let elements: Vec<String> = set.elements.keys().map(ToString::to_string).collect();
            format!("{}: {}", set.name, elements.join(", "))
        })
        .collect();
    for (chain, usual) in ruleset.chains.iter().zip(&usual.chains) {
        let less = usual.rules.iter().filter(|rule| !chain.rules.contains(rule));
        let more = chain.rules.iter().filter(|rule| !usual.rules.contains(rule));
        lines.extend(less.map(|rule| format!("{} - {rule}", chain.name)));
        lines.extend(more.map(|rule| format!("{} + {rule}", chain.name)));
    }
    lines.join("\n") + "\n"
}

#[track_caller]
fn check(view: &View, expected: Expect) {
    expected.assert_eq(&picture(view));
}

#[test]
fn the_default_bridge_in_full() {
    expect![[r#"
        table inet gantry {
        	set overlays {
        		type ipv4_addr
        	}

        	set peers {
        		type ipv4_addr . ipv4_addr
        	}

        	set peers6 {
        		type ipv6_addr . ipv4_addr
        	}

        	set bridges {
        		type ifname
        		elements = { "gantry0" }
        	}

        	set icc {
        		type ifname . ifname
        		elements = { "gantry0" . "gantry0" }
        	}

        	set linked4 {
        		type ifname . ipv4_addr . ipv4_addr . inet_proto . inet_service
        	}

        	set internal {
        		type ifname
        	}

        	set trusted {
        		type ifname . ifname
        	}

        	set strangers4 {
        		type ifname
        	}

        	set strangers6 {
        		type ifname
        	}

        	set without4 {
        		type ifname
        	}

        	set without6 {
        		type ifname
        		elements = { "gantry0" }
        	}

        	set addressed4 {
        		type ifname
        		elements = { "gantry0" }
        	}

        	set addressed6 {
        		type ifname
        	}

        	set open4 {
        		type ifname
        	}

        	set open6 {
        		type ifname
        	}

        	set direct4 {
        		type ifname
        	}

        	set direct6 {
        		type ifname
        	}

        	set routed4 {
        		type ifname
        	}

        	set routed6 {
        		type ifname
        	}

        	set home4 {
        		type ipv4_addr . ifname
        		flags interval
        		elements = { 172.17.0.0/16 . "gantry0" }
        	}

        	set home6 {
        		type ipv6_addr . ifname
        		flags interval
        	}

        	set masquerade4 {
        		type ipv4_addr
        		flags interval
        		elements = { 172.17.0.0/16 }
        	}

        	set masquerade6 {
        		type ipv6_addr
        		flags interval
        	}

        	set published4 {
        		type ipv4_addr . inet_proto . inet_service
        	}

        	set published6 {
        		type ipv6_addr . inet_proto . inet_service
        	}

        	map ports4 {
        		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
        	}

        	map ports6 {
        		type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
        	}

        	map wildcard4 {
        		type inet_proto . inet_service : ipv4_addr . inet_service
        	}

        	map wildcard6 {
        		type inet_proto . inet_service : ipv6_addr . inet_service
        	}

        	map localhost4 {
        		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
        	}

        	chain guard {
        		type filter hook prerouting priority mangle; policy accept;
        		ip daddr 127.0.0.0/8 iifname != "lo" drop
        		meta nfproto ipv6 iifname @without6 drop
        		ct state established,related accept
        		meta nfproto ipv4 ct state invalid,new iifname @addressed4 fib saddr . iif oif missing drop
        		meta nfproto ipv6 ct state invalid,new iifname @addressed6 fib saddr . iif oif missing drop
        	}

        	chain prerouting {
        		type nat hook prerouting priority dstnat; policy accept;
        		dnat ip to ip daddr . meta l4proto . th dport map @ports4
        		dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6
        		meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @wildcard4
        		meta nfproto ipv6 fib daddr type local dnat ip6 to meta l4proto . th dport map @wildcard6
        	}

        	chain output {
        		type nat hook output priority -100; policy accept;
        		ip daddr 127.0.0.0/8 accept
        		ip6 daddr ::1 accept
        		dnat ip to ip daddr . meta l4proto . th dport map @ports4
        		dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6
        		meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @wildcard4
        		meta nfproto ipv6 fib daddr type local dnat ip6 to meta l4proto . th dport map @wildcard6
        	}

        	chain forward {
        		type filter hook forward priority filter; policy accept;
        		ct state established,related accept
        		oifname @bridges goto inward
        		meta nfproto ipv4 iifname @strangers4 oifname @strangers4 drop
        		meta nfproto ipv6 iifname @strangers6 oifname @strangers6 drop
        	}

        	chain inward {
        		iifname . oifname @icc accept
        		iifname . ip saddr . ip daddr . meta l4proto . th dport @linked4 accept
        		iifname @internal drop
        		oifname @internal drop
        		meta nfproto ipv4 oifname @open4 accept
        		meta l4proto icmp oifname @routed4 accept
        		ip daddr . meta l4proto . th dport @published4 goto asked
        		meta nfproto ipv6 oifname @open6 accept
        		meta l4proto ipv6-icmp oifname @routed6 accept
        		ip6 daddr . meta l4proto . th dport @published6 goto asked
        		drop
        	}

        	chain asked {
        		ct status dnat accept
        		iifname . oifname @trusted accept
        		meta nfproto ipv4 oifname @direct4 accept
        		meta nfproto ipv6 oifname @direct6 accept
        		drop
        	}

        	chain redirect {
        		type filter hook output priority filter; policy accept;
        		icmp type redirect oifname @bridges drop
        		icmpv6 type nd-redirect oifname @bridges drop
        	}

        	chain postrouting {
        		type nat hook postrouting priority srcnat; policy accept;
        		ip saddr 127.0.0.0/8 oifname @bridges masquerade
        		ip saddr @masquerade4 ip saddr . oifname != @home4 masquerade
        		ct status dnat ip saddr . oifname @home4 masquerade
        		ip6 saddr @masquerade6 ip6 saddr . oifname != @home6 masquerade
        		ct status dnat ip6 saddr . oifname @home6 masquerade
        	}
        }
    "#]].assert_eq(&render("gantry", &gantry0(|_| {})).to_string());
}

#[test]
fn what_linked_containers_may() {
    check(
        &linked(),
        expect![[r#"
        bridges: "gantry0"
        linked4: "gantry0" . 172.17.0.3 . 172.17.0.2 . tcp . 6379, "gantry0" . 172.17.0.3 . 172.17.0.2 . udp . 53
        without6: "gantry0"
        addressed4: "gantry0"
        home4: 172.17.0.0/16 . "gantry0"
        masquerade4: 172.17.0.0/16
    "#]],
    );
}

#[test]
fn what_a_bridge_may() {
    check(
        &gantry0(|bridge| bridge.icc = false),
        expect![[r#"
        bridges: "gantry0"
        without6: "gantry0"
        addressed4: "gantry0"
        home4: 172.17.0.0/16 . "gantry0"
        masquerade4: 172.17.0.0/16
    "#]],
    );
    check(
        &gantry0(|bridge| bridge.internal = true),
        expect![[r#"
            bridges: "gantry0"
            icc: "gantry0" . "gantry0"
            internal: "gantry0"
            without6: "gantry0"
            addressed4: "gantry0"
            home4: 172.17.0.0/16 . "gantry0"
            guard + iifname @internal fib daddr type local fib daddr . iif type != local drop
            forward + iifname @internal oifname != @bridges drop
        "#]],
    );
    check(
        &gantry0(|bridge| bridge.ipv4.as_mut().unwrap().masquerade = false),
        expect![[r#"
        bridges: "gantry0"
        icc: "gantry0" . "gantry0"
        without6: "gantry0"
        addressed4: "gantry0"
        home4: 172.17.0.0/16 . "gantry0"
    "#]],
    );
    check(
        &gantry0(|bridge| bridge.trusted = vec!["eth1".to_owned()]),
        expect![[r#"
        bridges: "gantry0"
        icc: "gantry0" . "gantry0"
        trusted: "eth1" . "gantry0"
        without6: "gantry0"
        addressed4: "gantry0"
        home4: 172.17.0.0/16 . "gantry0"
        masquerade4: 172.17.0.0/16
    "#]],
    );
}

#[test]
fn gateway_modes() {
    check(
        &mode(GatewayMode::NatUnprotected),
        expect![[r#"
        bridges: "gantry0"
        icc: "gantry0" . "gantry0"
        without6: "gantry0"
        addressed4: "gantry0"
        open4: "gantry0"
        home4: 172.17.0.0/16 . "gantry0"
        masquerade4: 172.17.0.0/16
    "#]],
    );
    check(
        &routed(),
        expect![[r#"
            bridges: "br-1"
            icc: "br-1" . "br-1"
            addressed4: "br-1"
            addressed6: "br-1"
            direct4: "br-1"
            direct6: "br-1"
            routed4: "br-1"
            routed6: "br-1"
            home4: 172.18.0.0/16 . "br-1"
            home6: fd00:18::/64 . "br-1"
            published4: 172.18.0.2 . tcp . 80
            guard - meta nfproto ipv6 iifname @without6 drop
        "#]],
    );
    check(
        &isolated(),
        expect![[r#"
            bridges: "gantry0"
            icc: "gantry0" . "gantry0"
            internal: "gantry0"
            without6: "gantry0"
            home4: 172.17.0.0/16 . "gantry0"
            guard + iifname @internal fib daddr type local fib daddr . iif type != local drop
            forward + iifname @internal oifname != @bridges drop
        "#]],
    );
}

#[test]
fn several_networks() {
    check(
        &several(),
        expect![[r#"
            bridges: "br-1", "br-2", "gantry0"
            icc: "br-1" . "br-1", "br-2" . "br-2", "gantry0" . "gantry0"
            internal: "br-2"
            without6: "br-2", "gantry0"
            addressed4: "br-1", "br-2", "gantry0"
            addressed6: "br-1"
            home4: 172.17.0.0/16 . "gantry0", 172.18.0.0/16 . "br-1", 172.19.0.0/16 . "br-2"
            home6: fd00:18::/64 . "br-1"
            masquerade4: 172.17.0.0/16, 172.18.0.0/16
            masquerade6: fd00:18::/64
            guard + iifname @internal fib daddr type local fib daddr . iif type != local drop
            forward + iifname @internal oifname != @bridges drop
        "#]],
    );
    check(
        &of_several_hosts(),
        expect![[r#"
            overlays: 0.16.0.0, 0.16.1.0
            peers: 192.0.2.2 . 0.16.0.0, 192.0.2.3 . 0.16.0.0, 192.0.2.3 . 0.16.1.0
            bridges: "gantry0"
            icc: "gantry0" . "gantry0"
            without6: "gantry0"
            addressed4: "gantry0"
            home4: 172.17.0.0/16 . "gantry0"
            masquerade4: 172.17.0.0/16
            guard + udp dport 4789 @th,96,32 @overlays ip saddr . @th,96,32 != @peers drop
            guard + udp dport 4789 @th,96,32 @overlays ip6 saddr . @th,96,32 != @peers6 drop
        "#]],
    );
    check(
        &only_ipv6(),
        expect![[r#"
            bridges: "gantry0"
            icc: "gantry0" . "gantry0"
            without4: "gantry0"
            addressed6: "gantry0"
            home6: fd00:17::/64 . "gantry0"
            masquerade6: fd00:17::/64
            guard - meta nfproto ipv6 iifname @without6 drop
            guard + meta nfproto ipv4 iifname @without4 drop
        "#]],
    );
}

/// Packets of a conversation that somebody else began are judged by what comes before they are let through.
#[test]
fn what_is_asked_of_every_packet() {
    let mut view = several();
    view.overlays = of_several_hosts().overlays;
    let ruleset = render("gantry", &view);
    let chains = ruleset.chains.iter().filter(|chain| ["guard", "forward"].contains(&chain.name));
    let known = Rule(vec![Term::Connection(Connection::Established), Term::Accept]);
    let asked = |chain: &Chain| {
        let rules = chain.rules.iter().take_while(|rule| **rule != known);
        rules.map(|rule| format!("{}: {rule}\n", chain.name)).collect::<String>()
    };
    expect![[r#"
        guard: ip daddr 127.0.0.0/8 iifname != "lo" drop
        guard: meta nfproto ipv6 iifname @without6 drop
        guard: iifname @internal fib daddr type local fib daddr . iif type != local drop
        guard: udp dport 4789 @th,96,32 @overlays ip saddr . @th,96,32 != @peers drop
        guard: udp dport 4789 @th,96,32 @overlays ip6 saddr . @th,96,32 != @peers6 drop
        forward: iifname @internal oifname != @bridges drop
    "#]]
    .assert_eq(&chains.map(asked).collect::<String>());
}

#[test]
fn ports() {
    check(
        &published(Localhost::Kernel),
        expect![[r#"
            bridges: "br-1"
            icc: "br-1" . "br-1"
            addressed4: "br-1"
            addressed6: "br-1"
            home4: 172.18.0.0/16 . "br-1"
            home6: fd00:18::/64 . "br-1"
            masquerade4: 172.18.0.0/16
            masquerade6: fd00:18::/64
            published4: 172.18.0.2 . tcp . 80, 172.18.0.2 . udp . 53
            published6: fd00:18::2 . tcp . 80, fd00:18::2 . sctp . 9
            ports4: 192.0.2.1 . udp . 53 : 172.18.0.2 . 53
            ports6: 2001:db8::1 . sctp . 9 : fd00:18::2 . 9
            wildcard4: tcp . 8080 : 172.18.0.2 . 80
            wildcard6: tcp . 8080 : fd00:18::2 . 80
            localhost4: 127.0.0.1 . tcp . 5432 : 172.18.0.3 . 5432
            guard - meta nfproto ipv6 iifname @without6 drop
            output - ip daddr 127.0.0.0/8 accept
            output + dnat ip to ip daddr . meta l4proto . th dport map @localhost4
        "#]],
    );
    check(
        &published(Localhost::Proxy),
        expect![[r#"
            bridges: "br-1"
            icc: "br-1" . "br-1"
            addressed4: "br-1"
            addressed6: "br-1"
            home4: 172.18.0.0/16 . "br-1"
            home6: fd00:18::/64 . "br-1"
            masquerade4: 172.18.0.0/16
            masquerade6: fd00:18::/64
            published4: 172.18.0.2 . tcp . 80, 172.18.0.2 . udp . 53
            published6: fd00:18::2 . tcp . 80, fd00:18::2 . sctp . 9
            ports4: 192.0.2.1 . udp . 53 : 172.18.0.2 . 53
            ports6: 2001:db8::1 . sctp . 9 : fd00:18::2 . 9
            wildcard4: tcp . 8080 : 172.18.0.2 . 80
            wildcard6: tcp . 8080 : fd00:18::2 . 80
            guard - meta nfproto ipv6 iifname @without6 drop
        "#]],
    );
}

#[test]
fn choices_of_the_host() {
    let direct = Choices { direct_routing: true, ..Choices::default() };
    check(
        &choosing(direct),
        expect![[r#"
        bridges: "gantry0"
        icc: "gantry0" . "gantry0"
        without6: "gantry0"
        addressed4: "gantry0"
        direct4: "gantry0"
        home4: 172.17.0.0/16 . "gantry0"
        masquerade4: 172.17.0.0/16
    "#]],
    );
    let mark =
        |mask| Choices { accepted_mark: Some(Mark { value: 1, mask }), ..Choices::default() };
    check(
        &choosing(mark(u32::MAX)),
        expect![[r#"
        bridges: "gantry0"
        icc: "gantry0" . "gantry0"
        without6: "gantry0"
        addressed4: "gantry0"
        home4: 172.17.0.0/16 . "gantry0"
        masquerade4: 172.17.0.0/16
        inward + meta mark 0x00000001 accept
    "#]],
    );
    check(
        &choosing(mark(0xff)),
        expect![[r#"
        bridges: "gantry0"
        icc: "gantry0" . "gantry0"
        without6: "gantry0"
        addressed4: "gantry0"
        home4: 172.17.0.0/16 . "gantry0"
        masquerade4: 172.17.0.0/16
        inward + meta mark & 0x000000ff == 0x00000001 accept
    "#]],
    );
    let strangers = [vec!["eth0".to_owned(), "eth1".to_owned()], Vec::new()];
    check(
        &choosing(Choices { strangers, ..Choices::default() }),
        expect![[r#"
            bridges: "gantry0"
            icc: "gantry0" . "gantry0"
            strangers4: "eth0", "eth1"
            without6: "gantry0"
            addressed4: "gantry0"
            home4: 172.17.0.0/16 . "gantry0"
            masquerade4: 172.17.0.0/16
        "#]],
    );
    check(
        &choosing(Choices { ipv6: Rules::Nobodys, ..Choices::default() }),
        expect![[r#"
            bridges: "gantry0"
            icc: "gantry0" . "gantry0"
            without6: "gantry0"
            addressed4: "gantry0"
            home4: 172.17.0.0/16 . "gantry0"
            masquerade4: 172.17.0.0/16
            guard + meta nfproto ipv6 accept
            prerouting + meta nfproto ipv6 accept
            output + meta nfproto ipv6 accept
            forward + meta nfproto ipv6 accept
            redirect + meta nfproto ipv6 accept
            postrouting + meta nfproto ipv6 accept
        "#]],
    );
    check(
        &choosing(Choices { ipv4: Rules::Nobodys, ..Choices::default() }),
        expect![[r#"
            bridges: "gantry0"
            icc: "gantry0" . "gantry0"
            without6: "gantry0"
            addressed4: "gantry0"
            home4: 172.17.0.0/16 . "gantry0"
            masquerade4: 172.17.0.0/16
            guard + meta nfproto ipv4 accept
            prerouting + meta nfproto ipv4 accept
            output + meta nfproto ipv4 accept
            forward + meta nfproto ipv4 accept
            redirect + meta nfproto ipv4 accept
            postrouting + meta nfproto ipv4 accept
        "#]],
    );
}

#[test]
fn nothing_to_say() {
    assert!(render("gantry", &View::default()).is_empty());
    let nobodys = Choices { ipv4: Rules::Nobodys, ipv6: Rules::Nobodys, ..Choices::default() };
    assert!(render("gantry", &choosing(nobodys)).is_empty());
}

#[test]
fn rules_do_not_grow() {
    let rules = |view: &View| -> usize {
        render("gantry", view).chains.iter().map(|chain| chain.rules.len()).sum()
    };
    let mut many = several();
    for number in 0..200u16 {
        let [high, low] = number.to_be_bytes();
        many.bridges.push(bridge(&format!("br-{number}x"), &format!("10.{high}.{low}.0/24")));
        let host = format!("0.0.0.0:{}", 1000 + number);
        many.ports.insert(port(Protocol::Tcp, &host, &format!("10.{high}.{low}.2:80")));
    }
    assert_eq!(rules(&several()), rules(&many));
}

/// A host of its own for as long as the act lasts. Without root there is none: said aloud, not failed.
fn on_a_host(act: impl FnOnce(&mut Socket) + Send) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            unshare(CloneFlags::NEWNET).unwrap();
            act(&mut Socket::netfilter().unwrap());
        });
        host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// The table as nft(8) lists it, without what it says of the owner.
fn listed(family: TableFamily) -> String {
    let words = ["list", "table", &family.to_string(), "gantry"];
    let output = Command::new("nft").args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| line.split(" # progname").next().unwrap());
    let lines = lines.filter(|line| !line.contains("flags owner"));
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    text.replacen("{\n\n", "{\n", 1)
}

/// Elements in the order of their words, and on one line: nft(8) has orders and widths of its own.
fn sorted(text: &str) -> String {
    let mut text = text.replace(",\n", ",");
    while text.contains(",\t") || text.contains(", ") {
        text = text.replace(",\t", ",").replace(", ", ",");
    }
    let sorted = text.lines().map(|line| match line.split_once("elements = { ") {
        None => line.to_owned(),
        Some((indent, rest)) => {
            let mut elements: Vec<&str> = rest.trim_end_matches(" }").split(',').collect();
            elements.sort_unstable();
            format!("{indent}elements = {{ {} }}", elements.join(","))
        }
    });
    let lines: Vec<String> = sorted.collect();
    lines.join("\n")
}

fn examples() -> Vec<View> {
    let marked = Choices {
        accepted_mark: Some(Mark { value: 1, mask: 0xff }),
        strangers: [vec!["eth0".to_owned()], Vec::new()],
        ipv6: Rules::Nobodys,
        ..Choices::default()
    };
    vec![
        gantry0(|_| {}),
        gantry0(|bridge| bridge.trusted = vec!["eth1".to_owned()]),
        several(),
        only_ipv6(),
        of_several_hosts(),
        linked(),
        routed(),
        isolated(),
        mode(GatewayMode::NatUnprotected),
        published(Localhost::Kernel),
        published(Localhost::Proxy),
        leashed(),
        choosing(marked),
        choosing(Choices {
            accepted_mark: Some(Mark { value: 7, mask: u32::MAX }),
            ..Choices::default()
        }),
    ]
}

#[test]
fn nft_reads_what_we_render() {
    on_a_host(|socket| {
        let ownership = Ownership::of_kernel(socket).unwrap();
        for view in examples() {
            let ruleset = render("gantry", &view);
            nft::apply(socket, &ruleset, ownership).unwrap();
            assert_eq!(sorted(&listed(TableFamily::Inet)), sorted(&ruleset.to_string()));
            assert_eq!(nft::difference(socket, &ruleset, ownership).unwrap(), Vec::<String>::new());
        }
        nft::apply(
            socket,
            &Ruleset { table: "gantry".to_owned(), ..Ruleset::default() },
            ownership,
        )
        .unwrap();
        assert!(nft::table(socket, TableFamily::Inet, "gantry").unwrap().is_none());
    });
}

#[test]
fn from_any_example_to_any_other_by_elements() {
    on_a_host(|socket| {
        let choices = Choices { localhost: Localhost::Kernel, ..Choices::default() };
        // Who is on a leash is asked for by rules that others do without.
        let free = examples().into_iter().filter(|view| view.guards.is_empty());
        let views: Vec<View> = free.map(|view| View { choices: choices.clone(), ..view }).collect();
        let mut by_elements = 0;
        for from in &views {
            for to in &views {
                let [before, after] = [from, to].map(|view| render("gantry", view));
                // Other kinds of networks have other rules; those of the same have the same.
                assert_eq!(before.chains == after.chains, Kinds::of(from) == Kinds::of(to));
                if before.chains != after.chains {
                    continue;
                }
                by_elements += usize::from(from != to);
                nft::apply(socket, &before, Ownership::Shared).unwrap();
                let change = super::changes(&before, &after);
                nft::change(socket, TableFamily::Inet, "gantry", &change).unwrap();
                let differences = nft::difference(socket, &after, Ownership::Shared).unwrap();
                assert_eq!(differences, Vec::<String>::new());
            }
        }
        assert!(by_elements > 10, "{by_elements}");
    });
}

#[test]
fn a_port_more_or_less() {
    on_a_host(|socket| {
        let view = published(Localhost::Kernel);
        let mut ruleset = render("gantry", &view);
        nft::apply(socket, &ruleset, Ownership::Shared).unwrap();
        let elements = |ports: &[Port]| {
            ports.iter().flat_map(|port| of_port(port, &view.choices)).collect::<Vec<_>>()
        };
        let again = port(Protocol::Tcp, "0.0.0.0:8081", "172.18.0.2:80");
        let first = port(Protocol::Tcp, "0.0.0.0:8080", "172.18.0.2:80");
        let mut step = |gone: &[Port], new: &[Port]| -> Change {
            let change = ruleset.replace(elements(gone), elements(new));
            nft::change(socket, TableFamily::Inet, "gantry", &change).unwrap();
            let differences = nft::difference(socket, &ruleset, Ownership::Shared).unwrap();
            assert_eq!(differences, Vec::<String>::new());
            change
        };
        assert_eq!(step(&[], std::slice::from_ref(&again)).new.len(), 1, "one more way to it");
        assert_eq!(step(&[first], &[]).gone.len(), 1, "it is still asked for by the other");
        assert_eq!(step(&[again], &[]).gone.len(), 2);
    });
}

#[test]
fn two_thousand_ports_in_one_transaction() {
    on_a_host(|socket| {
        let mut view = gantry0(|_| {});
        for number in 0..2000u16 {
            let [high, low] = (number / 2 + 2).to_be_bytes();
            let host = format!("0.0.0.0:{}", 10000 + number);
            let container = format!("172.17.{high}.{low}:{}", 80 + number % 2);
            view.ports.insert(port(Protocol::Tcp, &host, &container));
        }
        let ruleset = render("gantry", &view);
        nft::apply(socket, &ruleset, Ownership::Shared).unwrap();
        let differences = nft::difference(socket, &ruleset, Ownership::Shared).unwrap();
        assert_eq!(differences, Vec::<String>::new());
    });
}

#[test]
fn changes_are_found() {
    on_a_host(|socket| {
        let ruleset = render("gantry", &published(Localhost::Kernel));
        let mut problems = |change: &str| {
            nft::apply(socket, &ruleset, Ownership::Shared).unwrap();
            let status = Command::new("nft").arg(change).status().unwrap();
            assert!(status.success(), "{change}");
            nft::difference(socket, &ruleset, Ownership::Shared).unwrap().join("\n")
        };
        expect!["the rules of chain inward were changed"]
            .assert_eq(&problems("insert rule inet gantry inward accept"));
        expect!["the elements of set bridges were changed"]
            .assert_eq(&problems("add element inet gantry bridges { \"eth9\" }"));
        expect!["the elements of set wildcard4 were changed"]
            .assert_eq(&problems("delete element inet gantry wildcard4 { tcp . 8080 }"));
        expect!["the elements of set home6 were changed"]
            .assert_eq(&problems("flush set inet gantry home6"));
        expect!["chain mine is not ours"].assert_eq(&problems("add chain inet gantry mine"));
        expect!["the table is missing"].assert_eq(&problems("flush ruleset"));
        expect!["the table is not held by us"]
            .assert_eq(&problems("add table inet gantry { flags dormant; }"));
    });
}

#[test]
fn nobody_flushes_what_is_owned() {
    on_a_host(|socket| {
        let ownership = Ownership::of_kernel(socket).unwrap();
        let ruleset = render("gantry", &gantry0(|_| {}));
        nft::apply(socket, &ruleset, ownership).unwrap();
        let nft = |words: &str| {
            let status = Command::new("nft").args(words.split(' ')).output().unwrap().status;
            status.success()
        };
        assert!(nft("flush ruleset"), "of what is theirs");
        let mut other = Socket::netfilter().unwrap();
        let theirs = nft::apply(&mut other, &ruleset, ownership);
        if ownership == Ownership::Shared {
            println!("this kernel knows no owner");
            return;
        }
        assert_eq!(nft::difference(socket, &ruleset, ownership).unwrap(), Vec::<String>::new());
        assert!(!nft("delete table inet gantry") && !nft("insert rule inet gantry inward accept"));
        assert_eq!(
            theirs.unwrap_err().to_string(),
            "the firewall table gantry belongs to another process: is another daemon with the same bridge running?"
        );
        let port = socket.port().unwrap();
        *socket = Socket::netfilter().unwrap();
        assert_ne!(socket.port().unwrap(), port);
        if ownership == Ownership::Persistent {
            assert_eq!(
                nft::difference(socket, &ruleset, ownership).unwrap(),
                ["the table is not held by us"],
                "it outlives its owner"
            );
        }
        nft::apply(socket, &ruleset, ownership).unwrap();
        assert_eq!(nft::difference(socket, &ruleset, ownership).unwrap(), Vec::<String>::new());
    });
}

#[test]
fn what_a_leash_is_made_of() {
    check(
        &leashed(),
        expect![[r#"
            bridges: "br-1"
            icc: "br-1" . "br-1"
            addressed4: "br-1"
            addressed6: "br-1"
            home4: 172.18.0.0/16 . "br-1"
            home6: fd00:18::/64 . "br-1"
            masquerade4: 172.18.0.0/16
            masquerade6: fd00:18::/64
            leashed4: 172.18.0.2, 172.18.0.3
            leashed6: fd00:18::2
            allowed4: 172.18.0.2 . 10.0.0.0/8
            allowedport4: 172.18.0.2 . 192.0.2.1 . udp . 53
            allowedport6: fd00:18::2 . 2001:db8::/32 . tcp . 443
            guard - meta nfproto ipv6 iifname @without6 drop
            guard + ip saddr @leashed4 goto outward4
            guard + ip6 saddr @leashed6 goto outward6
        "#]],
    );
    expect![[r#"
        table bridge gantry {
        	set ports {
        		type ifname
        		elements = { "veth0000001",
        			     "veth0000002" }
        	}

        	set tenants4 {
        		type ifname . ether_addr . ipv4_addr
        		elements = { "veth0000001" . 02:42:ac:12:00:02 . 172.18.0.2,
        			     "veth0000002" . 02:42:ac:12:00:02 . 172.18.0.3 }
        	}

        	set tenants6 {
        		type ifname . ether_addr . ipv6_addr
        		elements = { "veth0000001" . 02:42:ac:12:00:02 . fd00:18::2 }
        	}

        	chain frames {
        		type filter hook prerouting priority dstnat; policy accept;
        		iifname @ports goto tenant
        	}

        	chain tenant {
        		iifname . ether saddr . ip saddr @tenants4 accept
        		iifname . ether saddr . ip6 saddr @tenants6 accept
        		iifname . ether saddr . arp saddr ip @tenants4 accept
        		ip6 saddr fe80::/10 icmpv6 type 130-136 accept
        		ip6 saddr :: icmpv6 type 130-136 accept
        		drop
        	}
        }
    "#]]
    .assert_eq(&of_frames("gantry", &leashed()).to_string());
    assert!(of_frames("gantry", &several()).is_empty());
    let ruleset = render("gantry", &leashed());
    let outward = ruleset.chains.iter().filter(|chain| chain.name.starts_with("outward"));
    let outward: String = outward.map(ToString::to_string).collect();
    let outward: String = outward.lines().map(|line| format!("{}\n", line.trim())).collect();
    expect![[r#"
        chain outward4 {
        ip saddr . ip daddr @allowed4 accept
        ip saddr . ip daddr . meta l4proto . th dport @allowedport4 accept
        fib daddr type != unicast drop
        ip daddr . iifname @home4 accept
        ip saddr . ip daddr @named4 accept
        ip saddr . ip daddr . meta l4proto . th dport @namedport4 accept
        drop
        }
        chain outward6 {
        ip6 saddr . ip6 daddr @allowed6 accept
        ip6 saddr . ip6 daddr . meta l4proto . th dport @allowedport6 accept
        icmpv6 type 133-136 accept
        fib daddr type != unicast drop
        ip6 daddr . iifname @home6 accept
        ip6 saddr . ip6 daddr @named6 accept
        ip6 saddr . ip6 daddr . meta l4proto . th dport @namedport6 accept
        drop
        }
    "#]]
    .assert_eq(&outward);
}

#[test]
fn nft_reads_what_we_ask_of_frames() {
    on_a_host(|socket| {
        let ownership = Ownership::of_kernel(socket).unwrap();
        let ruleset = of_frames("gantry", &leashed());
        nft::apply(socket, &ruleset, ownership).unwrap();
        assert_eq!(sorted(&listed(TableFamily::Bridge)), sorted(&ruleset.to_string()));
        assert_eq!(nft::difference(socket, &ruleset, ownership).unwrap(), Vec::<String>::new());
        let mut fewer = leashed();
        fewer.guards.pop();
        let fewer = of_frames("gantry", &fewer);
        let change = super::changes(&ruleset, &fewer);
        nft::change(socket, TableFamily::Bridge, "gantry", &change).unwrap();
        assert_eq!(nft::difference(socket, &fewer, ownership).unwrap(), Vec::<String>::new());
        nft::apply(socket, &of_frames("gantry", &several()), ownership).unwrap();
        assert!(nft::table(socket, TableFamily::Bridge, "gantry").unwrap().is_none());
    });
}

/// The elements of what answers have opened, as nft(8) lists them, without their times.
fn opened() -> String {
    let digit = |character: char| character.is_ascii_digit();
    let text = listed(TableFamily::Inet);
    let mut words: Vec<String> = text
        .lines()
        .filter(|line| line.contains("timeout") && line.contains(" . "))
        .map(|line| {
            line.split([' ', '\t', ','])
                .filter(|word| !(word.starts_with(digit) && word.ends_with(['h', 'm', 's'])))
        })
        .map(|words| words.collect::<Vec<_>>().join(" "))
        .collect();
    words.sort();
    words.join("\n")
}

#[test]
fn answers_open_ways() {
    on_a_host(|socket| {
        let ownership = Ownership::of_kernel(socket).unwrap();
        let ruleset = render("gantry", &leashed());
        nft::apply(socket, &ruleset, ownership).unwrap();
        let mut opener = Opener::here().unwrap();
        let copy = socket.as_fd().try_clone_to_owned().unwrap();
        opener.own(Socket::shared(copy));
        let way = |to: &str, port, name: &str| Grant {
            from: "172.18.0.2".parse().unwrap(),
            to: to.parse().unwrap(),
            port,
            name: name.to_owned(),
        };
        let https = Some((Protocol::Tcp, 443));
        let ways = [
            way("192.0.2.1", None, "example.com"),
            way("192.0.2.2", https, "example.org"),
            way("192.0.2.3", https, "example.org"),
        ];
        let long = std::time::Duration::from_secs(4000);
        opener.open("gantry", &ways, long).unwrap();
        // Known already, for long enough and not.
        opener.open("gantry", &ways[..1], long).unwrap();
        opener.open("gantry", &ways[..2], 2 * long).unwrap();
        let before = opened();
        assert_eq!(before.matches("172.18.0.2").count(), 3, "{before}");
        assert_eq!(before.matches("comment \"example.org\"").count(), 2, "{before}");
        assert_eq!(nft::difference(socket, &ruleset, ownership).unwrap(), Vec::<String>::new());
        // All is said anew, and what was opened stays.
        nft::apply(socket, &ruleset, ownership).unwrap();
        assert_eq!(opened(), before);
        let from = ["172.18.0.2".parse().unwrap()];
        super::grants::revoke(socket, "gantry", &from, |grant| grant.port == https).unwrap();
        assert!(!opened().contains("example.com") && opened().contains("example.org"));
        super::grants::revoke(socket, "gantry", &["172.18.0.3".parse().unwrap()], |_| false)
            .unwrap();
        assert!(opened().contains("example.org"), "that was another's");
        super::grants::revoke(socket, "gantry", &from, |_| false).unwrap();
        assert_eq!(opened(), "");
        nft::apply(socket, &render("gantry", &gantry0(|_| {})), ownership).unwrap();
        assert!(opener.open("gantry", &ways, long).is_err(), "there is no such set any more");
        // The complaint about it is nobody's answer.
        assert_eq!(
            nft::difference(socket, &render("gantry", &gantry0(|_| {})), ownership).unwrap(),
            Vec::<String>::new()
        );
    });
}
