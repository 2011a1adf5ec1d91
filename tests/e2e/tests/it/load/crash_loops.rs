//! L3: containers that end as soon as they are restarted. Each waits longer than the time before, all of it is told in events,
//! and everybody else is served.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::client::Client;

use super::{ask, begin, measure, run_exec, start, together};
use crate::containers::house;
use crate::faults::until;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The container whose removal tells the listener that it is over.
const LAST: &str = "last";

fn restarts(client: &Client, name: &str) -> u64 {
    let state = ask(client, "GET", &format!("/containers/{name}/json"), &Value::Null);
    state["RestartCount"].as_u64().expect("a number")
}

/// When each container started and died, in the order of events, heard until the container `last` is removed.
fn listen(stream: UnixStream) -> BTreeMap<String, Vec<(String, i64)>> {
    let mut lives: BTreeMap<String, Vec<(String, i64)>> = BTreeMap::new();
    for line in BufReader::new(stream).lines().map(|line| line.expect("text")) {
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
        let Some(action) = event["Action"].as_str() else { continue };
        assert_ne!(action, "overrun");
        let name = event["Actor"]["Attributes"]["name"].as_str().expect("a name");
        match action {
            "destroy" if name == LAST => break,
            "start" | "die" => {
                let at = event["timeNano"].as_i64().expect("a number");
                lives.entry(name.to_owned()).or_default().push((action.to_owned(), at));
            }
            _ => {}
        }
    }
    lives
}

/// Returns how long the slowest but one in a hundred of all other requests took.
fn crash_loops(count: usize, at_least: Duration) -> Duration {
    let house = house();
    let client = house.client_of_api();
    // From the first: what is remembered for those who come later has an end.
    let wanted = "%7B%22event%22:%5B%22start%22,%22die%22,%22destroy%22%5D,%22type%22:%5B%22container%22%5D%7D";
    let stream = begin(&client, "GET", &format!("/events?since=1&filters={wanted}"), "");
    let told = std::thread::spawn(move || listen(stream));
    start(&client, "quiet", &["sleep", "86400"], json!({}));
    let name = |at: usize| format!("loop{at}");
    let again = json!({"RestartPolicy": {"Name": "always"}});
    together(8, count, |at| start(&client, &name(at), &["sh", "-c", "exit 3"], again.clone()));
    let begun = Instant::now();
    let mut times = Vec::new();
    let mut served = || {
        let asked = Instant::now();
        ask(&client, "GET", "/containers/json?all=1", &Value::Null);
        times.push(asked.elapsed());
        assert_eq!(run_exec(&client, "quiet", &["true"])["ExitCode"], 0);
    };
    while begun.elapsed() < at_least {
        served();
    }
    for at in 0..count {
        until("it has been restarted often", || {
            served();
            restarts(&client, &name(at)) >= 4
        });
    }
    times.sort();
    let (median, slow) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{count} loops, {} lists: median {median:?}, 99 of 100 within {slow:?}", times.len());
    // They end for good when their next life does.
    for at in 0..count {
        let never = json!({"RestartPolicy": {"Name": "no"}});
        ask(&client, "POST", &format!("/containers/{}/update", name(at)), &never);
        let stop = format!("/containers/{}/stop?t=0", name(at));
        let stopped = client.ask("POST", &stop, None).expect("the daemon answers");
        // It may have ended already.
        assert!(matches!(stopped.status, 204 | 304), "{}", stopped.text());
    }
    let last = json!({"Image": "busybox", "HostConfig": {"NetworkMode": "none"}});
    ask(&client, "POST", &format!("/containers/create?name={LAST}"), &last);
    ask(&client, "DELETE", &format!("/containers/{LAST}"), &Value::Null);
    let lives = told.join().expect("it hears the end");
    for at in 0..count {
        let (name, moments) = (name(at), &lives[&name(at)]);
        let state = ask(&client, "GET", &format!("/containers/{name}/json"), &Value::Null);
        // Its own, or of one who has been stopped in the middle of a life.
        assert!([3, 137].map(Value::from).contains(&state["State"]["ExitCode"]), "{name}: {state}");
        let starts = moments.iter().filter(|(action, _)| action == "start").count() as u64;
        let counted = restarts(&client, &name);
        // The last is counted when it is decided, and may have been stopped while it waited.
        assert!(starts == 1 + counted || starts == counted, "{name}: {counted}, {moments:?}");
        let mut wait = FIRST_WAIT;
        for (index, moment) in moments.iter().enumerate() {
            assert_eq!(moment.0, ["start", "die"][index % 2], "{name}: {moments:?}");
            if index % 2 == 0 && index > 0 {
                let waited = Duration::from_nanos((moment.1 - moments[index - 1].1) as u64);
                assert!(waited >= wait, "{name} waited {waited:?}, not {wait:?}");
                wait = (2 * wait).min(LONGEST_WAIT);
            }
        }
    }
    slow
}

#[test]
fn l3_crash_loops() {
    crash_loops(12, Duration::ZERO);
}

#[test]
#[ignore = "ten minutes; `LOOPS` says how many and `SECONDS` how long"]
fn l3_full_size() {
    let seconds = Duration::from_secs(measure("SECONDS", 600) as u64);
    let slow = crash_loops(measure("LOOPS", 300), seconds);
    assert!(slow < Duration::from_millis(100), "{slow:?}");
}
