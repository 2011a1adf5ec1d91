//! A container's user namespace: taken at its creation, made at its start, or somebody else's.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use stdx::{Context, Error, Kind, Result};
use sys::mount::{Change, Reach, mount_setattr};

use super::Container;
use super::ids::{Ids, Range, Userns, everybody, exchanged};
use super::mounts::{MountPlan, Source};
use super::plan::{Ipc, Network, Pid, Plan};
use super::record::Record;
use super::spec::{MountIds, What};
use crate::rooms::Rooms;

/// The namespace a container starts in, and what it means.
#[derive(Debug)]
pub(crate) struct Mapped {
    pub(crate) ids: Ids,
    pub(crate) user: OwnedFd,
    /// A network namespace that belongs to it, where the container is to have one of its own.
    pub(crate) network: Option<OwnedFd>,
}

/// What a new container will be: its range is its own until it is removed. One that lives in namespaces of another has
/// that one's users, whoever they are when it starts.
pub(crate) fn take(record: &mut Record, plan: &Plan, rooms: &Rooms) -> Result<()> {
    if others(plan).next().is_some() {
        return Ok(());
    }
    let range = match plan.userns {
        Userns::Host => return Ok(()),
        Userns::Shared(range) => range,
        Userns::Auto { size } | Userns::KeepId { size, .. } => {
            let range = rooms.ids.take(&record.id, rooms.settings().id_pool, size)?;
            record.id_range = Some(range);
            range
        }
    };
    record.ids = Ids::new(plan.userns, range);
    record.host_config.id_mappings = record.ids.as_ref().map(Ids::shown);
    Ok(())
}

/// The containers whose namespaces it lives in.
fn others(plan: &Plan) -> impl Iterator<Item = &str> {
    let network = match &plan.network {
        Network::Container(other) => Some(other.as_str()),
        _ => None,
    };
    let pid = match &plan.pid {
        Pid::Container(other) => Some(other.as_str()),
        _ => None,
    };
    let ipc = match &plan.ipc {
        Ipc::Container(other) => Some(other.as_str()),
        _ => None,
    };
    [network, pid, ipc].into_iter().flatten()
}

impl Container {
    /// Made for this start; `None` where its users are the host's.
    pub(crate) fn user_namespace(&self, record: &Record, plan: &Plan) -> Result<Option<Mapped>> {
        let mut joined = None;
        for other in others(plan) {
            let found = self.rooms.registry.find(other)?.record();
            match &joined {
                None => joined = Some((found.ids.clone(), other)),
                Some((ids, _)) if *ids == found.ids => {}
                Some(_) => {
                    return Err(Error::conflict(
                        "cannot share namespaces of containers with different user namespaces",
                    ));
                }
            }
        }
        match joined {
            None => record.ids.clone().map(|ids| self.new_namespace(ids, plan)).transpose(),
            Some((None, _)) => Ok(None),
            Some((Some(ids), other)) => {
                let path: PathBuf = self.namespace_of(other, "user")?;
                let user =
                    File::open(&path).context(|| format!("cannot open {}", path.display()))?;
                // What is its own besides is made inside; a network of its own belongs to the namespace of the others.
                let network = (!matches!(plan.network, Network::Container(_)))
                    .then(|| runtime::userns::network_of(&user))
                    .transpose()?;
                Ok(Some(Mapped { ids, user: user.into(), network }))
            }
        }
    }

    /// Who its users are outside, whether they are its own or another's.
    pub(crate) fn ids_now(&self, record: &Record, plan: &Plan) -> Result<Option<Ids>> {
        match others(plan).next() {
            None => Ok(record.ids.clone()),
            Some(other) => Ok(self.rooms.registry.find(other)?.record().ids.clone()),
        }
    }

    fn new_namespace(&self, ids: Ids, plan: &Plan) -> Result<Mapped> {
        let private = matches!(plan.network, Network::None | Network::Named(_));
        let made = runtime::userns::vacant(&ids.uids, &ids.gids, private)?;
        Ok(Mapped { ids, user: made.user, network: made.network })
    }

