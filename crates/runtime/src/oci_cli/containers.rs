//! What is done to a container that is there: start, state, kill, delete, pause, resume, list.

use std::io::Write as _;
use std::os::fd::AsFd;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci::runtime::Status;
use serde::Serialize;
use stdx::{Context, Error, Kind, Result};

use super::flags::{Flag, Flags};
use super::record::{Container, Place};
use super::run::require;
use super::{Global, id, say};

pub(super) const DELETE: &[Flag] = &[Flag::switch("force").or("f")];
pub(super) const KILL: &[Flag] = &[Flag::switch("all").or("a")];
pub(super) const LIST: &[Flag] = &[Flag::value("format").or("f"), Flag::switch("quiet").or("q")];

pub(super) fn start(global: &Global, flags: &Flags) -> Result<u8> {
    let container = Container::open(global, id(flags)?)?;
    match container.status()? {
        Status::Created => start_container(&container)?,
        Status::Stopped => {
            return Err(Error::conflict("cannot start a container that has stopped"));
        }
        Status::Running => {
            return Err(Error::conflict("cannot start an already running container"));
        }
        status => {
            return Err(Error::conflict(format!("cannot start a container in the {status} state")));
        }
    }
    Ok(0)
}

/// Gives the word and runs what is to be run after.
pub(super) fn start_container(container: &Container) -> Result<()> {
    crate::start_detached(container.place.path())
        .context(|| "unable to start container process".to_owned())?;
    let started = crate::run_poststart(&container.record.spec, &container.state(Status::Running));
    if started.is_err() {
        container.cgroup()?.kill_all()?;
    }
    started
}

pub(super) fn state(global: &Global, flags: &Flags) -> Result<u8> {
    let container = Container::open(global, id(flags)?)?;
    say(&format!(
        "{}\n",
        serde_json::to_string_pretty(&Summary::of(&container)?).expect("names and numbers")
    ))?;
    Ok(0)
}

/// As runc tells it: the specification's state and a little more.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    oci_version: &'a str,
    id: &'a str,
    /// Zero when it has stopped.
    pid: i32,
    status: Status,
    bundle: &'a Path,
    rootfs: PathBuf,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    /// Only a list names him.
    owner: String,
}

impl<'a> Summary<'a> {
    fn of(container: &'a Container) -> Result<Self> {
        let status = container.status()?;
        let record = &container.record;
        let root = record.spec.root.as_ref().map(|root| record.bundle.join(&root.path));
        Ok(Self {
            oci_version: &record.spec.oci_version,
            id: &record.id,
            pid: if status == Status::Stopped { 0 } else { record.pid },
            status,
            bundle: &record.bundle,
            rootfs: root.unwrap_or_default(),
            created: &record.created,
            annotations: &record.spec.annotations,
            owner: String::new(),
        })
    }
}

/// The host's name of a user; his number behind `#` when he has none.
pub(super) fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

pub(super) fn kill(global: &Global, flags: &Flags) -> Result<u8> {
    let (id, signal) = match flags.rest() {
        [id] => (id, SIGTERM),
        [id, signal] => (id, parse_signal(&signal.to_string_lossy())?),
        _ => return Err(Error::invalid("this command takes at most 2 arguments")),
    };
    let container = Container::open(global, &id.to_string_lossy())?;
    let process = container.process()?;
    let own_pids = container
        .record
        .spec
        .linux_or_default()
        .namespace(oci::runtime::NamespaceType::Pid)
        .is_some_and(|namespace| namespace.path.is_none());
    match process {
        // In a pid namespace of another's, the end of its first process is not the end of all.
        _ if flags.has("all") || signal == SIGKILL && !own_pids => {
            let cgroup = match container.cgroup() {
                Err(err) if err.kind() == Kind::NotFound => return Ok(0),
                other => other?,
            };
            if let (true, Some(pidfd)) = (cgroup.location().is_nowhere(), &process) {
                // The others cannot be known.
                gone_is_fine(sys::signal::send(pidfd.as_fd(), signal))?;
            } else if signal == SIGKILL {
                cgroup.kill_all()?;
            } else {
                for pid in cgroup.procs()? {
                    gone_is_fine(sys::signal::kill(pid.as_raw_nonzero().get(), signal))?;
                }
            }
        }
        None => return Err(Error::conflict("container not running")),
        Some(pidfd) => {
            match sys::signal::send(pidfd.as_fd(), signal) {
                Err(err) if err.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                    return Err(Error::conflict("container not running"));
                }
                other => other.context(|| "unable to signal init".to_owned())?,
            }
            if signal == SIGKILL {
                // What is frozen on v1 may not die before it is thawed.
                thaw(&container)?;
            }
        }
    }
    Ok(0)
}

fn gone_is_fine(sent: std::io::Result<()>) -> Result<()> {
    match sent {
        Err(err) if err.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(()),
        other => Ok(other?),
    }
}

fn thaw(container: &Container) -> Result<()> {
    match container.cgroup() {
        Ok(cgroup) if cgroup.frozen()? => cgroup.thaw(),
        _ => Ok(()),
    }
}

