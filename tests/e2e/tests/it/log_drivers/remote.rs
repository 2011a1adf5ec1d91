//! What Debian's dockerd cannot show: TLS, acknowledgements, servers that stall or go, and what the container notices.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;
use testkit::house::{PATIENCE, shown};
use testkit::{House, Netns};

use super::msgpack;
use super::servers::{certificate, hear_tls, http, inside, is_silent, next, tcp};

fn house(netns: &Netns) -> House {
    super::beside::house(netns, &[])
}

fn run(house: &House, name: &str, options: &[&str], command: &str) {
    let mut args = vec!["run", "-d", "--name", name, "--network", "none"];
    for option in options {
        args.extend(["--log-opt", option]);
    }
    // The driver is the first word of its options' names.
    let driver = options[0].split('-').next().expect("a driver");
    args.extend(["--log-driver", driver, "busybox", "sh", "-c", command]);
    house.ok(&args);
}

fn lines(bytes: &[u8]) -> Vec<String> {
    let events = msgpack::values(bytes);
    events.iter().map(|event| event[2]["log"].as_str().expect("a line").to_owned()).collect()
}

#[test]
fn fluentd_acknowledges_and_is_sent_again_what_it_did_not() {
    let netns = Netns::new();
    let house = house(&netns);
    let (listener, address) = tcp(&netns);
    let place = format!("fluentd-address={address}");
    let retry = "fluentd-retry-wait=10ms";
    let wait = "fluentd-write-timeout=5s";
    let begun = std::thread::spawn(move || {
        // One that hangs up instead of answering, then one that answers.
        let mut heard = Vec::new();
        for answers in [false, true] {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                let event = msgpack::values(&bytes[..count]).remove(0);
                heard.push(event.clone());
                if !answers {
                    break;
                }
                let chunk = event[3]["chunk"].as_str().expect("a number").to_owned();
                let length = u8::try_from(chunk.len()).expect("short");
                let mut answer = b"\x81\xa3ack".to_vec();
                answer.push(0xa0 | length);
                answer.extend_from_slice(chunk.as_bytes());
                stream.write_all(&answer).expect("it listens");
            }
        }
        heard
    });
    run(&house, "ack", &[&place, "fluentd-request-ack=true", retry, wait], "echo one; echo two");
    let heard: Vec<Value> = begun.join().expect("a server");
    let said: Vec<_> = heard.iter().map(|event| event[2]["log"].as_str().unwrap_or("")).collect();
    assert_eq!(said, ["one", "one", "two"]);
    assert_eq!(heard[0][3]["chunk"], heard[1][3]["chunk"]);
    // Kept here, too.
    house.ok(&["wait", "ack"]);
    assert_eq!(house.ok(&["logs", "ack"]), "one\ntwo\n");
}

