//! Documented routes with nothing behind them yet: each says so by name, so that nobody searches for a mistake of his own.

use api::system::BuildPruneReport;
use axum::Router;
use axum::routing::{MethodRouter, delete, get, post, put};
use stdx::Error;

use crate::error::Refusal;
use crate::stream;

pub(crate) fn routes() -> Router {
    let later = Router::new()
        .route("/build", post(not_yet("building images")))
        // Nothing is built here, so that the cache is always empty.
        .route("/build/prune", post(async || stream::ok(&BuildPruneReport::default())))
        .route("/build/cancel", post(not_yet("building images")))
        .route("/session", post(not_yet("build sessions")))
        .route("/grpc", post(not_yet("BuildKit's API")))
        .route("/plugins/pull", post(no_managed_plugins))
        .route("/plugins/privileges", get(no_managed_plugins))
        .route("/plugins/create", post(no_managed_plugins))
        .route("/swarm/init", post(not_yet("swarm mode")))
        .route("/swarm/join", post(not_yet("swarm mode")))
        .route(
            "/swarm/leave",
            post(async || Refusal::from(Error::unavailable("This node is not part of a swarm"))),
        );
    SWARM.iter().fold(later, |router, path| router.route(path, swarm()))
}

/// What only a swarm manager can answer.
const SWARM: [&str; 10] = [
    "/swarm",
    "/swarm/update",
    "/swarm/unlockkey",
    "/swarm/unlock",
    "/nodes",
    "/nodes/{*rest}",
    "/services",
    "/services/{*rest}",
    "/tasks",
    "/tasks/{*rest}",
];

type Handler = std::future::Ready<Refusal>;

fn not_yet(what: &'static str) -> impl Fn() -> Handler + Clone + Send + Sync + 'static {
    move || {
        std::future::ready(Error::not_implemented(format!("{what} is not supported yet")).into())
    }
}

async fn no_managed_plugins() -> Refusal {
    let words = "managed plugins are not supported yet: a plugin that runs already is found by its socket in /run/docker/plugins \
                 or its file in /etc/docker/plugins or /usr/lib/docker/plugins";
    Error::not_implemented(words).into()
}

fn swarm() -> MethodRouter {
    let refuse = || async {
        Refusal::from(Error::unavailable(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to \
             swarm and try again.",
        ))
    };
    get(refuse).merge(post(refuse)).merge(put(refuse)).merge(delete(refuse))
}
