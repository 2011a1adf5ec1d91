//! Being in a container's network without being in the container: for what its own tools cannot do, and for when no daemon
//! is there to be asked.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use testkit::House;

/// The first process of a container that runs.
pub(crate) fn pid(house: &House, name: &str) -> u32 {
    let pid = house.ok(&["inspect", "-f", "{{.State.Pid}}", name]);
    pid.trim().parse().expect("it runs")
}

/// Does something in the network namespace of a process, on a thread that ends with it.
pub(crate) fn within<T: Send>(pid: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let inside = || {
            let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("it lives");
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(rustix::fd::AsFd::as_fd(&namespace), kind).expect("root");
            work()
        };
        scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What a name server says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) code: u8,
    pub(crate) addresses: Vec<IpAddr>,
}

/// Asks the name server of a container for an address, as a resolver in there would.
pub(crate) fn ask(pid: u32, name: &str, six: bool) -> io::Result<Said> {
    within(pid, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.connect("127.0.0.11:53")?;
        let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend(label.as_bytes());
        }
        query.extend([0, 0, if six { 28 } else { 1 }, 0, 1]);
        socket.send(&query)?;
        let mut answer = [0; 4096];
        let length = socket.recv(&mut answer)?;
        Ok(read(&answer[..length], query.len()))
    })
}

/// Answers of ours have names that refer to the question.
fn read(answer: &[u8], mut at: usize) -> Said {
    let count = u16::from_be_bytes([answer[6], answer[7]]);
    let mut addresses = Vec::new();
    for _ in 0..count {
        let length = usize::from(u16::from_be_bytes([answer[at + 10], answer[at + 11]]));
        let data = &answer[at + 12..at + 12 + length];
        if let Ok(octets) = <[u8; 4]>::try_from(data) {
            addresses.push(Ipv4Addr::from(octets).into());
        } else if let Ok(octets) = <[u8; 16]>::try_from(data) {
            addresses.push(Ipv6Addr::from(octets).into());
        }
        at += 12 + length;
    }
    Said { code: answer[3] & 15, addresses }
}
