//! What netd does for containers, derived from their records: ports taken for them, names that others know them by, and
//! the name server that tells them others' names.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use stdx::{Context, Result};

use crate::dns::inside::{self, Sockets};
use crate::dns::zone::{Member, Service};
use crate::endpoint::{AttachRequest, PortRequest};
use crate::firewall::view::Guard;
use crate::netd::protocol::{Change, Place, Published, Resolvers, Sandbox, Seat};
use crate::networks::Core;
use crate::ports::{Bound, Defaults};
use crate::records::{BridgeDevice, DriverKind, Endpoint, GatewayMode, Network, PublishedPort};
use crate::{files, gateway, netns};

/// A change and what comes with it.
pub(crate) type Changes = Vec<(Change, Vec<OwnedFd>)>;

/// A container that runs, as the engine finds it when it wakes.
#[derive(Clone, Debug)]
pub struct Living {
    /// What it was connected with.
    pub request: AttachRequest,
    pub pid: u32,
}

/// Do its members know each other by name?
pub fn has_names(network: &Network) -> bool {
    !network.is_predefined() && !matches!(network.driver, DriverKind::Host | DriverKind::Null)
}

impl Core {
    /// Takes the ports that are asked for and writes them down, in the endpoint that leads out. Nothing leads out: nothing
    /// is taken.
    pub(crate) fn take_ports(
        &self,
        endpoints: &mut [Arc<Endpoint>],
        requests: &[PortRequest],
    ) -> Result<Changes> {
        let Some(endpoint) = outward(endpoints).filter(|_| !requests.is_empty()) else {
            return Ok(Vec::new());
        };
        let endpoint = &mut endpoints[endpoint];
        let Some(device) = self.model().network(&endpoint.network_id)?.bridge.clone() else {
            return Ok(Vec::new());
        };
        let failed = || {
            format!(
                "driver failed programming external connectivity on endpoint {} ({})",
                endpoint.container_name, endpoint.endpoint_id
            )
        };
        let bound = self
            .ports
            .bind(requests, defaults(&device, endpoint), |protocol, address| {
                self.model().holder(Place { protocol, address })
            })
            .context(failed)?;
        let mut recorded = Endpoint::clone(endpoint);
        recorded.ports = bound.iter().map(|bound| bound.port).collect();
        recorded.ports.extend(routed(requests, &device, endpoint));
        self.rewrite(&recorded)?;
        let changes = bound.into_iter().map(|bound| announce(&recorded, bound)).collect();
        *endpoint = Arc::new(recorded);
        Ok(changes)
    }

    /// What others are to know of a container, and what it is to know of others.
    pub(crate) fn introduce(
        &self,
        request: &AttachRequest,
        endpoints: &[Arc<Endpoint>],
        sockets: Option<Sockets>,
    ) -> Changes {
        let mut changes = Changes::new();
        for endpoint in endpoints {
            let Ok(network) = self.model().network(&endpoint.network_id) else { continue };
            if has_names(&network) && !endpoint.way_out {
                changes.push((zone(&network), Vec::new()));
                changes.push((join(endpoint, request), Vec::new()));
            }
        }
        if let Some(Sockets { udp, tcp }) = sockets {
            let sandbox = self.sandbox(request, endpoints);
            changes.push((Change::Serve(sandbox), vec![udp, tcp]));
        }
        changes
    }

    /// The container as its name server sees it.
    pub(crate) fn sandbox(&self, request: &AttachRequest, endpoints: &[Arc<Endpoint>]) -> Sandbox {
        let model = self.model();
        let network = |endpoint: &Endpoint| model.networks.get(&endpoint.network_id);
        let named = |endpoint: &&Arc<Endpoint>| {
            !endpoint.way_out && network(endpoint).is_some_and(|one| has_names(one))
        };
        let seat = |endpoint: &Arc<Endpoint>| Seat {
            zone: endpoint.network_id.to_string(),
            links: endpoint
                .links
                .iter()
                .map(|link| (link.alias.to_ascii_lowercase(), link.container.short().to_owned()))
                .collect(),
        };
        Sandbox {
            id: request.container.to_string(),
            seats: endpoints.iter().filter(named).map(seat).collect(),
            resolvers: match request.dns.servers.as_slice() {
                [] => Resolvers::Host,
                chosen => Resolvers::Chosen(chosen.to_vec()),
            },
            keeps_single_labels: files::sets_ndots(&request.dns),
            outward: endpoints
                .iter()
                .any(|endpoint| network(endpoint).is_some_and(|network| !network.internal)),
            leash: model.leash(endpoints, self.config.table()),
        }
    }

