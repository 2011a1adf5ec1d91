//! A5: many clients do everything to one name at the same time; what each was told must be a story that can be told.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{park_timeout, scope};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Dice, bystander, unharmed};
use crate::containers::house;

/// What somebody was told, between which moments.
#[derive(Clone, Debug)]
struct Told {
    from: u64,
    to: u64,
    what: What,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    /// The name is now this container's.
    Created(String),
    /// This container is gone.
    Removed,
}

/// Creations of one name: between two of them that do not overlap, a removal must fit.
fn possible(mut told: Vec<Told>) {
    told.sort_by_key(|told| told.to);
    let created: Vec<&Told> = told.iter().filter(|told| told.what != What::Removed).collect();
    for pair in created.windows(2) {
        let [first, second] = pair else { unreachable!("windows of two") };
        let between = told.iter().any(|told| {
            told.what == What::Removed && told.to >= first.from && told.from <= second.to
        });
        assert!(between, "the name was given twice: {first:?}, {second:?}");
    }
    let removed = told.iter().filter(|told| told.what == What::Removed).count();
    assert!(
        created.len() == removed || created.len() == removed + 1,
        "{} creations, {removed} removals",
        created.len()
    );
}

#[test]
fn a5_one_name_for_everybody() {
    let house = house();
    bystander(&house);
    let (pid, clock, stop) = (house.pid(), AtomicU64::new(0), AtomicBool::new(false));
    let told = Mutex::new(Vec::new());
    let tick = || clock.fetch_add(1, Ordering::SeqCst);
    let seed = Dice::new().0;
    scope(|scope| {
        for worker in 0..24_u64 {
            let (house, told, stop, tick) = (&house, &told, &stop, &tick);
            scope.spawn(move || {
                let mut dice = Dice(seed ^ (worker + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let client = house.client_of_api();
                while !stop.load(Ordering::Relaxed) {
                    let from = tick();
                    let ask = |method: &str, path: &str, body: Option<&Value>| {
                        let answer = client.ask(method, path, body).expect("an answer");
                        let words = answer.text();
                        assert!(answer.status < 500, "{method} {path}: {} {words}", answer.status);
                        answer
                    };
                    match dice.below(9) {
                        0 | 1 => {
                            let long = dice.of(&["0", "600"]);
                            let body = json!({
                                "Image": "busybox", "Cmd": ["sleep", long],
                                "HostConfig": {"NetworkMode": "none"},
                            });
                            let made = ask("POST", "/containers/create?name=one", Some(&body));
                            if made.status == 201 {
                                let id = made.json()["Id"].as_str().expect("an id").to_owned();
                                let what = What::Created(id);
                                told.lock().expect("a lock").push(Told { from, to: tick(), what });
                            } else {
                                assert_eq!(made.status, 409, "{}", made.text());
                            }
                        }
                        2 => {
                            let gone = ask("DELETE", "/containers/one?force=1", None);
                            if gone.status == 204 {
                                let what = What::Removed;
                                told.lock().expect("a lock").push(Told { from, to: tick(), what });
                            }
                        }
                        3 => drop(ask("POST", "/containers/one/start", None)),
                        4 => drop(ask("POST", "/containers/one/stop?t=0", None)),
                        5 => drop(ask("POST", "/containers/one/restart?t=0", None)),
                        6 => drop(ask("POST", "/containers/one/kill", None)),
                        7 => drop(ask(
                            "POST",
                            ["/containers/one/pause", "/containers/one/unpause"][dice.below(2)],
                            None,
                        )),
                        _ => {
                            let body = json!({"Cmd": ["true"], "AttachStdout": true});
                            let made = ask("POST", "/containers/one/exec", Some(&body));
                            if made.status == 201 {
                                let id = made.json()["Id"].as_str().expect("an id").to_owned();
                                drop(client.ask(
                                    "POST",
                                    &format!("/exec/{id}/start"),
                                    Some(&json!({})),
                                ));
                            }
                        }
                    }
                }
            });
        }
        park_timeout(Duration::from_secs(6));
        stop.store(true, Ordering::Relaxed);
    });
    let told = told.into_inner().expect("a lock");
    assert!(told.len() > 10, "something happened: {told:?}");
    possible(told);
    // No state is final but removal.
    let left = house.api("DELETE", "/containers/one?force=1", None);
    assert!(matches!(left.status, 204 | 404), "{}", left.text());
    unharmed(&house, pid);
}
