//! A7: plugins that are asked about every request see exactly what is obeyed, and what they forbid does not happen.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testkit::house::shown;
use testkit::{House, Plugin, Reply};

use crate::containers::house_with;

const ALLOW: u8 = 0;
const MUTE: u8 = 1;
const BROKEN: u8 = 2;

fn body(question: &Value, field: &str) -> Option<Vec<u8>> {
    let text = question[field].as_str()?;
    Some(STANDARD.decode(text).expect("a body is base64"))
}

/// Forbids privileged containers and answers that speak of a treasure; its mood can be changed.
fn guard(dir: &Path, mood: &Arc<AtomicU8>) -> Plugin {
    let mood = Arc::clone(mood);
    Plugin::start(&dir.join("plugins"), "guard", move |method, question| {
        if method == "Plugin.Activate" {
            return Reply::Json(json!({"Implements": ["authz"]}));
        }
        match mood.load(Ordering::SeqCst) {
            MUTE => return Reply::Raw(Vec::new()),
            BROKEN => return Reply::Json(json!({"Allow": true, "Err": "no idea"})),
            _ => {}
        }
        let said = |field| {
            String::from_utf8_lossy(&body(question, field).unwrap_or_default()).into_owned()
        };
        if method == "AuthZPlugin.AuthZReq" && said("RequestBody").contains("rivileged\":true") {
            return Reply::Json(json!({"Allow": false, "Msg": "no privileges"}));
        }
        if method == "AuthZPlugin.AuthZRes" && said("ResponseBody").contains("treasure") {
            return Reply::Json(json!({"Allow": false, "Msg": "not to be told"}));
        }
        Reply::Json(json!({"Allow": true}))
    })
}

/// In the order in which they may not go.
fn lab(mood: &Arc<AtomicU8>) -> (tempfile::TempDir, Plugin, House) {
    let dir = tempfile::tempdir().expect("a directory");
    let plugin = guard(dir.path(), mood);
    let directory = dir.path().join("plugins");
    let directory = directory.to_str().expect("a path in UTF-8");
    let house = house_with(&["--plugin-directory", directory, "--authorization-plugin", "guard"]);
    (dir, plugin, house)
}

#[test]
fn a7_what_is_forbidden_does_not_happen() {
    let mood = Arc::new(AtomicU8::new(ALLOW));
    let (_dir, plugin, house) = lab(&mood);
    assert_eq!(house.ok(&["info", "-f", "{{json .Plugins.Authorization}}"]), "[\"guard\"]\n");
    // Whoever is allowed notices nothing: streams, terminals, archives.
    assert_eq!(house.ok(&["run", "--rm", "busybox", "echo", "hi"]), "hi\n");
    house.ok(&["run", "-d", "--name", "ca", "busybox", "sh", "-c", "echo out; sleep 600"]);
    assert_eq!(house.ok(&["exec", "ca", "echo", "in"]), "in\n");
    house.ok(&["cp", "ca:/bin/busybox", "-"]);
    let refused =
        house.docker(&["run", "--rm", "--privileged", "busybox", "true"]).output().expect("docker");
    assert!(
        shown(&refused).contains("authorization denied by plugin guard: no privileges"),
        "{}",
        shown(&refused)
    );
    let made =
        house.api("POST", "/containers/create?name=treasure", Some(&json!({"Image": "busybox"})));
    assert_eq!(made.status, 201, "{}", made.text());
    let told = house.api("GET", "/containers/treasure/json", None);
    assert_eq!(
        (told.status, told.json()["message"].as_str()),
        (403, Some("authorization denied by plugin guard: not to be told"))
    );
    // Nobody to ask is no.
    for (state, words) in [
        (MUTE, "plugin guard failed with error: "),
        (BROKEN, "plugin guard failed with error: no idea"),
    ] {
        mood.store(state, Ordering::SeqCst);
        let answer = house.api("DELETE", "/containers/ca?force=1", None);
        assert_eq!(answer.status, 500, "{}", answer.text());
        assert!(answer.text().contains(words), "{}", answer.text());
    }
    mood.store(ALLOW, Ordering::SeqCst);
    assert_eq!(house.api("GET", "/containers/ca/json", None).json()["State"]["Running"], true);
    let seen = plugin.asked("AuthZPlugin.AuthZReq");
    let create = seen.iter().find(|one| {
        one["RequestUri"].as_str().is_some_and(|uri| uri.contains("/containers/create"))
    });
    let create = create.expect("it was asked");
    assert_eq!(create["RequestMethod"], "POST");
    assert_eq!(create["RequestHeaders"]["Content-Type"], "application/json");
    assert!(create.get("User").is_none() && create.get("ResponseStatusCode").is_none(), "{create}");
    let answered = plugin.asked("AuthZPlugin.AuthZRes");
    assert!(answered.iter().any(|one| one["ResponseStatusCode"] == 204));
}

