//! ipvlan: containers share a device of the host, its wire and its hardware address. Where the kernel has no such devices,
//! that is what is said.

use testkit::house::{shown, succeed};
use testkit::{House, Netns, TestImage};

use super::{reaches, sleeper};

/// A host whose device `wire0` leads to a neighbour, who sends what is for 10.77.0.0/24 to the host.
pub(crate) struct Wire {
    pub(crate) host: Netns,
    pub(crate) neighbour: Netns,
}

const NEIGHBOUR: [&str; 2] = ["10.66.0.1", "fd66::1"];

impl Wire {
    pub(crate) fn new() -> Self {
        let wire = Self { host: Netns::new(), neighbour: Netns::new() };
        lay(&wire.host, &wire.neighbour);
        wire
    }

    pub(super) fn daemon(&self) -> House {
        let house = House::within(&self.host);
        house.load(&TestImage::busybox().docker_archive(&["busybox:latest"]));
        house
    }

    /// Whether the neighbour is answered.
    pub(super) fn hears(&self, address: &str) -> bool {
        let mut ping = self.neighbour.command("busybox");
        ping.args(["ping", "-c", "1", "-W", "2", address]);
        ping.output().expect("busybox can be executed").status.success()
    }
}

/// Gives a host the device, and a neighbour.
pub(crate) fn lay(host: &Netns, neighbour: &Netns) {
    let there = neighbour.path().display().to_string();
    ip(host, &format!("link add wire0 type veth peer name lan netns {there}"));
    for (netns, device, last, last6) in [(host, "wire0", "254", "fe"), (neighbour, "lan", "1", "1")]
    {
        ip(netns, &format!("addr add 10.66.0.{last}/24 dev {device}"));
        ip(netns, &format!("addr add fd66::{last6}/64 dev {device} nodad"));
        ip(netns, &format!("link set {device} up"));
    }
    ip(neighbour, "route add 10.77.0.0/24 via 10.66.0.254");
    ip(neighbour, "-6 route add fd77::/64 via fd66::fe");
}

fn ip(netns: &Netns, words: &str) -> String {
    let mut command = netns.command("ip");
    command.args(words.split(' '));
    succeed(command)
}

/// Whether the kernel has such devices. Else it is said, and nothing is made.
fn there_are(house: &House) -> bool {
    let tried = house.docker(&["network", "create", "-d", "ipvlan", "tried"]).output();
    let tried = tried.expect("docker can be executed");
    if tried.status.success() {
        house.ok(&["network", "rm", "tried"]);
        return true;
    }
    let words = "the kernel of this host has no ipvlan devices";
    assert!(shown(&tried).contains(words), "{tried:?}");
    let body = serde_json::json!({ "Name": "tried", "Driver": "ipvlan" });
    assert_eq!(house.api("POST", "/networks/create", Some(&body)).status, 501);
    assert_eq!(house.ok(&["network", "ls", "-q", "--filter", "driver=ipvlan"]), "");
    false
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    /// On the wire, behind the neighbour.
    Two,
    /// Behind the host, which the neighbour knows.
    Three,
}

#[test]
fn who_is_reached() {
    let wire = Wire::new();
    let house = wire.daemon();
    if !there_are(&house) {
        return;
    }
    for (mode, flag, layer, each_other) in [
        ("", "", Layer::Two, true),
        ("l2", "private", Layer::Two, false),
        // What is for a sibling goes out first, and the neighbour does not send it back.
        ("l2", "vepa", Layer::Two, false),
        ("l3", "bridge", Layer::Three, true),
        ("l3", "private", Layer::Three, false),
        ("l3s", "", Layer::Three, true),
    ] {
        let mut words = vec!["network", "create", "-d", "ipvlan", "-o", "parent=wire0", "--ipv6"];
        let options = [format!("ipvlan_mode={mode}"), format!("ipvlan_flag={flag}")];
        for option in options.iter().filter(|option| !option.ends_with('=')) {
            words.extend(["-o", option]);
        }
        let [one, two] = match layer {
            Layer::Two => {
                words.extend(["--subnet", "10.66.0.0/24", "--gateway", NEIGHBOUR[0]]);
                words.extend(["--subnet", "fd66::/64", "--gateway", NEIGHBOUR[1]]);
                [["10.66.0.21", "fd66::21"], ["10.66.0.22", "fd66::22"]]
            }
            Layer::Three => {
                words.extend(["--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"]);
                [["10.77.0.21", "fd77::21"], ["10.77.0.22", "fd77::22"]]
            }
        };
        house.ok(&[&words[..], &["net"]].concat());
        for (name, [v4, v6]) in [("one", one), ("two", two)] {
            sleeper(&house, name, &["--network", "net", "--ip", v4, "--ip6", v6]);
        }
        for family in [0, 1] {
            let what = format!("{mode} {flag} IPv{}", [4, 6][family]);
            assert_eq!(reaches(&house, "one", two[family]), each_other, "{what}");
            assert!(reaches(&house, "one", NEIGHBOUR[family]), "{what}: out");
            assert!(wire.hears(two[family]), "{what}: in");
        }
        assert_eq!(house.ok(&["exec", "one", "nslookup", "two"]).matches(two[0]).count(), 1);
        house.check();
        house.ok(&["rm", "-f", "one", "two"]);
        house.ok(&["network", "rm", "net"]);
        let left = ip(&wire.host, "-o link");
        assert!(left.contains("wire0") && !left.contains("ipvl"), "{left}");
    }
}

