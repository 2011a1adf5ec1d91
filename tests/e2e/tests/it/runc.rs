//! The runtime's hat beside runc: the same bundles and commands, and what both say; hooks; its own program under attack.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use testkit::House;
use testkit::house::{shown, succeed};
use testkit::images::{Entry, TestImage, tar};

use crate::foreign::{hat, sweep, text, theirs, wait_for};

/// One runtime with a bundle and a root of its own.
struct Bundle {
    dir: tempfile::TempDir,
    program: PathBuf,
    cgroup: String,
    said: String,
}

/// How much of an answer must be the same.
#[derive(Clone, Copy, PartialEq)]
enum Same {
    All,
    /// The words are each one's own.
    Code,
}

impl Bundle {
    fn new(program: PathBuf, name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("gf-").tempdir().expect("a place for a test");
        let rootfs = dir.path().join("b/rootfs");
        fs::create_dir_all(&rootfs).expect("a place for a root");
        for layer in &TestImage::busybox().layers {
            ::tar::Archive::new(layer.as_slice()).unpack(&rootfs).expect("a layer");
        }
        let cgroup = format!("/gantry-runc-{name}-{}", std::process::id());
        let bundle = Self { dir, program, cgroup, said: String::new() };
        bundle.configure(&["sleep", "1000"], |_| {});
        bundle
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// runc's own example without a terminal.
    fn configure(&self, args: &[&str], change: impl FnOnce(&mut Value)) {
        let _absent = fs::remove_file(self.path("b/config.json"));
        let mut spec = Command::new("runc");
        spec.args(["spec", "--bundle"]).arg(self.path("b"));
        succeed(spec);
        let text = fs::read(self.path("b/config.json")).expect("an example");
        let mut spec: Value = serde_json::from_slice(&text).expect("JSON");
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(args);
        spec["root"]["readonly"] = json!(false);
        spec["annotations"] = json!({"a": "b"});
        spec["linux"]["cgroupsPath"] = json!(format!("{}/c", self.cgroup));
        change(&mut spec);
        fs::write(self.path("b/config.json"), spec.to_string()).expect("a configuration");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(self.path("b"))
            .arg("--root")
            .arg(self.path("root"))
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command and writes down what came of it, without what is by chance.
    fn step(&mut self, same: Same, args: &[&str]) -> i32 {
        let log = self.path("log");
        let _absent = fs::remove_file(&log);
        let (out, err) = (File::create(self.path("out")), File::create(self.path("err")));
        let mut command = Command::new(&self.program);
        command
            .current_dir(self.path("b"))
            .arg("--root")
            .arg(self.path("root"))
            .arg("--log")
            .arg(&log)
            .args(["--log-format", "json"])
            .args(args)
            .stdin(Stdio::null())
            // Files: who stays in the background holds no pipe.
            .stdout(out.expect("a file"))
            .stderr(err.expect("a file"));
        let status = command.status().expect("a runtime can be executed");
        let code = status.code().unwrap_or(-1);
        let log = fs::read_to_string(&log).unwrap_or_default();
        let message = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["level"] == "error" && line["time"].is_string())
            .filter_map(|line| Some(line["msg"].as_str()?.to_owned()))
            .next_back()
            .unwrap_or_default();
        if !message.is_empty() {
            let err = fs::read_to_string(self.path("err")).unwrap_or_default();
            assert!(err.contains(&message), "bare words on standard error: {err}");
        }
        let may_end_badly = matches!(args[0], "exec" | "run");
        assert!(code == 0 || !message.is_empty() || may_end_badly, "{args:?} says nothing");
        let shown = |text: String| self.plain(&text);
        let args = shown(args.join(" "));
        let mut said = format!("$ {}\n[{code}]\n", args.trim_end());
        if same == Same::All {
            said += &shown(fs::read_to_string(self.path("out")).unwrap_or_default());
            // runc says its own name first.
            let message = ["runc create failed: ", "runc run failed: "]
                .iter()
                .find_map(|prefix| message.strip_prefix(prefix))
                .unwrap_or(&message);
            said += &shown(message.to_owned());
        }
        self.said += said.trim_end();
        self.said += "\n";
        code
    }

    fn all(&mut self, args: &[&str]) {
        self.step(Same::All, args);
    }

    fn code(&mut self, args: &[&str]) {
        self.step(Same::Code, args);
    }

    /// Places, times and numbers of processes by their kind.
    fn plain(&self, text: &str) -> String {
        let text = text.replace(self.dir.path().to_str().expect("a path in UTF-8"), "DIR");
        let mut plain = String::new();
        for line in text.lines() {
            // The table's columns are as wide as what stands in them.
            let mut words: Vec<String> =
                line.split_whitespace().map(|word| self.plain_word(word)).collect();
            if words.len() == 6 && words[4] == "TIME" {
                words[1] = "PID".to_owned();
            }
            plain += &words.join(" ");
            plain += "\n";
        }
        plain
    }

    fn plain_word(&self, word: &str) -> String {
        let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_time = core.len() > 20 && core.ends_with('Z') && core.as_bytes()[10] == b'T';
        if is_time { word.replace(core, "TIME") } else { word.to_owned() }
    }

    fn state(&self, id: &str) -> Value {
        let text = succeed(self.command(&["state", id]));
        serde_json::from_str(&text).expect("JSON")
    }

    fn wait_until_stopped(&self, id: &str) {
        wait_for("the end of the container", || self.state(id)["status"] == "stopped");
    }

    /// The state, key by key in its order, without what is by chance.
    fn note_state(&mut self, id: &str) {
        let text = succeed(self.command(&["state", id]));
        let mut state: Value = serde_json::from_str(&text).expect("JSON");
        let alive = state["pid"] != 0;
        (state["pid"], state["created"]) = (json!(alive), json!("TIME"));
        let keys: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("  \"")?.split('"').next()).collect();
        self.said += &self.plain(&format!("state {keys:?} {state}"));
    }

