//! One network on three hosts, and strangers who would like to be on it (N11).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use network::netd::NetdConfig;
use network::{
    Attachment, CreateRequest, EndpointRequest, Network, NetworkConfig, PoolRequest, PortRequest,
    Protocol,
};
use stdx::{Id, Kind, Result};
use sys::ns::unshare;
use sys::process::CloneFlags;

use crate::lab::{
    Daemon, INTERNET, UPLINK, config, internet, ip, new_namespace, on_a_host, request, run, talk,
    within,
};

/// A host on the underlay: `192.0.2.NUMBER`, behind a switch that is the test's own namespace.
struct Machine {
    host: OwnedFd,
    number: u8,
}

impl Machine {
    fn new(number: u8, mtu: u32) -> Self {
        let host = new_namespace();
        let path = format!("/proc/{}/fd/{}", std::process::id(), host.as_raw_fd());
        let port = format!("port{number}");
        run(&["ip", "link", "add", &port, "type", "veth", "peer", "name", "wire", "netns", &path]);
        run(&["ip", "link", "set", &port, "master", "switch", "up"]);
        within(&host, || {
            run(&["ip", "addr", "add", &format!("192.0.2.{number}/24"), "dev", "wire"]);
            run(&["ip", "link", "set", "wire", "mtu", &mtu.to_string(), "up"]);
            run(&["ip", "addr", "add", &format!("2001:db8::{number}/64"), "dev", "wire", "nodad"]);
        });
        Self { host, number }
    }

    fn daemon(&self, directory: &Path) -> Daemon {
        let config = self.config(directory);
        within(&self.host, || Daemon::start(config))
    }

    fn config(&self, directory: &Path) -> NetworkConfig {
        let config = config(&format!("gt-ov{}", self.number));
        let dir = directory.join(format!("netd{}", self.number));
        std::fs::create_dir_all(&dir).expect("a directory");
        let netd = config.netd.map(|netd| NetdConfig { dir, ..netd });
        let namespaces = Some(directory.join(self.number.to_string()));
        NetworkConfig { namespaces, netd, ..config }
    }

    fn create(&self, daemon: &Daemon, request: &CreateRequest) -> Result<Arc<Network>> {
        within(&self.host, || daemon.networks.create(request))
    }

    fn attach(&self, daemon: &Daemon) -> (Id, Attachment) {
        within(&self.host, || daemon.attach("blue"))
    }
}

/// What the hosts have on disk; their netds end with it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir_in("/dev/shm").expect("a directory"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.path()).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("netd") {
                network::netd::end(&entry.path()).expect("it ends");
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Underlay {
    V4,
    V6,
}

impl Underlay {
    fn address(self, number: u8) -> String {
        match self {
            Self::V4 => format!("192.0.2.{number}"),
            Self::V6 => format!("2001:db8::{number}"),
        }
    }
}

/// Host `number` has the addresses from `64 * (number - 1)` on.
fn blue(number: u8, hosts: &[u8], vni: Option<u32>) -> CreateRequest {
    blue_over(Underlay::V4, number, hosts, vni)
}

fn blue_over(underlay: Underlay, number: u8, hosts: &[u8], vni: Option<u32>) -> CreateRequest {
    let range = |number: u8| format!("10.9.0.{}/26", 64 * (u32::from(number) - 1));
    let peers: Vec<String> = hosts
        .iter()
        .filter(|other| **other != number)
        .map(|other| format!("{}={}", underlay.address(*other), range(*other)))
        .collect();
    let mut options = BTreeMap::from([
        ("gantry.overlay.local".to_owned(), underlay.address(number)),
        ("gantry.overlay.peers".to_owned(), peers.join(",")),
    ]);
    if let Some(vni) = vni {
        let option = "com.docker.network.driver.overlay.vxlanid_list";
        options.insert(option.to_owned(), vni.to_string());
    }
    CreateRequest {
        name: "blue".to_owned(),
        driver: "overlay".to_owned(),
        pools: vec![PoolRequest {
            subnet: "10.9.0.0/24".to_owned(),
            ip_range: range(number),
            ..PoolRequest::default()
        }],
        options,
        ..CreateRequest::default()
    }
}

