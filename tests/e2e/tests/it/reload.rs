//! SIGHUP: the configuration is read again, as Debian's dockerd does it.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use testkit::client::Client;
use testkit::house::shown;
use testkit::{House, Netns, Plugin, Registry, Reply, TestImage};

use crate::faults::until;
use crate::peer::Peer;

/// A daemon, ours or not, that has a configuration file.
struct Side {
    client: Client,
    pid: Pid,
    log: PathBuf,
    file: PathBuf,
}

impl Side {
    fn ours(house: &House, file: PathBuf) -> Self {
        let pid = Pid::from_raw(house.pid() as i32).expect("it runs");
        Self { client: house.client_of_api(), pid, log: house.path("log"), file }
    }

    fn theirs(peer: &Peer, file: PathBuf) -> Self {
        let pid = std::fs::read_to_string(peer.path("pid")).expect("a file");
        let pid = Pid::from_raw(pid.trim().parse().expect("a number")).expect("it runs");
        Self { client: peer.client(), pid, log: peer.path("log"), file }
    }

    /// Has the file say this and the daemon read it: what its event tells, or why there is none.
    fn reload(&self, file: &str) -> Result<Value, String> {
        let before = (self.events().len(), self.refusals().len());
        std::fs::write(&self.file, file).expect("a file");
        kill_process(self.pid, Signal::HUP).expect("it runs");
        let seen = || (self.events().len(), self.refusals().len());
        until("it reads the file", || seen() != before);
        match seen().0 > before.0 {
            true => Ok(self.events().pop().expect("one more")["Actor"]["Attributes"].take()),
            false => Err(self.refusals().pop().expect("one more")),
        }
    }

    fn events(&self) -> Vec<Value> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
        let filters = "%7B%22event%22%3A%5B%22reload%22%5D%7D";
        let path = format!("/events?since=0&until={until}&filters={filters}");
        let answer = self.client.ask("GET", &path, None).expect("the daemon answers");
        let events = serde_json::Deserializer::from_slice(&answer.body).into_iter();
        events.map(|event| event.expect("an event")).collect()
    }

    /// What it has said against files.
    fn refusals(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).expect("a log");
        let errors =
            log.lines().filter(|line| line.contains("level=error") || line.contains(" ERROR "));
        errors.map(str::to_owned).collect()
    }

    fn info(&self) -> Value {
        self.client.ask("GET", "/info", None).expect("the daemon answers").json()
    }
}

