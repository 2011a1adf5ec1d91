//! Name servers in containers' namespaces, asked by the packet: under load, with bad upstreams, and with none.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use network::{Attachment, CreateRequest, NetworkConfig};
use stdx::Id;
use sys::ns::unshare;
use sys::process::CloneFlags;

use crate::lab::{Daemon, INTERNET, config, internet, ip, on_a_host, request, run, within};

const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
/// What the internet's name server says of everybody.
const EVERYBODY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

fn query(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// Id, code, and the first address, which is at the end of answers with one.
fn read(answer: &[u8]) -> (u16, u8, Option<Ipv4Addr>) {
    let last: Option<[u8; 4]> = answer.last_chunk().copied();
    let address = last.filter(|_| answer[7] > 0).map(Ipv4Addr::from);
    (u16::from_be_bytes([answer[0], answer[1]]), answer[3] & 15, address)
}

fn reply(query: &[u8], code: u8, truncated: bool) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] = 0x81 | if truncated { 2 } else { 0 };
    answer[3] = 0x80 | code;
    if code == NO_ERROR && !truncated {
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(EVERYBODY.octets());
    }
    answer
}

/// A name server on the internet that answers seven questions of ten. What begins with `no` is nobody; what begins with
/// `long` has to be asked for by TCP.
fn upstream(internet: &OwnedFd, at: Ipv4Addr) -> Arc<AtomicUsize> {
    let (datagrams, streams) = within(internet, || {
        (UdpSocket::bind((at, 53)).unwrap(), TcpListener::bind((at, 53)).unwrap())
    });
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
            let query = &buffer[..length];
            if counter.fetch_add(1, Ordering::Relaxed) % 10 < 3 {
                continue;
            }
            let code = if query[13..].starts_with(b"no") { NO_SUCH_NAME } else { NO_ERROR };
            let answer = reply(query, code, query[13..].starts_with(b"long"));
            datagrams.send_to(&answer, from).unwrap();
        }
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = streams.accept() {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut query).unwrap();
            let answer = reply(&query, NO_ERROR, false);
            stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(&answer).unwrap();
        }
    });
    asked
}

fn attach(daemon: &Daemon, network: &str, name: &str, dns: &[Ipv4Addr]) -> (Id, Attachment) {
    let container = Id::random();
    let mut request = request(&container, network);
    request.name = name.to_owned();
    request.dns.servers = dns.iter().map(|ip| (*ip).into()).collect();
    let attachment = daemon.networks.attach(&request).unwrap();
    (container, attachment)
}

fn create(daemon: &Daemon, name: &str, internal: bool) {
    let request = CreateRequest { name: name.to_owned(), internal, ..CreateRequest::default() };
    daemon.networks.create(&request).unwrap();
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.connect("127.0.0.11:53").unwrap();
    socket
}

fn ask(attachment: &Attachment, name: &str) -> (u8, Option<Ipv4Addr>) {
    within(attachment.netns.as_ref().unwrap(), || {
        let socket = client();
        socket.send(&query(1, name)).unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        let (_, code, address) = read(&buffer[..length]);
        (code, address)
    })
}

