//! What is mounted besides the image: binds are looked at, volumes made and held.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use api::container::MountPoint;
use stdx::{Context, Error, Id, Kind, Result};

use super::Container;
use super::mounts::{Missing, MountPlan, Source};
use super::plan::Plan;
use super::record::Record;
use super::spec::{ResolvedMount, What};
use super::userns::Mapped;
use crate::volumes::LOCAL;
use crate::volumes::foreign::Whose;

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
        for mount in &plan.mounts {
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
            made.insert(mount.target.clone(), Foreign { name, driver, source, anonymous });
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
        for mount in &plan.mounts {
            let point = match &mount.source {
                Source::Bind { path, missing, propagation, .. } => {
                    check_source(path, *missing)?;
                    MountPoint {
                        r#type: "bind".to_owned(),
                        source: path.clone(),
                        destination: mount.target.clone(),
                        mode: mount.mode.clone(),
                        rw: !mount.read_only,
                        propagation: if propagation.is_empty() {
                            "rprivate".to_owned()
                        } else {
                            propagation.clone()
                        },
                        ..MountPoint::default()
                    }
                }
                Source::Volume { .. } if foreign.contains_key(&mount.target) => {
                    let theirs = &foreign[&mount.target];
                    self.rooms.must_stay(&theirs.name)?;
                    volume_point(
                        mount,
                        &theirs.name,
                        &theirs.source,
                        &theirs.driver,
                        theirs.anonymous,
                    )
                }
                Source::Volume { name, copy_up, subpath, making: _ } => {
                    let anonymous = name.is_none();
                    let name = name.clone().unwrap_or_else(|| Id::random().to_string());
                    let volumes = &self.rooms.storage.volumes;
                    let fresh = volumes.path(&name).is_err();
                    let path = volumes.create(&name)?;
                    if anonymous {
                        record.own_volumes.push(name.clone());
                    }
                    if fresh {
                        self.rooms.volume_event("create", &name, LOCAL);
                    }
                    if *copy_up && subpath.is_none() {
                        self.fill(&mount.target, &path)?;
                    }
                    volume_point(mount, &name, &path, LOCAL, anonymous)
                }
                // Docker shows those of `--mount` and not those of `--tmpfs`; the container has both.
                Source::Tmpfs { .. } => continue,
            };
            record.mounts.push(point);
        }
        Ok(())
    }

    /// After creation: plugins' volumes that are empty are filled, as others are.
    pub(crate) fn fill_foreign_volumes(&self, record: &Record, plan: &Plan) -> Result<()> {
        let mut filled = Ok(());
        for mount in &plan.mounts {
            let Source::Volume { copy_up: true, subpath: None, .. } = &mount.source else {
                continue;
            };
            let foreign =
                |point: &&MountPoint| point.destination == mount.target && is_foreign(point);
            let Some(point) = record.mounts.iter().find(foreign) else { continue };
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

    /// An empty volume is filled by its first user. The next one waits for that, and finishes what a daemon that died
    /// has begun.
    fn fill(&self, target: &str, data: &Path) -> Result<()> {
        // The directory above the data, where no container can lock anything or leave a mark.
        let volume = data.parent().context(|| "a volume has a directory".to_owned())?;
        let context = || format!("cannot fill {}", volume.display());
        let directory = std::fs::File::open(volume).context(context)?;
        rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive)
            .context(context)?;
        let mark = volume.join(FILLING);
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
            let packing = scope.spawn(move || storage::layer::export(source.as_fd(), &mut writer));
            let applied = storage::layer::apply(
                destination.as_fd(),
                &mut reader,
                &storage::layer::Limits::default(),
            );
            drop(reader);
            let packed = packing.join().map_err(|_| Error::internal("packing panicked"))?;
            applied.and(packed.map(drop)).context(context)
        })
    }

    /// At each start: what the plan names, found anew, in the words `spec` understands. Some of it is named by descriptors,
    /// which are `held` until the container has them.
    pub(crate) fn resolve_mounts(
        &self,
        record: &Record,
        plan: &Plan,
        ids: Option<&Mapped>,
        held: &mut Vec<OwnedFd>,
    ) -> Result<Vec<ResolvedMount>> {
        plan.mounts.iter().map(|mount| self.resolve_mount(record, mount, ids, held)).collect()
    }

    fn resolve_mount(
        &self,
        record: &Record,
        mount: &MountPlan,
        ids: Option<&Mapped>,
        held: &mut Vec<OwnedFd>,
    ) -> Result<ResolvedMount> {
        use super::mounts::Recursive;
        let what = match &mount.source {
            Source::Bind { path, missing, propagation, recursive } => {
                if *missing == Missing::Create && !Path::new(path).exists() {
                    std::fs::create_dir_all(path)
                        .context(|| format!("error while creating mount source path '{path}'"))?;
                }
                check_source(path, Missing::Refuse)?;
                What::Bind {
                    source: PathBuf::from(path),
                    propagation: propagation.clone(),
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
                let source = match subpath {
                    None => path,
                    Some(below) => {
                        let found = subpath_of(&path, below)?;
                        let name = sys::fd::path_for_others(found.as_fd());
                        held.push(found);
                        name
                    }
                };
                What::Bind { source, propagation: String::new(), recursive: Recursive::Enabled }
            }
            Source::Tmpfs { options } => What::Tmpfs { options: options.clone() },
        };
        let ids = self.mount_ids(ids, mount, &what)?;
        Ok(ResolvedMount { target: mount.target.clone(), read_only: mount.read_only, what, ids })
    }
}

/// A plugin's volume, made for one of a container's mounts.
pub(crate) struct Foreign {
    name: String,
    driver: String,
    source: PathBuf,
    anonymous: bool,
}

/// Whether a plugin has it.
pub(crate) fn is_foreign(point: &MountPoint) -> bool {
    point.r#type == "volume" && point.driver != LOCAL
}

/// Docker's, which has a place for a path here and never has one.
fn mounting() -> String {
    "error while mounting volume ''".to_owned()
}

fn volume_point(
    mount: &MountPlan,
    name: &str,
    source: &Path,
    driver: &str,
    anonymous: bool,
) -> MountPoint {
    MountPoint {
        r#type: "volume".to_owned(),
        name: name.to_owned(),
        source: source.to_string_lossy().into_owned(),
        destination: mount.target.clone(),
        driver: driver.to_owned(),
        // Relabelling is for what is ours.
        mode: match mount.mode.is_empty() && !anonymous && driver == LOCAL {
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

/// A place in a volume. What a container writes there must not lead out of it, not even between this look and the mount:
/// it is handed on as it was found, by descriptor.
fn subpath_of(volume: &Path, below: &str) -> Result<OwnedFd> {
    let root =
        std::fs::File::open(volume).context(|| format!("cannot open {}", volume.display()))?;
    let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::openat2(&root, below, flags, rustix::fs::Mode::empty(), resolve).map_err(|_| {
        Error::invalid(format!(
            "cannot access path {}: it is not a plain path inside the volume",
            below
        ))
    })
}
