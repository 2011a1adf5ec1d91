//! `splunk`: lines as events of Splunk's HTTP collector, a thousand or five seconds at a time.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::str::FromStr;
use std::time::{Duration, Instant};

use ::plugin::http::{self, Request, Target};
use ::plugin::{Address, TlsFiles};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::value::RawValue;
use stdx::{Context, Error, Result, duration};

use super::frame::{Message, random_uuid};
use super::options::{Options, boolean, host_and_port, url};
use super::{Driver, Shim, json};
use crate::logs::Config;

const PATH: &str = "/services/collector/event/1.0";
const EVERY: Duration = Duration::from_secs(5);
const BATCH: usize = 1000;
/// Messages that may wait for a server that does not take them.
const MOST: usize = 10 * BATCH;
/// …and their bytes.
const MOST_BYTES: usize = 32 << 20;
const SEND: Duration = Duration::from_secs(30);
const LONGEST_ANSWER: usize = 64 << 10;

pub(super) fn check(options: &Options) -> Result<()> {
    const OWN: [&str; 13] = [
        "splunk-url",
        "splunk-token",
        "splunk-source",
        "splunk-sourcetype",
        "splunk-index",
        "splunk-capath",
        "splunk-caname",
        "splunk-insecureskipverify",
        "splunk-format",
        "splunk-verify-connection",
        "splunk-gzip",
        "splunk-gzip-level",
        "splunk-index-acknowledgment",
    ];
    match options.keys().find(|key| !OWN.contains(&key.as_str())) {
        Some(key) => Err(Error::invalid(format!("unknown log opt '{key}' for splunk log driver"))),
        None => Ok(()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Inline,
    Json,
    Raw,
}

pub(super) struct Splunk<'a> {
    server: Server,
    shim: &'a Shim<'a>,
    format: Format,
    envelope: Envelope,
    tag: String,
    attrs: BTreeMap<String, String>,
    /// Before each line that goes as it is.
    prefix: String,
    every: Duration,
    batch: usize,
    most: usize,
    queue: VecDeque<Vec<u8>>,
    bytes: usize,
    since: Instant,
    lost: u64,
}

/// Where events go, and how.
struct Server {
    target: Target,
    auth: String,
    /// Of a collector that acknowledges what it has indexed.
    channel: Option<String>,
    gzip: Option<Compression>,
}

/// What is around every event.
#[derive(Clone, Default)]
struct Envelope {
    host: String,
    source: String,
    source_type: String,
    index: String,
}

#[derive(Serialize)]
struct Posted<'a, E: Serialize> {
    event: E,
    time: String,
    host: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    source: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    sourcetype: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    index: &'a str,
}

#[derive(Serialize)]
struct Event<'a> {
    line: Line<'a>,
    source: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    tag: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attrs: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