/// N9, as small as a test is.
#[test]
fn what_is_known_does_not_wait_for_what_is_not() {
    on_a_host(|| {
        let internet = internet();
        let silent = Ipv4Addr::new(203, 0, 113, 9);
        let _silence = within(&internet, || {
            run(&["ip", "addr", "add", &format!("{silent}/32"), "dev", "lo"]);
            UdpSocket::bind((silent, 53)).unwrap()
        });
        run(&["ip", "route", "add", &format!("{silent}/32"), "via", &INTERNET.to_string()]);
        upstream(&internet, INTERNET);
        let daemon = Daemon::start(config("gt-names"));
        create(&daemon, "back", false);
        let containers: Vec<_> = (0..4)
            .map(|number| attach(&daemon, "back", &format!("c{number}"), &[silent, INTERNET]).1)
            .collect();
        let known = ip(&containers[0]);
        std::thread::scope(|scope| {
            for container in &containers {
                scope.spawn(|| {
                    within(container.netns.as_ref().unwrap(), || {
                        let unknown = client();
                        const FOREIGN: u16 = 100;
                        for id in 0..FOREIGN {
                            let kind = if id % 2 == 0 { "no" } else { "some" };
                            let name = format!("{kind}{id}.example.org");
                            unknown.send(&query(id, &name)).unwrap();
                        }
                        let own = client();
                        let mut buffer = [0; 512];
                        for id in 0..500 {
                            own.send(&query(id, "c0.back")).unwrap();
                            let length = own.recv(&mut buffer).unwrap();
                            assert_eq!(read(&buffer[..length]), (id, NO_ERROR, Some(known)));
                        }
                        let mut answered = std::collections::BTreeSet::new();
                        for _ in 0..FOREIGN {
                            let length = unknown.recv(&mut buffer).unwrap();
                            let (id, code, address) = read(&buffer[..length]);
                            let expected = match id % 2 {
                                0 => (NO_SUCH_NAME, None),
                                _ => (NO_ERROR, Some(EVERYBODY)),
                            };
                            assert_eq!((code, address), expected, "{id}");
                            answered.insert(id);
                        }
                        assert_eq!(answered.len(), usize::from(FOREIGN));
                    });
                });
            }
        });
    });
}

/// N9 at full size: fifty containers ask ten thousand questions a second for five hundred names, while what they ask of
/// others is lost, late, or never answered. `cargo nextest run -p network --run-ignored all --no-capture n9`.
#[test]
#[ignore = "ten seconds of load; prints how long answers take"]
fn n9_ten_thousand_questions_a_second() {
    const CONTAINERS: usize = 50;
    const NAMES: usize = 10;
    /// Of each container.
    const A_SECOND: u32 = 200;
    const SECONDS: u32 = 10;
    on_a_host(|| {
        let internet = internet();
        let silent = Ipv4Addr::new(203, 0, 113, 9);
        let _silence = within(&internet, || {
            run(&["ip", "addr", "add", &format!("{silent}/32"), "dev", "lo"]);
            UdpSocket::bind((silent, 53)).unwrap()
        });
        run(&["ip", "route", "add", &format!("{silent}/32"), "via", &INTERNET.to_string()]);
        upstream(&internet, INTERNET);
        let daemon = Daemon::start(config("gt-load"));
        create(&daemon, "back", false);
        let containers: Vec<_> = (0..CONTAINERS)
            .map(|number| {
                let container = Id::random();
                let mut request = request(&container, "back");
                request.name = format!("c{number}");
                request.dns.servers = vec![silent.into(), INTERNET.into()];
                request.networks[0].aliases =
                    (1..NAMES).map(|alias| format!("a{number}-{alias}")).collect();
                daemon.networks.attach(&request).unwrap()
            })
            .collect();
        let name = |number: usize, alias: usize| match alias {
            0 => format!("c{number}"),
            alias => format!("a{number}-{alias}"),
        };
        let addresses: Vec<_> = containers.iter().map(ip).collect();
        let addresses = &addresses;
        let mut took: Vec<Duration> = std::thread::scope(|scope| {
            let askers: Vec<_> = containers
                .iter()
                .enumerate()
                .map(|(own, container)| {
                    scope.spawn(move || {
                        within(container.netns.as_ref().unwrap(), || {
                            let (known, foreign) = (client(), client());
                            let start = Instant::now();
                            let mut buffer = [0; 512];
                            let mut took = Vec::new();
                            for turn in 0..A_SECOND * SECONDS {
                                // A thread that fell behind catches up.
                                let due = start + Duration::from_secs(1) / A_SECOND * turn;
                                std::thread::park_timeout(
                                    due.saturating_duration_since(Instant::now()),
                                );
                                if turn % 100 == 0 {
                                    let other = format!("some{turn}.example.org");
                                    foreign.send(&query(turn as u16, &other)).unwrap();
                                }
                                let turn = turn as usize;
                                let whose = (own + turn) % CONTAINERS;
                                let asked = Instant::now();
                                let name = name(whose, turn % NAMES);
                                known.send(&query(turn as u16, &name)).unwrap();
                                let length = known.recv(&mut buffer).unwrap();
                                took.push(asked.elapsed());
                                let answer = (turn as u16, NO_ERROR, Some(addresses[whose]));
                                assert_eq!(read(&buffer[..length]), answer, "{name}");
                            }
                            for _ in 0..A_SECOND * SECONDS / 100 {
                                let length = foreign.recv(&mut buffer).unwrap();
                                assert_eq!(read(&buffer[..length]).2, Some(EVERYBODY));
                            }
                            took
                        })
                    })
                })
                .collect();
            askers.into_iter().flat_map(|asker| asker.join().unwrap()).collect()
        });
        took.sort();
        let at = |part: usize| took[took.len() * part / 1000];
        println!(
            "{} answers: median {:?}, p99 {:?}, worst {:?}",
            took.len(),
            at(500),
            at(990),
            at(999)
        );
    });
}

