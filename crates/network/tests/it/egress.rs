//! What a container on a leash reaches, and what it does not, whatever it tries.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use network::{
    AttachRequest, Attachment, CreateRequest, Egress, EndpointRequest, NetworkConfig, PoolRequest,
};
use stdx::Id;

use crate::lab::{
    Daemon, INTERNET, UPLINK, config, internet, ip, on_a_host, request, run, talk, within,
};

const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

fn rules(rules: &[&str]) -> Egress {
    Egress::try_from(rules.iter().map(|&rule| rule.to_owned()).collect::<Vec<_>>()).unwrap()
}

fn wanted(container: &Id, network: &str, egress: Option<Egress>) -> AttachRequest {
    let mut request = request(container, network);
    request.networks[0].egress = egress;
    request
}

fn attach(daemon: &Daemon, network: &str, egress: Option<&[&str]>) -> (Id, Attachment) {
    let container = Id::random();
    let request = wanted(&container, network, egress.map(rules));
    (container, daemon.networks.attach(&request).unwrap())
}

/// The internet with one more address, where somebody says hello at these ports.
fn world(ports: &[u16]) -> OwnedFd {
    let internet = internet();
    within(&internet, || {
        run(&["ip", "addr", "add", &format!("{ELSEWHERE}/24"), "dev", "downlink"]);
        for port in ports {
            greet(TcpListener::bind(("0.0.0.0", *port)).unwrap());
        }
    });
    internet
}

fn greet(listener: TcpListener) {
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _gone = stream.write_all(b"hello");
        }
    });
}

const PATIENCE: Duration = Duration::from_millis(1500);

fn reaches(namespace: &OwnedFd, to: impl Into<IpAddr>, port: u16) -> bool {
    let to = SocketAddr::new(to.into(), port);
    within(namespace, || {
        let Ok(mut stream) = TcpStream::connect_timeout(&to, PATIENCE) else { return false };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_exact(&mut [0; 5]).is_ok()
    })
}

fn pings(namespace: &OwnedFd, to: Ipv4Addr) -> bool {
    use rustix::net::{AddressFamily, SocketType, ipproto, socket};
    within(namespace, || {
        let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)).unwrap();
        let socket = UdpSocket::from(raw);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // Nobody else asks in here.
        let echo = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
        socket.send_to(&echo, (to, 0)).unwrap();
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer).unwrap_or(0);
        answer[..length].get(20) == Some(&0)
    })
}

fn namespace(attachment: &Attachment) -> &OwnedFd {
    attachment.netns.as_ref().unwrap()
}

#[test]
fn only_what_is_allowed() {
    on_a_host(|| {
        let internet = world(&[80, 443]);
        let daemon = Daemon::start(config("gt-leash"));
        let (_, narrow) = attach(&daemon, "bridge", Some(&["203.0.113.1:443", "203.0.113.9"]));
        let (_, nothing) = attach(&daemon, "bridge", Some(&[]));
        let (_, free) = attach(&daemon, "bridge", None);
        let inside = namespace(&narrow);
        assert!(reaches(inside, INTERNET, 443));
        assert!(!reaches(inside, INTERNET, 80));
        assert!(!pings(inside, INTERNET), "a port is not the whole address");
        assert!(reaches(inside, ELSEWHERE, 80) && pings(inside, ELSEWHERE));
        assert!(
            !reaches(namespace(&nothing), ELSEWHERE, 80) && !pings(namespace(&nothing), ELSEWHERE)
        );
        assert!(reaches(namespace(&free), INTERNET, 80), "others are not concerned");
        // The host itself is outside, by any of its addresses.
        greet(TcpListener::bind(("0.0.0.0", 22)).unwrap());
        let gateway = narrow.endpoints[0].gateway.unwrap();
        for address in [gateway, UPLINK] {
            assert!(reaches(namespace(&free), address, 22));
            assert!(!reaches(inside, address, 22) && !pings(inside, address), "{address}");
        }
        // Neighbours are inside, both ways.
        assert!(talk(free.netns.as_ref(), ip(&free), narrow.netns.as_ref()).is_some());
        assert!(talk(narrow.netns.as_ref(), ip(&narrow), free.netns.as_ref()).is_some());
        // Who asks is answered.
        assert!(talk(nothing.netns.as_ref(), ip(&nothing), None).is_some());
        drop(internet);
    });
}

