//! `gelf`: each line a message for Graylog, compressed and in pieces over UDP, or in a row over TCP.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{ToSocketAddrs, UdpSocket};
use std::time::Duration;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::Value;
use stdx::{Error, Result};

use super::frame::{Message, random};
use super::options::{Options, given, host_and_port, url};
use super::wire::{Place, Wire};
use super::{Driver, Shim, json};
use crate::logs::Config;
use crate::protocol::Stream;

/// The longest datagram: what passes through most networks whole.
const DATAGRAM: usize = 1420;
const PIECE_HEAD: usize = 12;
const MOST_PIECES: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Udp,
    Tcp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Gzip,
    Zlib,
    None,
}

pub(super) fn check(options: &Options) -> Result<()> {
    let (protocol, _, _) = address(options)?;
    for (key, value) in options {
        match key.as_str() {
            "gelf-address" => {}
            "gelf-compression-level" | "gelf-compression-type" => {
                if protocol != Protocol::Udp {
                    return Err(Error::invalid("compression is only supported on UDP"));
                }
                let known = match key.as_str() {
                    "gelf-compression-type" => packing(value).is_some(),
                    _ => value.parse().is_ok_and(|level: i32| (-1..=9).contains(&level)),
                };
                if !known {
                    return Err(Error::invalid(format!(
                        "unknown value {value:?} for log opt {key:?} for gelf log driver"
                    )));
                }
            }
            "gelf-tcp-max-reconnect" | "gelf-tcp-reconnect-delay" => {
                if protocol != Protocol::Tcp {
                    return Err(Error::invalid(format!("{key:?} is only valid for TCP")));
                }
                if value.parse::<u32>().is_err() {
                    return Err(Error::invalid(format!("{key:?} must be a positive integer")));
                }
            }
            _ => {
                return Err(Error::invalid(format!("unknown log opt {key:?} for gelf log driver")));
            }
        }
    }
    Ok(())
}

fn packing(text: &str) -> Option<Packing> {
    match text {
        "gzip" => Some(Packing::Gzip),
        "zlib" => Some(Packing::Zlib),
        "none" => Some(Packing::None),
        _ => None,
    }
}

fn address(options: &Options) -> Result<(Protocol, String, u16)> {
    let text = given(options, "gelf-address")
        .ok_or_else(|| Error::invalid("gelf-address is a required parameter"))?;
    let parsed = url(text).filter(|url| matches!(url.scheme, "udp" | "tcp" | "unix" | "unixgram"));
    let url = parsed.ok_or_else(|| {
        Error::invalid(format!("gelf-address should be in form proto://address, got {text}"))
    })?;
    let protocol = match url.scheme {
        "udp" => Protocol::Udp,
        "tcp" => Protocol::Tcp,
        _ => return Err(Error::invalid("gelf: endpoint needs to be TCP or UDP")),
    };
    let (host, port) = host_and_port(url.authority)
        .ok_or_else(|| Error::invalid("gelf: please provide gelf-address as proto://host:port"))?;
    Ok((protocol, host.to_owned(), port))
}

pub(super) struct Gelf<'a> {
    host: String,
    /// What every message says besides, as JSON with a comma before it.
    extra: Vec<u8>,
    sender: Sender<'a>,
    lost: u64,
}

enum Sender<'a> {
    Udp { socket: UdpSocket, packing: Packing, level: Compression },
    Tcp { wire: Option<Wire>, place: Place, retries: u32, delay: Duration, shim: &'a Shim<'a> },
}

impl<'a> Gelf<'a> {
    pub(super) fn open(config: &Config, shim: &'a Shim<'a>) -> Result<Self> {
        let options = &config.options;
        let (protocol, host, port) = address(options)?;
        let nobody = |error: Error| {
            let words = error.chain();
            Error::unavailable(format!(
                "gelf: cannot connect to GELF endpoint: {host}:{port} {words}"
            ))
        };
        let number = |name: &str, otherwise: i32| {
            given(options, name).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
        };
        let sender = match protocol {
            Protocol::Udp => {
                let level = match number("gelf-compression-level", 1) {
                    -1 => Compression::default(),
                    level => Compression::new(u32::try_from(level).unwrap_or(1)),
                };
                let kind = given(options, "gelf-compression-type").and_then(packing);
                let socket = udp(&host, port).map_err(|error| nobody(error.into()))?;
                Sender::Udp { socket, packing: kind.unwrap_or(Packing::Gzip), level }
            }
            Protocol::Tcp => {
                let place = Place::Tcp { host: host.clone(), port };
                let wire = Wire::dial(&place, shim).map_err(nobody)?;
                let retries = number("gelf-tcp-max-reconnect", 3).unsigned_abs();
                let delay = number("gelf-tcp-reconnect-delay", 1).unsigned_abs();
                let delay = Duration::from_secs(u64::from(delay));
                Sender::Tcp { wire: Some(wire), place, retries, delay, shim }
            }
        };
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Self { host, extra: extra(config), sender, lost: 0 })
    }

    fn message(&self, message: &Message<'_>) -> Vec<u8> {
        let level = if message.stream == Stream::Stderr { 3 } else { 6 };
        let mut out = b"{\"version\":\"1.1\",\"host\":".to_vec();
        out.append(&mut json::text(&self.host));
        out.extend_from_slice(b",\"short_message\":");
        out.append(&mut json::text(&message.text()));
        let time = message.unix_millis() as f64 / 1000.0;
        out.extend_from_slice(format!(",\"timestamp\":{time},\"level\":{level}").as_bytes());
        out.extend_from_slice(&self.extra);
        out.push(b'}');
        out
    }
}

