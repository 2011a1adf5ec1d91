//! F4: whichever system call of the daemon fails, and however: what was acknowledged is so, the books are right after the
//! next start, and the same again works.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use testkit::House;
use testkit::client::Client;

use super::Tracer;

/// What the daemon does to disk, kernel and neighbours.
const CALLS: &[&str] = &[
    "pwrite64",
    "fsync,fdatasync,syncfs",
    "renameat,renameat2",
    "mkdir,mkdirat",
    "unlink,unlinkat,rmdir",
    "sendto,sendmsg",
    "openat,openat2",
    "fsopen,fsconfig,fsmount,move_mount,open_tree,mount",
    "write,writev",
];

const FATES: &[&str] = &["signal=KILL", "error=ENOSPC", "error=EIO", "delay_enter=300000"];

/// What somebody does with a daemon: the objects it is about are told apart by `n`.
type Workload = fn(&mut Asker, n: u32);

const WORKLOADS: &[(&str, Workload)] = &[
    ("containers", containers),
    ("images", images),
    ("volumes", volumes),
    ("networks", networks),
    ("commits", commits),
    ("changes", changes),
];

/// A client who remembers what was promised.
struct Asker {
    client: Client,
    /// What is there, or not, by the path that shows it. What nobody answered is not in here.
    promised: BTreeMap<String, bool>,
    refused: Vec<String>,
}

/// What a request means for the thing that it is about.
#[derive(Clone, Copy)]
enum Means {
    Made,
    Gone,
    Same,
}

impl Asker {
    fn new(house: &House) -> Self {
        Self { client: house.client_of_api(), promised: BTreeMap::new(), refused: Vec::new() }
    }

