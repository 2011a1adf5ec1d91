//! One blob on its way in: hashed while it is written, resumable, and named only when it is right and on disk.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use oci::{Algorithm, Digest, Hasher};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use stdx::{Context, Error, Result};

use super::{Descriptor, Store};
use crate::beneath;
use crate::durable::{self, OnDisk};

/// Longest name of an ingest: a file name.
const KEY: usize = 200;

/// An open ingest. Dropping it keeps what was written, for the next [`Store::ingest`] of the same key.
pub struct Ingest {
    store: Store,
    key: String,
    file: File,
    hasher: Hasher,
    offset: u64,
}

impl Ingest {
    pub(super) fn open(store: &Store, key: &str) -> Result<Self> {
        validate(key)?;
        store.inner.durable.writable()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let open = || -> Result<File> {
            let file =
                rustix::fs::openat(&store.inner.ingest, key, flags, Mode::from_raw_mode(0o600))
                    .on_disk()?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(File::from(file)),
                Err(Errno::WOULDBLOCK) => Err(Error::unavailable(format!("ref {key} locked"))),
                Err(errno) => Err(errno).on_disk(),
            }
        };
        let mut file = open().context(|| format!("cannot write content {key}"))?;
        // The previous writer may have renamed or removed the file between our open and our lock.
        while !same(store, key, &file)? {
            file = open().context(|| format!("cannot write content {key}"))?;
        }
        let mut ingest = Self {
            store: store.clone(),
            key: key.to_owned(),
            file,
            hasher: Hasher::sha256(),
            offset: 0,
        };
        ingest.rehash().context(|| format!("cannot resume content {key}"))?;
        Ok(ingest)
    }

    /// Rebuilds the state of the hash from what an earlier writer left.
    fn rehash(&mut self) -> Result<()> {
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match self.file.read(&mut buffer).on_disk()? {
                0 => return Ok(()),
                count => {
                    self.hasher.update(&buffer[..count]);
                    self.offset += count as u64;
                }
            }
        }
    }

    /// How many bytes are here already: where a download resumes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Throws away what is here, to start again from nothing.
    pub fn restart(&mut self) -> Result<()> {
        rustix::fs::ftruncate(&self.file, 0).on_disk()?;
        rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Start(0)).on_disk()?;
        self.hasher = Hasher::sha256();
        self.offset = 0;
        Ok(())
    }

    /// Gives the bytes their name, if they are those expected. On disk when this returns.
    ///
    /// Bytes that turn out wrong are thrown away; too few of them are kept, so that the rest can be fetched.
    pub fn commit(self, expected: Option<&Digest>, size: Option<u64>) -> Result<Descriptor> {
        if let Some(size) = size.filter(|size| *size != self.offset) {
            let words = format!("unexpected commit size {}, expected {size}", self.offset);
            if self.offset > size {
                self.abort()?;
            }
            return Err(Error::invalid(words));
        }
        let digest = self.digest_by(expected.map_or(Algorithm::Sha256, Digest::algorithm))?;
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            let words = format!("unexpected commit digest {digest}, expected {expected}");
            self.abort()?;
            return Err(Error::invalid(words));
        }
        let inner = &self.store.inner;
        let blobs = inner.blobs(digest.algorithm());
        inner.durable.sync_file(&self.file).context(|| format!("cannot store content {digest}"))?;
        if !durable::rename_new(inner.ingest.as_fd(), &self.key, blobs.as_fd(), digest.hex())? {
            // Somebody else brought the same bytes: theirs are as good.
            remove(&self.store, &self.key)?;
        }
        inner.durable.sync_directory(blobs)?;
        Ok(Descriptor { digest, size: self.offset })
    }

    /// Throws the bytes away.
    pub fn abort(self) -> Result<()> {
        remove(&self.store, &self.key)
    }

    /// The SHA-256 of what is written so far: the name it would be committed under.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    fn digest_by(&self, algorithm: Algorithm) -> Result<Digest> {
        if algorithm == Algorithm::Sha256 {
            return Ok(self.digest());
        }
        // Hardly anybody names content otherwise: read it once more instead of always hashing twice.
        let mut hasher = Hasher::new(algorithm);
        let mut file = &self.file;
        rustix::fs::seek(file, rustix::fs::SeekFrom::Start(0)).on_disk()?;
        std::io::copy(&mut file, &mut hasher).on_disk()?;
        Ok(hasher.finish())
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.offset += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn remove(store: &Store, key: &str) -> Result<()> {
    match rustix::fs::unlinkat(&store.inner.ingest, key, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).on_disk().context(|| format!("cannot remove content {key}")),
    }
}

/// Is the file that is locked still the one with that name?
fn same(store: &Store, key: &str, file: &File) -> Result<bool> {
    let here = rustix::fs::fstat(file).on_disk()?;
    let named = beneath::stat(store.inner.ingest.as_fd(), key.as_bytes()).on_disk()?;
    Ok(named.is_some_and(|named| named.st_ino == here.st_ino))
}

/// A key becomes a file name.
fn validate(key: &str) -> Result<()> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.:".contains(&c);
    let right =
        !key.is_empty() && key.len() <= KEY && !key.starts_with('.') && key.bytes().all(plain);
    if right { Ok(()) } else { Err(Error::invalid(format!("invalid ingest key {key:?}"))) }
}
