//! As much HTTP as it takes to ask an engine on one connection, and no more, so that the client weighs nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The newest version that dockerd 20.10 speaks.
const VERSION: &str = "/v1.41";

/// A connection that is kept.
#[derive(Debug)]
pub(crate) struct Http {
    stream: BufReader<UnixStream>,
}

impl Http {
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(300)))?;
        Ok(Self { stream: BufReader::with_capacity(64 << 10, stream) })
    }

    /// Asks, and returns the whole answer, which must be a success.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Vec<u8>> {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.send(method, path, "application/json", body.as_bytes())
    }

    pub(crate) fn json(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        Ok(serde_json::from_slice(&self.ask(method, path, body)?)?)
    }

    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> Result<Vec<u8>> {
        let mut answer = Vec::new();
        self.stream_to(method, path, kind, body, &mut |piece| answer.extend_from_slice(piece))?;
        Ok(answer)
    }

    /// Asks, and hands out the answer as it comes.
    pub(crate) fn stream_to(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<()> {
        let head = format!(
            "{method} {VERSION}{path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let stream = self.stream.get_mut();
        stream.write_all(&[head.as_bytes(), &body[..body.len().min(4096)]].concat())?;
        stream.write_all(&body[body.len().min(4096)..])?;
        let (status, length) = self.read_head()?;
        if !(200..300).contains(&status) {
            let mut words = Vec::new();
            self.read_body(status, &length, &mut |piece| words.extend_from_slice(piece))?;
            let words = format!("{method} {path}: {status} {}", String::from_utf8_lossy(&words));
            if status == 501 {
                return Err(NotBuilt(words).into());
            }
            bail!(words);
        }
        self.read_body(status, &length, sink).with_context(|| format!("{method} {path}"))
    }

    fn read_head(&mut self) -> Result<(u16, Length)> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.with_context(|| format!("no status: {line:?}"))?;
        let mut length = Length::UntilClosed;
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "the head of the answer is cut off");
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match (name.to_ascii_lowercase().as_str(), value) {
                ("content-length", value) => length = Length::Bytes(value.parse()?),
                ("transfer-encoding", "chunked") => length = Length::Chunked,
                _ => {}
            }
        }
        Ok((status, length))
    }

    fn read_body(
        &mut self,
        status: u16,
        length: &Length,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<()> {
        match length {
            _ if status == 204 || status == 304 => Ok(()),
            Length::Bytes(count) => self.pass(*count, sink),
            Length::UntilClosed => {
                let mut buffer = vec![0; 64 << 10];
                loop {
                    match self.stream.read(&mut buffer)? {
                        0 => return Ok(()),
                        count => sink(&buffer[..count]),
                    }
                }
            }
            Length::Chunked => {
                let mut line = String::new();
                loop {
                    line.clear();
                    self.stream.read_line(&mut line)?;
                    let count = u64::from_str_radix(line.trim_end(), 16)
                        .with_context(|| format!("no length of a chunk: {line:?}"))?;
                    self.pass(count, sink)?;
                    line.clear();
                    self.stream.read_line(&mut line)?;
                    if count == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn pass(&mut self, mut left: u64, sink: &mut dyn FnMut(&[u8])) -> Result<()> {
        while left > 0 {
            let buffer = self.stream.fill_buf()?;
            ensure!(!buffer.is_empty(), "the body is cut off");
            let count = buffer.len().min(usize::try_from(left)?);
            sink(&buffer[..count]);
            self.stream.consume(count);
            left -= count as u64;
        }
        Ok(())
    }
}

/// The engine knows what is asked and does not do it: there is nothing to be measured.
#[derive(Debug)]
pub(crate) struct NotBuilt(String);

impl std::fmt::Display for NotBuilt {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for NotBuilt {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Bytes(u64),
    Chunked,
    UntilClosed,
}
