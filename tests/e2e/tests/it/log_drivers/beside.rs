//! The same containers under Debian's dockerd and under ours, with the same servers: the same arrives.

use std::process::Command;

use serde_json::Value;
use testkit::house::{shown, succeed};
use testkit::{House, Netns, TestImage};

use super::msgpack;
use super::servers::{Asked, hear, http, next, tcp, udp, unpack};
use crate::foreign::{Dockerd, theirs};

/// Who both are to a cloud.
pub(super) const WHO: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "secret"),
    ("AWS_REGION", "eu-x-1"),
];

type Docker<'a> = dyn Fn(&[&str]) -> Command + 'a;

/// Ours, in a network that others have their part in.
pub(super) fn house(netns: &Netns, environment: &[(&str, &str)]) -> House {
    let variables = environment.iter().map(|(name, value)| format!("{name}={value}"));
    let mut words = vec!["env".to_owned()];
    words.extend(variables);
    words.extend([
        "nsenter".to_owned(),
        format!("--net={}", netns.path().display()),
        "--".to_owned(),
    ]);
    let house = House::through(&words.iter().map(String::as_str).collect::<Vec<_>>());
    house.load(&TestImage::busybox().docker_archive(&["busybox:latest"]));
    house
}

/// One container's life; answers what was heard of it, with names for what is another with every run.
fn heard(
    docker: &Docker<'_>,
    options: &[&str],
    command: &str,
    hear: &dyn Fn() -> Vec<String>,
) -> Vec<String> {
    let mut words = vec!["run", "-d", "--name", "web", "--network", "none", "--label", "tier=a<b"];
    words.extend(["--label", "other=x", "-e", "WHERE=here", "-e", "ELSE=x"]);
    words.extend(options);
    words.extend(["busybox", "sh", "-c", command]);
    let id = succeed(docker(&words)).trim().to_owned();
    let heard = hear();
    let of = |field: &str| {
        let text = succeed(docker(&["inspect", "-f", field, "web"]));
        text.trim().to_owned()
    };
    let names = [
        (id.clone(), "<id>"),
        (id[..12].to_owned(), "<short>"),
        (of("{{.Image}}"), "<image>"),
        (of("{{.Created}}"), "<created>"),
    ];
    succeed(docker(&["rm", "-f", "web"]));
    let named = |text: String| names.iter().fold(text, |text, (from, to)| text.replace(from, to));
    heard.into_iter().map(|text| without_times(&named(text))).collect()
}

/// Times as `<time>`, and whatever else is random by its length.
fn without_times(text: &str) -> String {
    let mut out = String::new();
    let mut digits = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_digit() || (c == '.' && digits.len() > 8) {
            digits.push(c);
            continue;
        }
        out.push_str(if digits.len() >= 10 { "<time>" } else { &digits });
        digits.clear();
        out.push(c);
    }
    out.pop();
    out
}

fn fluentd_events(bytes: &[u8]) -> Vec<String> {
    let mut seen = Vec::new();
    let mut event = |mut event: Value| {
        // Parts of one line bear one number, whatever it is.
        if let Some(id) = event[2].get_mut("partial_id") {
            let text = id.as_str().unwrap_or_default().to_owned();
            assert_eq!(text.len(), 64);
            let known = seen.iter().position(|known| *known == text).unwrap_or(seen.len());
            seen.push(text);
            *id = Value::from(format!("part {known}"));
        }
        for field in ["seconds", "precise"] {
            if let Some(value) = event[1].get_mut(field) {
                *value = Value::Null;
            }
        }
        event.to_string()
    };
    msgpack::values(bytes).into_iter().map(&mut event).collect()
}