#[test]
fn by_tls() {
    let netns = Netns::new();
    let dir = tempfile::tempdir().expect("a place");
    let config = certificate(dir.path(), "logs.test");
    let house = house(&netns);

    let (listener, address) = tcp(&netns);
    let place = format!("syslog-address=tcp+tls://{address}");
    let authority = format!("syslog-tls-ca-cert={}", dir.path().join("crt").display());
    let format = "syslog-format=rfc5424";
    // A start waits for the handshake: the server must listen meanwhile.
    let heard = |name: &str, options: &[&str], command: &str| {
        std::thread::scope(|scope| {
            let server = scope.spawn(|| hear_tls(&listener, &config));
            run(&house, name, options, command);
            String::from_utf8(server.join().expect("a server")).expect("text")
        })
    };
    let options = [place.as_str(), &authority, format, "tag=t"];
    let text = heard("syslog", &options, "echo one; echo two");
    // Each with its length before it.
    let (length, rest) = text.split_once(' ').expect("a length");
    let (first, second) = rest.split_at(length.parse().expect("a number"));
    assert!(first.starts_with("<30>1 20") && first.ends_with(" - one\n"), "{first}");
    assert!(second.ends_with(" - two\n"), "{second}");
    let text = heard("anybody", &[&place, "syslog-tls-skip-verify=1", "tag=t"], "echo one");
    assert!(text.starts_with("<30>") && text.ends_with("]: one\n"), "{text}");

    // Who is not vouched for is not told anything.
    let strangers = std::thread::spawn({
        let config = config.clone();
        move || hear_tls(&listener, &config)
    });
    let args = ["run", "--rm", "--network", "none", "--log-driver", "syslog", "--log-opt", &place];
    let refused =
        house.docker(&[&args[..], &["busybox", "true"]].concat()).output().expect("docker");
    let words = "failed to initialize logging driver: dial tcp+tls";
    assert!(shown(&refused).contains(words), "{}", shown(&refused));
    assert!(strangers.join().expect("a server").is_empty());

    let (asked, address) = http(&netns, Some(config), |_| (200, "{}".to_owned()));
    let place = format!("splunk-url=https://{address}");
    let authority = format!("splunk-capath={}", dir.path().join("crt").display());
    let name = "splunk-caname=logs.test";
    run(&house, "splunk", &[&place, "splunk-token=t", &authority, name], "echo one");
    assert_eq!(next(&asked).method, "OPTIONS");
    assert!(next(&asked).text().contains("\"line\":\"one\""));
    let insecure = "splunk-insecureskipverify=true";
    run(&house, "insecure", &[&place, "splunk-token=t", insecure], "echo two");
    assert_eq!(next(&asked).method, "OPTIONS");
    assert!(next(&asked).text().contains("\"line\":\"two\""));
}

#[test]
fn a_server_that_is_not_there_is_told_at_the_start() {
    let netns = Netns::new();
    let house = house(&netns);
    for (driver, options, words) in [
        (
            "fluentd",
            "fluentd-address=127.0.0.1:1",
            "dial tcp 127.0.0.1:1: connect: connection refused",
        ),
        (
            "gelf",
            "gelf-address=tcp://127.0.0.1:1",
            "gelf: cannot connect to GELF endpoint: 127.0.0.1:1 dial tcp 127.0.0.1:1: connect: connection refused",
        ),
        ("splunk", "splunk-url=http://127.0.0.1:1", "splunk: splunk-token is expected"),
        (
            "splunk",
            "splunk-url=http://127.0.0.1:1 splunk-token=t",
            "Options \"http://127.0.0.1:1/services/collector/event/1.0\": dial tcp 127.0.0.1:1: connect: connection refused",
        ),
        (
            "splunk",
            "splunk-url=https://127.0.0.1:1 splunk-token=t splunk-capath=/nope",
            "open /nope: no such file or directory",
        ),
    ] {
        let mut args = vec!["run", "--rm", "--network", "none", "--log-driver", driver];
        args.extend(options.split(' ').flat_map(|option| ["--log-opt", option]));
        args.extend(["busybox", "true"]);
        let refused = house.docker(&args).output().expect("docker");
        let words = format!("failed to initialize logging driver: {words}");
        assert!(
            shown(&refused).to_lowercase().contains(&words.to_lowercase()),
            "{}",
            shown(&refused)
        );
    }
    assert_eq!(house.ok(&["ps", "-aq"]), "");
    // Who does not wait for it is not told.
    run(
        &house,
        "later",
        &["fluentd-address=127.0.0.1:1", "fluentd-async=true"],
        "seq 1 20000; exit 3",
    );
    assert_eq!(house.ok(&["wait", "later"]).trim(), "3");
    assert_eq!(house.ok(&["logs", "--tail", "1", "later"]), "20000\n");
}

