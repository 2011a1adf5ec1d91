//! Files into and out of containers, as archives: `docker cp`.

use api::container::PathStat;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use engine::{Containers, ExtractRequest};
use futures_util::TryStreamExt;
use http::{HeaderName, HeaderValue, StatusCode};
use stdx::{Error, Kind, Result};

use crate::error::Refusal;
use crate::request::Query;
use crate::routes::containers::pieces;
use crate::stream;

type Outcome = Result<Response, Refusal>;

const STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

pub(crate) fn routes(containers: Containers) -> Router {
    Router::new()
        .route("/containers/{name}/archive", get(archive).head(stat).put(extract))
        .with_state(containers)
}

async fn stat(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    query: Query,
) -> Outcome {
    let path = path(&query)?;
    let stat = containers.find(&name)?.stat_path(path).await;
    let stat = stat.map_err(|error| missing(error, path, &name))?;
    Ok(with_stat(&stat, StatusCode::OK.into_response()))
}

async fn archive(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    query: Query,
) -> Outcome {
    let path = path(&query)?;
    let found = containers.find(&name)?.archive(path).await;
    let (stat, archive) = found.map_err(|error| missing(error, path, &name))?;
    Ok(with_stat(&stat, stream::bytes("application/x-tar", pieces(archive))))
}

async fn extract(
    State(containers): State<Containers>,
    Path(name): Path<String>,
    query: Query,
    body: Body,
) -> Outcome {
    let path = path(&query)?;
    let request = ExtractRequest {
        path: path.to_owned(),
        keep_kinds: query.flag("noOverwriteDirNonDir"),
        to_user: query.flag("copyUIDGID"),
    };
    let body = body.into_data_stream().map_err(std::io::Error::other);
    let extracted = containers.find(&name)?.extract(request, body).await;
    extracted.map_err(|error| missing(error, path, &name))?;
    Ok(StatusCode::OK.into_response())
}

fn path(query: &Query) -> Result<&str> {
    // dockerd forgets the space, too.
    query.get("path").ok_or_else(|| Error::invalid("bad parameter: pathcannot be empty"))
}

fn missing(error: Error, path: &str, name: &str) -> Error {
    match error.kind() {
        Kind::NotFound => {
            Error::not_found(format!("Could not find the file {path} in container {name}"))
        }
        _ => error,
    }
}

fn with_stat(stat: &PathStat, mut response: Response) -> Response {
    let json = serde_json::to_vec(stat).expect("what we answer has string keys only");
    let text = base64::engine::general_purpose::STANDARD.encode(json);
    let value = HeaderValue::try_from(text).expect("base64 fits into a header");
    response.headers_mut().insert(STAT, value);
    response
}
