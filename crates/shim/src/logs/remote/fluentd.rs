//! `fluentd`: each line an event of the forward protocol, over TCP, TLS or a local socket.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use stdx::{Context, Error, Result, duration, units};

use super::frame::{Message, random};
use super::options::{Options, flag, given, host_and_port, url};
use super::wire::{Place, Wire};
use super::{Driver, Shim, msgpack};
use crate::logs::Config;

const PORT: u16 = 24224;
/// Events that may wait while the server cannot be reached and the container does not wait.
const EVENTS: i64 = 1 << 20;
/// …and their bytes: a million events of 16 KiB are nothing that a log may cost.
const BYTES: usize = 32 << 20;
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// How the pause grows from one attempt to the next.
const GROWTH: f64 = 1.5;

/// What the options say.
struct Settings {
    location: Location,
    asynchronous: bool,
    reconnect: Duration,
    events: i64,
    retry: Duration,
    retries: u64,
    precise: bool,
    acknowledged: bool,
    write: Option<Duration>,
    read: Option<Duration>,
}

#[derive(Debug, PartialEq, Eq)]
enum Location {
    Unix(PathBuf),
    Unixgram(PathBuf),
    Tcp { host: String, port: u16 },
    Tls { host: String, port: u16 },
}

pub(super) fn check(options: &Options) -> Result<()> {
    const OWN: [&str; 11] = [
        "fluentd-address",
        "fluentd-async",
        "fluentd-async-connect",
        "fluentd-async-reconnect-interval",
        "fluentd-buffer-limit",
        "fluentd-max-retries",
        "fluentd-request-ack",
        "fluentd-retry-wait",
        "fluentd-sub-second-precision",
        "fluentd-write-timeout",
        "fluentd-read-timeout",
    ];
    if let Some(key) = options.keys().find(|key| !OWN.contains(&key.as_str())) {
        return Err(Error::invalid(format!("unknown log opt '{key}' for fluentd log driver")));
    }
    Settings::read(options).map(drop)
}

/// Whether the container is never to wait for the server.
pub(in crate::logs) fn never_waits(options: &Options) -> bool {
    let on = |name| flag(options, name, false).unwrap_or(false);
    on("fluentd-async") || on("fluentd-async-connect")
}

impl Settings {
    fn read(options: &Options) -> Result<Self> {
        let events = given(options, "fluentd-buffer-limit").map(units::ram_in_bytes).transpose()?;
        let retry = given(options, "fluentd-retry-wait").map(duration::parse).transpose()?;
        let retries = given(options, "fluentd-max-retries").map(unsigned).transpose()?;
        if given(options, "fluentd-async").is_some()
            && given(options, "fluentd-async-connect").is_some()
        {
            return Err(Error::invalid(
                "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect",
            ));
        }
        let asynchronous = flag(options, "fluentd-async", false)?;
        let connects_later = flag(options, "fluentd-async-connect", false)?;
        Ok(Self {
            location: Location::parse(given(options, "fluentd-address"))?,
            asynchronous: asynchronous || connects_later,
            reconnect: reconnect(options)?,
            events: events.unwrap_or(EVENTS),
            retry: retry.unwrap_or(RETRY),
            retries: retries.unwrap_or(u64::from(i32::MAX.unsigned_abs())),
            precise: flag(options, "fluentd-sub-second-precision", false)?,
            acknowledged: flag(options, "fluentd-request-ack", false)?,
            write: timeout(options, "fluentd-write-timeout")?,
            read: timeout(options, "fluentd-read-timeout")?,
        })
    }
}

fn unsigned(text: &str) -> Result<u64> {
    text.parse()
        .map_err(|_| Error::invalid(format!("strconv.ParseUint: parsing {text:?}: invalid syntax")))
}

