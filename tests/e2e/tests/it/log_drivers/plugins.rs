//! Logging plugins: found as Docker finds them, begun with what they need to know, fed through a FIFO by whoever outlives
//! the daemon, and ended; read by those that can.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

use serde_json::json;
use testkit::House;
use testkit::house::{PATIENCE, shown};
use testkit::plugin::{Plugin, Reply};

/// A record as the plugin has read it: stream, line, and which part of a line.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    source: String,
    line: Vec<u8>,
    partial: bool,
    ordinal: u64,
    last: bool,
}

/// Reads FIFOs from when it is told to, and passes on what was in them.
fn plugin(directory: &std::path::Path) -> (Plugin, Receiver<Entry>) {
    let (sender, receiver) = channel();
    let plugin = Plugin::start(directory, "scribe", move |method, question| match method {
        "Plugin.Activate" => Reply::Json(json!({ "Implements": ["LogDriver"] })),
        "LogDriver.StartLogging" => {
            let file = PathBuf::from(question["File"].as_str().expect("a file"));
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut fifo = File::open(file).expect("a FIFO");
                let mut length = [0; 4];
                while fifo.read_exact(&mut length).is_ok() {
                    let mut body = vec![0; u32::from_be_bytes(length) as usize];
                    fifo.read_exact(&mut body).expect("a whole record");
                    let _nobody = sender.send(entry(&body));
                }
            });
            Reply::Json(json!({ "Err": "" }))
        }
        "LogDriver.Capabilities" => Reply::Json(json!({ "Cap": { "ReadLogs": false } })),
        _ => Reply::Json(json!({ "Err": "" })),
    });
    (plugin, receiver)
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn entry(mut bytes: &[u8]) -> Entry {
    let (mut source, mut line) = (String::new(), Vec::new());
    let (mut partial, mut ordinal, mut last) = (false, 0, false);
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let number = varint(&mut bytes);
        let mut rest = || {
            let (value, rest) = bytes.split_at(usize::try_from(number).expect("a length"));
            bytes = rest;
            value.to_vec()
        };
        match key {
            0x0a => source = String::from_utf8(rest()).expect("text"),
            0x10 => assert!(number > 1_700_000_000_000_000_000),
            0x1a => line = rest(),
            0x20 => partial = number == 1,
            0x2a => {
                let about = rest();
                let mut about = &about[..];
                while !about.is_empty() {
                    match (varint(&mut about), varint(&mut about)) {
                        (0x08, value) => last = value == 1,
                        (0x12, length) => about = &about[usize::try_from(length).expect("short")..],
                        (0x18, value) => ordinal = value,
                        (other, _) => panic!("field {other:#x}"),
                    }
                }
            }
            other => panic!("field {other:#x}"),
        }
    }
    Entry { source, line, partial, ordinal, last }
}

