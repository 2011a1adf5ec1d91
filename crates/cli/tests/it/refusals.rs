//! Mistakes are answered in Docker's words, with Docker's exit statuses.

use crate::alone;

#[track_caller]
fn check(line: &[&str], err: &str, status: i32) {
    let ended = alone(line);
    assert_eq!((ended.err.as_str(), ended.status), (err, status), "{line:?}");
}

#[test]
fn unknown_things() {
    check(
        &["foo"],
        "docker: unknown command: docker foo\n\nRun 'docker --help' for more information\n",
        1,
    );
    check(
        &["container", "foo"],
        "docker: unknown command: docker container foo\n\nUsage:  docker container\n\nRun 'docker container --help' for more information\n",
        1,
    );
    check(
        &["run", "--foo"],
        "unknown flag: --foo\n\nUsage:  docker run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun 'docker run --help' for more information\n",
        125,
    );
}

#[test]
fn arguments_missing() {
    check(
        &["run"],
        "docker: 'docker run' requires at least 1 argument\n\nUsage:  docker run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nSee 'docker run --help' for more information\n",
        1,
    );
    check(
        &["tag", "a"],
        "docker: 'docker tag' requires 2 arguments\n\nUsage:  docker tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]\n\nRun 'docker tag --help' for more information\n",
        1,
    );
}

#[test]
fn nobody_there() {
    let words = "Cannot connect to the Docker daemon at unix:///nonexistent.sock. Is the docker daemon running?\n";
    check(&["ps"], words, 1);
    check(
        &["run", "busybox"],
        &format!("docker: {words}\nRun 'docker run --help' for more information\n"),
        125,
    );
    check(&["-H", "fd://", "ps"], "Failed to initialize: unable to parse docker host `fd://`\n", 1);
}

#[test]
fn contexts() {
    check(&["context", "rm", "default"], "context \"default\" cannot be removed\n", 1);
    let ended = alone(&["context", "ls"]);
    assert!(
        ended.out.contains(
            "default *   Current DOCKER_HOST based configuration   unix:///nonexistent.sock"
        ),
        "{}",
        ended.out
    );
}
