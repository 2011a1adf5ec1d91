//! What is mounted besides the image: binds are looked at, volumes made and held.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use api::container::MountPoint;
use rustix::fs::{Gid, Uid};
use serde::{Deserialize, Serialize};
use stdx::{Context, Error, Id, Kind, Result};

use super::Container;
use super::mounts::{By, Making, Missing, MountPlan, Origin, Source, joined};
use super::plan::Plan;
use super::propagation;
use super::record::Record;
use super::spec::{ResolvedMount, What};
use super::userns::Mapped;
use crate::volumes::foreign::Whose;
use crate::volumes::{ANONYMOUS, LOCAL};

/// Beside the data of a volume: it is being filled.
const FILLING: &str = "filling";

impl Container {
    /// Before creation: plugins make their volumes, in their own time. By where they will be mounted.
    pub(crate) fn make_foreign_volumes(
        &self,
        record: &mut Record,
        plan: &Plan,
    ) -> Result<BTreeMap<String, Foreign>> {
        let mut made = BTreeMap::new();
        for mount in joined(&plan.mounts, &record.of_others) {
            let Source::Volume { name, making, .. } = &mount.source else { continue };
            let whose = match (name, making.driver.as_str()) {
                (None, "") => Whose::Local,
                (None, driver) => Whose::of(driver),
                (Some(name), driver) => {
                    self.rooms.whose(name, driver).context(|| format!("create {name}"))?
                }
            };
            let Whose::Plugin(driver) = whose else { continue };
            let anonymous = name.is_none();
            let name = name.clone().unwrap_or_else(|| Id::random().to_string());
            let (found, fresh) = self.rooms.make_foreign(&name, &driver, making)?;
            if anonymous && fresh {
                record.own_volumes.push(name.clone());
            }
            let source = found.volume.mountpoint.unwrap_or_default();
            made.insert(mount.target.clone(), Foreign { name, driver, source });
        }
        Ok(made)
    }

    /// At creation: volumes come into being, sources are checked, and `inspect` learns of both.
    pub(crate) fn make_mounts(
        &self,
        record: &mut Record,
        plan: &Plan,
        foreign: &BTreeMap<String, Foreign>,
    ) -> Result<()> {
        let root = self.rooms.settings().data_root.clone();
        let of_others = record.of_others.clone();
        let mounts = joined(&plan.mounts, &of_others);
        self.wish(record, &mounts, foreign)?;
        let mut own = record.own_volumes.clone().into_iter();
        for mount in mounts {
            let point = match &mount.source {
                Source::Bind { path, missing, propagation, .. } => {
                    check_source(path, *missing)?;
                    MountPoint {
                        r#type: "bind".to_owned(),
                        source: path.clone(),
                        destination: mount.target.clone(),
                        mode: mount.mode.clone(),
                        rw: !mount.read_only,
                        propagation: propagation::of_bind(path, propagation, &root)?.to_owned(),
                        ..MountPoint::default()
                    }
                }
                Source::Volume { .. } if foreign.contains_key(&mount.target) => {
                    let theirs = &foreign[&mount.target];
                    self.rooms.must_stay(&theirs.name)?;
                    volume_point(mount, &theirs.name, &theirs.source, &theirs.driver)
                }
                Source::Volume { name, copy_up, subpath, making } => {
                    let name = match name {
                        Some(name) => name.clone(),
                        None => own.next().context(|| "a volume was not wished for".to_owned())?,
                    };
                    let path = self.make_local_volume(mount, &name, making)?;
                    if *copy_up {
                        self.fill(&mount.target, &name, &path, subpath.as_deref())?;
                    }
                    volume_point(mount, &name, &path, LOCAL)
                }
                Source::Image { name, .. } => {
                    // It is not the image of the container that clients shall go and fetch.
                    let image = self.rooms.images.resolve(name);
                    let image = image.map_err(|error| error.with_kind(Kind::Invalid))?;
                    self.rooms.images.hold(&image.id, record.id.as_str(), name)?;
                    record.mounted_images.insert(mount.target.clone(), image.id.clone());
                    MountPoint {
                        r#type: "image".to_owned(),
                        source: name.clone(),
                        destination: mount.target.clone(),
                        propagation: "rprivate".to_owned(),
                        ..MountPoint::default()
                    }
                }
                Source::Tmpfs { by: By::Mount, .. } => MountPoint {
                    r#type: "tmpfs".to_owned(),
                    destination: mount.target.clone(),
                    rw: !mount.read_only,
                    ..MountPoint::default()
                },
                Source::Tmpfs { by: By::Tmpfs, .. } => continue,
            };
            record.mounts.push(point);
        }
        Ok(())
    }

