//! Networks.

use api::network::{
    ConfigReference, ConnectBody, CreateBody, CreateResponse, DisconnectBody, EndpointResource,
    Ipam, IpamConfig, IpamStatus, Network, Status, SubnetStatus,
};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use engine::{Containers, Filters};
use http::StatusCode;
use network::{CreateRequest, Egress, Endpoint, Networks, PoolRequest};
use stdx::{Error, Result};

use crate::error::Refusal;
use crate::request::{Query, RequiredJson, Version};
use crate::{stream, version};

type Outcome = Result<Response, Refusal>;

/// What the routes serve: networks, and the containers that are put on them.
#[derive(Clone)]
struct Rooms {
    networks: Networks,
    containers: Containers,
}

pub(crate) fn routes(networks: Networks, containers: Containers) -> Router {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{name}", get(inspect).delete(remove))
        .route("/networks/{name}/connect", post(connect))
        .route("/networks/{name}/disconnect", post(disconnect))
        .route("/gantry/networks/doctor", get(doctor))
        .with_state(Rooms { networks, containers })
}

const FILTERS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

async fn list(
    State(Rooms { networks, .. }): State<Rooms>,
    Version(version): Version,
    query: Query,
) -> Outcome {
    let filters = query.filters()?;
    filters.allow(&FILTERS)?;
    check(&filters)?;
    let mut list: Vec<Network> = networks
        .list()
        .iter()
        .filter(|network| wanted(&networks, network, &filters))
        .map(|network| picture(network))
        .collect();
    version::networks(&mut list, version);
    Ok(stream::ok(&list))
}

/// Values that mean nothing, in Docker's words.
fn check(filters: &Filters) -> Result<()> {
    if let Some(other) = filters.values("type").find(|kind| !["builtin", "custom"].contains(kind)) {
        return Err(Error::invalid(format!("invalid filter: 'type'='{other}'")));
    }
    let mut dangling = filters.values("dangling");
    if dangling.next().is_some_and(|value| !["0", "1", "false", "true"].contains(&value)) {
        return Err(Error::invalid(
            "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
        ));
    }
    if dangling.next().is_some() {
        return Err(Error::invalid("got more than one value for filter key \"dangling\""));
    }
    Ok(())
}

/// The predefined ones are `builtin` and never dangling.
fn wanted(networks: &Networks, network: &network::Network, filters: &Filters) -> bool {
    let kind = if network.is_predefined() { "builtin" } else { "custom" };
    let dangling = || !network.is_predefined() && networks.endpoints(&network.id).is_empty();
    filters.exact("type", kind)
        && filters.exact("driver", network.driver_name())
        && filters.exact("scope", network.scope.as_str())
        && filters.matches("name", &network.name)
        && filters.matches("id", network.id.as_str())
        && filters.labels("label", &network.labels)
        && filters
            .values("dangling")
            .next()
            .is_none_or(|wanted| ["1", "true"].contains(&wanted) == dangling())
}

/// How Go writes a boolean.
const TRUTHS: [&str; 12] =
    ["0", "1", "t", "f", "T", "F", "true", "false", "TRUE", "FALSE", "True", "False"];

async fn inspect(
    State(Rooms { networks, .. }): State<Rooms>,
    Path(name): Path<String>,
    Version(version): Version,
    query: Query,
) -> Outcome {
    if let Some(text) = query.get("verbose").filter(|text| !text.is_empty())
        && !TRUTHS.contains(&text)
    {
        return Err(Error::invalid(format!(
            "invalid value for verbose: {text}: strconv.ParseBool: parsing {text:?}: invalid syntax"
        ))
        .into());
    }
    let network = networks.find(&name)?;
    let scope = query.get("scope").filter(|scope| !scope.is_empty());
    if scope.is_some_and(|scope| scope != network.scope.as_str()) {
        return Err(Error::not_found(format!("network {name} not found")).into());
    }
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
        config_from: ConfigReference { network: network.config_from.clone() },
        config_only: network.config_only,
        options: Some(network.options.clone()),
        labels: Some(network.labels.clone()),
        egress: network.egress.clone().map(Vec::from),
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

async fn create(
    State(Rooms { networks, .. }): State<Rooms>,
    Version(version): Version,
    RequiredJson(body): RequiredJson<CreateBody>,
) -> Outcome {
    let request = request(version::network_body(body, version))?;
    let network =
        tokiox::to_the_end(
            async move { tokiox::blocking(move || networks.create(&request)).await },
        )
        .await?;
    let answer = CreateResponse { id: network.id.to_string(), warning: String::new() };
    Ok(stream::json(StatusCode::CREATED, &answer))
}

fn request(body: CreateBody) -> Result<CreateRequest> {
    let ipam = body.ipam.unwrap_or_default();
    let pool = |pool: IpamConfig| PoolRequest {
        subnet: pool.subnet,
        ip_range: pool.ip_range,
        gateway: pool.gateway,
        auxiliary: pool.auxiliary_addresses,
    };
    Ok(CreateRequest {
        name: body.name,
        driver: body.driver,
        scope: body.scope,
        internal: body.internal,
        attachable: body.attachable,
        ingress: body.ingress,
        config_only: body.config_only,
        config_from: body.config_from.map(|from| from.network).unwrap_or_default(),
        enable_ipv4: body.enable_ipv4,
        enable_ipv6: body.enable_ipv6,
        ipam_driver: ipam.driver,
        ipam_options: ipam.options,
        pools: ipam.config.into_iter().map(pool).collect(),
        options: body.options.unwrap_or_default(),
        labels: body.labels.unwrap_or_default(),
        egress: body.egress.map(Egress::try_from).transpose()?,
    })
}

/// Ours: what is reachable from where.
async fn doctor(State(Rooms { networks, .. }): State<Rooms>, query: Query) -> Outcome {
    let subject = query.get("subject").filter(|subject| !subject.is_empty()).map(str::to_owned);
    let report = tokiox::blocking(move || networks.doctor(subject.as_deref())).await?;
    Ok(stream::ok(&report))
}

async fn remove(State(Rooms { networks, .. }): State<Rooms>, Path(name): Path<String>) -> Outcome {
    tokiox::to_the_end(async move { tokiox::blocking(move || networks.remove(&name)).await })
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn connect(
    State(Rooms { containers, .. }): State<Rooms>,
    Path(name): Path<String>,
    RequiredJson(body): RequiredJson<ConnectBody>,
) -> Outcome {
    let container = containers.find(&body.container)?;
    container.connect_network(&name, body.endpoint_config.unwrap_or_default()).await?;
    Ok(StatusCode::OK.into_response())
}

async fn disconnect(
    State(Rooms { containers, .. }): State<Rooms>,
    Path(name): Path<String>,
    RequiredJson(body): RequiredJson<DisconnectBody>,
) -> Outcome {
    containers.disconnect_network(&body.container, &name, body.force).await?;
    Ok(StatusCode::OK.into_response())
}

async fn prune(State(Rooms { containers, .. }): State<Rooms>, query: Query) -> Outcome {
    Ok(stream::ok(&containers.prune_networks(query.filters()?).await?))
}
