//! A2 and A6: names that are paths, or options, or somebody else's; A3: numbers that are too much.

use serde_json::{Value, json};

use super::{bystander, unharmed};
use crate::containers::house;

const BAD: &[&str] = &[
    "..",
    ".",
    "/",
    "a/b",
    "../a",
    "%2e%2e",
    "a\0b",
    "a b",
    "a\nb",
    "-a",
    "_a",
    ".a",
    "é",
    "\u{430}bc",
    "a\u{202e}b",
    "a:b:c",
    "a@b",
];

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[test]
fn a2_no_name_is_a_path() {
    let house = house();
    bystander(&house);
    let pid = house.pid();
    let long = "x".repeat(300);
    let before = std::fs::read_dir(house.data_root()).expect("the data root").count();
    for bad in BAD.iter().copied().chain([long.as_str()]) {
        let name = escaped(bad);
        let made = [
            ("/containers/create?name=".to_owned() + &name, json!({"Image": "busybox"})),
            ("/volumes/create".to_owned(), json!({"Name": bad})),
            ("/networks/create".to_owned(), json!({"Name": bad})),
            (format!("/containers/bystander/rename?name={name}"), Value::Null),
            (format!("/images/busybox/tag?repo={name}&tag=x"), Value::Null),
            (format!("/images/busybox/tag?repo=x&tag={name}"), Value::Null),
        ];
        for (path, body) in made {
            let answer = house.api("POST", &path, Some(&body).filter(|body| !body.is_null()));
            // What is a name in one place need not be one in another, but what is refused is refused in words.
            let allowed = bad == "a/b" && path.contains("repo=")
                || path.starts_with("/networks/") && !bad.trim().is_empty()
                || bad == "_a" && path.contains("tag=")
                || bad.len() == 300 && path.contains("/containers/");
            let words = answer.text();
            assert!(
                answer.status == 400 && words.contains("message")
                    || allowed && matches!(answer.status, 200..=299 | 409),
                "{path} {body}: {} {words}",
                answer.status
            );
        }
        for path in
            ["containers/{}/json", "volumes/{}", "networks/{}", "exec/{}/json", "images/{}/json"]
        {
            let path = format!("/{}", path.replace("{}", &name));
            let status = house.api("GET", &path, None).status;
            let found =
                path.starts_with("/networks/") || bad.len() == 300 && path.contains("/containers/");
            assert!(matches!(status, 400 | 404) || found && status == 200, "{path}: {status}");
            if !found {
                let status = house.api("DELETE", path.trim_end_matches("/json"), None).status;
                assert!(matches!(status, 400 | 404 | 405), "DELETE {path}: {status}");
            }
        }
    }
    let after = std::fs::read_dir(house.data_root()).expect("the data root").count();
    assert_eq!(before, after, "nothing was made beside what there was");
    unharmed(&house, pid);
}

/// A full id, then a name, then the beginning of an id; what could be two is neither (CVE-2014-5277's kind of surprise).
#[test]
fn a6_a_name_never_hides_an_id() {
    let house = house();
    let make = |name: &str| {
        let body = json!({"Image": "busybox", "Cmd": ["true"]});
        house.api("POST", &format!("/containers/create?name={name}"), Some(&body))
    };
    let first = make("first").json()["Id"].as_str().expect("an id").to_owned();
    let found = |handle: &str| {
        let answer = house.api("GET", &format!("/containers/{handle}/json"), None);
        answer.json()["Id"].as_str().map(str::to_owned)
    };
    // A name that is all of another's id cannot take its place.
    let answer = make(&first);
    assert!(answer.status == 409 || answer.status == 400 || found(&first).as_ref() == Some(&first));
    // A name that is the beginning of another's id is a name first: as it is in Docker.
    let short = &first[..12];
    let answer = make(short);
    if answer.status == 201 {
        let second = answer.json()["Id"].as_str().expect("an id").to_owned();
        assert_eq!(
            found(short).as_ref(),
            Some(&second),
            "a name comes before the beginning of an id"
        );
        assert_eq!(found(&first).as_ref(), Some(&first), "an id comes before everything");
        assert_eq!(found(&first[..13]).as_ref(), Some(&first));
    } else {
        assert_eq!(answer.status, 409, "{}", answer.text());
    }
    // Beginnings of several: nobody is meant.
    let mut ids = vec![first];
    let twice = loop {
        let id = make(&format!("n{}", ids.len())).json()["Id"].as_str().expect("an id").to_owned();
        let twin = ids.iter().find(|one| one[..1] == id[..1]).map(|one| one[..1].to_owned());
        ids.push(id);
        if let Some(twin) = twin {
            break twin;
        }
    };
    let answer = house.api("DELETE", &format!("/containers/{twice}?force=1"), None);
    assert!(matches!(answer.status, 400 | 404), "{}: {}", answer.status, answer.text());
    let list = house.api("GET", "/containers/json?all=1", None).json();
    assert!(list.as_array().expect("a list").len() >= ids.len());
}

