//! The handle of this room: networks and who is connected to them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use state::{Journal, Store};
use stdx::{Id, Result};

use crate::attend::Living;
use crate::config::{Bridge, NetworkConfig};
use crate::driver::Drivers;
use crate::endpoint::{self, AttachRequest};
use crate::firewall::Firewall;
use crate::firewalld::{self, Firewalld};
use crate::host::Host;
use crate::ipam::{self, Usage};
use crate::model::Model;
use crate::netd;
use crate::netns;
use crate::ports::Ports;
use crate::predefined;
use crate::records::{Endpoint, Network, PublishedPort};
use crate::release::Releaser;
use crate::remote::RemoteIpam;
use crate::watch::Monitor;

/// All networks of this host. Clones share them.
#[derive(Clone)]
pub struct Networks {
    pub(crate) core: Arc<Core>,
    pub(crate) releaser: Arc<Releaser>,
    _monitor: Arc<Monitor>,
}

/// Everything but the worker that releases.
pub(crate) struct Core {
    pub(crate) config: NetworkConfig,
    pub(crate) store: Store,
    pub(crate) journal: Journal,
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

    /// Whether there is a network named `bridge`: not with `--bridge=none`.
    pub fn has_default_bridge(&self) -> bool {
        !matches!(self.core.config.bridge, Bridge::Disabled)
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

    /// What is mounted on the host: the names of overlay networks' namespaces.
    pub fn mounts(&self) -> Vec<PathBuf> {
        let Some(directory) = &self.core.config.namespaces else { return Vec::new() };
        let model = self.core.model();
        let overlays = model.networks.values().filter(|network| network.overlay.is_some());
        overlays.map(|network| directory.join(network.id.short())).collect()
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

    /// Makes ports and names fit what a container that runs in `namespace` is connected to now.
    pub fn attend(&self, request: &AttachRequest, namespace: BorrowedFd<'_>) -> Result<()> {
        self.follow_way_out(&request.container, Some(namespace))?;
        let mut endpoints = self.core.model().of(&request.container);
        self.core.follow_gateway(&mut endpoints, &request.ports)?;
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
}
