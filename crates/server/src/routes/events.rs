//! `GET /events`: what happened, in order, and what happens from now on.

use std::collections::VecDeque;
use std::time::Duration;

use api::ApiVersion;
use api::event::{Actor, Message};
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use engine::Filters;
use futures_util::stream::unfold;
use http::{HeaderMap, header};
use state::{Event, EventKind, Journal, Missed, Subscription};
use stdx::time::Timestamp;
use stdx::{Error, Result};
use tokio::sync::watch;

use crate::error::Refusal;
use crate::request::{Query, Version};
use crate::{stream, version};

/// Bytes sent at a time when there is much to tell.
const PIECE: usize = 64 * 1024;

pub(crate) fn routes(journal: &Journal) -> Router {
    let (wake, appended) = watch::channel(());
    journal.on_append(move || {
        wake.send_replace(());
    });
    Router::new()
        .route("/events", get(events))
        .with_state(Source { journal: journal.clone(), appended })
}

#[derive(Clone)]
struct Source {
    journal: Journal,
    /// Changes whenever something is appended.
    appended: watch::Receiver<()>,
}

async fn events(
    State(source): State<Source>,
    Version(version): Version,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (since, until) = (query.moment("since")?, query.moment("until")?);
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        let text = |name| query.get(name).unwrap_or_default();
        let words = format!(
            "`since` time ({}) cannot be after `until` time ({})",
            text("since"),
            text("until")
        );
        return Err(Error::invalid(words).into());
    }
    let format = Format::wanted(&headers);
    let teller = Teller::begin(
        source,
        Selection { filters: query.filters()?, until },
        since,
        Wire { version, format },
    );
    let pieces =
        unfold(teller.await?, |mut teller| async move { Some((Ok(teller.next().await?), teller)) });
    Ok(stream::followed(stream::bytes(format.content_type(), pieces)))
}

/// How one event is told from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// A line each, under the name that all versions used.
    Json,
    Lines(&'static str),
    /// RFC 7464: a record separator in front of each.
    Sequence,
}

impl Format {
    fn wanted(headers: &HeaderMap) -> Self {
        let accept =
            headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let known = accept.split(',').find_map(|range| {
            match range.split(';').next().unwrap_or_default().trim() {
                "application/x-ndjson" => Some(Self::Lines("application/x-ndjson")),
                "application/jsonl" => Some(Self::Lines("application/jsonl")),
                "application/json-seq" => Some(Self::Sequence),
                _ => None,
            }
        });
        known.unwrap_or(Self::Json)
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Lines(name) => name,
            Self::Sequence => "application/json-seq",
        }
    }
}

#[derive(Clone, Copy)]
struct Wire {
    version: ApiVersion,
    format: Format,
}

impl Wire {
    fn put(self, mut message: Message, out: &mut Vec<u8>) {
        version::event(&mut message, self.version);
        if self.format == Format::Sequence {
            out.push(0x1e);
        }
        out.extend_from_slice(&stream::line(&message));
    }
}

/// One client's place in the journal. A slow one is told what it missed; the journal never waits for it.
struct Teller {
    source: Source,
    selection: Selection,
    wire: Wire,
    place: Subscription,
    /// Ready to be sent.
    ready: VecDeque<Bytes>,
    finished: bool,
}

impl Teller {
    async fn begin(
        source: Source,
        selection: Selection,
        since: Option<Timestamp>,
        wire: Wire,
    ) -> Result<Self> {
        let past = selection.until.is_some_and(|until| until <= Timestamp::now());
        let (kept, place) = if since.is_some() || past {
            let journal = source.journal.clone();
            tokiox::blocking(move || journal.replay(since.unwrap_or(Timestamp::NEVER))).await?
        } else {
            (Vec::new(), source.journal.subscribe())
        };
        let mut teller =
            Self { source, selection, wire, place, ready: VecDeque::new(), finished: past };
        teller.queue(None, &kept);
        Ok(teller)
    }

    /// The next bytes to send; `None` when nothing can follow.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(piece);
            }
            if self.finished {
                return None;
            }
            self.source.appended.mark_unchanged();
            let (missed, events) = self.place.take();
            if missed.is_some() || !events.is_empty() {
                self.queue(missed, &events);
                continue;
            }
            let left = self.selection.left();
            tokio::select! {
                appended = self.source.appended.changed() => self.finished |= appended.is_err(),
                () = tokio::time::sleep(left.unwrap_or_default()), if left.is_some() => self.finished = true,
            }
        }
    }

    fn queue(&mut self, missed: Option<Missed>, events: &[Event]) {
        let mut bytes = Vec::new();
        if let Some(missed) = missed {
            self.wire.put(overrun(missed), &mut bytes);
        }
        for event in events {
            if self.selection.is_over(event) {
                self.finished = true;
                break;
            }
            let message = message(event);
            if self.selection.wants(&message) {
                self.wire.put(message, &mut bytes);
            }
            if bytes.len() >= PIECE {
                self.ready.push_back(std::mem::take(&mut bytes).into());
            }
        }
        if !bytes.is_empty() {
            self.ready.push_back(bytes.into());
        }
    }
}

