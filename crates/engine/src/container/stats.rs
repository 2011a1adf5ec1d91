//! `docker stats`: one sample from the cgroup and the network devices.

use std::collections::BTreeMap;

use api::container::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats,
    ThrottlingData,
};
use runtime::cgroup::Mode;
use stdx::time::Timestamp;
use stdx::{Error, Kind, Result};

use super::Container;
use super::record::Record;

impl Container {
    /// What it uses now. A container that is not up uses nothing.
    pub async fn stats(&self) -> Result<Stats> {
        let record = self.record();
        if record.gone {
            return Err(Error::not_found(format!("No such container: {}", record.id)));
        }
        let named = Stats {
            id: record.id.to_string(),
            name: format!("/{}", record.name),
            os_type: "linux".to_owned(),
            ..Stats::default()
        };
        if !record.state.phase.is_up() {
            return Ok(named);
        }
        let measured = match self.with_shim(shim::Client::stats).await {
            Ok(measured) => measured,
            // It has just ended, and its record will say so in a moment.
            Err(error) if matches!(error.kind(), Kind::Conflict | Kind::NotFound) => {
                return Ok(named);
            }
            Err(error) => return Err(error),
        };
        let mode = Mode::detect()?;
        tokiox::blocking(move || Ok(sample(named, &measured, &record, mode))).await
    }
}

fn sample(named: Stats, measured: &runtime::cgroup::Stats, record: &Record, mode: Mode) -> Stats {
    let cpu = &measured.cpu;
    let memory = &measured.memory;
    let entries = |list: &[runtime::cgroup::IoEntry]| {
        let entry = |one: &runtime::cgroup::IoEntry| BlkioEntry {
            major: one.major,
            minor: one.minor,
            op: one.operation.clone(),
            value: one.value,
        };
        Some(list.iter().map(entry).collect::<Vec<_>>())
    };
    Stats {
        cpu_stats: CpuStats {
            cpu_usage: CpuUsage {
                total_usage: cpu.usage,
                percpu_usage: cpu.per_cpu.clone(),
                usage_in_kernelmode: cpu.system,
                usage_in_usermode: cpu.user,
            },
            system_cpu_usage: system_cpu(),
            online_cpus: u32::try_from(crate::system::cpus()).unwrap_or(1),
            throttling_data: ThrottlingData {
                periods: cpu.periods,
                throttled_periods: cpu.throttled_periods,
                throttled_time: cpu.throttled_time,
            },
        },
        memory_stats: MemoryStats {
            usage: memory.usage,
            // Docker has none where control groups are one tree.
            max_usage: if mode == Mode::V2 { 0 } else { memory.max_usage },
            stats: if mode == Mode::V2 { known(&memory.stat) } else { memory.stat.clone() },
            failcnt: memory.fail_count,
            limit: memory.limit.min(host_memory()),
        },
        networks: devices(record),
        pids_stats: PidsStats {
            current: measured.pids.current,
            limit: match (mode, measured.pids.limit) {
                // Docker says of one tree of control groups what its file says, which is `max`.
                (Mode::V2, 0) => u64::MAX,
                (_, limit) => limit,
            },
        },
        blkio_stats: match mode {
            // Counted by CFQ, until it left with Linux 5.0: there are lists, and nothing is in them.
            Mode::V1 | Mode::Hybrid => BlkioStats {
                io_service_bytes_recursive: entries(&measured.block_io.bytes),
                io_serviced_recursive: entries(&measured.block_io.operations),
                io_queue_recursive: entries(&[]),
                io_service_time_recursive: entries(&[]),
                io_wait_time_recursive: entries(&[]),
                io_merged_recursive: entries(&[]),
                io_time_recursive: entries(&[]),
                sectors_recursive: entries(&[]),
            },
            Mode::V2 => BlkioStats {
                io_service_bytes_recursive: read_and_written(&measured.block_io.bytes),
                ..BlkioStats::default()
            },
        },
        read: Timestamp::now(),
        ..named
    }
}

