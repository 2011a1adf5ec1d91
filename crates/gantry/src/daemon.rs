//! The daemon, put together: every room built from explicit parts, in the order of the floors, and handed to the door.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use engine::container::ids::{Range, Userns};
use engine::container::userns;
use engine::{Containers, OpenDoor, Parts, Settings, System};
use image::{Images, RegistryConfig};
use network::netd::NetdConfig;
use network::{AddressPool, Bridge, NetworkConfig, Networks};
use plugin::{Places, Plugins};
use rootless::Outside;
use runtime::cgroup::Driver;
use server::listen::{Listener, TcpSecurity, TlsFiles};
use server::{Authorization, Gate};
use shim::Launcher;
use shim::logs::PluginPlaces;
use state::{Journal, Store};
use stdx::{Context, Error, Id, Result};
use storage::Storage;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{self, Asked, Config, Told};
use crate::reload;

/// How often events go to disk and the trash is emptied.
const CHORES: Duration = Duration::from_secs(5);

/// A client that does not take its archive holds a thread: there are more than there may be clients, so that those who do
/// their work are never kept waiting by those who do not. A thread is made when it is needed, and ends when it is not.
const BLOCKING_THREADS: usize = 8192;

/// `gantry daemon`, `gantryd`, `dockerd`.
pub(crate) fn main(program: &str, args: Vec<OsString>) -> ExitCode {
    let args: Vec<String> =
        args.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let (config, told) = match config::read(&args) {
        Ok(Asked::Help) => return say(&config::usage(program)),
        Ok(Asked::Version) => return say(&format!("Gantry version {}\n", engine::system::VERSION)),
        Ok(Asked::Validated(config)) => {
            return match networking(&config, "")
                .and_then(|_| settings(&config, "")?.check_default_runtime())
            {
                Ok(_) => say("configuration OK\n"),
                Err(error) => complain(&error),
            };
        }
        Ok(Asked::Run(config, told)) => (*config, *told),
        Err(error) => return complain(&error),
    };
    let log = log_to_stderr(&config);
    match run(config, told, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %error.chain(), "failed to start daemon");
            complain(&error)
        }
    }
}

fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(error: &Error) -> ExitCode {
    // A closed stderr leaves nowhere to complain to.
    let _closed = writeln!(std::io::stderr(), "failed to start daemon: {}", error.chain());
    ExitCode::FAILURE
}

/// Says how much is to be logged from now on.
pub(crate) type LogFilter = Box<dyn Fn(&Config) + Send + Sync>;

fn log_to_stderr(config: &Config) -> LogFilter {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(log_filter(config))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_filter_reloading();
    let handle = subscriber.reload_handle();
    subscriber.init();
    Box::new(move |config| {
        if let Err(error) = handle.reload(log_filter(config)) {
            tracing::error!(%error, "cannot change what is logged");
        }
    })
}

fn log_filter(config: &Config) -> String {
    let level = match config.log_level.as_str() {
        _ if config.debug => "debug",
        "fatal" => "error",
        level => level,
    };
    // Libraries below are heard from warnings on.
    let ours = "gantry,engine,image,network,plugin,server,shim,runtime,state,storage,tokiox,cli";
    ours.split(',').fold("warn".to_owned(), |filter, room| format!("{filter},{room}={level}"))
}

