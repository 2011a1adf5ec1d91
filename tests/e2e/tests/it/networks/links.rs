//! `--link` on the default bridge.

use super::{address, said, sleeper};
use crate::containers::house;

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
