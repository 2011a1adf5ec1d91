//! The door: the Engine API over HTTP.
//!
//! Sits on engine, image, network and storage, whose handles its routes call; serves `gantry`, which wires them.
//!
//! What must stay true: handlers translate and rooms decide; status codes, API versions and Docker's wire formats are known
//! here and nowhere below; a client who goes away takes nothing down with him.
//!
//! Start reading at [`serve`], then `connection.rs`, then a file of `routes/`.

mod authorization;
mod connection;
mod error;
pub mod hijack;
pub mod listen;
mod request;
mod request_line;
mod requests;
mod routes;
mod stream;
mod version;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

pub use authorization::{Authorization, Gate};
use axum::Router;
pub use routes::{Rooms, router, without_rooms};
use stdx::Result;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::listen::{Incoming, Listener};

/// Connections at a time. Each `docker run` in a terminal holds two.
const CONNECTIONS: usize = 4096;
/// Of these, kept for root, so that an administrator gets in when everybody else has used up the rest.
const RESERVED: usize = 32;
/// How long requests may take to end once the daemon stops.
const GRACE: Duration = Duration::from_secs(5);

/// Serves the API on all listeners until `shutdown`, then lets running requests end.
pub async fn serve(
    listeners: Vec<Listener>,
    rooms: Rooms,
    gate: Gate,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let experimental = rooms.system.is_experimental();
    let house = House { router: router(rooms), gate, experimental };
    serve_house(listeners, house, shutdown).await
}

/// Serves figures for monitors, and nothing else: whoever may read them may do nothing.
pub async fn serve_metrics(
    listeners: Vec<Listener>,
    system: engine::System,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    serve_router(listeners, routes::metrics::routes(system), shutdown).await
}

/// As [`serve`], for any routes: the version gate, limits and hijacking are the same.
pub async fn serve_router(
    listeners: Vec<Listener>,
    router: Router,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    serve_house(listeners, House { router, gate: Gate::default(), experimental: false }, shutdown)
        .await
}

/// What every connection leads to.
#[derive(Clone)]
struct House {
    router: Router,
    gate: Gate,
    /// Clients offer more commands.
    experimental: bool,
}

async fn serve_house(
    listeners: Vec<Listener>,
    house: House,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let (stop, stopping) = watch::channel(false);
    let places = Arc::new(Places {
        all: Semaphore::new(CONNECTIONS),
        common: Semaphore::new(CONNECTIONS - RESERVED),
    });
    let mut doors = JoinSet::new();
    for listener in listeners {
        tracing::info!(host = listener.name(), "API listening");
        doors.spawn(door(listener, house.clone(), Arc::clone(&places), stopping.clone()));
    }
    drop((house, stopping));
    shutdown.await;
    stop.send_replace(true);
    while doors.join_next().await.is_some() {}
    Ok(())
}

struct Places {
    all: Semaphore,
    common: Semaphore,
}

/// Lets clients in one by one; each is served on a task of its own.
async fn door(
    listener: Listener,
    house: House,
    places: Arc<Places>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopping.changed() => break,
            Some(_) = clients.join_next() => {}
            client = listener.accept() => match client {
                Ok(client) => {
                    clients.spawn(welcome(client, house.clone(), Arc::clone(&places), stopping.clone()));
                }
                Err(error) => {
                    // Out of descriptors: those who are in must leave first.
                    tracing::warn!(%error, host = listener.name(), "cannot accept a client");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    let end = async { while clients.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, end).await.is_err() {
        tracing::debug!("some clients were still connected at the end");
    }
}

async fn welcome(
    client: Incoming,
    house: House,
    places: Arc<Places>,
    stopping: watch::Receiver<bool>,
) {
    let root = client.is_root();
    let common = places.common.try_acquire();
    let place = places.all.try_acquire();
    let full = place.is_err() || (common.is_err() && !root);
    let mut stream = match client.stream().await {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "a client could not shake hands"),
    };
    if full {
        let refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n\
            Content-Length: 35\r\n\r\n{\"message\":\"too many connections\"}\n";
        let (Ok(()) | Err(_)) = stream.write_all(refusal).await;
        return;
    }
    if let Err(error) = connection::serve(stream, house, stopping).await {
        tracing::debug!(%error, "a connection broke");
    }
}
