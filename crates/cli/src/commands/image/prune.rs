//! `image prune`: removes images without a name, or all that nothing uses.

use crate::command::{Call, Command};
use crate::commands::system::prune::{Report, prune};
use crate::failure::Result;
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["image prune"],
    usage: "[OPTIONS]",
    about: "Remove unused images",
    flags: &[
        Flag::new("all", Kind::Switch, "Remove all unused images, not just dangling ones")
            .short('a'),
        Flag::new("filter", Kind::Filter, "Provide filter values (e.g. \"until=<timestamp>\")"),
        Flag::new("force", Kind::Switch, "Do not prompt for confirmation").short('f'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let all = call.flags.on("all");
    let mut filters = call.flags.filters("filter");
    filters.add("dangling", if all { "false" } else { "true" });
    let report = Report {
        path: "/images/prune",
        warning: if all {
            "WARNING! This will remove all images without at least one container associated to them.\nAre you sure you want to continue?"
        } else {
            "WARNING! This will remove all dangling images.\nAre you sure you want to continue?"
        },
        heading: "Deleted Images:",
        list: "ImagesDeleted",
    };
    prune(call, &report, filters).await
}
