//! `docker update`: other limits and another restart policy, while it runs; other ports in `publish.rs`.
//!
//! The record is written first and says that the kernel may not know yet; a daemon that dies in between is followed by one
//! that tells it. What the kernel does not take is taken back in both.

use api::container::{NetRate, Resources, UpdateBody, UpdateResponse};
use oci::runtime::{Cpu, Memory, Pids, Resources as Limits};
use runtime::cgroup::Support;
use stdx::{Context, Error, Kind, Result};

use super::Container;
use super::plan::{self, Plan};
use super::reach;
use super::record::Record;
use super::restart_policy::RestartPolicy;
use super::state::Phase;

impl Container {
    pub async fn update(&self, body: UpdateBody) -> Result<UpdateResponse> {
        let this = self.clone();
        tokiox::to_the_end(async move {
            let _gate = this.cell.gate.lock().await;
            this.update_held(body).await
        })
        .await
    }

    async fn update_held(&self, mut body: UpdateBody) -> Result<UpdateResponse> {
        let record = self.record();
        let words = || format!("Cannot update container {}", record.id);
        if matches!(record.state.phase, Phase::Removing | Phase::Dead) {
            return Err(Error::conflict(
                "container is marked for removal and cannot be \"update\"",
            ))
            .context(words);
        }
        let settings = self.rooms.settings();
        let support = Support::below(settings.cgroup_driver, &settings.cgroup_parent)?;
        let mut warnings = plan::discard(&mut body.resources, &support)?;
        // Docker remembers every way to say "no limit" as this one.
        body.resources.pids_limit = body.resources.pids_limit.map(|limit| limit.max(0));
        let (mut config, mut host) = (record.config.clone(), record.host_config.clone());
        // What contradicts itself is wrong, what contradicts the container is a conflict.
        plan::check_alone(&body.resources)?;
        merge(&mut host.resources, &body.resources).context(words)?;
        if !body.restart_policy.name.is_empty() {
            let policy = RestartPolicy::parse(
                &body.restart_policy.name,
                body.restart_policy.maximum_retry_count,
            )?;
            if host.auto_remove && policy != RestartPolicy::No {
                return Err(Error::conflict(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container",
                ))
                .context(words);
            }
            host.restart_policy = body.restart_policy;
        }
        if body.egress.is_some() {
            host.egress = body.egress;
        }
        if let Some(rate) = body.net_rate {
            let now = host.net_rate.unwrap_or_default();
            host.net_rate =
                Some(NetRate { r#in: rate.r#in.or(now.r#in), out: rate.out.or(now.out) });
        }
        let limits = plan::resources(&host.resources, &mut warnings)?;
        let plan = Plan::of(&record.config, &host, record.read_only_binds, &self.rooms.settings())?;
        reach::check(&plan, record.endpoints.keys(), &self.rooms.networks)?;
        let up = record.state.phase.is_up();
        let ports = (body.publish_add, body.publish_remove);
        let republished = self
            .republish(&record, (&mut config, &mut host), ports, &mut warnings)
            .await
            .context(words)?;
        let mut next =
            Record { config, host_config: host, limits_pending: up, ..Record::clone(&record) };
        if let Some(republished) = &republished {
            next.ports.clone_from(&republished.ports);
        }
        if let Err(error) = self.update_limits(&record, next, limits, &support).await {
            if let Some(republished) = republished {
                self.take_republished_back(republished).await;
            }
            return Err(error).context(words);
        }
        self.event("update", &[]);
        Ok(UpdateResponse { warnings: (!warnings.is_empty()).then_some(warnings) })
    }

    /// Writes `next` down and has it so.
    async fn update_limits(
        &self,
        before: &Record,
        next: Record,
        limits: Limits,
        support: &Support,
    ) -> Result<()> {
        self.save(next.clone())?;
        if !next.limits_pending {
            return Ok(());
        }
        let asked = limits.clone();
        match self.with_shim(move |shim| shim.update(&asked)).await {
            Ok(()) => {}
            // It has just ended, and nobody has been told: what is written down is for its next life.
            Err(error) if matches!(error.kind(), Kind::Conflict | Kind::NotFound) => {
                return self.save(Record { limits_pending: false, ..next });
            }
            Err(error) => {
                self.take_update_back(before, &limits, support).await;
                return Err(error);
            }
        }
        if let Err(error) = self.follow_reach().await {
            self.take_update_back(before, &limits, support).await;
            self.follow_reach().await.unwrap_or_else(|error| {
                tracing::error!(container = %self.id(), error = %error.chain(), "cannot take an update back");
            });
            return Err(error);
        }
        self.save(Record { limits_pending: false, ..next })
    }

    /// The kernel has refused a part of it: the rest goes, too.
    async fn take_update_back(&self, before: &Record, refused: &Limits, support: &Support) {
        let outcome = match plan::resources(&before.host_config.resources, &mut Vec::new()) {
            Ok(limits) => {
                let limits = without(&limits, refused, support);
                self.with_shim(move |shim| shim.update(&limits)).await
            }
            Err(error) => Err(error),
        };
        let saved = self.save(Record { limits_pending: false, ..before.clone() });
        if let Err(error) = outcome.and(saved) {
            tracing::warn!(container = %self.id(), error = %error.chain(), "cannot take an update back");
        }
    }

    /// After a daemon that died in the middle of an update: what is written down holds. The gate is held by whoever calls.
    pub(crate) async fn finish_update(&self) -> Result<()> {
        let record = self.record();
        if !record.limits_pending {
            return Ok(());
        }
        let limits = plan::resources(&record.host_config.resources, &mut Vec::new())?;
        self.with_shim(move |shim| shim.update(&limits)).await?;
        self.follow_reach().await?;
        self.save(Record { limits_pending: false, ..Record::clone(&record) })
    }
}

/// What the request sets replaces what was; zero and absent leave it. Refusals are Docker's.
fn merge(now: &mut Resources, wanted: &Resources) -> Result<()> {
    fn set<T: Clone + PartialEq + Default>(now: &mut T, wanted: &T) {
        if *wanted != T::default() {
            now.clone_from(wanted);
        }
    }
    let conflict = |sentence: &str| Err(Error::conflict(sentence));
    if wanted.nano_cpus > 0 && now.cpu_period > 0 {
        return conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        );
    }
    if wanted.nano_cpus > 0 && now.cpu_quota > 0 {
        return conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
        );
    }
    if wanted.cpu_period > 0 && now.nano_cpus > 0 {
        return conflict(
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        );
    }
    if wanted.cpu_quota > 0 && now.nano_cpus > 0 {
        return conflict(
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        );
    }
    // Of one without any limit, too: whoever sets the first says what is to become of swap. Unlimited swap stays so.
    let swap_stays = wanted.memory_swap == 0 && now.memory_swap != -1;
    if wanted.memory > now.memory_swap && swap_stays {
        return conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        );
    }
    set(&mut now.cpu_shares, &wanted.cpu_shares);
    set(&mut now.nano_cpus, &wanted.nano_cpus);
    set(&mut now.cpu_period, &wanted.cpu_period);
    set(&mut now.cpu_quota, &wanted.cpu_quota);
    set(&mut now.cpu_realtime_period, &wanted.cpu_realtime_period);
    set(&mut now.cpu_realtime_runtime, &wanted.cpu_realtime_runtime);
    set(&mut now.cpuset_cpus, &wanted.cpuset_cpus);
    set(&mut now.cpuset_mems, &wanted.cpuset_mems);
    set(&mut now.blkio_weight, &wanted.blkio_weight);
    set(&mut now.memory, &wanted.memory);
    set(&mut now.memory_swap, &wanted.memory_swap);
    set(&mut now.memory_reservation, &wanted.memory_reservation);
    set(&mut now.pids_limit, &wanted.pids_limit);
    Ok(())
}