fn run(config: Config, told: Told, log: LogFilter) -> Result<()> {
    sys::memory::share();
    for remark in &config.remarks {
        tracing::warn!("{remark}");
    }
    check_log_options(&config)?;
    // Files that containers read are for everybody, whatever the umask of whoever started us.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    make_dir(&config.data_root, 0o710)?;
    make_dir(&config.exec_root, 0o710)?;
    make_dir(&config.data_root.join("containers"), 0o710)?;
    make_dir(&config.exec_root.join("containers"), 0o700)?;
    let _data_lock = lock(&config.data_root)?;
    let _exec_lock = lock(&config.exec_root)?;
    let outside = enter(&config)?;
    write_pid(&config.pidfile)?;
    // While there is one thread still: the launcher, and every shim it forks, run from this sealed copy.
    let program = sys::memfd::seal_self("gantry")
        .context(|| "cannot seal a copy of our program".to_owned())?;
    let launcher = Arc::new(Launcher::spawn(program)?);
    open_many_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("gantry")
        .build()
        .context(|| "cannot start threads".to_owned())?;
    let outcome = runtime.block_on(serve(&config, told, log, launcher, outside));
    // Whatever still blocks on a container or a disk does not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(2));
    match std::fs::remove_file(&config.pidfile) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, "cannot remove the pid file");
        }
        _ => {}
    }
    outcome
}

/// What no container could be started with is said at once.
fn check_log_options(config: &Config) -> Result<()> {
    if config.log_opts.is_empty() {
        return Ok(());
    }
    shim::logs::Config::from_options(&config.log_driver, &config.log_opts)
        .map(drop)
        .context(|| "failed to set log opts".to_owned())
}

/// A user's daemon becomes root of his namespaces, while there is one thread still.
fn enter(config: &Config) -> Result<Option<Arc<Outside>>> {
    let Some(wanted) = &config.rootless else { return Ok(None) };
    let settings = rootless::Settings {
        dir: config.exec_root.clone(),
        path: wanted.path.clone(),
        link: wanted.link,
        mtu: wanted.mtu,
        host_loopback: wanted.host_loopback,
    };
    rootless::enter(Path::new("/proc/self/exe"), &settings).map(|outside| Some(Arc::new(outside)))
}

async fn serve(
    config: &Config,
    told: Told,
    log: LogFilter,
    launcher: Arc<Launcher>,
    outside: Option<Arc<Outside>>,
) -> Result<()> {
    // From here on it is no reason to end.
    let hangup = signal(SignalKind::hangup())?;
    let listeners = listen(config, outside.as_deref())?;
    let store = Store::open(&config.data_root.join("state.db"))?;
    let journal = Journal::open(&store)?;
    let plugins = Arc::new(Plugins::new(plugin_places(config)));
    let storage = Storage::open(&config.data_root, config.storage_driver.as_deref(), &store)?;
    let storage = Arc::new(storage.with_plugins(Arc::clone(&plugins)));
    let images =
        Images::open(&store, Arc::clone(&storage), &journal, registries(config, outside.clone()))?;
    let identity = identity(&config.data_root)?;
    let mut networking = networking(config, &identity)?;
    networking.plugins = Some(Arc::clone(&plugins));
    if let (Some(netd), Some(outside)) = (&mut networking.netd, &outside) {
        netd.stand_in = outside.dns();
    }
    networking.outside = outside.clone();
    let networks = Networks::open(networking, &store, &journal)?;
    let settings = settings(config, &identity)?;
    settings.check_default_runtime()?;
    let containers = Containers::open(Parts {
        settings,
        store: store.clone(),
        journal: journal.clone(),
        storage: Arc::clone(&storage),
        images: images.clone(),
        networks: networks.clone(),
        launcher,
    })?;
    let system = System::new(&containers, identity);
    containers.recover().await?;
    // What was needed to read all that is recorded.
    tokiox::blocking(sys::memory::trim).await;
    let chores = tokio::spawn(chores(store.clone(), journal.clone(), Arc::clone(&storage)));
    let logs = tokio::spawn(containers.clone().keep_log_budget());
    welcome(&config.data_root, &images).await;
    let gate = {
        let (names, plugins) = (config.authorization_plugins.clone(), Arc::clone(&plugins));
        Gate::new(tokiox::blocking(move || Authorization::new(names, plugins)).await?)
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let metrics = config.metrics_address.as_deref().map(|address| {
        Listener::open(&format!("tcp://{address}"), Some(&TcpSecurity::Public), &[])
    });
    let metrics = metrics.transpose()?.unwrap_or_default();
    let rooms = server::Rooms {
        containers,
        system: system.clone(),
        images,
        networks: networks.clone(),
        journal: journal.clone(),
    };
    let listening = reload::Listeners {
        log,
        system: system.clone(),
        images: rooms.images.clone(),
        gate: gate.clone(),
        plugins,
        outside,
    };
    let reloading = tokio::spawn(reload::when_asked(hangup, told, config.clone(), listening));
    notify_ready();
    tracing::info!(version = engine::system::VERSION, "daemon has completed initialization");
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down; containers live on");
    };
    let (stop, mut stopping) = tokio::sync::watch::channel(());
    let monitored = async move {
        // Ends with its other half.
        let _over = stopping.changed().await;
    };
    let monitored = tokio::spawn(server::serve_metrics(metrics, system, monitored));
    server::serve(listeners, rooms, gate, shutdown).await?;
    drop(stop);
    monitored.await.map_err(|_| Error::internal("serving metrics panicked"))??;
    reloading.abort();
    chores.abort();
    logs.abort();
    tokiox::blocking(move || networks.close()).await;
    tokiox::blocking(move || journal.save()).await
}