/// What containers on layer 3 send goes out; an answer comes back when somebody has a route to the host.
#[test]
fn layer_three_without_a_way() {
    let wire = Wire::new();
    let house = wire.daemon();
    if !there_are(&house) {
        return;
    }
    let create = ["network", "create", "-d", "ipvlan", "-o", "ipvlan_mode=l3"];
    house.ok(&[&create[..], &["-o", "parent=wire0", "--subnet", "10.77.0.0/24", "deep"]].concat());
    sleeper(&house, "one", &["--network", "deep", "--ip", "10.77.0.21"]);
    sleeper(&house, "two", &["--network", "deep", "--ip", "10.77.0.22"]);
    assert_eq!(
        house.ok(&["exec", "one", "ip", "route"]).lines().next(),
        Some("default dev eth0 scope link ")
    );
    assert!(reaches(&house, "one", NEIGHBOUR[0]));
    // The neighbour does not know where to answer.
    ip(&wire.neighbour, "route del 10.77.0.0/24");
    assert!(!reaches(&house, "one", NEIGHBOUR[0]));
    ip(&wire.neighbour, "route add 10.77.0.0/24 via 10.66.0.254");
    assert!(reaches(&house, "one", NEIGHBOUR[0]));
    ip(&wire.host, "addr flush dev wire0");
    assert!(reaches(&house, "one", "10.77.0.22"), "siblings need no host");
    house.check();
}

/// Without a device of the host's there is a wire of the network's own, which leads nowhere.
#[test]
fn a_wire_to_nowhere() {
    let wire = Wire::new();
    let mut house = wire.daemon();
    if !there_are(&house) {
        return;
    }
    house.ok(&[
        "network",
        "create",
        "-d",
        "ipvlan",
        "--internal",
        "--subnet",
        "10.66.0.0/24",
        "net",
    ]);
    let devices = || ip(&wire.host, "-o link show type dummy");
    assert_eq!(devices().lines().count(), 1);
    sleeper(&house, "one", &["--network", "net", "--ip", "10.66.0.21"]);
    house.kill();
    house.start();
    sleeper(&house, "two", &["--network", "net", "--ip", "10.66.0.22"]);
    assert!(reaches(&house, "one", "10.66.0.22"));
    assert!(!reaches(&house, "one", NEIGHBOUR[0]));
    assert!(!wire.hears("10.66.0.21"));
    let routes = house.ok(&["exec", "one", "ip", "route"]);
    assert!(!routes.contains("default"), "{routes}");

    // One more while it runs, and less again.
    sleeper(&house, "guest", &[]);
    house.ok(&["network", "connect", "--ip", "10.66.0.23", "net", "guest"]);
    assert!(reaches(&house, "guest", "10.66.0.21"));
    house.ok(&["network", "disconnect", "net", "guest"]);
    assert!(!house.ok(&["exec", "guest", "ip", "link"]).contains("eth1"));
    house.check();
    house.ok(&["rm", "-f", "one", "two", "guest"]);
    house.ok(&["network", "rm", "net"]);
    assert_eq!(devices(), "");
}

/// A container that is restarted, and one whose daemon is dead.
#[test]
fn restarted_on_the_wire() {
    let wire = Wire::new();
    let mut house = wire.daemon();
    if !there_are(&house) {
        return;
    }
    let create = ["network", "create", "-d", "ipvlan", "-o", "parent=wire0"];
    house.ok(&[&create[..], &["--subnet", "10.66.0.0/24", "--gateway", "10.66.0.1", "net"]].concat());
    sleeper(&house, "one", &["--network", "net", "--ip", "10.66.0.21"]);
    house.ok(&["restart", "-t", "0", "one"]);
    assert!(wire.hears("10.66.0.21"));
    house.kill();
    assert!(wire.hears("10.66.0.21"));
    house.start();
    assert!(reaches(&house, "one", NEIGHBOUR[0]));
    house.check();
}
