//! `events`: measurements and out-of-memory kills, as lines of JSON.

use std::time::{Duration, Instant};

use oci::runtime::Status;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::{Value, json};
use stdx::{Context, Error, Result};

use super::flags::{Flag, Flags};
use super::record::Container;
use super::{Global, id, say};
use crate::cgroup::{IoEntry, Stats};

pub(super) const FLAGS: &[Flag] = &[Flag::value("interval"), Flag::switch("stats")];

pub(super) fn run(global: &Global, flags: &Flags) -> Result<u8> {
    let container = Container::open(global, id(flags)?)?;
    let interval = match flags.get("interval") {
        None => Duration::from_secs(5),
        Some(text) => stdx::duration::parse(text)
            .ok()
            .filter(|interval| !interval.is_zero())
            .ok_or_else(|| Error::invalid("duration interval must be greater than 0"))?,
    };
    let Some(process) = container.process()? else {
        return Err(Error::conflict("container with id is not running"));
    };
    let cgroup = container.cgroup()?;
    let measure = || tell(&container, "stats", Some(document(&cgroup.stats()?)));
    if flags.has("stats") {
        measure()?;
        return Ok(0);
    }
    let oom = cgroup.oom_watch()?;
    let mut kills = cgroup.oom_kills()?.unwrap_or(0);
    let mut next = Instant::now();
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds = [
            PollFd::new(&process, PollFlags::IN),
            PollFd::new(&oom, PollFlags::IN | PollFlags::PRI),
        ];
        match poll(&mut fds, Some(&timeout)) {
            Err(Errno::INTR) => continue,
            other => other.context(|| "cannot wait".to_owned())?,
        };
        let (ended, heard) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if ended || container.status()? == Status::Stopped {
            oom.forget();
            return Ok(0);
        }
        if heard {
            oom.forget();
            let now = cgroup.oom_kills()?.unwrap_or(kills);
            if now > kills {
                kills = now;
                tell(&container, "oom", None)?;
            }
        }
        if Instant::now() >= next {
            measure()?;
            next = Instant::now() + interval;
        }
    }
}

fn tell(container: &Container, kind: &str, data: Option<Value>) -> Result<()> {
    let mut event = json!({"type": kind, "id": container.record.id});
    if let Some(data) = data {
        event["data"] = data;
    }
    say(&format!("{event}\n"))
}

/// In runc's shape.
fn document(stats: &Stats) -> Value {
    let entries = |entries: &[IoEntry]| -> Vec<Value> {
        entries
            .iter()
            .map(|one| json!({"major": one.major, "minor": one.minor, "op": one.operation, "value": one.value}))
            .collect()
    };
    let cpu = &stats.cpu;
    let memory = &stats.memory;
    let huge: serde_json::Map<String, Value> = stats
        .huge_pages
        .iter()
        .map(|(size, one)| {
            (
                size.clone(),
                json!({"usage": one.usage, "max": one.max_usage, "failcnt": one.fail_count}),
            )
        })
        .collect();
    json!({
        "cpu": {
            "usage": {"total": cpu.usage, "percpu": cpu.per_cpu, "kernel": cpu.system, "user": cpu.user},
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_time,
            },
        },
        "memory": {
            "cache": memory.stat.get("cache").or_else(|| memory.stat.get("file")).copied().unwrap_or(0),
            "usage": {
                "limit": memory.limit,
                "usage": memory.usage,
                "max": memory.max_usage,
                "failcnt": memory.fail_count,
            },
            "swap": {"limit": memory.swap_limit, "usage": memory.swap_usage, "failcnt": 0},
            "kernel": {"failcnt": 0},
            "kernelTCP": {"failcnt": 0},
            "raw": memory.stat,
        },
        "pids": {"current": stats.pids.current, "limit": stats.pids.limit},
        "blkio": {
            "ioServiceBytesRecursive": entries(&stats.block_io.bytes),
            "ioServicedRecursive": entries(&stats.block_io.operations),
        },
        "hugetlb": huge,
        "intel_rdt": {},
        "network_interfaces": null,
    })
}
