//! What can be done with a container's control groups.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

use oci::runtime::{Memory, Resources};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use stdx::{Context, Error, Kind, Result};

use super::dir::{DEEPEST, Dir, is_gone};
use super::systemd::{self, Holder};
use super::{Location, Mode, Place, Setting, Stats, Watch, devices, oom, stats, v1, v2};

/// A container's directories, held open.
#[derive(Debug)]
pub struct Handle {
    location: Location,
    v1: Vec<V1>,
    unified: Option<Dir>,
    /// Until the container lives in a scope of systemd's.
    moving_in: Option<MovingIn>,
    /// What has been watched before anybody was in it.
    watch: Option<Watch>,
}

/// Who keeps the place meanwhile, and what would count him.
#[derive(Debug)]
struct MovingIn {
    _holder: Holder,
    later: Vec<Setting>,
}

#[derive(Debug)]
pub(super) struct V1 {
    pub(super) controllers: Vec<String>,
    pub(super) dir: Dir,
}

/// How long freezing may take before it is given up: a task may sit in the kernel for a while.
const FREEZE: Duration = Duration::from_secs(10);
/// How long after the last kill processes may take to be gone.
const EMPTY: Duration = Duration::from_secs(10);

impl Handle {
    /// Makes the directories and sets their limits. After a failure those made are gone again.
    pub fn create(location: &Location, resources: &Resources) -> Result<Self> {
        if location.is_nowhere() {
            return Self::nowhere(resources);
        }
        let mode = location.mode();
        let settings = match mode {
            Mode::V1 | Mode::Hybrid => v1::settings(resources)?,
            Mode::V2 => v2::settings(resources)?,
        };
        let holder = match &location.unit {
            Some(unit) => Some(systemd::begin(unit, resources, mode)?),
            None => None,
        };
        let mut made = Vec::new();
        let handle = Self::make(location, resources, &mut made).and_then(|mut handle| {
            match holder {
                Some(holder) => handle.begin(holder, settings)?,
                None => handle.set(&settings)?,
            }
            handle.guard_devices(resources, Since::Birth)?;
            if location.unit.is_some() {
                handle.watch_early();
            }
            Ok(handle)
        });
        if handle.is_err() {
            for place in made {
                // The failure above is what somebody has to hear of; what is left behind is empty and found by `destroy`.
                let _ = rustix::fs::rmdir(place.full_path());
            }
            if let Some(unit) = &location.unit {
                let _ = systemd::end(unit);
            }
        }
        handle
    }

    /// How many processes there may be counts once the holder has gone: one may be all.
    fn begin(&mut self, holder: Holder, settings: Vec<Setting>) -> Result<()> {
        let (later, now): (Vec<_>, Vec<_>) =
            settings.into_iter().partition(|setting| setting.controller == "pids");
        let unlimited =
            later.iter().map(|limit| Setting { value: "max".to_owned(), ..limit.clone() });
        let now: Vec<Setting> = now.into_iter().chain(unlimited).collect();
        self.moving_in = Some(MovingIn { _holder: holder, later });
        self.set(&now)
    }

    /// The container's first process is there, or has been.
    pub(crate) fn moved_in(&mut self) -> Result<()> {
        match self.moving_in.take() {
            Some(MovingIn { _holder: holder, later }) => {
                drop(holder);
                match self.set(&later) {
                    Err(_) if !self.dirs().any(|dir| dir.has("cgroup.procs")) => Ok(()),
                    set => set,
                }
            }
            None => Ok(()),
        }
    }

    /// Whoever may make no group cannot reach a device by a node of his own either; limits nobody would keep.
    fn nowhere(resources: &Resources) -> Result<Self> {
        let mut limits = Resources { devices: Vec::new(), ..resources.clone() };
        // No limit is what there is.
        let unlimited = Memory { swap: Some(-1), ..Memory::default() };
        limits.memory = limits.memory.filter(|memory| *memory != unlimited);
        match limits == Resources::default() {
            true => Ok(Self::of(&Location::nowhere())),
            false => Err(Error::new(
                Kind::NotImplemented,
                "cannot set limits: there is no cgroup that we may make",
            )),
        }
    }

