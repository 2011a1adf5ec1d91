//! Secrets and configs come to a container: files in memory that nobody else has mounted, written before it starts, and
//! replaced while it runs.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use stdx::{Context, Error, Result};
use storage::beneath;
use sys::mount::{Attr, Change, Reach, mount_setattr};

use super::Container;
use super::ids::Ids;
use super::mounts::Recursive;
use super::plan::Plan;
use super::plan::files::{FilePlace, FilePlan, PLACE};
use super::spec::{MountIds, ResolvedMount, What};
use super::volumes::Held;

/// In a container's run directory: the number of the file system that its secrets are on.
const NUMBER: &str = "secrets";

impl Container {
    /// Makes the files for one run. They are named by descriptors, which are `held` until the container has them.
    pub(crate) fn hand_over_secrets(
        &self,
        plan: &Plan,
        ids: Option<&Ids>,
        held: &mut Held,
    ) -> Result<Vec<ResolvedMount>> {
        let mut mounts = Vec::new();
        let common: Vec<_> = plan.files.iter().filter(|file| name_of(file).is_some()).collect();
        if !common.is_empty() {
            // Room for each twice: a new one is there before the old one goes.
            let room = common.iter().map(|file| 2 * file.sort.limit()).sum();
            let memory = memory(room, ids)?;
            for file in &common {
                self.write_secret(&memory, name_of(file).unwrap_or_default(), file, ids)?;
            }
            let number = rustix::fs::fstat(&memory)?.st_dev.to_string();
            let path = self.rooms.exec_dir(&self.cell.id).join(NUMBER);
            std::fs::write(&path, number).context(|| format!("cannot write {}", path.display()))?;
            mounts.push(mount(PLACE));
            held.trees.push((PathBuf::from(PLACE), memory));
        }
        for file in &plan.files {
            let FilePlace::Alone(path) = &file.place else { continue };
            let memory = memory(file.sort.limit(), ids)?;
            self.write_secret(&memory, "file", file, ids)?;
            mounts.push(mount(path));
            held.trees.push((PathBuf::from(path), self.part_of(memory, "file")?));
        }
        Ok(mounts)
    }

    fn write_secret(
        &self,
        memory: &OwnedFd,
        name: &str,
        file: &FilePlan,
        ids: Option<&Ids>,
    ) -> Result<()> {
        let record = self.rooms.secret(file.sort, &file.id)?;
        let data = self.rooms.payload(&record, &self.record())?;
        let words = || format!("cannot hand over {} {}", file.sort.word(), record.name);
        let owner = match ids {
            None => (file.uid, file.gid),
            Some(ids) => ids
                .outside(file.uid, file.gid)
                .ok_or_else(|| {
                    Error::invalid(format!(
                        "user {}:{} is none of the container's",
                        file.uid, file.gid
                    ))
                })
                .context(words)?,
        };
        put(memory, Path::new(name), &data, owner, file.mode).context(words)
    }

    /// What has been replaced is replaced inside, of a container that runs, and its first process told if it wants to be. A
    /// file with a mount of its own stays as it is until the next start: there is no moment in which it could be exchanged.
    pub(crate) async fn renew_secrets(&self) {
        let _gate = self.cell.gate.lock().await;
        if !self.record().state.phase.is_up() {
            return;
        }
        let this = self.clone();
        match tokiox::blocking(move || this.renew_secrets_held()).await {
            Ok(signals) => {
                for number in signals {
                    let told =
                        self.with_shim(move |shim| shim.kill(number, shim::Whom::Init)).await;
                    match told {
                        Ok(()) => self.event("kill", &[("signal", number.to_string())]),
                        // It has ended by itself meanwhile.
                        Err(error) => {
                            tracing::debug!(container = %self.cell.id, error = %error.chain(), "cannot tell of a replaced secret");
                        }
                    }
                }
            }
            Err(error) => {
                tracing::warn!(container = %self.cell.id, error = %error.chain(), "cannot replace a secret");
            }
        }
    }

