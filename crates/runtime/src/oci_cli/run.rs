//! `create` and `run`: a bundle becomes a container.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use oci::runtime::{Rootfs, Spec, Status};
use rustix::process::Pid;
use stdx::time::Timestamp;
use stdx::{Context, Error, Result};

use super::flags::{Flag, Flags};
use super::record::{Container, Place, Record, read_json, start_time, write_whole};
use super::{Global, foreground, id, is_rootless};
use crate::cgroup::Location;
use crate::{Create, Created, Options, Pivot, Stdio, Wait};

pub(super) const CREATE: &[Flag] = &[
    Flag::value("bundle").or("b"),
    Flag::value("console-socket"),
    Flag::value("pidfd-socket"),
    Flag::value("pid-file"),
    Flag::value("preserve-fds"),
    Flag::switch("no-pivot"),
    Flag::switch("no-new-keyring"),
];

pub(super) const RUN: &[Flag] = &[
    Flag::value("bundle").or("b"),
    Flag::value("console-socket"),
    Flag::value("pidfd-socket"),
    Flag::value("pid-file"),
    Flag::value("preserve-fds"),
    Flag::switch("detach").or("d"),
    Flag::switch("keep"),
    Flag::switch("no-pivot"),
    Flag::switch("no-subreaper"),
    Flag::switch("no-new-keyring"),
];

pub(super) fn create(global: &Global, flags: &Flags) -> Result<u8> {
    make(global, flags, Waits::Alone)?;
    Ok(0)
}

pub(super) fn run(global: &Global, flags: &Flags) -> Result<u8> {
    let detach = flags.has("detach");
    if detach {
        let made = make(global, flags, Waits::Alone)?;
        let container = made.container;
        return match super::containers::start_container(&container) {
            Ok(()) => Ok(0),
            Err(error) => {
                super::containers::remove(global, &container)?;
                Err(error)
            }
        };
    }
    let mut made = make(global, flags, Waits::ForUs)?;
    let created = made.created.take().context(|| "the container was left alone".to_owned())?;
    let container = made.container;
    let code = created
        .start()
        .and_then(|running| foreground::follow(&running.pidfd, running.terminal))
        .context(|| "unable to start container process".to_owned());
    if code.is_err() || !flags.has("keep") {
        super::containers::remove(global, &container)?;
    }
    code
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// This command ends, the container stays.
    Alone,
    ForUs,
}

struct Made {
    container: Container,
    created: Option<Created>,
}

fn make(global: &Global, flags: &Flags, waits: Waits) -> Result<Made> {
    let bundle = Bundle::open(global, flags, waits == Waits::Alone)?;
    let options = Options {
        wait: if waits == Waits::Alone { Wait::StateDir } else { Wait::Parent },
        keep_keyring: flags.has("no-new-keyring"),
        preserve_fds: flags.number("preserve-fds")?.unwrap_or(0),
        ..Options::default()
    };
    let made = bundle.make(flags, options, |create| {
        let mut created =
            crate::create(create).context(|| "unable to start container process".to_owned())?;
        if let Some(path) = flags.get("pidfd-socket") {
            let socket = UnixStream::connect(path)
                .context(|| format!("cannot reach the pidfd socket {path}"))?;
            sys::socket::send_with_fds(&socket, b"pidfd", &[created.pidfd.as_fd()])?;
        }
        Ok(Born { pid: created.pid, terminal: created.terminal.take(), what: created })
    });
    let (container, Born { terminal, what: mut created, .. }) = made?;
    created.terminal = terminal;
    created.warnings.iter().for_each(|warning| global.log.warning(warning));
    let created = match waits {
        Waits::ForUs => Some(created),
        Waits::Alone => {
            created.leave();
            None
        }
    };
    Ok(Made { container, created })
}

/// A bundle with a place for its container's record, which is made here.
pub(super) struct Bundle<'a> {
    id: &'a str,
    path: PathBuf,
    spec: Spec,
    rootfs: Rootfs,
    cgroup: Location,
    console: Option<UnixStream>,
    place: Place,
}

/// A container's first process, and its terminal while we have it.
pub(super) struct Born<T> {
    pub pid: Pid,
    pub terminal: Option<OwnedFd>,
    pub what: T,
}

impl<'a> Bundle<'a> {
    /// `leaves`: nobody of us stays to hold its terminal.
    pub(super) fn open(global: &Global, flags: &'a Flags, leaves: bool) -> Result<Self> {
        let id = id(flags)?;
        let path = std::path::absolute(flags.get("bundle").unwrap_or("."))
            .context(|| "cannot find the bundle".to_owned())?;
        let found = std::fs::metadata(&path);
        found.context(|| format!("chdir {}", path.display()))?;
        let spec = load(&path)?;
        let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
        let console = console_socket(flags, terminal, leaves)?;
        let linux = spec.linux_or_default();
        let cgroup = match Location::by(global.driver, &linux.cgroups_path, id)? {
            // As runc: who has no privilege and no group of his own lives in his caller's.
            place if linux.cgroups_path.is_empty() && is_rootless() && !place.may_be_made() => {
                Location::nowhere()
            }
            place => place,
        };
        let root = spec.root.as_ref().map(|root| root.path.clone());
        let rootfs =
            Rootfs::Directory { path: root.context(|| "Root must be specified".to_owned())? };
        let place = Place::of(global, id)?;
        place.make()?;
        Ok(Self { id, path, spec, rootfs, cgroup, console, place })
    }

