//! Checkpoints of containers. As Docker's daemon, we have these only in experimental mode: clients ask for that first.

use api::container::CheckpointCreateBody;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use engine::{Containers, System};
use http::StatusCode;
use stdx::Error;

use crate::error::Refusal;
use crate::request::{Query, RequiredJson};
use crate::stream;

type Outcome = Result<Response, Refusal>;

pub(crate) fn routes(containers: Containers, system: &System) -> Router {
    let one = "/containers/{name}/checkpoints/{checkpoint}";
    let all = "/containers/{name}/checkpoints";
    if !system.is_experimental() {
        return Router::new().route(all, get(off).post(off)).route(one, delete(off));
    }
    Router::new()
        .route(all, get(list).post(create))
        .route(one, delete(remove))
        .with_state(containers)
}

async fn off() -> Refusal {
    Error::not_implemented(
        "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it.",
    )
    .into()
}

async fn create(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    RequiredJson(body): RequiredJson<CheckpointCreateBody>,
) -> Outcome {
    containers.find(&name)?.checkpoint(&name, body).await?;
    Ok(StatusCode::CREATED.into_response())
}

async fn list(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    query: Query,
) -> Outcome {
    Ok(stream::ok(
        &containers.find(&name)?.checkpoints(query.get("dir").unwrap_or_default()).await?,
    ))
}

async fn remove(
    State(containers): State<Containers>,
    Path((name, checkpoint)): Path<(String, String)>,
    query: Query,
) -> Outcome {
    let container = containers.find(&name)?;
    container.remove_checkpoint(&name, query.get("dir").unwrap_or_default(), &checkpoint).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
