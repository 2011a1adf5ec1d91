//! Bytes on their way to a client who may be slow or gone.

use std::collections::VecDeque;

use bytes::Bytes;
use stdx::Result;
use tokio::sync::mpsc;

/// How many pieces of a log wait for a slow reader before the writer waits for it.
const DEPTH: usize = 16;

/// A finite stream that can fail halfway: an export, a saved image.
pub struct ByteStream {
    receiver: mpsc::Receiver<Result<Bytes>>,
    /// All that was there when something was waited for: a writer that waits for room is woken once for all of it.
    arrived: VecDeque<Result<Bytes>>,
}

impl ByteStream {
    /// The writing half blocks when the reader is slow and fails when it is gone.
    pub fn pair() -> (ByteWriter, Self) {
        let (sender, receiver) = mpsc::channel(ByteWriter::DEPTH);
        let writer = ByteWriter { sender, buffer: Vec::with_capacity(ByteWriter::PIECE) };
        (writer, Self { receiver, arrived: VecDeque::new() })
    }

    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        if self.arrived.is_empty() {
            let mut arrived = Vec::new();
            self.receiver.recv_many(&mut arrived, ByteWriter::DEPTH).await;
            self.arrived = arrived.into();
        }
        self.arrived.pop_front()
    }
}

/// The blocking end of a [`ByteStream`].
pub struct ByteWriter {
    sender: mpsc::Sender<Result<Bytes>>,
    buffer: Vec<u8>,
}

impl ByteWriter {
    const PIECE: usize = 256 * 1024;
    const DEPTH: usize = 8;

    /// Ends the stream: with what is left in the buffer, or with why it ends here.
    pub fn finish(mut self, outcome: Result<()>) {
        // A reader who has gone needs neither.
        let flushed = std::io::Write::flush(&mut self);
        if let (Err(error), Ok(())) = (outcome, flushed) {
            let _gone = self.sender.blocking_send(Err(error));
        }
    }
}

impl std::io::Write for ByteWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= Self::PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(Self::PIECE));
        self.sender
            .blocking_send(Ok(Bytes::from(piece)))
            .map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}

/// A container's log, framed for the wire.
#[derive(Debug)]
pub struct LogStream {
    /// Whether the frames are raw bytes or carry Docker's eight-byte headers.
    pub tty: bool,
    pub(crate) pieces: mpsc::Receiver<Bytes>,
}

impl LogStream {
    pub(crate) fn pair(tty: bool) -> (mpsc::Sender<Bytes>, Self) {
        let (sender, pieces) = mpsc::channel(DEPTH);
        (sender, Self { tty, pieces })
    }

    pub async fn next(&mut self) -> Option<Bytes> {
        self.pieces.recv().await
    }
}
