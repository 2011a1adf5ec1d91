//! Pulls and loads: plain lines off a terminal, the error's words at the end.

use crate::daemon::{Answer, Daemon};
use crate::docker;

#[test]
fn a_pull_that_fails_says_why() {
    let stream = "{\"status\":\"Pulling from library/x\",\"id\":\"latest\"}\r\n\
        {\"status\":\"Downloading\",\"progressDetail\":{\"current\":1,\"total\":2},\"id\":\"a\"}\r\n\
        {\"errorDetail\":{\"message\":\"broken\"},\"error\":\"broken\"}\r\n";
    let daemon = Daemon::start("1.55", &[("POST /images/create", &[Answer::Json(200, stream)])]);
    let ended = docker(&daemon.socket(), &["pull", "x"], b"");
    assert_eq!(ended.out, "Using default tag: latest\nlatest: Pulling from library/x\n");
    assert_eq!((ended.err.as_str(), ended.status), ("broken\n", 1));
}

#[test]
fn a_load_sends_what_it_is_given() {
    let daemon = Daemon::start(
        "1.41",
        &[
            ("HEAD /_ping", &[Answer::Empty(200)]),
            ("POST /images/load", &[Answer::Json(200, "{\"stream\":\"Loaded image: x\\n\"}")]),
        ],
    );
    let ended = docker(&daemon.socket(), &["load"], b"the archive");
    assert_eq!((ended.out.as_str(), ended.status), ("Loaded image: x\n", 0));
    // A stream cannot be sent twice: the version is asked for first.
    assert_eq!(daemon.lines(), ["HEAD /_ping", "POST /images/load?quiet=1"]);
    assert_eq!(daemon.seen()[1].body, "the archive");
}
