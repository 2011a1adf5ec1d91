//! What is served where: a file per noun, each with its routes on top.

mod archive;
mod checkpoints;
mod containers;
mod distribution;
mod events;
mod exec;
mod images;
pub(crate) mod metrics;
mod networks;
mod ping;
mod plugins;
mod secrets;
mod system;
mod unsupported;
mod volumes;

use axum::Router;

use crate::error;

/// The handles that requests are passed to.
#[derive(Clone)]
pub struct Rooms {
    pub containers: engine::Containers,
    pub system: engine::System,
    pub images: image::Images,
    pub networks: network::Networks,
    pub journal: state::Journal,
}

/// All routes, without the version in front.
pub fn router(rooms: Rooms) -> Router {
    let Rooms { containers, system, images, networks, journal } = rooms;
    common(&journal, Some(system.clone()))
        .merge(checkpoints::routes(containers.clone(), &system))
        .merge(system::routes(system))
        .merge(containers::routes(containers.clone()))
        .merge(archive::routes(containers.clone()))
        .merge(exec::routes(containers.clone()))
        .merge(images::routes(images))
        .merge(networks::routes(networks, containers.clone()))
        .merge(volumes::routes(engine::Volumes::new(&containers)))
        .merge(secrets::routes(&engine::Secrets::new(&containers)))
        .merge(distribution::routes())
        .method_not_allowed_fallback(async || error::page_not_found())
}

/// What can be answered when nothing but the journal is open.
pub fn without_rooms(journal: &state::Journal) -> Router {
    common(journal, None)
}

fn common(journal: &state::Journal, system: Option<engine::System>) -> Router {
    Router::new()
        .merge(ping::routes(system))
        .merge(events::routes(journal))
        .merge(plugins::routes())
        .merge(unsupported::routes())
        .fallback(async || error::page_not_found())
        .method_not_allowed_fallback(async || error::page_not_found())
}
