//! Names on user-defined networks: who answers, to whom, and whoever is dead.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use testkit::House;

use crate::containers::house;
use crate::inside::{pid, within};

/// What a name server says.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    code: u8,
    addresses: Vec<IpAddr>,
}

/// Asks the name server of a container for an address, as a resolver in there would.
fn ask(pid: u32, name: &str, six: bool) -> io::Result<Said> {
    within(pid, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.connect("127.0.0.11:53")?;
        let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend(label.as_bytes());
        }
        query.extend([0, 0, if six { 28 } else { 1 }, 0, 1]);
        socket.send(&query)?;
        let mut answer = [0; 4096];
        let length = socket.recv(&mut answer)?;
        Ok(read(&answer[..length], query.len()))
    })
}

/// Answers of ours have names that refer to the question.
fn read(answer: &[u8], mut at: usize) -> Said {
    let count = u16::from_be_bytes([answer[6], answer[7]]);
    let mut addresses = Vec::new();
    for _ in 0..count {
        let length = usize::from(u16::from_be_bytes([answer[at + 10], answer[at + 11]]));
        let data = &answer[at + 12..at + 12 + length];
        if let Ok(octets) = <[u8; 4]>::try_from(data) {
            addresses.push(Ipv4Addr::from(octets).into());
        } else if let Ok(octets) = <[u8; 16]>::try_from(data) {
            addresses.push(Ipv6Addr::from(octets).into());
        }
        at += 12 + length;
    }
    Said { code: answer[3] & 15, addresses }
}

fn sleeper(house: &House, name: &str, flags: &[&str]) {
    let args = [&["run", "-d", "--name", name][..], flags, &["busybox", "sleep", "1000"]].concat();
    house.ok(&args);
}

fn address(house: &House, name: &str, network: &str) -> String {
    let format = format!("{{{{(index .NetworkSettings.Networks {network:?}).IPAddress}}}}");
    house.ok(&["inspect", "-f", &format, name]).trim().to_owned()
}

fn look_up(house: &House, from: &str, args: &[&str]) -> String {
    let output = house
        .docker(&[&["exec", from, "nslookup"][..], args].concat())
        .output()
        .expect("docker can be executed");
    testkit::house::shown(&output)
}

/// Docker's answer to a name that nobody bears here and nobody else may be asked for.
const UNKNOWN: Said = Said { code: 2, addresses: Vec::new() };

fn known(addresses: &[&str]) -> Said {
    let addresses = addresses.iter().map(|ip| ip.parse().expect("an address")).collect();
    Said { code: 0, addresses }
}

#[test]
fn every_name_there_is() {
    let house = house();
    house.ok(&["network", "create", "--internal", "back"]);
    sleeper(&house, "db", &["--network", "back", "--network-alias", "store", "--expose", "5432"]);
    sleeper(&house, "web", &["--network", "back", "--hostname", "www"]);
    let (db, web) = (address(&house, "db", "back"), pid(&house, "web"));
    let id = house.ok(&["ps", "-q", "--filter", "name=db"]).trim().to_owned();
    for name in ["db", "DB", "store", "db.back", "store.back", &id] {
        assert_eq!(ask(web, name, false).expect("an answer"), known(&[&db]), "{name}");
        assert_eq!(ask(web, name, true).expect("an answer"), known(&[]), "{name}");
    }
    for name in ["nobody", "db.elsewhere", "example.org"] {
        assert_eq!(ask(web, name, false).expect("an answer"), UNKNOWN, "{name}");
    }
    let found = look_up(&house, "web", &["store"]);
    assert!(found.contains("127.0.0.11:53") && found.contains(&db), "{found}");
    let back = look_up(&house, "web", &[&db]);
    assert!(back.contains("name = db.back"), "{back}");
    let service = look_up(&house, "web", &["-type=srv", "_postgresql._tcp.db"]);
    assert!(service.contains("0 0 5432 db.back"), "{service}");
    let pinged = house.ok(&["exec", "web", "ping", "-c", "1", "-w", "10", "db"]);
    assert!(pinged.contains(&format!("PING db ({db})")), "{pinged}");
    house.ok(&["rm", "-f", "db"]);
    assert_eq!(ask(web, "db", false).expect("an answer"), UNKNOWN);
    assert_eq!(ask(web, "store", false).expect("an answer"), UNKNOWN);
}

