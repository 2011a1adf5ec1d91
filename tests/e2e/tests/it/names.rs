//! Names on user-defined networks: who answers, to whom, and whoever is dead.

use testkit::House;

use crate::containers::house;
use crate::inside::{Said, ask, pid};

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
    let own = crate::inside::within(pid, || {
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
