//! Somebody else's OCI runtime (`--runtime /path/to/runc`): driven by its command line, as containerd drives it.
//!
//! What it makes becomes a child of ours because the shim is a subreaper, so the rest of the shim sees no difference.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oci::runtime::{Linux, Namespace, NamespaceType, Process, Root, Rootfs, Spec};
use runtime::cgroup::Driver;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_bind_recursive,
    mount_change, move_mount, unmount,
};
use rustix::process::Pid;
use serde_json::Value;
use stdx::{Context, Error, Result};
use sys::overlay::Layer;
use sys::process::CloneFlags;

use crate::protocol::LaunchCall;
use crate::task::{Borrowed, Streams, write_spec};

/// Where a runtime's hooks and helpers are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug)]
pub(crate) struct External {
    program: PathBuf,
    dir: PathBuf,
    id: String,
    cgroup_driver: Driver,
}

impl External {
    pub(crate) fn new(program: &Path, call: &LaunchCall) -> Self {
        Self {
            program: program.to_owned(),
            dir: call.dir.clone(),
            id: call.id.clone(),
            cgroup_driver: call.cgroup_driver,
        }
    }

    pub(crate) fn create(
        &self,
        call: &LaunchCall,
        borrowed: &Borrowed,
        streams: Streams,
    ) -> Result<(Pid, Option<OwnedFd>)> {
        let rootfs = self.mount_rootfs(&call.rootfs)?;
        write_spec(&self.dir, &self.spec(call, borrowed, rootfs))?;
        let bundle = self.dir.clone();
        self.spawn("create", streams, |command| {
            command.arg("--bundle").arg(bundle);
        })
    }

    pub(crate) fn start(&self) -> Result<()> {
        let mut command = self.command("start");
        command.arg(&self.id).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.finish(command)
    }

    pub(crate) fn exec(
        &self,
        process: &Process,
        streams: Streams,
    ) -> Result<(Pid, Option<OwnedFd>)> {
        let path = self.dir.join("process.json");
        let mut process = process.clone();
        process.terminal = matches!(streams, Streams::Terminal);
        let bytes = serde_json::to_vec(&process).map_err(std::io::Error::from)?;
        fs::write(&path, bytes).context(|| "cannot write process.json".to_owned())?;
        self.spawn("exec", streams, |command| {
            command.arg("--detach").arg("--process").arg(path);
        })
    }

    /// After the end: its own records and mounts. What it cannot remove, the cgroup's end removes.
    pub(crate) fn delete(&self) {
        let mut command = self.command("delete");
        command
            .arg("--force")
            .arg(&self.id)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Err(error) = self.finish(command) {
            crate::server::report(&self.dir, &error);
        }
        // It goes with our mount namespace anyway; now, so that the directory can be removed.
        let _gone = unmount(self.dir.join("rootfs"), UnmountFlags::DETACH);
    }

