//! `--metrics-addr`: the names that dashboards for dockerd ask for, and figures that move.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use testkit::House;

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
}

/// Values by their names and labels.
fn figures(address: &str) -> BTreeMap<String, f64> {
    let answer = get(address, "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let pair = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    answer.lines().filter(|line| !line.starts_with('#')).filter_map(pair).collect()
}

#[test]
fn figures_are_served_where_they_are_wanted() {
    let address = format!("127.0.0.1:{}", testkit::port::free());
    let house = House::with(&["--metrics-addr", &address]);
    house.load(&testkit::TestImage::busybox().docker_archive(&["busybox:latest"]));
    // What Debian's dockerd 20.10 serves of its own, and what it counts at once.
    let before = figures(&address);
    let actions = ["changes", "commit", "create", "delete", "start"];
    for action in actions {
        let name = format!("engine_daemon_container_actions_seconds_count{{action=\"{action}\"}}");
        assert_eq!(before[&name], 0.0, "{name}");
        let most = format!(
            "engine_daemon_container_actions_seconds_bucket{{action=\"{action}\",le=\"+Inf\"}}"
        );
        assert_eq!(before[&most], 0.0, "{most}");
    }
    for name in [
        "engine_daemon_container_states_containers{state=\"paused\"}",
        "engine_daemon_engine_cpus_cpus",
        "engine_daemon_engine_memory_bytes",
        "engine_daemon_events_subscribers_total",
        "engine_daemon_events_total",
        "engine_daemon_health_check_start_duration_seconds_count",
        "engine_daemon_health_checks_failed_total",
        "engine_daemon_health_checks_total",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ] {
        assert!(before.contains_key(name), "{name}: {before:?}");
    }
    let info = before.keys().find(|name| name.starts_with("engine_daemon_engine_info{"));
    assert!(info.is_some_and(|info| info.contains("graphdriver=") && info.contains("kernel=")));

    let run = ["run", "-d", "--name", "ca", "--network", "none", "busybox", "sleep", "1000"];
    house.ok(&run);
    house.ok(&["diff", "ca"]);
    let after = figures(&address);
    for (action, count) in [("changes", 1.0), ("create", 1.0), ("start", 1.0), ("delete", 0.0)] {
        let name = format!("engine_daemon_container_actions_seconds_count{{action=\"{action}\"}}");
        assert_eq!(after[&name], count, "{name}");
        let sum = format!("engine_daemon_container_actions_seconds_sum{{action=\"{action}\"}}");
        assert_eq!(after[&sum] > 0.0, count > 0.0, "{sum}");
    }
    let running = "engine_daemon_container_states_containers{state=\"running\"}";
    assert_eq!((before[running], after[running]), (0.0, 1.0));
    let events = "engine_daemon_events_total";
    assert!(after[events] >= before[events] + 2.0);
    let of_it: BTreeMap<_, _> = after
        .iter()
        .filter(|(name, _)| name.contains("image=\"busybox\",name=\"ca\""))
        .map(|(name, value)| (name.split('{').next().expect("a name"), *value))
        .collect();
    assert!(of_it["gantry_container_memory_usage_bytes"] > 0.0, "{of_it:?}");
    assert!(of_it["gantry_container_processes"] >= 1.0, "{of_it:?}");
    assert!(of_it["gantry_container_cpu_usage_seconds_total"] > 0.0, "{of_it:?}");
    house.ok(&["rm", "-f", "ca"]);
    let deleted = "engine_daemon_container_actions_seconds_count{action=\"delete\"}";
    assert_eq!(figures(&address)[deleted], 1.0);

    let probed = ["run", "--name", "probed", "--network", "none", "--health-cmd", "touch /probed"];
    let until = "until test -e /probed; do sleep 0.02; done";
    let soon = ["--health-interval", "50ms", "busybox", "sh", "-c", until];
    house.ok(&[&probed[..], &soon].concat());
    house.ok(&["history", "busybox"]);
    house.ok(&["rm", "probed"]);
    house.ok(&["rmi", "busybox"]);
    let refused = house.docker(&["pull", "127.0.0.1:1/nobody/there"]).output().expect("docker");
    assert!(!refused.status.success());
    let figures = figures(&address);
    for action in ["delete", "history", "pull"] {
        let name = format!("engine_daemon_image_actions_seconds_count{{action=\"{action}\"}}");
        assert_eq!((before[&name], figures[&name]), (0.0, 1.0), "{name}");
    }
    assert!(figures["engine_daemon_health_check_start_duration_seconds_count"] >= 1.0);

    // Figures only: nothing can be done through it.
    for path in ["/containers/json", "/v1.41/info", "/"] {
        assert!(get(&address, path).starts_with("HTTP/1.1 404 "), "{path}");
    }
}
