//! `docker update`: other limits and another restart policy, while it runs.

use api::container::{Resources, UpdateBody, UpdateResponse};
use stdx::{Error, Result};

use super::Container;
use super::plan;
use super::record::Record;
use super::restart_policy::RestartPolicy;
use super::state::Phase;

impl Container {
    pub async fn update(&self, body: UpdateBody) -> Result<UpdateResponse> {
        let this = self.clone();
        tokiox::to_the_end(async move {
            let _gate = this.cell.gate.lock().await;
            let record = this.record();
            if matches!(record.state.phase, Phase::Removing | Phase::Dead) {
                return Err(Error::conflict(format!(
                    "Cannot update container {}: container is marked for removal and cannot be \"update\"",
                    record.id
                )));
            }
            let mut host = record.host_config.clone();
            merge(&mut host.resources, &body.resources);
            if !body.restart_policy.name.is_empty() {
                RestartPolicy::parse(&body.restart_policy.name, body.restart_policy.maximum_retry_count)?;
                if host.auto_remove {
                    return Err(Error::invalid(
                        "Restart policy cannot be updated because AutoRemove is enabled for the container",
                    ));
                }
                host.restart_policy = body.restart_policy;
            }
            let support = runtime::cgroup::Support::detect()?;
            let mut warnings = plan::discard(&mut host.resources, &support)?;
            let limits = plan::resources(&host.resources, &mut warnings)?;
            if record.state.phase.is_up() {
                this.with_shim(move |shim| shim.update(&limits)).await?;
            }
            this.save(Record { host_config: host, ..Record::clone(&record) })?;
            this.event("update", &[]);
            Ok(UpdateResponse { warnings: (!warnings.is_empty()).then_some(warnings) })
        })
        .await
    }
}

/// What the request sets replaces what was; zero and absent leave it.
fn merge(now: &mut Resources, wanted: &Resources) {
    fn set<T: Clone + PartialEq + Default>(now: &mut T, wanted: &T) {
        if *wanted != T::default() {
            now.clone_from(wanted);
        }
    }
    set(&mut now.cpu_shares, &wanted.cpu_shares);
    set(&mut now.memory_reservation, &wanted.memory_reservation);
    set(&mut now.blkio_weight, &wanted.blkio_weight);
    set(&mut now.cpuset_cpus, &wanted.cpuset_cpus);
    set(&mut now.cpuset_mems, &wanted.cpuset_mems);
    set(&mut now.cpu_realtime_period, &wanted.cpu_realtime_period);
    set(&mut now.cpu_realtime_runtime, &wanted.cpu_realtime_runtime);
    set(&mut now.pids_limit, &wanted.pids_limit);
    set(&mut now.memory_swap, &wanted.memory_swap);
    set(&mut now.memory, &wanted.memory);
    // One way of saying how much CPU replaces the other.
    if wanted.nano_cpus != 0 {
        (now.nano_cpus, now.cpu_period, now.cpu_quota) = (wanted.nano_cpus, 0, 0);
    }
    if wanted.cpu_period != 0 || wanted.cpu_quota != 0 {
        now.nano_cpus = 0;
        set(&mut now.cpu_period, &wanted.cpu_period);
        set(&mut now.cpu_quota, &wanted.cpu_quota);
    }
}
