//! TCP to a container, by each way that leads to it: bytes of one stream, questions and answers on connections that are
//! kept, and with a connection for each.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::sockopt::set_socket_linger;

use crate::network::place::Place;
use crate::network::site::Site;
use crate::network::{LEVEL, Promise};
use crate::table::{Budget, Unit};
use crate::turns::{Values, clock};

pub(crate) const PORT: u16 = 7000;
const STREAM: u64 = 128 << 20;
/// Bytes of a question and of an answer; a small request, and a small page.
const QUESTION: usize = 64;
const ANSWER: usize = 512;
const CLIENTS: usize = 8;
/// By each client.
const KEPT: usize = 200;
/// By each client; few enough that no ephemeral port is asked for twice within a minute.
const FRESH: usize = 40;

/// Docker has a process of its own copy them.
const THRICE: Option<Budget> = Some(Budget { ratio: 3.0, words: "3 × docker-proxy's" });

#[derive(Clone, Copy, Debug)]
pub(crate) enum Path {
    Container,
    Neighbour,
    Host,
    /// No engine at all: the host asks itself. What a published port cannot be faster than.
    Nobody,
}

pub(crate) const PATHS: [Path; 4] = [Path::Container, Path::Neighbour, Path::Host, Path::Nobody];

impl Path {
    pub(crate) fn rows(self) -> [Promise; 3] {
        use Unit::{MiBPerSecond, PerSecond};
        match self {
            Self::Container => [
                ("TCP container to container, one stream", MiBPerSecond, LEVEL),
                ("TCP container to container, requests, kept", PerSecond, LEVEL),
                ("TCP container to container, a connection each", PerSecond, LEVEL),
            ],
            Self::Neighbour => [
                ("TCP neighbour to published port, one stream", MiBPerSecond, LEVEL),
                ("TCP neighbour to published port, requests, kept", PerSecond, LEVEL),
                ("TCP neighbour to published port, a connection each", PerSecond, LEVEL),
            ],
            Self::Host => [
                ("TCP localhost to published port, one stream", MiBPerSecond, THRICE),
                ("TCP localhost to published port, requests, kept", PerSecond, THRICE),
                ("TCP localhost to published port, a connection each", PerSecond, THRICE),
            ],
            Self::Nobody => [
                ("TCP localhost to itself, one stream", MiBPerSecond, None),
                ("TCP localhost to itself, requests, kept", PerSecond, None),
                ("TCP localhost to itself, a connection each", PerSecond, None),
            ],
        }
    }

    /// Where the client is, and whom it asks.
    fn ends(self, site: &Site) -> (&Place, SocketAddr) {
        match self {
            Self::Container => (&site.client, site.direct),
            Self::Neighbour => (&site.neighbour, site.outside()),
            Self::Host => (&site.host, site.inside()),
            Self::Nobody => (&site.host, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT)),
        }
    }
}

pub(crate) fn round(site: &Site, path: Path) -> Result<Values> {
    let (place, to) = path.ends(site);
    let (stream, ()) = place
        .within(|| clock(|| receive(to)))
        .with_context(|| format!("{path:?}: a stream from {to}"))?;
    let kept = together(place, || {
        let mut connection = connect(to)?;
        (0..KEPT).try_for_each(|_| request(&mut connection))
    })?;
    let fresh = together(place, || {
        (0..FRESH).try_for_each(|_| {
            let mut connection = connect(to)?;
            request(&mut connection)?;
            // Broken off: nothing of it shall linger for a minute.
            Ok(set_socket_linger(&connection, Some(Duration::ZERO))?)
        })
    })?;
    let per_second = |count: usize, time: f64| count as f64 * 1000.0 / time;
    Ok(vec![
        (STREAM >> 20) as f64 * 1000.0 / stream,
        per_second(CLIENTS * KEPT, kept),
        per_second(CLIENTS * FRESH, fresh),
    ])
}

/// How long it takes all clients, in milliseconds.
fn together(place: &Place, act: impl Fn() -> Result<()> + Sync) -> Result<f64> {
    let (time, ()) = clock(|| {
        thread::scope(|scope| {
            let clients: Vec<_> =
                (0..CLIENTS).map(|_| scope.spawn(|| place.within(&act))).collect();
            let joined = clients.into_iter().map(|one| one.join().expect("it does not panic"));
            joined.collect::<Result<()>>()
        })
    })?;
    Ok(time)
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let connection = TcpStream::connect(to)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(connection)
}

fn request(connection: &mut TcpStream) -> Result<()> {
    connection.write_all(&[b'?'; QUESTION])?;
    connection.read_exact(&mut [0; ANSWER])?;
    Ok(())
}

fn receive(to: SocketAddr) -> Result<()> {
    let mut connection = connect(to)?;
    connection.write_all(&[b'!'; QUESTION])?;
    let mut buffer = vec![0; 128 << 10];
    let mut left = STREAM;
    while left > 0 {
        let count = connection.read(&mut buffer)?;
        anyhow::ensure!(count > 0, "it ends {left} bytes early");
        left -= count as u64;
    }
    Ok(())
}

/// Answers whoever comes. It ends with this value.
pub(crate) struct Server {
    listener: Arc<TcpListener>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        let listener = Arc::new(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?);
        let one = || {
            let listener = Arc::clone(&listener);
            thread::spawn(move || {
                while let Ok((connection, _)) = listener.accept() {
                    let _over = serve(connection);
                }
            })
        };
        // A client's last connection may be on its way out while it makes the next.
        let threads = (0..CLIENTS * 2).map(|_| one()).collect();
        Ok(Self { listener, threads })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _closed = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        for thread in self.threads.drain(..) {
            thread.join().expect("it does not panic");
        }
    }
}

fn serve(mut connection: TcpStream) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut question = [0; QUESTION];
    loop {
        connection.read_exact(&mut question)?;
        if question[0] == b'?' {
            connection.write_all(&[b'.'; ANSWER])?;
            continue;
        }
        let piece = vec![b'.'; 128 << 10];
        for _ in 0..STREAM / piece.len() as u64 {
            connection.write_all(&piece)?;
        }
    }
}