impl<'a> Splunk<'a> {
    pub(super) fn open(config: &Config, shim: &'a Shim<'a>) -> Result<Self> {
        let options = &config.options;
        let text = |name: &str| options.get(name).cloned().unwrap_or_default();
        let server = Server::of(options)?;
        let format = match options.get("splunk-format").map(String::as_str) {
            None | Some("inline") => Format::Inline,
            Some("json") => Format::Json,
            Some("raw") => Format::Raw,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "unknown format specified {other}, supported formats are inline, json and raw"
                )));
            }
        };
        if options.get("splunk-verify-connection").map_or(Ok(true), |text| boolean(text))? {
            server.verify(shim)?;
        }
        let mut prefix = String::new();
        if !config.tag.is_empty() {
            prefix = format!("{} ", config.tag);
        }
        for (name, value) in &config.attrs {
            prefix.push_str(&format!("{name}={value} "));
        }
        let advanced = |name: &str| {
            config.environment.get(&format!("SPLUNK_LOGGING_DRIVER_{name}")).map(String::as_str)
        };
        let count = |name: &str, otherwise: usize| {
            advanced(name)
                .and_then(|text| usize::from_str(text).ok())
                .filter(|count| *count > 0)
                .unwrap_or(otherwise)
        };
        Ok(Self {
            server,
            shim,
            format,
            envelope: Envelope {
                host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
                source: text("splunk-source"),
                source_type: text("splunk-sourcetype"),
                index: text("splunk-index"),
            },
            tag: config.tag.clone(),
            attrs: config.attrs.clone(),
            prefix,
            every: advanced("POST_MESSAGES_FREQUENCY")
                .and_then(|text| duration::parse(text).ok())
                .unwrap_or(EVERY),
            batch: count("POST_MESSAGES_BATCH_SIZE", BATCH),
            most: count("BUFFER_MAX", MOST),
            queue: VecDeque::new(),
            bytes: 0,
            since: Instant::now(),
            lost: 0,
        })
    }

    fn posted<E: Serialize>(&self, event: E, message: &Message<'_>) -> Vec<u8> {
        let Envelope { host, source, source_type, index } = &self.envelope;
        // A float has not more digits than these for times of ours.
        let time = format!("{:.6}", message.unix_nanos() as f64 / 1e9);
        json::text(&Posted { event, time, host, source, sourcetype: source_type, index })
    }

    /// `None` is nothing that the collector takes.
    fn encode(&self, message: &Message<'_>) -> Option<Vec<u8>> {
        let text = message.text();
        let event =
            |line| Event { line, source: message.source(), tag: &self.tag, attrs: &self.attrs };
        Some(match self.format {
            Format::Inline => self.posted(event(Line::Text(&text)), message),
            Format::Json => match serde_json::from_slice::<&RawValue>(message.line) {
                Ok(raw) => self.posted(event(Line::Json(raw)), message),
                Err(_) => self.posted(event(Line::Text(&text)), message),
            },
            Format::Raw if text.trim().is_empty() => return None,
            Format::Raw => self.posted(format!("{}{text}", self.prefix), message),
        })
    }

    /// Posts batch by batch, until one is not taken.
    fn post(&mut self) {
        self.since = Instant::now();
        while !self.queue.is_empty() {
            let count = self.queue.len().min(self.batch);
            if self.server.post(self.queue.range(..count), self.shim).is_ok() {
                self.forget(count);
                continue;
            }
            if self.queue.len() >= self.most || self.bytes > MOST_BYTES {
                self.forget(count);
                self.lost += count as u64;
            }
            return;
        }
    }

    fn forget(&mut self, count: usize) {
        self.bytes -= self.queue.drain(..count).map(|message| message.len()).sum::<usize>();
    }
}

impl Server {
    fn of(options: &Options) -> Result<Self> {
        const URL: &str = "splunk-url";
        let expected = |name: &str| Error::invalid(format!("splunk: {name} is expected"));
        let text = options.get(URL).ok_or_else(|| expected(URL))?;
        let bad = || {
            Error::invalid(format!(
                "splunk: expected format scheme://dns_name_or_ip:port for {URL}"
            ))
        };
        let url = url(text).ok_or_else(bad)?;
        let encrypted = match url.scheme {
            "https" => true,
            "http" => false,
            _ => return Err(bad()),
        };
        if url.query || !matches!(url.path, "" | "/") || url.authority.is_empty() {
            return Err(bad());
        }
        let (host, port) = match host_and_port(url.authority) {
            Some(found) => found,
            None if url.authority.contains(':') && !url.authority.ends_with(']') => {
                return Err(bad());
            }
            None => (url.authority.trim_matches(['[', ']']), if encrypted { 443 } else { 80 }),
        };
        let token = options.get("splunk-token").ok_or_else(|| expected("splunk-token"))?;
        let on = |name: &str| options.get(name).map_or(Ok(false), |text| boolean(text));
        let files = TlsFiles {
            trusts_anybody: on("splunk-insecureskipverify")?,
            ca: options.get("splunk-capath").map(Into::into).unwrap_or_default(),
            ..TlsFiles::default()
        };
        let tls = encrypted.then(|| ::plugin::tls::config(&files)).transpose()?;
        let gzip = on("splunk-gzip")?;
        let level = gzip_level(options)?;
        let channel = on("splunk-index-acknowledgment")?.then(random_uuid);
        let address = Address::Tcp { host: host.to_owned(), port, tls: encrypted.then_some(files) };
        Ok(Self {
            target: Target { address, tls, name: options.get("splunk-caname").cloned() },
            auth: format!("Splunk {token}"),
            channel,
            gzip: gzip.then_some(level),
        })
    }

