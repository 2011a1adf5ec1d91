//! The daemon's configuration: dockerd's flags and the keys of its `daemon.json`, one table for both.
//!
//! `flags.rs` is the table, `file.rs` says the file's keys in the words of flags, `read.rs` brings both together, `set.rs`
//! understands each, `values.rs` how what is said is written, and `environment.rs` reads what is said in variables.

mod environment;
mod file;
mod flags;
mod read;
mod set;
mod values;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use engine::LogBudget;
use network::Mark;
use runtime::cgroup::Driver;

pub(crate) use self::environment::{
    inherited_sockets, log_environment, notify_socket, program_dirs, system_bus, variable,
};
pub(crate) use self::flags::usage;
pub(crate) use self::read::{Asked, Read, Told, read};
use crate::user::Rootless;

/// What the daemon was told. Defaults are those of an installed system.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) hosts: Vec<String>,
    pub(crate) group: String,
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    pub(crate) pidfile: PathBuf,
    /// Where plugins are looked for; Docker's places if there are none.
    pub(crate) plugin_directories: Vec<PathBuf>,
    pub(crate) debug: bool,
    /// Where figures are served, as address and port.
    pub(crate) metrics_address: Option<String>,
    pub(crate) log_level: String,
    pub(crate) storage_driver: Option<String>,
    pub(crate) log_driver: String,
    pub(crate) log_opts: BTreeMap<String, String>,
    pub(crate) log_budget: LogBudget,
    pub(crate) labels: Vec<String>,
    pub(crate) registry_mirrors: Vec<String>,
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) max_concurrent_downloads: usize,
    pub(crate) max_concurrent_uploads: usize,
    pub(crate) max_download_attempts: u32,
    pub(crate) features: BTreeMap<String, bool>,
    pub(crate) live_restore: bool,
    pub(crate) shutdown_timeout: i64,
    pub(crate) bridge: Option<String>,
    pub(crate) bip: Option<String>,
    pub(crate) fixed_cidr: Option<String>,
    pub(crate) default_gateway: Option<Ipv4Addr>,
    pub(crate) ipv6: bool,
    pub(crate) bip6: Option<String>,
    pub(crate) fixed_cidr6: Option<String>,
    pub(crate) default_gateway6: Option<Ipv6Addr>,
    /// By driver.
    pub(crate) network_options: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) host_gateway: Vec<IpAddr>,
    pub(crate) address_pools: Vec<(String, u8)>,
    pub(crate) mtu: u32,
    pub(crate) icc: bool,
    pub(crate) ip: Ipv4Addr,
    pub(crate) ip_masq: bool,
    pub(crate) ip_forward: bool,
    pub(crate) ip_forward_no_drop: bool,
    pub(crate) iptables: bool,
    pub(crate) ip6tables: bool,
    pub(crate) allow_direct_routing: bool,
    pub(crate) accept_fwmark: Option<Mark>,
    pub(crate) dns: Vec<String>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) dns_options: Vec<String>,
    pub(crate) default_runtime: String,
    pub(crate) runtimes: BTreeMap<String, PathBuf>,
    pub(crate) init: bool,
    /// `--userns`, `--userns-pool`, `--userns-remap`, as given.
    pub(crate) userns: String,
    pub(crate) userns_pool: String,
    pub(crate) userns_remap: String,
    pub(crate) no_new_privileges: bool,
    pub(crate) experimental: bool,
    pub(crate) seccomp_profile: String,
    pub(crate) shm_size: u64,
    /// Empty: as is usual.
    pub(crate) ipc_mode: String,
    pub(crate) cgroupns_mode: String,
    pub(crate) cgroup_driver: Option<Driver>,
    /// Empty: as is usual for the driver.
    pub(crate) cgroup_parent: String,
    pub(crate) authorization_plugins: Vec<String>,
    /// `None` stands for the usual ones.
    pub(crate) cdi_spec_dirs: Option<Vec<PathBuf>>,
    /// Name, soft, hard.
    pub(crate) ulimits: Vec<(String, i64, i64)>,
    pub(crate) tls: bool,
    pub(crate) tls_verify: bool,
    pub(crate) tls_ca: PathBuf,
    pub(crate) tls_cert: PathBuf,
    pub(crate) tls_key: PathBuf,
    /// The daemon is a user's who is not root.
    pub(crate) rootless: Option<Rootless>,
    /// Remarks for the log: what was accepted and means nothing here.
    pub(crate) remarks: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            group: "docker".to_owned(),
            data_root: PathBuf::from("/var/lib/gantry"),
            exec_root: PathBuf::from("/run/gantry"),
            pidfile: PathBuf::from("/run/gantry.pid"),
            plugin_directories: Vec::new(),
            debug: false,
            metrics_address: None,
            log_level: "info".to_owned(),
            storage_driver: None,
            log_driver: "json-file".to_owned(),
            log_opts: BTreeMap::new(),
            log_budget: LogBudget::default(),
            labels: Vec::new(),
            registry_mirrors: Vec::new(),
            insecure_registries: Vec::new(),
            max_concurrent_downloads: 3,
            max_concurrent_uploads: 5,
            max_download_attempts: 5,
            features: BTreeMap::new(),
            live_restore: false,
            shutdown_timeout: 15,
            bridge: None,
            bip: None,
            fixed_cidr: None,
            default_gateway: None,
            ipv6: false,
            bip6: None,
            fixed_cidr6: None,
            default_gateway6: None,
            network_options: BTreeMap::new(),
            host_gateway: Vec::new(),
            address_pools: Vec::new(),
            mtu: 1500,
            icc: true,
            ip: Ipv4Addr::UNSPECIFIED,
            ip_masq: true,
            ip_forward: true,
            ip_forward_no_drop: false,
            iptables: true,
            ip6tables: true,
            allow_direct_routing: false,
            accept_fwmark: None,
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            default_runtime: "gantry".to_owned(),
            runtimes: BTreeMap::new(),
            init: false,
            userns: String::new(),
            userns_pool: String::new(),
            userns_remap: String::new(),
            no_new_privileges: false,
            experimental: false,
            seccomp_profile: String::new(),
            shm_size: 64 << 20,
            ipc_mode: String::new(),
            cgroupns_mode: String::new(),
            cgroup_driver: None,
            cgroup_parent: String::new(),
            authorization_plugins: Vec::new(),
            cdi_spec_dirs: None,
            ulimits: Vec::new(),
            tls: false,
            tls_verify: false,
            tls_ca: PathBuf::from("/etc/docker/ca.pem"),
            tls_cert: PathBuf::from("/etc/docker/server-cert.pem"),
            tls_key: PathBuf::from("/etc/docker/server-key.pem"),
            rootless: None,
            remarks: Vec::new(),
        }
    }
}

impl Config {
    /// A bridge whose address is ours to give (`--bip`) is ours, made by an earlier life of this daemon perhaps.
    pub(crate) fn bridge_is_ours(&self) -> bool {
        self.bip.is_some()
    }
}
