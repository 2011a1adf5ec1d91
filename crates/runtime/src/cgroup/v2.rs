//! Version 2: which value goes into which file, converted from the words of version 1 that the spec speaks; freezing.

use std::path::Path;
use std::time::Instant;

use oci::runtime::{BlockIo, Cpu, Memory, Rdma, Resources};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use stdx::{Context, Error, Kind, Result};

use super::Setting;
use super::dir::Dir;

/// Everything asked for, in the order it is to be written.
pub(super) fn settings(resources: &Resources) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    if let Some(cpu) = &resources.cpu {
        self::cpu(cpu, &mut settings);
    }
    if let Some(memory) = &resources.memory {
        self::memory(memory, &mut settings)?;
    }
    if let Some(limit) = resources.pids.and_then(|pids| pids.limit).filter(|limit| *limit != 0) {
        settings.push(Setting::new("pids", "pids.max", number_or_max(limit)));
    }
    if let Some(block_io) = &resources.block_io {
        self::block_io(block_io, &mut settings);
    }
    for huge in &resources.hugepage_limits {
        check_page_size(&huge.page_size)?;
        settings.push(Setting::new(
            "hugetlb",
            format!("hugetlb.{}.max", huge.page_size),
            huge.limit,
        ));
    }
    for (device, limit) in &resources.rdma {
        settings.push(Setting::new("rdma", "rdma.max", rdma(device, *limit)));
    }
    for (file, value) in &resources.unified {
        if file.contains('/') || !file.contains('.') || file.starts_with("cgroup.") {
            return Err(Error::invalid(format!(
                "unified resource {file:?} must be a file name of a controller"
            )));
        }
        for value in value.lines() {
            settings.push(Setting::new("", file, value));
        }
    }
    Ok(settings)
}

fn cpu(cpu: &Cpu, settings: &mut Vec<Setting>) {
    let mut set = |file: &str, value: String| settings.push(Setting::new("cpu", file, value));
    if let Some(idle) = cpu.idle {
        set("cpu.idle", idle.to_string());
    }
    // An idle group has no weight, and the kernel refuses to give it one.
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0 && cpu.idle != Some(1)) {
        set("cpu.weight", weight_of_shares(shares).to_string());
    }
    let quota = cpu.quota.filter(|quota| *quota != 0);
    match (quota, cpu.period.filter(|period| *period != 0)) {
        (None, None) => {}
        (quota, period) => {
            let quota = quota
                .filter(|quota| *quota > 0)
                .map_or("max".to_owned(), |quota| quota.to_string());
            set("cpu.max", format!("{quota} {}", period.unwrap_or(100_000)));
        }
    }
    if let Some(burst) = cpu.burst {
        set("cpu.max.burst", burst.to_string());
    }
    if !cpu.cpus.is_empty() {
        settings.push(Setting::new("cpuset", "cpuset.cpus", &cpu.cpus));
    }
    if !cpu.mems.is_empty() {
        settings.push(Setting::new("cpuset", "cpuset.mems", &cpu.mems));
    }
}

/// 2…262144 shares become a weight of 1…10000 so that the defaults, 1024 and 100, meet. The curve runc and crun have agreed
/// on; the straight line before it gave a container with default shares a weight of 39.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

fn memory(memory: &Memory, settings: &mut Vec<Setting>) -> Result<()> {
    let limit = memory.limit.unwrap_or(0);
    let mut set =
        |file: &str, value: i64| settings.push(Setting::new("memory", file, number_or_max(value)));
    if limit != 0 {
        set("memory.max", limit);
    }
    if let Some(reservation) = memory.reservation.filter(|value| *value != 0) {
        set("memory.low", reservation);
    }
    if let Some(swap) = swap(limit, memory.swap.unwrap_or(0))? {
        let setting = Setting::new("memory", "memory.swap.max", number_or_max(swap));
        // A host that does not account swap has no file: fine for "as much as you like" and for "none".
        settings.push(if swap <= 0 { setting.or_ignore() } else { setting });
    }
    Ok(())
}