    /// Takes back what [`take_ports`](Self::take_ports) and [`introduce`](Self::introduce) gave to these endpoints. `gone` says
    /// that their containers are, too.
    pub(crate) fn withdraw(&self, endpoints: &[Arc<Endpoint>], gone: Gone) {
        let mut changes = Changes::new();
        for endpoint in endpoints {
            for port in &endpoint.ports {
                let Some(place) = place(port) else { continue };
                // Another's, by now, is not touched.
                let own = Change::Publish(published(endpoint, place, port.container_port));
                if self.netd.holds(&own) {
                    changes.push((Change::Unpublish(place), Vec::new()));
                }
            }
            let leave = Change::Leave {
                zone: endpoint.network_id.to_string(),
                member: endpoint.endpoint_id.to_string(),
            };
            if self.netd.holds(&leave) {
                changes.push((leave, Vec::new()));
            }
            let close = Change::Close(endpoint.container.to_string());
            if gone == Gone::Containers && self.netd.holds(&close) {
                changes.push((close, Vec::new()));
            }
        }
        // Whatever it was, the next netd is not told of it any more.
        if let Err(err) = self.netd.change(changes) {
            tracing::error!(error = %err.chain(), "netd cannot be told that a container left");
        }
        let mut model = self.model();
        for endpoint in endpoints {
            if model.endpoints.contains_key(&endpoint.endpoint_id) {
                model.withdrawn.insert(endpoint.endpoint_id.clone());
            }
        }
    }

    /// Makes ports and names be as they should be after a container that runs has been connected or disconnected.
    pub(crate) fn attend(&self, request: &AttachRequest, namespace: BorrowedFd) -> Result<()> {
        let mut endpoints = self.model().of(&request.container);
        let outward = outward(&endpoints);
        let published = endpoints.iter().position(|endpoint| !endpoint.ports.is_empty());
        let mut changes = Changes::new();
        if outward != published {
            if let Some(before) = published.map(|index| &mut endpoints[index]) {
                self.close(std::slice::from_ref(before));
                let mut without = Endpoint::clone(before);
                let ports = std::mem::take(&mut without.ports);
                let places = ports.iter().filter_map(place);
                self.netd
                    .change(places.map(|place| (Change::Unpublish(place), Vec::new())).collect())?;
                self.rewrite(&without)?;
                *before = Arc::new(without);
                self.forget_flows_by(before, ports.iter());
            }
            changes = self.take_ports(&mut endpoints, &request.ports)?;
            self.publish(&[], &endpoints)?;
        }
        changes.extend(self.introduce(request, &endpoints, None));
        let sandbox = self.sandbox(request, &endpoints);
        let close = Change::Close(sandbox.id.clone());
        match (self.netd.holds(&close), sandbox.is_needed()) {
            (true, false) => changes.push((close, Vec::new())),
            (true, true) => changes.push((Change::Reseat(sandbox), Vec::new())),
            (false, false) => {}
            (false, true) => {
                let Sockets { udp, tcp } = netns::enter(namespace, |_| inside::open())?;
                changes.push((Change::Serve(sandbox), vec![udp, tcp]));
            }
        }
        self.netd.change(changes)
    }

