//! Published ports of SCTP: messages reach the container from everywhere that TCP does. A kernel that has no SCTP says so,
//! and so do we.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType, accept, bind, connect, getpeername, ipproto,
    listen, recv, send, socket,
};
use testkit::house::{PATIENCE, firewall, shown, succeed};
use testkit::{House, Netns, TestImage};

use crate::containers::house;
use crate::inside::{in_namespace, pid, within};

/// One-to-one, and never waiting for ever.
fn sctp(family: AddressFamily) -> io::Result<OwnedFd> {
    let socket = socket(family, SocketType::STREAM, Some(ipproto::SCTP))?;
    for timeout in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(&socket, timeout, Some(PATIENCE))?;
    }
    Ok(socket)
}

fn listen_at(at: SocketAddr) -> OwnedFd {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = sctp(family).expect("the kernel has it");
    set_socket_reuseaddr(&socket, true).expect("a socket");
    bind(&socket, &at).expect("nobody has it");
    listen(&socket, 8).expect("it is bound");
    socket
}

/// Sends messages of several sizes, each of which comes back as one; answers whom the server has seen.
fn talk(
    listener: &OwnedFd,
    (who, client): (&str, &File),
    to: SocketAddr,
    sizes: [usize; 4],
) -> IpAddr {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let server = || -> io::Result<IpAddr> {
        let accepted = accept(listener)?;
        let mut buffer = vec![0; 1 << 17];
        for _ in sizes {
            let (got, _) = recv(&accepted, &mut buffer[..], RecvFlags::empty())?;
            send(&accepted, &buffer[..got], SendFlags::NOSIGNAL)?;
        }
        let from = getpeername(&accepted)?;
        Ok(SocketAddr::try_from(from.expect("it is connected")).expect("an address").ip())
    };
    std::thread::scope(|scope| {
        let server = scope.spawn(server);
        let client = in_namespace(client, || -> io::Result<Vec<usize>> {
            let client = sctp(family)?;
            connect(&client, &to)?;
            let mut back = Vec::new();
            let mut buffer = vec![0; 1 << 17];
            for size in sizes {
                send(&client, &vec![b'x'; size], SendFlags::NOSIGNAL)?;
                back.push(recv(&client, &mut buffer[..], RecvFlags::empty())?.0);
            }
            Ok(back)
        });
        assert_eq!(
            client.unwrap_or_else(|err| panic!("{who} at {to}: {err}")),
            sizes,
            "{who} at {to}"
        );
        server
            .join()
            .expect("it does not panic")
            .unwrap_or_else(|err| panic!("{who} at {to}: {err}"))
    })
}

#[test]
fn a_kernel_without_it() {
    if sctp(AddressFamily::INET).is_ok() {
        return;
    }
    let house = house();
    let port = testkit::port::free();
    let publish = format!("127.0.0.1:{port}:80/sctp");
    let run = house.docker(&["run", "-d", "-p", &publish, "busybox", "sleep", "600"]).output();
    let words = shown(&run.expect("docker can be executed"));
    let expected =
        format!("failed to create socket for 127.0.0.1:{port}/sctp: protocol not supported");
    assert!(words.contains(&expected), "{words}");
    house.check();
}

#[test]
fn whoever_asks_is_answered() {
    if sctp(AddressFamily::INET).is_err() {
        return;
    }
    let (host, neighbour) = (Netns::new(), Netns::new());
    let ip = |netns: &Netns, words: &str| {
        let mut command = netns.command("ip");
        command.args(words.split(' '));
        succeed(command)
    };
    let there = neighbour.path().display().to_string();
    ip(&host, &format!("link add lan type veth peer name lan netns {there}"));
    for (netns, last) in [(&host, 1), (&neighbour, 2)] {
        ip(netns, &format!("addr add 192.0.2.{last}/24 dev lan"));
        ip(netns, &format!("addr add 2001:db8::{last}/64 dev lan nodad"));
        ip(netns, "link set lan up");
    }
    let mut house = House::within(&host);
    house.load(&TestImage::busybox().docker_archive(&["busybox:latest"]));
    let run = ["run", "-d", "--name", "web", "-p", "8080:80/sctp", "busybox", "sleep", "3600"];
    house.ok(&run);
    house.ok(&["run", "-d", "--name", "other", "busybox", "sleep", "3600"]);
    let ports = house.ok(&["port", "web"]);
    assert_eq!(ports, "80/sctp -> 0.0.0.0:8080\n80/sctp -> [::]:8080\n");
    let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80));
    let listener = within(pid(&house, "web"), || listen_at(anywhere));
    let open = |netns: &Netns| File::open(netns.path()).expect("it is there");
    let (host, neighbour) = (open(&host), open(&neighbour));
    let sibling = File::open(format!("/proc/{}/ns/net", pid(&house, "other"))).expect("it runs");
    let (here, beyond) = (("the host", &host), ("a neighbour", &neighbour));
    let sibling = ("a sibling", &sibling);
    let seen = |client: (&str, &File), to: &str| {
        talk(&listener, client, to.parse().expect("an address"), [5, 1, 40_000, 3])
    };
    let translated = firewall().is_empty();

    let stranger = seen(beyond, "192.0.2.1:8080").to_string();
    // Where nothing is translated, all is carried.
    let expected = if translated { "192.0.2.2" } else { &house.gateway() };
    assert_eq!(stranger, expected);
    for to in ["127.0.0.1:8080", "[::1]:8080"] {
        let from = seen(here, to).to_string();
        assert_eq!(from, house.gateway(), "{to}: never a loopback address");
    }
    // The way to one's own address takes packets of 64 KiB, and the bridge behind the translation does not: SCTP, unlike
    // TCP, is not told by its peer, and sends what is too large again and again.
    let small = [5, 1, 1000, 3];
    let own = talk(&listener, here, "192.0.2.1:8080".parse().expect("an address"), small);
    let expected = if translated { "192.0.2.1" } else { &house.gateway() };
    assert_eq!(own.to_string(), expected);
    seen(beyond, "[2001:db8::1]:8080");
    // A host with several addresses answers from the one that is nearest, which who asked another does not believe.
    let gateway = house.gateway();
    let near = if translated { "192.0.2.1" } else { &gateway };
    seen(sibling, &format!("{near}:8080"));

    house.kill();
    for (client, to) in [(beyond, "192.0.2.1:8080"), (here, "[::1]:8080")] {
        seen(client, to);
    }
    house.start();
    seen(beyond, "192.0.2.1:8080");
    house.check();
    house.ok(&["rm", "-f", "web"]);
    drop(in_namespace(&host, || listen_at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)))));
    let refused = in_namespace(&neighbour, || {
        let client = sctp(AddressFamily::INET).expect("the kernel has it");
        set_socket_timeout(&client, Timeout::Send, Some(Duration::from_secs(5))).expect("a socket");
        connect(&client, &"192.0.2.1:8080".parse::<SocketAddr>().expect("an address"))
    });
    assert!(refused.is_err(), "nobody is there any more");
}
