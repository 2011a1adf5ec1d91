//! The handle of this room: networks and who is connected to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use state::{Actor, EventKind, Journal, Store};
use stdx::{Context, Error, Id, Kind, Result};

use crate::attend::{self, Gone, Living};
use crate::config::NetworkConfig;
use crate::create::{self, CreateRequest, Surroundings};
use crate::dns::inside::Sockets;
use crate::driver::{Drivers, Inside, Namespace};
use crate::endpoint::{self, AttachRequest};
use crate::firewall::Firewall;
use crate::firewalld::{self, Firewalld};
use crate::gateway;
use crate::host::Host;
use crate::ipam::{self, Usage};
use crate::netd::{self, protocol::Place};
use crate::netlink::Batch;
use crate::netlink::route::received;
use crate::netns;
use crate::ports::Ports;
use crate::predefined;
use crate::records::{DriverKind, Endpoint, Network, PublishedPort};
use crate::release::Releaser;
use crate::remote::RemoteIpam;
use crate::watch::Monitor;
use crate::way_out;

/// Devices asked about in one go: all that is told of them has to fit into what a socket holds.
const LOOKED_AT: usize = 16;

/// All networks of this host. Clones share them.
#[derive(Clone)]
pub struct Networks {
    pub(crate) core: Arc<Core>,
    releaser: Arc<Releaser>,
    _monitor: Arc<Monitor>,
}

/// A connected container's namespace, alive as long as somebody holds it.
#[derive(Debug)]
pub struct Attachment {
    /// `None` is the host's.
    pub netns: Option<OwnedFd>,
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// Everything but the worker that releases.
pub(crate) struct Core {
    pub(crate) config: NetworkConfig,
    pub(crate) store: Store,
    journal: Journal,
    pub(crate) host: Arc<Host>,
    pub(crate) drivers: Drivers,
    pub(crate) ipam: RemoteIpam,
    pub(crate) firewall: Mutex<Firewall>,
    pub(crate) firewalld: Firewalld,
    pub(crate) netd: netd::Client,
    pub(crate) ports: Ports,
    pub(crate) ready: netns::Ready,
    /// Somebody looks after containers that are kept apart.
    pub(crate) keeping_apart: AtomicBool,
    model: Mutex<Model>,
    /// Held by who changes the model and the records: nobody who looks waits until that is written down.
    turn: Mutex<()>,
}

/// The records, in memory for readers. Written to the store first.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) networks: BTreeMap<Id, Arc<Network>>,
    pub(crate) endpoints: BTreeMap<Id, Arc<Endpoint>>,
    /// Detached, and not yet gone from the kernel: nobody sees them, and nobody gets their addresses.
    pub(crate) leaving: BTreeSet<Id>,
    /// Of these the ports are free again, whatever their records say until they are gone.
    pub(crate) withdrawn: BTreeSet<Id>,
}

impl Networks {
    /// Opens what is recorded, and makes or mends the predefined networks. Containers of a previous life are untouched
    /// until [`recover`](Self::recover) is told which of them live.
    pub fn open(config: NetworkConfig, store: &Store, journal: &Journal) -> Result<Self> {
        let host = Arc::new(Host::open()?);
        let mut model = Model::default();
        for network in store.list::<Network>()? {
            model.networks.insert(network.id.clone(), Arc::new(network));
        }
        for endpoint in store.list::<Endpoint>()? {
            model.remember(endpoint);
        }
        let changes = predefined::changes(&config, &model, &host)?;
        store.transaction(|tx| {
            changes.put.iter().try_for_each(|network| tx.put(network))?;
            changes.removed.iter().try_for_each(|id| tx.delete::<Network>(id.as_str()))
        })?;
        for id in &changes.removed {
            model.networks.remove(id);
        }
        for network in changes.put {
            model.networks.insert(network.id.clone(), Arc::new(network));
        }
        let netd = netd::Client::open(config.netd.clone())?;
        let core = Arc::new(Core {
            firewall: Mutex::new(Firewall::open(&config, netd.keeper())),
            firewalld: Firewalld::none(),
            netd,
            ports: Ports::new(config.outside.clone()),
            ready: netns::Ready::default(),
            keeping_apart: AtomicBool::new(false),
            drivers: Drivers::new(&host, &config),
            ipam: RemoteIpam::new(config.plugins.clone()),
            store: store.clone(),
            journal: journal.clone(),
            model: Mutex::new(model),
            turn: Mutex::default(),
            config,
            host,
        });
        core.ready()?;
        let releaser = Arc::new(Releaser::start(&core)?);
        releaser.prepare();
        let monitor = Arc::new(core.watch()?);
        core.speak_with_firewalld()?;
        core.keep_apart();
        Ok(Self { core, releaser, _monitor: monitor })
    }

