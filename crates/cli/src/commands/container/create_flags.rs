//! The flags of `run` and `create`: tables only. What they mean is in `body.rs`.

use super::checks;
use crate::flags::{Flag, Kind};

pub(super) static RUN: [Flag; 112] = [
    Flag::new("add-host", Kind::List, "Add a custom host-to-IP mapping (host:ip)")
        .check(checks::add_host),
    Flag::new(
        "annotation",
        Kind::Map,
        "Add an annotation to the container (passed through to the OCI runtime) (default map[])",
    ),
    Flag::new("attach", Kind::List, "Attach to STDIN, STDOUT or STDERR")
        .short('a')
        .check(checks::attach),
    Flag::new(
        "blkio-weight",
        Kind::Uint16,
        "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)",
    ),
    Flag::new(
        "blkio-weight-device",
        Kind::List,
        "Block IO weight (relative device weight) (default [])",
    )
    .check(checks::weight_device),
    Flag::new("cap-add", Kind::List, "Add Linux capabilities"),
    Flag::new("cap-drop", Kind::List, "Drop Linux capabilities"),
    Flag::new("cgroup-parent", Kind::Text, "Optional parent cgroup for the container"),
    Flag::new(
        "cgroupns",
        Kind::Text,
        "Cgroup namespace to use (host|private)\n'host':    Run the container in the Docker host's cgroup namespace\n'private': Run the container in its own private cgroup namespace\n'':        Use the cgroup namespace as configured by the\n           default-cgroupns-mode option on the daemon (default)",
    ),
    Flag::new("cidfile", Kind::Text, "Write the container ID to the file"),
    Flag::new("config", Kind::List, "Config to expose to the container")
        .check(checks::config)
        .beyond(),
    Flag::new("cpu-count", Kind::Int, "CPU count (Windows only)"),
    Flag::new("cpu-percent", Kind::Int, "CPU percent (Windows only)"),
    Flag::new("cpu-period", Kind::Int, "Limit CPU CFS (Completely Fair Scheduler) period"),
    Flag::new("cpu-quota", Kind::Int, "Limit CPU CFS (Completely Fair Scheduler) quota"),
    Flag::new("cpu-rt-period", Kind::Int, "Limit CPU real-time period in microseconds"),
    Flag::new("cpu-rt-runtime", Kind::Int, "Limit CPU real-time runtime in microseconds"),
    Flag::new("cpu-shares", Kind::Int, "CPU shares (relative weight)").short('c'),
    Flag::new("cpus", Kind::Decimal, "Number of CPUs"),
    Flag::new("cpuset-cpus", Kind::Text, "CPUs in which to allow execution (0-3, 0,1)"),
    Flag::new("cpuset-mems", Kind::Text, "MEMs in which to allow execution (0-3, 0,1)"),
    Flag::new("detach", Kind::Switch, "Run container in background and print container ID")
        .short('d'),
    Flag::new("detach-keys", Kind::Text, "Override the key sequence for detaching a container"),
    Flag::new("device", Kind::List, "Add a host device to the container"),
    Flag::new("device-cgroup-rule", Kind::List, "Add a rule to the cgroup allowed devices list"),
    Flag::new(
        "device-read-bps",
        Kind::List,
        "Limit read rate (bytes per second) from a device (default [])",
    )
    .check(checks::rate),
    Flag::new(
        "device-read-iops",
        Kind::List,
        "Limit read rate (IO per second) from a device (default [])",
    )
    .check(checks::iops),
    Flag::new(
        "device-write-bps",
        Kind::List,
        "Limit write rate (bytes per second) to a device (default [])",
    )
    .check(checks::rate),
    Flag::new(
        "device-write-iops",
        Kind::List,
        "Limit write rate (IO per second) to a device (default [])",
    )
    .check(checks::iops),
    Flag::new("disable-content-trust", Kind::Switch, "Skip image verification (default true)"),
    Flag::new("dns", Kind::List, "Set custom DNS servers").check(checks::ip),
    Flag::new("dns-option", Kind::List, "Set DNS options"),
    Flag::new("dns-search", Kind::List, "Set custom DNS search domains").check(checks::dns_search),
    Flag::new("domainname", Kind::Text, "Container NIS domain name"),
    Flag::new(
        "egress",
        Kind::List,
        "What may be reached outside of the networks (none, any, or allow=HOST[:PORT][,...])",
    )
    .beyond(),
    Flag::new("entrypoint", Kind::Text, "Overwrite the default ENTRYPOINT of the image"),
    Flag::new("env", Kind::List, "Set environment variables").short('e').check(checks::env),
    Flag::new("env-file", Kind::List, "Read in a file of environment variables"),
    Flag::new("expose", Kind::List, "Expose a port or a range of ports"),
    Flag::new(
        "gpus",
        Kind::GpuRequest,
        "GPU devices to add to the container ('all' to pass all GPUs)",
    )
    .check(checks::gpus),
    Flag::new("group-add", Kind::List, "Add additional groups to join"),
    Flag::new("health-cmd", Kind::Text, "Command to run to check health"),
    Flag::new(
        "health-interval",
        Kind::Duration,
        "Time between running the check (ms|s|m|h) (default 0s)",
    ),
    Flag::new(
        "health-on-failure",
        Kind::Text,
        "Action when the container turns unhealthy (\"none\"|\"restart\"|\"stop\"|\"kill\")",
    )
    .beyond(),
    Flag::new("health-retries", Kind::Int, "Consecutive failures needed to report unhealthy"),
    Flag::new(
        "health-start-interval",
        Kind::Duration,
        "Time between running the check during the start period (ms|s|m|h) (default 0s)",
    ),
    Flag::new(
        "health-start-period",
        Kind::Duration,
        "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)",
    ),
    Flag::new(
        "health-timeout",
        Kind::Duration,
        "Maximum time to allow one check to run (ms|s|m|h) (default 0s)",
    ),
    Flag::new("help", Kind::Switch, "Print usage"),
    Flag::new("hostname", Kind::Text, "Container host name").short('h'),
    Flag::new(
        "init",
        Kind::Switch,
        "Run an init inside the container that forwards signals and reaps processes",
    ),
    Flag::new("interactive", Kind::Switch, "Keep STDIN open even if not attached").short('i'),
    Flag::new(
        "io-maxbandwidth",
        Kind::Bytes,
        "Maximum IO bandwidth limit for the system drive (Windows only)",
    ),
    Flag::new("io-maxiops", Kind::Uint, "Maximum IOps limit for the system drive (Windows only)"),
    Flag::new("ip", Kind::Text, "IPv4 address (e.g., 172.30.100.104)"),
    Flag::new("ip6", Kind::Text, "IPv6 address (e.g., 2001:db8::33)"),
    Flag::new("ipc", Kind::Text, "IPC mode to use"),
    Flag::new("isolation", Kind::Text, "Container isolation technology"),
    Flag::new("kernel-memory", Kind::Bytes, "Kernel memory limit"),
    Flag::new("label", Kind::List, "Set meta data on a container").short('l').check(checks::label),
    Flag::new("label-file", Kind::List, "Read in a line delimited file of labels"),
    Flag::new("link", Kind::List, "Add link to another container"),
    Flag::new("link-local-ip", Kind::List, "Container IPv4/IPv6 link-local addresses"),
    Flag::new("log-driver", Kind::Text, "Logging driver for the container"),
    Flag::new("log-opt", Kind::List, "Log driver options"),
    Flag::new("mac-address", Kind::Text, "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
    Flag::new("memory", Kind::Bytes, "Memory limit").short('m'),
    Flag::new("memory-reservation", Kind::Bytes, "Memory soft limit"),
    Flag::new(
        "memory-swap",
        Kind::SwapBytes,
        "Swap limit equal to memory plus swap: '-1' to enable unlimited swap",
    ),
    Flag::new(
        "memory-swappiness",
        Kind::Int,
        "Tune container memory swappiness (0 to 100) (default -1)",
    ),
    Flag::new("mount", Kind::Mount, "Attach a filesystem mount to the container")
        .check(checks::mount),
    Flag::new("name", Kind::Text, "Assign a name to the container"),
    Flag::new(
        "net-rate",
        Kind::Text,
        "How fast the container may receive and send (in=10mbit,out=5mbit)",
    )
    .beyond(),
    Flag::new("network", Kind::Network, "Connect a container to a network"),
    Flag::new("network-alias", Kind::List, "Add network-scoped alias for the container"),
    Flag::new("no-healthcheck", Kind::Switch, "Disable any container-specified HEALTHCHECK"),
    Flag::new("oom-kill-disable", Kind::Switch, "Disable OOM Killer"),
    Flag::new("oom-score-adj", Kind::Int, "Tune host's OOM preferences (-1000 to 1000)"),
    Flag::new("pid", Kind::Text, "PID namespace to use"),
    Flag::new("pids-limit", Kind::Int, "Tune container pids limit (set -1 for unlimited)"),
    Flag::new("platform", Kind::Text, "Set platform if server is multi-platform capable"),
    Flag::new("privileged", Kind::Switch, "Give extended privileges to this container"),
    Flag::new("publish", Kind::List, "Publish a container's port(s) to the host").short('p'),
    Flag::new("publish-all", Kind::Switch, "Publish all exposed ports to random ports").short('P'),
    Flag::new(
        "pull",
        Kind::Text,
        "Pull image before running (\"always\", \"missing\", \"never\") (default \"missing\")",
    ),
    Flag::new("quiet", Kind::Switch, "Suppress the pull output").short('q'),
    Flag::new("read-only", Kind::Switch, "Mount the container's root filesystem as read only"),
    Flag::new(
        "restart",
        Kind::Text,
        "Restart policy to apply when a container exits (default \"no\")",
    ),
    Flag::new(
        "rm",
        Kind::Switch,
        "Automatically remove the container and its associated anonymous volumes when it exits",
    ),
    Flag::new("runtime", Kind::Text, "Runtime to use for this container"),
    Flag::new("secret", Kind::List, "Secret to expose to the container")
        .check(checks::secret)
        .beyond(),
    Flag::new("security-opt", Kind::List, "Security Options"),
    Flag::new("shm-size", Kind::Bytes, "Size of /dev/shm"),
    Flag::new("sig-proxy", Kind::Switch, "Proxy received signals to the process (default true)"),
    Flag::new("stop-signal", Kind::Text, "Signal to stop the container"),
    Flag::new("stop-timeout", Kind::Int, "Timeout (in seconds) to stop a container"),
    Flag::new("storage-opt", Kind::List, "Storage driver options for the container"),
    Flag::new("sysctl", Kind::Map, "Sysctl options (default map[])").check(checks::sysctl),
    Flag::new("tmpfs", Kind::List, "Mount a tmpfs directory"),
    Flag::new("tty", Kind::Switch, "Allocate a pseudo-TTY").short('t'),
    Flag::new("ulimit", Kind::Ulimit, "Ulimit options (default [])").check(checks::ulimit),
    Flag::new("use-api-socket", Kind::Switch, "Bind mount Docker API socket and required auth"),
    Flag::new("user", Kind::Text, "Username or UID (format: <name|uid>[:<group|gid>])").short('u'),
    Flag::new("userns", Kind::Text, "User namespace to use"),
    Flag::new("uts", Kind::Text, "UTS namespace to use"),
    Flag::new("volume", Kind::List, "Bind mount a volume").short('v'),
    Flag::new("volume-driver", Kind::Text, "Optional volume driver for the container"),
    Flag::new("volumes-from", Kind::List, "Mount volumes from the specified container(s)"),
    Flag::new("workdir", Kind::Text, "Working directory inside the container").short('w'),
    Flag::alias("net", "network"),
    Flag::alias("net-alias", "network-alias"),
    Flag::alias("dns-opt", "dns-option"),
];

pub(super) static CREATE: [Flag; 109] = [
    Flag::new("add-host", Kind::List, "Add a custom host-to-IP mapping (host:ip)")
        .check(checks::add_host),
    Flag::new(
        "annotation",
        Kind::Map,
        "Add an annotation to the container (passed through to the OCI runtime) (default map[])",
    ),
    Flag::new("attach", Kind::List, "Attach to STDIN, STDOUT or STDERR")
        .short('a')
        .check(checks::attach),
    Flag::new(
        "blkio-weight",
        Kind::Uint16,
        "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)",
    ),
    Flag::new(
        "blkio-weight-device",
        Kind::List,
        "Block IO weight (relative device weight) (default [])",
    )
    .check(checks::weight_device),
    Flag::new("cap-add", Kind::List, "Add Linux capabilities"),
    Flag::new("cap-drop", Kind::List, "Drop Linux capabilities"),
    Flag::new("cgroup-parent", Kind::Text, "Optional parent cgroup for the container"),
    Flag::new(
        "cgroupns",
        Kind::Text,
        "Cgroup namespace to use (host|private)\n'host':    Run the container in the Docker host's cgroup namespace\n'private': Run the container in its own private cgroup namespace\n'':        Use the cgroup namespace as configured by the\n           default-cgroupns-mode option on the daemon (default)",
    ),
    Flag::new("cidfile", Kind::Text, "Write the container ID to the file"),
    Flag::new("config", Kind::List, "Config to expose to the container")
        .check(checks::config)
        .beyond(),
    Flag::new("cpu-count", Kind::Int, "CPU count (Windows only)"),
    Flag::new("cpu-percent", Kind::Int, "CPU percent (Windows only)"),
    Flag::new("cpu-period", Kind::Int, "Limit CPU CFS (Completely Fair Scheduler) period"),
    Flag::new("cpu-quota", Kind::Int, "Limit CPU CFS (Completely Fair Scheduler) quota"),
    Flag::new("cpu-rt-period", Kind::Int, "Limit CPU real-time period in microseconds"),
    Flag::new("cpu-rt-runtime", Kind::Int, "Limit CPU real-time runtime in microseconds"),
    Flag::new("cpu-shares", Kind::Int, "CPU shares (relative weight)").short('c'),
    Flag::new("cpus", Kind::Decimal, "Number of CPUs"),
    Flag::new("cpuset-cpus", Kind::Text, "CPUs in which to allow execution (0-3, 0,1)"),
    Flag::new("cpuset-mems", Kind::Text, "MEMs in which to allow execution (0-3, 0,1)"),
    Flag::new("device", Kind::List, "Add a host device to the container"),
    Flag::new("device-cgroup-rule", Kind::List, "Add a rule to the cgroup allowed devices list"),
    Flag::new(
        "device-read-bps",
        Kind::List,
        "Limit read rate (bytes per second) from a device (default [])",
    )
    .check(checks::rate),
    Flag::new(
        "device-read-iops",
        Kind::List,
        "Limit read rate (IO per second) from a device (default [])",
    )
    .check(checks::iops),
    Flag::new(
        "device-write-bps",
        Kind::List,
        "Limit write rate (bytes per second) to a device (default [])",
    )
    .check(checks::rate),
    Flag::new(
        "device-write-iops",
        Kind::List,
        "Limit write rate (IO per second) to a device (default [])",
    )
    .check(checks::iops),
    Flag::new("disable-content-trust", Kind::Switch, "Skip image verification (default true)"),
    Flag::new("dns", Kind::List, "Set custom DNS servers").check(checks::ip),
    Flag::new("dns-option", Kind::List, "Set DNS options"),
    Flag::new("dns-search", Kind::List, "Set custom DNS search domains").check(checks::dns_search),
    Flag::new("domainname", Kind::Text, "Container NIS domain name"),
    Flag::new(
        "egress",
        Kind::List,
        "What may be reached outside of the networks (none, any, or allow=HOST[:PORT][,...])",
    )
    .beyond(),
    Flag::new("entrypoint", Kind::Text, "Overwrite the default ENTRYPOINT of the image"),
    Flag::new("env", Kind::List, "Set environment variables").short('e').check(checks::env),
    Flag::new("env-file", Kind::List, "Read in a file of environment variables"),
    Flag::new("expose", Kind::List, "Expose a port or a range of ports"),
    Flag::new(
        "gpus",
        Kind::GpuRequest,
        "GPU devices to add to the container ('all' to pass all GPUs)",
    )
    .check(checks::gpus),
    Flag::new("group-add", Kind::List, "Add additional groups to join"),
    Flag::new("health-cmd", Kind::Text, "Command to run to check health"),
    Flag::new(
        "health-interval",
        Kind::Duration,
        "Time between running the check (ms|s|m|h) (default 0s)",
    ),
    Flag::new(
        "health-on-failure",
        Kind::Text,
        "Action when the container turns unhealthy (\"none\"|\"restart\"|\"stop\"|\"kill\")",
    )
    .beyond(),
    Flag::new("health-retries", Kind::Int, "Consecutive failures needed to report unhealthy"),
    Flag::new(
        "health-start-interval",
        Kind::Duration,
        "Time between running the check during the start period (ms|s|m|h) (default 0s)",
    ),
    Flag::new(
        "health-start-period",
        Kind::Duration,
        "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)",
    ),
    Flag::new(
        "health-timeout",
        Kind::Duration,
        "Maximum time to allow one check to run (ms|s|m|h) (default 0s)",
    ),
    Flag::new("help", Kind::Switch, "Print usage"),
    Flag::new("hostname", Kind::Text, "Container host name").short('h'),
    Flag::new(
        "init",
        Kind::Switch,
        "Run an init inside the container that forwards signals and reaps processes",
    ),
    Flag::new("interactive", Kind::Switch, "Keep STDIN open even if not attached").short('i'),
    Flag::new(
        "io-maxbandwidth",
        Kind::Bytes,
        "Maximum IO bandwidth limit for the system drive (Windows only)",
    ),
    Flag::new("io-maxiops", Kind::Uint, "Maximum IOps limit for the system drive (Windows only)"),
    Flag::new("ip", Kind::Text, "IPv4 address (e.g., 172.30.100.104)"),
    Flag::new("ip6", Kind::Text, "IPv6 address (e.g., 2001:db8::33)"),
    Flag::new("ipc", Kind::Text, "IPC mode to use"),
    Flag::new("isolation", Kind::Text, "Container isolation technology"),
    Flag::new("kernel-memory", Kind::Bytes, "Kernel memory limit"),
    Flag::new("label", Kind::List, "Set meta data on a container").short('l').check(checks::label),
    Flag::new("label-file", Kind::List, "Read in a line delimited file of labels"),
    Flag::new("link", Kind::List, "Add link to another container"),
    Flag::new("link-local-ip", Kind::List, "Container IPv4/IPv6 link-local addresses"),
    Flag::new("log-driver", Kind::Text, "Logging driver for the container"),
    Flag::new("log-opt", Kind::List, "Log driver options"),
    Flag::new("mac-address", Kind::Text, "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
    Flag::new("memory", Kind::Bytes, "Memory limit").short('m'),
    Flag::new("memory-reservation", Kind::Bytes, "Memory soft limit"),
    Flag::new(
        "memory-swap",
        Kind::SwapBytes,
        "Swap limit equal to memory plus swap: '-1' to enable unlimited swap",
    ),
    Flag::new(
        "memory-swappiness",
        Kind::Int,
        "Tune container memory swappiness (0 to 100) (default -1)",
    ),
    Flag::new("mount", Kind::Mount, "Attach a filesystem mount to the container")
        .check(checks::mount),
    Flag::new("name", Kind::Text, "Assign a name to the container"),
    Flag::new(
        "net-rate",
        Kind::Text,
        "How fast the container may receive and send (in=10mbit,out=5mbit)",
    )
    .beyond(),
    Flag::new("network", Kind::Network, "Connect a container to a network"),
    Flag::new("network-alias", Kind::List, "Add network-scoped alias for the container"),
    Flag::new("no-healthcheck", Kind::Switch, "Disable any container-specified HEALTHCHECK"),
    Flag::new("oom-kill-disable", Kind::Switch, "Disable OOM Killer"),
    Flag::new("oom-score-adj", Kind::Int, "Tune host's OOM preferences (-1000 to 1000)"),
    Flag::new("pid", Kind::Text, "PID namespace to use"),
    Flag::new("pids-limit", Kind::Int, "Tune container pids limit (set -1 for unlimited)"),
    Flag::new("platform", Kind::Text, "Set platform if server is multi-platform capable"),
    Flag::new("privileged", Kind::Switch, "Give extended privileges to this container"),
    Flag::new("publish", Kind::List, "Publish a container's port(s) to the host").short('p'),
    Flag::new("publish-all", Kind::Switch, "Publish all exposed ports to random ports").short('P'),
    Flag::new(
        "pull",
        Kind::Text,
        "Pull image before creating (\"always\", \"|missing\", \"never\") (default \"missing\")",
    ),
    Flag::new("quiet", Kind::Switch, "Suppress the pull output").short('q'),
    Flag::new("read-only", Kind::Switch, "Mount the container's root filesystem as read only"),
    Flag::new(
        "restart",
        Kind::Text,
        "Restart policy to apply when a container exits (default \"no\")",
    ),
    Flag::new(
        "rm",
        Kind::Switch,
        "Automatically remove the container and its associated anonymous volumes when it exits",
    ),
    Flag::new("runtime", Kind::Text, "Runtime to use for this container"),
    Flag::new("secret", Kind::List, "Secret to expose to the container")
        .check(checks::secret)
        .beyond(),
    Flag::new("security-opt", Kind::List, "Security Options"),
    Flag::new("shm-size", Kind::Bytes, "Size of /dev/shm"),
    Flag::new("stop-signal", Kind::Text, "Signal to stop the container"),
    Flag::new("stop-timeout", Kind::Int, "Timeout (in seconds) to stop a container"),
    Flag::new("storage-opt", Kind::List, "Storage driver options for the container"),
    Flag::new("sysctl", Kind::Map, "Sysctl options (default map[])").check(checks::sysctl),
    Flag::new("tmpfs", Kind::List, "Mount a tmpfs directory"),
    Flag::new("tty", Kind::Switch, "Allocate a pseudo-TTY").short('t'),
    Flag::new("ulimit", Kind::Ulimit, "Ulimit options (default [])").check(checks::ulimit),
    Flag::new("use-api-socket", Kind::Switch, "Bind mount Docker API socket and required auth"),
    Flag::new("user", Kind::Text, "Username or UID (format: <name|uid>[:<group|gid>])").short('u'),
    Flag::new("userns", Kind::Text, "User namespace to use"),
    Flag::new("uts", Kind::Text, "UTS namespace to use"),
    Flag::new("volume", Kind::List, "Bind mount a volume").short('v'),
    Flag::new("volume-driver", Kind::Text, "Optional volume driver for the container"),
    Flag::new("volumes-from", Kind::List, "Mount volumes from the specified container(s)"),
    Flag::new("workdir", Kind::Text, "Working directory inside the container").short('w'),
    Flag::alias("net", "network"),
    Flag::alias("net-alias", "network-alias"),
    Flag::alias("dns-opt", "dns-option"),
];
