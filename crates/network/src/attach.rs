//! A container's place in its networks: taken before its first process is there, given back after its last.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use state::{Actor, EventKind};
use stdx::{Context, Error, Id, Kind, Result};

use crate::attend::{self, Gone};
use crate::dns::inside::Sockets;
use crate::driver::{Inside, Namespace};
use crate::endpoint::AttachRequest;
use crate::gateway;
use crate::netns;
use crate::networks::{Core, Networks};
use crate::records::{DriverKind, Endpoint};

/// A connected container's namespace, alive as long as somebody holds it.
#[derive(Debug)]
pub struct Attachment {
    /// `None` is the host's.
    pub netns: Option<OwnedFd>,
    pub endpoints: Vec<Arc<Endpoint>>,
}

impl Networks {
    /// Connects a container: a namespace with its devices, addresses and routes, finished before any process is in it.
    ///
    /// Record first, kernel second: whatever fails or dies on the way is found by its record and released.
    pub fn attach(&self, request: &AttachRequest) -> Result<Attachment> {
        self.attach_in(request, None)
    }

    /// As [`attach`](Self::attach), in a namespace of the caller's that nobody has used yet.
    pub fn attach_in(
        &self,
        request: &AttachRequest,
        namespace: Option<OwnedFd>,
    ) -> Result<Attachment> {
        self.detach(&request.container);
        let request =
            &AttachRequest { networks: self.core.lease_all(&request.networks)?, ..request.clone() };
        let mut endpoints = self.once_settled(|| self.core.take(request)).inspect_err(|_| {
            request.networks.iter().for_each(|wish| self.core.give_back(&wish.leases));
        })?;
        self.core.hold_firewall(&endpoints);
        self.core.keep_apart();
        let guarded = self.core.guard(&endpoints);
        let led = guarded
            .and_then(|()| self.core.negotiate(&mut endpoints, &request.ports))
            .and_then(|()| self.add_way_out(&request.container, &mut endpoints))
            .and_then(|()| self.core.follow_gateway(&mut endpoints, &request.ports));
        match led.and_then(|()| self.core.furnish(request, &mut endpoints, namespace)) {
            Ok(netns) => {
                self.releaser.prepare();
                endpoints.iter().for_each(|endpoint| self.core.tell("connect", endpoint));
                Ok(Attachment { netns, endpoints })
            }
            Err(err) => {
                let ids = endpoints.iter().map(|one| one.endpoint_id.clone());
                self.core.model().leaving.extend(ids);
                self.core.close(&endpoints);
                self.core.cut_links(&endpoints);
                self.core.withdraw(&endpoints, Gone::Containers);
                self.hand_over(&endpoints);
                Err(err)
            }
        }
    }

    /// A namespace with nothing but loopback, recorded nowhere: for builds without a network.
    pub fn none(&self) -> Result<Attachment> {
        let (netns, _) = self.core.connect(&[], None)?;
        Ok(Attachment { netns, endpoints: Vec::new() })
    }

    /// Joins the namespace of another container, named by a path such as `/proc/<pid>/ns/net`. It has its endpoints; the
    /// joining one has none of its own.
    pub fn join(&self, path: &Path) -> Result<Attachment> {
        Ok(Attachment { netns: Some(netns::namespace_at(path)?), endpoints: Vec::new() })
    }

    /// Frees a container's ports and forgets its names, at once: whoever comes next may want the same ports, and nobody shall
    /// hear of it any more.
    pub fn withdraw(&self, container: &Id) {
        let endpoints = self.core.model().of(container);
        self.core.close(&endpoints);
        self.core.withdraw(&endpoints, Gone::Containers);
    }