    /// Makes netd hold what living containers need and nothing else: after a crash of the daemon, of netd, or of both.
    pub(crate) fn restore(&self, living: &[Living]) -> Result<()> {
        let mut changes: Changes = vec![(Change::Aside, Vec::new())];
        let (mut zones, mut rest) = (Changes::new(), Changes::new());
        let mut wanted = BTreeSet::new();
        for one in living {
            let endpoints = self.model().of(&one.request.container);
            self.hold_firewall(&endpoints);
            for endpoint in &endpoints {
                for port in &endpoint.ports {
                    let Some(place) = place(port) else { continue };
                    let publish = Change::Publish(published(endpoint, place, port.container_port));
                    wanted.extend(publish.key());
                    if !self.netd.holds(&publish) {
                        match self.ports.bind_again(*port) {
                            Ok(bound) => rest.push(announce(endpoint, bound)),
                            Err(err) => {
                                tracing::error!(container = %endpoint.container_name, error = %err.chain(), "a published port was taken by somebody else meanwhile");
                            }
                        }
                    }
                    self.ports.remember(port.protocol, port.host_port);
                }
            }
            zones.extend(self.introduce(&one.request, &endpoints, None));
            let sandbox = self.sandbox(&one.request, &endpoints);
            if !sandbox.is_needed() {
                continue;
            }
            let id = sandbox.id.clone();
            wanted.extend(Change::Close(id.clone()).key());
            match self.netd.holds(&Change::Close(id)) {
                true => rest.push((Change::Reseat(sandbox), Vec::new())),
                false => match open_inside(one.pid) {
                    Ok(Sockets { udp, tcp }) => {
                        rest.push((Change::Serve(sandbox), vec![udp, tcp]));
                    }
                    Err(err) => {
                        tracing::error!(container = %one.request.name, error = %err.chain(), "a container has no name server");
                    }
                },
            }
        }
        changes.extend(zones);
        changes.push((Change::Swap, Vec::new()));
        for held in self.netd.held() {
            if held.key().is_some_and(|key| !wanted.contains(&key)) {
                rest.extend(match held {
                    Change::Publish(published) => {
                        Some((Change::Unpublish(published.place), Vec::new()))
                    }
                    Change::Serve(sandbox) => Some((Change::Close(sandbox.id), Vec::new())),
                    _ => None,
                });
            }
        }
        changes.extend(rest);
        self.netd.change(changes)
    }

    /// A network is no more.
    pub(crate) fn forget_names(&self, network: &Network) {
        let forget = Change::ForgetZone(network.id.to_string());
        if self.netd.holds(&forget)
            && let Err(err) = self.netd.change(vec![(forget, Vec::new())])
        {
            tracing::error!(error = %err.chain(), "netd cannot be told that a network is gone");
        }
    }

    /// I6: a port that is recorded is held, and none else is.
    pub(crate) fn unattended(&self) -> Result<Vec<String>> {
        let mut problems = self.netd.difference()?;
        let mut recorded = BTreeSet::new();
        for endpoint in self.model().present(|_| true) {
            for place in endpoint.ports.iter().filter_map(place) {
                recorded.insert(place);
                if !self.netd.holds(&Change::Unpublish(place)) {
                    problems.push(format!(
                        "port {}/{} of container {} is not held",
                        place.address,
                        place.protocol.as_str(),
                        endpoint.container
                    ));
                }
            }
        }
        for held in self.netd.held() {
            if let Change::Publish(published) = held
                && !recorded.contains(&published.place)
            {
                let place = published.place;
                let protocol = place.protocol.as_str();
                problems.push(format!("port {}/{protocol} is held for nobody", place.address));
            }
        }
        Ok(problems)
    }
}

/// Who has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    Endpoints,
    Containers,
}

/// Does a container on this network, by this endpoint, ask us for names?
pub(crate) fn is_served(network: &Network, endpoint: &Endpoint) -> bool {
    has_names(network) || Guard::of(network, endpoint).is_some()
}

/// The name server's sockets, in the namespace of the thread that furnishes it, if any of these endpoints needs it.
pub(crate) fn open_for<'a>(
    endpoints: impl IntoIterator<Item = (&'a Network, &'a Endpoint)>,
) -> Result<Option<Sockets>> {
    match endpoints.into_iter().any(|(network, endpoint)| is_served(network, endpoint)) {
        true => inside::open().map(Some),
        false => Ok(None),
    }
}

/// The same, for a container that runs already.
pub(crate) fn open_inside(pid: u32) -> Result<Sockets> {
    let namespace = netns::namespace_at(Path::new(&format!("/proc/{pid}/ns/net")))?;
    netns::enter(namespace.as_fd(), |_| inside::open())
}

/// Which endpoint leads out of the host.
pub(crate) fn outward(endpoints: &[Arc<Endpoint>]) -> Option<usize> {
    let gateways = gateway::choose(endpoints);
    let chosen = gateways.v4.or(gateways.v6)?;
    endpoints.iter().position(|endpoint| endpoint.endpoint_id == chosen.endpoint_id)
}

pub(crate) fn defaults(device: &BridgeDevice, endpoint: &Endpoint) -> Defaults {
    let translated = |mode| matches!(mode, GatewayMode::Nat | GatewayMode::NatUnprotected);
    Defaults {
        v4: device.host_binding,
        v6: device.host_binding6,
        takes_v4: translated(device.gateway_mode),
        // One without IPv6 is reached by its other address.
        takes_v6: match endpoint.ip6 {
            Some(_) => translated(device.gateway_mode6),
            None => translated(device.gateway_mode),
        },
    }
}

