//! `GET /distribution/{name}/json`: what a registry has, without pulling it.

use axum::Router;
use axum::routing::get;
use stdx::Error;

use crate::error::Refusal;

pub(crate) fn routes() -> Router {
    Router::new().route("/distribution/{*rest}", get(inspect))
}

async fn inspect() -> Refusal {
    Error::not_implemented("asking a registry about an image is not supported yet").into()
}