/// `limits`, and no limit at all for whatever only `refused` had.
fn without(limits: &Limits, refused: &Limits, support: &Support) -> Limits {
    let (memory, cpu) =
        (limits.memory.clone().unwrap_or_default(), limits.cpu.clone().unwrap_or_default());
    let none = |now: Option<i64>, then: Option<i64>| now.or(then.map(|_| -1));
    let list = |now: &str, then: &str, all: &str| match (now, then) {
        ("", "") => String::new(),
        ("", _) => all.to_owned(),
        (now, _) => now.to_owned(),
    };
    let refused_memory = refused.memory.clone().unwrap_or_default();
    let refused_cpu = refused.cpu.clone().unwrap_or_default();
    Limits {
        memory: refused.memory.as_ref().map(|_| Memory {
            limit: none(memory.limit, refused_memory.limit),
            swap: none(memory.swap, refused_memory.swap),
            reservation: none(memory.reservation, refused_memory.reservation),
            ..memory
        }),
        cpu: refused.cpu.as_ref().map(|_| Cpu {
            shares: cpu.shares.or(refused_cpu.shares.map(|_| 1024)),
            quota: none(cpu.quota, refused_cpu.quota),
            period: cpu.period.or(refused_cpu.period.map(|_| 100_000)),
            cpus: list(&cpu.cpus, &refused_cpu.cpus, &support.cpuset_cpus),
            mems: list(&cpu.mems, &refused_cpu.mems, &support.cpuset_mems),
            ..cpu
        }),
        pids: limits.pids.or(refused.pids.map(|_| Pids { limit: Some(-1) })),
        ..limits.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(now: Resources, wanted: Resources) -> std::result::Result<Resources, String> {
        let mut now = now;
        merge(&mut now, &wanted).map(|()| now).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_stays() {
        let now =
            Resources { memory: 100, memory_swap: 200, cpu_shares: 5, ..Resources::default() };
        let wanted = Resources { memory: 150, pids_limit: Some(-1), ..Resources::default() };
        let then = merged(now.clone(), wanted).unwrap();
        assert_eq!(then, Resources { memory: 150, pids_limit: Some(-1), ..now });
    }

    #[test]
    fn swap_must_be_said_where_memory_outgrows_it() {
        let limit = |memory, memory_swap| Resources { memory, memory_swap, ..Resources::default() };
        let words = "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time";
        assert_eq!(merged(limit(100, 200), limit(300, 0)).unwrap_err(), words);
        assert_eq!(merged(limit(0, 0), limit(300, 0)).unwrap_err(), words);
        assert_eq!(merged(limit(100, 200), limit(300, 600)).unwrap(), limit(300, 600));
        assert_eq!(merged(limit(100, -1), limit(300, 0)).unwrap(), limit(300, -1));
    }

    #[test]
    fn one_way_of_saying_how_much_processor() {
        let nano = Resources { nano_cpus: 1, ..Resources::default() };
        let quota = Resources { cpu_quota: 1000, ..Resources::default() };
        assert!(
            merged(nano.clone(), quota.clone())
                .unwrap_err()
                .starts_with("Conflicting options: CPU Quota")
        );
        assert!(merged(quota, nano).unwrap_err().starts_with("Conflicting options: Nano CPUs"));
    }

    #[test]
    fn taken_back_is_as_before() {
        let refused = Limits {
            memory: Some(Memory { limit: Some(9), swap: Some(18), ..Memory::default() }),
            cpu: Some(Cpu { cpus: "0".to_owned(), ..Cpu::default() }),
            pids: Some(Pids { limit: Some(5) }),
            ..Limits::default()
        };
        let before = Limits {
            memory: Some(Memory { limit: Some(7), ..Memory::default() }),
            ..Limits::default()
        };
        let support = Support { cpuset_cpus: "0-1".to_owned(), ..Support::detect().unwrap() };
        let back = without(&before, &refused, &support);
        let memory = back.memory.unwrap();
        assert_eq!((memory.limit, memory.swap), (Some(7), Some(-1)));
        assert_eq!(back.cpu.unwrap().cpus, "0-1");
        assert_eq!(back.pids.unwrap().limit, Some(-1));
    }
}
