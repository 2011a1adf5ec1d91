//! Servers that take whatever comes, in a network of a test's own, and tell what it was.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use flate2::read::{GzDecoder, ZlibDecoder};
use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use testkit::Netns;
use testkit::house::{PATIENCE, succeed};

/// Does something that belongs to that network for ever: a socket stays in the one it was made in.
pub(crate) fn inside<T: Send>(netns: &Netns, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let namespace = File::open(netns.path()).expect("a namespace");
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).expect("root");
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub(crate) fn tcp(netns: &Netns) -> (TcpListener, SocketAddr) {
    let listener = inside(netns, || TcpListener::bind("127.0.0.1:0").expect("a port"));
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

pub(crate) fn udp(netns: &Netns) -> (UdpSocket, SocketAddr) {
    let socket = inside(netns, || UdpSocket::bind("127.0.0.1:0").expect("a port"));
    socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

/// What one connection said, from its beginning to its end, with what it is answered with as soon as it speaks.
pub(crate) fn hear(listener: &TcpListener) -> Vec<u8> {
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an end");
    bytes
}

/// A request that a server of HTTP has got.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    pub(crate) fn text(&self) -> String {
        let body = match self.header("content-encoding") {
            "gzip" => unpack(&self.body),
            _ => self.body.clone(),
        };
        String::from_utf8(body).expect("text")
    }
}

/// Answers every request with a status and a body, for as long as somebody wants to know of them.
pub(crate) fn http(
    netns: &Netns,
    certificate: Option<Arc<ServerConfig>>,
    answer: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static,
) -> (Receiver<Asked>, SocketAddr) {
    let (listener, address) = tcp(netns);
    let (sender, receiver) = channel();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
            let (sender, answer, tls) = (sender.clone(), Arc::clone(&answer), certificate.clone());
            std::thread::spawn(move || match tls {
                None => converse(stream, &sender, &*answer),
                Some(config) => {
                    let session = ServerConnection::new(config).expect("a session");
                    converse(StreamOwned::new(session, stream), &sender, &*answer);
                }
            });
        }
    });
    (receiver, address)
}

fn converse(
    mut stream: impl Read + Write,
    sender: &Sender<Asked>,
    answer: &(dyn Fn(&Asked) -> (u16, String) + Send + Sync),
) {
    let mut bytes = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if !more(&mut stream, &mut bytes) {
                return;
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
        let mut lines = text.lines();
        let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
        let mut asked = Asked {
            method: words.next().unwrap_or_default(),
            path: words.next().unwrap_or_default(),
            headers: lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: Vec::new(),
        };
        let length: usize = asked.header("content-length").parse().unwrap_or(0);
        while bytes.len() < head + length {
            if !more(&mut stream, &mut bytes) {
                return;
            }
        }
        asked.body = bytes[head..head + length].to_vec();
        bytes.drain(..head + length);
        let (status, body) = answer(&asked);
        let _nobody = sender.send(asked);
        let answer = format!(
            "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(answer.as_bytes()).and_then(|()| stream.flush()).is_err() {
            return;
        }
    }
}

fn more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> bool {
    let mut piece = [0; 8192];
    match stream.read(&mut piece) {
        Ok(count) if count > 0 => {
            bytes.extend_from_slice(&piece[..count]);
            true
        }
        _ => false,
    }
}

/// The next one, waited for.
pub(crate) fn next<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(PATIENCE).expect("something in time")
}

/// Whether nothing comes for a while.
pub(crate) fn is_silent<T>(receiver: &Receiver<T>) -> bool {
    receiver.recv_timeout(Duration::from_millis(300)).is_err()
}

/// gzip, zlib, or as it is.
pub(crate) fn unpack(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match bytes {
        [0x1f, 0x8b, ..] => GzDecoder::new(bytes).read_to_end(&mut out).map(drop),
        [0x78, ..] => ZlibDecoder::new(bytes).read_to_end(&mut out).map(drop),
        _ => out.write_all(bytes),
    }
    .expect("whole");
    out
}

/// A key and a certificate that vouches for itself, of 127.0.0.1 and of a name.
pub(crate) fn certificate(dir: &Path, name: &str) -> Arc<ServerConfig> {
    let mut openssl = Command::new("openssl");
    let subject = format!("subjectAltName=IP:127.0.0.1,DNS:{name}");
    openssl.current_dir(dir).args(["req", "-x509", "-newkey", "rsa:2048", "-nodes"]);
    openssl.args(["-keyout", "key", "-out", "crt", "-days", "2", "-subj", "/CN=somebody"]);
    openssl.args(["-addext", &subject, "-addext", "basicConstraints=critical,CA:FALSE"]);
    succeed(openssl);
    let chain = CertificateDer::pem_file_iter(dir.join("crt")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(dir.join("key")).expect("a key");
    let config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain.map(|one| one.expect("a certificate")).collect(), key)
        .expect("a key that fits");
    Arc::new(config)
}

/// What one connection by TLS said.
pub(crate) fn hear_tls(listener: &TcpListener, config: &Arc<ServerConfig>) -> Vec<u8> {
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let session = ServerConnection::new(Arc::clone(config)).expect("a session");
    let mut bytes = Vec::new();
    // Who hangs up without a goodbye has said all the same what it has said.
    let _end = StreamOwned::new(session, stream).read_to_end(&mut bytes);
    bytes
}
