//! Published ports carried by netd alone, without rules: how conversations end, who is in the way, and what is left.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use network::{AttachRequest, Attachment, NetworkConfig, PortRequest, Protocol};
use stdx::Id;

use crate::lab::{Daemon, config, on_a_host, request, within};

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn publish(daemon: &Daemon, host: &str, container_port: u16) -> (AttachRequest, Attachment) {
    let host: SocketAddr = host.parse().unwrap();
    let mut request = request(&Id::random(), "bridge");
    request.ports.push(PortRequest {
        protocol: Protocol::Tcp,
        container_port,
        host_ip: Some(host.ip()),
        host_ports: (host.port() != 0).then(|| host.port()..=host.port()),
    });
    let attachment = daemon.networks.attach(&request).unwrap();
    (request, attachment)
}

fn place(attachment: &Attachment) -> SocketAddr {
    let port = attachment.endpoints[0].ports[0];
    SocketAddr::new(port.host_ip, port.host_port)
}

fn serve(attachment: &Attachment, port: u16) -> TcpListener {
    within(attachment.netns.as_ref().unwrap(), || TcpListener::bind(("0.0.0.0", port)).unwrap())
}

#[test]
fn an_end_in_one_direction_is_one() {
    on_a_host(|| {
        let daemon = Daemon::start(NetworkConfig { iptables: false, ..config("gt-half") });
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let (_, web) = publish(&daemon, host, 80);
            let listener = serve(&web, 80);
            let mut client = TcpStream::connect(place(&web)).unwrap();
            let (mut server, from) = listener.accept().unwrap();
            assert!(!from.ip().is_loopback(), "{from}");
            let big = vec![7; 3 << 20];
            let sent = big.clone();
            let writer = std::thread::spawn(move || {
                client.write_all(&sent).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                let mut answer = String::new();
                client.read_to_string(&mut answer).unwrap();
                answer
            });
            let mut received = Vec::new();
            server.read_to_end(&mut received).unwrap();
            assert!(received == big, "{} bytes", received.len());
            server.write_all(b"after the end").unwrap();
            drop(server);
            assert_eq!(writer.join().unwrap(), "after the end");
        }
    });
}

#[test]
fn a_break_is_passed_on() {
    on_a_host(|| {
        let daemon = Daemon::start(NetworkConfig { iptables: false, ..config("gt-break") });
        let (_, web) = publish(&daemon, "127.0.0.1:0", 80);
        // Nobody listens in there.
        let mut refused = TcpStream::connect(place(&web)).unwrap();
        assert!(matches!(refused.read(&mut [0; 1]), Ok(0) | Err(_)));
        let listener = serve(&web, 80);
        let mut client = TcpStream::connect(place(&web)).unwrap();
        let (server, _) = listener.accept().unwrap();
        rustix::net::sockopt::set_socket_linger(&server, Some(std::time::Duration::ZERO)).unwrap();
        drop(server);
        let broken = client.read(&mut [0; 1]).unwrap_err();
        assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

/// Who asks once, as of a name server, waits for long before he asks again.
#[test]
fn the_first_datagram_of_a_client_arrives() {
    on_a_host(|| {
        let daemon = Daemon::start(NetworkConfig { iptables: false, ..config("gt-first") });
        let mut request = request(&Id::random(), "bridge");
        request.ports.push(PortRequest {
            protocol: Protocol::Udp,
            container_port: 53,
            host_ip: Some([127, 0, 0, 1].into()),
            host_ports: None,
        });
        let web = daemon.networks.attach(&request).unwrap();
        let udp = || UdpSocket::bind("0.0.0.0:53").unwrap();
        let server = within(web.netns.as_ref().unwrap(), udp);
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        for number in 0..5_u8 {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.send_to(&[number], place(&web)).unwrap();
            let mut heard = [9];
            let (_, from) = server.recv_from(&mut heard).expect("it is sent once");
            server.send_to(&heard, from).unwrap();
            client.recv_from(&mut heard).expect("so is the answer");
            assert_eq!(heard, [number]);
        }
    });
}

/// Connections linger on the host's side of a port that was given back; it can be taken again at once.
#[test]
fn the_same_port_again_and_again() {
    on_a_host(|| {
        let daemon = Daemon::start(NetworkConfig { iptables: false, ..config("gt-again") });
        for round in 0..20 {
            let (request, web) = publish(&daemon, "127.0.0.1:8080", 80);
            let listener = serve(&web, 80);
            let mut client = TcpStream::connect(place(&web)).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            // The host's side ends first, and waits.
            drop(client.write_all(b"x"));
            server.read_exact(&mut [0; 1]).unwrap();
            server.shutdown(Shutdown::Both).unwrap();
            client.read_exact(&mut [0; 1]).unwrap_err();
            daemon.networks.detach(&request.container);
            assert!(TcpListener::bind(place(&web)).is_ok(), "round {round}");
        }
    });
}

#[test]
fn a_crowd_of_ports_in_one_container() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-crowd"));
        let mut request = request(&Id::random(), "bridge");
        request.ports = (1..=300)
            .map(|container_port| PortRequest {
                protocol: if container_port % 3 == 0 { Protocol::Udp } else { Protocol::Tcp },
                container_port,
                host_ip: None,
                host_ports: None,
            })
            .collect();
        let attachment = daemon.networks.attach(&request).unwrap();
        let ports = &attachment.endpoints[0].ports;
        assert_eq!(ports.len(), 600, "in both families");
        let mut places: Vec<_> =
            ports.iter().map(|port| (port.protocol, port.host_ip, port.host_port)).collect();
        places.sort();
        places.dedup();
        assert_eq!(places.len(), 600);
        assert_eq!(daemon.findings(std::slice::from_ref(&request.container)), [""; 0]);
        daemon.networks.detach(&request.container);
        daemon.networks.settle();
        assert_eq!(daemon.findings(&[]), [""; 0]);
        let free = std::net::TcpListener::bind(("0.0.0.0", ports[0].host_port));
        assert!(free.is_ok());
    });
}