/// Sockets first: a client that comes early waits instead of failing.
fn listen(config: &Config, outside: Option<&Outside>) -> Result<Vec<Listener>> {
    let security = match (config.tls || config.tls_verify, config.tls_verify) {
        (false, _) => TcpSecurity::Plain,
        (true, verify) => TcpSecurity::tls(&TlsFiles {
            client_ca: verify.then(|| config.tls_ca.clone()),
            certificate: config.tls_cert.clone(),
            key: config.tls_key.clone(),
        })?,
    };
    let inherited = config::inherited_sockets();
    let mut listeners = Vec::new();
    for door in open_doors(config) {
        tracing::warn!("{}", door.warning());
    }
    for host in &config.hosts {
        match outside {
            None => listeners.extend(Listener::open(host, Some(&security), &inherited)?),
            Some(outside) => {
                listeners.extend(listen_outside(host, &security, &inherited, outside)?);
            }
        }
    }
    Ok(listeners)
}

/// Where whoever can connect is root on this host.
fn open_doors(config: &Config) -> Vec<OpenDoor> {
    let addresses = config.hosts.iter().filter_map(|host| host.strip_prefix("tcp://"));
    let door = match (config.tls, config.tls_verify) {
        (_, true) => return Vec::new(),
        (true, false) => OpenDoor::Anybody,
        (false, false) => OpenDoor::Plain,
    };
    addresses.map(|address| door(address.to_owned())).collect()
}

fn plugin_places(config: &Config) -> Places {
    match config.plugin_directories.as_slice() {
        [] => Places::default(),
        directories => Places::only(directories),
    }
}

/// As [`Listener::open`], for a user's daemon: its unix sockets are the user's alone, its TCP sockets the host's.
fn listen_outside(
    host: &str,
    security: &TcpSecurity,
    inherited: &[(String, u32)],
    outside: &Outside,
) -> Result<Vec<Listener>> {
    if let Some(path) = host.strip_prefix("unix://") {
        return Ok(vec![Listener::unix(Path::new(path), &[])?]);
    }
    let Some(address) = host.strip_prefix("tcp://") else {
        return Listener::open(host, Some(security), inherited);
    };
    let address: std::net::SocketAddr = address
        .parse()
        .map_err(|_| Error::invalid(format!("{host} is not an address and a port")))?;
    let open = || -> std::io::Result<_> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType};
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = outside.socket(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, 1024)?;
        Ok(socket)
    };
    let socket = open().context(|| format!("cannot listen on {host}"))?;
    Ok(vec![Listener::of_tcp(socket, security)?])
}

