//! What is told about a container: `docker inspect` and a line of `docker ps`.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::container::{
    DriverData, HostConfig, Inspect, NetworkSettings, PortBinding, PortMap, PortSummary,
    State as Told, Summary, SummaryHostConfig, SummaryNetworkSettings,
};
use stdx::time::Timestamp;
use stdx::{Error, Result};

use super::Container;
use super::endpoints;
use super::health::{self, Health};
use super::plan;
use super::record::Record;
use super::start::TASK;
use super::state::Phase;

impl Container {
    pub async fn inspect(&self, size: bool) -> Result<Inspect> {
        let record = self.record();
        let rooms = &self.rooms;
        let dir = rooms.exec_dir(&record.id);
        let file = |name: &str| {
            let path = dir.join(name);
            // Made at the first start, as Docker's are.
            if record.state.started_at.is_never() && !path.exists() {
                String::new()
            } else {
                path.to_string_lossy().into_owned()
            }
        };
        let mut command =
            record.config.entrypoint.iter().flatten().chain(record.config.cmd.iter().flatten());
        let (size_rw, size_root_fs) = match size {
            false => (None, None),
            true => {
                let (rw, base) = self.sizes().await?;
                (Some(rw), Some(rw + base))
            }
        };
        let exec_ids = rooms.execs.running_in(&record.id);
        Ok(Inspect {
            id: record.id.to_string(),
            created: record.created.to_string(),
            path: command.next().cloned().unwrap_or_default(),
            args: command.cloned().collect(),
            state: told(&record),
            image: record.image.to_string(),
            resolv_conf_path: file("resolv.conf"),
            hostname_path: file("hostname"),
            hosts_path: file("hosts"),
            log_path: self.log_path(&record),
            name: format!("/{}", record.name),
            restart_count: i64::from(record.restart_count),
            driver: record.driver.clone(),
            app_armor_profile: self.apparmor_profile(&record),
            platform: record.platform.clone(),
            exec_ids: (!exec_ids.is_empty()).then_some(exec_ids),
            host_config: HostConfig {
                links: rooms.registry.shown_links(&record),
                ..record.host_config.clone()
            },
            graph_driver: Some(self.driver_data(&record)),
            size_rw,
            size_root_fs,
            mounts: record.mounts.clone(),
            config: self.shown_config(&record),
            network_settings: network_settings(&record),
            ..Inspect::default()
        })
    }

    /// Known from the first time on that the runtime was asked, whatever came of it.
    fn apparmor_profile(&self, record: &Record) -> String {
        match record.state.phase {
            Phase::Created if !record.state.error.starts_with(TASK) => String::new(),
            _ => plan::apparmor_profile(record.host(), &self.rooms.settings()).unwrap_or_default(),
        }
    }

    /// Where the layers lie. Tools read `UpperDir` and `MergedDir` of overlay2 here; there is no merged one on the host.
    fn driver_data(&self, record: &Record) -> DriverData {
        let mut data = BTreeMap::new();
        if let Ok(oci::runtime::Rootfs::Overlay { lowers, upper, work, .. }) =
            self.rooms.storage.snapshots.rootfs(record.id.as_str())
        {
            let lowers: Vec<_> =
                lowers.iter().map(|path| path.to_string_lossy().into_owned()).collect();
            data.insert("ID".to_owned(), record.id.to_string());
            data.insert("LowerDir".to_owned(), lowers.join(":"));
            data.insert("UpperDir".to_owned(), upper.to_string_lossy().into_owned());
            data.insert("WorkDir".to_owned(), work.to_string_lossy().into_owned());
        }
        DriverData { data: (!data.is_empty()).then_some(data), name: record.driver.clone() }
    }

    pub(crate) async fn summary(&self, size: bool) -> Result<Summary> {
        let record = self.record();
        let config = &record.config;
        let command: Vec<&str> = config
            .entrypoint
            .iter()
            .flatten()
            .chain(config.cmd.iter().flatten())
            .map(String::as_str)
            .collect();
        let (size_rw, size_root_fs) =
            if size { self.sizes().await.map(|(rw, base)| (rw, rw + base))? } else { (0, 0) };
        Ok(Summary {
            id: record.id.to_string(),
            names: vec![format!("/{}", record.name)],
            image: self.image_name(&record),
            image_id: record.image.to_string(),
            command: quoted(&command),
            created: record.created.unix(),
            ports: ports(&record),
            size_rw,
            size_root_fs,
            labels: record.labels(),
            state: record.state.phase.name().to_owned(),
            status: status(&record),
            health: Some(health::summary(&record)),
            host_config: SummaryHostConfig {
                network_mode: record.host_config.network_mode.clone(),
                annotations: record.host_config.annotations.clone(),
            },
            network_settings: SummaryNetworkSettings {
                networks: endpoints::summary(&record.endpoints),
            },
            mounts: record.mounts.clone(),
            ..Summary::default()
        })
    }

