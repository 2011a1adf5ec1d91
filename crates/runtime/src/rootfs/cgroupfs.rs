//! `/sys/fs/cgroup` inside: the container's own groups, and nobody else's unless it was given the host's namespace.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use stdx::{Context, Result};
use sys::mount::{Attr, Change, Reach, mount_setattr};

use super::attach::{attach, directory, new_mount};
use super::options::Options;
use super::plan::{Kind, PlannedMount, ShownCgroups};
use super::root::{Make, RootFd};
use super::sources::clone_tree;
use crate::cgroup::{Location, Place, SYSTEMD};

pub(super) fn mount(
    root: &RootFd,
    mount: &PlannedMount,
    shown: ShownCgroups,
    location: &Location,
) -> Result<()> {
    if location.v1().is_empty() {
        let place = directory(root, &mount.destination)?;
        return match location.unified() {
            Some(unified) if shown == ShownCgroups::All => {
                attach(&bound(&unified.mount_point, mount)?, &place)
            }
            Some(unified) => attach(&show(unified, mount, shown)?, &place),
            None => Ok(()),
        };
    }
    mount_v1(root, mount, shown, location)
}

/// A directory for each hierarchy the container is in, on a small tmpfs, with links for controllers that live together.
fn mount_v1(
    root: &RootFd,
    mount: &PlannedMount,
    shown: ShownCgroups,
    location: &Location,
) -> Result<()> {
    let place = directory(root, &mount.destination)?;
    let base = PlannedMount {
        destination: mount.destination.clone(),
        kind: Kind::Tmpfs,
        source: PathBuf::from("tmpfs"),
        options: Options {
            data: vec!["mode=755".to_owned(), "size=64k".to_owned()],
            ..Options::default()
        },
        mapping: None,
    };
    let attr = Attr::NOSUID | Attr::NODEV | Attr::NOEXEC;
    let tmpfs = new_mount("tmpfs", &base, &[], attr)?;
    attach(&tmpfs, &place)?;
    let inside = RootFd::new(tmpfs);
    for hierarchy in location.v1().iter().chain(location.unified()) {
        let Some(name) = hierarchy.mount_point.file_name() else { continue };
        let found = inside.find_or_make(Path::new(name), Make::Directory)?;
        attach(&show(hierarchy, mount, shown)?, &found.fd)
            .context(|| format!("cannot show cgroup {}", hierarchy.full_path().display()))?;
        for controller in hierarchy
            .controllers
            .iter()
            .filter(|controller| name != controller.as_str() && *controller != SYSTEMD)
        {
            match rustix::fs::symlinkat(name, &inside, controller.as_str()) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(err) => return Err(err.into()),
            }
        }
    }
    if mount.options.fresh().contains(Attr::RDONLY) {
        mount_setattr(&inside, Reach::Mount, &Change { set: Attr::RDONLY, ..Change::default() })?;
    }
    Ok(())
}

/// One hierarchy: with a namespace of its own a container mounts it and sees its group as the root; without, its
/// directory is bound there, read-only where asked.
fn show(place: &Place, mount: &PlannedMount, shown: ShownCgroups) -> Result<OwnedFd> {
    let attr = mount.options.fresh();
    if shown == ShownCgroups::Namespace {
        let made = match place.controllers.as_slice() {
            [] => new_mount("cgroup2", &plain(mount), &[], attr),
            controllers => {
                let options = Options { data: controllers.to_vec(), ..Options::default() };
                let named = controllers == [SYSTEMD];
                let source = PathBuf::from(if named { "systemd" } else { "cgroup" });
                new_mount("cgroup", &PlannedMount { options, source, ..plain(mount) }, &[], attr)
            }
        };
        match made {
            // A user namespace whose cgroup namespace is not its own may not mount.
            Err(err) if err.errno() == Some(Errno::PERM.raw_os_error()) => {}
            other => return other,
        }
    }
    bound(&place.full_path(), mount)
}

/// Not mounted anew: where the namespace is the host's, the options of the new mount would become those of the host's.
fn bound(path: &Path, mount: &PlannedMount) -> Result<OwnedFd> {
    let tree = clone_tree(path, Reach::Mount)
        .context(|| format!("cannot open cgroup {}", path.display()))?;
    // Without a namespace of its own a writable group is a way to the parent's (CVE-2023-25809).
    let safe = mount.options.fresh() | Attr::NOSUID | Attr::NODEV | Attr::NOEXEC;
    mount_setattr(&tree, Reach::Mount, &Change { set: safe, ..Change::default() })?;
    Ok(tree)
}

fn plain(mount: &PlannedMount) -> PlannedMount {
    PlannedMount {
        destination: mount.destination.clone(),
        kind: Kind::Cgroup,
        source: PathBuf::from("cgroup"),
        options: Options { propagation: mount.options.propagation.clone(), ..Options::default() },
        mapping: None,
    }
}
