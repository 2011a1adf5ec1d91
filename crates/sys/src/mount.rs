//! The one call of the new mount interface that rustix lacks: changing a mount, or a whole tree, at once.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// `MOUNT_ATTR_*`: what a mount allows, whatever its file system does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr(pub u64);

impl Attr {
    pub const RDONLY: Self = Self(0x1);
    pub const NOSUID: Self = Self(0x2);
    pub const NODEV: Self = Self(0x4);
    pub const NOEXEC: Self = Self(0x8);
    /// The three bits that hold how access times are kept; to change them, clear this and set one.
    pub const ATIME: Self = Self(0x70);
    pub const RELATIME: Self = Self(0);
    pub const NOATIME: Self = Self(0x10);
    pub const STRICTATIME: Self = Self(0x20);
    pub const NODIRATIME: Self = Self(0x80);
    pub const IDMAP: Self = Self(0x10_0000);
    pub const NOSYMFOLLOW: Self = Self(0x20_0000);

    pub const fn empty() -> Self {
        Self(0)
    }

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl std::ops::BitOr for Attr {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Attr {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// How mount events travel between a mount and its copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Shared,
    Slave,
    Private,
    Unbindable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This mount.
    Mount,
    /// This mount and all below it.
    Tree,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    pub set: Attr,
    pub clear: Attr,
    pub propagation: Option<Propagation>,
    /// The user namespace whose mapping the mount takes (5.12; the mount must be detached).
    pub idmap: Option<BorrowedFd<'a>>,
}

impl Change<'_> {
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
            && self.clear.is_empty()
            && self.propagation.is_none()
            && self.idmap.is_none()
    }
}

#[repr(C)]
struct RawMountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the mount that `mount` is the root of. Nothing is changed when one of a tree refuses.
pub fn mount_setattr(mount: impl AsFd, reach: Reach, change: &Change) -> io::Result<()> {
    const AT_RECURSIVE: libc::c_int = 0x8000;
    let mut raw = RawMountAttr {
        attr_set: change.set.0,
        attr_clr: change.clear.0,
        propagation: match change.propagation {
            None => 0,
            Some(Propagation::Shared) => libc::MS_SHARED,
            Some(Propagation::Slave) => libc::MS_SLAVE,
            Some(Propagation::Private) => libc::MS_PRIVATE,
            Some(Propagation::Unbindable) => libc::MS_UNBINDABLE,
        },
        userns_fd: 0,
    };
    if let Some(userns) = change.idmap {
        raw.attr_set |= Attr::IDMAP.0;
        raw.userns_fd = userns.as_raw_fd() as u64;
    }
    let flags = libc::AT_EMPTY_PATH | if reach == Reach::Tree { AT_RECURSIVE } else { 0 };
    let fd = mount.as_fd().as_raw_fd();
    // SAFETY: the path is the empty string, `raw` is a mount_attr of the size given, both descriptors are borrowed.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            flags,
            &raw const raw,
            size_of::<RawMountAttr>(),
        )
    };
    crate::check(answer)?;
    Ok(())
}
