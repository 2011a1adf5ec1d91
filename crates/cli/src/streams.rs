//! A container's streams on this terminal: an attached connection held until it ends.

use std::io::{self, Read};

use api::stream::{Decoder, Stream};
use client::{Client, Hijacked};
use stdx::{Error, Result};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::tty::{self, Raw};

/// Which streams are wanted, and how they travel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
    /// Keys that leave the container running; see [`detach_keys`].
    pub(crate) detach_keys: Vec<u8>,
}

/// How holding the streams ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Closed,
    /// The user typed the detach keys.
    Detached,
    /// Whoever read what we print has left.
    Unheard,
}

const CHUNK: usize = 32 << 10;

/// Carries bytes both ways until the container's side is at its end, or the user detaches.
pub(crate) async fn hold(connection: Hijacked, wanted: &Wanted) -> Result<Ended> {
    // Dropped last, whatever happens: the user gets the terminal back.
    let _raw = match wanted.tty && wanted.stdin {
        true => Raw::enter(io::stdin()).map_err(Error::from)?,
        false => None,
    };
    let Hijacked { reader, mut writer, .. } = connection;
    let input = async {
        if wanted.stdin {
            let mut keys = Keys::new(if wanted.tty { &wanted.detach_keys } else { &[] });
            let mut chunks = read_stdin();
            while let Some(chunk) = chunks.recv().await {
                let (bytes, detached) = keys.filter(&chunk);
                // A container that reads no more is not an error of ours: its output goes on.
                let sent = writer.write_all(&bytes).await.is_ok() && writer.flush().await.is_ok();
                if detached {
                    return Ended::Detached;
                }
                if !sent {
                    break;
                }
            }
        }
        writer.close().await.unwrap_or_default();
        Ended::Closed
    };
    let output = output(reader, wanted);
    tokio::pin!(input, output);
    if !(wanted.stdout || wanted.stderr) {
        return Ok(tokio::select! {
            ended = &mut input => ended,
            result = &mut output => result?,
        });
    }
    tokio::select! {
        result = &mut output => result,
        ended = &mut input => match ended {
            Ended::Closed => output.await,
            ended => Ok(ended),
        },
    }
}

/// Copies what the container says to our own standard output and error.
async fn output(mut reader: impl tokio::io::AsyncRead + Unpin, wanted: &Wanted) -> Result<Ended> {
    let mut stdout = tokio::io::stdout();
    let mut stderr = tokio::io::stderr();
    let mut splitter = Splitter::new(wanted.tty);
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = reader.read(&mut buffer).await.map_err(Error::from)?;
        if count == 0 {
            return Ok(Ended::Closed);
        }
        // Lines of one stream that arrived together leave together.
        let mut pieces: Vec<(Stream, Vec<u8>)> = Vec::new();
        let split = splitter.split(&buffer[..count], |stream, payload| {
            match pieces.last_mut() {
                Some((last, bytes)) if *last == stream => bytes.extend_from_slice(payload),
                _ => pieces.push((stream, payload.to_vec())),
            }
            Ok::<(), Error>(())
        });
        for (stream, bytes) in pieces {
            let written = match stream {
                Stream::Stderr => write_all(&mut stderr, &bytes).await,
                _ => write_all(&mut stdout, &bytes).await,
            };
            match written {
                Err(err) if err.kind() == io::ErrorKind::BrokenPipe => return Ok(Ended::Unheard),
                written => written.map_err(Error::from)?,
            }
        }
        // What came before a failure is shown before it.
        split?;
    }
}

