//! Secrets and configs: named files that are kept here, sealed, and given to containers in memory.
//!
//! What services of a swarm have for this, a single engine has too, by the same requests and in the same words. A secret's
//! data leaves by one way only: into the containers that were made with it. Replacing it reaches those that run.

mod expand;
mod key;
mod words;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use api::container::HostConfig;
use api::secret::{CreateResponse, Driver, ObjectVersion, Secret, SecretSpec};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use state::{Actor, EventKind};
use stdx::time::Timestamp;
use stdx::{Context, Error, Kind, Result};
use tls::seal::Key;
use tokio::task::JoinSet;

use crate::container::record::Record as Container;
use crate::containers::Containers;
use crate::filters::Filters;
use crate::rooms::Rooms;

/// How long a change waits for the containers that have what was changed. One that is busy starting or stopping hears of it
/// later.
const REPLACING: Duration = Duration::from_secs(10);

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    Secret,
    Config,
}

impl Sort {
    pub fn word(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }

    /// Docker's limits: data must have less bytes than this.
    pub(crate) fn limit(self) -> usize {
        match self {
            Self::Secret => 500 << 10,
            Self::Config => 1000 << 10,
        }
    }

    fn event(self) -> EventKind {
        match self {
            Self::Secret => EventKind::Secret,
            Self::Config => EventKind::Config,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    sort: Sort,
    pub(crate) id: String,
    pub(crate) name: String,
    labels: BTreeMap<String, String>,
    version: u64,
    created: Timestamp,
    updated: Timestamp,
    /// In base64.
    sealed: String,
    /// What is sealed is a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    templating: Option<Driver>,
}

impl state::Record for Record {
    const TABLE: &'static str = "secrets";

    fn key(&self) -> String {
        key_of(self.sort, &self.id)
    }
}

fn key_of(sort: Sort, id: &str) -> String {
    format!("{}:{id}", sort.word())
}

impl Record {
    /// What the seal says that is in it.
    fn what(&self) -> String {
        format!("{} {} {}", self.sort.word(), self.id, self.name)
    }
}

/// What seals, and who changes what: one at a time, because names are unique.
#[derive(Debug, Default)]
pub(crate) struct Vault {
    key: OnceLock<Key>,
    change: Mutex<()>,
}

/// The handle that the doors hold.
#[derive(Clone)]
pub struct Secrets {
    containers: Containers,
}

impl Secrets {
    pub fn new(containers: &Containers) -> Self {
        Self { containers: containers.clone() }
    }

    pub async fn list(&self, sort: Sort, filters: Filters) -> Result<Vec<Secret>> {
        filters.allow(&["id", "label", "name", "names"])?;
        self.blocking(move |rooms| {
            let wanted = |record: &Record| {
                filters.any("id", |wanted| record.id.starts_with(wanted))
                    && filters.any("name", |wanted| record.name.starts_with(wanted))
                    && filters.exact("names", &record.name)
                    && filters.labels("label", &record.labels)
            };
            rooms.secrets(sort)?.iter().filter(|r| wanted(r)).map(|r| picture(rooms, r)).collect()
        })
        .await
    }

    pub async fn create(&self, sort: Sort, spec: SecretSpec) -> Result<CreateResponse> {
        self.blocking(move |rooms| {
            let data = words::data(&spec)?.unwrap_or_default();
            words::check(sort, &spec)?;
            words::check_data(sort, &data)?;
            let _one = rooms.vault.change.lock().unwrap_or_else(PoisonError::into_inner);
            if rooms.secrets(sort)?.iter().any(|other| other.name == spec.name) {
                return Err(words::exists(sort, &spec.name));
            }
            let now = Timestamp::now();
            let mut record = Record {
                sort,
                id: words::new_id(),
                name: spec.name,
                labels: spec.labels,
                version: 1,
                created: now,
                updated: now,
                sealed: String::new(),
                templating: spec.templating.filter(|driver| !driver.name.is_empty()),
            };
            rooms.seal(&mut record, &data)?;
            rooms.store.put(&record)?;
            rooms.store.sync()?;
            rooms.secret_event("create", &record);
            Ok(CreateResponse { id: record.id })
        })
        .await
    }

    pub async fn inspect(&self, sort: Sort, word: &str) -> Result<Secret> {
        let word = word.to_owned();
        self.blocking(move |rooms| picture(rooms, &rooms.secret(sort, &word)?)).await
    }

    /// Changes labels, as Docker does, or the data, which it does not: those who run with it have the new one before the
    /// answer comes.
    pub async fn update(
        &self,
        sort: Sort,
        word: &str,
        version: u64,
        spec: SecretSpec,
    ) -> Result<()> {
        let word = word.to_owned();
        let changed = self
            .blocking(move |rooms| {
                let data = words::data(&spec)?.filter(|data| !data.is_empty());
                let _one = rooms.vault.change.lock().unwrap_or_else(PoisonError::into_inner);
                let mut record = rooms.secret(sort, &word)?;
                words::check(sort, &spec)?;
                if record.name != spec.name {
                    return Err(words::refused("only updates to Labels are allowed"));
                }
                if record.version != version {
                    return Err(words::out_of_sequence());
                }
                record.labels = spec.labels;
                record.version += 1;
                record.updated = Timestamp::now();
                if let Some(data) = &data {
                    words::check_data(sort, data)?;
                    rooms.seal(&mut record, data)?;
                }
                rooms.store.put(&record)?;
                rooms.store.sync()?;
                rooms.secret_event("update", &record);
                Ok(data.map(|_| record.id))
            })
            .await?;
        if let Some(id) = changed {
            self.replace(sort, &id).await;
        }
        Ok(())
    }

    /// Tells everybody who has it.
    async fn replace(&self, sort: Sort, id: &str) {
        let mut telling = JoinSet::new();
        for container in self.containers.all() {
            if has(container.record().host(), sort, id) {
                telling.spawn(async move { container.renew_secrets().await });
            }
        }
        let told = async { while telling.join_next().await.is_some() {} };
        if tokio::time::timeout(REPLACING, told).await.is_err() {
            tracing::warn!(id, "some containers are told later that a secret was replaced");
        }
        telling.detach_all();
    }

    /// Removes one that no container was made with.
    pub async fn remove(&self, sort: Sort, word: &str) -> Result<()> {
        let word = word.to_owned();
        self.blocking(move |rooms| {
            // Nobody begins to use it between the question and the end.
            let _nobody = rooms.creations.write().unwrap_or_else(PoisonError::into_inner);
            let record = rooms.secret(sort, &word)?;
            let all = rooms.registry.all().into_iter().map(|cell| cell.record());
            let users: Vec<String> = all
                .filter(|container| has(container.host(), sort, &record.id))
                .map(|container| container.name.clone())
                .collect();
            if !users.is_empty() {
                return Err(words::in_use(sort, &record.name, &users));
            }
            rooms.store.delete::<Record>(&key_of(sort, &record.id))?;
            rooms.secret_event("remove", &record);
            Ok(())
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Rooms) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let rooms = Arc::clone(&self.containers.rooms);
        tokiox::to_the_end(async move { tokiox::blocking(move || work(&rooms)).await }).await
    }
}

fn has(host: &HostConfig, sort: Sort, id: &str) -> bool {
    match sort {
        Sort::Secret => host.secrets.iter().any(|reference| reference.secret_id == id),
        Sort::Config => host.configs.iter().any(|reference| reference.config_id == id),
    }
}

/// As it is told: of a secret everything but what it is.
fn picture(rooms: &Rooms, record: &Record) -> Result<Secret> {
    let data = match record.sort {
        Sort::Secret => None,
        Sort::Config => Some(STANDARD.encode(rooms.unseal(record)?)),
    };
    Ok(Secret {
        id: record.id.clone(),
        version: ObjectVersion { index: record.version },
        created_at: record.created.to_string(),
        updated_at: record.updated.to_string(),
        spec: SecretSpec {
            name: record.name.clone(),
            labels: record.labels.clone(),
            data,
            templating: record.templating.clone(),
            ..SecretSpec::default()
        },
    })
}

impl Rooms {
    fn secrets(&self, sort: Sort) -> Result<Vec<Record>> {
        let mut all = self.store.list::<Record>()?;
        all.retain(|record| record.sort == sort);
        Ok(all)
    }

    /// By its id, its name, or the beginning of exactly one id.
    pub(crate) fn secret(&self, sort: Sort, word: &str) -> Result<Record> {
        if let Some(record) = self.store.get::<Record>(&key_of(sort, word))? {
            return Ok(record);
        }
        let mut all = self.secrets(sort)?;
        let named = all.iter().position(|record| record.name == word);
        if let Some(index) = named {
            return Ok(all.swap_remove(index));
        }
        all.retain(|record| !word.is_empty() && record.id.starts_with(word));
        match all.len() {
            1 => Ok(all.swap_remove(0)),
            0 => Err(Error::not_found(format!("{} {word} not found", sort.word()))),
            count => Err(Error::invalid(format!(
                "{} {word} is ambiguous ({count} matches found)",
                sort.word()
            ))),
        }
    }

    pub(crate) fn unseal(&self, record: &Record) -> Result<Vec<u8>> {
        let doing = || format!("cannot read {} {}", record.sort.word(), record.name);
        let sealed = STANDARD
            .decode(&record.sealed)
            .map_err(|cause| Error::internal("the record is damaged").caused_by(cause))
            .context(doing)?;
        self.key()?
            .open(&record.what(), &sealed)
            .map_err(|broken| Error::internal(doing()).caused_by(broken))
    }

    /// What a container gets: what is kept, or what that becomes for it.
    pub(crate) fn payload(&self, record: &Record, container: &Container) -> Result<Vec<u8>> {
        let data = self.unseal(record)?;
        if record.templating.is_none() {
            return Ok(data);
        }
        let settings = self.settings();
        let receiver = expand::Receiver {
            container,
            engine: (&settings.identity, &settings.hostname),
            architecture: crate::system::architecture_of_go(),
            data: &|sort, id| self.unseal(&self.secret(sort, id)?),
        };
        expand::expand(record.sort, &data, &receiver)
    }

    fn seal(&self, record: &mut Record, data: &[u8]) -> Result<()> {
        record.sealed = STANDARD.encode(self.key()?.seal(&record.what(), data));
        Ok(())
    }

    fn key(&self) -> Result<&Key> {
        if let Some(key) = self.vault.key.get() {
            return Ok(key);
        }
        let key = key::open_or_make(&self.settings().data_root)?;
        Ok(self.vault.key.get_or_init(|| key))
    }

    fn secret_event(&self, action: &str, record: &Record) {
        let attributes = BTreeMap::from([("name".to_owned(), record.name.clone())]);
        let actor = Actor { id: record.id.clone(), attributes };
        self.journal.append(record.sort.event(), action, actor);
    }

    /// Names become ids, once: what is given the name later is something else.
    pub(crate) fn resolve_secrets(&self, host: &mut HostConfig) -> Result<()> {
        let find = |sort: Sort, id: &str, name: &str| {
            let word = if id.is_empty() { name } else { id };
            // It is not the container's image that is missing.
            self.secret(sort, word).map_err(|error| match error.kind() {
                Kind::NotFound => Error::invalid(format!("{} not found: {word}", sort.word())),
                _ => error,
            })
        };
        for wanted in &mut host.secrets {
            let found = find(Sort::Secret, &wanted.secret_id, &wanted.secret_name)?;
            (wanted.secret_id, wanted.secret_name) = (found.id, found.name);
            if wanted.file.name.is_empty() {
                wanted.file.name.clone_from(&wanted.secret_name);
            }
        }
        for wanted in &mut host.configs {
            let found = find(Sort::Config, &wanted.config_id, &wanted.config_name)?;
            (wanted.config_id, wanted.config_name) = (found.id, found.name);
            if wanted.file.name.is_empty() {
                wanted.file.name.clone_from(&wanted.config_name);
            }
        }
        Ok(())
    }

    /// Refuses what has gone since it was resolved. To be asked while nobody can begin to remove it.
    pub(crate) fn secrets_stay(&self, host: &HostConfig) -> Result<()> {
        let secrets = host.secrets.iter().map(|wanted| (Sort::Secret, &wanted.secret_id));
        let configs = host.configs.iter().map(|wanted| (Sort::Config, &wanted.config_id));
        for (sort, id) in secrets.chain(configs) {
            if self.store.get::<Record>(&key_of(sort, id))?.is_none() {
                return Err(Error::invalid(format!("{} not found: {id}", sort.word())));
            }
        }
        Ok(())
    }
}
