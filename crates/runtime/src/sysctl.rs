//! Kernel parameters of the container's own namespaces.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci::runtime::{NamespaceType, Spec};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use stdx::{Context, Error, Result};

use crate::rootfs::PROC_SUPER_MAGIC;

/// Refuses what would change the host.
pub(crate) fn check(spec: &Spec) -> Result<()> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let linux = spec.linux_or_default();
    for name in linux.sysctl.keys() {
        let dotted = path_of(name)?.display().to_string().replace('/', ".");
        let has = |kind| {
            linux.namespace(kind).is_some_and(|namespace| match &namespace.path {
                Some(path) => !is_own(path, kind),
                None => true,
            })
        };
        let own = match dotted.as_str() {
            "kernel.domainname" => has(NamespaceType::Uts),
            "kernel.hostname" => {
                return Err(Error::invalid(
                    "sysctl \"kernel.hostname\" is not allowed as it conflicts with the hostname",
                ));
            }
            name if IPC.contains(&name) || name.starts_with("fs.mqueue.") => {
                has(NamespaceType::Ipc)
            }
            name if name.starts_with("net.") => has(NamespaceType::Network),
            name if name.starts_with("user.") => has(NamespaceType::User),
            _ => false,
        };
        if !own {
            return Err(Error::invalid(format!(
                "sysctl {name:?} is not in a separate kernel namespace"
            )));
        }
    }
    Ok(())
}

/// A path may lead to the namespace of the host. What cannot be looked at cannot be joined either.
fn is_own(path: &Path, kind: NamespaceType) -> bool {
    let name = match kind {
        NamespaceType::Network => "net",
        NamespaceType::Ipc => "ipc",
        NamespaceType::Uts => "uts",
        NamespaceType::User => "user",
        _ => return false,
    };
    let number = |path: &Path| rustix::fs::stat(path).map(|found| (found.st_dev, found.st_ino));
    match (number(path), number(&Path::new("/proc/self/ns").join(name))) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        _ => false,
    }
}

/// Writes them through `own`, a procfs that was just mounted, where it has them, else through `host`, the one of the mount
/// namespace we began in. What the container calls `/proc` is content (CVE-2025-52881): its own counts by the descriptor that
/// mounted it, and as far as nothing is mounted on it. It is the quicker one: the host's keeps the directories of all network
/// namespaces under one name. Which container's value a file means is decided by the namespaces of who writes.
pub(crate) fn write(
    own: Option<&OwnedFd>,
    host: &OwnedFd,
    values: &BTreeMap<String, String>,
) -> Result<()> {
    for (name, value) in values {
        let words = || format!("failed to write sysctl {name} = {value}");
        let path = PathBuf::from("sys").join(path_of(name)?);
        let open = |proc: &OwnedFd, more: ResolveFlags| {
            let resolve =
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat2(proc, &path, flags, Mode::empty(), resolve | more)
        };
        let file = own
            .and_then(|own| open(own, ResolveFlags::NO_XDEV).ok())
            .map_or_else(|| open(host, ResolveFlags::empty()), Ok)
            .map_err(std::io::Error::from)
            .context(|| format!("open /proc/{}", path.display()))
            .context(words)?;
        rustix::io::write(&file, value.as_bytes()).context(words)?;
    }
    Ok(())
}

/// The host's procfs, and nothing that looks like it.
pub(crate) fn open_proc() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::openat(CWD, "/proc", flags, Mode::empty())
        .context(|| "cannot open /proc".to_owned())?;
    let found = rustix::fs::fstatfs(&proc).context(|| "cannot look at /proc".to_owned())?;
    if found.f_type == PROC_SUPER_MAGIC {
        Ok(proc)
    } else {
        Err(Error::internal("/proc of the host is not a procfs"))
    }
}

/// `net.ipv4.ip_forward` and `net/ipv4/conf/eth0.1/forwarding`: whichever separator comes first is the one between names,
/// and then the other stands for itself.
fn path_of(name: &str) -> Result<PathBuf> {
    let path = match name.find(['.', '/']) {
        Some(position) if name.as_bytes()[position] == b'.' => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect::<String>(),
        _ => name.to_owned(),
    };
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains('\0') {
        return Err(Error::invalid(format!("sysctl {name:?} is no name of a parameter")));
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use oci::runtime::{Linux, Namespace};

    use super::*;

    #[test]
    fn both_separators() {
        let of = |name| path_of(name).map(|path| path.display().to_string());
        assert_eq!(of("net.ipv4.ip_forward").unwrap(), "net/ipv4/ip_forward");
        assert_eq!(
            of("net/ipv4/conf/eth0.1/forwarding").unwrap(),
            "net/ipv4/conf/eth0.1/forwarding"
        );
        assert_eq!(
            of("net.ipv4.conf.eth0/1.forwarding").unwrap(),
            "net/ipv4/conf/eth0.1/forwarding"
        );
        for bad in ["../x", "net/../../x", "net..x", "", "/net"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_hosts_are_refused() {
        let check = |name: &str, kinds: &[NamespaceType]| {
            let namespaces =
                kinds.iter().map(|kind| Namespace { kind: *kind, path: None }).collect();
            let sysctl = [(name.to_owned(), "1".to_owned())].into();
            let spec = Spec {
                linux: Some(Linux { namespaces, sysctl, ..Linux::default() }),
                ..Spec::default()
            };
            check(&spec).map_err(|err| err.to_string())
        };
        assert_eq!(check("net.ipv4.ip_forward", &[NamespaceType::Network]), Ok(()));
        assert_eq!(check("kernel/shmmax", &[NamespaceType::Ipc]), Ok(()));
        assert_eq!(
            check("kernel.core_pattern", &[NamespaceType::Network]).unwrap_err(),
            "sysctl \"kernel.core_pattern\" is not in a separate kernel namespace"
        );
        assert!(check("net.ipv4.ip_forward", &[]).is_err());

        // Also when the host's namespace has only been given another name.
        assert!(is_own(Path::new("/proc/self/ns/net"), NamespaceType::Network));
        assert!(!is_own(Path::new("/proc/self/ns/uts"), NamespaceType::Network));
        assert!(!is_own(Path::new("/nowhere"), NamespaceType::Network));
    }
}
