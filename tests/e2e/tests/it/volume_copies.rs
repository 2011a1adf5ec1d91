//! Volumes as wholes: cloned, renamed, carried away and brought back.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;
use testkit::House;
use testkit::house::{shown, succeed};

use crate::containers::house;

fn gantry(house: &House, args: &[&str]) -> String {
    succeed(house.gantry(args))
}

fn refusal(house: &House, args: &[&str]) -> String {
    let output = house.gantry(args).output().expect("gantry");
    assert!(!output.status.success(), "{args:?}: {}", shown(&output));
    shown(&output)
}

fn within(house: &House, volume: &str, script: &str) -> String {
    let bind = format!("{volume}:/v");
    house.ok(&["run", "--rm", "--network", "none", "-v", &bind, "busybox", "sh", "-c", script])
}

/// What there is, with whom it belongs to, what it links to and what it is called besides.
const LOOK: &str = "cd /v; find . | sort | while read f; do stat -c '%n %a %u:%g %h' $f; done; cat a b 2>/dev/null; readlink l";

fn filled(house: &House, name: &str) -> String {
    let fill = "cd /v; echo one > a; ln a b; ln -s a l; mkdir -p d/e; echo two > d/e/f; chown 5:6 d/e/f; chmod 4711 d/e/f; \
                mkfifo p; chmod 1777 .";
    within(house, name, fill);
    within(house, name, LOOK)
}

