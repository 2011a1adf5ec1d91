//! `docker logs`: what the shim wrote, read back and framed for the wire.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use bytes::{BufMut, Bytes, BytesMut};
use shim::Stream;
use shim::logs::{Config, Driver, Entry, Follow, Next, Options, PluginReader, Reader};
use stdx::time::Timestamp;
use stdx::{Error, Result};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::Container;
use super::plan;
use super::record::Record;
use crate::LogStream;

#[derive(Clone, Copy, Debug, Default)]
pub struct LogsRequest {
    pub stdout: bool,
    pub stderr: bool,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub timestamps: bool,
    pub details: bool,
    pub follow: bool,
    /// Last lines only; `None` is all.
    pub tail: Option<usize>,
}

/// Bytes gathered before they are passed on.
const PIECE: usize = 128 * 1024;
/// What the last record of a piece may have beyond it without another allocation.
const LAST: usize = 20 * 1024;

impl LogsRequest {
    /// All there is, without following.
    pub fn all(stdout: bool, stderr: bool) -> Self {
        Self { stdout, stderr, ..Self::default() }
    }
}

impl Container {
    /// Opens the log. The stream ends with the log, or, when following, with the container.
    pub async fn logs(&self, request: LogsRequest) -> Result<LogStream> {
        if !(request.stdout || request.stderr) {
            return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
        }
        let record = self.record();
        let config = self.log_config(&record)?;
        let follow = if request.follow { Follow::Yes } else { Follow::No };
        let options = Options {
            tail: request.tail.map(|count| count as u64),
            since: request.since,
            until: request.until,
            follow,
        };
        let (sender, stream) = LogStream::pair(record.tty());
        let frame = Frame { tty: record.tty(), request };
        if config.driver == Driver::Plugin {
            let ended = !record.state.phase.is_up();
            let theirs = config.clone();
            match tokiox::blocking(move || PluginReader::of(&theirs, options, ended)).await {
                Ok(None) => {}
                Ok(Some(reader)) => {
                    frame.pass_on(reader, sender)?;
                    return Ok(stream);
                }
                Err(error) => {
                    let _gone = sender.send(frame.failure(&error)).await;
                    return Ok(stream);
                }
            }
        }
        let reader = tokiox::blocking(move || Reader::of(&config, options)).await?;
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(error) = this.send_log(reader, frame, &sender).await {
                tracing::warn!(container = %this.cell.id, error = %error.chain(), "log reading ended early");
                let _gone = sender.send(frame.failure(&error)).await;
            }
        });
        Ok(stream)
    }

    async fn send_log(
        &self,
        mut reader: Reader,
        mut frame: Frame,
        sender: &mpsc::Sender<Bytes>,
    ) -> Result<()> {
        let mut records = self.cell.subscribe();
        let wake = match reader.wake() {
            Some(descriptor) => {
                #[allow(
                    deprecated,
                    reason = "its successor is unsafe; an OwnedFd keeps the promise that one asks for"
                )]
                let registered = AsyncFd::new(descriptor.try_clone_to_owned()?)?;
                Some(registered)
            }
            None => None,
        };
        loop {
            // Up or down is asked before the read: what was written before the exit is read after it.
            if !records.borrow_and_update().state.phase.is_up() {
                reader.finish();
            }
            let batch = tokiox::blocking(move || frame.read(reader)).await?;
            let (Batch { bytes, waits, ended }, back, frame_back) = batch;
            (reader, frame) = (back, frame_back);
            if !bytes.is_empty() && sender.send(bytes).await.is_err() {
                return Ok(());
            }
            if ended {
                return Ok(());
            }
            if !waits {
                continue;
            }
            tokio::select! {
                () = readable(wake.as_ref()) => {}
                changed = records.changed() => if changed.is_err() { reader.finish() },
                () = sender.closed() => return Ok(()),
            }
        }
    }

    /// Where the log goes, and how it is kept.
    pub(crate) fn log_config(&self, record: &Record) -> Result<Config> {
        let log = plan::log(record.host(), &self.rooms.settings())?;
        let mut config = log.config(record, &self.rooms.settings())?;
        config.path = self.log_file(record, config.driver);
        Ok(config)
    }

    fn log_file(&self, record: &Record, driver: Driver) -> PathBuf {
        self.rooms.data_dir(&record.id).join(match driver {
            Driver::JsonFile | Driver::None => format!("{}-json.log", record.id),
            Driver::Local => "container.log".to_owned(),
            _ => "container-cached.log".to_owned(),
        })
    }

    /// For `inspect`: empty where the driver keeps no file, or there was no start yet.
    pub(crate) fn log_path(&self, record: &Record) -> String {
        if record.host().log_config.r#type != "json-file" || record.state.started_at.is_never() {
            return String::new();
        }
        self.log_file(record, Driver::JsonFile).to_string_lossy().into_owned()
    }
}

