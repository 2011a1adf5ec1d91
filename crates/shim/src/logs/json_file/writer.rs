//! Records out: formatted one by one, written many at a time.

use stdx::{Context, Result};

use super::escape;
use crate::logs::rotation::Files;
use crate::logs::{Clock, Compress, Config, Stamp};
use crate::protocol::Stream;

/// What is collected before it is written, if nobody flushes earlier.
const BATCH: usize = 128 * 1024;

#[derive(Debug)]
pub(crate) struct Writer {
    files: Files,
    max_size: Option<u64>,
    clock: Clock,
    /// `,"attrs":{…}`, or nothing.
    attrs: Vec<u8>,
    batch: Vec<u8>,
    records: u64,
    dropped: u64,
}

impl Writer {
    pub(crate) fn open(config: &Config) -> Result<Self> {
        Ok(Self {
            files: Files::open(&config.path, config.max_file, config.compress)
                .context(|| "failed to create the json-file log".to_owned())?,
            max_size: config.max_size,
            clock: Clock::new(),
            attrs: attrs(config),
            batch: Vec::new(),
            records: 0,
            dropped: 0,
        })
    }

    pub(crate) fn write(&mut self, at: Stamp, stream: Stream, line: &[u8], ended: bool) {
        if line.is_empty() && !ended {
            return;
        }
        let out = &mut self.batch;
        out.extend_from_slice(b"{\"log\":\"");
        escape::push(line, out);
        if ended {
            out.extend_from_slice(b"\\n");
        }
        out.extend_from_slice(match stream {
            Stream::Stderr => b"\",\"stream\":\"stderr\"",
            Stream::Stdin | Stream::Stdout => b"\",\"stream\":\"stdout\"",
        });
        out.extend_from_slice(&self.attrs);
        out.extend_from_slice(b",\"time\":\"");
        self.clock.push(at, out);
        out.extend_from_slice(b"\"}\n");
        self.records += 1;

        // As Docker does: the record that makes the file full is still in it.
        if self.max_size.is_some_and(|most| self.files.size() + self.batch.len() as u64 >= most) {
            self.flush();
            if self.files.size() > 0 && self.files.rotate().is_err() {
                // A file that cannot be moved grows on; the disk's own limit is the next.
                self.max_size = self.max_size.map(|most| most.saturating_mul(2));
            }
        } else if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    /// One write for all that was collected. What the disk does not take is lost, and counted: the container must not
    /// stand still because a disk is full.
    pub(crate) fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.files.append(&self.batch).is_err() {
            self.dropped += self.records;
        }
        self.batch.clear();
        self.records = 0;
    }

    pub(crate) fn rest(&mut self) {
        self.flush();
        self.batch = Vec::new();
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(crate) fn rotate(&mut self) -> Result<()> {
        self.flush();
        self.files.rotate()
    }

    pub(crate) fn reopen(&mut self) -> Result<()> {
        self.flush();
        self.files.reopen()
    }

    pub(crate) fn compress(&mut self) -> Option<Compress> {
        self.files.compress()
    }

    pub(crate) fn compressed(&mut self) {
        self.files.compressed();
    }
}

fn attrs(config: &Config) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, (key, value)) in config.attrs.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b",\"attrs\":{\"" } else { b",\"" });
        escape::push(key.as_bytes(), &mut out);
        out.extend_from_slice(b"\":\"");
        escape::push(value.as_bytes(), &mut out);
        out.push(b'"');
    }
    if !out.is_empty() {
        out.push(b'}');
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn written(config: &Config, write: impl FnOnce(&mut Writer)) -> String {
        let mut writer = Writer::open(config).unwrap();
        write(&mut writer);
        writer.flush();
        std::fs::read_to_string(&config.path).unwrap()
    }

    #[test]
    fn as_docker_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { path: dir.path().join("x-json.log"), ..Config::default() };
        let text = written(&config, |writer| {
            writer.write(Stamp::at(1_763_719_200, 500_000_000), Stream::Stdout, b"hello <b>", true);
            writer.write(Stamp::at(1_763_719_201, 0), Stream::Stderr, b"no newline", false);
            writer.write(Stamp::at(1_763_719_201, 0), Stream::Stderr, b"", true);
        });
        expect_test::expect![[r#"
            {"log":"hello \u003cb\u003e\n","stream":"stdout","time":"2025-11-21T10:00:00.5Z"}
            {"log":"no newline","stream":"stderr","time":"2025-11-21T10:00:01Z"}
            {"log":"\n","stream":"stderr","time":"2025-11-21T10:00:01Z"}
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn attributes_come_before_the_time() {
        let dir = tempfile::tempdir().unwrap();
        let attrs = BTreeMap::from([
            ("tag".to_owned(), "a&b".to_owned()),
            ("env".to_owned(), "1".to_owned()),
        ]);
        let config = Config { path: dir.path().join("x-json.log"), attrs, ..Config::default() };
        let text =
            written(&config, |writer| writer.write(Stamp::at(0, 0), Stream::Stdout, b"x", true));
        expect_test::expect![[r#"
            {"log":"x\n","stream":"stdout","attrs":{"env":"1","tag":"a\u0026b"},"time":"1970-01-01T00:00:00Z"}
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn a_full_file_is_rotated_within_a_batch() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            path: dir.path().join("log"),
            max_size: Some(1000),
            max_file: 3,
            ..Config::default()
        };
        let mut writer = Writer::open(&config).unwrap();
        for index in 0..100 {
            writer.write(
                Stamp::at(index, 0),
                Stream::Stdout,
                format!("line {index}").as_bytes(),
                true,
            );
        }
        writer.flush();
        for (name, last) in [("log.2", "line 7"), ("log.1", "line 8"), ("log", "line 99")] {
            let text = std::fs::read_to_string(dir.path().join(name)).unwrap();
            assert!(text.len() < 1100, "{name} has {} bytes", text.len());
            assert!(text.lines().last().unwrap().contains(last), "{name}: {text}");
        }
        assert!(!dir.path().join("log.3").exists());
    }

    #[test]
    fn a_full_disk_drops_and_counts() {
        // A device that is always full.
        let config = Config { path: "/dev/full".into(), max_size: None, ..Config::default() };
        let mut writer = Writer::open(&config).unwrap();
        for _ in 0..3 {
            writer.write(Stamp::at(0, 0), Stream::Stdout, b"x", true);
        }
        writer.flush();
        assert_eq!(writer.dropped(), 3);
    }
}