fn message(event: &Event) -> Message {
    Message {
        r#type: word(event.kind).to_owned(),
        action: event.action.clone(),
        actor: Actor { id: event.actor.id.clone(), attributes: event.actor.attributes.clone() },
        scope: "local".to_owned(),
        time: event.at.unix(),
        time_nano: i64::try_from(event.at.unix_nanos()).unwrap_or_default(),
        ..Message::default()
    }
}

fn word(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Builder => "builder",
        EventKind::Config => "config",
        EventKind::Container => "container",
        EventKind::Daemon => "daemon",
        EventKind::Image => "image",
        EventKind::Network => "network",
        EventKind::Node => "node",
        EventKind::Plugin => "plugin",
        EventKind::Secret => "secret",
        EventKind::Service => "service",
        EventKind::Volume => "volume",
    }
}

/// Said to a client that was too slow, in the place of what it can no longer have.
fn overrun(missed: Missed) -> Message {
    let now = Timestamp::now();
    let attributes = [
        ("first", missed.first),
        ("last", missed.last),
        ("missed", missed.last - missed.first + 1),
    ];
    let attributes = attributes.map(|(name, number)| (name.to_owned(), number.to_string()));
    Message {
        r#type: "daemon".to_owned(),
        action: "overrun".to_owned(),
        actor: Actor { id: String::new(), attributes: attributes.into() },
        scope: "local".to_owned(),
        time: now.unix(),
        time_nano: i64::try_from(now.unix_nanos()).unwrap_or_default(),
        ..Message::default()
    }
}

/// Which events a client asked for.
struct Selection {
    filters: Filters,
    until: Option<Timestamp>,
}

/// Nouns whose filter is the beginning of an ID or name, and those where it is all of it.
const BY_BEGINNING: [&str; 5] = ["container", "daemon", "network", "plugin", "volume"];
const WHOLE: [&str; 4] = ["config", "node", "secret", "service"];

impl Selection {
    fn is_over(&self, event: &Event) -> bool {
        self.until.is_some_and(|until| event.at > until)
    }

    /// How long until `until`.
    fn left(&self) -> Option<Duration> {
        let nanos = self.until?.unix_nanos() - Timestamp::now().unix_nanos();
        Some(Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX)))
    }

    fn wants(&self, message: &Message) -> bool {
        let filters = &self.filters;
        let name = message.actor.attributes.get("name").map_or("", String::as_str);
        let id = message.actor.id.as_str();
        filters.exact("type", &message.r#type)
            && filters.exact("scope", &message.scope)
            && self.wants_action(&message.action)
            && BY_BEGINNING.iter().all(|noun| {
                filters.any(noun, |wanted| id.starts_with(wanted) || name.starts_with(wanted))
            })
            && WHOLE.iter().all(|noun| filters.any(noun, |wanted| id == wanted || name == wanted))
            && self.wants_image(message)
            && filters.labels("label", &message.actor.attributes)
    }

    /// `exec_start` stands for `exec_start: sh` too.
    fn wants_action(&self, action: &str) -> bool {
        let with_detail = ["exec_create", "exec_start", "health_status"];
        let by_beginning = self.filters.values("event").any(|wanted| with_detail.contains(&wanted));
        self.filters
            .any("event", |wanted| action == wanted || (by_beginning && action.starts_with(wanted)))
    }

    /// An image's own events, and those of its containers; with or without the tag.
    fn wants_image(&self, message: &Message) -> bool {
        let key = if message.r#type == "image" { "name" } else { "image" };
        let name = message.actor.attributes.get(key).map_or("", String::as_str);
        let id = message.actor.id.as_str();
        self.filters
            .any("image", |wanted| [id, name, untagged(id), untagged(name)].contains(&wanted))
    }
}

/// `busybox:latest` → `busybox`; a port is not a tag.
fn untagged(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((rest, tag)) if !tag.contains('/') => rest,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filters: &str, wanted: bool) {
        let attributes = [("name", "web"), ("image", "localhost:5000/nginx:1"), ("tier", "front")];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let message = Message {
            r#type: "container".to_owned(),
            action: "exec_start: sh -c true".to_owned(),
            actor: Actor { id: "abcdef".to_owned(), attributes: attributes.into() },
            scope: "local".to_owned(),
            ..Message::default()
        };
        let selection = Selection { filters: Filters::parse(filters).unwrap(), until: None };
        assert_eq!(selection.wants(&message), wanted, "{filters}");
    }

    #[test]
    fn filters_as_docker_reads_them() {
        check("", true);
        check(r#"{"type":["container"]}"#, true);
        check(r#"{"type":["image","network"]}"#, false);
        check(r#"{"event":["exec_start"]}"#, true);
        check(r#"{"event":["exec_start: sh -c true"]}"#, true);
        check(r#"{"event":["exec"]}"#, false);
        check(r#"{"container":["abc"]}"#, true);
        check(r#"{"container":["web"]}"#, true);
        check(r#"{"container":["db"]}"#, false);
        check(r#"{"image":["localhost:5000/nginx"]}"#, true);
        check(r#"{"image":["localhost:5000/nginx:1"]}"#, true);
        check(r#"{"image":["localhost"]}"#, false);
        check(r#"{"label":["tier=front"]}"#, true);
        check(r#"{"label":["tier=back"]}"#, false);
        check(r#"{"scope":["swarm"]}"#, false);
    }
}
