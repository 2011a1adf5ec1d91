//! Limits in systemd's words: what it would write into a scope's files when it reads its units again, so that it writes
//! what stands there already. What has no word of its is in the files alone. Pure.

use dbus::Value;
use oci::runtime::{Cpu, Memory, Resources};
use stdx::{Error, Result};

use super::super::{Mode, v2};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Given {
    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Self::Number(number) => Value::Number(*number),
            Self::Bytes(bytes) => Value::Bytes(bytes),
        }
    }
}

type Properties = Vec<(&'static str, Given)>;

const UNLIMITED: u64 = u64::MAX;

pub(super) fn properties(resources: &Resources, mode: Mode) -> Result<Properties> {
    let mut found = Properties::new();
    if let Some(cpu) = &resources.cpu {
        self::cpu(cpu, mode, &mut found)?;
    }
    if let Some(memory) = &resources.memory {
        self::memory(memory, mode, &mut found)?;
    }
    if let Some(limit) = resources.pids.and_then(|pids| pids.limit).filter(|limit| *limit != 0) {
        found.push(("TasksMax", number(limit)));
    }
    Ok(found)
}

fn cpu(cpu: &Cpu, mode: Mode, found: &mut Properties) -> Result<()> {
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0 && cpu.idle != Some(1)) {
        found.push(match mode {
            Mode::V2 => ("CPUWeight", Given::Number(v2::weight_of_shares(shares))),
            Mode::V1 | Mode::Hybrid => ("CPUShares", Given::Number(shares.clamp(2, 262_144))),
        });
    }
    let period = cpu.period.filter(|period| *period != 0);
    if let Some(period) = period {
        found.push(("CPUQuotaPeriodUSec", Given::Number(period)));
    }
    if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
        let quota = u64::try_from(quota)
            .map_or(UNLIMITED, |quota| per_second(quota, period.unwrap_or(100_000)));
        found.push(("CPUQuotaPerSecUSec", Given::Number(quota)));
    }
    if mode == Mode::V2 {
        for (name, list) in [("AllowedCPUs", &cpu.cpus), ("AllowedMemoryNodes", &cpu.mems)] {
            if !list.is_empty() {
                found.push((name, Given::Bytes(mask(list)?)));
            }
        }
    }
    Ok(())
}

/// In the hundredths that systemd remembers, and rather too much than too little.
fn per_second(quota: u64, period: u64) -> u64 {
    let exact = u128::from(quota) * 1_000_000 / u128::from(period);
    u64::try_from(exact.next_multiple_of(10_000)).unwrap_or(UNLIMITED)
}

/// `0,2-3` as bits, the lowest first.
fn mask(list: &str) -> Result<Vec<u8>> {
    let wrong = || Error::invalid(format!("invalid list of numbers: {list:?}"));
    // More than any kernel has.
    let number = |text: &str| {
        text.trim().parse::<usize>().ok().filter(|number| *number < 8192).ok_or_else(wrong)
    };
    let mut mask = Vec::new();
    for part in list.split(',').filter(|part| !part.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        for bit in number(first)?..=number(last)? {
            if mask.len() <= bit / 8 {
                mask.resize(bit / 8 + 1, 0);
            }
            mask[bit / 8] |= 1 << (bit % 8);
        }
    }
    Ok(mask)
}

fn memory(memory: &Memory, mode: Mode, found: &mut Properties) -> Result<()> {
    let limit = memory.limit.unwrap_or(0);
    if mode != Mode::V2 {
        if limit != 0 {
            found.push(("MemoryLimit", number(limit)));
        }
        return Ok(());
    }
    if limit != 0 {
        found.push(("MemoryMax", number(limit)));
    }
    if let Some(reservation) = memory.reservation.filter(|value| *value != 0) {
        found.push(("MemoryLow", number(reservation)));
    }
    if let Some(swap) = v2::swap(limit, memory.swap.unwrap_or(0))? {
        found.push(("MemorySwapMax", number(swap)));
    }
    Ok(())
}

fn number(limit: i64) -> Given {
    Given::Number(u64::try_from(limit).unwrap_or(UNLIMITED))
}

#[cfg(test)]
mod tests {
    use oci::runtime::Pids;

    use super::*;

    fn check(resources: &Resources, mode: Mode, expected: &[(&'static str, u64)]) {
        let found = properties(resources, mode).unwrap();
        let expected: Properties =
            expected.iter().map(|(name, value)| (*name, Given::Number(*value))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn nothing_is_nothing() {
        check(&Resources::default(), Mode::V2, &[]);
    }

    #[test]
    fn limits() {
        let resources = Resources {
            cpu: Some(Cpu { shares: Some(1024), quota: Some(12_345), ..Cpu::default() }),
            memory: Some(Memory {
                limit: Some(100),
                swap: Some(150),
                reservation: Some(50),
                ..Memory::default()
            }),
            pids: Some(Pids { limit: Some(-1) }),
            ..Resources::default()
        };
        let quota = ("CPUQuotaPerSecUSec", 130_000);
        check(
            &resources,
            Mode::V2,
            &[
                ("CPUWeight", 100),
                quota,
                ("MemoryMax", 100),
                ("MemoryLow", 50),
                ("MemorySwapMax", 50),
                ("TasksMax", u64::MAX),
            ],
        );
        let old = [("CPUShares", 1024), quota, ("MemoryLimit", 100), ("TasksMax", u64::MAX)];
        check(&resources, Mode::Hybrid, &old);
    }

    #[test]
    fn quotas() {
        let check = |quota, period, expected: &[(&'static str, u64)]| {
            let cpu = Some(Cpu { quota, period, ..Cpu::default() });
            check(&Resources { cpu, ..Resources::default() }, Mode::V2, expected);
        };
        let (of, per) = ("CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec");
        check(Some(50_000), None, &[(of, 500_000)]);
        check(Some(-1), Some(50_000), &[(per, 50_000), (of, u64::MAX)]);
        check(Some(150_000), Some(50_000), &[(per, 50_000), (of, 3_000_000)]);
        check(None, Some(50_000), &[(per, 50_000)]);
    }

    #[test]
    fn lists_of_processors() {
        assert_eq!(mask("0,2-3").unwrap(), [0b1101]);
        assert_eq!(mask("9").unwrap(), [0, 0b10]);
        for wrong in ["x", "1-", "0-99999999"] {
            mask(wrong).unwrap_err();
        }
    }
}
