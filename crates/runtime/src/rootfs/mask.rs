//! Paths of the kernel's that a container shall not read, or not write.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};
use stdx::{Context, Result};
use sys::mount::{Attr, Change, Reach, mount_setattr};

use super::attach::attach_to;
use super::devices::host_node;
use super::root::{RootFd, quoted};

/// Hides each path that exists: a file under `/dev/null`, a directory under an empty one.
///
/// It is the host's `/dev/null`, opened from our own mount namespace and verified by its number: the container's is content
/// (CVE-2025-31133 mounted a link to `core_pattern` instead).
pub(super) fn hide(root: &RootFd, paths: &[PathBuf]) -> Result<()> {
    let mut empty = None;
    for path in paths {
        let words = || format!("can't mask path {}", quoted(path));
        let Some(found) = root.find(path).context(words)? else { continue };
        let cover = match found.kind {
            FileType::Directory => cover_of(&mut empty).context(words)?,
            _ => host_node(Path::new("/dev/null"), rustix::fs::makedev(1, 3)).context(words)?,
        };
        attach_to(&cover, &found).context(words)?;
    }
    Ok(())
}

/// One empty, read-only file system covers all directories: the first caller mounts it, the others take copies.
fn cover_of(empty: &mut Option<OwnedFd>) -> Result<OwnedFd> {
    if let Some(mounted) = empty {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        return Ok(rustix::mount::open_tree(&*mounted, "", flags)?);
    }
    let fs = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&fs, "source", "tmpfs")?;
    rustix::mount::fsconfig_set_string(&fs, "nr_blocks", "1")?;
    rustix::mount::fsconfig_set_string(&fs, "nr_inodes", "1")?;
    rustix::mount::fsconfig_create(&fs)?;
    let attr = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let made = rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attr)?;
    let copy = made.try_clone()?;
    *empty = Some(copy);
    Ok(made)
}

/// Makes what is at a path read-only, and all that is mounted below it.
pub(super) fn make_readonly(root: &RootFd, path: &Path) -> Result<()> {
    let words = || format!("can't make {} read-only", quoted(path));
    let Some(found) = root.find(path).context(words)? else { return Ok(()) };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(&found.fd, "", flags).context(words)?;
    mount_setattr(&tree, Reach::Tree, &Change { set: Attr::RDONLY, ..Change::default() })
        .context(words)?;
    attach_to(&tree, &found).context(words)
}
