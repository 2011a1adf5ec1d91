//! The request, understood. `HostConfig` is read here and nowhere else.
//!
//! What is accepted here is applied by `spec.rs` and `start.rs`. What Docker knows and we have not built is refused by
//! name: silence would be a lie.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use api::container::{Config, HostConfig, Mount, Resources as Wanted, Ulimit};
use oci::runtime::{BlockIo, Cpu, DeviceRule, Memory, Pids, Resources, Seccomp};
use stdx::{Error, Id, Result};

use super::mounts::{self, Missing, MountPlan, Recursive, Source};
use super::restart_policy::RestartPolicy;
use super::{capabilities, signal, spec};
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
    pub pid: Pid,
    pub ipc: Ipc,
    pub uts: Uts,
    pub cgroupns: Cgroupns,
    pub mounts: Vec<MountPlan>,
    /// Bytes.
    pub shm_size: i64,
    pub read_only: bool,
    pub privileged: bool,
    pub no_new_privileges: bool,
    pub writable_cgroups: bool,
    pub capabilities: BTreeSet<String>,
    pub seccomp: SeccompPlan,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub devices: Vec<DevicePlan>,
    pub device_rules: Vec<DeviceRule>,
    pub resources: Resources,
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

#[derive(Clone, Debug, PartialEq)]
pub enum SeccompPlan {
    Unconfined,
    Profile(Box<Seccomp>),
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
    pub fn of(config: &Config, host: &HostConfig, settings: &Settings) -> Result<Self> {
        refuse_unbuilt(config, host)?;
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
        if !config.stop_signal.is_empty() {
            signal::parse(&config.stop_signal)?;
        }
        if let Some(timeout) = config.stop_timeout.filter(|timeout| *timeout < -1) {
            return Err(Error::invalid(format!("invalid stop timeout: {timeout}")));
        }
        if !config.working_dir.is_empty() && mounts::absolute(&config.working_dir).is_none() {
            return Err(Error::invalid(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                config.working_dir
            )));
        }
        check_env(config.env.as_deref().unwrap_or_default())?;
        if config.healthcheck.as_ref().is_some_and(|check| {
            !matches!(check.test.first().map(String::as_str), None | Some("NONE"))
        }) {
            warnings.push(
                "The image's health check is not run: health checks are not supported yet."
                    .to_owned(),
            );
        }
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
        check_hostname(&config.hostname)?;
        let oom_score_adj =
            i32::try_from(host.oom_score_adj).ok().filter(|score| (-1000..=1000).contains(score));
        Ok(Self {
            args,
            env: list(&config.env),
            cwd: config.working_dir.clone(),
            user: config.user.clone(),
            groups: list(&host.group_add),
            tty: config.tty,
            hostname: config.hostname.clone(),
            domainname: config.domainname.clone(),
            pid: match host.pid_mode.as_str() {
                "" | "private" => Pid::Private,
                "host" => Pid::Host,
                other => Pid::Container(joined(other, "PID")?),
            },
            ipc: match host.ipc_mode.as_str() {
                "" | "private" => Ipc::Private,
                "shareable" => Ipc::Shareable,
                "none" => Ipc::None,
                "host" => Ipc::Host,
                other => Ipc::Container(joined(other, "IPC")?),
            },
            uts,
            cgroupns: match host.cgroupns_mode.as_str() {
                "" => Cgroupns::Default,
                "private" => Cgroupns::Private,
                "host" => Cgroupns::Host,
                other => {
                    return Err(Error::invalid(format!("invalid cgroup namespace mode: {other}")));
                }
            },
            network,
            mounts: all_mounts(config, host)?,
            shm_size: match host.shm_size {
                0 => settings.shm_size as i64,
                size if size < 0 => return Err(Error::invalid("SHM size can not be less than 0")),
                size => size,
            },
            read_only: host.readonly_rootfs,
            privileged: host.privileged,
            no_new_privileges: security.no_new_privileges,
            writable_cgroups: security.writable_cgroups,
            seccomp: seccomp(&security.seccomp, &capabilities, host.privileged)?,
            masked_paths: paths(&host.masked_paths, spec::masked_paths),
            readonly_paths: paths(&host.readonly_paths, spec::readonly_paths),
            capabilities,
            devices: devices(&host.resources)?,
            device_rules: device_rules(&host.resources)?,
            resources: resources(&host.resources, &mut warnings)?,
            ulimits: ulimits(&host.resources, settings)?,
            sysctls: sysctls(host)?,
            oom_score_adj: oom_score_adj.ok_or_else(|| {
                Error::invalid(format!(
                    "Invalid value {}, range for oom score adj is [-1000, 1000]",
                    host.oom_score_adj
                ))
            })?,
            init: host.init.unwrap_or(settings.init),
            cgroup_parent: match host.resources.cgroup_parent.as_str() {
                "" => settings.cgroup_parent.clone(),
                parent => parent.to_owned(),
            },
            runtime: runtime(&host.runtime, settings)?,
            annotations: host.annotations.clone(),
            restart,
            auto_remove: host.auto_remove,
            log: log(host, settings)?,
            dns: dns(or_else(&host.dns, &settings.dns))?,
            dns_search: or_else(&host.dns_search, &settings.dns_search),
            dns_options: or_else(&host.dns_options, &settings.dns_options),
            extra_hosts: extra_hosts(host)?,
            warnings,
        })
    }

    /// A container must have something to run.
    pub fn check_process(&self) -> Result<()> {
        if self.args.is_empty() || self.args == [""] {
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

/// Docker knows these and we do not, yet.
fn refuse_unbuilt(config: &Config, host: &HostConfig) -> Result<()> {
    let r = &host.resources;
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let published = host.port_bindings.as_ref().is_some_and(|ports| {
        ports
            .values()
            .any(|bindings| bindings.as_ref().is_some_and(|bindings| !bindings.is_empty()))
    });
    let throttles = [
        &r.blkio_device_read_bps,
        &r.blkio_device_write_bps,
        &r.blkio_device_read_iops,
        &r.blkio_device_write_iops,
    ];
    let unbuilt: [(&str, bool); 14] = [
        ("HostConfig.PortBindings", published),
        ("HostConfig.PublishAllPorts", host.publish_all_ports),
        ("HostConfig.VolumesFrom", given(&host.volumes_from)),
        ("HostConfig.Links", given(&host.links)),
        ("HostConfig.StorageOpt", !host.storage_opt.is_empty()),
        (
            "HostConfig.DeviceRequests",
            r.device_requests.as_ref().is_some_and(|requests| !requests.is_empty()),
        ),
        ("HostConfig.VolumeDriver", !matches!(host.volume_driver.as_str(), "" | "local")),
        ("HostConfig.UsernsMode", !matches!(host.userns_mode.as_str(), "" | "host")),
        ("HostConfig.Cgroup", !host.cgroup.is_empty()),
        (
            "HostConfig.BlkioWeightDevice",
            r.blkio_weight_device.as_ref().is_some_and(|list| !list.is_empty()),
        ),
        (
            "HostConfig.BlkioDevice*",
            throttles.iter().any(|list| list.as_ref().is_some_and(|list| !list.is_empty())),
        ),
        ("HostConfig.KernelMemory", r.kernel_memory != 0 || r.kernel_memory_tcp != 0),
        (
            "HostConfig.Mounts of type image, cluster or npipe",
            host.mounts.iter().any(|m| matches!(m.r#type.as_str(), "image" | "cluster" | "npipe")),
        ),
        ("ArgsEscaped", config.args_escaped),
    ];
    if let Some((name, _)) = unbuilt.iter().find(|(_, asked)| *asked) {
        return Err(Error::not_implemented(format!("{name} is not supported yet")));
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(Error::invalid(format!(
            "invalid isolation: \"{}\" - linux only supports 'default'",
            host.isolation
        )));
    }
    Ok(())
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

fn check_env(env: &[String]) -> Result<()> {
    match env.iter().find(|pair| pair.is_empty() || pair.starts_with('=') || pair.contains('\0')) {
        Some(pair) => Err(Error::invalid(format!("invalid environment variable: {pair}"))),
        None => Ok(()),
    }
}

fn check_hostname(name: &str) -> Result<()> {
    let right = name.len() <= 63
        && !name.starts_with('-')
        && !name.bytes().any(|c| c == b'/' || c == 0 || c.is_ascii_whitespace());
    if right { Ok(()) } else { Err(Error::invalid(format!("invalid hostname format: {name}"))) }
}

/// `--security-opt`.
struct Security {
    no_new_privileges: bool,
    writable_cgroups: bool,
    /// `systempaths=unconfined`.
    all_paths: bool,
    /// Empty: the default. Else `unconfined` or the profile's text.
    seccomp: String,
}

impl Security {
    fn of(host: &HostConfig, settings: &Settings) -> Result<Self> {
        let mut this = Self {
            no_new_privileges: settings.no_new_privileges,
            writable_cgroups: false,
            all_paths: false,
            seccomp: settings.seccomp_profile.clone(),
        };
        for option in host.security_opt.iter().flatten() {
            let (key, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
                Some((key, value)) => (key, Some(value)),
                None => (option.as_str(), None),
            };
            let flag = || match value {
                None | Some("true") => Ok(true),
                Some("false") => Ok(false),
                Some(_) => Err(Error::invalid(format!("invalid --security-opt 2: \"{option}\""))),
            };
            match (key, value) {
                ("no-new-privileges", _) => this.no_new_privileges = flag()?,
                ("writable-cgroups", _) => this.writable_cgroups = flag()?,
                ("seccomp", Some("builtin")) => this.seccomp.clear(),
                ("seccomp", Some(value)) => value.clone_into(&mut this.seccomp),
                ("systempaths", Some("unconfined")) => this.all_paths = true,
                // No SELinux and no AppArmor profile of ours to switch off.
                ("label", Some("disable")) | ("apparmor", Some("unconfined")) => {}
                ("label" | "apparmor" | "credentialspec", Some(_)) => {
                    return Err(Error::not_implemented(format!(
                        "--security-opt {key} is not supported yet"
                    )));
                }
                _ => return Err(Error::invalid(format!("invalid --security-opt 2: \"{option}\""))),
            }
        }
        Ok(this)
    }
}

/// A profile that cannot be understood stops the container, it does not weaken it.
fn seccomp(wanted: &str, capabilities: &BTreeSet<String>, privileged: bool) -> Result<SeccompPlan> {
    use runtime::seccomp::profile::{Profile, Surroundings};
    if wanted == "unconfined" || privileged && wanted.is_empty() {
        return Ok(SeccompPlan::Unconfined);
    }
    let profile = match wanted {
        "" => Profile::default_profile(),
        text => Profile::parse(text)?,
    };
    let names: Vec<String> = capabilities.iter().cloned().collect();
    let around = Surroundings { capabilities: &names, kernel: running_kernel() };
    Ok(SeccompPlan::Profile(Box::new(profile.resolve(around))))
}

/// Version and patch level; 0.0 never satisfies a rule, so what cannot be read is stricter, not laxer.
fn running_kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn all_mounts(config: &Config, host: &HostConfig) -> Result<Vec<MountPlan>> {
    let mut all = Vec::new();
    for bind in host.binds.iter().flatten() {
        mounts::add(&mut all, mounts::parse_bind(bind)?)?;
    }
    for mount in &host.mounts {
        mounts::add(&mut all, typed_mount(mount)?)?;
    }
    for (target, options) in &host.tmpfs {
        let bad =
            || Error::invalid(format!("invalid tmpfs mount: '{target}' is not an absolute path"));
        let target = mounts::absolute(target).ok_or_else(bad)?;
        let options: Vec<String> =
            options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect();
        for option in &options {
            check_tmpfs_option(option)?;
        }
        let read_only = options.iter().any(|option| option == "ro");
        mounts::add(
            &mut all,
            MountPlan { target, read_only, source: Source::Tmpfs { options }, mode: String::new() },
        )?;
    }
    // The image's and `-v /path` volumes, where nothing else was asked for.
    for path in config.volumes.iter().flat_map(BTreeMap::keys) {
        let target = mounts::absolute(path)
            .filter(|target| target != "/")
            .ok_or_else(|| Error::invalid(format!("invalid volume specification: '{path}'")))?;
        if !all.iter().any(|other| other.target == target) {
            all.push(MountPlan {
                target,
                read_only: false,
                source: Source::volume(),
                mode: String::new(),
            });
        }
    }
    Ok(all)
}

fn typed_mount(mount: &Mount) -> Result<MountPlan> {
    let bad = |why: String| {
        Error::invalid(format!("invalid mount config for type \"{}\": {why}", mount.r#type))
    };
    let target = match mount.target.as_str() {
        "" => return Err(bad("field Target must not be empty".to_owned())),
        text => mounts::absolute(text).ok_or_else(|| {
            bad(format!("invalid mount path: '{text}' mount path must be absolute"))
        })?,
    };
    if target == "/" {
        return Err(bad("invalid specification: destination can't be '/'".to_owned()));
    }
    let source = match mount.r#type.as_str() {
        "bind" => {
            if mount.source.is_empty() {
                return Err(bad("field Source must not be empty".to_owned()));
            }
            let path = mounts::absolute(&mount.source).ok_or_else(|| {
                bad(format!("invalid mount path: '{}' mount path must be absolute", mount.source))
            })?;
            let options = mount.bind_options.clone().unwrap_or_default();
            const PROPAGATIONS: [&str; 7] =
                ["", "private", "rprivate", "slave", "rslave", "shared", "rshared"];
            if !PROPAGATIONS.contains(&options.propagation.as_str()) {
                return Err(bad(format!("invalid propagation mode: {}", options.propagation)));
            }
            Source::Bind {
                path,
                missing: if options.create_mountpoint { Missing::Create } else { Missing::Refuse },
                propagation: options.propagation,
                recursive: match (
                    options.non_recursive,
                    options.read_only_non_recursive,
                    options.read_only_force_recursive,
                ) {
                    (true, _, _) => Recursive::Disabled,
                    (_, true, _) => Recursive::Writable,
                    (_, _, true) => Recursive::Readonly,
                    _ => Recursive::Enabled,
                },
            }
        }
        "volume" => {
            let options = mount.volume_options.clone().unwrap_or_default();
            if let Some(driver) = options
                .driver_config
                .filter(|d| !matches!(d.name.as_str(), "" | "local") || !d.options.is_empty())
            {
                return Err(Error::not_implemented(format!(
                    "volume driver options ({}) are not supported yet",
                    driver.name
                )));
            }
            if !options.labels.is_empty() {
                return Err(Error::not_implemented("volume labels are not supported yet"));
            }
            if !mount.source.is_empty() {
                mounts::check_volume_name(&mount.source)?;
            }
            Source::Volume {
                name: (!mount.source.is_empty()).then(|| mount.source.clone()),
                copy_up: !options.no_copy,
                subpath: (!options.subpath.is_empty()).then_some(options.subpath),
            }
        }
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(bad("field Source must not be specified".to_owned()));
            }
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            let mut words = Vec::new();
            if options.size_bytes != 0 {
                words.push(format!("size={}", options.size_bytes));
            }
            if options.mode != 0 {
                words.push(format!("mode={:o}", options.mode));
            }
            for option in &options.options {
                let word = option.join("=");
                check_tmpfs_option(&word)?;
                words.push(word);
            }
            Source::Tmpfs { options: words }
        }
        _ => return Err(bad("mount type unknown".to_owned())),
    };
    Ok(MountPlan { target, read_only: mount.read_only, source, mode: String::new() })
}

fn check_tmpfs_option(option: &str) -> Result<()> {
    const FLAGS: &str = "defaults ro rw suid nosuid dev nodev exec noexec sync async dirsync remount mand nomand atime noatime diratime nodiratime relatime norelatime strictatime nostrictatime private rprivate shared rshared slave rslave unbindable runbindable bind rbind";
    const KEYS: &str = "mode uid gid size nr_inodes nr_blocks mpol huge";
    let known = match option.split_once('=') {
        Some((key, _)) => KEYS.split(' ').any(|name| name == key),
        None => FLAGS.split(' ').any(|name| name == option),
    };
    if known { Ok(()) } else { Err(Error::invalid(format!("invalid tmpfs option [\"{option}\"]"))) }
}

fn devices(wanted: &Wanted) -> Result<Vec<DevicePlan>> {
    wanted
        .devices
        .iter()
        .flatten()
        .map(|device| {
            let access = if device.cgroup_permissions.is_empty() {
                "rwm"
            } else {
                &device.cgroup_permissions
            };
            if !access.chars().all(|c| "rwm".contains(c)) {
                return Err(Error::invalid(format!("invalid device mode: {access}")));
            }
            let container = if device.path_in_container.is_empty() {
                &device.path_on_host
            } else {
                &device.path_in_container
            };
            Ok(DevicePlan {
                host: device.path_on_host.clone(),
                container: mounts::absolute(container).ok_or_else(|| {
                    Error::invalid(format!("{container} is not an absolute path"))
                })?,
                access: access.to_owned(),
            })
        })
        .collect()
}

/// `c 10:200 rwm`, with `*` for any number and `a` for both kinds.
fn device_rules(wanted: &Wanted) -> Result<Vec<DeviceRule>> {
    wanted
        .device_cgroup_rules
        .iter()
        .flatten()
        .map(|text| {
            let bad = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
            let mut words = text.split_whitespace();
            let (Some(kind), Some(numbers), Some(access), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                return Err(bad());
            };
            let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
            let number = |text: &str| match text {
                "*" => Ok(None),
                digits => {
                    digits.parse::<u32>().map(|number| Some(i64::from(number))).map_err(|_| bad())
                }
            };
            let right = matches!(kind, "a" | "b" | "c")
                && !access.is_empty()
                && access.chars().all(|c| "rwm".contains(c));
            if !right {
                return Err(bad());
            }
            Ok(DeviceRule {
                allow: true,
                kind: kind.to_owned(),
                major: number(major)?,
                minor: number(minor)?,
                access: access.to_owned(),
            })
        })
        .collect()
}

/// Limits as the cgroups take them; what contradicts itself is refused.
pub(crate) fn resources(wanted: &Wanted, warnings: &mut Vec<String>) -> Result<Resources> {
    let bad = |sentence: &str| Err(Error::invalid(sentence));
    if wanted.memory != 0 && wanted.memory < LEAST_MEMORY {
        return bad("Minimum memory limit allowed is 6MB");
    }
    let mut swap = wanted.memory_swap;
    if wanted.memory > 0 && swap > 0 && swap < wanted.memory {
        return bad("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if wanted.memory == 0 && swap > 0 {
        return bad(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    if wanted.memory > 0 && swap == 0 {
        swap = wanted.memory.saturating_mul(2);
    }
    if let Some(swappiness) =
        wanted.memory_swappiness.filter(|value| *value != -1 && !(0..=100).contains(value))
    {
        return Err(Error::invalid(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )));
    }
    if wanted.memory_reservation != 0 && wanted.memory_reservation < LEAST_MEMORY {
        return bad("Minimum memory reservation allowed is 6MB");
    }
    if wanted.memory > 0 && wanted.memory_reservation > wanted.memory {
        return bad(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    if wanted.nano_cpus > 0 && (wanted.cpu_period > 0 || wanted.cpu_quota > 0) {
        return bad("Conflicting options: Nano CPUs and CPU Period/Quota cannot both be set");
    }
    let cpus = crate::system::cpus();
    if wanted.nano_cpus < 0 || wanted.nano_cpus > cpus * 1_000_000_000 {
        return Err(Error::invalid(format!(
            "Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if wanted.cpu_period != 0 && !(1_000..=1_000_000).contains(&wanted.cpu_period) {
        return bad(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if wanted.cpu_quota > 0 && wanted.cpu_quota < 1_000 {
        return bad("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    check_cpuset(&wanted.cpuset_cpus, "cpus", cpus)?;
    check_cpuset(&wanted.cpuset_mems, "mems", 1024)?;
    if wanted.blkio_weight != 0 && !(10..=1000).contains(&wanted.blkio_weight) {
        return bad("Range of blkio weight is from 10 to 1000");
    }
    if wanted.oom_kill_disable == Some(true) && wanted.memory == 0 {
        warnings.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".to_owned());
    }
    let positive = |value: i64| (value != 0).then_some(value);
    let natural = |value: i64| (value > 0).then_some(value as u64);
    let memory = Memory {
        limit: positive(wanted.memory),
        reservation: positive(wanted.memory_reservation),
        swap: positive(swap),
        swappiness: wanted.memory_swappiness.and_then(|value| u64::try_from(value).ok()),
        disable_oom_killer: wanted.oom_kill_disable.filter(|disabled| *disabled),
        ..Memory::default()
    };
    let (period, quota) = match wanted.nano_cpus {
        0 => (natural(wanted.cpu_period), positive(wanted.cpu_quota)),
        nano => (Some(100_000), Some(nano / 10_000)),
    };
    let cpu = Cpu {
        shares: natural(wanted.cpu_shares),
        period,
        quota,
        realtime_period: natural(wanted.cpu_realtime_period),
        realtime_runtime: positive(wanted.cpu_realtime_runtime),
        cpus: wanted.cpuset_cpus.clone(),
        mems: wanted.cpuset_mems.clone(),
        ..Cpu::default()
    };
    let weight = (wanted.blkio_weight != 0).then_some(wanted.blkio_weight);
    Ok(Resources {
        memory: (memory != Memory::default()).then_some(memory),
        cpu: (cpu != Cpu::default()).then_some(cpu),
        pids: wanted
            .pids_limit
            .filter(|limit| *limit != 0)
            .map(|limit| Pids { limit: Some(limit) }),
        block_io: weight.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
        ..Resources::default()
    })
}

/// `0-3,5`. Numbers are bounded before anything is made of them (CVE-2018-20699).
fn check_cpuset(text: &str, what: &str, count: i64) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let bad = || Error::invalid(format!("Invalid value {text} for cpuset {what}"));
    let number = |text: &str| {
        text.trim()
            .parse::<i64>()
            .ok()
            .filter(|number| (0..1 << 16).contains(number))
            .ok_or_else(bad)
    };
    for part in text.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high) = (number(low)?, number(high)?);
        if low > high {
            return Err(bad());
        }
        if high >= count {
            return Err(Error::invalid(format!(
                "Requested {} are not available - requested {text}, available: 0-{}",
                if what == "cpus" { "CPUs" } else { "memory nodes" },
                count - 1
            )));
        }
    }
    Ok(())
}

fn ulimits(wanted: &Wanted, settings: &Settings) -> Result<Vec<Ulimit>> {
    const NAMES: &str = "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack";
    let mut all: Vec<Ulimit> = wanted.ulimits.clone().unwrap_or_default();
    for limit in &all {
        if !NAMES.split(' ').any(|name| name == limit.name) {
            return Err(Error::invalid(format!("invalid ulimit type: {}", limit.name)));
        }
        if limit.hard != -1 && (limit.soft == -1 || limit.soft > limit.hard) {
            return Err(Error::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                limit.soft, limit.hard
            )));
        }
    }
    for (name, soft, hard) in &settings.ulimits {
        if !all.iter().any(|limit| limit.name == *name) {
            all.push(Ulimit { name: name.clone(), soft: *soft, hard: *hard });
        }
    }
    Ok(all)
}

/// Only those that belong to a namespace of the container's own.
fn sysctls(host: &HostConfig) -> Result<BTreeMap<String, String>> {
    const IPC: &str = "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni kernel.shm_rmid_forced";
    for name in host.sysctls.keys() {
        let ipc = IPC.split(' ').any(|known| known == name) || name.starts_with("fs.mqueue.");
        let net = name.starts_with("net.");
        if ipc && host.ipc_mode == "host" {
            return Err(Error::invalid(format!(
                "sysctl '{name}' is not allowed because it is in the host's IPC namespace"
            )));
        }
        if net && host.network_mode == "host" {
            return Err(Error::invalid(format!(
                "sysctl '{name}' is not allowed in the host's network namespace"
            )));
        }
        let uts = matches!(name.as_str(), "kernel.domainname" | "kernel.hostname");
        if !(ipc || net || uts) || name.contains("..") || name.contains('/') {
            return Err(Error::invalid(format!(
                "sysctl '{name}' is not allowed: it is not namespaced"
            )));
        }
    }
    Ok(host.sysctls.clone())
}

fn runtime(name: &str, settings: &Settings) -> Result<Option<PathBuf>> {
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

/// Where output goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPlan {
    pub driver: String,
    pub options: BTreeMap<String, String>,
}

/// The driver's options; the daemon's defaults hold where the container names the same driver or none.
pub(crate) fn log(host: &HostConfig, settings: &Settings) -> Result<LogPlan> {
    let driver = match host.log_config.r#type.as_str() {
        "" => settings.log_driver.clone(),
        other => other.to_owned(),
    };
    let mut options = host.log_config.config.clone().unwrap_or_default();
    if driver == settings.log_driver {
        for (name, value) in &settings.log_opts {
            options.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    if options.get("mode").is_some_and(|mode| mode == "non-blocking")
        || options.contains_key("max-buffer-size")
    {
        // Output is never held up by its log here: the shim drops lines it cannot write and counts them.
        tracing::debug!("a log never blocks its container: mode=non-blocking changes nothing");
    }
    if let Some(unbuilt) =
        ["labels-regex", "env-regex"].iter().find(|name| options.contains_key(**name))
    {
        return Err(Error::not_implemented(format!("log opt '{unbuilt}' is not supported yet")));
    }
    shim::logs::Config::from_options(&driver, &options)?;
    Ok(LogPlan { driver, options })
}

impl LogPlan {
    /// What each line is to carry: the labels and variables named, and the tag.
    pub(crate) fn attributes(&self, record: &super::record::Record) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let names = |option: &str| self.options.get(option).cloned().unwrap_or_default();
        let labels = record.labels();
        for name in names("labels").split(',').filter(|name| !name.is_empty()) {
            if let Some(value) = labels.get(name) {
                found.insert(name.to_owned(), value.clone());
            }
        }
        for name in names("env").split(',').filter(|name| !name.is_empty()) {
            let pair = record
                .config
                .env
                .iter()
                .flatten()
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            if let Some(value) = pair {
                found.insert(name.to_owned(), value.to_owned());
            }
        }
        if let Some(tag) = self.options.get("tag") {
            let tag = tag
                .replace("{{.ID}}", record.id.short())
                .replace("{{.FullID}}", record.id.as_str())
                .replace("{{.Name}}", &record.name)
                .replace("{{.ImageName}}", &record.config.image);
            found.insert("tag".to_owned(), tag);
        }
        found
    }
}

fn or_else(wanted: &Option<Vec<String>>, default: &[String]) -> Vec<String> {
    wanted.clone().filter(|list| !list.is_empty()).unwrap_or_else(|| default.to_vec())
}

fn dns(servers: Vec<String>) -> Result<Vec<String>> {
    match servers.iter().find(|text| text.parse::<std::net::IpAddr>().is_err()) {
        Some(bad) => Err(Error::invalid(format!("IP address is not correctly formatted: {bad}"))),
        None => Ok(servers),
    }
}

fn extra_hosts(host: &HostConfig) -> Result<Vec<String>> {
    let hosts = host.extra_hosts.clone().unwrap_or_default();
    for entry in &hosts {
        let bad = || Error::invalid(format!("bad format for add-host: \"{entry}\""));
        let (name, address) = entry.split_once([':', '=']).ok_or_else(bad)?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if name.is_empty() {
            return Err(bad());
        }
        if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
            return Err(Error::invalid(format!("invalid IP address in add-host: \"{address}\"")));
        }
    }
    Ok(hosts)
}

/// What `inspect` shows of defaults that were taken, as Docker fills them in at creation.
pub(crate) fn fill_in(host: &mut HostConfig, settings: &Settings) {
    let or = |field: &mut String, value: &str| {
        if field.is_empty() {
            value.clone_into(field);
        }
    };
    or(&mut host.network_mode, "bridge");
    if host.network_mode == "default" {
        "bridge".clone_into(&mut host.network_mode);
    }
    or(&mut host.ipc_mode, "private");
    or(&mut host.restart_policy.name, "no");
    or(&mut host.cgroupns_mode, "host");
    or(&mut host.runtime, &settings.default_runtime);
    or(&mut host.log_config.r#type, &settings.log_driver);
    if host.log_config.config.is_none() {
        host.log_config.config = Some(BTreeMap::new());
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
    let unconfined = host.privileged
        || host.security_opt.iter().flatten().any(|option| option == "systempaths=unconfined");
    if !unconfined {
        host.masked_paths.get_or_insert_with(spec::masked_paths);
        host.readonly_paths.get_or_insert_with(spec::readonly_paths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            shm_size: 64 << 20,
            log_driver: "json-file".to_owned(),
            default_runtime: "gantry".to_owned(),
            ..Settings::default()
        }
    }

    fn plan(change: impl FnOnce(&mut Config, &mut HostConfig)) -> Result<Plan> {
        let (mut config, mut host) = (Config::default(), HostConfig::default());
        config.cmd = Some(vec!["true".to_owned()]);
        change(&mut config, &mut host);
        Plan::of(&config, &host, &settings())
    }

    fn refusal(change: impl FnOnce(&mut Config, &mut HostConfig)) -> String {
        plan(change).unwrap_err().chain()
    }

    #[test]
    fn a_plain_run() {
        let plan = plan(|_, _| {}).unwrap();
        assert_eq!(plan.network, Network::Named("bridge".to_owned()));
        assert_eq!(plan.capabilities.len(), 14);
        assert_eq!(plan.shm_size, 64 << 20);
        assert!(matches!(plan.seccomp, SeccompPlan::Profile(_)));
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
            "Invalid value 0-9999999999 for cpuset cpus"
        );
        assert_eq!(
            refusal(|_, host| host.runtime = "nope".to_owned()),
            "unknown or invalid runtime name: nope"
        );
    }

    #[test]
    fn what_is_not_built_is_named() {
        let error = plan(|_, host| host.publish_all_ports = true).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (stdx::Kind::NotImplemented, "HostConfig.PublishAllPorts is not supported yet")
        );
    }

    #[test]
    fn cpus_become_a_quota() {
        let plan = plan(|_, host| host.resources.nano_cpus = 500_000_000).unwrap();
        let cpu = plan.resources.cpu.unwrap();
        assert_eq!((cpu.period, cpu.quota), (Some(100_000), Some(50_000)));
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
