//! The container's file system, decided: what is mounted where, hidden, and made read-only. No host is looked at here.

use std::path::{Path, PathBuf};

use oci::runtime::{Device, IdMapping, Mount, NamespaceType, Rootfs, Spec};
use stdx::{Error, Result};
use sys::mount::{Propagation, Reach};

use super::options::Options;
use super::root::{clean, quoted};
use crate::create::{Pivot, RootfsIds};

#[derive(Debug)]
pub(crate) struct Plan {
    pub rootfs: Rootfs,
    /// The mapping to mount the root file system with.
    pub rootfs_mapping: Option<Mapping>,
    pub mounts: Vec<PlannedMount>,
    /// Make nodes and links in `/dev`; not when the host's is mounted there.
    pub populate_dev: bool,
    pub devices: Vec<Device>,
    pub masked: Vec<PathBuf>,
    pub readonly: Vec<PathBuf>,
    pub readonly_root: bool,
    /// What mounts get that say nothing themselves.
    pub default_propagation: Propagation,
    /// What the finished root gets.
    pub root_propagation: Option<(Propagation, Reach)>,
    pub pivot: Pivot,
    pub cgroups: ShownCgroups,
    pub cwd: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PlannedMount {
    pub destination: PathBuf,
    pub kind: Kind,
    /// As the specification gives it; for binds, where it is on the host.
    pub source: PathBuf,
    pub options: Options,
    pub mapping: Option<Mapping>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bind,
    Proc,
    Sysfs,
    Tmpfs,
    Devpts,
    Mqueue,
    Cgroup,
    Other(String),
}

/// Which ids inside are which outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
}

/// What may be mounted below `/proc`: single files that tools like lxcfs replace (CVE-2019-16884).
const ALLOWED_BELOW_PROC: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// What `/sys/fs/cgroup` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShownCgroups {
    /// By a cgroup namespace of the container's own its group is the root.
    Namespace,
    /// Its groups and what is below them. So with hierarchies of version 1, and for users that are not the host's.
    Groups,
    /// Where the hierarchy is one, all of it: `/proc/self/cgroup` tells a path from its root.
    All,
}

impl ShownCgroups {
    fn of(linux: &oci::runtime::Linux) -> Self {
        let has = |kind| linux.namespace(kind).is_some();
        match (has(NamespaceType::Cgroup), has(NamespaceType::User)) {
            (true, _) => Self::Namespace,
            (false, true) => Self::Groups,
            (false, false) => Self::All,
        }
    }
}

impl Plan {
    pub(crate) fn of(
        spec: &Spec,
        rootfs: &Rootfs,
        bundle: &Path,
        pivot: Pivot,
        ids: RootfsIds,
    ) -> Result<Self> {
        let linux = spec.linux_or_default();
        let container = Mapping::of(&linux.uid_mappings, &linux.gid_mappings);
        let propagation = root_propagation(&linux.rootfs_propagation)?;
        let mounts = spec
            .mounts
            .iter()
            .map(|mount| PlannedMount::of(mount, bundle, container.as_ref()))
            .collect::<Result<Vec<_>>>()?;
        let process = spec.process.as_ref();
        Ok(Self {
            rootfs: absolute(rootfs, bundle),
            rootfs_mapping: container.filter(|_| ids == RootfsIds::Container),
            populate_dev: !mounts
                .iter()
                .any(|mount| mount.kind == Kind::Bind && mount.destination == Path::new("/dev")),
            mounts,
            devices: devices(&linux.devices),
            masked: linux.masked_paths.clone(),
            readonly: linux.readonly_paths.clone(),
            readonly_root: spec.root.as_ref().is_some_and(|root| root.readonly),
            default_propagation: match propagation {
                Some((Propagation::Private, _)) => Propagation::Private,
                _ => Propagation::Slave,
            },
            root_propagation: propagation,
            pivot,
            cgroups: ShownCgroups::of(&linux),
            cwd: process.map(|process| process.cwd.clone()).unwrap_or_default(),
        })
    }
}

