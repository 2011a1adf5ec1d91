//! What a configuration means to each part of the engine.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use engine::container::ids::{Range, Userns};
use engine::container::userns;
use engine::{OpenDoor, Settings};
use image::RegistryConfig;
use network::netd::NetdConfig;
use network::{AddressPool, Bridge, NetworkConfig};
use plugin::Places;
use rootless::Outside;
use runtime::cgroup::Driver;
use shim::logs::PluginPlaces;
use stdx::{Error, Result};

use crate::config::{self, Config};

pub(super) fn settings(config: &Config, identity: &str) -> Result<Settings> {
    let Places { sockets, specs } = plugin_places(config);
    let (userns, id_pool) = users(config)?;
    let (cgroup_driver, cgroup_parent) = cgroups(config)?;
    Ok(Settings {
        userns,
        id_pool,
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        identity: identity.to_owned(),
        data_root: config.data_root.clone(),
        exec_root: config.exec_root.clone(),
        debug: config.debug,
        log_driver: config.log_driver.clone(),
        log_opts: config.log_opts.clone(),
        log_budget: config.log_budget,
        log_environment: crate::config::log_environment().into(),
        log_plugins: PluginPlaces { sockets, specs, fifos: config.exec_root.join("logging") },
        default_runtime: config.default_runtime.clone(),
        program_dirs: crate::config::program_dirs(),
        experimental: config.experimental,
        runtimes: config.runtimes.clone(),
        init: config.init,
        ipc_mode: config.ipc_mode.clone(),
        cgroupns_mode: config.cgroupns_mode.clone(),
        no_new_privileges: config.no_new_privileges,
        shm_size: config.shm_size,
        rootless: config.rootless.is_some(),
        cgroup_driver,
        cgroup_parent,
        dns: config.dns.clone(),
        dns_search: config.dns_search.clone(),
        dns_options: config.dns_options.clone(),
        ulimits: config.ulimits.clone(),
        seccomp_profile: config.seccomp_profile.clone(),
        apparmor: engine::apparmor::is_there(),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        labels: config.labels.clone(),
        registry_mirrors: config.registry_mirrors.clone(),
        insecure_registries: config.insecure_registries.clone(),
        authorization_plugins: config.authorization_plugins.clone(),
        open_doors: open_doors(config),
        address_pools: config.address_pools.clone(),
        firewall: config.iptables || config.ip6tables,
        cdi_spec_dirs: cdi_spec_dirs(config),
        commit: env!("GANTRY_COMMIT").to_owned(),
        compiler: env!("GANTRY_COMPILER").to_owned(),
    })
}

/// Where whoever can connect is root on this host.
pub(super) fn open_doors(config: &Config) -> Vec<OpenDoor> {
    let addresses = config.hosts.iter().filter_map(|host| host.strip_prefix("tcp://"));
    let door = match (config.tls, config.tls_verify) {
        (_, true) => return Vec::new(),
        (true, false) => OpenDoor::Anybody,
        (false, false) => OpenDoor::Plain,
    };
    addresses.map(|address| door(address.to_owned())).collect()
}

pub(super) fn plugin_places(config: &Config) -> Places {
    match config.plugin_directories.as_slice() {
        [] => Places::default(),
        directories => Places::only(directories),
    }
}

/// Where devices are described. Nowhere, if the feature is off or the only place has no name.
fn cdi_spec_dirs(config: &Config) -> Vec<PathBuf> {
    let off = config.features.get("cdi") == Some(&false);
    match &config.cdi_spec_dirs {
        _ if off => Vec::new(),
        None => ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from).to_vec(),
        Some(dirs) if matches!(&dirs[..], [only] if only.as_os_str().is_empty()) => Vec::new(),
        Some(dirs) => dirs.clone(),
    }
}

/// Who makes cgroups: where there is but one tree of them it is systemd's, as in Docker; a user's own for a user.
fn cgroups(config: &Config) -> Result<(Driver, String)> {
    let rootless = config.rootless.is_some();
    let systemd_can = match rootless {
        true => runtime::cgroup::users_systemd_runs(),
        false => runtime::cgroup::systemd_runs(),
    };
    let usual = || -> Result<Driver> {
        let one_tree = runtime::cgroup::Mode::detect()? == runtime::cgroup::Mode::V2;
        Ok(if one_tree && systemd_can { Driver::Systemd } else { Driver::Cgroupfs })
    };
    let driver = config.cgroup_driver.map_or_else(usual, Ok)?;
    if driver == Driver::Systemd && !systemd_can {
        return Err(Error::not_implemented(match rootless {
            true => {
                "the systemd cgroup driver needs a user's systemd with a bus, and a daemon that it has started, on a host \
                 with cgroup v2"
            }
            false => "the systemd cgroup driver needs a host whose first process is systemd",
        }));
    }
    let parent = match config.cgroup_parent.as_str() {
        "" => engine::default_cgroup_parent(driver, rootless),
        parent => parent,
    };
    engine::check_cgroup_parent(driver, parent)?;
    Ok((driver, parent.to_owned()))
}

