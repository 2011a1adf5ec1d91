//! `_ping`: is anybody there, and who.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header;

pub(crate) fn routes() -> Router {
    Router::new().route("/_ping", get(ping))
}

/// HEAD is the same without the body.
async fn ping() -> Response {
    let headers = [
        (header::CACHE_CONTROL.as_str(), "no-cache, no-store, must-revalidate"),
        (header::PRAGMA.as_str(), "no-cache"),
        (header::CONTENT_TYPE.as_str(), "text/plain; charset=utf-8"),
        // The classic builder's protocol; BuildKit would be 2.
        ("builder-version", "1"),
        ("swarm", "inactive"),
    ];
    (headers, "OK").into_response()
}
