//! F15: a daemon that may open few files, and clients who want many.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use testkit::House;
use testkit::house::PATIENCE;

use super::{furnish, looks, until};

/// Takes away what the daemon has reached for: it raises the limit that it was started with.
fn limit(house: &House, files: u64) {
    let pid = rustix::process::Pid::from_raw(house.pid() as i32);
    let limit = Rlimit { current: Some(files), maximum: Some(files) };
    prlimit(pid, Resource::Nofile, limit).expect("root may");
}

fn connect(house: &House, path: &str) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(house.socket())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
    Ok(stream)
}

#[test]
fn f15_a_thousand_clients_and_few_descriptors() {
    let own = getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: own.maximum, ..own })
        .expect("room for a thousand");
    let mut house = House::new();
    furnish(&house);
    limit(&house, 256);
    // Some follow, some only stand there; most of them wait at the door.
    let paths =
        ["/events", "/containers/kept/logs?stdout=1&follow=1", "/containers/kept/stats", "/_ping"];
    let mut clients: Vec<UnixStream> =
        (0..1000).map_while(|n| connect(&house, paths[n % paths.len()]).ok()).collect();
    assert!(clients.len() > 256, "{}", clients.len());
    until("it has said that there are too many", || house.log().contains("cannot accept a client"));
    assert!(house.lives());
    // Who was let in first is served.
    let mut byte = [0];
    clients[3].read_exact(&mut byte).expect("an answer");
    drop(clients);
    until("it answers again", || {
        house.client_of_api().ask("GET", "/_ping", None).is_ok_and(|ping| ping.status == 200)
    });
    looks(&house);
    assert_eq!(house.ok(&["exec", "kept", "cat", "/v/file"]), "kept\n");
    assert_eq!(house.ok(&["run", "--rm", "busybox", "echo", "on"]), "on\n");
}