    /// All networks, in the order of their names.
    pub fn list(&self) -> Vec<Arc<Network>> {
        let mut networks: Vec<_> = self.core.model().networks.values().cloned().collect();
        networks.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.id.cmp(&b.id)));
        networks
    }

    /// What `docker info` calls network plugins: our drivers, and those plugins that have a network.
    pub fn drivers(&self) -> Vec<String> {
        let ours = ["bridge", "host", "ipvlan", "macvlan", "null", "overlay"].map(str::to_owned);
        let model = self.core.model();
        let plugins = model.networks.values().map(|network| network.plugin.clone());
        let all: BTreeSet<String> = plugins.filter(|name| !name.is_empty()).chain(ours).collect();
        all.into_iter().collect()
    }

    /// A network by its name, its id, or the beginning of its id.
    pub fn find(&self, term: &str) -> Result<Arc<Network>> {
        self.core.model().find(term)
    }

    /// Who is connected to a network, in the order of their containers.
    pub fn endpoints(&self, network: &Id) -> Vec<Arc<Endpoint>> {
        let mut endpoints = self.core.model().present(|endpoint| endpoint.network_id == *network);
        endpoints.sort_by(|a, b| a.container.cmp(&b.container));
        endpoints
    }

    /// How full each subnet of a network is.
    pub fn usage(&self, network: &Network) -> Vec<(IpNet, Usage)> {
        if network.ipam.is_null() {
            return Vec::new();
        }
        let taken = self.core.model().taken(&network.id);
        network.ipam.config.iter().map(|pool| (pool.subnet, ipam::usage(pool, &taken))).collect()
    }

    /// What a container is connected to, `eth0` first: all that somebody asked for.
    pub fn connections(&self, container: &Id) -> Vec<Arc<Endpoint>> {
        let mut endpoints = self.core.model().of(container);
        endpoints.retain(|endpoint| !endpoint.way_out);
        endpoints
    }

    /// What is bound on the host for a container.
    pub fn published(&self, container: &Id) -> Vec<PublishedPort> {
        self.core.model().of(container).iter().flat_map(|one| one.ports.iter().copied()).collect()
    }

    /// Where `host-gateway` points to: what the operator says, else the host as seen from the default bridge.
    pub fn host_gateway(&self) -> Vec<IpAddr> {
        if !self.core.config.host_gateway.is_empty() {
            return self.core.config.host_gateway.clone();
        }
        let model = self.core.model();
        let mut networks = model.networks.values();
        let bridge = networks
            .find(|network| network.name == predefined::BRIDGE)
            .and_then(|network| network.bridge.as_ref());
        let Some(bridge) = bridge else { return Vec::new() };
        let v4 = bridge.address.map(|address| address.addr().into());
        v4.into_iter().chain(bridge.address6.map(|address| address.addr().into())).collect()
    }

    /// The host's `resolv.conf`, with name servers that can be reached from here.
    pub fn host_resolver(&self) -> Result<crate::files::HostResolver> {
        let outside = self.core.config.outside.as_ref();
        crate::files::host_resolver(outside.and_then(|outside| outside.dns()))
    }

    /// Whether a network, once it is known, gives this address to a container that chooses it. In Docker's words, if not.
    pub fn check_address(network: &Network, wanted: IpAddr) -> Result<(), String> {
        endpoint::check_address(network, wanted)
    }

    /// Makes a network. Record first; when the kernel refuses, both are taken back.
    pub fn create(&self, request: &CreateRequest) -> Result<Arc<Network>> {
        let core = &self.core;
        let routes = core.host.route().routes()?;
        let devices = core.host.route().links()?;
        let (driver, ipam) = create::plugins_wanted(request);
        let families = create::families(request)?;
        let plugin = driver
            .map(|name| core.drivers.remote.character(name, request, families))
            .transpose()?;
        let gateways = create::gateways(request, plugin);
        let pools = ipam
            .map(|name| {
                let options = request.ipam_options.clone().unwrap_or_default();
                core.ipam.pools(name, &request.pools, &options, families, gateways)
            })
            .transpose()?;
        let planned = || {
            let _turn = core.turn();
            let model = core.model();
            let around = Surroundings {
                plugin,
                pools: pools.as_ref(),
                networks: model.networks.values().map(|network| &**network).collect(),
                devices: &devices,
                routes: &routes,
                default_pools: &core.config.default_address_pools,
                default_options: &core.config.default_network_options,
            };
            let network = Arc::new(create::plan(request, &around)?);
            drop(model);
            core.store.put(&*network)?;
            core.model().networks.insert(network.id.clone(), Arc::clone(&network));
            Ok(network)
        };
        let network = planned().inspect_err(|_: &Error| {
            if let (Some(name), Some(pools)) = (ipam, &pools) {
                core.ipam.give_back(name, &pools.ids, &pools.leases);
            }
        })?;
        let made = core.drivers.of(network.driver).create(&network);
        match made.and_then(|()| core.permit_change()) {
            Ok(()) => {
                core.follow_bridge(&network);
                core.tell_of("create", &network);
                Ok(network)
            }
            Err(err) => {
                if let Err(err) = core.forget(&network) {
                    tracing::error!(network = %network.name, err = %err.chain(), "cannot take back a network");
                }
                Err(err)
            }
        }
    }

    /// Removes a network that nobody is connected to.
    pub fn remove(&self, term: &str) -> Result<()> {
        let network = self.find(term)?;
        if network.is_predefined() {
            return Err(Error::forbidden(format!(
                "{} is a pre-defined network and cannot be removed",
                network.name
            )));
        }
        if network.config_only {
            return self.core.forget(&network);
        }
        // What is on its way out is not in the way.
        self.settle();
        let endpoints = self.endpoints(&network.id);
        if !endpoints.is_empty() {
            let who = endpoints.iter().map(|endpoint| {
                format!("name:{:?} id:{:?}", endpoint.container_name, endpoint.endpoint_id.short())
            });
            return Err(Error::forbidden(format!(
                "error while removing network: network {} has active endpoints ({})",
                network.name,
                who.collect::<Vec<_>>().join(", ")
            )));
        }
        self.core.forget(&network)?;
        self.core.tell_of("destroy", &network);
        Ok(())
    }

    /// Tells that unused networks were removed, each of which was told of before.
    pub fn pruned(&self) {
        let attributes = BTreeMap::from([("reclaimed".to_owned(), "0".to_owned())]);
        let actor = Actor { id: String::new(), attributes };
        self.core.journal.append(EventKind::Network, "prune", actor);
    }

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
        self.detach(&request.container)?;
        self.prepare_way_out(request.networks.iter().map(|wish| wish.network.as_str()))?;
        let request =
            &AttachRequest { networks: self.core.lease_all(&request.networks)?, ..request.clone() };
        let mut endpoints = self.once_settled(|| self.core.take(request)).inspect_err(|_| {
            request.networks.iter().for_each(|wish| self.core.give_back(&wish.leases));
        })?;
        self.core.hold_firewall(&endpoints);
        self.core.keep_apart();
        let guarded = self.core.guard(&endpoints);
        let negotiated = guarded.and_then(|()| self.core.negotiate(&mut endpoints, &request.ports));
        match negotiated.and_then(|()| self.core.furnish(request, &mut endpoints, namespace)) {
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

    /// Frees a container's ports and forgets its names, ahead of all else that [`detach`](Self::detach) does: whoever hears
    /// of its end may want them at once.
    pub fn withdraw(&self, container: &Id) {
        let endpoints = self.core.model().of(container);
        self.core.close(&endpoints);
        self.core.withdraw(&endpoints, Gone::Containers);
    }

    /// Disconnects a container from everything. Returns at once: the kernel is told by a worker, and an address is free
    /// when its device is gone. A container that is not connected is fine.
    pub fn detach(&self, container: &Id) -> Result<()> {
        let endpoints = {
            let mut model = self.core.model();
            let endpoints = model.of(container);
            model.leaving.extend(endpoints.iter().map(|endpoint| endpoint.endpoint_id.clone()));
            endpoints
        };
        if endpoints.is_empty() {
            return Ok(());
        }
        // At once: whoever comes next may want the same ports, and nobody shall hear of it any more.
        self.core.close(&endpoints);
        self.core.cut_links(&endpoints);
        self.core.withdraw(&endpoints, Gone::Containers);
        endpoints.iter().for_each(|endpoint| self.core.tell("disconnect", endpoint));
        self.hand_over(&endpoints);
        Ok(())
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

    /// Makes ports and names fit what a container that runs in `namespace` is connected to now.
    pub fn attend(&self, request: &AttachRequest, namespace: BorrowedFd<'_>) -> Result<()> {
        self.follow_way_out(&request.container, Some(namespace))?;
        self.core.attend(request, namespace)
    }

    /// Has netd serve those who live, after [`recover`](Self::recover), and nobody else.
    pub fn restore(&self, living: &[Living]) -> Result<()> {
        self.core.restore(living)
    }

    /// The daemon ends in good order. What containers need goes on without it.
    pub fn close(&self) {
        self.settle();
        let needed = !self.core.model().endpoints.is_empty();
        if needed { self.core.netd.leave() } else { self.core.netd.retire() }
    }
}

impl Core {
    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From a look at the model to what is decided by it standing there: one at a time.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn firewall(&self) -> MutexGuard<'_, Firewall> {
        self.firewall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes or mends what the records promise on the host: bridges, forwarding, rules.
    ///
    /// A network of a user's whose device cannot be had, now, is no reason to do without the others.
    pub(crate) fn ready(&self) -> Result<()> {
        let networks: Vec<_> = self.model().networks.values().cloned().collect();
        for network in &networks {
            match self.drivers.of(network.driver).ready(network) {
                Err(err) if !network.is_predefined() => {
                    tracing::error!(network = %network.name, err = %err.chain(), "cannot make a network ready");
                }
                made => made?,
            }
        }
        self.permit()
    }

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
        if way_out::is_missing(&model, &endpoints) {
            let way = way_out::plan(&model, &request.container, &endpoints)?;
            endpoints.push(Arc::new(way));
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
            let mut inside = Inside { namespace: namespace.as_fd(), socket };
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

    /// Takes endpoints out of the kernel, then out of the records: their addresses are free only now.
    pub(crate) fn release(&self, ids: &[Id]) -> Result<()> {
        let present: Vec<_> = {
            let mut model = self.model();
            let present: Vec<_> =
                ids.iter().filter_map(|id| model.endpoints.get(id).cloned()).collect();
            model.leaving.extend(present.iter().map(|endpoint| endpoint.endpoint_id.clone()));
            present
        };
        self.withdraw(&present, Gone::Endpoints);
        let connected: Vec<_> =
            present.iter().filter(|endpoint| !endpoint.ifname.is_empty()).cloned().collect();
        let (foreign, ours): (Vec<_>, Vec<_>) =
            connected.into_iter().partition(|endpoint| endpoint.is_foreign());
        self.part(&foreign)?;
        let on_bridges = foreign.into_iter().filter(|endpoint| endpoint.remote.is_none());
        let bridged: Vec<_> = ours.into_iter().chain(on_bridges).collect();
        let heard_of = self.heard_of(&bridged);
        self.drivers.of(DriverKind::Bridge).disconnect(&bridged)?;
        self.shut(&present)?;
        self.forget_flows_of(&heard_of);
        {
            let _turn = self.turn();
            self.store.transaction(|tx| {
                ids.iter().try_for_each(|id| tx.delete::<Endpoint>(id.as_str()))
            })?;
            let mut model = self.model();
            for id in ids {
                model.endpoints.remove(id);
                model.leaving.remove(id);
                model.withdrawn.remove(id);
            }
        }
        self.unguard(&present)
    }

    /// Those who have sent a packet, or may have: of the others the kernel knows no flows. Most commands end without a word.
    fn heard_of(&self, endpoints: &[Arc<Endpoint>]) -> Vec<Arc<Endpoint>> {
        let mut heard_of = Vec::new();
        for some in endpoints.chunks(LOOKED_AT) {
            let mut batch = Batch::new();
            some.iter().for_each(|endpoint| batch.get_link(&endpoint.host_device()));
            let replies = self.host.farewell().exchange(batch).unwrap_or_default();
            let mut packets = replies.iter().map(received);
            let spoke = |_: &&Arc<Endpoint>| packets.next().flatten().is_none_or(|all| all > 0);
            heard_of.extend(some.iter().filter(spoke).cloned());
        }
        heard_of
    }

    /// Takes a network out of the kernel and the records.
    fn forget(&self, network: &Arc<Network>) -> Result<()> {
        let others: Vec<_> = {
            let _turn = self.turn();
            let mut model = self.model();
            if model.endpoints.values().any(|endpoint| endpoint.network_id == network.id) {
                return Err(Error::forbidden(format!(
                    "error while removing network: network {} has active endpoints",
                    network.name
                )));
            }
            let copied = |other: &Arc<Network>| other.config_from == network.name;
            if network.config_only && model.networks.values().any(copied) {
                return Err(Error::forbidden(format!(
                    "error while removing network: configuration network {:?} is in use",
                    network.name
                )));
            }
            // From here on nobody can connect to it; its record stays until the kernel is rid of it.
            model.networks.remove(&network.id);
            model.networks.values().cloned().collect()
        };
        let gone = self.drivers.of(network.driver).remove(network, &others).and_then(|()| {
            self.permit_change()?;
            if network.ipam.is_remote() {
                let pools = &network.ipam.config;
                let leases: Vec<_> = pools.iter().flat_map(|pool| pool.leases.clone()).collect();
                let ids = pools.iter().map(|pool| (pool.subnet, pool.id.clone())).collect();
                self.ipam.give_back(&network.ipam.driver, &ids, &leases);
            }
            self.store.delete::<Network>(network.id.as_str())
        });
        match &gone {
            Ok(()) => {
                self.follow_bridge(network);
                self.forget_names(network);
            }
            Err(_) => {
                self.model().networks.insert(network.id.clone(), Arc::clone(network));
            }
        }
        gone
    }

    /// Where the rules are ours, and the host is: a user's namespace has no firewalld.
    fn speak_with_firewalld(self: &Arc<Self>) -> Result<()> {
        let config = &self.config;
        let guarding = (config.iptables || config.ip6tables) && config.outside.is_none();
        let bus = config.system_bus.as_deref().filter(|_| guarding);
        if let Some(socket) = bus.and_then(firewalld::bus_at) {
            self.firewalld.start(self, socket)?;
            self.firewalld.follow();
        }
        Ok(())
    }

    /// A bridge has come or gone.
    fn follow_bridge(&self, network: &Network) {
        if network.bridge.is_some() {
            self.firewalld.follow();
        }
    }

    fn tell_of(&self, action: &str, network: &Network) {
        let attributes = BTreeMap::from([
            ("name".to_owned(), network.name.clone()),
            ("type".to_owned(), network.driver_name().to_owned()),
        ]);
        self.journal.append(
            EventKind::Network,
            action,
            Actor { id: network.id.to_string(), attributes },
        );
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

impl Model {
    pub(crate) fn network(&self, id: &Id) -> Result<Arc<Network>> {
        self.networks
            .get(id)
            .cloned()
            .ok_or_else(|| Error::not_found(format!("network {id} not found")))
    }

    /// Docker's order: the whole name, the whole id, a unique beginning of the id.
    pub(crate) fn find(&self, term: &str) -> Result<Arc<Network>> {
        let all = || self.networks.values();
        let exact = all()
            .find(|network| network.name == term)
            .or_else(|| all().find(|network| network.id.as_str() == term));
        if let Some(network) = exact {
            return Ok(Arc::clone(network));
        }
        let matches: Vec<_> = all()
            .filter(|network| !term.is_empty() && network.id.as_str().starts_with(term))
            .collect();
        match matches.as_slice() {
            [] => Err(Error::not_found(format!("network {term} not found"))),
            [network] => Ok(Arc::clone(network)),
            several => Err(Error::invalid(format!(
                "network {term} is ambiguous ({} matches found based on ID prefix)",
                several.len()
            ))),
        }
    }

    pub(crate) fn remember(&mut self, endpoint: Endpoint) {
        let id = endpoint.endpoint_id.clone();
        if endpoint.left {
            self.leaving.insert(id.clone());
            self.withdrawn.insert(id.clone());
        }
        self.endpoints.insert(id, Arc::new(endpoint));
    }

    /// Those of them who are on their way out, as they are to be written down.
    fn departing(&self, which: impl Fn(&Endpoint) -> bool) -> Vec<Endpoint> {
        let gone = self.withdrawn.iter().filter_map(|id| self.endpoints.get(id));
        gone.filter(|endpoint| !endpoint.left && which(endpoint))
            .map(|endpoint| Endpoint { left: true, ..Endpoint::clone(endpoint) })
            .collect()
    }

    pub(crate) fn present(&self, which: impl Fn(&Endpoint) -> bool) -> Vec<Arc<Endpoint>> {
        let here = |endpoint: &&Arc<Endpoint>| {
            which(endpoint) && !self.leaving.contains(&endpoint.endpoint_id)
        };
        self.endpoints.values().filter(here).cloned().collect()
    }

    /// Who has a place on the host.
    pub(crate) fn holder(&self, place: Place) -> Option<IpAddr> {
        let holding = |endpoint: &&Arc<Endpoint>| !self.withdrawn.contains(&endpoint.endpoint_id);
        attend::holder(self.endpoints.values().filter(holding), place)
    }

    pub(crate) fn of(&self, container: &Id) -> Vec<Arc<Endpoint>> {
        let mut endpoints = self.present(|endpoint| endpoint.container == *container);
        endpoints.sort_by(|a, b| (a.ifname.len(), &a.ifname).cmp(&(b.ifname.len(), &b.ifname)));
        endpoints
    }
}
