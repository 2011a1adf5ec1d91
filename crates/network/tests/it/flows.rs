//! Flows that were let in once: who has the port or the address next gets his own packets and nobody else's.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use network::{AttachRequest, Attachment, CreateRequest, PoolRequest, PortRequest, Protocol};
use stdx::{Id, Kind};

use crate::lab::{Daemon, UPLINK, config, internet, ip, on_a_host, request, run, within};

const PORT: u16 = 5000;
/// Long enough for a packet that takes a direct way, many times over.
const SILENCE: Duration = Duration::from_millis(200);
/// For one that comes.
const PATIENCE: Duration = Duration::from_secs(10);

fn published(protocol: Protocol) -> PortRequest {
    PortRequest { protocol, container_port: PORT, host_ip: None, host_ports: Some(PORT..=PORT) }
}

fn publish(daemon: &Daemon, protocol: Protocol) -> (AttachRequest, Attachment) {
    let mut request = request(&Id::random(), "bridge");
    request.ports.push(published(protocol));
    let attachment = daemon.networks.attach(&request).unwrap();
    (request, attachment)
}

fn udp(namespace: &OwnedFd, at: &str) -> UdpSocket {
    let socket = within(namespace, || UdpSocket::bind(at).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[track_caller]
fn hears(server: &UdpSocket, client: &UdpSocket, word: &str) {
    // What was told of the last one is not the fault of this.
    let _told = client.take_error();
    client.send(word.as_bytes()).unwrap();
    let mut buffer = [0; 64];
    // What was sent before may have waited for a neighbour.
    while server.recv(&mut buffer).map(|length| &buffer[..length] != word.as_bytes()).unwrap() {}
}

#[track_caller]
fn is_deaf(server: &UdpSocket, client: &UdpSocket) {
    let _told = client.take_error();
    client.send(b"in vain").unwrap();
    silent(server);
}

#[track_caller]
fn silent(server: &UdpSocket) {
    server.set_read_timeout(Some(SILENCE)).unwrap();
    let heard = server.recv(&mut [0; 64]).map_err(|err| err.kind());
    assert_eq!(heard, Err(ErrorKind::WouldBlock));
    server.set_read_timeout(Some(PATIENCE)).unwrap();
}

/// The client never stops, and never begins anew: it is one flow to the kernel.
#[test]
fn who_keeps_sending_reaches_who_is_there() {
    on_a_host(|| {
        let internet = internet();
        let daemon = Daemon::start(config("gt-flow"));
        let client = udp(&internet, "0.0.0.0:4000");
        client.connect((UPLINK, PORT)).unwrap();
        // Before anybody has the port.
        client.send(b"nobody").unwrap();
        let (first, attachment) = publish(&daemon, Protocol::Udp);
        let old = ip(&attachment);
        let server = udp(attachment.netns.as_ref().unwrap(), &format!("0.0.0.0:{PORT}"));
        hears(&server, &client, "one");
        daemon.networks.detach(&first.container);
        drop((server, attachment));
        daemon.networks.settle();
        client.send(b"nobody").unwrap_or_default();
        let (second, attachment) = publish(&daemon, Protocol::Udp);
        assert_eq!(ip(&attachment), old, "the address has a new owner");
        let server = udp(attachment.netns.as_ref().unwrap(), &format!("0.0.0.0:{PORT}"));
        hears(&server, &client, "two");
        // The next is elsewhere, and there before the last has gone from the kernel.
        let before = second.container.clone();
        daemon.networks.withdraw(&before);
        let (_, attachment) = publish(&daemon, Protocol::Udp);
        assert_ne!(ip(&attachment), old);
        let next = udp(attachment.netns.as_ref().unwrap(), &format!("0.0.0.0:{PORT}"));
        hears(&next, &client, "three");
        is_deaf(&server, &client);
    });
}

#[test]
fn what_is_not_published_any_more_is_not_reached() {
    on_a_host(|| {
        let internet = internet();
        let daemon = Daemon::start(config("gt-less"));
        let both = [published(Protocol::Udp), published(Protocol::Tcp)];
        let mut request = request(&Id::random(), "bridge");
        request.ports = both.to_vec();
        let attachment = daemon.networks.attach(&request).unwrap();
        let netns = attachment.netns.as_ref().unwrap();
        let server = udp(netns, &format!("0.0.0.0:{PORT}"));
        let client = udp(&internet, "0.0.0.0:4000");
        client.connect((UPLINK, PORT)).unwrap();
        hears(&server, &client, "one");
        let listener = within(netns, || TcpListener::bind(("0.0.0.0", PORT)).unwrap());
        let mut stream = within(&internet, || TcpStream::connect((UPLINK, PORT)).unwrap());
        let (mut accepted, _) = listener.accept().unwrap();
        let mut word = [0; 1];
        stream.write_all(b"x").unwrap();
        accepted.read_exact(&mut word).unwrap();

        let republish = |before: &[PortRequest], after: &[PortRequest]| {
            daemon.networks.republish(&request.container, Some(before), after).unwrap()
        };
        // Another goes: these flows do not notice.
        let one_more = [
            both[0].clone(),
            both[1].clone(),
            PortRequest { container_port: 6000, host_ports: Some(6000..=6000), ..both[0].clone() },
        ];
        assert_eq!(republish(&both, &one_more).len(), 6);
        assert_eq!(republish(&one_more, &both).len(), 4);
        hears(&server, &client, "two");
        stream.write_all(b"y").unwrap();
        accepted.read_exact(&mut word).unwrap();

        assert_eq!(republish(&both, &[]), []);
        accepted.set_read_timeout(Some(SILENCE)).unwrap();
        is_deaf(&server, &client);
        stream.write_all(b"z").unwrap_or_default();
        assert_eq!(accepted.read(&mut word).unwrap_err().kind(), ErrorKind::WouldBlock);

        assert_eq!(republish(&[], &both).len(), 4);
        hears(&server, &client, "four");
        assert_eq!(daemon.findings(std::slice::from_ref(&request.container)), [""; 0]);
    });
}

/// A conversation that goes out is not the next one's either.
#[test]
fn a_new_owner_of_an_address_inherits_nothing() {
    on_a_host(|| {
        let internet = internet();
        let daemon = Daemon::start(config("gt-heir"));
        let (container, first) = daemon.attach("bridge");
        let far = udp(&internet, "0.0.0.0:7000");
        let near = udp(first.netns.as_ref().unwrap(), "0.0.0.0:7001");
        near.send_to(b"hello", "203.0.113.1:7000").unwrap();
        let mut buffer = [0; 8];
        let (_, seen) = far.recv_from(&mut buffer).unwrap();
        far.send_to(b"back", seen).unwrap();
        assert_eq!(near.recv(&mut buffer).unwrap(), 4);
        let old = ip(&first);
        daemon.networks.detach(&container);
        drop((near, first));
        daemon.networks.settle();
        let (_, second) = daemon.attach("bridge");
        assert_eq!(ip(&second), old);
        let heir = udp(second.netns.as_ref().unwrap(), "0.0.0.0:7001");
        far.send_to(b"to whom", seen).unwrap();
        silent(&heir);
    });
}

/// A refusal leaves everything as it was, whatever was to change beside.
#[test]
fn a_change_that_is_refused_changes_nothing() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-whole"));
        let tcp = |host_ip: Option<&str>, number: u16, container_port| PortRequest {
            protocol: Protocol::Tcp,
            container_port,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_ports: Some(number..=number),
        };
        let mut request = request(&Id::random(), "bridge");
        let before = vec![tcp(None, 8080, 80), tcp(None, 8081, 81)];
        request.ports.clone_from(&before);
        let _attachment = daemon.networks.attach(&request).unwrap();
        let endpoints = || daemon.networks.connections(&request.container);
        let ports = endpoints()[0].ports.clone();
        let rules = run(&["nft", "list", "ruleset"]);
        let _thief = TcpListener::bind("127.0.0.1:9090").unwrap();
        // One place is narrowed, one leads elsewhere, one goes, one comes and is taken.
        let after = [tcp(Some("127.0.0.1"), 8080, 80), tcp(None, 8081, 82), tcp(None, 9090, 90)];
        let err = daemon.networks.republish(&request.container, Some(&before), &after).unwrap_err();
        assert_eq!(err.kind(), Kind::Internal);
        assert!(
            err.chain()
                .ends_with("): failed to bind host port 0.0.0.0:9090/tcp: address already in use"),
            "{}",
            err.chain()
        );
        assert_eq!(endpoints()[0].ports, ports);
        assert_eq!(run(&["nft", "list", "ruleset"]), rules);
        assert_eq!(daemon.findings(std::slice::from_ref(&request.container)), [""; 0]);
        assert!(TcpListener::bind("0.0.0.0:8080").is_err(), "it is still held");
        // Without the one that is taken it can be had.
        let now =
            daemon.networks.republish(&request.container, Some(&before), &after[..2]).unwrap();
        let shown: Vec<_> = now
            .iter()
            .map(|port| format!("{}:{} {}", port.host_ip, port.host_port, port.container_port))
            .collect();
        assert_eq!(shown, ["127.0.0.1:8080 80", "0.0.0.0:8081 82", ":::8081 82"]);
        assert_eq!(endpoints()[0].ports, now);
        assert_eq!(daemon.findings(std::slice::from_ref(&request.container)), [""; 0]);
        drop(TcpListener::bind("127.0.0.2:8080").expect("what was given back is free"));
        // After a crash in the middle, what was asked for is made so, once and for all.
        let again = daemon.networks.republish(&request.container, None, &before).unwrap();
        assert_eq!(again, ports);
        assert_eq!(daemon.networks.republish(&request.container, None, &before).unwrap(), ports);
    });
}

