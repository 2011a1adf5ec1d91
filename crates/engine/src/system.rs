//! The engine as a whole: what it is, what it holds, and whether its books are right.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use api::system::{
    AddressPool, Commit, Component, Device, DiskUsage, Firewall, IndexInfo, Info, Platform,
    Plugins, RegistryConfig, Runtime, Swarm, Usage, Version,
};
use runtime::cgroup::Driver;
use serde::Serialize;
use state::{Actor, EventKind};
use stdx::Result;
use stdx::time::Timestamp;

use crate::container::ids::Userns;
use crate::container::state::Phase;
use crate::rooms::Rooms;
use crate::{Containers, ListOptions, OpenDoor, Settings};

/// Ours, and the version of dockerd whose behaviour it follows where clients look at numbers.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
pub const API_VERSION: &str = "1.55";
pub const MIN_API_VERSION: &str = "1.24";

#[derive(Clone)]
pub struct System {
    pub(crate) containers: Containers,
    /// Of this data root, for as long as it lives.
    id: String,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Read every byte, not only sizes.
    pub strict: bool,
    pub repair: bool,
}

/// What it runs on.
pub(crate) struct Host {
    pub(crate) id: String,
    pub(crate) architecture: String,
    pub(crate) kernel: String,
    pub(crate) os: String,
    pub(crate) os_version: String,
    pub(crate) cpus: i64,
    pub(crate) memory: i64,
}

/// A place where records, kernel and disk disagree.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Which promise is broken: `I1` … `I14`.
    pub id: String,
    pub object: String,
    pub problem: String,
    pub repaired: bool,
}

impl System {
    pub fn new(containers: &Containers, id: String) -> Self {
        Self { containers: containers.clone(), id }
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.rooms().settings()
    }

    /// Other settings from now on, and an event that tells what they are. What exists keeps what it was made with.
    pub fn reload(&self, settings: Settings, mut told: BTreeMap<String, String>) {
        told.insert("name".to_owned(), settings.hostname.clone());
        self.rooms().put_settings(settings);
        let actor = Actor { id: self.id.clone(), attributes: told };
        self.rooms().journal.append(EventKind::Daemon, "reload", actor);
    }

    pub(crate) fn rooms(&self) -> &Arc<Rooms> {
        &self.containers.rooms
    }

    pub fn is_experimental(&self) -> bool {
        self.rooms().settings().experimental
    }

    /// Refuses when the disk has failed to keep what was written, and only reading is left.
    pub fn healthy(&self) -> Result<()> {
        self.rooms().store.writable()?;
        self.rooms().storage.writable()
    }

    pub fn version(&self) -> Version {
        let start = Instant::now();
        let version = self.version_now();
        self.rooms().metrics.system_version.since(start);
        version
    }

