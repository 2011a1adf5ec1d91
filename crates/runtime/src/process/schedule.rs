//! Shares of time, I/O and memory nodes; the execution domain. Words understood in the parent, applied in the child.

use oci::runtime::{MemoryPolicy, Process};
use stdx::{Context, Error, Result};

#[derive(Debug, Default)]
pub(crate) struct Scheduling {
    scheduler: Option<sys::sched::Attr>,
    io: Option<(u16, u16)>,
    memory: Option<(i32, Vec<u64>)>,
}

impl Scheduling {
    pub(super) fn of(process: &Process, memory: Option<&MemoryPolicy>) -> Result<Self> {
        let mut scheduling = Self::default();
        if let Some(scheduler) = &process.scheduler {
            let mut flags = 0;
            for flag in &scheduler.flags {
                flags |= 1 << position("scheduler flag", flag, &SCHED_FLAGS)?;
            }
            scheduling.scheduler = Some(sys::sched::Attr {
                policy: POLICIES[position(
                    "scheduler policy",
                    &scheduler.policy,
                    &POLICIES.map(|(name, _)| name),
                )?]
                .1,
                flags,
                nice: scheduler.nice.unwrap_or(0),
                priority: u32::try_from(scheduler.priority.unwrap_or(0))
                    .map_err(|_| Error::invalid("the scheduler priority cannot be negative"))?,
                runtime: scheduler.runtime.unwrap_or(0),
                deadline: scheduler.deadline.unwrap_or(0),
                period: scheduler.period.unwrap_or(0),
                ..sys::sched::Attr::default()
            });
        }
        if let Some(io) = &process.io_priority {
            if io.priority > 7 {
                return Err(Error::invalid(format!(
                    "ioPriority.priority must be between 0-7, got {}",
                    io.priority
                )));
            }
            let class = position("ioPriority.class", &io.class, &IO_CLASSES)? as u16 + 1;
            scheduling.io = Some((class, io.priority));
        }
        if let Some(memory) = memory {
            let mut mode = position("memory policy", &memory.mode, &MEMORY_MODES)? as i32;
            for flag in &memory.flags {
                mode |= MEMORY_FLAGS
                    [position("memory policy flag", flag, &MEMORY_FLAGS.map(|(name, _)| name))?]
                .1;
            }
            scheduling.memory = Some((mode, nodes(&memory.nodes)?));
        }
        Ok(scheduling)
    }

    /// While still privileged.
    pub(crate) fn apply(&self) -> Result<()> {
        if let Some(attr) = &self.scheduler {
            sys::sched::set_attr(attr).context(|| "error setting scheduler".to_owned())?;
        }
        if let Some((class, level)) = self.io {
            sys::sched::set_io_priority(class, level)
                .context(|| "error setting I/O priority".to_owned())?;
        }
        if let Some((mode, nodes)) = &self.memory {
            sys::sched::set_memory_policy(*mode, nodes)
                .context(|| "error setting memory policy".to_owned())?;
        }
        Ok(())
    }
}

const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

/// By bit.
const SCHED_FLAGS: [&str; 7] = [
    "SCHED_FLAG_RESET_ON_FORK",
    "SCHED_FLAG_RECLAIM",
    "SCHED_FLAG_DL_OVERRUN",
    "SCHED_FLAG_KEEP_POLICY",
    "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_UTIL_CLAMP_MIN",
    "SCHED_FLAG_UTIL_CLAMP_MAX",
];

/// From 1 on.
const IO_CLASSES: [&str; 3] = ["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"];

/// By number.
const MEMORY_MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

const MEMORY_FLAGS: [(&str, i32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

fn position(what: &str, word: &str, words: &[&str]) -> Result<usize> {
    let found = words.iter().position(|known| *known == word);
    found.ok_or_else(|| Error::invalid(format!("invalid {what}: {word:?}")))
}

/// `0-3,7` as a mask.
fn nodes(list: &str) -> Result<Vec<u64>> {
    /// The kernel's own limit is 1024 (CONFIG_NODES_SHIFT).
    const LAST: usize = 1023;
    let bad = || Error::invalid(format!("invalid memory nodes: {list:?}"));
    let mut mask = Vec::new();
    for range in list.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| bad());
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last > LAST {
            return Err(bad());
        }
        mask.resize(mask.len().max(last / 64 + 1), 0);
        for node in first..=last {
            mask[node / 64] |= 1 << (node % 64);
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_lists() {
        assert!(nodes("").unwrap().is_empty());
        assert_eq!(nodes("0-3,7").unwrap(), [0b1000_1111]);
        assert_eq!(nodes("64").unwrap(), [0, 1]);
        for bad in ["x", "3-1", "1024", "0-99999999999"] {
            assert!(nodes(bad).is_err());
        }
    }
}
