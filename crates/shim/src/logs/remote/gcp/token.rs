//! Who we are to Google: a file that the environment names (a service account's key, or a user's), or the machine's own
//! service. What both come to is a token that holds for an hour.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use plugin::http::{self, Request};
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use serde_json::json;
use stdx::time::Timestamp;
use stdx::{Context, Error, Result};

use super::super::Shim;
use super::super::options::web;

const SCOPE: &str = "https://www.googleapis.com/auth/logging.write";
const TOKENS: &str = "https://oauth2.googleapis.com/token";
const MACHINE: &str = "metadata.google.internal";
const ANSWER: Duration = Duration::from_secs(10);
/// Whether this is one of Google's machines is known soon, or not at all.
const GLANCE: Duration = Duration::from_secs(1);
const LONGEST_ANSWER: usize = 64 << 10;
const MARGIN: u64 = 60;

pub(super) struct Tokens<'a> {
    who: Who,
    machine: String,
    on_machine: bool,
    held: Option<(String, Instant)>,
    shim: &'a Shim<'a>,
}

enum Who {
    Service { email: String, key: Box<RsaKeyPair>, key_id: String, uri: String },
    User { client: String, secret: String, refresh: String, uri: String },
    Machine,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    r#type: String,
    client_email: String,
    private_key: String,
    private_key_id: String,
    token_uri: String,
    client_id: String,
    client_secret: String,
    refresh_token: String,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

impl<'a> Tokens<'a> {
    pub(super) fn of(environment: &BTreeMap<String, String>, shim: &'a Shim<'a>) -> Result<Self> {
        let variable = |name: &str| environment.get(name).filter(|text| !text.is_empty());
        let home = || {
            Some(format!(
                "{}/.config/gcloud/application_default_credentials.json",
                variable("HOME")?
            ))
        };
        let who = match variable("GOOGLE_APPLICATION_CREDENTIALS") {
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).context(|| format!("cannot read {path}"))?;
                who(&text).context(|| format!("cannot use {path}"))?
            }
            None => match home().and_then(|path| std::fs::read_to_string(path).ok()) {
                Some(text) => who(&text)?,
                None => Who::Machine,
            },
        };
        let named = variable("GCE_METADATA_HOST").cloned();
        let mut tokens = Self {
            who,
            on_machine: false,
            machine: named.clone().unwrap_or_else(|| MACHINE.to_owned()),
            held: None,
            shim,
        };
        tokens.on_machine = named.is_some() || tokens.ask_machine("", GLANCE).is_ok();
        Ok(tokens)
    }

    pub(super) fn machine_answers(&self) -> bool {
        self.on_machine
    }

    /// What the machine says of itself.
    pub(super) fn machine(&self, path: &str) -> Result<String> {
        self.ask_machine(path, ANSWER)
    }

    pub(super) fn forget(&mut self) {
        self.held = None;
    }

    pub(super) fn token(&mut self) -> Result<String> {
        if let Some((token, until)) = &self.held
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let granted = match &self.who {
            Who::Machine => {
                let text = self.machine("instance/service-accounts/default/token")?;
                granted(text.as_bytes())?
            }
            Who::Service { email, key, key_id, uri } => {
                let assertion = assertion(email, key, key_id, uri)?;
                let form = format!(
                    "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}"
                );
                self.grant(uri, &form)?
            }
            Who::User { client, secret, refresh, uri } => {
                let form = format!(
                    "grant_type=refresh_token&client_id={}&client_secret={}&refresh_token={}",
                    escaped(client),
                    escaped(secret),
                    escaped(refresh)
                );
                self.grant(uri, &form)?
            }
        };
        let life = Duration::from_secs(granted.expires_in.saturating_sub(MARGIN));
        self.held = Some((granted.access_token.clone(), Instant::now() + life));
        Ok(granted.access_token)
    }

    fn grant(&self, uri: &str, form: &str) -> Result<Granted> {
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        let body = self.ask("POST", uri, &headers, form.as_bytes(), ANSWER)?;
        granted(&body)
    }

    fn ask_machine(&self, path: &str, patience: Duration) -> Result<String> {
        let uri = format!("http://{}/computeMetadata/v1/{path}", self.machine);
        let body = self.ask("GET", &uri, &[("Metadata-Flavor", "Google")], &[], patience)?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    fn ask(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        patience: Duration,
    ) -> Result<Vec<u8>> {
        let bad = || Error::invalid(format!("{uri} is no address"));
        let (target, path) = web(uri, bad)?;
        let request = Request { method, path, headers, body };
        let answer = http::ask(&target, &request, self.shim.deadline(patience), LONGEST_ANSWER)
            .map_err(Error::from)
            .context(|| format!("cannot ask {uri}"))?;
        match answer.status {
            200 => Ok(answer.body),
            status => Err(Error::unauthorized(format!(
                "{uri} answers {status}: {}",
                String::from_utf8_lossy(&answer.body)
            ))),
        }
    }
}

fn granted(body: &[u8]) -> Result<Granted> {
    serde_json::from_slice(body)
        .map_err(|error| Error::unavailable(format!("cannot understand the token: {error}")))
}

fn who(text: &str) -> Result<Who> {
    let file: File =
        serde_json::from_str(text).map_err(|error| Error::invalid(error.to_string()))?;
    let uri = if file.token_uri.is_empty() { TOKENS.to_owned() } else { file.token_uri };
    match file.r#type.as_str() {
        "service_account" => Ok(Who::Service {
            email: file.client_email,
            key: Box::new(private_key(&file.private_key)?),
            key_id: file.private_key_id,
            uri,
        }),
        "authorized_user" => Ok(Who::User {
            client: file.client_id,
            secret: file.client_secret,
            refresh: file.refresh_token,
            uri,
        }),
        other => Err(Error::invalid(format!("unknown credential type: {other:?}"))),
    }
}

/// PKCS #8, in PEM.
fn private_key(pem: &str) -> Result<RsaKeyPair> {
    let bad = || Error::invalid("private key should be a PEM or plain PKCS1 or PKCS8");
    let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = BASE64_STANDARD.decode(text.trim()).map_err(|_| bad())?;
    RsaKeyPair::from_pkcs8(&der).or_else(|_| RsaKeyPair::from_der(&der)).map_err(|_| bad())
}

/// A signed statement of who asks, for what, and until when.
fn assertion(email: &str, key: &RsaKeyPair, key_id: &str, uri: &str) -> Result<String> {
    let now = Timestamp::now().unix();
    let head = json!({ "alg": "RS256", "typ": "JWT", "kid": key_id });
    let claims = json!({ "iss": email, "scope": SCOPE, "aud": uri, "iat": now, "exp": now + 3600 });
    let part = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(head), part(claims));
    let mut signature = vec![0; key.public().modulus_len()];
    let random = ring::rand::SystemRandom::new();
    key.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
        .map_err(|_| Error::internal("cannot sign with the service account's key"))?;
    Ok(format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let user =
            r#"{"type":"authorized_user","client_id":"a","client_secret":"b","refresh_token":"c"}"#;
        assert!(matches!(who(user).unwrap(), Who::User { uri, .. } if uri == TOKENS));
        assert!(who(r#"{"type":"x"}"#).is_err());
        assert!(who(r#"{"type":"service_account","private_key":"x"}"#).is_err());
        assert_eq!(escaped("a/b c"), "a%2Fb%20c");
    }
}
