//! The overlay driver: a layer is a directory, a container an upper directory on top of them; nothing is copied.
//!
//! Nothing is ever mounted where the host could see it: the container's init puts its root together in its own mount
//! namespace, and we look at trees through mounts that are attached nowhere.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use oci::ChainId;
use oci::runtime::Rootfs;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use stdx::{Context, Error, Result};
use sys::mount::{Attr, Reach, mount_setattr};
use sys::overlay::Layer;

use super::containers::Containers;
use super::layers::{Layers, Record, latin1};
use super::{Driver, Garbage, Ground, LayerInfo, Snapshot, Unpacked, View, places};
use crate::durable::{self, OnDisk};
use crate::layer::tree::{Sum, summarize};
use crate::layer::{self, Change, Depth, Limits, Options, Whiteouts, copy, diff};
use crate::walk::Walk;
use crate::{beneath, xattr};

/// As many lower directories as the kernel takes.
const LAYERS: usize = 500;
const UPPER: &str = "upper";
const WORK: &str = "work";

pub struct Overlay {
    layers: Layers,
    containers: Containers,
    /// The lowest directory of every container.
    places: PathBuf,
    /// Lower directories for images with fewer layers than the two that overlayfs wants without an upper one.
    empty: [PathBuf; 2],
    /// Only one at a time changes the layers that wait for those below them.
    settling: Mutex<()>,
}

impl Overlay {
    pub(crate) fn open(root: &Path, ground: &Ground) -> Result<Self> {
        let root = root.join("overlay2");
        let kept = root.join("layers").exists();
        durable::directory(&root)?;
        durable::directory(&root.join("empty"))?;
        let empty = ["empty/0", "empty/1"].map(|name| root.join(name));
        empty.iter().try_for_each(|empty| durable::directory(empty).map(drop))?;
        let places = root.join("places");
        places::add(durable::directory(&places)?.as_fd())?;
        let driver = Self {
            places,
            layers: Layers::open(&root, ground)?,
            containers: Containers::open(&root, ground)?,
            empty,
            settling: Mutex::default(),
        };
        match driver.probe() {
            // A full disk proves nothing; it has worked before, and what it holds wants to be looked at and removed.
            Err(error) if kept && durable::is_full(&error) => {
                tracing::warn!(error = %error.chain(), "the disk is full");
            }
            outcome => {
                outcome.context(|| format!("overlayfs does not work on {}", root.display()))?
            }
        }
        Ok(driver)
    }

