//! Images become a running container: everything around it is made as for a new one, its processes come from CRIU.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use oci::runtime::{NamespaceType, Rootfs};
use rustix::fs::FileType;
use rustix::io::FdFlags;
use rustix::mount::{MountFlags, MoveMountFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use stdx::{Context, Error, Result};
use sys::process::{CloneFlags, Fork, StringArray, exit_now};

use super::rpc::{self, Kind, Options};
use super::session::{Conversation, PATH, Work, judge};
use super::{Criu, DESCRIPTORS, NETWORK, NULL, Settings, empty_namespaces};
use crate::create::{Create, Running, Stdio};
use crate::rootfs::{Plan, Sources};
use crate::{cgroup, rootfs, spawn};

/// Where to restore from, and how.
#[derive(Debug)]
pub struct Restore<'a> {
    pub images: &'a Path,
    pub lsm_profile: Option<String>,
    pub settings: &'a Settings,
}

/// Brings what was dumped back to life as a child of the caller. After a failure nothing of it remains.
pub fn restore(criu: &Criu, from: &Restore, create: Create) -> Result<Running> {
    let images = Work::open(from.images)?;
    let own = from.settings.work.as_deref().map(Work::open).transpose()?;
    let work = own.as_ref().unwrap_or(&images);
    criu.check(work)?;
    let streams = Streams::read(from.images)?;
    let linux = create.spec.linux_or_default();
    if create.namespaces.iter().any(|(kind, _)| *kind == NamespaceType::User)
        || linux.namespace(NamespaceType::User).is_some_and(|user| user.path.is_some())
    {
        return Err(Error::not_implemented(
            "CRIU cannot restore a container whose users are mapped by a namespace from outside",
        ));
    }
    let rootfs: &Rootfs = create.rootfs;
    let ids = create.options.rootfs_ids;
    let plan = Plan::of(create.spec, rootfs, create.bundle, create.options.pivot, ids)?;
    let sources = Sources::open(&plan, create.binds, None)?;
    let root = sources.share_root()?;
    let network = create.namespaces.into_iter().find(|(kind, _)| *kind == NamespaceType::Network);
    let network = match network {
        Some((_, given)) => Some(given),
        None => open_network(&linux)?,
    };
    let resources = linux.resources.clone().unwrap_or_default();
    let mut cgroup = cgroup::Handle::create(create.cgroup, &resources)?;
    let stage = Stage::at(create.state_dir.join("restore"));
    let terminal = create.spec.process.as_ref().is_some_and(|process| process.terminal);
    let mut options = Options {
        log_file: "restore.log".to_owned(),
        root: Some(stage.root().to_string_lossy().into_owned()),
        tcp_established: from.settings.tcp_established,
        external_unix_sockets: from.settings.external_unix_sockets,
        shell_job: from.settings.shell_job,
        file_locks: from.settings.file_locks,
        auto_dedup: from.settings.auto_dedup,
        notify: terminal,
        orphan_terminal: terminal,
        sibling: true,
        cgroups: Some(from.settings.cgroups),
        cgroup_roots: cgroup_roots(create.cgroup),
        empty_namespaces: empty_namespaces(from.settings),
        lsm_profile: from.lsm_profile.clone(),
        ..Options::default()
    };
    for (number, place) in rootfs::bind_places(create.spec).enumerate() {
        let source = stage.bind(number);
        options.external.push(format!("mnt[{}]:{}", place.display(), source.display()));
    }
    options.external.push(format!("mnt[{NULL}]:{NULL}"));
    let mut inherited = Vec::new();
    if let Some(network) = &network {
        options.inherit.push((NETWORK.to_owned(), network.as_raw_fd()));
        inherited.push(network.as_fd());
    }
    let own = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let given = match &create.stdio {
        Stdio::Fds { stdin, stdout, stderr } => [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
        Stdio::Inherit | Stdio::Terminal => own,
    };
    for (name, fd) in streams.pipes(given) {
        options.inherit.push((name, fd.as_raw_fd()));
        inherited.push(fd);
    }
    let restored = stage.make().and_then(|()| {
        let (ours, theirs) = sys::socket::pair().context(|| "cannot make a socket".to_owned())?;
        let joiner = cgroup.joiner()?;
        match sys::process::fork().context(|| "cannot fork".to_owned())? {
            Fork::Child => {
                drop(ours);
                // A panic must not climb into what the parent was doing when it made this copy.
                let _failed = catch_unwind(AssertUnwindSafe(|| {
                    match enter(&stage, &plan, &sources, &joiner)
                        .and_then(|()| Ok([Work::open(&images.path)?, Work::open(&work.path)?]))
                    {
                        Ok(here) => become_criu(criu, &here, theirs, &inherited),
                        // If nobody listens any more, there is nobody to tell.
                        Err(error) => tell(&theirs, error.to_string().as_bytes(), &[]),
                    }
                }));
                exit_now(1)
            }
            Fork::Parent { pidfd, .. } => {
                drop(theirs);
                let conversation = Conversation::over(ours);
                let answer = conversation.take_directories().and_then(|[images, work]| {
                    options.images = images.as_raw_fd();
                    options.work = Some(work.as_raw_fd());
                    conversation.ask(&rpc::request(Kind::Restore, Some(&options)))
                });
                let terminal = conversation.take_terminal();
                drop(conversation);
                spawn::reap(&pidfd)?;
                let answer = judge(answer?, Kind::Restore, work, &options.log_file)?;
                let pid = answer.pid.and_then(Pid::from_raw);
                Ok((pid.context(|| "criu does not name what it restored".to_owned())?, terminal))
            }
        }
    });
    let restored = restored.and_then(|(pid, terminal)| {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())
            .context(|| "cannot hold the restored process".to_owned())?;
        cgroup.moved_in()?;
        Ok((pid, pidfd, terminal))
    });
    stage.remove();
    match restored {
        Ok((pid, pidfd, terminal)) => {
            Ok(Running { pid, pidfd, terminal, cgroup, root: Some(root) })
        }
        Err(error) => {
            // Half of it may be there.
            cgroup.kill_all()?;
            cgroup.destroy()?;
            Err(error)
        }
    }
}