    /// Names the anonymous volumes that are about to be made, and writes that down: who dies before the container is
    /// recorded leaves them to the next daemon, which takes them back.
    fn wish(
        &self,
        record: &mut Record,
        mounts: &[&MountPlan],
        foreign: &BTreeMap<String, Foreign>,
    ) -> Result<()> {
        let nameless = |mount: &&&MountPlan| {
            matches!(mount.source, Source::Volume { name: None, .. })
                && !foreign.contains_key(&mount.target)
        };
        let count = mounts.iter().filter(nameless).count();
        let volumes: Vec<String> = (0..count).map(|_| Id::random().to_string()).collect();
        if volumes.is_empty() {
            return Ok(());
        }
        let wish = Wish { container: record.id.clone(), volumes: volumes.clone() };
        self.rooms.store.put(&wish)?;
        // Those of plugins are behind them.
        record.own_volumes.splice(0..0, volumes);
        Ok(())
    }

    fn make_local_volume(&self, mount: &MountPlan, name: &str, making: &Making) -> Result<PathBuf> {
        if mount.origin == Origin::OtherContainer {
            return self.rooms.storage.volumes.path(name);
        }
        let mut labels = making.labels.clone();
        let nameless = matches!(mount.source, Source::Volume { name: None, .. });
        if nameless && !(labels.is_empty() && making.options.is_empty()) {
            labels.insert(ANONYMOUS.to_owned(), String::new());
        }
        let volume = crate::volumes::Record::new(name, LOCAL, making.options.clone(), labels);
        let made = self.rooms.make_local(volume).context(|| format!("create {name}"))?;
        Ok(made.0)
    }

    /// What another container's mounts are to one that has them by `--volumes-from`: the same volumes by their names, the
    /// same directories. What is in memory is everybody's own.
    pub(crate) fn mounts_of_others(&self, record: &mut Record, plan: &Plan) -> Result<()> {
        let mut all: Vec<MountPlan> = Vec::new();
        for from in &plan.volumes_from {
            let other = self.rooms.registry.find(&from.container);
            let other = other.map_err(|error| error.with_kind(Kind::Invalid))?.record();
            let theirs = other.plan(&self.rooms.settings())?;
            for mount in joined(&theirs.mounts, &other.of_others) {
                let mut mount = mount.clone();
                match &mut mount.source {
                    Source::Tmpfs { .. } => continue,
                    Source::Image { name, .. } => {
                        if let Some(image) = other.mounted_images.get(&mount.target) {
                            *name = image.to_string();
                        }
                    }
                    Source::Bind { missing, .. } => *missing = Missing::Create,
                    Source::Volume { name, copy_up, making, .. } => {
                        let mut points = other.mounts.iter();
                        let point = points.find(|point| point.destination == mount.target);
                        let Some(point) = point else { continue };
                        *name = Some(point.name.clone());
                        // Nobody has named it, so it goes with the last who has it.
                        if other.own_volumes.contains(&point.name) {
                            record.own_volumes.push(point.name.clone());
                        }
                        *copy_up = false;
                        *making = Making { driver: point.driver.clone(), ..Making::default() };
                    }
                }
                mount.read_only |= from.read_only;
                mount.mode = String::new();
                mount.origin = Origin::OtherContainer;
                all.retain(|earlier| earlier.target != mount.target);
                all.push(mount);
            }
        }
        record.of_others = all;
        Ok(())
    }