fn settings(config: &Config, identity: &str) -> Result<Settings> {
    let Places { sockets, specs } = plugin_places(config);
    let (userns, id_pool) = users(config)?;
    let (cgroup_driver, cgroup_parent) = cgroups(config)?;
    Ok(Settings {
        userns,
        id_pool,
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        identity: identity.to_owned(),
        data_root: config.data_root.clone(),
        exec_root: config.exec_root.clone(),
        debug: config.debug,
        log_driver: config.log_driver.clone(),
        log_opts: config.log_opts.clone(),
        log_budget: config.log_budget,
        log_environment: crate::config::log_environment().into(),
        log_plugins: PluginPlaces { sockets, specs, fifos: config.exec_root.join("logging") },
        default_runtime: config.default_runtime.clone(),
        program_dirs: crate::config::program_dirs(),
        experimental: config.experimental,
        runtimes: config.runtimes.clone(),
        init: config.init,
        ipc_mode: config.ipc_mode.clone(),
        cgroupns_mode: config.cgroupns_mode.clone(),
        no_new_privileges: config.no_new_privileges,
        shm_size: config.shm_size,
        rootless: config.rootless.is_some(),
        cgroup_driver,
        cgroup_parent,
        dns: config.dns.clone(),
        dns_search: config.dns_search.clone(),
        dns_options: config.dns_options.clone(),
        ulimits: config.ulimits.clone(),
        seccomp_profile: config.seccomp_profile.clone(),
        apparmor: engine::apparmor::is_there(),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        labels: config.labels.clone(),
        registry_mirrors: config.registry_mirrors.clone(),
        insecure_registries: config.insecure_registries.clone(),
        authorization_plugins: config.authorization_plugins.clone(),
        open_doors: open_doors(config),
        address_pools: config.address_pools.clone(),
        firewall: config.iptables || config.ip6tables,
        cdi_spec_dirs: cdi_spec_dirs(config),
        commit: env!("GANTRY_COMMIT").to_owned(),
        compiler: env!("GANTRY_COMPILER").to_owned(),
    })
}

/// Where devices are described. Nowhere, if the feature is off or the only place has no name.
fn cdi_spec_dirs(config: &Config) -> Vec<PathBuf> {
    let off = config.features.get("cdi") == Some(&false);
    match &config.cdi_spec_dirs {
        _ if off => Vec::new(),
        None => ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from).to_vec(),
        Some(dirs) if matches!(&dirs[..], [only] if only.as_os_str().is_empty()) => Vec::new(),
        Some(dirs) => dirs.clone(),
    }
}

/// Who makes cgroups: where there is but one tree of them it is systemd's, as in Docker. A user's systemd is not asked.
fn cgroups(config: &Config) -> Result<(Driver, String)> {
    let rootless = config.rootless.is_some();
    let usual = || -> Result<Driver> {
        let one_tree = runtime::cgroup::Mode::detect()? == runtime::cgroup::Mode::V2;
        let systemds = one_tree && !rootless && runtime::cgroup::systemd_runs();
        Ok(if systemds { Driver::Systemd } else { Driver::Cgroupfs })
    };
    let driver = config.cgroup_driver.map_or_else(usual, Ok)?;
    if driver == Driver::Systemd && rootless {
        return Err(Error::not_implemented(
            "the systemd cgroup driver is not there for a daemon without root",
        ));
    }
    if driver == Driver::Systemd && !runtime::cgroup::systemd_runs() {
        return Err(Error::not_implemented(
            "the systemd cgroup driver needs a host whose first process is systemd",
        ));
    }
    let parent = match config.cgroup_parent.as_str() {
        "" => engine::default_cgroup_parent(driver),
        parent => parent,
    };
    engine::check_cgroup_parent(driver, parent)?;
    Ok((driver, parent.to_owned()))
}

/// Whose users those of containers are.
fn users(config: &Config) -> Result<(Userns, Range)> {
    let pool = match config.userns_pool.as_str() {
        "" => Range::for_containers(),
        text => Range::parse(text)?,
    };
    let userns = match (config.userns.as_str(), config.userns_remap.as_str()) {
        (mode, "") => Userns::parse(mode, Userns::Host)?,
        ("", user) => Userns::Shared(userns::remapped(user)?),
        _ => return Err(Error::invalid("--userns and --userns-remap exclude each other")),
    };
    if matches!(userns, Userns::KeepId { .. }) {
        return Err(Error::invalid("--userns keep-id is for single containers"));
    }
    Ok((userns, pool))
}

