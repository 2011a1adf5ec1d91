//! Registry credentials: in config.json, or with a helper program (`docker-credential-…`) that speaks Docker's protocol.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};
use stdx::{Context, Error, Result};

use crate::cli::Cli;
use crate::config_file::ConfigFile;

/// Docker Hub's entry in every credentials store.
pub(crate) const HUB: &str = "https://index.docker.io/v1/";

/// What to show a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) identity_token: String,
    pub(crate) server: String,
}

impl Credentials {
    pub(crate) fn is_empty(&self) -> bool {
        self.username.is_empty() && self.identity_token.is_empty()
    }

    fn document(&self) -> Value {
        let mut document = serde_json::Map::new();
        let mut put = |key: &str, value: &str| {
            if !value.is_empty() {
                document.insert(key.to_owned(), value.into());
            }
        };
        put("username", &self.username);
        put("password", &self.password);
        put("serveraddress", &self.server);
        put("identitytoken", &self.identity_token);
        Value::Object(document)
    }

    /// The body of `POST /auth`.
    pub(crate) fn body(&self) -> Value {
        self.document()
    }

    /// The `X-Registry-Auth` header.
    pub(crate) fn header(&self) -> String {
        URL_SAFE.encode(self.document().to_string())
    }
}

/// The key under which credentials for an image's registry are kept.
pub(crate) fn server_of(reference: &oci::Reference) -> String {
    match reference.domain() {
        "docker.io" => HUB.to_owned(),
        domain => domain.to_owned(),
    }
}

/// The header for a request about `reference`; empty credentials are sent too, as Docker does.
pub(crate) fn header_for(cli: &Cli, reference: &oci::Reference) -> Result<String> {
    let server = server_of(reference);
    let credentials = get(cli.config(), &server)?;
    Ok(credentials.header())
}

/// The helper in charge of `server`, if any.
fn helper(config: &ConfigFile, server: &str) -> Option<String> {
    let special = config.map("credHelpers").remove(server).filter(|name| !name.is_empty());
    special.or_else(|| Some(config.text("credsStore").to_owned()).filter(|name| !name.is_empty()))
}

pub(crate) fn get(config: &ConfigFile, server: &str) -> Result<Credentials> {
    if let Some(name) = helper(config, server) {
        return from_helper(&name, server);
    }
    let entry = config.member("auths", server).cloned().or_else(|| {
        let auths = config.get("auths")?.as_object()?;
        auths.iter().find(|(key, _)| host(key) == host(server)).map(|(_, entry)| entry.clone())
    });
    let Some(entry) = entry else { return Ok(Credentials::default()) };
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut credentials = Credentials {
        username: text("username"),
        password: text("password"),
        identity_token: text("identitytoken"),
        server: server.to_owned(),
    };
    let auth = text("auth");
    if !auth.is_empty() {
        let decoded =
            STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|pair| pair.split_once(':'));
        let (username, password) = pair.ok_or_else(|| {
            Error::invalid(format!("invalid auth configuration file for {server}"))
        })?;
        credentials.username = username.to_owned();
        credentials.password = password.trim_end_matches('\0').to_owned();
    }
    Ok(credentials)
}

/// `https://host/v1/` and `host` are the same registry.
fn host(server: &str) -> &str {
    let bare = server
        .strip_prefix("https://")
        .or_else(|| server.strip_prefix("http://"))
        .unwrap_or(server);
    bare.split('/').next().unwrap_or(bare)
}

/// Keeps credentials; where they went, for the user to know.
pub(crate) fn store(config: &mut ConfigFile, credentials: &Credentials) -> Result<Place> {
    if let Some(name) = helper(config, &credentials.server) {
        let secret = if credentials.identity_token.is_empty() {
            &credentials.password
        } else {
            &credentials.identity_token
        };
        let username = if credentials.identity_token.is_empty() {
            credentials.username.as_str()
        } else {
            "<token>"
        };
        let document =
            json!({"ServerURL": credentials.server, "Username": username, "Secret": secret});
        run_helper(&name, "store", &document.to_string())?;
        return Ok(Place::Helper);
    }
    let mut entry = serde_json::Map::new();
    let pair = match credentials.identity_token.is_empty() {
        true => format!("{}:{}", credentials.username, credentials.password),
        false => format!("{}:", credentials.username),
    };
    entry.insert("auth".to_owned(), STANDARD.encode(pair).into());
    if !credentials.identity_token.is_empty() {
        entry.insert("identitytoken".to_owned(), credentials.identity_token.clone().into());
    }
    config.set_member("auths", &credentials.server, Value::Object(entry));
    config.save()?;
    Ok(Place::File)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Helper,
    File,
}

pub(crate) fn erase(config: &mut ConfigFile, server: &str) -> Result<()> {
    if let Some(name) = helper(config, server) {
        run_helper(&name, "erase", server)?;
    }
    config.set_member("auths", server, Value::Null);
    config.save()
}

fn from_helper(name: &str, server: &str) -> Result<Credentials> {
    let answer = match run_helper(name, "get", server) {
        Ok(answer) => answer,
        Err(err) if err.to_string().contains("credentials not found") => {
            return Ok(Credentials::default());
        }
        Err(err) => return Err(err),
    };
    let document: Value = serde_json::from_str(&answer).map_err(|err| {
        Error::invalid(format!("docker-credential-{name} gave no credentials")).caused_by(err)
    })?;
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut credentials = Credentials { server: server.to_owned(), ..Credentials::default() };
    match text("Username").as_str() {
        "<token>" => credentials.identity_token = text("Secret"),
        username => {
            credentials.username = username.to_owned();
            credentials.password = text("Secret");
        }
    }
    Ok(credentials)
}

fn run_helper(name: &str, action: &str, input: &str) -> Result<String> {
    let program = format!("docker-credential-{name}");
    let words = || format!("error getting credentials - err: exec: {program:?}");
    let mut child = Command::new(&program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context(|| format!("{}: executable file not found in $PATH, out: ``", words()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).context(words)?;
    }
    let output = child.wait_with_output().context(words)?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.success() {
        true => Ok(text),
        false => Err(Error::internal(format!(
            "error getting credentials - err: {}, out: `{text}`",
            output.status
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = ConfigFile::load(directory.path()).unwrap();
        let given = Credentials {
            username: "me".into(),
            password: "a:b".into(),
            server: "registry.test:5000".into(),
            ..Credentials::default()
        };
        assert_eq!(store(&mut config, &given).unwrap(), Place::File);
        let config = ConfigFile::load(directory.path()).unwrap();
        assert_eq!(get(&config, "registry.test:5000").unwrap(), given);
        assert_eq!(get(&config, "other").unwrap(), Credentials::default());
        let text = std::fs::read_to_string(config.path()).unwrap();
        assert!(text.contains(&STANDARD.encode("me:a:b")), "{text}");
    }
}
