//! `top`: the processes of a container.

use super::path;
use crate::command::{Args, Call, Command};
use crate::failure::Result;
use crate::flags::Order;
use crate::format::Value;
use crate::format::listing::align_with;

pub(crate) static COMMAND: Command = Command {
    names: &["container top", "top"],
    usage: "CONTAINER [ps OPTIONS]",
    about: "Display the running processes of a container",
    args: Args::AtLeast(1),
    order: Order::FlagsFirst,
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let (name, options) = call.args().split_first().expect("at least one argument was checked");
    let request = call.cli.client()?.get(format!("{}/top", path(name)));
    let options = (!options.is_empty()).then(|| options.join(" "));
    let top: Value = request.query_opt("ps_args", options).fetch().await?;
    let line =
        |cells: &[Value]| cells.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\t");
    let mut text = format!("{}\n", line(top.items_at("Titles")));
    for process in top.items_at("Processes") {
        text.push_str(&format!("{}\n", line(process.items())));
    }
    call.cli.printer.text(&align_with(&text, 20, 3).replace('\t', " "))
}
