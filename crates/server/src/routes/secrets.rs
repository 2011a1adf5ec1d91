//! Secrets and configs: two nouns with the same verbs.

use api::secret::SecretSpec;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use engine::{Secrets, Sort};
use http::StatusCode;
use stdx::Error;

use crate::error::Refusal;
use crate::request::{Query, RequiredJson};
use crate::stream;

type Outcome = Result<Response, Refusal>;

/// The room, and which of the two nouns is meant.
type Noun = (Secrets, Sort);

pub(crate) fn routes(secrets: &Secrets) -> Router {
    let noun = |sort: Sort| {
        let verbs = Router::new()
            .route("/", get(list))
            .route("/create", post(create))
            .route("/{id}", get(inspect).delete(remove))
            .route("/{id}/update", post(update));
        verbs.with_state((secrets.clone(), sort))
    };
    Router::new().nest("/secrets", noun(Sort::Secret)).nest("/configs", noun(Sort::Config))
}

async fn list(State((secrets, sort)): State<Noun>, query: Query) -> Outcome {
    Ok(stream::ok(&secrets.list(sort, query.filters()?).await?))
}

async fn create(
    State((secrets, sort)): State<Noun>,
    RequiredJson(spec): RequiredJson<SecretSpec>,
) -> Outcome {
    Ok(stream::json(StatusCode::CREATED, &secrets.create(sort, spec).await?))
}

async fn inspect(State((secrets, sort)): State<Noun>, Path(id): Path<String>) -> Outcome {
    Ok(stream::ok(&secrets.inspect(sort, &id).await?))
}

async fn remove(State((secrets, sort)): State<Noun>, Path(id): Path<String>) -> Outcome {
    secrets.remove(sort, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn update(
    State((secrets, sort)): State<Noun>,
    Path(id): Path<String>,
    query: Query,
    RequiredJson(spec): RequiredJson<SecretSpec>,
) -> Outcome {
    let version = query.get("version").and_then(|text| text.parse().ok());
    let version =
        version.ok_or_else(|| Error::invalid(format!("invalid {} version", sort.word())))?;
    secrets.update(sort, &id, version, spec).await?;
    Ok(StatusCode::OK.into_response())
}
