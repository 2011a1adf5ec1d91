//! A layer on its way: download → hash → content store, and at the same time decompress → hash → tree.
//!
//! Three threads share the work of one layer: one writes and hashes what arrives, one decompresses, one hashes again and
//! makes files. The tree appears only when both digests were right: the reader it is made from fails at its end if not.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use oci::image::Descriptor;
use oci::{ChainId, Digest};
use stdx::{Context, Error, Result};
use storage::Storage;
use storage::content::Ingest;
use storage::layer::{Ahead, Verified, compression};
use tokio::sync::mpsc;

use crate::progress::{Detail, Progress, Reporter};

/// Pieces between the thread that stores and the one that decompresses.
const WAITING: usize = 32;
/// Between two measures of one layer.
const TICK: Duration = Duration::from_millis(100);

/// Which tree a layer becomes.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) diff: Digest,
    pub(crate) chain: ChainId,
    pub(crate) parent: Option<ChainId>,
}

/// Layers by their diff ids, the lowest first.
pub(crate) fn layers(diffs: &[Digest]) -> Vec<Layer> {
    let chain = oci::image::chain_ids(diffs);
    let below = std::iter::once(None).chain(chain.iter().cloned().map(Some));
    let layers = diffs.iter().zip(&chain).zip(below);
    layers
        .map(|((diff, chain), parent)| Layer { diff: diff.clone(), chain: chain.clone(), parent })
        .collect()
}

/// Makes a layer's tree from its tar in any compression. Bytes of its files on disk.
pub(crate) fn unpack(
    storage: &Storage,
    layer: &Layer,
    source: impl Read + Send + 'static,
) -> Result<u64> {
    let context = || format!("failed to register layer {}", layer.diff.short());
    let tar = compression::decoder(source).context(context)?;
    let mut tar = Verified::new(Ahead::new(tar).context(context)?, &layer.diff);
    let unpacked = storage.snapshots.unpack(&layer.chain, layer.parent.as_ref(), &mut tar)?;
    Ok(unpacked.size)
}

/// The same from a blob that is here.
pub(crate) fn unpack_blob(
    storage: &Storage,
    layer: &Layer,
    blob: &Digest,
    ticker: Ticker,
) -> Result<u64> {
    let mut file = Measured { reader: storage.content.open_blob(blob)?, ticker };
    if *blob == layer.diff {
        // Not compressed, and hashed when it came in: there is nothing left to verify.
        return Ok(storage.snapshots.unpack(&layer.chain, layer.parent.as_ref(), &mut file)?.size);
    }
    unpack(storage, layer, file)
}

/// Tells how far something is, not too often.
pub(crate) struct Ticker {
    reporter: Option<Reporter>,
    id: String,
    status: &'static str,
    total: u64,
    current: u64,
    next: Option<Instant>,
}

impl Ticker {
    pub(crate) fn new(reporter: &Reporter, id: &str, status: &'static str, total: u64) -> Self {
        Self {
            reporter: Some(reporter.clone()),
            id: id.to_owned(),
            status,
            total,
            current: 0,
            next: None,
        }
    }

    /// Says nothing.
    pub(crate) fn silent() -> Self {
        Self { reporter: None, id: String::new(), status: "", total: 0, current: 0, next: None }
    }

    pub(crate) fn advance(&mut self, by: u64) {
        self.current += by;
        let Some(reporter) = &self.reporter else { return };
        let now = Instant::now();
        if self.next.is_none_or(|next| now >= next) {
            self.next = Some(now + TICK);
            let detail = Detail { current: self.current, total: self.total };
            reporter.measure(Progress::step(&self.id, self.status, detail));
        }
    }
}

struct Measured<R> {
    reader: R,
    ticker: Ticker,
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(into)?;
        self.ticker.advance(count as u64);
        Ok(count)
    }
}

/// What the storing thread hands on.
enum Piece {
    Bytes(Bytes),
    /// The blob is whole, right and on disk.
    End,
}

/// The unpacking end of a pipe.
pub(crate) struct Arriving {
    pieces: Receiver<Piece>,
    piece: Bytes,
    ended: bool,
}

/// The storing end.
pub(crate) struct Forward(SyncSender<Piece>);

/// What is stored here can be read there while it still arrives.
pub(crate) fn pipe() -> (Forward, Arriving) {
    let (sender, pieces) = sync_channel(WAITING);
    (Forward(sender), Arriving { pieces, piece: Bytes::new(), ended: false })
}

impl Read for Arriving {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.pieces.recv() {
                Ok(Piece::Bytes(piece)) => self.piece = piece,
                Ok(Piece::End) => self.ended = true,
                // Whoever stores has failed, and says why to somebody else.
                Err(_) => {
                    return Err(io::Error::other(Error::unavailable(
                        "the download was interrupted",
                    )));
                }
            }
        }
        let count = self.piece.len().min(into.len());
        self.piece.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}

/// Writes a blob as it arrives, and hands the bytes on. Ends when the channel does: a blob that is not whole by then is
/// kept for another time.
pub(crate) fn store(
    mut ingest: Ingest,
    mut arriving: mpsc::Receiver<Bytes>,
    forward: Option<Forward>,
    descriptor: &Descriptor,
    reporter: &Reporter,
    id: &str,
) -> Result<()> {
    while let Some(piece) = arriving.blocking_recv() {
        ingest.write_all(&piece).context(|| format!("cannot store {}", descriptor.digest))?;
        if let Some(Forward(sender)) = &forward
            && sender.send(Piece::Bytes(piece)).is_err()
        {
            // Nobody unpacks any more: a layer that cannot be unpacked is not worth keeping.
            ingest.abort()?;
            return Err(Error::internal("the layer could not be unpacked"));
        }
    }
    if ingest.offset() < descriptor.size {
        return Err(Error::unavailable("unexpected EOF"));
    }
    reporter.say_blocking(Progress::step(id, "Verifying Checksum", Detail::default()));
    let digest = &descriptor.digest;
    ingest.commit(Some(digest), Some(descriptor.size)).map_err(|cause| {
        Error::new(
            cause.kind(),
            format!("filesystem layer verification failed for digest {digest}"),
        )
        .caused_by(cause)
    })?;
    reporter.say_blocking(Progress::step(id, "Download complete", Detail::default()));
    if let Some(Forward(sender)) = forward {
        let _gave_up = sender.send(Piece::End);
    }
    Ok(())
}
