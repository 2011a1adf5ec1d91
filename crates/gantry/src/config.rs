//! The daemon's configuration: dockerd's flags and the keys of its `daemon.json`, one table for both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use engine::LogBudget;
use network::Mark;
use runtime::cgroup::Driver;
use serde_json::Value;
use stdx::{Context, Error, Result, units};

use crate::user::{self, Rootless};

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

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Switch,
    One,
    /// May be given often; a list in the file.
    Many,
    /// `key=value`, often; an object in the file.
    Pairs,
}

/// One thing that can be said, as a flag and as a key of the file.
struct Setting {
    flag: &'static str,
    short: Option<char>,
    /// Empty: not in the file.
    key: &'static str,
    shape: Shape,
    help: &'static str,
}

const fn setting(
    flag: &'static str,
    key: &'static str,
    shape: Shape,
    help: &'static str,
) -> Setting {
    Setting { flag, short: None, key, shape, help }
}

const fn short(
    flag: &'static str,
    short: char,
    key: &'static str,
    shape: Shape,
    help: &'static str,
) -> Setting {
    Setting { flag, short: Some(short), key, shape, help }
}

use Shape::{Many, One, Pairs, Switch};

const SETTINGS: &[Setting] = &[
    setting("add-runtime", "runtimes", Pairs, "Register an additional OCI compatible runtime"),
    setting(
        "allow-direct-routing",
        "allow-direct-routing",
        Switch,
        "Allow remote access to published ports on container IP addresses",
    ),
    setting("authorization-plugin", "authorization-plugins", Many, "Authorization plugins to load"),
    setting("bip", "bip", One, "IPv4 address for the default bridge"),
    setting("bip6", "bip6", One, "IPv6 address for the default bridge"),
    short("bridge", 'b', "bridge", One, "Attach containers to a network bridge"),
    setting(
        "bridge-accept-fwmark",
        "bridge-accept-fwmark",
        One,
        "In bridge networks, accept packets with this firewall mark/mask",
    ),
    setting("cdi-spec-dir", "cdi-spec-dirs", Many, "CDI specification directories to use"),
    setting("cgroup-parent", "cgroup-parent", One, "Set parent cgroup for all containers"),
    setting("config-file", "", One, "Daemon configuration file"),
    setting("containerd", "containerd", One, "Accepted for compatibility; there is no containerd"),
    setting("data-root", "data-root", One, "Root directory of persistent state"),
    short("debug", 'D', "debug", Switch, "Enable debug mode"),
    setting(
        "default-address-pool",
        "default-address-pools",
        Many,
        "Default address pools for local networks",
    ),
    setting(
        "default-cgroupns-mode",
        "default-cgroupns-mode",
        One,
        "Default mode for containers cgroup namespace (\"host\"|\"private\")",
    ),
    setting(
        "default-gateway",
        "default-gateway",
        One,
        "Default gateway IPv4 address for the default bridge",
    ),
    setting(
        "default-gateway-v6",
        "default-gateway-v6",
        One,
        "Default gateway IPv6 address for the default bridge",
    ),
    setting(
        "default-ipc-mode",
        "default-ipc-mode",
        One,
        "Default mode for containers ipc (\"shareable\"|\"private\")",
    ),
    setting(
        "default-network-opt",
        "default-network-opts",
        Pairs,
        "Default network options (driver=option=value)",
    ),
    setting("default-runtime", "default-runtime", One, "Default OCI runtime for containers"),
    setting("default-shm-size", "default-shm-size", One, "Default shm size for containers"),
    setting("default-ulimit", "default-ulimits", Pairs, "Default ulimits for containers"),
    setting("dns", "dns", Many, "DNS server to use"),
    setting("dns-opt", "dns-opts", Many, "DNS options to use"),
    setting("dns-search", "dns-search", Many, "DNS search domains to use"),
    setting("exec-opt", "exec-opts", Many, "Runtime execution options"),
    setting("exec-root", "exec-root", One, "Root directory for execution state files"),
    setting("experimental", "experimental", Switch, "Enable experimental features"),
    setting(
        "feature",
        "features",
        Pairs,
        "Turn a feature off or on: cdi; others mean nothing here",
    ),
    setting("fixed-cidr", "fixed-cidr", One, "IPv4 subnet for fixed IPs of the default bridge"),
    setting(
        "fixed-cidr-v6",
        "fixed-cidr-v6",
        One,
        "IPv6 subnet for fixed IPs of the default bridge",
    ),
    short("group", 'G', "group", One, "Group for the unix socket"),
    short("host", 'H', "hosts", Many, "Daemon socket(s) to connect to"),
    setting(
        "host-gateway-ip",
        "host-gateway-ips",
        Many,
        "IP addresses that the special 'host-gateway' string in --add-host resolves to",
    ),
    setting("icc", "icc", Switch, "Enable inter-container communication on the default bridge"),
    setting(
        "init",
        "init",
        Switch,
        "Run an init in the container to forward signals and reap processes",
    ),
    setting(
        "insecure-registry",
        "insecure-registries",
        Many,
        "Enable insecure registry communication",
    ),
    setting("ip", "ip", One, "Host IP for port publishing from the default bridge"),
    setting("ip-forward", "ip-forward", Switch, "Enable IP forwarding in system configuration"),
    setting(
        "ip-forward-no-drop",
        "ip-forward-no-drop",
        Switch,
        "Do not drop what the host forwards between its own devices when enabling IP forwarding",
    ),
    setting(
        "ip-masq",
        "ip-masq",
        Switch,
        "Enable IP masquerading for the default bridge's IP range",
    ),
    setting("ip6tables", "ip6tables", Switch, "Enable addition of firewall rules for IPv6"),
    setting("iptables", "iptables", Switch, "Enable addition of firewall rules"),
    setting("ipv6", "ipv6", Switch, "Enable IPv6 networking for the default bridge network"),
    setting("label", "labels", Many, "Set key=value labels to the daemon"),
    setting(
        "live-restore",
        "live-restore",
        Switch,
        "Accepted for compatibility; containers always outlive the daemon",
    ),
    setting(
        "log-budget",
        "log-budget",
        One,
        "Most that all container logs may take together: a size, or a percentage of the disk (0 for no limit)",
    ),
    setting("log-driver", "log-driver", One, "Default driver for container logs"),
    short(
        "log-level",
        'l',
        "log-level",
        One,
        "Set the logging level (\"debug\"|\"info\"|\"warn\"|\"error\"|\"fatal\")",
    ),
    setting("log-opt", "log-opts", Pairs, "Default log driver options for containers"),
    setting(
        "max-concurrent-downloads",
        "max-concurrent-downloads",
        One,
        "Set the max concurrent downloads",
    ),
    setting(
        "max-concurrent-uploads",
        "max-concurrent-uploads",
        One,
        "Set the max concurrent uploads",
    ),
    setting(
        "max-download-attempts",
        "max-download-attempts",
        One,
        "Set the max download attempts for each pull",
    ),
    setting(
        "metrics-addr",
        "metrics-addr",
        One,
        "Set default address and port to serve the metrics api on",
    ),
    setting("mtu", "mtu", One, "Set the MTU for the default bridge network"),
    setting(
        "no-new-privileges",
        "no-new-privileges",
        Switch,
        "Set no-new-privileges by default for new containers",
    ),
    short("pidfile", 'p', "pidfile", One, "Path to use for daemon PID file"),
    setting(
        "plugin-directory",
        "plugin-directories",
        Many,
        "Look for plugins in here and not in Docker's directories",
    ),
    setting("registry-mirror", "registry-mirrors", Many, "Preferred registry mirror"),
    setting(
        "rootless-host-loopback",
        "rootless-host-loopback",
        Switch,
        "Let containers of a user reach the host's loopback, at 10.0.2.2",
    ),
    setting(
        "rootless-link",
        "rootless-link",
        One,
        "A user's way out: auto, pasta, slirp4netns or none",
    ),
    setting("rootless-mtu", "rootless-mtu", One, "MTU of a user's way out"),
    setting(
        "seccomp-profile",
        "seccomp-profile",
        One,
        "Path to seccomp profile, or \"unconfined\"",
    ),
    setting(
        "shutdown-timeout",
        "shutdown-timeout",
        One,
        "Accepted for compatibility; containers are not stopped with the daemon",
    ),
    short("storage-driver", 's', "storage-driver", One, "Storage driver to use"),
    setting("tls", "tls", Switch, "Use TLS; implied by --tlsverify"),
    setting("tlscacert", "tlscacert", One, "Trust certs signed only by this CA"),
    setting("tlscert", "tlscert", One, "Path to TLS certificate file"),
    setting("tlskey", "tlskey", One, "Path to TLS key file"),
    setting("tlsverify", "tlsverify", Switch, "Use TLS and verify the remote"),
    setting(
        "userland-proxy",
        "userland-proxy",
        Switch,
        "Accepted for compatibility; there is no userland proxy",
    ),
    setting("userns", "userns", One, "User namespaces of containers that do not say: auto or host"),
    setting("userns-pool", "userns-pool", One, "Host ids for --userns auto, as first:count"),
    setting("userns-remap", "userns-remap", One, "User whose subordinate ids all containers share"),
];

