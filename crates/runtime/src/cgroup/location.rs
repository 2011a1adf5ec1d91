//! Which directories are a container's: its path in each hierarchy, from the spec's `cgroupsPath`.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use stdx::{Context, Error, Kind, Result};

use super::host::{Hierarchy, Host, host};
use super::systemd::{self, Manager, Unit};
use super::{Mode, oom};
use crate::userns::in_initial_user_namespace;

/// Who makes containers' groups, and removes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Driver {
    /// We do, by making directories.
    #[default]
    Cgroupfs,
    /// The host's systemd: each is a scope of its.
    Systemd,
}

impl Driver {
    /// Who made the groups of a container that an engine has written this down of: systemd's are words between colons.
    pub fn of_path(cgroups_path: &str) -> Self {
        let slice = cgroups_path.split_once(':').map(|(slice, _)| slice);
        match slice.is_some_and(|slice| slice.ends_with(".slice") && !slice.contains('/')) {
            true => Self::Systemd,
            false => Self::Cgroupfs,
        }
    }
}

/// A container's place in every hierarchy of this host. Can be written down and opened again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    pub(super) v1: Vec<Place>,
    pub(super) unified: Option<Place>,
    /// Where systemd makes it.
    #[serde(default)]
    pub(super) unit: Option<Unit>,
}

/// A directory in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The v1 controllers that live there; none on v2.
    pub controllers: Vec<String>,
    pub mount_point: PathBuf,
    /// Below the mount point.
    pub path: PathBuf,
}

impl Place {
    pub fn full_path(&self) -> PathBuf {
        self.mount_point.join(&self.path)
    }
}

impl Location {
    /// The place named by a spec, in the words of whoever makes it.
    pub fn by(driver: Driver, cgroups_path: &str, id: &str) -> Result<Self> {
        match driver {
            Driver::Cgroupfs => Self::of(cgroups_path, id),
            Driver::Systemd if systemd::runs() => {
                Self::of_unit(host()?, Manager::ours(), cgroups_path, id)
            }
            Driver::Systemd => Err(Error::new(
                Kind::NotImplemented,
                "systemd is not the first process of this host: it can make no cgroup",
            )),
        }
    }

    fn of_unit(host: &Host, manager: Manager, cgroups_path: &str, id: &str) -> Result<Self> {
        let unit = Unit::parse(cgroups_path, id)?;
        let path = manager.group().join(unit.path()?);
        let below = |_: &Hierarchy| path.clone();
        Ok(Self { unit: Some(unit), ..Self::everywhere(host, below) })
    }

    /// The place named by a spec: absolute from where the hierarchy is mounted, relative from where we are ourselves, and
    /// `/gantry/<id>` when nothing is named.
    pub fn of(cgroups_path: &str, id: &str) -> Result<Self> {
        let own = match cgroups_path.starts_with('/') || cgroups_path.is_empty() {
            true => String::new(),
            false => std::fs::read_to_string("/proc/self/cgroup")
                .context(|| "cannot read our own cgroup".to_owned())?,
        };
        Self::on(host()?, &own, cgroups_path, id)
    }

    fn on(host: &Host, proc_self_cgroup: &str, cgroups_path: &str, id: &str) -> Result<Self> {
        let wanted = match cgroups_path {
            "" => format!("/gantry/{id}"),
            path => path.to_owned(),
        };
        if wanted.contains('\0') {
            return Err(Error::invalid("the cgroup path contains a null byte"));
        }
        let below = clean(Path::new(&wanted));
        if below.as_os_str().is_empty() {
            return Err(Error::invalid(format!(
                "cgroup path {wanted:?} is the root, which is the host's"
            )));
        }
        Ok(Self::everywhere(host, |hierarchy| match wanted.starts_with('/') {
            true => below.clone(),
            false => hierarchy.own_path(proc_self_cgroup).join(&below),
        }))
    }

    fn everywhere(host: &Host, path: impl Fn(&Hierarchy) -> PathBuf) -> Self {
        let place = |hierarchy: &Hierarchy| Place {
            controllers: hierarchy.controllers.clone(),
            mount_point: hierarchy.mount_point.clone(),
            path: path(hierarchy),
        };
        Self {
            v1: host.v1.iter().map(place).collect(),
            unified: host.unified.as_ref().map(place),
            unit: None,
        }
    }

    /// As [`by`](Self::by), for an engine that has a user namespace for its host: groups there are the real host's, and if
    /// none has been given to us, containers live in our own.
    pub fn granted(driver: Driver, cgroups_path: &str, id: &str) -> Result<Self> {
        let location = Self::by(driver, cgroups_path, id)?;
        match in_initial_user_namespace() || location.may_be_made() {
            true => Ok(location),
            false => Ok(Self::nowhere()),
        }
    }