async fn readable(wake: Option<&AsyncFd<OwnedFd>>) {
    match wake {
        Some(wake) => {
            if let Ok(mut ready) = wake.readable().await {
                ready.clear_ready();
            }
        }
        None => std::future::pending().await,
    }
}

struct Batch {
    bytes: Bytes,
    waits: bool,
    ended: bool,
}

#[derive(Clone, Copy)]
struct Frame {
    tty: bool,
    request: LogsRequest,
}

impl Frame {
    /// Reads until a piece is full or there is nothing more now.
    fn read(self, mut reader: Reader) -> Result<(Batch, Reader, Self)> {
        let mut out = BytesMut::with_capacity(PIECE + LAST);
        let (mut waits, mut ended) = (false, false);
        while out.len() < PIECE {
            match reader.next()? {
                Next::Entry(entry) => self.put(&entry, &mut out),
                Next::Lost(files) => self.lost(files, &mut out),
                Next::Wait => {
                    waits = true;
                    break;
                }
                Next::End => {
                    ended = true;
                    break;
                }
            }
        }
        Ok((Batch { bytes: out.freeze(), waits, ended }, reader, self))
    }

    /// Gives what a plugin says to the client, for as long as there are both: a plugin may have nothing to say for hours, so
    /// that it gets a thread of its own.
    fn pass_on(self, mut reader: PluginReader, sender: mpsc::Sender<Bytes>) -> Result<()> {
        let stopper = reader.stopper()?;
        let client = sender.clone();
        let (done, ended) = oneshot::channel::<()>();
        let read = move || {
            let mut out = BytesMut::new();
            loop {
                match reader.next_entry() {
                    Ok(Some(entry)) => self.put(&entry, &mut out),
                    Ok(None) => break,
                    Err(error) => break drop(sender.blocking_send(self.failure(&error))),
                }
                if !out.is_empty() && sender.blocking_send(out.split().freeze()).is_err() {
                    break;
                }
            }
            drop(done);
        };
        std::thread::Builder::new().name("log-plugin".to_owned()).spawn(read)?;
        tokio::spawn(async move {
            tokio::select! {
                () = client.closed() => stopper.stop(),
                _ = ended => {}
            }
        });
        Ok(())
    }

    /// What went wrong, where the client reads: the status was told long ago.
    fn failure(&self, error: &Error) -> Bytes {
        const DAEMON: u8 = 3;
        let mut out = BytesMut::new();
        let words = format!("Error grabbing logs: {}\n", error.chain());
        self.write(DAEMON, b"", words.as_bytes(), &mut out);
        out.freeze()
    }

    fn put(&self, entry: &Entry<'_>, out: &mut BytesMut) {
        let (wanted, number) = match entry.stream {
            Stream::Stderr => (self.request.stderr, 2),
            _ => (self.request.stdout, 1),
        };
        if !wanted {
            return;
        }
        let mut head = String::new();
        if self.request.timestamps {
            head = entry.at.fixed_nanos();
            head.push(' ');
        }
        if self.request.details {
            head.push_str(&details(entry.attrs));
            head.push(' ');
        }
        self.write(number, head.as_bytes(), entry.line, out);
    }

    /// A reader slower than its container is told what it can no longer have.
    fn lost(&self, files: u64, out: &mut BytesMut) {
        if self.request.stderr {
            let words =
                format!("[{files} log files were rotated away before they could be read]\n");
            self.write(2, b"", words.as_bytes(), out);
        }
    }

    fn write(&self, number: u8, head: &[u8], line: &[u8], out: &mut BytesMut) {
        if !self.tty {
            out.put_slice(&[number, 0, 0, 0]);
            out.put_u32((head.len() + line.len()) as u32);
        }
        out.put_slice(head);
        out.put_slice(line);
    }
}

/// `a=1,b=2`, in the order of the keys, and escaped as in a query, so that a comma is one between two.
fn details(attrs: Option<&[u8]>) -> String {
    let map: std::collections::BTreeMap<String, String> =
        attrs.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
    let pair = |(key, value): (&String, &String)| format!("{}={}", escaped(key), escaped(value));
    map.iter().map(pair).collect::<Vec<_>>().join(",")
}

/// Go's `url.QueryEscape`.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        b' ' => "+".to_owned(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_escaped() {
        let attrs = br#"{"b":"x,y=1 z","a":"\u00e9"}"#;
        assert_eq!(details(Some(attrs)), "a=%C3%A9,b=x%2Cy%3D1+z");
        assert_eq!(details(None), "");
    }
}
