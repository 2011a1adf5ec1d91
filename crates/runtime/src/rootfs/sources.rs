//! What a container's file system is made from, opened on the host before anything of the container can be seen.
//!
//! Every source is a detached mount: it has no place yet, the host's table does not list it, and when nobody takes it, it
//! is gone with its descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci::runtime::Rootfs;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};
use stdx::{Context, Error, Result};
use sys::mount::{Change, Propagation, Reach, mount_setattr};

use super::plan::{Kind, Mapping, Plan, PlannedMount};
use super::root::{PROC_SUPER_MAGIC, quoted};
use crate::userns::{self, in_initial_user_namespace};

/// What `fsconfig` takes as the value of an option, in bytes.
pub(super) const OPTION_MAX: usize = 255;

#[derive(Debug)]
pub(crate) struct Sources {
    pub root: OwnedFd,
    /// One for each planned mount; binds have one, and overlays that only the host's side can mount.
    pub mounts: Vec<Option<OwnedFd>>,
}

impl Sources {
    /// `given` are detached mounts by the place where the plan binds something; `user` is the namespace whose mapping the
    /// plan has, if there is one already.
    pub(crate) fn open(
        plan: &Plan,
        mut given: Vec<(PathBuf, OwnedFd)>,
        user: Option<BorrowedFd>,
    ) -> Result<Self> {
        let whole = Whole { mapping: plan.rootfs_mapping.as_ref(), user };
        let mut mounts = Vec::with_capacity(plan.mounts.len());
        for mount in &plan.mounts {
            mounts.push(match mount.kind {
                Kind::Bind => {
                    let found = given.iter().position(|(place, _)| *place == mount.destination);
                    let given = found.map(|index| given.swap_remove(index).1);
                    Some(open_bind(mount, given, plan.default_propagation, &whole)?)
                }
                _ => {
                    mount.check_proc(false)?;
                    match long_overlay(mount) {
                        Some(overlay) if !sys::overlay::takes_layers_singly() => {
                            Some(overlay.mount().context(|| mount_error(mount))?)
                        }
                        _ => None,
                    }
                }
            });
        }
        Ok(Self { root: open_root(plan, &whole)?, mounts })
    }

    /// Those that the plan binds, in its order.
    pub(crate) fn binds<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = BorrowedFd<'a>> {
        let all = plan.mounts.iter().zip(&self.mounts);
        all.filter(|(mount, _)| mount.kind == Kind::Bind)
            .filter_map(|(_, source)| source.as_ref().map(AsFd::as_fd))
    }

    /// The root once more, for whoever shall outlive the container.
    pub(crate) fn share_root(&self) -> Result<OwnedFd> {
        self.root.try_clone().context(|| "cannot hold the root".to_owned())
    }
}

/// The container's own mapping, and the namespace that has it.
struct Whole<'a> {
    mapping: Option<&'a Mapping>,
    user: Option<BorrowedFd<'a>>,
}

impl Whole<'_> {
    /// A namespace with this mapping: the container's where it is the same.
    fn namespace(&self, mapping: &Mapping) -> Result<OwnedFd> {
        match self.user {
            Some(user) if self.mapping == Some(mapping) => {
                user.try_clone_to_owned().context(|| "cannot hold the user namespace".to_owned())
            }
            _ => userns::with_mapping(mapping),
        }
    }
}

fn open_bind(
    mount: &PlannedMount,
    given: Option<OwnedFd>,
    default: Propagation,
    whole: &Whole,
) -> Result<OwnedFd> {
    let words = || mount_error(mount);
    let reach = mount.options.bind.unwrap_or(Reach::Mount);
    let tree = match given {
        Some(tree) => tree,
        None => clone_tree(&mount.source, reach)
            .map_err(std::io::Error::from)
            .context(|| format!("stat {}", mount.source.display()))
            .context(words)?,
    };
    let is_procfs = rustix::fs::fstatfs(&tree).context(words)?.f_type == PROC_SUPER_MAGIC;
    mount.check_proc(is_procfs)?;
    change_bind(&tree, mount, default, whole).context(words)?;
    Ok(tree)
}

fn mount_error(mount: &PlannedMount) -> String {
    let (source, destination) = (quoted(&mount.source), quoted(&mount.destination));
    format!("error mounting {source} to rootfs at {destination}")
}

/// An overlay that a bundle asks for, with more layers than an option of `fsconfig` has room for.
fn long_overlay(mount: &PlannedMount) -> Option<sys::overlay::Overlay<'_>> {
    if !matches!(&mount.kind, Kind::Other(kind) if kind == "overlay") {
        return None;
    }
    let (mut lowers, mut upper, mut work) = ("", None, None);
    let mut options = Vec::new();
    for word in mount.options.data.iter().flat_map(|words| words.split(',')) {
        match word.split_once('=') {
            Some(("lowerdir", layers)) => lowers = layers,
            Some(("upperdir", path)) => upper = Some(Path::new(path)),
            Some(("workdir", path)) => work = Some(Path::new(path)),
            _ if word.is_empty() => {}
            _ => options.push(word),
        }
    }
    let layer = |path| sys::overlay::Layer::Path(path);
    (lowers.len() > OPTION_MAX).then(|| sys::overlay::Overlay {
        lowers: lowers.split(':').map(|path| layer(Path::new(path))).collect(),
        upper: upper.zip(work).map(|(upper, work)| (layer(upper), layer(work))),
        options,
        detached: Vec::new(),
    })
}