#[test]
fn whatever_it_says_it_is() {
    on_a_host(|| {
        let internet = world(&[]);
        let daemon = Daemon::start(config("gt-liar"));
        let (_, free) = attach(&daemon, "bridge", None);
        let (_, nothing) = attach(&daemon, "bridge", Some(&[]));
        let listener = within(&internet, || UdpSocket::bind((INTERNET, 9)).unwrap());
        listener.set_read_timeout(Some(PATIENCE)).unwrap();
        let send = |inside: &OwnedFd, from: Ipv4Addr| {
            within(inside, || {
                let socket = UdpSocket::bind((from, 0)).unwrap();
                for _ in 0..3 {
                    socket.send_to(b"hello", (INTERNET, 9)).unwrap();
                }
            });
            listener.recv(&mut [0; 8]).is_ok()
        };
        assert!(send(namespace(&free), ip(&free)));
        while listener.recv(&mut [0; 8]).is_ok() {}
        // An address that is nobody's, and a neighbour's who may; with the neighbour's hardware address, too.
        let mut last = ip(&nothing).octets();
        last[3] = 99;
        let inside = namespace(&nothing);
        let mac = free.endpoints[0].mac.unwrap().to_string();
        within(inside, || {
            run(&["ip", "addr", "add", &format!("{}/32", Ipv4Addr::from(last)), "dev", "eth0"]);
            run(&["ip", "addr", "add", &format!("{}/32", ip(&free)), "dev", "eth0"]);
        });
        assert!(!send(inside, ip(&nothing)), "its own");
        assert!(!send(inside, Ipv4Addr::from(last)), "nobody's");
        assert!(!send(inside, ip(&free)), "its neighbour's");
        within(inside, || run(&["ip", "link", "set", "eth0", "address", &mac]));
        assert!(!send(inside, ip(&free)), "as its neighbour altogether");
    });
}

#[test]
fn another_network_is_outside_too() {
    on_a_host(|| {
        let _internet = world(&[80]);
        let daemon = Daemon::start(config("gt-second"));
        let create = |name: &str, egress: Option<Egress>| {
            let request =
                CreateRequest { name: name.to_owned(), egress, ..CreateRequest::default() };
            daemon.networks.create(&request).unwrap();
        };
        create("narrow", Some(rules(&["203.0.113.9:80"])));
        create("wide", None);
        let (_, of_network) = attach(&daemon, "narrow", None);
        let (_, of_its_own) = attach(&daemon, "narrow", Some(&["203.0.113.1:80"]));
        let (_, lifted) = attach(&daemon, "narrow", Some(&["any"]));
        let reached = |one: &Attachment| {
            (reaches(namespace(one), INTERNET, 80), reaches(namespace(one), ELSEWHERE, 80))
        };
        assert_eq!(reached(&of_network), (false, true));
        assert_eq!(reached(&of_its_own), (true, false), "its own instead of its network's");
        assert_eq!(reached(&lifted), (true, true));
        // One that is connected while it runs is guarded there from the first moment.
        let (container, one) = attach(&daemon, "wide", Some(&[]));
        let wish = EndpointRequest {
            network: "bridge".to_owned(),
            egress: Some(rules(&[])),
            gw_priority: 1,
            ..EndpointRequest::default()
        };
        daemon.networks.connect(&container, "web", &wish, &[], namespace(&one).as_fd()).unwrap();
        assert_eq!(reached(&one), (false, false));
        assert_eq!(daemon.findings(&ids(&daemon)), Vec::<String>::new());
    });
}

fn ids(daemon: &Daemon) -> Vec<Id> {
    let endpoints = daemon.store.list::<network::Endpoint>().unwrap();
    endpoints.into_iter().map(|endpoint| endpoint.container).collect()
}

