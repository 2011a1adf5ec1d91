//! `secret update` and `config update`: Docker's API can change labels and has no command for it; ours replaces what is in
//! them, too.

use api::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Noun;
use super::create::labels;
use crate::command::{Args, Call, Command};
use crate::failure::Result;
use crate::flags::{Flag, Help, Kind};

const FLAGS: &[Flag] = &[
    Flag::new("label-add", Kind::List, "Add or replace a label"),
    Flag::new("label-rm", Kind::List, "Remove a label by its key"),
];

pub(crate) static SECRET: Command = Command {
    names: &["secret update"],
    usage: "[OPTIONS] SECRET [file|-]",
    about: "Change labels of a secret, or replace its content, also in running containers",
    args: Args::Between(1, 2),
    flags: FLAGS,
    help: Help::Beyond,
    run: |call| Box::pin(run(call, Noun::Secret)),
    ..Command::NONE
};

pub(crate) static CONFIG: Command = Command {
    names: &["config update"],
    usage: "[OPTIONS] CONFIG [file|-]",
    about: "Change labels of a config, or replace its content",
    args: Args::Between(1, 2),
    flags: FLAGS,
    help: Help::Beyond,
    run: |call| Box::pin(run(call, Noun::Config)),
    ..Command::NONE
};

async fn run(call: &Call<'_>, noun: Noun) -> Result {
    let data = call.args().get(1).map(|file| noun.content(file)).transpose()?;
    let client = call.cli.client()?;
    let Secret { id, version, mut spec, .. } =
        client.get(noun.path_of(call.arg(0))).fetch().await?;
    spec.labels.extend(labels(&call.flags.list("label-add")));
    for key in call.flags.list("label-rm") {
        spec.labels.remove(key);
    }
    spec.data = data.map(|data| STANDARD.encode(data));
    client
        .post(format!("{}/update", noun.path_of(&id)))
        .query("version", version.index.to_string())
        .json(&spec)?
        .done()
        .await?;
    call.cli.printer.line(call.arg(0))
}
