//! `syslog`: each line a message to a server, here or far away, in one of the formats there are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stdx::{Error, Result};

use super::Stamp;
use super::outbox::{Kind, Target};
use super::stamp::Clock;
use crate::protocol::Stream;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Syslog {
    pub address: Address,
    pub facility: u8,
    pub format: Format,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Address {
    /// Whatever this host has.
    #[default]
    Local,
    Unix(PathBuf),
    Unixgram(PathBuf),
    Udp(String),
    Tcp(String),
    Tls(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// As a local program writes to `/dev/log`.
    #[default]
    Unix,
    Rfc3164,
    Rfc5424,
    Rfc5424Micro,
}

const FACILITIES: [&str; 20] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// Where a local server listens.
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Syslog {
    /// Reads its own of the options, in Docker's words where they are wrong.
    pub(super) fn from_options(options: &BTreeMap<String, String>) -> Result<Self> {
        let text = |name: &str| options.get(name).map_or("", String::as_str);
        Ok(Self {
            address: Address::parse(text("syslog-address"))?,
            facility: facility(text("syslog-facility"))?,
            format: match text("syslog-format") {
                "" => Format::Unix,
                "rfc3164" => Format::Rfc3164,
                "rfc5424" => Format::Rfc5424,
                "rfc5424micro" => Format::Rfc5424Micro,
                _ => return Err(Error::invalid("Invalid syslog format")),
            },
        })
    }
}

impl Address {
    fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::Local);
        }
        let bad = || {
            Error::invalid(format!("syslog-address should be in form proto://address, got {text}"))
        };
        let (scheme, rest) =
            text.split_once("://").filter(|(_, rest)| !rest.is_empty()).ok_or_else(bad)?;
        let host = || match rest.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                rest.to_owned()
            }
            _ => format!("{rest}:514"),
        };
        match scheme {
            "unix" | "unixgram" => {
                let path = PathBuf::from(rest);
                if !path.is_absolute() {
                    return Err(bad());
                }
                Ok(if scheme == "unix" { Self::Unix(path) } else { Self::Unixgram(path) })
            }
            "udp" => Ok(Self::Udp(host())),
            "tcp" => Ok(Self::Tcp(host())),
            "tcp+tls" => Ok(Self::Tls(host())),
            _ => Err(Error::invalid(format!("unsupported scheme: '{scheme}'"))),
        }
    }

    /// The places to try, the likeliest first.
    pub(super) fn targets(&self) -> Result<Vec<Target>> {
        Ok(match self {
            Self::Local => [Kind::Datagram, Kind::Stream]
                .into_iter()
                .flat_map(|kind| LOCAL.map(|path| Target::unix(Path::new(path), kind)))
                .collect(),
            Self::Unix(path) => vec![Target::unix(path, Kind::Stream)],
            Self::Unixgram(path) => vec![Target::unix(path, Kind::Datagram)],
            Self::Udp(host) => vec![Target::net(host, Kind::Datagram)?],
            Self::Tcp(host) => vec![Target::net(host, Kind::Stream)?],
            Self::Tls(_) => return Err(Error::internal("a connection that needs a process")),
        })
    }
}

/// A name, or its number.
fn facility(text: &str) -> Result<u8> {
    if text.is_empty() {
        return Ok(3);
    }
    let numbered = text.parse::<u8>().ok().filter(|number| *number <= 23);
    let named = || {
        let index = FACILITIES.iter().position(|name| *name == text)?;
        // Between FTP and local0 lie four that nobody has a name for.
        u8::try_from(if index < 12 { index } else { index + 4 }).ok()
    };
    numbered.or_else(named).ok_or_else(|| Error::invalid("invalid syslog facility"))
}

/// Writes messages.
#[derive(Debug)]
pub(super) struct Formatter {
    format: Format,
    facility: u8,
    hostname: String,
    tag: String,
    pid: u32,
    clock: Clock,
}

