//! `--egress` and `--net-rate`: what is said on the command line holds inside, is shown, and can be changed while the container runs.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use testkit::house::{shown, succeed};
use testkit::{House, TestImage};

use crate::inside::{pid, within};

/// Does somebody at this address of the host answer, as seen from a container?
fn reaches(pid: u32, to: SocketAddr) -> bool {
    within(pid, || TcpStream::connect_timeout(&to, Duration::from_millis(1500)).is_ok())
}

#[test]
fn said_shown_and_changed() {
    let mut house = House::new();
    house.load(&TestImage::busybox().docker_archive(&["busybox:latest"]));
    let gateway = house
        .ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge"])
        .trim()
        .to_owned();
    let listener = TcpListener::bind((gateway.as_str(), 0)).unwrap();
    let there = listener.local_addr().unwrap();
    let allow = format!("allow={there},Example.com");
    for (name, rules) in [("some", allow.as_str()), ("nothing", "none")] {
        let words = ["run", "-d", "--stop-signal", "KILL", "--name", name, "--egress", rules];
        succeed(house.gantry(&[&words[..], &["busybox", "sleep", "600"]].concat()));
    }
    let (some, nothing) = (pid(&house, "some"), pid(&house, "nothing"));
    assert!(reaches(some, there) && !reaches(nothing, there));
    let rules = |house: &House, name: &str| {
        succeed(house.gantry(&["inspect", "-f", "{{json .HostConfig.Egress}}", name]))
    };
    assert_eq!(rules(&house, "some").trim(), format!("[\"{there}\",\"Example.com\"]"));
    assert_eq!(rules(&house, "nothing").trim(), "[]");
    // Names are ours to answer, on the default bridge as well.
    let resolv = house.ok(&["exec", "some", "cat", "/etc/resolv.conf"]);
    assert!(resolv.contains("nameserver 127.0.0.11"), "{resolv}");

    let update = |house: &House, rules: &str, name: &str| {
        succeed(house.gantry(&["update", "--egress", rules, name]));
    };
    update(&house, &allow, "nothing");
    update(&house, "none", "some");
    assert!(!reaches(some, there) && reaches(nothing, there));
    assert_eq!(rules(&house, "some").trim(), "[]");
    // It survives the daemon, and the container's own end.
    house.kill();
    assert!(!reaches(some, there) && reaches(nothing, there));
    house.start();
    assert!(!reaches(some, there) && reaches(nothing, there));
    house.ok(&["restart", "-t", "0", "some"]);
    let some = pid(&house, "some");
    assert!(!reaches(some, there));
    update(&house, "any", "some");
    assert!(reaches(some, there));
    let refused =
        |words: &[&str]| shown(&house.gantry(words).output().expect("it can be executed"));
    let words = refused(&["run", "--network", "host", "--egress", "none", "busybox"]);
    assert!(words.contains("conflicting options: egress rules and the network mode"), "{words}");
    let words = refused(&["create", "--egress", "allow=http://x", "busybox"]);
    assert!(words.contains("invalid egress rule \"http://x\""), "{words}");
    // As fast as was said, at once.
    let rate = |rate: &str| {
        succeed(house.gantry(&["update", "--net-rate", rate, "some"]));
        succeed(house.gantry(&["inspect", "-f", "{{json .HostConfig.NetRate}}", "some"]))
    };
    let queues = || {
        let queues = std::process::Command::new("tc").args(["qdisc", "show"]).output();
        String::from_utf8(queues.expect("tc").stdout).expect("text")
    };
    assert_eq!(rate("in=7777kbit,out=8888kbit"), "{\"In\":7777000,\"Out\":8888000}\n");
    assert!(queues().contains("rate 7777Kbit") && queues().contains("rate 8888Kbit"));
    assert_eq!(rate("in=0"), "{\"In\":0,\"Out\":8888000}\n");
    assert!(!queues().contains("rate 7777Kbit") && queues().contains("rate 8888Kbit"));
    house.check();
    house.ok(&["rm", "-f", "some", "nothing"]);
}
