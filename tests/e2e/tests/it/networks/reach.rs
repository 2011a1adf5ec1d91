//! Who reaches whom, in both families.

use super::{address, inspect, reaches, sleeper};
use crate::containers::{house, house_with};

#[test]
fn two_networks_are_two_worlds() {
    let house = house();
    house.ok(&["network", "create", "--ipv6", "front"]);
    house.ok(&["network", "create", "--ipv6", "back"]);
    sleeper(&house, "web", &["--network", "front"]);
    sleeper(&house, "peer", &["--network", "front"]);
    sleeper(&house, "db", &["--network", "back"]);
    sleeper(&house, "api", &["--network", "front", "--network", "back"]);
    for field in ["IPAddress", "GlobalIPv6Address"] {
        let at = |name, network| {
            let found = address(&house, name, network, field);
            assert_ne!(found, "", "{name} {network} {field}");
            found
        };
        assert!(reaches(&house, "web", &at("peer", "front")), "{field}");
        assert!(reaches(&house, "web", &at("api", "front")), "{field}");
        assert!(reaches(&house, "db", &at("api", "back")), "{field}");
        assert!(reaches(&house, "api", &at("db", "back")), "{field}");
        assert!(!reaches(&house, "web", &at("db", "back")), "{field}");
        assert!(!reaches(&house, "db", &at("web", "front")), "{field}");
        assert!(!reaches(&house, "db", &at("api", "front")), "{field}");
    }
}

#[test]
fn the_default_bridge_with_both_families() {
    let house = house_with(&["--ipv6"]);
    sleeper(&house, "one", &[]);
    sleeper(&house, "two", &[]);
    let six = address(&house, "two", "bridge", "GlobalIPv6Address");
    assert!(six.starts_with("fd"), "{six}");
    assert!(reaches(&house, "one", &six));
    // An address kept for the host is known by its name.
    sleeper(&house, "three", &["--add-host", "host.docker.internal:host-gateway"]);
    let hosts = house.ok(&["exec", "three", "cat", "/etc/hosts"]);
    let gateways = hosts.lines().filter(|line| line.ends_with("\thost.docker.internal")).count();
    assert_eq!(gateways, 2, "{hosts}");
    assert!(reaches(&house, "three", "host.docker.internal"));
}

#[test]
fn chosen_and_lasting() {
    let house = house();
    house.ok(&[
        "network",
        "create",
        "--subnet",
        "10.251.20.0/24",
        "--ipv6",
        "--subnet",
        "fd00:251:20::/64",
        "net",
    ]);
    sleeper(
        &house,
        "web",
        &[
            "--network",
            "net",
            "--ip",
            "10.251.20.77",
            "--ip6",
            "fd00:251:20::77",
            "--mac-address",
            "02:aa:bb:cc:dd:01",
            "--network-alias",
            "www",
            "--link-local-ip",
            "169.254.3.3",
        ],
    );
    for round in 0..2 {
        let settings = inspect(&house, "web")["NetworkSettings"]["Networks"]["net"].clone();
        let field = |name: &str| settings[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            [field("IPAddress"), field("GlobalIPv6Address"), field("MacAddress")],
            ["10.251.20.77", "fd00:251:20::77", "02:aa:bb:cc:dd:01"],
            "round {round}"
        );
        let names: Vec<&str> = settings["DNSNames"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|name| name.as_str())
            .collect();
        assert_eq!(names[..2], ["web", "www"]);
        let inside = house.ok(&["exec", "web", "ip", "addr", "show", "dev", "eth0"]);
        for part in ["10.251.20.77/24", "fd00:251:20::77/64", "02:aa:bb:cc:dd:01", "169.254.3.3/16"]
        {
            assert!(inside.contains(part), "{part}: {inside}");
        }
        house.ok(&["restart", "-t", "0", "web"]);
    }
    let taken =
        house.docker(&["run", "--rm", "--network", "net", "--ip", "10.251.20.77", "busybox"]);
    let taken = super::said(&{ taken }.output().expect("docker"));
    assert!(
        taken.1.contains("failed to set up container networking: Address already in use"),
        "{}",
        taken.1
    );
    let outside =
        house.docker(&["run", "--rm", "--network", "net", "--ip", "10.9.9.9", "busybox"]).output();
    let outside = super::said(&outside.expect("docker"));
    assert!(
        outside.1.contains("invalid config for network net: invalid endpoint settings:\nno configured subnet or ip-range contain the IP address 10.9.9.9"),
        "{}",
        outside.1
    );
}

#[test]
fn an_internal_network_has_no_way_out() {
    let house = house();
    house.ok(&["network", "create", "--internal", "inner"]);
    sleeper(&house, "one", &["--network", "inner"]);
    sleeper(&house, "two", &["--network", "inner"]);
    assert!(reaches(&house, "one", &address(&house, "two", "inner", "IPAddress")));
    assert!(!reaches(&house, "one", &house.gateway()));
    assert_eq!(house.ok(&["exec", "one", "ip", "route"]).matches("default").count(), 0);
}