/// What a command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    Run(Box<Config>, Box<Told>),
    Help,
    Version,
    /// Only whether the configuration is right.
    Validated(Box<Config>),
}

/// Where `daemon.json` lies when nobody says.
const FILE: &str = "/etc/gantry/daemon.json";

/// Reads flags, then the file they name; one thing said in both is refused, as dockerd does.
pub(crate) fn read(args: &[String]) -> Result<Asked> {
    let mut said: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    let mut words = args.iter();
    let mut only_validate = false;
    while let Some(word) = words.next() {
        match word.as_str() {
            "-h" | "--help" => return Ok(Asked::Help),
            "-v" | "--version" => return Ok(Asked::Version),
            "--validate" => {
                only_validate = true;
                continue;
            }
            _ => {}
        }
        let (name, inline) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let found = match name.strip_prefix("--") {
            Some(long) => SETTINGS.iter().find(|setting| setting.flag == long),
            None => name.strip_prefix('-').and_then(|rest| {
                let mut letters = rest.chars();
                let letter = letters.next()?;
                letters
                    .as_str()
                    .is_empty()
                    .then(|| SETTINGS.iter().find(|setting| setting.short == Some(letter)))?
            }),
        };
        let Some(setting) = found else {
            return Err(match name.starts_with('-') {
                true => Error::invalid(format!("unknown flag: {name}")),
                false => Error::invalid(format!("unexpected argument: {name}")),
            });
        };
        let value = match (setting.shape, inline) {
            (_, Some(value)) => value,
            (Switch, None) => "true".to_owned(),
            (_, None) => words
                .next()
                .cloned()
                .ok_or_else(|| Error::invalid(format!("flag needs an argument: {name}")))?,
        };
        said.entry(setting.flag).or_default().push(value);
    }
    let told = Told::new(said, user::places()?);
    let config = told.read()?.config;
    if only_validate {
        return Ok(Asked::Validated(Box::new(config)));
    }
    Ok(Asked::Run(Box::new(config), Box::new(told)))
}

