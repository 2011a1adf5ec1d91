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
        let container = Container { place: made.place, record: made.record };
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
    let container = Container { place: made.place, record: made.record };
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
    place: Place,
    record: Record,
    created: Option<Created>,
}

fn make(global: &Global, flags: &Flags, waits: Waits) -> Result<Made> {
    let id = id(flags)?;
    let bundle = std::path::absolute(flags.get("bundle").unwrap_or("."))
        .context(|| "cannot find the bundle".to_owned())?;
    let found = std::fs::metadata(&bundle);
    found.context(|| format!("chdir {}", bundle.display()))?;
    let spec = load(&bundle)?;
    let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
    let console = console_socket(flags, terminal, waits == Waits::Alone)?;
    let linux = spec.linux_or_default();
    let cgroup = match Location::by(global.driver, &linux.cgroups_path, id)? {
        // As runc: who has no privilege and no group of his own lives in his caller's.
        place if linux.cgroups_path.is_empty() && is_rootless() && !place.may_be_made() => {
            Location::nowhere()
        }
        place => place,
    };
    let rootfs = Rootfs::Directory {
        path: spec
            .root
            .as_ref()
            .map(|root| root.path.clone())
            .context(|| "Root must be specified".to_owned())?,
    };
    let place = Place::of(global, id)?;
    place.make()?;
    let create = Create {
        id,
        bundle: &bundle,
        spec: &spec,
        rootfs: &rootfs,
        state_dir: place.path(),
        stdio: if terminal { Stdio::Terminal } else { Stdio::Inherit },
        namespaces: Vec::new(),
        binds: Vec::new(),
        cgroup: &cgroup,
        options: Options {
            pivot: if flags.has("no-pivot") { Pivot::MoveAndChroot } else { Pivot::PivotRoot },
            wait: if waits == Waits::Alone { Wait::StateDir } else { Wait::Parent },
            keep_keyring: flags.has("no-new-keyring"),
            preserve_fds: flags.number("preserve-fds")?.unwrap_or(0),
            ..Options::default()
        },
    };
    let made = crate::create(create)
        .context(|| "unable to start container process".to_owned())
        .and_then(|mut created| {
            if let (Some(socket), Some(master)) = (&console, &created.terminal) {
                send_terminal(socket, master)?;
                created.terminal = None;
            }
            if let Some(path) = flags.get("pidfd-socket") {
                let socket = UnixStream::connect(path)
                    .context(|| format!("cannot reach the pidfd socket {path}"))?;
                sys::socket::send_with_fds(&socket, b"pidfd", &[created.pidfd.as_fd()])?;
            }
            let record = Record {
                id: id.to_owned(),
                bundle: bundle.clone(),
                pid: created.pid.as_raw_nonzero().get(),
                start_time: start_time(created.pid.as_raw_nonzero().get())?
                    .context(|| "the container's init died".to_owned())?,
                created: Timestamp::now().fixed_nanos(),
                owner: rustix::process::geteuid().as_raw(),
                spec: spec.clone(),
                rootfs: rootfs.clone(),
                cgroup: cgroup.clone(),
            };
            place.write(&record)?;
            write_pid_file(flags, created.pid)?;
            Ok((record, created))
        });
    match made {
        Ok((record, created)) => {
            created.warnings.iter().for_each(|warning| global.log.warning(warning));
            let created = match waits {
                Waits::ForUs => Some(created),
                Waits::Alone => {
                    created.leave();
                    None
                }
            };
            Ok(Made { place, record, created })
        }
        Err(error) => {
            place.remove()?;
            Err(error)
        }
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
