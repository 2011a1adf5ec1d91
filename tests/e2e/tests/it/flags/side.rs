//! One of the two daemons with all that rows name: images, a network, a volume, another container, files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use testkit::client::Client;
use testkit::house::succeed;
use testkit::images::{Entry, TestImage, tar};
use testkit::{House, Netns};

use super::Seen;
use super::normal::{self, Names};
use super::table::Row;
use crate::peer::Peer;

/// What both know; rows that need more are asked of ours alone.
const VERSION: &str = "1.41";

/// Who asks at the same time, of each daemon.
const WORKERS: usize = 3;

pub(crate) struct Side {
    client: Client,
    config: PathBuf,
    /// Files of both, which `DIR` means in a row.
    shared: PathBuf,
    /// Files of this one, which `OWN` means.
    own: PathBuf,
    names: Vec<(String, &'static str)>,
    /// Where addresses are given out by chance.
    subnets: [String; 2],
    namespaces: BTreeMap<String, &'static str>,
    modern: bool,
}

/// Files that rows name.
pub(crate) fn lay_out(shared: &Path) {
    let write = |name: &str, text: &str| std::fs::write(shared.join(name), text).expect("a file");
    for dir in ["bind/below", "ours", "theirs"] {
        std::fs::create_dir_all(shared.join(dir)).expect("a directory");
    }
    write("bind/file", "from the host\n");
    write("env", "# a comment\nFROM_FILE=1\nSPACED= a b \n\nABSENT_HERE\n");
    write("labels", "# a comment\nfrom=file\nempty=\nbare\n");
    write("bad-env", "a b=c\n");
    let seccomp = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    });
    write("seccomp.json", &seccomp.to_string());
    write("broken.json", "{");
    write("taken", "an id\n");
}