/// Where the configuration comes from: it can be read again.
#[derive(Debug, PartialEq)]
pub(crate) struct Told {
    flags: BTreeMap<&'static str, Vec<String>>,
    pub(crate) file: String,
    /// Somebody named the file: it has to be there.
    named: bool,
    places: Option<user::Places>,
}

/// All that was said, at this moment.
pub(crate) struct Read {
    pub(crate) config: Config,
    /// What the file speaks of, by the names of flags.
    pub(crate) in_file: BTreeSet<&'static str>,
}

impl Told {
    fn new(mut flags: BTreeMap<&'static str, Vec<String>>, places: Option<user::Places>) -> Self {
        let named = flags.remove("config-file").and_then(|mut files| files.pop());
        let own = places.as_ref().map(|places| places.config_file().display().to_string());
        let is_named = named.is_some();
        let file = named.or(own).unwrap_or_else(|| FILE.to_owned());
        Self { flags, file, named: is_named, places }
    }

    pub(crate) fn read(&self) -> Result<Read> {
        let file = &self.file;
        let mut in_file = BTreeMap::new();
        if self.named || Path::new(file).exists() {
            let text = std::fs::read_to_string(file)
                .context(|| format!("unable to configure the Docker daemon with file {file}"))?;
            in_file = understand(&text, file)?;
        }
        if let Some((flag, words)) = in_file.iter().find(|(flag, _)| self.flags.contains_key(*flag))
        {
            return Err(Error::invalid(format!(
                "unable to configure the Docker daemon with file {file}: the following directives are specified both as a flag and in the configuration file: {flag}: (from flag: {}, from file: {})",
                self.flags[flag].join(" "),
                words.join(" ")
            )));
        }
        let mut config = self.places.as_ref().map_or_else(Config::default, user::Places::defaults);
        for (flag, value) in self
            .flags
            .iter()
            .chain(&in_file)
            .flat_map(|(flag, values)| values.iter().map(move |value| (*flag, value)))
        {
            config.set(flag, value).context(|| format!("invalid value {value:?} for --{flag}"))?;
        }
        // An empty list says something, too.
        if in_file.contains_key("cdi-spec-dir") {
            config.cdi_spec_dirs.get_or_insert_default();
        }
        if let Some(places) = &self.places {
            places.complete(&mut config)?;
        }
        if config.hosts.is_empty() {
            config.hosts.push("unix:///run/gantry.sock".to_owned());
        }
        // An address without a scheme is one of TCP, for Docker; a path leads to a socket.
        for host in &mut config.hosts {
            if !host.contains("://") && !host.starts_with('/') {
                host.insert_str(0, "tcp://");
            }
        }
        // Who says one twice means it once.
        let mut seen = BTreeSet::new();
        config.hosts.retain(|host| seen.insert(host.clone()));
        Ok(Read { config, in_file: in_file.into_keys().collect() })
    }
}

