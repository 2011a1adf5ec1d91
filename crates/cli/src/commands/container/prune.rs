//! `container prune`: removes what has ended.

use crate::command::{Call, Command};
use crate::commands::system::prune::{Report, prune};
use crate::failure::Result;
use crate::flags::{Flag, Kind};

pub(crate) static COMMAND: Command = Command {
    names: &["container prune"],
    usage: "[OPTIONS]",
    about: "Remove all stopped containers",
    flags: &[
        Flag::new("filter", Kind::Filter, "Provide filter values (e.g. \"until=<timestamp>\")"),
        Flag::new("force", Kind::Switch, "Do not prompt for confirmation").short('f'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let report = Report {
        path: "/containers/prune",
        warning: "WARNING! This will remove all stopped containers.\nAre you sure you want to continue?",
        heading: "Deleted Containers:",
        list: "ContainersDeleted",
    };
    prune(call, &report, call.flags.filters("filter")).await
}
