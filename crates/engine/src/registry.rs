//! Who there is: containers by id and by name, in memory. What they are is in the records; this is the index.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use stdx::{Error, Id, Result};

use crate::container::Cell;
use crate::container::endpoints::parse_link;
use crate::container::record::Record;

#[derive(Default)]
pub(crate) struct Registry(RwLock<Index>);

#[derive(Default)]
struct Index {
    cells: BTreeMap<String, Arc<Cell>>,
    names: HashMap<String, Id>,
}

impl Index {
    fn starting<'a>(&'a self, word: &'a str) -> impl Iterator<Item = (&'a String, &'a Arc<Cell>)> {
        self.cells.range(word.to_owned()..).take_while(move |(id, _)| id.starts_with(word))
    }
}

impl Registry {
    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, newest first.
    pub(crate) fn all(&self) -> Vec<Arc<Cell>> {
        let mut cells: Vec<_> = self.read().cells.values().cloned().collect();
        cells.sort_by_key(|cell| std::cmp::Reverse(cell.record().created));
        cells
    }

    /// The one meant by `word`: a full id, else a name, or what another one calls it, else the beginning of exactly one id.
    pub(crate) fn find(&self, word: &str) -> Result<Arc<Cell>> {
        let index = self.read();
        if let Some(cell) = index.cells.get(word) {
            return Ok(Arc::clone(cell));
        }
        let bare = word.strip_prefix('/').unwrap_or(word);
        if let Some(cell) = index.names.get(bare).and_then(|id| index.cells.get(id.as_str())) {
            return Ok(Arc::clone(cell));
        }
        let missing = || Error::not_found(format!("No such container: {word}"));
        if let Some((parent, alias)) = bare.split_once('/') {
            let parent = index.names.get(parent).and_then(|id| index.cells.get(id.as_str()));
            let child = parent.and_then(|parent| linked_as(&parent.record(), alias));
            let child = child.and_then(|id| index.cells.get(&id));
            return child.cloned().ok_or_else(missing);
        }
        if word.is_empty() || !word.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let mut starting = index.starting(word);
        match (starting.next(), starting.next()) {
            (Some((_, cell)), None) => Ok(Arc::clone(cell)),
            (Some(_), Some(_)) => {
                Err(Error::invalid(format!("multiple IDs found with provided prefix: {word}")))
            }
            (None, _) => Err(missing()),
        }
    }

    /// The one container whose id begins so.
    pub(crate) fn by_id(&self, word: &str) -> Option<Id> {
        let index = self.read();
        let mut starting = index.starting(word);
        match (starting.next(), starting.next()) {
            (Some((_, cell)), None) if !word.is_empty() => Some(cell.id.clone()),
            _ => None,
        }
    }

    /// Gives `name` to `id`, unless somebody has it, or it could be taken for the id of another.
    pub(crate) fn reserve(&self, name: &str, id: &Id) -> Result<()> {
        let mut index = self.write();
        if let Some(holder) = index.names.get(name) {
            return Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
            )));
        }
        let hex = name.len() >= 12
            && name.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
        if hex
            && index
                .cells
                .range(name.to_owned()..)
                .next()
                .is_some_and(|(other, _)| other.starts_with(name))
        {
            return Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is the id of another container"
            )));
        }
        index.names.insert(name.to_owned(), id.clone());
        Ok(())
    }

    /// Takes a name back from `id`; somebody else's is left alone.
    pub(crate) fn release_name(&self, name: &str, id: &Id) {
        let mut index = self.write();
        if index.names.get(name) == Some(id) {
            index.names.remove(name);
        }
    }

    /// Who mounts which volume.
    pub(crate) fn users_of_volumes(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for cell in self.read().cells.values() {
            let record = cell.record();
            for mount in record.mounts.iter().filter(|mount| mount.r#type == "volume") {
                users.entry(mount.name.clone()).or_default().insert(record.id.to_string());
            }
        }
        users
    }

    pub(crate) fn insert(&self, cell: Arc<Cell>) {
        self.write().cells.insert(cell.id.to_string(), cell);
    }

    pub(crate) fn remove(&self, id: &Id) {
        let mut index = self.write();
        if let Some(cell) = index.cells.remove(id.as_str()) {
            let name = cell.record().name.clone();
            if index.names.get(&name) == Some(id) {
                index.names.remove(&name);
            }
        }
    }
}

/// Whom a container knows by this name.
fn linked_as(parent: &Record, alias: &str) -> Option<String> {
    parent.host_config.links.iter().flatten().find_map(|text| {
        let (child, known_as) = parse_link(text).ok()?;
        (known_as == alias).then_some(child)
    })
}
