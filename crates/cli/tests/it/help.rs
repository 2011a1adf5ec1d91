//! Help: every command has it, and where Docker's own command is installed, it is the same to the letter.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::{alone, called};

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

/// What Docker does not have is told of in a part of its own, and not at all by a command that is called `docker`.
#[test]
fn what_is_beyond_docker() {
    let ours = |line: &[&str]| called("gantry", Path::new("/nonexistent.sock"), line, b"").out;
    let part = |help: &str, title: &str| -> Vec<String> {
        let rest = help.split_once(&format!("{title}:\n")).map_or("", |(_, rest)| rest);
        let lines = rest.lines().take_while(|line| line.starts_with(' '));
        let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
        lines.filter(|line| !line.starts_with("         ")).filter_map(first).collect()
    };
    let options = "Options beyond Docker";
    let run = ["--config", "--egress", "--health-on-failure", "--net-rate", "--secret"];
    assert_eq!(part(&ours(&["run", "--help"]), options), run);
    assert_eq!(part(&ours(&["container", "create", "--help"]), options), run);
    let update = ["--egress", "--net-rate", "--publish-add", "--publish-rm"];
    assert_eq!(part(&ours(&["update", "--help"]), options), update);
    let commands = "Commands beyond Docker";
    let volume = ["clone", "export", "import", "rename", "snapshot"];
    assert_eq!(part(&ours(&["volume", "--help"]), commands), volume);
    assert_eq!(part(&ours(&["network", "--help"]), commands), ["doctor"]);
    assert_eq!(part(&ours(&["system", "--help"]), commands), ["check"]);
    assert_eq!(part(&ours(&["--help"]), "Engine"), ["daemon", "rootless", "runtime"]);
    for line in [&["run", "--help"][..], &["volume", "--help"], &["network", "--help"], &["--help"]]
    {
        let help = alone(line).out;
        assert!(!help.contains("beyond Docker") && !help.contains("Engine:"), "{help}");
        assert!(!help.contains("doctor"), "{help}");
    }
}
