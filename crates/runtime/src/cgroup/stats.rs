//! What a container has used, read from either version's files into the same words.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stdx::{Context, Result};

use super::dir::{Dir, is_gone};

/// Times are nanoseconds, sizes bytes. What the host does not count is zero or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    pub cpu: Cpu,
    pub memory: Memory,
    pub pids: Pids,
    pub block_io: BlockIo,
    /// By page size: `2MB`.
    pub huge_pages: BTreeMap<String, HugePages>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    pub usage: u64,
    pub user: u64,
    pub system: u64,
    /// Only v1 tells.
    pub per_cpu: Vec<u64>,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_time: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    pub usage: u64,
    /// v1, and v2 since 5.19.
    pub max_usage: u64,
    /// Near `u64::MAX` when there is none.
    pub limit: u64,
    pub fail_count: u64,
    pub swap_usage: u64,
    pub swap_limit: u64,
    /// `memory.stat` as it is.
    pub stat: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pids {
    pub current: u64,
    /// Zero when there is none.
    pub limit: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockIo {
    pub bytes: Vec<IoEntry>,
    pub operations: Vec<IoEntry>,
}

/// One count of one device: `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IoEntry {
    pub major: u64,
    pub minor: u64,
    pub operation: String,
    pub value: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HugePages {
    pub usage: u64,
    pub max_usage: u64,
    pub fail_count: u64,
}

pub(super) fn read_v1(controller: &str, dir: &Dir, stats: &mut Stats) -> Result<()> {
    match controller {
        "cpu" => {
            let stat = pairs(&text(dir, "cpu.stat")?);
            let get = |key| stat.get(key).copied().unwrap_or(0);
            stats.cpu.periods = get("nr_periods");
            stats.cpu.throttled_periods = get("nr_throttled");
            stats.cpu.throttled_time = get("throttled_time");
        }
        "cpuacct" => {
            let stat = pairs(&text(dir, "cpuacct.stat")?);
            let get = |key| stat.get(key).copied().unwrap_or(0) * TICK;
            stats.cpu.user = get("user");
            stats.cpu.system = get("system");
            stats.cpu.usage = number(dir, "cpuacct.usage")?;
            let per_cpu = text(dir, "cpuacct.usage_percpu")?;
            stats.cpu.per_cpu =
                per_cpu.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        }
        "memory" => {
            stats.memory = Memory {
                usage: number(dir, "memory.usage_in_bytes")?,
                max_usage: number(dir, "memory.max_usage_in_bytes")?,
                limit: number(dir, "memory.limit_in_bytes")?,
                fail_count: number(dir, "memory.failcnt")?,
                swap_usage: number(dir, "memory.memsw.usage_in_bytes")?,
                swap_limit: number(dir, "memory.memsw.limit_in_bytes")?,
                stat: pairs(&text(dir, "memory.stat")?),
            };
        }
        "pids" => stats.pids = pids(dir)?,
        "blkio" => {
            // What counts depends on the scheduler of the disk: BFQ, the old CFQ, or none and the throttling layer.
            for kind in ["bfq.", "", "throttle."] {
                stats.block_io = BlockIo {
                    bytes: entries(&text(dir, &format!("blkio.{kind}io_service_bytes_recursive"))?),
                    operations: entries(&text(dir, &format!("blkio.{kind}io_serviced_recursive"))?),
                };
                if !stats.block_io.operations.is_empty() {
                    break;
                }
            }
        }
        "hugetlb" => {
            stats.huge_pages = huge_pages(dir, "usage_in_bytes", "max_usage_in_bytes", "failcnt")?
        }
        _ => {}
    }
    Ok(())
}

pub(super) fn read_v2(dir: &Dir, stats: &mut Stats) -> Result<()> {
    let cpu = pairs(&text(dir, "cpu.stat")?);
    let get = |key| cpu.get(key).copied().unwrap_or(0);
    stats.cpu = Cpu {
        usage: get("usage_usec") * 1000,
        user: get("user_usec") * 1000,
        system: get("system_usec") * 1000,
        per_cpu: Vec::new(),
        periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled_time: get("throttled_usec") * 1000,
    };
    stats.memory = Memory {
        usage: number(dir, "memory.current")?,
        max_usage: number(dir, "memory.peak")?,
        limit: number(dir, "memory.max")?,
        // As Docker has it: not each time that something was reclaimed, but each time that nothing could be.
        fail_count: pairs(&text(dir, "memory.events")?).get("oom").copied().unwrap_or(0),
        swap_usage: number(dir, "memory.swap.current")?,
        swap_limit: number(dir, "memory.swap.max")?,
        stat: pairs(&text(dir, "memory.stat")?),
    };
    stats.pids = pids(dir)?;
    stats.block_io = io(&text(dir, "io.stat")?);
    stats.huge_pages = huge_pages(dir, "current", "peak", "events")?;
    Ok(())
}

/// USER_HZ, which is 100 wherever Linux runs.
const TICK: u64 = 10_000_000;

fn pids(dir: &Dir) -> Result<Pids> {
    let limit = text(dir, "pids.max")?;
    Ok(Pids { current: number(dir, "pids.current")?, limit: limit.trim().parse().unwrap_or(0) })
}

fn huge_pages(
    dir: &Dir,
    usage: &str,
    max_usage: &str,
    fails: &str,
) -> Result<BTreeMap<String, HugePages>> {
    let mut found = BTreeMap::new();
    // Named after the sizes the kernel has; `hugepages-2048kB` is `2MB` here.
    for size in super::support::huge_page_sizes() {
        let at = |name: &str| format!("hugetlb.{size}.{name}");
        if dir.has(&at(usage)) {
            let fails = text(dir, &at(fails))?;
            let fails =
                fails.trim().rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
            let pages = HugePages {
                usage: number(dir, &at(usage))?,
                max_usage: number(dir, &at(max_usage))?,
                fail_count: fails,
            };
            found.insert(size, pages);
        }
    }
    Ok(found)
}

/// A file, or nothing where the host does not have it or the container has just gone.
fn text(dir: &Dir, file: &str) -> Result<String> {
    match dir.try_read(file) {
        Err(error) if is_gone(&error) => Ok(String::new()),
        // `memory.memsw.*` where swap is not accounted.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {
            Ok(String::new())
        }
        text => text.context(|| format!("open {}", dir.path().join(file).display())),
    }
}