    /// Whether there is a collector.
    fn verify(&self, shim: &Shim<'_>) -> Result<()> {
        let request = Request { method: "OPTIONS", path: PATH, headers: &[], body: &[] };
        let scheme = if self.target.tls.is_some() { "https" } else { "http" };
        let answer = http::ask(&self.target, &request, shim.deadline(SEND), LONGEST_ANSWER)
            .map_err(Error::from)
            .context(|| format!("Options \"{scheme}://{}{PATH}\"", self.target.host()))?;
        if answer.status == 200 {
            return Ok(());
        }
        Err(refused("failed to verify connection", &answer))
    }

    fn post<'a>(&self, messages: impl Iterator<Item = &'a Vec<u8>>, shim: &Shim<'_>) -> Result<()> {
        let mut body = messages.flatten().copied().collect::<Vec<u8>>();
        let mut headers = vec![("Authorization", self.auth.as_str())];
        if let Some(level) = self.gzip {
            headers.push(("Content-Encoding", "gzip"));
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(&body)?;
            body = encoder.finish()?;
        }
        if let Some(channel) = &self.channel {
            headers.push(("X-Splunk-Request-Channel", channel));
        }
        let request = Request { method: "POST", path: PATH, headers: &headers, body: &body };
        let answer = http::ask(&self.target, &request, shim.deadline(SEND), LONGEST_ANSWER)?;
        if answer.status == 200 { Ok(()) } else { Err(refused("failed to send event", &answer)) }
    }
}

fn refused(what: &str, answer: &http::Answer) -> Error {
    let body = String::from_utf8_lossy(&answer.body);
    Error::unavailable(format!("splunk: {what} - {} {} - {body}", answer.status, answer.reason))
}

fn gzip_level(options: &Options) -> Result<Compression> {
    const NAME: &str = "splunk-gzip-level";
    let Some(text) = options.get(NAME) else { return Ok(Compression::default()) };
    let level: i32 = text.parse().map_err(|_| {
        Error::invalid(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
    })?;
    match level {
        -1 => Ok(Compression::default()),
        0..=9 => Ok(Compression::new(level.unsigned_abs())),
        _ => Err(Error::invalid(format!(
            "not supported level '{text}' for {NAME} (supported values between -1 and 9)"
        ))),
    }
}

impl Driver for Splunk<'_> {
    fn log(&mut self, message: &Message<'_>) {
        let Some(encoded) = self.encode(message) else { return };
        self.bytes += encoded.len();
        self.queue.push_back(encoded);
        // Exactly then: a batch that was not taken is not offered again with every line.
        if self.queue.len().is_multiple_of(self.batch) || self.bytes > MOST_BYTES {
            self.post();
        }
    }

    fn due(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then(|| self.since + self.every)
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

    fn server(pairs: &[(&str, &str)]) -> Result<Server, String> {
        let options =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Server::of(&options).map_err(|error| error.chain())
    }

    #[test]
    fn servers() {
        let token = ("splunk-token", "t");
        let found = server(&[("splunk-url", "https://h:8088"), token]).unwrap();
        assert!(found.target.tls.is_some() && found.target.host() == "h:8088");
        assert_eq!(found.auth, "Splunk t");
        let refusal = |pairs: &[(&str, &str)]| server(pairs).err().unwrap();
        assert_eq!(refusal(&[]), "splunk: splunk-url is expected");
        let url = ("splunk-url", "http://h:1");
        assert_eq!(refusal(&[url]), "splunk: splunk-token is expected");
        for bad in ["h:1", "http://h:1/path", "http://h:1?x", "ftp://h"] {
            let words = "splunk: expected format scheme://dns_name_or_ip:port for splunk-url";
            assert_eq!(refusal(&[("splunk-url", bad), token]), words, "{bad}");
        }
        let level = refusal(&[url, token, ("splunk-gzip-level", "10")]);
        assert_eq!(
            level,
            "not supported level '10' for splunk-gzip-level (supported values between -1 and 9)"
        );
    }
}