    fn file(&mut self, path: &str) {
        let found = fs::read_to_string(path.replace("CGROUP", &format!("{}/c", self.cgroup)));
        self.said += &format!("{path}: {}\n", found.unwrap_or_default().trim());
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let list = self.command(&["list", "-q"]).output().map(|output| text(&output.stdout));
        for id in list.unwrap_or_default().lines() {
            let _gone = self.command(&["delete", "--force", id]).output();
        }
        sweep(&self.cgroup);
    }
}

/// Both play the same part; what they have said must be the same.
#[track_caller]
fn both(name: &str, runc: PathBuf, part: impl Fn(&mut Bundle)) {
    let place = tempfile::tempdir().expect("a place for a test");
    let [theirs, ours] = [(runc, "theirs"), (hat(place.path(), "gantry-runtime"), "ours")].map(
        |(program, whose)| {
            let mut bundle = Bundle::new(program, &format!("{name}-{whose}"));
            part(&mut bundle);
            std::mem::take(&mut bundle.said)
        },
    );
    if theirs != ours {
        let differ = theirs.lines().zip(ours.lines()).find(|(theirs, ours)| theirs != ours);
        panic!("they differ at {differ:?}\n--- runc\n{theirs}\n--- ours\n{ours}");
    }
}

#[test]
fn of_nothing() {
    both("nothing", theirs!("runc"), |bundle| {
        for args in [
            &["list"][..],
            &["list", "-f", "json"],
            &["list", "-q"],
            &["list", "-f", "x"],
            &["state", "nope"],
            &["kill", "nope"],
            &["delete", "nope"],
            &["delete", "--force", "nope"],
            &["start", "nope"],
            &["exec", "nope", "true"],
            &["ps", "nope"],
            &["pause", "nope"],
            &["resume", "nope"],
            &["update", "nope"],
            &["events", "--stats", "nope"],
            &["create", "bad/id"],
            &["create", "--bundle", "/nowhere", "c"],
            &["run", "--bundle", "/nowhere", "c"],
        ] {
            bundle.all(args);
        }
        for args in [
            &["state"][..],
            &["state", "a", "b"],
            &["state", "--bogus", "c"],
            &["create"],
            &["run"],
            &["exec"],
            &["kill"],
            &["list", "x"],
            &["delete"],
        ] {
            bundle.code(args);
        }
        fs::write(bundle.path("b/config.json"), "{").expect("a configuration");
        bundle.code(&["create", "c"]);
        fs::remove_file(bundle.path("b/config.json")).expect("it was there");
        bundle.code(&["create", "c"]);
        bundle.all(&["list", "-q"]);
    });
}