#[test]
fn a_plugin_is_begun_fed_and_ended() {
    let dir = tempfile::tempdir().expect("a place");
    let flag = format!("--plugin-directory={}", dir.path().display());
    let mut house: House = crate::containers::house_with(&[&flag]);
    let refused =
        house.docker(&["create", "--log-driver", "scribe", "busybox"]).output().expect("docker");
    let words = "error looking up logging plugin scribe: plugin \"scribe\" not found";
    assert!(shown(&refused).contains(words), "{}", shown(&refused));

    let (plugin, entries) = plugin(dir.path());
    let command = "mkfifo /f; exec 3<>/f; head -c 20000 /dev/zero | tr '\\0' x; echo; \
                   while read line <&3; do echo $line >&2; done";
    house.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "none",
        "--label",
        "a=b",
        "-e",
        "C=d",
        "--log-driver",
        "scribe",
        "--log-opt",
        "anything=goes",
        "busybox",
        "sh",
        "-c",
        command,
    ]);
    let next = || entries.recv_timeout(PATIENCE).expect("a record");
    let (first, second) = (next(), next());
    assert_eq!(
        (first.line.len(), first.partial, first.ordinal, first.last),
        (16384, true, 1, false)
    );
    assert_eq!(
        (second.line.len(), second.partial, second.ordinal, second.last),
        (3616, true, 2, true)
    );
    let begun = plugin.asked("LogDriver.StartLogging").remove(0);
    let info = &begun["Info"];
    assert_eq!(info["ContainerName"], "/web");
    assert_eq!(info["ContainerEntrypoint"], "sh");
    assert_eq!(info["ContainerArgs"], json!(["-c", command]));
    assert_eq!(info["ContainerImageName"], "busybox");
    assert_eq!(info["ContainerLabels"]["a"], "b");
    assert_eq!(info["Config"], json!({ "anything": "goes" }));
    assert!(info["ContainerEnv"].as_array().expect("a list").contains(&json!("C=d")));

    // Whoever writes the FIFO is not the daemon.
    let pid = house.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    house.kill();
    let fifo = format!("/proc/{}/root/f", pid.trim());
    std::fs::write(fifo, "orphan\n").expect("it reads");
    let orphan = next();
    assert_eq!((orphan.source.as_str(), &orphan.line[..]), ("stderr", &b"orphan"[..]));
    assert!(!orphan.partial);
    house.start();
    let tail = house.ok(&["logs", "--tail", "1", "web"]);
    assert_eq!(tail, "");
    let output = house.docker(&["logs", "--tail", "1", "web"]).output().expect("docker");
    assert_eq!(shown(&output), "orphan\n");
    house.ok(&["rm", "-f", "web"]);
    // The plugin is told, and nothing is left for it to read.
    while plugin.asked("LogDriver.StopLogging").is_empty() {
        std::thread::yield_now();
    }
    let stopped = plugin.asked("LogDriver.StopLogging").remove(0);
    assert_eq!(stopped["File"], begun["File"]);
}

