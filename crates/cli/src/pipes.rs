//! Between what blocks (files, tar) and what awaits (the connection): channels with a reader or a writer at one end.

use std::io::{self, Read, Write};

use bytes::Bytes;
use client::BodyStream;
use tokio::sync::mpsc;

/// Large enough that threads which wake each other do not cost more than what they hand over.
const CHUNK: usize = 1 << 20;
const WAITING: usize = 4;
/// Pieces as they come from the connection, which are smaller.
const ARRIVED: usize = 16;

/// Everything `reader` gives, as a request's body. It is read on a thread of its own.
pub(crate) fn body(mut reader: impl Read + Send + 'static) -> BodyStream {
    produced(move |writer| writer.pour(&mut reader, u64::MAX).map(drop))
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

/// What can be filled from a reader without a buffer between.
pub(crate) trait Pour: Write {
    /// Takes at most `size` bytes, and says how many there were.
    fn pour(&mut self, from: &mut dyn Read, size: u64) -> io::Result<u64>;
}

impl<T: Pour> Pour for &mut T {
    fn pour(&mut self, from: &mut dyn Read, size: u64) -> io::Result<u64> {
        (**self).pour(from, size)
    }
}

impl Pour for Sender {
    fn pour(&mut self, from: &mut dyn Read, size: u64) -> io::Result<u64> {
        let mut poured = 0;
        while poured < size {
            let room = (CHUNK - self.buffer.len()) as u64;
            let count = from.take(room.min(size - poured)).read_to_end(&mut self.buffer)?;
            if self.buffer.len() >= CHUNK {
                self.flush()?;
            }
            poured += count as u64;
            if count == 0 {
                break;
            }
        }
        Ok(poured)
    }
}

#[cfg(test)]
impl Pour for Vec<u8> {
    fn pour(&mut self, from: &mut dyn Read, size: u64) -> io::Result<u64> {
        from.take(size).read_to_end(self).map(|count| count as u64)
    }
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(count)
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
    /// All that had come when something was waited for, in turn from its end.
    pieces: Vec<Bytes>,
    current: Bytes,
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.pieces.is_empty() {
                if self.receiver.blocking_recv_many(&mut self.pieces, ARRIVED) == 0 {
                    return Ok(0);
                }
                self.pieces.reverse();
            }
            self.current = self.pieces.pop().unwrap_or_default();
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
    let (sender, receiver) = mpsc::channel(ARRIVED);
    let reading = tokio::task::spawn_blocking(move || {
        let mut reader = Receiver { receiver, pieces: Vec::new(), current: Bytes::new() };
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