    /// Mounts a small overlay and removes a file through it: that shows mounts, whiteouts and attributes at once.
    fn probe(&self) -> Result<()> {
        let staged = self.layers.stage()?;
        for name in ["lower", UPPER, WORK] {
            rustix::fs::mkdirat(&staged.tree, name, Mode::from_raw_mode(0o755)).on_disk()?;
        }
        let lower = durable::open_directory(staged.tree.as_fd(), "lower")?;
        rustix::fs::mknodat(&lower, "file", FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
            .on_disk()?;
        let at = staged.path();
        let upper = (&*at.join(UPPER), &*at.join(WORK));
        let mounted = mount(&[at.join("lower")], Some(upper))?;
        rustix::fs::unlinkat(&mounted, "file", AtFlags::empty()).on_disk()?;
        let upper = durable::open_directory(staged.tree.as_fd(), UPPER)?;
        match beneath::stat(upper.as_fd(), b"file").on_disk()? {
            Some(stat) if stat.st_rdev == 0 => Ok(()),
            _ => Err(Error::unavailable("removing a file leaves no whiteout")),
        }
    }

    /// The directories of a chain, the topmost first, as far down as anything can be seen.
    fn lowers(&self, chain: &[ChainId]) -> Result<Vec<PathBuf>> {
        let mut lowers = Vec::with_capacity(chain.len());
        for chain in chain.iter().rev() {
            let record = self.layers.need(chain)?;
            lowers.push(self.layers.path(chain));
            if record.opaque {
                break;
            }
        }
        if lowers.len() > LAYERS {
            return Err(Error::invalid(format!(
                "max depth exceeded: {} layers, overlayfs takes {LAYERS}",
                lowers.len()
            )));
        }
        Ok(lowers)
    }

    /// What is below a container's upper directory.
    fn ground(&self, chain: &[ChainId]) -> Result<Vec<PathBuf>> {
        let mut lowers = self.lowers(chain)?;
        lowers.push(self.places.clone());
        Ok(lowers)
    }

    /// A tree that nobody writes to.
    fn look(&self, mut lowers: Vec<PathBuf>) -> Result<View> {
        let missing = self.empty.iter().take(2_usize.saturating_sub(lowers.len()));
        lowers.extend(missing.cloned());
        Ok(View { root: mount(&lowers, None)?, mounted: true })
    }

    /// All layers below `chain`, the lowest first; `None` while one is missing.
    fn below(&self, record: &Record) -> Option<Vec<ChainId>> {
        let mut below = Vec::new();
        let mut next = record.parent.clone();
        while let Some(chain) = next {
            next = self.layers.get(&chain)?.parent.clone();
            below.push(chain);
        }
        below.reverse();
        Some(below)
    }

    /// Gives the directories that a layer needed and did not describe what the layers below say of them: overlayfs shows
    /// a directory as its topmost layer has it, so those made by us would hide the true ones.
    fn settle(&self, chain: &ChainId) -> Result<()> {
        if self.layers.need(chain)?.waiting.is_empty() {
            return Ok(());
        }
        let _alone = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        let record = self.layers.need(chain)?;
        let Some(below) = self.below(&record).filter(|_| !record.waiting.is_empty()) else {
            return Ok(());
        };
        let mut record = Record::clone(&record);
        if !below.is_empty() && !record.opaque {
            let mut sum = Sum::parse(&record.hash)?;
            let tree = self.layers.tree(chain)?;
            let below = self.view_layers(&below)?;
            for path in record.waiting_paths() {
                inherit(&below, &tree, &path, &mut sum).context(|| {
                    format!("cannot complete the directory /{}", String::from_utf8_lossy(&path))
                })?;
            }
            record.hash = sum.hash();
        }
        record.waiting.clear();
        self.layers.rewrite(record).map(drop)
    }

    fn settle_all(&self, chain: &[ChainId]) -> Result<()> {
        chain.iter().try_for_each(|chain| self.settle(chain))
    }

    /// The upper and work directory, made again when they were lost.
    fn writable(&self, snapshot: &Snapshot) -> Result<(PathBuf, PathBuf)> {
        if self.containers.directory(&snapshot.name)?.is_none_or(|directory| {
            !matches!(beneath::stat(directory.as_fd(), WORK.as_bytes()), Ok(Some(_)))
        }) {
            let directory = self.containers.restore(&snapshot.name)?;
            self.furnish(&directory, &snapshot.parent)?;
        }
        self.forgive(&snapshot.name)?;
        let path = self.containers.path(&snapshot.name);
        Ok((path.join(UPPER), path.join(WORK)))
    }

    /// An overlay that need not be written to disk leaves a mark, against those who would use it again after a loss of
    /// power. Whoever has had none since may.
    fn forgive(&self, name: &str) -> Result<()> {
        let Some(directory) = self.containers.directory(name)? else { return Ok(()) };
        let doing = || format!("cannot use the files of container {name} again");
        let mark = "work/work/incompat/volatile";
        match rustix::fs::unlinkat(&directory, format!("{mark}/dirty"), AtFlags::empty()) {
            Ok(()) => {}
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno).on_disk().context(doing),
        }
        rustix::fs::unlinkat(&directory, mark, AtFlags::REMOVEDIR).on_disk().context(doing)
    }

