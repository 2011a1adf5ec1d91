//! What the engine is built from: the rooms below it and the settings above it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use image::Images;
use network::Networks;
use runtime::cgroup::Driver;
use shim::Launcher;
use state::{Actor, EventKind, Journal, Store};
use stdx::{Error, Id, Result};
use storage::Storage;

use crate::container::ids::{Range, Ranges, Userns};
use crate::registry::Registry;

/// What the daemon's configuration says about containers.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The daemon's name in events and `info`.
    pub hostname: String,
    /// Which engine this is, for as long as its data root stays.
    pub identity: String,
    pub data_root: PathBuf,
    pub exec_root: PathBuf,
    pub debug: bool,
    /// Driver and options for containers that name none.
    pub log_driver: String,
    pub log_opts: BTreeMap<String, String>,
    /// What all logs together may take of the disk.
    pub log_budget: crate::LogBudget,
    /// What drivers of clouds may know of the daemon's environment, and where logging plugins are.
    pub log_environment: shim::logs::Private,
    pub log_plugins: shim::logs::PluginPlaces,
    pub default_runtime: String,
    /// Where programs are looked for that only some need (CRIU).
    pub program_dirs: Vec<PathBuf>,
    /// What Docker's daemon does in experimental mode only is done.
    pub experimental: bool,
    /// Other OCI runtimes by name.
    pub runtimes: BTreeMap<String, PathBuf>,
    /// `--init` for containers that do not say.
    pub init: bool,
    pub no_new_privileges: bool,
    /// Bytes of /dev/shm for containers that do not say.
    pub shm_size: u64,
    /// The daemon is a user's, and its host the namespaces of that user.
    pub rootless: bool,
    /// Who makes the containers' cgroups, and their parent: a directory, or a slice.
    pub cgroup_driver: Driver,
    pub cgroup_parent: String,
    /// `--dns`, `--dns-search`, `--dns-opt` of the daemon.
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    /// `name=soft[:hard]` for containers that set no limit of the name.
    pub ulimits: Vec<(String, i64, i64)>,
    /// Path of a seccomp profile instead of the built-in one, or `unconfined`.
    pub seccomp_profile: String,
    /// Containers are confined by AppArmor.
    pub apparmor: bool,
    /// The host labels its processes and files by SELinux, which we do not.
    pub selinux: bool,
    pub labels: Vec<String>,
    pub registry_mirrors: Vec<String>,
    pub insecure_registries: Vec<String>,
    /// Who is asked about every request; the door does that.
    pub authorization_plugins: Vec<String>,
    pub open_doors: Vec<crate::OpenDoor>,
    /// What the subnets of networks are cut from, where somebody said so, and how large: for `docker info`.
    pub address_pools: Vec<(String, u8)>,
    /// May there be firewall rules?
    pub firewall: bool,
    /// Where specs of devices are looked for.
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// What this was built from, and by what; empty where nobody knows.
    pub commit: String,
    pub compiler: String,
    /// Whose users those of containers are that do not say.
    pub userns: Userns,
    /// Where the ranges come from that containers get of their own.
    pub id_pool: Range,
    /// `--ipc` and `--cgroupns` for containers that do not say; empty: as is usual.
    pub ipc_mode: String,
    pub cgroupns_mode: String,
}

impl Settings {
    /// Whether a container without a runtime of its own could be started.
    pub fn check_default_runtime(&self) -> Result<()> {
        crate::container::plan::runtime("", self).map(drop).map_err(|_| {
            Error::invalid(format!(
                "specified default runtime '{}' does not exist",
                self.default_runtime
            ))
        })
    }
}

/// The parts that [`crate::Containers::open`] is given.
pub struct Parts {
    pub settings: Settings,
    pub store: Store,
    pub journal: Journal,
    pub storage: Arc<Storage>,
    pub images: Images,
    pub networks: Networks,
    pub launcher: Arc<Launcher>,
}

/// The parts at work: what every verb can reach.
pub(crate) struct Rooms {
    /// Another is put in its place when the configuration is read again.
    settings: RwLock<Arc<Settings>>,
    pub(crate) store: Store,
    pub(crate) journal: Journal,
    pub(crate) storage: Arc<Storage>,
    pub(crate) images: Images,
    pub(crate) networks: Networks,
    pub(crate) launcher: Arc<Launcher>,
    pub(crate) registry: Registry,
    pub(crate) ids: Ranges,
    pub(crate) execs: crate::container::exec::Execs,
    /// Filters of containers, compiled once.
    pub(crate) seccomp: runtime::seccomp::Compiler,
    /// Read while a container is made, written by who must not meet a half-made one.
    pub(crate) creations: std::sync::RwLock<()>,
    pub(crate) foreign: crate::volumes::foreign::Foreign,
    pub(crate) metrics: crate::metrics::Metrics,
    /// Until all are adopted: who is to come up again is started by [`crate::boot`], in its turn.
    pub(crate) waking: std::sync::atomic::AtomicBool,
    pub(crate) vault: crate::secrets::Vault,
    /// Held by the start of a container that shares a volume in memory.
    pub(crate) volumes_in_memory: tokio::sync::Mutex<()>,
}

impl Rooms {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { settings, store, journal, storage, images, networks, launcher } = parts;
        let (registry, ids, execs, seccomp, creations, foreign, vault, volumes_in_memory) =
            Default::default();
        Self {
            settings: RwLock::new(Arc::new(settings)),
            store,
            journal,
            storage,
            images,
            networks,
            launcher,
            registry,
            ids,
            execs,
            seccomp,
            creations,
            foreign,
            metrics: Default::default(),
            waking: true.into(),
            vault,
            volumes_in_memory,
        }
    }

    /// What the configuration says now. Who asks twice may hear something else.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn put_settings(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// Where what a container leaves for people lies: its log.
    pub(crate) fn data_dir(&self, id: &Id) -> PathBuf {
        self.settings().data_root.join("containers").join(id.as_str())
    }

    /// Where a container's shim lives while it runs, and what is made for one run: hosts, resolv.conf, hostname.
    pub(crate) fn exec_dir(&self, id: &Id) -> PathBuf {
        self.settings().exec_root.join("containers").join(id.as_str())
    }

    pub(crate) fn volume_event(&self, action: &str, name: &str, driver: &str) {
        self.volume_event_with(action, name, driver, &[]);
    }

    pub(crate) fn volume_event_with(
        &self,
        action: &str,
        name: &str,
        driver: &str,
        more: &[(&str, &str)],
    ) {
        let all = [&[("driver", driver)], more].concat();
        let attributes = all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let actor = Actor { id: name.to_owned(), attributes: attributes.collect() };
        self.journal.append(EventKind::Volume, action, actor);
    }

    /// Tells that what nobody used was removed, each of which was told of before.
    pub(crate) fn pruned(&self, kind: EventKind, reclaimed: u64) {
        let attributes = BTreeMap::from([("reclaimed".to_owned(), reclaimed.to_string())]);
        self.journal.append(kind, "prune", Actor { id: String::new(), attributes });
    }

    pub(crate) fn event(
        &self,
        action: impl Into<String>,
        id: &Id,
        attributes: BTreeMap<String, String>,
    ) {
        self.journal.append(EventKind::Container, action, Actor { id: id.to_string(), attributes });
    }
}
