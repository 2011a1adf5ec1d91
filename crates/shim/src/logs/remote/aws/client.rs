//! CloudWatch Logs, asked.

use std::collections::BTreeMap;
use std::time::Duration;

use plugin::http::{self, Request, Target};
use serde::{Deserialize, Serialize};
use serde_json::json;
use stdx::time::Timestamp;
use stdx::{Error, Result};

use super::super::options::{given, web};
use super::super::{Shim, json};
use super::batch::Event;
use super::credentials::{Keys, Source};
use super::sign::{Signed, authorization};
use crate::logs::Config;

const SERVICE: &str = "logs";
const TARGET: &str = "Logs_20140328";
const ANSWER: Duration = Duration::from_secs(30);
const LONGEST_ANSWER: usize = 1 << 20;
const RETRIES: u32 = 3;

pub(super) struct Client<'a> {
    target: Target,
    region: String,
    group: String,
    stream: String,
    /// Events that are JSON with metrics in it.
    metrics: bool,
    environment: BTreeMap<String, String>,
    endpoint: Option<String>,
    keys: Option<Keys>,
    /// What the next batch must show, as long as the server wants to see one.
    sequence: Option<String>,
    shim: &'a Shim<'a>,
}

/// Why not.
struct Refusal {
    status: u16,
    code: String,
    message: String,
    request: String,
}

impl From<Refusal> for Error {
    /// In the SDK's words.
    fn from(refusal: Refusal) -> Self {
        let Refusal { status, code, message, request } = refusal;
        match status {
            0 => Self::unavailable(message),
            _ => Self::unavailable(format!(
                "{code}: {message}\n\tstatus code: {status}, request id: {request}"
            )),
        }
    }
}

impl<'a> Client<'a> {
    pub(super) fn of(config: &Config, shim: &'a Shim<'a>) -> Result<Self> {
        let options = &config.options;
        let source = Source { environment: &config.environment, endpoint: None, shim };
        let named = given(options, "awslogs-region")
            .or(config.environment.get("AWS_REGION").map(String::as_str))
            .filter(|region| !region.is_empty());
        let region = match named {
            Some(region) => region.to_owned(),
            None => source
                .region()
                .map_err(|_| Error::invalid("Cannot determine region for awslogs driver"))?,
        };
        let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
        let usual = format!("https://logs.{region}.amazonaws.com{suffix}");
        let text = given(options, "awslogs-endpoint").map_or(usual, |text| {
            if text.contains("://") { text.to_owned() } else { format!("https://{text}") }
        });
        let bad = || Error::invalid(format!("invalid awslogs-endpoint {text}"));
        let (target, _) = web(&text, bad)?;
        Ok(Self {
            target,
            region,
            group: given(options, "awslogs-group").unwrap_or_default().to_owned(),
            stream: given(options, "awslogs-stream").unwrap_or(&config.tag).to_owned(),
            metrics: given(options, "awslogs-format") == Some("json/emf"),
            environment: (*config.environment).clone(),
            endpoint: given(options, "awslogs-credentials-endpoint").map(str::to_owned),
            keys: None,
            sequence: None,
            shim,
        })
    }

    pub(super) fn create_stream(&mut self, with_group: bool) -> Result<()> {
        let body = json!({ "logGroupName": self.group, "logStreamName": self.stream });
        match self.create("CreateLogStream", &body) {
            Err(refusal) if with_group && refusal.code == "ResourceNotFoundException" => {
                self.create("CreateLogGroup", &json!({ "logGroupName": self.group }))?;
                Ok(self.create("CreateLogStream", &body)?)
            }
            outcome => Ok(outcome?),
        }
    }

    /// What is there already is as good.
    fn create(&mut self, action: &str, body: &serde_json::Value) -> Result<(), Refusal> {
        match self.call(action, body) {
            Err(refusal) if refusal.code == "ResourceAlreadyExistsException" => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    pub(super) fn put(&mut self, events: &[Event]) -> Result<()> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Put<'a> {
            log_events: &'a [Event],
            log_group_name: &'a str,
            log_stream_name: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            sequence_token: Option<String>,
        }
        let (group, stream) = (self.group.clone(), self.stream.clone());
        let put = |sequence_token| Put {
            log_events: events,
            log_group_name: &group,
            log_stream_name: &stream,
            sequence_token,
        };
        let answer = match self.call("PutLogEvents", &put(self.sequence.clone())) {
            // The right one is the last word of the complaint.
            Err(refusal) if refusal.code == "DataAlreadyAcceptedException" => {
                self.sequence = last_word(&refusal.message);
                return Ok(());
            }
            Err(refusal) if refusal.code == "InvalidSequenceTokenException" => {
                self.call("PutLogEvents", &put(last_word(&refusal.message)))?
            }
            outcome => outcome?,
        };
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Accepted {
            #[serde(default)]
            next_sequence_token: Option<String>,
        }
        let accepted = serde_json::from_slice::<Accepted>(&answer);
        self.sequence = accepted.ok().and_then(|accepted| accepted.next_sequence_token);
        Ok(())
    }

