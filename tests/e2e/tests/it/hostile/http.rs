//! A4: what is not HTTP, or too much of it.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use testkit::House;
use testkit::house::PATIENCE;

use super::{bystander, unharmed};
use crate::containers::house;

fn connect(house: &House) -> UnixStream {
    let stream = UnixStream::connect(house.socket()).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    stream.set_write_timeout(Some(PATIENCE)).expect("a deadline");
    stream
}

/// All that comes back until the daemon hangs up; a reset is an end, too.
fn said(house: &House, bytes: &[u8]) -> String {
    let mut stream = connect(house);
    // The daemon may have heard enough before it has heard all.
    drop(stream.write_all(bytes));
    drop(stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            panic!(
                "no end of the answer to {:?}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(200)])
            )
        }
        _ => String::from_utf8_lossy(&answer).into_owned(),
    }
}

#[test]
fn a4_what_is_not_http_ends_its_own_connection() {
    let house = house();
    bystander(&house);
    let pid = house.pid();
    let create =
        "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n";
    let inner = "GET /containers/bystander/json HTTP/1.1\r\nHost: d\r\n\r\n";
    // Two lengths: whoever stands between may have believed the other one.
    let smuggled = format!(
        "{create}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}",
        inner.len() + 5
    );
    let answers = said(&house, smuggled.as_bytes());
    assert!(
        answers.matches("HTTP/1.1 ").count() <= 1 || !answers.contains("bystander"),
        "{answers}"
    );
    let refused: &[String] = &[
        format!("{create}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{{}}   "),
        format!("{create}Content-Length: -1\r\n\r\n{{}}"),
        format!("{create}Content-Length: 99999999999999999999999\r\n\r\n{{}}"),
        format!(
            "{create}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{{}}\r\n0\r\n\r\n"
        ),
        format!("{create}Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n"),
        format!("{create}Transfer-Encoding: gzip\r\n\r\n{{}}"),
        "GET /_ping HTTP/1.1\r\nHost: d\r\nA b: c\r\n\r\n".to_owned(),
        "GET /_ping HTTP/1.1\r\nHost: d\r\n: c\r\n\r\n".to_owned(),
        "GET /_ping\0 HTTP/1.1\r\nHost: d\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nHost: d\r\n\r\n", "a".repeat(1 << 20)),
        format!("GET /_ping HTTP/1.1\r\nHost: d\r\n{}\r\n", "a: b\r\n".repeat(100_000)),
        format!("GET /_ping HTTP/1.1\r\nHost: d\r\na: {}\r\n\r\n", "b".repeat(4 << 20)),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}".to_owned(),
    ];
    for request in refused {
        let answer = said(&house, request.as_bytes());
        let good = answer.contains("HTTP/1.1 2") || answer.contains("HTTP/1.1 5");
        assert!(!good, "{:?}: {answer}", &request[..request.len().min(200)]);
        unharmed(&house, pid);
    }
    // No end of a head, no end of a body, a body that comes byte by byte: nobody else waits for them.
    let mut slow = Vec::new();
    for bytes in
        ["GET /_pi", "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 50\r\n\r\n{"]
    {
        for _ in 0..200 {
            let mut stream = connect(&house);
            stream.write_all(bytes.as_bytes()).expect("the daemon listens");
            slow.push(stream);
        }
    }
    unharmed(&house, pid);
    // Many requests at once on one connection are answered in their order.
    let mut stream = connect(&house);
    let ping = "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n".repeat(500);
    stream.write_all(ping.as_bytes()).expect("the daemon listens");
    stream
        .write_all(b"GET /nowhere HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
        .expect("it listens");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("answers");
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 500);
    assert!(answers.rfind("HTTP/1.1 404") > answers.rfind("HTTP/1.1 200"));
    drop(slow);
    unharmed(&house, pid);
}

/// Scripts write filters as they are (`curl 'http://d/containers/json?filters={"name":["a"]}'`), and Go reads them.
#[test]
fn what_nobody_escaped_is_understood() {
    let house = house();
    bystander(&house);
    let get = |query: &str, more: &str| {
        format!("GET /v1.41/containers/json?{query} HTTP/1.1\r\nHost: d\r\n{more}\r\n")
    };
    let close = "Connection: close\r\n";
    let asked = [r#"filters={"name":["bystander"]}"#, r#"filters={"name":["nobody"]}&x=<é^`|\#>"#];
    let answers = asked.map(|query| said(&house, get(query, close).as_bytes()));
    assert!(answers[0].contains("\"/bystander\""), "{}", answers[0]);
    assert!(answers[1].ends_with("\r\n\r\n[]\n"), "{}", answers[1]);
    // On one connection, one after the other.
    let mut stream = connect(&house);
    for _ in 0..3 {
        stream.write_all(get(asked[1], "").as_bytes()).expect("the daemon listens");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n[]\n") {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).expect("an answer"), 1, "{answer:?}");
            answer.push(byte[0]);
        }
    }
}

/// `printf … | socat - UNIX:/run/gantry.sock`: nothing more is said, and the answer is waited for.
#[test]
fn who_says_nothing_more_is_answered() {
    let house = house();
    bystander(&house);
    for _ in 0..20 {
        let list = said(&house, b"GET /containers/json HTTP/1.1\r\nHost: d\r\n\r\n");
        assert!(list.contains("\"/bystander\""), "{list:?}");
    }
    let body = r#"{"Image":"busybox","HostConfig":{"NetworkMode":"none"}}"#;
    let head = "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json";
    let create = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let made = said(&house, create.as_bytes());
    assert!(made.starts_with("HTTP/1.1 201 "), "{made:?}");
    std::thread::scope(|scope| {
        let wait = b"POST /containers/bystander/wait HTTP/1.1\r\nHost: d\r\n\r\n";
        let waiting = scope.spawn(|| said(&house, wait));
        house.ok(&["kill", "bystander"]);
        let end = waiting.join().expect("it is told");
        assert!(end.contains("{\"StatusCode\":137}"), "{end:?}");
    });
    // What it said is not whole: there is nothing to wait for.
    let half = create.replace("Content-Length: ", "Content-Length: 1");
    let asked = Instant::now();
    let refused = said(&house, half.as_bytes());
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused:?}");
    assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
}

/// HTTP/2 by prior knowledge: streams that are opened and reset as fast as they can be written (CVE-2023-44487).
#[test]
fn a4_streams_that_are_reset_cost_only_their_connection() {
    let house = house();
    bystander(&house);
    let pid = house.pid();
    let mut stream = connect(&house);
    stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a deadline");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    // :method GET, :scheme http, :path /, each from the static table.
    let head = [0x82, 0x86, 0x84];
    for number in 0..50_000_u32 {
        let id = (number * 2 + 1).to_be_bytes();
        bytes.extend([0, 0, 3, 1, 5]);
        bytes.extend(id);
        bytes.extend(head);
        bytes.extend([0, 0, 4, 3, 0]);
        bytes.extend(id);
        bytes.extend([0, 0, 0, 8]);
    }
    // It stops listening when it has had enough.
    drop(stream.write_all(&bytes));
    unharmed(&house, pid);
}
