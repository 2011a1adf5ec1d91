//! One network of three daemons, each on a host of its own, under the real docker command (N11).

use testkit::house::{shown, succeed};
use testkit::{House, Netns};

fn ip(netns: &Netns, words: &str) {
    let mut command = netns.command("ip");
    command.args(words.split(' '));
    succeed(command);
}

/// Puts a host on the wire as `192.0.2.NUMBER`.
fn plug_in(switch: &Netns, host: &Netns, number: u8) {
    let there = host.path().display().to_string();
    ip(switch, &format!("link add port{number} type veth peer name wire netns {there}"));
    ip(switch, &format!("link set port{number} master switch up"));
    ip(host, &format!("addr add 192.0.2.{number}/24 dev wire"));
    ip(host, "link set wire up");
}

fn range(number: u8) -> String {
    format!("10.9.0.{}/26", 64 * (u32::from(number) - 1))
}

fn create(house: &House, number: u8) {
    let peers = (1..=3).filter(|other| *other != number);
    let peers: Vec<String> =
        peers.map(|other| format!("192.0.2.{other}={}", range(other))).collect();
    house.ok(&[
        "network",
        "create",
        "-d",
        "overlay",
        "--subnet",
        "10.9.0.0/24",
        "--ip-range",
        &range(number),
        "-o",
        &format!("gantry.overlay.local=192.0.2.{number}"),
        "-o",
        &format!("gantry.overlay.peers={}", peers.join(",")),
        "blue",
    ]);
}

#[test]
fn n11_containers_of_three_daemons_reach_each_other() {
    let switch = Netns::new();
    ip(&switch, "link add switch type bridge");
    ip(&switch, "link set switch up");
    let hosts = [Netns::new(), Netns::new(), Netns::new()];
    let mut houses: Vec<House> = Vec::new();
    for (number, host) in (1..).zip(&hosts) {
        plug_in(&switch, host, number);
        let house = House::within(host);
        house.load(&testkit::TestImage::busybox().docker_archive(&["busybox:latest"]));
        create(&house, number);
        let net = ["run", "-d", "--name", "ca", "--network", "blue", "busybox", "sleep", "1000"];
        house.ok(&net);
        houses.push(house);
    }
    let address = "{{.NetworkSettings.Networks.blue.IPAddress}}";
    let all: Vec<String> = houses
        .iter()
        .map(|house| house.ok(&["inspect", "-f", address, "ca"]).trim().to_owned())
        .collect();
    assert_eq!(all, ["10.9.0.1", "10.9.0.64", "10.9.0.128"]);
    let everybody = |houses: &[House]| {
        for house in houses {
            for there in &all {
                // As much as fits into a frame: 1450 less the headers of IP and ICMP.
                house.ok(&["exec", "ca", "ping", "-c", "1", "-w", "20", "-s", "1422", there]);
            }
        }
    };
    everybody(&houses);
    // What it is connected to is what was asked for; the way out is beside it.
    let house = &houses[0];
    let networks = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    assert_eq!(house.ok(&["inspect", "-f", networks, "ca"]), "blue \n");
    let way = "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}";
    let way = house.ok(&["network", "inspect", "-f", way, "docker_gwbridge"]);
    let id = house.ok(&["inspect", "-f", "{{.Id}}", "ca"]);
    let (name, address) = way.trim().split_once(' ').expect("both");
    assert_eq!(name, format!("gateway_{}", &id[..12]));
    let route = house.ok(&["exec", "ca", "ip", "route", "show", "default"]);
    let leads_out = |line: &str| line.starts_with("default via ") && line.contains("dev eth1");
    assert!(route.lines().any(leads_out), "{route}");
    let hosts = house.ok(&["exec", "ca", "cat", "/etc/hosts"]);
    let (address, _) = address.split_once('/').expect("a prefix");
    assert!(hosts.contains(&all[0]) && !hosts.contains(address), "{hosts}");
    // Nobody is needed for it to go on.
    houses[1].kill();
    let there = houses[0].docker(&["exec", "ca", "ping", "-c", "1", "-w", "20", &all[1]]).output();
    let there = there.expect("docker");
    assert!(there.status.success(), "{}", shown(&there));
    houses[1].start();
    everybody(&houses);
    // What keeps a network is no finding.
    houses[0].check();
    for house in &houses {
        house.ok(&["rm", "-f", "ca"]);
        house.ok(&["network", "rm", "blue"]);
    }
}