pub(crate) fn registries(config: &Config, outside: Option<Arc<Outside>>) -> RegistryConfig {
    RegistryConfig {
        mirrors: config.registry_mirrors.clone(),
        insecure: config.insecure_registries.clone(),
        concurrent_downloads: config.max_concurrent_downloads,
        attempts: config.max_download_attempts,
        outside,
        ..RegistryConfig::default()
    }
}

fn networking(config: &Config, identity: &str) -> Result<NetworkConfig> {
    let default = NetworkConfig::default();
    let pool = |(base, size): &(String, u8)| {
        let base = base
            .parse()
            .map_err(|_| Error::invalid(format!("invalid base of an address pool: {base}")))?;
        Ok(AddressPool { base, size: *size })
    };
    let mut pools = config.address_pools.iter().map(pool).collect::<Result<Vec<_>>>()?;
    if pools.is_empty() {
        pools = default.default_address_pools;
    }
    if pools.iter().all(|pool| pool.base.addr().is_ipv4()) {
        pools.push(AddressPool::unique_local(identity));
    }
    Ok(NetworkConfig {
        bridge: match config.bridge.as_deref() {
            None | Some("") => default.bridge,
            Some("none") => Bridge::Disabled,
            // One that is there already is the operator's; else it is ours to make.
            Some(name)
                if Path::new("/proc/sys/net/ipv4/conf").join(name).exists()
                    && !config.bridge_is_ours() =>
            {
                Bridge::Existing(name.to_owned())
            }
            Some(name) => Bridge::Ours(name.to_owned()),
        },
        bip: cidr(&config.bip, "bip")?,
        fixed_cidr: cidr(&config.fixed_cidr, "fixed-cidr")?,
        default_gateway: config.default_gateway,
        ipv6: config.ipv6,
        bip6: cidr(&config.bip6, "bip6")?,
        fixed_cidr6: cidr(&config.fixed_cidr6, "fixed-cidr-v6")?,
        default_gateway6: config.default_gateway6,
        default_network_options: config.network_options.clone(),
        host_gateway: config.host_gateway.clone(),
        default_address_pools: pools,
        mtu: config.mtu,
        icc: config.icc,
        ip_masq: config.ip_masq,
        ip_forward: config.ip_forward,
        ip_forward_no_drop: config.ip_forward_no_drop,
        iptables: config.iptables,
        ip6tables: config.ip6tables,
        allow_direct_routing: config.allow_direct_routing,
        accept_fwmark: config.accept_fwmark,
        host_binding: config.ip,
        // Whatever has been put in our program's place meanwhile: this is what we are.
        netd: Some(NetdConfig {
            program: "/proc/self/exe".into(),
            dir: config.exec_root.clone(),
            stand_in: None,
        }),
        namespaces: Some(config.exec_root.join("netns")),
        plugins: None,
        outside: None,
        system_bus: Some(config::system_bus()),
        table: None,
    })
}

fn cidr<T: FromStr>(text: &Option<String>, flag: &str) -> Result<Option<T>> {
    let Some(text) = text else { return Ok(None) };
    text.parse()
        .map(Some)
        .map_err(|_| Error::invalid(format!("invalid CIDR address for --{flag}: {text}")))
}

/// Work that nobody waits for. One that fails does not keep the others: on a full disk nothing can be written, and the
/// trash must go.
async fn chores(store: Store, journal: Journal, storage: Arc<Storage>) {
    let mut known = journal.last();
    let mut said = String::new();
    loop {
        let last = journal.last();
        let quiet = std::mem::replace(&mut known, last) == last;
        let (store, journal, storage) = (store.clone(), journal.clone(), Arc::clone(&storage));
        let outcome = tokiox::blocking(move || {
            if quiet {
                rest(&store);
            }
            let (saved, reaped) = (journal.save(), storage.reap());
            store.keep_room();
            saved.and(reaped)
        })
        .await;
        let trouble = outcome.err().map(|error| error.chain()).unwrap_or_default();
        if trouble != said && !trouble.is_empty() {
            tracing::warn!(error = %trouble, "a chore failed");
        }
        said = trouble;
        tokio::time::sleep(CHORES).await;
    }
}

