//! Connected and disconnected, running and not.

use serde_json::{Value, json};

use super::{address, inspect, reaches, said, sleeper};
use crate::containers::house;

#[test]
fn while_it_runs() {
    let house = house();
    house.ok(&["network", "create", "front"]);
    house.ok(&["network", "create", "--ipv6", "back"]);
    sleeper(&house, "web", &["--network", "front"]);
    sleeper(&house, "db", &["--network", "back"]);
    let db = address(&house, "db", "back", "IPAddress");
    assert!(!reaches(&house, "web", &db));
    house.ok(&["exec", "web", "sh", "-c", "echo 10.1.2.3 mine >> /etc/hosts"]);

    house.ok(&["network", "connect", "--alias", "store", "back", "web"]);
    assert!(reaches(&house, "web", &db));
    assert!(reaches(&house, "web", &address(&house, "db", "back", "GlobalIPv6Address")));
    let settings = inspect(&house, "web")["NetworkSettings"]["Networks"].clone();
    assert_eq!(settings["back"]["Aliases"], json!(["store"]));
    let own = settings["back"]["IPAddress"].as_str().expect("an address").to_owned();
    let hosts = house.ok(&["exec", "web", "cat", "/etc/hosts"]);
    assert!(hosts.contains(&format!("{own}\t")) && hosts.contains("10.1.2.3 mine"), "{hosts}");
    let again =
        said(&house.docker(&["network", "connect", "back", "web"]).output().expect("docker"));
    assert_eq!(
        again,
        (
            Some(1),
            "Error response from daemon: endpoint with name web already exists in network back"
                .to_owned()
        )
    );

    house.ok(&["network", "disconnect", "back", "web"]);
    assert!(!reaches(&house, "web", &db));
    let hosts = house.ok(&["exec", "web", "cat", "/etc/hosts"]);
    assert!(!hosts.contains(&own) && hosts.contains("10.1.2.3 mine"), "{hosts}");
    let links = house.ok(&["exec", "web", "ip", "-o", "link"]);
    assert_eq!(links.lines().count(), 2, "{links}");
    let id = inspect(&house, "web")["Id"].as_str().expect("an id").to_owned();
    let twice =
        said(&house.docker(&["network", "disconnect", "back", "web"]).output().expect("docker"));
    assert_eq!(
        twice,
        (
            Some(1),
            format!("Error response from daemon: container {id} is not connected to network back")
        )
    );
}

#[test]
fn who_leads_out_is_chosen_again() {
    let house = house();
    for (name, subnet) in
        [("alpha", "10.251.31.0/24"), ("beta", "10.251.32.0/24"), ("gamma", "10.251.33.0/24")]
    {
        house.ok(&["network", "create", "--subnet", subnet, name]);
    }
    sleeper(&house, "web", &["--network", "beta"]);
    let way = || {
        let routes = house.ok(&["exec", "web", "ip", "route"]);
        let line = routes.lines().find(|line| line.starts_with("default")).unwrap_or_default();
        line.split_whitespace().nth(2).unwrap_or_default().to_owned()
    };
    assert_eq!(way(), "10.251.32.1");
    house.ok(&["network", "connect", "alpha", "web"]);
    assert_eq!(way(), "10.251.31.1", "the first by name");
    house.ok(&["network", "connect", "--gw-priority", "1", "gamma", "web"]);
    assert_eq!(way(), "10.251.33.1", "the highest priority");
    house.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(way(), "10.251.33.1", "after a restart, too");
    house.ok(&["network", "disconnect", "gamma", "web"]);
    house.ok(&["network", "disconnect", "alpha", "web"]);
    assert_eq!(way(), "10.251.32.1");
    house.ok(&["network", "disconnect", "beta", "web"]);
    assert_eq!(way(), "");
}

/// Who leads out, by priority, of both families: what happens, the networks left, who leads, and how many routes there are
/// of IPv4. The rows are those that Docker tests itself by.
#[test]
fn priorities_of_both_families() {
    let house = house();
    for number in 1..=5 {
        let v4 = |last: &str| format!("10.251.{}.{last}", 40 + number);
        let v6 = |last: &str| format!("fd00:251:{number}::{last}");
        let (subnet, gateway) = (v4("0/24"), v4("1"));
        let (subnet6, gateway6) = (v6("/64"), v6("1"));
        let ways = ["--subnet", &subnet, "--gateway", &gateway, "--subnet", &subnet6];
        let name = format!("net{number}");
        let last = ["--gateway", &gateway6, "--ipv6", &name];
        house.ok(&[&["network", "create"], &ways[..], &last].concat());
    }
    sleeper(&house, "web", &["--network", "net1"]);
    let routes = |family: &str| house.ok(&["exec", "web", "ip", family, "route", "show"]);
    let leads = |when: &str, number: u8, device: &str, count: usize| {
        for (family, gateway, count) in [
            ("-4", format!("10.251.{}.1", 40 + number), count + 1),
            // Of each device its subnet, the link and multicast.
            ("-6", format!("fd00:251:{number}::1"), 3 * count + 1),
        ] {
            let routes = routes(family);
            let way = format!("default via {gateway} dev {device}");
            assert!(routes.contains(&way), "{when}: {way}:\n{routes}");
            assert_eq!(routes.lines().count(), count, "{when}:\n{routes}");
        }
    };
    leads("alone", 1, "eth0", 1);
    for (network, priority, leader, device, count) in [
        ("net5", "-100", 1, "eth0", 2),
        ("net2", "100", 2, "eth2", 3),
        ("net3", "10", 2, "eth2", 4),
        ("net4", "10", 2, "eth2", 5),
    ] {
        house.ok(&["network", "connect", "--gw-priority", priority, network, "web"]);
        leads(network, leader, device, count);
        let told = &inspect(&house, "web")["NetworkSettings"]["Networks"][network]["GwPriority"];
        assert_eq!(told.to_string(), priority);
    }
    for (network, leader, device, count) in
        [("net2", 3, "eth3", 4), ("net3", 4, "eth4", 3), ("net4", 1, "eth0", 2)]
    {
        house.ok(&["network", "disconnect", network, "web"]);
        leads(&format!("without {network}"), leader, device, count);
    }
    house.ok(&["rm", "-f", "web"]);
}