#[test]
fn the_file_as_docker_writes_it() {
    let house = house();
    house.ok(&["network", "create", "back"]);
    sleeper(
        &house,
        "web",
        &[
            "--network",
            "back",
            "--dns",
            "192.0.2.1",
            "--dns-search",
            "example.org",
            "--dns-opt",
            "edns0",
        ],
    );
    let file = house.ok(&["exec", "web", "cat", "/etc/resolv.conf"]);
    let body = file.split_once("\n\n").expect("a head").1;
    let host = if body.contains("/run/systemd") {
        "/run/systemd/resolve/resolv.conf"
    } else {
        "/etc/resolv.conf"
    };
    assert_eq!(
        body,
        format!(
            "nameserver 127.0.0.11\nsearch example.org\noptions edns0 ndots:0\n\n\
             # Based on host file: '{host}' (internal resolver)\n# ExtServers: [192.0.2.1]\n\
             # Overrides: [nameservers search options]\n# Option ndots from: internal\n"
        )
    );
    sleeper(&house, "plain", &[]);
    let plain = house.ok(&["exec", "plain", "cat", "/etc/resolv.conf"]);
    assert!(!plain.contains("127.0.0.11") && plain.contains("(legacy)"), "{plain}");
}

#[test]
fn several_of_one_name_take_turns() {
    let house = house();
    house.ok(&["network", "create", "back"]);
    for name in ["one", "two", "three"] {
        sleeper(&house, name, &["--network", "back", "--network-alias", "all"]);
    }
    let pid = pid(&house, "one");
    let mut firsts = std::collections::BTreeSet::new();
    for _ in 0..6 {
        let said = ask(pid, "all", false).expect("an answer");
        assert_eq!(said.addresses.len(), 3);
        firsts.insert(said.addresses[0]);
    }
    assert_eq!(firsts.len(), 3);
}

#[test]
fn port_53_is_the_containers() {
    let house = house();
    house.ok(&["network", "create", "back"]);
    sleeper(&house, "web", &["--network", "back"]);
    let pid = pid(&house, "web");
    let own = within(pid, || {
        let tcp = std::net::TcpListener::bind("0.0.0.0:53").expect("it is free");
        (tcp, std::net::UdpSocket::bind("0.0.0.0:53").expect("it is free"))
    });
    let web = address(&house, "web", "back");
    assert_eq!(ask(pid, "web", false).expect("an answer"), known(&[&web]));
    drop(own);
}

#[test]
fn whoever_dies_names_are_known() {
    let mut house = house();
    house.ok(&["network", "create", "back"]);
    sleeper(&house, "db", &["--network", "back", "--network-alias", "store"]);
    sleeper(&house, "web", &["--network", "back"]);
    let (db, pid) = (address(&house, "db", "back"), pid(&house, "web"));
    let knows = || assert_eq!(ask(pid, "store", false).expect("an answer"), known(&[&db]));
    knows();
    house.kill();
    knows();
    house.start();
    knows();
    // What is asked meanwhile waits in the socket for the next.
    crate::publish::kill_netd(&house);
    knows();
    house.kill();
    crate::publish::kill_netd(&house);
    house.start();
    knows();
    house.check();
    // A container that comes afterwards is told to those from before.
    sleeper(&house, "late", &["--network", "back"]);
    let late = address(&house, "late", "back");
    assert_eq!(ask(pid, "late", false).expect("an answer"), known(&[&late]));
}

#[test]
fn connected_while_it_runs() {
    let house = house();
    house.ok(&["network", "create", "--internal", "back"]);
    sleeper(&house, "db", &["--network", "back"]);
    sleeper(&house, "web", &[]);
    house.ok(&["network", "connect", "--alias", "www", "back", "web"]);
    let (db, web) = (pid(&house, "db"), pid(&house, "web"));
    let (db_ip, web_ip) = (address(&house, "db", "back"), address(&house, "web", "back"));
    assert_eq!(ask(web, "db", false).expect("an answer"), known(&[&db_ip]));
    assert_eq!(ask(db, "www", false).expect("an answer"), known(&[&web_ip]));
    let file = house.ok(&["exec", "web", "cat", "/etc/resolv.conf"]);
    assert!(file.contains("nameserver 127.0.0.11\n"), "{file}");
    house.ok(&["network", "disconnect", "back", "web"]);
    assert_eq!(ask(db, "www", false).expect("an answer"), UNKNOWN);
    assert_eq!(ask(db, "web", false).expect("an answer"), UNKNOWN);
}
