//! Limits, weights and devices.

use api::container::{Resources as Wanted, ThrottleDevice, Ulimit};
use oci::runtime::{BlockIo, Cpu, DeviceRule, Memory, Pids, Resources};
use runtime::cgroup::{Driver, Support};
use stdx::{Error, Result};

use super::DevicePlan;
use crate::container::mounts;
use crate::rooms::Settings;

/// Below what containers' cgroups are made unless somebody says otherwise. A user's systemd has no slice of the system's.
pub fn default_cgroup_parent(driver: Driver, rootless: bool) -> &'static str {
    match driver {
        Driver::Cgroupfs => "/gantry",
        Driver::Systemd if rootless => "user.slice",
        Driver::Systemd => "system.slice",
    }
}

/// systemd puts its scopes into slices, and into nothing else.
pub fn check_cgroup_parent(driver: Driver, parent: &str) -> Result<()> {
    match driver == Driver::Systemd && (parent.len() <= 6 || !parent.ends_with(".slice")) {
        true => Err(Error::invalid(
            "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"",
        )),
        false => Ok(()),
    }
}

pub(super) fn devices(wanted: &Wanted) -> Result<Vec<DevicePlan>> {
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
pub(super) fn device_rules(wanted: &Wanted) -> Result<Vec<DeviceRule>> {
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

/// Takes away the limits that this host cannot keep, and says so. Looks at the host only if there are any.
pub(crate) fn discard_here(wanted: &mut Wanted, settings: &Settings) -> Result<Vec<String>> {
    match *wanted == Wanted::default() {
        true => Ok(Vec::new()),
        false => discard(wanted, &Support::below(settings.cgroup_driver, &settings.cgroup_parent)?),
    }
}

pub(crate) fn discard(wanted: &mut Wanted, host: &Support) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let mut lacks = |what: &str, then: &str| {
        warnings.push(format!("Your kernel does not support {what}. {then}"));
    };
    let unmounted = |what: &str| format!("{what} or the cgroup is not mounted");
    if wanted.memory > 0 && !host.memory_limit {
        lacks(&unmounted("memory limit capabilities"), "Limitation discarded.");
        (wanted.memory, wanted.memory_swap) = (0, -1);
    }
    if wanted.memory > 0 && wanted.memory_swap != -1 && !host.swap_limit {
        lacks(&unmounted("swap limit capabilities"), "Memory limited without swap.");
        wanted.memory_swap = -1;
    }
    if wanted.memory_swappiness.is_some_and(|value| value != -1) && !host.memory_swappiness {
        lacks(&unmounted("memory swappiness capabilities"), "Memory swappiness discarded.");
        wanted.memory_swappiness = None;
    }
    if wanted.memory_reservation > 0 && !host.memory_reservation {
        lacks(&unmounted("memory soft limit capabilities"), "Limitation discarded.");
        wanted.memory_reservation = 0;
    }
    if wanted.oom_kill_disable.is_some() && !host.oom_kill_disable {
        if wanted.oom_kill_disable == Some(true) {
            lacks("OomKillDisable", "OomKillDisable discarded.");
        }
        wanted.oom_kill_disable = None;
    }
    if !host.pids_limit {
        if wanted.pids_limit.is_some_and(|limit| limit > 0) {
            lacks(&unmounted("PIDs limit capabilities"), "PIDs limit discarded.");
        }
        wanted.pids_limit = None;
    }
    // Where there are no groups for us at all this is one limit of many that nobody keeps.
    if wanted.nano_cpus > 0 && host.is_none() {
        lacks("CPU CFS scheduler", "CPU period/quota discarded.");
        wanted.nano_cpus = 0;
    }
    if wanted.nano_cpus > 0 && !host.cpu_cfs {
        return Err(Error::invalid(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
        ));
    }
    let any_realtime = wanted.cpu_realtime_period != 0 || wanted.cpu_realtime_runtime != 0;
    if any_realtime && !host.cpu_realtime {
        return Err(Error::invalid("kernel does not support CPU real-time scheduler"));
    }
    if wanted.cpu_shares > 0 && !host.cpu_shares {
        lacks(&unmounted("CPU shares"), "Shares discarded.");
        wanted.cpu_shares = 0;
    }
    if (wanted.cpu_period != 0 || wanted.cpu_quota != 0) && !host.cpu_cfs {
        lacks("CPU CFS scheduler", "CPU period/quota discarded.");
        (wanted.cpu_period, wanted.cpu_quota) = (0, 0);
    }
    let any_cpuset = !wanted.cpuset_cpus.is_empty() || !wanted.cpuset_mems.is_empty();
    if any_cpuset && !host.cpuset {
        lacks(&unmounted("cpuset"), "Cpuset discarded.");
        wanted.cpuset_cpus.clear();
        wanted.cpuset_mems.clear();
    }
    if wanted.blkio_weight > 0 && !host.block_io_weight {
        lacks(&unmounted("Block I/O weight"), "Weight discarded.");
        wanted.blkio_weight = 0;
    }
    if any(&wanted.blkio_weight_device) && !host.block_io_weight_device {
        lacks(&unmounted("Block I/O weight_device"), "Weight-device discarded.");
        wanted.blkio_weight_device = Some(Vec::new());
    }
    let throttles = [
        (&mut wanted.blkio_device_read_bps, "BPS Block I/O read limit", "BPS read"),
        (&mut wanted.blkio_device_write_bps, "BPS Block I/O write limit", "BPS write"),
        (&mut wanted.blkio_device_read_iops, "IOPS Block read limit", "IOPS read"),
        (&mut wanted.blkio_device_write_iops, "IOPS Block write limit", "IOPS write"),
    ];
    for (throttle, what, short) in throttles {
        if any(throttle) && !host.block_io_throttle {
            lacks(&unmounted(what), &format!("Block I/O {short} limit discarded."));
            *throttle = Some(Vec::new());
        }
    }
    // Deprecated in Linux 5.4, and gone.
    if wanted.kernel_memory > 0 {
        lacks(&unmounted("kernel memory limit capabilities"), "Limitation discarded.");
    }
    wanted.kernel_memory = 0;
    if wanted.kernel_memory_tcp > 0 && !host.kernel_memory_tcp {
        lacks(&unmounted("kernel memory TCP limit capabilities"), "Limitation discarded.");
        wanted.kernel_memory_tcp = 0;
    }
    if wanted.cpu_percent > 0 {
        warnings.push("linux does not support CPU percent. Percent discarded.".to_owned());
        wanted.cpu_percent = 0;
    }
    Ok(warnings)
}

fn any<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

/// What is asked of single block devices, by the paths of their nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockDevices {
    pub weights: Vec<(String, u16)>,
    pub read_bps: Vec<(String, u64)>,
    pub write_bps: Vec<(String, u64)>,
    pub read_iops: Vec<(String, u64)>,
    pub write_iops: Vec<(String, u64)>,
}