fn on_an_underlay(test: impl FnOnce() + Send + 'static) {
    on_a_host(|| {
        // Names of namespaces are mounts; nobody else shall see them.
        unshare(CloneFlags::NEWNS | CloneFlags::FS).expect("root may");
        run(&["mount", "--make-rprivate", "/"]);
        run(&["ip", "link", "add", "switch", "type", "bridge"]);
        run(&["ip", "link", "set", "switch", "up"]);
        test();
    });
}

#[test]
fn n11_three_hosts() {
    on_an_underlay(|| {
        let dir = Place::new();
        let machines: Vec<Machine> =
            [(1, 1500), (2, 1500), (3, 1400)].map(|(number, mtu)| Machine::new(number, mtu)).into();
        let hosts = [1, 2, 3];
        let daemons: Vec<Daemon> = machines.iter().map(|one| one.daemon(dir.path())).collect();
        let mut attached = Vec::new();
        for (machine, daemon) in machines.iter().zip(&daemons) {
            let network = machine.create(daemon, &blue(machine.number, &hosts, None)).unwrap();
            assert_eq!(network.overlay.as_ref().unwrap().vni, 4096);
            attached.push(machine.attach(daemon));
        }
        let addresses: Vec<Ipv4Addr> = attached.iter().map(|(_, one)| ip(one)).collect();
        let expected =
            [Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 64), Ipv4Addr::new(10, 9, 0, 128)];
        assert_eq!(addresses, expected);
        for (_, server) in &attached {
            for (_, client) in attached.iter().filter(|(_, one)| ip(one) != ip(server)) {
                let from = talk(server.netns.as_ref(), ip(server), client.netns.as_ref());
                assert_eq!(from, Some(ip(client).into()), "to {}", ip(server));
            }
        }
        // The underlay's, less what VXLAN puts around a frame.
        let mtus: Vec<String> = attached.iter().map(|(_, one)| link_mtu(one)).collect();
        assert_eq!(mtus, ["1450", "1450", "1350"]);
    });
}

/// What a container hears first of what one who is no peer, and knows everything else, and then a peer send to it.
fn first_heard(underlay: Underlay, iptables: bool) -> String {
    let dir = Place::new();
    let machines = [Machine::new(1, 1500), Machine::new(2, 1500)];
    let daemons = [1, 2].map(|number| {
        let machine = &machines[number - 1];
        let config = NetworkConfig { iptables, ip6tables: iptables, ..machine.config(dir.path()) };
        let daemon = within(&machine.host, || Daemon::start(config));
        let request = blue_over(underlay, machine.number, &[1, 2], None);
        machine.create(&daemon, &request).expect("a network");
        daemon
    });
    let [(_, one), (_, other)] = [0, 1].map(|number| machines[number].attach(&daemons[number]));
    let stranger = Machine::new(9, 1500);
    let at = (ip(&one), 7777);
    within(&stranger.host, || {
        run(&[
            "ip",
            "link",
            "add",
            "vx",
            "type",
            "vxlan",
            "id",
            "4096",
            "dstport",
            "4789",
            "local",
            &underlay.address(9),
            "remote",
            &underlay.address(1),
            "dev",
            "wire",
        ]);
        run(&["ip", "addr", "add", "10.9.0.250/24", "dev", "vx"]);
        run(&["ip", "link", "set", "vx", "up"]);
        let mac = network::Mac::of(at.0.into()).to_string();
        run(&["ip", "neigh", "add", &at.0.to_string(), "lladdr", &mac, "dev", "vx"]);
    });
    let bind = |attachment: &Attachment, port: u16| {
        let netns = attachment.netns.as_ref().expect("one of its own");
        within(netns, || UdpSocket::bind((ip(attachment), port)).expect("a socket"))
    };
    let listener = bind(&one, at.1);
    listener.set_read_timeout(Some(testkit::house::PATIENCE)).expect("a deadline");
    let evil = within(&stranger.host, || UdpSocket::bind("10.9.0.250:0").expect("a socket"));
    // The underlay has to find its way first, or the first word waits for it.
    within(&stranger.host, || {
        let answered = std::net::TcpStream::connect_timeout(
            &SocketAddr::new(underlay.address(1).parse().expect("an address"), 9),
            testkit::house::PATIENCE,
        );
        assert!(answered.is_err(), "nobody listens there");
    });
    evil.send_to(b"evil", at).expect("it is sent");
    bind(&other, 0).send_to(b"good", at).expect("it is sent");
    let mut word = [0; 16];
    let (length, _) = listener.recv_from(&mut word).expect("somebody is heard");
    String::from_utf8_lossy(&word[..length]).into_owned()
}