#[test]
fn it_holds_when_nobody_looks() {
    on_a_host(|| {
        let _internet = world(&[80]);
        let daemon = Daemon::start(config("gt-held"));
        let (container, nothing) = attach(&daemon, "bridge", Some(&[]));
        let shut = || !reaches(namespace(&nothing), INTERNET, 80);
        assert!(shut());
        run(&["nft", "flush", "ruleset"]);
        assert!(shut(), "it is not theirs");
        let Daemon { store, networks } = daemon;
        drop(networks);
        run(&["nft", "flush", "ruleset"]);
        assert!(shut(), "nor when no daemon lives");
        let daemon = Daemon::with(config("gt-held"), store);
        daemon.networks.recover(std::slice::from_ref(&container)).unwrap();
        assert!(shut());
        // And it can be lifted, and laid on again.
        let change = |rules: Option<Egress>| {
            let request = wanted(&container, "bridge", rules.clone());
            let inside = namespace(&nothing).as_fd();
            daemon.networks.restrict(rules.as_ref(), &request, inside).unwrap();
        };
        change(None);
        assert!(!shut());
        assert!(!run(&["nft", "list", "tables"]).contains("bridge"), "nobody needs it any more");
        change(Some(rules(&["203.0.113.9"])));
        assert!(shut());
        change(Some(rules(&["203.0.113.0/24"])));
        assert!(!shut());
        assert_eq!(daemon.findings(&[container]), Vec::<String>::new());
    });
}

/// A name server that says the same of everybody, with another name in between.
fn name_server(internet: &OwnedFd, address: Ipv4Addr) {
    let socket = within(internet, || UdpSocket::bind((INTERNET, 53)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let mut answer = buffer[..length].to_vec();
            answer[2] = 0x81;
            answer[3] = 0x80;
            answer[7] = 2;
            answer.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 6, 3, b'c', b'd', b'n', 0xc0, 12]);
            let alias = (length + 12) as u8;
            answer.extend([0xc0, alias, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
            answer.extend(address.octets());
            socket.send_to(&answer, from).unwrap();
        }
    });
}

/// Asks for the addresses of a name as a container does; its code, with the answer's last four bytes.
fn resolve(inside: &OwnedFd, name: &str) -> (u8, Option<Ipv4Addr>) {
    resolve_as(inside, name, 1)
}

/// The same for records of one kind.
fn resolve_as(inside: &OwnedFd, name: &str, kind: u8) -> (u8, Option<Ipv4Addr>) {
    within(inside, || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.11:53").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend(label.as_bytes());
        }
        query.extend([0, 0, kind, 0, 1]);
        socket.send(&query).unwrap();
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).unwrap();
        let address = answer[..length].last_chunk().map(|last: &[u8; 4]| Ipv4Addr::from(*last));
        (answer[3] & 15, address.filter(|_| answer[7] > 0))
    })
}

#[test]
fn names_open_what_they_mean() {
    on_a_host(|| {
        let internet = world(&[80, 443]);
        name_server(&internet, ELSEWHERE);
        let daemon = Daemon::start(config("gt-names"));
        let attach = |egress: &[&str]| {
            let container = Id::random();
            let mut request = wanted(&container, "bridge", Some(rules(egress)));
            request.dns.servers = vec![INTERNET.into()];
            let attachment = daemon.networks.attach(&request).unwrap();
            (request, attachment)
        };
        let (request, one) = attach(&["example.com:80", "*.example.org"]);
        let (_, other) = attach(&[]);
        let inside = namespace(&one);
        assert!(!reaches(inside, ELSEWHERE, 80), "nobody has asked yet");
        assert_eq!(resolve(inside, "example.com"), (0, Some(ELSEWHERE)));
        // The first packet: the way was open when the answer came.
        assert!(reaches(inside, ELSEWHERE, 80));
        assert!(!reaches(inside, ELSEWHERE, 443));
        assert!(!reaches(namespace(&other), ELSEWHERE, 80));
        assert_eq!(
            resolve(namespace(&other), "example.com"),
            (3, None),
            "a question is a way out, too"
        );
        assert_eq!(resolve(inside, "secret.example.com"), (3, None));
        // Nobody but netd is needed.
        let Daemon { store, networks } = daemon;
        drop(networks);
        assert_eq!(resolve(inside, "www.example.org"), (0, Some(ELSEWHERE)));
        assert!(reaches(inside, ELSEWHERE, 443));
        let daemon = Daemon::with(config("gt-names"), store);
        daemon.networks.recover(&ids(&daemon)).unwrap();
        assert!(reaches(inside, ELSEWHERE, 443), "a daemon that wakes closes nothing");
        // What is not allowed any more is closed; what still is stays open.
        let narrower = rules(&["example.com:80"]);
        let mut request = request;
        request.networks[0].egress = Some(narrower.clone());
        daemon.networks.restrict(Some(&narrower), &request, inside.as_fd()).unwrap();
        assert!(reaches(inside, ELSEWHERE, 80) && !reaches(inside, ELSEWHERE, 443));
        // Whoever gets its address gets nothing with it.
        daemon.networks.detach(&request.container);
        daemon.networks.settle();
        assert!(!run(&["nft", "list", "table", "inet", "gantry-gt-names"]).contains("example.com"));
    });
}

