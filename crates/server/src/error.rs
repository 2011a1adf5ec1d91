//! A failure as a client sees it: a status code, and the chain of sentences.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use stdx::{Error, Kind};

use crate::stream;

/// What a handler answers when it fails.
#[derive(Debug)]
pub(crate) struct Refusal(Error);

impl<E: Into<Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// The one table from kinds to codes.
pub(crate) fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::NotModified => StatusCode::NOT_MODIFIED,
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(error) = self;
        if error.kind() == Kind::Internal {
            tracing::error!(error = %error.chain(), "request failed");
        }
        match status(error.kind()) {
            StatusCode::NOT_MODIFIED => StatusCode::NOT_MODIFIED.into_response(),
            status => message(status, &error.chain()),
        }
    }
}

/// `{"message": …}` under a status.
pub(crate) fn message(status: StatusCode, words: &str) -> Response {
    stream::json(status, &api::error::ErrorResponse { message: words.to_owned() })
}

/// Nothing is served at this path.
pub(crate) fn page_not_found() -> Response {
    message(StatusCode::NOT_FOUND, "page not found")
}