#[test]
fn what_is_long_comes_by_tcp() {
    on_a_host(|| {
        let internet = internet();
        upstream(&internet, INTERNET);
        let daemon = Daemon::start(config("gt-long"));
        create(&daemon, "back", false);
        let (_, web) = attach(&daemon, "back", "web", &[INTERNET]);
        within(web.netns.as_ref().unwrap(), || {
            let socket = client();
            socket.send(&query(1, "long.example.org")).unwrap();
            let mut buffer = [0; 512];
            socket.recv(&mut buffer).unwrap();
            assert_ne!(buffer[2] & 2, 0, "there is more");
            for name in ["long.example.org", "web"] {
                let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                let query = query(1, name);
                // In pieces, as a slow client sends it.
                stream.write_all(&[0]).unwrap();
                stream.write_all(&[query.len() as u8]).unwrap();
                stream.write_all(&query).unwrap();
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut answer).unwrap();
                let expected = if name == "web" { ip(&web) } else { EVERYBODY };
                assert_eq!(read(&answer), (1, NO_ERROR, Some(expected)));
            }
        });
    });
}

/// Questions that are not under way together may come from one port, and none comes from it for long; with the container
/// its sockets go, which would hold its namespace.
#[test]
fn sockets_are_used_again_and_not_for_long() {
    const QUESTIONS: u16 = 300;
    on_a_host(|| {
        let internet = internet();
        let server = within(&internet, || UdpSocket::bind((INTERNET, 53)).unwrap());
        let heard = std::thread::spawn(move || {
            let mut ports = Vec::new();
            let mut buffer = [0; 512];
            let mut known = std::collections::BTreeSet::new();
            let mut under_way: Vec<(Vec<u8>, std::net::SocketAddr)> = Vec::new();
            while ports.len() < usize::from(QUESTIONS) {
                let (length, from) = server.recv_from(&mut buffer).unwrap();
                let query = buffer[..length].to_vec();
                // Asked again because a busy machine was slow.
                if under_way.iter().any(|(other, _)| other[12..] == query[12..]) {
                    continue;
                }
                if !known.insert(query[12..].to_vec()) {
                    server.send_to(&reply(&query, NO_ERROR, false), from).unwrap();
                    continue;
                }
                assert!(under_way.iter().all(|(_, other)| *other != from), "two from {from}");
                ports.push(from.port());
                under_way.push((query, from));
                if under_way.len() == 4 {
                    for (query, from) in under_way.drain(..) {
                        server.send_to(&reply(&query, NO_ERROR, false), from).unwrap();
                    }
                }
            }
            ports
        });
        let daemon = Daemon::start(config("gt-again"));
        create(&daemon, "back", false);
        let _other = attach(&daemon, "back", "other", &[]);
        let netd = network::netd::pid(&config("gt-again").netd.unwrap().dir).unwrap();
        let sockets = || {
            let files = std::fs::read_dir(format!("/proc/{netd}/fd")).unwrap();
            let targets = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
            targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
        };
        let before = sockets();
        let (id, web) = attach(&daemon, "back", "web", &[INTERNET]);
        within(web.netns.as_ref().unwrap(), || {
            let socket = client();
            let mut buffer = [0; 512];
            for four in 0..QUESTIONS / 4 {
                for one in 0..4 {
                    let id = four * 4 + one;
                    socket.send(&query(id, &format!("some{id}.example.org"))).unwrap();
                }
                for _ in 0..4 {
                    let length = socket.recv(&mut buffer).unwrap();
                    assert_eq!(read(&buffer[..length]).2, Some(EVERYBODY));
                }
            }
        });
        let ports = heard.join().unwrap();
        let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
        assert!(distinct.len() < ports.len() / 2, "{} ports", distinct.len());
        let most = distinct.iter().map(|port| ports.iter().filter(|one| one == port).count());
        assert!(most.max().unwrap() <= 128, "one port for long");
        daemon.networks.detach(&id);
        daemon.networks.settle();
        // One by which the daemon asked may have gone, too.
        assert!(sockets() <= before, "{} sockets, {before} before", sockets());
    });
}

