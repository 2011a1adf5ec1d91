//! What `docker info` warns of: what this host cannot do for containers, in Docker's words. Pure.

use runtime::cgroup::{Mode, Support};

/// A way to ask this daemon over TCP, by its address, that nobody has to show anything for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenDoor {
    /// Without TLS.
    Plain(String),
    /// With TLS that asks clients for no certificate.
    Anybody(String),
}

impl OpenDoor {
    /// What Docker's daemon says of it in its log and in `info`.
    pub fn warning(&self) -> String {
        let what = match self {
            Self::Plain(address) => format!("http://{address} without encryption"),
            Self::Anybody(address) => {
                format!("https://{address} without TLS client verification")
            }
        };
        format!("[DEPRECATION NOTICE]: API is accessible on {what}.{ATTACK_SURFACE}")
    }
}

const ATTACK_SURFACE: &str = "
         Access to the remote API is equivalent to root access on the host. Refer
         to the 'Docker daemon attack surface' section in the documentation for
         more information: https://docs.docker.com/go/attack-surface/
In future versions this will be a hard failure preventing the daemon from starting! Learn more at: \
https://docs.docker.com/go/api-security/";

/// One line for each thing that is missing. Of what a kernel of today cannot have, nothing is said.
pub(crate) fn warnings(support: &Support, ipv4_forwarding: bool) -> Vec<String> {
    let v2 = support.mode == Mode::V2;
    if support.is_none() {
        let why = match v2 {
            true => "Systemd is required to enable cgroups in rootless-mode.",
            false => {
                "To enable cgroups in rootless-mode, you need to boot the system in cgroup v2 mode."
            }
        };
        let forwarding = "WARNING: IPv4 forwarding is disabled".to_owned();
        return std::iter::once(format!(
            "WARNING: Running in rootless-mode without cgroups. {why}"
        ))
        .chain((!ipv4_forwarding).then_some(forwarding))
        .collect();
    }
    let throttle = |v1: &str, v2_name: &str| match v2 {
        true => format!("WARNING: No io.max ({v2_name}) support"),
        false => format!("WARNING: No blkio throttle.{v1} support"),
    };
    let missing = [
        (!support.memory_limit, "WARNING: No memory limit support".to_owned()),
        (!support.swap_limit, "WARNING: No swap limit support".to_owned()),
        (
            !support.kernel_memory_tcp && !v2,
            "WARNING: No kernel memory TCP limit support".to_owned(),
        ),
        (!support.oom_kill_disable && !v2, "WARNING: No oom kill disable support".to_owned()),
        (!support.cpu_cfs, "WARNING: No cpu cfs quota support".to_owned()),
        (!support.cpu_cfs, "WARNING: No cpu cfs period support".to_owned()),
        (!support.cpu_shares, "WARNING: No cpu shares support".to_owned()),
        (!support.cpuset, "WARNING: No cpuset support".to_owned()),
        (!support.block_io_weight && v2, "WARNING: No io.weight support".to_owned()),
        (
            !support.block_io_weight_device && v2,
            "WARNING: No io.weight (per device) support".to_owned(),
        ),
        (!support.block_io_throttle, throttle("read_bps_device", "rbps")),
        (!support.block_io_throttle, throttle("write_bps_device", "wbps")),
        (!support.block_io_throttle, throttle("read_iops_device", "riops")),
        (!support.block_io_throttle, throttle("write_iops_device", "wiops")),
        (!ipv4_forwarding, "WARNING: IPv4 forwarding is disabled".to_owned()),
    ];
    missing.into_iter().filter_map(|(is, words)| is.then_some(words)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let whole = Support {
            mode: Mode::V1,
            memory_limit: true,
            swap_limit: true,
            memory_reservation: true,
            oom_kill_disable: true,
            memory_swappiness: true,
            kernel_memory_tcp: true,
            cpu_shares: true,
            cpu_cfs: true,
            cpu_realtime: true,
            cpuset: true,
            cpuset_cpus: String::new(),
            cpuset_mems: String::new(),
            block_io_weight: false,
            block_io_weight_device: false,
            block_io_throttle: true,
            pids_limit: true,
            devices: true,
            freezer: true,
        };
        assert!(warnings(&whole, true).is_empty());
        let bare = Support { swap_limit: false, block_io_throttle: false, ..whole.clone() };
        assert_eq!(
            warnings(&bare, false),
            [
                "WARNING: No swap limit support",
                "WARNING: No blkio throttle.read_bps_device support",
                "WARNING: No blkio throttle.write_bps_device support",
                "WARNING: No blkio throttle.read_iops_device support",
                "WARNING: No blkio throttle.write_iops_device support",
                "WARNING: IPv4 forwarding is disabled",
            ]
        );
        let v2 = Support { mode: Mode::V2, oom_kill_disable: false, ..whole };
        assert_eq!(
            warnings(&v2, true),
            ["WARNING: No io.weight support", "WARNING: No io.weight (per device) support"]
        );
    }
}
