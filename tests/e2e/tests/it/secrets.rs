//! Secrets and configs of a single engine: Docker's words about them, the containers that have them, and where their
//! content must never be found.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use testkit::House;
use testkit::house::shown;

use crate::containers::house;
use crate::foreign::{Dockerd, text, theirs};

const WORD: &str = "correct-horse-battery-staple";

/// A client with something on its standard input.
fn fed(mut command: Command, input: &[u8]) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the client can be executed");
    child.stdin.take().expect("a pipe").write_all(input).unwrap_or_default();
    shown(&child.wait_with_output().expect("it ends"))
}

fn run(house: &House, flags: &[&str], script: &str) -> String {
    let fixed = ["run", "--rm", "--network", "none"];
    let words = [&fixed[..], flags, &["busybox", "sh", "-c", script]].concat();
    shown(&house.gantry(&words).output().expect("gantry"))
}

/// Everything that is said about both by one client to one daemon.
fn session(client: &dyn Fn(&[&str]) -> Command) -> String {
    let mut all = String::new();
    let mut say = |args: &[&str], input: &[u8]| {
        let said = fed(client(args), input);
        let id = |word: &str| {
            word.len() == 25 && word.bytes().all(|c| c.is_ascii_digit() || c.is_ascii_lowercase())
        };
        let words = |line: &str| {
            let words = line.split_whitespace().map(|word| {
                match word.trim_matches(|c| c == '"' || c == ',') {
                    bare if id(bare) => "ID",
                    _ => word,
                }
            });
            words.collect::<Vec<_>>().join(" ")
        };
        let line = |line: &&str| {
            let varies = ["CreatedAt", "UpdatedAt", "Created at", "Updated at", "\"Index\""];
            !line.is_empty()
                && !line.starts_with("Run '")
                && !varies.iter().any(|word| line.contains(word))
        };
        let lines: Vec<_> = said.lines().filter(line).map(words).collect();
        all += &format!("$ {}\n{}\n", args.join(" "), lines.join("\n"));
    };
    for noun in ["secret", "config"] {
        say(&[noun, "create", "-l", "a=b", "one", "-"], WORD.as_bytes());
        say(&[noun, "create", "one", "-"], b"x");
        for wrong in ["a b", "a-", &"x".repeat(65)] {
            say(&[noun, "create", wrong, "-"], b"x");
        }
        say(&[noun, "create", "two", "-"], b"");
        say(&[noun, "create", "two", "-"], &vec![b'x'; 1 << 20]);
        say(&[noun, "create", "two", "/no/such"], b"");
        say(&[noun, "create", "two", "-"], b"y");
        say(&[noun, "ls", "--format", "{{.Name}} {{.Labels}}"], b"");
        say(&[noun, "ls", "-q", "--filter", "name=t"], b"");
        say(&[noun, "ls", "--format", "{{.Name}}", "--filter", "label=a=b"], b"");
        say(&[noun, "inspect", "one"], b"");
        say(&[noun, "inspect", "--pretty", "one"], b"");
        say(&[noun, "inspect", "-f", "{{.Spec.Name}} {{.Spec.Labels}}", "one", "two"], b"");
        say(&[noun, "inspect", "nobody"], b"");
        say(&[noun, "rm", "nobody"], b"");
        say(&[noun, "rm", "one", "two"], b"");
        say(&[noun, "ls", "-q"], b"");
    }
    all
}

#[test]
fn two_clients_and_two_daemons_speak_of_secrets_alike() {
    let house = house();
    let docker = session(&|args| house.docker(args));
    let ours = session(&|args| house.gantry(args));
    assert_eq!(docker, ours.replace("gantry ", "docker "));
    let dockerd = Dockerd::new(&theirs!("dockerd"));
    // Which needs a network that nobody else can reach.
    let words = ["swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1"];
    dockerd.ok(&words);
    let theirs = session(&|args| dockerd.command(args));
    assert_eq!(theirs, docker);
}