fn change_bind(
    tree: &OwnedFd,
    mount: &PlannedMount,
    default: Propagation,
    whole: &Whole,
) -> Result<()> {
    let options = &mount.options;
    // Propagation first and for the whole tree: it is a copy of the host's mounts and must not talk back by accident.
    let spread = Change { propagation: Some(default), ..Change::default() };
    let asked_shared =
        options.propagation.iter().any(|(propagation, _)| *propagation == Propagation::Shared);
    if !asked_shared {
        set(tree, Reach::Tree, &spread)?;
    }
    for (propagation, reach) in &options.propagation {
        set(tree, *reach, &Change { propagation: Some(*propagation), ..Change::default() })?;
    }
    if let Some(mapping) = &mount.mapping {
        let userns = whole.namespace(mapping)?;
        let change = Change { idmap: Some(userns.as_fd()), ..Change::default() };
        set(tree, options.idmap.unwrap_or(Reach::Mount), &change)?;
    }
    set(
        tree,
        Reach::Mount,
        &Change { set: options.set, clear: options.clear, ..Change::default() },
    )?;
    set(
        tree,
        Reach::Tree,
        &Change { set: options.tree_set, clear: options.tree_clear, ..Change::default() },
    )
}

fn set(tree: &OwnedFd, reach: Reach, change: &Change) -> Result<()> {
    if change.is_empty() {
        return Ok(());
    }
    mount_setattr(tree, reach, change).context(|| "cannot change the mount".to_owned())
}

fn open_root(plan: &Plan, whole: &Whole) -> Result<OwnedFd> {
    let userns = whole.mapping.map(|mapping| whole.namespace(mapping)).transpose()?;
    let root = match &plan.rootfs {
        Rootfs::Directory { path } => open_directory(path, userns.as_ref().map(AsFd::as_fd))?,
        Rootfs::Overlay { lowers, upper, work, volatile } => {
            let layers = Layers::open(lowers, upper, work, userns.as_ref().map(AsFd::as_fd))?;
            let mounted = match whole.mapping.and_then(Mapping::root) {
                // It writes its upper layer in our name, which that must know.
                Some((uid, gid)) => sys::caps::with_files_of(uid, gid, || layers.mount(*volatile))?,
                None => layers.mount(*volatile),
            };
            mounted.context(|| "error mounting the container's layers".to_owned())?
        }
    };
    let spread = Change { propagation: Some(plan.default_propagation), ..Change::default() };
    set(&root, Reach::Tree, &spread)?;
    Ok(root)
}

fn open_directory(path: &Path, userns: Option<BorrowedFd>) -> Result<OwnedFd> {
    let words = || format!("error mounting rootfs {}", quoted(path));
    let tree = clone_tree(path, Reach::Tree).map_err(std::io::Error::from).context(words)?;
    if rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&tree).context(words)?.st_mode)
        != rustix::fs::FileType::Directory
    {
        return Err(Error::invalid(format!("rootfs {} is not a directory", quoted(path))));
    }
    if userns.is_some() {
        set(&tree, Reach::Mount, &Change { idmap: userns, ..Change::default() })?;
    }
    Ok(tree)
}

