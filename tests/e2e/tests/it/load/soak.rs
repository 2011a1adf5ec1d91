//! L7: some of everything, for as long as somebody likes. What the daemon has does not grow with what it has done.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::House;
use testkit::client::Client;

use super::{PATIENCE, ask, held, measure, resident, run_exec, settle, start, status, together};
use crate::containers::house;

/// What somebody does in a while.
fn round(client: &Client, at: usize) {
    let (name, volume, network) = (format!("ca{at}"), format!("va{at}"), format!("na{at}"));
    ask(client, "POST", "/volumes/create", &json!({ "Name": volume }));
    let own_network = at.is_multiple_of(4);
    if own_network {
        ask(client, "POST", "/networks/create", &json!({ "Name": network }));
    }
    let mode = if own_network { network.as_str() } else { "none" };
    let host = json!({"NetworkMode": mode, "Binds": [format!("{volume}:/data")]});
    start(client, &name, &["sh", "-c", "while :; do echo word; usleep 20000; done"], host);
    assert_eq!(run_exec(client, &name, &["touch", "/data/file"])["ExitCode"], 0);
    let of = |verb: &str| format!("/containers/{name}/{verb}");
    for get in ["json", "logs?stdout=1", "stats?stream=0&one-shot=1", "top", "changes"] {
        let answer = client.ask("GET", &of(get), None).expect("the daemon answers");
        assert_eq!(answer.status, 200, "{get}: {}", answer.text());
    }
    for post in ["pause", "unpause", "restart?t=0", "stop?t=0"] {
        ask(client, "POST", &of(post), &Value::Null);
    }
    let image = format!("made{at}");
    ask(client, "POST", &format!("/commit?container={name}&repo={image}"), &json!({}));
    ask(client, "DELETE", &format!("/containers/{name}?v=1"), &Value::Null);
    ask(client, "DELETE", &format!("/images/{image}"), &Value::Null);
    ask(client, "DELETE", &format!("/volumes/{volume}"), &Value::Null);
    if own_network {
        ask(client, "DELETE", &format!("/networks/{network}"), &Value::Null);
    }
}

/// Bytes of the records, with what is not merged into them yet.
fn records(house: &House) -> u64 {
    let size = |name: &str| fs::metadata(house.data_root().join(name)).map_or(0, |file| file.len());
    size("state.db") + size("state.db-wal")
}

/// What the daemon weighs in KiB when it has come to rest: then it gives back what it does not need, and the pages of its
/// program with it. In the middle of its work it has more or less, as it happens.
#[expect(
    clippy::disallowed_methods,
    reason = "the kernel tells nobody that a process became smaller"
)]
fn at_rest(house: &House) -> u64 {
    let busy = status(house, "RssFile");
    let deadline = Instant::now() + PATIENCE;
    while status(house, "RssFile") > busy / 2 {
        assert!(Instant::now() < deadline, "the daemon does not come to rest");
        std::thread::sleep(Duration::from_millis(50));
    }
    resident(house)
}

/// Returns what the daemon weighed after each part of it, in KiB.
fn soak(parts: usize, rounds: usize, at_least: Duration, weigh: fn(&House) -> u64) -> Vec<u64> {
    let house = house();
    let client = house.client_of_api();
    together(4, 8, |at| round(&client, at));
    let before = held(&house);
    let mut weights = Vec::new();
    for part in 0..parts {
        let begin = Instant::now();
        let mut at = 0;
        loop {
            together(4, rounds, |n| round(&client, at + n));
            at += rounds;
            if begin.elapsed() >= at_least / u32::try_from(parts).expect("a few") {
                break;
            }
        }
        let busy = resident(&house);
        weights.push(weigh(&house));
        println!(
            "part {part}: {at} rounds, {busy} KiB, then {}, records of {} bytes",
            weights[part],
            records(&house)
        );
        assert!(records(&house) < 16 << 20, "{} bytes", records(&house));
    }
    settle(&house, &before);
    house.check();
    weights
}

#[test]
fn l7_some_of_everything() {
    soak(2, 8, Duration::ZERO, resident);
}

#[test]
#[ignore = "an hour; `MINUTES` says how long"]
fn l7_full_size() {
    let minutes = measure("MINUTES", 60);
    let weights = soak(10, 40, Duration::from_secs(60 * minutes as u64), at_rest);
    // The first parts warm up. Of those behind, the least of three is told from the least of the last three: how much of its
    // caches it has at rest goes up and down, and what is lost stays lost. One in a hundred for each hour, and one for a page
    // more or less.
    let least = |parts: &[u64]| parts.iter().copied().min().expect("three parts");
    let (warm, last) = (least(&weights[4..7]), least(&weights[7..]));
    let allowed = warm / 100 * (1 + minutes as u64 / 60);
    assert!(last <= warm + allowed, "{weights:?}");
}
