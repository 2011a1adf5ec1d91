//! An answer: status, headers, and a body read whole or piece by piece.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use stdx::{Error, Kind, Result};

/// A document of the API is never longer; streams are read by [`Response::chunk`] and know no limit.
const LIMIT: usize = 256 << 20;

#[derive(Debug)]
pub struct Response {
    pub(crate) inner: http::Response<Incoming>,
}

impl Response {
    pub fn status(&self) -> StatusCode {
        self.inner.status()
    }

    pub fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// A header's text, empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.inner.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        while let Some(frame) = self.inner.body_mut().frame().await {
            let frame = frame.map_err(|err| broken(&err))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    pub async fn bytes(mut self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if all.len() + chunk.len() > LIMIT {
                return Err(Error::internal("the daemon's answer is too long"));
            }
            all.extend_from_slice(&chunk);
        }
        // The connection's own task notices the end of the body now, and the next request finds it free.
        tokio::task::yield_now().await;
        Ok(all)
    }

    pub async fn json<T: DeserializeOwned>(self) -> Result<T> {
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes)
            .map_err(|err| Error::internal("cannot read the daemon's answer").caused_by(err))
    }

    /// Reads and forgets the body, so that the connection can be used again.
    pub async fn finish(self) -> Result<()> {
        self.bytes().await.map(drop)
    }

    /// The daemon's refusal in the words users know.
    pub(crate) async fn into_error(self, url: &str) -> Error {
        let status = self.status();
        let plain = !self.header("content-type").starts_with("application/json");
        let Ok(body) = self.bytes().await else {
            return Error::new(kind(status), format!("Error response from daemon: {status}"));
        };
        let message = if plain {
            String::from_utf8_lossy(&body).trim().to_owned()
        } else {
            #[derive(serde::Deserialize)]
            struct Body {
                #[serde(default)]
                message: String,
            }
            serde_json::from_slice::<Body>(&body).map_or_else(
                |_| String::from_utf8_lossy(&body).trim().to_owned(),
                |body| body.message.trim().to_owned(),
            )
        };
        if message.is_empty() {
            let reason = status.canonical_reason().unwrap_or("unknown status");
            return Error::new(
                kind(status),
                format!(
                    "request returned {reason} for API route and version {url}, check if the server supports the requested API version"
                ),
            );
        }
        Error::new(kind(status), format!("Error response from daemon: {message}"))
    }
}

pub(crate) fn broken(err: &hyper::Error) -> Error {
    let words = std::error::Error::source(err).map_or_else(|| err.to_string(), ToString::to_string);
    let words = if err.is_incomplete_message() { "unexpected EOF".to_owned() } else { words };
    Error::new(Kind::Unavailable, words)
}

fn kind(status: StatusCode) -> Kind {
    match status {
        StatusCode::NOT_MODIFIED => Kind::NotModified,
        StatusCode::BAD_REQUEST => Kind::Invalid,
        StatusCode::UNAUTHORIZED => Kind::Unauthorized,
        StatusCode::FORBIDDEN => Kind::Forbidden,
        StatusCode::NOT_FOUND => Kind::NotFound,
        StatusCode::CONFLICT => Kind::Conflict,
        StatusCode::NOT_IMPLEMENTED => Kind::NotImplemented,
        StatusCode::SERVICE_UNAVAILABLE => Kind::Unavailable,
        _ => Kind::Internal,
    }
}