#[test]
fn while_it_rests() {
    let house = house();
    house.ok(&["network", "create", "net"]);
    house.ok(&["create", "--name", "web", "busybox", "sleep", "3600"]);
    house.ok(&[
        "network",
        "connect",
        "--driver-opt",
        "com.docker.network.endpoint.ifname=lan7",
        "net",
        "web",
    ]);
    house.ok(&["network", "disconnect", "bridge", "web"]);
    let networks = &inspect(&house, "web")["NetworkSettings"]["Networks"];
    let names: Vec<&String> = networks.as_object().expect("an object").keys().collect();
    assert_eq!(names, ["net"]);
    house.ok(&["start", "web"]);
    let links = house.ok(&["exec", "web", "ip", "-o", "link"]);
    assert!(links.contains("lan7") && links.lines().count() == 2, "{links}");
    house.ok(&["rm", "-f", "web"]);

    // One that is not there may be there by the time of the start.
    house.ok(&["create", "--name", "early", "busybox", "sleep", "3600"]);
    house.ok(&["network", "connect", "later", "early"]);
    let refused = said(&house.docker(&["start", "early"]).output().expect("docker"));
    assert!(refused.1.contains("network later not found"), "{}", refused.1);
    house.ok(&["network", "create", "later"]);
    house.ok(&["start", "early"]);
    assert!(!address(&house, "early", "later", "IPAddress").is_empty());
    let refused =
        said(&house.docker(&["network", "connect", "nope", "early"]).output().expect("docker"));
    assert_eq!(refused.1, "Error response from daemon: network nope not found");
    house.ok(&["rm", "-f", "early"]);

    sleeper(&house, "alone", &["--network", "none"]);
    let refused =
        said(&house.docker(&["network", "connect", "net", "alone"]).output().expect("docker"));
    assert_eq!(
        refused.1,
        "Error response from daemon: container cannot be connected to multiple networks with one of the networks in private (none) mode"
    );
    sleeper(&house, "host", &["--network", "host"]);
    let refused =
        said(&house.docker(&["network", "connect", "net", "host"]).output().expect("docker"));
    assert_eq!(
        refused.1,
        "Error response from daemon: container sharing network namespace with another container or host cannot be connected to any other network"
    );
    let refused =
        said(&house.docker(&["network", "disconnect", "host", "host"]).output().expect("docker"));
    assert_eq!(
        refused.1,
        "Error response from daemon: cannot disconnect container from host network - container was created in host network mode"
    );
}

#[test]
fn events_tell_of_it() {
    let house = house();
    let since = house.ok(&["info", "-f", "{{.SystemTime}}"]);
    house.ok(&["network", "create", "net"]);
    sleeper(&house, "web", &["--network", "net"]);
    house.ok(&["network", "disconnect", "net", "web"]);
    house.ok(&["network", "rm", "net"]);
    let until = house.ok(&["info", "-f", "{{.SystemTime}}"]);
    let events = house.ok(&[
        "events",
        "--since",
        since.trim(),
        "--until",
        until.trim(),
        "--filter",
        "type=network",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}}",
    ]);
    assert_eq!(
        events,
        "create net bridge\nconnect net bridge\ndisconnect net bridge\ndestroy net bridge\n"
    );
}

#[test]
fn older_clients_see_what_they_know() {
    let house = house();
    house.ok(&["network", "create", "net"]);
    sleeper(&house, "web", &["--network", "net", "--network-alias", "www", "--hostname", "box"]);
    let at = |version: &str| {
        let answer = house.api("GET", &format!("/{version}/containers/web/json"), None).json();
        answer["NetworkSettings"].clone()
    };
    let short = inspect(&house, "web")["Id"].as_str().expect("an id")[..12].to_owned();
    assert_eq!(at("v1.44")["Networks"]["net"]["Aliases"], json!(["www", short, "box"]));
    assert_eq!(at("v1.47")["Networks"]["net"]["Aliases"], json!(["www"]));
    assert_eq!(at("v1.51")["IPAddress"], "");
    assert!(at("v1.52").get("IPAddress").is_none());
    // A list says where it is, and not by what names.
    let ps = house.api("GET", "/containers/json", None).json();
    let (listed, whole) =
        (&ps[0]["NetworkSettings"]["Networks"]["net"], &at("v1.52")["Networks"]["net"]);
    assert_eq!(listed["IPAddress"], whole["IPAddress"]);
    for field in ["Aliases", "Links", "DriverOpts", "DNSNames"] {
        assert_eq!(listed[field], Value::Null, "{field}");
    }
    assert!(whole["DNSNames"].is_array(), "{whole}");
    for (version, there) in [("v1.51", false), ("v1.52", true)] {
        let network = house.api("GET", &format!("/{version}/networks/net"), None).json();
        assert_eq!(network.get("Status").is_some(), there, "{version}");
    }
}
