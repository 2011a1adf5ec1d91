//! L3: containers that end as soon as they are restarted. Each waits longer than the time before, all of it is told in events,
//! and everybody else is served.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::client::Client;

use super::{ask, measure, run_exec, start, together};
use crate::containers::house;
use crate::faults::until;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

fn restarts(client: &Client, name: &str) -> u64 {
    let state = ask(client, "GET", &format!("/containers/{name}/json"), &Value::Null);
    state["RestartCount"].as_u64().expect("a number")
}

/// When each container started and died, in the order of events.
fn told(client: &Client) -> BTreeMap<String, Vec<(String, i64)>> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let path = format!("/events?since=1&until={}", now.expect("it is after 1970").as_secs() + 1);
    let answer = client.ask("GET", &path, None).expect("the daemon answers");
    let mut lives: BTreeMap<String, Vec<(String, i64)>> = BTreeMap::new();
    for event in serde_json::Deserializer::from_slice(&answer.body).into_iter::<Value>() {
        let event = event.expect("an event");
        assert_ne!(event["Action"], "overrun");
        let action = event["Action"].as_str().expect("text");
        if event["Type"] == "container" && matches!(action, "start" | "die") {
            let name = event["Actor"]["Attributes"]["name"].as_str().expect("a name");
            let at = event["timeNano"].as_i64().expect("a number");
            lives.entry(name.to_owned()).or_default().push((action.to_owned(), at));
        }
    }
    lives
}

/// Returns how long the slowest but one in a hundred of all other requests took.
fn crash_loops(count: usize, at_least: Duration) -> Duration {
    let house = house();
    let client = house.client_of_api();
    start(&client, "quiet", &["sleep", "86400"], json!({}));
    let name = |at: usize| format!("loop{at}");
    let again = json!({"RestartPolicy": {"Name": "always"}});
    together(8, count, |at| start(&client, &name(at), &["sh", "-c", "exit 3"], again.clone()));
    let begin = Instant::now();
    let mut times = Vec::new();
    let mut served = || {
        let begin = Instant::now();
        ask(&client, "GET", "/containers/json?all=1", &Value::Null);
        times.push(begin.elapsed());
        assert_eq!(run_exec(&client, "quiet", &["true"])["ExitCode"], 0);
    };
    while begin.elapsed() < at_least {
        served();
    }
    for at in 0..count {
        until("it has been restarted often", || {
            served();
            restarts(&client, &name(at)) >= 4
        });
    }
    // They end for good when their next life does.
    for at in 0..count {
        let never = json!({"RestartPolicy": {"Name": "no"}});
        ask(&client, "POST", &format!("/containers/{}/update", name(at)), &never);
        let stop = format!("/containers/{}/stop?t=0", name(at));
        let stopped = client.ask("POST", &stop, None).expect("the daemon answers");
        // It may have ended already.
        assert!(matches!(stopped.status, 204 | 304), "{}", stopped.text());
    }
    let lives = told(&client);
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
    times.sort();
    println!("{count} loops, {} lists: median {:?}", times.len(), times[times.len() / 2]);
    times[times.len() * 99 / 100]
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
