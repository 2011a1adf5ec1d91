//! Figures for monitors, at an address of their own.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use engine::System;
use http::{HeaderValue, header};

use crate::error::{self, Refusal};

/// The text that Prometheus reads.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub(crate) fn routes(system: System) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .fallback(async || error::page_not_found())
        .with_state(system)
}

async fn metrics(State(system): State<System>) -> Result<Response, Refusal> {
    Ok(([(header::CONTENT_TYPE, TEXT)], system.metrics().await?).into_response())
}
