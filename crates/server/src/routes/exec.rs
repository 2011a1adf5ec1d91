//! Execs.

use api::ApiVersion;
use api::exec::{CreateBody, CreateResponse, StartBody};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use engine::{Containers, ExecStarted};
use http::{HeaderMap, StatusCode};

use super::containers::splice;
use crate::error::Refusal;
use crate::hijack::{self, Splice};
use crate::request::{Json, Query, RequiredJson, Version};
use crate::{stream, version};

type Outcome = Result<Response, Refusal>;

pub(crate) fn routes(containers: Containers) -> Router {
    Router::new()
        .route("/containers/{name}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
        .with_state(containers)
}

async fn create(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    Version(version): Version,
    RequiredJson(mut body): RequiredJson<CreateBody>,
) -> Outcome {
    if version < ApiVersion::new(1, 42) {
        body.console_size = None;
    }
    let id = containers.find(&name)?.exec_create(&name, body).await?;
    Ok(stream::json(StatusCode::CREATED, &CreateResponse { id }))
}

/// A detached start that fails is refused; an attached one is told on its stream, as in Docker: its client reads the exit
/// code afterwards.
async fn start(
    State(containers): State<Containers>,
    Path(id): Path<String>,
    Version(version): Version,
    headers: HeaderMap,
    Json(mut body): Json<StartBody>,
) -> Outcome {
    let exec = containers.exec(&id)?;
    // What the client says now, whatever was made: it knows how it is going to read.
    let (detach, tty) = (body.detach, body.tty);
    if !tty || version < ApiVersion::new(1, 42) {
        body.console_size = None;
    }
    let splice = match exec.start(body).await {
        Ok(ExecStarted::Detached) => return Ok(StatusCode::OK.into_response()),
        Ok(ExecStarted::Attached(attached)) => splice(attached),
        Err(error) if detach => return Err(error.into()),
        Err(error) => {
            let words = format!("{}\r\n", error.chain());
            match tty {
                true => Splice::words(words),
                false => {
                    Splice::words(api::stream::frame(api::stream::Stream::Stdout, words.as_bytes()))
                }
            }
        }
    };
    Ok(hijack::answer(&headers, version::output_type(version, tty), splice))
}

async fn resize(
    State(containers): State<Containers>,
    Path(id): Path<String>,
    query: Query,
) -> Outcome {
    let (height, width) = (query.side("h")?, query.side("w")?);
    containers.exec(&id)?.resize(height, width).await?;
    Ok(StatusCode::OK.into_response())
}

async fn inspect(State(containers): State<Containers>, Path(id): Path<String>) -> Outcome {
    Ok(stream::ok(&containers.exec(&id)?.inspect()))
}
