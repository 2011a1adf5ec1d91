//! `login`: shows the registry a name and a password, and keeps them when it nods.

use std::io::Read;

use crate::command::{Args, Call, Command};
use crate::config_file::ConfigFile;
use crate::credentials::{Credentials, HUB, Place, get, store};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::format::Value;
use crate::tty::{self, Raw};

pub(crate) static COMMAND: Command = Command {
    names: &["login"],
    usage: "[OPTIONS] [SERVER]",
    about: "Authenticate to a registry",
    details: "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
    args: Args::AtMost(1),
    flags: &[
        Flag::new("password", Kind::Text, "Password or Personal Access Token (PAT)").short('p'),
        Flag::new(
            "password-stdin",
            Kind::Switch,
            "Take the Password or Personal Access Token (PAT) from stdin",
        ),
        Flag::new("username", Kind::Text, "Username").short('u'),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let flags = &call.flags;
    let printer = &call.cli.printer;
    let server = server(call.arg(0));
    let mut password = flags.text("password").to_owned();
    if !password.is_empty() {
        printer
            .complain("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    if flags.on("password-stdin") {
        if !password.is_empty() {
            return Err(Failure::words("--password and --password-stdin are mutually exclusive"));
        }
        if flags.text("username").is_empty() {
            return Err(Failure::words("Must provide --username with --password-stdin"));
        }
        std::io::stdin().read_to_string(&mut password)?;
        let trimmed = password.trim_end_matches('\n').trim_end_matches('\r').len();
        password.truncate(trimmed);
    }
    let mut config = ConfigFile::load(&call.cli.config_directory())?;
    let known = get(&config, &server)?;
    let given = !(flags.text("username").is_empty() && password.is_empty());
    let credentials = match given || known.is_empty() {
        true => asked(call, &server, &known, password)?,
        false => {
            printer.line("Authenticating with existing credentials...")?;
            known
        }
    };
    let answer: Value = call.cli.client()?.post("/auth").json(&credentials.body())?.fetch().await?;
    let mut credentials = Credentials { server, ..credentials };
    if !answer.str_at("IdentityToken").is_empty() {
        credentials.password.clear();
        credentials.identity_token = answer.str_at("IdentityToken").to_owned();
    }
    let path = config.path().display().to_string();
    if store(&mut config, &credentials)? == Place::File {
        printer.complain(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{path}'.\nConfigure a credential helper to remove this \
             warning. See\nhttps://docs.docker.com/go/credential-store/\n"
        ));
    }
    match answer.str_at("Status") {
        "" => Ok(()),
        status => printer.line(status),
    }
}

/// The key of a registry among the credentials.
pub(super) fn server(given: &str) -> String {
    match given {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        HUB => HUB.to_owned(),
        given => {
            let bare = given
                .strip_prefix("https://")
                .or_else(|| given.strip_prefix("http://"))
                .unwrap_or(given);
            bare.split('/').next().unwrap_or(bare).to_owned()
        }
    }
}

/// Name and password by flag, else by asking whoever sits at the terminal.
fn asked(
    call: &Call<'_>,
    server: &str,
    known: &Credentials,
    mut password: String,
) -> Result<Credentials> {
    let printer = &call.cli.printer;
    let mut username = call.flags.text("username").to_owned();
    if (username.is_empty() || password.is_empty()) && !tty::stdin_is_terminal() {
        return Err(Failure::words(
            "Error: Cannot perform an interactive login from a non TTY device",
        ));
    }
    if username.is_empty() {
        let offered = match known.username.as_str() {
            "" => String::new(),
            name => format!(" ({name})"),
        };
        printer.text(&format!("Username{offered}: "))?;
        printer.flush()?;
        username = line()?;
        if username.is_empty() {
            username.clone_from(&known.username);
        }
        if username.is_empty() {
            return Err(Failure::words("Error: Non-null Username Required"));
        }
    }
    if password.is_empty() {
        printer.text("Password: ")?;
        printer.flush()?;
        let hidden = Raw::hide_input()?;
        password = line()?;
        drop(hidden);
        printer.text("\n")?;
        if password.is_empty() {
            return Err(Failure::words("Error: Password Required"));
        }
    }
    Ok(Credentials { username, password, server: server.to_owned(), ..Credentials::default() })
}

fn line() -> Result<String> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
