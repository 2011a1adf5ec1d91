//! `_ping`: is anybody there, and who.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use engine::System;
use http::{StatusCode, header};

/// Without a system there is nobody who could be unwell.
pub(crate) fn routes(system: Option<System>) -> Router {
    Router::new().route("/_ping", get(async move || ping(system.as_ref())))
}

/// HEAD is the same without the body. Whoever can only be read from says so under Docker's code for a server in trouble;
/// clients go on with what the headers tell them.
fn ping(system: Option<&System>) -> Response {
    let headers = [
        (header::CACHE_CONTROL.as_str(), "no-cache, no-store, must-revalidate"),
        (header::PRAGMA.as_str(), "no-cache"),
        (header::CONTENT_TYPE.as_str(), "text/plain; charset=utf-8"),
        // The classic builder's protocol; BuildKit would be 2.
        ("builder-version", "1"),
        ("swarm", "inactive"),
    ];
    match system.map_or(Ok(()), System::healthy) {
        Ok(()) => (headers, "OK").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, headers, format!("degraded: {error}"))
            .into_response(),
    }
}