fn of_both_families(name: &str) -> CreateRequest {
    let pool = PoolRequest { subnet: "fd00:9::/64".to_owned(), ..PoolRequest::default() };
    CreateRequest {
        name: name.to_owned(),
        enable_ipv6: Some(true),
        pools: vec![pool],
        ..CreateRequest::default()
    }
}

/// A server that says what it hears, by both protocols.
fn echo(at: SocketAddr) {
    let listener = TcpListener::bind(at).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            });
        }
    });
    let socket = UdpSocket::bind(at).unwrap();
    std::thread::spawn(move || {
        let mut byte = [0];
        while let Ok((_, from)) = socket.recv_from(&mut byte) {
            let _gone = socket.send_to(&byte, from);
        }
    });
}

/// What was open at one address when rules changed.
struct Open {
    stream: TcpStream,
    socket: UdpSocket,
}

impl Open {
    fn to(inside: &OwnedFd, at: SocketAddr) -> Self {
        within(inside, || {
            let stream = TcpStream::connect_timeout(&at, PATIENCE).unwrap();
            let any: IpAddr = if at.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.connect(at).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            Self { stream, socket }
        })
    }

    /// Whether something sent comes back: by the stream, and by datagrams.
    fn lives(&mut self) -> (bool, bool) {
        let stream =
            self.stream.write_all(b"x").is_ok() && self.stream.read_exact(&mut [0]).is_ok();
        let datagram = self.socket.send(b"x").is_ok() && self.socket.recv(&mut [0]).is_ok();
        (stream, datagram)
    }
}

#[test]
fn stricter_rules_end_what_is_open() {
    on_a_host(|| {
        let internet = world(&[]);
        run(&["ip", "addr", "add", "2001:db8:9::2/64", "dev", "uplink", "nodad"]);
        let echoes = ["203.0.113.1:7", "203.0.113.9:7", "[2001:db8:9::1]:7", "[2001:db8:9::9]:7"];
        let echoes = echoes.map(|at| at.parse::<SocketAddr>().unwrap());
        within(&internet, || {
            for address in ["2001:db8:9::1/64", "2001:db8:9::9/64"] {
                run(&["ip", "addr", "add", address, "dev", "downlink", "nodad"]);
            }
            echoes.iter().for_each(|at| echo(*at));
        });
        let daemon = Daemon::start(config("gt-strict"));
        daemon.networks.create(&of_both_families("six")).unwrap();
        let (container, one) = attach(&daemon, "six", None);
        let (_, other) = attach(&daemon, "six", None);
        let inside = namespace(&one);
        let change = |wanted_rules: &[&str]| {
            let egress = Some(rules(wanted_rules));
            let request = wanted(&container, "six", egress.clone());
            daemon.networks.restrict(egress.as_ref(), &request, inside.as_fd()).unwrap();
        };
        let mut open = echoes.map(|at| Open::to(inside, at));
        let mut of_others = echoes.map(|at| Open::to(namespace(&other), at));
        assert_eq!(open.each_mut().map(Open::lives), [(true, true); 4]);
        assert_eq!(of_others.each_mut().map(Open::lives), [(true, true); 4]);

        change(&["203.0.113.9", "2001:db8:9::9"]);
        let (all, none) = ((true, true), (false, false));
        assert_eq!(open.each_mut().map(Open::lives), [none, all, none, all]);
        assert_eq!(of_others.each_mut().map(Open::lives), [all; 4], "nobody spoke of them");
        let begins =
            echoes.map(|at| within(inside, || TcpStream::connect_timeout(&at, PATIENCE).is_ok()));
        assert_eq!(begins, [false, true, false, true]);

        // By port and protocol; what is still allowed never stops.
        change(&["203.0.113.9:7/udp", "[2001:db8:9::9]:7"]);
        assert_eq!(open[1].lives(), (false, true));
        assert_eq!(open[3].lives(), (true, false));
    });
}