    /// The name it was made from while that still means the same image; then the id.
    fn image_name(&self, record: &Record) -> String {
        match self.rooms.images.is_named(&record.config.image, &record.image) {
            true => record.config.image.clone(),
            false => record.image.to_string(),
        }
    }

    /// What was asked for, with what is known by now: how it is called, and the address that was wished for, where old
    /// clients look for it.
    fn shown_config(&self, record: &Record) -> api::container::Config {
        let mut config = record.config.clone();
        let mode = record.host_config.network_mode.as_str();
        let other = mode.strip_prefix("container:").map(|other| self.rooms.registry.find(other));
        if let Some(Ok(other)) = other {
            let theirs = Container { rooms: Arc::clone(&self.rooms), cell: other };
            let theirs = theirs.shown_config(&theirs.record());
            (config.hostname, config.domainname) = (theirs.hostname, theirs.domainname);
        } else if config.hostname.is_empty() {
            config.hostname = match mode {
                "host" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
                _ => record.id.short().to_owned(),
            };
        }
        if let Some(address) = record.wanted_macs.get(mode) {
            config.mac_address.clone_from(address);
        }
        config.labels.get_or_insert_default();
        config
    }

    /// Bytes written by the container, and bytes of its image.
    async fn sizes(&self) -> Result<(i64, i64)> {
        let rw = self.size_rw().await?;
        let image = self.rooms.images.get(&self.record().image).map_or(0, |image| image.size);
        Ok((rw as i64, image as i64))
    }
}

/// The STATUS column of `docker ps`.
fn status(record: &Record) -> String {
    let life = record.state.describe(Timestamp::now());
    match &record.health {
        Some(health) if record.state.phase == Phase::Running => {
            format!("{life} ({})", health.describe())
        }
        _ => life,
    }
}

fn told(record: &Record) -> Told {
    let state = &record.state;
    let phase = state.phase;
    Told {
        status: phase.name().to_owned(),
        // Docker counts a container that waits for its restart as running.
        running: phase.is_up() || phase == Phase::Restarting,
        paused: phase == Phase::Paused,
        restarting: phase == Phase::Restarting,
        oom_killed: state.oom_killed,
        dead: phase == Phase::Dead,
        pid: i64::from(state.pid),
        exit_code: i64::from(state.exit_code),
        error: state.error.clone(),
        started_at: state.started_at.to_string(),
        finished_at: state.finished_at.to_string(),
        health: record.health.as_ref().map(Health::told),
    }
}

fn network_settings(record: &Record) -> NetworkSettings {
    let up = record.state.phase.is_up();
    let mut ports = PortMap::new();
    if up && record.has_ports() {
        ports.extend(record.config.exposed_ports.keys().map(|port| (port.clone(), None)));
    }
    for port in &record.ports {
        let key = format!("{}/{}", port.container_port, port.protocol.as_str());
        let binding = PortBinding {
            host_ip: port.host_ip.to_string(),
            host_port: if port.host_port == 0 { String::new() } else { port.host_port.to_string() },
        };
        ports.entry(key).or_default().get_or_insert_default().push(binding);
    }
    NetworkSettings {
        sandbox_id: if up { record.id.to_string() } else { String::new() },
        sandbox_key: if up { format!("/proc/{}/ns/net", record.state.pid) } else { String::new() },
        ports,
        networks: record.endpoints.clone(),
        ..NetworkSettings::default()
    }
}

fn ports(record: &Record) -> Vec<PortSummary> {
    if !record.state.phase.is_up() || !record.has_ports() {
        return Vec::new();
    }
    let published =
        record.ports.iter().filter(|port| port.host_port != 0).map(|port| PortSummary {
            ip: port.host_ip.to_string(),
            private_port: port.container_port,
            public_port: port.host_port,
            r#type: port.protocol.as_str().to_owned(),
        });
    let only_exposed = record.config.exposed_ports.keys().filter_map(|port| {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let private_port = number.parse().ok()?;
        let taken = record.ports.iter().any(|port| {
            port.host_port != 0
                && (port.container_port, port.protocol.as_str()) == (private_port, protocol)
        });
        let summary =
            PortSummary { private_port, r#type: protocol.to_owned(), ..PortSummary::default() };
        (!taken).then_some(summary)
    });
    published.chain(only_exposed).collect()
}

/// The command as `docker ps` quotes it: words with blanks in single quotes, joined by blanks.
fn quoted(words: &[&str]) -> String {
    let quote = |word: &&str| {
        if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() }
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// `--filter until=`: a moment, or how long ago.
pub(crate) fn parse_until(text: &str) -> Result<Timestamp> {
    if let Ok(at) = Timestamp::parse_api(text) {
        return Ok(at);
    }
    let ago = stdx::duration::parse(text).map_err(|_| {
        Error::invalid(format!("failed to parse value as time or duration: {text:?}"))
    })?;
    Ok(Timestamp::from_unix_nanos(Timestamp::now().unix_nanos() - ago.as_nanos() as i128))
}
