//! Made, listed, looked at, removed: words and shapes.

use serde_json::{Value, json};
use testkit::House;

use super::{inspect, said, sleeper};
use crate::containers::house;

fn network(house: &House, name: &str) -> Value {
    house.api("GET", &format!("/networks/{name}"), None).json()
}

#[test]
fn both_commands_see_the_same() {
    let house = house();
    let id = house.ok(&[
        "network",
        "create",
        "--subnet",
        "10.251.7.0/24",
        "--ip-range",
        "10.251.7.128/25",
        "--gateway",
        "10.251.7.1",
        "--aux-address",
        "router=10.251.7.2",
        "--label",
        "tier=front",
        "--opt",
        "com.docker.network.driver.mtu=1400",
        "--attachable",
        "front",
    ]);
    let made = network(&house, "front");
    assert_eq!(made["Id"], id.trim());
    assert_eq!(
        (&made["Driver"], &made["Scope"], &made["Attachable"], &made["Internal"]),
        (&json!("bridge"), &json!("local"), &json!(true), &json!(false))
    );
    assert_eq!(
        made["IPAM"],
        json!({"Driver": "default", "Options": {}, "Config": [{
            "Subnet": "10.251.7.0/24", "IPRange": "10.251.7.128/25", "Gateway": "10.251.7.1",
            "AuxiliaryAddresses": {"router": "10.251.7.2"},
        }]})
    );
    assert_eq!(
        made["Status"]["IPAM"]["Subnets"]["10.251.7.0/24"],
        json!({
            "IPsInUse": 4, "DynamicIPsAvailable": 127,
        })
    );
    assert_eq!(made["Options"], json!({"com.docker.network.driver.mtu": "1400"}));

    sleeper(&house, "web", &["--network", "front"]);
    let there = &network(&house, "front")["Containers"];
    let web = inspect(&house, "web");
    let seen = &there[web["Id"].as_str().expect("an id")];
    assert_eq!((&seen["Name"], &seen["IPv4Address"]), (&json!("web"), &json!("10.251.7.128/24")));
    let mtu = house.ok(&["exec", "web", "cat", "/sys/class/net/eth0/mtu"]);
    assert_eq!(mtu.trim(), "1400");

    for list in [
        &["network", "ls"][..],
        &["network", "ls", "--no-trunc", "--filter", "type=custom"],
        &["network", "ls", "-q", "--filter", "driver=null"],
        &[
            "network",
            "ls",
            "--filter",
            "label=tier=front",
            "--format",
            "{{.Name}} {{.IPv6}} {{.Labels}}",
        ],
        &["network", "ls", "--filter", "dangling=true"],
        &["network", "inspect", "front", "--format", "{{json .IPAM.Config}} {{.Name}}"],
        &["network", "inspect", "nope"],
        &["network", "rm", "nope"],
        &["network", "rm", "bridge"],
    ] {
        let docker = said(&house.docker(list).output().expect("docker"));
        let ours = said(&house.gantry(list).output().expect("gantry"));
        assert_eq!(docker, ours, "{list:?}");
    }
    let busy = said(&house.docker(&["network", "rm", "front"]).output().expect("docker"));
    assert_eq!(busy.0, Some(1));
    assert!(
        busy.1.contains(
            "error while removing network: network front has active endpoints (name:\"web\" id:"
        ),
        "{}",
        busy.1
    );
    house.ok(&["rm", "-f", "web"]);
    assert_eq!(house.ok(&["network", "rm", "front"]).trim(), "front");
    assert_eq!(house.api("GET", "/networks/front", None).status, 404);
}

#[test]
fn refusals_in_dockers_words() {
    let house = House::new();
    house.ok(&["network", "create", "--subnet", "10.251.8.0/24", "taken"]);
    let refuse = |args: &[&str], words: &str| {
        let mut all = vec!["network", "create"];
        all.extend(args);
        let output = said(&house.docker(&all).output().expect("docker"));
        assert_eq!(output, (Some(1), format!("Error response from daemon: {words}")), "{args:?}");
    };
    refuse(&["taken"], "network with name taken already exists");
    refuse(&["host"], "operation is not permitted on predefined host network");
    refuse(
        &["--subnet", "10.251.8.128/25", "other"],
        "invalid pool request: Pool overlaps with other one on this address space",
    );
    refuse(
        &["--subnet", "10.251.9.1/24", "other"],
        "invalid network config:\ninvalid subnet 10.251.9.1/24: it should be 10.251.9.0/24",
    );
    refuse(&["-d", "weave", "other"], "plugin \"weave\" not found");
    refuse(&["--ingress", "other"], "Ingress network can only be global scope network");
    refuse(&["--ipv4=false", "other"], "IPv4 or IPv6 must be enabled");
    refuse(
        &["-o", "com.docker.network.bridge.enable_icc=perhaps", "other"],
        "failed to parse com.docker.network.bridge.enable_icc value: perhaps (strconv.ParseBool: parsing \"perhaps\": invalid syntax)",
    );
    refuse(
        &["-d", "macvlan", "-o", "parent=nothing", "other"],
        "invalid subinterface vlan name nothing, example formatting is eth0.10",
    );
    let list = house.docker(&["network", "ls", "--filter", "type=nope"]).output();
    assert_eq!(
        said(&list.expect("docker")),
        (Some(1), "Error response from daemon: invalid filter: 'type'='nope'".to_owned())
    );
}

