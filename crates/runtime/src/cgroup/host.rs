//! Which cgroup hierarchies this host has, and where. Read once: nobody remounts them under a running system.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use stdx::{Context, Result};

/// Which version rules the resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A hierarchy for each controller, and none of version 2.
    #[default]
    V1,
    /// Controllers on v1, and a v2 tree beside them, at `/sys/fs/cgroup/unified`.
    Hybrid,
    /// Only the unified tree.
    V2,
}

impl Mode {
    pub fn detect() -> Result<Self> {
        Ok(host()?.mode())
    }
}

/// What is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) v1: Vec<Hierarchy>,
    pub(super) unified: Option<Hierarchy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// One, or several that are mounted together (`cpu,cpuacct`). None for v2.
    pub(super) controllers: Vec<String>,
    pub(super) mount_point: PathBuf,
    /// What part of the hierarchy is mounted there: `/`, but for an engine inside a container.
    pub(super) root: PathBuf,
}

/// Controllers of v1 that a container gets a directory in. `perf_event` counts for root only.
const CONTROLLERS: [&str; 12] = [
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb",
    "net_cls", "net_prio", "rdma",
];

/// The one hierarchy without a controller that a container is in too: by it systemd knows whose a process is, and a
/// systemd inside has its own groups there. Others with names are their owners'.
pub(crate) const SYSTEMD: &str = "name=systemd";

pub(super) fn host() -> Result<&'static Host> {
    static HOST: OnceLock<Host> = OnceLock::new();
    if let Some(host) = HOST.get() {
        return Ok(host);
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")
        .context(|| "cannot read our mounts".to_owned())?;
    Ok(HOST.get_or_init(|| Host::parse(&mounts)))
}

impl Host {
    fn parse(mountinfo: &str) -> Self {
        let mut host = Self::default();
        for line in mountinfo.lines() {
            // `31 23 0:28 <root> <mount point> <options> <tags>… - <type> <source> <super options>`
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(mount_point)) = (left.next(), left.next()) else { continue };
            let hierarchy = |controllers| Hierarchy {
                controllers,
                mount_point: unescape(mount_point),
                root: unescape(root),
            };
            let mut right = right.split(' ');
            match right.next() {
                // The first of several mounts of the same is the one systems mean.
                Some("cgroup2") if host.unified.is_none() && mount_point.starts_with(BASE) => {
                    host.unified = Some(hierarchy(Vec::new()));
                }
                Some("cgroup") => {
                    let controllers: Vec<String> = right
                        .next_back()
                        .unwrap_or_default()
                        .split(',')
                        .filter(|option| CONTROLLERS.contains(option) || *option == SYSTEMD)
                        .map(str::to_owned)
                        .collect();
                    let known = |found: &Hierarchy| found.controllers == controllers;
                    if !controllers.is_empty() && !host.v1.iter().any(known) {
                        host.v1.push(hierarchy(controllers));
                    }
                }
                _ => {}
            }
        }
        host
    }

    pub(super) fn mode(&self) -> Mode {
        match (&self.unified, self.v1.is_empty()) {
            (Some(_), true) => Mode::V2,
            (Some(_), false) => Mode::Hybrid,
            (None, _) => Mode::V1,
        }
    }
}

const BASE: &str = "/sys/fs/cgroup";

impl Hierarchy {
    /// Where our own process is, as a path below the mount point.
    pub(super) fn own_path(&self, proc_self_cgroup: &str) -> PathBuf {
        let own = proc_self_cgroup.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let ours = match self.controllers.first() {
                Some(first) => controllers.split(',').any(|name| name == first),
                None => controllers.is_empty(),
            };
            ours.then_some(path)
        });
        let own = Path::new(own.unwrap_or("/"));
        own.strip_prefix(&self.root).or_else(|_| own.strip_prefix("/")).unwrap_or(own).to_owned()
    }
}

/// Blanks and the like stand in mountinfo as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    PathBuf::from(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:4 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
99 31 0:32 /x /mnt/again rw,relatime - cgroup cgroup rw,memory
";

    #[test]
    fn a_hybrid_host() {
        let host = Host::parse(HYBRID);
        assert_eq!(host.mode(), Mode::Hybrid);
        let found: Vec<_> = host
            .v1
            .iter()
            .map(|found| (found.controllers.join("+"), found.mount_point.clone()))
            .collect();
        let expected = [
            ("cpu+cpuacct", "/sys/fs/cgroup/cpu,cpuacct"),
            ("memory", "/sys/fs/cgroup/memory"),
            ("name=systemd", "/sys/fs/cgroup/systemd"),
        ];
        assert_eq!(found, expected.map(|(name, path)| (name.to_owned(), PathBuf::from(path))));
        assert_eq!(host.unified.unwrap().mount_point, Path::new("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn a_modern_host() {
        let host =
            Host::parse("31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
        assert_eq!(host.mode(), Mode::V2);
    }

    #[test]
    fn our_own_place_in_a_container_is_below_its_root() {
        let hierarchy = Hierarchy {
            controllers: vec!["memory".to_owned()],
            mount_point: "/sys/fs/cgroup/memory".into(),
            root: "/docker/abc".into(),
        };
        let own = |text: &str| hierarchy.own_path(text);
        assert_eq!(own("5:pids:/p\n4:memory:/docker/abc/sub\n0::/u\n"), Path::new("sub"));
        assert_eq!(own("4:memory:/elsewhere\n"), Path::new("elsewhere"));
    }

    #[test]
    fn octal_digits_are_bytes() {
        assert_eq!(unescape(r"/a\040b\x"), Path::new(r"/a b\x"));
    }
}