fn reconnect(options: &Options) -> Result<Duration> {
    const NAME: &str = "fluentd-async-reconnect-interval";
    let Some(text) = given(options, NAME) else { return Ok(Duration::ZERO) };
    let words = || format!("invalid value for {NAME}");
    let outside = |text: &str| {
        Error::invalid(format!("{}: value ({text:?}) must be between 100ms and 10s", words()))
    };
    if text.starts_with('-') && duration::parse(&text[1..]).is_ok() {
        return Err(outside(text));
    }
    let interval = duration::parse(text).context(words)?;
    let bounds = Duration::from_millis(100)..=Duration::from_secs(10);
    if interval.is_zero() || bounds.contains(&interval) {
        return Ok(interval);
    }
    Err(outside(text))
}

fn timeout(options: &Options, name: &str) -> Result<Option<Duration>> {
    let Some(text) = given(options, name) else { return Ok(None) };
    let limit = duration::parse(text).context(|| format!("invalid value for {name}"))?;
    Ok(Some(limit).filter(|limit| !limit.is_zero()))
}

impl Location {
    fn parse(address: Option<&str>) -> Result<Self> {
        let Some(given) = address else {
            return Ok(Self::Tcp { host: "127.0.0.1".to_owned(), port: PORT });
        };
        let bad = |why: &str| {
            Error::invalid(format!("invalid fluentd-address {given}"))
                .caused_by(Error::invalid(why))
        };
        let (scheme, address) = match url(given) {
            Some(url) if matches!(url.scheme, "unix" | "unixgram") => {
                if url.path.is_empty() {
                    return Err(bad("path is empty"));
                }
                let path = PathBuf::from(url.path);
                return Ok(if url.scheme == "unix" {
                    Self::Unix(path)
                } else {
                    Self::Unixgram(path)
                });
            }
            Some(url) if matches!(url.scheme, "tcp" | "tls") => {
                if !matches!(url.path, "" | "/") || url.query {
                    return Err(bad("should not contain a path element"));
                }
                (url.scheme, url.authority)
            }
            Some(url) => {
                let why = format!("unsupported scheme: '{}'", url.scheme);
                return Err(bad(&why));
            }
            None => ("tcp", given),
        };
        let (host, port) = match host_and_port(address) {
            Some((host, port)) => (host, port),
            None if address.matches(':').count() > 1 && !address.starts_with('[') => {
                return Err(bad(&format!("address {address}: too many colons in address")));
            }
            None if address.contains(':') && !address.ends_with(']') => {
                let port = address.rsplit(':').next().unwrap_or_default();
                return Err(bad(&format!("strconv.Atoi: parsing {port:?}: invalid syntax")));
            }
            None => (address.trim_matches(['[', ']']), PORT),
        };
        let host = if host.is_empty() { "127.0.0.1" } else { host }.to_owned();
        Ok(if scheme == "tls" { Self::Tls { host, port } } else { Self::Tcp { host, port } })
    }

    fn place(&self) -> Result<Place> {
        Ok(match self {
            Self::Unix(path) => Place::Unix(path.clone()),
            Self::Unixgram(path) => Place::Unixgram(path.clone()),
            Self::Tcp { host, port } => Place::Tcp { host: host.clone(), port: *port },
            Self::Tls { host, port } => {
                let config = tls::client(tls::Trust::System, None)
                    .map_err(|error| Error::internal(error.to_string()))?;
                Place::Tls { host: host.clone(), port: *port, config: config.into() }
            }
        })
    }
}

pub(super) struct Fluentd<'a> {
    settings: Settings,
    place: Place,
    shim: &'a Shim<'a>,
    tag: String,
    /// What every event says.
    fields: BTreeMap<String, String>,
    wire: Option<(Wire, Instant)>,
    queue: VecDeque<Event>,
    bytes: usize,
    /// Attempts that failed one after the other, and when the next is due.
    failed: u64,
    again: Instant,
    lost: u64,
}

struct Event {
    bytes: Vec<u8>,
    chunk: Option<String>,
}

impl<'a> Fluentd<'a> {
    pub(super) fn open(config: &Config, shim: &'a Shim<'a>) -> Result<Self> {
        let settings = Settings::read(&config.options)?;
        let place = settings.location.place()?;
        let mut fields = BTreeMap::from([
            ("container_id".to_owned(), config.identity.id.clone()),
            ("container_name".to_owned(), format!("/{}", config.identity.name)),
        ]);
        fields.extend(config.attrs.clone());
        let wire = match settings.asynchronous {
            true => None,
            false => Some((Wire::dial(&place, shim)?, Instant::now())),
        };
        Ok(Self {
            settings,
            place,
            shim,
            tag: config.tag.clone(),
            fields,
            wire,
            queue: VecDeque::new(),
            bytes: 0,
            failed: 0,
            again: Instant::now(),
            lost: 0,
        })
    }

