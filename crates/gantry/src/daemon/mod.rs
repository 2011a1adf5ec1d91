//! The daemon, put together: every room built from explicit parts, in the order of the floors, and handed to the door.

pub(crate) mod parts;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use engine::{Containers, Parts, System};
use image::Images;
use network::Networks;
use plugin::Plugins;
use rootless::Outside;
use server::listen::{Listener, TcpSecurity, TlsFiles};
use server::{Authorization, Gate};
use shim::Launcher;
use state::{Journal, Store};
use stdx::{Context, Error, Id, Result};
use storage::Storage;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{self, Asked, Config, Told};
use crate::reload;

/// How often events go to disk and the trash is emptied.
const CHORES: Duration = Duration::from_secs(5);
/// After how many of these one that never rests gives memory back, too: what holes its busiest moment has left.
const TRIM: u64 = 12;

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
            return match parts::networking(&config, "")
                .and_then(|_| parts::settings(&config, "")?.check_default_runtime())
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
    let plugins = Arc::new(Plugins::new(parts::plugin_places(config)));
    let storage = Storage::open(&config.data_root, config.storage_driver.as_deref(), &store)?;
    let storage = Arc::new(storage.with_plugins(Arc::clone(&plugins)));
    let images = Images::open(
        &store,
        Arc::clone(&storage),
        &journal,
        parts::registries(config, outside.clone()),
    )?;
    let identity = identity(&config.data_root)?;
    let mut networking = parts::networking(config, &identity)?;
    networking.plugins = Some(Arc::clone(&plugins));
    if let (Some(netd), Some(outside)) = (&mut networking.netd, &outside) {
        netd.stand_in = outside.dns();
    }
    networking.outside = outside.clone();
    let networks = Networks::open(networking, &store, &journal)?;
    let settings = parts::settings(config, &identity)?;
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
    for door in parts::open_doors(config) {
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

/// Work that nobody waits for. One that fails does not keep the others: on a full disk nothing can be written, and the
/// trash must go.
async fn chores(store: Store, journal: Journal, storage: Arc<Storage>) {
    let mut known = journal.last();
    let mut said = String::new();
    for round in 1u64.. {
        let last = journal.last();
        let quiet = std::mem::replace(&mut known, last) == last;
        let due = round % TRIM == 0;
        let (store, journal, storage) = (store.clone(), journal.clone(), Arc::clone(&storage));
        let outcome = tokiox::blocking(move || {
            if quiet {
                rest(&store);
            } else if due {
                sys::memory::trim();
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
