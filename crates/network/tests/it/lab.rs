//! A host of one's own: a network namespace for the test's thread, one more that plays the internet, and ways to look.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use network::netd::NetdConfig;
use network::{AttachRequest, Attachment, Bridge, EndpointRequest, NetworkConfig, Networks};
use state::{Journal, Store};
use stdx::Id;
use sys::ns::{setns, unshare};
use sys::process::CloneFlags;

/// The internet's address, and the host's on the way there.
pub(crate) const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub(crate) const UPLINK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// Runs a test on a thread with a network namespace of its own, and loopback in it. Without root there is none: said
/// aloud, not failed.
pub(crate) fn on_a_host(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().to_owned();
    let host = std::thread::spawn(move || {
        unshare(CloneFlags::NEWNET).unwrap();
        sys::net::loopback_up().unwrap();
        NETD_DIR.set(Some(path));
        test();
    });
    let outcome = host.join();
    for of_one_daemon in std::fs::read_dir(dir.path()).unwrap() {
        network::netd::end(&of_one_daemon.unwrap().path()).unwrap();
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

thread_local! {
    /// Where the daemons of this host have the sockets of their netds, in a directory each.
    static NETD_DIR: std::cell::RefCell<Option<std::path::PathBuf>> = const { std::cell::RefCell::new(None) };
}

/// Does something in another namespace.
pub(crate) fn within<T: Send>(namespace: &OwnedFd, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(namespace.as_fd(), CloneFlags::NEWNET).unwrap();
                work()
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub(crate) fn new_namespace() -> OwnedFd {
    std::thread::spawn(|| {
        unshare(CloneFlags::NEWNET).unwrap();
        sys::net::loopback_up().unwrap();
        std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
    })
    .join()
    .unwrap()
}

/// A namespace behind the host's device `uplink`, with a default route back through the host.
pub(crate) fn internet() -> OwnedFd {
    let namespace = new_namespace();
    let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    run(&[
        "ip", "link", "add", "uplink", "type", "veth", "peer", "name", "downlink", "netns", &path,
    ]);
    run(&["ip", "addr", "add", &format!("{UPLINK}/24"), "dev", "uplink"]);
    run(&["ip", "link", "set", "uplink", "up"]);
    run(&["ip", "route", "add", "default", "via", &INTERNET.to_string()]);
    within(&namespace, || {
        run(&["ip", "addr", "add", &format!("{INTERNET}/24"), "dev", "downlink"]);
        run(&["ip", "link", "set", "downlink", "up"]);
        run(&["ip", "route", "add", "default", "via", &UPLINK.to_string()]);
    });
    namespace
}

/// A namespace behind a device of the host, which has `host`; it has `there` and a default route back.
pub(crate) fn beside(device: &str, host: &str, there: &str) -> OwnedFd {
    let namespace = new_namespace();
    let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    run(&["ip", "link", "add", device, "type", "veth", "peer", "name", "lan", "netns", &path]);
    run(&["ip", "addr", "add", host, "dev", device]);
    run(&["ip", "link", "set", device, "up"]);
    within(&namespace, || {
        run(&["ip", "addr", "add", there, "dev", "lan"]);
        run(&["ip", "link", "set", "lan", "up"]);
        let (host, _) = host.split_once('/').unwrap();
        run(&["ip", "route", "add", "default", "via", host]);
    });
    namespace
}

/// What a program prints; it must succeed.
#[track_caller]
pub(crate) fn run(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Long enough for a first packet that was lost on a busy machine to be sent again, which the kernel does after a second.
const PATIENCE: Duration = Duration::from_millis(2500);

/// Listens in `server`, connects from `client`, says hello both ways. Returns the client's address as the server sees it.
pub(crate) fn talk(
    server: Option<&OwnedFd>,
    at: impl Into<IpAddr>,
    client: Option<&OwnedFd>,
) -> Option<IpAddr> {
    let at = at.into();
    let any = if at.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let place =
        |namespace: Option<&OwnedFd>| namespace.map(|namespace| namespace.try_clone().unwrap());
    let (server, client) = (place(server), place(client));
    let own: OwnedFd = std::fs::File::open("/proc/thread-self/ns/net").unwrap().into();
    let listener = within(server.as_ref().unwrap_or(&own), || TcpListener::bind((any, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let mut stream = within(client.as_ref().unwrap_or(&own), || {
        TcpStream::connect_timeout(&SocketAddr::from((at, port)), PATIENCE).ok()
    })?;
    let (mut accepted, from) = listener.accept().unwrap();
    let mut word = [0; 5];
    stream.write_all(b"hello").unwrap();
    accepted.read_exact(&mut word).unwrap();
    accepted.write_all(&word).unwrap();
    stream.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"hello");
    Some(from.ip())
}

/// Looks until there is something to see; in the end there is nothing.
pub(crate) fn soon<T>(look: impl Fn() -> Option<T>) -> Option<T> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let seen = look();
        if seen.is_some() || Instant::now() > end {
            return seen;
        }
        std::thread::yield_now();
    }
}

/// The records, which outlive the daemon, and the daemon's network.
pub(crate) struct Daemon {
    pub(crate) store: Store,
    pub(crate) networks: Networks,
}

pub(crate) fn config(bridge: &str) -> NetworkConfig {
    let netd = NETD_DIR.with_borrow(|dir| NetdConfig {
        program: env!("CARGO_BIN_EXE_test-netd").into(),
        dir: dir.as_ref().expect("a test on a host").join(bridge),
        stand_in: None,
    });
    std::fs::create_dir_all(&netd.dir).unwrap();
    NetworkConfig {
        bridge: Bridge::Ours(bridge.to_owned()),
        netd: Some(netd),
        ..NetworkConfig::default()
    }
}

impl Daemon {
    pub(crate) fn start(config: NetworkConfig) -> Self {
        Self::with(config, Store::in_memory())
    }

    pub(crate) fn with(config: NetworkConfig, store: Store) -> Self {
        let journal = Journal::open(&store).unwrap();
        let networks = Networks::open(config, &store, &journal).unwrap();
        Self { store, networks }
    }

    /// Dies without a word and starts again on the same records.
    pub(crate) fn crash_and_start(self, config: NetworkConfig) -> Self {
        let Self { store, networks } = self;
        drop(networks);
        Self::with(config, store)
    }

    pub(crate) fn attach(&self, network: &str) -> (Id, Attachment) {
        let container = Id::random();
        let attachment = self.networks.attach(&request(&container, network)).unwrap();
        (container, attachment)
    }

    pub(crate) fn endpoints_recorded(&self) -> usize {
        self.store.list::<network::Endpoint>().unwrap().len()
    }

    /// What is wrong, one line each.
    pub(crate) fn findings(&self, known: &[Id]) -> Vec<String> {
        let findings = self.networks.check(known).unwrap();
        findings
            .iter()
            .map(|one| format!("{} {}: {}", one.invariant, one.subject, one.problem))
            .collect()
    }
}

pub(crate) fn request(container: &Id, network: &str) -> AttachRequest {
    AttachRequest {
        container: container.clone(),
        name: "web".to_owned(),
        networks: vec![EndpointRequest {
            network: network.to_owned(),
            ..EndpointRequest::default()
        }],
        ports: Vec::new(),
        exposed: Vec::new(),
        dns: network::files::Dns::default(),
    }
}

pub(crate) fn ip(attachment: &Attachment) -> Ipv4Addr {
    attachment.endpoints[0].ip.unwrap()
}

/// The host's devices of a kind, by name.
pub(crate) fn devices(kind: &str) -> Vec<String> {
    let listing = run(&["ip", "-o", "link", "show", "type", kind]);
    let name = |line: &str| line.split([':', '@']).nth(1).map(|name| name.trim().to_owned());
    listing.lines().filter_map(name).filter(|name| name != "uplink").collect()
}