/// The spec limits memory and swap together, the kernel here swap alone.
pub(super) fn swap(memory: i64, together: i64) -> Result<Option<i64>> {
    match (memory, together) {
        (-1, 0) => Ok(Some(-1)),
        (_, 0) => Ok(None),
        (_, -1) => Ok(Some(-1)),
        (0 | -1, _) => Err(Error::invalid("unable to set swap limit without memory limit")),
        (memory, together) if memory < 0 || together < 0 => {
            Err(Error::invalid(format!("invalid memory value: {}", memory.min(together))))
        }
        (memory, together) if together < memory => {
            Err(Error::invalid("memory+swap limit should be >= memory limit"))
        }
        (memory, together) => Ok(Some(together - memory)),
    }
}

fn block_io(block_io: &BlockIo, settings: &mut Vec<Setting>) {
    // BFQ takes the spec's numbers as they are; the cost model's weights are another scale.
    if let Some(weight) = block_io.weight.filter(|weight| *weight != 0) {
        let other = format!("default {}", io_weight(weight));
        settings.push(Setting::new("io", "io.bfq.weight", weight).or_instead("io.weight", other));
    }
    for device in &block_io.weight_device {
        if let Some(weight) = device.weight.filter(|weight| *weight != 0) {
            let numbers = format!("{}:{}", device.major, device.minor);
            let other = format!("{numbers} {}", io_weight(weight));
            settings.push(
                Setting::new("io", "io.bfq.weight", format!("{numbers} {weight}"))
                    .or_instead("io.weight", other),
            );
        }
    }
    for (key, devices) in [
        ("rbps", &block_io.throttle_read_bps_device),
        ("wbps", &block_io.throttle_write_bps_device),
        ("riops", &block_io.throttle_read_iops_device),
        ("wiops", &block_io.throttle_write_iops_device),
    ] {
        for device in devices {
            // Zero takes a limit away.
            let rate = if device.rate == 0 { "max".to_owned() } else { device.rate.to_string() };
            settings.push(Setting::new(
                "io",
                "io.max",
                format!("{}:{} {key}={rate}", device.major, device.minor),
            ));
        }
    }
}

/// 10…1000 become 1…10000.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990
}

pub(super) fn rdma(device: &str, limit: Rdma) -> String {
    let mut text = device.to_owned();
    for (key, value) in [("hca_handle", limit.hca_handles), ("hca_object", limit.hca_objects)] {
        if let Some(value) = value {
            text.push_str(&format!(" {key}={value}"));
        }
    }
    text
}

/// It becomes part of a file name: `2MB`, `1GB`.
pub(super) fn check_page_size(size: &str) -> Result<()> {
    let digits = size.trim_end_matches(|c: char| c.is_ascii_uppercase());
    match !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Ok(()),
        false => Err(Error::invalid(format!("invalid huge page size {size:?}"))),
    }
}

fn number_or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// Switches on, from the top down to the parent of `path`, every controller there is. What cannot be switched on (a parent
/// with processes of its own) shows when a limit needs it; nothing is asked of a container without limits.
pub(super) fn enable_controllers(mount_point: &Path, path: &Path) {
    let mut at = mount_point.to_owned();
    for name in path.components() {
        let Ok(dir) = Dir::open(&at) else { return };
        let (available, on) =
            (dir.try_read("cgroup.controllers"), dir.try_read("cgroup.subtree_control"));
        let (available, on) = (available.unwrap_or_default(), on.unwrap_or_default());
        let on: Vec<&str> = on.split_whitespace().collect();
        let lacking: Vec<String> = available
            .split_whitespace()
            .filter(|name| !on.contains(name))
            .map(|name| format!("+{name}"))
            .collect();
        if !lacking.is_empty()
            && dir.try_write("cgroup.subtree_control", &lacking.join(" ")).is_err()
        {
            for one in &lacking {
                // All or nothing failed; some may do.
                let _ = dir.try_write("cgroup.subtree_control", one);
            }
        }
        at.push(name);
    }
}