/// What a container has given back is not its any more, even while its device is still being taken out.
#[test]
fn who_gave_a_port_back_does_not_hold_it() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-back"));
        let published = |container: &Id| {
            let mut request = request(container, "bridge");
            request.ports = vec![PortRequest {
                protocol: Protocol::Tcp,
                container_port: 80,
                host_ip: None,
                host_ports: Some(8080..=8080),
            }];
            request
        };
        let (first, second) = (Id::random(), Id::random());
        let _attachment = daemon.networks.attach(&published(&first)).unwrap();
        let refused = || daemon.networks.attach(&published(&second)).unwrap_err().chain();
        let held = refused();
        assert!(
            held.ends_with("Bind for 0.0.0.0:8080 failed: port is already allocated"),
            "{held}"
        );
        daemon.networks.withdraw(&first);
        assert_eq!(daemon.networks.connections(&first).len(), 1, "it has not left");
        let thief = TcpListener::bind("127.0.0.1:8080").expect("it was given back");
        let taken = refused();
        assert!(
            taken.ends_with("failed to bind host port 0.0.0.0:8080/tcp: address already in use"),
            "{taken}"
        );
        drop(thief);
        // Nor after a crash, when it has it no more and somebody else does.
        let heir = daemon.networks.attach(&published(&second)).unwrap();
        let daemon = daemon.crash_and_start(config("gt-back"));
        assert!(run(&["nft", "list", "ruleset"]).contains(&format!("{} . 80", ip(&heir))));
        daemon.networks.recover(&[first.clone(), second.clone()]).unwrap();
        assert_eq!(daemon.networks.connections(&first), []);
        assert_eq!(daemon.networks.connections(&second).len(), 1);
        assert_eq!(daemon.findings(std::slice::from_ref(&second)), [""; 0]);
    });
}