#[test]
fn from_create_to_delete() {
    both("life", theirs!("runc"), |bundle| {
        let pid_file = bundle.path("pid");
        let pid_file = pid_file.to_str().expect("a path in UTF-8");
        bundle.all(&["create", "--pid-file", pid_file, "--no-pivot", "--no-new-keyring", "c"]);
        let written = fs::read_to_string(pid_file).expect("a number");
        assert_eq!(bundle.state("c")["pid"].to_string(), written);
        bundle.note_state("c");
        for args in [
            &["create", "c"][..],
            &["list"],
            &["list", "-q"],
            &["exec", "c", "echo", "before its start"],
            &["pause", "c"],
        ] {
            bundle.all(args);
        }
        bundle.note_state("c");
        for args in [&["resume", "c"][..], &["start", "c"], &["start", "c"]] {
            bundle.all(args);
        }
        bundle.note_state("c");
        let json = succeed(bundle.command(&["ps", "-f", "json", "c"]));
        assert_eq!(
            serde_json::from_str::<Value>(&json).expect("JSON"),
            json!([bundle.state("c")["pid"]])
        );
        let table = succeed(bundle.command(&["ps", "c"]));
        let rows: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
        assert_eq!(
            (rows[1][0], rows[1][1], &rows[1][7..]),
            ("root", written.as_str(), &["sleep", "1000"][..])
        );

        for args in [
            &["ps", "-f", "x", "c"][..],
            &["delete", "c"],
            &["pause", "c"],
            &["pause", "c"],
            &["exec", "c", "true"],
            &["start", "c"],
            &["resume", "c"],
            &["resume", "c"],
            &[
                "update",
                "--memory",
                "64m",
                "--pids-limit",
                "20",
                "--cpu-quota",
                "50000",
                "--cpu-period",
                "100000",
                "c",
            ],
        ] {
            bundle.all(args);
        }
        bundle.file("/sys/fs/cgroup/memory/CGROUP/memory.limit_in_bytes");
        bundle.file("/sys/fs/cgroup/pids/CGROUP/pids.max");
        bundle.file("/sys/fs/cgroup/cpu/CGROUP/cpu.cfs_quota_us");
        let resources = bundle.path("r.json");
        fs::write(&resources, r#"{"memory":{"limit":50331648},"cpu":{"shares":512}}"#)
            .expect("a file");
        bundle.all(&["update", "-r", resources.to_str().expect("a path in UTF-8"), "c"]);
        bundle.file("/sys/fs/cgroup/memory/CGROUP/memory.limit_in_bytes");
        bundle.file("/sys/fs/cgroup/cpu/CGROUP/cpu.shares");
        bundle.all(&["update", "--memory", "bad", "c"]);
        bundle.all(&["update", "-r", "/nope", "c"]);
        bundle.code(&["update", "--blkio-weight", "x", "c"]);

        for args in [&["kill", "c", "BADSIG"][..], &["kill", "c", "0"], &["kill", "c", "KILL"]] {
            bundle.all(args);
        }
        bundle.wait_until_stopped("c");
        bundle.note_state("c");
        for args in [
            &["kill", "c"][..],
            &["kill", "c", "KILL"],
            &["exec", "c", "true"],
            &["start", "c"],
            &["pause", "c"],
            &["resume", "c"],
            &["list", "-q"],
            &["delete", "c"],
            &["delete", "c"],
            &["state", "c"],
            &["list"],
        ] {
            bundle.all(args);
        }
    });
}

#[test]
fn joining() {
    both("exec", theirs!("runc"), |bundle| {
        bundle.all(&["run", "--detach", "c"]);
        let process = bundle.path("p.json");
        let document = json!({
            "args": ["sh", "-c", "pwd; id -u; exit 9"], "cwd": "/tmp", "env": ["PATH=/bin"],
            "user": {"uid": 5, "gid": 5},
        });
        fs::write(&process, document.to_string()).expect("a file");
        let process = process.to_str().expect("a path in UTF-8").to_owned();
        for args in [
            &["exec", "c", "sh", "-c", "echo out; exit 5"][..],
            &["exec", "c", "nosuch"],
            &["exec", "c"],
            &[
                "exec",
                "-u",
                "1000:7",
                "--cwd",
                "/tmp",
                "-e",
                "A=b",
                "c",
                "sh",
                "-c",
                "id -u; id -g; pwd; echo $A",
            ],
            &["exec", "-g", "5", "-g", "6", "c", "id", "-G"],
            &["exec", "--cap", "CAP_SYS_ADMIN", "c", "grep", "CapEff", "/proc/self/status"],
            &["exec", "--no-new-privs", "c", "grep", "NoNewPrivs", "/proc/self/status"],
            &["exec", "--cwd", "/nope", "c", "pwd"],
            &["exec", "--process", &process, "c"],
            &["exec", "c", "sh", "-c", "kill -9 $$"],
        ] {
            bundle.all(args);
        }
        for args in [
            &["exec", "-u", "bad", "c", "id"][..],
            &["exec", "--cwd", "rel", "c", "pwd"],
            &["exec", "c", "/etc"],
        ] {
            bundle.code(args);
        }
        // Descriptors, and only those that were asked for.
        for (flags, expected) in [(&[][..], "0 1 2"), (&["--preserve-fds", "1"][..], "0 1 2 3")] {
            let script = "for f in 0 1 2 3 4 5; do [ -e /proc/$$/fd/$f ] && echo $f; done; true";
            let exec = [&["exec"], flags, &["c", "sh", "-c", script]].concat();
            let outer = bundle.command(&exec);
            let mut shell = Command::new("sh");
            shell.args(["-c", "exec \"$@\" 3</etc/hostname 4</etc/hostname", "sh"]);
            shell.arg(outer.get_program()).args(outer.get_args()).stdin(Stdio::null());
            let seen = succeed(shell);
            let seen: Vec<&str> = seen.split_whitespace().filter(|fd| fd.len() == 1).collect();
            assert_eq!(seen.join(" "), expected, "{flags:?}");
        }
        let pid_file = bundle.path("epid");
        bundle.all(&[
            "exec",
            "-d",
            "--pid-file",
            pid_file.to_str().expect("a path"),
            "c",
            "sleep",
            "1000",
        ]);
        let pid = fs::read_to_string(pid_file).expect("a number");
        let comm = format!("/proc/{pid}/comm");
        wait_for("the program", || fs::read_to_string(&comm).is_ok_and(|comm| comm == "sleep\n"));

        let stats = succeed(bundle.command(&["events", "--stats", "c"]));
        let stats: Value = serde_json::from_str(&stats).expect("JSON");
        assert_eq!((&stats["type"], &stats["id"]), (&json!("stats"), &json!("c")));
        for pointer in [
            "/data/cpu/usage/total",
            "/data/memory/usage/usage",
            "/data/memory/usage/limit",
            "/data/memory/raw/rss",
            "/data/pids/current",
        ] {
            assert!(stats.pointer(pointer).is_some_and(Value::is_u64), "{pointer}: {stats}");
        }
        bundle.all(&["delete", "--force", "c"]);
        bundle.all(&["list", "-q"]);
    });
}

#[test]
fn running() {
    both("run", theirs!("runc"), |bundle| {
        bundle.configure(&["sh", "-c", "echo out; exit 3"], |_| {});
        bundle.all(&["run", "c"]);
        bundle.all(&["list", "-q"]);
        bundle.all(&["run", "--keep", "c"]);
        bundle.note_state("c");
        bundle.all(&["delete", "c"]);
        bundle.configure(&["nosuch"], |_| {});
        bundle.all(&["run", "c"]);
        bundle.all(&["create", "c"]);
        bundle.all(&["list", "-q"]);
        bundle.configure(&["sh", "-c", "kill -9 $$"], |spec| {
            spec["linux"]["namespaces"]
                .as_array_mut()
                .expect("a list")
                .retain(|one| one["type"] != "pid");
        });
        bundle.all(&["run", "c"]);
        bundle.configure(&["cat", "/proc/sys/kernel/msgmax", "/proc/self/oom_score_adj"], |spec| {
            spec["linux"]["sysctl"] = json!({"kernel.msgmax": "1000"});
            spec["process"]["oomScoreAdj"] = json!(500);
        });
        bundle.all(&["run", "c"]);
        for (name, wrong) in [
            ("sysctl", json!({"kernel.core_pattern": "x"})),
            ("sysctl", json!({"net.ipv4.ip_forward": "1"})),
            ("rootfsPropagation", json!("loud")),
        ] {
            bundle.configure(&["true"], |spec| {
                spec["linux"][name] = wrong;
                spec["linux"]["namespaces"]
                    .as_array_mut()
                    .expect("a list")
                    .retain(|one| one["type"] != "network");
            });
            bundle.code(&["run", "c"]);
        }
        // Two documents to begin with, each good for the other's runtime too.
        fs::remove_file(bundle.path("b/config.json")).expect("it was there");
        bundle.all(&["spec"]);
        bundle.all(&["spec"]);
        let text = fs::read(bundle.path("b/config.json")).expect("an example");
        let mut spec: Value = serde_json::from_slice(&text).expect("JSON");
        (spec["process"]["terminal"], spec["process"]["args"]) =
            (json!(false), json!(["hostname"]));
        spec["hostname"] = json!("same");
        spec["ociVersion"] = json!("1.0.2");
        fs::write(bundle.path("b/config.json"), spec.to_string()).expect("a configuration");
        bundle.all(&["run", "c"]);
        let other = Command::new("runc")
            .current_dir(bundle.path("b"))
            .arg("--root")
            .arg(bundle.path("other"))
            .args(["run", "c"])
            .stdin(Stdio::null())
            .output()
            .expect("runc can be executed");
        assert_eq!(text_of(&other), "same\n", "{}", shown(&other));
        fs::remove_file(bundle.path("b/config.json")).expect("it was there");
        bundle.all(&["spec", "--rootless"]);
        let text = fs::read(bundle.path("b/config.json")).expect("an example");
        let spec: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(spec["linux"]["uidMappings"][0]["size"], 1);
    });
}

fn text_of(output: &Output) -> String {
    text(&output.stdout)
}

/// By somebody who is nobody, with a user namespace and nothing else.
#[test]
fn without_privilege() {
    let place = tempfile::tempdir().expect("a place for a test");
    fs::set_permissions(place.path(), Permissions::from_mode(0o755)).expect("our own");
    let ours = place.path().join("gantry-runtime");
    fs::copy(House::binary(), &ours).expect("a copy of the binary");
    let [theirs, ours] = [(theirs!("runc"), "theirs"), (ours, "ours")].map(|(program, whose)| {
        let bundle = Bundle::new(program, &format!("rootless-{whose}"));
        fs::remove_file(bundle.path("b/config.json")).expect("it was there");
        let mut given = Command::new("chown");
        given.args(["-R", "65534:65534"]).arg(bundle.dir.path());
        succeed(given);
        let as_nobody = |args: &[&str]| {
            let command = bundle.command(args);
            let mut nobody = Command::new("setpriv");
            nobody
                .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
                .args(["--bounding-set=-all", "--inh-caps=-all"])
                .arg(command.get_program())
                .args(command.get_args())
                .current_dir(bundle.path("b"))
                .stdin(Stdio::null())
                .stdout(File::create(bundle.path("out")).expect("a file"))
                .stderr(File::create(bundle.path("err")).expect("a file"));
            let code = nobody.status().expect("setpriv can be executed").code();
            let read = |name: &str| fs::read_to_string(bundle.path(name)).unwrap_or_default();
            format!("{args:?} {code:?} {}{}", read("out"), read("err"))
        };
        let configure = |args: &[&str]| {
            let path = bundle.path("b/config.json");
            let text = fs::read(&path).expect("an example");
            let mut spec: Value = serde_json::from_slice(&text).expect("JSON");
            (spec["process"]["terminal"], spec["process"]["args"]) = (json!(false), json!(args));
            fs::write(&path, spec.to_string()).expect("a configuration");
        };
        let mut said = vec![as_nobody(&["spec", "--rootless"])];
        configure(&["sh", "-c", "id -u; tr -s ' ' </proc/self/uid_map; exit 3"]);
        said.push(as_nobody(&["run", "c"]));
        configure(&["sleep", "1000"]);
        for args in [
            &["create", "c"][..],
            &["start", "c"],
            &["exec", "c", "id", "-u"],
            &["list", "-q"],
            &["delete", "c"],
            &["kill", "c", "KILL"],
        ] {
            said.push(as_nobody(args));
        }
        wait_for("the end of the container", || as_nobody(&["state", "c"]).contains("stopped"));
        said.push(as_nobody(&["delete", "c"]));
        said.push(as_nobody(&["list", "-q"]));
        let plain = |line: &String| match line.split_once("level=error") {
            Some((before, after)) => {
                let before = before.rsplit_once("time=").map_or(before, |(before, _)| before);
                format!("{before}{after}")
            }
            None => line.clone(),
        };
        said.iter().map(plain).collect::<Vec<_>>()
    });
    assert_eq!(theirs, ours);
}

/// As podman without root does it: everybody is in one user namespace, and the container makes none.
#[test]
fn inside_a_user_namespace() {
    let place = tempfile::tempdir().expect("a place for a test");
    fs::set_permissions(place.path(), Permissions::from_mode(0o755)).expect("our own");
    let program = place.path().join("gantry-runtime");
    fs::copy(House::binary(), &program).expect("a copy of the binary");
    let bundle = Bundle::new(program.clone(), "inside");
    fs::remove_file(bundle.path("b/config.json")).expect("it was there");
    succeed(bundle.command(&["spec", "--rootless"]));
    let text = fs::read(bundle.path("b/config.json")).expect("an example");
    let mut spec: Value = serde_json::from_slice(&text).expect("JSON");
    (spec["process"]["terminal"], spec["process"]["args"]) =
        (json!(false), json!(["sleep", "1000"]));
    for mappings in ["uidMappings", "gidMappings"] {
        spec["linux"].as_object_mut().expect("an object").remove(mappings);
    }
    spec["linux"]["namespaces"].as_array_mut().expect("a list").retain(|one| one["type"] != "user");
    fs::write(bundle.path("b/config.json"), spec.to_string()).expect("a configuration");
    let mut given = Command::new("chown");
    given.args(["-R", "65534:65534"]).arg(bundle.dir.path());
    succeed(given);
    let script = r#"
        $R run -d c </dev/null >/dev/null && $R exec c sh -c 'id -u; tr "\0" " " </proc/1/cmdline; exit 5'
        echo $?; $R delete --force c; echo $?; ls $XDG_RUNTIME_DIR/gantry/runtime
    "#;
    let mut nobody = Command::new("setpriv");
    nobody
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script])
        .env("R", &program)
        .env("XDG_RUNTIME_DIR", bundle.dir.path())
        .env_remove("USER")
        .current_dir(bundle.path("b"))
        .stdin(Stdio::null());
    assert_eq!(succeed(nobody), "0\nsleep 1000 5\n0\n");
}