pub(super) fn block_devices(wanted: &Wanted) -> Result<BlockDevices> {
    let throttles = |list: &Option<Vec<ThrottleDevice>>| {
        list.iter().flatten().map(|device| (device.path.clone(), device.rate)).collect::<Vec<_>>()
    };
    let weights: Vec<_> = wanted
        .blkio_weight_device
        .iter()
        .flatten()
        .map(|device| (device.path.clone(), device.weight))
        .collect();
    if let Some((path, weight)) =
        weights.iter().find(|(_, weight)| *weight != 0 && !(10..=1000).contains(weight))
    {
        return Err(Error::invalid(format!("invalid weight for device: {path}:{weight}")));
    }
    Ok(BlockDevices {
        weights,
        read_bps: throttles(&wanted.blkio_device_read_bps),
        write_bps: throttles(&wanted.blkio_device_write_bps),
        read_iops: throttles(&wanted.blkio_device_read_iops),
        write_iops: throttles(&wanted.blkio_device_write_iops),
    })
}

/// Limits as the cgroups take them; what contradicts itself is refused.
pub(crate) fn resources(wanted: &Wanted, warnings: &mut Vec<String>) -> Result<Resources> {
    let bad = |sentence: &str| Err(Error::invalid(sentence));
    if wanted.memory != 0 && wanted.memory < super::LEAST_MEMORY {
        return bad("Minimum memory limit allowed is 6MB");
    }
    let mut swap = wanted.memory_swap;
    if swap < -1 {
        return Err(Error::invalid(format!(
            "invalid memory swap limit ({swap}): value must be -1 or a positive integer"
        )));
    }
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
    if wanted.memory_reservation != 0 && wanted.memory_reservation < super::LEAST_MEMORY {
        return bad("Minimum memory reservation allowed is 6MB");
    }
    if wanted.memory > 0 && wanted.memory_reservation > wanted.memory {
        return bad(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    if wanted.nano_cpus > 0 && wanted.cpu_period > 0 {
        return bad("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if wanted.nano_cpus > 0 && wanted.cpu_quota > 0 {
        return bad("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    if wanted.cpu_shares < 0 {
        return Err(Error::invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            wanted.cpu_shares
        )));
    }
    check_realtime(wanted)?;
    if wanted.io_maximum_bandwidth != 0 {
        return bad(
            "invalid option: QoS maximum bandwidth configuration is not supported on linux",
        );
    }
    if wanted.io_maximum_iops != 0 {
        return bad("invalid option: QoS maximum IOPs configuration is not supported on linux");
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
    check_cpuset(&wanted.cpuset_mems, "mems", crate::system::memory_nodes())?;
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
        kernel_tcp: positive(wanted.kernel_memory_tcp),
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
        // Zero is no limit, too, and must be said to replace one.
        pids: wanted
            .pids_limit
            .map(|limit| Pids { limit: Some(if limit > 0 { limit } else { -1 }) }),
        block_io: weight.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
        ..Resources::default()
    })
}

/// What `update` asks for must make sense before it is laid over what there is; only swap may be said without memory.
pub(crate) fn check_alone(wanted: &Wanted) -> Result<()> {
    let swap = if wanted.memory == 0 { 0 } else { wanted.memory_swap };
    resources(&Wanted { memory_swap: swap, ..wanted.clone() }, &mut Vec::new()).map(drop)
}

fn check_realtime(wanted: &Wanted) -> Result<()> {
    let (period, runtime) = (wanted.cpu_realtime_period, wanted.cpu_realtime_runtime);
    if period < 0 {
        return Err(Error::invalid(format!(
            "invalid CPU real-time period ({period}): value must be a positive integer"
        )));
    }
    if period != 0 && runtime > period {
        return Err(Error::invalid(
            "cpu real-time runtime cannot be higher than cpu real-time period",
        ));
    }
    Ok(())
}

/// `0-3,5`. Numbers are bounded before anything is made of them (CVE-2018-20699).
fn check_cpuset(text: &str, what: &str, count: i64) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let number = |part: &str| {
        let number = part.trim().parse::<i64>().ok();
        number.filter(|number| (0..1 << 16).contains(number)).ok_or_else(|| {
            let words = format!("Invalid value {text} for cpuset {what}: invalid format: {text}");
            Error::invalid(words)
        })
    };
    for part in text.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high) = (number(low)?, number(high)?);
        if low > high {
            let words = format!("Invalid value {text} for cpuset {what}: invalid format: {text}");
            return Err(Error::invalid(words));
        }
        if high >= count {
            return Err(Error::invalid(format!(
                "Requested {} are not available - requested {text}, available: {}",
                if what == "cpus" { "CPUs" } else { "memory nodes" },
                if count == 1 { "0".to_owned() } else { format!("0-{}", count - 1) }
            )));
        }
    }
    Ok(())
}

