//! What comes and goes leaves nothing, however often (N10), and what others take away is noticed (F22).

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use serde_json::{Value, json};
use testkit::client::Client;
use testkit::house::{PATIENCE, succeed};
use testkit::{House, Netns};

use super::{address, reaches, sleeper};

fn house(netns: &Netns) -> House {
    let house = House::within(netns);
    house.load(&testkit::TestImage::busybox().docker_archive(&["busybox:latest"]));
    house
}

/// Everything that could be left behind, counted: in the kernel of this host, and in our processes.
fn held(netns: &Netns, house: &House) -> BTreeMap<&'static str, usize> {
    let lines = |program: &str, args: &[&str]| {
        let mut command = netns.command(program);
        command.args(args);
        succeed(command).lines().count()
    };
    let files = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let table = format!("gantry-{}", house.bridge());
    let names = house.exec_root().join("netns");
    let netd = network::netd::pid(&house.exec_root());
    BTreeMap::from([
        ("devices", lines("ip", &["-o", "link"])),
        ("addresses", lines("ip", &["-o", "addr"])),
        ("routes", lines("ip", &["route", "show", "table", "all"])),
        ("forwarding entries", lines("bridge", &["fdb", "show"])),
        ("rules and elements", lines("nft", &["list", "table", "inet", &table])),
        ("namespaces", fs::read_dir(names).map_or(0, Iterator::count)),
        ("netd's files", netd.map_or(0, files)),
        ("the daemon's files", files(house.pid())),
    ])
}

/// What a process's descriptors are of.
fn open_files(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let mut links: Vec<_> = links.map(|link| link.display().to_string()).collect();
    links.sort();
    links
}

/// Waits until the namespaces that are made in advance are there: the last life may have taken one.
fn ready(house: &House) {
    let end = Instant::now() + PATIENCE;
    let namespaces =
        || open_files(house.pid()).iter().filter(|link| link.starts_with("net:")).count();
    while namespaces() < 4 {
        assert!(Instant::now() < end, "the daemon has {:?}", open_files(house.pid()));
        std::thread::yield_now();
    }
}

/// Resident memory of the daemon and netd, in KiB.
fn memory(house: &House) -> u64 {
    let pids = [Some(house.pid()), network::netd::pid(&house.exec_root())];
    let resident = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    pids.into_iter().flatten().filter_map(resident).sum()
}

/// Waits until as much is held as before. What goes is gone a moment after the answer.
fn settle(netns: &Netns, house: &House, before: &BTreeMap<&'static str, usize>) {
    let end = Instant::now() + PATIENCE;
    loop {
        let now = held(netns, house);
        let more: Vec<_> = now.iter().filter(|(what, count)| before[*what] < **count).collect();
        if more.is_empty() {
            return;
        }
        assert!(
            Instant::now() < end,
            "left behind: {more:?}, before: {before:?}; the daemon has {:?}",
            open_files(house.pid())
        );
        std::thread::yield_now();
    }
}

/// One life after another, with a network of its own or not, ports, names.
fn lives(api: &Client, client: u32, rounds: u32) {
    let ask = |method: &str, path: &str, body: Option<&Value>, expected: u16| {
        let answer = api.ask(method, path, body).expect("the daemon answers");
        assert_eq!(answer.status, expected, "{method} {path}: {}", answer.text());
    };
    for round in 0..rounds {
        let name = format!("life-{client}-{round}");
        let own = round % 5 == 0;
        if own {
            let body = json!({ "Name": name, "EnableIPv6": round % 2 == 0 });
            ask("POST", "/networks/create", Some(&body), 201);
        }
        let body = json!({
            "Image": "busybox",
            "Cmd": ["sleep", "86400"],
            "ExposedPorts": { "80/tcp": {}, "53/udp": {} },
            "HostConfig": {
                "NetworkMode": if own { name.as_str() } else { "stay" },
                "PortBindings": { "80/tcp": [{}], "53/udp": [{ "HostIp": "127.0.0.1" }] },
            },
        });
        ask("POST", &format!("/containers/create?name={name}"), Some(&body), 201);
        ask("POST", &format!("/containers/{name}/start"), None, 204);
        ask("DELETE", &format!("/containers/{name}?force=1"), None, 204);
        if own {
            ask("DELETE", &format!("/networks/{name}"), None, 204);
        }
    }
}

