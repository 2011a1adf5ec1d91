//! Readers between a download and a tree: one that works ahead on a thread of its own, one that verifies.

use std::io::Read;
use std::sync::mpsc::{Receiver, sync_channel};

use oci::{Digest, Hasher};
use stdx::Error;

use crate::durable::into_io;

/// Bytes a thread hands over at a time, and how many such pieces may wait.
const PIECE: usize = 256 * 1024;
const WAITING: usize = 8;

/// Reads ahead on a thread of its own, so that decompressing and writing files take a core each.
///
/// The thread ends with its reader, or with the next piece after this is dropped.
pub struct Ahead {
    pieces: Receiver<std::io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

impl Ahead {
    pub fn new(mut reader: impl Read + Send + 'static) -> std::io::Result<Self> {
        let (sender, pieces) = sync_channel(WAITING);
        std::thread::Builder::new().name("read ahead".to_owned()).spawn(move || {
            loop {
                let mut piece = Vec::with_capacity(PIECE);
                let outcome = reader.by_ref().take(PIECE as u64).read_to_end(&mut piece);
                let last = piece.is_empty() || outcome.is_err();
                if !piece.is_empty() && sender.send(Ok(piece)).is_err() {
                    return;
                }
                if let Err(io) = outcome {
                    sender.send(Err(io)).ok();
                }
                if last {
                    return;
                }
            }
        })?;
        Ok(Self { pieces, piece: Vec::new(), at: 0 })
    }
}

impl Read for Ahead {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.piece.len() {
            match self.pieces.recv() {
                Ok(piece) => self.piece = piece?,
                Err(_) => return Ok(0),
            }
            self.at = 0;
        }
        let count = into.len().min(self.piece.len() - self.at);
        into[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Hashes what passes, and fails at the end of the stream when it was not what was promised: a tree made from it is
/// then thrown away before anybody sees it.
pub struct Verified<R> {
    reader: R,
    expected: Digest,
    hasher: Option<Hasher>,
}

impl<R: Read> Verified<R> {
    pub fn new(reader: R, expected: &Digest) -> Self {
        let hasher = Some(Hasher::new(expected.algorithm()));
        Self { reader, expected: expected.clone(), hasher }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(into)?;
        match &mut self.hasher {
            Some(hasher) if count > 0 => hasher.update(&into[..count]),
            Some(_) if !into.is_empty() => {
                let found = self.hasher.take().expect("it was there a line above").finish();
                if found != self.expected {
                    let words = format!(
                        "wrong diff id calculated on extraction \"{found}\", expected \"{}\"",
                        self.expected
                    );
                    return Err(into_io(Error::invalid(words)));
                }
            }
            _ => {}
        }
        Ok(count)
    }
}