    /// Makes the upper directory, its root like that of the topmost layer, and then the work directory.
    fn furnish(&self, directory: &OwnedFd, parent: &[ChainId]) -> Result<()> {
        rustix::fs::mkdirat(directory, UPPER, Mode::from_raw_mode(0o755)).on_disk()?;
        let upper = durable::open_directory(directory.as_fd(), UPPER)?;
        match parent.last() {
            Some(top) => copy::root(self.layers.tree(top)?.as_fd(), upper.as_fd())?,
            None => rustix::fs::fchmod(&upper, Mode::from_raw_mode(0o755)).on_disk()?,
        }
        rustix::fs::mkdirat(directory, WORK, Mode::from_raw_mode(0o700)).on_disk()
    }

    fn upper(&self, name: &str) -> Result<(Snapshot, OwnedFd)> {
        let snapshot = self.containers.get(name)?;
        self.writable(&snapshot)?;
        let directory = self
            .containers
            .directory(name)?
            .context(|| format!("the files of container {name} are gone"))?;
        let upper = durable::open_directory(directory.as_fd(), UPPER)?;
        Ok((snapshot, upper))
    }

    /// The changes of a tree over the directories `below`, and the tree that has what is new in them.
    fn compare(
        &self,
        tree: OwnedFd,
        path: PathBuf,
        below: Vec<PathBuf>,
    ) -> Result<(diff::Changes, OwnedFd)> {
        let old = self.look(below.clone())?;
        if let Some(changes) = diff::upper(old.as_fd(), tree.as_fd())? {
            return Ok((changes, tree));
        }
        // As one more lower directory, because a living container has it for its upper one.
        let mut lowers = vec![path];
        lowers.extend(below);
        let new = mount(&lowers, None)?;
        Ok((diff::trees(old.as_fd(), new.as_fd(), |_, _| false)?, new))
    }

    fn compare_container(&self, name: &str) -> Result<(diff::Changes, OwnedFd)> {
        let (snapshot, upper) = self.upper(name)?;
        let path = self.containers.path(name).join(UPPER);
        self.compare(upper, path, self.ground(&snapshot.parent)?)
    }
}