    fn make<'a>(
        location: &'a Location,
        resources: &Resources,
        made: &mut Vec<&'a Place>,
    ) -> Result<Self> {
        let mut handle = Self::of(location);
        // Where systemd has made some of them there is the holder.
        let make = |place, made: &mut _| make(place, made, location.unit.is_some());
        for place in &location.v1 {
            let dir = make(place, made)?;
            if place.controllers.iter().any(|name| name == "cpuset") {
                let cpu = resources.cpu.as_ref();
                let wants = |list: fn(&oci::runtime::Cpu) -> &String| {
                    cpu.is_some_and(|cpu| !list(cpu).is_empty())
                };
                v1::inherit_cpuset(
                    &place.mount_point,
                    &place.path,
                    &[
                        ("cpuset.cpus", wants(|cpu| &cpu.cpus)),
                        ("cpuset.mems", wants(|cpu| &cpu.mems)),
                    ],
                )?;
            }
            handle.v1.push(V1 { controllers: place.controllers.clone(), dir });
        }
        if let Some(place) = &location.unified {
            handle.unified = Some(make(place, made)?);
            if location.mode() == Mode::V2 && location.unit.is_none() {
                v2::enable_controllers(&place.mount_point, &place.path);
            }
        }
        if handle.v1.is_empty() && handle.unified.is_none() {
            return Err(Error::new(
                Kind::NotImplemented,
                "no cgroup hierarchy is mounted on this host",
            ));
        }
        Ok(handle)
    }

    /// Opens the directories of an existing container. Those that are gone already are left out; all of them is NotFound.
    pub fn open(location: &Location) -> Result<Self> {
        let open = |place: &Place| match Dir::open(&place.full_path()) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => {
                Err(error).context(|| format!("cannot open cgroup {}", place.full_path().display()))
            }
        };
        let mut handle = Self::of(location);
        for place in &location.v1 {
            if let Some(dir) = open(place)? {
                handle.v1.push(V1 { controllers: place.controllers.clone(), dir });
            }
        }
        if let Some(place) = &location.unified {
            handle.unified = open(place)?;
        }
        if handle.v1.is_empty() && handle.unified.is_none() && !location.is_nowhere() {
            return Err(Error::not_found("the container's cgroup does not exist"));
        }
        Ok(handle)
    }

    fn of(location: &Location) -> Self {
        let location = location.clone();
        Self { location, v1: Vec::new(), unified: None, moving_in: None, watch: None }
    }

    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The v2 directory, for `CLONE_INTO_CGROUP`; on hybrid hosts too.
    pub fn v2_dir(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(Dir::fd)
    }

    /// Moves a process with all its threads here.
    ///
    /// The kernel waits for an RCU grace period first (1 to 20 ms); a child of our own is better born with
    /// [`v2_dir`](Self::v2_dir) and joins v1 by itself with a [`Joiner`], which waits for nobody.
    pub fn add(&self, pid: Pid) -> Result<()> {
        for dir in self.dirs() {
            dir.write("cgroup.procs", &pid.as_raw_nonzero().to_string())?;
        }
        Ok(())
    }

    /// Opens what a process needs to move itself here. A directory of v1 that somebody else has removed is left out: a
    /// systemd that makes no scopes for us moves everybody out of the hierarchies that it has no more use for.
    pub fn joiner(&self) -> Result<Joiner> {
        let open = |dir: &Dir, file| match dir.open_file(file, OFlags::WRONLY) {
            Err(error) if is_gone(&error) => Ok(None),
            opened => opened
                .map(Some)
                .context(|| format!("cannot open {file} in {}", dir.path().display())),
        };
        let v1: Vec<_> =
            self.v1.iter().map(|one| open(&one.dir, "tasks")).collect::<Result<_>>()?;
        let unified = match &self.unified {
            None => None,
            Some(dir) => Some(open(dir, "cgroup.procs")?.context(|| gone(dir))?),
        };
        match (v1.iter().all(Option::is_none), self.v1.first()) {
            (true, Some(one)) => Err(Error::not_found(gone(&one.dir))),
            _ => Ok(Joiner { v1: v1.into_iter().flatten().collect(), unified }),
        }
    }

    /// All processes in the container, its own groups included.
    pub fn procs(&self) -> Result<Vec<Pid>> {
        match self.main() {
            Some(dir) => dir.processes(),
            None => Ok(Vec::new()),
        }
    }

    /// Sends SIGKILL to every process, so that none can fork its way out, and lets frozen ones die. Does not wait for them.
    pub fn kill_all(&self) -> Result<()> {
        // All at once and for those just forking too, where the kernel can (5.14).
        let at_once =
            self.unified.as_ref().is_some_and(|dir| dir.try_write("cgroup.kill", "1").is_ok());
        if !at_once {
            // Nothing runs while the list is read and gone through, so the numbers stay whose they are. If it cannot be
            // frozen, killing what is seen is still right.
            let frozen = self.freeze();
            for pid in self.procs()? {
                kill(pid)?;
            }
            drop(frozen);
        }
        // A frozen process dies on v1 only when it is let go; left frozen, the container could never be removed.
        self.thaw()?;
        if at_once && self.unified_is_not_all() {
            for pid in self.procs()? {
                kill(pid)?;
            }
        }
        Ok(())
    }

    /// On a hybrid host a process may have been moved in v1 alone, by [`add`](Self::add) of another runtime.
    fn unified_is_not_all(&self) -> bool {
        !self.v1.is_empty()
    }

    /// Stops every process where it is; returns when all stand. After a failure none does.
    pub fn freeze(&self) -> Result<()> {
        let done = match (self.controller("freezer"), &self.unified) {
            (Some(dir), _) => v1::freeze(dir, Instant::now() + FREEZE),
            (None, Some(dir)) if self.v1.is_empty() => v2::freeze(dir, Instant::now() + FREEZE),
            _ => return Err(Error::new(Kind::NotImplemented, "the host has no cgroup freezer")),
        };
        if done.is_err() {
            self.thaw()?;
        }
        done
    }

    /// Lets them run on. Nothing happens to a container that is not frozen.
    pub fn thaw(&self) -> Result<()> {
        match (self.controller("freezer"), &self.unified) {
            (Some(dir), _) => gone_is_fine(dir, dir.try_write("freezer.state", "THAWED")),
            (None, Some(dir)) => gone_is_fine(dir, dir.try_write("cgroup.freeze", "0")),
            (None, None) => Ok(()),
        }
    }

    pub fn frozen(&self) -> Result<bool> {
        match (self.controller("freezer"), &self.unified) {
            (Some(dir), _) => Ok(dir.read("freezer.state")?.trim() == "FROZEN"),
            (None, Some(dir)) => v2::frozen(dir),
            (None, None) => Ok(false),
        }
    }

    /// Changes limits; what is not mentioned stays.
    pub fn update(&self, resources: &Resources) -> Result<()> {
        if self.location.is_nowhere() {
            return Self::nowhere(resources).map(drop);
        }
        let settings = match self.location.mode() {
            Mode::V1 | Mode::Hybrid => v1::settings(resources)?,
            Mode::V2 => v2::settings(resources)?,
        };
        if resources.memory.as_ref().is_some_and(|memory| memory.check_before_update == Some(true))
        {
            self.check_usage(resources)?;
        }
        if let Some(unit) = &self.location.unit {
            systemd::update(unit, resources, self.location.mode())?;
        }
        self.set(&settings)?;
        self.guard_devices(resources, Since::Before)
    }

    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        for one in &self.v1 {
            for controller in &one.controllers {
                stats::read_v1(controller, &one.dir, &mut stats)?;
            }
        }
        match &self.unified {
            Some(dir) if self.v1.is_empty() => stats::read_v2(dir, &mut stats)?,
            _ => {}
        }
        Ok(stats)
    }

    /// Before anybody runs in it: watches what v1 forgets with the group, which is systemd's to remove at any moment.
    pub fn watch_early(&mut self) {
        // Whoever needs it asks again, and hears why not.
        self.watch = self.controller("memory").and_then(|dir| Watch::v1_to_the_end(dir).ok());
    }

    /// The one that was begun early, if one was.
    pub fn early_watch(&mut self) -> Option<Watch> {
        self.watch.take()
    }

    /// What becomes readable when the container runs out of memory (and, on v1, when the group is removed). Read it empty
    /// with [`Watch::forget`], then ask [`oom_kills`](Self::oom_kills).
    pub fn oom_watch(&self) -> Result<Watch> {
        match (self.controller("memory"), &self.unified) {
            (Some(dir), _) => Watch::v1(dir),
            (None, Some(dir)) if dir.has("memory.events") => Watch::v2(dir),
            _ => Err(Error::new(Kind::NotImplemented, "the host has no memory controller")),
        }
    }

    /// How many processes of the container have been killed because it was out of memory. Nothing where nobody counts, or
    /// not any more: systemd removes a scope as soon as nobody is in it.
    pub fn oom_kills(&self) -> Result<Option<u64>> {
        match (self.controller("memory"), &self.unified) {
            (Some(dir), _) => oom::kills(dir, "memory.oom_control"),
            (None, Some(dir)) => oom::kills(dir, "memory.events"),
            _ => Ok(None),
        }
    }

    /// How many in all the groups with the same parent: [`Location::oom_kills_around`].
    pub fn oom_kills_around(&self) -> Option<u64> {
        self.location.oom_kills_around()
    }

    /// Gives the v2 group to a user who may then make groups of his own in it (a container with its own user and cgroup
    /// namespaces). Nothing on v1, where it would be a way out.
    pub fn delegate(&self, uid: u32, gid: u32) -> Result<()> {
        let Some(dir) = self.unified.as_ref().filter(|_| self.v1.is_empty()) else { return Ok(()) };
        let owner = (Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)));
        rustix::fs::fchown(dir.fd(), owner.0, owner.1)
            .context(|| format!("cannot chown {}", dir.path().display()))?;
        let listed = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
        let listed = listed.unwrap_or_else(|_| {
            "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n".to_owned()
        });
        for file in listed.lines() {
            match rustix::fs::chownat(
                dir.fd(),
                file,
                owner.0,
                owner.1,
                rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
            ) {
                // The list is of all controllers', the files of those that are on.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => {
                    return Err(errno)
                        .context(|| format!("cannot chown {file} in {}", dir.path().display()));
                }
            }
        }
        Ok(())
    }

    /// Removes the directories, and the container's own in them. Waits, within reason, for killed processes to be gone.
    pub fn destroy(&self) -> Result<()> {
        let deadline = Instant::now() + EMPTY;
        for place in self.location.v1.iter().chain(&self.location.unified) {
            self.remove(&place.full_path(), deadline)?;
        }
        match &self.location.unit {
            Some(unit) => systemd::end(unit),
            None => Ok(()),
        }
    }

    fn remove(&self, path: &Path, deadline: Instant) -> Result<()> {
        let mut pause = Duration::from_micros(200);
        loop {
            match rustix::fs::rmdir(path) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // Something lives there: processes on their way out, or the container's own groups.
                Err(Errno::BUSY) if Instant::now() < deadline => {
                    if let Ok(dir) = Dir::open(path) {
                        dir.remove_children(DEEPEST);
                        self.wait_until_empty(&dir, pause)?;
                    }
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Err(errno) => {
                    return Err(errno)
                        .context(|| format!("unable to destroy cgroup {}", path.display()));
                }
            }
        }
    }

    /// Waits for the kernel's word on v2; v1 tells nobody, so there it is a pause.
    fn wait_until_empty(&self, dir: &Dir, pause: Duration) -> Result<()> {
        let timeout = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: i64::try_from(pause.as_nanos()).expect("a pause is short"),
        };
        let events = dir.open_file("cgroup.events", OFlags::RDONLY);
        let waited = match &events {
            Ok(events) => poll(&mut [PollFd::new(events, PollFlags::PRI)], Some(&timeout)),
            Err(_) => poll(&mut [], Some(&timeout)),
        };
        match waited {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn set(&self, settings: &[Setting]) -> Result<()> {
        if let (Some(dir), true) = (&self.unified, self.v1.is_empty()) {
            return dir.apply(settings.iter());
        }
        for one in &self.v1 {
            one.dir.apply(settings.iter().filter(|setting| one.has(setting.controller)))?;
        }
        match settings.iter().find(|setting| !self.v1.iter().any(|one| one.has(setting.controller)))
        {
            Some(Setting { controller, file, .. }) => Err(Error::new(
                Kind::NotImplemented,
                format!("cannot set {file}: the host has no {controller} cgroup hierarchy"),
            )),
            None => Ok(()),
        }
    }

    fn guard_devices(&self, resources: &Resources, since: Since) -> Result<()> {
        if resources.devices.is_empty() && matches!(since, Since::Before) {
            return Ok(());
        }
        let mut rules = devices::parse(&resources.devices)?;
        rules.extend(devices::defaults());
        match (self.controller("devices"), &self.unified) {
            (Some(dir), _) => {
                let present = match since {
                    Since::Birth => None,
                    Since::Before => Some(dir.read("devices.list")?),
                };
                for (file, rule) in devices::v1(&rules, present.as_deref())? {
                    dir.write(file, &rule)?;
                }
                Ok(())
            }
            (None, Some(dir)) => devices::attach(dir.fd(), &rules),
            (None, None) => Err(Error::new(
                Kind::NotImplemented,
                "the host has no way to keep a container from devices",
            )),
        }
    }

    /// Refuses a memory limit that is below what is in use already.
    fn check_usage(&self, resources: &Resources) -> Result<()> {
        let Some(limit) = resources.memory.as_ref().and_then(|memory| memory.limit) else {
            return Ok(());
        };
        let (Ok(limit), usage) = (u64::try_from(limit), self.stats()?.memory.usage) else {
            return Ok(());
        };
        match limit > 0 && usage > limit {
            true => Err(Error::invalid(format!(
                "rejecting memory limit {limit} because of the usage {usage} (resources.CheckBeforeUpdate)"
            ))),
            false => Ok(()),
        }
    }

    fn dirs(&self) -> impl Iterator<Item = &Dir> {
        self.v1.iter().map(|one| &one.dir).chain(&self.unified)
    }

    /// The v1 directory of a controller.
    fn controller(&self, name: &str) -> Option<&Dir> {
        self.v1.iter().find(|one| one.has(name)).map(|one| &one.dir)
    }

    /// The one whose list of processes is believed: where a container's processes can least have moved away from.
    fn main(&self) -> Option<&Dir> {
        ["devices", "pids", "freezer", "memory"]
            .iter()
            .find_map(|name| self.controller(name))
            .or(self.unified.as_ref())
            .or_else(|| self.v1.first().map(|one| &one.dir))
    }
}