#[test]
fn features() {
    let runc = theirs!("runc");
    let place = tempfile::tempdir().expect("a place for a test");
    let ask = |program: &Path| -> Value {
        let mut features = Command::new(program);
        features.arg("features");
        serde_json::from_str(&succeed(features)).expect("JSON")
    };
    let (theirs, ours) = (ask(&runc), ask(&hat(place.path(), "gantry-runtime")));
    let words = |features: &Value, pointer: &str| -> Vec<String> {
        let list = features.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        list.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    for (pointer, not_ours) in [
        ("/hooks", &[][..]),
        // Words of the file system, which are passed on.
        ("/mountOptions", &["acl", "noacl"][..]),
        ("/linux/namespaces", &[]),
        ("/linux/capabilities", &[]),
        ("/linux/seccomp/actions", &[]),
        ("/linux/seccomp/operators", &[]),
        (
            "/linux/seccomp/archs",
            &[
                "SCMP_ARCH_MIPS",
                "SCMP_ARCH_MIPS64",
                "SCMP_ARCH_MIPS64N32",
                "SCMP_ARCH_MIPSEL",
                "SCMP_ARCH_MIPSEL64",
                "SCMP_ARCH_MIPSEL64N32",
                "SCMP_ARCH_PPC",
                "SCMP_ARCH_PPC64",
                "SCMP_ARCH_PPC64LE",
                "SCMP_ARCH_S390",
                "SCMP_ARCH_S390X",
            ],
        ),
    ] {
        let ours = words(&ours, pointer);
        let lacking: Vec<String> =
            words(&theirs, pointer).into_iter().filter(|word| !ours.contains(word)).collect();
        assert_eq!(lacking, not_ours, "{pointer}");
    }
}

// Hooks: the six moments of the specification.

/// A hook that writes down its moment, the state it is told, and whose mounts it sees.
fn hook(log: &Path, moment: &str, then: &str) -> Value {
    let script = format!(
        "state=$(cat | tr -d '\\n ' | grep -o '\"status\":\"[a-z]*\"'); echo \"{moment} $state $(readlink /proc/self/ns/mnt)\" >>{}; {then}",
        log.display()
    );
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], "timeout": 20})
}

