//! Which limits this host can keep: what `docker info` says, and what the engine drops with a warning before it asks.

use std::path::Path;

use stdx::Result;

use super::dir::Dir;
use super::host::{Host, host};
use super::{Driver, Location, Mode};
use crate::userns::in_initial_user_namespace;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Support {
    pub mode: Mode,
    pub memory_limit: bool,
    pub swap_limit: bool,
    pub memory_reservation: bool,
    pub oom_kill_disable: bool,
    pub memory_swappiness: bool,
    pub kernel_memory_tcp: bool,
    pub cpu_shares: bool,
    /// Quota and period.
    pub cpu_cfs: bool,
    pub cpu_realtime: bool,
    pub cpuset: bool,
    /// The processors and memory nodes that containers can be given.
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub block_io_weight: bool,
    pub block_io_weight_device: bool,
    pub block_io_throttle: bool,
    pub pids_limit: bool,
    pub devices: bool,
    pub freezer: bool,
}

impl Support {
    /// Looks at the files there are.
    pub fn detect() -> Result<Self> {
        let host = host()?;
        Ok(match (host.mode(), &host.unified) {
            (Mode::V2, Some(unified)) => Self::of_v2(&unified.mount_point),
            _ => Self::of_v1(host),
        })
    }

    /// What can be kept of containers below `parent`, by an engine that may have been given a part of the groups only, or
    /// none.
    pub fn below(driver: Driver, parent: &str) -> Result<Self> {
        if in_initial_user_namespace() {
            return Self::detect();
        }
        let any = match driver {
            Driver::Cgroupfs => parent.to_owned(),
            Driver::Systemd => format!("{parent}::any"),
        };
        let location = Location::granted(driver, &any, "")?;
        Ok(match (location.mode(), location.unified()) {
            (Mode::V2, Some(place)) => {
                let path = place.full_path();
                let made = path.ancestors().find(|path| path.exists()).unwrap_or(&path);
                Self::of_v2(made)
            }
            _ if location.is_nowhere() => Self { mode: host()?.mode(), ..Self::default() },
            _ => Self::of_v1(host()?),
        })
    }

    /// Nothing at all: there are no groups for us.
    pub fn is_none(&self) -> bool {
        *self == Self { mode: self.mode, ..Self::default() }
    }

    fn of_v1(host: &Host) -> Self {
        let dir = |controller: &str| {
            let found = host
                .v1
                .iter()
                .find(|found| found.controllers.iter().any(|name| name == controller))?;
            Dir::open(&found.mount_point).ok()
        };
        let has = |controller: &str, file: &str| dir(controller).is_some_and(|dir| dir.has(file));
        let read = |file| {
            dir("cpuset")
                .and_then(|dir| dir.try_read(file).ok())
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        // BFQ's weights are not for the root, so its statistics tell whether it is there.
        let bfq = || has("blkio", "blkio.bfq.io_serviced") && schedules_any_device();
        Self {
            mode: host.mode(),
            memory_limit: has("memory", "memory.limit_in_bytes"),
            swap_limit: has("memory", "memory.memsw.limit_in_bytes"),
            memory_reservation: has("memory", "memory.soft_limit_in_bytes"),
            oom_kill_disable: has("memory", "memory.oom_control"),
            memory_swappiness: has("memory", "memory.swappiness"),
            kernel_memory_tcp: has("memory", "memory.kmem.tcp.limit_in_bytes"),
            cpu_shares: has("cpu", "cpu.shares"),
            cpu_cfs: has("cpu", "cpu.cfs_quota_us"),
            cpu_realtime: has("cpu", "cpu.rt_period_us"),
            cpuset: dir("cpuset").is_some(),
            cpuset_cpus: read("cpuset.cpus"),
            cpuset_mems: read("cpuset.mems"),
            block_io_weight: has("blkio", "blkio.weight") || bfq(),
            block_io_weight_device: has("blkio", "blkio.weight_device") || bfq(),
            block_io_throttle: has("blkio", "blkio.throttle.read_bps_device"),
            pids_limit: dir("pids").is_some(),
            devices: dir("devices").is_some(),
            freezer: dir("freezer").is_some(),
        }
    }

    /// `path` is the directory whose controllers can be given on.
    fn of_v2(path: &Path) -> Self {
        let root = Dir::open(path).ok();
        let read = |file| {
            root.as_ref()
                .and_then(|dir| dir.try_read(file).ok())
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let controllers = read("cgroup.controllers");
        let on = |name| controllers.split_whitespace().any(|controller| controller == name);
        // The root has no limits and so no such files. A child has them, once it is given the controller; while none is,
        // it is to be hoped.
        let children: Vec<Dir> = root
            .iter()
            .flat_map(|root| {
                let names = root.children().unwrap_or_default();
                names.into_iter().filter_map(|name| root.child(&name).ok())
            })
            .collect();
        let child_has = |always: &str, files: &[&str]| {
            let mut given = children.iter().filter(|child| child.has(always)).peekable();
            given.peek().is_none() || given.any(|child| files.iter().any(|file| child.has(file)))
        };
        let weight = on("io") && child_has("io.max", &["io.bfq.weight", "io.weight"]);
        Self {
            mode: Mode::V2,
            memory_limit: on("memory"),
            swap_limit: on("memory") && child_has("memory.max", &["memory.swap.max"]),
            memory_reservation: on("memory"),
            oom_kill_disable: false,
            memory_swappiness: false,
            kernel_memory_tcp: false,
            cpu_shares: on("cpu"),
            cpu_cfs: on("cpu"),
            cpu_realtime: false,
            cpuset: on("cpuset"),
            cpuset_cpus: read("cpuset.cpus.effective"),
            cpuset_mems: read("cpuset.mems.effective"),
            block_io_weight: weight,
            block_io_weight_device: weight,
            block_io_throttle: on("io"),
            pids_limit: on("pids"),
            devices: true,
            freezer: true,
        }
    }
}

/// Whether BFQ is what serves some device: the others take no weights.
fn schedules_any_device() -> bool {
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut schedulers = devices
        .filter_map(|device| std::fs::read_to_string(device.path().join("queue/scheduler")).ok());
    schedulers.any(|text| text.contains("[bfq]"))
}

/// The sizes of huge pages this kernel has, as cgroup files name them: `2MB`, `1GB`.
pub(super) fn huge_page_sizes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(Path::new("/sys/kernel/mm/hugepages")) else {
        return Vec::new();
    };
    entries.filter_map(|entry| huge_page_size(&entry.ok()?.file_name().to_string_lossy())).collect()
}

/// `hugepages-2048kB` → `2MB`.
fn huge_page_size(name: &str) -> Option<String> {
    let kilobytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kilobytes {
        kilobytes if kilobytes.is_multiple_of(1 << 20) => format!("{}GB", kilobytes >> 20),
        kilobytes if kilobytes.is_multiple_of(1 << 10) => format!("{}MB", kilobytes >> 10),
        kilobytes => format!("{kilobytes}KB"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_as_files_name_them() {
        let size = |name| huge_page_size(name).unwrap_or_default();
        assert_eq!(
            ["hugepages-2048kB", "hugepages-1048576kB", "hugepages-64kB", "x"].map(size),
            ["2MB", "1GB", "64KB", ""]
        );
    }
}
