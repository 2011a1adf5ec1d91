//! The store: SQLite in WAL mode, one table for all records, one writer.
//!
//! `synchronous=NORMAL`: a commit survives the death of the process (18 µs); [`Store::sync`] makes what was committed
//! survive the loss of power, for the few places where an acknowledgement promises that.
//!
//! What must stay true: nobody who reads waits for a disk that does not answer a writer; a full disk can be tidied, because
//! the room to write that down is taken beforehand; and after the disk has failed to keep something, nothing is promised
//! any more until the daemon starts again (fsyncgate).

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stdx::{Context, Error, Result};

/// The shape of the tables; a store written by a later version is refused instead of guessed at.
const SCHEMA: i64 = 1;

/// Something kept: a kind that names its table, and a key within it.
pub trait Record: Serialize + DeserializeOwned {
    /// Plural noun: `containers`, `images`. Never changes once released.
    const TABLE: &'static str;

    fn key(&self) -> String;
}

/// SQLite's way to files whose index of the log is in the memory of the one process that has them: nobody else may look in
/// meanwhile, and no reader has to write to the disk.
const ALONE: &str = "unix-excl";

/// SQLite's own measure, unless told otherwise.
const PAGE: u64 = 4096;

/// How much the store may grow on a disk that is full: the log up to its checkpoint, and the records.
const LOG_ROOM: u64 = 6 << 20;
const ROOM: u64 = 1 << 20;
/// Of this, what is kept for changes that make nothing larger: stops, exits, removals.
const TIDYING: u64 = 256 << 10;

/// The open store. Clones share it.
#[derive(Clone)]
pub struct Store {
    writer: Arc<Mutex<Connection>>,
    /// Readers see the last commit, whatever the writer waits for. In memory there is one connection for both.
    reader: Arc<Mutex<Connection>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The disk has failed to keep what was written.
    failed: AtomicBool,
    /// Nowhere, in memory.
    file: PathBuf,
    /// Bytes of the file that no record needs.
    spare: AtomicU64,
    /// There were no blocks for more of them.
    tight: AtomicBool,
}

impl Store {
    /// Opens or makes the store in `file`, whose directory exists.
    pub fn open(file: &Path) -> Result<Self> {
        let open = || Connection::open_with_flags_and_vfs(file, OpenFlags::default(), ALONE);
        let context = || format!("cannot open {}", file.display());
        let writer = open().map_err(failed).context(context)?;
        prepare(&writer).context(|| format!("cannot use {}", file.display()))?;
        let reader = open().map_err(failed).context(context)?;
        let store = Self {
            writer: Arc::new(Mutex::new(writer)),
            reader: Arc::new(Mutex::new(reader)),
            shared: Arc::new(Shared { file: file.to_owned(), ..Shared::default() }),
        };
        store.transaction(|_| Ok(()))?;
        store.keep_room();
        // It never gets shorter.
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        if let Err(error) = reserve(Path::new(&log), FallocateFlags::KEEP_SIZE, LOG_ROOM) {
            tracing::warn!(error = %error.chain(), "cannot take room for changes of records");
        }
        Ok(store)
    }

    /// A store that lives in memory only, for tests.
    pub fn in_memory() -> Self {
        let connection =
            Connection::open_in_memory().expect("SQLite needs no outside help in memory");
        prepare(&connection).expect("an empty store has the right shape");
        let connection = Arc::new(Mutex::new(connection));
        Self { writer: Arc::clone(&connection), reader: connection, shared: Arc::default() }
    }

    /// Takes room on the disk for the next records, if there is any. Called once in a while; where the file system cannot, a
    /// full disk has to be tidied from outside.
    pub fn keep_room(&self) {
        let mut connection = self.writer();
        self.shared.tight.store(false, Ordering::Relaxed);
        self.grow(&mut connection);
    }

    /// Has pages in the file that no record needs yet, and blocks for them. Blocks behind the file's end would be given back
    /// by the next checkpoint.
    fn grow(&self, connection: &mut Connection) {
        let Shared { file, spare, tight, failed: broken } = &*self.shared;
        let enough = spare.load(Ordering::Relaxed) >= ROOM / 2 || tight.load(Ordering::Relaxed);
        if enough || file.as_os_str().is_empty() || broken.load(Ordering::Relaxed) {
            return;
        }
        let mut more = || -> Result<()> {
            let transaction = connection.transaction().map_err(failed)?;
            // The blocks first: pages without them would be taken for room.
            let end = pages(&transaction, "page_count")? + ROOM + ROOM / 16;
            reserve(file, FallocateFlags::KEEP_SIZE, end)?;
            for change in [
                "INSERT OR REPLACE INTO records (kind, key, value) VALUES ('', '', zeroblob(1048576))",
                "DELETE FROM records WHERE kind = ''",
            ] {
                transaction.execute(change, []).map_err(failed)?;
            }
            let left = pages(&transaction, "freelist_count")?;
            transaction.commit().map_err(failed)?;
            spare.store(left, Ordering::Relaxed);
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(failed)
        };
        let outcome = more();
        // All of the room has been a page in memory, too.
        shrink(connection);
        if let Err(error) = outcome {
            tight.store(true, Ordering::Relaxed);
            tracing::debug!(error = %error.chain(), "there is no room for more records");
        }
    }

