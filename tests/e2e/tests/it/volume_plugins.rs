//! Volumes that a plugin has, under the real docker command.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use serde_json::{Value, json};
use testkit::house::shown;
use testkit::{House, Plugin, Reply};

use crate::containers::house_with;
use crate::faults::until;

/// A plugin that keeps volumes in directories and counts who mounts them.
#[derive(Default)]
struct Shelf {
    volumes: BTreeMap<String, (Value, BTreeSet<String>)>,
}

struct Lab {
    house: House,
    plugin: Plugin,
    shelf: Arc<Mutex<Shelf>>,
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (shelf, plugin) = start(dir.path());
        let house = house_with(&["--plugin-directory", text(&dir.path().join("plugins"))]);
        Self { house, plugin, shelf, dir }
    }

    fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn users(&self, name: &str) -> BTreeSet<String> {
        let shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.volumes.get(name).map(|(_, users)| users.clone()).unwrap_or_default()
    }

    fn refused(&self, args: &[&str]) -> String {
        let output = self.house.docker(args).output().expect("docker");
        assert!(!output.status.success(), "{args:?}: {}", shown(&output));
        shown(&output)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn start(dir: &Path) -> (Arc<Mutex<Shelf>>, Plugin) {
    let shelf = Arc::new(Mutex::new(Shelf::default()));
    let (root, kept) = (dir.to_owned(), Arc::clone(&shelf));
    let plugin = Plugin::start(&dir.join("plugins"), "shelf", move |method, question| {
        let mut shelf = kept.lock().unwrap_or_else(PoisonError::into_inner);
        Reply::Json(answer(&mut shelf, &root, method, question))
    });
    (shelf, plugin)
}

fn answer(shelf: &mut Shelf, root: &Path, method: &str, question: &Value) -> Value {
    let name = question["Name"].as_str().unwrap_or_default();
    let id = question["ID"].as_str().unwrap_or_default();
    let place = |name: &str| root.join(name);
    let told = |name: &str| {
        json!({"Name": name, "Mountpoint": place(name), "Status": {"shelf": "top", "full": false},
               "CreatedAt": "2020-01-02T03:04:05Z"})
    };
    match method {
        "Plugin.Activate" => return json!({"Implements": ["VolumeDriver"]}),
        "VolumeDriver.Capabilities" => return json!({"Capabilities": {"Scope": "Global"}}),
        "VolumeDriver.List" => {
            let volumes: Vec<Value> = shelf.volumes.keys().map(|name| told(name)).collect();
            return json!({ "Volumes": volumes });
        }
        "VolumeDriver.Create" if question["Opts"]["size"] == "huge" => {
            return json!({"Err": "no space on the shelf"});
        }
        "VolumeDriver.Create" => {
            std::fs::create_dir_all(place(name)).expect("a directory");
            let opts = question["Opts"].clone();
            shelf.volumes.insert(name.to_owned(), (opts, BTreeSet::new()));
            return json!({});
        }
        _ => {}
    }
    let Some((_, users)) = shelf.volumes.get_mut(name) else {
        return json!({"Err": "no such volume"});
    };
    match method {
        "VolumeDriver.Get" => json!({ "Volume": told(name) }),
        "VolumeDriver.Mount" if name == "vbad" => json!({"Err": "will not mount"}),
        "VolumeDriver.Path" => json!({ "Mountpoint": place(name) }),
        "VolumeDriver.Mount" if !users.insert(id.to_owned()) => json!({"Err": "counted already"}),
        "VolumeDriver.Mount" => json!({ "Mountpoint": place(name) }),
        "VolumeDriver.Unmount" if !users.remove(id) => json!({"Err": "not counted"}),
        "VolumeDriver.Unmount" => json!({}),
        "VolumeDriver.Remove" if !users.is_empty() => json!({"Err": "still mounted"}),
        "VolumeDriver.Remove" => {
            shelf.volumes.remove(name);
            json!({})
        }
        other => json!({ "Err": format!("what is {other}?") }),
    }
}

#[test]
fn made_listed_inspected_removed() {
    let lab = Lab::new();
    let house = &lab.house;
    let create =
        ["volume", "create", "-d", "shelf", "-o", "size=1", "-o", "x=y", "--label", "l=1", "va"];
    assert_eq!(house.ok(&create), "va\n");
    assert_eq!(house.ok(&create), "va\n");
    assert_eq!(
        lab.plugin.asked("VolumeDriver.Create"),
        [json!({"Name": "va", "Opts": {"size": "1", "x": "y"}})]
    );
    house.ok(&["volume", "create", "vb"]);
    let list = house.ok(&["volume", "ls", "--format", "{{.Driver}} {{.Name}} {{.Scope}}"]);
    assert_eq!(list, "shelf va global\nlocal vb local\n");
    assert_eq!(house.ok(&["volume", "ls", "-q", "-f", "driver=shelf"]), "va\n");
    let inspected: Value =
        serde_json::from_str(&house.ok(&["volume", "inspect", "va"])).expect("JSON");
    assert_eq!(
        inspected[0],
        json!({
            "CreatedAt": "2020-01-02T03:04:05Z", "Driver": "shelf", "Labels": {"l": "1"},
            "Mountpoint": lab.data("va"), "Name": "va", "Options": {"size": "1", "x": "y"},
            "Scope": "global", "Status": {"full": false, "shelf": "top"},
        })
    );
    let drivers = house.ok(&["info", "-f", "{{json .Plugins.Volume}}"]);
    assert_eq!(drivers.trim(), r#"["local","shelf"]"#);
    // Somebody has made one behind our back: whoever names it gets it.
    let behind = json!({"Name": "vc", "Opts": {}});
    answer(&mut lab.shelf.lock().expect("a shelf"), lab.dir.path(), "VolumeDriver.Create", &behind);
    assert_eq!(house.ok(&["volume", "inspect", "-f", "{{.Driver}}", "vc"]), "shelf\n");
    // Pruning is for our own.
    house.ok(&["volume", "prune", "-af"]);
    assert_eq!(house.ok(&["volume", "ls", "-q"]), "va\nvc\n");
    house.ok(&["volume", "rm", "va", "vc"]);
    assert_eq!(house.ok(&["volume", "ls", "-q"]), "");
    assert!(lab.shelf.lock().expect("a shelf").volumes.is_empty());
}

#[test]
fn refusals_in_dockers_words() {
    let lab = Lab::new();
    let house = &lab.house;
    let says = |args: &[&str], words: &str| {
        let said = lab.refused(args);
        let said = said.trim().trim_start_matches("[]\n");
        assert_eq!(said, format!("Error response from daemon: {words}"), "{args:?}");
    };
    says(
        &["volume", "create", "-d", "nobody", "va"],
        "create va: error looking up volume plugin nobody: plugin \"nobody\" not found",
    );
    says(
        &["volume", "create", "-d", "shelf", "-o", "size=huge", "va"],
        "create va: no space on the shelf",
    );
    house.ok(&["volume", "create", "va"]);
    house.ok(&["volume", "create", "-d", "shelf", "vb"]);
    says(
        &["volume", "create", "-d", "shelf", "va"],
        "create va: driver 'local' already has volume 'va': volume name must be unique",
    );
    says(
        &["volume", "create", "-d", "local", "vb"],
        "create vb: driver 'shelf' already has volume 'vb': volume name must be unique",
    );
    says(&["volume", "inspect", "vx"], "get vx: no such volume");
    house.ok(&["volume", "create", "-d", "shelf", "vbad"]);
    let run = ["run", "--rm", "--network", "none", "-v", "vbad:/nothing", "busybox", "true"];
    let said = lab.refused(&run);
    let words =
        "docker: Error response from daemon: error while mounting volume '': will not mount";
    assert_eq!(said.lines().next(), Some(words));
    assert_eq!(lab.plugin.asked("VolumeDriver.Unmount").len(), 0);
    let id = house.ok(&["create", "-v", "vb:/b", "busybox"]);
    says(&["volume", "rm", "vb"], &format!("remove vb: volume is in use - [{}]", id.trim()));
    house.ok(&["rm", id.trim()]);
    // One that has lost its volume has none.
    lab.shelf.lock().expect("a shelf").volumes.clear();
    says(&["volume", "rm", "vb"], "get vb: no such volume");
    house.ok(&["volume", "create", "-d", "local", "vb"]);
}

#[test]
fn mounted_once_for_each_container() {
    let lab = Lab::new();
    let house = &lab.house;
    let run = |name: &str, script: &str| {
        let id = house.ok(&[
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "none",
            "-v",
            "va:/one",
            "-v",
            "va:/two:ro",
            "--volume-driver",
            "shelf",
            "busybox",
            "sh",
            "-c",
            script,
        ]);
        id.trim().to_owned()
    };
    let stay = "echo $HOSTNAME >> /one/names; touch /two/x || sleep 1000";
    let written = |lines: usize| {
        let names = lab.data("va").join("names");
        let names = || std::fs::read_to_string(&names).unwrap_or_default();
        until("all have written", || names().lines().count() == lines);
    };
    let (ca, cb) = (run("ca", stay), run("cb", stay));
    written(2);
    assert_eq!(lab.users("va"), BTreeSet::from([ca.clone(), cb.clone()]));
    assert_eq!(lab.plugin.asked("VolumeDriver.Mount").len(), 2);
    // The docker command says its volumes in any order.
    let at_one = "{{range .Mounts}}{{if eq .Destination \"/one\"}}{{json .}}{{end}}{{end}}";
    let point = house.ok(&["inspect", "-f", at_one, "ca"]);
    let point: Value = serde_json::from_str(&point).expect("JSON");
    assert_eq!((&point["Driver"], &point["Source"]), (&json!("shelf"), &json!(lab.data("va"))));
    assert_eq!(point["Mode"], json!(""));
    house.ok(&["stop", "-t", "0", "ca"]);
    assert_eq!(lab.users("va"), BTreeSet::from([cb.clone()]));
    house.ok(&["start", "ca"]);
    written(3);
    house.ok(&["rm", "-f", "ca", "cb"]);
    assert_eq!(lab.users("va"), BTreeSet::new());
    assert_eq!(lab.plugin.asked("VolumeDriver.Unmount").len(), 3);
    house.ok(&["volume", "rm", "va"]);
}

/// Waits until nobody has the volume mounted.
fn comes_free(lab: &Lab, name: &str) {
    until("it is given back", || lab.users(name).is_empty());
}

#[test]
fn mounted_for_who_looks_into_a_container_at_rest() {
    let lab = Lab::new();
    let house = &lab.house;
    let volume = ["-v", "va:/one", "--volume-driver", "shelf"];
    let create = ["create", "--name", "ca", "--network", "none"];
    let words = [&create[..], &volume, &["busybox", "sleep", "1000"]].concat();
    let id = house.ok(&words).trim().to_owned();
    std::fs::write(lab.data("va").join("x"), "of the shelf").expect("a file");
    let out = lab.dir.path().join("out");
    for _ in 0..2 {
        house.ok(&["cp", "ca:/one/x", text(&out)]);
        assert_eq!(std::fs::read_to_string(&out).expect("it is here"), "of the shelf");
        comes_free(&lab, "va");
    }
    house.ok(&["cp", text(&out), "ca:/one/y"]);
    comes_free(&lab, "va");
    assert!(lab.data("va").join("y").exists());
    // What is not there is looked for in the volume, too.
    lab.refused(&["cp", "ca:/one/none", "-"]);
    comes_free(&lab, "va");
    // Who runs keeps it, whoever looks.
    house.ok(&["start", "ca"]);
    house.ok(&["cp", "ca:/one/x", text(&out)]);
    assert_eq!(lab.users("va"), BTreeSet::from([id]));
    house.ok(&["rm", "-f", "ca"]);
    assert_eq!(lab.users("va"), BTreeSet::new());
    house.ok(&["volume", "rm", "va"]);
}

#[test]
fn filled_by_the_first_and_removed_with_its_container() {
    let lab = Lab::new();
    let house = &lab.house;
    let mount = "type=volume,dst=/bin,volume-driver=shelf,volume-opt=a=b,volume-label=l=1";
    let made = house.ok(&["create", "--mount", mount, "busybox", "true"]);
    let name = house.ok(&["inspect", "-f", "{{(index .Mounts 0).Name}}", made.trim()]);
    assert!(lab.data(name.trim()).join("busybox").exists());
    assert_eq!(lab.users(name.trim()), BTreeSet::new());
    let options = house.ok(&["volume", "inspect", "-f", "{{.Options}} {{.Labels}}", name.trim()]);
    assert_eq!(options, "map[a:b] map[l:1]\n");
    house.ok(&["rm", "-v", made.trim()]);
    assert_eq!(house.ok(&["volume", "ls", "-q"]), "");
    // A container that cannot be made leaves nothing of the kind, either.
    let other = "type=bind,src=/does/not/exist,dst=/x";
    lab.refused(&["create", "--mount", mount, "--mount", other, "busybox"]);
    assert!(lab.shelf.lock().expect("a shelf").volumes.is_empty());
}

#[test]
fn counted_again_after_a_crash() {
    let mut lab = Lab::new();
    let run = |house: &House, name: &str| {
        house.ok(&[
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "none",
            "-v",
            "va:/d",
            "--volume-driver",
            "shelf",
            "busybox",
            "sleep",
            "1000",
        ])
    };
    let ca = run(&lab.house, "ca").trim().to_owned();
    let cb = run(&lab.house, "cb").trim().to_owned();
    let pid = lab.house.ok(&["inspect", "-f", "{{.State.Pid}}", "cb"]);
    lab.house.kill();
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().expect("a number"));
    let process =
        rustix::process::pidfd_open(pid.expect("it ran"), rustix::process::PidfdFlags::empty());
    let process = process.expect("it lives");
    rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL).expect("it lives");
    lab.house.start();
    lab.house.ok(&["wait", "cb"]);
    // The plugin is told beside everything else: the volume can only be removed when it has been.
    let told = || lab.plugin.asked("VolumeDriver.Unmount");
    let begun = std::time::Instant::now();
    while told().is_empty() && begun.elapsed() < testkit::house::PATIENCE {
        lab.house.ok(&["volume", "ls"]);
    }
    assert_eq!(told(), [json!({"Name": "va", "ID": cb})]);
    assert_eq!(lab.users("va"), BTreeSet::from([ca.clone()]));
    assert_eq!(lab.plugin.asked("VolumeDriver.Mount").len(), 2);
    lab.house.ok(&["rm", "-f", "ca", "cb"]);
    assert_eq!(lab.users("va"), BTreeSet::new());
    lab.house.ok(&["volume", "rm", "va"]);
}