    fn version_now(&self) -> Version {
        let kernel = kernel_release();
        let settings = self.rooms().settings();
        let details = [
            ("ApiVersion", API_VERSION),
            ("Arch", architecture_of_go()),
            ("Experimental", if settings.experimental { "true" } else { "false" }),
            ("GitCommit", &settings.commit),
            // What we are made by, where clients look for what dockerd is made by.
            ("GoVersion", &settings.compiler),
            ("KernelVersion", &kernel),
            ("MinAPIVersion", MIN_API_VERSION),
            ("Os", "linux"),
        ];
        let engine = Component {
            name: "Engine".to_owned(),
            version: VERSION.to_owned(),
            details: details
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        Version {
            platform: Platform { name: "Gantry Engine".to_owned() },
            components: vec![engine],
            version: VERSION.to_owned(),
            api_version: API_VERSION.to_owned(),
            min_api_version: MIN_API_VERSION.to_owned(),
            git_commit: settings.commit.clone(),
            go_version: settings.compiler.clone(),
            os: "linux".to_owned(),
            arch: architecture_of_go().to_owned(),
            kernel_version: kernel,
            experimental: settings.experimental,
            ..Version::default()
        }
    }

    pub async fn info(&self) -> Result<Info> {
        let start = Instant::now();
        let info = self.info_now()?;
        self.rooms().metrics.system_info.since(start);
        Ok(info)
    }

    fn info_now(&self) -> Result<Info> {
        let rooms = self.rooms();
        let settings = &rooms.settings();
        let all = self.containers.all();
        let count = |wanted: fn(Phase) -> bool| {
            all.iter().filter(|c| wanted(c.record().state.phase)).count() as i64
        };
        let support =
            runtime::cgroup::Support::below(settings.cgroup_driver, &settings.cgroup_parent)?;
        let v2 = support.mode == runtime::cgroup::Mode::V2;
        let ipv4_forwarding = read("/proc/sys/net/ipv4/ip_forward").trim() == "1";
        let mut warnings = crate::warnings::warnings(&support, ipv4_forwarding);
        warnings.extend(settings.open_doors.iter().map(OpenDoor::warning));
        warnings.extend(self.healthy().err().map(|error| format!("WARNING: {error}")));
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let mut runtimes: BTreeMap<String, Runtime> = settings
            .runtimes
            .iter()
            .map(|(name, path)| {
                (
                    name.clone(),
                    Runtime { path: path.to_string_lossy().into_owned(), ..Runtime::default() },
                )
            })
            .collect();
        runtimes.insert(
            "gantry".to_owned(),
            Runtime { path: "gantry".to_owned(), ..Runtime::default() },
        );
        Ok(Info {
            id: self.id.clone(),
            containers: all.len() as i64,
            containers_running: count(|phase| matches!(phase, Phase::Running | Phase::Restarting)),
            containers_paused: count(|phase| phase == Phase::Paused),
            containers_stopped: count(|phase| {
                !matches!(phase, Phase::Running | Phase::Paused | Phase::Restarting)
            }),
            images: rooms.images.count() as i64,
            driver: rooms.storage.snapshots.name().to_owned(),
            driver_status: driver_status(rooms.storage.snapshots.name(), settings),
            plugins: Plugins {
                volume: rooms.volume_drivers(),
                network: rooms.networks.drivers(),
                authorization: Some(settings.authorization_plugins.clone())
                    .filter(|names| !names.is_empty()),
                log: names(&shim::logs::DRIVERS),
            },
            memory_limit: support.memory_limit,
            swap_limit: support.swap_limit,
            kernel_memory_tcp: support.kernel_memory_tcp,
            cpu_cfs_period: support.cpu_cfs,
            cpu_cfs_quota: support.cpu_cfs,
            cpu_shares: support.cpu_shares,
            cpu_set: support.cpuset,
            pids_limit: support.pids_limit,
            ipv4_forwarding,
            debug: settings.debug,
            experimental_build: settings.experimental,
            n_fd: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as i64),
            oom_kill_disable: support.oom_kill_disable,
            n_goroutines: std::fs::read_dir("/proc/self/task")
                .map_or(0, |entries| entries.count() as i64),
            system_time: Timestamp::now().to_string(),
            logging_driver: settings.log_driver.clone(),
            cgroup_driver: match settings.cgroup_driver {
                _ if support.is_none() => "none",
                Driver::Cgroupfs => "cgroupfs",
                Driver::Systemd => "systemd",
            }
            .to_owned(),
            cgroup_version: if v2 { "2" } else { "1" }.to_owned(),
            kernel_version: kernel_release(),
            operating_system: os_release("PRETTY_NAME"),
            os_version: os_release("VERSION_ID"),
            os_type: "linux".to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            index_server_address: "https://index.docker.io/v1/".to_owned(),
            registry_config: Some(RegistryConfig {
                insecure_registry_cidrs: insecure_subnets(settings),
                mirrors: Some(mirrors(settings)),
                index_configs: index_configs(settings),
            }),
            n_cpu: cpus(),
            mem_total: memory_total(),
            docker_root_dir: settings.data_root.to_string_lossy().into_owned(),
            name: settings.hostname.clone(),
            labels: settings.labels.clone(),
            server_version: VERSION.to_owned(),
            runtimes,
            default_runtime: settings.default_runtime.clone(),
            swarm: Swarm { local_node_state: "inactive".to_owned(), ..Swarm::default() },
            // Not an option here: containers always live on.
            live_restore_enabled: true,
            default_address_pools: settings
                .address_pools
                .iter()
                .map(|(base, size)| AddressPool { base: base.clone(), size: i64::from(*size) })
                .collect(),
            firewall_backend: settings
                .firewall
                .then(|| Firewall { driver: "nftables".to_owned(), ..Firewall::default() }),
            cdi_spec_dirs: settings
                .cdi_spec_dirs
                .iter()
                .map(|dir| dir.to_string_lossy().into_owned())
                .collect(),
            discovered_devices: crate::container::cdi::Registry::read(&settings.cdi_spec_dirs)
                .names()
                .map(|name| Device { source: "cdi".to_owned(), id: name.to_owned() })
                .collect(),
            init_binary: "gantry".to_owned(),
            containerd_commit: Commit::default(),
            security_options: {
                let mut options = names(match settings.apparmor {
                    true => &["name=apparmor", "name=seccomp,profile=builtin"][..],
                    false => &["name=seccomp,profile=builtin"],
                });
                if settings.userns != Userns::Host {
                    options.push("name=userns".to_owned());
                }
                let private = match settings.cgroupns_mode.as_str() {
                    "" => v2,
                    mode => mode == "private",
                };
                if private {
                    options.push("name=cgroupns".to_owned());
                }
                if settings.rootless {
                    options.push("name=rootless".to_owned());
                }
                options
            },
            warnings: (!warnings.is_empty()).then_some(warnings),
            ..Info::default()
        })
    }