    /// Whether one of its volumes is in memory: then those who share it start one after the other.
    pub(crate) fn has_volumes_in_memory(&self) -> Result<bool> {
        for point in self.record().mounts.iter().filter(|point| is_local(point)) {
            if self.rooms.options_of(&point.name)?.is_some_and(|options| options.is_in_memory()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a volume is, if it is not its directory: a mount, attached nowhere.
    fn mount_of_volume(&self, name: &str, path: &Path) -> Result<Option<OwnedFd>> {
        let Some(options) = self.rooms.options_of(name)? else { return Ok(None) };
        let words = || format!("error while mounting volume '{}'", path.display());
        if options.is_in_memory() {
            for cell in self.rooms.registry.all() {
                let record = cell.record();
                let mut points = record.mounts.iter().filter(|point| is_local(point));
                if let Some(point) = points.find(|point| point.name == name)
                    && record.state.phase.is_up()
                    && record.id != self.cell.id
                {
                    let other = Container { rooms: self.rooms.clone(), cell };
                    let living = other.living_tree(vec![point.destination.clone()]);
                    if let Some((_, tree)) = living.context(words)?.mounts.pop() {
                        return Ok(Some(tree));
                    }
                }
            }
        }
        options.mount(path).context(words).map(Some)
    }

    /// The whole tree of an image that is mounted, attached nowhere.
    fn tree_of_image(&self, record: &Record, target: &str) -> Result<OwnedFd> {
        let gone = || format!("the image at {target} is gone");
        let id = record.mounted_images.get(target).context(gone)?;
        let image = self.rooms.images.get(id).context(gone)?;
        let view = self.rooms.storage.snapshots.view_layers(&image.chain)?;
        if view.mounted { Ok(view.root) } else { super::tree::cloned(&view.root, false) }
    }

    /// Tells of the volumes that a run has.
    pub(crate) fn tell_mounted(&self, record: &Record) {
        for point in record.mounts.iter().filter(|point| point.r#type == "volume") {
            let more = [
                ("container", record.id.as_str()),
                ("destination", &point.destination),
                ("propagation", &point.propagation),
                ("read/write", if point.rw { "true" } else { "false" }),
            ];
            self.rooms.volume_event_with("mount", &point.name, &point.driver, &more);
        }
    }

    pub(crate) fn tell_unmounted(&self, record: &Record) {
        for point in record.mounts.iter().filter(|point| point.r#type == "volume") {
            let more = [("container", record.id.as_str())];
            self.rooms.volume_event_with("unmount", &point.name, &point.driver, &more);
        }
    }

    /// Lets go of the image it was made from, and of those that are mounted into it.
    pub(crate) fn drop_images(&self, record: &Record) -> Result<()> {
        for image in record.mounted_images.values().chain([&record.image]) {
            self.rooms.images.drop_hold(image, record.id.as_str())?;
        }
        Ok(())
    }

    /// After creation: plugins' volumes that are empty are filled, as others are.
    pub(crate) fn fill_foreign_volumes(&self, record: &Record, plan: &Plan) -> Result<()> {
        let mut filled = Ok(());
        for mount in joined(&plan.mounts, &record.of_others) {
            let Source::Volume { copy_up: true, subpath: None, .. } = &mount.source else {
                continue;
            };
            let foreign =
                |point: &&MountPoint| point.destination == mount.target && is_foreign(point);
            let Some(point) = record.mounts.iter().find(foreign) else { continue };
            if mount.origin == Origin::OtherContainer {
                continue;
            }
            filled = self.fill_foreign(mount, point);
            if filled.is_err() {
                break;
            }
        }
        if record.mounts.iter().any(is_foreign) {
            self.rooms.unmount_foreign(&record.id)?;
        }
        filled
    }

    fn fill_foreign(&self, mount: &MountPlan, point: &MountPoint) -> Result<()> {
        if super::tree::directory_in(&self.tree()?, &mount.target)?.is_none() {
            return Ok(());
        }
        let path = self
            .rooms
            .mount_foreign(&self.cell.id, &point.name, &point.driver)
            .context(mounting)?;
        if is_empty(&path)? { self.copy_up(&mount.target, &path) } else { Ok(()) }
    }

    /// Anonymous volumes of plugins go with their container, unless somebody else mounts them or the plugin resists.
    pub(crate) fn drop_own_foreign_volumes(&self, record: &Record) {
        for name in &record.own_volumes {
            let removed = self.rooms.foreign_record(name).and_then(|found| match found {
                Some(found) => self.rooms.remove_foreign(&found, false),
                None => Ok(()),
            });
            match removed {
                Err(error) if error.kind() != Kind::Conflict => {
                    tracing::warn!(container = %record.id, volume = %name, error = %error.chain(), "cannot remove an anonymous volume");
                }
                _ => {}
            }
        }
    }

    /// An empty volume, or an empty directory of it that was asked for, is filled by its first user. The next one waits for
    /// that, and finishes what a daemon that died has begun.
    fn fill(&self, target: &str, name: &str, data: &Path, below: Option<&str>) -> Result<()> {
        // The directory above the data, where no container can lock anything or leave a mark.
        let volume = data.parent().context(|| "a volume has a directory".to_owned())?;
        let options = self.rooms.options_of(name)?;
        if options.is_some_and(|options| options.is_in_memory()) {
            return Ok(());
        }
        let mounted = self.mount_of_volume(name, data)?;
        let mounted = mounted.as_ref().map(|mounted| sys::fd::path(mounted.as_fd()));
        let data = mounted.as_deref().unwrap_or(data);
        let part = match below {
            None => None,
            Some(below) => match directory_below(data, below) {
                Some(part) => Some(part),
                // A file, or what the start will refuse.
                None => return Ok(()),
            },
        };
        let part = part.as_ref().map(|part| sys::fd::path(part.as_fd()));
        let data = part.as_deref().unwrap_or(data);
        let context = || format!("cannot fill {}", volume.display());
        let directory = std::fs::File::open(volume).context(context)?;
        rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive)
            .context(context)?;
        let mark = volume.join(match below {
            None => FILLING.to_owned(),
            Some(below) => format!("{FILLING}-{}", oci::Digest::of(below.as_bytes()).hex()),
        });
        if !mark.exists() && !is_empty(data)? {
            return Ok(());
        }
        std::fs::File::create(&mark).context(context)?;
        self.copy_up(target, data)?;
        std::fs::remove_file(&mark).context(context)
    }

    /// A new volume begins as a copy of what the image has at its place, owner and mode included.
    fn copy_up(&self, target: &str, volume: &Path) -> Result<()> {
        let context = || format!("cannot copy the image's {target} into its volume");
        let tree = self.tree()?;
        let Some(source) = super::tree::directory_in(&tree, target)? else { return Ok(()) };
        let destination = std::fs::File::open(volume).context(context)?;
        let (mut reader, mut writer) = std::io::pipe().context(context)?;
        std::thread::scope(|scope| {
            let from = source.as_fd();
            let packing = scope.spawn(move || storage::layer::export(from, &mut writer));
            let applied = storage::layer::apply(
                destination.as_fd(),
                &mut reader,
                &storage::layer::Limits::default(),
            );
            drop(reader);
            let packed = packing.join().map_err(|_| Error::internal("packing panicked"))?;
            applied.and(packed.map(drop)).context(context)
        })?;
        // An archive holds what is in a directory; whose it is, and for whom, is the directory's own.
        let stat = rustix::fs::fstat(&source).context(context)?;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::fchown(&destination, Some(uid), Some(gid)).context(context)?;
        let mode = rustix::fs::Mode::from_raw_mode(stat.st_mode & 0o7777);
        rustix::fs::fchmod(&destination, mode).context(context)
    }

    /// At each start: what the plan names, found anew, in the words `spec` understands. Some of it is named by descriptors,
    /// which are `held` until the container has them.
    pub(crate) fn resolve_mounts(
        &self,
        record: &Record,
        plan: &Plan,
        ids: Option<&Mapped>,
        held: &mut Held,
    ) -> Result<Vec<ResolvedMount>> {
        joined(&plan.mounts, &record.of_others)
            .into_iter()
            .map(|mount| self.resolve_mount(record, mount, ids, held))
            .collect()
    }

    fn resolve_mount(
        &self,
        record: &Record,
        mount: &MountPlan,
        ids: Option<&Mapped>,
        held: &mut Held,
    ) -> Result<ResolvedMount> {
        use super::mounts::Recursive;
        let what = match &mount.source {
            Source::Bind { path, missing, propagation, recursive } => {
                if *missing == Missing::Create && !Path::new(path).exists() {
                    std::fs::create_dir_all(path)
                        .context(|| format!("error while creating mount source path '{path}'"))?;
                }
                check_source(path, Missing::Refuse)?;
                let root = &self.rooms.settings().data_root;
                What::Bind {
                    source: PathBuf::from(path),
                    propagation: propagation::in_force(path, propagation, root)?.to_owned(),
                    recursive: *recursive,
                }
            }
            Source::Volume { subpath, .. } => {
                let point = record
                    .mounts
                    .iter()
                    .find(|point| point.destination == mount.target)
                    .context(|| format!("the volume at {} is not recorded", mount.target))?;
                let path = if is_foreign(point) {
                    self.rooms
                        .mount_foreign(&record.id, &point.name, &point.driver)
                        .context(mounting)?
                } else {
                    self.rooms.storage.volumes.path(&point.name)?
                };
                let mounted = match is_local(point) {
                    true => self.mount_of_volume(&point.name, &path)?,
                    false => None,
                };
                let source = match (subpath, mounted) {
                    (None, None) => path,
                    (None, Some(tree)) => {
                        held.trees.push((PathBuf::from(&mount.target), tree));
                        path
                    }
                    (Some(below), Some(tree)) => {
                        let part = self.part_of(tree, below)?;
                        held.trees.push((PathBuf::from(&mount.target), part));
                        path.join(below)
                    }
                    (Some(below), None) => {
                        let found = subpath_of(&path, below)?;
                        let name = sys::fd::path_for_others(found.as_fd());
                        held.descriptors.push(found);
                        name
                    }
                };
                What::Bind { source, propagation: String::new(), recursive: Recursive::Enabled }
            }
            Source::Image { name, subpath } => {
                let tree = self.tree_of_image(record, &mount.target)?;
                let tree = match subpath {
                    Some(below) => self.part_of(tree, below)?,
                    None => tree,
                };
                held.trees.push((PathBuf::from(&mount.target), tree));
                What::Bind {
                    source: PathBuf::from(name),
                    propagation: String::new(),
                    recursive: Recursive::Enabled,
                }
            }
            Source::Tmpfs { options, .. } => What::Tmpfs { options: options.clone() },
        };
        let ids = self.mount_ids(ids, mount, &what)?;
        let read_only = mount.read_only || matches!(mount.source, Source::Image { .. });
        Ok(ResolvedMount { target: mount.target.clone(), read_only, what, ids })
    }
}

/// What mounts are named by, as long as it is needed: descriptors, and mounts by the places they shall have.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) descriptors: Vec<OwnedFd>,
    pub(crate) trees: Vec<(PathBuf, OwnedFd)>,
}

/// Anonymous volumes that a container will have, once it is recorded.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Wish {
    pub(crate) container: Id,
    pub(crate) volumes: Vec<String>,
}