/// A detached copy of what is mounted at a path of the host.
pub(crate) fn clone_tree(path: &Path, reach: Reach) -> rustix::io::Result<OwnedFd> {
    let recursive = match reach {
        Reach::Mount => OpenTreeFlags::empty(),
        Reach::Tree => OpenTreeFlags::AT_RECURSIVE,
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursive;
    rustix::mount::open_tree(CWD, path, flags)
}

/// The directories of an overlay: as paths, or, when ids are mapped, as descriptors of mapped copies of their mounts.
struct Layers {
    lowers: Vec<Layer>,
    upper: Layer,
    work: Layer,
    held: Vec<OwnedFd>,
}

/// The longest string `fsconfig` takes, without its NUL.
const MAX_FSCONFIG_STRING: usize = 255;

enum Layer {
    Path(PathBuf),
    Fd(OwnedFd),
}

impl Layers {
    fn open(
        lowers: &[PathBuf],
        upper: &Path,
        work: &Path,
        userns: Option<BorrowedFd>,
    ) -> Result<Self> {
        let Some(userns) = userns else {
            let plain = |path: &Path| {
                if path.as_os_str().len() <= MAX_FSCONFIG_STRING
                    || !sys::overlay::takes_layers_singly()
                {
                    return Ok(Layer::Path(path.to_owned()));
                }
                open_path(CWD, path).map(Layer::Fd)
            };
            return Ok(Self {
                lowers: lowers.iter().map(|path| plain(path)).collect::<Result<_>>()?,
                upper: plain(upper)?,
                work: plain(work)?,
                held: Vec::new(),
            });
        };
        let mapped = |path: &Path| -> Result<OwnedFd> {
            let words = || format!("cannot map the ids of {}", quoted(path));
            let tree =
                clone_tree(path, Reach::Mount).map_err(std::io::Error::from).context(words)?;
            set(&tree, Reach::Mount, &Change { idmap: Some(userns), ..Change::default() })
                .context(words)?;
            Ok(tree)
        };
        // Both must lie on one mount, so it is their parent that is mapped.
        let (Some(parent), Some(upper_name), Some(work_name)) =
            (upper.parent(), upper.file_name(), work.file_name())
        else {
            return Err(Error::invalid("the upper directory of an overlay cannot be the root"));
        };
        if work.parent() != Some(parent) {
            return Err(Error::invalid(
                "the upper and work directories of an overlay must be neighbours to be mapped",
            ));
        }
        let parent = mapped(parent)?;
        Ok(Self {
            lowers: lowers.iter().map(|path| mapped(path).map(Layer::Fd)).collect::<Result<_>>()?,
            upper: Layer::Fd(open_path(parent.as_fd(), Path::new(upper_name))?),
            work: Layer::Fd(open_path(parent.as_fd(), Path::new(work_name))?),
            held: vec![parent],
        })
    }

    fn mount(&self, volatile: bool) -> Result<OwnedFd> {
        let mut options = Vec::new();
        if volatile {
            options.push("volatile");
        }
        // In a user namespace overlay keeps its marks in `user.*` attributes; it may not write `trusted.*` there.
        if !in_initial_user_namespace() {
            options.push("userxattr");
        }
        if !sys::overlay::takes_layers_singly() {
            return self.mount_by_one_string(&options);
        }
        let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&fs, "source", "overlay")?;
        for lower in &self.lowers {
            lower.give(&fs, "lowerdir+").map_err(|errno| told(&fs, errno))?;
        }
        self.upper.give(&fs, "upperdir").map_err(|errno| told(&fs, errno))?;
        self.work.give(&fs, "workdir").map_err(|errno| told(&fs, errno))?;
        for option in &options {
            rustix::mount::fsconfig_set_flag(&fs, *option)?;
        }
        match rustix::mount::fsconfig_create(&fs) {
            // Before 6.15 a mapped layer, which is mounted nowhere, was none.
            Err(Errno::INVAL) if !self.held.is_empty() => self.mount_by_one_string(&options),
            Err(errno) => Err(told(&fs, errno)),
            Ok(()) => Ok(rustix::mount::fsmount(
                &fs,
                FsMountFlags::FSMOUNT_CLOEXEC,
                MountAttrFlags::empty(),
            )?),
        }
    }

    fn mount_by_one_string(&self, options: &[&str]) -> Result<OwnedFd> {
        // With mapped ids all lower ones are mounts; the upper one lies in what is held.
        let mapped = if self.held.is_empty() { &[][..] } else { &self.lowers[..] };
        let detached = mapped.iter().filter_map(Layer::fd).chain(self.held.iter().map(AsFd::as_fd));
        let overlay = sys::overlay::Overlay {
            lowers: self.lowers.iter().map(Layer::as_sys).collect(),
            upper: Some((self.upper.as_sys(), self.work.as_sys())),
            options: options.to_vec(),
            detached: detached.collect(),
        };
        Ok(overlay.mount()?)
    }
}

impl Layer {
    fn give(&self, fs: &OwnedFd, key: &str) -> rustix::io::Result<()> {
        match self {
            Self::Path(path) => {
                rustix::mount::fsconfig_set_string(fs, key, path.as_os_str().as_bytes())
            }
            Self::Fd(fd) => rustix::mount::fsconfig_set_string(fs, key, sys::fd::path(fd.as_fd())),
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Path(_) => None,
            Self::Fd(fd) => Some(fd.as_fd()),
        }
    }

    fn as_sys(&self) -> sys::overlay::Layer<'_> {
        match self {
            Self::Path(path) => sys::overlay::Layer::Path(path),
            Self::Fd(fd) => sys::overlay::Layer::Fd(fd.as_fd()),
        }
    }
}

fn open_path(at: impl AsFd, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
        .context(|| format!("cannot open {}", quoted(path)))
}

/// The kernel's number, with its own words where it left some.
pub(crate) fn told(fs: &OwnedFd, errno: Errno) -> Error {
    let error = Error::from(errno);
    match log(fs) {
        Some(line) => Error::internal(line).caused_by(error),
        None => error,
    }
}

/// The last line of the file system's own log: `"e overlay: Unknown parameter 'x'"`, without its letter.
fn log(fs: &OwnedFd) -> Option<String> {
    let mut last = None;
    let mut line = [0; 1024];
    while let Ok(length) = rustix::io::read(fs, &mut line) {
        let text = String::from_utf8_lossy(&line[..length]);
        last = Some(text.trim_end().get(2..).unwrap_or_default().to_owned());
        if length == 0 {
            break;
        }
    }
    last.filter(|line| !line.is_empty())
}
