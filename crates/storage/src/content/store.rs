//! The blobs at rest: `blobs/<algorithm>/<hex>`, and half of one in `ingest/<key>`.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use oci::{Algorithm, Digest, Hasher};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use stdx::{Context, Error, Result, bounded};

use super::Ingest;
use crate::beneath;
use crate::durable::{self, Durable, OnDisk};

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// The open store. Clones share it.
#[derive(Clone)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    /// One directory an algorithm, in the order of [`ALGORITHMS`].
    blobs: [OwnedFd; 2],
    pub(super) ingest: OwnedFd,
    pub(super) durable: Durable,
}

impl Inner {
    pub(super) fn blobs(&self, algorithm: Algorithm) -> &OwnedFd {
        match algorithm {
            Algorithm::Sha256 => &self.blobs[0],
            Algorithm::Sha512 => &self.blobs[1],
        }
    }
}

/// How the names of ingests begin that end with their writer.
const ONCE: &str = "once-";

/// What is stored, by name and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub digest: Digest,
    pub size: u64,
}

/// A blob in a listing.
pub type Blob = Descriptor;

/// A download that is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    pub key: String,
    pub size: u64,
    /// When it last grew, in seconds since the epoch.
    pub modified: i64,
}

impl Store {
    /// Opens or makes the store under `root`. What a writer that died has left and nobody can resume is removed.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, Durable::default())
    }

    pub(crate) fn open_with(root: &Path, durable: Durable) -> Result<Self> {
        let content = root.join("content");
        durable::directory(&content)?;
        let blobs = content.join("blobs");
        durable::directory(&blobs)?;
        let [sha256, sha512] =
            ALGORITHMS.map(|algorithm| durable::directory(&blobs.join(algorithm.name())));
        let ingest = durable::directory(&content.join("ingest"))?;
        for name in beneath::names(ingest.as_fd()).on_disk()? {
            if name.as_bytes().starts_with(ONCE.as_bytes()) {
                rustix::fs::unlinkat(&ingest, &name, AtFlags::empty()).on_disk()?;
            }
        }
        Ok(Self { inner: Arc::new(Inner { blobs: [sha256?, sha512?], ingest, durable }) })
    }

    pub fn contains(&self, digest: &Digest) -> bool {
        self.size(digest).is_ok()
    }

    pub fn size(&self, digest: &Digest) -> Result<u64> {
        let found =
            beneath::stat(self.inner.blobs(digest.algorithm()).as_fd(), digest.hex().as_bytes())
                .on_disk()?;
        found.map(|stat| stat.st_size as u64).ok_or_else(|| missing(digest))
    }

    /// Opens a blob for reading.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(
            self.inner.blobs(digest.algorithm()),
            digest.hex(),
            flags,
            Mode::empty(),
        ) {
            Ok(file) => Ok(File::from(file)),
            Err(Errno::NOENT) => Err(missing(digest)),
            Err(errno) => Err(errno).on_disk().context(|| format!("cannot open content {digest}")),
        }
    }

    /// Reads a small blob whole and verifies it again; one larger than `limit` is refused.
    pub fn read(&self, digest: &Digest, limit: usize) -> Result<Vec<u8>> {
        let bytes =
            bounded::read_to_end(self.open_blob(digest)?, limit, &format!("content {digest}"))?;
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        match hasher.finish() {
            found if found == *digest => Ok(bytes),
            found => {
                Err(Error::internal(format!("content {digest} is damaged: its bytes are {found}")))
            }
        }
    }

    /// Starts or resumes writing under a name of the caller's, which lives until commit or abort, also across a restart.
    /// A second writer of the same name is refused while the first is there.
    pub fn ingest(&self, key: &str) -> Result<Ingest> {
        Ingest::open(self, key)
    }

    /// Starts writing what nobody will resume.
    pub fn ingest_once(&self) -> Result<Ingest> {
        self.ingest(&format!("{ONCE}{}", stdx::Id::random()))
    }

    /// Stores bytes that are at hand.
    pub fn put(&self, bytes: &[u8]) -> Result<Descriptor> {
        let digest = Digest::of(bytes);
        if self.contains(&digest) {
            return Ok(Descriptor { digest, size: bytes.len() as u64 });
        }
        let mut ingest = self.ingest_once()?;
        std::io::Write::write_all(&mut ingest, bytes).on_disk()?;
        ingest.commit(Some(&digest), Some(bytes.len() as u64))
    }

    /// Removes a blob; one that is not there is gone already.
    pub fn delete(&self, digest: &Digest) -> Result<()> {
        match rustix::fs::unlinkat(
            self.inner.blobs(digest.algorithm()),
            digest.hex(),
            AtFlags::empty(),
        ) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => {
                Err(errno).on_disk().context(|| format!("cannot remove content {digest}"))
            }
        }
    }

    /// All blobs, sorted by digest.
    pub fn list(&self) -> Result<Vec<Blob>> {
        let mut blobs = Vec::new();
        for algorithm in ALGORITHMS {
            let directory = self.inner.blobs(algorithm).as_fd();
            for name in beneath::names(directory).on_disk()? {
                let Ok(digest) = format!("{algorithm}:{}", name.to_string_lossy()).parse() else {
                    continue;
                };
                if let Some(stat) = beneath::stat(directory, name.as_bytes()).on_disk()? {
                    blobs.push(Blob { digest, size: stat.st_size as u64 });
                }
            }
        }
        Ok(blobs)
    }

    /// All downloads that are not complete.
    pub fn ingests(&self) -> Result<Vec<Partial>> {
        let mut partials = Vec::new();
        for name in beneath::names(self.inner.ingest.as_fd()).on_disk()? {
            if let Some(stat) =
                beneath::stat(self.inner.ingest.as_fd(), name.as_bytes()).on_disk()?
            {
                let key = name.to_string_lossy().into_owned();
                partials.push(Partial { key, size: stat.st_size as u64, modified: stat.st_mtime });
            }
        }
        Ok(partials)
    }

    /// Reads a blob through and says whether its bytes are those of its name.
    pub fn verify(&self, digest: &Digest) -> Result<bool> {
        let mut file = self.open_blob(digest)?;
        let mut hasher = Hasher::new(digest.algorithm());
        std::io::copy(&mut file, &mut hasher).on_disk()?;
        Ok(hasher.finish() == *digest)
    }
}

fn missing(digest: &Digest) -> Error {
    Error::not_found(format!("content digest {digest}: not found"))
}