/// Ports that are reached at the container's own address: nothing is taken on the host, and their number there is 0.
pub(crate) fn routed(
    requests: &[PortRequest],
    device: &BridgeDevice,
    endpoint: &Endpoint,
) -> Vec<PublishedPort> {
    let mut ports = Vec::new();
    let families: [(IpAddr, bool); 2] = [
        (IpAddr::from([0; 4]), device.gateway_mode == GatewayMode::Routed && endpoint.ip.is_some()),
        (
            IpAddr::from([0; 16]),
            device.gateway_mode6 == GatewayMode::Routed && endpoint.ip6.is_some(),
        ),
    ];
    for request in requests {
        for (anywhere, _) in families.into_iter().filter(|(_, routed)| *routed) {
            if request.host_ip.is_none_or(|ip| ip.is_ipv4() == anywhere.is_ipv4()) {
                ports.push(PublishedPort {
                    protocol: request.protocol,
                    container_port: request.container_port,
                    host_ip: anywhere,
                    host_port: 0,
                });
            }
        }
    }
    ports.sort();
    ports.dedup();
    ports
}

/// `None` for a port that takes no place.
pub(crate) fn place(port: &PublishedPort) -> Option<Place> {
    let address = SocketAddr::new(port.host_ip, port.host_port);
    (port.host_port != 0).then_some(Place { protocol: port.protocol, address })
}

pub(crate) fn announce(endpoint: &Endpoint, bound: Bound) -> (Change, Vec<OwnedFd>) {
    let Bound { port, socket } = bound;
    let address = SocketAddr::new(port.host_ip, port.host_port);
    let place = Place { protocol: port.protocol, address };
    (Change::Publish(published(endpoint, place, port.container_port)), vec![socket])
}

pub(crate) fn published(endpoint: &Endpoint, place: Place, container_port: u16) -> Published {
    let (ip, ip6) = (endpoint.ip.map(IpAddr::from), endpoint.ip6.map(IpAddr::from));
    let target = if place.address.is_ipv4() { ip.or(ip6) } else { ip6.or(ip) };
    let nowhere = IpAddr::from([0; 4]);
    Published {
        place,
        target: SocketAddr::new(target.unwrap_or(nowhere), container_port),
        endpoint: endpoint.endpoint_id.to_string(),
    }
}

fn zone(network: &Network) -> Change {
    Change::Zone { id: network.id.to_string(), name: network.name.clone() }
}

fn join(endpoint: &Endpoint, request: &AttachRequest) -> Change {
    let service = |&(protocol, port): &_| Service { protocol, port };
    Change::Join {
        zone: endpoint.network_id.to_string(),
        member: Member {
            id: endpoint.endpoint_id.to_string(),
            names: names(endpoint),
            ip: endpoint.ip,
            ip6: endpoint.ip6,
            services: request.exposed.iter().map(service).collect(),
        },
    }
}

/// What it is called: its name first, by which its addresses are called, too.
fn names(endpoint: &Endpoint) -> Vec<String> {
    let short = endpoint.container.short().to_owned();
    let all = std::iter::once(&endpoint.container_name)
        .chain(&endpoint.dns_names)
        .chain(&endpoint.aliases)
        .chain([&short]);
    let mut names: Vec<String> = Vec::new();
    for name in all.filter(|name| !name.is_empty()) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Who has a place already, or one that it would be part of.
pub(crate) fn holder<'a>(
    endpoints: impl Iterator<Item = &'a Arc<Endpoint>>,
    wanted: Place,
) -> Option<IpAddr> {
    let mut taken = endpoints.flat_map(|endpoint| endpoint.ports.iter().filter_map(place));
    taken.find(|taken| overlap(*taken, wanted)).map(|taken| taken.address.ip())
}

/// Do two endpoints say that they have the same place?
pub(crate) fn meet(one: &Endpoint, other: &Endpoint) -> bool {
    let mut places = one.ports.iter().filter_map(place);
    places.any(|place_of_one| {
        other.ports.iter().filter_map(place).any(|other| overlap(place_of_one, other))
    })
}

fn overlap(one: Place, other: Place) -> bool {
    let (ip, other_ip) = (one.address.ip(), other.address.ip());
    let same_port = (one.protocol, one.address.port()) == (other.protocol, other.address.port());
    let same_family = ip.is_ipv4() == other_ip.is_ipv4();
    same_port && same_family && (ip == other_ip || ip.is_unspecified() || other_ip.is_unspecified())
}