impl Driver for Overlay {
    fn name(&self) -> &'static str {
        "overlay2"
    }

    fn needs_parent(&self) -> bool {
        false
    }

    fn has_layer(&self, chain: &ChainId) -> bool {
        self.layers.get(chain).is_some()
    }

    fn unpack(
        &self,
        chain: &ChainId,
        parent: Option<&ChainId>,
        tar: &mut dyn Read,
    ) -> Result<Unpacked> {
        if let Some(record) = self.layers.get(chain) {
            return Ok(Unpacked { size: record.size, entries: record.entries });
        }
        let staged = self.layers.stage()?;
        let options = Options {
            whiteouts: Whiteouts::Overlay,
            limits: Limits::default(),
            ..Options::default()
        };
        let applied = layer::apply_with(staged.tree.as_fd(), tar, &options)?;
        let summary = match applied.summary {
            Some(summary) => summary,
            None => summarize(staged.tree.as_fd(), Depth::Strict)?,
        };
        let record = staged.commit(Record {
            chain: chain.clone(),
            parent: parent.cloned(),
            size: applied.size,
            entries: applied.entries,
            names: summary.names,
            bytes: summary.bytes,
            hash: summary.hash,
            opaque: applied.opaque_root,
            waiting: applied.implicit.iter().map(|path| latin1(path)).collect(),
        })?;
        self.settle(chain)?;
        Ok(Unpacked { size: record.size, entries: record.entries })
    }

    fn remove_layer(&self, chain: &ChainId) -> Result<()> {
        self.layers.remove(chain)
    }

    fn layers(&self) -> Result<Vec<LayerInfo>> {
        self.layers.list()
    }

    fn prepare(&self, name: &str, parent: &[ChainId]) -> Result<()> {
        self.lowers(parent)?;
        self.settle_all(parent)?;
        let directory =
            self.containers.add(&Snapshot { name: name.to_owned(), parent: parent.to_vec() })?;
        self.furnish(&directory, parent).or_else(|error| {
            self.containers.remove(name)?;
            Err(error)
        })
    }

    fn writable_directories(&self, name: &str) -> Result<Vec<OwnedFd>> {
        let (_, upper) = self.upper(name)?;
        let gone = || format!("the files of container {name} are gone");
        let whole = self.containers.directory(name)?.context(gone)?;
        let work = durable::open_directory(whole.as_fd(), WORK)?;
        Ok(vec![whole, upper, work])
    }

    fn remove(&self, name: &str) -> Result<()> {
        if let Some(directory) = self.containers.directory(name)? {
            crate::quota::give_back(directory.as_fd())?;
        }
        self.containers.remove(name)
    }

    fn names(&self) -> Result<Vec<String>> {
        self.containers.names()
    }

    fn rootfs(&self, name: &str) -> Result<Rootfs> {
        let snapshot = self.containers.get(name)?;
        let lowers = self.ground(&snapshot.parent)?;
        let (upper, work) = self.writable(&snapshot)?;
        Ok(Rootfs::Overlay { lowers, upper, work, volatile: false })
    }

    fn view(&self, name: &str) -> Result<View> {
        let snapshot = self.containers.get(name)?;
        let mut lowers = vec![self.writable(&snapshot)?.0];
        lowers.extend(self.ground(&snapshot.parent)?);
        self.look(lowers)
    }

    fn view_writable(&self, name: &str) -> Result<View> {
        let snapshot = self.containers.get(name)?;
        let (upper, work) = self.writable(&snapshot)?;
        Ok(View {
            root: mount(&self.ground(&snapshot.parent)?, Some((&upper, &work)))?,
            mounted: true,
        })
    }

    fn view_layers(&self, chain: &[ChainId]) -> Result<View> {
        self.look(self.lowers(chain)?)
    }

    fn changes(&self, name: &str) -> Result<Vec<Change>> {
        Ok(self.compare_container(name)?.0.list())
    }

    fn diff(&self, name: &str, out: &mut dyn Write) -> Result<()> {
        let (changes, tree) = self.compare_container(name)?;
        changes.write(tree.as_fd(), out)
    }

    fn layer_tar(&self, chain: &ChainId, out: &mut dyn Write) -> Result<()> {
        self.settle(chain)?;
        let record = self.layers.need(chain)?;
        let below = self.below(&record).context(|| format!("a layer below {chain} is missing"))?;
        let (changes, tree) =
            self.compare(self.layers.tree(chain)?, self.layers.path(chain), self.lowers(&below)?)?;
        changes.write(tree.as_fd(), out)
    }

    fn usage(&self, name: &str) -> Result<u64> {
        let (_, upper) = self.upper(name)?;
        usage(&upper)
    }

    fn verify_layer(&self, chain: &ChainId, depth: Depth) -> Result<Option<String>> {
        self.layers.verify(chain, depth)
    }

    fn garbage(&self) -> Result<Vec<Garbage>> {
        let mut garbage = self.layers.garbage()?;
        garbage.extend(self.containers.garbage()?);
        Ok(garbage)
    }

    fn discard(&self, garbage: &Garbage) -> Result<()> {
        self.layers.discard(garbage)?;
        self.containers.discard(garbage)
    }
}

/// Describes the directory `path` of a layer as the layers below do, if they have it.
fn inherit(below: &View, tree: &OwnedFd, path: &[u8], sum: &mut Sum) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let (Ok(from), Ok(to)) = (
        beneath::open_plain(below.as_fd(), path, flags),
        beneath::open_plain(tree.as_fd(), path, flags),
    ) else {
        return Ok(());
    };
    let before = rustix::fs::fstat(&to).on_disk()?;
    copy::root(from.as_fd(), to.as_fd())?;
    if let Some(acl) = xattr::get(from.as_fd(), b"", c"system.posix_acl_default").on_disk()? {
        xattr::set(to.as_fd(), b"", (b"system.posix_acl_default", &acl)).on_disk()?;
    }
    if !path.is_empty() {
        sum.take(path, &before, &[]);
        sum.add(path, &rustix::fs::fstat(&to).on_disk()?, &[]);
    }
    Ok(())
}

