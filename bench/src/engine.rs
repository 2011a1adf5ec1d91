//! An engine that answers the Docker API, whoever made it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testkit::House;

use crate::http::Http;

#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) name: &'static str,
    pub(crate) socket: PathBuf,
    /// A place for the client's configuration, so that nobody's own is read.
    pub(crate) config: PathBuf,
    pub(crate) daemon: u32,
}

impl Engine {
    pub(crate) fn of_house(house: &House) -> Self {
        Self {
            name: "gantry",
            socket: house.socket(),
            config: house.path("config"),
            daemon: house.pid(),
        }
    }

    /// What is the host's network to its containers.
    pub(crate) fn network_namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.daemon).into()
    }

    pub(crate) fn connect(&self) -> Result<Http> {
        Http::connect(&self.socket)
    }

    /// A client's command, pointed here and silent.
    pub(crate) fn client(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
            .env("DOCKER_CONFIG", &self.config)
            .env_remove("DOCKER_CONTEXT")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    pub(crate) fn create(&self, http: &mut Http, body: &Value) -> Result<String> {
        let answer = http.json("POST", "/containers/create", Some(body))?;
        Ok(answer["Id"].as_str().context("no id")?.to_owned())
    }

    pub(crate) fn start(&self, http: &mut Http, id: &str) -> Result<()> {
        http.ask("POST", &format!("/containers/{id}/start"), None)?;
        Ok(())
    }

    /// Waits for the end, which must be a success.
    pub(crate) fn wait(&self, http: &mut Http, id: &str) -> Result<()> {
        let answer = http.json("POST", &format!("/containers/{id}/wait"), None)?;
        anyhow::ensure!(answer["StatusCode"] == 0, "{}: {answer}", self.name);
        Ok(())
    }

    pub(crate) fn remove(&self, http: &mut Http, id: &str) -> Result<()> {
        http.ask("DELETE", &format!("/containers/{id}?force=1&v=1"), None)?;
        Ok(())
    }

    /// What the engine itself weighs, in MiB: the daemon, what it started, and the process beside each container; the
    /// containers' own processes are not counted.
    pub(crate) fn memory(&self) -> Result<f64> {
        let mut http = self.connect()?;
        let list = http.json("GET", "/containers/json", None)?;
        let mut containers = BTreeSet::new();
        for container in list.as_array().into_iter().flatten() {
            let id = container["Id"].as_str().context("no id")?;
            let state = http.json("GET", &format!("/containers/{id}/json"), None)?;
            let pid = state["State"]["Pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            containers.insert(pid.context("no process id")?);
        }
        let parents = parents()?;
        let mut own = BTreeSet::from([self.daemon]);
        own.extend(containers.iter().filter_map(|pid| parents.get(pid)));
        own.remove(&1);
        loop {
            let more: Vec<u32> = parents
                .iter()
                .filter(|(pid, parent)| own.contains(parent) && !containers.contains(pid))
                .map(|(pid, _)| *pid)
                .filter(|pid| !own.contains(pid))
                .collect();
            if more.is_empty() {
                break;
            }
            own.extend(more);
        }
        let kib: u64 = own.iter().filter_map(|pid| proportional_set_size(*pid)).sum();
        Ok(kib as f64 / 1024.0)
    }
}

/// Every process and its parent.
fn parents() -> Result<BTreeMap<u32, u32>> {
    let mut parents = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name, in parentheses, may contain anything.
        let after = stat.rsplit_once(") ").map(|(_, after)| after).unwrap_or_default();
        if let Some(parent) = after.split(' ').nth(1).and_then(|parent| parent.parse().ok()) {
            parents.insert(pid, parent);
        }
    }
    Ok(parents)
}

/// In KiB; `None` when it has gone.
fn proportional_set_size(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A container of busybox on the default bridge, the same for everybody.
pub(crate) fn busybox(command: &[&str]) -> Value {
    json!({
        "Image": "busybox",
        "Cmd": command,
        "HostConfig": { "LogConfig": { "Type": "json-file", "Config": {} } },
    })
}
