//! Between what blocks (files, tar) and what awaits (the connection): channels with a reader or a writer at one end.

use std::io::{self, Read, Write};

use bytes::Bytes;
use client::BodyStream;
use tokio::sync::mpsc;

const CHUNK: usize = 256 << 10;
const WAITING: usize = 4;

/// Everything `reader` gives, as a request's body. It is read on a thread of its own.
pub(crate) fn body(mut reader: impl Read + Send + 'static) -> BodyStream {
    produced(move |writer| io::copy(&mut reader, writer).map(drop))
}

/// What `produce` writes, as a request's body.
pub(crate) fn produced(
    produce: impl FnOnce(&mut Sender) -> io::Result<()> + Send + 'static,
) -> BodyStream {
    let (sender, receiver) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        let mut writer = Sender { sender, buffer: Vec::with_capacity(CHUNK) };
        let result = produce(&mut writer).and_then(|()| writer.flush());
        if let Err(err) = result {
            // The request fails with it; if that has failed already, nobody listens.
            writer.sender.blocking_send(Err(err)).unwrap_or_default();
        }
    });
    Box::pin(futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    }))
}

/// The writing end.
pub(crate) struct Sender {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.sender.blocking_send(Ok(chunk.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// An answer's body for a thread that reads.
pub(crate) struct Receiver {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// Lets `consume` read a whole answer on a thread where it may block.
pub(crate) async fn consumed<T: Send + 'static>(
    mut response: client::Response,
    consume: impl FnOnce(&mut Receiver) -> stdx::Result<T> + Send + 'static,
) -> stdx::Result<T> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let reading = tokio::task::spawn_blocking(move || {
        let mut reader = Receiver { receiver, current: Bytes::new() };
        let result = consume(&mut reader);
        // What is behind the last entry is read too, so that the connection ends in order.
        io::copy(&mut reader, &mut io::sink()).map(drop).unwrap_or_default();
        result
    });
    while let Some(chunk) = response.chunk().await? {
        if sender.send(chunk).await.is_err() {
            break;
        }
    }
    drop(sender);
    reading
        .await
        .map_err(|err| stdx::Error::internal("the reading thread failed").caused_by(err))?
}