const MOMENTS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A bundle of ours whose hooks write into a file that both the host and the container see at one path.
fn with_hooks(name: &str, fails: Option<&str>) -> (tempfile::TempDir, Bundle, PathBuf) {
    let place = tempfile::tempdir().expect("a place for a test");
    let bundle = Bundle::new(hat(place.path(), "gantry-runtime"), name);
    let shared = place.path().join("shared");
    fs::create_dir(&shared).expect("a directory");
    let log = shared.join("log");
    bundle.configure(&["sleep", "1000"], |spec| {
        for moment in MOMENTS {
            let then = if fails == Some(moment) { "echo why >&2; exit 3" } else { "true" };
            let second = hook(&log, &format!("{moment}2"), "true");
            spec["hooks"][moment] = json!([hook(&log, moment, then), second]);
        }
        let mounts = spec["mounts"].as_array_mut().expect("a list");
        mounts.push(json!({"destination": shared, "source": shared, "options": ["bind"]}));
    });
    (place, bundle, log)
}

#[test]
fn hooks_have_their_moments() {
    let (_place, bundle, log) = with_hooks("hooks", None);
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let told = |lines: &[&str]| {
        let text = said();
        let moments: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(moments, lines, "{text}");
    };
    let quiet = |args: &[&str]| {
        let status = bundle.command(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.expect("it can be executed").success(), "{args:?}");
    };
    let twice = |moments: &[&str]| -> Vec<String> {
        moments.iter().flat_map(|moment| [(*moment).to_owned(), format!("{moment}2")]).collect()
    };
    let check = |number: usize| {
        let expected = twice(&MOMENTS[..number]);
        told(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    };
    quiet(&["create", "c"]);
    check(3);
    quiet(&["start", "c"]);
    check(5);
    let pid = bundle.state("c")["pid"].to_string();
    let theirs = fs::read_link(format!("/proc/{pid}/ns/mnt")).expect("it runs");
    quiet(&["kill", "c", "KILL"]);
    bundle.wait_until_stopped("c");
    check(5);
    quiet(&["delete", "c"]);
    check(6);

    let ours = fs::read_link("/proc/self/ns/mnt").expect("we run");
    let line = |moment: &str| {
        let text = said();
        let line = text.lines().find(|line| line.starts_with(&format!("{moment} ")));
        line.expect("it was run").to_owned()
    };
    for (moment, status, mounts) in [
        ("prestart", "creating", &ours),
        ("createRuntime", "creating", &ours),
        ("createContainer", "creating", &theirs),
        ("startContainer", "created", &theirs),
        ("poststart", "running", &ours),
        ("poststop", "stopped", &ours),
    ] {
        let expected = format!("{moment} \"status\":\"{status}\" {}", mounts.display());
        assert_eq!(line(moment), expected);
    }
}

#[test]
fn a_failing_hook_ends_it_but_after_the_end() {
    for (number, moment) in MOMENTS.into_iter().enumerate() {
        let (place, bundle, log) = with_hooks(&format!("fails{number}"), Some(moment));
        let err = place.path().join("err");
        let run = |args: &[&str]| {
            let file = File::create(&err).expect("a file");
            let status = bundle.command(args).stdout(Stdio::null()).stderr(file).status();
            let said = fs::read_to_string(&err).unwrap_or_default();
            (status.expect("it can be executed").success(), said)
        };
        let words = format!("error running {moment} hook #0: exit status 3");
        let (created, said) = run(&["create", "c"]);
        assert_eq!(created, number > 2, "{moment}: {said}");
        if number < 3 {
            assert!(said.contains(&words), "{said}");
            assert!(
                bundle.command(&["state", "c"]).output().is_ok_and(|state| !state.status.success())
            );
            continue;
        }
        let (started, said) = run(&["start", "c"]);
        assert_eq!(started, moment == "poststop", "{moment}: {said}");
        if started {
            assert!(run(&["kill", "c", "KILL"]).0);
        } else {
            assert!(said.contains(&words), "{said}");
        }
        bundle.wait_until_stopped("c");
        let (deleted, said) = run(&["delete", "c"]);
        assert!(deleted, "{moment}: {said}");
        if moment == "poststop" {
            assert!(said.contains("level=warning") && said.contains(&words), "{said}");
        }
        // The others of the last moment are run all the same.
        let log = fs::read_to_string(&log).unwrap_or_default();
        assert!(log.lines().any(|line| line.starts_with("poststop2 ")), "{moment}: {log}");
    }
}

// Where the host's program could be met (E1): a container that waits for somebody to join it.

/// Holds the program of everybody it sees, for ever, writes to it once nobody runs it any more, and says where it could.
const GRASPS: &str = r#"
    me=$(readlink /proc/1/exe)
    while :; do
        for p in /proc/[0-9]*; do
            l=$(readlink $p/exe 2>/dev/null) || continue
            [ "$l" = "$me" ] && continue
            (
                exec 9<$p/exe || exit
                echo "$l" >>/tmp/seen
                (echo broken >$p/exe) && echo "wrote $l" >>/tmp/wrote
                while [ -e $p/stat ]; do :; done
                (echo broken >/proc/self/fd/9) && echo "wrote $l" >>/tmp/wrote
            ) 2>/dev/null
        done
    done
"#;

#[test]
fn e1_the_runtimes_own_program_is_not_written() {
    let runc = theirs!("runc");
    let place = tempfile::tempdir().expect("a place for a test");
    drop(runc);
    // A copy: if it fails, others' tests go on.
    let copy = place.path().join("gantry-runtime");
    fs::copy(House::binary(), &copy).expect("a copy of the binary");
    let before = fs::read(&copy).expect("a program");
    let bundle = Bundle::new(copy.clone(), "e1");
    let ptrace = |spec: &mut Value| {
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] =
                json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_KILL"]);
        }
    };
    bundle.configure(&["sh", "-c", GRASPS], ptrace);
    let out = File::create(place.path().join("out")).expect("a file");
    let mut run = bundle.command(&["run", "--detach", "c"]);
    run.stdout(out.try_clone().expect("a file")).stderr(out);
    assert!(run.status().expect("a runtime can be executed").success());
    // Until it has been caught a few times.
    let caught = || {
        succeed(bundle.command(&["exec", "c", "true"]));
        let seen = bundle.command(&["exec", "c", "cat", "/tmp/seen"]).output();
        let seen = seen.map(|output| text(&output.stdout)).unwrap_or_default();
        seen.lines().filter(|line| line.ends_with("gantry-runtime")).count() > 20
    };
    wait_for("a sight of the runtime's program", caught);
    // The program itself, by every name it could be given.
    let link = bundle.path("b/rootfs/link");
    symlink("/proc/self/exe", &link).expect("a link");
    for path in ["/proc/self/exe", "/link"] {
        let _either = bundle.command(&["exec", "c", path, "--version"]).output();
    }
    let wrote =
        bundle.command(&["exec", "c", "cat", "/tmp/wrote"]).output().expect("it can be executed");
    assert_eq!(text(&wrote.stdout), "");
    assert!(fs::read(&copy).expect("a program") == before, "written from inside");

    // And as the container's own first program.
    succeed(bundle.command(&["delete", "--force", "c"]));
    bundle.configure(&["/proc/self/exe", "--version"], ptrace);
    let _either = bundle.command(&["run", "d"]).output();
    assert!(fs::read(&copy).expect("a program") == before);

    // The twin: the same wish on a program of the container's own comes true.
    bundle.configure(
        &["sh", "-c", "cp /bin/busybox /tmp/own; echo more >>/tmp/own && echo wrote"],
        ptrace,
    );
    assert_eq!(succeed(bundle.command(&["run", "d"])), "wrote\n");
}

