//! Version 1: which value goes into which file of which controller; cpusets and freezing.

use std::path::Path;
use std::time::{Duration, Instant};

use oci::runtime::{BlockIo, Cpu, Memory, Network, Resources};
use rustix::io::Errno;
use stdx::{Context, Error, Kind, Result};

use super::Setting;
use super::dir::Dir;

/// Everything asked for, in the order it is to be written.
pub(super) fn settings(resources: &Resources) -> Result<Vec<Setting>> {
    if !resources.unified.is_empty() {
        return Err(Error::invalid("invalid configuration: cannot use unified on cgroup v1"));
    }
    let mut settings = Vec::new();
    if let Some(cpu) = &resources.cpu {
        self::cpu(cpu, &mut settings);
    }
    if let Some(memory) = &resources.memory {
        self::memory(memory, &mut settings)?;
    }
    if let Some(limit) = resources.pids.and_then(|pids| pids.limit).filter(|limit| *limit != 0) {
        settings.push(Setting::new(
            "pids",
            "pids.max",
            if limit > 0 { limit.to_string() } else { "max".to_owned() },
        ));
    }
    if let Some(block_io) = &resources.block_io {
        self::block_io(block_io, &mut settings);
    }
    for huge in &resources.hugepage_limits {
        super::v2::check_page_size(&huge.page_size)?;
        settings.push(Setting::new(
            "hugetlb",
            format!("hugetlb.{}.limit_in_bytes", huge.page_size),
            huge.limit,
        ));
    }
    if let Some(network) = &resources.network {
        self::network(network, &mut settings);
    }
    for (device, limit) in &resources.rdma {
        settings.push(Setting::new("rdma", "rdma.max", super::v2::rdma(device, *limit)));
    }
    Ok(settings)
}

fn cpu(cpu: &Cpu, settings: &mut Vec<Setting>) {
    let mut set = |file: &str, value: Option<String>| {
        settings.extend(value.map(|value| Setting::new("cpu", file, value)))
    };
    set(
        "cpu.rt_period_us",
        cpu.realtime_period.filter(|value| *value != 0).map(|value| value.to_string()),
    );
    set(
        "cpu.rt_runtime_us",
        cpu.realtime_runtime.filter(|value| *value != 0).map(|value| value.to_string()),
    );
    set("cpu.shares", cpu.shares.filter(|value| *value != 0).map(|value| value.to_string()));
    set("cpu.cfs_period_us", cpu.period.filter(|value| *value != 0).map(|value| value.to_string()));
    set("cpu.cfs_quota_us", cpu.quota.filter(|value| *value != 0).map(|value| value.to_string()));
    set("cpu.cfs_burst_us", cpu.burst.map(|value| value.to_string()));
    set("cpu.idle", cpu.idle.map(|value| value.to_string()));
    if !cpu.cpus.is_empty() {
        settings.push(Setting::new("cpuset", "cpuset.cpus", &cpu.cpus));
    }
    if !cpu.mems.is_empty() {
        settings.push(Setting::new("cpuset", "cpuset.mems", &cpu.mems));
    }
}

fn memory(memory: &Memory, settings: &mut Vec<Setting>) -> Result<()> {
    let limit = memory.limit.unwrap_or(0);
    let swap = match memory.swap.unwrap_or(0) {
        // Without a limit of memory there is none of the sum either.
        0 if limit == -1 => -1,
        swap => swap,
    };
    if limit > 0 && swap > 0 && swap < limit {
        return Err(Error::invalid("memory+swap limit should be >= memory limit"));
    }
    let mut set = |file: &str, value: i64| settings.push(Setting::new("memory", file, value));
    if limit != 0 {
        set("memory.limit_in_bytes", limit);
    }
    if let Some(value) = memory.reservation.filter(|value| *value != 0) {
        set("memory.soft_limit_in_bytes", value);
    }
    if let Some(value) = memory.kernel_tcp.filter(|value| *value != 0) {
        set("memory.kmem.tcp.limit_in_bytes", value);
    }
    if memory.disable_oom_killer == Some(true) {
        set("memory.oom_control", 1);
    }
    if let Some(value) = memory.swappiness {
        if value > 100 {
            return Err(Error::invalid(format!(
                "invalid memory swappiness value: {value} (valid range is 0-100)"
            )));
        }
        settings.push(Setting::new("memory", "memory.swappiness", value));
    }
    if swap != 0 {
        let setting = Setting::new("memory", "memory.memsw.limit_in_bytes", swap);
        // A host that does not account swap does not limit it either.
        settings.push(if swap == -1 { setting.or_ignore() } else { setting });
    }
    Ok(())
}

