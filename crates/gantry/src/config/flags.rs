//! What can be said: each flag, and the key of `daemon.json` that says the same.

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Switch,
    One,
    /// May be given often; a list in the file.
    Many,
    /// `key=value`, often; an object in the file.
    Pairs,
}

/// One thing that can be said, as a flag and as a key of the file.
pub(super) struct Setting {
    pub(super) flag: &'static str,
    pub(super) short: Option<char>,
    /// Empty: not in the file.
    pub(super) key: &'static str,
    pub(super) shape: Shape,
    pub(super) help: &'static str,
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

/// Everything that can be said.
pub(super) const SETTINGS: &[Setting] = &[
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