    /// No group at all: for who may make none, and has asked for no limits.
    pub fn nowhere() -> Self {
        Self { v1: Vec::new(), unified: None, unit: None }
    }

    pub fn is_nowhere(&self) -> bool {
        self.v1.is_empty() && self.unified.is_none()
    }

    /// Whether we may make the directories that are not there yet.
    pub fn may_be_made(&self) -> bool {
        self.v1.iter().chain(&self.unified).all(|place| {
            let path = place.full_path();
            let there = path.ancestors().find(|path| path.exists()).unwrap_or(&place.mount_point);
            let (write, effective) = (rustix::fs::Access::WRITE_OK, rustix::fs::AtFlags::EACCESS);
            rustix::fs::accessat(rustix::fs::CWD, there, write, effective).is_ok()
        })
    }

    /// The directories of v1, one for each mounted hierarchy that a container is in. Hierarchies that are not listed must
    /// not be shown to a container: there it is in the host's group.
    pub fn v1(&self) -> &[Place] {
        &self.v1
    }

    /// The directory of v2, on hybrid hosts too.
    pub fn unified(&self) -> Option<&Place> {
        self.unified.as_ref()
    }

    /// How many processes have been killed for want of memory in all the groups with the same parent, which v2 counts and
    /// which outlives this one. Nothing on v1, and where there is no parent.
    pub fn oom_kills_around(&self) -> Option<u64> {
        let unified = self.unified.as_ref().filter(|_| self.v1.is_empty())?;
        oom::kills_around(&unified.full_path())
    }

    pub(super) fn mode(&self) -> Mode {
        match (&self.unified, self.v1.is_empty()) {
            (Some(_), true) => Mode::V2,
            (Some(_), false) => Mode::Hybrid,
            (None, _) => Mode::V1,
        }
    }
}

/// Resolves `.` and `..` as text and stops at the root, like runc: nothing leads out of the hierarchy.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_host() -> Host {
        let hierarchy = |controller: &str| Hierarchy {
            controllers: vec![controller.to_owned()],
            mount_point: format!("/c/{controller}").into(),
            root: "/".into(),
        };
        let unified =
            Hierarchy { controllers: vec![], mount_point: "/c/unified".into(), root: "/".into() };
        Host { v1: vec![hierarchy("cpu"), hierarchy("memory")], unified: Some(unified) }
    }

    fn paths_of(found: &Location) -> Vec<String> {
        let places = found.v1.iter().chain(&found.unified);
        places.map(|place| place.full_path().display().to_string()).collect()
    }

    fn on(cgroups_path: &str) -> Result<Vec<String>> {
        let own = "4:memory:/session\n1:cpu:/\n0::/deep/er\n";
        Location::on(&a_host(), own, cgroups_path, "abc").map(|found| paths_of(&found))
    }

    #[test]
    fn who_made_it_is_seen_by_its_path() {
        for path in ["/gantry/abc", "", "relative/abc", "/a.slice:b/abc", "a:b/abc"] {
            assert_eq!(Driver::of_path(path), Driver::Cgroupfs, "{path}");
        }
        assert_eq!(Driver::of_path("a-b.slice:gantry:abc"), Driver::Systemd);
    }

    #[test]
    fn a_scope_is_in_its_slice_everywhere() {
        let by = |manager| Location::of_unit(&a_host(), manager, "a-b.slice:p:n", "abc").unwrap();
        let found = by(Manager::Host);
        let expected = ["cpu", "memory", "unified"];
        let expected = expected.map(|name| format!("/c/{name}/a.slice/a-b.slice/p-n.scope"));
        assert_eq!(paths_of(&found), expected);
        assert_eq!(
            paths_of(&by(Manager::User(7)))[1],
            "/c/memory/user.slice/user-7.slice/user@7.service/a.slice/a-b.slice/p-n.scope"
        );
        let kept = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Location>(&kept).unwrap(), found);
        let old = r#"{"v1":[],"unified":null}"#;
        assert!(serde_json::from_str::<Location>(old).unwrap().is_nowhere());
    }

    #[test]
    fn paths() {
        assert_eq!(
            on("").unwrap(),
            ["/c/cpu/gantry/abc", "/c/memory/gantry/abc", "/c/unified/gantry/abc"]
        );
        assert_eq!(on("/a/./b").unwrap(), ["/c/cpu/a/b", "/c/memory/a/b", "/c/unified/a/b"]);
        assert_eq!(on("b").unwrap(), ["/c/cpu/b", "/c/memory/session/b", "/c/unified/deep/er/b"]);
        assert_eq!(on("/../../b").unwrap()[0], "/c/cpu/b");
        assert_eq!(
            on("/").unwrap_err().to_string(),
            "cgroup path \"/\" is the root, which is the host's"
        );
    }
}
