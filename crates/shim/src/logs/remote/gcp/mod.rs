//! `gcplogs`: lines as entries of Google Cloud Logging.

mod token;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use plugin::http::{self, Request, Target};
use serde::Serialize;
use serde_json::json;
use stdx::{Context, Error, Result};
use token::Tokens;

use super::frame::{Message, random_id};
use super::options::{Options, given, web};
use super::{Driver, Shim, json};
use crate::logs::Config;

const HOST: &str = "https://logging.googleapis.com";
const LOG: &str = "gcplogs-docker-driver";
const EVERY: Duration = Duration::from_secs(1);
const BATCH: usize = 1000;
const BATCH_BYTES: usize = 1 << 20;
/// What may wait for a server that does not take it.
const MOST_BYTES: usize = 32 << 20;
const ANSWER: Duration = Duration::from_secs(30);
const LONGEST_ANSWER: usize = 1 << 20;

pub(super) fn check(options: &Options) -> Result<()> {
    /// The last is ours: a private endpoint, as `awslogs-endpoint` is one.
    const OWN: [&str; 6] = [
        "gcp-project",
        "gcp-log-cmd",
        "gcp-meta-zone",
        "gcp-meta-name",
        "gcp-meta-id",
        "gcp-endpoint",
    ];
    match options.keys().find(|key| !OWN.contains(&key.as_str())) {
        Some(key) => {
            Err(Error::invalid(format!("{key:?} is not a valid option for the gcplogs driver")))
        }
        None => Ok(()),
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Instance {
    #[serde(skip_serializing_if = "String::is_empty")]
    zone: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    image_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    image_id: String,
    created: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    command: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Payload<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a Instance>,
    container: &'a Container,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    timestamp: String,
    /// So that what is sent twice is kept once.
    insert_id: String,
    json_payload: Payload<'a>,
}

pub(super) struct Gcplogs<'a> {
    target: Target,
    project: String,
    instance: Option<Instance>,
    container: Container,
    tokens: Tokens<'a>,
    shim: &'a Shim<'a>,
    queue: Vec<Vec<u8>>,
    bytes: usize,
    since: Instant,
    lost: u64,
}

impl<'a> Gcplogs<'a> {
    pub(super) fn open(config: &Config, shim: &'a Shim<'a>) -> Result<Self> {
        let options = &config.options;
        let tokens = Tokens::of(&config.environment, shim)?;
        let named = given(options, "gcp-project").map(str::to_owned);
        let on_google = tokens.machine_answers();
        let of_machine = |path: &str| tokens.machine(path).unwrap_or_default();
        let project = match named {
            Some(project) => project,
            None if on_google => of_machine("project/project-id"),
            None => String::new(),
        };
        if project.is_empty() {
            return Err(Error::invalid(
                "No project was specified and couldn't read project from the metadata server. Please specify a project",
            ));
        }
        let text = |name: &str| options.get(name).cloned().unwrap_or_default();
        let instance = match on_google {
            true => Instance {
                zone: of_machine("instance/zone").rsplit('/').next().unwrap_or_default().to_owned(),
                name: of_machine("instance/name"),
                id: of_machine("instance/id"),
            },
            false => Instance {
                zone: text("gcp-meta-zone"),
                name: text("gcp-meta-name"),
                id: text("gcp-meta-id"),
            },
        };
        let who = &config.identity;
        let mut driver = Self {
            target: target(given(options, "gcp-endpoint").unwrap_or(HOST))?,
            project,
            instance: Some(instance).filter(|instance| *instance != Instance::default()),
            container: Container {
                name: format!("/{}", who.name),
                id: who.id.clone(),
                image_name: who.image.clone(),
                image_id: who.image_id.clone(),
                created: who.created.to_string(),
                command: match text("gcp-log-cmd") == "true" {
                    true => who.command(),
                    false => String::new(),
                },
                metadata: config.attrs.clone(),
            },
            tokens,
            shim,
            queue: Vec::new(),
            bytes: 0,
            since: Instant::now(),
            lost: 0,
        };
        driver
            .ping()
            .context(|| "unable to connect or authenticate with Google Cloud Logging".to_owned())?;
        Ok(driver)
    }

    /// One entry in a log of its own, always the same.
    fn ping(&mut self) -> Result<()> {
        let body = json!({ "entries": [{
            "logName": format!("projects/{}/logs/ping", self.project),
            "resource": { "type": "global" },
            "timestamp": "1970-01-01T00:00:00Z",
            "insertId": "ping",
            "textPayload": "ping",
        }]});
        self.write(&json::text(&body))
    }

    fn write(&mut self, body: &[u8]) -> Result<()> {
        let authorization = format!("Bearer {}", self.tokens.token()?);
        let headers =
            [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
        let request =
            Request { method: "POST", path: "/v2/entries:write", headers: &headers, body };
        let answer = http::ask(&self.target, &request, self.shim.deadline(ANSWER), LONGEST_ANSWER)?;
        if answer.status == 200 {
            return Ok(());
        }
        if answer.status == 401 {
            self.tokens.forget();
        }
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        Err(Error::unavailable(format!("{} {}: {said}", answer.status, answer.reason)))
    }

    fn resource(&self) -> serde_json::Value {
        match &self.instance {
            Some(Instance { id, zone, .. }) => json!({
                "type": "gce_instance",
                "labels": { "instance_id": id, "zone": zone },
            }),
            None => json!({ "type": "global", "labels": { "project_id": self.project } }),
        }
    }

    fn post(&mut self) {
        self.since = Instant::now();
        while !self.queue.is_empty() {
            let mut bytes = 0;
            let fits = |entry: &&Vec<u8>| {
                bytes += entry.len();
                bytes <= BATCH_BYTES
            };
            let count = self.queue.iter().take(BATCH).take_while(fits).count().max(1);
            let head = json!({
                "logName": format!("projects/{}/logs/{LOG}", self.project),
                "resource": self.resource(),
                "partialSuccess": true,
            });
            let mut body = json::text(&head);
            body.pop();
            body.extend_from_slice(b",\"entries\":[");
            body.extend_from_slice(&self.queue[..count].join(&b','));
            body.extend_from_slice(b"]}");
            if self.write(&body).is_err() {
                return;
            }
            self.forget(count);
        }
    }

    fn forget(&mut self, count: usize) {
        self.bytes -= self.queue.drain(..count).map(|entry| entry.len()).sum::<usize>();
    }
}

fn target(endpoint: &str) -> Result<Target> {
    let bad = || Error::invalid(format!("invalid gcp-endpoint {endpoint}"));
    web(endpoint, bad).map(|(target, _)| target)
}

impl Driver for Gcplogs<'_> {
    fn log(&mut self, message: &Message<'_>) {
        let text = message.text();
        let entry = json::text(&Entry {
            timestamp: message.timestamp().to_string(),
            insert_id: random_id().chars().take(20).collect(),
            json_payload: Payload {
                instance: self.instance.as_ref(),
                container: &self.container,
                message: &text,
            },
        });
        if self.bytes + entry.len() > MOST_BYTES {
            self.lost += 1;
            return;
        }
        self.bytes += entry.len();
        self.queue.push(entry);
        if self.queue.len().is_multiple_of(BATCH) {
            self.post();
        }
    }

    fn due(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then(|| self.since + EVERY)
    }

    fn tick(&mut self) {
        self.post();
    }

    fn close(&mut self) {
        self.post();
        self.lost += self.queue.len() as u64;
    }

    fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals() {
        let options = [("labels-x".to_owned(), String::new())].into();
        let words = "\"labels-x\" is not a valid option for the gcplogs driver";
        assert_eq!(check(&options).unwrap_err().chain(), words);
        assert!(target("logging.googleapis.com").is_err());
        assert_eq!(target("http://h:1").unwrap().host(), "h:1");
    }
}
