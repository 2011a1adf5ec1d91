//! `syslog` over TLS: the same messages, framed by their length as RFC 5425 wants it where the format is RFC 5424's.

use std::time::Duration;

use stdx::{Context, Error, Result};

use super::frame::Message;
use super::options::{Options, given};
use super::wire::{Place, Wire};
use super::{Driver, Shim};
use crate::logs::syslog::{Address, Format, Formatter};
use crate::logs::{Config, Stamp};

/// Between two attempts to reach a server that is gone.
const PAUSE: Duration = Duration::from_secs(1);
/// Attempts before a message is given up.
const ATTEMPTS: u32 = 2;

pub(super) struct Syslog<'a> {
    formatter: Formatter,
    framed: bool,
    place: Place,
    wire: Option<Wire>,
    shim: &'a Shim<'a>,
    lost: u64,
}

/// What the connection trusts and shows of itself, from the files that are named.
fn tls_config(options: &Options) -> Result<std::sync::Arc<rustls::ClientConfig>> {
    let path = |name: &str| given(options, name).unwrap_or_default().into();
    // Whatever it is set to, as long as it is set to something.
    let trusts_anybody = given(options, "syslog-tls-skip-verify").is_some();
    ::plugin::tls::config(&::plugin::TlsFiles {
        trusts_anybody,
        ca: path("syslog-tls-ca-cert"),
        certificate: path("syslog-tls-cert"),
        key: path("syslog-tls-key"),
    })
}

impl<'a> Syslog<'a> {
    pub(super) fn open(config: &Config, shim: &'a Shim<'a>) -> Result<Self> {
        let Address::Tls(address) = &config.syslog.address else {
            return Err(Error::internal("syslog without TLS needs no process"));
        };
        let (host, port) = super::options::host_and_port(address)
            .ok_or_else(|| Error::invalid(format!("invalid address {address}")))?;
        let place =
            Place::Tls { host: host.to_owned(), port, config: tls_config(&config.options)? };
        let wire = Wire::dial(&place, shim).context(|| format!("dial tcp+tls {address}"))?;
        Ok(Self {
            formatter: Formatter::new(&config.syslog, &config.tag),
            framed: matches!(config.syslog.format, Format::Rfc5424 | Format::Rfc5424Micro),
            place,
            wire: Some(wire),
            shim,
            lost: 0,
        })
    }

    fn attempt(&mut self, bytes: &[u8]) -> bool {
        if self.wire.as_ref().is_none_or(Wire::is_over) {
            self.wire = Wire::dial(&self.place, self.shim).ok();
        }
        let sent = self.wire.as_mut().is_some_and(|wire| wire.send(bytes, None, self.shim).is_ok());
        if !sent {
            self.wire = None;
        }
        sent
    }
}

impl Driver for Syslog<'_> {
    fn log(&mut self, message: &Message<'_>) {
        let at = Stamp::at(message.seconds, message.nanos);
        let mut bytes = self.formatter.message(at, message.stream, message.line);
        if self.framed {
            let mut framed = format!("{} ", bytes.len()).into_bytes();
            framed.append(&mut bytes);
            bytes = framed;
        }
        let sent = (0..ATTEMPTS).any(|attempt| {
            if attempt > 0 {
                self.shim.pause(PAUSE);
            }
            self.attempt(&bytes)
        });
        self.lost += u64::from(!sent);
    }

    fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}
