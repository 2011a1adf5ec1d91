//! Shares of time, I/O and memory nodes; the execution domain. Words understood in the parent, applied in the child.

use std::ops::RangeInclusive;

use oci::runtime::{Linux, Process};
use rustix::thread::CpuSet;
use stdx::{Context, Error, Result};

#[derive(Debug, Default)]
pub(crate) struct Scheduling {
    scheduler: Option<sys::sched::Attr>,
    io: Option<(u16, u16)>,
    memory: Option<(i32, Vec<u64>)>,
    domain: Option<u32>,
    /// Where a joining process may run: until it is in the container's groups, and from then on.
    affinity: [Option<CpuSet>; 2],
}

impl Scheduling {
    pub(super) fn of(process: &Process, linux: &Linux) -> Result<Self> {
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
        if let Some(affinity) = &process.exec_cpu_affinity {
            scheduling.affinity = [cpus(&affinity.initial)?, cpus(&affinity.last)?];
        }
        if let Some(personality) = &linux.personality {
            if let Some(flag) = personality.flags.first() {
                return Err(Error::invalid(format!("personality flag {flag:?} is not supported")));
            }
            let domain =
                position("personality domain", &personality.domain, &["LINUX", "LINUX32"])?;
            scheduling.domain = Some(PERSONALITIES[domain]);
        }
        if let Some(memory) = &linux.memory_policy {
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
        if let Some(domain) = self.domain {
            sys::process::set_personality(domain)
                .context(|| "error setting the personality".to_owned())?;
        }
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

impl Scheduling {
    /// Of a joining process, before it is in the container's groups.
    pub(crate) fn place_first(&self) -> Result<()> {
        place(self.affinity[0].as_ref())
    }

    /// And once it is.
    pub(crate) fn place_at_last(&self) -> Result<()> {
        place(self.affinity[1].as_ref())
    }
}

fn place(set: Option<&CpuSet>) -> Result<()> {
    match set {
        Some(set) => rustix::thread::sched_setaffinity(None, set)
            .context(|| "error setting the CPU affinity".to_owned()),
        None => Ok(()),
    }
}

/// By position: `PER_LINUX` and `PER_LINUX32` of `linux/personality.h`.
const PERSONALITIES: [u32; 2] = [0, 8];

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

/// `0-3,7` as a set; none for nothing said.
fn cpus(list: &str) -> Result<Option<CpuSet>> {
    if list.is_empty() {
        return Ok(None);
    }
    let mut set = CpuSet::new();
    for cpu in ranges("CPU affinity", list, CpuSet::MAX_CPU - 1)?.into_iter().flatten() {
        set.set(cpu);
    }
    Ok(Some(set))
}

/// `0-3,7` as a mask.
fn nodes(list: &str) -> Result<Vec<u64>> {
    /// The kernel's own limit is 1024 (CONFIG_NODES_SHIFT).
    const LAST: usize = 1023;
    let mut mask = Vec::new();
    for range in ranges("memory nodes", list, LAST)? {
        mask.resize(mask.len().max(range.end() / 64 + 1), 0);
        for node in range {
            mask[node / 64] |= 1 << (node % 64);
        }
    }
    Ok(mask)
}

/// The kernel's way to write a set of numbers.
fn ranges(what: &str, list: &str, highest: usize) -> Result<Vec<RangeInclusive<usize>>> {
    let bad = || Error::invalid(format!("invalid {what}: {list:?}"));
    let mut ranges = Vec::new();
    for range in list.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| bad());
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last > highest {
            return Err(bad());
        }
        ranges.push(first..=last);
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors() {
        assert!(cpus("").unwrap().is_none());
        let set = cpus("0,2-3").unwrap().unwrap();
        assert_eq!(
            (0..5).map(|cpu| set.is_set(cpu)).collect::<Vec<_>>(),
            [true, false, true, true, false]
        );
        assert_eq!(cpus("a").unwrap_err().to_string(), "invalid CPU affinity: \"a\"");
    }

    #[test]
    fn a_personality_has_a_name_and_no_flags() {
        let refusal = |domain: &str, flags: &[&str]| {
            let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
            let personality = oci::runtime::Personality { domain: domain.to_owned(), flags };
            let linux = Linux { personality: Some(personality), ..Linux::default() };
            Scheduling::of(&Process::default(), &linux)
                .map(|found| found.domain)
                .map_err(|err| err.to_string())
        };
        assert_eq!(refusal("LINUX32", &[]), Ok(Some(8)));
        assert_eq!(refusal("BSD", &[]).unwrap_err(), "invalid personality domain: \"BSD\"");
        assert_eq!(
            refusal("LINUX", &["X"]).unwrap_err(),
            "personality flag \"X\" is not supported"
        );
    }

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
