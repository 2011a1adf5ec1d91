//! User namespaces: who inside is whom outside.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use oci::runtime::{IdMapping, Linux};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use stdx::{Context, Error, Result};
use sys::process::{CloneArgs, CloneFlags, Fork, Pid};

use crate::create::Stdio;
use crate::rootfs::Mapping;

/// A user namespace nobody lives in yet, and what belongs to it. Alive as long as its descriptors are.
#[derive(Debug)]
pub struct Vacant {
    pub user: OwnedFd,
    /// A network namespace whose root is this user namespace's, with nothing in it but a loopback that is down.
    pub network: Option<OwnedFd>,
}

/// Makes a user namespace with these maps before anybody is in it, so that what belongs to it can be finished first.
pub fn vacant(uids: &[IdMapping], gids: &[IdMapping], network: bool) -> Result<Vacant> {
    let mapping = Mapping { uids: uids.to_vec(), gids: gids.to_vec() };
    check(&mapping)?;
    make(&mapping, network)
}

/// Writes the mappings of a process that has just been born in a user namespace, from outside.
pub(crate) fn write_mappings(pid: Pid, mapping: &Mapping) -> Result<()> {
    let file = |name: &str| format!("/proc/{}/{name}", pid.as_raw_nonzero());
    let sentence = |what: &str| format!("failed to write {what} of the user namespace");
    if !mapping.gids.is_empty() {
        match fs::write(file("gid_map"), lines(&mapping.gids)) {
            // Without privilege the kernel wants a promise first: nobody drops groups that deny (CVE-2014-8989).
            Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
                fs::write(file("setgroups"), "deny").context(|| sentence("setgroups"))?;
                fs::write(file("gid_map"), lines(&mapping.gids)).context(|| sentence("gid_map"))?;
            }
            other => other.context(|| sentence("gid_map"))?,
        }
    }
    if !mapping.uids.is_empty() {
        fs::write(file("uid_map"), lines(&mapping.uids)).context(|| sentence("uid_map"))?;
    }
    Ok(())
}

/// Whether we are the host's, as far as anybody can see.
pub fn in_initial_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]))
}

/// How many groups there are from root's on, without a gap, where we are.
pub fn groups_from_root() -> u32 {
    count_from_root(&fs::read_to_string("/proc/self/gid_map").unwrap_or_default())
}

fn count_from_root(map: &str) -> u32 {
    let mut lines: Vec<(u32, u32)> = map
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse);
            let (first, _, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
            Some((first.ok()?, count.ok()?))
        })
        .collect();
    lines.sort_unstable();
    lines.iter().fold(0, |next, &(first, count)| if first == next { next + count } else { next })
}

/// The whole map in the one write the kernel allows.
fn lines(mapping: &[IdMapping]) -> String {
    mapping
        .iter()
        .map(|line| format!("{} {} {}\n", line.container_id, line.host_id, line.size))
        .collect()
}

/// A user namespace nobody lives in, for its mapping only: what idmapped mounts take.
pub(crate) fn with_mapping(mapping: &Mapping) -> Result<OwnedFd> {
    make(mapping, false).map(|made| made.user)
}

/// A network namespace that belongs to a user namespace somebody has already.
pub fn network_of(user: impl AsFd) -> Result<OwnedFd> {
    let (ours, theirs) =
        sys::socket::pair().context(|| "cannot create a socket pair".to_owned())?;
    let args = CloneArgs::default();
    match sys::process::clone3(&args).context(|| "cannot fork".to_owned())? {
        Fork::Child => {
            drop(ours);
            let moved = sys::ns::setns(user.as_fd(), CloneFlags::NEWUSER)
                .and_then(|()| sys::ns::unshare(CloneFlags::NEWNET));
            let _told = rustix::io::write(&theirs, &[u8::from(moved.is_ok())]);
            let _ended = rustix::io::read(&theirs, &mut [0; 1]);
            sys::process::exit_now(0)
        }
        Fork::Parent { pid, pidfd } => {
            drop(theirs);
            let mut moved = [0];
            let heard = rustix::io::read(&ours, &mut moved);
            let words = || "cannot make a network namespace in another's user namespace".to_owned();
            let opened = match (heard, moved) {
                (Ok(1), [1]) => {
                    let path = format!("/proc/{}/ns/net", pid.as_raw_nonzero());
                    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                        .context(words)
                }
                _ => Err(Error::internal(words())),
            };
            drop(ours);
            crate::spawn::reap(&pidfd)?;
            opened
        }
    }
}

fn make(mapping: &Mapping, network: bool) -> Result<Vacant> {
    let (ours, theirs) =
        sys::socket::pair().context(|| "cannot create a socket pair".to_owned())?;
    let kinds =
        if network { CloneFlags::NEWUSER | CloneFlags::NEWNET } else { CloneFlags::NEWUSER };
    let args = CloneArgs { flags: kinds, cgroup: None };
    match sys::process::clone3(&args).context(|| "cannot create a user namespace".to_owned())? {
        Fork::Child => {
            drop(ours);
            // Ends when the parent closes its end.
            let _ended = rustix::io::read(&theirs, &mut [0; 1]);
            sys::process::exit_now(0)
        }
        Fork::Parent { pid, pidfd } => {
            drop(theirs);
            let open = |kind: &str| {
                let path = format!("/proc/{}/ns/{kind}", pid.as_raw_nonzero());
                rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .context(|| format!("cannot open the {kind} namespace"))
            };
            let made = write_mappings(pid, mapping).and_then(|()| {
                let network = network.then(|| open("net")).transpose()?;
                Ok(Vacant { user: open("user")?, network })
            });
            drop(ours);
            crate::spawn::reap(&pidfd)?;
            made
        }
    }
}

/// Gives the container's root the pipes and sockets it is to have as standard streams, which it could not give to its
/// users otherwise. Anything else is the host's, and stays so.
pub(crate) fn give_streams(linux: &Linux, stdio: &Stdio) -> Result<()> {
    let Stdio::Fds { stdin, stdout, stderr } = stdio else { return Ok(()) };
    let mapping = Mapping::of(&linux.uid_mappings, &linux.gid_mappings);
    let Some((uid, gid)) = mapping.as_ref().and_then(Mapping::root) else { return Ok(()) };
    for stream in [stdin, stdout, stderr] {
        let words = || "cannot give the standard streams to the container's root".to_owned();
        let kind = FileType::from_raw_mode(rustix::fs::fstat(stream).context(words)?.st_mode);
        if matches!(kind, FileType::Fifo | FileType::Socket) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::fchown(stream, Some(uid), Some(gid)).context(words)?;
        }
    }
    Ok(())
}

/// A mapping that leaves out the container's root cannot work: nobody could set the container up.
pub(crate) fn check(mapping: &Mapping) -> Result<()> {
    if mapping.root().is_some() {
        Ok(())
    } else {
        Err(Error::invalid("the mapping of the user namespace has no root user or no root group"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_counted_to_the_first_gap() {
        assert_eq!(count_from_root("         0          0 4294967295\n"), u32::MAX);
        assert_eq!(count_from_root("1 100000 65535\n0 1000 1\n70000 5 5\n"), 65536);
        assert_eq!(count_from_root("5 1000 1\n"), 0);
    }

    #[test]
    fn a_map_is_one_text() {
        let line = |container_id, host_id| IdMapping { container_id, host_id, size: 10 };
        assert_eq!(lines(&[line(0, 1000), line(10, 5)]), "0 1000 10\n10 5 10\n");
        assert!(check(&Mapping { uids: vec![line(0, 1)], gids: vec![line(5, 1)] }).is_err());
    }
}