/// A busybox that tells what it sees, plainly and with everything that an image can say.
fn images() -> [(TestImage, &'static str); 2] {
    let mut layers = TestImage::busybox().layers;
    layers.push(tar(&[
        Entry::File("probe".to_owned(), include_bytes!("probe.sh").to_vec(), 0o755),
        Entry::Directory("data/", 0o750),
        Entry::file("data/inside", "from the image\n"),
    ]));
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let plain = json!({ "Env": [path], "Cmd": ["/probe"] });
    let dressed = json!({
        "Env": [path, "FROM_IMAGE=1"],
        "Entrypoint": ["/probe"],
        "Cmd": ["word"],
        "User": "daemon",
        "WorkingDir": "/var/spool",
        "Volumes": { "/data": {} },
        "ExposedPorts": { "80/tcp": {}, "53/udp": {} },
        "Labels": { "from": "image", "other": "image" },
        "StopSignal": "SIGQUIT",
        "Healthcheck": { "Test": ["CMD", "true"], "Interval": 3_600_000_000_000_i64, "Retries": 4 },
        "Shell": ["/bin/ash", "-c"],
    });
    [
        (TestImage::new(layers.clone(), &plain), "probe"),
        (TestImage::new(layers, &dressed), "dressed"),
    ]
}

impl Side {
    pub(crate) fn theirs(peer: &Peer, netns: &Netns, gateway: &str, shared: &Path) -> Self {
        let names = vec![
            (peer.path("data").display().to_string(), "DATA"),
            (peer.path("run").display().to_string(), "RUN"),
            (peer.path("s").display().to_string(), "SOCKET"),
            (peer.cgroup_parent().to_owned(), "/PARENT"),
        ];
        let place = (peer.client(), peer.path("config"), "theirs");
        Self::new(place, names, netns, gateway, shared)
    }

    pub(crate) fn ours(house: &House, netns: &Netns, shared: &Path) -> Self {
        let names = vec![
            (house.data_root().display().to_string(), "DATA"),
            (house.exec_root().display().to_string(), "RUN"),
            (house.socket().display().to_string(), "SOCKET"),
            (house.cgroup_parent(), "/PARENT"),
        ];
        let place = (house.client_of_api(), house.path("config"), "ours");
        Self::new(place, names, netns, &house.gateway(), shared)
    }

    fn new(
        (client, config, whose): (Client, PathBuf, &str),
        names: Vec<(String, &'static str)>,
        netns: &Netns,
        gateway: &str,
        shared: &Path,
    ) -> Self {
        let subnet = gateway.trim_end_matches('1').to_owned();
        let mut side = Self {
            client,
            config,
            shared: shared.to_owned(),
            own: shared.join(whose),
            names,
            subnets: [subnet, "10.77.0.".to_owned()],
            namespaces: BTreeMap::new(),
            modern: whose == "ours",
        };
        side.names.push((side.own.display().to_string(), "OWN"));
        side.names.push((side.shared.display().to_string(), "DIR"));
        for (image, name) in images() {
            let archive = image.docker_archive(&[&format!("{name}:latest")]);
            let answer =
                side.client.send("POST", "/images/load?quiet=1", "application/x-tar", &archive);
            assert_eq!(answer.expect("an answer").status, 200);
        }
        let ok = |words: &[&str]| {
            succeed(side.docker(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()))
        };
        let network = ok(&[
            "network",
            "create",
            "--subnet",
            "10.77.0.0/24",
            "--ip-range",
            "10.77.0.0/26",
            "net",
        ]);
        ok(&["volume", "create", "--label", "a=b", "vol"]);
        let other = [
            "run",
            "-d",
            "--name",
            "other",
            "--ipc",
            "shareable",
            "-v",
            "/anonymous",
            "-v",
            "vol:/named:ro",
        ];
        let other = ok(&[
            &other[..],
            &["-v", &format!("{}/bind:/bound", shared.display())],
            &["probe", "sleep", "100000"],
        ]
        .concat());
        let bridge = ok(&["network", "inspect", "-f", "{{.Id}}", "bridge"]);
        side.names.push((other[..12].to_owned(), "OTHERSHORT"));
        for (id, stands) in [(network, "NET"), (other, "OTHER"), (bridge, "BRIDGE")] {
            side.names.push((id.trim().to_owned(), stands));
        }
        let pid = side.inspect("other").expect("it runs")["State"]["Pid"].to_string();
        for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            for (process, stands) in [(pid.as_str(), "other's"), ("self", "the host's")] {
                let at =
                    std::fs::read_link(format!("/proc/{process}/ns/{kind}")).expect("it lives");
                side.namespaces.insert(at.display().to_string(), stands);
            }
        }
        let inode = std::os::unix::fs::MetadataExt::ino(
            &std::fs::metadata(netns.path()).expect("it is there"),
        );
        side.namespaces.insert(format!("net:[{inode}]"), "the host's");
        side
    }

    fn docker(&self, words: &[String]) -> Command {
        let mut command = Command::new("docker");
        command
            .env("DOCKER_HOST", format!("unix://{}", self.client.0.display()))
            .env("DOCKER_CONFIG", &self.config)
            .env("DOCKER_API_VERSION", VERSION)
            .env("PRESENT_HERE", "yes")
            .env_remove("DOCKER_CONTEXT")
            .stdin(std::process::Stdio::null());
        for word in words {
            let word = word.replace("DIR", &self.shared.display().to_string());
            command.arg(word.replace("OWN", &self.own.display().to_string()));
        }
        command
    }

    fn inspect(&self, name: &str) -> Option<Value> {
        let path = format!("/v{VERSION}/containers/{name}/json");
        let answer = self.client.ask("GET", &path, None).expect("an answer");
        (answer.status == 200).then(|| answer.json())
    }

    /// Does what a row says, and looks.
    fn observe(&self, number: usize, row: &Row) -> Seen {
        let mut seen = Seen::new();
        if row.alone.is_some() && !self.modern {
            return seen;
        }
        let given = row.options.iter().position(|word| word == "--name");
        let name = match given {
            Some(at) => row.options[at + 1].clone(),
            None => format!("row{number}"),
        };
        let mut words = vec!["run".to_owned()];
        if given.is_none() {
            words.extend(["--name".to_owned(), name.clone()]);
        }
        words.extend(row.update.is_some().then(|| "-d".to_owned()));
        words.extend(row.options.iter().cloned());
        words.extend(row.command.iter().cloned());
        if row.update.is_some() {
            words.extend(["sleep".to_owned(), "1000".to_owned()]);
        }
        let docker = |words: &[String]| {
            let mut command = self.docker(words);
            if row.alone.is_some() {
                command.env_remove("DOCKER_API_VERSION");
            }
            command.output().expect("docker can be executed")
        };
        let mut output = docker(&words);
        if let Some(update) = row.update.as_ref().filter(|_| output.status.success()) {
            if !update.is_empty() {
                let words = ["update".to_owned()].into_iter().chain(update.iter().cloned());
                let updated = docker(&words.chain([name.clone()]).collect::<Vec<_>>());
                note(&mut seen, "update.", &updated);
            }
            output = docker(&["exec".to_owned(), name.clone(), "/probe".to_owned()]);
        } else if row.update.is_none() {
            let _absent = self.client.ask("POST", &format!("/containers/{name}/wait"), None);
        }
        note(&mut seen, "", &output);
        // The other one is there before, and stays as it is.
        if row.options.iter().any(|word| word == "OWN/cid") {
            let cid = std::fs::read_to_string(self.own.join("cid"));
            seen.insert("cidfile".to_owned(), cid.unwrap_or_default());
        }
        let inspected = self.inspect(&name).filter(|_| name != "other");
        let mut names = self.names.clone();
        if let Some(mut inspected) = inspected {
            let id = inspected["Id"].as_str().expect("it has one").to_owned();
            names.push((id[..12].to_owned(), "SHORT"));
            names.push((id, "ID"));
            names.push((name.clone(), "NAME"));
            if let Some(mounts) = inspected["Mounts"].as_array_mut() {
                mounts.sort_by_key(|mount| mount["Destination"].to_string());
            }
            // The client sends them in any order.
            if let Some(env) = inspected["Config"]["Env"].as_array_mut() {
                env.sort_by_key(Value::to_string);
            }
            flatten("inspect", &inspected, &mut seen);
            let _gone = self.client.ask("DELETE", &format!("/containers/{name}?force=1&v=1"), None);
        }
        let names = Names::new(names, &self.subnets);
        let plain = |(path, value): (String, String)| {
            let value = match path.as_str() {
                "inspect.State.Pid" if value != "0" => "PID".to_owned(),
                "probe.process.in" if value.starts_with("pipe:") => "a pipe".to_owned(),
                path if path.starts_with("probe.namespaces.") => {
                    self.namespaces.get(&value).map_or("its own", |known| known).to_owned()
                }
                path if path.ends_with(".HostPort") => normal::port(&value),
                _ => names.plain(&value),
            };
            (names.plain(&path), value)
        };
        let mut seen: Seen = seen.into_iter().map(plain).collect();
        if seen.get("probe.namespaces.net").is_some_and(|whose| whose == "the host's") {
            // What the other rows have there at the moment.
            let of_network = ["probe.addresses.", "probe.links.", "probe.routes."];
            seen.retain(|path, _| !of_network.iter().any(|part| path.starts_with(part)));
        }
        if let (Some((path, value)), true) = (&row.alone, self.modern) {
            let found = seen.get(path).map_or("(absent)", String::as_str);
            let wrong = (found != value).then(|| format!("{path} is {found}; {seen:?}"));
            seen = wrong.map(|wrong| ("alone".to_owned(), wrong)).into_iter().collect();
        }
        seen
    }
}

/// What a client printed: what the probe says, or text.
fn note(seen: &mut Seen, what: &str, output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    seen.insert(format!("{what}code"), output.status.code().unwrap_or(-1).to_string());
    seen.insert(format!("{what}stderr"), text(&output.stderr));
    let mut rest = String::new();
    for line in text(&output.stdout).lines() {
        let said = serde_json::from_str::<Value>(line).ok().and_then(|said| {
            let word = |key: &str| Some(said.get(key)?.as_str()?.to_owned());
            Some((format!("probe.{}.{}", word("part")?, word("key")?), word("value")?))
        });
        match said {
            Some((mut path, value)) => {
                while seen.contains_key(&path) {
                    path += "+";
                }
                seen.insert(path, value);
            }
            None => rest += &format!("{line}\n"),
        }
    }
    seen.insert(format!("{what}stdout"), rest);
}

/// Objects are paths; lists of anything but objects are values.
fn flatten(path: &str, value: &Value, seen: &mut Seen) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                flatten(&format!("{path}.{key}"), value, seen);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for (at, value) in list.iter().enumerate() {
                flatten(&format!("{path}.{at}"), value, seen);
            }
        }
        Value::String(text) => {
            seen.insert(path.to_owned(), text.clone());
        }
        value => {
            seen.insert(path.to_owned(), value.to_string());
        }
    }
}

/// All rows of both sides, some at a time. What both have of a row is told as soon as it is there.
pub(crate) fn observe_all(
    sides: &[Side; 2],
    rows: &[Row],
    mut told: impl FnMut(usize, Seen, Seen),
) {
    let next = [const { AtomicUsize::new(0) }; 2];
    std::thread::scope(|scope| {
        let (seen_by, seen) = std::sync::mpsc::channel();
        for (whose, side) in sides.iter().enumerate() {
            for _ in 0..WORKERS {
                let (seen_by, next) = (seen_by.clone(), &next[whose]);
                scope.spawn(move || {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(row) = rows.get(number) else { return };
                        let _told = seen_by.send((whose, number, side.observe(number, row)));
                    }
                });
            }
        }
        drop(seen_by);
        let mut halves: BTreeMap<usize, (usize, Seen)> = BTreeMap::new();
        for (whose, number, seen) in seen {
            match halves.remove(&number) {
                None => {
                    halves.insert(number, (whose, seen));
                }
                Some((0, theirs)) => told(number, theirs, seen),
                Some((_, ours)) => told(number, seen, ours),
            }
        }
    });
}
