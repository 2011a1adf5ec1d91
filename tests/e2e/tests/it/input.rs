//! Requests that make no sense: each is refused in words, and the daemon thinks nothing of it.

use serde_json::{Value, json};

use crate::containers::house;

#[test]
fn refused_in_words() {
    let house = house();
    let made = json!({"Image": "busybox", "Cmd": ["sleep", "600"]});
    house.api("POST", "/containers/create?name=ca", Some(&made));
    house.api("POST", "/containers/ca/start", None);
    let deep = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
    let host = |field: &str, value: Value| {
        json!({"Image": "busybox", "HostConfig": {field: value}}).to_string()
    };
    let long = "x".repeat(300);
    let create = "/containers/create";
    let requests: Vec<(&str, &str, String, u16)> = vec![
        ("POST", create, "{".to_owned(), 400),
        ("POST", create, "[]".to_owned(), 400),
        ("POST", create, "null".to_owned(), 400),
        ("POST", create, deep, 400),
        ("POST", create, json!({"Image": 5}).to_string(), 400),
        ("POST", create, json!({"Image": "../../etc"}).to_string(), 400),
        ("POST", create, json!({"Image": "busybox", "Env": ["A=\0"]}).to_string(), 400),
        ("POST", create, json!({"Image": "busybox", "WorkingDir": "/\0"}).to_string(), 400),
        ("POST", create, json!({"Image": "busybox", "Hostname": "a\nb"}).to_string(), 400),
        ("POST", create, json!({"Image": "busybox", "Volumes": {"/..": {}}}).to_string(), 400),
        ("POST", create, host("Memory", json!(1.5)), 400),
        ("POST", create, host("Memory", json!(u64::MAX)), 400),
        ("POST", create, host("CpusetCpus", json!("0-99999999999")), 400),
        ("POST", create, host("Binds", json!(["/a\0b:/c"])), 400),
        ("POST", create, host("Binds", json!(["../b:/c"])), 400),
        ("POST", create, host("Dns", json!(["nowhere"])), 400),
        ("POST", create, host("Tmpfs", json!({"/a": "size=1,upperdir=/etc"})), 400),
        ("POST", create, host("Sysctls", json!({"net.x/../../kernel.core_pattern": "|/x"})), 400),
        ("POST", create, host("ConsoleSize", json!([-1, 5])), 400),
        ("POST", "/containers/create?name=..%2fx", made.to_string(), 400),
        ("POST", "/containers/create?name=x%0ay", made.to_string(), 400),
        ("GET", "/containers/..%2f..%2fetc/json", String::new(), 404),
        ("GET", "/containers/%00/json", String::new(), 404),
        ("GET", "/containers/%ff/json", String::new(), 400),
        ("PUT", "/containers/ca/json", String::new(), 404),
        ("GET", "/containers/json?limit=99999999999999999999", String::new(), 400),
        ("GET", "/containers/json?filters=%5B%5D", String::new(), 400),
        ("POST", "/containers/ca/kill?signal=-1", String::new(), 400),
        ("POST", "/containers/ca/stop?t=soon", String::new(), 400),
        ("POST", "/containers/ca/resize?h=a&w=1", String::new(), 400),
        ("POST", "/containers/ca/update", json!({"NanoCpus": -5}).to_string(), 400),
        ("POST", "/containers/ca/exec", json!({"Cmd": []}).to_string(), 400),
        ("GET", "/containers/ca/logs?stdout=1&since=1e400", String::new(), 400),
        ("GET", "/exec/%00/json", String::new(), 404),
        ("GET", "/volumes/..%2f..", String::new(), 404),
        ("DELETE", "/volumes/..", String::new(), 404),
        ("POST", "/volumes/create", json!({"Name": "../x"}).to_string(), 400),
        ("POST", "/volumes/create", json!({ "Name": long }).to_string(), 400),
        ("GET", "/images/..%2f/json", String::new(), 400),
        ("GET", "/v1.99/info", String::new(), 400),
        ("GET", "/events?since=5&until=3", String::new(), 400),
    ];
    let pid = house.pid();
    for (method, path, body, status) in requests {
        let answer = house.send(method, path, "application/json", body.as_bytes());
        let words = answer.text();
        assert_eq!(answer.status, status, "{method} {path} {body:.80}: {words}");
        let told = serde_json::from_str::<Value>(&words);
        assert!(
            told.is_ok_and(|told| told["message"].as_str().is_some_and(|text| !text.is_empty())),
            "{method} {path}: {words}"
        );
    }
    assert_eq!(house.api("DELETE", "/volumes/..?force=1", None).status, 204);
    assert_eq!(
        house.api("GET", "/containers/json?all=1", None).json().as_array().map(Vec::len),
        Some(1)
    );
    assert!(!house.log().contains("panicked"), "{}", house.log());
    assert_eq!(house.pid(), pid);
}

/// A body that is refused unread must not cost the client its answer.
#[test]
fn a_refusal_reaches_who_still_sends() {
    let house = testkit::House::new();
    let big = vec![b'x'; 6 << 20];
    for _ in 0..10 {
        let answer =
            house.client_of_api().send("POST", "/containers/create", "application/json", &big);
        assert_eq!(answer.expect("an answer, no reset").status, 413);
        let unread =
            house.client_of_api().send("POST", "/containers/none/stop", "text/plain", b"{}");
        assert_eq!(unread.expect("an answer, no reset").status, 404);
    }
}
