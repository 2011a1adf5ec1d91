//! From a body that arrives to a reader that waits: where the async half of this room hands bytes to the other.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;

/// Pieces that may wait for a slow reader.
const WAITING: usize = 16;

/// Makes a blocking reader of pieces that arrive. For [`crate::Images::load`] and [`crate::Images::import`]; must be
/// called within the runtime. When the reader is gone, what still arrives is thrown away: a client that cannot send
/// on does not look for the answer that says why.
pub fn reader<S>(mut pieces: S) -> impl Read + Send + 'static
where
    S: Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static,
{
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        loop {
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                () = sender.closed() => break,
            };
            match piece {
                Some(piece) => {
                    let last = piece.is_err();
                    if last {
                        let _gone = sender.send(Some(piece)).await;
                        return;
                    }
                    if sender.send(Some(piece)).await.is_err() {
                        break;
                    }
                }
                None => {
                    let _gone = sender.send(None).await;
                    return;
                }
            }
        }
        while let Some(Ok(_)) = pieces.next().await {}
    });
    Pieces { receiver, arrived: Vec::new(), piece: Bytes::new(), ended: false }
}

/// `None` in the channel is the end; a channel that just closes is a sender that died.
struct Pieces {
    receiver: mpsc::Receiver<Option<io::Result<Bytes>>>,
    /// All that was there when something was waited for, the first at the end: a sender that waits for room is woken once
    /// for all of it.
    arrived: Vec<Option<io::Result<Bytes>>>,
    piece: Bytes,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            if self.arrived.is_empty() {
                self.receiver.blocking_recv_many(&mut self.arrived, WAITING);
                self.arrived.reverse();
            }
            match self.arrived.pop() {
                Some(Some(piece)) => self.piece = piece?,
                Some(None) => self.ended = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = self.piece.len().min(into.len());
        self.piece.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}