pub(super) fn delete(global: &Global, flags: &Flags) -> Result<u8> {
    let force = flags.has("force");
    let id = id(flags)?;
    let container = match Container::open(global, id) {
        Err(err) if err.kind() == Kind::NotFound && force => {
            // Perhaps one whose making was interrupted.
            Place::of(global, id)?.remove()?;
            return Ok(0);
        }
        other => other?,
    };
    let status = container.status()?;
    if !force && !matches!(status, Status::Stopped | Status::Created) {
        return Err(Error::conflict(format!(
            "cannot delete container {id} that is not stopped: {status}"
        )));
    }
    remove(global, &container)?;
    Ok(0)
}

/// Ends what still runs of a container and removes what is left of it.
pub(super) fn remove(global: &Global, container: &Container) -> Result<()> {
    if let Some(process) = container.process()? {
        gone_is_fine(sys::signal::send(process.as_fd(), SIGKILL))?;
        thaw(container)?;
        wait_for_end(process.as_fd())?;
    }
    match container.cgroup() {
        Err(err) if err.kind() == Kind::NotFound => {}
        cgroup => {
            let cgroup = cgroup?;
            cgroup.kill_all()?;
            cgroup.destroy()?;
        }
    }
    let told = crate::run_poststop(&container.record.spec, &container.state(Status::Stopped));
    if let Err(failure) = told {
        // The specification: life goes on as if the hook had succeeded.
        global.log.warning(&failure.chain());
    }
    container.place.remove()
}

/// A killed process is gone when its descriptor says so; one that does not die within this time sits in the kernel.
fn wait_for_end(process: std::os::fd::BorrowedFd) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
    match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience)) {
        Ok(0) => Err(Error::unavailable("the container's process does not end")),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(err) => Err(err).context(|| "cannot wait for the container's process".to_owned()),
    }
}

pub(super) fn pause(global: &Global, flags: &Flags) -> Result<u8> {
    let container = Container::open(global, id(flags)?)?;
    require(container.status()?, &[Status::Running, Status::Created], "container not running")?;
    container.cgroup()?.freeze()?;
    Ok(0)
}

pub(super) fn resume(global: &Global, flags: &Flags) -> Result<u8> {
    let container = Container::open(global, id(flags)?)?;
    require(container.status()?, &[Status::Paused], "container not paused")?;
    container.cgroup()?.thaw()?;
    Ok(0)
}

pub(super) fn list(global: &Global, flags: &Flags) -> Result<u8> {
    let mut containers = Vec::new();
    let entries = match std::fs::read_dir(&global.root) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => None,
        other => Some(other.context(|| format!("cannot read {}", global.root.display()))?),
    };
    for entry in entries.into_iter().flatten() {
        let name = entry?.file_name();
        // What is not a container's, or goes away this moment, is nobody's business here.
        if let Some(Ok(container)) = name.to_str().map(|name| Container::open(global, name)) {
            containers.push(container);
        }
    }
    containers.sort_by(|left, right| left.record.id.cmp(&right.record.id));
    let summary = |one| -> Result<Summary> {
        let summary = Summary::of(one)?;
        Ok(Summary { owner: user_name(one.record.owner), ..summary })
    };
    if flags.has("quiet") {
        let ids: String = containers.iter().map(|one| format!("{}\n", one.record.id)).collect();
        say(&ids)?;
        return Ok(0);
    }
    let containers = containers.iter().map(summary).collect::<Result<Vec<_>>>()?;
    match flags.get("format").unwrap_or("table") {
        "json" if containers.is_empty() => say("null\n")?,
        "json" => {
            say(&format!("{}\n", serde_json::to_string(&containers).expect("names and numbers")))?
        }
        "table" => say(&table(&containers)?)?,
        _ => return Err(Error::invalid("invalid format option")),
    }
    Ok(0)
}

fn table(containers: &[Summary]) -> Result<String> {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head)
        .chain(containers.iter().map(|one| {
            [
                one.id.to_owned(),
                one.pid.to_string(),
                one.status.to_string(),
                one.bundle.display().to_string(),
                one.created.to_owned(),
                one.owner.clone(),
            ]
        }))
        .collect();
    let widths: Vec<usize> = (0..6)
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0).max(9) + 3)
        .collect();
    let mut table = Vec::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths).take(5) {
            write!(table, "{cell:<width$}")?;
        }
        writeln!(table, "{}", row[5])?;
    }
    Ok(String::from_utf8_lossy(&table).into_owned())
}

pub(super) const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// By number, or by name with or without `SIG`.
fn parse_signal(text: &str) -> Result<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) {
            Ok(number)
        } else {
            Err(Error::invalid(format!("unknown signal {text:?}")))
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |prefix: &str, base: i32, sign: char| {
        let rest = name.strip_prefix(prefix)?;
        let offset = match rest {
            "" => 0,
            rest => i32::from(rest.strip_prefix(sign)?.parse::<u8>().ok()?),
        };
        let number = if sign == '+' { base + offset } else { base - offset };
        (34..=64).contains(&number).then_some(number)
    };
    let known = NAMES.iter().position(|known| *known == name).map(|position| position as i32 + 1);
    known
        .or_else(|| real_time("RTMIN", 34, '+'))
        .or_else(|| real_time("RTMAX", 64, '-'))
        .ok_or_else(|| Error::invalid(format!("unknown signal {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGSYS", 31),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("0", 0),
        ] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for bad in ["", "SIG", "65", "-1", "RTMIN-1", "NOPE"] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }
}