/// The one that the spec names by its path.
fn open_network(linux: &oci::runtime::Linux) -> Result<Option<OwnedFd>> {
    let path = linux.namespace(NamespaceType::Network).and_then(|network| network.path.as_ref());
    path.map(|path| {
        let file = fs::File::open(path);
        Ok(file.context(|| format!("cannot join namespace {}", path.display()))?.into())
    })
    .transpose()
}

/// Where its groups are now, by controller.
fn cgroup_roots(location: &cgroup::Location) -> Vec<(String, String)> {
    let path = |place: &cgroup::Place| format!("/{}", place.path.display());
    location
        .v1()
        .iter()
        .flat_map(|place| place.controllers.iter().map(move |name| (name.clone(), path(place))))
        .collect()
}

/// What the standard streams were.
struct Streams(Vec<String>);

impl Streams {
    fn read(images: &Path) -> Result<Self> {
        const LONGEST: usize = 16 << 10;
        let words = || format!("cannot read {DESCRIPTORS}");
        let file = match fs::File::open(images.join(DESCRIPTORS)) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::not_found(format!("{} holds no checkpoint", images.display())));
            }
            other => other.context(words)?,
        };
        let bytes = stdx::bounded::read_to_end(file, LONGEST, DESCRIPTORS)?;
        serde_json::from_slice(&bytes).map(Self).map_err(std::io::Error::from).context(words)
    }

    /// Pipes are the engine's, so they are given anew; the rest is the container's own.
    fn pipes<'a>(&self, given: [BorrowedFd<'a>; 3]) -> Vec<(String, BorrowedFd<'a>)> {
        let named = self.0.iter().cloned().zip(given);
        named.filter(|(name, _)| name.starts_with("pipe:")).collect()
    }
}

/// A directory in which root and binds come together, in a mount namespace that only CRIU sees.
struct Stage(PathBuf);