#[test]
fn n11_strangers_are_not_heard() {
    on_an_underlay(|| assert_eq!(first_heard(Underlay::V4, true), "good"));
    on_an_underlay(|| assert_eq!(first_heard(Underlay::V6, true), "good"));
    // It is a rule that keeps them out, and nothing else.
    on_an_underlay(|| assert_eq!(first_heard(Underlay::V4, false), "evil"));
    on_an_underlay(|| assert_eq!(first_heard(Underlay::V6, false), "evil"));
}

fn link_mtu(attachment: &Attachment) -> String {
    within(attachment.netns.as_ref().expect("one of its own"), || {
        let shown = run(&["ip", "-o", "link", "show", "eth0"]);
        let mut words = shown.split_whitespace().skip_while(|word| *word != "mtu");
        words.nth(1).expect("a number").to_owned()
    })
}

#[test]
fn n11_two_hosts_of_ipv6() {
    on_an_underlay(|| {
        let dir = Place::new();
        let machines = [Machine::new(1, 1500), Machine::new(2, 1500)];
        let daemons: Vec<Daemon> = machines.iter().map(|one| one.daemon(dir.path())).collect();
        let attached: Vec<Attachment> = machines
            .iter()
            .zip(&daemons)
            .map(|(machine, daemon)| {
                let request = blue_over(Underlay::V6, machine.number, &[1, 2], None);
                machine.create(daemon, &request).unwrap();
                machine.attach(daemon).1
            })
            .collect();
        let [one, other] = [&attached[0], &attached[1]];
        let from = talk(one.netns.as_ref(), ip(one), other.netns.as_ref());
        assert_eq!(from, Some(ip(other).into()));
        assert_eq!(link_mtu(one), "1430");
    });
}

