//! Answers: one JSON document, bytes as they come, or messages as they come.

use std::pin::Pin;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use stdx::{Error, Result};
use tokio::sync::mpsc;

use crate::error::Refusal;

/// One document and a line feed, as Go's encoder writes it.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let mut bytes = serde_json::to_vec(value).expect("what we answer has string keys only");
    bytes.push(b'\n');
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes)
        .into_response()
}

/// A document that is a list, of which each item is written when it comes and not kept.
#[derive(Default)]
pub(crate) struct List(Vec<u8>);

impl List {
    pub(crate) fn add(&mut self, item: &impl Serialize) {
        self.0.push(if self.0.is_empty() { b'[' } else { b',' });
        serde_json::to_writer(&mut self.0, item).expect("what we answer has string keys only");
    }

    pub(crate) fn answer(mut self) -> Response {
        self.0.extend_from_slice(if self.0.is_empty() { b"[]\n" } else { b"]\n" });
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], self.0)
            .into_response()
    }
}

pub(crate) fn ok(value: &impl Serialize) -> Response {
    json(StatusCode::OK, value)
}

/// Bytes as they come; each piece is sent before the next is asked for. When the client goes, the stream is dropped.
pub(crate) fn bytes(
    content_type: &'static str,
    pieces: impl Stream<Item = Result<Bytes>> + Send + 'static,
) -> Response {
    let pieces = pieces.map(|piece| piece.map_err(|error| std::io::Error::other(error.chain())));
    ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], Body::from_stream(pieces))
        .into_response()
}

/// Rides in the extensions of an answer that has no end of its own: it ends when the daemon stops.
#[derive(Clone, Copy)]
pub(crate) struct Followed;

/// Marks an answer that goes on for as long as its client listens, or something happens.
pub(crate) fn followed(mut response: Response) -> Response {
    response.extensions_mut().insert(Followed);
    response
}

/// One JSON document per line.
pub(crate) fn line(value: &impl Serialize) -> Bytes {
    let mut bytes = serde_json::to_vec(value).expect("what we answer has string keys only");
    bytes.push(b'\n');
    bytes.into()
}

/// One progress message; Docker ends these with both.
fn message(value: &impl Serialize) -> Bytes {
    let mut bytes = serde_json::to_vec(value).expect("what we answer has string keys only");
    bytes.extend_from_slice(b"\r\n");
    bytes.into()
}

/// Work that tells how far it is.
///
/// If it fails before its first message, that is a plain refusal with a status; afterwards the status is long sent and the
/// failure becomes the last message. When the client goes, the work is dropped with the answer.
pub(crate) async fn progress<M: Serialize + Send + 'static>(
    work: impl Future<Output = Result<()>> + Send + 'static,
    messages: mpsc::Receiver<M>,
) -> Result<Response, Refusal> {
    let mut running = Progress { work: Some(Box::pin(work)), messages, failure: None };
    let first = running.next().await;
    if first.is_none()
        && let Some(error) = running.failure.take()
    {
        return Err(error.into());
    }
    let first = stream::iter(first.map(Ok));
    Ok(bytes("application/json", first.chain(running.rest())))
}

/// Work that fails in its last message only, as dockerd's `load` does: its clients look nowhere else. There are those who
/// wait for the answer to begin and take the work for done: it begins with the first message.
pub(crate) async fn report<M: Serialize + Send + 'static>(
    work: impl Future<Output = Result<()>> + Send + 'static,
    messages: mpsc::Receiver<M>,
) -> Response {
    let running = Progress { work: Some(Box::pin(work)), messages, failure: None };
    let mut pieces = Box::pin(running.rest());
    let first = stream::iter(pieces.next().await);
    bytes("application/json", first.chain(pieces))
}

struct Progress<M> {
    work: Option<Pin<Box<dyn Future<Output = Result<()>> + Send>>>,
    messages: mpsc::Receiver<M>,
    failure: Option<Error>,
}

impl<M: Serialize + Send + 'static> Progress<M> {
    /// What is still to be told, a failure at last.
    fn rest(self) -> impl Stream<Item = Result<Bytes>> + Send {
        stream::unfold(self, |mut running| async move {
            let piece = match running.next().await {
                Some(piece) => piece,
                None => message(&api::image::Message::failure(&running.failure.take()?.chain())),
            };
            Some((Ok(piece), running))
        })
    }

    /// The next message; `None` when the work is done and all it said is said.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let Some(work) = &mut self.work else {
                return self.messages.recv().await.map(|said| message(&said));
            };
            tokio::select! {
                biased;
                Some(said) = self.messages.recv() => return Some(message(&said)),
                outcome = work => {
                    self.failure = outcome.err();
                    // With the work goes its sender, so that what is left in the channel has an end.
                    self.work = None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn check(said: &'static [&'static str], outcome: Result<()>) -> (StatusCode, String) {
        let (sender, messages) = mpsc::channel(1);
        let work = async move {
            for words in said {
                sender.send(serde_json::json!({ "status": words })).await.unwrap();
            }
            outcome
        };
        let response = progress(work, messages).await.into_response();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_failure_is_a_status_first_and_a_message_later() {
        let (status, body) = check(&[], Err(Error::not_found("no such thing"))).await;
        assert_eq!(
            (status, body.as_str()),
            (StatusCode::NOT_FOUND, "{\"message\":\"no such thing\"}\n")
        );
        let (status, body) = check(&["a", "b"], Err(Error::not_found("gone"))).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            body,
            "{\"status\":\"a\"}\r\n{\"status\":\"b\"}\r\n{\"errorDetail\":{\"message\":\"gone\"},\"error\":\"gone\"}\r\n"
        );
        let (status, body) = check(&["a"], Ok(())).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "{\"status\":\"a\"}\r\n"));
    }
}
