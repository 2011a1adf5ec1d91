//! Help: every command has it, and where Docker's own command is installed, it is the same to the letter.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::alone;

/// The commands of both, by the name Docker's help is asked with.
const COMMANDS: [&str; 106] = [
    "attach",
    "commit",
    "config create",
    "config inspect",
    "config ls",
    "config rm",
    "container attach",
    "container commit",
    "container cp",
    "container create",
    "container diff",
    "container exec",
    "container export",
    "container inspect",
    "container kill",
    "container logs",
    "container ls",
    "container pause",
    "container port",
    "container prune",
    "container rename",
    "container restart",
    "container rm",
    "container run",
    "container start",
    "container stats",
    "container stop",
    "container top",
    "container unpause",
    "container update",
    "container wait",
    "context create",
    "context inspect",
    "context ls",
    "context rm",
    "context show",
    "context update",
    "context use",
    "cp",
    "create",
    "diff",
    "events",
    "exec",
    "export",
    "history",
    "image history",
    "image import",
    "image inspect",
    "image load",
    "image ls",
    "image prune",
    "image pull",
    "image push",
    "image rm",
    "image save",
    "image tag",
    "images",
    "import",
    "info",
    "inspect",
    "kill",
    "load",
    "login",
    "logout",
    "logs",
    "network connect",
    "network create",
    "network disconnect",
    "network inspect",
    "network ls",
    "network prune",
    "network rm",
    "pause",
    "port",
    "ps",
    "pull",
    "push",
    "rename",
    "restart",
    "rm",
    "rmi",
    "run",
    "save",
    "search",
    "secret create",
    "secret inspect",
    "secret ls",
    "secret rm",
    "start",
    "stats",
    "stop",
    "system df",
    "system events",
    "system info",
    "system prune",
    "tag",
    "top",
    "unpause",
    "update",
    "version",
    "volume create",
    "volume inspect",
    "volume ls",
    "volume prune",
    "volume rm",
    "wait",
];

/// The docker command of the version these texts are of, if this machine has it.
fn reference() -> Option<&'static Path> {
    let path = Path::new("/usr/local/bin/docker");
    let output = Command::new(path).arg("--version").output().ok()?;
    String::from_utf8_lossy(&output.stdout).starts_with("Docker version 28.2.").then_some(path)
}

#[test]
fn every_command_helps() {
    for name in COMMANDS {
        let words: Vec<&str> = name.split(' ').chain(["--help"]).collect();
        let ended = alone(&words);
        assert_eq!(ended.status, 0, "{name}");
        assert!(ended.out.starts_with(&format!("Usage:  docker {name}")), "{name}: {}", ended.out);
    }
}

#[test]
fn the_same_as_dockers() {
    let Some(docker) = reference() else {
        eprintln!("skipped: no docker 28.2 command on this machine");
        return;
    };
    for name in COMMANDS {
        let words: Vec<&str> = name.split(' ').chain(["--help"]).collect();
        let theirs = Command::new(docker)
            .args(&words)
            .env("DOCKER_HOST", "unix:///nonexistent.sock")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(alone(&words).out, String::from_utf8_lossy(&theirs.stdout), "{name}");
    }
}