    /// What figures are labelled with.
    pub(crate) fn about_the_host(&self) -> Host {
        Host {
            id: self.id.clone(),
            architecture: std::env::consts::ARCH.to_owned(),
            kernel: kernel_release(),
            os: os_release("PRETTY_NAME"),
            os_version: os_release("VERSION_ID"),
            cpus: cpus(),
            memory: memory_total(),
        }
    }

    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        let containers = self
            .containers
            .list(ListOptions { all: true, size: true, ..ListOptions::default() })
            .await?;
        let images = self.rooms().images.usage().await?;
        let sum =
            |items: &[api::container::Summary]| items.iter().map(|item| item.size_rw).sum::<i64>();
        let (up, idle): (Vec<_>, Vec<_>) = containers
            .iter()
            .cloned()
            .partition(|c| matches!(c.state.as_str(), "running" | "paused" | "restarting"));
        let container_usage = Usage {
            active_count: up.len() as i64,
            total_count: containers.len() as i64,
            total_size: sum(&containers),
            reclaimable: sum(&idle),
            items: containers,
        };
        Ok(DiskUsage {
            image_usage: Some(images),
            container_usage: Some(container_usage),
            volume_usage: Some(self.volume_usage().await?),
            build_cache_usage: Some(Usage::default()),
        })
    }

    async fn volume_usage(&self) -> Result<Usage<api::volume::Volume>> {
        let rooms = Arc::clone(self.rooms());
        let used: BTreeMap<String, i64> =
            self.containers.all().iter().fold(BTreeMap::new(), |mut used, container| {
                for mount in
                    container.record().mounts.iter().filter(|mount| mount.r#type == "volume")
                {
                    *used.entry(mount.name.clone()).or_default() += 1;
                }
                used
            });
        tokiox::blocking(move || {
            let mut usage = Usage::default();
            // What is elsewhere takes no room here.
            for volume in crate::volumes::all(&rooms)?.into_iter().filter(|v| v.options.is_none()) {
                // It may have been removed since.
                let Ok(size) = rooms.storage.volumes.usage(&volume.name) else { continue };
                let size = i64::try_from(size).unwrap_or(i64::MAX);
                let references = used.get(&volume.name).copied().unwrap_or(0);
                usage.total_count += 1;
                usage.total_size += size;
                usage.active_count += i64::from(references > 0);
                usage.reclaimable += if references > 0 { 0 } else { size };
                let counted = api::volume::UsageData { ref_count: references, size };
                usage.items.push(api::volume::Volume { usage_data: Some(counted), ..volume });
            }
            Ok(usage)
        })
        .await
    }
}

/// What `docker info` prints below the storage driver.
fn driver_status(driver: &str, settings: &Settings) -> Vec<[String; 2]> {
    if driver != "overlay2" {
        return Vec::new();
    }
    let pairs = [
        ("Backing Filesystem", file_system(&settings.data_root)),
        ("Supports d_type", "true"),
        ("Using metacopy", "false"),
        ("Native Overlay Diff", "true"),
        ("userxattr", if settings.rootless { "true" } else { "false" }),
    ];
    pairs.map(|(name, value)| [name.to_owned(), value.to_owned()]).to_vec()
}

/// Docker's name of the file system below a directory.
fn file_system(path: &Path) -> &'static str {
    let kind = rustix::fs::statfs(path).map_or(0, |found| found.f_type as u32);
    match kind {
        0xef53 => "extfs",
        0x9123_683e => "btrfs",
        0x5846_5342 => "xfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlayfs",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0xca45_1a4e => "bcachefs",
        _ => "<unknown>",
    }
}

/// Subnets whose registries are not to be trusted: those that the operator named, and this host.
fn insecure_subnets(settings: &crate::Settings) -> Vec<String> {
    let named = settings.insecure_registries.iter().filter(|name| name.contains('/')).cloned();
    named.chain(["127.0.0.0/8", "::1/128"].map(str::to_owned)).collect()
}

/// With the slash that Docker ends them with.
fn mirrors(settings: &crate::Settings) -> Vec<String> {
    let ended = |mirror: &String| format!("{}/", mirror.trim_end_matches('/'));
    settings.registry_mirrors.iter().map(ended).collect()
}

/// Docker's own registry, and those that are not to be trusted.
fn index_configs(settings: &crate::Settings) -> BTreeMap<String, IndexInfo> {
    let official = IndexInfo {
        name: "docker.io".to_owned(),
        mirrors: mirrors(settings),
        secure: true,
        official: true,
    };
    let insecure = settings.insecure_registries.iter().filter(|name| !name.contains('/'));
    let mut configs: BTreeMap<String, IndexInfo> = insecure
        .map(|name| (name.clone(), IndexInfo { name: name.clone(), ..IndexInfo::default() }))
        .collect();
    configs.insert(official.name.clone(), official);
    configs
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The processors the daemon may use, as Docker counts them. What a cgroup leaves of them (which
/// `std::thread::available_parallelism` would go and read) is no limit for containers.
pub(crate) fn cpus() -> i64 {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| i64::from(set.count()))
}

/// How many nodes of memory there are.
pub(crate) fn memory_nodes() -> i64 {
    let online = read("/sys/devices/system/node/online");
    let last = online.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<i64>().ok());
    last.map_or(1, |last| last + 1)
}

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn os_release(key: &str) -> String {
    let text = read("/etc/os-release");
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_default().trim_matches('"').to_owned()
}

/// Bytes.
fn memory_total() -> i64 {
    let text = read("/proc/meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok()).unwrap_or(0) * 1024
}

/// Go's name of the architecture, as Docker's answers spell it.
pub fn architecture_of_go() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
