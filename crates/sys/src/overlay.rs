//! Overlays for kernels before 6.7. Those take the layers as one string, which `fsconfig` wants shorter than 256 bytes, and
//! no layer that is mounted nowhere (before 6.15). `mount(2)` takes a page, and a place: both are found in a mount namespace
//! that a thread has for as long as this takes.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags,
};

use crate::process::CloneFlags;

/// Whether `fsconfig` knows `lowerdir+`. Before 6.5 it took any word for overlay, and mounting failed.
pub fn takes_layers_singly() -> bool {
    // To forget the layer that was tried costs the kernel an RCU grace period.
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let Ok(fs) = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) else {
            return true;
        };
        rustix::mount::fsconfig_set_flag(&fs, "no such word").is_err()
            && rustix::mount::fsconfig_set_string(&fs, "lowerdir+", "/").is_ok()
    })
}

#[derive(Clone, Copy, Debug)]
pub enum Layer<'a> {
    Path(&'a Path),
    Fd(BorrowedFd<'a>),
}

#[derive(Clone, Debug)]
pub struct Overlay<'a> {
    /// The topmost first; two at least without an upper one.
    pub lowers: Vec<Layer<'a>>,
    /// With the work directory.
    pub upper: Option<(Layer<'a>, Layer<'a>)>,
    pub options: Vec<&'a str>,
    /// The detached mounts that descriptors among the layers are, or lead into. They have a place afterwards, in a
    /// namespace that is gone.
    pub detached: Vec<BorrowedFd<'a>>,
}

impl Overlay<'_> {
    /// Mounts it nowhere: it lives as long as its descriptor.
    pub fn mount(&self) -> io::Result<OwnedFd> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("mounter".to_owned());
            let mounter = thread.spawn_scoped(scope, || self.mount_here())?;
            mounter.join().map_err(|_| io::Error::other("mounting an overlay panicked"))?
        })
    }

    fn mount_here(&self) -> io::Result<OwnedFd> {
        crate::ns::unshare(CloneFlags::FS | CloneFlags::NEWNS)?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private)?;
        let place = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_create(&place)?;
        let place =
            rustix::mount::fsmount(&place, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        rustix::fs::mkdirat(&place, "overlay", Mode::RWXU)?;
        for tree in self.detached.iter().copied().chain([place.as_fd()]) {
            // One on top of the other: our root stays the one below.
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(tree, "", CWD, "/", flags)?;
        }

        // Numbers of descriptors, as names in the directory that has them all: 500 layers fit in a page.
        let mut held = Vec::new();
        let mut name = |layer: Layer| -> io::Result<String> {
            let number = match layer {
                Layer::Fd(fd) => fd.as_raw_fd(),
                Layer::Path(path) => {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
                    let number = fd.as_raw_fd();
                    held.push(fd);
                    number
                }
            };
            Ok(number.to_string())
        };
        let lowers =
            self.lowers.iter().map(|lower| name(*lower)).collect::<io::Result<Vec<_>>>()?;
        let mut options = format!("lowerdir={}", lowers.join(":"));
        if let Some((upper, work)) = self.upper {
            options.push_str(&format!(",upperdir={},workdir={}", name(upper)?, name(work)?));
        }
        for option in &self.options {
            options.push(',');
            options.push_str(option);
        }
        let options = CString::new(options)?;
        rustix::process::chdir("/proc/thread-self/fd")?;
        let target = format!("{}/overlay", place.as_raw_fd());
        let flags = MountFlags::empty();
        rustix::mount::mount("overlay", &*target, "overlay", flags, Some(options.as_c_str()))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok(rustix::mount::open_tree(&place, "overlay", flags)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What old kernels need works on new ones, too.
    #[test]
    fn as_many_layers_as_there_may_be_fit_in_one_string() {
        let home = std::env::temp_dir().join(format!("overlay-{}", std::process::id()));
        let deep = home.join("a directory, whose name: needs \\ escapes").join("d".repeat(200));
        let layers: Vec<_> = (0..499).map(|number| deep.join(number.to_string())).collect();
        for (number, layer) in layers.iter().enumerate() {
            std::fs::create_dir_all(layer).unwrap();
            std::fs::write(layer.join(format!("of {number}")), "").unwrap();
        }
        let (upper, work) = (deep.join("upper"), deep.join("work"));
        std::fs::create_dir(&upper).unwrap();
        std::fs::create_dir(&work).unwrap();
        // Elsewhere others mount what they like meanwhile.
        let mounts = || {
            let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            let on_root = |line: &&str| line.split(' ').nth(4) == Some("/");
            all.lines().filter(on_root).map(str::to_owned).collect::<Vec<_>>()
        };
        let before = mounts();

        let mounted = Overlay {
            lowers: layers.iter().map(|layer| Layer::Path(layer)).collect(),
            upper: Some((Layer::Path(&upper), Layer::Path(&work))),
            options: vec!["volatile"],
            detached: Vec::new(),
        }
        .mount()
        .unwrap();
        assert_eq!(mounts(), before);
        let names = std::fs::read_dir(crate::fd::path(mounted.as_fd())).unwrap().count();
        assert_eq!(names, 499);
        let flags = OFlags::CREATE | OFlags::WRONLY;
        rustix::fs::openat(&mounted, "new", flags, Mode::RWXU).unwrap();
        assert!(upper.join("new").exists());
        drop(mounted);
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn a_layer_may_be_mounted_nowhere() {
        let empty = || {
            let fs = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
            rustix::mount::fsconfig_create(&fs).unwrap();
            let attr = MountAttrFlags::empty();
            rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attr).unwrap()
        };
        let (one, other) = (empty(), empty());
        rustix::fs::mkdirat(&one, "one", Mode::RWXU).unwrap();
        rustix::fs::mkdirat(&other, "other", Mode::RWXU).unwrap();
        let trees = vec![one.as_fd(), other.as_fd()];
        let lowers = trees.iter().map(|tree| Layer::Fd(*tree)).collect();
        let overlay = Overlay { lowers, upper: None, options: Vec::new(), detached: trees };
        let mounted = overlay.mount().unwrap();
        for name in ["one", "other"] {
            rustix::fs::statat(&mounted, name, rustix::fs::AtFlags::empty()).unwrap();
        }
    }
}
