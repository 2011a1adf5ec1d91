//! The user's namespaces: made once, with one process in them that does nothing but live there.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use stdx::{Context, Error, Result};
use sys::process::{CloneArgs, CloneFlags, Fork};

use crate::ids::{self, Line, User};
use crate::program;

/// User, mount and network namespace, in the order in which they are joined.
pub(crate) const KINDS: [(&str, CloneFlags); 3] =
    [("user", CloneFlags::NEWUSER), ("mnt", CloneFlags::NEWNS), ("net", CloneFlags::NEWNET)];

/// Makes them; answers the number of the process that lives in them.
pub(crate) fn make(path: &str) -> Result<i32> {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let user = User::of(&read("/etc/passwd"), uid, gid);
    let maps = [
        ("newuidmap", ids::map(&user, uid, "/etc/subuid", &read("/etc/subuid"))?),
        ("newgidmap", ids::map(&user, gid, "/etc/subgid", &read("/etc/subgid"))?),
    ];
    let mut tools = Vec::new();
    for (name, map) in maps {
        let tool = program::find(name, path).ok_or_else(|| {
            Error::not_found(format!(
                "{name} is not installed (its package is called uidmap): only it can give a user's containers more than \
                 one id"
            ))
        })?;
        tools.push((tool, map));
    }
    let (ours, theirs) =
        sys::socket::pair().context(|| "cannot create a socket pair".to_owned())?;
    let flags = KINDS.iter().fold(CloneFlags::empty(), |all, (_, flag)| all | *flag);
    match sys::process::clone3(&CloneArgs { flags, cgroup: None }).map_err(refused)? {
        Fork::Child => {
            drop(ours);
            live(&theirs)
        }
        Fork::Parent { pid, pidfd } => {
            drop(theirs);
            let pid = pid.as_raw_nonzero().get();
            let finish = || {
                for (tool, map) in &tools {
                    program::run(tool, &arguments(pid, map), path)?;
                }
                rustix::io::write(&ours, b"!").context(|| "it has gone".to_owned())?;
                heard(&ours)
            };
            finish().map(|()| pid).map_err(|error| {
                end(&pidfd);
                Error::new(error.kind(), "cannot make a user namespace").caused_by(error)
            })
        }
    }
}

/// `newuidmap <pid> [<inside> <outside> <count>]…`
fn arguments(pid: i32, map: &[Line]) -> Vec<String> {
    let lines = map.iter().flat_map(|line| [line.inside, line.outside, line.count]);
    std::iter::once(pid.to_string()).chain(lines.map(|number| number.to_string())).collect()
}

/// The namespaces a process lives in.
pub(crate) fn of(pid: i32) -> Result<Vec<OwnedFd>> {
    let open = |(kind, _): &(&str, CloneFlags)| {
        let path = format!("/proc/{pid}/ns/{kind}");
        rustix::fs::openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .context(|| format!("cannot open {path}"))
    };
    KINDS.iter().map(open).collect()
}

/// Somebody who lives in a user namespace and is none of `but`.
pub(crate) fn resident(namespace: &OwnedFd, but: &[i32]) -> Option<i32> {
    let ours = rustix::fs::fstat(namespace).ok()?;
    let lives_here = |pid: &i32| {
        rustix::fs::stat(format!("/proc/{pid}/ns/user"))
            .is_ok_and(|found| (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino))
    };
    fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| !but.contains(pid))
        .find(lives_here)
}

/// The child: waits to be somebody, has a loopback, and lives on, even when its parent does not.
fn live(parent: &OwnedFd) -> ! {
    let begin = || -> std::io::Result<()> {
        sys::process::close_all_but(&[parent.as_fd()])?;
        rustix::thread::set_name(c"gantry-anchor")?;
        if rustix::io::read(parent, &mut [0; 1])? == 0 {
            sys::process::exit_now(1);
        }
        sys::net::loopback_up()?;
        // What routers say is forgotten where packets are forwarded, and nobody else can have our addresses. Without IPv6
        // there is nothing to say it to.
        for (name, value) in [("accept_ra", "0"), ("accept_dad", "0")] {
            let _without = fs::write(format!("/proc/sys/net/ipv6/conf/default/{name}"), value);
        }
        Ok(())
    };
    let told = match begin() {
        Ok(()) => rustix::io::write(parent, b"!"),
        Err(error) => rustix::io::write(parent, error.to_string().as_bytes()),
    };
    if told.is_err() {
        sys::process::exit_now(1);
    }
    loop {
        rustix::event::pause();
    }
}

fn heard(child: &OwnedFd) -> Result<()> {
    let mut said = [0; 256];
    let length = rustix::io::read(child, &mut said).context(|| "it has gone".to_owned())?;
    match &said[..length] {
        b"!" => Ok(()),
        b"" => Err(Error::internal("its first process has ended")),
        why => Err(match number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") {
            Some(1) => Error::forbidden(
                "AppArmor keeps it from being of use: let root set kernel.apparmor_restrict_unprivileged_userns=0 \
                 (sysctl), or load a profile that lets gantry have one",
            ),
            _ => Error::internal(String::from_utf8_lossy(why).into_owned()),
        }),
    }
}

/// Why there is no namespace, and who can change that.
fn refused(error: std::io::Error) -> Error {
    const EPERM: i32 = 1;
    const ENOSPC: i32 = 28;
    match error.raw_os_error() {
        Some(EPERM) if number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) => {
            Error::forbidden(
                "users may not make user namespaces on this host: let root set kernel.unprivileged_userns_clone=1 \
                 (sysctl)",
            )
        }
        Some(ENOSPC) => Error::forbidden(
            "there are no user namespaces left on this host: let root raise user.max_user_namespaces (sysctl)",
        ),
        _ => Error::internal("cannot make a user namespace").caused_by(error),
    }
}

fn number(path: &str) -> Option<i64> {
    read(path).trim().parse().ok()
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Does something in a process' user and network namespace, by a child: who enters a user namespace does not come back.
/// `act` may not allocate.
pub(crate) fn within(pid: i32, act: impl FnOnce() -> std::io::Result<()>) -> Result<()> {
    let failed = || "cannot enter the network namespace".to_owned();
    let namespaces = of(pid)?;
    let enter = || -> std::io::Result<()> {
        for ((kind, flag), namespace) in KINDS.iter().zip(&namespaces) {
            if *kind != "mnt" {
                sys::ns::setns(namespace.as_fd(), *flag)?;
            }
        }
        act()
    };
    match sys::process::fork().context(failed)? {
        Fork::Child => {
            let errno = enter().err().map_or(0, |error| error.raw_os_error().unwrap_or(1));
            sys::process::exit_now(errno)
        }
        Fork::Parent { pidfd, .. } => {
            let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
            let options = rustix::process::WaitIdOptions::EXITED;
            let status = rustix::process::waitid(id, options).context(failed)?;
            match status.and_then(|status| status.exit_status()) {
                Some(0) => Ok(()),
                Some(errno) => Err(std::io::Error::from_raw_os_error(errno)).context(failed),
                None => Err(Error::internal(failed())),
            }
        }
    }
}

/// Ends a process and, if it is a child of ours, takes its status.
pub(crate) fn end(pidfd: &OwnedFd) {
    // Gone is what it shall be.
    let _gone = sys::signal::send(pidfd.as_fd(), 9);
    reap(pidfd);
}

pub(crate) fn reap(pidfd: &OwnedFd) {
    let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
    // Another's child has nothing to say to us.
    let _status = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
}