#[test]
fn a_plugin_that_is_gone() {
    let lab = Lab::new();
    let Lab { house, plugin, dir, .. } = &lab;
    house.ok(&["volume", "create", "-d", "shelf", "va"]);
    house.ok(&["create", "--name", "ca", "-v", "va:/d", "busybox"]);
    std::fs::remove_file(dir.path().join("plugins/shelf.sock")).expect("a socket");
    let words = "error while checking if volume \"va\" exists in driver \"shelf\": error looking up volume plugin \
                 shelf: plugin \"shelf\" not found";
    assert!(lab.refused(&["volume", "inspect", "va"]).contains(words));
    assert!(lab.refused(&["volume", "rm", "va"]).contains(words));
    assert_eq!(plugin.asked("VolumeDriver.Remove"), [json!(null); 0]);
    // A container that needs it can still be removed, and then the name can be had again.
    house.ok(&["rm", "ca"]);
    lab.refused(&["volume", "rm", "-f", "va"]);
    house.ok(&["volume", "create", "-d", "local", "va"]);
}

#[test]
fn a_slow_plugin_keeps_nobody_else_waiting() {
    let dir = tempfile::tempdir().expect("a directory");
    let door = Arc::new((Mutex::new(false), Condvar::new()));
    let behind = Arc::clone(&door);
    let begun = Arc::new((Mutex::new(false), Condvar::new()));
    let begins = Arc::clone(&begun);
    let _slow = Plugin::start(dir.path(), "slow", move |method, _| match method {
        "Plugin.Activate" => Reply::Json(json!({"Implements": ["VolumeDriver"]})),
        "VolumeDriver.Create" => {
            open(&begins);
            wait(&behind);
            Reply::Json(json!({"Err": "after all that time"}))
        }
        "VolumeDriver.List" => Reply::Json(json!({"Volumes": []})),
        _ => Reply::Json(json!({"Err": "no"})),
    });
    let house = house_with(&["--plugin-directory", text(dir.path())]);
    let arguments = ["create", "-v", "va:/d", "--volume-driver", "slow", "busybox"];
    let mut waiting = house.docker(&arguments);
    let waiting = std::thread::spawn(move || waiting.output().expect("docker"));
    wait(&begun);
    // All that begins or ends with what nobody uses.
    house.ok(&["run", "--rm", "--network", "none", "-v", "/anonymous", "busybox", "true"]);
    house.ok(&["volume", "create", "vb"]);
    house.ok(&["volume", "rm", "vb"]);
    house.ok(&["volume", "prune", "-f"]);
    house.check();
    open(&door);
    assert!(shown(&waiting.join().expect("docker")).contains("create va: after all that time"));
}

fn open(door: &(Mutex<bool>, Condvar)) {
    *door.0.lock().expect("a door") = true;
    door.1.notify_all();
}

fn wait(door: &(Mutex<bool>, Condvar)) {
    let patience = testkit::house::PATIENCE;
    let held = door.0.lock().expect("a door");
    let (_held, late) = door.1.wait_timeout_while(held, patience, |open| !*open).expect("a door");
    assert!(!late.timed_out(), "nobody opened");
}
