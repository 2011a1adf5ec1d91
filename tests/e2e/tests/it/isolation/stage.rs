//! The scene: a host with two networks around it, and containers on every kind of bridge.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;

use sys::ns::{setns, unshare};
use sys::process::CloneFlags;
use testkit::house::shown;

use super::probe::{PORTS, listen};

/// Everyone who asks or is asked. The host itself is not here.
pub(crate) struct Stage {
    pub(crate) places: BTreeMap<&'static str, OwnedFd>,
}

/// Networks, as `docker network create` is told of them: name, subnets, options.
pub(crate) const NETWORKS: [(&str, &str, &str, &[&str]); 9] = [
    ("front", "10.1.0.0/24", "fd00:1::/64", &[]),
    ("back", "10.2.0.0/24", "", &[]),
    ("inner", "10.3.0.0/24", "", &["--internal"]),
    ("quiet", "10.4.0.0/24", "", &["com.docker.network.bridge.enable_icc=false"]),
    (
        "routed",
        "10.5.0.0/24",
        "fd00:5::/64",
        &[
            "com.docker.network.bridge.gateway_mode_ipv4=routed",
            "com.docker.network.bridge.gateway_mode_ipv6=routed",
        ],
    ),
    ("bare", "10.6.0.0/24", "", &["com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected"]),
    (
        "alone",
        "10.7.0.0/24",
        "",
        &["--internal", "com.docker.network.bridge.gateway_mode_ipv4=isolated"],
    ),
    (
        "wire",
        "192.0.2.0/24",
        "2001:db8:1::/64",
        &["--driver=macvlan", "--gateway=192.0.2.1", "parent=wire0"],
    ),
    ("cell", "192.0.3.0/24", "", &["--driver=macvlan", "parent=cell0", "macvlan_mode=private"]),
];

