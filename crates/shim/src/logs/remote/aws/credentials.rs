//! Who we are to Amazon: what the environment says, a file, the endpoint of a task, or the machine's own service, in that
//! order.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use plugin::Address;
use plugin::http::{self, Request, Target};
use serde::Deserialize;
use stdx::time::Timestamp;
use stdx::{Context, Error, Result};

use super::super::Shim;
use super::super::options::{host_and_port, url};

const TASK_HOST: &str = "http://169.254.170.2";
const MACHINE_HOST: &str = "http://169.254.169.254";
const ANSWER: Duration = Duration::from_secs(5);
const LONGEST_ANSWER: usize = 64 << 10;
/// Keys are renewed before they end.
const MARGIN: Duration = Duration::from_secs(300);

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) id: String,
    pub(super) secret: String,
    pub(super) token: Option<String>,
    pub(super) until: Option<Timestamp>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Keys {
    pub(super) fn are_old(&self) -> bool {
        let margin = i128::try_from(MARGIN.as_nanos()).unwrap_or(0);
        self.until.is_some_and(|until| Timestamp::now().unix_nanos() + margin > until.unix_nanos())
    }
}

/// Where keys come from.
pub(super) struct Source<'a> {
    pub(super) environment: &'a BTreeMap<String, String>,
    /// `awslogs-credentials-endpoint`: a path at the endpoint of tasks, and then the only source.
    pub(super) endpoint: Option<&'a str>,
    pub(super) shim: &'a Shim<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    expiration: Option<String>,
}