fn block_io(block_io: &BlockIo, settings: &mut Vec<Setting>) {
    let set = |file: &str, value: String| Setting::new("blkio", file, value);
    // CFQ had the first name, until it left with Linux 5.0; BFQ has the second.
    if let Some(weight) = block_io.weight.filter(|weight| *weight != 0) {
        settings
            .push(set("blkio.weight", weight.to_string()).or_instead("blkio.bfq.weight", weight));
    }
    if let Some(weight) = block_io.leaf_weight.filter(|weight| *weight != 0) {
        settings.push(set("blkio.leaf_weight", weight.to_string()));
    }
    for device in &block_io.weight_device {
        let numbers = format!("{}:{}", device.major, device.minor);
        if let Some(weight) = device.weight.filter(|weight| *weight != 0) {
            let value = format!("{numbers} {weight}");
            settings.push(
                set("blkio.weight_device", value.clone())
                    .or_instead("blkio.bfq.weight_device", value),
            );
        }
        if let Some(weight) = device.leaf_weight.filter(|weight| *weight != 0) {
            settings.push(set("blkio.leaf_weight_device", format!("{numbers} {weight}")));
        }
    }
    for (file, devices) in [
        ("blkio.throttle.read_bps_device", &block_io.throttle_read_bps_device),
        ("blkio.throttle.write_bps_device", &block_io.throttle_write_bps_device),
        ("blkio.throttle.read_iops_device", &block_io.throttle_read_iops_device),
        ("blkio.throttle.write_iops_device", &block_io.throttle_write_iops_device),
    ] {
        for device in devices {
            settings.push(set(file, format!("{}:{} {}", device.major, device.minor, device.rate)));
        }
    }
}

fn network(network: &Network, settings: &mut Vec<Setting>) {
    if let Some(class) = network.class_id.filter(|class| *class != 0) {
        settings.push(Setting::new("net_cls", "net_cls.classid", class));
    }
    for interface in &network.priorities {
        let value = format!("{} {}", interface.name, interface.priority);
        settings.push(Setting::new("net_prio", "net_prio.ifpriomap", value));
    }
}

/// A new cpuset has no processors and no memory, and nobody can live there: gives it its parent's, unless the spec has a
/// list of its own (`(file, the spec has one)`). Parents of ours may be as new.
pub(super) fn inherit_cpuset(
    mount_point: &Path,
    path: &Path,
    files: &[(&str, bool)],
) -> Result<()> {
    let open =
        |path: &Path| Dir::open(path).context(|| format!("cannot open cgroup {}", path.display()));
    let dir = open(&mount_point.join(path))?;
    for (file, _) in files.iter().filter(|(_, own)| !own) {
        // `cgroup.clone_children` of the parent may have done it.
        if !dir.read(file)?.trim().is_empty() {
            continue;
        }
        let parent = path.parent().expect("a place is below its mount point");
        let parent_dir = open(&mount_point.join(parent))?;
        let mut list = parent_dir.read(file)?;
        if list.trim().is_empty() && !parent.as_os_str().is_empty() {
            inherit_cpuset(mount_point, parent, &[(file, false)])?;
            // As new as ours, so that whoever comes next gets his lists when he is made: to write one, the kernel looks at
            // all his siblings and at the scheduler's domains.
            parent_dir.write("cgroup.clone_children", "1")?;
            list = parent_dir.read(file)?;
        }
        dir.write(file, list.trim())?;
    }
    // A list of our own must be within the parents'.
    let parent = path.parent().expect("a place is below its mount point");
    let own: Vec<_> =
        files.iter().filter(|(_, own)| *own).map(|(file, _)| (*file, false)).collect();
    match own.is_empty() || parent.as_os_str().is_empty() {
        true => Ok(()),
        false => inherit_cpuset(mount_point, parent, &own),
    }
}

/// Freezing is a request: FREEZING until the last task stands. A task that is being born or moved may slip through and make
/// the kernel wait for ever, unless it is let go and asked again (runc found out how often).
pub(super) fn freeze(dir: &Dir, deadline: Instant) -> Result<()> {
    let mut round = 0u32;
    loop {
        if round % 50 == 49 {
            dir.write("freezer.state", "THAWED")?;
        }
        dir.write("freezer.state", "FROZEN")?;
        if dir.read("freezer.state")?.trim() == "FROZEN" {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::new(Kind::Unavailable, "unable to freeze"));
        }
        // There is no event to wait for.
        let pause = Duration::from_micros(if round < 20 { 50 } else { 2000 });
        pause_for(pause)?;
        round += 1;
    }
}