impl V1 {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

/// Does the group already have device rules that somebody lives under?
#[derive(Clone, Copy)]
enum Since {
    Birth,
    Before,
}

/// What a process needs to move itself into a container, wherever its root and user have gone meanwhile.
///
/// To be used by a process with one thread: `tasks` moves a thread, and does so without the grace period that moving a
/// process costs.
#[derive(Debug)]
pub struct Joiner {
    v1: Vec<OwnedFd>,
    unified: Option<OwnedFd>,
}

impl Joiner {
    /// Moves the caller. The permission is that of whoever opened the files.
    pub fn join(&self) -> Result<()> {
        for fd in self.v1.iter().chain(&self.unified) {
            rustix::io::write(fd, b"0")
                .context(|| "cannot join the container's cgroup".to_owned())?;
        }
        Ok(())
    }

    /// As [`join`](Self::join), for a process that was born in the v2 group.
    pub fn join_v1(&self) -> Result<()> {
        for fd in &self.v1 {
            rustix::io::write(fd, b"0")
                .context(|| "cannot join the container's cgroup".to_owned())?;
        }
        Ok(())
    }

    /// The descriptors, for whoever must not close or inherit them.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.v1.iter().chain(&self.unified).map(AsFd::as_fd)
    }
}

/// One directory, with its parents. An existing one must be empty, unless it is `held` for us: it is somebody's preparation,
/// not somebody's home.
fn make<'a>(place: &'a Place, made: &mut Vec<&'a Place>, held: bool) -> Result<Dir> {
    let path = place.full_path();
    let what = || format!("cannot create cgroup {}", path.display());
    let mut builder = DirBuilder::new();
    builder.mode(0o755);
    let created = match builder.create(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().expect("a place is below its mount point");
            DirBuilder::new().recursive(true).mode(0o755).create(parent).context(what)?;
            builder.create(&path)
        }
        created => created,
    };
    match created {
        Ok(()) => made.push(place),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).context(what),
    }
    let dir = Dir::open(&path).context(what)?;
    if !held && !made.iter().any(|one| std::ptr::eq(*one, place)) {
        let count = dir.processes()?.len();
        if count > 0 {
            return Err(Error::conflict(format!(
                "container's cgroup is not empty: {count} process(es) found"
            )));
        }
    }
    Ok(dir)
}

fn gone(dir: &Dir) -> String {
    format!("cgroup {} is gone", dir.path().display())
}

fn kill(pid: Pid) -> Result<()> {
    match rustix::process::kill_process(pid, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => {
            Err(errno).context(|| format!("cannot kill process {}", pid.as_raw_nonzero()))
        }
    }
}

fn gone_is_fine(dir: &Dir, done: io::Result<()>) -> Result<()> {
    match done {
        Err(error) if is_gone(&error) => Ok(()),
        done => done.context(|| format!("cannot thaw {}", dir.path().display())),
    }
}