/// Numbers as long as they come: refused or obeyed, at once, and nothing is set aside for them.
#[test]
fn a3_numbers_are_judged_before_they_are_used() {
    let house = house();
    bystander(&house);
    let pid = house.pid();
    let table: Vec<(&str, Value, bool)> = vec![
        ("CpusetCpus", json!("0-9999999999"), false),
        ("CpusetCpus", json!("1-0"), false),
        ("CpusetCpus", json!("0,,0"), false),
        ("CpusetMems", json!("0-4294967296"), false),
        ("Memory", json!(1), false),
        ("Memory", json!(i64::MAX), true),
        ("MemorySwap", json!(-1), true),
        ("PidsLimit", json!(-1), true),
        ("PidsLimit", json!(0), true),
        ("PidsLimit", json!(i64::MAX), true),
        ("CpuShares", json!(i64::MAX), true),
        ("NanoCpus", json!(i64::MAX), false),
        ("CpuPeriod", json!(999_999_999), false),
        ("ShmSize", json!(-5), false),
        ("ShmSize", json!(i64::MAX), true),
        ("OomScoreAdj", json!(-1001), false),
        ("Ulimits", json!([{"Name": "nofile", "Soft": 5, "Hard": 1}]), false),
        ("Ulimits", json!([{"Name": "nofile", "Soft": i64::MAX, "Hard": i64::MAX}]), true),
        ("Ulimits", json!([{"Name": "nothing", "Soft": 1, "Hard": 1}]), false),
        ("PortBindings", json!({"80/tcp": [{"HostPort": "65536"}]}), false),
        ("PortBindings", json!({"0/tcp": [{"HostPort": "80"}]}), false),
        ("PortBindings", json!({"80/tcp": [{"HostPort": "-1"}]}), false),
        ("PortBindings", json!({"80/tcp": [{"HostPort": "9-1"}]}), false),
        ("PortBindings", json!({"1-65535/tcp": [{"HostPort": "1-65535"}]}), false),
        ("ConsoleSize", json!([u32::MAX, u32::MAX]), true),
        ("RestartPolicy", json!({"Name": "on-failure", "MaximumRetryCount": -1}), false),
        ("RestartPolicy", json!({"Name": "always", "MaximumRetryCount": 1}), false),
    ];
    for (field, number, good) in table {
        let body = json!({"Image": "busybox", "HostConfig": {field: number}});
        let answer = house.api("POST", "/containers/create", Some(&body));
        let expected = if good { 201 } else { 400 };
        assert_eq!(answer.status, expected, "{body}: {}", answer.text());
    }
    for (path, status) in [
        ("/containers/bystander/stop?t=1000000000000000000000", 400),
        ("/containers/bystander/resize?h=4294967296&w=1", 400),
        ("/containers/bystander/logs?stdout=1&tail=99999999999999999999", 200),
        ("/containers/json?limit=-5", 200),
    ] {
        let method = if path.contains("stop") || path.contains("resize") { "POST" } else { "GET" };
        let answer = house.api(method, path, None);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    unharmed(&house, pid);
}