impl state::Record for Wish {
    const TABLE: &'static str = "wished-volumes";

    fn key(&self) -> String {
        self.container.to_string()
    }
}

/// A plugin's volume, made for one of a container's mounts.
pub(crate) struct Foreign {
    name: String,
    driver: String,
    source: PathBuf,
}

/// Whether a plugin has it.
pub(crate) fn is_foreign(point: &MountPoint) -> bool {
    point.r#type == "volume" && point.driver != LOCAL
}

/// Docker's, which has a place for a path here and never has one.
fn mounting() -> String {
    "error while mounting volume ''".to_owned()
}

fn is_local(point: &MountPoint) -> bool {
    point.r#type == "volume" && point.driver == LOCAL
}

fn volume_point(mount: &MountPlan, name: &str, source: &Path, driver: &str) -> MountPoint {
    MountPoint {
        r#type: "volume".to_owned(),
        name: name.to_owned(),
        source: source.to_string_lossy().into_owned(),
        destination: mount.target.clone(),
        driver: driver.to_owned(),
        // Relabelling is for what is ours.
        mode: match mount.mode.is_empty() && driver == LOCAL && mount.origin == Origin::Request {
            true => "z".to_owned(),
            false => mount.mode.clone(),
        },
        rw: !mount.read_only,
        ..MountPoint::default()
    }
}