/// A number; `max` is as high as they get, and what is not there is zero.
fn number(dir: &Dir, file: &str) -> Result<u64> {
    let text = text(dir, file)?;
    Ok(match text.trim() {
        "max" => u64::MAX,
        digits => digits.parse().unwrap_or(0),
    })
}

/// `key value` lines.
fn pairs(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// v1: `8:0 Read 4096`. The sum over all devices at the end is left out.
fn entries(text: &str) -> Vec<IoEntry> {
    let entry = |line: &str| {
        let mut words = line.split([' ', ':']);
        Some(IoEntry {
            major: words.next()?.parse().ok()?,
            minor: words.next()?.parse().ok()?,
            operation: words.next()?.to_owned(),
            value: words.next()?.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

/// v2: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
fn io(text: &str) -> BlockIo {
    let mut io = BlockIo::default();
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some((major, minor)) = words.next().and_then(|numbers| numbers.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, operation) = match key {
                "rbytes" => (&mut io.bytes, "Read"),
                "wbytes" => (&mut io.bytes, "Write"),
                "dbytes" => (&mut io.bytes, "Discard"),
                "rios" => (&mut io.operations, "Read"),
                "wios" => (&mut io.operations, "Write"),
                "dios" => (&mut io.operations, "Discard"),
                _ => continue,
            };
            list.push(IoEntry {
                major,
                minor,
                operation: operation.to_owned(),
                value: value.parse().unwrap_or(0),
            });
        }
    }
    io
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(operation: &str, value: u64) -> IoEntry {
        IoEntry { major: 8, minor: 16, operation: operation.to_owned(), value }
    }

    #[test]
    fn v1_counts_by_operation() {
        assert_eq!(
            entries("8:16 Read 4096\n8:16 Write 0\n8:16 Total 4096\nTotal 4096\n"),
            [entry("Read", 4096), entry("Write", 0), entry("Total", 4096)]
        );
    }

    #[test]
    fn v2_counts_by_key() {
        let found =
            io("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0 cost.usage=7\n259:0 \n");
        assert_eq!(found.bytes, [entry("Read", 1), entry("Write", 2), entry("Discard", 0)]);
        assert_eq!(found.operations, [entry("Read", 3), entry("Write", 4), entry("Discard", 0)]);
    }

    #[test]
    fn pairs_skip_what_is_no_pair() {
        assert_eq!(pairs("a 1\nb\nc x\nd 4\n"), [("a".to_owned(), 1), ("d".to_owned(), 4)].into());
    }
}