    fn call(&mut self, action: &str, body: &impl Serialize) -> Result<Vec<u8>, Refusal> {
        let body = json::text(body);
        let mut pause = Duration::from_millis(200);
        for _ in 0..RETRIES {
            match self.once(action, &body) {
                Err(refusal) if refusal.may_pass() && self.shim.goes_on() => {
                    self.shim.pause(pause);
                    pause *= 2;
                }
                outcome => return outcome,
            }
        }
        self.once(action, &body)
    }

    fn once(&mut self, action: &str, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let keys = self.keys()?;
        let at = amazons_time(Timestamp::now());
        let (host, target) = (self.target.host(), format!("{TARGET}.{action}"));
        let mut headers = vec![
            ("content-type", "application/x-amz-json-1.1"),
            ("host", host.as_str()),
            ("x-amz-date", at.as_str()),
        ];
        if let Some(token) = &keys.token {
            headers.push(("x-amz-security-token", token));
        }
        headers.push(("x-amz-target", &target));
        if self.metrics && action == "PutLogEvents" {
            headers.push(("x-amzn-logs-format", "json/emf"));
        }
        headers.sort_unstable();
        let signed = Signed {
            region: &self.region,
            service: SERVICE,
            path: "/",
            headers: &headers,
            body,
            at: &at,
        };
        let authorization = authorization(&signed, &keys);
        headers.retain(|(name, _)| *name != "host");
        headers.push(("authorization", &authorization));
        let request = Request { method: "POST", path: "/", headers: &headers, body };
        let deadline = self.shim.deadline(ANSWER);
        let answer = http::ask(&self.target, &request, deadline, LONGEST_ANSWER)
            .map_err(|broken| Refusal::silent(&Error::from(broken)))?;
        if answer.status == 200 {
            return Ok(answer.body);
        }
        Err(Refusal::of(&answer))
    }

    fn keys(&mut self) -> Result<Keys, Refusal> {
        if let Some(keys) = self.keys.clone().filter(|keys| !keys.are_old()) {
            return Ok(keys);
        }
        let source = Source {
            environment: &self.environment,
            endpoint: self.endpoint.as_deref(),
            shim: self.shim,
        };
        let keys = source.keys().map_err(|error| Refusal {
            code: "NoCredentialProviders".to_owned(),
            ..Refusal::silent(&error)
        })?;
        Ok(self.keys.insert(keys).clone())
    }
}

impl Refusal {
    fn silent(error: &Error) -> Self {
        Self { status: 0, code: String::new(), message: error.chain(), request: String::new() }
    }

    fn of(answer: &http::Answer) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Said {
            #[serde(rename = "__type")]
            kind: String,
            #[serde(alias = "Message")]
            message: String,
        }
        let said: Said = serde_json::from_slice(&answer.body).unwrap_or_default();
        let code = said.kind.rsplit('#').next().unwrap_or_default().to_owned();
        Self { status: answer.status, code, message: said.message, request: String::new() }
    }

    /// Nobody heard, or was too busy.
    fn may_pass(&self) -> bool {
        (self.status == 0 && self.code.is_empty())
            || self.status >= 500
            || self.code.contains("Throttl")
    }
}

fn last_word(text: &str) -> Option<String> {
    text.split_whitespace().next_back().filter(|word| *word != "null").map(str::to_owned)
}

/// `20261121T100000Z`
fn amazons_time(at: Timestamp) -> String {
    at.to_string().chars().filter(|c| !matches!(c, '-' | ':')).take(15).chain(['Z']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let at = Timestamp::parse("2026-11-21T10:00:05.5Z").unwrap();
        assert_eq!(amazons_time(at), "20261121T100005Z");
    }

    #[test]
    fn refusals() {
        let answer = http::Answer {
            status: 400,
            reason: String::new(),
            body: br#"{"__type":"com.amazonaws#InvalidSequenceTokenException","message":"The next is: 7"}"#
                .to_vec(),
        };
        let refusal = Refusal::of(&answer);
        assert_eq!(refusal.code, "InvalidSequenceTokenException");
        assert!(!refusal.may_pass());
        assert_eq!(last_word(&refusal.message).as_deref(), Some("7"));
        assert_eq!(last_word("is: null"), None);
    }
}
