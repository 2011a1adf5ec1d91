//! `/dev`: nodes, links, the console.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci::runtime::Device;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use stdx::{Context, Error, Result};
use sys::mount::Reach;

use super::attach::{attach, attach_to};
use super::plan::Plan;
use super::root::{Make, RootFd, quoted, remove_file};
use super::sources::clone_tree;

/// Links every container has.
const LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

pub(super) fn populate(root: &RootFd, plan: &Plan) -> Result<()> {
    let dev = root.make_directory(Path::new("/dev")).context(|| "cannot make /dev".to_owned())?;
    for device in &plan.devices {
        let words = || format!("error creating device node {}", quoted(&device.path));
        match device.path.strip_prefix("/dev").ok().and_then(|name| name.to_str()) {
            // Almost all lie directly in /dev, which is held already.
            Some(name) if !name.is_empty() && !name.contains('/') && name != ".." => {
                make_node(root, &dev, name.as_ref(), device).context(words)?;
            }
            _ => {
                let (parent, name) = root.make_parent(&device.path).context(words)?;
                make_node(root, &parent, &name, device).context(words)?;
            }
        }
    }
    for (link, target) in LINKS {
        make_link(&dev, link, target)?;
    }
    if Path::new("/proc/kcore").exists() {
        make_link(&dev, "/dev/core", "/proc/kcore")?;
    }
    // Always this container's own terminals, whatever the image holds.
    remove_file(dev.as_fd(), "ptmx".as_ref()).context(|| "cannot replace /dev/ptmx".to_owned())?;
    make_link(&dev, "/dev/ptmx", "pts/ptmx")
}

fn make_link(dev: &OwnedFd, link: &str, target: &str) -> Result<()> {
    let name = link.strip_prefix("/dev/").expect("the links here are all in /dev");
    match rustix::fs::symlinkat(target, dev, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(err) => Err(err).context(|| format!("error creating link {link}")),
    }
}

fn make_node(
    root: &RootFd,
    parent: &OwnedFd,
    name: &std::ffi::OsStr,
    device: &Device,
) -> Result<()> {
    let kind = match device.kind.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        other => return Err(Error::invalid(format!("{other:?} is no type of device"))),
    };
    let number = match kind {
        FileType::Fifo => 0,
        _ => {
            let part = |part: i64| {
                u32::try_from(part).map_err(|_| Error::invalid("device numbers cannot be negative"))
            };
            rustix::fs::makedev(part(device.major)?, part(device.minor)?)
        }
    };
    let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
    let make = || rustix::fs::mknodat(parent, name, kind, mode, number);
    let made = match make() {
        Err(Errno::EXIST) if is_this(parent, name, kind, number)? => return Ok(()),
        Err(Errno::EXIST) => {
            // Something the image has put there in its place.
            remove_file(parent.as_fd(), name)?;
            make()
        }
        other => other,
    };
    match made {
        Ok(()) => {}
        // In a user namespace nobody makes nodes; the host's is mounted instead.
        Err(Errno::PERM) if kind != FileType::Fifo => return bind_node(root, device, number),
        Err(err) => return Err(err.into()),
    }
    if device.uid.unwrap_or(0) != 0 || device.gid.unwrap_or(0) != 0 {
        let owner =
            (Uid::from_raw(device.uid.unwrap_or(0)), Gid::from_raw(device.gid.unwrap_or(0)));
        rustix::fs::chownat(parent, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn is_this(parent: &OwnedFd, name: &std::ffi::OsStr, kind: FileType, number: u64) -> Result<bool> {
    let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(found.st_mode) == kind && found.st_rdev == number)
}

fn bind_node(root: &RootFd, device: &Device, number: u64) -> Result<()> {
    let node = host_node(&device.path, number)?;
    let place = root.find_or_make(&device.path, Make::File)?;
    attach_to(&node, &place)
}

/// A detached mount of one of the host's device nodes, verified to be the one meant. Only before the host's root is left.
pub(super) fn host_node(path: &Path, number: u64) -> Result<OwnedFd> {
    let node = clone_tree(path, Reach::Mount)?;
    let found = rustix::fs::fstat(&node)?;
    if !FileType::from_raw_mode(found.st_mode).is_char_device()
        && !FileType::from_raw_mode(found.st_mode).is_block_device()
        || found.st_rdev != number
    {
        return Err(Error::internal(format!("{} is not the device it should be", path.display())));
    }
    Ok(node)
}

/// The terminal was opened through its master (`TIOCGPTPEER`), so whatever the image has at `/dev/pts/0` or `/dev/console`
/// plays no part (CVE-2025-52565).
pub(super) fn mount_console(root: &RootFd, terminal: &OwnedFd) -> Result<()> {
    let words = || "error mounting the console".to_owned();
    let (parent, name) = root.make_parent(Path::new("/dev/console")).context(words)?;
    let make = || {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(0o666)).map(drop)
    };
    match make() {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            // A link or a node of the image's: nothing is mounted on what we have not made.
            match remove_file(parent.as_fd(), &name) {
                Ok(()) => make().context(words)?,
                // Something is mounted there, which is what the spec wants: on top of it.
                Err(err) if err.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {}
                Err(err) => return Err(err).context(words),
            }
        }
        Err(err) => return Err(err).context(words),
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat(&parent, &name, flags, Mode::empty()).context(words)?;
    let flags = rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE
        | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC
        | rustix::mount::OpenTreeFlags::AT_EMPTY_PATH;
    let console = rustix::mount::open_tree(terminal, "", flags).context(words)?;
    attach(&console, &place).context(words)
}
