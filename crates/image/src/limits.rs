//! How much of what comes from outside we are ready to take. Everything here is far above what honest images need.

/// A manifest or index. Registries refuse larger ones.
pub(crate) const MANIFEST: usize = 4 << 20;
/// An image configuration.
pub(crate) const CONFIG: usize = 8 << 20;
/// Layers of one image: overlay's options would not take many more.
pub(crate) const LAYERS: usize = 512;
/// Indexes within indexes.
pub(crate) const INDEX_DEPTH: usize = 2;
/// Tags of one repository, when all are wanted.
pub(crate) const TAGS: usize = 100_000;
/// The body of a refusal.
pub(crate) const ERROR_BODY: usize = 64 << 10;
/// A token and what is around it.
pub(crate) const TOKEN_BODY: usize = 1 << 20;
/// Redirects followed for one request.
pub(crate) const REDIRECTS: usize = 5;
/// Files in an archive given to `load`.
pub(crate) const ARCHIVE_ENTRIES: usize = 100_000;
/// Images in an archive given to `load`.
pub(crate) const ARCHIVE_IMAGES: usize = 10_000;
