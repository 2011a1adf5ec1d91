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

/// What cannot be is said when the container is made, and not when it shall start.
#[test]
fn a_wrong_container_is_refused_in_dockers_words() {
    let house = house();
    let config = |field: &str, value: Value| json!({"Image": "busybox", field: value});
    let host =
        |field: &str, value: Value| json!({"Image": "busybox", "HostConfig": {field: value}});
    let port = |port: &str| config("ExposedPorts", json!({port: {}}));
    let requests = [
        (port("x"), "invalid port 'x': invalid syntax"),
        (port("99999/tcp"), "invalid port '99999': value out of range"),
        (port("80-90/tcp"), "invalid port '80-90': invalid syntax"),
        (port(""), "invalid port: value is empty"),
        (port("80/icmp"), "invalid proto: icmp"),
        (config("Cmd", json!(["a\0b"])), "invalid argument: a\\0b"),
        (config("Env", json!(["=x"])), "invalid environment variable: =x"),
        (config("Env", json!(["A\nB=1"])), "invalid environment variable: A\\nB=1"),
        (config("Hostname", json!("a\nb")), "invalid hostname format: a\\nb"),
        (config("Domainname", json!("a\nb")), "invalid domainname format: a\\nb"),
        (config("StopSignal", json!("SIGNOPE")), "invalid signal: SIGNOPE"),
        (
            config("WorkingDir", json!("tmp")),
            "the working directory 'tmp' is invalid, it needs to be an absolute path",
        ),
        (host("CpuShares", json!(-1)), "invalid CPU shares (-1): value must be a positive integer"),
        (host("Memory", json!(-1)), "Minimum memory limit allowed is 6MB"),
        (
            host("MemorySwap", json!(-2)),
            "invalid memory swap limit (-2): value must be -1 or a positive integer",
        ),
        (
            host("MemorySwap", json!(1 << 30)),
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            host("MemorySwappiness", json!(101)),
            "Invalid value: 101, valid memory swappiness range is 0-100",
        ),
        (host("MemoryReservation", json!(1)), "Minimum memory reservation allowed is 6MB"),
        (host("CpuQuota", json!(1)), "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        (
            host("CpuPeriod", json!(1)),
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        (
            host("OomScoreAdj", json!(1001)),
            "Invalid value 1001, range for oom score adj is [-1000, 1000]",
        ),
        (host("ShmSize", json!(-1)), "SHM size can not be less than 0"),
        (
            host("IOMaximumIOps", json!(1)),
            "invalid option: QoS maximum IOPs configuration is not supported on linux",
        ),
        (
            host("IOMaximumBandwidth", json!(1)),
            "invalid option: QoS maximum bandwidth configuration is not supported on linux",
        ),
        (
            host("Isolation", json!("hyperv")),
            "invalid isolation (hyperv): linux only supports 'default'",
        ),
        (host("IpcMode", json!("invalid")), "invalid IPC mode: invalid"),
        (host("PidMode", json!("container")), "invalid PID mode: container"),
        (host("UTSMode", json!("invalid")), "invalid UTS mode: invalid"),
        (host("CgroupnsMode", json!("x")), "invalid cgroup namespace mode: x"),
        (
            host("Annotations", json!({"": "a"})),
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ),
        (host("DnsSearch", json!(["a\nb"])), "a\\nb is not a valid domain"),
        (
            host("DnsOptions", json!(["ndots:1\nnameserver x"])),
            "invalid DNS option: ndots:1\\nnameserver x",
        ),
        (host("ExtraHosts", json!(["x"])), "bad format for add-host: \"x\""),
        (host("ExtraHosts", json!(["a\nb:1.1.1.1"])), "bad format for add-host: \"a\\nb:1.1.1.1\""),
        (host("ExtraHosts", json!(["a:b"])), "invalid IP address in add-host: \"b\""),
        (
            host("RestartPolicy", json!({"Name": "sometimes"})),
            "invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
        (
            host("Sysctls", json!({"kernel.panic": "1"})),
            "sysctl \"kernel.panic\" is not in a separate kernel namespace",
        ),
        (
            json!({"Image": "busybox", "HostConfig": {
                "NetworkMode": "host", "Sysctls": {"net.core.somaxconn": "5"},
            }}),
            "sysctl \"net.core.somaxconn\" not allowed in host network namespace",
        ),
        (host("CapAdd", json!(["NOPE"])), "invalid CapAdd: unknown capability: \"CAP_NOPE\""),
    ];
    for (body, words) in requests {
        let answer = house.api("POST", "/containers/create", Some(&body));
        assert_eq!(
            (answer.status, answer.json()["message"].as_str()),
            (400, Some(words)),
            "{body}"
        );
    }
    let made = house.api("POST", "/containers/create?name=ports", Some(&port("80/TCP")));
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(
        house.ok(&["inspect", "-f", "{{json .Config.ExposedPorts}}", "ports"]),
        "{\"80/tcp\":{}}\n"
    );
}

/// What is typed may be secret: not even who asks for everything finds it in the log.
#[test]
fn the_log_does_not_repeat_command_lines() {
    let house = crate::containers::house_with(&["--debug"]);
    house.ok(&["run", "-d", "--name", "talker", "-e", "A=canary-1", "busybox", "sleep", "600"]);
    house.ok(&["exec", "-e", "B=canary-2", "talker", "echo", "canary-3"]);
    let bare = json!({"Cmd": "echo canary-4"});
    let answer = house.api("POST", "/containers/talker/exec", Some(&bare));
    assert_eq!(
        (answer.status, answer.json()["message"].as_str()),
        (
            400,
            Some(
                "invalid JSON: json: cannot unmarshal string into Go struct field ExecCreateRequest.Cmd of type []string"
            )
        )
    );
    let log = house.log();
    assert!(log.contains("exec_create"), "{log}");
    assert!(!log.contains("canary"), "{log}");
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
