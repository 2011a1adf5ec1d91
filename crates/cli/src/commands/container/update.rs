//! `update`: other limits for containers that are there.

use api::container::UpdateBody;

use super::body::resources;
use super::ports::Ports;
use super::{path, rate, values};
use crate::command::{Args, Call, Command};
use crate::commands::egress;
use crate::failure::{Failure, Result, joined};
use crate::flags::{Flag, Kind};
use crate::format::Value;

pub(crate) static COMMAND: Command = Command {
    names: &["container update", "update"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Update configuration of one or more containers",
    args: Args::AtLeast(1),
    flags: &[
        Flag::new(
            "blkio-weight",
            Kind::Uint16,
            "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)",
        ),
        Flag::new("cpu-period", Kind::Int, "Limit CPU CFS (Completely Fair Scheduler) period"),
        Flag::new("cpu-quota", Kind::Int, "Limit CPU CFS (Completely Fair Scheduler) quota"),
        Flag::new("cpu-rt-period", Kind::Int, "Limit the CPU real-time period in microseconds"),
        Flag::new("cpu-rt-runtime", Kind::Int, "Limit the CPU real-time runtime in microseconds"),
        Flag::new("cpu-shares", Kind::Int, "CPU shares (relative weight)").short('c'),
        Flag::new("cpus", Kind::Decimal, "Number of CPUs"),
        Flag::new("cpuset-cpus", Kind::Text, "CPUs in which to allow execution (0-3, 0,1)"),
        Flag::new("cpuset-mems", Kind::Text, "MEMs in which to allow execution (0-3, 0,1)"),
        Flag::new(
            "egress",
            Kind::List,
            "What may be reached outside of the networks (none, any, or allow=HOST[:PORT][,...])",
        )
        .beyond(),
        Flag::new("kernel-memory", Kind::Bytes, "Kernel memory limit (deprecated)").hidden(),
        Flag::new("memory", Kind::Bytes, "Memory limit").short('m'),
        Flag::new("memory-reservation", Kind::Bytes, "Memory soft limit"),
        Flag::new(
            "memory-swap",
            Kind::SwapBytes,
            "Swap limit equal to memory plus swap: -1 to enable unlimited swap",
        ),
        Flag::new(
            "net-rate",
            Kind::Text,
            "How fast the container may receive and send (in=10mbit,out=5mbit)",
        )
        .beyond(),
        Flag::new("pids-limit", Kind::Int, "Tune container pids limit (set -1 for unlimited)"),
        Flag::new("publish-add", Kind::List, "Publish more of a container's port(s) to the host")
            .beyond(),
        Flag::new("publish-rm", Kind::List, "Stop publishing a container's port(s) to the host")
            .beyond(),
        Flag::new("restart", Kind::Text, "Restart policy to apply when a container exits"),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    if !flags.any() {
        return Err(Failure::words("you must provide one or more flags when using this command"));
    }
    let mut body = UpdateBody {
        resources: resources(flags)?,
        publish_add: Ports::of(&flags.list("publish-add"), &[])?.bindings,
        publish_remove: Ports::of(&flags.list("publish-rm"), &[])?.bindings,
        ..UpdateBody::default()
    };
    if let Some(policy) = flags.get("restart") {
        body.restart_policy = values::restart_policy(policy)?;
    }
    body.egress = egress::rules(flags)?;
    body.net_rate = flags.get("net-rate").map(rate::parse).transpose()?;
    let client = call.cli.client()?;
    let mut failures = Vec::new();
    let mut warnings = Vec::new();
    for name in call.args() {
        let updated: stdx::Result<Value> =
            match client.post(format!("{}/update", path(name))).json(&body) {
                Ok(request) => request.fetch().await,
                Err(err) => Err(err),
            };
        match updated {
            Ok(answer) => {
                call.cli.printer.line(name)?;
                warnings.extend(
                    answer.items_at("Warnings").iter().filter_map(Value::as_str).map(str::to_owned),
                );
            }
            Err(err) => failures.push(err.into()),
        }
    }
    for warning in warnings {
        call.cli.printer.line(&warning)?;
    }
    joined(failures)
}
