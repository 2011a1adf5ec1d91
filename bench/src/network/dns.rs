//! Questions to a container's name server, from inside of it: for a name that the engine knows, and for one that it must
//! ask for.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::network::site::{Site, TARGET};
use crate::network::{LEVEL, Promise};
use crate::table::Unit;
use crate::turns::Values;

/// That nobody's network has.
const ELSEWHERE: &str = "somewhere.example.test";
const ASKED: usize = 2000;
/// Questions that wait for their answers at any moment.
const TOGETHER: usize = 16;
/// When a question is asked again, as resolvers do.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) const ROWS: [Promise; 4] = [
    ("DNS, a container's name, 16 at once", Unit::PerSecond, LEVEL),
    ("DNS, a container's name, 99 of 100 within", Unit::Milliseconds, LEVEL),
    ("DNS, a name elsewhere, 16 at once", Unit::PerSecond, LEVEL),
    ("DNS, a name elsewhere, 99 of 100 within", Unit::Milliseconds, LEVEL),
];

pub(crate) fn round(site: &Site) -> Result<Values> {
    site.client.within(|| {
        let mut values = Values::new();
        for name in [TARGET, ELSEWHERE] {
            let began = Instant::now();
            let mut times = ask(name).with_context(|| format!("asking for {name}"))?;
            values.push(ASKED as f64 / began.elapsed().as_secs_f64());
            times.sort_by(f64::total_cmp);
            values.push(times[times.len() * 99 / 100]);
        }
        Ok(values)
    })
}

/// How long each answer took, in milliseconds.
fn ask(name: &str) -> Result<Vec<f64>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((Ipv4Addr::new(127, 0, 0, 11), 53))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut question = question(name);
    let mut send = |number: u16| {
        question[..2].copy_from_slice(&number.to_be_bytes());
        socket.send(&question)
    };
    let mut waiting: HashMap<u16, Instant> = HashMap::new();
    let mut times = Vec::with_capacity(ASKED);
    let mut next = 0;
    let mut answer = [0; 1500];
    while times.len() < ASKED {
        while waiting.len() < TOGETHER && usize::from(next) < ASKED {
            waiting.insert(next, Instant::now());
            send(next)?;
            next += 1;
        }
        match socket.recv(&mut answer) {
            Ok(length) => {
                ensure!(length > 12 && answer[3] & 0xf == 0, "it was answered with a failure");
                ensure!(answer[7] > 0, "it was answered with nothing");
                let number = u16::from_be_bytes([answer[0], answer[1]]);
                // One that was asked twice is answered twice.
                if let Some(since) = waiting.remove(&number) {
                    times.push(since.elapsed().as_secs_f64() * 1000.0);
                }
            }
            Err(err) if err.kind() == ErrorKind::WouldBlock => {
                waiting.keys().try_for_each(|number| send(*number).map(drop))?;
            }
            Err(err) => return Err(err.into()),
        }
    }
    Ok(times)
}

/// For the address of a name; its number is filled in later.
fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// The world's name server, which knows one answer. It ends with this value.
pub(crate) struct Upstream {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    pub(crate) fn start(address: Ipv4Addr) -> Result<Self> {
        let socket = UdpSocket::bind((address, 53))?;
        // How long its end may take.
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let thread = std::thread::spawn(move || serve(&socket, &told));
        Ok(Self { ended, thread: Some(thread) })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it does not panic");
        }
    }
}

fn serve(socket: &UdpSocket, ended: &AtomicBool) {
    const ANSWER: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1];
    let mut message = [0; 1500];
    while !ended.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut message[..512]) else { continue };
        // Of the question only: what else came along (EDNS) is not sent back.
        let name = message[12..length].iter().position(|byte| *byte == 0);
        let Some(end) = name.map(|at| 12 + at + 5) else { continue };
        message[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        message[end..end + ANSWER.len()].copy_from_slice(&ANSWER);
        let _lost = socket.send_to(&message[..end + ANSWER.len()], from);
    }
}
