//! `secret inspect` and `config inspect`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Noun;
use crate::command::{Args, Call, Command, about};
use crate::commands::labels;
use crate::commands::system::inspect::{Documents, raw};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::format::Value;
use crate::times;

const FLAGS: &[Flag] = &[
    Flag::new("format", Kind::Text, about::FORMAT).short('f'),
    Flag::new("pretty", Kind::Switch, "Print the information in a human friendly format"),
];

pub(crate) static SECRET: Command = Command {
    names: &["secret inspect"],
    usage: "[OPTIONS] SECRET [SECRET...]",
    about: "Display detailed information on one or more secrets",
    args: Args::AtLeast(1),
    flags: FLAGS,
    run: |call| Box::pin(run(call, Noun::Secret)),
    ..Command::NONE
};

pub(crate) static CONFIG: Command = Command {
    names: &["config inspect"],
    usage: "[OPTIONS] CONFIG [CONFIG...]",
    about: "Display detailed information on one or more configs",
    args: Args::AtLeast(1),
    flags: FLAGS,
    run: |call| Box::pin(run(call, Noun::Config)),
    ..Command::NONE
};

async fn run(call: &Call<'_>, noun: Noun) -> Result {
    let format = if call.flags.on("pretty") { "pretty" } else { call.flags.text("format") };
    let client = call.cli.client()?;
    if format.starts_with("pretty") {
        if format != "pretty" {
            return Err(Failure::words(
                "cannot supply extra formatting options to the pretty template",
            ));
        }
        for name in call.args() {
            let one: Value = client.get(noun.path_of(name)).fetch().await?;
            call.cli.printer.text(&pretty(noun, &one))?;
        }
        return Ok(());
    }
    let mut documents = Documents::new(format)?;
    for name in call.args() {
        documents.add(raw(client.get(noun.path_of(name))).await);
    }
    documents.show(call)
}

fn pretty(noun: Noun, one: &Value) -> String {
    let moment = |key: &str| times::go_with_fraction(one.str_at(key)).to_lowercase();
    let of_spec = |key: &str| one.str_at(&format!("Spec.{key}")).to_owned();
    let mut text = match noun {
        Noun::Secret => format!(
            "ID:              {}\nName:              {}\n",
            one.str_at("ID"),
            of_spec("Name")
        ),
        Noun::Config => format!("ID:\t\t\t{}\nName:\t\t\t{}\n", one.str_at("ID"), of_spec("Name")),
    };
    let labels = labels(one.entries_at("Spec.Labels"));
    if !labels.is_empty() {
        text += "Labels:\n";
        for (key, value) in labels {
            let value = if value.is_empty() { value } else { format!("={value}") };
            text += &format!(" - {key}{value}\n");
        }
    }
    match noun {
        Noun::Secret => {
            text += &format!(
                "Driver:            {}\nCreated at:        {}\nUpdated at:        {}\n",
                of_spec("Driver.Name"),
                moment("CreatedAt"),
                moment("UpdatedAt")
            );
        }
        Noun::Config => {
            let data = STANDARD.decode(of_spec("Data")).unwrap_or_default();
            text += &format!(
                "Created at:            \t{}\nUpdated at:            \t{}\nData:\n{}\n",
                moment("CreatedAt"),
                moment("UpdatedAt"),
                String::from_utf8_lossy(&data)
            );
        }
    }
    text
}
