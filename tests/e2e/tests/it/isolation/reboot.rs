//! After a power cut: nothing is open while everything comes back, and then everything is as it was (N2).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use testkit::House;
use testkit::house::PATIENCE;

use super::probe::{PORTS, Question, ask};
use super::stage::{CONTAINERS, DEFAULT_BRIDGE, Knows, Stage, here, on_a_host, run, within};
use super::{Row, SAMPLE, busybox, ours, surprises};

/// Containers that ask for themselves, from their first instant on: who, and a row of theirs that is open.
const ASKERS: [(&str, Option<&str>); 5] =
    [("peer", Some("10.1.0.2:83")), ("db", None), ("vault", None), ("shy", None), ("hermit", None)];

/// What a container runs: it answers everybody, and asks without end, until it is told to be quiet.
fn script(name: &str, rows: &[(Row, bool)]) -> String {
    let asked = ASKERS.iter().find(|(asker, _)| *asker == name);
    let closed = rows.iter().filter(|(row, open)| row.who == name && !open && asked.is_some());
    let closed = closed.filter_map(|(row, _)| match row.question {
        Question::Tcp(to) if to.is_ipv4() => Some(to),
        _ => None,
    });
    let open = asked.and_then(|(_, open)| *open).map(|to| to.parse::<SocketAddr>().unwrap());
    let mut script = String::new();
    for port in PORTS {
        script +=
            &format!("while ! [ -e /tmp/quiet ]; do echo ! | nc -l -p {port} >/dev/null; done & ");
    }
    for to in closed.chain(open) {
        script += &format!(
            "while ! [ -e /tmp/quiet ]; do nc -w 1 {} {} </dev/null | grep -q ! && echo open {to}; echo asked {to}; \
             usleep 20000; done & ",
            to.ip(),
            to.port()
        );
    }
    script + "exec sleep 86400"
}

/// Ends the questions, even those of a test that fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How often a container has asked each of its questions.
fn asked(house: &House, name: &str) -> Vec<usize> {
    let log = house.ok(&["logs", name]);
    let questions: BTreeSet<&str> =
        log.lines().filter_map(|line| line.strip_prefix("asked ")).collect();
    let times = |question: &&str| log.lines().filter(|line| line.ends_with(*question)).count();
    questions.iter().map(times).collect()
}

/// Everything of the daemon's that a kernel that boots does not have.
fn forget_devices() {
    let listing = Command::new("ip").args(["-o", "link", "show", "type", "bridge"]).output();
    let listing = String::from_utf8(listing.unwrap().stdout).unwrap();
    for line in listing.lines() {
        let name = line.split(": ").nth(1).unwrap();
        run(&["ip", "link", "delete", name]);
    }
    for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{switch}"), "0").unwrap();
    }
}

#[test]
fn f19_nothing_opens_while_all_comes_back() {
    on_a_host(|| {
        let mut stage = Stage::around();
        let mut house = House::with(&DEFAULT_BRIDGE);
        house.load(&busybox());
        // On the default bridge addresses are given out in the order in which containers come back.
        let mut rows = ours();
        rows.retain(|(row, _)| !row.text.contains(" 10.0.0."));
        stage.make(Knows::Everything, |words| match words {
            ["run", "-d", middle @ .., "busybox", "sleep", _] => {
                let name = middle.iter().position(|word| *word == "--name").unwrap() + 1;
                let script = script(middle[name], &rows);
                let head = ["run", "-d", "--restart", "always"];
                house.ok(&[&head[..], middle, &["busybox", "sh", "-c", &script]].concat())
            }
            words => house.ok(words),
        });
        let before: Vec<_> =
            ASKERS.iter().map(|(name, _)| asked(&house, name).iter().sum()).collect();
        house.cut_the_power();
        forget_devices();

        let own = here();
        let outside =
            |row: &Row| row.samples() && matches!(row.who, "neighbour" | "rogue" | "far" | "host");
        let stop = AtomicBool::new(false);
        let opened = Mutex::new(BTreeSet::new());
        std::thread::scope(|scope| {
            for (row, _) in rows.iter().filter(|(row, open)| !open && outside(row)) {
                let place = stage.places.get(row.who).unwrap_or(&own);
                let (stop, opened) = (&stop, &opened);
                scope.spawn(move || {
                    within(place, || {
                        while !stop.load(Ordering::Relaxed) {
                            if ask(row.question, row.from, SAMPLE) {
                                opened.lock().unwrap().insert(row.text);
                            }
                        }
                    });
                });
            }
            let _stop = Stop(&stop);
            house.start();
            let end = Instant::now() + PATIENCE;
            // Each has been there, and has asked everything twice since.
            for ((name, _), before) in ASKERS.iter().zip(before) {
                let enough = |times: Vec<usize>| {
                    let questions = times.len();
                    times.into_iter().sum::<usize>() >= usize::max(before, 1) + 2 * questions
                };
                while !enough(asked(&house, name)) {
                    assert!(Instant::now() < end, "{name} does not come back");
                    std::thread::yield_now();
                }
            }
        });
        assert_eq!(opened.into_inner().unwrap(), BTreeSet::new());
        for (name, open) in ASKERS {
            let log = house.ok(&["logs", name]);
            let reached: BTreeSet<&str> =
                log.lines().filter_map(|line| line.strip_prefix("open ")).collect();
            assert_eq!(reached, open.into_iter().collect(), "{name}");
        }

        for (name, ..) in CONTAINERS {
            let quiet = "touch /tmp/quiet; while killall nc 2>/dev/null; do usleep 10000; done";
            house.ok(&["exec", name, "sh", "-c", quiet]);
        }
        stage.enter_all(Knows::Everything, |words| house.ok(words));
        assert_eq!(surprises(&stage, &rows), Vec::<String>::new());
        // Addresses were chosen, ports are published again: it is what it was.
        let address = house.ok(&["exec", "web", "ip", "-4", "-o", "addr", "show", "eth0"]);
        assert!(address.contains("10.1.0.2/24"), "{address}");
    });
}