#[test]
fn e1_nor_the_daemons() {
    let house = House::new();
    house.load(&TestImage::busybox().docker_archive(&["busybox:latest"]));
    let before = fs::read(House::binary()).expect("a program");
    let run = ["run", "-d", "--name", "grasps", "--network", "none", "--cap-add", "SYS_PTRACE"];
    house.ok(&[&run[..], &["busybox", "sh", "-c", GRASPS]].concat());
    for _ in 0..20 {
        house.ok(&["exec", "grasps", "true"]);
    }
    // What a joining process is a copy of is no file: its parent's program is the shim's.
    let pid = house.ok(&["inspect", "--format", "{{.State.Pid}}", "grasps"]);
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).expect("it runs");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).expect("a parent");
    let shim = fs::read_link(format!("/proc/{parent}/exe")).expect("a shim");
    assert!(shim.to_string_lossy().starts_with("/memfd:gantry"), "{}", shim.display());
    let _either = house.docker(&["exec", "grasps", "/proc/self/exe", "--version"]).output();
    let own = TestImage::new(
        vec![tar(&[
            Entry::File("script".to_owned(), b"#!/proc/self/exe\n".to_vec(), 0o755),
            Entry::Symlink("link".to_owned(), "/proc/self/exe".to_owned()),
        ])],
        &json!({"Cmd": ["/script"]}),
    );
    house.load(&own.docker_archive(&["own:latest"]));
    for path in ["/script", "/link", "/proc/self/exe"] {
        let _either = house.docker(&["run", "--rm", "--network", "none", "own", path]).output();
    }
    let wrote = house
        .docker(&["exec", "grasps", "cat", "/tmp/wrote"])
        .output()
        .expect("it can be executed");
    assert_eq!(text(&wrote.stdout), "");
    assert!(fs::read(House::binary()).expect("a program") == before, "the binary was written");
    assert_eq!(house.ok(&["exec", "grasps", "echo", "fine"]), "fine\n");
    house.ok(&["rm", "-f", "grasps"]);
}
