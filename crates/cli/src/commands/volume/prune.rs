//! `volume prune`: removes volumes that no container uses; named ones only when asked.

use crate::command::{Call, Command};
use crate::commands::system::prune::{Report, prune};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["volume prune"],
    usage: "[OPTIONS]",
    about: "Remove unused local volumes",
    flags: &[
        Flag::new("all", Kind::Switch, "Remove all unused volumes, not just anonymous ones")
            .short('a'),
        Flag::new("filter", Kind::Filter, "Provide filter values (e.g. \"label=<label>\")"),
        Flag::new("force", Kind::Switch, "Do not prompt for confirmation").short('f'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let all = call.flags.on("all");
    let mut filters = call.flags.filters("filter");
    if all {
        if filters.has("all") {
            return Err(Failure::words(
                "conflicting options: cannot specify both --all and --filter all=1",
            ));
        }
        filters.add("all", "true");
    }
    let report = Report {
        path: "/volumes/prune",
        warning: if all {
            "WARNING! This will remove all local volumes not used by at least one container.\nAre you sure you want to continue?"
        } else {
            "WARNING! This will remove anonymous local volumes not used by at least one container.\nAre you sure you want to continue?"
        },
        heading: "Deleted Volumes:",
        list: "VolumesDeleted",
    };
    prune(call, &report, filters).await
}
