//! The command as its users run it, against a daemon of a few scripted answers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says what it skips")]

mod daemon;
mod help;
mod progress;
mod refusals;
mod run;
mod tables;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a command printed, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    out: String,
    err: String,
    status: i32,
}

/// Runs `docker <line>` with nothing of the user's own settings.
fn docker(socket: &Path, line: &[&str], input: &[u8]) -> Ended {
    called("docker", socket, line, input)
}

/// As [`docker`], by another name.
fn called(name: &str, socket: &Path, line: &[&str], input: &[u8]) -> Ended {
    let home = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_gantry-cli"))
        .arg(name)
        .args(line)
        .env_clear()
        .env("HOME", home.path())
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may have gone already.
    child.stdin.take().unwrap().write_all(input).unwrap_or_default();
    let output = child.wait_with_output().unwrap();
    Ended {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        status: output.status.code().unwrap_or(-1),
    }
}

/// Runs a command that no daemon answers.
fn alone(line: &[&str]) -> Ended {
    docker(Path::new("/nonexistent.sock"), line, b"")
}
