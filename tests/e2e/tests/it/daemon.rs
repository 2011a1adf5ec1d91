//! The daemon as a program: its names, its flags, its end, and what it says of its books.

use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;
use testkit::house::shown;
use testkit::{House, Netns};

use crate::containers::{house, house_with};

fn called(name: &str, args: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a place for a link");
    let link = dir.path().join(name);
    symlink(House::binary(), &link).expect("a link");
    Command::new(link).args(args).output().expect("it can be executed")
}

#[test]
fn answers_to_dockers_names() {
    let house = house();
    let dir = tempfile::tempdir().expect("a place for a link");
    let docker = dir.path().join("docker");
    symlink(House::binary(), &docker).expect("a link");
    let listed = Command::new(docker)
        .args(["images", "-q", "busybox"])
        .env("DOCKER_HOST", format!("unix://{}", house.socket().display()))
        .output()
        .expect("it can be executed");
    assert!(listed.status.success(), "{}", shown(&listed));
    assert_eq!(String::from_utf8_lossy(&listed.stdout), house.ok(&["images", "-q", "busybox"]));
    for name in ["dockerd", "gantryd"] {
        let version = called(name, &["--version"]);
        assert!(shown(&version).starts_with("Gantry version "), "{}", shown(&version));
    }
}

#[test]
fn a_wrong_configuration_is_said_and_refused() {
    let dir = tempfile::tempdir().expect("a place for files");
    let file = dir.path().join("daemon.json");
    let path = file.to_str().expect("a path in UTF-8");
    let validate = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).expect("a file");
        called("dockerd", &[&["--validate", "--config-file", path], more].concat())
    };
    let right = validate("{\"debug\": true, \"log-opts\": {\"max-size\": \"1m\"}}", &[]);
    assert_eq!(shown(&right), "configuration OK\n");
    let wrong = [
        (
            "{\"bogus\": 1}",
            &[][..],
            "the following directives don't match any configuration option: bogus",
        ),
        ("{\"debug\": tru", &[], "unable to configure the Docker daemon with file"),
        (
            "{\"debug\": true}",
            &["--debug"],
            "specified both as a flag and in the configuration file: debug",
        ),
        ("{}", &["--bogus"], "unknown flag: --bogus"),
        ("{}", &["--bip", "nonsense"], "invalid CIDR address for --bip: nonsense"),
        ("{\"fixed-cidr\": \"x\"}", &[], "invalid CIDR address for --fixed-cidr: x"),
    ];
    for (text, flags, words) in wrong {
        let refused = validate(text, flags);
        assert!(!refused.status.success(), "{text} {flags:?}");
        assert!(shown(&refused).contains(words), "{}", shown(&refused));
    }
}

#[test]
fn one_daemon_for_one_data_root() {
    let house = house();
    let mode = std::fs::metadata(house.socket()).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let second = Command::new(House::binary())
        .args(["daemon", "-H", &format!("unix://{}", house.path("second").display())])
        .arg("--data-root")
        .arg(house.data_root())
        .arg("--exec-root")
        .arg(house.path("second-run"))
        .arg("--pidfile")
        .arg(house.path("second-pid"))
        .output()
        .expect("it can be executed");
    assert!(!second.status.success());
    assert!(shown(&second).contains("another daemon is running on"), "{}", shown(&second));
    // The first does not notice.
    assert_eq!(house.ok(&["run", "--rm", "--network", "none", "busybox", "echo", "hi"]), "hi\n");
}

/// An upgrade is a restart: SIGTERM, and another daemon.
#[test]
fn f18_its_end_is_nobody_elses() {
    let mut house = house();
    house.ok(&["run", "-d", "--name", "ca", "busybox", "sleep", "600"]);
    house.ok(&["run", "-d", "--name", "cb", "--restart", "always", "busybox", "sleep", "600"]);
    let state = |house: &House, name: &str| house.ok(&["inspect", "-f", "{{json .State}}", name]);
    let before = [state(&house, "ca"), state(&house, "cb")];
    house.stop();
    assert!(!house.socket().exists(), "a stopped daemon leaves no socket");
    house.start();
    assert_eq!([state(&house, "ca"), state(&house, "cb")], before);
    let ping = ["exec", "ca", "sh", "-c", "ping -c1 -W5 $(ip route | awk '/default/{print $3}')"];
    house.ok(&ping);
}

#[test]
fn copying_does_when_overlayfs_does_not() {
    let house = house_with(&["--storage-driver", "vfs"]);
    assert_eq!(house.ok(&["info", "-f", "{{.Driver}}"]), "vfs\n");
    house.ok(&[
        "run",
        "--name",
        "ca",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "echo x >/new; rm -f /bin/yes",
    ]);
    let mut changes: Vec<String> = house.ok(&["diff", "ca"]).lines().map(str::to_owned).collect();
    changes.sort();
    assert_eq!(changes, ["A /new", "C /bin", "D /bin/yes"]);
    house.ok(&["start", "-a", "ca"]);
    house.ok(&["rm", "ca"]);
    assert_eq!(
        house.ok(&["run", "--rm", "--network", "none", "busybox", "ls", "/bin/yes"]),
        "/bin/yes\n"
    );
}