impl Stage {
    fn at(path: PathBuf) -> Self {
        Self(path)
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn bind(&self, number: usize) -> PathBuf {
        self.0.join(number.to_string())
    }

    fn make(&self) -> Result<()> {
        fs::create_dir_all(&self.0).context(|| format!("cannot make {}", self.0.display()))
    }

    fn remove(&self) {
        // Empty outside of that namespace; what is left of it goes with the container's directory.
        let _left = fs::remove_dir(&self.0);
    }

    fn fill(&self, plan: &Plan, sources: &Sources) -> Result<()> {
        let words = || "cannot prepare the container's file system".to_owned();
        rustix::mount::mount("tmpfs", &self.0, "tmpfs", MountFlags::empty(), None)
            .context(words)?;
        fs::create_dir(self.root()).context(words)?;
        attach(sources.root.as_fd(), &self.root()).context(words)?;
        for (number, source) in sources.binds(plan).enumerate() {
            let place = self.bind(number);
            let kind = FileType::from_raw_mode(rustix::fs::fstat(source).context(words)?.st_mode);
            match kind {
                FileType::Directory => fs::create_dir(&place),
                _ => fs::write(&place, ""),
            }
            .context(words)?;
            attach(source, &place).context(words)?;
        }
        Ok(())
    }
}

fn attach(tree: BorrowedFd, place: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", rustix::fs::CWD, place, flags)
        .context(|| format!("cannot mount at {}", place.display()))
}

/// The child: goes where the container shall be, and puts its file system together.
fn enter(stage: &Stage, plan: &Plan, sources: &Sources, joiner: &cgroup::Joiner) -> Result<()> {
    sys::signal::reset_all();
    sys::signal::set_mask(&sys::signal::Set::empty())
        .context(|| "cannot unblock signals".to_owned())?;
    joiner.join()?;
    sys::ns::unshare(CloneFlags::NEWNS).context(|| "cannot make a mount namespace".to_owned())?;
    rootfs::isolate()?;
    stage.fill(plan, sources)
}

fn tell(socket: &OwnedFd, words: &[u8], directories: &[BorrowedFd]) -> Result<()> {
    sys::socket::send_with_fds(socket, words, directories)
        .context(|| "cannot tell who restores".to_owned())?;
    Ok(())
}

/// The child becomes CRIU, with what it shall have.
///
/// CRIU mounts in the directory that it works in, which the kernel allows only where the directory is of its own mount
/// namespace; and it opens it by the number that whoever made the socket has of it. So the parent is given both as they
/// are here.
fn become_criu(
    criu: &Criu,
    [images, work]: &[Work; 2],
    socket: OwnedFd,
    inherited: &[BorrowedFd],
) -> Result<()> {
    tell(&socket, b"here", &[images.fd(), work.fd()])?;
    sys::process::close_on_exec_from(3).context(|| "cannot close descriptors".to_owned())?;
    for fd in inherited.iter().copied().chain([socket.as_fd()]) {
        rustix::io::fcntl_setfd(fd, FdFlags::empty())
            .context(|| "cannot pass a descriptor on".to_owned())?;
    }
    let word = |text: &[u8]| {
        std::ffi::CString::new(text).map_err(|_| Error::invalid("a path contains a null byte"))
    };
    let program = word(criu.program().as_os_str().as_bytes())?;
    let number = socket.as_raw_fd().to_string();
    let argv = StringArray::new(vec![program.clone(), word(b"swrk")?, word(number.as_bytes())?]);
    let env = StringArray::new(vec![word(PATH.as_bytes())?]);
    Err(sys::process::execve(&program, &argv, &env).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pipes_are_given_anew() {
        let streams = Streams(["/dev/null", "pipe:[7]", "pipe:[8]"].map(str::to_owned).to_vec());
        let file = fs::File::open("/dev/null").unwrap();
        let given = streams.pipes([file.as_fd(); 3]);
        let names: Vec<_> = given.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["pipe:[7]", "pipe:[8]"]);
    }

    #[test]
    fn a_directory_without_images_is_no_checkpoint() {
        let place = tempfile::tempdir().unwrap();
        let refused = Streams::read(place.path()).err().unwrap();
        assert_eq!(refused.kind(), stdx::Kind::NotFound);
        fs::write(place.path().join(DESCRIPTORS), "{").unwrap();
        assert!(Streams::read(place.path()).is_err());
    }
}