/// The file's keys as the flags' words.
fn understand(text: &str, file: &str) -> Result<BTreeMap<&'static str, Vec<String>>> {
    let fail = |why: String| {
        Error::invalid(format!("unable to configure the Docker daemon with file {file}: {why}"))
    };
    if text.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    let object: serde_json::Map<String, Value> =
        serde_json::from_str(text).map_err(|cause| fail(cause.to_string()))?;
    let mut said = BTreeMap::new();
    for (key, value) in object {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key && !key.is_empty())
        else {
            return Err(fail(format!(
                "the following directives don't match any configuration option: {key}"
            )));
        };
        let plain = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(yes) => Some(yes.to_string()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let words = match (&value, setting.shape) {
            (Value::Array(list), Many) => {
                list.iter().map(|one| plain(one).or_else(|| pool(one))).collect()
            }
            (Value::Object(map), Pairs) if setting.flag == "default-network-opt" => {
                map.iter().flat_map(|(driver, options)| by_driver(driver, options)).collect()
            }
            (Value::Object(map), Pairs) => {
                map.iter().map(|(key, value)| pair(key, value)).collect()
            }
            (value, _) => plain(value).map(|word| vec![word]),
        };
        let words: Option<Vec<String>> = words;
        said.insert(setting.flag, words.ok_or_else(|| fail(format!("{key} has the wrong type")))?);
    }
    Ok(said)
}

/// `{"base": "10.0.0.0/8", "size": 24}`
fn pool(value: &Value) -> Option<String> {
    Some(format!("base={},size={}", value.get("base")?.as_str()?, value.get("size")?.as_u64()?))
}

/// `"bridge": {"com.docker.network.driver.mtu": "1400"}`
fn by_driver(driver: &str, options: &Value) -> Vec<Option<String>> {
    let Value::Object(options) = options else { return vec![None] };
    let one =
        |(name, value): (&String, &Value)| Some(format!("{driver}={name}={}", value.as_str()?));
    options.iter().map(one).collect()
}

/// `"runc": {"path": "/usr/sbin/runc"}`, `"nofile": {"Soft": 1, "Hard": 2}`, `"max-size": "10m"`.
fn pair(key: &str, value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(format!("{key}={text}")),
        Value::Bool(wanted) => Some(format!("{key}={wanted}")),
        Value::Object(map) => match (map.get("path"), map.get("Soft"), map.get("Hard")) {
            (Some(path), _, _) => Some(format!("{key}={}", path.as_str()?)),
            (None, soft, hard) => {
                let hard = hard?.as_i64()?;
                Some(format!("{key}={}:{hard}", soft.and_then(Value::as_i64).unwrap_or(hard)))
            }
        },
        _ => None,
    }
}

impl Config {
    /// A bridge whose address is ours to give (`--bip`) is ours, made by an earlier life of this daemon perhaps.
    pub(crate) fn bridge_is_ours(&self) -> bool {
        self.bip.is_some()
    }

