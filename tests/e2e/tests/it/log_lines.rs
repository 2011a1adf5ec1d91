//! `docker logs` of the same file, line by line as Debian's dockerd reads it: every option, by the docker command and by
//! ours; and files that a crash has left behind, of which ours reads what there is.

use std::process::{Command, Output};

use serde_json::json;
use testkit::House;
use testkit::house::succeed;

use crate::containers::house;
use crate::foreign::{Dockerd, theirs};

fn record(second: u32, text: &str, stream: &str, attrs: bool) -> String {
    let time = match second % 3 {
        0 => format!("2026-11-21T10:00:{second:02}Z"),
        _ => format!("2026-11-21T10:00:{second:02}.{:09}Z", second * 1000),
    };
    let mut record = json!({ "log": text, "stream": stream, "time": time });
    if attrs {
        record["attrs"] = json!({ "b": "x,y=1", "a": "1" });
    }
    format!("{record}\n")
}

fn out(second: u32, text: &str) -> String {
    record(second, text, "stdout", false)
}

const OPTIONS: [&[&str]; 22] = [
    &[],
    &["--tail", "3"],
    &["--tail", "0"],
    &["--tail", "-1"],
    &["--tail", "x"],
    &["--tail", "100"],
    &["-t", "--tail", "2"],
    &["--details"],
    &["--details", "-t"],
    &["--since", "2026-11-21T10:00:05Z"],
    &["--until", "2026-11-21T10:00:05Z"],
    &["--since", "2026-11-21T10:00:03Z", "--until", "2026-11-21T10:00:08.000008Z"],
    &["--since", "2026-11-21T10:00:03Z", "--tail", "2"],
    &["--until", "2026-11-21T10:00:10Z", "--tail", "2"],
    &["--until", "2026-11-21T10:00:10Z", "--tail", "15"],
    &["--since", "2027-01-01T00:00:00Z"],
    &["--until", "2025-01-01T00:00:00Z"],
    &["--since", "1795255205.5"],
    &["--since", "bogus"],
    &["-f", "--tail", "1"],
    &["-f", "--until", "2026-11-21T10:00:04Z"],
    &["--since", "0", "--until", "0"],
];

/// A container that has ended, and the file that holds its log.
fn ended(docker: &dyn Fn(&[&str]) -> Command) -> std::path::PathBuf {
    let words = ["run", "--name", "web", "--network", "none", "--log-driver", "json-file"];
    succeed(docker(&[&words[..], &["busybox", "echo", "x"]].concat()));
    succeed(docker(&["inspect", "-f", "{{.LogPath}}", "web"])).trim().into()
}

fn said(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("it can be executed");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn as_dockerd_reads_it() {
    let dockerd = Dockerd::new(&theirs!("dockerd"));
    let house = house();
    let paths = [ended(&|words| dockerd.command(words)), ended(&|words| house.docker(words))];
    let plain = |second| {
        let stream = if second % 4 == 1 { "stderr" } else { "stdout" };
        record(second, &format!("line {second}\n"), stream, second % 5 == 0)
    };
    let parts = [out(1, "one\n"), out(2, "p"), out(2, "q"), out(2, "r\n"), out(4, "no end")];
    let odd = [out(1, "\n"), out(2, "a\u{2028}\u{7}\n"), out(3, ""), out(4, "end\n")];
    for text in [(0..20).map(plain).collect(), parts.concat(), odd.concat(), String::new()] {
        for path in &paths {
            std::fs::write(path, &text).expect("a log");
        }
        for options in OPTIONS {
            let words = [&["logs"][..], options, &["web"]].concat();
            let theirs = said(dockerd.command(&words));
            assert_eq!(said(house.docker(&words)), theirs, "{options:?} of {text}");
            assert_eq!(said(house.gantry(&words)), theirs, "our command, {options:?} of {text}");
        }
    }
}

/// dockerd ends at the first byte that is wrong.
#[test]
fn what_a_crash_has_left() {
    let house: House = house();
    let path = ended(&|words| house.docker(words));
    let (one, two) = (out(1, "one\n"), out(2, "two\n"));
    let nothing = "\0".repeat(4096);
    for text in [
        format!("{one}not json\n{two}"),
        format!("{one}{nothing}\n{two}"),
        format!("{one}{two}{nothing}"),
        format!("{one}{two}{}", &out(3, "three\n")[..30]),
    ] {
        std::fs::write(&path, &text).expect("a log");
        assert_eq!(house.ok(&["logs", "web"]), "one\ntwo\n");
        assert_eq!(house.ok(&["logs", "--since", "2026-11-21T10:00:02Z", "web"]), "two\n");
    }
}