    /// Runs a command that makes a process, and finds that by the file it writes the number into.
    fn spawn(
        &self,
        verb: &str,
        streams: Streams,
        add: impl FnOnce(&mut Command),
    ) -> Result<(Pid, Option<OwnedFd>)> {
        let pid_file = self.dir.join("pid");
        let mut command = self.command(verb);
        add(&mut command);
        command.arg("--pid-file").arg(&pid_file);
        let console = match streams {
            Streams::Pipes { stdin, stdout, stderr } => {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
                None
            }
            Streams::Terminal => {
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                let console = Console::open(&self.dir)?;
                command.arg("--console-socket").arg(console.path());
                Some(console)
            }
        };
        command.arg(&self.id);
        self.finish(command)?;
        let terminal = console.map(Console::receive).transpose()?;
        let text = fs::read_to_string(&pid_file)
            .context(|| format!("cannot read {}", pid_file.display()))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| {
            Error::internal(format!("{} holds no process id: {text:?}", pid_file.display()))
        })?;
        Ok((pid, terminal))
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("PATH", PATH).current_dir(&self.dir);
        command.arg("--root").arg(self.dir.join("oci")).arg("--log").arg(self.log());
        if self.cgroup_driver == Driver::Systemd {
            command.arg("--systemd-cgroup");
        }
        command.args(["--log-format", "json", verb]);
        command
    }

    fn log(&self) -> PathBuf {
        self.dir.join("runtime.log")
    }

    fn finish(&self, mut command: Command) -> Result<()> {
        let program = self.program.display().to_string();
        // Its words about this command, not about the last.
        let _none = fs::remove_file(self.log());
        let mut child = command.spawn().context(|| format!("cannot execute {program}"))?;
        // The ends of the container's streams must be the container's alone.
        drop(command);
        let status = child.wait().context(|| format!("cannot wait for {program}"))?;
        if status.success() {
            return Ok(());
        }
        Err(Error::internal(
            last_error(&self.log()).unwrap_or_else(|| format!("{program} failed: {status}")),
        ))
    }

    /// The spec as it must be told to a program: paths where our runtime takes descriptors.
    fn spec(&self, call: &LaunchCall, borrowed: &Borrowed, rootfs: PathBuf) -> Spec {
        let mut spec = (*call.spec).clone();
        let readonly = spec.root.as_ref().is_some_and(|root| root.readonly);
        spec.root = Some(Root { path: rootfs, readonly });
        if let Some(process) = &mut spec.process {
            process.terminal = call.tty;
        }
        let linux = spec.linux.get_or_insert_with(Linux::default);
        let path_of = |fd: &OwnedFd| {
            format!("/proc/{}/fd/{}", std::process::id(), sys::fd::number(fd.as_fd()))
        };
        for (place, tree) in &borrowed.trees {
            let mount = spec.mounts.iter_mut().find(|mount| mount.destination == *place);
            if let Some(mount) = mount {
                mount.source = Some(path_of(tree).into());
            }
        }
        if let Some(netns) = &borrowed.netns {
            let path = path_of(netns);
            linux.namespaces.retain(|namespace| namespace.kind != NamespaceType::Network);
            linux
                .namespaces
                .push(Namespace { kind: NamespaceType::Network, path: Some(path.into()) });
        }
        spec
    }

    /// Puts the root file system together where only we and what we start can see it.
    fn mount_rootfs(&self, rootfs: &Rootfs) -> Result<PathBuf> {
        let what = || "cannot mount the root file system".to_owned();
        sys::ns::unshare(CloneFlags::NEWNS).context(what)?;
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .context(what)?;
        let target = self.dir.join("rootfs");
        fs::create_dir_all(&target).context(what)?;
        match rootfs {
            Rootfs::Directory { path } => mount_bind_recursive(path, &target).context(what)?,
            Rootfs::Overlay { lowers, upper, work, volatile } => {
                let mount = mount_overlay(lowers, upper, work, *volatile).context(what)?;
                move_mount(
                    &mount,
                    "",
                    rustix::fs::CWD,
                    &target,
                    MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
                )
                .context(what)?;
            }
        }
        Ok(target)
    }
}

/// Detached.
fn mount_overlay(
    lowers: &[PathBuf],
    upper: &Path,
    work: &Path,
    volatile: bool,
) -> std::io::Result<OwnedFd> {
    let options = if volatile { &["volatile"][..] } else { &[] };
    if !sys::overlay::takes_layers_singly() {
        let overlay = sys::overlay::Overlay {
            lowers: lowers.iter().map(|lower| Layer::Path(lower)).collect(),
            upper: Some((Layer::Path(upper), Layer::Path(work))),
            options: options.to_vec(),
            detached: Vec::new(),
        };
        return overlay.mount();
    }
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for lower in lowers {
        fsconfig_set_string(&overlay, "lowerdir+", lower.as_path())?;
    }
    fsconfig_set_string(&overlay, "upperdir", upper)?;
    fsconfig_set_string(&overlay, "workdir", work)?;
    for option in options {
        fsconfig_set_flag(&overlay, *option)?;
    }
    fsconfig_create(&overlay)?;
    Ok(fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// The last thing a runtime complained about, in its own words.
fn last_error(log: &Path) -> Option<String> {
    let lines = BufReader::new(File::open(log).ok()?).lines().map_while(Result::ok);
    let entries = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    let errors = entries.filter(|entry| entry["level"] == "error");
    errors.last().and_then(|entry| Some(entry["msg"].as_str()?.to_owned()))
}

/// Where a runtime sends the master of the terminal it has made.
struct Console {
    listener: UnixListener,
    dir: OwnedFd,
    on_disk: PathBuf,
}

impl Console {
    const NAME: &str = "console.sock";

    fn open(dir: &Path) -> Result<Self> {
        let what = || "cannot listen for the terminal".to_owned();
        let on_disk = dir.join(Self::NAME);
        let _old = fs::remove_file(&on_disk);
        let dir = crate::descriptors::open_dir(dir)?;
        let listener =
            UnixListener::bind(sys::fd::path(dir.as_fd()).join(Self::NAME)).context(what)?;
        Ok(Self { listener, dir, on_disk })
    }

    /// Short, and good in other processes too.
    fn path(&self) -> PathBuf {
        format!(
            "/proc/{}/fd/{}/{}",
            std::process::id(),
            sys::fd::number(self.dir.as_fd()),
            Self::NAME
        )
        .into()
    }

    /// The runtime has done its work: the master waits.
    fn receive(self) -> Result<OwnedFd> {
        let what = || "the runtime has sent no terminal".to_owned();
        self.listener.set_nonblocking(true).context(what)?;
        let (stream, _) = self.listener.accept().context(what)?;
        let received = sys::socket::recv_with_fds(&stream, &mut [0; 4096]).context(what)?;
        let _gone = fs::remove_file(&self.on_disk);
        received.fds.into_iter().next().context(what)
    }
}
