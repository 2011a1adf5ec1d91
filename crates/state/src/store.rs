//! The store: SQLite in WAL mode, one table for all records, one writer.
//!
//! `synchronous=NORMAL`: a commit survives the death of the process (18 µs); [`Store::sync`] makes what was committed
//! survive the loss of power, for the few places where an acknowledgement promises that.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use stdx::{Context, Error, Kind, Result};

/// The shape of the tables; a store written by a later version is refused instead of guessed at.
const SCHEMA: i64 = 1;

/// Replacing a value where it is: a record that is deleted and inserted again dirties twice the pages. For the same reason
/// the table has rowids: without them what is larger than a quarter of a page lies on pages of its own.
const PUT: &str = "INSERT INTO records (kind, key, value) VALUES (?1, ?2, ?3)
                   ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value";

/// Something kept: a kind that names its table, and a key within it.
pub trait Record: Serialize + DeserializeOwned {
    /// Plural noun: `containers`, `images`. Never changes once released.
    const TABLE: &'static str;

    fn key(&self) -> String;
}

/// The open store. Clones share it.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
}

impl Store {
    /// Opens or makes the store in `file`, whose directory exists.
    pub fn open(file: &Path) -> Result<Self> {
        let connection = Connection::open(file)
            .map_err(failed)
            .context(|| format!("cannot open {}", file.display()))?;
        Self::prepare(connection).context(|| format!("cannot use {}", file.display()))
    }

    /// A store that lives in memory only, for tests.
    pub fn in_memory() -> Self {
        let connection =
            Connection::open_in_memory().expect("SQLite needs no outside help in memory");
        Self::prepare(connection).expect("an empty store has the right shape")
    }

    fn prepare(connection: Connection) -> Result<Self> {
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = NORMAL;
                 PRAGMA busy_timeout = 5000;
                 PRAGMA trusted_schema = OFF;",
            )
            .map_err(failed)?;
        let found: i64 =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        if found > SCHEMA {
            return Err(Error::internal(format!(
                "the state was written by a later version (schema {found}, this version knows {SCHEMA})"
            )));
        }
        connection
            .execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS records (
                     kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
                     PRIMARY KEY (kind, key));
                 CREATE TABLE IF NOT EXISTS events (
                     sequence INTEGER PRIMARY KEY AUTOINCREMENT, nanos INTEGER NOT NULL, value BLOB NOT NULL);
                 PRAGMA user_version = {SCHEMA};"
            ))
            .map_err(failed)?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get<R: Record>(&self, key: &str) -> Result<Option<R>> {
        get(&self.lock(), R::TABLE, key)?.map(|value| understand(R::TABLE, key, &value)).transpose()
    }

    /// All records of a kind, in the order of their keys.
    pub fn list<R: Record>(&self) -> Result<Vec<R>> {
        list(&self.lock(), R::TABLE)?
            .iter()
            .map(|(key, value)| understand(R::TABLE, key, value))
            .collect()
    }

    pub fn put<R: Record>(&self, record: &R) -> Result<()> {
        self.transaction(|tx| tx.put(record))
    }

    pub fn delete<R: Record>(&self, key: &str) -> Result<()> {
        self.transaction(|tx| tx.delete::<R>(key))
    }

    /// Runs `work` as one transaction: all of it is kept, or, when it fails, nothing.
    pub fn transaction<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.lock();
        let inner = connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(failed)?;
        let transaction = Transaction { inner };
        let value = work(&transaction)?;
        transaction.inner.commit().map_err(failed)?;
        Ok(value)
    }

    /// Returns when all that was committed so far would survive a loss of power.
    pub fn sync(&self) -> Result<()> {
        let connection = self.lock();
        connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(())).map_err(failed)
    }
}

/// What may be done inside [`Store::transaction`].
pub struct Transaction<'a> {
    inner: rusqlite::Transaction<'a>,
}

impl Transaction<'_> {
    pub fn get<R: Record>(&self, key: &str) -> Result<Option<R>> {
        get(&self.inner, R::TABLE, key)?.map(|value| understand(R::TABLE, key, &value)).transpose()
    }

    pub fn list<R: Record>(&self) -> Result<Vec<R>> {
        list(&self.inner, R::TABLE)?
            .iter()
            .map(|(key, value)| understand(R::TABLE, key, value))
            .collect()
    }

    pub fn put<R: Record>(&self, record: &R) -> Result<()> {
        let value = serde_json::to_vec(record).map_err(|cause| {
            Error::internal(format!("cannot write a record of {}", R::TABLE)).caused_by(cause)
        })?;
        put(&self.inner, R::TABLE, &record.key(), &value)
    }

    pub fn delete<R: Record>(&self, key: &str) -> Result<()> {
        self.inner
            .prepare_cached("DELETE FROM records WHERE kind = ?1 AND key = ?2")
            .and_then(|mut statement| statement.execute(params![R::TABLE, key]))
            .map(drop)
            .map_err(failed)
    }
}

fn get(connection: &Connection, kind: &str, key: &str) -> Result<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT value FROM records WHERE kind = ?1 AND key = ?2")
        .and_then(|mut statement| {
            statement.query_row(params![kind, key], |row| row.get(0)).optional()
        })
        .map_err(failed)
}

fn list(connection: &Connection, kind: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let mut statement = connection
        .prepare_cached("SELECT key, value FROM records WHERE kind = ?1 ORDER BY key")
        .map_err(failed)?;
    let rows =
        statement.query_map(params![kind], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
    rows.collect::<rusqlite::Result<_>>().map_err(failed)
}

fn put(connection: &Connection, kind: &str, key: &str, value: &[u8]) -> Result<()> {
    connection
        .prepare_cached(PUT)
        .and_then(|mut statement| statement.execute(params![kind, key, value]))
        .map(drop)
        .map_err(failed)
}

fn understand<R: Record>(kind: &str, key: &str, value: &[u8]) -> Result<R> {
    serde_json::from_slice(value).map_err(|cause| {
        Error::internal(format!("the record {key} of {kind} is damaged")).caused_by(cause)
    })
}

/// A full disk is worth its own kind: it may pass.
pub(crate) fn failed(cause: rusqlite::Error) -> Error {
    let kind = match cause.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => Kind::Unavailable,
        _ => Kind::Internal,
    };
    Error::new(kind, "the state store failed").caused_by(cause)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Cat {
        name: String,
        lives: u8,
    }

    impl Record for Cat {
        const TABLE: &'static str = "cats";

        fn key(&self) -> String {
            self.name.clone()
        }
    }

    fn cat(name: &str) -> Cat {
        Cat { name: name.to_owned(), lives: 9 }
    }

    #[test]
    fn what_is_put_is_got() {
        let store = Store::in_memory();
        store.put(&cat("tom")).unwrap();
        assert_eq!(store.get::<Cat>("tom").unwrap(), Some(cat("tom")));
        assert_eq!(store.list::<Cat>().unwrap(), [cat("tom")]);
        store.delete::<Cat>("tom").unwrap();
        assert_eq!(store.get::<Cat>("tom").unwrap(), None);
    }

    #[test]
    fn a_failed_transaction_leaves_nothing() {
        let store = Store::in_memory();
        let outcome = store.transaction(|tx| {
            tx.put(&cat("tom"))?;
            Err::<(), _>(Error::conflict("no"))
        });
        assert_eq!(outcome.unwrap_err().kind(), Kind::Conflict);
        assert_eq!(store.list::<Cat>().unwrap(), []);
    }
}