#[test]
fn a_container_has_what_it_was_made_with() {
    let house = house();
    fed(house.docker(&["secret", "create", "key", "-"]), WORD.as_bytes());
    fed(house.docker(&["config", "create", "conf", "-"]), b"of a config");
    let look = "cat /run/secrets/key; stat -c ' %a %u %g' /run/secrets/key; grep -c ' /run/secrets tmpfs ro,' /proc/mounts; \
                touch /run/secrets/x 2>/dev/null || echo shut; cat /conf; stat -c ' %a' /conf; cat /etc/k; stat -c ' %a %u %g' /etc/k";
    let flags = [
        "--secret",
        "key",
        "--secret",
        "source=key,target=/etc/k,uid=7,gid=8,mode=0400",
        "--config",
        "conf",
    ];
    let expected = format!("{WORD} 444 0 0\n1\nshut\nof a config 444\n{WORD} 400 7 8\n");
    assert_eq!(run(&house, &flags, look), expected);
    // With users of its own, too.
    assert_eq!(run(&house, &[&["--userns", "auto"], &flags[..]].concat(), look), expected);
    // And with somebody else's runtime.
    for (flag, words) in [
        ("nobody", "secret not found: nobody"),
        ("key,uid=root", "strconv.Atoi: parsing \"root\": invalid syntax"),
        ("key,colour=red", "invalid field in secret request: colour"),
        ("key,target=/", "invalid secret reference"),
        ("key,signal=NOSUCH", "invalid signal: NOSUCH"),
    ] {
        let said = run(&house, &["--secret", flag], "true");
        assert!(said.contains(words), "{flag}: {said}");
    }
    let twice = run(&house, &["--secret", "key", "--secret", "source=key"], "true");
    assert!(twice.contains("duplicate secret target for key not allowed"), "{twice}");

    // Who has one keeps it from being removed.
    let words = ["create", "--name", "ca", "--secret", "key", "--config", "conf", "busybox"];
    assert!(house.gantry(&words).status().expect("gantry").success());
    for (noun, name) in [("secret", "key"), ("config", "conf")] {
        let refused = shown(&house.docker(&[noun, "rm", name]).output().expect("docker"));
        let words = format!("desc = {noun} '{name}' is in use by the following container: ca");
        assert!(refused.contains(&words), "{refused}");
    }
    house.ok(&["rm", "ca"]);
    house.ok(&["secret", "rm", "key"]);
    house.ok(&["config", "rm", "conf"]);
}

#[test]
fn templates_become_what_their_container_is() {
    let house = house();
    fed(house.docker(&["secret", "create", "pw", "-"]), WORD.as_bytes());
    let template = ["create", "--template-driver", "golang"];
    let make = |noun: &str, name: &str, text: &str| {
        let said =
            fed(house.docker(&[&[noun], &template[..], &[name, "-"]].concat()), text.as_bytes());
        assert_eq!(said.trim().len(), 25, "{said}");
    };
    make(
        "config",
        "conf",
        "{{.Service.Name}} {{index .Service.Labels \"tier\"}} {{env \"MODE\"}} {{secret \"pw\"}}{{range $i, $e := .Service.Labels}} {{$i}}{{end}}",
    );
    make("secret", "url", "db://me:{{secret \"pw\"}}@{{env \"HOST\"}}/");
    make("config", "broken", "{{secret \"nothing\"}}");
    let shown_template =
        house.ok(&["config", "inspect", "-f", "{{.Spec.Templating.Name}}", "conf"]);
    assert_eq!(shown_template.trim(), "golang");
    let flags = ["--name", "web", "-l", "tier=front", "-e", "MODE=fast", "-e", "HOST=db1"];
    let files = ["--secret", "pw", "--secret", "url", "--config", "conf"];
    let said = run(&house, &[&flags[..], &files].concat(), "cat /conf /run/secrets/url");
    assert_eq!(said, format!("web front fast {WORD} tierdb://me:{WORD}@db1/"));
    // Each container has its own.
    let flags = ["--name", "other", "-e", "HOST=db2"];
    let said = run(
        &house,
        &[&flags[..], &["--secret", "pw", "--secret", "url"]].concat(),
        "cat /run/secrets/url",
    );
    assert_eq!(said, format!("db://me:{WORD}@db2/"));
    // What cannot be expanded does not start, and says why.
    let said = run(&house, &["--config", "broken"], "true");
    let words = "failed to expand templated config: template: expansion:1:2: executing \"expansion\" at <secret \"nothing\">: error calling secret: secret target nothing not found";
    assert!(said.contains(words), "{said}");
    let said =
        fed(house.docker(&["secret", "create", "--template-driver", "jinja", "x", "-"]), b"x");
    assert!(said.contains("unrecognized template type"), "{said}");
    house.ok(&["config", "rm", "conf", "broken"]);
    house.ok(&["secret", "rm", "url", "pw"]);
}