#[test]
fn configurations_are_copied() {
    let house = House::new();
    house.ok(&[
        "network",
        "create",
        "--config-only",
        "--subnet",
        "10.251.10.0/24",
        "--label",
        "a=b",
        "conf",
    ]);
    let made = network(&house, "conf");
    assert_eq!((&made["ConfigOnly"], &made["Driver"]), (&json!(true), &json!("null")));
    house.ok(&["network", "create", "--config-from", "conf", "real"]);
    let real = network(&house, "real");
    assert_eq!(real["ConfigFrom"], json!({"Network": "conf"}));
    assert_eq!(real["IPAM"]["Config"][0]["Subnet"], "10.251.10.0/24");
    assert_eq!(real["Labels"], json!({"a": "b"}));
    let busy = said(&house.docker(&["network", "rm", "conf"]).output().expect("docker"));
    assert!(busy.1.contains("configuration network \"conf\" is in use"), "{}", busy.1);
    house.ok(&["network", "rm", "real"]);
    house.ok(&["network", "rm", "conf"]);
}

#[test]
fn what_nobody_uses_is_pruned() {
    let house = house();
    for (name, label) in [("used", "x=1"), ("old", "x=1"), ("kept", "keep=1")] {
        house.ok(&["network", "create", "--label", label, name]);
    }
    sleeper(&house, "web", &["--network", "used"]);
    let pruned = house.ok(&["network", "prune", "-f", "--filter", "label!=keep"]);
    assert_eq!(pruned, "Deleted Networks:\nold\n\n");
    let left = house.ok(&["network", "ls", "--filter", "type=custom", "--format", "{{.Name}}"]);
    assert_eq!(left, "kept\nused\n");
}

#[test]
fn networks_outlive_the_daemon() {
    let mut house = house();
    house.ok(&["network", "create", "--ipv6", "net"]);
    sleeper(&house, "one", &["--network", "net"]);
    sleeper(&house, "two", &["--network", "net"]);
    let before = network(&house, "net");
    house.kill();
    house.start();
    assert_eq!(network(&house, "net"), before);
    let six = super::address(&house, "two", "net", "GlobalIPv6Address");
    assert!(super::reaches(&house, "one", &six));
}

#[test]
fn an_id_is_meant_before_a_name() {
    let house = house();
    let id = house.ok(&["network", "create", "first"]).trim().to_owned();
    let begins = house.ok(&["network", "create", &id[..12]]).trim().to_owned();
    let whole = house.ok(&["network", "create", &id]).trim().to_owned();
    let found = |term: &str| network(&house, term)["Id"].as_str().expect("an id").to_owned();
    assert_eq!((found(&id), found(&id[..12]), found("first")), (id.clone(), begins, id.clone()));
    house.ok(&["network", "rm", &id]);
    assert_eq!(found(&id), whole);
}

#[test]
fn networks_that_are_named_are_all() {
    let house = house();
    for name in ["na", "nb"] {
        house.ok(&["network", "create", name]);
    }
    let joined = |mode: &str, endpoints: Value| {
        let body = json!({
            "Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": mode},
            "NetworkingConfig": {"EndpointsConfig": endpoints},
        });
        let made = house.api("POST", "/containers/create", Some(&body)).json();
        let id = made["Id"].as_str().expect("an id");
        house.ok(&["start", id]);
        let networks = inspect(&house, id)["NetworkSettings"]["Networks"].clone();
        let devices = house.ok(&["exec", id, "ls", "/sys/class/net"]);
        house.ok(&["rm", "-f", id]);
        let names = networks.as_object().expect("networks").keys().cloned().collect::<Vec<_>>();
        (names.join(" "), devices.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let is = |names: &str, devices: &str| (names.to_owned(), devices.to_owned());
    assert_eq!(joined("default", json!({"na": {}, "nb": {}})), is("na nb", "eth0 eth1 lo"));
    assert_eq!(joined("none", json!({"nb": {}})), is("nb", "eth0 lo"));
    assert_eq!(joined("na", json!({"nb": {}})), is("nb", "eth0 lo"));
    assert_eq!(joined("default", json!({"default": {}})), is("bridge", "eth0 lo"));
    assert_eq!(joined("na", json!({})), is("na", "eth0 lo"));
}

#[test]
fn packets_smaller_than_ipv6_allows() {
    let house = house();
    let flags = ["network", "create", "--opt", "com.docker.network.driver.mtu=1234", "small"];
    let id = house.ok(&flags);
    let bridge = format!("/sys/class/net/br-{}/mtu", &id[..12]);
    assert_eq!(std::fs::read_to_string(bridge).expect("a bridge").trim(), "1234");
    let script = "cat /sys/class/net/eth0/mtu";
    assert_eq!(
        house.ok(&["run", "--rm", "--network", "small", "busybox", "sh", "-c", script]),
        "1234\n"
    );
}

#[test]
fn who_speaks_no_ipv6_has_no_address_in_it() {
    let house = house();
    house.ok(&["network", "create", "--ipv6", "both"]);
    sleeper(&house, "six", &["--network", "both"]);
    let off = ["--network", "both", "--sysctl", "net.ipv6.conf.all.disable_ipv6=1"];
    sleeper(&house, "four", &off);
    let address = |name: &str| {
        let seen = inspect(&house, name);
        seen["NetworkSettings"]["Networks"]["both"]["GlobalIPv6Address"].clone()
    };
    assert_eq!(address("four"), "");
    assert_ne!(address("six"), "");
    let hosts = |name: &str| house.ok(&["exec", name, "cat", "/etc/hosts"]);
    assert!(!hosts("four").contains("::"), "{}", hosts("four"));
    assert!(hosts("six").contains("::1\tlocalhost"), "{}", hosts("six"));
    house.ok(&["rename", "four", "vier"]);
    let networks = inspect(&house, "vier")["NetworkSettings"]["Networks"].clone();
    assert_eq!(networks["both"]["DNSNames"][0], "vier");
}