/// Networks of a kind that Docker 20.10 does not know.
const MODERN: [&str; 3] = ["routed", "bare", "alone"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knows {
    Everything,
    /// IPv4, and two kinds of bridge.
    What20Knew,
}

impl Knows {
    fn of(self, network: &str) -> bool {
        self == Self::Everything || !MODERN.contains(&network)
    }
}

/// Containers: name, network, IPv4 and IPv6 address, what is published or said otherwise. On the default bridge nobody can
/// choose an address: they are given out in order.
pub(crate) const CONTAINERS: [(&str, &str, &str, &str, &[&str]); 21] = [
    ("shop", "bridge", "10.0.0.2", "", &["--expose=80"]),
    ("client", "bridge", "10.0.0.3", "", &["--link=shop:store"]),
    ("passer", "bridge", "10.0.0.4", "", &[]),
    (
        "web",
        "front",
        "10.1.0.2",
        "fd00:1::2",
        &[
            "0.0.0.0:8080:80/tcp",
            "0.0.0.0:8080:80/udp",
            "[::]:8080:80/tcp",
            "127.0.0.1:8081:81/tcp",
            "192.0.2.1:8082:82/tcp",
            "[2001:db8:1::1]:8082:82/tcp",
            "[::1]:8085:81/tcp",
        ],
    ),
    ("peer", "front", "10.1.0.3", "fd00:1::3", &[]),
    ("liar", "front", "10.1.0.8", "fd00:1::8", &[]),
    ("martian", "front", "10.1.0.9", "fd00:1::9", &[]),
    ("db", "back", "10.2.0.2", "", &[]),
    ("vault", "inner", "10.3.0.2", "", &[]),
    ("vault2", "inner", "10.3.0.3", "", &[]),
    ("shy", "quiet", "10.4.0.2", "", &["0.0.0.0:8084:80/tcp"]),
    ("shy2", "quiet", "10.4.0.3", "", &[]),
    ("own", "routed", "10.5.0.2", "fd00:5::2", &["80/tcp"]),
    ("own2", "routed", "10.5.0.3", "fd00:5::3", &[]),
    ("open", "bare", "10.6.0.2", "", &["0.0.0.0:8086:80/tcp"]),
    ("hermit", "alone", "10.7.0.2", "", &[]),
    ("hermit2", "alone", "10.7.0.3", "", &[]),
    ("mac", "wire", "192.0.2.50", "2001:db8:1::50", &[]),
    ("mac2", "wire", "192.0.2.51", "2001:db8:1::51", &["0.0.0.0:8090:80/tcp"]),
    ("monk", "cell", "192.0.3.2", "", &[]),
    ("monk2", "cell", "192.0.3.3", "", &[]),
];

/// What daemons are told whose default bridge is the one above.
pub(crate) const DEFAULT_BRIDGE: [&str; 3] = ["--bip", "10.0.0.1/24", "--icc=false"];

impl Stage {
    /// The host's surroundings: a neighbour who knows the way to every container, one that claims to be the host itself,
    /// and somebody on another network.
    pub(crate) fn around() -> Self {
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{switch}"), "0").unwrap();
        }
        listen(&[22], Ipv6Addr::UNSPECIFIED.into());
        listen(&[23, 24], Ipv4Addr::LOCALHOST.into());
        // A switch that is not the host's, so that neighbours share a wire of which it sees its own packets only.
        let switch = new_namespace();
        within(&switch, || run(&["ip", "link", "add", "switch", "type", "bridge"]));
        within(&switch, || run(&["ip", "link", "set", "switch", "up"]));
        // Two more devices of the host's: those that macvlan shares.
        for device in ["lan", "wire0", "cell0"] {
            plug(&switch, &here(), device, device);
            run(&["ip", "link", "set", device, "up"]);
        }
        run(&["ip", "addr", "add", "192.0.2.1/24", "dev", "lan"]);
        run(&["ip", "addr", "add", "2001:db8:1::1/64", "dev", "lan", "nodad"]);
        let mut places = BTreeMap::new();
        for (name, last) in [("neighbour", "2"), ("rogue", "3")] {
            let namespace = new_namespace();
            plug(&switch, &namespace, name, "lan");
            within(&namespace, || {
                run(&["ip", "addr", "add", &format!("192.0.2.{last}/24"), "dev", "lan"]);
                run(&["ip", "link", "set", "lan", "up"]);
                let address = format!("2001:db8:1::{last}/64");
                run(&["ip", "addr", "add", &address, "dev", "lan", "nodad"]);
                run(&["ip", "route", "replace", "default", "via", "192.0.2.1"]);
                run(&["ip", "-6", "route", "add", "default", "via", "2001:db8:1::1"]);
            });
            places.insert(name, namespace);
        }
        let far = beside("away", "198.51.100.1/24", "198.51.100.2/24");
        run(&["ip", "addr", "add", "2001:db8:2::1/64", "dev", "away", "nodad"]);
        within(&far, || {
            run(&["ip", "addr", "add", "2001:db8:2::2/64", "dev", "lan", "nodad"]);
            run(&["ip", "-6", "route", "add", "default", "via", "2001:db8:2::1"]);
        });
        places.insert("far", far);
        places.insert("switch", switch);
        let stage = Self { places };
        for name in ["neighbour", "far"] {
            stage.serve(name);
        }
        stage.deceive("rogue", "192.0.2.1");
        stage
    }

    /// Has an engine make the networks and the containers, and enters them. `docker` runs its command and returns what
    /// that printed.
    pub(crate) fn populate(&mut self, knows: Knows, docker: impl Fn(&[&str]) -> String) {
        self.make(knows, &docker);
        self.enter_all(knows, docker);
    }

    pub(crate) fn make(&self, knows: Knows, docker: impl Fn(&[&str]) -> String) {
        for (name, v4, v6, options) in NETWORKS.into_iter().filter(|(name, ..)| knows.of(name)) {
            let mut words = vec!["network", "create", "--subnet", v4];
            if knows == Knows::Everything && !v6.is_empty() {
                words.extend(["--ipv6", "--subnet", v6]);
            }
            for option in options {
                match option.starts_with("--") {
                    true => words.push(option),
                    false => words.extend(["-o", option]),
                }
            }
            words.push(name);
            docker(&words);
        }
        for (name, network, ip, ip6, published) in CONTAINERS {
            if !knows.of(network) {
                continue;
            }
            let mut words =
                vec!["run", "-d", "--stop-signal", "KILL", "--name", name, "--network", network];
            if network != "bridge" {
                words.extend(["--ip", ip]);
            }
            if knows == Knows::Everything && !ip6.is_empty() {
                words.extend(["--ip6", ip6]);
            }
            for port in published {
                if port.starts_with("--") {
                    words.push(port);
                } else if knows == Knows::Everything || !port.starts_with('[') {
                    words.extend(["-p", port]);
                }
            }
            words.extend(["busybox", "sleep", "86400"]);
            docker(&words);
        }
    }

    pub(crate) fn enter_all(&mut self, knows: Knows, docker: impl Fn(&[&str]) -> String) {
        for (name, ..) in CONTAINERS.into_iter().filter(|(_, network, ..)| knows.of(network)) {
            let pid = docker(&["inspect", "-f", "{{.State.Pid}}", name]);
            let namespace = File::open(format!("/proc/{}/ns/net", pid.trim())).unwrap();
            self.enter(name, namespace.into());
        }
    }

    fn enter(&mut self, name: &'static str, namespace: OwnedFd) {
        self.places.insert(name, namespace);
        self.serve(name);
        match name {
            // Gives itself an address that is not its own.
            "liar" => within(&self.places[name], || {
                run(&["ip", "addr", "add", "10.2.0.77/32", "dev", "lo"]);
            }),
            "martian" => self.deceive(name, "10.1.0.1"),
            // Tries what it was not given.
            "vault" => within(&self.places[name], || {
                run(&["ip", "route", "replace", "default", "via", "10.3.0.1"]);
            }),
            _ => {}
        }
    }

    /// Sends what is for 127.0.0.1 to somebody else.
    fn deceive(&self, name: &str, gateway: &str) {
        within(&self.places[name], || {
            std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
            run(&["ip", "addr", "flush", "dev", "lo"]);
            run(&["ip", "route", "add", "127.0.0.0/8", "via", gateway]);
        });
    }

    fn serve(&self, name: &str) {
        within(&self.places[name], || listen(&PORTS, Ipv6Addr::UNSPECIFIED.into()));
    }
}