    fn set(&mut self, flag: &str, value: &str) -> Result<()> {
        let text = || value.to_owned();
        match flag {
            "add-runtime" => {
                let (name, path) = two(value)?;
                self.runtimes.insert(name.to_owned(), PathBuf::from(path));
            }
            "bip" => self.bip = Some(text()),
            "bip6" => self.bip6 = Some(text()),
            "bridge" => self.bridge = Some(text()),
            "authorization-plugin" => self.authorization_plugins.push(text()),
            "cdi-spec-dir" => {
                self.cdi_spec_dirs.get_or_insert_default().push(PathBuf::from(value));
            }
            "cgroup-parent" => self.cgroup_parent = text(),
            "data-root" => self.data_root = absolute(value)?,
            "debug" => self.debug = switch(value)?,
            "default-address-pool" => self.address_pools.push(address_pool(value)?),
            "default-gateway" => self.default_gateway = Some(address(value)?),
            "default-gateway-v6" => {
                let address =
                    value.parse().map_err(|_| Error::invalid("it is not an IPv6 address"));
                self.default_gateway6 = Some(address?);
            }
            "default-network-opt" => {
                let (driver, option) = two(value)?;
                let (name, option) = two(option)?;
                let options = self.network_options.entry(driver.to_owned()).or_default();
                options.insert(name.to_owned(), option.to_owned());
            }
            "default-runtime" => self.default_runtime = text(),
            "default-shm-size" => self.shm_size = units::ram_in_bytes(value)? as u64,
            "default-ulimit" => self.ulimits.push(ulimit(value)?),
            "dns" => self.dns.push(
                value
                    .parse::<std::net::IpAddr>()
                    .map_err(|_| Error::invalid(format!("{value} is not an ip address")))?
                    .to_string(),
            ),
            "dns-opt" => self.dns_options.push(text()),
            "dns-search" => self.dns_search.push(text()),
            "exec-opt" => {
                if let Some(driver) = exec_opt(value)? {
                    self.cgroup_driver = Some(driver);
                }
            }
            "feature" => {
                let (name, wanted) = value.split_once('=').unwrap_or((value, "true"));
                self.features.insert(name.to_owned(), switch(wanted)?);
            }
            "exec-root" => self.exec_root = absolute(value)?,
            "fixed-cidr" => self.fixed_cidr = Some(text()),
            "fixed-cidr-v6" => self.fixed_cidr6 = Some(text()),
            "group" => self.group = text(),
            "host" => self.hosts.push(text()),
            "host-gateway-ip" => self.host_gateway.push(
                value
                    .parse()
                    .map_err(|_| Error::invalid(format!("{value} is not an ip address")))?,
            ),
            "icc" => self.icc = switch(value)?,
            "init" => self.init = switch(value)?,
            "userns" => self.userns = text(),
            "userns-pool" => self.userns_pool = text(),
            "userns-remap" => self.userns_remap = text(),
            "insecure-registry" => self.insecure_registries.push(text()),
            "ip" => self.ip = address(value)?,
            "ip-forward" => self.ip_forward = switch(value)?,
            "ip-forward-no-drop" => self.ip_forward_no_drop = switch(value)?,
            "ip-masq" => self.ip_masq = switch(value)?,
            "iptables" => self.iptables = switch(value)?,
            "ip6tables" => self.ip6tables = switch(value)?,
            "allow-direct-routing" => self.allow_direct_routing = switch(value)?,
            "bridge-accept-fwmark" => self.accept_fwmark = Some(value.parse()?),
            "ipv6" => self.ipv6 = switch(value)?,
            "label" => label(&mut self.labels, value)?,
            "live-restore" | "shutdown-timeout" => self.set_end(flag, value)?,
            "log-budget" => self.log_budget = LogBudget::parse(value)?,
            "log-driver" => self.log_driver = text(),
            "log-level" => match value {
                "debug" | "info" | "warn" | "error" | "fatal" => self.log_level = text(),
                other => return Err(Error::invalid(format!("invalid logging level: {other}"))),
            },
            "log-opt" => {
                let (name, option) = value.split_once('=').unwrap_or((value, ""));
                self.log_opts.insert(name.to_owned(), option.to_owned());
            }
            "max-concurrent-downloads" => {
                self.max_concurrent_downloads = at_most(value, "max concurrent downloads", 3)?
            }
            "max-concurrent-uploads" => {
                self.max_concurrent_uploads = at_most(value, "max concurrent uploads", 5)?
            }
            "max-download-attempts" => {
                self.max_download_attempts = at_most(value, "max download attempts", 5)?
            }
            "default-ipc-mode" => self.ipc_mode = ipc_mode(value)?,
            "default-cgroupns-mode" => match value {
                "" | "host" | "private" => self.cgroupns_mode = text(),
                _ => {
                    return Err(Error::invalid(format!(
                        "default cgroup namespace mode ({value}) is invalid; use \"host\" or \"private\""
                    )));
                }
            },
            "metrics-addr" => self.metrics_address = Some(text()).filter(|text| !text.is_empty()),
            "mtu" => self.mtu = number(value)?,
            "no-new-privileges" => self.no_new_privileges = switch(value)?,
            "pidfile" => self.pidfile = PathBuf::from(value),
            "plugin-directory" => self.plugin_directories.push(PathBuf::from(value)),
            "registry-mirror" => self.registry_mirrors.push(text()),
            "rootless-host-loopback" | "rootless-link" | "rootless-mtu" => {
                self.set_rootless(flag, value)?;
            }
            "seccomp-profile" => {
                self.seccomp_profile = match value {
                    "unconfined" => text(),
                    "builtin" | "" => String::new(),
                    file => std::fs::read_to_string(file)
                        .context(|| format!("opening seccomp profile ({file}) failed"))?,
                }
            }
            "storage-driver" => self.storage_driver = Some(text()),
            "tls" => self.tls = switch(value)?,
            "tlscacert" => self.tls_ca = PathBuf::from(value),
            "tlscert" => self.tls_cert = PathBuf::from(value),
            "tlskey" => self.tls_key = PathBuf::from(value),
            "tlsverify" => self.tls_verify = switch(value)?,
            "experimental" => self.experimental = switch(value)?,
            "containerd" | "userland-proxy" => {
                self.remarks.push(format!("--{flag} is accepted and means nothing here"));
            }
            other => unreachable!("--{other} is in the table and not understood"),
        }
        Ok(())
    }
}