pub(super) fn pause_for(pause: Duration) -> Result<()> {
    let timeout = rustix::event::Timespec {
        tv_sec: i64::try_from(pause.as_secs()).expect("a pause is short"),
        tv_nsec: pause.subsec_nanos().into(),
    };
    match rustix::event::poll(&mut [], Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use oci::runtime::{
        HugepageLimit, InterfacePriority, Pids, Rdma, ThrottleDevice, WeightDevice,
    };

    use super::*;

    fn check(resources: &Resources, expected: &[&str]) {
        let found = settings(resources).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|one| format!("{} {} = {}", one.controller, one.file, one.value))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn nothing_asked_nothing_written() {
        check(&Resources::default(), &[]);
        let zeros = Resources {
            cpu: Some(Cpu { shares: Some(0), quota: Some(0), period: Some(0), ..Cpu::default() }),
            memory: Some(Memory { limit: Some(0), swap: Some(0), ..Memory::default() }),
            pids: Some(Pids { limit: Some(0) }),
            ..Resources::default()
        };
        check(&zeros, &[]);
    }

    #[test]
    fn cpu_files() {
        let cpu = Cpu {
            shares: Some(512),
            quota: Some(50_000),
            period: Some(100_000),
            burst: Some(1000),
            realtime_runtime: Some(95),
            realtime_period: Some(100),
            cpus: "0-1".to_owned(),
            mems: "0".to_owned(),
            idle: Some(1),
        };
        check(
            &Resources { cpu: Some(cpu), ..Resources::default() },
            &[
                "cpu cpu.rt_period_us = 100",
                "cpu cpu.rt_runtime_us = 95",
                "cpu cpu.shares = 512",
                "cpu cpu.cfs_period_us = 100000",
                "cpu cpu.cfs_quota_us = 50000",
                "cpu cpu.cfs_burst_us = 1000",
                "cpu cpu.idle = 1",
                "cpuset cpuset.cpus = 0-1",
                "cpuset cpuset.mems = 0",
            ],
        );
    }

    #[test]
    fn memory_files() {
        let memory = |memory| Resources { memory: Some(memory), ..Resources::default() };
        let all = Memory {
            limit: Some(20),
            reservation: Some(10),
            swap: Some(40),
            kernel: Some(5),
            kernel_tcp: Some(6),
            swappiness: Some(60),
            disable_oom_killer: Some(true),
            ..Memory::default()
        };
        check(
            &memory(all),
            &[
                "memory memory.limit_in_bytes = 20",
                "memory memory.soft_limit_in_bytes = 10",
                "memory memory.kmem.tcp.limit_in_bytes = 6",
                "memory memory.oom_control = 1",
                "memory memory.swappiness = 60",
                "memory memory.memsw.limit_in_bytes = 40",
            ],
        );
        check(
            &memory(Memory { limit: Some(-1), ..Memory::default() }),
            &["memory memory.limit_in_bytes = -1", "memory memory.memsw.limit_in_bytes = -1"],
        );
        let less = memory(Memory { limit: Some(20), swap: Some(10), ..Memory::default() });
        assert_eq!(
            settings(&less).unwrap_err().to_string(),
            "memory+swap limit should be >= memory limit"
        );
    }

    #[test]
    fn the_other_controllers() {
        let throttle = |rate| vec![ThrottleDevice { major: 8, minor: 0, rate }];
        let block_io = BlockIo {
            weight: Some(100),
            weight_device: vec![WeightDevice {
                major: 8,
                minor: 16,
                weight: Some(50),
                leaf_weight: None,
            }],
            throttle_read_bps_device: throttle(1),
            throttle_write_bps_device: throttle(2),
            throttle_read_iops_device: throttle(3),
            throttle_write_iops_device: throttle(4),
            ..BlockIo::default()
        };
        let priorities = vec![InterfacePriority { name: "eth0".to_owned(), priority: 5 }];
        let resources = Resources {
            pids: Some(Pids { limit: Some(-1) }),
            block_io: Some(block_io),
            hugepage_limits: vec![HugepageLimit { page_size: "2MB".to_owned(), limit: 4 }],
            network: Some(Network { class_id: Some(7), priorities }),
            rdma: [("mlx5".to_owned(), Rdma { hca_handles: Some(3), hca_objects: None })].into(),
            ..Resources::default()
        };
        check(
            &resources,
            &[
                "pids pids.max = max",
                "blkio blkio.weight = 100",
                "blkio blkio.weight_device = 8:16 50",
                "blkio blkio.throttle.read_bps_device = 8:0 1",
                "blkio blkio.throttle.write_bps_device = 8:0 2",
                "blkio blkio.throttle.read_iops_device = 8:0 3",
                "blkio blkio.throttle.write_iops_device = 8:0 4",
                "hugetlb hugetlb.2MB.limit_in_bytes = 4",
                "net_cls net_cls.classid = 7",
                "net_prio net_prio.ifpriomap = eth0 5",
                "rdma rdma.max = mlx5 hca_handle=3",
            ],
        );
    }

    #[test]
    fn the_words_of_version_2_are_refused() {
        let resources = Resources {
            unified: [("memory.high".to_owned(), "1".to_owned())].into(),
            ..Resources::default()
        };
        assert_eq!(
            settings(&resources).unwrap_err().to_string(),
            "invalid configuration: cannot use unified on cgroup v1"
        );
    }
}