impl Formatter {
    pub(super) fn new(config: &Syslog, tag: &str) -> Self {
        Self {
            format: config.format,
            facility: config.facility,
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            tag: tag.to_owned(),
            pid: std::process::id(),
            clock: Clock::new(),
        }
    }

    pub(super) fn message(&mut self, at: Stamp, stream: Stream, line: &[u8]) -> Vec<u8> {
        let severity = if stream == Stream::Stderr { 3 } else { 6 };
        let priority = u16::from(self.facility) * 8 + severity;
        let mut out = Vec::with_capacity(line.len() + 128);
        let Self { format, hostname, tag, pid, .. } = &*self;
        let head = match format {
            Format::Unix => format!("<{priority}>{} {tag}[{pid}]: ", stamp(at)),
            Format::Rfc3164 => format!("<{priority}>{} {hostname} {tag}[{pid}]: ", stamp(at)),
            Format::Rfc5424 | Format::Rfc5424Micro => format!("<{priority}>1 "),
        };
        out.extend_from_slice(head.as_bytes());
        if matches!(format, Format::Rfc5424 | Format::Rfc5424Micro) {
            let rest = format!(" {hostname} {tag} {pid} {tag} - ");
            let digits = if *format == Format::Rfc5424 { 0 } else { 6 };
            self.clock.push_short(at, digits, &mut out);
            out.extend_from_slice(rest.as_bytes());
        }
        out.extend_from_slice(line);
        out.push(b'\n');
        out
    }
}

/// `Nov  2 15:04:05`
fn stamp(at: Stamp) -> String {
    let (month, day, clock) = at.calendar();
    format!(
        "{} {day:2} {:02}:{:02}:{:02}",
        MONTHS[usize::try_from(month - 1).unwrap_or(0) % 12],
        clock / 3600,
        clock / 60 % 60,
        clock % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(format: Format, stream: Stream) -> String {
        let config = Syslog { facility: 16, format, ..Syslog::default() };
        let mut formatter = Formatter::new(&config, "web/1");
        (formatter.hostname, formatter.pid) = ("host".to_owned(), 7);
        let at = Stamp::at(1_762_095_845, 123_456_789);
        String::from_utf8(formatter.message(at, stream, b"hello")).unwrap()
    }

    #[test]
    fn each_format() {
        assert_eq!(said(Format::Unix, Stream::Stdout), "<134>Nov  2 15:04:05 web/1[7]: hello\n");
        assert_eq!(
            said(Format::Rfc3164, Stream::Stderr),
            "<131>Nov  2 15:04:05 host web/1[7]: hello\n"
        );
        assert_eq!(
            said(Format::Rfc5424, Stream::Stdout),
            "<134>1 2025-11-02T15:04:05Z host web/1 7 web/1 - hello\n"
        );
        assert_eq!(
            said(Format::Rfc5424Micro, Stream::Stdout),
            "<134>1 2025-11-02T15:04:05.123456Z host web/1 7 web/1 - hello\n"
        );
    }

    #[test]
    fn options_are_understood() {
        let read = |name: &str, value: &str| {
            Syslog::from_options(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
        };
        let address = |text| read("syslog-address", text).unwrap().address;
        assert_eq!(address("udp://h"), Address::Udp("h:514".to_owned()));
        assert_eq!(address("tcp://[::1]:99"), Address::Tcp("[::1]:99".to_owned()));
        assert_eq!(address("unixgram:///dev/log"), Address::Unixgram("/dev/log".into()));
        let facility = |text| read("syslog-facility", text).unwrap().facility;
        assert_eq!(
            [facility(""), facility("local7"), facility("ftp"), facility("5")],
            [3, 23, 11, 5]
        );
        for (name, value, words) in [
            ("syslog-address", "x", "syslog-address should be in form proto://address, got x"),
            ("syslog-address", "sctp://x", "unsupported scheme: 'sctp'"),
            ("syslog-facility", "nope", "invalid syslog facility"),
            ("syslog-format", "nope", "Invalid syslog format"),
        ] {
            assert_eq!(read(name, value).unwrap_err().to_string(), words);
        }
    }
}
