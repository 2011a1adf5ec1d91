//! Plugins under a scripted one, well-behaved and otherwise.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use plugin::{Failure, Patience, Places, Plugins};
use serde_json::{Value, json};
use stdx::{Error, Kind};
use testkit::{Plugin, Reply};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Answers an activation, and everything else with `rest`.
fn activated(rest: impl Fn() -> Reply) -> impl Fn(&str, &Value) -> Reply {
    move |method, _| match method {
        "Plugin.Activate" => Reply::Json(json!({"Implements": ["VolumeDriver"]})),
        _ => rest(),
    }
}

fn failure(rest: impl Fn() -> Reply + Send + Sync + 'static, timeout: Duration) -> Failure {
    let dir = tempfile::tempdir().expect("a directory");
    let _plugin = Plugin::start(dir.path(), "bad", activated(rest));
    let plugins = Plugins::new(Places::only(&[dir.path().to_owned()]));
    let plugin = plugins.get("bad", "VolumeDriver", Patience::None).expect("it is there");
    plugin
        .call::<Value>("VolumeDriver.List", &json!({}), timeout, Patience::None)
        .expect_err("it is bad")
}

fn sentence(rest: impl Fn() -> Reply + Send + Sync + 'static) -> String {
    Error::from(failure(rest, TIMEOUT)).chain()
}

#[test]
fn activated_once_and_asked() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = Plugin::start(dir.path(), "good", activated(|| Reply::Json(json!({"x": 1}))));
    let plugins = Plugins::new(Places::only(&[dir.path().to_owned()]));
    for _ in 0..2 {
        let found = plugins.get("good", "VolumeDriver", Patience::None).unwrap();
        let answer: Value =
            found.call("VolumeDriver.Get", &json!({"Name": "a"}), TIMEOUT, Patience::None).unwrap();
        assert_eq!(answer, json!({"x": 1}));
    }
    let get = ("VolumeDriver.Get".to_owned(), json!({"Name": "a"}));
    let activate = ("Plugin.Activate".to_owned(), Value::Null);
    assert_eq!(plugin.calls(), [activate, get.clone(), get]);
    drop(plugin);
    let error = plugins.get("good", "VolumeDriver", Patience::None).err().unwrap();
    assert_eq!(
        (error.kind(), error.chain().as_str()),
        (Kind::NotFound, "plugin \"good\" not found")
    );
}

#[test]
fn only_who_is_what_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let _volumes = Plugin::start(dir.path(), "volumes", activated(|| Reply::Silence));
    let _dead = Plugin::start(dir.path(), "dead", |_, _| Reply::Raw(Vec::new()));
    let _odd = Plugin::start(dir.path(), "odd", |_, _| Reply::Json(json!({"Implements": null})));
    // Somebody listened here once.
    drop(UnixListener::bind(dir.path().join("stale.sock")).unwrap());
    let plugins = Plugins::new(Places::only(&[dir.path().to_owned()]));
    let names = |interface: &str| -> Vec<String> {
        plugins.all(interface).iter().map(|plugin| plugin.name().to_owned()).collect()
    };
    assert_eq!(names("VolumeDriver"), ["volumes"]);
    assert_eq!(names("NetworkDriver"), [""; 0]);
    let error = |name| plugins.get(name, "NetworkDriver", Patience::None).err().unwrap().chain();
    assert_eq!(
        error("volumes"),
        "legacy plugin: Plugin does not implement the requested driver: plugin=\"volumes\", requested \
         implementation=\"NetworkDriver\""
    );
    let stale = dir.path().join("stale.sock");
    assert_eq!(
        error("stale"),
        format!(
            "legacy plugin: Post \"http://plugin.moby.localhost/Plugin.Activate\": dial unix {}: connect: connection \
             refused",
            stale.display()
        )
    );
}

#[test]
fn refusals_keep_their_words() {
    let said = failure(|| Reply::Refuse(404, json!({"Err": "no such thing"})), TIMEOUT);
    assert!(matches!(said, Failure::Refused(404, _)));
    assert_eq!(Error::from(said).chain(), "VolumeDriver.List: no such thing");
}

#[test]
fn strangers_are_bounded() {
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n").into_bytes();
    assert!(sentence(|| Reply::Raw(Vec::new())).ends_with("VolumeDriver.List\": EOF"));
    assert!(sentence(|| Reply::Raw(b"SSH-2.0-x\r\n".to_vec())).contains("malformed HTTP response"));
    let halfway = move || Reply::Raw([&head("Content-Length: 10")[..], b"{"].concat());
    assert!(sentence(halfway).ends_with("unexpected EOF"));
    let huge = move || Reply::Raw([&head("X: y")[..], &vec![b' '; 9 << 20]].concat());
    assert!(sentence(huge).contains("is larger than"));
    let garbage = move || Reply::Raw([&head("X: y")[..], b"<html>"].concat());
    assert!(sentence(garbage).contains("cannot understand the plugin's answer"));
    let deep = move || Reply::Raw([&head("X: y")[..], &vec![b'['; 1 << 20]].concat());
    assert!(sentence(deep).contains("cannot understand the plugin's answer"));
}

#[test]
fn silence_ends() {
    let short = Duration::from_millis(50);
    let error = Error::from(failure(|| Reply::Silence, short)).chain();
    assert!(error.ends_with("VolumeDriver.List\": context deadline exceeded"), "{error}");
}

/// One that takes connections off nobody's hands: the kernel's queue is full before we come.
#[test]
fn one_that_does_not_accept_is_not_waited_for() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
    let dir = tempfile::tempdir().unwrap();
    let _plugin = Plugin::start(dir.path(), "deaf", activated(|| Reply::Silence));
    let plugins = Plugins::new(Places::only(&[dir.path().to_owned()]));
    let plugin = plugins.get("deaf", "VolumeDriver", Patience::None).unwrap();
    let path = dir.path().join("deaf.sock");
    std::fs::remove_file(&path).unwrap();
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    let address = SocketAddrUnix::new(&path).unwrap();
    rustix::net::bind(&socket, &address).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let short = Duration::from_millis(50);
    let failed = plugin.call::<Value>("VolumeDriver.List", &json!({}), short, Patience::None);
    let error = Error::from(failed.unwrap_err()).chain();
    assert!(error.ends_with("connect: context deadline exceeded"), "{error}");
}

/// A plugin that is starting: its socket is there and refuses until it listens.
#[test]
fn patience_is_rewarded() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places::only(&[dir.path().to_owned()]);
    let directory = dir.path().to_owned();
    let asked = std::thread::spawn(move || {
        Plugins::new(places).get("late", "VolumeDriver", Patience::Long).map(drop)
    });
    let _late = Plugin::start(&directory, "late", activated(|| Reply::Silence));
    asked.join().unwrap().unwrap();
}