    fn event(&self, message: &Message<'_>) -> Event {
        let mut fields: BTreeMap<&str, &[u8]> =
            self.fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        // What the container's labels are called does not hide what it says.
        fields.entry("source").or_insert(message.source().as_bytes());
        fields.entry("log").or_insert(message.line);
        let ordinal = message.part.map(|part| part.ordinal.to_string());
        if let (Some(part), Some(ordinal)) = (message.part, &ordinal) {
            fields.insert("partial_message", b"true");
            fields.insert("partial_id", part.id.as_bytes());
            fields.insert("partial_ordinal", ordinal.as_bytes());
            fields.insert("partial_last", if part.last { b"true" } else { b"false" });
        }
        let chunk = self.settings.acknowledged.then(|| BASE64_STANDARD.encode(random::<16>()));
        let mut bytes = Vec::with_capacity(message.line.len() + 256);
        msgpack::array(4, &mut bytes);
        msgpack::string(self.tag.as_bytes(), &mut bytes);
        match self.settings.precise {
            true => msgpack::event_time(message.seconds, message.nanos, &mut bytes),
            false => msgpack::integer(message.seconds, &mut bytes),
        }
        msgpack::map(fields.len(), &mut bytes);
        for (name, value) in fields {
            msgpack::string(name.as_bytes(), &mut bytes);
            msgpack::string(value, &mut bytes);
        }
        msgpack::map(usize::from(chunk.is_some()), &mut bytes);
        if let Some(chunk) = &chunk {
            msgpack::string(b"chunk", &mut bytes);
            msgpack::string(chunk.as_bytes(), &mut bytes);
        }
        Event { bytes, chunk }
    }

    /// One attempt; what fails is to be connected anew.
    fn attempt(&mut self, event: &Event) -> Result<()> {
        let stale = self.settings.asynchronous
            && !self.settings.reconnect.is_zero()
            && self
                .wire
                .as_ref()
                .is_some_and(|(_, since)| since.elapsed() >= self.settings.reconnect);
        if stale || self.wire.as_ref().is_some_and(|(wire, _)| wire.is_over()) {
            self.wire = None;
        }
        let wire = match &mut self.wire {
            Some((wire, _)) => wire,
            none => {
                let wire = Wire::dial(&self.place, self.shim)?;
                &mut none.insert((wire, Instant::now())).0
            }
        };
        let outcome = wire.send(&event.bytes, self.settings.write, self.shim).map_err(Error::from);
        let outcome = outcome.and_then(|()| match &event.chunk {
            Some(chunk) => acknowledged(wire, chunk, self.settings.read, self.shim),
            None => Ok(()),
        });
        if outcome.is_err() {
            self.wire = None;
        }
        outcome
    }

    /// How long to wait before the next attempt.
    fn pause(&self) -> Duration {
        let factor = GROWTH.powf((self.failed.saturating_sub(1)) as f64);
        let grown = self.settings.retry.as_secs_f64() * factor;
        Duration::from_secs_f64(grown.min(LONGEST_RETRY.as_secs_f64()))
    }

    /// The container waits.
    fn deliver(&mut self, event: &Event) {
        for _ in 0..self.settings.retries.max(1) {
            if self.attempt(event).is_ok() {
                self.failed = 0;
                return;
            }
            self.failed += 1;
            if !self.shim.goes_on() {
                break;
            }
            self.shim.pause(self.pause());
        }
        self.failed = 0;
        self.lost += 1;
    }