    /// Has a process made for it, and writes it down. After a failure the place is free again.
    pub(super) fn make<T>(
        self,
        flags: &Flags,
        options: Options,
        birth: impl FnOnce(Create) -> Result<Born<T>>,
    ) -> Result<(Container, Born<T>)> {
        let terminal = self.spec.process.as_ref().is_some_and(|process| process.terminal);
        let create = Create {
            id: self.id,
            bundle: &self.path,
            spec: &self.spec,
            rootfs: &self.rootfs,
            state_dir: self.place.path(),
            stdio: if terminal { Stdio::Terminal } else { Stdio::Inherit },
            namespaces: Vec::new(),
            binds: Vec::new(),
            cgroup: &self.cgroup,
            options: Options {
                pivot: if flags.has("no-pivot") { Pivot::MoveAndChroot } else { Pivot::PivotRoot },
                ..options
            },
        };
        let born = birth(create).and_then(|mut born| {
            if let (Some(socket), Some(master)) = (&self.console, &born.terminal) {
                send_terminal(socket, master)?;
                born.terminal = None;
            }
            Ok((self.record(born.pid)?, born))
        });
        let written = born.and_then(|(record, born)| {
            self.place.write(&record)?;
            write_pid_file(flags, born.pid)?;
            Ok((record, born))
        });
        match written {
            Ok((record, born)) => Ok((Container { place: self.place, record }, born)),
            Err(error) => {
                self.place.remove()?;
                Err(error)
            }
        }
    }

    fn record(&self, pid: Pid) -> Result<Record> {
        let pid = pid.as_raw_nonzero().get();
        Ok(Record {
            id: self.id.to_owned(),
            bundle: self.path.clone(),
            pid,
            start_time: start_time(pid)?.context(|| "the container's init died".to_owned())?,
            created: Timestamp::now().fixed_nanos(),
            owner: rustix::process::geteuid().as_raw(),
            spec: self.spec.clone(),
            rootfs: self.rootfs.clone(),
            cgroup: self.cgroup.clone(),
        })
    }
}

/// The bundle's document.
pub(super) fn load(bundle: &Path) -> Result<Spec> {
    match read_json::<Spec>(&bundle.join("config.json")) {
        Err(err) if err.errno() == Some(rustix::io::Errno::NOENT.raw_os_error()) => {
            Err(Error::not_found("JSON specification file config.json not found"))
        }
        Ok(spec) if spec.oci_version.is_empty() => Err(Error::invalid("`ociVersion` must be set")),
        Ok(spec) if !spec.oci_version.starts_with("1.") => {
            Err(Error::invalid(format!("unsupported `ociVersion`: {}", spec.oci_version)))
        }
        other => other,
    }
}

/// Where the terminal's master goes when nobody of us stays to hold it.
pub(super) fn console_socket(
    flags: &Flags,
    terminal: bool,
    leaves: bool,
) -> Result<Option<UnixStream>> {
    match (flags.get("console-socket").filter(|path| !path.is_empty()), terminal && leaves) {
        (Some(path), true) => {
            let connected = UnixStream::connect(path);
            connected.map(Some).context(|| format!("cannot reach the console socket {path}"))
        }
        (None, true) => Err(Error::invalid(
            "cannot allocate tty if runc will detach without setting console socket",
        )),
        (Some(_), false) => {
            Err(Error::invalid("cannot use console socket if runc will not detach or allocate tty"))
        }
        (None, false) => Ok(None),
    }
}

pub(super) fn send_terminal(socket: &UnixStream, master: &OwnedFd) -> Result<()> {
    // The name is a remark; what counts is the descriptor.
    sys::socket::send_with_fds(socket, b"/dev/ptmx", &[master.as_fd()])
        .context(|| "cannot send the terminal".to_owned())?;
    Ok(())
}

pub(super) fn write_pid_file(flags: &Flags, pid: Pid) -> Result<()> {
    match flags.get("pid-file").filter(|path| !path.is_empty()) {
        Some(path) => {
            write_whole(&PathBuf::from(path), pid.as_raw_nonzero().to_string().as_bytes())
        }
        None => Ok(()),
    }
}

/// Whether a command may act on a container in this state.
pub(super) fn require(status: Status, allowed: &[Status], refusal: &str) -> Result<()> {
    if allowed.contains(&status) { Ok(()) } else { Err(Error::conflict(refusal)) }
}