/// The real names of all files below a directory that hold these bytes.
fn holders(dir: &Path, bytes: &[u8], found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            holders(&entry.path(), bytes, found);
        } else if kind.is_file() {
            let content = fs::read(entry.path()).unwrap_or_default();
            if content.windows(bytes.len()).any(|part| part == bytes) {
                found.push(entry.path().display().to_string());
            }
        }
    }
}

#[test]
fn what_is_secret_is_nowhere_else() {
    let mut house = house();
    fed(house.docker(&["secret", "create", "key", "-"]), WORD.as_bytes());
    let start = ["run", "-d", "--name", "ca", "--network", "none", "--secret", "key"];
    let start = [&start[..], &["busybox", "sleep", "1000"]].concat();
    assert!(house.gantry(&start).status().expect("gantry").success());
    let content = |house: &House| house.ok(&["exec", "ca", "cat", "/run/secrets/key"]);
    assert_eq!(content(&house), WORD);
    // Not in what is told of anything, not in what is copied out of the container, not in an image of it.
    let told = [
        house.ok(&["inspect", "ca"]),
        house.ok(&["secret", "inspect", "key"]),
        text(&house.api("GET", "/secrets", None).body),
        house.ok(&["events", "--since", "10m", "--until", "0s", "--format", "{{json .}}"]),
        house.ok(&["cp", "ca:/run", "-"]),
        text(&house.docker(&["export", "ca"]).output().expect("docker").stdout),
    ];
    for (index, text) in told.iter().enumerate() {
        assert!(!text.contains(WORD), "{index}: {text}");
    }
    assert!(told[0].contains("\"SecretName\": \"key\""), "{}", told[0]);
    house.ok(&["commit", "ca", "copy"]);
    let words = ["run", "--rm", "--network", "none", "copy", "ls", "/run/secrets"];
    assert_eq!(house.ok(&words), "");
    // It outlives the daemon, and the container's next run has it too.
    house.kill();
    house.start();
    assert_eq!(content(&house), WORD);
    house.ok(&["restart", "-t", "0", "ca"]);
    assert_eq!(content(&house), WORD);
    house.ok(&["stop", "-t", "0", "ca"]);
    assert!(!house.ok(&["cp", "ca:/run", "-"]).contains(WORD));
    // Not on any disk.
    let mut found = Vec::new();
    for root in [house.data_root(), house.exec_root()] {
        holders(&root, WORD.as_bytes(), &mut found);
        holders(&root, b"Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ", &mut found);
    }
    assert_eq!(found, [""; 0]);
    assert!(!house.log().contains(WORD));
    // Records without their key tell nothing, and say so.
    house.stop();
    let key = house.data_root().join("secrets.key");
    let kept = fs::read(&key).expect("a key");
    fs::write(&key, [0; 32]).expect("another key");
    house.start();
    let refused = shown(&house.docker(&["start", "ca"]).output().expect("docker"));
    assert!(
        refused.contains("cannot read secret key: it does not open with this key"),
        "{refused}"
    );
    house.stop();
    fs::write(&key, kept).expect("the key");
    house.start();
    house.ok(&["start", "ca"]);
    assert_eq!(content(&house), WORD);
    house.ok(&["rm", "-f", "ca"]);
    house.ok(&["rmi", "copy"]);
    house.ok(&["secret", "rm", "key"]);
}