    /// Gives back memory that only work needs: pages that were read or written once.
    pub fn rest(&self) {
        shrink(&self.writer());
        shrink(&self.reader());
    }

    /// Refuses new work after the disk has failed to keep what was written.
    pub fn writable(&self) -> Result<()> {
        match self.shared.failed.load(Ordering::Acquire) {
            true => Err(Error::unavailable(
                "the records are read-only: the disk failed to keep what was written; check it and restart the daemon",
            )),
            false => Ok(()),
        }
    }

    /// A full disk is an answer; anything else that the disk says means that what was written may be gone.
    fn judge(&self, cause: rusqlite::Error) -> Error {
        use rusqlite::ErrorCode::{ReadOnly, SystemIoFailure};
        if matches!(cause.sqlite_error_code(), Some(SystemIoFailure | ReadOnly))
            && !self.shared.failed.swap(true, Ordering::AcqRel)
        {
            tracing::error!(error = %cause, "the disk failed to keep what was written; the records are read-only from here");
        }
        failed(cause)
    }

    pub(crate) fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get<R: Record>(&self, key: &str) -> Result<Option<R>> {
        get(&self.reader(), R::TABLE, key)?
            .map(|value| understand(R::TABLE, key, &value))
            .transpose()
    }

    /// All records of a kind, in the order of their keys.
    pub fn list<R: Record>(&self) -> Result<Vec<R>> {
        list(&self.reader())
    }

    pub fn put<R: Record>(&self, record: &R) -> Result<()> {
        self.transaction(|tx| tx.put(record))
    }

    pub fn delete<R: Record>(&self, key: &str) -> Result<()> {
        self.transaction(|tx| tx.delete::<R>(key))
    }

    /// Runs `work` as one transaction: all of it is kept, or, when it fails, nothing.
    pub fn transaction<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.writer();
        self.writable()?;
        self.grow(&mut connection);
        let inner = connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(|cause| self.judge(cause))?;
        let transaction = Transaction { inner, adds: Cell::new(false) };
        let value = work(&transaction)?;
        let spare = pages(&transaction.inner, "freelist_count")?;
        // What only changes or removes may use what nothing new may.
        let tight = self.shared.tight.load(Ordering::Relaxed);
        if transaction.adds.get() && tight && spare < TIDYING {
            return Err(Error::unavailable(FULL));
        }
        self.shared.spare.store(spare, Ordering::Relaxed);
        transaction.inner.commit().map_err(|cause| self.judge(cause))?;
        Ok(value)
    }

    /// Returns when all that was committed so far would survive a loss of power.
    pub fn sync(&self) -> Result<()> {
        let connection = self.writer();
        self.writable()?;
        // An error of the disk is an answer here, too, and not always a failure of the statement.
        let unfinished: i64 = connection
            .query_row("PRAGMA wal_checkpoint(FULL)", [], |row| row.get(0))
            .map_err(|cause| self.judge(cause))?;
        match unfinished {
            0 => Ok(()),
            _ => Err(Error::unavailable(
                "the records are being read; what was written is not on the disk yet",
            )),
        }
    }
}

const FULL: &str = "the disk that holds the records is full";

/// Bytes of all pages of a sort, as this transaction would leave them.
fn pages(transaction: &rusqlite::Transaction<'_>, sort: &str) -> Result<u64> {
    let count: i64 = transaction
        .prepare_cached(&format!("PRAGMA {sort}"))
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(failed)?;
    Ok(count as u64 * PAGE)
}

/// Empties a connection's cache. What it keeps is not lost, and only memory.
fn shrink(connection: &Connection) {
    if let Err(error) = connection.execute_batch("PRAGMA shrink_memory") {
        tracing::debug!(%error, "cannot empty the cache of the records");
    }
}

/// Gives a connection its manners, and a new store its tables.
fn prepare(connection: &Connection) -> Result<()> {
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL;
             PRAGMA busy_timeout = 5000;
             PRAGMA trusted_schema = OFF;",
        )
        .map_err(failed)?;
    // The log stays when the daemon ends: who starts on a full disk finds its room taken already.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    let found: i64 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    if found > SCHEMA {
        return Err(Error::internal(format!(
            "the state was written by a later version (schema {found}, this version knows {SCHEMA})"
        )));
    }
    if found == SCHEMA {
        return Ok(());
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
        .map_err(failed)
}

/// Gives a file blocks up to `end`. Where the file system does not do that, nothing is known of its room.
fn reserve(path: &Path, how: FallocateFlags, end: u64) -> Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::fs::fallocate(&file, how, 0, end) {
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// What may be done inside [`Store::transaction`].
pub struct Transaction<'a> {
    /// Something is in it that was not there before.
    pub(crate) adds: Cell<bool>,
    pub(crate) inner: rusqlite::Transaction<'a>,
}