/// L4: who asks for output and does not read it slows nobody but himself.
#[test]
fn l4_a_stalled_client_slows_nobody() {
    let house = house();
    let megabytes = 32;
    let script = format!(
        "read x; dd if=/dev/zero bs=1M count={megabytes} 2>/dev/null | tr '\\0' x | fold -w 1000; echo; echo done"
    );
    let body = json!({
        "Image": "busybox", "Cmd": ["sh", "-c", script], "OpenStdin": true,
        "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}},
    });
    let made = house.api("POST", "/containers/create?name=ca", Some(&body));
    assert_eq!(made.status, 201, "{}", made.text());
    // Two of each kind ask, and never read.
    let ask = |method: &str, path: &str| {
        use std::io::Write;
        let mut stream =
            std::os::unix::net::UnixStream::connect(house.socket()).expect("the socket is there");
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("it listens");
        stream
    };
    let mut stalled: Vec<_> =
        (0..2).map(|_| ask("POST", "/containers/ca/attach?stream=1&stdout=1&stderr=1")).collect();
    house.ok(&["start", "ca"]);
    stalled.extend((0..2).map(|_| ask("GET", "/containers/ca/logs?follow=1&stdout=1")));
    stalled.extend((0..2).map(|_| ask("GET", "/containers/ca/stats")));
    stalled.extend((0..2).map(|_| ask("GET", "/events")));
    let mut go = house.docker(&["attach", "--sig-proxy=false", "ca"]);
    let mut go = go
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("docker");
    std::io::Write::write_all(go.stdin.as_mut().expect("a pipe"), b"\n").expect("it reads");
    assert_eq!(house.ok(&["wait", "ca"]), "0\n");
    go.wait().expect("it ends");
    assert_eq!(house.ok(&["logs", "--tail", "1", "ca"]), "done\n");
    // Those who stalled were connected all the time.
    let mut byte = [0];
    for stream in &mut stalled {
        stream.read_exact(&mut byte).expect("an answer has begun");
    }
}

const CONTENT: &str = "No problems found.\n";

/// The books are compared with the disk, and what can be mended is mended.
#[test]
fn a_check_finds_and_repairs() {
    let house = house();
    let check = |args: &[&str]| {
        house.gantry(&[&["system", "check"], args].concat()).output().expect("gantry")
    };
    assert_eq!(shown(&check(&["--strict"])), CONTENT);
    house.ok(&["run", "-d", "--name", "ca", "--network", "none", "busybox", "sleep", "600"]);
    assert_eq!(shown(&check(&["--strict"])), CONTENT);
    let stray = "0123456789abcdef".repeat(4);
    for root in [house.exec_root(), house.data_root()] {
        std::fs::create_dir(root.join("containers").join(&stray)).expect("a directory");
    }
    let layers = house.data_root().join("overlay2/layers");
    std::fs::create_dir(layers.join(&stray)).expect("a directory");
    let found = check(&[]);
    assert_eq!(found.status.code(), Some(1), "{}", shown(&found));
    assert_eq!(shown(&found).matches(stray.as_str()).count(), 3, "{}", shown(&found));
    check(&["--repair"]);
    assert_eq!(shown(&check(&[])), CONTENT);
    assert!(!layers.join(&stray).exists());
    assert_eq!(house.ok(&["exec", "ca", "echo", "unharmed"]), "unharmed\n");
    // Damage inside a layer is found by who reads every byte, and is nobody's to repair in silence.
    let busybox = find(&layers, "busybox").expect("the layer has it");
    let whole = std::fs::read(&busybox).expect("a file");
    std::fs::write(&busybox, &whole[1..]).expect("a file");
    let found = check(&["--strict"]);
    assert_eq!(found.status.code(), Some(1), "{}", shown(&found));
    std::fs::write(&busybox, &whole).expect("a file");
    house.ok(&["rm", "-f", "ca"]);
    house.ok(&["rmi", "busybox"]);
}

fn find(dir: &Path, name: &str) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        if path.file_name().is_some_and(|this| this == name) && path.is_file() {
            return Some(path);
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Some(found) = find(&path, name)
        {
            return Some(found);
        }
    }
    None
}