    /// Disconnects a container from everything, and says whether it was connected. Returns at once: the kernel is told by a
    /// worker, and an address is free when its device is gone.
    pub fn detach(&self, container: &Id) -> bool {
        self.withdraw(container);
        let endpoints = {
            let mut model = self.core.model();
            let endpoints = model.of(container);
            model.leaving.extend(endpoints.iter().map(|endpoint| endpoint.endpoint_id.clone()));
            endpoints
        };
        self.core.cut_links(&endpoints);
        endpoints.iter().for_each(|endpoint| self.core.tell("disconnect", endpoint));
        self.hand_over(&endpoints);
        !endpoints.is_empty()
    }

    /// Whether it has devices on a wire of the host's: these live as long as their namespace, with their addresses, where
    /// others go with their ends on the host.
    pub fn is_on_a_wire(&self, container: &Id) -> bool {
        !self.on_wires(container).is_empty()
    }

    /// Takes these devices out of `namespace`, which others live in still, and which does not end with the container.
    pub fn unplug(&self, container: &Id, namespace: BorrowedFd<'_>) -> Result<()> {
        let endpoints = self.on_wires(container);
        netns::enter(namespace, |socket| {
            let mut inside = Inside { namespace, socket, untouched: false };
            endpoints.iter().try_for_each(|(kind, endpoint)| {
                inside.drop_device_of(kind.as_str(), &endpoint.ifname)
            })
        })
    }

    fn on_wires(&self, container: &Id) -> Vec<(DriverKind, Arc<Endpoint>)> {
        let model = self.core.model();
        let on_wire = |endpoint: Arc<Endpoint>| {
            let kind = model.networks.get(&endpoint.network_id)?.driver;
            let shared = matches!(kind, DriverKind::Macvlan | DriverKind::Ipvlan);
            (shared && !endpoint.ifname.is_empty()).then_some((kind, endpoint))
        };
        model.of(container).into_iter().filter_map(on_wire).collect()
    }

    /// Has endpoints taken out. Whoever detaches them waits for plugins himself, so that nobody else has to.
    fn hand_over(&self, endpoints: &[Arc<Endpoint>]) {
        let (foreign, ours): (Vec<_>, Vec<_>) =
            endpoints.iter().partition(|endpoint| endpoint.is_foreign());
        let ids = |endpoints: &[&Arc<Endpoint>]| -> Vec<Id> {
            endpoints.iter().map(|endpoint| endpoint.endpoint_id.clone()).collect()
        };
        if !foreign.is_empty()
            && let Err(err) = self.core.release(&ids(&foreign))
        {
            tracing::error!(err = %err.chain(), "cannot release a plugin's endpoints");
        }
        if !ours.is_empty() {
            self.releaser.release(&self.core, ids(&ours));
        }
    }

    /// What is refused for want of an address is tried again when those who are leaving have left: a container that comes
    /// back meets its own shadow.
    pub(crate) fn once_settled<T>(&self, take: impl Fn() -> Result<T>) -> Result<T> {
        match take() {
            Err(err) if err.kind() == Kind::Forbidden && !self.core.model().leaving.is_empty() => {
                self.settle();
                take()
            }
            taken => taken,
        }
    }

    /// Returns when all that was detached before is gone from the kernel and the records.
    pub fn settle(&self) {
        self.releaser.settle();
    }
}

impl Core {
    /// Gives each endpoint its identity and address, and writes that down.
    fn take(&self, request: &AttachRequest) -> Result<Vec<Arc<Endpoint>>> {
        let _turn = self.turn();
        let model = self.model();
        let mut endpoints: Vec<Arc<Endpoint>> = Vec::with_capacity(request.networks.len());
        for wish in &request.networks {
            let mut endpoint = model.plan(&request.container, &request.name, wish, &endpoints)?;
            endpoint.exposed.clone_from(&request.exposed);
            endpoints.push(Arc::new(endpoint));
        }
        let on_host = |endpoint: &Arc<Endpoint>| {
            model
                .networks
                .get(&endpoint.network_id)
                .is_some_and(|network| network.driver == DriverKind::Host)
        };
        if endpoints.len() > 1 && endpoints.iter().any(on_host) {
            return Err(Error::invalid(
                "container sharing network namespace with another container or host cannot be connected to any other network",
            ));
        }
        let shadows = model.departing(|other| other.container == request.container);
        drop(model);
        self.store.transaction(|tx| {
            shadows.iter().chain(endpoints.iter().map(|one| &**one)).try_for_each(|one| tx.put(one))
        })?;
        let mut model = self.model();
        shadows.into_iter().for_each(|shadow| model.remember(shadow));
        for endpoint in &endpoints {
            model.endpoints.insert(endpoint.endpoint_id.clone(), Arc::clone(endpoint));
        }
        Ok(endpoints)
    }