/// Whose users those of containers are.
fn users(config: &Config) -> Result<(Userns, Range)> {
    let pool = match config.userns_pool.as_str() {
        "" => Range::for_containers(),
        text => Range::parse(text)?,
    };
    let userns = match (config.userns.as_str(), config.userns_remap.as_str()) {
        (mode, "") => Userns::parse(mode, Userns::Host)?,
        ("", user) => Userns::Shared(userns::remapped(user)?),
        _ => return Err(Error::invalid("--userns and --userns-remap exclude each other")),
    };
    if matches!(userns, Userns::KeepId { .. }) {
        return Err(Error::invalid("--userns keep-id is for single containers"));
    }
    Ok((userns, pool))
}

pub(crate) fn registries(config: &Config, outside: Option<Arc<Outside>>) -> RegistryConfig {
    RegistryConfig {
        mirrors: config.registry_mirrors.clone(),
        insecure: config.insecure_registries.clone(),
        concurrent_downloads: config.max_concurrent_downloads,
        attempts: config.max_download_attempts,
        outside,
        ..RegistryConfig::default()
    }
}

pub(super) fn networking(config: &Config, identity: &str) -> Result<NetworkConfig> {
    let default = NetworkConfig::default();
    let pool = |(base, size): &(String, u8)| {
        let base = base
            .parse()
            .map_err(|_| Error::invalid(format!("invalid base of an address pool: {base}")))?;
        Ok(AddressPool { base, size: *size })
    };
    let mut pools = config.address_pools.iter().map(pool).collect::<Result<Vec<_>>>()?;
    if pools.is_empty() {
        pools = default.default_address_pools;
    }
    if pools.iter().all(|pool| pool.base.addr().is_ipv4()) {
        pools.push(AddressPool::unique_local(identity));
    }
    Ok(NetworkConfig {
        bridge: match config.bridge.as_deref() {
            None | Some("") => default.bridge,
            Some("none") => Bridge::Disabled,
            // One that is there already is the operator's; else it is ours to make.
            Some(name)
                if Path::new("/proc/sys/net/ipv4/conf").join(name).exists()
                    && !config.bridge_is_ours() =>
            {
                Bridge::Existing(name.to_owned())
            }
            Some(name) => Bridge::Ours(name.to_owned()),
        },
        bip: cidr(&config.bip, "bip")?,
        fixed_cidr: cidr(&config.fixed_cidr, "fixed-cidr")?,
        default_gateway: config.default_gateway,
        ipv6: config.ipv6,
        bip6: cidr(&config.bip6, "bip6")?,
        fixed_cidr6: cidr(&config.fixed_cidr6, "fixed-cidr-v6")?,
        default_gateway6: config.default_gateway6,
        default_network_options: config.network_options.clone(),
        host_gateway: config.host_gateway.clone(),
        default_address_pools: pools,
        mtu: config.mtu,
        icc: config.icc,
        ip_masq: config.ip_masq,
        ip_forward: config.ip_forward,
        ip_forward_no_drop: config.ip_forward_no_drop,
        iptables: config.iptables,
        ip6tables: config.ip6tables,
        allow_direct_routing: config.allow_direct_routing,
        accept_fwmark: config.accept_fwmark,
        host_binding: config.ip,
        // Whatever has been put in our program's place meanwhile: this is what we are.
        netd: Some(NetdConfig {
            program: "/proc/self/exe".into(),
            dir: config.exec_root.clone(),
            stand_in: None,
        }),
        namespaces: Some(config.exec_root.join("netns")),
        plugins: None,
        outside: None,
        system_bus: Some(config::system_bus()),
        table: None,
    })
}

fn cidr<T: FromStr>(text: &Option<String>, flag: &str) -> Result<Option<T>> {
    let Some(text) = text else { return Ok(None) };
    text.parse()
        .map(Some)
        .map_err(|_| Error::invalid(format!("invalid CIDR address for --{flag}: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_devices_are_described() {
        let dirs = |dirs: Option<&[&str]>, cdi: Option<bool>| {
            cdi_spec_dirs(&Config {
                cdi_spec_dirs: dirs.map(|dirs| dirs.iter().map(PathBuf::from).collect()),
                features: cdi.map(|cdi| ("cdi".to_owned(), cdi)).into_iter().collect(),
                ..Config::default()
            })
        };
        assert_eq!(dirs(None, None), ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from));
        assert_eq!(dirs(None, Some(true)).len(), 2);
        assert_eq!(dirs(Some(&["/a", "/b"]), Some(true)).len(), 2);
        for (given, cdi) in [
            (Some(&[""][..]), Some(true)),
            (Some(&[]), Some(true)),
            (None, Some(false)),
            (Some(&["/a"]), Some(false)),
        ] {
            assert_eq!(dirs(given, cdi), Vec::<PathBuf>::new(), "{given:?} {cdi:?}");
        }
    }
}