fn nothing_is_left_of(rounds: u32) {
    let netns = Netns::new();
    let house = house(&netns);
    house.ok(&["network", "create", "stay"]);
    sleeper(&house, "web", &["--network", "stay", "-p", "18080:80"]);
    // What is kept ready and cached is there from the first lives on.
    lives(&house.client_of_api(), 9, 10);
    ready(&house);
    let before = held(&netns, &house);
    let mut resident = vec![memory(&house)];
    for _ in 0..2 {
        std::thread::scope(|scope| {
            for client in 0..4 {
                let api = house.client_of_api();
                scope.spawn(move || lives(&api, client, rounds / 8));
            }
        });
        resident.push(memory(&house));
    }
    settle(&netns, &house, &before);
    println!("{rounds} lives; KiB resident, at the start, halfway and at the end: {resident:?}");
    // Threads and caches have theirs after the first thousands; what is kept for each life would go on growing.
    let grown = resident[2].saturating_sub(resident[1]);
    assert!(rounds < 5000 || grown < u64::from(rounds) / 2, "{resident:?}");
    house.check();
}

#[test]
fn n10_nothing_is_left_of_a_few() {
    nothing_is_left_of(60);
}

/// `cargo nextest run -p e2e --run-ignored all --no-capture n10_nothing`.
#[test]
#[ignore = "five thousand lives take minutes"]
fn n10_nothing_is_left_of_five_thousand() {
    nothing_is_left_of(5000);
}

/// Eight clients connect and disconnect running containers for so long.
fn connected_and_disconnected_for(time: Duration) {
    let netns = Netns::new();
    let house = house(&netns);
    for number in 0..4 {
        house.ok(&["network", "create", &format!("net{number}")]);
    }
    for client in 0..8 {
        sleeper(&house, &format!("c{client}"), &[]);
    }
    let turn = |api: &Client, client: usize, turn: usize| {
        let network = format!("net{}", (client + turn) % 4);
        for verb in ["connect", "disconnect"] {
            let body = json!({ "Container": format!("c{client}") });
            let path = format!("/networks/{network}/{verb}");
            let answer = api.ask("POST", &path, Some(&body)).expect("the daemon answers");
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        }
    };
    let all = |end: Instant| -> usize {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..8)
                .map(|client| {
                    let api = house.client_of_api();
                    scope.spawn(move || {
                        let mut turns = 0;
                        while turns < 8 || Instant::now() < end {
                            turn(&api, client, turns);
                            turns += 1;
                        }
                        turns
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().expect("it ends")).sum()
        })
    };
    all(Instant::now());
    ready(&house);
    let before = held(&netns, &house);
    let memory_before = memory(&house);
    let turns = all(Instant::now() + time);
    settle(&netns, &house, &before);
    println!("{turns} turns; KiB resident: {memory_before}, then {}", memory(&house));
    for client in 0..8 {
        let links = house.ok(&["exec", &format!("c{client}"), "ip", "-o", "link"]);
        assert_eq!(links.lines().count(), 2, "{links}");
    }
    let gateway = house.gateway();
    assert!(reaches(&house, "c0", &gateway));
    house.check();
}

#[test]
fn n10_connecting_leaves_nothing() {
    connected_and_disconnected_for(Duration::from_secs(2));
}

/// `cargo nextest run -p e2e --run-ignored all --no-capture n10_connecting`.
#[test]
#[ignore = "takes a minute"]
fn n10_connecting_for_a_minute_leaves_nothing() {
    connected_and_disconnected_for(Duration::from_secs(60));
}

/// What a strict check finds.
fn findings(house: &House) -> Vec<String> {
    let answer = house.api("POST", "/gantry/system/check?strict=1", None).json();
    let findings = answer["findings"].as_array().expect("a list").clone();
    findings.iter().map(Value::to_string).collect()
}

