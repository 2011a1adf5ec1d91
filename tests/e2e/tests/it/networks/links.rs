//! `--link` on the default bridge.

use std::net::SocketAddr;
use std::time::Duration;

use testkit::House;

use super::{address, inspect, reaches, said, sleeper};
use crate::containers::{house, house_with};
use crate::faults::until;
use crate::inside::{pid, within};
use crate::publish::try_get_in as try_get;

#[test]
fn names_and_variables() {
    let house = house();
    sleeper(&house, "db", &["--expose", "6379", "-e", "SECRET=yes", "--hostname", "store"]);
    sleeper(&house, "web", &["--link", "db:database"]);
    let ip = address(&house, "db", "bridge", "IPAddress");
    let hosts = house.ok(&["exec", "web", "cat", "/etc/hosts"]);
    assert!(hosts.contains(&format!("{ip}\tdatabase store db\n")), "{hosts}");
    let env = house.ok(&["inspect", "-f", "{{json .HostConfig.Links}}", "web"]);
    assert_eq!(env.trim(), r#"["/db:/web/database"]"#);
    let env = house.ok(&["exec", "web", "cat", "/proc/1/environ"]);
    for pair in [
        format!("DATABASE_PORT=tcp://{ip}:6379"),
        format!("DATABASE_PORT_6379_TCP_ADDR={ip}"),
        "DATABASE_NAME=/web/database".to_owned(),
        "DATABASE_ENV_SECRET=yes".to_owned(),
    ] {
        assert!(env.split('\0').any(|other| other == pair), "{pair}: {env}");
    }
    let names = house.ok(&["ps", "--no-trunc", "--filter", "name=db", "--format", "{{.Names}}"]);
    assert_eq!(names.trim(), "db,web/database");

    // It comes back elsewhere, and is found there.
    house.ok(&["stop", "-t", "0", "db"]);
    house.check();
    for squatter in ["one", "two", "three"] {
        sleeper(&house, squatter, &[]);
    }
    house.ok(&["start", "db"]);
    let now = address(&house, "db", "bridge", "IPAddress");
    assert_ne!(now, ip);
    let hosts = house.ok(&["exec", "web", "cat", "/etc/hosts"]);
    assert!(hosts.contains(&format!("{now}\tdatabase store db\n")), "{hosts}");
    assert!(!hosts.contains(&format!("{ip}\tdatabase")), "{hosts}");
}

#[test]
fn who_cannot_be_linked_to() {
    let house = house();
    let run = |link: &str| {
        let args = ["run", "--rm", "--name", "web", "--link", link, "busybox", "true"];
        said(&house.docker(&args).output().expect("docker")).1
    };
    assert!(run("nope").contains("could not get container for nope: No such container: nope"));
    house.ok(&["create", "--name", "idle", "busybox"]);
    assert!(
        run("idle:other").contains("Cannot link to a non running container: /idle AS /web/other")
    );
    sleeper(&house, "host", &["--network", "host"]);
    assert!(run("host").contains("conflicting options: host type networking can't be used with links. This would result in undefined behavior"));
}

/// Answers on two ports, one of which it says that it listens on.
fn shop(house: &House, name: &str) {
    let serve = "mkdir /www; echo here > /www/x; httpd -p 81 -h /www; exec httpd -f -p 80 -h /www";
    let args = ["run", "-d", "--name", name, "--expose", "80"];
    house.ok(&[&args[..], &["busybox", "sh", "-c", serve]].concat());
}

fn fetches(house: &House, from: &str, to: &str, port: u16) -> bool {
    fetches_in(pid(house, from), to, port)
}

fn fetches_in(from: u32, to: &str, port: u16) -> bool {
    let at = SocketAddr::new(to.parse().expect("an address"), port);
    let fetched = within(from, || try_get(at, "/x", Duration::from_secs(1)));
    fetched.is_ok_and(|answer| answer.ends_with("here\n"))
}

/// Who answers may be slow, and may not have begun.
fn comes_to_fetch(from: u32, to: &str) {
    until("it is reached", || fetches_in(from, to, 80));
}

#[test]
fn a_link_opens_what_is_exposed_where_nothing_else_is() {
    let mut house = house_with(&["--icc=false"]);
    shop(&house, "db");
    sleeper(&house, "web", &["--link", "db:database"]);
    sleeper(&house, "other", &[]);
    let ip = address(&house, "db", "bridge", "IPAddress");
    comes_to_fetch(pid(&house, "web"), &ip);
    assert!(!fetches(&house, "web", &ip, 81), "it is not exposed");
    assert!(!fetches(&house, "other", &ip, 80), "it is not linked");
    assert!(!reaches(&house, "web", &ip));
    assert!(!reaches(&house, "db", &address(&house, "web", "bridge", "IPAddress")));
    house.check();

    // It comes back elsewhere, and is reached there; who has its address now is not.
    house.ok(&["stop", "-t", "0", "db"]);
    // An address is free when its device is gone, which a check waits for.
    house.check();
    let heir = (0..5).map(|number| format!("heir{number}")).find(|heir| {
        shop(&house, heir);
        address(&house, heir, "bridge", "IPAddress") == ip
    });
    assert!(heir.is_some(), "nobody has its address");
    house.ok(&["start", "db"]);
    let now = address(&house, "db", "bridge", "IPAddress");
    assert_ne!(now, ip);
    comes_to_fetch(pid(&house, "web"), &now);
    assert!(!fetches(&house, "web", &ip, 80));

    let web = pid(&house, "web");
    house.kill();
    // Without a daemon, too.
    comes_to_fetch(web, &now);
    house.start();
    comes_to_fetch(web, &now);
    house.check();

    house.ok(&["rm", "--link", "/web/database"]);
    assert!(!fetches(&house, "web", &now, 80));
    let hosts = house.ok(&["exec", "web", "cat", "/etc/hosts"]);
    assert!(!hosts.contains("database"), "{hosts}");
    house.check();
}

#[test]
fn a_link_is_removed_and_the_container_stays() {
    let house = house();
    sleeper(&house, "db", &["--expose", "80-82"]);
    sleeper(&house, "web", &["--link", "db:database", "--link", "db:store"]);
    let env = house.ok(&["exec", "web", "cat", "/proc/1/environ"]);
    let ip = address(&house, "db", "bridge", "IPAddress");
    for pair in [
        format!("DATABASE_PORT_80_TCP_START=tcp://{ip}:80"),
        "DATABASE_PORT_80_TCP_PORT_END=82".to_owned(),
        format!("STORE_PORT_81_TCP_ADDR={ip}"),
    ] {
        assert!(env.split('\0').any(|other| other == pair), "{pair}: {env}");
    }
    // What it is called by another is a name like any other.
    for (client, name) in [("docker", "web/database"), ("gantry", "/web/store")] {
        let ask = ["inspect", "-f", "{{.Name}}", name];
        let asked = if client == "docker" { house.docker(&ask) } else { house.gantry(&ask) };
        assert_eq!(testkit::house::succeed(asked), "/db\n", "{client} {name}");
    }
    assert_eq!(
        house.ok(&["exec", "web/database", "hostname"]),
        house.ok(&["exec", "db", "hostname"])
    );
    assert_eq!(house.ok(&["rm", "--link", "web/database"]), "web/database\n");
    assert_eq!(
        inspect(&house, "web")["HostConfig"]["Links"],
        serde_json::json!(["/db:/web/store"])
    );
    let hosts = house.ok(&["exec", "web", "cat", "/etc/hosts"]);
    assert!(!hosts.contains("database") && hosts.contains("store"), "{hosts}");
    let ours = testkit::house::succeed(house.gantry(&["rm", "--link", "/web/store"]));
    assert_eq!(ours, "/web/store\n");
    assert_eq!(inspect(&house, "web")["HostConfig"]["Links"], serde_json::Value::Null);
    let refused = |args: &[&str]| said(&house.docker(args).output().expect("docker")).1;
    assert_eq!(
        refused(&["rm", "--link", "db"]),
        "Error response from daemon: Conflict, cannot remove the default link name of the container"
    );
    assert_eq!(
        refused(&["rm", "--link", "web/store"]),
        "Error response from daemon: No such container: web/store"
    );
    // Of one that does not run; and it starts without.
    house.ok(&["create", "--name", "idle", "--link", "db:database", "busybox", "sleep", "9"]);
    house.ok(&["rm", "--link", "idle/database"]);
    house.ok(&["rm", "-f", "db"]);
    house.ok(&["start", "idle"]);
    // Who is not on the default bridge cannot be linked to.
    house.ok(&["network", "create", "apart"]);
    sleeper(&house, "far", &["--network", "apart"]);
    let words = refused(&["run", "--rm", "--link", "far:near", "busybox", "true"]);
    assert!(
        words.contains("Cannot link to /far, as it does not belong to the default network"),
        "{words}"
    );
}