#[test]
fn fluentd_gelf_splunk_and_awslogs() {
    let program = theirs!("dockerd");
    let netns = Netns::new();
    let dockerd = Dockerd::within(&netns, &program, &WHO);
    let house = house(&netns, &WHO);
    let same = |what: &str, options: &[&str], command: &str, hear: &dyn Fn() -> Vec<String>| {
        let theirs = heard(&|args| dockerd.command(args), options, command, hear);
        let ours = heard(&|args| house.docker(args), options, command, hear);
        assert!(!theirs.is_empty(), "{what}");
        assert_eq!(ours, theirs, "{what}");
    };
    let extra = ["--log-opt", "labels=tier", "--log-opt", "env-regex=^WH"];

    // fluentd
    let (listener, address) = tcp(&netns);
    let place = format!("fluentd-address={address}");
    let common = [&["--log-driver", "fluentd", "--log-opt", &place][..], &extra].concat();
    let lines = "echo one; echo; echo two";
    let hear_events = || fluentd_events(&hear(&listener));
    same("fluentd", &common, lines, &hear_events);
    let more = [&common[..], &["--log-opt", "fluentd-sub-second-precision=true"]].concat();
    let more = [&more[..], &["--log-opt", "tag={{.ImageName}}/{{.Name}}/{{.ID}}"]].concat();
    let long = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo end; printf tail";
    same("fluentd, long lines", &more, long, &hear_events);
    let later = [&common[..], &["--log-opt", "fluentd-async=true"]].concat();
    same("fluentd, asynchronous", &later, "echo err >&2", &hear_events);

    // gelf
    let (socket, address) = udp(&netns);
    let place = format!("gelf-address=udp://{address}");
    let common = [&["--log-driver", "gelf", "--log-opt", &place][..], &extra].concat();
    let datagrams = |count: usize| {
        let mut out: Vec<Vec<u8>> = Vec::new();
        for _ in 0..count {
            let mut bytes = vec![0; 65536];
            let count = socket.recv(&mut bytes).expect("a datagram");
            out.push(bytes[..count].to_vec());
        }
        out
    };
    let messages = |count: usize| -> Vec<String> {
        let text = |bytes: Vec<u8>| String::from_utf8(unpack(&bytes)).expect("text");
        datagrams(count).into_iter().map(text).collect()
    };
    same("gelf", &common, "echo '<one>'; echo; printf 'a\\tb\\n'", &|| messages(2));
    for kind in ["zlib", "none"] {
        let kind = format!("gelf-compression-type={kind}");
        let options = [&common[..], &["--log-opt", &kind, "--log-opt", "tag=t&"]].concat();
        same(&kind, &options, "echo err >&2", &|| messages(1));
    }
    let plain = [&common[..], &["--log-opt", "gelf-compression-type=none"]].concat();
    same("gelf, pieces", &plain, "head -c 5000 /dev/zero | tr '\\0' x; echo", &|| {
        let pieces = datagrams(4);
        assert!(pieces.iter().all(|piece| piece[..2] == [0x1e, 0x0f] && piece[11] == 4));
        assert!(pieces.iter().all(|piece| piece[2..10] == pieces[0][2..10]));
        let text: Vec<u8> = pieces.iter().flat_map(|piece| piece[12..].to_vec()).collect();
        vec![String::from_utf8(text).expect("text")]
    });
    let (listener, address) = tcp(&netns);
    let place = format!("gelf-address=tcp://{address}");
    let far = [&["--log-driver", "gelf", "--log-opt", &place][..], &extra].concat();
    same("gelf, TCP", &far, "echo one; echo two", &|| {
        let text = String::from_utf8(hear(&listener)).expect("text");
        text.split('\0').map(str::to_owned).collect()
    });

    // splunk
    let (asked, address) = http(&netns, None, |_| (200, "{}".to_owned()));
    let place = format!("splunk-url=http://{address}");
    let common = ["--log-driver", "splunk", "--log-opt", &place, "--log-opt", "splunk-token=t"];
    let common = [&common[..], &extra].concat();
    let requests = |count: usize| -> Vec<String> {
        let shown = |asked: Asked| {
            let channel = asked.header("x-splunk-request-channel").len();
            let auth = asked.header("authorization");
            format!("{} {} {auth} {channel} {}", asked.method, asked.path, asked.text())
        };
        (0..count).map(|_| shown(next(&asked))).collect()
    };
    same("splunk", &common, "echo '<one>'; echo two", &|| requests(2));
    let json = ["splunk-format=json", "splunk-gzip=true", "splunk-source=s", "splunk-index=i"];
    let with = |more: &[&str]| {
        let mut options = common.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for option in more {
            options.extend(["--log-opt".to_owned(), (*option).to_owned()]);
        }
        options
    };
    let options = with(&json);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let lines = "echo '{ \"a\" : [1, \"<\"] }'; echo plain";
    same("splunk, JSON", &options, lines, &|| requests(2));
    let raw = ["splunk-format=raw", "splunk-verify-connection=false", "splunk-sourcetype=y"];
    let options = with(&[&raw[..], &["splunk-index-acknowledgment=true", "env-regex="]].concat());
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    same("splunk, raw", &options, "echo one; echo '  '; echo two", &|| requests(1));
    let options = with(&["tag=", "labels=", "env-regex=", "splunk-verify-connection=false"]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    same("splunk, bare", &options, "echo one", &|| requests(1));

    // awslogs
    let (asked, address) = http(&netns, None, |asked| match asked.header("x-amz-target") {
        "Logs_20140328.PutLogEvents" => (200, "{\"nextSequenceToken\":\"7\"}".to_owned()),
        _ => (200, String::new()),
    });
    let place = format!("awslogs-endpoint=http://{address}");
    let common = ["--log-driver", "awslogs", "--log-opt", &place, "--log-opt", "awslogs-group=g"];
    let requests = |count: usize| -> Vec<String> {
        let shown = |asked: Asked| {
            let auth = asked.header("authorization");
            let scope = auth.split('/').skip(2).take(2).collect::<Vec<_>>().join("/");
            assert!(auth.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"), "{auth}");
            let target = asked.header("x-amz-target");
            let value: Value = serde_json::from_str(&asked.text()).expect("JSON");
            format!("{} {scope} {target} {} {value}", asked.path, asked.header("content-type"))
        };
        (0..count).map(|_| shown(next(&asked))).collect()
    };
    same("awslogs", &common, "echo one; echo; echo two", &|| requests(2));
    let multiline = "awslogs-multiline-pattern=^[a-z]";
    let named = ["--log-opt", multiline, "--log-opt", "awslogs-stream=s"];
    let options = [&common[..], &named].concat();
    same("awslogs, lines", &options, "echo one; echo 2; echo three", &|| requests(2));
    let dated = ["--log-opt", "awslogs-datetime-format=%Y-%m-%d", "--log-opt", "tag={{.Name}}"];
    let options = [&common[..], &dated].concat();
    let lines = "echo 2026-11-21 a; echo b; echo 2026-11-22 c";
    same("awslogs, dates", &options, lines, &|| requests(2));
}

/// What is refused here already when it is created, and by dockerd only when it starts (or, the second, in other words since
/// its version).
const EARLIER: [&str; 2] =
    ["syslog [\"cache-max-file=x\"]", "syslog [\"syslog-address=sctp://x\"]"];

/// Drivers, their options, and what is said of them.
#[test]
fn what_is_wrong_is_refused_in_the_same_words() {
    let dockerd = Dockerd::new(&theirs!("dockerd"));
    let house = crate::containers::house();
    let table: [(&str, &[&str]); 46] = [
        ("nope", &[]),
        ("none", &["x=1"]),
        ("json-file", &["x=1"]),
        ("json-file", &["mode=x"]),
        ("json-file", &["max-buffer-size=1m"]),
        ("json-file", &["mode=non-blocking", "max-buffer-size=x"]),
        ("json-file", &["cache-disabled=true"]),
        ("json-file", &["cache-disabled=x"]),
        ("json-file", &["labels-regex=^a", "env-regex=^b", "labels=x", "env=y", "tag=z"]),
        ("local", &["max-file=0"]),
        ("local", &["x=1"]),
        ("syslog", &["x=1"]),
        ("syslog", &["syslog-address=x"]),
        ("syslog", &["syslog-address=sctp://x"]),
        ("syslog", &["syslog-facility=x"]),
        ("syslog", &["syslog-format=x"]),
        ("syslog", &["syslog-address=tcp+tls://127.0.0.1:1", "syslog-tls-ca-cert=/nonexistent"]),
        ("syslog", &["cache-max-file=x"]),
        ("journald", &["x=1"]),
        ("fluentd", &["x=1"]),
        ("fluentd", &["fluentd-address=a:b:c"]),
        ("fluentd", &["fluentd-async=x"]),
        ("fluentd", &["fluentd-async-connect=x"]),
        ("fluentd", &["fluentd-async=true", "fluentd-async-connect=true"]),
        ("fluentd", &["fluentd-retry-wait=x"]),
        ("fluentd", &["fluentd-max-retries=x"]),
        ("fluentd", &["fluentd-request-ack=x"]),
        ("fluentd", &["fluentd-sub-second-precision=x"]),
        ("gelf", &[]),
        ("gelf", &["gelf-address=x:1"]),
        ("gelf", &["gelf-address=unix:///x"]),
        ("gelf", &["gelf-address=udp://x"]),
        ("gelf", &["gelf-address=udp://x:1", "x=1"]),
        ("gelf", &["gelf-address=udp://x:1", "gelf-compression-level=10"]),
        ("gelf", &["gelf-address=udp://x:1", "gelf-compression-type=x"]),
        ("gelf", &["gelf-address=tcp://x:1", "gelf-compression-type=gzip"]),
        ("gelf", &["gelf-address=udp://x:1", "gelf-tcp-max-reconnect=1"]),
        ("gelf", &["gelf-address=tcp://x:1", "gelf-tcp-reconnect-delay=-1"]),
        ("splunk", &["x=1"]),
        ("awslogs", &[]),
        ("awslogs", &["awslogs-group=g", "labels=x"]),
        ("awslogs", &["awslogs-group=g", "awslogs-create-group=x"]),
        ("awslogs", &["awslogs-group=g", "awslogs-max-buffered-events=0"]),
        ("awslogs", &["awslogs-group=g", "awslogs-force-flush-interval-seconds=x"]),
        (
            "awslogs",
            &["awslogs-group=g", "awslogs-datetime-format=a", "awslogs-multiline-pattern=b"],
        ),
        ("gcplogs", &["tag=x"]),
    ];
    let mut differences = Vec::new();
    for (driver, options) in table {
        let mut words = vec!["create", "--log-driver", driver];
        for option in options {
            words.extend(["--log-opt", option]);
        }
        words.push("busybox");
        let said = |docker: &Docker<'_>| {
            let output = docker(&words).output().expect("docker");
            let text = if output.status.success() { "created".to_owned() } else { shown(&output) };
            text.replace("Error response from daemon: ", "").trim().to_owned()
        };
        let theirs = said(&|args| dockerd.command(args));
        let ours = said(&|args| house.docker(args));
        let what = format!("{driver} {options:?}");
        if EARLIER.contains(&what.as_str()) {
            assert_ne!(ours, "created", "{what}");
        } else if ours != theirs {
            differences.push(format!("{what}\n  theirs: {theirs}\n  ours:   {ours}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
