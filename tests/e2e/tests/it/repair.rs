//! `system check --repair` while others work: what is being made belongs to somebody.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::containers::house;
use crate::load::ask;

const CONTAINERS: usize = 20;

#[test]
fn what_is_being_made_is_not_taken_for_a_stray() {
    let house = house();
    let client = house.client_of_api();
    let name = |at: usize| format!("ca{at}");
    // Two volumes without a name, of which one is filled: it takes a moment until the record says whose they are.
    let body = json!({
        "Image": "busybox", "Cmd": ["true"], "Volumes": {"/bin": {}, "/empty": {}},
        "HostConfig": {"NetworkMode": "none"},
    });
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for at in 0..CONTAINERS {
                let path = format!("/containers/create?name={}", name(at));
                ask(&client, "POST", &path, &body);
            }
            over.store(true, Ordering::SeqCst);
        });
        for at in 0.. {
            // Something to repair, each time.
            let stray = house.exec_root().join("containers").join(format!("{at:064x}"));
            fs::create_dir(&stray).expect("a stray");
            house.api("POST", "/gantry/system/check?repair=1", None);
            assert!(!stray.exists());
            if over.load(Ordering::SeqCst) {
                break;
            }
        }
    });
    for at in 0..CONTAINERS {
        let seen = ask(&client, "GET", &format!("/containers/{}/json", name(at)), &Value::Null);
        let mounts = seen["Mounts"].as_array().expect("a list");
        assert_eq!(mounts.len(), 2);
        for mount in mounts {
            let source = Path::new(mount["Source"].as_str().expect("a path"));
            let files = fs::read_dir(source).map(Iterator::count);
            let filled = mount["Destination"] == "/bin";
            assert!(files.is_ok_and(|count| (count > 0) == filled), "{mount}");
        }
        ask(&client, "DELETE", &format!("/containers/{}?v=1", name(at)), &Value::Null);
    }
    house.check();
}
