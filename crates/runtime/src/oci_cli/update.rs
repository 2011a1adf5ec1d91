//! `update`: other limits for a running container.

use std::path::Path;

use oci::runtime::{BlockIo, Cpu, Memory, Pids, Resources, Status};
use stdx::{Context, Error, Result};

use super::flags::{Flag, Flags};
use super::record::{Container, read_json};
use super::{Global, id};

pub(super) const FLAGS: &[Flag] = &[
    Flag::value("resources").or("r"),
    Flag::value("blkio-weight"),
    Flag::value("cpu-period"),
    Flag::value("cpu-quota"),
    Flag::value("cpu-burst"),
    Flag::value("cpu-share"),
    Flag::value("cpu-rt-period"),
    Flag::value("cpu-rt-runtime"),
    Flag::value("cpuset-cpus"),
    Flag::value("cpuset-mems"),
    Flag::value("cpu-idle"),
    Flag::value("memory"),
    Flag::value("memory-reservation"),
    Flag::value("memory-swap"),
    Flag::value("pids-limit"),
];

pub(super) fn run(global: &Global, flags: &Flags) -> Result<u8> {
    let mut container = Container::open(global, id(flags)?)?;
    if container.status()? == Status::Stopped {
        return Err(Error::conflict("container not running"));
    }
    let resources = match flags.get("resources") {
        Some("-") => {
            let bytes = stdx::bounded::read_to_end(std::io::stdin(), 1 << 20, "standard input")?;
            serde_json::from_slice(&bytes)
                .map_err(|err| Error::invalid(format!("resources: {err}")))?
        }
        Some(path) => read_json(Path::new(path))?,
        None => resources(flags)?,
    };
    container.cgroup()?.update(&resources)?;
    let linux = container.record.spec.linux.get_or_insert_default();
    merge(linux.resources.get_or_insert_default(), resources);
    container.place.write(&container.record)?;
    Ok(0)
}

fn resources(flags: &Flags) -> Result<Resources> {
    let memory = Memory {
        limit: bytes(flags, "memory")?,
        reservation: bytes(flags, "memory-reservation")?,
        swap: bytes(flags, "memory-swap")?,
        ..Memory::default()
    };
    let cpu = Cpu {
        shares: flags.number("cpu-share")?,
        quota: flags.number("cpu-quota")?,
        burst: flags.number("cpu-burst")?,
        period: flags.number("cpu-period")?,
        realtime_runtime: flags.number("cpu-rt-runtime")?,
        realtime_period: flags.number("cpu-rt-period")?,
        cpus: flags.get("cpuset-cpus").unwrap_or_default().to_owned(),
        mems: flags.get("cpuset-mems").unwrap_or_default().to_owned(),
        idle: flags.number("cpu-idle")?,
    };
    let block_io = BlockIo { weight: flags.number("blkio-weight")?, ..BlockIo::default() };
    Ok(Resources {
        memory: (memory != Memory::default()).then_some(memory),
        cpu: (cpu != Cpu::default()).then_some(cpu),
        pids: flags.number("pids-limit")?.map(|limit| Pids { limit: Some(limit) }),
        block_io: (block_io != BlockIo::default()).then_some(block_io),
        ..Resources::default()
    })
}

fn bytes(flags: &Flags, name: &str) -> Result<Option<i64>> {
    match flags.get(name) {
        None => Ok(None),
        Some("-1") => Ok(Some(-1)),
        Some(text) => stdx::units::ram_in_bytes(text)
            .context(|| format!("invalid value for {name}"))
            .map(Some),
    }
}

/// What is not mentioned stays as it was.
fn merge(kept: &mut Resources, new: Resources) {
    fn take<T>(kept: &mut Option<T>, new: Option<T>) {
        if new.is_some() {
            *kept = new;
        }
    }
    if let Some(memory) = new.memory {
        let kept = kept.memory.get_or_insert_default();
        take(&mut kept.limit, memory.limit);
        take(&mut kept.reservation, memory.reservation);
        take(&mut kept.swap, memory.swap);
        take(&mut kept.swappiness, memory.swappiness);
        take(&mut kept.disable_oom_killer, memory.disable_oom_killer);
    }
    if let Some(cpu) = new.cpu {
        let kept = kept.cpu.get_or_insert_default();
        take(&mut kept.shares, cpu.shares);
        take(&mut kept.quota, cpu.quota);
        take(&mut kept.burst, cpu.burst);
        take(&mut kept.period, cpu.period);
        take(&mut kept.realtime_runtime, cpu.realtime_runtime);
        take(&mut kept.realtime_period, cpu.realtime_period);
        take(&mut kept.idle, cpu.idle);
        for (kept, new) in [(&mut kept.cpus, cpu.cpus), (&mut kept.mems, cpu.mems)] {
            if !new.is_empty() {
                *kept = new;
            }
        }
    }
    take(&mut kept.pids, new.pids);
    take(&mut kept.block_io, new.block_io);
    kept.unified.extend(new.unified);
}