async fn write_all(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Tells the payloads of both streams apart. A terminal has one stream, unframed.
pub(crate) struct Splitter(Option<Decoder>);

impl Splitter {
    pub(crate) fn new(tty: bool) -> Self {
        Self((!tty).then(Decoder::new))
    }

    /// Hands each payload to `each`; what the engine itself has to say ends it.
    pub(crate) fn split<E: From<Error>>(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Stream, &[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let Some(decoder) = &mut self.0 else { return each(Stream::Stdout, bytes) };
        let mut rest = bytes;
        loop {
            match decoder.next(&mut rest) {
                Ok(None) => return Ok(()),
                Ok(Some((Stream::System, payload))) => {
                    let words = String::from_utf8_lossy(payload);
                    return Err(
                        Error::internal(format!("error from daemon in stream: {words}")).into()
                    );
                }
                Ok(Some((stream, payload))) => each(stream, payload)?,
                Err(err) => return Err(Error::internal(err.to_string()).into()),
            }
        }
    }
}

/// Standard input in pieces, read by a thread of its own: a read of a terminal cannot be cancelled.
pub(crate) fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; CHUNK];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                        return;
                    }
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

/// Looks for the detach keys in what is typed, and holds back what may be their beginning.
struct Keys<'a> {
    keys: &'a [u8],
    seen: usize,
}

impl<'a> Keys<'a> {
    fn new(keys: &'a [u8]) -> Self {
        Self { keys, seen: 0 }
    }

    /// What to pass on, and whether the keys were all typed.
    fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len());
        for &byte in typed {
            if self.keys.get(self.seen) == Some(&byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.seen]);
            self.seen = 0;
            if self.keys.first() == Some(&byte) {
                self.seen = 1;
            } else {
                out.push(byte);
            }
        }
        (out, false)
    }
}

/// `ctrl-p,ctrl-q` understood; the default when `text` is empty.
pub(crate) fn detach_keys(text: &str) -> Result<Vec<u8>> {
    let text = if text.is_empty() { "ctrl-p,ctrl-q" } else { text };
    text.split(',')
        .map(|key| {
            let control = key.strip_prefix("ctrl-").map(str::as_bytes);
            match (key.as_bytes(), control) {
                ([one], _) => Ok(*one),
                (_, Some([letter @ b'a'..=b'z'])) => Ok(letter - b'a' + 1),
                (_, Some(b"@")) => Ok(0),
                (_, Some(b"[")) => Ok(27),
                (_, Some(b"\\")) => Ok(28),
                (_, Some(b"]")) => Ok(29),
                (_, Some(b"^")) => Ok(30),
                (_, Some(b"_")) => Ok(31),
                (_, Some(b",")) => Ok(b','),
                _ => Err(Error::invalid(format!("Unknown character: '{key}'"))),
            }
        })
        .collect()
}

/// Tells the daemon the size of our terminal, now and whenever it changes. Never ends by itself.
pub(crate) async fn follow_size(client: &Client, path: &str) {
    let Ok(mut changes) = crate::signals::window_changes() else {
        return std::future::pending().await;
    };
    loop {
        resize(client, path).await;
        changes.recv().await;
    }
}

/// Makes the terminal one larger for a moment: what runs in it draws itself anew, and the user sees its prompt.
pub(crate) async fn redraw(client: &Client, path: &str) {
    if let Some((rows, columns)) = tty::size() {
        resize_to(client, path, rows.saturating_add(1), columns.saturating_add(1)).await;
    }
}

/// A size the container does not take (it may have ended) is no reason to stop.
async fn resize(client: &Client, path: &str) {
    if let Some((rows, columns)) = tty::size() {
        resize_to(client, path, rows, columns).await;
    }
}

async fn resize_to(client: &Client, path: &str, rows: u16, columns: u16) {
    let request = client
        .post(format!("{path}/resize"))
        .query("h", rows.to_string())
        .query("w", columns.to_string());
    request.done().await.unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detaching() {
        assert_eq!(detach_keys("").unwrap(), [16, 17]);
        assert_eq!(detach_keys("a,ctrl-[").unwrap(), [b'a', 27]);
        assert_eq!(detach_keys("foo").unwrap_err().to_string(), "Unknown character: 'foo'");

        let keys = detach_keys("").unwrap();
        let mut filter = Keys::new(&keys);
        assert_eq!(filter.filter(b"ls\x10"), (b"ls".to_vec(), false));
        assert_eq!(filter.filter(b"x"), (b"\x10x".to_vec(), false));
        assert_eq!(filter.filter(b"\x10\x10\x11rest"), (b"\x10".to_vec(), true));
    }
}
