//! docker-py as an application uses it: one session, against Debian's dockerd and against ours, with the same outcome.

use std::path::Path;
use std::process::Command;

use testkit::house::succeed;
use testkit::{House, Netns, TestImage, python};

use crate::peer::{DOCKERD, Peer};

const SESSION: &str = include_str!("session.py");

/// How lines begin that differ, and why.
const REASONS: [(&str, &str); 12] = [
    ("gone: [404, \"No such image", "newer Docker's words"),
    ("info: ", "newer Docker's name for its filter of system calls: builtin"),
    ("df: ", "hello-world is here from the beginning"),
    ("settings: ", "newer Docker tells no gateway of a network without a way out"),
    ("in use: ", "newer Docker's words, with the names of who is there"),
    ("stats: ", "newer Docker's os_type"),
    ("stopped: ", "newer Docker leaves the error out where there is none"),
    ("killed: ", "newer Docker leaves the error out where there is none"),
    ("waited: ", "newer Docker leaves the error out where there is none"),
    ("kill: ", "newer Docker's words"),
    ("running: [409", "newer Docker's words"),
    ("got: ", "the kind of a file stands in its own field of an archive, not in its mode"),
];

#[test]
fn a_session_of_docker_py() {
    let python = python::with(&["docker==7.1.0"]);
    let files = tempfile::tempdir().expect("a place for a test");
    let archive = files.path().join("busybox.tar");
    let bytes = TestImage::busybox().docker_archive(&["busybox:latest"]);
    std::fs::write(&archive, bytes).expect("an archive");
    let session = |socket: &Path| {
        let mut command = Command::new(&python);
        command.args(["-c", SESSION, &format!("unix://{}", socket.display())]).arg(&archive);
        succeed(command)
    };
    let netns = Netns::new();
    let house = House::within(&netns);
    let ours = session(&house.socket());
    assert!(ours.contains("\n== events\n"), "{ours}");
    if !Path::new(DOCKERD).exists() {
        return;
    }
    let netns = Netns::new();
    let peer = Peer::within(&netns, &["--bip", &format!("{}/24", house.gateway())]);
    let theirs = session(&peer.path("s"));
    let mut text = String::new();
    assert_eq!(theirs.lines().count(), ours.lines().count(), "{theirs}\n{ours}");
    let mut used = Vec::new();
    for (theirs, ours) in theirs.lines().zip(ours.lines()).filter(|(theirs, ours)| theirs != ours) {
        match REASONS.iter().find(|(line, _)| ours.starts_with(line)) {
            Some(reason) => used.push(reason.0),
            None => text += &format!("dockerd: {theirs}\nours:    {ours}\n"),
        }
    }
    for (line, reason) in REASONS.iter().filter(|(line, _)| !used.contains(line)) {
        text += &format!("not needed any more: {line}: {reason}\n");
    }
    assert!(text.is_empty(), "\n{text}");
}