/// A host of one's own, on a thread of its own. Without root there is none: said aloud, not failed.
pub(crate) fn on_a_host(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let host = std::thread::spawn(|| {
        unshare(CloneFlags::NEWNET).unwrap();
        sys::net::loopback_up().unwrap();
        test();
    });
    if let Err(panic) = host.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Does something in another network namespace.
pub(crate) fn within<T: Send>(namespace: &OwnedFd, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            setns(namespace.as_fd(), CloneFlags::NEWNET).unwrap();
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The network namespace of this thread.
pub(crate) fn here() -> OwnedFd {
    File::open("/proc/thread-self/ns/net").unwrap().into()
}

/// A program that must succeed.
#[track_caller]
pub(crate) fn run(command: &[&str]) {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", shown(&output));
}

fn new_namespace() -> OwnedFd {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::NEWNET).unwrap();
        sys::net::loopback_up().unwrap();
        here()
    });
    made.join().unwrap()
}

fn path_of(namespace: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

/// Puts a new device of somebody's on the switch, which calls its end of the cable `port`.
fn plug(switch: &OwnedFd, whose: &OwnedFd, port: &str, device: &str) {
    let [switched, own] = [switch, whose].map(path_of);
    run(&[
        "ip", "link", "add", port, "netns", &switched, "type", "veth", "peer", "name", device,
        "netns", &own,
    ]);
    within(switch, || run(&["ip", "link", "set", port, "master", "switch", "up"]));
}

/// A namespace behind a device of the host, which has `host`; it has `there` and a default route back.
fn beside(device: &str, host: &str, there: &str) -> OwnedFd {
    let namespace = new_namespace();
    let path = path_of(&namespace);
    run(&["ip", "link", "add", device, "type", "veth", "peer", "name", "lan", "netns", &path]);
    run(&["ip", "addr", "add", host, "dev", device]);
    run(&["ip", "link", "set", device, "up"]);
    within(&namespace, || {
        run(&["ip", "addr", "add", there, "dev", "lan"]);
        run(&["ip", "link", "set", "lan", "up"]);
        let (host, _) = host.split_once('/').unwrap();
        run(&["ip", "route", "add", "default", "via", host]);
    });
    namespace
}