/// Asks, and waits for `frozen 1` in `cgroup.events`.
pub(super) fn freeze(dir: &Dir, deadline: Instant) -> Result<()> {
    let events = dir.open_file("cgroup.events", OFlags::RDONLY);
    let events =
        events.context(|| format!("cannot open {}", dir.path().join("cgroup.events").display()))?;
    dir.write("cgroup.freeze", "1")?;
    while !frozen(dir)? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::new(Kind::Unavailable, "timeout waiting for the cgroup to freeze"));
        }
        // Read before it is polled: only what changes after the reading is an event.
        let mut buffer = [0; 256];
        rustix::io::pread(&events, &mut buffer, 0)?;
        if frozen(dir)? {
            break;
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

pub(super) fn frozen(dir: &Dir) -> Result<bool> {
    Ok(dir.read("cgroup.events")?.lines().any(|line| line == "frozen 1"))
}

#[cfg(test)]
mod tests {
    use oci::runtime::{Pids, ThrottleDevice};

    use super::*;

    fn check(resources: &Resources, expected: &[&str]) {
        let found = settings(resources).unwrap();
        let found: Vec<_> =
            found.iter().map(|one| format!("{} = {}", one.file, one.value)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn cpu_files() {
        let check = |cpu, expected: &[&str]| {
            check(&Resources { cpu: Some(cpu), ..Resources::default() }, expected)
        };
        let limited = Cpu {
            shares: Some(1024),
            quota: Some(50_000),
            period: Some(200_000),
            ..Cpu::default()
        };
        check(limited, &["cpu.weight = 100", "cpu.max = 50000 200000"]);
        check(Cpu { quota: Some(-1), ..Cpu::default() }, &["cpu.max = max 100000"]);
        check(Cpu { period: Some(5000), ..Cpu::default() }, &["cpu.max = max 5000"]);
        check(Cpu { idle: Some(1), shares: Some(2), ..Cpu::default() }, &["cpu.idle = 1"]);
        let sets = Cpu { cpus: "0,2".to_owned(), mems: "1".to_owned(), ..Cpu::default() };
        check(sets, &["cpuset.cpus = 0,2", "cpuset.mems = 1"]);
    }

    #[test]
    fn shares_become_weights() {
        let weights = [0, 2, 3, 512, 1024, 2048, 262_144, u64::MAX].map(weight_of_shares);
        assert_eq!(weights, [1, 1, 2, 59, 100, 174, 10_000, 10_000]);
    }

    #[test]
    fn swap_is_what_is_above_memory() {
        for (memory, together, expected) in [
            (0, 0, Ok(None)),
            (100, 0, Ok(None)),
            (-1, 0, Ok(Some(-1))),
            (100, -1, Ok(Some(-1))),
            (100, 100, Ok(Some(0))),
            (100, 150, Ok(Some(50))),
            (100, 50, Err("memory+swap limit should be >= memory limit")),
            (0, 50, Err("unable to set swap limit without memory limit")),
            (-2, 50, Err("invalid memory value: -2")),
        ] {
            let found = swap(memory, together).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{memory} {together}");
        }
    }

    #[test]
    fn the_other_files() {
        let resources = Resources {
            memory: Some(Memory {
                limit: Some(100),
                swap: Some(100),
                reservation: Some(50),
                ..Memory::default()
            }),
            pids: Some(Pids { limit: Some(-1) }),
            block_io: Some(BlockIo {
                weight: Some(1000),
                throttle_read_bps_device: vec![ThrottleDevice { major: 8, minor: 0, rate: 0 }],
                throttle_write_iops_device: vec![ThrottleDevice { major: 8, minor: 0, rate: 9 }],
                ..BlockIo::default()
            }),
            unified: [("memory.high".to_owned(), "80".to_owned())].into(),
            ..Resources::default()
        };
        check(
            &resources,
            &[
                "memory.max = 100",
                "memory.low = 50",
                "memory.swap.max = 0",
                "pids.max = max",
                "io.bfq.weight = 1000",
                "io.max = 8:0 rbps=max",
                "io.max = 8:0 wiops=9",
                "memory.high = 80",
            ],
        );
    }

    #[test]
    fn a_file_name_is_only_that() {
        for name in ["../memory.max", "cgroup.procs", "x"] {
            let resources = Resources {
                unified: [(name.to_owned(), "1".to_owned())].into(),
                ..Resources::default()
            };
            assert!(settings(&resources).is_err(), "{name}");
        }
        assert!(check_page_size("2MB").is_ok());
        assert!(check_page_size("../2MB").is_err());
    }
}