/// Files one after the other, and what is wrong with those that change nothing.
const FILES: &[(&str, Option<&str>)] = &[
    ("{}", None),
    (
        r#"{"debug": true, "labels": ["c=d", "e=f"], "shutdown-timeout": 7, "live-restore": true,
            "max-concurrent-downloads": 9, "max-concurrent-uploads": 2, "max-download-attempts": 4,
            "insecure-registries": ["reg.example:5000"], "registry-mirrors": ["https://m.example/"],
            "features": {"buildkit": true}, "default-shm-size": "8m", "default-ipc-mode": "shareable"}"#,
        None,
    ),
    // What it does not speak of stays, or is as usual.
    (r#"{"labels": []}"#, None),
    (r#"{"debug": false, "max-concurrent-downloads": 4}"#, None),
    (r#"{"debug": tru"#, Some("unable to configure the Docker daemon with file")),
    (r#"{"debug": true, "nope": 1}"#, Some("don't match any configuration option: nope")),
    (r#"{"debug": true, "labels": ["x"]}"#, Some("bad attribute format: x")),
    (r#"{"debug": true, "labels": ["a=1", "a=2"]}"#, Some("conflict labels for a=2 and a=1")),
    (
        r#"{"debug": true, "max-concurrent-downloads": -1}"#,
        Some("invalid max concurrent downloads: -1"),
    ),
    (
        r#"{"debug": true, "default-runtime": "nope"}"#,
        Some("specified default runtime 'nope' does not exist"),
    ),
    (
        r#"{"debug": true, "default-ipc-mode": "host"}"#,
        Some("is not supported as default value; use"),
    ),
    (
        r#"{"debug": true, "data-root": "/elsewhere"}"#,
        Some("specified both as a flag and in the configuration file: data-root: (from flag: "),
    ),
    // Nobody may change it now, and nobody complains; nor looks whether it could be.
    (r#"{"mtu": 1400}"#, None),
    (r#"{"log-driver": "nope"}"#, None),
    (r#"{"log-opts": {"nope": "1", "max-size": "x"}}"#, None),
];

#[test]
fn files_are_read_again_as_dockerd_does() {
    let dir = tempfile::tempdir().expect("a place for a test");
    let [ours, theirs] = ["ours", "theirs"].map(|name| dir.path().join(name));
    for file in [&ours, &theirs] {
        std::fs::write(file, "{}").expect("a file");
    }
    let netns = Netns::new();
    let peer = Peer::within(&netns, &["--config-file", &theirs.display().to_string()]);
    let house = House::within_with(&netns, &["--config-file", &ours.display().to_string()]);
    let (ours, theirs) = (Side::ours(&house, ours), Side::theirs(&peer, theirs));
    for (file, wrong) in FILES {
        match (ours.reload(file), theirs.reload(file), wrong) {
            (Ok(ours), Ok(theirs), None) => {
                assert_eq!(comparable(ours), comparable(theirs), "{file}")
            }
            (Err(ours), Err(theirs), Some(why)) => {
                // Debian's quotes what it logs.
                let theirs = theirs.replace(r#"\""#, "\"");
                assert!(ours.contains(why) && theirs.contains(why), "{file}: {ours}\n{theirs}");
            }
            other => panic!("{file}: {other:#?}"),
        }
        // dockerd tells of it before it has turned its debugging on or off.
        let debug = |side: &Side| side.info()["Debug"].clone();
        until("both debug or neither does", || debug(&ours) == debug(&theirs));
        let [ours, theirs] = [ours.info(), theirs.info()];
        // A list of nothing is written in two ways.
        let [labels, of_theirs] = [&ours, &theirs].map(|info| match &info["Labels"] {
            Value::Null => json!([]),
            value => value.clone(),
        });
        assert_eq!(labels, of_theirs, "after {file}");
        assert_eq!(ours["RegistryConfig"]["Mirrors"], theirs["RegistryConfig"]["Mirrors"]);
    }
}

/// What a daemon of any version tells, and of any name.
fn comparable(mut attributes: Value) -> Value {
    let all = attributes.as_object_mut().expect("an object");
    for key in [
        // These went with the cluster stores and artefacts of Docker's past.
        "allow-nondistributable-artifacts",
        "cluster-advertise",
        "cluster-store",
        "cluster-store-opts",
        // Debian's has its own among them.
        "default-runtime",
        "runtimes",
    ] {
        all.remove(key);
    }
    // dockerd's order of them is that of a hash.
    if let Some(Value::String(labels)) = all.get_mut("labels") {
        let mut sorted: Vec<String> = serde_json::from_str(labels).expect("a list");
        sorted.sort();
        *labels = Value::from(sorted).to_string();
    }
    attributes
}

#[test]
fn what_is_read_again_is_obeyed() {
    let dir = tempfile::tempdir().expect("a place for a test");
    let file = dir.path().join("daemon.json");
    std::fs::write(&file, "{}").expect("a file");
    let house = House::with(&["--config-file", &file.display().to_string()]);
    house.load(&TestImage::busybox().docker_archive(&["busybox:latest"]));
    let registry = Registry::start();
    TestImage::small("mirrored").push(&registry, "library/mirrored", "latest");
    let side = Side::ours(&house, file);
    let create = |name: &str| {
        house.ok(&["create", "--name", name, "--network", "none", "busybox", "true"]);
        let seen = "{{.HostConfig.Runtime}} {{.HostConfig.ShmSize}} {{.HostConfig.IpcMode}} {{.HostConfig.CgroupnsMode}}";
        house.ok(&["inspect", "-f", seen, name])
    };
    let before = create("before");
    assert!(before.starts_with("gantry 67108864 private "), "{before}");
    assert!(!house.log().contains(" DEBUG "));
    let told = side.reload(&format!(
        r#"{{"debug": true, "registry-mirrors": ["http://{}"], "default-runtime": "other", "default-shm-size": "8m",
            "default-ipc-mode": "shareable", "default-cgroupns-mode": "private",
            "runtimes": {{"other": {{"path": "/usr/sbin/runc"}}}}}}"#,
        registry.address()
    ));
    assert_eq!(told.expect("it is right")["runtimes"], "other:/usr/sbin/runc");
    assert_eq!(create("after"), "other 8388608 shareable private\n");
    // What was made before is as it was.
    assert_eq!(house.ok(&["inspect", "-f", "{{.HostConfig.Runtime}}", "before"]), "gantry\n");
    house.ok(&["pull", "mirrored"]);
    until("it logs more", || {
        house.ok(&["ps"]);
        house.log().contains(" DEBUG ")
    });
    // The default would be gone with it, and so all stays.
    let refused = side.reload(r#"{"debug": false, "runtimes": {}}"#).expect_err("it is wrong");
    assert!(refused.contains("specified default runtime 'other' does not exist"), "{refused}");
    assert_eq!(house.ok(&["info", "-f", "{{.Debug}} {{.DefaultRuntime}}"]), "true other\n");
    let gone = house.docker(&["run", "--rm", "--runtime", "nope", "busybox"]).output();
    assert!(shown(&gone.expect("docker")).contains("unknown or invalid runtime name: nope"));
    side.reload(r#"{"debug": false, "default-runtime": "runc"}"#).expect("it is right");
    assert_eq!(house.ok(&["info", "-f", "{{.Debug}} {{.DefaultRuntime}}"]), "false runc\n");
}

#[test]
fn who_is_asked_is_read_again() {
    let dir = tempfile::tempdir().expect("a place for a test");
    let plugins = dir.path().join("plugins");
    let guard = Plugin::start(&plugins, "guard", |method, question| {
        let forbidden = question["RequestUri"].as_str().is_some_and(|uri| uri.contains("volumes"));
        Reply::Json(match method {
            "Plugin.Activate" => json!({"Implements": ["authz"]}),
            _ => json!({"Allow": !forbidden, "Msg": "not that"}),
        })
    });
    let file = dir.path().join("daemon.json");
    std::fs::write(&file, "{}").expect("a file");
    let words = [&plugins, &file].map(|path| path.display().to_string());
    let house = House::with(&["--plugin-directory", &words[0], "--config-file", &words[1]]);
    let side = Side::ours(&house, file);
    let volumes = || house.api("GET", "/volumes", None).status;
    let asked = || guard.asked("AuthZPlugin.AuthZReq").len();
    assert_eq!((volumes(), asked()), (200, 0));
    side.reload(r#"{"authorization-plugins": ["guard"]}"#).expect("it is right");
    assert_eq!(volumes(), 403);
    assert_eq!(house.ok(&["info", "-f", "{{json .Plugins.Authorization}}"]), "[\"guard\"]\n");
    // Who cannot be asked does not take the place of who can.
    let file = r#"{"authorization-plugins": ["nobody"], "labels": ["a=b"]}"#;
    let refused = side.reload(file).expect_err("there is no such plugin");
    assert!(refused.contains("nobody"), "{refused}");
    assert_eq!((volumes(), side.info()["Labels"].clone()), (403, json!([])));
    side.reload("{}").expect("it is right");
    let before = asked();
    assert_eq!((volumes(), asked()), (200, before));
}
