//! Networks.

use api::network::{
    ConfigReference, EndpointResource, Ipam, IpamConfig, IpamStatus, Network, PruneReport, Status,
    SubnetStatus,
};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use engine::Filters;
use network::{Endpoint, Networks};
use stdx::{Error, Result};

use crate::error::Refusal;
use crate::request::{Query, Version};
use crate::{stream, version};

type Outcome = Result<Response, Refusal>;

pub(crate) fn routes(networks: Networks) -> Router {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{name}", get(inspect).delete(remove))
        .route("/networks/{name}/connect", post(connect))
        .route("/networks/{name}/disconnect", post(connect))
        .with_state(networks)
}

const FILTERS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

async fn list(
    State(networks): State<Networks>,
    Version(version): Version,
    query: Query,
) -> Outcome {
    let filters = query.filters()?;
    filters.allow(&FILTERS)?;
    let mut list = Vec::new();
    for network in networks.list() {
        if wanted(&networks, &network, &filters)? {
            list.push(picture(&network));
        }
    }
    version::networks(&mut list, version);
    Ok(stream::ok(&list))
}

/// The predefined ones are `builtin` and never dangling.
fn wanted(networks: &Networks, network: &network::Network, filters: &Filters) -> Result<bool> {
    let kind = if network.is_predefined() { "builtin" } else { "custom" };
    if let Some(other) = filters.values("type").find(|kind| !["builtin", "custom"].contains(kind)) {
        return Err(Error::invalid(format!("invalid filter: 'type'='{other}'")));
    }
    let dangling = || !network.is_predefined() && networks.endpoints(&network.id).is_empty();
    Ok(filters.exact("type", kind)
        && filters.exact("driver", network.driver_name())
        && filters.exact("scope", network.scope.as_str())
        && filters.any("name", |wanted| network.name.contains(wanted))
        && filters.any("id", |wanted| network.id.as_str().starts_with(wanted))
        && filters.labels("label", &network.labels)
        && filters.flag("dangling")?.is_none_or(|wanted| wanted == dangling()))
}

async fn inspect(
    State(networks): State<Networks>,
    Path(name): Path<String>,
    Version(version): Version,
) -> Outcome {
    let network = networks.find(&name)?;
    let mut answer = picture(&network);
    let containers =
        networks.endpoints(&network.id).iter().map(|endpoint| resource(endpoint)).collect();
    answer.containers = Some(containers);
    answer.status = Some(status(&networks, &network));
    version::network(&mut answer, version);
    Ok(stream::ok(&answer))
}

/// A network in Docker's words, without who is connected.
fn picture(network: &network::Network) -> Network {
    let pool = |pool: &network::IpamPool| IpamConfig {
        subnet: pool.subnet.to_string(),
        ip_range: pool.ip_range.map(|range| range.to_string()).unwrap_or_default(),
        gateway: pool.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        auxiliary_addresses: pool
            .auxiliary
            .iter()
            .map(|(name, address)| (name.clone(), address.to_string()))
            .collect(),
    };
    Network {
        name: network.name.clone(),
        id: network.id.to_string(),
        created: network.created,
        scope: network.scope.as_str().to_owned(),
        driver: network.driver_name().to_owned(),
        enable_ipv4: network.enable_ipv4,
        enable_ipv6: network.enable_ipv6,
        ipam: Ipam {
            driver: network.ipam.driver.clone(),
            options: network.ipam.options.clone(),
            config: network.ipam.config.iter().map(pool).collect(),
        },
        internal: network.internal,
        attachable: network.attachable,
        ingress: network.ingress,
        config_from: ConfigReference::default(),
        options: Some(network.options.clone()),
        labels: Some(network.labels.clone()),
        ..Network::default()
    }
}

fn status(networks: &Networks, network: &network::Network) -> Status {
    let subnets = networks
        .usage(network)
        .into_iter()
        .map(|(subnet, usage)| {
            let usage =
                SubnetStatus { ips_in_use: usage.in_use, dynamic_ips_available: usage.available };
            (subnet.to_string(), usage)
        })
        .collect();
    Status { ipam: IpamStatus { subnets } }
}

fn resource(endpoint: &Endpoint) -> (String, EndpointResource) {
    let with_prefix = |address: Option<String>, prefix| {
        address.map(|ip| format!("{ip}/{prefix}")).unwrap_or_default()
    };
    let resource = EndpointResource {
        name: endpoint.container_name.clone(),
        endpoint_id: endpoint.endpoint_id.to_string(),
        mac_address: endpoint.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        ipv4_address: with_prefix(endpoint.ip.map(|ip| ip.to_string()), endpoint.prefix),
        ipv6_address: with_prefix(endpoint.ip6.map(|ip| ip.to_string()), endpoint.prefix6),
    };
    (endpoint.container.to_string(), resource)
}

async fn remove(State(networks): State<Networks>, Path(name): Path<String>) -> Outcome {
    let network = networks.find(&name)?;
    Err(Error::forbidden(format!(
        "{} is a pre-defined network and cannot be removed",
        network.name
    ))
    .into())
}

async fn create() -> Outcome {
    Err(Error::not_implemented("creating networks is not supported yet").into())
}

async fn connect(State(networks): State<Networks>, Path(name): Path<String>) -> Outcome {
    networks.find(&name)?;
    Err(Error::not_implemented("changing the networks of a container is not supported yet").into())
}

/// Only networks that users made could go, and there are none.
async fn prune() -> Response {
    stream::ok(&PruneReport::default())
}
