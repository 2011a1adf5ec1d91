//! `journald`: each line an entry of systemd's journal, in its native protocol: fields in one datagram.

use std::path::{Path, PathBuf};

use super::config::Identity;
use super::outbox::{Kind, Target};
use super::{Config, Stamp};
use crate::protocol::Stream;

const SOCKET: &str = "/run/systemd/journal/socket";

pub(super) fn target(config: &Config) -> Target {
    let socket: &Path = config.journal.as_deref().unwrap_or(Path::new(SOCKET));
    Target::unix(socket, Kind::Datagram)
}

/// Where the journal listens, for those that look for it.
pub fn socket() -> PathBuf {
    PathBuf::from(SOCKET)
}

/// Writes entries.
#[derive(Debug)]
pub(super) struct Formatter {
    /// What every entry of this container has.
    fields: Vec<u8>,
    ordinal: u64,
}

impl Formatter {
    pub(super) fn new(config: &Config) -> Self {
        let Identity { id, name, image, .. } = &config.identity;
        let short: String = id.chars().take(12).collect();
        let epoch = format!("{:x}", Stamp::now().timestamp().unix_nanos());
        let known = [
            ("CONTAINER_ID", short.as_str()),
            ("CONTAINER_ID_FULL", id),
            ("CONTAINER_NAME", name),
            ("CONTAINER_TAG", &config.tag),
            ("IMAGE_NAME", image),
            ("SYSLOG_IDENTIFIER", &config.tag),
            ("CONTAINER_LOG_EPOCH", &epoch),
        ];
        let mut fields = Vec::new();
        for (name, value) in known {
            field(name, value.as_bytes(), &mut fields);
        }
        for (name, value) in &config.attrs {
            let name = journal_name(name);
            if !name.is_empty() && name != "TAG" {
                field(&name, value.as_bytes(), &mut fields);
            }
        }
        Self { fields, ordinal: 0 }
    }

    pub(super) fn message(
        &mut self,
        at: Stamp,
        stream: Stream,
        line: &[u8],
        ended: bool,
    ) -> Vec<u8> {
        self.ordinal += 1;
        let mut out = Vec::with_capacity(line.len() + self.fields.len() + 160);
        field("MESSAGE", line, &mut out);
        field("PRIORITY", if stream == Stream::Stderr { b"3" } else { b"6" }, &mut out);
        field("SYSLOG_TIMESTAMP", at.timestamp().to_string().as_bytes(), &mut out);
        field("CONTAINER_LOG_ORDINAL", self.ordinal.to_string().as_bytes(), &mut out);
        if !ended {
            field("CONTAINER_PARTIAL_MESSAGE", b"true", &mut out);
        }
        out.extend_from_slice(&self.fields);
        out
    }
}

/// `NAME=value`, or, where the value has lines of its own, its length in front of it.
fn field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The journal takes capitals, digits and underscores, and keeps names that begin with one for itself.
fn journal_name(name: &str) -> String {
    let mapped: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .collect();
    mapped.trim_start_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_entry() {
        let config = Config {
            tag: "web".to_owned(),
            identity: Identity {
                id: "0123456789abcdef".to_owned(),
                name: "w".to_owned(),
                image: "i".to_owned(),
                ..Identity::default()
            },
            attrs: BTreeMap::from([
                ("com.a-b".to_owned(), "two\nlines".to_owned()),
                ("tag".to_owned(), "web".to_owned()),
            ]),
            ..Config::default()
        };
        let mut formatter = Formatter::new(&config);
        let bytes = formatter.message(Stamp::at(0, 0), Stream::Stderr, b"hello", false);
        let text = String::from_utf8_lossy(&bytes).replace('\0', ".");
        let epoch = text.lines().find(|line| line.starts_with("CONTAINER_LOG_EPOCH=")).unwrap();
        assert_eq!(
            text.replace(epoch, "EPOCH"),
            "MESSAGE=hello\nPRIORITY=3\nSYSLOG_TIMESTAMP=1970-01-01T00:00:00Z\nCONTAINER_LOG_ORDINAL=1\n\
             CONTAINER_PARTIAL_MESSAGE=true\nCONTAINER_ID=0123456789ab\nCONTAINER_ID_FULL=0123456789abcdef\n\
             CONTAINER_NAME=w\nCONTAINER_TAG=web\nIMAGE_NAME=i\nSYSLOG_IDENTIFIER=web\nEPOCH\n\
             COM_A_B\n\u{9}.......two\nlines\n"
        );
    }

    #[test]
    fn names_the_journal_takes() {
        assert_eq!(journal_name("com.example-x"), "COM_EXAMPLE_X");
        assert_eq!(journal_name("_SYSTEMD_UNIT"), "SYSTEMD_UNIT");
        assert_eq!(journal_name("_."), "");
    }
}
