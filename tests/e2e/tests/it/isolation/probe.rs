//! Asking and answering: who listens everywhere, and who asks what.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket};

/// Where containers listen; on the host there is more, and less.
pub(crate) const PORTS: [u16; 4] = [80, 81, 82, 83];

/// Listens on these ports by TCP and UDP, of both families, for as long as the process lives.
pub(crate) fn listen(ports: &[u16], at: IpAddr) {
    for port in ports {
        let listener = TcpListener::bind((at, *port)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // Who asked may be gone.
                let _gone = stream.and_then(|mut stream| stream.write_all(b"!"));
            }
        });
        let socket = UdpSocket::bind((at, *port)).unwrap();
        std::thread::spawn(move || {
            let mut word = [0; 64];
            while let Ok((length, from)) = socket.recv_from(&mut word) {
                HEARD.lock().unwrap().insert(word[..length].to_vec());
                let _gone = socket.send_to(&word[..length], from);
            }
        });
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    Icmp(IpAddr),
    /// By UDP, without hope for an answer: does it arrive?
    Sent(SocketAddr),
}

/// The words that anybody who listens by UDP has heard.
static HEARD: Mutex<BTreeSet<Vec<u8>>> = Mutex::new(BTreeSet::new());

/// Whether there is an answer. Asks again and again: a first packet may be lost while neighbours get to know each other.
pub(crate) fn ask(question: Question, from: Option<IpAddr>, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    match question {
        Question::Tcp(to) => tcp(to, end),
        Question::Udp(to) => udp(to, from, end),
        Question::Icmp(to) => icmp(to, end),
        Question::Sent(to) => sent(to, from, end),
    }
}

fn left(end: Instant) -> Option<Duration> {
    end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

fn tcp(to: SocketAddr, end: Instant) -> bool {
    while let Some(left) = left(end) {
        let Ok(mut stream) = TcpStream::connect_timeout(&to, left) else { continue };
        // Something may listen and lead nowhere.
        stream.set_read_timeout(Some(left)).unwrap();
        if stream.read_exact(&mut [0]).is_ok() {
            return true;
        }
    }
    false
}

fn udp(to: SocketAddr, from: Option<IpAddr>, end: Instant) -> bool {
    let any =
        if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((from.unwrap_or(any), 0)).unwrap();
    if socket.connect(to).is_err() {
        return false;
    }
    let mut word = [0; 8];
    while let Some(left) = left(end) {
        // A refusal of the last one is heard here.
        let _refused = socket.send(b"hello");
        socket.set_read_timeout(Some(left.min(Duration::from_millis(200)))).unwrap();
        if socket.recv(&mut word).is_ok() {
            return true;
        }
    }
    false
}

fn sent(to: SocketAddr, from: Option<IpAddr>, end: Instant) -> bool {
    static WORDS: AtomicU64 = AtomicU64::new(0);
    let word = format!("word {}", WORDS.fetch_add(1, Ordering::Relaxed)).into_bytes();
    let socket = UdpSocket::bind((from.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    while left(end).is_some() && !HEARD.lock().unwrap().contains(&word) {
        let _unreachable = socket.send_to(&word, to);
        let _answer = socket.recv(&mut [0; 8]);
    }
    HEARD.lock().unwrap().contains(&word)
}

fn icmp(to: IpAddr, end: Instant) -> bool {
    let (family, protocol, request, reply, header) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8, 0, 20),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129, 0),
    };
    let socket: OwnedFd = socket(family, SocketType::RAW, Some(protocol)).unwrap();
    let id = std::process::id() as u16 ^ (&raw const socket as usize >> 4) as u16;
    let [high, low] = id.to_be_bytes();
    // Carries of ones' complement.
    let (total, carry) = u16::from_be_bytes([request, 0]).overflowing_add(id);
    let sum = if carry { !(total + 1) } else { !total };
    let [sum_high, sum_low] = sum.to_be_bytes();
    let message = [request, 0, sum_high, sum_low, high, low, 0, 0];
    let mut packet = [0; 256];
    while let Some(left) = left(end) {
        let _unreachable = sendto(&socket, &message, SendFlags::empty(), &SocketAddr::new(to, 0));
        let wait = left.min(Duration::from_millis(200));
        let until = Instant::now() + wait;
        while let Some(left) = self::left(until) {
            let time = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
            let mut sources = [PollFd::new(&socket, PollFlags::IN)];
            if poll(&mut sources, Some(&time)) != Ok(1) {
                continue;
            }
            let Ok((length, _)) = recv(&socket, &mut packet[..], RecvFlags::DONTWAIT) else {
                continue;
            };
            if let [kind, _, _, _, a, b, ..] = packet[..length][header.min(length)..]
                && kind == reply
                && [a, b] == [high, low]
            {
                return true;
            }
        }
    }
    false
}