/// Gives back memory that only work needs.
fn rest(store: &Store) {
    store.rest();
    sys::memory::trim();
    if let Err(error) = sys::memory::forget_program() {
        tracing::debug!(%error, "cannot let go of what does not run");
    }
}

/// A new data root starts with one image, so that the first `run hello-world` needs no registry.
async fn welcome(data_root: &Path, images: &Images) {
    let mark = data_root.join("welcomed");
    if mark.exists() {
        return;
    }
    match images.load_embedded().await {
        Ok(()) => drop(File::create(mark)),
        Err(error) => {
            tracing::warn!(error = %error.chain(), "cannot load the image that comes with the engine")
        }
    }
}

/// This data root's name for itself, made once.
fn identity(data_root: &Path) -> Result<String> {
    let path = data_root.join("engine-id");
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        _ => {}
    }
    let id = Id::random();
    let hex = &id.as_str()[..32];
    let uuid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    std::fs::write(&path, &uuid).context(|| format!("cannot write {}", path.display()))?;
    Ok(uuid)
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .context(|| format!("cannot make {}", path.display()))?;
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions)
        .context(|| format!("cannot protect {}", path.display()))
}

/// Each client and each container that runs costs a descriptor or two. Containers keep the limit we were given: the
/// launcher has been started.
fn open_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let wanted = Rlimit { current: maximum, maximum };
    if let Err(errno) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%errno, "cannot raise the limit of open files");
    }
}

/// One daemon per directory. The kernel lets go of the lock with the process, whatever kills it; no pid is believed.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = File::create(&path).context(|| format!("cannot open {}", path.display()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| Error::conflict(format!("another daemon is running on {}", dir.display())))?;
    Ok(file)
}

fn write_pid(path: &Path) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).context(|| format!("cannot make {}", dir.display()))?;
    }
    std::fs::write(path, std::process::id().to_string())
        .context(|| format!("cannot write {}", path.display()))
}

/// Tells systemd that the API answers.
fn notify_ready() {
    let Some(socket) = config::notify_socket() else { return };
    let told = std::os::unix::net::UnixDatagram::unbound().and_then(|from| {
        use std::os::linux::net::SocketAddrExt;
        match socket.strip_prefix('@') {
            Some(name) => from.send_to_addr(
                b"READY=1",
                &std::os::unix::net::SocketAddr::from_abstract_name(name)?,
            ),
            None => from.send_to(b"READY=1", &socket),
        }
    });
    if let Err(error) = told {
        tracing::warn!(%error, "cannot tell systemd that we are ready");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_devices_are_described() {
        let dirs = |dirs: Option<&[&str]>, cdi: Option<bool>| {
            cdi_spec_dirs(&Config {
                cdi_spec_dirs: dirs.map(|dirs| dirs.iter().map(PathBuf::from).collect()),
                features: cdi.map(|cdi| ("cdi".to_owned(), cdi)).into_iter().collect(),
                ..Config::default()
            })
        };
        assert_eq!(dirs(None, None), ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from));
        assert_eq!(dirs(None, Some(true)).len(), 2);
        assert_eq!(dirs(Some(&["/a", "/b"]), Some(true)).len(), 2);
        for (given, cdi) in [
            (Some(&[""][..]), Some(true)),
            (Some(&[]), Some(true)),
            (None, Some(false)),
            (Some(&["/a"]), Some(false)),
        ] {
            assert_eq!(dirs(given, cdi), Vec::<PathBuf>::new(), "{given:?} {cdi:?}");
        }
    }
}
