//! The request, understood. `HostConfig` is read here and nowhere else.
//!
//! What is accepted here is applied by `spec.rs` and `start.rs`. What Docker knows and we have not built is refused by
//! name: silence would be a lie.

pub(crate) mod files;
mod log;
mod log_tag;
mod mounts;
mod ports;
mod rebind;
mod resources;
mod security;
mod text;
mod userns;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use api::container::{Config, DeviceRequest, HostConfig, NetRate, Ulimit};
use network::{Egress, Rate};
use oci::runtime::{DeviceRule, Resources};
use runtime::cgroup::Mode;
use stdx::{Error, Id, Result};

pub(crate) use self::log::{LogPlan, log};
use self::mounts::all_mounts;
use self::ports::Publish;
pub(crate) use self::ports::{Ports, port_bindings};
pub(crate) use self::rebind::rebind;
pub use self::resources::{BlockDevices, check_cgroup_parent, default_cgroup_parent};
use self::resources::{block_devices, device_rules, devices, ulimits};
pub(crate) use self::resources::{check_alone, discard, discard_here, resources};
pub(crate) use self::security::apparmor_profile;
use self::security::{Security, apparmor, seccomp};
use self::text::{Dns, extra_hosts};
pub(crate) use self::text::{check_env, check_words, exposed_ports};
use super::ids::Userns;
use super::mounts::{MountPlan, ReadOnlyBinds, VolumesFrom, absolute};
use super::restart_policy::RestartPolicy;
use super::{capabilities, health, signal, spec};
use crate::rooms::Settings;

