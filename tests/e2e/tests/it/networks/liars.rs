//! Containers that lie to their neighbours: what they say is heard on their own network and nowhere else (N4, N6), and no
//! door of ours is open to anybody (N12).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use testkit::House;
use testkit::house::shown;

use super::{address, inspect, reaches, sleeper};
use crate::containers::house;

fn inside(house: &House, name: &str, script: &str) -> String {
    shown(&house.docker(&["exec", name, "sh", "-c", script]).output().expect("docker"))
}

#[test]
fn n4_lies_stay_on_their_own_network() {
    let house = house();
    for name in ["liars", "honest"] {
        house.ok(&["network", "create", name]);
    }
    sleeper(
        &house,
        "liar",
        &["--network", "liars", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW"],
    );
    sleeper(&house, "db", &["--network", "honest"]);
    sleeper(&house, "web", &["--network", "honest"]);
    let db = address(&house, "db", "honest", "IPAddress");
    let gateway = address(&house, "db", "honest", "Gateway");
    let mac = address(&house, "db", "honest", "MacAddress");
    assert!(reaches(&house, "web", &db) && reaches(&house, "web", &gateway));

    // It gives itself the addresses of another network, of that network's gateway, and the MAC address of its victim, and
    // tells everybody.
    let told = inside(
        &house,
        "liar",
        &format!(
            "ip addr add {db}/32 dev eth0; ip addr add {gateway}/32 dev eth0; \
             ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up; \
             for mine in {db} {gateway}; do arping -U -c 2 -w 3 -I eth0 $mine; arping -A -c 2 -w 3 -I eth0 $mine; done"
        ),
    );
    assert_eq!(told.matches("Sent 2 probe").count(), 4, "{told}");
    let known =
        inside(&house, "web", &format!("ping -c 1 -W 2 {db} >/dev/null; ip neigh show {db}"));
    assert!(known.contains(&mac), "{known}");
    assert!(reaches(&house, "web", &db) && reaches(&house, "web", &gateway));
    // The host itself looks for it where it is.
    let way = std::process::Command::new("ip").args(["route", "get", &db]).output().expect("ip");
    let bridge = house.ok(&["network", "inspect", "-f", "{{.Id}}", "honest"]);
    assert!(shown(&way).contains(&format!("dev br-{}", &bridge[..12])), "{}", shown(&way));
    // And nobody answers it as who it says it is.
    assert!(!reaches(&house, "liar", &address(&house, "web", "honest", "IPAddress")));
    house.check();
}

#[test]
fn n6_no_ipv6_where_none_was_asked_for() {
    let house = house();
    house.ok(&["network", "create", "four"]);
    house.ok(&["network", "create", "--ipv6", "both"]);
    sleeper(&house, "four", &["--network", "four"]);
    sleeper(&house, "both", &["--network", "both"]);
    let six = inside(&house, "four", "grep -v ' lo$' /proc/net/if_inet6; ip -6 route");
    assert_eq!(six, "", "no address, not even of the link");
    // What a router says is not believed: not by a container, and not by the host where it speaks IPv6.
    let listens = inside(&house, "both", "cat /proc/sys/net/ipv6/conf/eth0/accept_ra");
    assert_eq!(listens, "0\n");
    for (network, file, value) in [("four", "disable_ipv6", "1"), ("both", "accept_ra", "0")] {
        let id = house.ok(&["network", "inspect", "-f", "{{.Id}}", network]);
        let settings = Path::new("/proc/sys/net/ipv6/conf").join(format!("br-{}", &id[..12]));
        let found = fs::read_to_string(settings.join(file)).expect("a setting");
        assert_eq!(found.trim(), value, "{network}: {file}");
    }
}

/// Every socket that a process of ours listens on in the file system is for its owner, or for the group that was named;
/// there are none that need no file.
#[test]
fn n12_no_door_for_strangers() {
    let house = house();
    house.ok(&["network", "create", "net"]);
    sleeper(&house, "web", &["--network", "net", "-p", "127.0.0.1::80"]);
    let first = inspect(&house, "web")["State"]["Pid"].as_u64().expect("it runs");
    let parent = |pid: u64| -> u64 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
        line.trim().parse().expect("a number")
    };
    let shim = parent(first);
    let daemon = u64::from(house.pid());
    let netd = u64::from(network::netd::pid(&house.exec_root()).expect("it runs"));
    let launcher = children(daemon);
    let ours: Vec<u64> = launcher.into_iter().chain([daemon, netd, shim]).collect();
    let sockets: Vec<String> = ours.iter().flat_map(|pid| sockets_of(*pid)).collect();
    let mut doors = Vec::new();
    for line in fs::read_to_string("/proc/net/unix").expect("a table").lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let listens = words[3] == "00010000";
        if listens && sockets.iter().any(|inode| inode == words[6]) {
            let path = words.get(7).copied().unwrap_or_default().to_owned();
            assert!(path.starts_with('/'), "needs no file: {line}");
            let mode = fs::metadata(&path).map_or(0o600, |file| file.permissions().mode());
            assert_eq!(mode & 0o007, 0, "{path}: {mode:o}");
            doors.push(path);
        }
    }
    assert!(doors.iter().any(|path| Path::new(path) == house.socket()), "{doors:?}");
    assert!(doors.len() >= 2, "{doors:?}");
    // In the container nobody listens but for its name server, on a port of loopback.
    let listeners = inside(&house, "web", "netstat -lntu | grep -v 127.0.0.11: | tail -n +3");
    assert_eq!(listeners, "");
    let abstracts = inside(&house, "web", "cat /proc/net/unix | tail -n +2");
    assert_eq!(abstracts, "");
    // From a container nothing of the host's answers but what was published; the API is a file it does not have.
    let api: Value = house.api("GET", "/version", None).json();
    assert!(api.get("ApiVersion").is_some());
    let refused = inside(
        &house,
        "web",
        &format!(
            "for port in 2375 2376 4243 7946 2377 9323; do nc -w 1 {} $port </dev/null && echo open $port; done",
            house.gateway()
        ),
    );
    assert!(!refused.contains("open"), "{refused}");
}

fn children(pid: u64) -> Vec<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn sockets_of(pid: u64) -> Vec<String> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives");
    fds.flatten()
        .filter_map(|fd| {
            let target = fs::read_link(fd.path()).ok()?.to_string_lossy().into_owned();
            Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect()
}
