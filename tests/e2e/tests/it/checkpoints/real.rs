//! With the host's own CRIU, where that works with its kernel: elsewhere there is nothing to see, and
//! `tests/guest/run checkpoints::real::` boots a host where it does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::house::succeed;
use testkit::images::TestImage;
use testkit::terminal::Terminal;
use testkit::{House, Netns};

use crate::containers::house_with;
use crate::foreign::wait_for;

/// Counts where it can be seen.
const COUNTS: &str = "i=0; while :; do i=$((i + 1)); echo $i; sleep .2; done";

fn works() -> bool {
    let mut check = Command::new("criu");
    check.arg("check").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    check.status().is_ok_and(|status| status.success())
}

fn lines(house: &House, name: &str) -> Vec<String> {
    house.ok(&["logs", name]).lines().map(str::to_owned).collect()
}

/// One after the other, whoever interrupted it.
fn counted_on(lines: &[String]) -> bool {
    lines.iter().enumerate().all(|(at, line)| *line == (at + 1).to_string())
}

#[test]
fn a_container_goes_on_where_it_was() {
    if !works() {
        return;
    }
    let house = house_with(&["--experimental"]);
    house.ok(&["volume", "create", "kept"]);
    let script = format!("echo layer >/kept; echo volume >/v/kept; httpd -p 80 -h /v; {COUNTS}");
    let run = ["run", "-d", "--name", "ck", "-v", "kept:/v", "--memory", "64m"];
    house.ok(&[&run[..], &["busybox", "sh", "-c", &script]].concat());
    let address = || {
        let format = "{{.NetworkSettings.Networks.bridge.IPAddress}}";
        house.ok(&["inspect", "-f", format, "ck"]).trim().to_owned()
    };
    let served = || {
        let address = format!("{}:80", address()).parse().expect("an address");
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(20))?;
        stream.write_all(b"GET /kept HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    wait_for("it counts", || lines(&house, "ck").len() > 2);
    assert!(served().expect("it listens").ends_with("volume\n"));

    house.ok(&["checkpoint", "create", "--leave-running", "ck", "one"]);
    let before = lines(&house, "ck").len();
    wait_for("it counts on", || lines(&house, "ck").len() > before);
    assert!(counted_on(&lines(&house, "ck")));
    assert!(served().expect("it listens").ends_with("volume\n"));

    house.ok(&["checkpoint", "create", "ck", "two"]);
    let state = ["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "ck"];
    assert_eq!(house.ok(&state), "exited 137\n");
    let before = lines(&house, "ck").len();
    house.ok(&["start", "--checkpoint", "two", "ck"]);
    wait_for("it counts on", || lines(&house, "ck").len() > before + 2);
    assert!(counted_on(&lines(&house, "ck")), "{:?}", lines(&house, "ck"));
    assert!(served().expect("it listens").ends_with("volume\n"));
    // It is a container like others.
    let within = ["exec", "ck", "sh", "-c", "cat /kept; hostname; ip -o -4 addr show eth0 | wc -l"];
    let id = house.ok(&["inspect", "-f", "{{.Id}}", "ck"]);
    assert_eq!(house.ok(&within), format!("layer\n{}\n1\n", &id[..12]));
    let stats = house.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "ck"]);
    assert!(stats.trim().ends_with("/ 64MiB"), "{stats}");
    house.ok(&["pause", "ck"]);
    house.ok(&["unpause", "ck"]);
    house.ok(&["stop", "-t", "1", "ck"]);
    // The same, as often as wanted.
    house.ok(&["start", "--checkpoint", "two", "ck"]);
    assert!(served().expect("it listens").ends_with("volume\n"));
    house.ok(&["rm", "-f", "ck"]);
    house.check();
}

#[test]
fn a_bundle_with_a_terminal_and_a_network_goes_on() {
    if !works() {
        return;
    }
    let place = tempfile::Builder::new().prefix("gt-criu-").tempdir().expect("a place");
    let rootfs = place.path().join("b/rootfs");
    std::fs::create_dir_all(&rootfs).expect("a place for a root");
    for layer in &TestImage::busybox().layers {
        ::tar::Archive::new(layer.as_slice()).unpack(&rootfs).expect("a layer");
    }
    let netns = Netns::new();
    let runtime = |words: &[&str]| {
        let mut command = Command::new(House::binary());
        command.arg("runtime").arg("--root").arg(place.path().join("state")).args(words);
        command.current_dir(place.path().join("b"));
        command
    };
    succeed(runtime(&["spec"]));
    configure(&place.path().join("b/config.json"), &netns.path());
    let images = place.path().join("images");
    let images = images.to_str().expect("UTF-8");
    let name = format!("criu{}", std::process::id());

    let mut first = Terminal::spawn(&at(&runtime(&["run", &name]), place.path()), 24, 80);
    first.wait_for("\r\n3\r\n");
    succeed(runtime(&["checkpoint", "--image-path", images, &name]));
    let (rest, status) = first.end();
    assert_eq!(status.code(), Some(137), "{rest}");
    let last = rest.lines().filter_map(|line| line.trim().parse::<u32>().ok()).next_back();
    let last = last.unwrap_or(3);

    let restore = runtime(&["restore", "--image-path", images, &name]);
    let mut second = Terminal::spawn(&at(&restore, place.path()), 24, 80);
    let came = second.wait_for(&format!("{}\r\n", last + 3));
    assert!(came.trim_start().starts_with(&format!("{}\r\n", last + 1)), "{came:?}");
    second.type_in("\u{3}");
    let (_, status) = second.end();
    assert_eq!(status.code(), Some(7));
}

/// A command in a directory, as a terminal takes it.
fn at(command: &Command, place: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "cd \"$0\" && exec \"$@\""]).arg(place.join("b"));
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

/// Says what it sits on, counts, and ends as told by a key.
fn configure(config: &Path, netns: &Path) {
    let text = std::fs::read_to_string(config).expect("an example");
    let mut spec: Value = serde_json::from_str(&text).expect("JSON");
    let script = format!("trap 'exit 7' INT; tty >/dev/null && echo terminal; {COUNTS}");
    spec["process"]["args"] = json!(["sh", "-c", script]);
    spec["process"]["terminal"] = true.into();
    spec["root"]["readonly"] = false.into();
    for space in spec["linux"]["namespaces"].as_array_mut().expect("a list") {
        if space["type"] == "network" {
            space["path"] = netns.display().to_string().into();
        }
    }
    std::fs::write(config, spec.to_string()).expect("a file");
}