#[test]
fn f22_what_others_take_away() {
    let netns = Netns::new();
    let house = house(&netns);
    house.ok(&["network", "create", "net"]);
    sleeper(&house, "web", &["--network", "net", "-p", "18080:80"]);
    sleeper(&house, "peer", &["--network", "net"]);
    let peer = address(&house, "peer", "net", "IPAddress");
    let ip = |words: &[&str]| {
        let mut ip = netns.command("ip");
        ip.args(words);
        succeed(ip)
    };

    // Its bridge comes back, and everybody on it.
    let id = house.ok(&["network", "inspect", "-f", "{{.Id}}", "net"]);
    ip(&["link", "delete", &format!("br-{}", &id[..12])]);
    let end = Instant::now() + PATIENCE;
    while !findings(&house).is_empty() {
        assert!(Instant::now() < end, "{:?}", findings(&house));
        std::thread::yield_now();
    }
    assert!(reaches(&house, "web", &peer));

    // A device of a container's is reported; the container can go, and come again.
    let bridged = ip(&["-o", "link", "show", "master", &format!("br-{}", &id[..12])]);
    for line in bridged.lines() {
        let name = line.split([':', '@']).nth(1).expect("a name").trim();
        ip(&["link", "delete", name]);
    }
    let found = findings(&house);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|one| one.contains("I4") && one.contains("is missing")), "{found:?}");
    house.ok(&["restart", "-t", "0", "web", "peer"]);
    assert_eq!(findings(&house), [""; 0]);
    let peer = address(&house, "peer", "net", "IPAddress");
    assert!(reaches(&house, "web", &peer));

    // A stranger in its cgroup does not keep it from going, nor a directory that somebody made there.
    let status = house.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", status.trim())).expect("it lives");
    let mut stranger = Command::new("sleep").arg("1000").spawn().expect("sleep");
    let (_, path) = groups
        .lines()
        .filter_map(|line| line.split_once(":pids:").or_else(|| line.split_once("0::")))
        .next()
        .expect("a cgroup");
    let roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(|root| format!("{root}{path}"));
    let group = roots.iter().find(|dir| fs::exists(dir).unwrap_or(false)).expect("it is there");
    fs::create_dir(format!("{group}/strange")).expect("a cgroup");
    fs::write(format!("{group}/strange/cgroup.procs"), stranger.id().to_string()).expect("root");
    house.ok(&["rm", "-f", "web", "peer"]);
    let _dead = stranger.kill();
    let _ended = stranger.wait();
    house.ok(&["network", "rm", "net"]);
    // The group goes once the stranger has.
    let end = Instant::now() + PATIENCE;
    while !findings(&house).is_empty() {
        assert!(Instant::now() < end, "{:?}", findings(&house));
        std::thread::yield_now();
    }
    house.check();
}

/// As when somebody kills a daemon and tidies up by hand.
#[test]
fn a_netd_that_nobody_finds_ends() {
    let mut house = House::new();
    house.load(&testkit::TestImage::busybox().docker_archive(&["busybox:latest"]));
    house.ok(&["run", "--rm", "busybox", "true"]);
    let pid = network::netd::pid(&house.exec_root()).expect("it holds the firewall's table");
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a number");
    let netd = pidfd_open(pid, PidfdFlags::empty()).expect("it lives");
    let has_ended = |wait: Duration| {
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: 0 };
        poll(&mut [PollFd::new(&netd, PollFlags::IN)], Some(&wait)).expect("a descriptor") == 1
    };
    // As long as its daemon lives it is needed.
    fs::remove_file(house.exec_root().join("netd.sock")).expect("it was there");
    house.ok(&["run", "--rm", "busybox", "true"]);
    assert!(!has_ended(Duration::ZERO));
    house.kill();
    assert!(has_ended(PATIENCE));
    // The table that it held is nobody's: the next daemon makes its own.
    house.start();
    house.ok(&["run", "--rm", "busybox", "true"]);
}
