//! Published ports as doors: a held socket is the truth about who has one (N7), and who comes in is seen as who he is (N3).

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};
use testkit::house::{shown, succeed};
use testkit::{House, Netns, TestImage};

use super::{address, sleeper};
use crate::inside::{in_namespace, pid, within};

fn house(netns: &Netns) -> House {
    let house = House::within(netns);
    house.load(&TestImage::busybox().docker_archive(&["busybox:latest"]));
    house
}

fn on<T: Send>(netns: &Netns, work: impl FnOnce() -> T + Send) -> T {
    in_namespace(&File::open(netns.path()).expect("it is there"), work)
}

/// Takes an address the way a thief does: with whatever lets him share it.
fn steal(at: &str) -> Result<OwnedFd, Errno> {
    let at: SocketAddr = at.parse().expect("an address");
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let thief = socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(thief.as_fd(), true)?;
    sockopt::set_socket_reuseport(thief.as_fd(), true)?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(thief.as_fd(), false)?;
    }
    bind(&thief, &at)?;
    listen(&thief, 1)?;
    Ok(thief)
}

#[test]
fn n7_a_held_socket_is_the_truth() {
    const ADDRESSES: [&str; 5] =
        ["0.0.0.0:8080", "127.0.0.1:8080", "[::]:8080", "[::1]:8080", "[::ffff:127.0.0.1]:8080"];
    let netns = Netns::new();
    let mut house = house(&netns);
    sleeper(&house, "web", &["-p", "8080:80"]);
    let nobody_gets_it = || {
        for at in ADDRESSES {
            assert_eq!(on(&netns, || steal(at)).map(drop), Err(Errno::ADDRINUSE), "{at}");
        }
    };
    nobody_gets_it();
    // Not while it goes round and round, with conversations that linger.
    for _ in 0..5 {
        let inner = pid(&house, "web");
        let listener = within(inner, || TcpListener::bind("0.0.0.0:80").expect("its own port"));
        let visitor = on(&netns, || TcpStream::connect("127.0.0.1:8080").expect("a door"));
        drop(listener.accept().expect("a visitor"));
        drop((visitor, listener));
        house.ok(&["restart", "-t", "0", "web"]);
        nobody_gets_it();
    }
    house.kill();
    nobody_gets_it();
    house.start();
    nobody_gets_it();

    // It is free the moment it is given back, and then it is whose who takes it.
    house.ok(&["stop", "-t", "0", "web"]);
    let thief = on(&netns, || steal("127.0.0.1:8080")).expect("it is free");
    let refused = shown(&house.docker(&["start", "web"]).output().expect("docker"));
    assert!(
        refused.contains("failed to bind host port 0.0.0.0:8080/tcp: address already in use"),
        "{refused}"
    );
    drop(thief);
    house.ok(&["start", "web"]);
    nobody_gets_it();
    // A range is all or nothing: what was taken before the one that is taken is free again.
    let range = ["run", "--rm", "-p", "8070-8090:70-90", "busybox", "true"];
    let refused = shown(&house.docker(&range).output().expect("docker"));
    assert!(
        refused.contains("Bind for 0.0.0.0:8080 failed: port is already allocated"),
        "{refused}"
    );
    for port in (8070..=8090).filter(|port| *port != 8080) {
        let free = on(&netns, || TcpListener::bind(("0.0.0.0", port)));
        assert!(free.is_ok(), "{port}: {free:?}");
    }
}

#[test]
fn n3_who_comes_in_is_seen() {
    let (host, neighbour) = (Netns::new(), Netns::new());
    let name = |netns: &Netns| {
        netns.path().file_name().and_then(|name| name.to_str()).expect("a name").to_owned()
    };
    let (here, there) = (name(&host), name(&neighbour));
    let ip = |words: &str| {
        let mut ip = Command::new("ip");
        ip.args(words.split(' '));
        succeed(ip);
    };
    ip(&format!("-n {here} link add lan type veth peer name lan netns {there}"));
    for (netns, last) in [(&here, 1), (&there, 2)] {
        ip(&format!("-n {netns} addr add 192.0.2.{last}/24 dev lan"));
        ip(&format!("-n {netns} link set lan up"));
    }
    let house = house(&host);
    house.ok(&["network", "create", "net"]);
    sleeper(&house, "web", &["--network", "net", "-p", "8080:80"]);
    sleeper(&house, "peer", &["--network", "net"]);
    let listener =
        within(pid(&house, "web"), || TcpListener::bind("0.0.0.0:80").expect("its port"));
    let seen = |visit: &mut dyn FnMut() -> TcpStream| -> IpAddr {
        let mut visitor = visit();
        visitor.write_all(b"hello").expect("it is open");
        listener.accept().expect("a visitor").1.ip()
    };
    let connect = |at: &str| TcpStream::connect(at).expect("a door");
    let gateway = address(&house, "web", "net", "Gateway");
    let stranger = seen(&mut || on(&neighbour, || connect("192.0.2.1:8080")));
    assert_eq!(stranger.to_string(), "192.0.2.2");
    let local = seen(&mut || on(&host, || connect("127.0.0.1:8080")));
    assert_eq!(local.to_string(), gateway, "never a loopback address");
    let sibling = seen(&mut || within(pid(&house, "peer"), || connect("192.0.2.1:8080")));
    let own = seen(&mut || within(pid(&house, "web"), || connect("192.0.2.1:8080")));
    let peer = address(&house, "peer", "net", "IPAddress");
    for (who, found) in [("sibling", sibling), ("itself", own)] {
        let found = found.to_string();
        assert!(found == gateway || found == peer || found == "192.0.2.1", "{who}: {found}");
    }
}