    /// With the gate held. Answers the signals that are to be sent.
    pub(crate) fn renew_secrets_held(&self) -> Result<Vec<i32>> {
        let record = self.record();
        let plan = record.plan(&self.rooms.settings())?;
        let common: Vec<_> = plan.files.iter().filter(|file| name_of(file).is_some()).collect();
        if common.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.rooms.exec_dir(&record.id).join(NUMBER);
        let number =
            std::fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))?;
        let number: u64 = number
            .parse()
            .map_err(|_| Error::internal(format!("{} holds no number", path.display())))?;
        let living = self.living_tree(vec![PLACE.to_owned()])?.mounts.pop();
        // The container may have put something else there: that is its own affair.
        let memory = living
            .map(|(_, tree)| tree)
            .filter(|tree| rustix::fs::fstat(tree).is_ok_and(|stat| stat.st_dev == number));
        let Some(memory) = memory else { return Ok(Vec::new()) };
        let open = Change { clear: Attr::RDONLY, ..Change::default() };
        mount_setattr(&memory, Reach::Mount, &open)
            .context(|| "cannot open a container's secrets for writing".to_owned())?;
        let ids = self.ids_now(&record, &plan)?;
        let mut signals = Vec::new();
        for file in common {
            let name = name_of(file).unwrap_or_default();
            let data = self.rooms.payload(&self.rooms.secret(file.sort, &file.id)?, &record)?;
            if read(&memory, name).is_some_and(|old| old == data) {
                continue;
            }
            self.write_secret(&memory, name, file, ids.as_ref())?;
            signals.extend(file.signal);
        }
        signals.dedup();
        Ok(signals)
    }
}

/// Its name below [`PLACE`].
fn name_of(file: &FilePlan) -> Option<&str> {
    match &file.place {
        FilePlace::Common(name) => Some(name),
        FilePlace::Alone(_) => None,
    }
}

fn mount(target: &str) -> ResolvedMount {
    ResolvedMount {
        target: target.to_owned(),
        read_only: true,
        what: What::Bind {
            source: PathBuf::from("secrets"),
            propagation: String::new(),
            recursive: Recursive::Enabled,
        },
        ids: MountIds::Host,
    }
}

/// A file system in memory, attached nowhere. It is never swapped out where the kernel can promise that (6.4).
fn memory(room: usize, ids: Option<&Ids>) -> Result<OwnedFd> {
    let words = || "cannot make a place in memory".to_owned();
    let memory = new_tmpfs(room, true).or_else(|_| new_tmpfs(room, false)).context(words)?;
    if let Some((uid, gid)) = ids.and_then(Ids::root) {
        own(&memory, (uid, gid)).context(words)?;
    }
    Ok(memory)
}

fn new_tmpfs(room: usize, never_swapped: bool) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", "secrets")?;
    // And something for the directories.
    rustix::mount::fsconfig_set_string(&context, "size", (room + (1 << 20)).to_string())?;
    rustix::mount::fsconfig_set_string(&context, "mode", "0755")?;
    if never_swapped {
        rustix::mount::fsconfig_set_flag(&context, "noswap")?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let safe = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, safe)
}

/// Also of a mount that is held by its root only.
fn own(file: impl AsFd, (uid, gid): (u32, u32)) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}

/// Writes a file beside its place and moves it there: whoever reads has the old one or the new one, whole.
fn put(root: &OwnedFd, name: &Path, data: &[u8], owner: (u32, u32), mode: u32) -> Result<()> {
    let mut directory = rustix::io::fcntl_dupfd_cloexec(root, 0)?;
    for part in name.parent().into_iter().flat_map(Path::components) {
        match rustix::fs::mkdirat(&directory, part.as_os_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        directory = rustix::fs::openat(&directory, part.as_os_str(), flags, Mode::empty())?;
        // As the root of them all belongs to the container's.
        let above = rustix::fs::fstat(root)?;
        own(&directory, (above.st_uid, above.st_gid))?;
    }
    let name = name.file_name().context(|| "a file has a name".to_owned())?;
    let staged = format!(".{}", stdx::Id::random().short());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&directory, &*staged, flags, Mode::from_raw_mode(0o600))?;
    let written = std::io::Write::write_all(&mut std::fs::File::from(file.try_clone()?), data)
        .map_err(Error::from)
        .and_then(|()| Ok(own(&file, owner)?))
        .and_then(|()| Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?))
        .and_then(|()| Ok(rustix::fs::renameat(&directory, &*staged, &directory, name)?));
    if written.is_err() {
        let _gone = rustix::fs::unlinkat(&directory, &*staged, AtFlags::empty());
    }
    written
}

/// What is in the file now, if it is one.
fn read(root: &OwnedFd, name: &str) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = beneath::open_plain(root.as_fd(), name.as_bytes(), flags).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut data = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(file), &mut data).ok()?;
    Some(data)
}