/// Length, source, time, line.
fn record(source: &str, second: u8, line: &str) -> Vec<u8> {
    let nanos = u64::from(second) * 1_000_000_000;
    let mut time = Vec::new();
    let mut rest = nanos;
    while rest >= 0x80 {
        time.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    time.push(rest.to_le_bytes()[0]);
    let short = |text: &str| u8::try_from(text.len()).expect("a short one");
    let source = [&[0x0a, short(source)], source.as_bytes()].concat();
    let body =
        [&source[..], &[0x10], &time, &[0x1a, short(line)], line.as_bytes(), &[0x20, 0]].concat();
    [&u32::try_from(body.len()).expect("short").to_be_bytes()[..], &body].concat()
}

#[test]
fn a_plugin_that_reads_is_asked() {
    let dir = tempfile::tempdir().expect("a place");
    let flag = format!("--plugin-directory={}", dir.path().display());
    let mut house: House = crate::containers::house_with(&[&flag]);
    let (say, said) = channel::<Vec<u8>>();
    let said = std::sync::Mutex::new(Some(said));
    let plugin = Plugin::start(dir.path(), "keeper", move |method, question| match method {
        "Plugin.Activate" => Reply::Json(json!({ "Implements": ["LogDriver"] })),
        "LogDriver.Capabilities" => Reply::Json(json!({ "Cap": { "ReadLogs": true } })),
        "LogDriver.ReadLogs" if question["Config"]["Follow"] == true => {
            Reply::Stream(said.lock().expect("nobody panics").take().expect("one follower"))
        }
        "LogDriver.ReadLogs" if question["Config"]["Tail"] == 5 => {
            Reply::Refuse(500, json!({ "Err": "lost it" }))
        }
        "LogDriver.ReadLogs" => {
            let (sender, pieces) = channel();
            let all = [
                record("stdout", 1, "one\n"),
                record("stderr", 2, "two\n"),
                record("stdout", 3, "end"),
            ];
            for record in all {
                // A record need not come in one piece.
                let (begin, rest) = record.split_at(7);
                sender
                    .send(begin.to_vec())
                    .and_then(|()| sender.send(rest.to_vec()))
                    .expect("room");
            }
            Reply::Stream(pieces)
        }
        _ => Reply::Json(json!({ "Err": "" })),
    });
    let run = ["run", "-d", "--name", "web", "--network", "none", "--log-driver", "keeper"];
    house.ok(&[&run[..], &["--log-opt", "a=b", "busybox", "sleep", "1000"]].concat());
    let said = |args: &[&str]| {
        let output = house.docker(args).output().expect("docker");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr), output.status.code())
    };
    let all = ("one\nend".to_owned(), "two\n".to_owned(), Some(0));
    assert_eq!(said(&["logs", "web"]), all);
    assert_eq!(
        said(&["logs", "-t", "--since", "2", "--until", "2.5", "web"]),
        (String::new(), "1970-01-01T00:00:02.000000000Z two\n".to_owned(), Some(0))
    );
    let (out, err, code) = said(&["logs", "--tail", "5", "web"]);
    let words =
        "Error grabbing logs: error getting log reader from plugin: LogDriver.ReadLogs: lost it";
    assert!(out.is_empty() && err.trim_end().ends_with(words), "{out} {err}");
    assert_eq!(code, Some(1));
    let asked = plugin.asked("LogDriver.ReadLogs");
    assert_eq!(asked[0]["Info"]["ContainerName"], "/web");
    assert_eq!(asked[0]["Info"]["Config"], json!({ "a": "b" }));
    let never = "0001-01-01T00:00:00Z";
    let whole = json!({ "Since": never, "Until": never, "Tail": -1, "Follow": false });
    assert_eq!(asked[0]["Config"], whole);
    assert_eq!(asked[1]["Config"]["Since"], "1970-01-01T00:00:02Z");
    // It has been begun once, by the container's start; nothing is kept twice.
    assert_eq!(plugin.asked("LogDriver.StartLogging").len(), 1);
    let id = house.ok(&["inspect", "-f", "{{.Id}}", "web"]);
    let kept = house.data_root().join("containers").join(id.trim()).join("container-cached.log");
    assert!(!kept.exists());

    let mut follower = house.docker(&["logs", "-f", "web"]);
    let mut follower = follower.stdout(std::process::Stdio::piped()).spawn().expect("docker");
    say.send(record("stdout", 4, "live\n")).expect("it listens");
    let mut line = [0; 5];
    follower.stdout.as_mut().expect("a pipe").read_exact(&mut line).expect("a line");
    assert_eq!(&line, b"live\n");
    // Nobody listens any more: the plugin gets to know.
    follower.kill().and_then(|()| follower.wait()).expect("it ends");
    while say.send(record("stdout", 5, "more\n")).is_ok() {
        std::thread::yield_now();
    }

    // One that has ended, and a daemon that has not seen its plugin: it is begun for the reading, and ended.
    house.ok(&["kill", "web"]);
    house.ok(&["wait", "web"]);
    while plugin.asked("LogDriver.StopLogging").is_empty() {
        std::thread::yield_now();
    }
    house.kill();
    house.start();
    let output = house.docker(&["logs", "-f", "web"]).output().expect("docker");
    assert_eq!(output.stdout, b"one\nend");
    assert_eq!(plugin.asked("LogDriver.StartLogging").len(), 2);
    while plugin.asked("LogDriver.StopLogging").len() < 2 {
        std::thread::yield_now();
    }
    house.ok(&["rm", "web"]);
}

#[test]
fn a_plugin_that_refuses() {
    let dir = tempfile::tempdir().expect("a place");
    let flag = format!("--plugin-directory={}", dir.path().display());
    let house: House = crate::containers::house_with(&[&flag]);
    let _plugin = Plugin::start(dir.path(), "grumpy", |method, _| match method {
        "Plugin.Activate" => Reply::Json(json!({ "Implements": ["LogDriver"] })),
        _ => Reply::Json(json!({ "Err": "not today" })),
    });
    let args = ["run", "--rm", "--network", "none", "--log-driver", "grumpy", "busybox", "true"];
    let refused = house.docker(&args).output().expect("docker");
    let words = "failed to initialize logging driver: error creating logger: not today";
    assert!(shown(&refused).contains(words), "{}", shown(&refused));
}