/// Other processes of ours are told of it, and they are elsewhere.
fn absolute(value: &str) -> Result<PathBuf> {
    std::path::absolute(value).context(|| format!("{value:?} is no directory"))
}

impl Config {
    /// What is to become of containers when the daemon ends: they live on, whatever is said.
    fn set_end(&mut self, flag: &str, value: &str) -> Result<()> {
        match flag {
            "live-restore" => self.live_restore = switch(value)?,
            _ => self.shutdown_timeout = number(value)?,
        }
        self.remarks.push(format!("--{flag} is accepted and means nothing here"));
        Ok(())
    }

    fn set_rootless(&mut self, flag: &str, value: &str) -> Result<()> {
        let mut wanted = self.rootless.clone().unwrap_or_default();
        match flag {
            "rootless-host-loopback" => wanted.host_loopback = switch(value)?,
            "rootless-mtu" => wanted.mtu = Some(number(value)?),
            _ => wanted.link = value.parse()?,
        }
        match &mut self.rootless {
            Some(rootless) => *rootless = wanted,
            None => self.remarks.push(format!("--{flag} means nothing to root's daemon")),
        }
        Ok(())
    }
}

fn two(value: &str) -> Result<(&str, &str)> {
    value.split_once('=').ok_or_else(|| Error::invalid("it is not of the form key=value"))
}

fn switch(value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::invalid("it is neither true nor false")),
    }
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T> {
    value.parse().map_err(|_| Error::invalid("it is not a number that fits"))
}

fn address(value: &str) -> Result<Ipv4Addr> {
    value.parse().map_err(|_| Error::invalid("it is not an IPv4 address"))
}

fn address_pool(value: &str) -> Result<(String, u8)> {
    let mut base = None;
    let mut size = None;
    for part in value.split(',') {
        match part.split_once('=') {
            Some(("base", text)) => base = Some(text.to_owned()),
            Some(("size", text)) => size = Some(number(text)?),
            _ => return Err(Error::invalid("it is not of the form base=CIDR,size=BITS")),
        }
    }
    base.zip(size).ok_or_else(|| Error::invalid("it is not of the form base=CIDR,size=BITS"))
}

fn ulimit(value: &str) -> Result<(String, i64, i64)> {
    let (name, limits) = two(value)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    Ok((name.to_owned(), number(soft)?, number(hard)?))
}