/// What is to run, and in what surroundings, in types that leave no doubt.
#[derive(Clone, Debug)]
pub struct Plan {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    /// `user[:group]`, looked up inside the container.
    pub user: String,
    pub groups: Vec<String>,
    pub tty: bool,
    pub hostname: String,
    pub domainname: String,
    pub network: Network,
    /// What it may reach outside of its networks; what they say when absent.
    pub egress: Option<Egress>,
    pub rate: Option<Rate>,
    pub ports: Ports,
    pub pid: Pid,
    pub ipc: Ipc,
    pub uts: Uts,
    pub cgroupns: Cgroupns,
    pub userns: Userns,
    pub mounts: Vec<MountPlan>,
    /// Secrets and configs.
    pub files: Vec<self::files::FilePlan>,
    pub volumes_from: Vec<VolumesFrom>,
    /// Bytes.
    pub shm_size: i64,
    /// What may be written beside the image, in bytes.
    pub writable_size: Option<u64>,
    pub read_only: bool,
    pub privileged: bool,
    pub no_new_privileges: bool,
    pub writable_cgroups: bool,
    pub capabilities: BTreeSet<String>,
    pub seccomp: SeccompPlan,
    /// Of AppArmor; empty: none.
    pub apparmor: String,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub devices: Vec<DevicePlan>,
    pub device_rules: Vec<DeviceRule>,
    /// Devices by name or by what they can do.
    pub device_requests: Vec<DeviceRequest>,
    pub resources: Resources,
    pub block_devices: BlockDevices,
    pub ulimits: Vec<Ulimit>,
    pub sysctls: BTreeMap<String, String>,
    pub oom_score_adj: i32,
    pub init: bool,
    pub cgroup_parent: String,
    /// Another OCI runtime than ours.
    pub runtime: Option<PathBuf>,
    pub annotations: BTreeMap<String, String>,
    pub restart: RestartPolicy,
    pub auto_remove: bool,
    pub log: LogPlan,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    /// `name:address`, where the address may be `host-gateway`.
    pub extra_hosts: Vec<String>,
    /// For the client, in Docker's words.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    None,
    Host,
    /// Another container's, by name or id.
    Container(String),
    /// By name or id; `bridge` is the default.
    Named(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pid {
    Private,
    Host,
    Container(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ipc {
    Private,
    Shareable,
    /// Private, and no /dev/shm.
    None,
    Host,
    Container(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uts {
    Private,
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroupns {
    /// Private on pure v2, the host's elsewhere.
    Default,
    Private,
    Host,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeccompPlan {
    Unconfined,
    /// Docker's.
    Default,
    /// The text of somebody's own.
    Profile(String),
}

/// A device of the host, by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePlan {
    pub host: String,
    pub container: String,
    /// Of `r`, `w` and `m`.
    pub access: String,
}

/// Below this the kernel cannot run a process (Docker's floor).
const LEAST_MEMORY: i64 = 6 << 20;

impl Plan {
    /// Understands a merged configuration. Every refusal is in Docker's words where it has them.
    pub fn of(
        config: &Config,
        host: &HostConfig,
        read_only_binds: ReadOnlyBinds,
        settings: &Settings,
    ) -> Result<Self> {
        refuse_unbuilt(host)?;
        let mut warnings = Vec::new();
        let list = |values: &Option<Vec<String>>| values.clone().unwrap_or_default();
        let capabilities =
            capabilities::resolve(&list(&host.cap_add), &list(&host.cap_drop), host.privileged)?;
        let security = Security::of(host, settings)?;
        let default_paths = !host.privileged && !security.all_paths;
        let paths = |wanted: &Option<Vec<String>>, default: fn() -> Vec<String>| match wanted {
            Some(paths) => paths.clone(),
            None if default_paths => default(),
            None => Vec::new(),
        };
        let args = [config.entrypoint.clone(), config.cmd.clone()]
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        if host.annotations.contains_key("") {
            return Err(Error::invalid(
                "invalid Annotations: the empty string is not permitted as an annotation key",
            ));
        }
        if !config.stop_signal.is_empty() {
            signal::parse(&config.stop_signal)?;
        }
        if !config.working_dir.is_empty() && absolute(&config.working_dir).is_none() {
            return Err(Error::invalid(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                config.working_dir
            )));
        }
        text::check(config)?;
        let dns = Dns::of(host, settings)?;
        health::validate(config)?;
        let restart = RestartPolicy::parse(
            &host.restart_policy.name,
            host.restart_policy.maximum_retry_count,
        )?;
        if host.auto_remove && restart != RestartPolicy::No {
            return Err(Error::invalid("can't create 'AutoRemove' container with restart policy"));
        }
        let network = network(&host.network_mode, config.network_disabled)?;
        let uts = match host.uts_mode.as_str() {
            "" => Uts::Private,
            "host" => Uts::Host,
            other => return Err(Error::invalid(format!("invalid UTS mode: {other}"))),
        };
        if uts == Uts::Host && !config.hostname.is_empty() {
            return Err(Error::invalid("conflicting options: hostname and the UTS mode"));
        }
        if matches!(network, Network::Container(_)) && !config.hostname.is_empty() {
            return Err(Error::invalid("conflicting options: hostname and the network mode"));
        }
        let pid = match host.pid_mode.as_str() {
            "" | "private" => Pid::Private,
            "host" => Pid::Host,
            other => Pid::Container(joined(other, "PID")?),
        };
        let ipc = match host.ipc_mode.as_str() {
            "" | "private" => Ipc::Private,
            "shareable" => Ipc::Shareable,
            "none" => Ipc::None,
            "host" => Ipc::Host,
            other => Ipc::Container(joined(other, "IPC")?),
        };
        let oom_score_adj =
            i32::try_from(host.oom_score_adj).ok().filter(|score| (-1000..=1000).contains(score));
        let userns = userns::userns(host, settings.userns, (&network, &pid, &ipc))?;
        let mounts = all_mounts(config, host, read_only_binds)?;
        Ok(Self {
            args,
            env: list(&config.env),
            cwd: config.working_dir.clone(),
            user: userns::user(&config.user, userns),
            groups: list(&host.group_add),
            tty: config.tty,
            hostname: config.hostname.clone(),
            domainname: config.domainname.clone(),
            userns,
            pid,
            ipc,
            uts,
            cgroupns: match host.cgroupns_mode.as_str() {
                "" => Cgroupns::Default,
                "private" => Cgroupns::Private,
                "host" => Cgroupns::Host,
                other => {
                    return Err(Error::invalid(format!("invalid cgroup namespace mode: {other}")));
                }
            },
            ports: ports(config, host, &network, &mut warnings)?,
            egress: egress(host.egress.as_ref(), &network)?,
            rate: rate(host.net_rate, &network)?,
            network,
            files: self::files::files(host, &mounts)?,
            mounts,
            volumes_from: host
                .volumes_from
                .iter()
                .flatten()
                .map(|text| VolumesFrom::parse(text))
                .collect::<Result<_>>()?,
            writable_size: writable_size(host)?,
            shm_size: match host.shm_size {
                0 => settings.shm_size as i64,
                size if size < 0 => return Err(Error::invalid("SHM size can not be less than 0")),
                size => size,
            },
            read_only: host.readonly_rootfs,
            privileged: host.privileged,
            no_new_privileges: security.no_new_privileges,
            writable_cgroups: security.writable_cgroups,
            seccomp: seccomp(&security.seccomp, host.privileged)?,
            apparmor: apparmor(security.apparmor, host.privileged, settings),
            masked_paths: paths(&host.masked_paths, spec::masked_paths),
            readonly_paths: paths(&host.readonly_paths, spec::readonly_paths),
            capabilities,
            devices: devices(&host.resources)?,
            device_rules: device_rules(&host.resources)?,
            device_requests: host.resources.device_requests.clone().unwrap_or_default(),
            resources: resources(&host.resources, &mut warnings)?,
            block_devices: block_devices(&host.resources)?,
            ulimits: ulimits(&host.resources, settings)?,
            sysctls: sysctls(host)?,
            oom_score_adj: oom_score_adj.ok_or_else(|| {
                Error::invalid(format!(
                    "Invalid value {}, range for oom score adj is [-1000, 1000]",
                    host.oom_score_adj
                ))
            })?,
            init: init(host, settings),
            cgroup_parent: match host.resources.cgroup_parent.as_str() {
                "" => settings.cgroup_parent.clone(),
                parent => {
                    check_cgroup_parent(settings.cgroup_driver, parent)?;
                    parent.to_owned()
                }
            },
            runtime: runtime(&host.runtime, settings)?,
            annotations: host.annotations.clone(),
            restart,
            auto_remove: host.auto_remove,
            log: log(host, settings)?,
            dns: dns.servers,
            dns_search: dns.search,
            dns_options: dns.options,
            extra_hosts: extra_hosts(host)?,
            warnings,
        })
    }

    /// A container must have something to run.
    pub fn check_process(&self) -> Result<()> {
        if self.args.is_empty() {
            return Err(Error::invalid("no command specified"));
        }
        Ok(())
    }

    /// What `hostname` says inside: what was asked for, the host's on its network, else the beginning of the id.
    pub fn hostname(&self, id: &Id) -> String {
        match self.network {
            _ if !self.hostname.is_empty() => self.hostname.clone(),
            Network::Host => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            _ => id.short().to_owned(),
        }
    }
}

/// `--storage-opt size=`. None at all is not the same as 0: who asks for no limit asks a disk that counts.
fn writable_size(host: &HostConfig) -> Result<Option<u64>> {
    let Some(size) = host.storage_opt.values().next() else { return Ok(None) };
    Ok(u64::try_from(stdx::units::ram_in_bytes(size)?).ok())
}

/// Docker knows these and we do not, yet.
fn refuse_unbuilt(host: &HostConfig) -> Result<()> {
    if host.mounts.iter().any(|mount| mount.r#type == "cluster") {
        let words = "HostConfig.Mounts of type cluster is not supported yet";
        return Err(Error::not_implemented(words));
    }
    if let Some(unknown) = host.storage_opt.keys().find(|key| !key.eq_ignore_ascii_case("size")) {
        return Err(Error::invalid(format!("Unknown option {unknown}")));
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(Error::invalid(format!(
            "invalid isolation ({}): linux only supports 'default'",
            host.isolation
        )));
    }
    Ok(())
}

/// A network that is another's leaves by the other's rules, and by none of ours.
fn egress(rules: Option<&Vec<String>>, network: &Network) -> Result<Option<Egress>> {
    let egress = rules.cloned().map(Egress::try_from).transpose()?;
    let ours = !matches!(network, Network::Host | Network::Container(_));
    match egress {
        Some(Egress::Only(_)) if !ours => {
            Err(Error::invalid("conflicting options: egress rules and the network mode"))
        }
        egress => Ok(egress),
    }
}

fn rate(rate: Option<NetRate>, network: &Network) -> Result<Option<Rate>> {
    let rate = rate
        .map(|NetRate { r#in, out }| Rate { inward: r#in.unwrap_or(0), outward: out.unwrap_or(0) });
    let limited = rate.is_some_and(|rate| rate != Rate::default());
    if limited && matches!(network, Network::Host | Network::Container(_)) {
        return Err(Error::invalid("conflicting options: a net rate and the network mode"));
    }
    Ok(rate)
}

/// What is published, alone: it can be changed while all else stays.
pub(crate) fn published(
    config: &Config,
    host: &HostConfig,
    warnings: &mut Vec<String>,
) -> Result<Ports> {
    ports(config, host, &network(&host.network_mode, config.network_disabled)?, warnings)
}

fn ports(
    config: &Config,
    host: &HostConfig,
    network: &Network,
    warnings: &mut Vec<String>,
) -> Result<Ports> {
    let all = if host.publish_all_ports { Publish::All } else { Publish::Asked };
    let bindings = host.port_bindings.as_ref();
    let published = all == Publish::All || bindings.is_some_and(|bindings| !bindings.is_empty());
    match network {
        Network::Container(_) if published => Err(Error::invalid(
            "conflicting options: port publishing and the container type network mode",
        )),
        Network::Host if bindings.is_some_and(|bindings| !bindings.is_empty()) => {
            warnings.push("Published ports are discarded when using host network mode".to_owned());
            Ok(Ports::default())
        }
        _ => Ports::of(&config.exposed_ports, bindings, all),
    }
}

fn network(mode: &str, disabled: bool) -> Result<Network> {
    if disabled {
        return Ok(Network::None);
    }
    match mode.split_once(':') {
        Some(("container", "")) => Err(Error::invalid(
            "invalid network mode: invalid container format container:<name|id>",
        )),
        Some(("container", other)) => Ok(Network::Container(other.to_owned())),
        _ => Ok(match mode {
            "" | "default" | "bridge" => Network::Named("bridge".to_owned()),
            "none" => Network::None,
            "host" => Network::Host,
            name => Network::Named(name.to_owned()),
        }),
    }
}

/// `container:<name|id>`, the one form of mode that is left.
fn joined(mode: &str, what: &str) -> Result<String> {
    match mode.split_once(':') {
        Some(("container", other)) if !other.is_empty() => Ok(other.to_owned()),
        _ => Err(Error::invalid(format!("invalid {what} mode: {mode}"))),
    }
}

/// Only those that belong to a namespace of the container's own.
fn sysctls(host: &HostConfig) -> Result<BTreeMap<String, String>> {
    const IPC: &str = "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni kernel.shm_rmid_forced";
    for name in host.sysctls.keys() {
        let ipc = IPC.split(' ').any(|known| known == name) || name.starts_with("fs.mqueue.");
        let net = name.starts_with("net.");
        if ipc && host.ipc_mode == "host" {
            return Err(Error::invalid(format!(
                "sysctl {name:?} is not allowed in the hosts ipc namespace"
            )));
        }
        if net && host.network_mode == "host" {
            return Err(Error::invalid(format!(
                "sysctl {name:?} not allowed in host network namespace"
            )));
        }
        let uts = matches!(name.as_str(), "kernel.domainname" | "kernel.hostname");
        if !(ipc || net || uts) || name.contains("..") || name.contains('/') {
            return Err(Error::invalid(format!(
                "sysctl {name:?} is not in a separate kernel namespace"
            )));
        }
    }
    Ok(host.sysctls.clone())
}

/// Whether a process of ours is the first, and the program its child.
pub(crate) fn init(host: &HostConfig, settings: &Settings) -> bool {
    host.init.unwrap_or(settings.init)
}

pub(crate) fn runtime(name: &str, settings: &Settings) -> Result<Option<PathBuf>> {
    let name = if name.is_empty() { settings.default_runtime.as_str() } else { name };
    match name {
        // Scripts name Docker's own runtime; ours stands in for it unless the operator has configured one so called.
        "gantry" | "" => Ok(None),
        "runc" | "io.containerd.runc.v2" if !settings.runtimes.contains_key(name) => Ok(None),
        other => settings
            .runtimes
            .get(other)
            .cloned()
            .map(Some)
            .ok_or_else(|| Error::invalid(format!("unknown or invalid runtime name: {other}"))),
    }
}

fn or_else(wanted: &Option<Vec<String>>, default: &[String]) -> Vec<String> {
    wanted.clone().filter(|list| !list.is_empty()).unwrap_or_else(|| default.to_vec())
}

/// Whether containers of whom nobody says it see their cgroup as the root.
pub fn usual_cgroupns_mode() -> Result<&'static str> {
    Mode::detect().map(cgroupns_in)
}

fn cgroupns_in(mode: Mode) -> &'static str {
    if mode == Mode::V2 { "private" } else { "host" }
}

/// What `inspect` shows of defaults that were taken, as Docker fills them in at creation.
pub(crate) fn fill_in(host: &mut HostConfig, settings: &Settings, mode: Mode) {
    let or = |field: &mut String, value: &str| {
        if field.is_empty() {
            value.clone_into(field);
        }
    };
    or(&mut host.network_mode, "bridge");
    if host.network_mode == "default" {
        "bridge".clone_into(&mut host.network_mode);
    }
    or(&mut host.ipc_mode, &settings.ipc_mode);
    or(&mut host.ipc_mode, "private");
    // Also of a privileged one.
    or(&mut host.cgroupns_mode, &settings.cgroupns_mode);
    or(&mut host.cgroupns_mode, cgroupns_in(mode));
    or(&mut host.runtime, &settings.default_runtime);
    or(&mut host.log_config.r#type, &settings.log_driver);
    if host.log_config.config.is_none() {
        host.log_config.config = Some(BTreeMap::new());
    }
    // Without a name its count means nothing.
    if host.restart_policy.name.is_empty() {
        host.restart_policy.name = "no".to_owned();
        host.restart_policy.maximum_retry_count = 0;
    }
    if host.shm_size == 0 {
        host.shm_size = settings.shm_size as i64;
    }
    if host.resources.memory > 0 && host.resources.memory_swap == 0 {
        host.resources.memory_swap = host.resources.memory.saturating_mul(2);
    }
    // What clients send for "no limit".
    if host.resources.memory_swappiness == Some(-1) {
        host.resources.memory_swappiness = None;
    }
    if host.resources.pids_limit.is_some_and(|limit| limit <= 0) {
        host.resources.pids_limit = None;
    }
    if host.port_bindings.is_none() {
        host.port_bindings = Some(BTreeMap::new());
    }
    let shares = host.privileged || host.pid_mode == "host" || host.ipc_mode == "host";
    let options = host.security_opt.iter().flatten();
    if shares && !options.clone().any(|option| option.starts_with("label")) {
        host.security_opt.get_or_insert_default().push("label=disable".to_owned());
    }
    let unconfined = host.privileged
        || host.security_opt.iter().flatten().any(|option| option == "systempaths=unconfined");
    if !unconfined {
        host.masked_paths.get_or_insert_with(spec::masked_paths);
        host.readonly_paths.get_or_insert_with(spec::readonly_paths);
    }
}

#[cfg(test)]
mod tests {
    use runtime::cgroup::Driver;

    use super::*;
    use crate::container::mounts::Source;

    #[test]
    fn a_group_is_seen_as_the_root_where_there_is_one_tree() {
        for (mode, seen) in [(Mode::V1, "host"), (Mode::Hybrid, "host"), (Mode::V2, "private")] {
            let mut host = HostConfig { privileged: true, ..HostConfig::default() };
            fill_in(&mut host, &settings(), mode);
            assert_eq!(host.cgroupns_mode, seen);
            let told = Settings {
                cgroupns_mode: "host".to_owned(),
                ipc_mode: "shareable".to_owned(),
                ..settings()
            };
            let mut host = HostConfig { privileged: true, ..HostConfig::default() };
            fill_in(&mut host, &told, mode);
            assert_eq!(
                (host.cgroupns_mode.as_str(), host.ipc_mode.as_str()),
                ("host", "shareable")
            );
        }
    }

    fn settings() -> Settings {
        Settings {
            shm_size: 64 << 20,
            log_driver: "json-file".to_owned(),
            program_dirs: Vec::new(),
            experimental: false,
            default_runtime: "gantry".to_owned(),
            ..Settings::default()
        }
    }

    fn plan(change: impl FnOnce(&mut Config, &mut HostConfig)) -> Result<Plan> {
        let (mut config, mut host) = (Config::default(), HostConfig::default());
        config.cmd = Some(vec!["true".to_owned()]);
        change(&mut config, &mut host);
        Plan::of(&config, &host, ReadOnlyBinds::Whole, &settings())
    }

    fn refusal(change: impl FnOnce(&mut Config, &mut HostConfig)) -> String {
        plan(change).unwrap_err().chain()
    }

    #[test]
    fn apparmor_where_there_is_some() {
        let profile = |there, privileged, options: &[&str]| {
            let host = HostConfig {
                privileged,
                security_opt: Some(options.iter().map(|&option| option.to_owned()).collect()),
                ..HostConfig::default()
            };
            let config = Config { cmd: Some(vec!["true".to_owned()]), ..Config::default() };
            let settings = Settings { apparmor: there, ..settings() };
            Plan::of(&config, &host, ReadOnlyBinds::Whole, &settings).unwrap().apparmor
        };
        assert_eq!(profile(true, false, &[]), "docker-default");
        assert_eq!(profile(true, true, &[]), "unconfined");
        assert_eq!(profile(true, false, &["apparmor=unconfined"]), "unconfined");
        assert_eq!(profile(true, true, &["apparmor:mine"]), "mine");
        assert_eq!(profile(false, false, &[]), "");
        assert_eq!(profile(false, false, &["apparmor=docker-default"]), "");
        assert_eq!(profile(false, false, &["apparmor=mine"]), "mine");
    }

    #[test]
    fn systemd_knows_slices_only() {
        let below = |driver, parent: &str| {
            let host = HostConfig {
                resources: api::container::Resources {
                    cgroup_parent: parent.to_owned(),
                    ..api::container::Resources::default()
                },
                ..HostConfig::default()
            };
            let config = Config { cmd: Some(vec!["true".to_owned()]), ..Config::default() };
            let settings = Settings { cgroup_driver: driver, ..settings() };
            Plan::of(&config, &host, ReadOnlyBinds::Whole, &settings).map(|plan| plan.cgroup_parent)
        };
        assert_eq!(below(Driver::Cgroupfs, "/a").unwrap(), "/a");
        assert_eq!(below(Driver::Systemd, "a.slice").unwrap(), "a.slice");
        for wrong in ["/a", ".slice", "a.scope"] {
            assert_eq!(
                below(Driver::Systemd, wrong).unwrap_err().to_string(),
                "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\""
            );
        }
    }

    #[test]
    fn a_plain_run() {
        let plan = plan(|_, _| {}).unwrap();
        assert_eq!(plan.network, Network::Named("bridge".to_owned()));
        assert_eq!(plan.capabilities.len(), 14);
        assert_eq!(plan.shm_size, 64 << 20);
        assert_eq!(plan.seccomp, SeccompPlan::Default);
        assert!(plan.masked_paths.contains(&"/proc/kcore".to_owned()));
    }

    #[test]
    fn privileged_hides_nothing() {
        let plan = plan(|_, host| host.privileged = true).unwrap();
        assert_eq!(plan.seccomp, SeccompPlan::Unconfined);
        assert!(plan.masked_paths.is_empty());
    }

    #[test]
    fn in_dockers_words() {
        assert_eq!(
            refusal(|_, host| host.resources.memory = 1),
            "Minimum memory limit allowed is 6MB"
        );
        assert_eq!(
            refusal(|config, _| config.working_dir = "x".to_owned()),
            "the working directory 'x' is invalid, it needs to be an absolute path"
        );
        assert_eq!(
            refusal(|_, host| host.resources.cpuset_cpus = "0-9999999999".to_owned()),
            "Invalid value 0-9999999999 for cpuset cpus: invalid format: 0-9999999999"
        );
        assert_eq!(
            refusal(|_, host| host.runtime = "nope".to_owned()),
            "unknown or invalid runtime name: nope"
        );
    }

    #[test]
    fn what_is_not_built_is_named() {
        let error = plan(|_, host| {
            let mount =
                api::container::Mount { r#type: "cluster".to_owned(), ..Default::default() };
            host.mounts = vec![mount];
        });
        let error = error.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (stdx::Kind::NotImplemented, "HostConfig.Mounts of type cluster is not supported yet")
        );
        // Shown by Docker and used by nobody; Windows' own.
        let ignored = plan(|config, host| {
            host.cgroup = "container:x".to_owned();
            config.args_escaped = true;
        });
        assert!(ignored.is_ok());
    }

    #[test]
    fn cpus_become_a_quota() {
        let plan = plan(|_, host| host.resources.nano_cpus = 500_000_000).unwrap();
        let cpu = plan.resources.cpu.unwrap();
        assert_eq!((cpu.period, cpu.quota), (Some(100_000), Some(50_000)));
    }

    #[test]
    fn what_is_below_a_read_only_bind() {
        use super::super::mounts::Recursive;
        use ReadOnlyBinds::{Alone, Whole};
        let below = |bind: &str, binds: ReadOnlyBinds| {
            let binds_of = Some(vec![bind.to_owned()]);
            let host = HostConfig { binds: binds_of, ..HostConfig::default() };
            let plan = Plan::of(&Config::default(), &host, binds, &settings());
            match &plan.unwrap().mounts[0].source {
                Source::Bind { recursive, .. } => *recursive,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(below("/a:/b:ro", Whole), Recursive::Enabled);
        assert_eq!(below("/a:/b:ro", Alone), Recursive::Writable);
        assert_eq!(below("/a:/b", Alone), Recursive::Enabled);
    }

    #[test]
    fn a_bind_over_an_images_volume_wins() {
        let plan = plan(|config, host| {
            config.volumes = Some([("/data".to_owned(), api::Empty {})].into());
            host.binds = Some(vec!["/src:/data".to_owned()]);
        })
        .unwrap();
        assert_eq!(plan.mounts.len(), 1);
        assert!(matches!(plan.mounts[0].source, Source::Bind { .. }));
    }
}
