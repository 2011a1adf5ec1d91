//! `awslogs`: lines as events of a stream of CloudWatch Logs.

mod batch;
mod client;
mod credentials;
mod pattern;
mod sign;

use std::time::{Duration, Instant};

use batch::{Batch, MOST_EVENT_BYTES};
use client::Client;
use regex::bytes::Regex;
use stdx::{Error, Result};

use super::frame::Message;
use super::options::{Options, boolean, flag, given};
use super::{Driver, Shim};
use crate::logs::Config;

const EVERY: u64 = 5;

pub(super) fn check(options: &Options) -> Result<()> {
    const OWN: [&str; 12] = [
        "awslogs-region",
        "awslogs-endpoint",
        "awslogs-group",
        "awslogs-stream",
        "awslogs-create-group",
        "awslogs-create-stream",
        "awslogs-datetime-format",
        "awslogs-multiline-pattern",
        "awslogs-credentials-endpoint",
        "awslogs-force-flush-interval-seconds",
        "awslogs-max-buffered-events",
        "awslogs-format",
    ];
    if let Some(key) = options.keys().find(|key| !OWN.contains(&key.as_str())) {
        return Err(Error::invalid(format!("unknown log opt '{key}' for awslogs log driver")));
    }
    if given(options, "awslogs-group").is_none() {
        return Err(Error::invalid("must specify a value for log opt 'awslogs-group'"));
    }
    for name in ["awslogs-create-group", "awslogs-create-stream"] {
        if let Some(text) = given(options, name) {
            boolean(text).map_err(|error| {
                Error::invalid(format!("must specify valid value for log opt '{name}': {error}"))
            })?;
        }
    }
    for name in ["awslogs-force-flush-interval-seconds", "awslogs-max-buffered-events"] {
        if let Some(text) = given(options, name)
            && !text.parse::<u32>().is_ok_and(|number| number > 0)
        {
            return Err(Error::invalid(format!(
                "must specify a positive integer for log opt '{name}': {text}"
            )));
        }
    }
    let multiline = options.contains_key("awslogs-multiline-pattern");
    let datetime = options.contains_key("awslogs-datetime-format");
    if multiline && datetime {
        return Err(Error::invalid(
            "you cannot configure log opt 'awslogs-datetime-format' and 'awslogs-multiline-pattern' at the same time",
        ));
    }
    match given(options, "awslogs-format") {
        None => {}
        Some("json/emf") if multiline || datetime => {
            return Err(Error::invalid(
                "you cannot configure log opt 'awslogs-datetime-format' or 'awslogs-multiline-pattern' when log opt 'awslogs-format' is set to 'json/emf'",
            ));
        }
        Some("json/emf") => {}
        Some(other) => {
            return Err(Error::invalid(format!("unsupported log format '{other}'")));
        }
    }
    pattern::of(options).map(drop)
}

/// How many events may wait to be sent, if somebody says so.
pub(in crate::logs) fn most_messages(config: &Config) -> Option<usize> {
    let text = given(&config.options, "awslogs-max-buffered-events")?;
    text.parse().ok().filter(|_| config.driver == crate::logs::Driver::Awslogs)
}

pub(super) struct Awslogs<'a> {
    client: Client<'a>,
    shim: &'a Shim<'a>,
    multiline: Option<Regex>,
    every: Duration,
    next: Instant,
    batch: Batch,
    /// Lines that may be one event, and when the first of them was said.
    lines: Vec<u8>,
    lines_at: i64,
    lost: u64,
}

impl<'a> Awslogs<'a> {
    pub(super) fn open(config: &Config, shim: &'a Shim<'a>) -> Result<Self> {
        let options = &config.options;
        let multiline = pattern::of(options)?;
        let mut client = Client::of(config, shim)?;
        if flag(options, "awslogs-create-stream", true)? {
            client.create_stream(flag(options, "awslogs-create-group", false)?)?;
        }
        let seconds = given(options, "awslogs-force-flush-interval-seconds");
        let every =
            Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(EVERY));
        Ok(Self {
            client,
            shim,
            multiline,
            every,
            next: Instant::now() + every,
            batch: Batch::default(),
            lines: Vec::new(),
            lines_at: 0,
            lost: 0,
        })
    }

    fn event(&mut self, bytes: &[u8], at: i64) {
        let text = String::from_utf8_lossy(bytes);
        for piece in batch::pieces(&text, MOST_EVENT_BYTES) {
            if !self.batch.has_room(piece) {
                self.publish();
            }
            self.batch.push(piece, at);
        }
    }

    fn lines_are_an_event(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        self.event(&lines, self.lines_at);
    }

    fn publish(&mut self) {
        let events = self.batch.take();
        if !events.is_empty() && self.client.put(&events).is_err() {
            self.lost += events.len() as u64;
        }
    }
}

impl Driver for Awslogs<'_> {
    fn log(&mut self, message: &Message<'_>) {
        let Some(pattern) = &self.multiline else {
            return self.event(message.line, message.unix_millis());
        };
        if self.lines_at == 0 {
            self.lines_at = message.unix_millis();
        }
        if pattern.is_match(message.line) {
            self.lines_are_an_event();
            self.lines_at = message.unix_millis();
        }
        if self.lines.len() + message.line.len() > MOST_EVENT_BYTES {
            self.lines_are_an_event();
        }
        self.lines.extend_from_slice(message.line);
        self.lines.push(b'\n');
    }

    fn due(&self) -> Option<Instant> {
        (!self.batch.is_empty() || !self.lines.is_empty()).then_some(self.next)
    }

    fn tick(&mut self) {
        // Lines that nothing was added to for so long are all there will be of their event.
        let age = i64::try_from(stdx::time::Timestamp::now().unix_nanos() / 1_000_000)
            .unwrap_or(i64::MAX)
            .saturating_sub(self.lines_at);
        if !self.lines.is_empty()
            && (age < 0 || age > i64::try_from(self.every.as_millis()).unwrap_or(i64::MAX))
        {
            self.lines_are_an_event();
        }
        self.publish();
        self.next = Instant::now() + self.every;
    }

    fn close(&mut self) {
        self.lines_are_an_event();
        if self.shim.goes_on() {
            self.publish();
        }
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
        let refusal = |pairs: &[(&str, &str)]| {
            let options = pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            check(&options).unwrap_err().chain()
        };
        let group = ("awslogs-group", "g");
        assert_eq!(refusal(&[]), "must specify a value for log opt 'awslogs-group'");
        assert_eq!(refusal(&[("x", "1")]), "unknown log opt 'x' for awslogs log driver");
        assert_eq!(
            refusal(&[group, ("awslogs-create-group", "x")]),
            "must specify valid value for log opt 'awslogs-create-group': strconv.ParseBool: parsing \"x\": invalid syntax"
        );
        assert_eq!(
            refusal(&[group, ("awslogs-max-buffered-events", "0")]),
            "must specify a positive integer for log opt 'awslogs-max-buffered-events': 0"
        );
        assert_eq!(
            refusal(&[
                group,
                ("awslogs-datetime-format", "%Y"),
                ("awslogs-multiline-pattern", "x")
            ]),
            "you cannot configure log opt 'awslogs-datetime-format' and 'awslogs-multiline-pattern' at the same time"
        );
        assert_eq!(refusal(&[group, ("awslogs-format", "x")]), "unsupported log format 'x'");
    }
}
