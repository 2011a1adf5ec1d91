//! A8: what is secret is nowhere but where it was put.

use std::process::Command;

use serde_json::json;

use crate::containers::house_with;

#[test]
fn a8_credentials_and_secrets_are_nowhere() {
    let house = house_with(&["--debug"]);
    let canary = |what: &str| format!("canary{what}kanarienvogel");
    // Credentials for a registry, by both heads that carry them.
    let auth =
        json!({"username": "me", "password": canary("auth"), "identitytoken": canary("token")})
            .to_string();
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE, auth);
    let mut stream =
        std::os::unix::net::UnixStream::connect(house.socket()).expect("the daemon listens");
    let request = format!(
        "POST /images/create?fromImage=127.0.0.1:1/a&tag=b HTTP/1.1\r\nHost: d\r\nX-Registry-Auth: {encoded}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("it listens");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
    assert!(!answer.contains("kanarienvogel") && !answer.contains(&encoded), "{answer}");
    let login =
        json!({"username": "me", "password": canary("login"), "serveraddress": "127.0.0.1:1"});
    let answer = house.api("POST", "/auth", Some(&login)).text();
    assert!(!answer.contains("kanarienvogel"), "{answer}");
    // A name with credentials in it is refused without repeating them, and so is a body that is broken behind one.
    let broken =
        format!("{{\"Image\": \"busybox\", \"Env\": [\"A={}\"], \"Cmd\": 5}}", canary("env"));
    let answer = house.send("POST", "/containers/create", "application/json", broken.as_bytes());
    assert_eq!(answer.status, 400);
    assert!(!answer.text().contains("kanarienvogel"), "{}", answer.text());
    house.ok(&[
        "run",
        "-d",
        "--name",
        "ca",
        "-e",
        &format!("A={}", canary("env")),
        "busybox",
        "sleep",
        "600",
    ]);
    house.ok(&["exec", "-e", &format!("B={}", canary("exec")), "ca", "true"]);
    let mut input = house.docker(&["exec", "-i", "ca", "cat"]);
    input.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut input = input.spawn().expect("docker");
    let text = canary("stdin");
    std::io::Write::write_all(&mut input.stdin.take().expect("a pipe"), text.as_bytes())
        .expect("cat reads");
    assert!(input.wait().expect("docker").success());
    let log = house.log();
    assert!(!log.contains("kanarienvogel") && !log.contains(&encoded), "{log}");
    let shown = house.ok(&["events", "--since", "1h", "--until", "0s"]);
    assert!(!shown.contains("kanarienvogel"), "{shown}");
    // Command lines and environments of our own processes can be read by others on the machine.
    let list = Command::new("pgrep").args(["-f", "-a", "kanarienvogel"]).output().expect("pgrep");
    assert_eq!(String::from_utf8_lossy(&list.stdout), "");
}
