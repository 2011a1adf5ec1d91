//! docker-py as an application uses it: one session, against Debian's dockerd and against ours, with the same outcome.

use std::path::Path;
use std::process::Command;

use testkit::house::succeed;
use testkit::{House, Netns, TestImage, python};

use crate::peer::{DOCKERD, Peer};

const SESSION: &str = include_str!("session.py");

/// Lines that differ, and why.
const REASONS: [(&str, &str); 0] = [];

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