/// N5.
#[test]
fn internal_networks_ask_nobody_of_the_hosts() {
    on_a_host(|| {
        let internet = internet();
        // A host's file of the test's own, seen by this thread and the netd it starts.
        unshare(CloneFlags::NEWNS | CloneFlags::FS).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        std::fs::write(&file, "nameserver 203.0.113.77\n").unwrap();
        run(&["mount", "--make-rprivate", "/"]);
        run(&["mount", "--bind", file.to_str().unwrap(), "/etc/resolv.conf"]);
        let asked = upstream(&internet, INTERNET);
        let daemon = Daemon::start(config("gt-inner"));
        create(&daemon, "inner", true);
        create(&daemon, "outer", false);
        let (_, inner) = attach(&daemon, "inner", "inner", &[]);
        let (_, outer) = attach(&daemon, "outer", "outer", &[]);
        assert_eq!(ask(&outer, "some.example.org"), (SERVER_FAILURE, None), "nobody is there");
        // What the host is told later holds from then on.
        std::fs::write(&file, format!("nameserver {INTERNET}\n")).unwrap();
        assert_eq!(ask(&inner, "some.example.org"), (SERVER_FAILURE, None));
        assert_eq!(asked.load(Ordering::Relaxed), 0, "an internal question left the host");
        assert_eq!(ask(&outer, "some.example.org"), (NO_ERROR, Some(EVERYBODY)));
        assert_eq!(ask(&inner, "inner"), (NO_ERROR, Some(ip(&inner))));
        assert_eq!(ask(&inner, "outer"), (SERVER_FAILURE, None), "it is not on this network");
    });
}

#[test]
fn who_leaves_is_unknown_at_once() {
    on_a_host(|| {
        let daemon = Daemon::start(NetworkConfig { iptables: false, ..config("gt-leave") });
        create(&daemon, "back", true);
        let (_, web) = attach(&daemon, "back", "web", &[]);
        let (db_id, db) = attach(&daemon, "back", "db", &[]);
        assert_eq!(ask(&web, "db"), (NO_ERROR, Some(ip(&db))));
        daemon.networks.detach(&db_id);
        assert_eq!(ask(&web, "db"), (SERVER_FAILURE, None));
        assert_eq!(daemon.findings(&[]).len(), 1, "web is not among the known");
    });
}