/// L4's log part, for a server that takes nothing: in either mode the container's end, and what is asked of it, wait for
/// nobody.
#[test]
fn a_server_that_stalls() {
    let netns = Netns::new();
    let mut house = house(&netns);
    let (listener, address) = tcp(&netns);
    let place = format!("fluentd-address={address}");
    let speak = "seq 1 300000; exit 3";
    let hasty = ["mode=non-blocking", "max-buffer-size=64k"];
    run(&house, "hasty", &[&[place.as_str()][..], &hasty].concat(), speak);
    let (silent, _) = listener.accept().expect("a connection");
    assert_eq!(house.ok(&["wait", "hasty"]).trim(), "3");
    drop(silent);

    // It waits for its server; its daemon's death changes nothing, and it can be ended at any time.
    run(&house, "patient", &[&place], speak);
    let (silent, _) = listener.accept().expect("a connection");
    house.kill();
    house.start();
    assert_eq!(house.ok(&["inspect", "-f", "{{.State.Running}}", "patient"]).trim(), "true");
    house.ok(&["kill", "patient"]);
    assert_eq!(house.ok(&["wait", "patient"]).trim(), "137");
    drop(silent);

    // What is left of the one before may still be on its way to the old place.
    let (listener, address) = tcp(&netns);
    let place = format!("fluentd-address={address}");
    run(&house, "served", &[&place], speak);
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an end");
    let said = lines(&bytes);
    assert_eq!((said.len(), said[299_999].as_str()), (300_000, "300000"));
    assert_eq!(house.ok(&["wait", "served"]).trim(), "3");
}

#[test]
fn a_server_that_goes_and_comes_back() {
    let netns = Netns::new();
    let house = house(&netns);
    let (listener, address) = tcp(&netns);
    let place = format!("gelf-address=tcp://{address}");
    let quick = ["gelf-tcp-max-reconnect=50", "gelf-tcp-reconnect-delay=0"];
    let fifo = "mkfifo /f; exec 3<>/f; while read line <&3; do echo $line; done";
    run(&house, "talk", &[&[place.as_str()][..], &quick].concat(), fifo);
    let say = |line: &str| {
        let script = format!("until [ -p /f ]; do usleep 1000; done; echo {line} > /f");
        house.ok(&["exec", "talk", "sh", "-c", &script])
    };
    let message = |stream: &mut TcpStream| {
        let mut bytes = Vec::new();
        while bytes.last() != Some(&0) {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a byte");
            bytes.push(byte[0]);
        }
        let value: Value = serde_json::from_slice(&bytes[..bytes.len() - 1]).expect("JSON");
        value["short_message"].as_str().unwrap_or_default().to_owned()
    };
    let (mut first, _) = listener.accept().expect("a connection");
    say("one");
    assert_eq!(message(&mut first), "one");
    drop(first);
    drop(listener);
    say("two");
    let listener = inside(&netns, || std::net::TcpListener::bind(address).expect("its port"));
    say("three");
    let (mut second, _) = listener.accept().expect("a connection");
    assert!(["two", "three"].contains(&message(&mut second).as_str()));
}

/// Of everything that goes elsewhere `docker logs` knows here, as far as it may.
#[test]
fn what_is_kept_here() {
    let netns = Netns::new();
    let house = house(&netns);
    let (asked, address) = http(&netns, None, |_| (200, "{}".to_owned()));
    let place = format!("splunk-url=http://{address}");
    let common = [place.as_str(), "splunk-token=t", "splunk-verify-connection=false"];
    let few = ["cache-max-size=10k", "cache-max-file=2", "cache-compress=false"];
    run(&house, "few", &[&common[..], &few].concat(), "seq 1 3000");
    house.ok(&["wait", "few"]);
    let kept = house.ok(&["logs", "few"]);
    assert!(kept.ends_with("2999\n3000\n") && !kept.starts_with("1\n"), "{}", kept.len());
    run(&house, "none", &[&common[..], &["cache-disabled=true"]].concat(), "echo x");
    let refused = house.docker(&["logs", "none"]).output().expect("docker");
    let words = "configured logging driver does not support reading";
    assert!(shown(&refused).contains(words), "{}", shown(&refused));
    // All of them have arrived all the same.
    let mut events = 0;
    while events < 3001 {
        events += next(&asked).text().matches("\"line\":").count();
    }
    assert!(is_silent(&asked));
}
