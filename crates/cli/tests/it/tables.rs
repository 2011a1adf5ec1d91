//! Listings and `inspect`.

use crate::daemon::{Answer, Daemon};
use crate::docker;

const CONTAINERS: &str = r#"[{"Id":"0123456789abcdef","Names":["/web"],"Image":"busybox","ImageID":"sha256:ff","Command":"sleep 1000","Created":1,
    "Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"}],"Labels":{"a":"b"},"State":"running","Status":"Up 5 minutes",
    "NetworkSettings":{"Networks":{"bridge":{}}},"Mounts":[]}]"#;

fn daemon() -> Daemon {
    Daemon::start(
        "1.44",
        &[
            ("GET /containers/json", &[Answer::Json(200, CONTAINERS)]),
            (
                "GET /containers/web/json",
                &[Answer::Json(
                    200,
                    r#"{"Id":"0123456789abcdef","Zeta":1.50,"Alpha":[],"State":{"Pid":42}}"#,
                )],
            ),
            (
                "GET /containers/nope/json",
                &[Answer::Json(404, r#"{"message":"No such container: nope"}"#)],
            ),
        ],
    )
}

#[test]
fn ps() {
    let daemon = daemon();
    let show = |line: &[&str]| docker(&daemon.socket(), line, b"").out;
    let table = show(&["ps"]);
    let mut lines = table.lines();
    assert_eq!(
        lines.next().unwrap(),
        "CONTAINER ID   IMAGE     COMMAND        CREATED        STATUS         PORTS                  NAMES"
    );
    assert!(
        lines.next().unwrap().ends_with("Up 5 minutes   0.0.0.0:8080->80/tcp   web"),
        "{table}"
    );
    assert_eq!(show(&["ps", "-q"]), "0123456789ab\n");
    assert_eq!(show(&["ps", "--format", r#"{{.Names}}\t{{.Label "a"}}"#]), "web\tb\n");
    assert_eq!(
        show(&["ps", "--format", "table {{.Names}}\t{{.State}}"]),
        "NAMES     STATE\nweb       running\n"
    );
    docker(&daemon.socket(), &["ps", "-a", "-f", "name=x", "-f", "label=y", "-n", "3"], b"");
    assert_eq!(
        daemon.lines().last().unwrap(),
        "GET /containers/json?all=1&limit=3&filters=%7B%22label%22%3A%7B%22y%22%3Atrue%7D%2C%22name%22%3A%7B%22x%22%3Atrue%7D%7D"
    );
}

#[test]
fn inspect_shows_what_the_daemon_sent() {
    let daemon = daemon();
    let ended = docker(&daemon.socket(), &["inspect", "--type", "container", "web", "nope"], b"");
    assert_eq!(
        ended.out,
        "[\n    {\n        \"Id\": \"0123456789abcdef\",\n        \"Zeta\": 1.50,\n        \"Alpha\": [],\n        \"State\": {\n            \"Pid\": 42\n        }\n    }\n]\n"
    );
    assert_eq!(
        (ended.err.as_str(), ended.status),
        ("Error response from daemon: No such container: nope\n", 1)
    );
    let ended = docker(&daemon.socket(), &["inspect", "-f", "{{.State.Pid}}", "web"], b"");
    assert_eq!((ended.out.as_str(), ended.status), ("42\n", 0));
}
