//! What a client sees while it waits: Docker's progress messages, one JSON object each.

use serde::Serialize;
use tokio::sync::mpsc;

/// One message. Serialises to exactly what dockerd writes on the wire, field order included.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Progress {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub detail: Option<Detail>,
    /// What it is about: a layer's short digest, or the tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

/// How far it is. Empty (`{}`) for steps without a measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Detail {
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Progress {
    /// A line of text, as `docker load` prints it.
    pub fn stream(text: impl Into<String>) -> Self {
        Self { stream: Some(text.into()), ..Self::default() }
    }

    /// A line of status about nothing in particular.
    pub fn status(text: impl Into<String>) -> Self {
        Self { status: Some(text.into()), ..Self::default() }
    }

    /// A line of status about `id`, printed once.
    pub fn message(id: impl Into<String>, text: impl Into<String>) -> Self {
        Self { status: Some(text.into()), id: Some(id.into()), ..Self::default() }
    }

    /// A step of `id`, which replaces the step before it on a terminal.
    pub fn step(id: impl Into<String>, text: impl Into<String>, detail: Detail) -> Self {
        Self {
            status: Some(text.into()),
            detail: Some(detail),
            id: Some(id.into()),
            ..Self::default()
        }
    }
}

/// Where messages go. A reader that is gone is no reason to stop; one that is slow misses measures, never steps.
#[derive(Clone)]
pub(crate) struct Reporter(mpsc::Sender<Progress>);

impl Reporter {
    pub(crate) fn new(sender: mpsc::Sender<Progress>) -> Self {
        Self(sender)
    }

    pub(crate) async fn say(&self, message: Progress) {
        let _gone = self.0.send(message).await;
    }

    /// From a thread that may wait.
    pub(crate) fn say_blocking(&self, message: Progress) {
        let _gone = self.0.blocking_send(message);
    }

    /// A measure: worth nothing once it is old.
    pub(crate) fn measure(&self, message: Progress) {
        let _full_or_gone = self.0.try_send(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_wire_as_dockerd_writes_it() {
        let check = |message: Progress, json: &str| {
            assert_eq!(serde_json::to_string(&message).unwrap(), json)
        };
        check(
            Progress::message("latest", "Pulling from library/x"),
            r#"{"status":"Pulling from library/x","id":"latest"}"#,
        );
        check(
            Progress::step("0123", "Pulling fs layer", Detail::default()),
            r#"{"status":"Pulling fs layer","progressDetail":{},"id":"0123"}"#,
        );
        check(
            Progress::step("0123", "Downloading", Detail { current: 5, total: 10 }),
            r#"{"status":"Downloading","progressDetail":{"current":5,"total":10},"id":"0123"}"#,
        );
        check(Progress::status("Digest: x"), r#"{"status":"Digest: x"}"#);
        check(Progress::stream("Loaded image: x:y\n"), r#"{"stream":"Loaded image: x:y\n"}"#);
    }
}
