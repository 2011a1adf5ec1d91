//! How much a layer may cost us before it is refused. Each refusal names its budget.

use stdx::Error;

/// The budgets of one archive. What is refused here is refused before it costs memory or disk.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Headers in the archive.
    pub entries: u64,
    /// Bytes of PAX records and GNU long names before one entry.
    pub header: usize,
    /// Bytes of a path or link.
    pub path: usize,
    /// Components of a path.
    pub depth: usize,
    /// Bytes of one extended attribute.
    pub xattr: usize,
    /// Data segments of a sparse file.
    pub segments: usize,
    /// Bytes of the archive, and bytes of its files when read out, holes included.
    pub bytes: u64,
    /// Bytes out for each byte in, once [`Limits::free`] bytes have come out.
    pub ratio: u64,
    /// Bytes that may come out however few went in.
    pub free: u64,
    /// Largest window of a zstd frame, as a power of two: what its own command line accepts.
    pub zstd_window: u32,
    /// Memory an xz stream may ask for: `xz -9` needs 65 MiB.
    pub xz_memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 2_000_000,
            header: 1 << 20,
            path: 4096,
            depth: 255,
            xattr: 64 << 10,
            segments: 16 << 10,
            bytes: 64 << 30,
            ratio: 1000,
            free: 64 << 20,
            zstd_window: 27,
            xz_memory: 128 << 20,
        }
    }
}

/// `the layer exceeds the budget of 2000000 entries`.
pub(crate) fn exceeded(budget: impl std::fmt::Display, of: &str) -> Error {
    Error::invalid(format!("the archive exceeds the budget of {budget} {of}"))
}
