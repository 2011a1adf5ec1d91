//! `secret create` and `config create`.

use std::collections::BTreeMap;

use api::secret::{CreateResponse, Driver, SecretSpec};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Noun;
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};

pub(crate) static SECRET: Command = Command {
    names: &["secret create"],
    usage: "[OPTIONS] SECRET [file|-]",
    about: "Create a secret from a file or STDIN as content",
    args: Args::Between(1, 2),
    flags: &[
        Flag::new("driver", Kind::Text, "Secret driver").short('d'),
        Flag::new("label", Kind::List, "Secret labels").short('l'),
        Flag::new("template-driver", Kind::Text, "Template driver"),
    ],
    run: |call| Box::pin(run(call, Noun::Secret)),
    ..Command::NONE
};

pub(crate) static CONFIG: Command = Command {
    names: &["config create"],
    usage: "[OPTIONS] CONFIG file|-",
    about: "Create a config from a file or STDIN",
    args: Args::Exactly(2),
    flags: &[
        Flag::new("label", Kind::List, "Config labels").short('l'),
        Flag::new("template-driver", Kind::Text, "Template driver"),
    ],
    run: |call| Box::pin(run(call, Noun::Config)),
    ..Command::NONE
};

async fn run(call: &Call<'_>, noun: Noun) -> Result {
    let driver = |flag: &str| match call.flags.get(flag) {
        None | Some("") => None,
        Some(name) => Some(Driver { name: name.to_owned(), ..Driver::default() }),
    };
    let own_driver = if noun == Noun::Secret { driver("driver") } else { None };
    let data = match (call.args().get(1), &own_driver) {
        (Some(_), Some(_)) => {
            return Err(Failure::words(
                "When using secret driver secret data must be empty".to_owned(),
            ));
        }
        (Some(file), None) => Some(STANDARD.encode(noun.content(file)?)),
        (None, Some(_)) => None,
        (None, None) => return Err(Failure::words("secret file is required")),
    };
    let spec = SecretSpec {
        name: call.arg(0).to_owned(),
        labels: labels(&call.flags.list("label")),
        data,
        driver: own_driver,
        templating: driver("template-driver"),
    };
    let client = call.cli.client()?;
    let created: CreateResponse = client.post(noun.path("/create")).json(&spec)?.fetch().await?;
    call.cli.printer.line(&created.id)
}

pub(crate) fn labels(words: &[&str]) -> BTreeMap<String, String> {
    let pair = |word: &&str| {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        (key.to_owned(), value.to_owned())
    };
    words.iter().map(pair).collect()
}