    fn ask(
        &mut self,
        means: Means,
        thing: &str,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Option<Value> {
        if !matches!(means, Means::Same) {
            self.promised.remove(thing);
        }
        let body = (!body.is_null()).then_some(body);
        let answer = match self.client.ask(method, path, body) {
            Ok(answer) if answer.status < 400 => answer,
            Ok(answer) => {
                self.refused.push(format!("{method} {path}: {} {}", answer.status, answer.text()));
                return None;
            }
            Err(error) => {
                self.refused.push(format!("{method} {path}: {error}"));
                return None;
            }
        };
        match means {
            Means::Made => drop(self.promised.insert(thing.to_owned(), true)),
            Means::Gone => drop(self.promised.insert(thing.to_owned(), false)),
            Means::Same => {}
        }
        serde_json::from_slice(&answer.body).ok()
    }

    fn container(&mut self, name: &str, body: &Value) {
        self.ask(
            Means::Made,
            &shows(name),
            "POST",
            &format!("/containers/create?name={name}"),
            body,
        );
    }

    fn of(&mut self, name: &str, verb: &str) {
        self.ask(Means::Same, "", "POST", &format!("/containers/{name}/{verb}"), &Value::Null);
    }

    fn remove(&mut self, name: &str) {
        self.ask(
            Means::Gone,
            &shows(name),
            "DELETE",
            &format!("/containers/{name}?force=1&v=1"),
            &Value::Null,
        );
    }
}

fn shows(name: &str) -> String {
    format!("/containers/{name}/json")
}

fn sleeper() -> Value {
    json!({"Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "none"}})
}

fn containers(client: &mut Asker, n: u32) {
    let (kept, gone) = (format!("kept{n}"), format!("gone{n}"));
    client.container(&kept, &sleeper());
    client.of(&kept, "start");
    let exec = json!({"Cmd": ["true"], "AttachStdout": true});
    let made = client.ask(Means::Same, "", "POST", &format!("/containers/{kept}/exec"), &exec);
    if let Some(id) = made.as_ref().and_then(|made| made["Id"].as_str()) {
        client.ask(Means::Same, "", "POST", &format!("/exec/{id}/start"), &json!({"Detach": true}));
    }
    client.of(&kept, "stop?t=0");
    client.container(&gone, &json!({"Image": "busybox", "Cmd": ["true"]}));
    client.of(&gone, "start");
    client.remove(&gone);
}

fn images(client: &mut Asker, n: u32) {
    let (name, shown) = (format!("more{n}:latest"), format!("/images/more{n}/json"));
    let archive = testkit::TestImage::small(&name).docker_archive(&[&name]);
    client.promised.remove(&shown);
    let loaded = client.client.send("POST", "/images/load?quiet=1", "application/x-tar", &archive);
    match loaded {
        Ok(answer) if answer.status == 200 && !answer.text().contains("error") => {
            client.promised.insert(shown.clone(), true);
        }
        other => client.refused.push(format!("load: {other:?}")),
    }
    let other = format!("/images/other{n}/json");
    client.ask(
        Means::Made,
        &other,
        "POST",
        &format!("/images/more{n}/tag?repo=other{n}&tag=latest"),
        &Value::Null,
    );
    client.ask(Means::Gone, &other, "DELETE", &format!("/images/other{n}"), &Value::Null);
}

fn volumes(client: &mut Asker, n: u32) {
    let (kept, gone) = (format!("kept{n}"), format!("gone{n}"));
    for name in [&kept, &gone] {
        client.ask(
            Means::Made,
            &format!("/volumes/{name}"),
            "POST",
            "/volumes/create",
            &json!({"Name": name}),
        );
    }
    let host = json!({"NetworkMode": "none", "Binds": [format!("{kept}:/bin")]});
    client.container(&kept, &json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": host, "Volumes": {"/a": {}, "/b": {}}}));
    client.of(&kept, "start");
    client.remove(&kept);
    client.ask(
        Means::Gone,
        &format!("/volumes/{gone}"),
        "DELETE",
        &format!("/volumes/{gone}"),
        &Value::Null,
    );
}

fn networks(client: &mut Asker, n: u32) {
    let (kept, gone) = (format!("kept{n}"), format!("gone{n}"));
    for name in [&kept, &gone] {
        client.ask(
            Means::Made,
            &format!("/networks/{name}"),
            "POST",
            "/networks/create",
            &json!({"Name": name}),
        );
    }
    let host = json!({"NetworkMode": kept, "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}});
    client.container(
        &kept,
        &json!({"Image": "busybox", "Cmd": ["sleep", "600"], "ExposedPorts": {"80/tcp": {}}, "HostConfig": host}),
    );
    client.of(&kept, "start");
    for verb in ["connect", "disconnect"] {
        client.ask(
            Means::Same,
            "",
            "POST",
            &format!("/networks/{gone}/{verb}"),
            &json!({"Container": kept}),
        );
    }
    client.ask(
        Means::Gone,
        &format!("/networks/{gone}"),
        "DELETE",
        &format!("/networks/{gone}"),
        &Value::Null,
    );
    client.remove(&kept);
}

fn commits(client: &mut Asker, n: u32) {
    let name = format!("kept{n}");
    client.container(&name, &sleeper());
    client.of(&name, "start");
    let file = testkit::images::tar(&[testkit::images::Entry::file("file", "content")]);
    let copied = client.client.send(
        "PUT",
        &format!("/containers/{name}/archive?path=/tmp"),
        "application/x-tar",
        &file,
    );
    if !copied.as_ref().is_ok_and(|answer| answer.status == 200) {
        client.refused.push(format!("cp: {copied:?}"));
    }
    let (shown, path) =
        (format!("/images/made{n}/json"), format!("/commit?container={name}&repo=made{n}"));
    client.ask(Means::Made, &shown, "POST", &path, &json!({}));
    client.remove(&name);
}

fn changes(client: &mut Asker, n: u32) {
    let (old, new) = (format!("old{n}"), format!("new{n}"));
    client.container(&old, &sleeper());
    client.of(&old, "start");
    client.of(&old, "pause");
    client.of(&old, "unpause");
    client.ask(
        Means::Same,
        "",
        "POST",
        &format!("/containers/{old}/update"),
        &json!({"Memory": 64 << 20, "MemorySwap": -1}),
    );
    client.promised.remove(&shows(&old));
    client.ask(
        Means::Made,
        &shows(&new),
        "POST",
        &format!("/containers/{old}/rename?name={new}"),
        &Value::Null,
    );
    client.of(&new, "restart?t=0");
    client.of(&new, "kill");
}

/// One point of the product. Says what was refused.
fn round(house: &mut House, n: u32, (name, workload): (&str, Workload), inject: &str) {
    let at = format!("{name} with {inject}");
    let mut client = Asker::new(house);
    let tracer = Tracer::attach(house, inject);
    workload(&mut client, n);
    drop(tracer);
    if house.lives() {
        house.kill();
    }
    house.start();
    for (path, there) in &client.promised {
        let status = house.api("GET", path, None).status;
        assert_eq!(
            status == 200,
            *there,
            "{at}: {path} is {status}; refused: {:#?}",
            client.refused
        );
    }
    house.check();
    let mut again = Asker::new(house);
    workload(&mut again, n + 1);
    assert!(again.refused.is_empty(), "after {at}: {:#?}", again.refused);
    let prune = |path: &str| house.api("POST", path, None).status;
    let list = house.api("GET", "/containers/json?all=1", None).json();
    for container in list.as_array().into_iter().flatten() {
        let id = container["Id"].as_str().unwrap_or_default();
        let removed = house.api("DELETE", &format!("/containers/{id}?force=1&v=1"), None);
        assert_eq!(removed.status, 204, "after {at}: {}", removed.text());
    }
    assert_eq!((prune("/networks/prune"), prune("/volumes/prune")), (200, 200), "after {at}");
    house.check();
}

fn product() -> impl Iterator<Item = ((&'static str, Workload), String)> {
    const WHENS: [&str; 4] = ["1", "2", "4", "8+5"];
    let points = CALLS.iter().flat_map(|calls| {
        FATES.iter().flat_map(move |fate| WHENS.map(|when| format!("{calls}:{fate}:when={when}")))
    });
    points.flat_map(|point| WORKLOADS.iter().map(move |workload| (*workload, point.clone())))
}

#[test]
fn f4_some_calls_fail() {
    let mut house = crate::containers::house();
    // Some of everything, and not all of it with each other.
    let step = 61;
    for (n, (workload, point)) in product().step_by(step).enumerate() {
        println!("{} with {point}", workload.0);
        round(&mut house, 2 * n as u32, workload, &point);
    }
}

/// All of it: `cargo nextest run -p e2e --run-ignored all --no-capture f4_any_call_fails` takes half an hour or more. `PART=2/8`
/// does the second eighth of it.
#[test]
#[ignore = "half an hour"]
fn f4_any_call_fails() {
    #[allow(clippy::disallowed_methods, reason = "tests are told by their environment what to do")]
    let part = std::env::var("PART").unwrap_or_else(|_| "1/1".to_owned());
    let (part, of) = part.split_once('/').expect("a part of the whole");
    let (part, of): (usize, usize) =
        (part.parse().expect("a number"), of.parse().expect("a number"));
    let mut house = crate::containers::house();
    for (n, (workload, point)) in product().enumerate().skip(part - 1).step_by(of) {
        println!("{} with {point}", workload.0);
        round(&mut house, 2 * n as u32, workload, &point);
    }
}