/// What Docker tells of the memory of one tree of control groups: these, whatever else a kernel counts.
const MEMORY: [&str; 31] = [
    "active_anon",
    "active_file",
    "anon",
    "anon_thp",
    "file",
    "file_dirty",
    "file_mapped",
    "file_writeback",
    "inactive_anon",
    "inactive_file",
    "kernel_stack",
    "pgactivate",
    "pgdeactivate",
    "pgfault",
    "pglazyfree",
    "pglazyfreed",
    "pgmajfault",
    "pgrefill",
    "pgscan",
    "pgsteal",
    "shmem",
    "slab",
    "slab_reclaimable",
    "slab_unreclaimable",
    "sock",
    "thp_collapse_alloc",
    "thp_fault_alloc",
    "unevictable",
    "workingset_activate",
    "workingset_nodereclaim",
    "workingset_refault",
];

fn known(stat: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let count = |name: &str| (name.to_owned(), stat.get(name).copied().unwrap_or(0));
    MEMORY.into_iter().map(count).collect()
}

/// Of one tree of control groups Docker tells two numbers of each device, in small letters; and nothing at all where
/// nothing was read or written.
fn read_and_written(entries: &[runtime::cgroup::IoEntry]) -> Option<Vec<BlkioEntry>> {
    let entry = |one: &runtime::cgroup::IoEntry| {
        let op = match one.operation.as_str() {
            "Read" => "read",
            "Write" => "write",
            _ => return None,
        };
        Some(BlkioEntry { major: one.major, minor: one.minor, op: op.to_owned(), value: one.value })
    };
    let told: Vec<BlkioEntry> = entries.iter().filter_map(entry).collect();
    (!told.is_empty()).then_some(told)
}

/// Nanoseconds that all processors have spent on anything, idleness included.
fn system_cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    // user nice system idle iowait irq softirq: seven numbers of hundredths of a second, as Docker adds them.
    first
        .split_whitespace()
        .skip(1)
        .take(7)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum::<u64>()
        * 10_000_000
}

fn host_memory() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64) * u64::from(info.mem_unit)
}

/// The container's own devices, read where its first process sees them.
fn devices(record: &Record) -> BTreeMap<String, NetworkStats> {
    if record.host().network_mode == "host" {
        return Default::default();
    }
    let text =
        std::fs::read_to_string(format!("/proc/{}/net/dev", record.state.pid)).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (name, numbers) = line.split_once(':')?;
            let numbers: Vec<u64> =
                numbers.split_whitespace().filter_map(|field| field.parse().ok()).collect();
            let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
            let stats = NetworkStats {
                rx_bytes: at(0),
                rx_packets: at(1),
                rx_errors: at(2),
                rx_dropped: at(3),
                tx_bytes: at(8),
                tx_packets: at(9),
                tx_errors: at(10),
                tx_dropped: at(11),
            };
            (name.trim() != "lo").then(|| (name.trim().to_owned(), stats))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_tree() {
        let entry = |operation: &str, value| runtime::cgroup::IoEntry {
            major: 8,
            minor: 0,
            operation: operation.to_owned(),
            value,
        };
        let told = read_and_written(&[entry("Read", 1), entry("Write", 2), entry("Discard", 3)]);
        let told: Vec<(String, u64)> =
            told.unwrap().into_iter().map(|entry| (entry.op, entry.value)).collect();
        assert_eq!(told, [("read".to_owned(), 1), ("write".to_owned(), 2)]);
        assert_eq!(read_and_written(&[]), None);

        let stat = [("anon", 7), ("percpu", 8)].map(|(name, value)| (name.to_owned(), value));
        let known = known(&stat.into());
        assert_eq!((known["anon"], known["sock"], known.len()), (7, 0, 31));
    }
}
