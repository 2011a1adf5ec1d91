//! `DOCKER-USER` as scripts fill it: what it refuses is refused, whatever our own rules say, and nothing of ours empties it.

use std::fs::File;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use testkit::House;
use testkit::house::{PATIENCE, succeed};

use super::busybox;
use super::peer::Peer;
use super::probe::{Question, ask, listen};
use super::stage::{Stage, on_a_host, within};

const NO_HOPE: Duration = Duration::from_millis(1200);

fn iptables(words: &[&str]) -> String {
    let mut iptables = Command::new("iptables-nft");
    iptables.args(words);
    succeed(iptables)
}

/// A container with a published port and somebody behind it.
fn publish(port: &str, docker: impl Fn(&[&str]) -> String) -> OwnedFd {
    let run = ["run", "-d", "--stop-signal", "KILL", "--name", "web", "-p", port, "busybox"];
    docker(&[&run[..], &["sleep", "86400"]].concat());
    let pid = docker(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    let namespace = File::open(format!("/proc/{}/ns/net", pid.trim())).unwrap().into();
    within(&namespace, || listen(&[80], Ipv6Addr::UNSPECIFIED.into()));
    namespace
}

fn open(stage: &Stage, who: &str, at: &str, patience: Duration) -> bool {
    let question = Question::Tcp(at.parse().unwrap());
    within(&stage.places[who], || ask(question, None, patience))
}

#[track_caller]
fn soon(what: &str, asked: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !asked() {
        assert!(Instant::now() < end, "{what}: {}", iptables(&["-S"]));
        std::thread::yield_now();
    }
}

fn leads_there() -> bool {
    iptables(&["-S", "FORWARD"]).lines().nth(1) == Some("-A FORWARD -j DOCKER-USER")
}

#[test]
fn what_operators_refuse_is_refused_whoever_lives() {
    on_a_host(|| {
        let stage = Stage::around();
        let mut house = House::with(&["--bip", "10.1.0.1/24"]);
        house.load(&busybox());
        let container = publish("8080:80", |words| house.ok(words));
        const AT: &str = "192.0.2.1:8080";
        let neighbour = |patience| open(&stage, "neighbour", AT, patience);
        assert!(neighbour(PATIENCE));
        let rule = ["DOCKER-USER", "-s", "192.0.2.2/32", "-j", "DROP"];
        iptables(&[&["-I"], &rule[..]].concat());
        let contents = iptables(&["-S", "DOCKER-USER"]);
        let holds = |when: &str| {
            assert_eq!(iptables(&["-S", "DOCKER-USER"]), contents, "{when}");
            assert!(leads_there(), "{when}");
            assert!(!neighbour(NO_HOPE), "{when}");
        };
        holds("at once");
        assert!(open(&stage, "far", "198.51.100.1:8080", PATIENCE), "it is about one neighbour");
        let doctor = house.gantry(&["network", "doctor", "--format", "json"]).output().unwrap();
        let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(told.contains("chain ip filter DOCKER-USER refuses some"), "{told}");
        house.check();

        let daemon = Pid::from_raw(house.pid() as i32).unwrap();
        kill_process(daemon, Signal::HUP).unwrap();
        house.ok(&["network", "create", "another"]);
        holds("after a reload, and a change of ours");
        house.kill();
        holds("while no daemon lives");
        house.start();
        holds("with the next daemon");
        house.stop();
        holds("after a shutdown");
        house.start();
        holds("after a restart");
        iptables(&[&["-D"], &rule[..]].concat());
        assert!(neighbour(PATIENCE));

        // What containers send as well.
        let out = || {
            within(&container, || {
                ask(Question::Tcp("192.0.2.2:80".parse().unwrap()), None, NO_HOPE)
            })
        };
        assert!(out());
        iptables(&["-I", "DOCKER-USER", "-d", "192.0.2.2", "-j", "REJECT"]);
        assert!(!out());
        let mut flush = Command::new("nft");
        flush.args(["flush", "ruleset"]);
        succeed(flush);
        soon("the chain is there again", leads_there);
        assert_eq!(iptables(&["-S", "DOCKER-USER"]), "-N DOCKER-USER\n", "what was in it is lost");
        assert!(out());
        house.ok(&["rm", "-f", "web"]);
        house.check();
    });
}

/// Both daemons have the one chain, and the one way to it.
#[test]
fn dockerd_has_the_same_chain() {
    let program = Path::new("/usr/sbin/dockerd");
    if !program.exists() {
        println!("skipped: needs Debian's docker.io");
        return;
    }
    on_a_host(|| {
        let stage = Stage::around();
        let house = House::with(&["--bip", "10.1.0.1/24"]);
        house.load(&busybox());
        publish("8080:80", |words| house.ok(words));
        iptables(&["-I", "DOCKER-USER", "-s", "192.0.2.3/32", "-j", "DROP"]);
        let peer = Peer::start(program);
        publish("8081:80", |words| peer.ok(words));
        peer.ok(&["network", "create", "theirs"]);
        house.ok(&["network", "create", "ours"]);
        soon("there is one way", || {
            let rules = iptables(&["-S", "FORWARD"]);
            leads_there() && rules.matches("-j DOCKER-USER").count() == 1
        });
        let contents = iptables(&["-S", "DOCKER-USER"]);
        assert!(contents.contains("-s 192.0.2.3/32 -j DROP"), "{contents}");
        let both = || {
            ["192.0.2.1:8080", "192.0.2.1:8081"].map(|at| open(&stage, "neighbour", at, PATIENCE))
        };
        assert_eq!(both(), [true, true]);
        iptables(&["-I", "DOCKER-USER", "-s", "192.0.2.2/32", "-j", "DROP"]);
        let neither =
            ["192.0.2.1:8080", "192.0.2.1:8081"].map(|at| open(&stage, "neighbour", at, NO_HOPE));
        assert_eq!(neither, [false, false]);
        drop(peer);
        house.ok(&["rm", "-f", "web"]);
        house.check();
    });
}