/// Where something of the host's is mounted, in the order of the spec.
pub(crate) fn bind_places(spec: &Spec) -> impl Iterator<Item = PathBuf> + '_ {
    let is_bind =
        |mount: &&Mount| mount.kind == "bind" || Options::of(&mount.options).bind.is_some();
    spec.mounts.iter().filter(is_bind).map(|mount| clean(&mount.destination))
}

impl PlannedMount {
    fn of(mount: &Mount, bundle: &Path, container: Option<&Mapping>) -> Result<Self> {
        let options = Options::of(&mount.options);
        let destination = clean(&mount.destination);
        if destination == Path::new("/") {
            return Err(Error::invalid(format!(
                "cannot mount {} on the root",
                quoted(&mount_source(mount))
            )));
        }
        let kind = match mount.kind.as_str() {
            _ if options.bind.is_some() => Kind::Bind,
            "bind" => Kind::Bind,
            "proc" => Kind::Proc,
            "sysfs" => Kind::Sysfs,
            "tmpfs" => Kind::Tmpfs,
            "devpts" => Kind::Devpts,
            "mqueue" => Kind::Mqueue,
            "cgroup" | "cgroup2" => Kind::Cgroup,
            "" => {
                return Err(Error::invalid(format!(
                    "mount at {} has no type",
                    quoted(&destination)
                )));
            }
            other => Kind::Other(other.to_owned()),
        };
        let given = Mapping::of(&mount.uid_mappings, &mount.gid_mappings);
        let mapping = match (given, options.idmap) {
            (Some(given), _) => Some(given),
            (None, Some(_)) => Some(container.cloned().ok_or_else(|| {
                Error::invalid(format!(
                    "mount at {} wants a mapping of ids and there is none",
                    quoted(&destination)
                ))
            })?),
            (None, None) => None,
        };
        if mapping.is_some() && kind != Kind::Bind {
            return Err(Error::invalid(format!(
                "mount at {}: only bind mounts can map ids",
                quoted(&destination)
            )));
        }
        let mut source = mount_source(mount);
        if kind == Kind::Bind {
            if source.as_os_str().is_empty() {
                return Err(Error::invalid(format!(
                    "bind mount at {} has no source",
                    quoted(&destination)
                )));
            }
            source = bundle.join(source);
        }
        Ok(Self { destination, kind, source, options, mapping })
    }

    /// Whether this mount, whose source is or is not a procfs itself, may lie where it does.
    pub(crate) fn check_proc(&self, source_is_procfs: bool) -> Result<()> {
        let below = self.destination.strip_prefix("/proc");
        match below {
            Err(_) => Ok(()),
            Ok(rest) if rest.as_os_str().is_empty() => {
                if self.kind == Kind::Proc || source_is_procfs {
                    Ok(())
                } else {
                    let source = quoted(&self.source);
                    Err(Error::invalid(format!(
                        "{source} cannot be mounted to \"/proc\" because it is not of type proc"
                    )))
                }
            }
            Ok(_) => {
                let allowed =
                    ALLOWED_BELOW_PROC.iter().any(|allowed| self.destination == Path::new(allowed));
                if allowed || source_is_procfs || self.kind == Kind::Mqueue {
                    Ok(())
                } else {
                    let destination = quoted(&self.destination);
                    Err(Error::invalid(format!(
                        "{destination} cannot be mounted because it is inside /proc"
                    )))
                }
            }
        }
    }
}

impl Mapping {
    pub(crate) fn of(uids: &[IdMapping], gids: &[IdMapping]) -> Option<Self> {
        (!uids.is_empty() || !gids.is_empty())
            .then(|| Self { uids: uids.to_vec(), gids: gids.to_vec() })
    }