#[test]
fn a_new_one_takes_the_place_of_the_old_where_it_is_used() {
    let mut house = house();
    fed(house.docker(&["secret", "create", "-l", "a=b", "key", "-"]), b"old");
    let wait =
        "trap 'cat /run/secrets/d/key; echo' HUP; echo ready; while :; do sleep 1000 & wait; done";
    for (name, users) in [("ca", "host"), ("cb", "auto")] {
        let words = ["run", "-d", "--name", name, "--network", "none", "--userns", users];
        let secret = [
            "--secret",
            "key,target=d/key,uid=5,mode=0440,signal=HUP",
            "--secret",
            "key,target=/k",
        ];
        let words = [&words[..], &secret, &["busybox", "sh", "-c", wait]].concat();
        assert!(house.gantry(&words).status().expect("gantry").success());
    }
    let follow = |name: &str| {
        let mut logs = house.docker(&["logs", "-f", name]);
        logs.stdout(Stdio::piped()).spawn().expect("docker")
    };
    let heard: Vec<_> = ["ca", "cb"].map(follow).into_iter().collect();
    for one in heard {
        wait_for_line(one, "ready");
    }
    let update = |house: &House, data: &[u8]| {
        let said = fed(house.gantry(&["secret", "update", "--label-add", "c=d", "key", "-"]), data);
        assert_eq!(said, "key\n");
    };
    update(&house, b"new");
    for name in ["ca", "cb"] {
        let look = "cat /run/secrets/d/key; stat -c ' %a %u' /run/secrets/d/key; cat /k; ls -A /run/secrets/d";
        // What has a mount of its own is as it was.
        assert_eq!(house.ok(&["exec", name, "sh", "-c", look]), "new 440 5\noldkey\n");
        let mut logs = house.docker(&["logs", "-f", name]);
        wait_for_line(logs.stdout(Stdio::piped()).spawn().expect("docker"), "new");
    }
    let labels = house.ok(&["secret", "inspect", "-f", "{{json .Spec.Labels}}", "key"]);
    assert_eq!(labels.trim(), "{\"a\":\"b\",\"c\":\"d\"}");
    // By the next daemon as well; and who starts again has it everywhere.
    house.kill();
    house.start();
    update(&house, b"newer");
    assert_eq!(house.ok(&["exec", "cb", "cat", "/run/secrets/d/key"]), "newer");
    house.ok(&["restart", "-t", "0", "ca"]);
    assert_eq!(house.ok(&["exec", "ca", "cat", "/k"]), "newer");
    // Whoever changes what he has not seen is refused.
    let body = serde_json::json!({"Name": "key", "Data": "eA=="});
    let stale = house.api("POST", "/secrets/key/update?version=1", Some(&body));
    assert_eq!((stale.status, text(&stale.body).contains("update out of sequence")), (500, true));
    house.ok(&["rm", "-f", "ca", "cb"]);
    house.ok(&["secret", "rm", "key"]);
}

/// Until a follower of a log has printed a line that begins so.
fn wait_for_line(mut follower: std::process::Child, line: &str) {
    use std::io::{BufRead, BufReader};
    let mut lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    let found = lines.any(|found| found.expect("text").starts_with(line));
    follower.kill().unwrap_or_default();
    follower.wait().expect("it ends");
    assert!(found, "{line} was not printed");
}
