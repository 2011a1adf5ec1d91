//! L9: logs that are rotated as fast as they can be written. Who follows reads every line once, or is told that there were
//! files which he did not read.

use std::io::Read;

use serde_json::{Value, json};
use testkit::House;

use super::{ask, begin, head, measure, start};
use crate::containers::house;

/// What is said in place of what can no longer be read.
const LOST: &str = "log files were rotated away before they could be read]";

/// What one follower has read.
#[derive(Debug, Default)]
struct Heard {
    lines: usize,
    gaps: usize,
}

/// Reads an answer in frames to its end, and has every line be the one after the line before.
fn follow(mut bytes: impl Read) -> Heard {
    let (mut heard, mut last, mut lost) = (Heard::default(), 0_u64, false);
    let mut text = Vec::new();
    let mut header = [0; 8];
    let mut line = |line: &str| {
        if line.contains(LOST) {
            lost = true;
            heard.gaps += 1;
            return;
        }
        let number: u64 = line.parse().unwrap_or_else(|_| panic!("{line:?} after {last}"));
        let next = number == last + 1;
        assert!(next || (lost && number > last), "{number} after {last}, and nothing was said");
        (last, lost) = (number, false);
        heard.lines += 1;
    };
    while bytes.read_exact(&mut header).is_ok() {
        let length = u32::from_be_bytes(header[4..].try_into().expect("four")) as usize;
        let at = text.len();
        text.resize(at + length, 0);
        bytes.read_exact(&mut text[at..]).expect("a frame is whole");
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let rest = text.split_off(end + 1);
            line(std::str::from_utf8(&text[..end]).expect("text"));
            text = rest;
        }
    }
    assert!(text.is_empty(), "half a line");
    heard
}

fn speaker(house: &House, name: &str, lines: usize, files: &str) {
    let log = json!({"Type": "json-file", "Config": {"max-size": "256k", "max-file": files}});
    let script = format!("mkfifo /go; read word < /go; seq 1 {lines}");
    start(&house.client_of_api(), name, &["sh", "-c", &script], json!({"LogConfig": log}));
}

fn go(house: &House, name: &str) {
    house.ok(&["exec", name, "sh", "-c", "echo go > /go"]);
}

fn rotation(containers: usize, followers: usize, lines: usize) {
    let house = house();
    let client = house.client_of_api();
    let name = |at: usize| format!("ca{at}");
    for at in 0..containers {
        speaker(&house, &name(at), lines, ["1", "3"][at % 2]);
    }
    std::thread::scope(|scope| {
        let mut listening = Vec::new();
        for at in 0..containers {
            for _ in 0..followers {
                let path = format!("/containers/{}/logs?follow=1&stdout=1&stderr=1", name(at));
                let mut stream = begin(&client, "GET", &path, "");
                let chunked = head(&mut stream).to_lowercase().contains("chunked");
                listening.push(scope.spawn(move || follow(Body { stream, chunked, left: 0 })));
            }
        }
        (0..containers).for_each(|at| go(&house, &name(at)));
        for (index, one) in listening.into_iter().enumerate() {
            let heard = one.join().expect("it hears the end");
            println!("follower {index}: {heard:?}");
            assert!(heard.lines == lines || heard.gaps > 0, "{heard:?}");
        }
    });
    for at in 0..containers {
        let wait = format!("/containers/{}/wait", name(at));
        assert_eq!(ask(&client, "POST", &wait, &Value::Null)["StatusCode"], 0);
        assert_eq!(house.ok(&["logs", "--tail", "1", &name(at)]), format!("{lines}\n"));
    }
}

/// A body that comes in chunks, or as it is.
struct Body {
    stream: std::os::unix::net::UnixStream,
    chunked: bool,
    left: usize,
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if !self.chunked {
            return self.stream.read(into);
        }
        if self.left == 0 {
            let mut size = Vec::new();
            // What ends the chunk before comes first.
            while !(size.ends_with(b"\r\n") && size.len() > 2) {
                let mut byte = [0];
                if self.stream.read(&mut byte)? == 0 {
                    return Ok(0);
                }
                size.push(byte[0]);
            }
            let size = String::from_utf8_lossy(&size).trim().to_owned();
            self.left = usize::from_str_radix(&size, 16).map_err(std::io::Error::other)?;
            if self.left == 0 {
                return Ok(0);
            }
        }
        let most = into.len().min(self.left);
        let count = self.stream.read(&mut into[..most])?;
        self.left -= count;
        Ok(count)
    }
}

#[test]
fn l9_followers_of_rotated_logs() {
    rotation(2, 3, 40_000);
}

#[test]
#[ignore = "a minute; `LINES` says how much each of sixteen says"]
fn l9_full_size() {
    rotation(16, 8, measure("LINES", 1_000_000));
}

#[test]
fn l9_who_does_not_read_is_told() {
    let house = house();
    let client = house.client_of_api();
    speaker(&house, "ca", 100_000, "1");
    let mut stream = begin(&client, "GET", "/containers/ca/logs?follow=1&stdout=1&stderr=1", "");
    let chunked = head(&mut stream).to_lowercase().contains("chunked");
    go(&house, "ca");
    // The container is held up by nobody.
    assert_eq!(ask(&client, "POST", "/containers/ca/wait", &Value::Null)["StatusCode"], 0);
    let heard = follow(Body { stream, chunked, left: 0 });
    assert!(heard.gaps > 0 && heard.lines < 100_000, "{heard:?}");
}
