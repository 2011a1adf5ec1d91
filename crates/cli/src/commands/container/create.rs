//! `create`: makes a container and does not start it. `run` makes its own the same way.

use std::fs::File;
use std::io::Write;

use api::container::{CreateBody, CreateResponse};
use client::Client;
use oci::Reference;
use stdx::Error;

use super::body::{Attachment, body};
use super::run::with_help_of;
use crate::command::{Args, Call, Command};
use crate::failure::{Failure, Result};
use crate::flags::{Order, Parsed};

pub(crate) static COMMAND: Command = Command {
    names: &["container create", "create"],
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a new container",
    args: Args::AtLeast(1),
    order: Order::FlagsFirst,
    flags: &super::create_flags::CREATE,
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let body = body(&call.flags, Attachment::Foreground)
        .map_err(|err| with_help_of(call, "create", &err.chain(), 125))?;
    let created = create(call, &body).await?;
    call.cli.printer.line(&created.id)
}

/// When the image is pulled before the container is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pull {
    Always,
    Missing,
    Never,
}

impl Pull {
    fn of(flags: &Parsed) -> Result<Self> {
        match flags.get("pull") {
            None | Some("missing" | "") => Ok(Self::Missing),
            Some("always") => Ok(Self::Always),
            Some("never") => Ok(Self::Never),
            Some(other) => Err(Failure::words(format!(
                "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
            ))),
        }
    }
}

/// Makes the container, pulling its image where that is wanted, and writes the id file.
pub(super) async fn create(call: &Call<'_>, body: &CreateBody) -> Result<CreateResponse> {
    let flags = &call.flags;
    let pull = Pull::of(flags)?;
    let platform = platform(flags)?;
    let image = body.config.image.as_str();
    // An identifier names no repository, so there is nothing to pull it from.
    let reference = match Reference::parse_normalized(image) {
        Ok(reference) => Some(reference.with_default_tag()),
        Err(_) if is_id(image) => None,
        Err(err) => return Err(err.into()),
    };
    let client = call.cli.client()?;
    let id_file = match flags.text("cidfile") {
        "" => None,
        path => Some(IdFile::create(path)?),
    };
    if let (Pull::Always, Some(reference)) = (pull, &reference) {
        pull_image(call, client, reference, platform.as_deref()).await?;
    }
    let created = match post(client, flags, body, platform.as_deref()).await {
        Err(err)
            if err.kind() == stdx::Kind::NotFound
                && pull == Pull::Missing
                && is_about_image(&err) =>
        {
            let Some(reference) = &reference else { return Err(err.into()) };
            if !flags.on("quiet") {
                call.cli
                    .printer
                    .complain(&format!("Unable to find image '{}' locally", reference.familiar()));
            }
            pull_image(call, client, reference, platform.as_deref()).await?;
            post(client, flags, body, platform.as_deref()).await?
        }
        other => other?,
    };
    for warning in &created.warnings {
        call.cli.printer.complain(&format!("WARNING: {warning}"));
    }
    if let Some(id_file) = id_file {
        id_file.keep(&created.id)?;
    }
    Ok(created)
}

fn is_id(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    hex.len() == 64 && hex.bytes().all(|c| c.is_ascii_hexdigit())
}

/// A missing network or volume is not found by pulling an image.
fn is_about_image(err: &Error) -> bool {
    err.to_string().to_lowercase().contains("image")
}

fn platform(flags: &Parsed) -> Result<Option<String>> {
    let given = flags
        .get("platform")
        .map(str::to_owned)
        .or_else(|| crate::env::non_empty("DOCKER_DEFAULT_PLATFORM"));
    match given {
        Some(text) if !text.is_empty() => match text.parse::<oci::Platform>() {
            Ok(_) => Ok(Some(text)),
            Err(err) => {
                Err(Failure::words(format!("error parsing specified platform: {}", err.chain())))
            }
        },
        _ => Ok(None),
    }
}

async fn post(
    client: &Client,
    flags: &Parsed,
    body: &CreateBody,
    platform: Option<&str>,
) -> stdx::Result<CreateResponse> {
    let name = flags.get("name").filter(|name| !name.is_empty());
    let request =
        client.post("/containers/create").query_opt("name", name).query_opt("platform", platform);
    let bytes = request.json(body)?.send().await?.bytes().await?;
    api::json::from_slice(&bytes)
        .map_err(|err| Error::internal(format!("cannot read the daemon's answer: {err:?}")))
}

/// Pulls with the progress on standard error: standard output belongs to the container.
async fn pull_image(
    call: &Call<'_>,
    client: &Client,
    reference: &Reference,
    platform: Option<&str>,
) -> Result {
    let cli = call.cli;
    let response = client
        .post("/images/create")
        .query("fromImage", reference.familiar_name())
        .query("tag", tag_or_digest(reference))
        .query_opt("platform", platform)
        .header("x-registry-auth", &crate::credentials::header_for(cli, reference)?)
        .send()
        .await?;
    let quiet = call.flags.on("quiet");
    let print = |text: &str| {
        if !quiet {
            cli.printer.complain_text(text);
        }
        Ok(())
    };
    crate::progress::show(response, cli.printer.err_is_terminal(), print, |_| Ok(())).await
}

/// What the API calls the tag.
pub(crate) fn tag_or_digest(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.as_str().to_owned(),
        (None, tag) => tag.unwrap_or_default().to_owned(),
    }
}

/// The file of `--cidfile`: made before the container, so that it cannot be somebody else's; gone when it stays empty.
struct IdFile {
    path: String,
    file: Option<File>,
}

impl IdFile {
    fn create(path: &str) -> Result<Self> {
        match File::options().write(true).create_new(true).open(path) {
            Ok(file) => Ok(Self { path: path.to_owned(), file: Some(file) }),
            Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Failure::words(format!(
                    "container ID file found, make sure the other container isn't running or delete {path}"
                )))
            }
            Err(err) => Err(Failure::words(format!(
                "failed to create the container ID file: open {path}: {}",
                Error::from(err)
            ))),
        }
    }

    fn keep(mut self, id: &str) -> Result {
        match self.file.take() {
            Some(mut file) => file.write_all(id.as_bytes()).map_err(|err| {
                Failure::words(format!(
                    "failed to write the container ID ({id}) to file: {}",
                    Error::from(err)
                ))
            }),
            None => Ok(()),
        }
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            std::fs::remove_file(&self.path).unwrap_or_default();
        }
    }
}
