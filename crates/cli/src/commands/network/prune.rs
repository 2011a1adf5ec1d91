//! `network prune`.

use crate::command::{Call, Command};
use crate::commands::system::prune::{Report, prune};
use crate::failure::Result;
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["network prune"],
    usage: "[OPTIONS]",
    about: "Remove all unused networks",
    flags: &[
        Flag::new("filter", Kind::Filter, "Provide filter values (e.g. \"until=<timestamp>\")"),
        Flag::new("force", Kind::Switch, "Do not prompt for confirmation").short('f'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let report = Report {
        path: "/networks/prune",
        warning: "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue?",
        heading: "Deleted Networks:",
        list: "NetworksDeleted",
    };
    prune(call, &report, call.flags.filters("filter")).await
}
