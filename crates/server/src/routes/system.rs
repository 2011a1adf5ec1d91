//! The engine itself: `version`, `info`, disk usage, logins, and our own `check`.

use api::ApiVersion;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use engine::{CheckOptions, System};
use stdx::Error;

use crate::error::Refusal;
use crate::request::{Query, Version};
use crate::stream;
use crate::version::{self, Items, Usage};

pub(crate) fn routes(system: System) -> Router {
    Router::new()
        .route("/version", get(show_version))
        .route("/info", get(info))
        .route("/system/df", get(disk_usage))
        .route("/auth", post(auth))
        .route("/gantry/system/check", post(check))
        .with_state(system)
}

async fn show_version(State(system): State<System>) -> Response {
    let mut version = system.version();
    version.api_version = ApiVersion::MAX.to_string();
    version.min_api_version = ApiVersion::MIN.to_string();
    stream::ok(&version)
}

async fn info(
    State(system): State<System>,
    Version(version): Version,
) -> Result<Response, Refusal> {
    let mut info = system.info().await?;
    version::info(&mut info, version);
    Ok(stream::ok(&info))
}

async fn disk_usage(
    State(system): State<System>,
    Version(version): Version,
    query: Query,
) -> Result<Response, Refusal> {
    for kind in query.all("type") {
        if !["container", "image", "volume", "build-cache"].contains(&kind) {
            return Err(Error::invalid(format!("unknown object type: {kind}")).into());
        }
    }
    let wanted =
        |kind| query.all("type").next().is_none() || query.all("type").any(|wanted| wanted == kind);
    let mut usage = system.disk_usage().await?;
    usage.container_usage.take_if(|_| !wanted("container"));
    usage.image_usage.take_if(|_| !wanted("image"));
    usage.volume_usage.take_if(|_| !wanted("volume"));
    usage.build_cache_usage.take_if(|_| !wanted("build-cache"));
    let items = if query.flag("verbose") { Items::Listed } else { Items::Omitted };
    Ok(match version::disk_usage(usage, version, items) {
        Usage::Today(usage) => stream::ok(&usage),
        Usage::Legacy(usage) => stream::ok(&usage),
    })
}

async fn auth() -> Refusal {
    Error::not_implemented("checking a registry login is not supported yet").into()
}

async fn check(State(system): State<System>, query: Query) -> Result<Response, Refusal> {
    let options = CheckOptions { strict: query.flag("strict"), repair: query.flag("repair") };
    let findings = system.check(options).await?;
    Ok(stream::ok(&std::collections::BTreeMap::from([("findings", findings)])))
}