fn udp(host: &str, port: u16) -> std::io::Result<UdpSocket> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        match socket.connect(address) {
            Ok(()) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn extra(config: &Config) -> Vec<u8> {
    let who = &config.identity;
    let mut fields: BTreeMap<String, Value> = [
        ("_container_id", who.id.clone()),
        ("_container_name", who.name.clone()),
        ("_image_id", who.image_id.clone()),
        ("_image_name", who.image.clone()),
        ("_command", who.command()),
        ("_tag", config.tag.clone()),
        ("_created", who.created.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), Value::String(value)))
    .into();
    for (name, value) in &config.attrs {
        let name = if name.starts_with('_') { name.clone() } else { format!("_{name}") };
        fields.insert(name, Value::String(value.clone()));
    }
    let mut text = json::text(&fields);
    text.pop();
    text[0] = b',';
    text
}

fn pack(bytes: &[u8], packing: Packing, level: Compression) -> std::io::Result<Vec<u8>> {
    match packing {
        Packing::None => Ok(bytes.to_vec()),
        Packing::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes)?;
            encoder.finish()
        }
        Packing::Zlib => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(bytes)?;
            encoder.finish()
        }
    }
}

/// What is too long for a datagram, in several that bear one number.
fn pieces(bytes: &[u8], number: [u8; 8]) -> Option<Vec<Vec<u8>>> {
    if bytes.len() <= DATAGRAM {
        return Some(vec![bytes.to_vec()]);
    }
    let pieces = bytes.chunks(DATAGRAM - PIECE_HEAD);
    let count = pieces.len();
    if count > MOST_PIECES {
        return None;
    }
    let piece = |(index, piece): (usize, &[u8])| {
        let place = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        let head = [&[0x1e, 0x0f], &number[..], &[place(index), place(count)]].concat();
        [&head, piece].concat()
    };
    Some(pieces.enumerate().map(piece).collect())
}

impl Driver for Gelf<'_> {
    fn log(&mut self, message: &Message<'_>) {
        // Graylog takes no message that says nothing.
        if message.line.is_empty() {
            return;
        }
        let mut bytes = self.message(message);
        let sent = match &mut self.sender {
            Sender::Udp { socket, packing, level } => {
                let packed = pack(&bytes, *packing, *level).ok();
                let pieces = packed.and_then(|packed| pieces(&packed, random()));
                pieces.is_some_and(|pieces| {
                    // Of an earlier datagram, to a port where nobody listened: UDP goes on.
                    let send =
                        |piece: &Vec<u8>| socket.send(piece).is_ok() || socket.send(piece).is_ok();
                    pieces.iter().all(send)
                })
            }
            Sender::Tcp { wire, place, retries, delay, shim } => {
                bytes.push(0);
                let send = |wire: &mut Option<Wire>| {
                    let link = wire.as_mut().filter(|link| !link.is_over());
                    link.is_some_and(|link| link.send(&bytes, None, shim).is_ok())
                };
                (0..=*retries).any(|_| {
                    if send(wire) {
                        return true;
                    }
                    *wire = None;
                    if shim.goes_on() {
                        shim.pause(*delay);
                        *wire = Wire::dial(place, shim).ok();
                    }
                    false
                })
            }
        };
        self.lost += u64::from(!sent);
    }

    fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(pairs: &[(&str, &str)]) -> String {
        let options =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        check(&options).unwrap_err().chain()
    }

    #[test]
    fn refusals() {
        let (udp, tcp) = (("gelf-address", "udp://h:1"), ("gelf-address", "tcp://h:1"));
        assert_eq!(refusal(&[]), "gelf-address is a required parameter");
        let bare = refusal(&[("gelf-address", "h:1")]);
        assert_eq!(bare, "gelf-address should be in form proto://address, got h:1");
        let unix = refusal(&[("gelf-address", "unix:///x")]);
        assert_eq!(unix, "gelf: endpoint needs to be TCP or UDP");
        let portless = refusal(&[("gelf-address", "udp://h")]);
        assert_eq!(portless, "gelf: please provide gelf-address as proto://host:port");
        let packed = refusal(&[tcp, ("gelf-compression-type", "gzip")]);
        assert_eq!(packed, "compression is only supported on UDP");
        let level = refusal(&[udp, ("gelf-compression-level", "10")]);
        assert_eq!(
            level,
            "unknown value \"10\" for log opt \"gelf-compression-level\" for gelf log driver"
        );
        let reconnect = refusal(&[udp, ("gelf-tcp-max-reconnect", "1")]);
        assert_eq!(reconnect, "\"gelf-tcp-max-reconnect\" is only valid for TCP");
        let negative = refusal(&[tcp, ("gelf-tcp-max-reconnect", "-1")]);
        assert_eq!(negative, "\"gelf-tcp-max-reconnect\" must be a positive integer");
        let unknown = refusal(&[udp, ("x", "1")]);
        assert_eq!(unknown, "unknown log opt \"x\" for gelf log driver");
    }

    #[test]
    fn long_messages_go_in_pieces() {
        assert_eq!(pieces(&[7; DATAGRAM], [0; 8]).unwrap(), vec![vec![7; DATAGRAM]]);
        let several = pieces(&[7; 3000], *b"01234567").unwrap();
        assert_eq!(several.iter().map(Vec::len).collect::<Vec<_>>(), [1420, 1420, 196]);
        assert_eq!(several[1][..12], *b"\x1e\x0f01234567\x01\x03");
        assert!(pieces(&vec![0; 1408 * 128 + 1], [0; 8]).is_none());
    }
}