#[test]
fn a_copy_is_what_the_volume_was() {
    let mut house = house();
    house.ok(&["volume", "create", "--label", "a=b", "data"]);
    let content = filled(&house, "data");
    assert_eq!(gantry(&house, &["volume", "clone", "--label", "c=d", "data", "copy"]), "copy\n");
    assert_eq!(within(&house, "copy", LOOK), content);
    within(&house, "copy", "echo changed > /v/a");
    assert_eq!(within(&house, "data", LOOK), content);
    let labels = house.ok(&["volume", "inspect", "-f", "{{json .Labels}}", "copy"]);
    assert_eq!(labels.trim(), "{\"c\":\"d\"}");
    let snapshot = gantry(&house, &["volume", "snapshot", "data"]);
    assert!(snapshot.starts_with("data-20"), "{snapshot}");
    assert_eq!(within(&house, snapshot.trim(), LOOK), content);
    let found = house.ok(&["volume", "ls", "-qf", "label=gantry.volume.snapshot-of=data"]);
    assert_eq!(found, snapshot);

    // Carried away, and brought back.
    let archive = house.path("archive.tar");
    let file = archive.to_str().expect("a path in UTF-8");
    gantry(&house, &["volume", "export", "-o", file, "data"]);
    assert_eq!(gantry(&house, &["volume", "import", "back", file]), "back\n");
    let without_root = |text: &str| text.lines().skip(1).collect::<Vec<_>>().join("\n");
    assert_eq!(without_root(&within(&house, "back", LOOK)), without_root(&content));
    // By a pipe, and compressed.
    let mut export = house.gantry(&["volume", "export", "data"]);
    let mut export = export.stdout(Stdio::piped()).spawn().expect("gantry");
    let mut gzip = Command::new("gzip");
    gzip.stdin(export.stdout.take().expect("a pipe")).stdout(Stdio::piped());
    let mut gzip = gzip.spawn().expect("gzip");
    let mut import = house.gantry(&["volume", "import", "piped", "-"]);
    succeed({
        import.stdin(gzip.stdout.take().expect("a pipe"));
        import
    });
    assert!(export.wait().expect("gantry").success() && gzip.wait().expect("gzip").success());
    assert_eq!(without_root(&within(&house, "piped", LOOK)), without_root(&content));

    // Another name.
    gantry(&house, &["volume", "rename", "data", "renamed"]);
    assert_eq!(within(&house, "renamed", LOOK), content);
    let labels = house.ok(&["volume", "inspect", "-f", "{{json .Labels}}", "renamed"]);
    assert_eq!(labels.trim(), "{\"a\":\"b\"}");
    house.kill();
    house.start();
    assert_eq!(within(&house, "renamed", LOOK), content);

    // What is refused leaves nothing behind.
    fs::write(&archive, "no archive").expect("a file");
    for (args, words) in [
        (&["volume", "clone", "renamed", "copy"][..], "volume copy already exists"),
        (&["volume", "clone", "nobody", "x1"], "get nobody: no such volume"),
        (&["volume", "clone", "renamed", "a/b"], "includes invalid characters"),
        (&["volume", "rename", "renamed", "copy"], "volume copy already exists"),
        (&["volume", "rename", "nobody", "x1"], "get nobody: no such volume"),
        (&["volume", "import", "copy", file], "volume copy already exists"),
        (&["volume", "import", "x1", file], "create x1"),
        (&["volume", "export", "nobody"], "get nobody: no such volume"),
    ] {
        let said = refusal(&house, args);
        assert!(said.contains(words), "{args:?}: {said}");
    }
    house.ok(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem"]);
    assert!(refusal(&house, &["volume", "clone", "mem", "x1"]).contains("is in memory"));
    house.ok(&["create", "--name", "ca", "-v", "renamed:/v", "busybox"]);
    let said = refusal(&house, &["volume", "rename", "renamed", "x1"]);
    assert!(said.contains("rename renamed: volume is in use - ["), "{said}");
    house.ok(&["rm", "ca"]);
    let names = house.ok(&["volume", "ls", "-q"]);
    let expected = format!("back\ncopy\n{snapshot}mem\npiped\nrenamed\n");
    assert_eq!(names, expected);
    let below = fs::read_dir(house.data_root().join("volumes")).expect("a directory");
    assert_eq!(below.count(), names.lines().count());
}

#[test]
fn who_writes_meanwhile_stands_still() {
    let mut house = house();
    let write = "while :; do echo x >> /v/a; done";
    let run = ["run", "-d", "--name", "told", "--network", "none", "-v", "data:/v", "busybox"];
    house.ok(&[&run[..], &["sh", "-c", write]].concat());
    let now = || {
        let info = house.api("GET", "/info", None).json();
        info["SystemTime"].as_str().expect("a time").to_owned()
    };
    let since = now();
    gantry(&house, &["volume", "clone", "data", "copy"]);
    let (filter, format) = (["--filter", "container=told"], ["--format", "{{.Action}}"]);
    let heard = ["events", "--since", &since, "--until", &now()];
    let heard = house.ok(&[&heard[..], &filter, &format].concat());
    assert_eq!(heard, "pause\nunpause\n");
    assert_eq!(house.ok(&["inspect", "-f", "{{.State.Status}}", "told"]), "running\n");
    gantry(&house, &["volume", "clone", "--no-pause", "data", "other"]);
    house.ok(&["rm", "-f", "told"]);

    // What a daemon that dies in the middle has begun, the next one throws away.
    house.kill();
    let left = house.data_root().join("volumes/.new-abc");
    fs::create_dir_all(left.join("_data")).expect("a directory");
    fs::write(left.join("_data/half"), "half").expect("a file");
    let store = state::Store::open(&house.data_root().join("state.db")).expect("the records");
    store.put(&Stale { name: "half".to_owned() }).expect("a record");
    drop(store);
    house.start();
    assert!(!left.exists());
    house.ok(&["volume", "create", "half"]);
    let labels = house.ok(&["volume", "inspect", "-f", "{{json .Labels}}", "half"]);
    assert_eq!(labels, "null\n");
}

/// A volume that was written down and never came to be.
#[derive(serde::Deserialize)]
struct Stale {
    name: String,
}

impl serde::Serialize for Stale {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = json!({
            "name": self.name, "driver": "local", "created": "2026-01-01T00:00:00Z", "labels": {"of": "another"},
        });
        record.serialize(serializer)
    }
}

impl state::Record for Stale {
    const TABLE: &'static str = "volumes";

    fn key(&self) -> String {
        self.name.clone()
    }
}