impl Source<'_> {
    fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    pub(super) fn keys(&self) -> Result<Keys> {
        if let Some(path) = self.endpoint {
            return self.of_endpoint(TASK_HOST, path);
        }
        if let Some(keys) = self.of_environment() {
            return Ok(keys);
        }
        if let Some(keys) = self.of_file() {
            return Ok(keys);
        }
        let found = match (
            self.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
            self.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        ) {
            (Some(path), _) => self.of_endpoint(TASK_HOST, path),
            (None, Some(uri)) => self.of_endpoint(uri, ""),
            (None, None) => self.of_machine(),
        };
        // The SDK's words, whatever was the matter with the last source.
        found.map_err(|error| {
            Error::unauthorized("NoCredentialProviders: no valid providers in chain")
                .caused_by(error)
        })
    }

    fn of_environment(&self) -> Option<Keys> {
        let id = self.variable("AWS_ACCESS_KEY_ID").or(self.variable("AWS_ACCESS_KEY"))?;
        let secret = self.variable("AWS_SECRET_ACCESS_KEY").or(self.variable("AWS_SECRET_KEY"))?;
        let token = self.variable("AWS_SESSION_TOKEN").map(str::to_owned);
        Some(Keys { id: id.to_owned(), secret: secret.to_owned(), token, until: None })
    }

    fn of_file(&self) -> Option<Keys> {
        let path = self.variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
        let home = || Some(PathBuf::from(self.variable("HOME")?).join(".aws/credentials"));
        let text = std::fs::read_to_string(path.or_else(home)?).ok()?;
        of_profile(&text, self.variable("AWS_PROFILE").unwrap_or("default"))
    }

    fn of_endpoint(&self, host: &str, path: &str) -> Result<Keys> {
        let token = self.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN");
        let headers: Vec<_> = token.map(|token| ("Authorization", token)).into_iter().collect();
        understood(&self.get("GET", &format!("{host}{path}"), &headers)?)
    }

    fn of_machine(&self) -> Result<Keys> {
        let token = self.machine_token();
        let token = token.as_deref().unwrap_or_default();
        let place = "/latest/meta-data/iam/security-credentials/";
        let role = self.machine(place, token)?;
        let role = role.lines().next().unwrap_or_default().trim();
        understood(self.machine(&format!("{place}{role}"), token)?.as_bytes())
    }

    /// What this machine is called in Amazon's regions.
    pub(super) fn region(&self) -> Result<String> {
        let token = self.machine_token().unwrap_or_default();
        let zone = self.machine("/latest/dynamic/instance-identity/document", &token)?;
        #[derive(Deserialize)]
        struct Document {
            region: String,
        }
        let document: Document =
            serde_json::from_str(&zone).map_err(|error| Error::unavailable(error.to_string()))?;
        Ok(document.region)
    }

    /// Of the service's second version; the first one wants none.
    fn machine_token(&self) -> Result<String> {
        let headers = [("X-aws-ec2-metadata-token-ttl-seconds", "21600")];
        let uri = format!("{}/latest/api/token", self.machine_host());
        Ok(String::from_utf8_lossy(&self.get("PUT", &uri, &headers)?).into_owned())
    }

    fn machine(&self, path: &str, token: &str) -> Result<String> {
        let headers = [("X-aws-ec2-metadata-token", token)];
        let headers = if token.is_empty() { &[][..] } else { &headers };
        let body = self.get("GET", &format!("{}{path}", self.machine_host()), headers)?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    fn machine_host(&self) -> &str {
        let host = self.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or(MACHINE_HOST);
        host.trim_end_matches('/')
    }

    fn get(&self, method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<Vec<u8>> {
        let bad = || Error::invalid(format!("{uri} is no address"));
        let parsed = url(uri).filter(|url| url.scheme == "http").ok_or_else(bad)?;
        let (host, port) = host_and_port(parsed.authority).unwrap_or((parsed.authority, 80));
        let address = Address::Tcp { host: host.to_owned(), port, tls: None };
        let target = Target { address, tls: None, name: None };
        let begin = uri.find("://").map_or(0, |at| at + 3) + parsed.authority.len();
        let path = if uri.len() > begin { &uri[begin..] } else { "/" };
        let request = Request { method, path, headers, body: &[] };
        let deadline: Instant = self.shim.deadline(ANSWER);
        let answer = http::ask(&target, &request, deadline, LONGEST_ANSWER)
            .map_err(Error::from)
            .context(|| format!("cannot ask {uri}"))?;
        match answer.status {
            200 => Ok(answer.body),
            status => Err(Error::unavailable(format!("{uri} answers {status}"))),
        }
    }
}

fn understood(body: &[u8]) -> Result<Keys> {
    let answer: Answer = serde_json::from_slice(body).map_err(|error| {
        Error::unavailable(format!("cannot understand the credentials: {error}"))
    })?;
    Ok(Keys {
        id: answer.access_key_id,
        secret: answer.secret_access_key,
        token: answer.token.filter(|token| !token.is_empty()),
        until: answer.expiration.and_then(|text| Timestamp::parse(&text).ok()),
    })
}

/// Of a file of several profiles.
fn of_profile(text: &str, wanted: &str) -> Option<Keys> {
    let mut inside = false;
    let mut values = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = name.trim() == wanted;
        } else if let (true, Some((name, value))) = (inside, line.split_once('=')) {
            values.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    Some(Keys {
        id: values.remove("aws_access_key_id")?,
        secret: values.remove("aws_secret_access_key")?,
        token: values.remove("aws_session_token"),
        until: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles() {
        let text = "[default]\naws_access_key_id = a\naws_secret_access_key=b=c\n\n[other]\naws_access_key_id=d\n\
                    aws_secret_access_key = e\naws_session_token = f\n";
        let keys = of_profile(text, "default").unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.as_str(), keys.token), ("a", "b=c", None));
        let keys = of_profile(text, "other").unwrap();
        assert_eq!(keys.token.as_deref(), Some("f"));
        assert!(of_profile(text, "third").is_none());
        assert_eq!(format!("{keys:?}"), "Keys { id: \"d\", .. }");
    }

    #[test]
    fn answers() {
        let body = br#"{"AccessKeyId":"a","SecretAccessKey":"b","Token":"c","Expiration":"2020-01-01T00:00:00Z"}"#;
        let keys = understood(body).unwrap();
        assert!(keys.are_old());
        assert!(understood(b"{}").is_err());
    }
}