fn check_source(path: &str, missing: Missing) -> Result<()> {
    match (Path::new(path).try_exists(), missing) {
        (Ok(true), _) | (Ok(false), Missing::Create) => Ok(()),
        (Ok(false), Missing::Refuse) => Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {path}"
        ))),
        (Err(error), _) => Err(error).context(|| format!("cannot look at {path}")),
    }
}

fn is_empty(path: &Path) -> Result<bool> {
    Ok(std::fs::read_dir(path)
        .context(|| format!("cannot read {}", path.display()))?
        .next()
        .is_none())
}

fn directory_below(volume: &Path, below: &str) -> Option<OwnedFd> {
    let found = subpath_of(volume, below).ok()?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&found).ok()?.st_mode);
    kind.is_dir().then_some(found)
}

/// A place in a volume. What a container writes there must not lead out of it, not even between this look and the mount:
/// it is handed on as it was found, by descriptor.
fn subpath_of(volume: &Path, below: &str) -> Result<OwnedFd> {
    let root =
        std::fs::File::open(volume).context(|| format!("cannot open {}", volume.display()))?;
    let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_MAGICLINKS;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(&root, below, flags, rustix::fs::Mode::empty(), resolve);
    opened.map_err(|errno| {
        Error::invalid(match errno {
            rustix::io::Errno::XDEV => format!(
                "path concatenation escapes the base directory, base: {:?}, subpath: {below:?}",
                volume.display().to_string()
            ),
            other => {
                let (path, words) = (volume.join(below), Error::from(other));
                format!("cannot access path {}: {words}", path.display())
            }
        })
    })
}