/// `None` where nobody chose a driver.
fn exec_opt(value: &str) -> Result<Option<Driver>> {
    let (name, chosen) = value.split_once('=').unwrap_or((value, ""));
    let (name, chosen) = (name.trim().to_ascii_lowercase(), chosen.trim());
    if name.is_empty() || chosen.is_empty() {
        return Err(Error::invalid(format!(
            "invalid exec-opt ({value}): must be formatted 'opt=value'"
        )));
    }
    let why = match name.as_str() {
        "native.cgroupdriver" => return cgroup_driver(chosen).map(Some),
        "isolation" => "option 'isolation' is only supported on windows".to_owned(),
        _ => format!("unknown option: '{name}'"),
    };
    Err(Error::invalid(format!("invalid exec-opt ({value}): {why}")))
}

/// One that says what another has said already is not kept twice; one that says otherwise is refused.
fn label(labels: &mut Vec<String>, new: &str) -> Result<()> {
    let bad = || Error::invalid(format!("bad attribute format: {new}"));
    let (name, value) = new.split_once('=').ok_or_else(bad)?;
    let other =
        labels.iter().filter_map(|label| label.split_once('=')).find(|(one, _)| *one == name);
    match other {
        None => labels.push(new.to_owned()),
        Some((_, same)) if same == value => {}
        Some((_, other)) => {
            return Err(Error::invalid(format!(
                "conflict labels for {name}={value} and {name}={other}"
            )));
        }
    }
    Ok(())
}

/// How many of something there may be at a time; zero leaves it to us.
fn at_most<T: TryFrom<i64>>(value: &str, what: &str, usual: i64) -> Result<T> {
    let invalid = || Error::invalid(format!("invalid {what}: {value}"));
    let wanted: i64 = number(value)?;
    T::try_from(if wanted == 0 { usual } else { wanted }).map_err(|_| invalid())
}

fn ipc_mode(mode: &str) -> Result<String> {
    let hint = "use \"shareable\" or \"private\"";
    match mode {
        "" | "shareable" | "private" => Ok(mode.to_owned()),
        "host" | "none" => Err(Error::invalid(format!(
            "IPC mode \"{mode}\" is not supported as default value; {hint}"
        ))),
        _ if mode.starts_with("container:") => Err(Error::invalid(format!(
            "IPC mode \"{mode}\" is not supported as default value; {hint}"
        ))),
        _ => Err(Error::invalid(format!("default IPC mode setting ({mode}) is invalid; {hint}"))),
    }
}

fn cgroup_driver(name: &str) -> Result<Driver> {
    match name {
        "cgroupfs" => Ok(Driver::Cgroupfs),
        "systemd" => Ok(Driver::Systemd),
        "none" => Err(Error::invalid(
            "native.cgroupdriver option none is internally used and cannot be specified manually",
        )),
        _ => Err(Error::invalid(format!("native.cgroupdriver option {name} not supported"))),
    }
}

/// Sockets that systemd opened for us: names and numbers, from 3 on.
pub(crate) fn inherited_sockets() -> Vec<(String, u32)> {
    #[allow(clippy::disallowed_methods, reason = "the environment is read here")]
    let read = |name: &str| std::env::var(name).unwrap_or_default();
    if read("LISTEN_PID").parse() != Ok(std::process::id()) {
        return Vec::new();
    }
    let names = read("LISTEN_FDNAMES");
    let mut names = names.split(':');
    let count: u32 = read("LISTEN_FDS").parse().unwrap_or(0);
    (0..count).map(|index| (names.next().unwrap_or_default().to_owned(), 3 + index)).collect()
}

