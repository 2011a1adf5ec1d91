//! Volumes.

use api::volume::{CloneBody, CreateBody};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use engine::Volumes;
use futures_util::TryStreamExt;
use http::StatusCode;
use stdx::Error;

use crate::error::Refusal;
use crate::request::{Json, Query, Version};
use crate::routes::containers::pieces;
use crate::{stream, version};

type Outcome = Result<Response, Refusal>;

pub(crate) fn routes(volumes: Volumes) -> Router {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(remove).put(update))
        .route("/gantry/volumes/{name}/clone", post(copy))
        .route("/gantry/volumes/{name}/export", get(export))
        .route("/gantry/volumes/{name}/import", post(import))
        .route("/gantry/volumes/{name}/rename", post(rename))
        .with_state(volumes)
}

async fn list(State(volumes): State<Volumes>, query: Query) -> Outcome {
    Ok(stream::ok(&volumes.list(query.filters()?).await?))
}

async fn create(State(volumes): State<Volumes>, Json(body): Json<CreateBody>) -> Outcome {
    Ok(stream::json(StatusCode::CREATED, &volumes.create(body).await?))
}

async fn inspect(State(volumes): State<Volumes>, Path(name): Path<String>) -> Outcome {
    Ok(stream::ok(&volumes.inspect(&name).await?))
}

async fn remove(State(volumes): State<Volumes>, Path(name): Path<String>, query: Query) -> Outcome {
    volumes.remove(&name, query.flag("force")).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn prune(State(volumes): State<Volumes>, Version(version): Version, query: Query) -> Outcome {
    let filters = version::volume_prune_filters(query.filter_lists()?, version)?;
    Ok(stream::ok(&volumes.prune(filters).await?))
}

async fn copy(
    State(volumes): State<Volumes>,
    Path(name): Path<String>,
    Json(body): Json<CloneBody>,
) -> Outcome {
    Ok(stream::json(StatusCode::CREATED, &volumes.copy(&name, body).await?))
}

async fn export(State(volumes): State<Volumes>, Path(name): Path<String>) -> Outcome {
    Ok(stream::bytes("application/x-tar", pieces(volumes.export(&name).await?)))
}

async fn import(State(volumes): State<Volumes>, Path(name): Path<String>, body: Body) -> Outcome {
    let body = body.into_data_stream().map_err(std::io::Error::other);
    Ok(stream::json(StatusCode::CREATED, &volumes.import(&name, body).await?))
}

async fn rename(State(volumes): State<Volumes>, Path(name): Path<String>, query: Query) -> Outcome {
    volumes.rename(&name, query.get("name").unwrap_or_default()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Only cluster volumes can be changed.
async fn update() -> Outcome {
    Err(Error::unavailable("this node is not a swarm manager").into())
}