    /// What waits in the queue, as far as the server takes it.
    fn drain(&mut self) {
        while let Some(event) = self.queue.pop_front() {
            if self.attempt(&event).is_ok() {
                self.failed = 0;
                self.bytes -= event.bytes.len();
                continue;
            }
            self.failed += 1;
            self.again = Instant::now() + self.pause();
            if self.failed >= self.settings.retries.max(1) {
                self.failed = 0;
                self.lost += 1;
                self.bytes -= event.bytes.len();
            } else {
                self.queue.push_front(event);
            }
            return;
        }
    }
}

fn acknowledged(
    wire: &mut Wire,
    chunk: &str,
    limit: Option<Duration>,
    shim: &Shim<'_>,
) -> Result<()> {
    let end = limit.map(|limit| Instant::now() + limit);
    let mut heard = Vec::new();
    let wrong = || Error::unavailable("fluentd acknowledged something else");
    loop {
        match msgpack::one_pair(&heard) {
            Ok(None) if end.is_none_or(|end| Instant::now() < end) => {}
            Ok(Some((name, ack))) if name == b"ack" && ack == chunk.as_bytes() => return Ok(()),
            Ok(_) | Err(msgpack::Rubbish) => return Err(wrong()),
        }
        let mut bytes = [0; 256];
        let count = wire.receive(&mut bytes, shim)?;
        heard.extend_from_slice(&bytes[..count]);
    }
}

impl Driver for Fluentd<'_> {
    fn log(&mut self, message: &Message<'_>) {
        let event = self.event(message);
        if !self.settings.asynchronous {
            return self.deliver(&event);
        }
        let most = usize::try_from(self.settings.events).unwrap_or(0);
        if self.queue.len() >= most || self.bytes + event.bytes.len() > BYTES {
            self.lost += 1;
            return;
        }
        self.bytes += event.bytes.len();
        self.queue.push_back(event);
        if self.failed == 0 {
            self.drain();
        }
    }

    fn due(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then_some(self.again)
    }

    fn tick(&mut self) {
        self.drain();
    }

    fn close(&mut self) {
        while !self.queue.is_empty() && self.shim.goes_on() {
            self.drain();
            if self.failed > 0 {
                self.shim.pause(Duration::from_millis(200));
            }
        }
    }

    fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn addresses() {
        let tcp = |host: &str, port| Location::Tcp { host: host.to_owned(), port };
        assert_eq!(Location::parse(None).unwrap(), tcp("127.0.0.1", 24224));
        assert_eq!(Location::parse(Some("h")).unwrap(), tcp("h", 24224));
        assert_eq!(Location::parse(Some("h:1")).unwrap(), tcp("h", 1));
        assert_eq!(Location::parse(Some("tcp://[::1]:1")).unwrap(), tcp("::1", 1));
        let tls = Location::Tls { host: "h".to_owned(), port: 24224 };
        assert_eq!(Location::parse(Some("tls://h")).unwrap(), tls);
        assert_eq!(
            Location::parse(Some("unix:///run/f")).unwrap(),
            Location::Unix("/run/f".into())
        );
        for bad in ["udp://h:1", "unix://", "tcp://h:1/x", "h:x"] {
            let error = Location::parse(Some(bad)).unwrap_err().chain();
            assert!(error.starts_with(&format!("invalid fluentd-address {bad}")), "{error}");
        }
    }

    #[test]
    fn refusals() {
        for (pairs, words) in [
            (&[("x", "1")][..], "unknown log opt 'x' for fluentd log driver"),
            (&[("fluentd-async", "x")], "strconv.ParseBool: parsing \"x\": invalid syntax"),
            (
                &[("fluentd-async", "true"), ("fluentd-async-connect", "true")],
                "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect",
            ),
            (
                &[("fluentd-async-reconnect-interval", "99ms")],
                "invalid value for fluentd-async-reconnect-interval: value (\"99ms\") must be between 100ms and 10s",
            ),
            (
                &[("fluentd-async-reconnect-interval", "1")],
                "invalid value for fluentd-async-reconnect-interval: time: missing unit in duration \"1\"",
            ),
        ] {
            assert_eq!(check(&options(pairs)).unwrap_err().chain(), words);
        }
        assert!(never_waits(&options(&[("fluentd-async", "1")])));
        assert!(!never_waits(&options(&[])));
    }
}
