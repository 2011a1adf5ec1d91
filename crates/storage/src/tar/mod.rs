//! The tar format: ustar, PAX and GNU read as streams, and one deterministic way of writing.
//!
//! Ours because layers are hostile: every byte has one defined reading, which is that of Go's archive/tar (the digests
//! of all images were computed over trees that it read), or is refused. Read in this order: header, pax, reader, writer.

mod header;
mod pax;
mod reader;
mod writer;

pub use reader::Reader;
pub use writer::Writer;

pub(crate) const BLOCK: usize = 512;

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
}

/// A moment as tar and the kernel have it: seconds since the epoch, perhaps negative, and nanoseconds after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub seconds: i64,
    pub nanos: u32,
}

/// One entry: a header and whatever extends it, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As it stands in the archive.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Where a link points.
    pub link: Vec<u8>,
    /// Permissions with set-id and sticky bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of the file, holes included.
    pub size: u64,
    pub modified: Time,
    pub accessed: Option<Time>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes in the order of the archive.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data of a sparse file is: offset and length. The rest is holes.
    pub segments: Option<Vec<(u64, u64)>>,
}

impl Entry {
    /// An entry of root's with nothing in it.
    pub fn new(kind: Kind, path: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            kind,
            link: Vec::new(),
            mode: if kind == Kind::Directory { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            size: 0,
            modified: Time::default(),
            accessed: None,
            device: (0, 0),
            xattrs: Vec::new(),
            segments: None,
        }
    }
}

/// Go's words: clients know them.
fn invalid_header() -> stdx::Error {
    stdx::Error::invalid("archive/tar: invalid tar header")
}
