//! Volumes: what they are made from, who has them, and what becomes of them.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};
use serde_json::json;
use testkit::house::shown;

use crate::containers::house;
use crate::foreign::{Dockerd, theirs};

const NONE: [&str; 2] = ["--network", "none"];

/// Everything said about volumes, by one client to one daemon.
fn session(client: &dyn Fn(&[&str]) -> Command, directory: &str) -> String {
    let mut text = String::new();
    let mut say = |args: &[&str]| {
        let output = client(args).output().expect("the client can be executed");
        let said = shown(&output).replace(directory, "HERE");
        let hex = |word: &str| word.len() == 64 && word.bytes().all(|c| c.is_ascii_hexdigit());
        let lines = said.lines().map(|line| if hex(line) { "ID" } else { line });
        let lines: Vec<_> =
            lines.filter(|line| !line.is_empty() && !line.starts_with("Run '")).collect();
        text += &format!(
            "$ {} [{:?}]\n{}\n",
            args.join(" ").replace(directory, "HERE"),
            output.status.code(),
            lines.join("\n")
        );
    };
    let run = |words: &[&'static str]| [&["run", "--rm"], &NONE[..], words].concat();
    let create = |words: &[&'static str]| [&["create"], &NONE[..], words].concat();

    // Made by hand.
    say(&[
        "volume",
        "create",
        "--label",
        "a=b",
        "-o",
        "type=tmpfs",
        "-o",
        "device=tmpfs",
        "-o",
        "o=size=1m,mode=700",
        "mem",
    ]);
    let device = format!("device={directory}");
    say(&["volume", "create", "-o", "type=none", "-o", &device, "-o", "o=bind", "there"]);
    say(&["volume", "create", "plain"]);
    say(&["volume", "create", "plain"]);
    for wrong in ["colour=red", "type=tmpfs", "device=/x", "o=ro", "size=1g"] {
        say(&["volume", "create", "-o", wrong, "wrong"]);
    }
    say(&["volume", "create", "a/b"]);
    say(&["volume", "create", "x"]);
    say(&["volume", "create", "-d", "nobody", "wrong"]);
    say(&[
        "volume",
        "inspect",
        "-f",
        "{{json .Labels}} {{json .Options}} {{.Driver}} {{.Scope}}",
        "mem",
        "there",
        "plain",
    ]);
    say(&["volume", "ls", "--format", "{{.Name}} {{.Driver}} {{.Labels}}"]);
    say(&["volume", "ls", "-q", "-f", "label=a"]);
    say(&["volume", "ls", "-q", "-f", "name=pl"]);
    say(&["volume", "ls", "-q", "-f", "dangling=false"]);
    say(&["volume", "rm", "nobody"]);
    say(&["volume", "rm", "-f", "nobody"]);

    // What they are inside.
    say(&run(&[
        "-v",
        "mem:/m",
        "busybox",
        "sh",
        "-c",
        "stat -c %a /m; df -k /m | tail -1 | awk '{print $1, $2}'; ls /m",
    ]));
    say(&run(&["-v", "there:/t", "busybox", "sh", "-c", "cat /t/word; touch /t/new && echo open"]));
    say(&["volume", "create", "-o", "type=none", "-o", "device=/no/such", "-o", "o=bind", "lost"]);
    say(&["volume", "create", "-o", "type=nosuchfs", "-o", "device=x", "odd"]);
    // By `--mount`, with labels.
    say(&run(&[
        "--mount",
        "type=volume,src=made,dst=/m,volume-label=l=1,volume-opt=type=tmpfs,volume-opt=device=tmpfs",
        "busybox",
        "grep",
        "-c",
        " /m tmpfs",
        "/proc/mounts",
    ]));
    say(&["volume", "inspect", "-f", "{{json .Labels}} {{json .Options}}", "made"]);
    say(&run(&["--mount", "type=volume,dst=/m,readonly", "busybox", "true"]));
    say(&run(&["--mount", "type=tmpfs,src=x,dst=/m", "busybox", "true"]));

    // Copies of what the image has, unless it is not wanted.
    say(&run(&["-v", "filled:/etc", "busybox", "true"]));
    say(&run(&["-v", "filled:/x", "busybox", "cat", "/x/group"]));
    say(&run(&["-v", "unfilled:/etc:nocopy", "busybox", "ls", "/etc/group"]));

    // Of others.
    say(&create(&[
        "--name",
        "one",
        "-v",
        "plain:/p",
        "-v",
        "/anonymous",
        "-v",
        "/etc:/b:ro",
        "--tmpfs",
        "/t",
        "busybox",
        "sh",
        "-c",
        "echo 1 > /p/f; echo 2 > /anonymous/f",
    ]));
    say(&["start", "-a", "one"]);
    say(&run(&[
        "--volumes-from",
        "one",
        "busybox",
        "sh",
        "-c",
        "cat /p/f /anonymous/f; touch /p/new /b/new; ls -d /t",
    ]));
    say(&run(&["--volumes-from", "one:ro", "busybox", "sh", "-c", "touch /p/x"]));
    say(&create(&[
        "--name",
        "two",
        "--volumes-from",
        "one",
        "-v",
        "filled:/p",
        "busybox",
        "cat",
        "/p/group",
        "/anonymous/f",
    ]));
    say(&[
        "inspect",
        "-f",
        "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}} {{.Mode}}|{{end}}",
        "two",
    ]);
    say(&["inspect", "-f", "{{.HostConfig.VolumesFrom}}", "two"]);
    say(&create(&["--volumes-from", "nobody", "busybox"]));
    say(&create(&["--volumes-from", "one:xx", "busybox"]));
    say(&create(&["--volumes-from", "", "busybox"]));
    // The first may go; what it had stays, because another has it.
    say(&["rm", "-v", "one"]);
    say(&["start", "-a", "two"]);
    say(&["rm", "-v", "two"]);

    // With the last that has them, anonymous volumes go.
    say(&create(&["--name", "three", "-v", "/gone", "-v", "plain:/p", "busybox"]));
    say(&["rm", "-v", "three"]);
    say(&run(&["-v", "/gone", "busybox", "true"]));
    say(&["volume", "ls", "-q", "-f", "dangling=true"]);
    say(&["volume", "rm", "mem", "there", "plain", "lost", "odd", "made", "filled", "unfilled"]);
    text
}

#[test]
fn two_clients_and_two_daemons_speak_of_volumes_alike() {
    let house = house();
    let here = tempfile::tempdir().expect("a place");
    fs::write(here.path().join("word"), "of the host\n").expect("a file");
    let directory = here.path().to_str().expect("a path in UTF-8");
    let docker = session(&|args| house.docker(args), directory);
    let ours = session(&|args| house.gantry(args), directory);
    let plain =
        |text: &str| text.replace("gantry: ", "docker: ").replace("'gantry run", "'docker run");
    pretty_assert(&plain(&docker), &plain(&ours));
    let dockerd = Dockerd::new(&theirs!("dockerd"));
    let peer = session(&|args| dockerd.command(args), directory);
    pretty_assert(&known(&peer), &known(&docker));
}

/// Without what Debian's dockerd does otherwise than those of today; its mounts come in any order.
fn known(text: &str) -> String {
    let sorted = |line: &str| {
        let mut parts: Vec<_> = line.split('|').collect();
        parts.sort_unstable();
        parts.join("|")
    };
    text.lines()
        .filter(|line| !line.contains("volume-opt"))
        .map(sorted)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Line by line: a difference of two long texts can be read.
fn pretty_assert(one: &str, other: &str) {
    let differing: Vec<_> =
        one.lines().zip(other.lines()).filter(|(one, other)| one != other).take(12).collect();
    assert!(
        one == other,
        "{differing:#?}\n{} and {} lines",
        one.lines().count(),
        other.lines().count()
    );
}

#[test]
fn a_volume_in_memory_is_one_for_all_who_have_it() {
    let mut house = house();
    house.ok(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem"]);
    let start = |name: &str| {
        let words = ["run", "-d", "--name", name, "-v", "mem:/m", "busybox", "sleep", "1000"];
        house.ok(&[&words[..4], &NONE, &words[4..]].concat());
    };
    start("ca");
    start("cb");
    house.ok(&["exec", "ca", "sh", "-c", "echo word > /m/word"]);
    assert_eq!(house.ok(&["exec", "cb", "cat", "/m/word"]), "word\n");
    // The host does not see it, and the next daemon still finds it.
    let data = house.data_root().join("volumes/mem/_data");
    assert_eq!(fs::read_dir(&data).expect("a directory").count(), 0);
    assert_eq!(house.ok(&["cp", "cb:/m/word", "-"]).matches("word").count(), 2);
    house.kill();
    house.start();
    let words = ["run", "--rm", "-v", "mem:/m:ro", "busybox", "cat", "/m/word"];
    assert_eq!(house.ok(&[&words[..2], &NONE, &words[2..]].concat()), "word\n");
    // With the last that has it, it is gone.
    house.ok(&["rm", "-f", "ca", "cb"]);
    let words = ["run", "--rm", "-v", "mem:/m", "busybox", "ls", "/m"];
    assert_eq!(house.ok(&[&words[..2], &NONE, &words[2..]].concat()), "");
    house.ok(&["volume", "rm", "mem"]);
}

#[test]
fn an_image_is_mounted() {
    let house = house();
    let run = |flags: &[&str], script: &str| {
        let fixed = ["run", "--rm", "--network", "none"];
        let output =
            house.docker(&[&fixed[..], flags, &["busybox", "sh", "-c", script]].concat()).output();
        shown(&output.expect("docker"))
    };
    let mount = ["--mount", "type=image,src=busybox,dst=/i"];
    assert_eq!(
        run(&mount, "cat /i/etc/group | head -1; touch /i/new 2>/dev/null || echo shut"),
        "root:x:0:\nshut\n"
    );
    let part = ["--mount", "type=image,src=busybox,dst=/i,image-subpath=etc"];
    assert_eq!(run(&part, "head -1 /i/group"), "root:x:0:\n");
    for (mount, words) in [
        ("type=image,src=nosuch,dst=/i", "No such image: nosuch"),
        ("type=image,dst=/i", "field Source must not be empty"),
        (
            "type=image,src=busybox,dst=/i,image-subpath=../x",
            "subpath must be a relative path within the volume",
        ),
        ("type=image,src=busybox,dst=/i,image-subpath=nosuch", "cannot access path nosuch"),
    ] {
        let said = run(&["--mount", mount], "true");
        assert!(said.contains(words), "{mount}: {said}");
    }
    // What is mounted is in use.
    house.load(&testkit::TestImage::small("mounted").docker_archive(&["mounted:latest"]));
    house.ok(&[
        "create",
        "--name",
        "ca",
        "--mount",
        "type=image,src=mounted,dst=/i",
        "busybox",
        "ls",
        "/i",
    ]);
    for image in ["mounted", "busybox"] {
        let refused = shown(&house.docker(&["rmi", image]).output().expect("docker"));
        assert!(refused.contains("conflict: unable to"), "{refused}");
    }
    house.ok(&["start", "-a", "ca"]);
    house.ok(&["rm", "ca"]);
    house.ok(&["rmi", "mounted"]);

    // Where the file system does not count; where it does, `uml.rs` sees to it.
    let create = ["volume", "create", "--opt", "size=1g", "limited"];
    let said = shown(&house.docker(&create).output().expect("docker"));
    assert!(said.contains("quota size requested but no quota support"), "{said}");
    assert!(!house.ok(&["volume", "ls", "-q"]).contains("limited"));
    let refused = house.docker(&["create", "--storage-opt", "size=1g", "busybox"]).output();
    let said = shown(&refused.expect("docker"));
    assert!(
        said.contains(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
        ),
        "{said}"
    );
}

#[test]
fn what_is_said_to_take_space_does() {
    let house = house();
    house.ok(&["volume", "create", "--label", "l=1", "big"]);
    let write = "dd if=/dev/zero of=/v/a bs=1k count=300 2>/dev/null; ln /v/a /v/b; dd if=/dev/zero of=/c bs=1k count=200 2>/dev/null";
    let words = ["run", "--name", "ca", "-v", "big:/v", "busybox", "sh", "-c", write];
    house.ok(&[&words[..3], &NONE, &words[3..]].concat());
    let df = || house.api("GET", "/v1.51/system/df", None).json();
    let told = df();
    let volume = &told["Volumes"][0];
    assert_eq!(volume["UsageData"], json!({"RefCount": 1, "Size": 300 << 10}), "{told}");
    assert_eq!(volume["Labels"], json!({"l": "1"}));
    assert_eq!(told["Containers"][0]["SizeRw"], 200 << 10, "{told}");
    house.ok(&["rm", "ca"]);
    assert_eq!(df()["Volumes"][0]["UsageData"]["RefCount"], 0);
    let pruned = house.ok(&["volume", "prune", "-af"]);
    assert!(pruned.contains("Total reclaimed space: 307.2kB"), "{pruned}");
}

/// What is written down before anonymous volumes are made.
#[derive(Serialize, Deserialize)]
struct Wish {
    container: String,
    volumes: Vec<String>,
}

impl state::Record for Wish {
    const TABLE: &'static str = "wished-volumes";

    fn key(&self) -> String {
        self.container.clone()
    }
}

#[test]
fn a_daemon_that_dies_between_a_volume_and_its_container_leaves_neither() {
    let mut house = house();
    let words = ["create", "--name", "ca", "-v", "/kept", "busybox"];
    house.ok(&words);
    let kept = house.ok(&["volume", "ls", "-q"]).trim().to_owned();
    house.kill();
    // As it was in the moment when it died.
    let lost = "c".repeat(64);
    fs::create_dir_all(house.data_root().join("volumes").join(&lost).join("_data"))
        .expect("a volume");
    let store = state::Store::open(&house.data_root().join("state.db")).expect("the records");
    store.put(&Wish { container: "d".repeat(64), volumes: vec![lost] }).expect("a wish");
    drop(store);
    house.start();
    assert_eq!(house.ok(&["volume", "ls", "-q"]).trim(), kept);
    house.ok(&["rm", "-v", "ca"]);
    assert_eq!(house.ok(&["volume", "ls", "-q"]), "");
}

#[test]
fn a_part_of_a_volume_is_filled_too() {
    let house = house();
    let make = "mkdir -p /v/bin /v/own /v/bare; echo mine > /v/own/f; echo file > /v/plain";
    house.ok(&["run", "--rm", "--network", "none", "-v", "data:/v", "busybox", "sh", "-c", make]);
    let shown = |part: &str, options: &str, target: &str, command: &[&str]| {
        let mount = format!("type=volume,src=data,dst={target},volume-subpath={part}{options}");
        let args = ["run", "--rm", "--network", "none", "--mount", &mount, "busybox"];
        house.ok(&[&args[..], command].concat())
    };
    assert_eq!(shown("bin", "", "/bin", &["ls", "/bin/busybox"]), "/bin/busybox\n");
    // What has something keeps that alone, what shall stay bare does, and a file is no place to copy to.
    let own = shown("own", "", "/etc", &["ls", "/etc"]);
    assert!(own.starts_with("f\n") && !own.contains("passwd"), "{own}");
    assert!(!shown("bare", ",volume-nocopy", "/etc", &["ls", "/etc"]).contains("passwd"));
    assert_eq!(shown("plain", "", "/etc/passwd", &["cat", "/etc/passwd"]), "file\n");
    let look = ["run", "--rm", "--network", "none", "-v", "data:/v", "busybox", "ls", "/v"];
    assert_eq!(house.ok(&look), "bare\nbin\nown\nplain\n");
    let nothing = ["run", "--mount", "type=volume,src=data,dst=/x,volume-subpath=no", "busybox"];
    let refused = testkit::house::shown(&house.docker(&nothing).output().expect("docker"));
    assert!(refused.contains("/data/_data/no: no such file or directory\n"), "{refused}");
}