#[test]
fn log_options_that_no_container_could_have_are_refused_at_once() {
    let dir = tempfile::tempdir().expect("places");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let places =
        ["-H", &format!("unix://{}", path("s")), "--data-root", &path("d")].map(String::from);
    let more = ["--exec-root".to_owned(), path("e"), "--pidfile".to_owned(), path("p")];
    for (flags, words) in [
        ("--log-opt foo=bar", "unknown log opt 'foo' for json-file log driver"),
        ("--log-opt foo", "unknown log opt 'foo' for json-file log driver"),
        ("--log-opt mode=x", "logger: logging mode not supported: x"),
        (
            "--log-opt max-buffer-size=1m",
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            "--log-driver syslog --log-opt syslog-address=foo",
            "syslog-address should be in form proto://address, got foo",
        ),
        (
            "--log-driver awslogs --log-opt tag=x",
            "must specify a value for log opt 'awslogs-group'",
        ),
        ("--log-opt max-file=0", "max-file cannot be less than 1"),
    ] {
        let flags: Vec<&str> =
            places.iter().chain(&more).map(String::as_str).chain(flags.split(' ')).collect();
        let refused = called("dockerd", &flags);
        assert!(!refused.status.success());
        let words = format!("failed to start daemon: failed to set log opts: {words}\n");
        assert!(shown(&refused).ends_with(&words), "{}", shown(&refused));
        assert!(!dir.path().join("d").exists(), "nothing was begun");
    }
}

#[test]
fn what_it_was_told_of_networks_is_told() {
    let house = house_with(&["--default-address-pool", "base=10.215.0.0/16,size=24"]);
    let info = house.api("GET", "/v1.55/info", None).json();
    // The house has one, too.
    let pools = info["DefaultAddressPools"].as_array().expect("a list");
    assert_eq!(pools.last(), Some(&json!({ "Base": "10.215.0.0/16", "Size": 24 })));
    assert_eq!(info["FirewallBackend"]["Driver"], "nftables");
    let older = house.api("GET", "/v1.48/info", None).json();
    assert!(older.get("FirewallBackend").is_none(), "{older}");
}

#[test]
fn without_a_default_bridge_containers_are_alone() {
    // Where no other daemon has a table of no bridge's.
    let netns = Netns::new();
    let house = House::within_with(&netns, &["--bridge", "none"]);
    house.load(&testkit::TestImage::busybox().docker_archive(&["busybox:latest"]));
    for flags in [&[][..], &["--network", "bridge"]] {
        let args = [&["run", "--rm"][..], flags, &["busybox", "ls", "/sys/class/net"]].concat();
        assert_eq!(house.ok(&args), "lo\n", "{flags:?}");
    }
    house.ok(&["network", "create", "na"]);
    let args = ["run", "--rm", "--network", "na", "busybox", "ls", "/sys/class/net"];
    assert_eq!(house.ok(&args), "eth0\nlo\n");
}

#[test]
fn says_what_it_was_built_from() {
    let house = House::new();
    let version = house.api("GET", "/version", None).json();
    let details = &version["Components"][0]["Details"];
    assert_eq!(
        (&details["GitCommit"], &details["GoVersion"]),
        (&version["GitCommit"], &version["GoVersion"])
    );
    let compiler = version["GoVersion"].as_str().expect("a compiler");
    assert!(compiler.starts_with("rustc 1."), "{compiler}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let git = Command::new("git").args(["rev-parse", "--git-dir"]).current_dir(&root).output();
    let commit = version["GitCommit"].as_str().expect("a commit");
    let known = commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert_eq!(known, git.is_ok_and(|git| git.status.success()), "{commit:?}");
}

#[test]
fn info_tells_of_registries_as_docker_does() {
    let flags =
        ["--registry-mirror", "http://m.example:5000", "--insecure-registry", "10.9.0.0/16"];
    let house = House::with(&flags);
    let registries = &house.api("GET", "/info", None).json()["RegistryConfig"];
    assert_eq!(registries["Mirrors"], json!(["http://m.example:5000/"]));
    assert_eq!(registries["IndexConfigs"]["docker.io"]["Mirrors"], registries["Mirrors"]);
    assert_eq!(
        registries["InsecureRegistryCIDRs"],
        json!(["10.9.0.0/16", "127.0.0.0/8", "::1/128"])
    );
}

#[test]
fn doors_that_stand_open_are_warned_of() {
    let address = format!("127.0.0.1:{}", testkit::port::free());
    // Without a scheme it is one of TCP.
    let house = House::with(&["-H", &address]);
    let warnings = house.api("GET", "/info", None).json()["Warnings"].clone();
    let expected = format!(
        "[DEPRECATION NOTICE]: API is accessible on http://{address} without encryption.\n         Access to the remote \
         API is equivalent to root access on the host. Refer\n         to the 'Docker daemon attack surface' section in \
         the documentation for\n         more information: https://docs.docker.com/go/attack-surface/\nIn future \
         versions this will be a hard failure preventing the daemon from starting! Learn more at: \
         https://docs.docker.com/go/api-security/"
    );
    let has = |text: &str| warnings.as_array().is_some_and(|all| all.contains(&text.into()));
    assert!(has(&expected), "{warnings:#}");
    assert!(house.log().contains("API is accessible on http://"), "{}", house.log());
    let host = format!("tcp://{address}");
    let asked = Command::new("docker").args(["-H", &host, "version"]).output().expect("docker");
    assert!(asked.status.success(), "{}", shown(&asked));
}