/// What logging drivers of clouds find there: who this machine is to them.
pub(crate) fn log_environment() -> BTreeMap<String, String> {
    const NAMES: [&str; 3] = ["GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST", "HOME"];
    const PREFIXES: [&str; 2] = ["AWS_", "SPLUNK_LOGGING_DRIVER_"];
    #[allow(clippy::disallowed_methods, reason = "the environment is read here")]
    let all = std::env::vars_os();
    let text =
        all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let is_theirs = |name: &str| {
        NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    text.filter(|(name, _)| is_theirs(name)).collect()
}

/// Where programs are, as the daemon was told.
pub(crate) fn program_dirs() -> Vec<PathBuf> {
    let path = variable("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect()
}

/// A variable that says something.
pub(crate) fn variable(name: &str) -> Option<String> {
    #[allow(clippy::disallowed_methods, reason = "the environment is read here")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The address of the host's message bus (D-Bus).
pub(crate) fn system_bus() -> String {
    variable("DBUS_SYSTEM_BUS_ADDRESS")
        .unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".to_owned())
}

/// Where systemd wants to be told that we are ready.
pub(crate) fn notify_socket() -> Option<String> {
    variable("NOTIFY_SOCKET")
}

/// `--help`.
pub(crate) fn usage(program: &str) -> String {
    let mut text = format!(
        "Usage:  {program} [OPTIONS]\n\nA self-sufficient engine for containers.\n\nOptions:\n"
    );
    for setting in SETTINGS {
        let letter = setting.short.map_or("    ".to_owned(), |letter| format!("-{letter}, "));
        let value = match setting.shape {
            Switch => "",
            One => " string",
            Many => " list",
            Pairs => " map",
        };
        let flag = format!("{}{value}", setting.flag);
        text.push_str(&format!("  {letter}--{flag:<36} {}\n", setting.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &str) -> Result<Config> {
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        match read(&args)? {
            Asked::Run(config, _) => Ok(*config),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_setting_in_the_table_is_understood() {
        for setting in SETTINGS.iter().filter(|setting| setting.flag != "config-file") {
            let value = match (setting.flag, setting.shape) {
                (_, Switch) => "true",
                ("default-ulimit", _) => "nofile=1:2",
                ("default-ipc-mode", _) => "shareable",
                ("default-cgroupns-mode", _) => "private",
                ("feature", _) => "buildkit=true",
                ("label", _) => "a=b",
                ("log-budget", _) => "5GB",
                ("default-network-opt", _) => "bridge=com.docker.network.driver.mtu=1400",
                (_, Pairs) => "a=b",
                ("default-address-pool", _) => "base=10.0.0.0/8,size=24",
                ("dns" | "ip" | "default-gateway" | "host-gateway-ip", _) => "10.0.0.1",
                ("default-gateway-v6", _) => "fd00::1",
                ("exec-opt", _) => "native.cgroupdriver=cgroupfs",
                ("log-level", _) => "warn",
                ("rootless-link", _) => "pasta",
                ("seccomp-profile", _) => "unconfined",
                _ => "7",
            };
            Config::default().set(setting.flag, value).unwrap();
        }
    }

    #[test]
    fn flags_in_all_their_spellings() {
        let config = run(
            "-H unix:///a --host=unix:///b -H unix:///a -D --data-root /x --icc=false --log-opt max-size=1m",
        )
        .unwrap();
        assert_eq!(config.hosts, ["unix:///a", "unix:///b"]);
        assert!(config.debug && !config.icc);
        assert_eq!(config.log_opts["max-size"], "1m");
        assert_eq!(run("--nope").unwrap_err().to_string(), "unknown flag: --nope");
    }

    #[test]
    fn options_of_execution() {
        let check =
            |value: &str| run(&format!("--exec-opt {value}")).map(|config| config.cgroup_driver);
        assert_eq!(check("Native.CgroupDriver=cgroupfs").unwrap(), Some(Driver::Cgroupfs));
        for (value, why) in [
            ("native.cgroupdriver", "must be formatted 'opt=value'"),
            ("isolation=process", "option 'isolation' is only supported on windows"),
            ("other=x", "unknown option: 'other'"),
        ] {
            let error = check(value).unwrap_err().chain();
            assert!(error.ends_with(&format!("invalid exec-opt ({value}): {why}")), "{error}");
        }
    }

    #[test]
    fn the_files_words() {
        let said = understand(
            r#"{"debug": true, "dns": ["1.1.1.1"], "runtimes": {"x": {"path": "/x"}}}"#,
            "f",
        )
        .unwrap();
        assert_eq!(said["debug"], ["true"]);
        assert_eq!(said["add-runtime"], ["x=/x"]);
        let said = understand(r#"{"default-network-opts": {"bridge": {"a": "1", "b": "2"}}}"#, "f")
            .unwrap();
        assert_eq!(said["default-network-opt"], ["bridge=a=1", "bridge=b=2"]);
        let error = understand(r#"{"nope": 1}"#, "f").unwrap_err();
        assert!(
            error.to_string().ends_with("don't match any configuration option: nope"),
            "{error}"
        );
    }
}