    /// Everything a container is to have: a namespace, ports, names.
    fn furnish(
        &self,
        request: &AttachRequest,
        endpoints: &mut [Arc<Endpoint>],
        given: Option<OwnedFd>,
    ) -> Result<Option<OwnedFd>> {
        let (netns, sockets) = self.connect(endpoints, given)?;
        let mut changes = self.take_ports(endpoints, &request.ports)?;
        self.publish(&[], endpoints)?;
        self.carry_links(endpoints)?;
        changes.extend(self.introduce(request, endpoints, sockets));
        self.netd.change(changes)?;
        Ok(netns)
    }

    /// Makes the namespace and what is in it.
    fn connect(
        &self,
        endpoints: &[Arc<Endpoint>],
        given: Option<OwnedFd>,
    ) -> Result<(Option<OwnedFd>, Option<Sockets>)> {
        let mut connections = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let network = self.model().network(&endpoint.network_id)?;
            let driver = self.drivers.of(network.driver);
            if driver.namespace() == Namespace::Host {
                return Ok((None, None));
            }
            connections.push((driver, network, endpoint));
        }
        let six = endpoints.iter().any(|endpoint| endpoint.ip6.is_some());
        let ipv6 = if six { netns::Ipv6::On } else { netns::Ipv6::Off };
        let gateways = gateway::choose(endpoints);
        let (netns, sockets) = self.ready.create(given, ipv6, |namespace, socket| {
            let mut inside = Inside { namespace: namespace.as_fd(), socket, untouched: true };
            for (driver, network, endpoint) in &connections {
                driver.connect(network, endpoint, &mut inside).context(|| {
                    format!(
                        "failed to create endpoint {} on network {}",
                        endpoint.container_name, network.name
                    )
                })?;
            }
            inside.route(&gateways)?;
            attend::open_for(
                connections.iter().map(|(_, network, endpoint)| (&**network, &***endpoint)),
            )
        })?;
        Ok((Some(netns), sockets))
    }

    /// Writes down what has become of an endpoint, and that who had its ports before has them no more.
    pub(crate) fn rewrite(&self, endpoint: &Endpoint) -> Result<()> {
        let _turn = self.turn();
        let meets = |other: &Endpoint| {
            other.endpoint_id != endpoint.endpoint_id && attend::meet(other, endpoint)
        };
        let before = self.model().departing(meets);
        self.store
            .transaction(|tx| before.iter().chain([endpoint]).try_for_each(|one| tx.put(one)))?;
        let mut model = self.model();
        before.into_iter().chain([endpoint.clone()]).for_each(|one| model.remember(one));
        Ok(())
    }

    pub(crate) fn tell(&self, action: &str, endpoint: &Endpoint) {
        if endpoint.way_out {
            return;
        }
        let kind = self
            .model()
            .networks
            .get(&endpoint.network_id)
            .map_or_else(String::new, |network| network.driver_name().to_owned());
        let attributes = BTreeMap::from([
            ("container".to_owned(), endpoint.container.to_string()),
            ("name".to_owned(), endpoint.network.clone()),
            ("type".to_owned(), kind),
        ]);
        self.journal.append(
            EventKind::Network,
            action,
            Actor { id: endpoint.network_id.to_string(), attributes },
        );
    }
}
