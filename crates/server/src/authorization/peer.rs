//! Who a client is: what the certificate says that it has shown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::listen::Stream;

/// Nobody in particular over a unix socket, or without a certificate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// The common name of the certificate's subject.
    pub(crate) user: String,
    /// The chain that was shown, each as PEM in base64.
    pub(crate) certificates: Vec<String>,
}

impl Peer {
    pub(crate) fn of(stream: &Stream) -> Self {
        let Stream::Tls(stream) = stream else { return Self::default() };
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        Self {
            user: chain.first().and_then(|first| common_name(first)).unwrap_or_default(),
            certificates: chain.iter().map(|der| STANDARD.encode(pem(der))).collect(),
        }
    }
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let lines: String = lines.map(|line| format!("{line}\n")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0] EXPLICIT`, the version of a certificate that says which.
const VERSION: u8 = 0xa0;
/// `id-at-commonName`, 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// The last common name in a certificate's subject (RFC 5280, section 4.1). Its signature has been checked: whoever made
/// it is believed, but his bytes are not.
fn common_name(certificate: &[u8]) -> Option<String> {
    let mut certificate = Der(Der(certificate).take(SEQUENCE)?);
    let mut tbs = Der(certificate.take(SEQUENCE)?);
    if tbs.tag() == Some(VERSION) {
        tbs.take(VERSION)?;
    }
    tbs.take(INTEGER)?;
    for _signature_issuer_validity in 0..3 {
        tbs.take(SEQUENCE)?;
    }
    let mut subject = Der(tbs.take(SEQUENCE)?);
    let mut found = None;
    while let Some(set) = subject.take(SET) {
        let mut set = Der(set);
        while let Some(pair) = set.take(SEQUENCE) {
            let mut pair = Der(pair);
            if pair.take(OBJECT_IDENTIFIER)? == COMMON_NAME {
                let (_, text) = pair.next()?;
                found = Some(String::from_utf8_lossy(text).into_owned());
            }
        }
    }
    found
}

/// What is left of some DER.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element's content, if it is of that kind.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.tag() != Some(tag) {
            return None;
        }
        self.next().map(|(_, content)| content)
    }

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, length, rest @ ..] = self.0 else { return None };
        let (length, rest) = match usize::from(*length) {
            short @ ..0x80 => (short, rest),
            // Four bytes of length are more than a certificate has.
            long => {
                let bytes = long - 0x80;
                let (length, rest) =
                    (1..=4).contains(&bytes).then(|| rest.split_at_checked(bytes))??;
                (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        match content.len() {
            short @ ..0x80 => bytes.push(short as u8),
            long => bytes.extend([0x82, (long >> 8) as u8, long as u8]),
        }
        bytes.extend(content);
        bytes
    }

    fn certificate(names: &[&str], version: bool) -> Vec<u8> {
        let pair = |name: &&str| {
            let value = [der(OBJECT_IDENTIFIER, &COMMON_NAME), der(0x0c, name.as_bytes())].concat();
            der(SET, &der(SEQUENCE, &value))
        };
        let subject = der(SEQUENCE, &names.iter().map(pair).collect::<Vec<_>>().concat());
        let empty = der(SEQUENCE, &[]);
        let version = if version { der(VERSION, &der(INTEGER, &[2])) } else { Vec::new() };
        let fields =
            [version, der(INTEGER, &[1]), [empty.clone(), empty.clone(), empty].concat(), subject];
        der(SEQUENCE, &der(SEQUENCE, &fields.concat()))
    }

    #[test]
    fn names_of_subjects() {
        assert_eq!(common_name(&certificate(&["me"], true)).as_deref(), Some("me"));
        assert_eq!(common_name(&certificate(&["me", "you"], false)).as_deref(), Some("you"));
        let long = "x".repeat(300);
        assert_eq!(common_name(&certificate(&[&long], true)), Some(long));
        assert_eq!(common_name(&certificate(&[], true)), None);
    }

    #[test]
    fn bytes_that_are_none() {
        let good = certificate(&["me"], true);
        for end in 0..good.len() {
            assert_eq!(common_name(&good[..end]), None);
            let mut bad = good.clone();
            for flip in [0x80, 0xff, 0x01] {
                bad[end] ^= flip;
                let _any = common_name(&bad);
            }
        }
    }

    #[test]
    fn lines_of_64() {
        let text = pem(&[0; 60]);
        assert!(text.lines().all(|line| line.len() <= 64) && text.lines().count() == 4, "{text}");
    }
}