#[test]
fn a_way_out() {
    on_an_underlay(|| {
        let dir = Place::new();
        let machine = Machine::new(1, 1500);
        let config = machine.config(dir.path());
        within(&machine.host, || {
            let internet = internet();
            let daemon = Daemon::start(config.clone());
            daemon.networks.create(&blue(1, &[1, 2], None)).unwrap();
            assert!(daemon.networks.find("docker_gwbridge").is_err(), "nobody needs it yet");
            let one = Id::random();
            let mut wish = request(&one, "blue");
            wish.ports.push(PortRequest {
                protocol: Protocol::Tcp,
                container_port: 80,
                host_ip: None,
                host_ports: Some(8080..=8080),
            });
            let first = daemon.networks.attach(&wish).unwrap();
            let (other, second) = daemon.attach("blue");
            let out = |who: &Attachment| talk(Some(&internet), INTERNET, who.netns.as_ref());
            assert_eq!((out(&first), out(&second)), (Some(UPLINK.into()), Some(UPLINK.into())));
            assert_eq!(daemon.networks.connections(&one).len(), 1, "nobody asked for it");
            let way = &first.endpoints[1];
            assert!(way.way_out && way.container_name.starts_with("gateway_"));
            // Who shares it does not see each other there.
            assert_eq!(talk(first.netns.as_ref(), way.ip.unwrap(), second.netns.as_ref()), None);
            assert_eq!(daemon.networks.published(&one).len(), 2, "a port, in both families");
            let netns = first.netns.as_ref().unwrap();
            let listener = within(netns, || TcpListener::bind("0.0.0.0:80").unwrap());
            within(&internet, || TcpStream::connect((UPLINK, 8080)).unwrap());
            listener.accept().unwrap();

            // With a network that leads out it is not needed any more; without it it is needed again.
            let ways = || run(&["ip", "-o", "link", "show", "type", "veth"]).lines().count();
            let before = ways();
            let wish =
                EndpointRequest { network: "bridge".to_owned(), ..EndpointRequest::default() };
            daemon
                .networks
                .connect(&other, "web", &wish, &[], second.netns.as_ref().unwrap().as_fd())
                .unwrap();
            let attend = || {
                let request = request(&other, "blue");
                let netns = second.netns.as_ref().unwrap();
                daemon.networks.attend(&request, netns.as_fd()).unwrap();
            };
            attend();
            assert_eq!(ways(), before, "one has come and one has gone");
            assert_eq!(out(&second), Some(UPLINK.into()));
            let bridge = daemon.networks.find("bridge").unwrap();
            let there = second.netns.as_ref().unwrap().as_fd();
            daemon.networks.disconnect(&other, &bridge.id, Some(there)).unwrap();
            attend();
            assert_eq!((ways(), out(&second)), (before, Some(UPLINK.into())));

            // It outlives its daemon, and goes with its container.
            let daemon = daemon.crash_and_start(config);
            daemon.networks.recover(&[one.clone(), other.clone()]).unwrap();
            assert_eq!(daemon.findings(&[one.clone(), other.clone()]), [""; 0]);
            assert_eq!(out(&first), Some(UPLINK.into()));
            daemon.networks.detach(&one);
            daemon.networks.detach(&other);
            daemon.networks.settle();
            assert_eq!(daemon.endpoints_recorded(), 0);
            daemon.networks.remove("docker_gwbridge").unwrap();
            daemon.networks.remove("blue").unwrap();

            // An internal network leads nowhere.
            let inner = CreateRequest { internal: true, ..blue(1, &[1, 2], None) };
            daemon.networks.create(&inner).unwrap();
            let (_, inside) = daemon.attach("blue");
            assert_eq!((out(&inside), inside.endpoints.len()), (None, 1));
        });
    });
}

#[test]
fn n11_another_number_is_another_network() {
    on_an_underlay(|| {
        let dir = Place::new();
        let machines = [Machine::new(1, 1500), Machine::new(2, 1500)];
        let daemons: Vec<Daemon> = machines.iter().map(|one| one.daemon(dir.path())).collect();
        machines[0].create(&daemons[0], &blue(1, &[1, 2], Some(5000))).unwrap();
        machines[1].create(&daemons[1], &blue(2, &[1, 2], Some(5001))).unwrap();
        let (_, one) = machines[0].attach(&daemons[0]);
        let (_, other) = machines[1].attach(&daemons[1]);
        assert_eq!(talk(one.netns.as_ref(), ip(&one), other.netns.as_ref()), None);
    });
}

