//! Ports of this machine for a test to publish, named before anybody has them.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::IntoRawFd;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Below what the kernel gives to those who do not choose: a connection of somebody's would be in the way.
const FIRST: u16 = 26_500;
const COUNT: u16 = 6_000;

/// A number that is free in both families and that no other test is told, until this process ends.
pub fn free() -> u16 {
    let dir = Path::new("/tmp/gantry-test-ports");
    std::fs::create_dir_all(dir).expect("a place for locks");
    let start = (std::process::id() % 97) as u16 * 60;
    let ports = (0..COUNT).map(|step| FIRST + (start + step) % COUNT);
    let mut taken = ports.filter_map(|port| {
        let path = dir.join(port.to_string());
        let lock = File::options().write(true).create(true).truncate(false).open(path);
        let lock = lock.expect("a lock file");
        flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
        let (_stream, _datagrams) =
            (TcpListener::bind(("::", port)).ok()?, UdpSocket::bind(("::", port)).ok()?);
        // Locked for as long as this process lives.
        let _open = lock.into_raw_fd();
        Some(port)
    });
    taken.next().expect("all ports for tests are taken")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_the_same() {
        let (one, other) = (free(), free());
        assert_ne!(one, other);
        TcpListener::bind(("0.0.0.0", one)).expect("it is free");
        UdpSocket::bind(("::", other)).expect("it is free");
    }
}
