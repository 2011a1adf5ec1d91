//! Extended attributes by directory and name, so that links, devices and FIFOs need not be opened.
//!
//! `setxattrat` is young (Linux 6.13), so the way is through our own descriptor in /proc: its last part is never followed.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// Largest value and longest list the kernel has.
const LARGEST: usize = 64 * 1024;

pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// All attributes of `name` in `directory`, sorted; none where the file system has none.
pub(crate) fn all(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<Xattr>, Errno> {
    let path = through(directory, name);
    // Most files have none: no buffer for them.
    match rustix::fs::llistxattr_query(&*path) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Ok(_) => {}
        Err(errno) => return Err(errno),
    }
    let mut list = vec![0; LARGEST];
    let length = rustix::fs::llistxattr(&*path, &mut list)?;
    let mut value = vec![0; LARGEST];
    let mut found = Vec::new();
    for name in list[..length].split(|c| *c == 0).filter(|name| !name.is_empty()) {
        match rustix::fs::lgetxattr(&*path, name, &mut value) {
            Ok(length) => found.push((name.to_owned(), value[..length].to_owned())),
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(errno) => return Err(errno),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// One attribute of `name` in `directory`.
pub(crate) fn get(
    directory: BorrowedFd<'_>,
    name: &[u8],
    attribute: &CStr,
) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = [0; 4096];
    match rustix::fs::lgetxattr(&*through(directory, name), attribute, &mut value) {
        Ok(length) => Ok(Some(value[..length].to_owned())),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

pub(crate) fn set(
    directory: BorrowedFd<'_>,
    name: &[u8],
    (attribute, value): (&[u8], &[u8]),
) -> Result<(), Errno> {
    rustix::fs::lsetxattr(&*through(directory, name), attribute, value, XattrFlags::empty())
}

/// Attributes that belong to the content of a file, whoever stores it: overlay's own and labels of this host do not.
pub(crate) fn travels(attribute: &[u8]) -> bool {
    let acl = [&b"system.posix_acl_access"[..], b"system.posix_acl_default"];
    attribute == b"security.capability"
        || acl.contains(&attribute)
        || (attribute.starts_with(b"user.") && !attribute.starts_with(b"user.overlay."))
}

fn through(directory: BorrowedFd<'_>, name: &[u8]) -> CString {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(if name.is_empty() { b"." } else { name });
    CString::new(path).expect("a name holds no NUL")
}
