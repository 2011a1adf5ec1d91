//! `docker stats`: one sample from the cgroup and the network devices.

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
            stats: memory.stat.clone(),
            failcnt: memory.fail_count,
            limit: memory.limit.min(host_memory()),
        },
        networks: devices(record),
        pids_stats: PidsStats { current: measured.pids.current, limit: measured.pids.limit },
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
                io_service_bytes_recursive: entries(&measured.block_io.bytes),
                ..BlkioStats::default()
            },
        },
        read: Timestamp::now(),
        ..named
    }
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
fn devices(record: &Record) -> std::collections::BTreeMap<String, NetworkStats> {
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