    /// Who root is outside.
    pub(crate) fn root(&self) -> Option<(u32, u32)> {
        let outside = |lines: &[IdMapping]| {
            lines
                .iter()
                .find(|line| line.container_id == 0 && line.size > 0)
                .map(|line| line.host_id)
        };
        Some((outside(&self.uids)?, outside(&self.gids)?))
    }
}

fn mount_source(mount: &Mount) -> PathBuf {
    mount.source.clone().unwrap_or_default()
}

fn absolute(rootfs: &Rootfs, bundle: &Path) -> Rootfs {
    match rootfs {
        Rootfs::Directory { path } => Rootfs::Directory { path: bundle.join(path) },
        overlay @ Rootfs::Overlay { .. } => overlay.clone(),
    }
}

/// The devices every container has, and those asked for; who asks for one of the former gets it as asked.
fn devices(asked: &[Device]) -> Vec<Device> {
    const EVERYWHERE: [(&str, i64, i64); 6] = [
        ("/dev/null", 1, 3),
        ("/dev/zero", 1, 5),
        ("/dev/full", 1, 7),
        ("/dev/random", 1, 8),
        ("/dev/urandom", 1, 9),
        ("/dev/tty", 5, 0),
    ];
    let everywhere = EVERYWHERE.iter().map(|(path, major, minor)| Device {
        path: path.into(),
        kind: "c".to_owned(),
        major: *major,
        minor: *minor,
        file_mode: Some(0o666),
        uid: None,
        gid: None,
    });
    let mut devices: Vec<Device> = everywhere
        .filter(|device| !asked.iter().any(|asked| clean(&asked.path) == device.path))
        .collect();
    devices.extend(asked.iter().cloned());
    devices
}

fn root_propagation(word: &str) -> Result<Option<(Propagation, Reach)>> {
    if word.is_empty() {
        return Ok(None);
    }
    match Options::of(&[word.to_owned()]).propagation.as_slice() {
        [propagation] => Ok(Some(*propagation)),
        _ => Err(Error::invalid(format!("rootfsPropagation={word} is not supported"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, destination: &str) -> PlannedMount {
        let mount = Mount {
            destination: destination.into(),
            kind: kind.into(),
            source: Some(source.into()),
            ..Mount::default()
        };
        PlannedMount::of(&mount, Path::new("/bundle"), None).unwrap()
    }

    #[test]
    fn nothing_but_proc_goes_on_proc() {
        assert!(mount("proc", "proc", "/proc").check_proc(false).is_ok());
        assert!(mount("bind", "/proc", "/proc").check_proc(true).is_ok());
        assert!(mount("bind", "/v", "/x/../proc").check_proc(false).is_err());
        assert!(mount("tmpfs", "tmpfs", "/proc").check_proc(false).is_err());
        assert!(mount("bind", "/v", "/proc/self/attr").check_proc(false).is_err());
        assert!(mount("bind", "/v", "/proc/cpuinfo").check_proc(false).is_ok());
        assert!(mount("bind", "/v", "/process").check_proc(false).is_ok());
    }

    #[test]
    fn relative_sources_begin_at_the_bundle() {
        assert_eq!(mount("bind", "data", "/data").source, Path::new("/bundle/data"));
        assert_eq!(mount("tmpfs", "tmpfs", "run").destination, Path::new("/run"));
    }

    #[test]
    fn who_asks_for_null_gets_it_as_asked() {
        let own = Device {
            path: "/dev/null".into(),
            kind: "c".into(),
            major: 1,
            minor: 3,
            uid: Some(7),
            ..Device::default()
        };
        let devices = devices(&[own]);
        assert_eq!(devices.len(), 6);
        assert_eq!(devices.last().unwrap().uid, Some(7));
    }

    #[test]
    fn propagation_words() {
        assert_eq!(root_propagation("rslave").unwrap(), Some((Propagation::Slave, Reach::Tree)));
        assert_eq!(root_propagation("").unwrap(), None);
        assert!(root_propagation("loud").is_err());
    }
}