impl Transaction<'_> {
    pub fn get<R: Record>(&self, key: &str) -> Result<Option<R>> {
        get(&self.inner, R::TABLE, key)?.map(|value| understand(R::TABLE, key, &value)).transpose()
    }

    pub fn list<R: Record>(&self) -> Result<Vec<R>> {
        list(&self.inner)
    }

    pub fn put<R: Record>(&self, record: &R) -> Result<()> {
        let value = serde_json::to_vec(record).map_err(|cause| {
            Error::internal(format!("cannot write a record of {}", R::TABLE)).caused_by(cause)
        })?;
        let (kind, key) = (R::TABLE, record.key());
        // Where it is: a record that is deleted and inserted again dirties twice the pages. For the same reason the table has
        // rowids: without them what is larger than a quarter of a page lies on pages of its own.
        let changed = self
            .inner
            .prepare_cached("UPDATE records SET value = ?3 WHERE kind = ?1 AND key = ?2")
            .and_then(|mut statement| statement.execute(params![kind, key, value]))
            .map_err(failed)?;
        if changed > 0 {
            return Ok(());
        }
        self.adds.set(true);
        self.inner
            .prepare_cached("INSERT INTO records (kind, key, value) VALUES (?1, ?2, ?3)")
            .and_then(|mut statement| statement.execute(params![kind, key, value]))
            .map(drop)
            .map_err(failed)
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

/// Each is understood where the row lies: what was written of all of them together would be the most that a start needs.
fn list<R: Record>(connection: &Connection) -> Result<Vec<R>> {
    let mut statement = connection
        .prepare_cached("SELECT key, value FROM records WHERE kind = ?1 ORDER BY key")
        .map_err(failed)?;
    let mut rows = statement.query(params![R::TABLE]).map_err(failed)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let text = |at| row.get_ref(at).map_err(failed);
        let key = text(0)?.as_str().map_err(|cause| failed(cause.into()))?;
        let value = text(1)?.as_blob().map_err(|cause| failed(cause.into()))?;
        records.push(understand(R::TABLE, key, value)?);
    }
    Ok(records)
}

fn understand<R: Record>(kind: &str, key: &str, value: &[u8]) -> Result<R> {
    serde_json::from_slice(value).map_err(|cause| {
        Error::internal(format!("the record {key} of {kind} is damaged")).caused_by(cause)
    })
}

/// A full disk is worth its own kind: it may pass.
pub(crate) fn failed(cause: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{DiskFull, ReadOnly, SystemIoFailure};
    match cause.sqlite_error_code() {
        Some(DiskFull) => Error::unavailable(FULL).caused_by(cause),
        Some(SystemIoFailure | ReadOnly) => {
            Error::unavailable("the disk failed to keep the records").caused_by(cause)
        }
        _ => Error::internal("the state store failed").caused_by(cause),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use stdx::Kind;

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
    fn who_reads_does_not_wait_for_who_writes() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("state.db")).unwrap();
        store.put(&cat("tom")).unwrap();
        let kept = store.transaction(|tx| {
            tx.put(&cat("kitty"))?;
            assert_eq!(store.list::<Cat>()?, [cat("tom")]);
            tx.list::<Cat>()
        });
        assert_eq!(store.list::<Cat>().unwrap(), kept.unwrap());
        store.sync().unwrap();
        drop(store);
        let again = Store::open(&home.path().join("state.db")).unwrap();
        assert_eq!(again.list::<Cat>().unwrap().len(), 2);
    }

    #[test]
    fn room_is_taken_beforehand() {
        use std::os::unix::fs::MetadataExt;
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("state.db");
        let store = Store::open(&file).unwrap();
        let meta = std::fs::metadata(home.path().join("state.db-wal")).unwrap();
        assert!(meta.len() < LOG_ROOM && meta.blocks() * 512 >= LOG_ROOM, "{meta:?}");
        store.put(&cat("tom")).unwrap();
        store.sync().unwrap();
        let meta = std::fs::metadata(&file).unwrap();
        assert!(meta.len() > ROOM && meta.blocks() * 512 >= ROOM, "{meta:?}");
        // On a disk that has none to give, the last is not for what is new.
        store.shared.spare.store(0, Ordering::Relaxed);
        store.shared.tight.store(true, Ordering::Relaxed);
        let large = Cat { name: "x".repeat(50 << 10), lives: 1 };
        let full = (0..20)
            .find(|n| store.put(&Cat { name: format!("{n}{}", large.name), lives: 1 }).is_err());
        assert!(full.is_some_and(|full| full > 2), "{full:?}");
        store.put(&Cat { lives: 1, ..cat("tom") }).unwrap();
        store.delete::<Cat>("tom").unwrap();
    }

    #[test]
    fn rest_forgets_nothing() {
        let home = tempfile::tempdir().unwrap();
        for store in [Store::in_memory(), Store::open(&home.path().join("state.db")).unwrap()] {
            store.put(&cat("tom")).unwrap();
            store.rest();
            assert_eq!(store.list::<Cat>().unwrap(), [cat("tom")]);
        }
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
