//! The last of many costs what the first did: rules do not grow with ports, nor answers with networks.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::house::succeed;
use testkit::{House, Netns};

/// A daemon on a host of its own, where every port is free.
fn house(netns: &Netns, flags: &[&str]) -> House {
    let house = House::within_with(netns, flags);
    house.load(&testkit::TestImage::busybox().docker_archive(&["busybox:latest"]));
    house
}

/// Makes and starts a container with two published ports; how long the start took.
fn start(house: &House, number: u16) -> Duration {
    let port = |port: u16| json!([{ "HostPort": port.to_string() }]);
    let body = json!({
        "Image": "busybox",
        "Cmd": ["sleep", "86400"],
        "ExposedPorts": { "80/tcp": {}, "53/udp": {} },
            "HostConfig": {
            "NetworkMode": "many",
            "PortBindings": { "80/tcp": port(20_000 + number), "53/udp": port(30_000 + number) },
        },
    });
    let made = house.api("POST", &format!("/containers/create?name=c{number}"), Some(&body));
    assert_eq!(made.status, 201, "{}", made.text());
    let before = Instant::now();
    let started = house.api("POST", &format!("/containers/c{number}/start"), None);
    assert_eq!(started.status, 204, "{}", started.text());
    before.elapsed()
}

fn network(house: &House, name: &str, subnet: &str) {
    let body = json!({ "Name": name, "IPAM": { "Config": [{ "Subnet": subnet }] } });
    let made = house.api("POST", "/networks/create", Some(&body));
    assert_eq!(made.status, 201, "{}", made.text());
}

/// How many rules a packet could meet, and how many elements there are in sets and maps.
fn rules(netns: &Netns, house: &House) -> (usize, usize) {
    let mut nft = netns.command("nft");
    nft.args(["-j", "list", "table", "inet", &format!("gantry-{}", house.bridge())]);
    let listing: Value = serde_json::from_str(&succeed(nft)).expect("JSON");
    let objects = listing["nftables"].as_array().expect("a list");
    let rules = objects.iter().filter(|object| object.get("rule").is_some()).count();
    let elements = |kind: &str| -> usize {
        let sets = objects.iter().filter_map(|object| object.get(kind)?.get("elem")?.as_array());
        sets.map(Vec::len).sum()
    };
    (rules, elements("set") + elements("map"))
}

#[test]
fn rules_do_not_grow() {
    let netns = Netns::new();
    let house = house(&netns, &[]);
    network(&house, "many", "10.99.0.0/16");
    start(&house, 0);
    let (one, few) = rules(&netns, &house);
    for number in 1..20 {
        start(&house, number);
    }
    let (twenty, many) = rules(&netns, &house);
    assert_eq!(one, twenty);
    assert!(many >= few + 19 * 2, "{few} {many}");
    for number in 0..20 {
        house.api("DELETE", &format!("/containers/c{number}?force=1"), None);
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// `cargo nextest run -p e2e --run-ignored all --no-capture five_hundred`, on a quiet machine.
#[test]
#[ignore = "prints a table: what the first of five hundred costs, and the last"]
fn five_hundred_with_two_ports_each() {
    let netns = Netns::new();
    let house = house(&netns, &[]);
    network(&house, "many", "10.99.0.0/16");
    println!("containers  start, median  rules  elements");
    for hundred in 0..5 {
        let mut times: Vec<_> = (0..100).map(|one| start(&house, hundred * 100 + one)).collect();
        for part in [0..20, 80..100] {
            let from = usize::from(hundred) * 100 + part.start;
            println!("{from:>4}–{:<4}  {:>12.2?}", from + 20, median(&mut times[part]));
        }
        let (rules, elements) = rules(&netns, &house);
        println!("{:>9}  {rules:>20}  {elements:>8}", (hundred + 1) * 100);
    }
    let before = Instant::now();
    for number in 0..500 {
        house.api("DELETE", &format!("/containers/c{number}?force=1"), None);
    }
    println!("removed in {:.2?} each", before.elapsed() / 500);
}

/// Bridges are the kernel's, and it has a thousand of them: 1,000 networks in one daemon.
#[test]
#[ignore = "a thousand bridges take the kernel a minute; prints what the first cost, and the last"]
fn a_thousand_networks() {
    let netns = Netns::new();
    let mut house = house(&netns, &["--default-address-pool", "base=10.0.0.0/8,size=24"]);
    let make = |house: &House, number: usize| {
        let before = Instant::now();
        let body = json!({ "Name": format!("net{number}") });
        let made = house.api("POST", "/networks/create", Some(&body));
        assert_eq!(made.status, 201, "{number}: {}", made.text());
        before.elapsed()
    };
    println!("networks  create, median");
    for hundred in 0..10 {
        let mut times: Vec<_> = (0..100).map(|one| make(&house, hundred * 100 + one)).collect();
        println!("{:>8}  {:>14.2?}", (hundred + 1) * 100, median(&mut times));
    }
    let networks = house.api("GET", "/networks", None).json();
    let mut subnets: Vec<_> = networks
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|network| network["IPAM"]["Config"][0]["Subnet"].as_str())
        .collect();
    let all = subnets.len();
    subnets.sort_unstable();
    subnets.dedup();
    assert_eq!((subnets.len(), all), (1001, 1001), "no subnet twice");
    house.check();
    house.stop();
    let before = Instant::now();
    house.start();
    println!("ready again after {:.2?}", before.elapsed());
    house.check();
    let before = Instant::now();
    for number in 0..1000 {
        let gone = house.api("DELETE", &format!("/networks/net{number}"), None);
        assert_eq!(gone.status, 204, "{}", gone.text());
    }
    println!("removed in {:.2?} each", before.elapsed() / 1000);
    let mut left = Command::new("ip");
    left.args(["-n", netns.path().file_name().and_then(|name| name.to_str()).expect("a name")]);
    left.args(["-o", "link", "show", "type", "bridge"]);
    assert_eq!(succeed(left).lines().count(), 1);
}