#[test]
fn it_lives_on_without_its_daemon_and_leaves_nothing() {
    on_an_underlay(|| {
        let dir = Place::new();
        let machines = [Machine::new(1, 1500), Machine::new(2, 1500)];
        let mut daemons: Vec<Daemon> = machines.iter().map(|one| one.daemon(dir.path())).collect();
        for (machine, daemon) in machines.iter().zip(&daemons) {
            machine.create(daemon, &blue(machine.number, &[1, 2], None)).unwrap();
        }
        let (first, one) = machines[0].attach(&daemons[0]);
        let (second, other) = machines[1].attach(&daemons[1]);
        let daemon = daemons.remove(0);
        let config = machines[0].config(dir.path());
        let daemon = within(&machines[0].host, || {
            let daemon = daemon.crash_and_start(config);
            daemon.networks.recover(std::slice::from_ref(&first)).unwrap();
            assert_eq!(daemon.findings(std::slice::from_ref(&first)), [""; 0]);
            daemon
        });
        assert!(talk(one.netns.as_ref(), ip(&one), other.netns.as_ref()).is_some());
        let (third, more) = machines[0].attach(&daemon);
        assert!(talk(more.netns.as_ref(), ip(&more), other.netns.as_ref()).is_some());
        assert!(talk(more.netns.as_ref(), ip(&more), one.netns.as_ref()).is_some());
        let mut wish = request(&Id::random(), "blue");
        wish.networks[0].mac = "02:00:00:00:00:01".parse().ok();
        let refused = within(&machines[0].host, || daemon.networks.attach(&wish).unwrap_err());
        assert_eq!(refused.kind(), Kind::Invalid);
        within(&machines[0].host, || {
            for container in [&first, &third] {
                daemon.networks.detach(container);
            }
            daemon.networks.remove("blue").unwrap();
            let peers = run(&["nft", "list", "set", "inet", "gantry-gt-ov1", "peers"]);
            assert!(!peers.contains("elements"), "{peers}");
            // The number is free again.
            daemon.networks.create(&blue(1, &[1, 2], Some(4096))).unwrap();
            daemon.networks.remove("blue").unwrap();
        });
        let left: Vec<_> = std::fs::read_dir(dir.path().join("1")).unwrap().collect();
        assert!(left.is_empty());
        within(&machines[1].host, || daemons[0].networks.detach(&second));
    });
}

/// Its address says where a container is.
#[test]
fn n11_what_is_another_hosts_is_not_given_out() {
    on_an_underlay(|| {
        let dir = Place::new();
        let machine = Machine::new(1, 1500);
        let daemon = machine.daemon(dir.path());
        let network = machine.create(&daemon, &blue(1, &[1, 2], None)).unwrap();
        // Who makes it elsewhere reads the number that was chosen here.
        let number = &network.options["com.docker.network.driver.overlay.vxlanid_list"];
        assert_eq!(number, "4096");
        let wish = |last: u8| {
            let mut request = request(&Id::random(), "blue");
            request.networks[0].ip = Some(Ipv4Addr::new(10, 9, 0, last));
            within(&machine.host, || daemon.networks.attach(&request))
        };
        assert_eq!(ip(&wish(63).unwrap()), Ipv4Addr::new(10, 9, 0, 63));
        for other in [64, 200] {
            let words =
                format!("no configured subnet or ip-range contain the IP address 10.9.0.{other}");
            assert_eq!(wish(other).unwrap_err().chain(), words);
        }
    });
}

#[test]
fn what_cannot_be() {
    on_an_underlay(|| {
        let dir = Place::new();
        let machine = Machine::new(1, 1500);
        let daemon = machine.daemon(dir.path());
        let refused = |change: fn(&mut CreateRequest)| {
            let mut request = blue(1, &[1, 2], None);
            change(&mut request);
            let error = machine.create(&daemon, &request).unwrap_err();
            (error.kind(), error.chain())
        };
        let (kind, words) = refused(|request| {
            request.options.insert("encrypted".to_owned(), String::new());
        });
        assert_eq!(kind, Kind::NotImplemented, "{words}");
        let (kind, words) = refused(|request| {
            request.options.insert("gantry.overlay.local".to_owned(), "192.0.2.77".to_owned());
        });
        assert_eq!(
            (kind, words.as_str()),
            (Kind::Invalid, "this host does not have the address 192.0.2.77")
        );
        let (kind, words) = refused(|request| request.pools[0].ip_range.clear());
        assert!(kind == Kind::Invalid && words.contains("--ip-range"), "{words}");
        // Without peers it is a swarm's, as Docker says.
        let (kind, words) = refused(|request| request.options.clear());
        assert!(kind == Kind::Forbidden && words.contains("swarm manager"), "{words}");
    });
}