/// Bytes of the files in a tree, each counted once.
pub(crate) fn usage(tree: &OwnedFd) -> Result<u64> {
    let mut linked = std::collections::HashSet::new();
    let mut bytes = 0;
    let mut walk = Walk::new(tree.as_fd())?;
    while let Some(item) = walk.next()? {
        if !item.is_directory() && (item.stat.st_nlink == 1 || linked.insert(item.stat.st_ino)) {
            bytes += item.stat.st_size as u64;
        }
    }
    Ok(bytes)
}

/// Mounts an overlay that is attached nowhere: it lives as long as its descriptor. Without an upper directory it is
/// read-only.
fn mount(lowers: &[PathBuf], upper: Option<(&Path, &Path)>) -> Result<OwnedFd> {
    if !sys::overlay::takes_layers_singly() {
        return mount_by_one_string(lowers, upper);
    }
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .on_disk()
        .context(|| "the kernel has no overlayfs".to_owned())?;
    let mut settings = vec![("source", Path::new("gantry"))];
    settings.extend(lowers.iter().map(|lower| ("lowerdir+", lower.as_path())));
    settings.extend(
        upper.into_iter().flat_map(|(upper, work)| [("upperdir", upper), ("workdir", work)]),
    );
    for (key, value) in settings {
        rustix::mount::fsconfig_set_string(&context, key, escape(value))
            .map_err(|errno| explain(&context, errno))
            .context(|| format!("cannot use {} as {key} of an overlay", value.display()))?;
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let read_only =
        if upper.is_none() { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    rustix::mount::fsconfig_create(&context)
        .and_then(|()| {
            rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes | read_only)
        })
        .map_err(|errno| explain(&context, errno))
        .context(|| "cannot mount an overlay".to_owned())
}

fn mount_by_one_string(lowers: &[PathBuf], upper: Option<(&Path, &Path)>) -> Result<OwnedFd> {
    let overlay = sys::overlay::Overlay {
        lowers: lowers.iter().map(|lower| Layer::Path(lower)).collect(),
        upper: upper.map(|(upper, work)| (Layer::Path(upper), Layer::Path(work))),
        options: Vec::new(),
        detached: Vec::new(),
    };
    let read_only = if upper.is_none() { Attr::RDONLY } else { Attr::empty() };
    let attributes = Attr::NOSUID | Attr::NODEV | Attr::NOEXEC | read_only;
    let mounted = || {
        let mounted = overlay.mount()?;
        mount_setattr(
            &mounted,
            Reach::Mount,
            &sys::mount::Change { set: attributes, ..Default::default() },
        )?;
        Ok::<_, std::io::Error>(mounted)
    };
    mounted().on_disk().context(|| "cannot mount an overlay".to_owned())
}

/// The kernel reads a backslash as an escape.
fn escape(path: &Path) -> Vec<u8> {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().flat_map(|c| if *c == b'\\' { vec![b'\\', b'\\'] } else { vec![*c] }).collect()
}

/// Adds what the kernel wrote about a failed mount to the number it gave.
fn explain(context: &OwnedFd, errno: rustix::io::Errno) -> Error {
    let error = Error::from(errno);
    let mut message = [0; 512];
    let mut words = Vec::new();
    while let Ok(count) = rustix::io::read(context, &mut message) {
        words.push(
            String::from_utf8_lossy(&message[..count])
                .trim_start_matches(['e', 'w', 'i', ' '])
                .trim()
                .to_owned(),
        );
    }
    match words.is_empty() {
        true => error,
        false => Error::new(error.kind(), words.join("; ")).caused_by(error),
    }
}