pub(super) fn ulimits(wanted: &Wanted, settings: &Settings) -> Result<Vec<Ulimit>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_cannot_keep_is_discarded_and_said() {
        let mut bare = Support::detect().unwrap();
        (bare.cpuset, bare.block_io_weight, bare.swap_limit) = (false, false, false);
        (bare.memory_limit, bare.memory_swappiness, bare.oom_kill_disable) = (true, false, false);
        let asked = Wanted {
            memory: 64 << 20,
            memory_swappiness: Some(10),
            oom_kill_disable: Some(false),
            cpuset_cpus: "0".to_owned(),
            blkio_weight: 300,
            ..Wanted::default()
        };
        let mut wanted = asked.clone();
        assert_eq!(
            discard(&mut wanted, &bare).unwrap(),
            [
                "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
                "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
                "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.",
                "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
            ]
        );
        assert_eq!(wanted, Wanted { memory: 64 << 20, memory_swap: -1, ..Wanted::default() });

        (bare.cpuset, bare.block_io_weight, bare.swap_limit) = (true, true, true);
        (bare.memory_swappiness, bare.oom_kill_disable) = (true, true);
        let mut wanted = asked.clone();
        assert!(discard(&mut wanted, &bare).unwrap().is_empty());
        assert_eq!(wanted, asked);
    }
}