/// Every way to make the plugin see something else than what is done.
#[test]
fn a7_the_plugin_sees_what_is_obeyed() {
    let mood = Arc::new(AtomicU8::new(ALLOW));
    let (_dir, plugin, house) = lab(&mood);
    let privileged = r#"{"Image":"busybox","HostConfig":{"Privileged":true}}"#;
    let padded = format!(
        "{{\"Image\":\"busybox\",\"Labels\":{{\"a\":\"{}\"}},\"HostConfig\":{{\"Privileged\":true}}}}",
        "x".repeat(2 << 20)
    );
    let chunks = format!("{:x}\r\n{privileged}\r\n0\r\n\r\n", privileged.len());
    let post = |kind: &str, framing: &str, body: &str| {
        let kind =
            if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        format!(
            "POST /v1.41/containers/create?name=bad HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{kind}{framing}\r\n\r\n{body}"
        )
    };
    let length = |body: &str| format!("Content-Length: {}", body.len());
    let twice =
        r#"{"Image":"busybox","HostConfig":{"Privileged":false},"HostConfig":{"Privileged":true}}"#;
    let cased = r#"{"image":"busybox","hostconfig":{"privileged":true}}"#;
    let trailing = r#"{"Image":"busybox"}{"HostConfig":{"Privileged":true}}"#;
    let requests = [
        post("application/json", &length(privileged), privileged),
        post("Application/JSON; charset=utf-8", &length(privileged), privileged),
        post("", &length(privileged), privileged),
        post("text/plain", &length(privileged), privileged),
        post("application/json", "Transfer-Encoding: chunked", &chunks),
        post("application/json", &format!("{}\r\nTransfer-Encoding: chunked", length("")), &chunks),
        post("application/json", "Content-Length: 0", privileged),
        post("application/json", &length(&padded), &padded),
        post("application/json", &length(twice), twice),
        post("application/json", &length(cased), cased),
        post("application/json", &length(trailing), trailing),
    ];
    for request in requests {
        let mut stream =
            std::os::unix::net::UnixStream::connect(house.socket()).expect("the daemon listens");
        // It may hang up before it has heard everything.
        drop(std::io::Write::write_all(&mut stream, request.as_bytes()));
        let mut answer = Vec::new();
        drop(std::io::Read::read_to_end(&mut stream, &mut answer));
        let answer = String::from_utf8_lossy(&answer);
        let shown = &request[..request.len().min(300)];
        assert!(!answer.contains("HTTP/1.1 201"), "{shown}\n{answer}");
        let there = house.api("GET", "/containers/bad/json", None);
        assert_eq!(there.status, 404, "{shown}: {}", there.text());
    }
    // A login is not shown, and neither are credentials.
    house.api("POST", "/auth", Some(&json!({"username": "me", "password": "canary"})));
    let seen = format!("{:?}", plugin.calls());
    assert!(!seen.contains(&STANDARD.encode("canary")[..6]) && !seen.contains("canary"));
}

#[test]
fn a7_who_should_ask_and_cannot_does_not_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let other = Plugin::start(&dir.path().join("plugins"), "other", |_, _| {
        Reply::Json(json!({"Implements": ["VolumeDriver"]}))
    });
    let mut daemon = std::process::Command::new(House::binary());
    daemon.args([
        "daemon",
        "--authorization-plugin",
        "other",
        "--bridge",
        "none",
        "--iptables=false",
    ]);
    for (flag, name) in [
        ("--plugin-directory", "plugins"),
        ("--data-root", "d"),
        ("--exec-root", "e"),
        ("--pidfile", "p"),
    ] {
        daemon.arg(flag).arg(dir.path().join(name));
    }
    daemon.arg("-H").arg(format!("unix://{}", dir.path().join("s").display()));
    let output = daemon.output().expect("the daemon");
    assert!(!output.status.success());
    assert!(
        shown(&output).contains("failed to validate authorization plugin"),
        "{}",
        shown(&output)
    );
    drop(other);
}