/// Without translation there is nothing to bind, and the port is closed all the same.
#[test]
fn ports_that_are_reached_directly() {
    on_a_host(|| {
        let internet = internet();
        let daemon = Daemon::start(config("gt-direct"));
        let routed = CreateRequest {
            name: "routed".to_owned(),
            driver: "bridge".to_owned(),
            options: [("com.docker.network.bridge.gateway_mode_ipv4", "routed")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            pools: vec![PoolRequest {
                subnet: "10.66.0.0/24".to_owned(),
                ..PoolRequest::default()
            }],
            ..CreateRequest::default()
        };
        daemon.networks.create(&routed).unwrap();
        let mut request = request(&Id::random(), "routed");
        request.ports.push(published(Protocol::Udp));
        let attachment = daemon.networks.attach(&request).unwrap();
        let server = udp(attachment.netns.as_ref().unwrap(), &format!("0.0.0.0:{PORT}"));
        let client = udp(&internet, "0.0.0.0:4000");
        client.connect((ip(&attachment), PORT)).unwrap();
        hears(&server, &client, "one");
        let ports = request.ports.clone();
        let id = &request.container;
        assert_eq!(daemon.networks.republish(id, Some(&ports), &[]).unwrap(), []);
        is_deaf(&server, &client);
        assert_eq!(daemon.networks.republish(id, Some(&[]), &ports).unwrap().len(), 1);
        hears(&server, &client, "three");
    });
}