    /// Whose the files of a mount are inside.
    pub(crate) fn mount_ids(
        &self,
        mapped: Option<&Mapped>,
        plan: &MountPlan,
        what: &What,
    ) -> Result<MountIds> {
        let What::Bind { source, .. } = what else { return Ok(MountIds::Host) };
        let image = matches!(plan.source, Source::Image { .. });
        if image || mapped.is_none() && !plan.owners.is_said() {
            return Ok(MountIds::Host);
        }
        let refused =
            || Error::invalid(format!("the file system of {} cannot map ids", source.display()));
        if let Some(map) = &plan.owners.map {
            let host = Ids { uids: everybody(), gids: everybody() };
            let all = mapped.map_or(&host, |mapped| &mapped.ids);
            let (uids, gids) = map.within(&all.uids, &all.gids).ok_or_else(|| {
                Error::invalid(format!(
                    "idmap of {} is about nobody whom the container has",
                    plan.target
                ))
            })?;
            return match maps_ids(source, mapped)? {
                true => Ok(MountIds::Given(Ids { uids, gids })),
                false => Err(refused()),
            };
        }
        let owner = plan.owners.owner;
        let words = || format!("cannot map the owners of {}", source.display());
        let found = rustix::fs::stat(source).context(words)?;
        let inside = owner.unwrap_or((0, 0));
        // A volume's files have the container's numbers; a directory of a person's is to be root's inside.
        let on_disk = match (&plan.source, owner) {
            (Source::Volume { .. }, None) => inside,
            _ => (found.st_uid, found.st_gid),
        };
        let whole = mapped.map(|mapped| &mapped.ids);
        let (uids, gids) = match whole {
            Some(ids) => (ids.uids.clone(), ids.gids.clone()),
            None => (everybody(), everybody()),
        };
        // With `keep-id` a person is himself inside, and so are his files.
        let keeps = owner.is_none()
            && whole
                .is_some_and(|ids| ids.uids.iter().any(|line| line.container_id == line.host_id));
        if keeps && matches!(plan.source, Source::Bind { .. }) {
            return Ok(MountIds::Host);
        }
        let ids = Ids {
            uids: exchanged(&uids, on_disk.0, inside.0),
            gids: exchanged(&gids, on_disk.1, inside.1),
        };
        match maps_ids(source, mapped)? {
            true if Some(&ids) == whole => Ok(MountIds::Container),
            true if on_disk == inside && whole.is_none() => Ok(MountIds::Host),
            true => Ok(MountIds::Given(ids)),
            false if owner.is_some() => Err(refused()),
            // Nobody's then: what everybody may read can be read, and nothing more.
            false => Ok(MountIds::Host),
        }
    }
}

/// Whether the kernel can mount this with other owners: not all file systems do.
fn maps_ids(source: &std::path::Path, mapped: Option<&Mapped>) -> Result<bool> {
    use rustix::mount::OpenTreeFlags;
    let Some(mapped) = mapped else { return Ok(true) };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let words = || format!("cannot open {}", source.display());
    let tree = rustix::mount::open_tree(rustix::fs::CWD, source, flags).context(words)?;
    let change = Change { idmap: Some(mapped.user.as_fd()), ..Change::default() };
    Ok(mount_setattr(&tree, Reach::Mount, &change).is_ok())
}

/// Enters what a record says into the table of ranges, when the daemon wakes.
pub(crate) fn enter(record: &Record, rooms: &Rooms) {
    if let Some(range) = record.id_range {
        rooms.ids.enter(&record.id, range);
    }
}

/// Words of `/etc/subuid` and `/etc/subgid`: the first range of a user, by name or number.
pub fn subordinate(file: &str, user: &str, number: Option<u32>) -> Option<Range> {
    file.lines().find_map(|line| {
        let mut words = line.trim().split(':');
        let (name, first, size) = (words.next()?, words.next()?, words.next()?);
        let same = name == user || number.is_some_and(|number| name == number.to_string());
        (same && words.next().is_none())
            .then(|| Some(Range { first: first.parse().ok()?, size: size.parse().ok()? }))?
    })
}

/// The range that all containers share with `--userns-remap`.
pub fn remapped(user: &str) -> Result<Range> {
    let missing = |what: String| Error::new(Kind::Invalid, what);
    let user = match user {
        "default" => "dockremap",
        user => user.split(':').next().unwrap_or(user),
    };
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let number = read("/etc/passwd").lines().find_map(|line| {
        let mut words = line.split(':');
        (words.next() == Some(user)).then(|| words.nth(1)?.parse().ok())?
    });
    let range = |path: &str| {
        subordinate(&read(path), user, number)
            .ok_or_else(|| missing(format!("no subuid ranges found for user {user:?} in {path}")))
    };
    let (uids, gids) = (range("/etc/subuid")?, range("/etc/subgid")?);
    if uids == gids {
        return Ok(uids);
    }
    Err(missing(format!("the ranges of {user} in /etc/subuid and /etc/subgid differ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_users() {
        let file = "a:100:10\n\nbob:x:1\n7:200:20\nlong:1:2:3\n";
        let range = |first, size| Some(Range { first, size });
        assert_eq!(subordinate(file, "a", None), range(100, 10));
        assert_eq!(subordinate(file, "c", Some(7)), range(200, 20));
        for missing in ["bob", "long", "none"] {
            assert_eq!(subordinate(file, missing, None), None);
        }
    }
}
