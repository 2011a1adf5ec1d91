//! `run`, `exec` and `logs`: streams, statuses, and the order of requests.

use api::stream::{Stream, frame};

use crate::daemon::{Answer, Daemon};
use crate::docker;

const CREATED: Answer = Answer::Json(201, r#"{"Id":"abc","Warnings":null}"#);

fn speaking(status: &'static str) -> Daemon {
    let mut said = frame(Stream::Stdout, b"out\n");
    said.extend(frame(Stream::Stderr, b"err\n"));
    Daemon::start(
        "1.41",
        &[
            ("POST /containers/create", &[CREATED]),
            ("POST /containers/abc/attach", &[Answer::Echo(said)]),
            ("POST /containers/abc/wait", &[Answer::Json(200, status)]),
            ("POST /containers/abc/start", &[Answer::Empty(204)]),
        ],
    )
}

#[test]
fn streams_and_status_come_through() {
    let daemon = speaking(r#"{"StatusCode":3}"#);
    let ended =
        docker(&daemon.socket(), &["run", "-i", "--rm", "--name", "n", "busybox", "cat"], b"in");
    assert_eq!((ended.out.as_str(), ended.err.as_str(), ended.status), ("out\nin", "err\n", 3));
    let mut lines = daemon.lines();
    lines[1..3].sort();
    assert_eq!(
        lines,
        [
            "POST /containers/create?name=n",
            "POST /containers/abc/attach?stream=1&stdin=1&stdout=1&stderr=1",
            "POST /containers/abc/wait?condition=removed",
            "POST /containers/abc/start",
        ]
    );
    let body: serde_json::Value = serde_json::from_str(&daemon.seen()[0].body).unwrap();
    assert_eq!(body["Cmd"], serde_json::json!(["cat"]));
    assert_eq!(body["HostConfig"]["AutoRemove"], true);
}

#[test]
fn a_missing_image_is_pulled() {
    let daemon = Daemon::start(
        "1.55",
        &[
            (
                "POST /containers/create",
                &[Answer::Json(404, r#"{"message":"No such image: x:latest"}"#), CREATED],
            ),
            (
                "POST /images/create",
                &[Answer::Json(
                    200,
                    "{\"status\":\"Pulling from library/x\",\"id\":\"latest\"}\n{\"status\":\"Status: done\"}\n",
                )],
            ),
            ("POST /containers/abc/start", &[Answer::Empty(204)]),
        ],
    );
    let ended = docker(&daemon.socket(), &["run", "-d", "x"], b"");
    assert_eq!(ended.out, "abc\n");
    assert_eq!(
        ended.err,
        "Unable to find image 'x:latest' locally\nlatest: Pulling from library/x\nStatus: done\n"
    );
    assert_eq!(daemon.lines()[1], "POST /images/create?fromImage=x&tag=latest");
}

#[test]
fn what_could_not_start_decides_the_status() {
    for (words, status) in [
        ("exec: \\\"nope\\\": executable file not found in $PATH", 127),
        ("exec: \\\"/tmp\\\": permission denied", 126),
        ("no such network", 125),
    ] {
        let refusal: &'static str =
            Box::leak(format!(r#"{{"message":"{words}"}}"#).into_boxed_str());
        let daemon = Daemon::start(
            "1.55",
            &[
                ("POST /containers/create", &[CREATED]),
                ("POST /containers/abc/start", &[Answer::Json(400, refusal)]),
            ],
        );
        let ended = docker(&daemon.socket(), &["run", "-d", "x"], b"");
        assert_eq!(ended.status, status);
        let shown = words.replace('\\', "");
        assert_eq!(
            ended.err,
            format!(
                "docker: Error response from daemon: {shown}\n\nRun 'docker run --help' for more information\n"
            )
        );
    }
}

#[test]
fn exec_speaks_and_ends_as_its_program() {
    let daemon = Daemon::start(
        "1.55",
        &[
            ("POST /containers/c/exec", &[Answer::Json(201, r#"{"Id":"e"}"#)]),
            ("POST /exec/e/start", &[Answer::Echo(frame(Stream::Stdout, b"hi\n"))]),
            (
                "GET /exec/e/json",
                &[Answer::Json(200, r#"{"ID":"e","Running":false,"ExitCode":7}"#)],
            ),
        ],
    );
    let ended = docker(&daemon.socket(), &["exec", "-e", "A=1", "c", "true", "--flag"], b"");
    assert_eq!((ended.out.as_str(), ended.status), ("hi\n", 7));
    let body: serde_json::Value = serde_json::from_str(&daemon.seen()[0].body).unwrap();
    assert_eq!(
        (&body["Cmd"], &body["Env"]),
        (&serde_json::json!(["true", "--flag"]), &serde_json::json!(["A=1"]))
    );
}