#[test]
fn names_with_addresses_of_ipv6() {
    on_a_host(|| {
        let internet = world(&[]);
        run(&["ip", "addr", "add", "2001:db8:9::2/64", "dev", "uplink", "nodad"]);
        let elsewhere: SocketAddr = "[2001:db8:9::9]:7".parse().unwrap();
        within(&internet, || {
            run(&["ip", "addr", "add", "2001:db8:9::9/64", "dev", "downlink", "nodad"]);
            echo(elsewhere);
            let socket = UdpSocket::bind((INTERNET, 53)).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 512];
                while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let mut answer = buffer[..length].to_vec();
                    answer[2..4].copy_from_slice(&[0x81, 0x80]);
                    answer[7] = 1;
                    answer.extend([0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 9, 0, 16]);
                    let IpAddr::V6(address) = elsewhere.ip() else {
                        unreachable!("it is written above")
                    };
                    answer.extend(address.octets());
                    socket.send_to(&answer, from).unwrap();
                }
            });
        });
        let daemon = Daemon::start(config("gt-names6"));
        daemon.networks.create(&of_both_families("six")).unwrap();
        let mut request = wanted(&Id::random(), "six", Some(rules(&["example.com:7/udp"])));
        request.dns.servers = vec![INTERNET.into()];
        let one = daemon.networks.attach(&request).unwrap();
        let inside = namespace(&one);
        let asks = || {
            within(inside, || {
                let socket = UdpSocket::bind("[::]:0").unwrap();
                socket.connect(elsewhere).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.send(b"x").is_ok() && socket.recv(&mut [0]).is_ok()
            })
        };
        assert!(!asks(), "nobody has been told");
        assert_eq!(resolve_as(inside, "example.com", 28).0, 0);
        assert!(asks());
        let tcp = within(inside, || TcpStream::connect_timeout(&elsewhere, PATIENCE).is_ok());
        assert!(!tcp, "another protocol");
        assert_eq!(resolve_as(inside, "example.org", 28).0, 3);
    });
}

#[test]
fn what_a_name_never_opens() {
    on_a_host(|| {
        let internet = world(&[]);
        name_server(&internet, UPLINK);
        greet(TcpListener::bind(("0.0.0.0", 22)).unwrap());
        let daemon = Daemon::start(config("gt-rebind"));
        let mut request = wanted(&Id::random(), "bridge", Some(rules(&["example.com"])));
        request.dns.servers = vec![INTERNET.into()];
        let one = daemon.networks.attach(&request).unwrap();
        assert_eq!(resolve(namespace(&one), "example.com"), (0, Some(UPLINK)));
        assert!(
            !reaches(namespace(&one), UPLINK, 22),
            "the host is reached by its address, or not"
        );
    });
}

#[test]
fn where_rules_do_not_hold() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-where"));
        run(&["ip", "link", "add", "wire", "type", "veth", "peer", "name", "eriw"]);
        let create = |driver: &str, egress: Option<Egress>| {
            let request = CreateRequest {
                name: driver.to_owned(),
                driver: driver.to_owned(),
                options: [("parent".to_owned(), "wire".to_owned())].into(),
                egress,
                ..CreateRequest::default()
            };
            daemon.networks.create(&request).map(drop).map_err(|err| err.to_string())
        };
        let words =
            "egress rules do not hold on network macvlan of driver macvlan: they need a bridge";
        assert_eq!(create("macvlan", Some(rules(&[]))).unwrap_err(), words);
        create("macvlan", None).unwrap();
        let attach = |daemon: &Daemon, network: &str| {
            let request = wanted(&Id::random(), network, Some(rules(&[])));
            daemon.networks.attach(&request).map(drop).map_err(|err| err.to_string())
        };
        assert_eq!(attach(&daemon, "macvlan").unwrap_err(), words);
        assert_eq!(
            attach(&daemon, "host").unwrap_err(),
            "conflicting options: egress rules and the host network"
        );
        assert_eq!(attach(&daemon, "none"), Ok(()));
        let open = Daemon::start(NetworkConfig { iptables: false, ..config("gt-open") });
        assert_eq!(
            attach(&open, "bridge").unwrap_err(),
            "egress rules need the firewall, which this daemon leaves alone (--iptables=false or --ip6tables=false)"
        );
    });
}
