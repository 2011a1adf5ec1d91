//! User namespaces: who inside is whom outside.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use oci::runtime::IdMapping;
use rustix::fs::{CWD, Mode, OFlags};
use stdx::{Context, Error, Result};
use sys::process::{CloneArgs, CloneFlags, Fork, Pid};

use crate::rootfs::Mapping;

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
pub(crate) fn in_initial_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]))
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
    let (ours, theirs) =
        sys::socket::pair().context(|| "cannot create a socket pair".to_owned())?;
    let args = CloneArgs { flags: CloneFlags::NEWUSER, cgroup: None };
    match sys::process::clone3(&args).context(|| "cannot create a user namespace".to_owned())? {
        Fork::Child => {
            drop(ours);
            // Ends when the parent closes its end.
            let _ended = rustix::io::read(&theirs, &mut [0; 1]);
            sys::process::exit_now(0)
        }
        Fork::Parent { pid, pidfd } => {
            drop(theirs);
            let namespace = write_mappings(pid, mapping).and_then(|()| {
                let path = format!("/proc/{}/ns/user", pid.as_raw_nonzero());
                rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .context(|| "cannot open the user namespace".to_owned())
            });
            drop(ours);
            crate::spawn::reap(&pidfd)?;
            namespace
        }
    }
}

/// A mapping that leaves out the container's root cannot work: nobody could set the container up.
pub(crate) fn check(mapping: &Mapping) -> Result<()> {
    let has_root =
        |lines: &[IdMapping]| lines.iter().any(|line| line.container_id == 0 && line.size > 0);
    if has_root(&mapping.uids) && has_root(&mapping.gids) {
        Ok(())
    } else {
        Err(Error::invalid("the mapping of the user namespace has no root user or no root group"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_one_text() {
        let line = |container_id, host_id| IdMapping { container_id, host_id, size: 10 };
        assert_eq!(lines(&[line(0, 1000), line(10, 5)]), "0 1000 10\n10 5 10\n");
        assert!(check(&Mapping { uids: vec![line(0, 1)], gids: vec![line(5, 1)] }).is_err());
    }
}
