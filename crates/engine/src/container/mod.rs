//! One container: what it is, and a file for everything that can be done to it.
//!
//! Read [`record`] (what is remembered), [`state`] (its life), then [`plan`] → [`spec`] (what runs, decided without
//! touching anything), then [`start`] and [`exit`]: the one way in and the one way out.

pub mod capabilities;
pub mod ids;
pub mod mounts;
pub mod owners;
pub mod plan;
mod propagation;
pub mod record;
pub mod restart_policy;
pub mod signal;
pub mod spec;
pub mod state;

pub(crate) mod attach;
mod block_io;
pub(crate) mod cdi;
pub(crate) mod changes;
pub(crate) mod check;
pub(crate) mod checkpoint;
pub(crate) mod commit;
pub(crate) mod connect;
pub(crate) mod copy;
pub(crate) mod create;
pub(crate) mod endpoints;
pub(crate) mod exec;
pub(crate) mod exit;
pub mod health;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod links;
pub(crate) mod logs;
pub(crate) mod networks;
pub(crate) mod pause;
pub(crate) mod publish;
pub(crate) mod reach;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod resize;
pub(crate) mod secrets;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod top;
pub(crate) mod tree;
pub(crate) mod update;
pub mod userns;
pub(crate) mod view;
pub(crate) mod volumes;
pub(crate) mod wait;

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use create::CreateRequest;
use record::Record;
use state::Event;
use stdx::time::Timestamp;
use stdx::{Context, Error, Id, Result};
use tokio::sync::{Mutex as Gate, watch};

use crate::rooms::Rooms;

/// A container as the engine keeps it in memory: its last record for whoever reads, a gate for whoever changes it.
pub(crate) struct Cell {
    pub(crate) id: Id,
    /// The last record. Readers never wait for a transition.
    now: watch::Sender<Arc<Record>>,
    /// Held through each transition, so that there is nothing to undo halfway.
    pub(crate) gate: Gate<()>,
    /// Held from before an end is shown until it has been told of.
    telling: Mutex<()>,
    live: Mutex<Live>,
}

/// What is known only while the daemon runs.
#[derive(Default)]
pub(crate) struct Live {
    /// Clients that attached before the start; they get the output from its first byte.
    pub(crate) waiting_attaches: Vec<(shim::AttachOptions, UnixStream)>,
    /// Becomes true, for those who attached to this run or before it, when its end is written down.
    pub(crate) run_over: watch::Sender<bool>,
    /// The pause before the last restart.
    pub(crate) last_pause: Option<Duration>,
    /// It is going down to come up again at once: `--rm` must not strike in between.
    pub(crate) restarting_by_hand: bool,
    /// The run, by its beginning, whose health is asked after.
    pub(crate) checked: Option<Timestamp>,
    /// How many look into it while it is not up, with volumes of plugins mounted for that.
    pub(crate) visits: usize,
    /// Ends when nothing of the last run is mounted any more.
    pub(crate) leaving: Option<tokio::task::JoinHandle<()>>,
}

impl Cell {
    pub(crate) fn new(record: Record) -> Self {
        Self {
            id: record.id.clone(),
            now: watch::channel(Arc::new(record)).0,
            gate: Gate::new(()),
            telling: Mutex::default(),
            live: Mutex::default(),
        }
    }

    pub(crate) fn record(&self) -> Arc<Record> {
        Arc::clone(&self.now.borrow())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Record>> {
        self.now.subscribe()
    }

    /// Tells readers that the container is no more.
    pub(crate) fn bury(&self) {
        self.now.send_modify(|record| {
            *record = Arc::new(Record { gone: true, ..Record::clone(record) })
        });
    }

    /// For whoever shows an end and tells of it; and for those who have seen one, so that nobody who waited for it is ahead of
    /// its event.
    pub(crate) fn telling(&self) -> MutexGuard<'_, ()> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle on one container.
#[derive(Clone)]
pub struct Container {
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) cell: Arc<Cell>,
}

impl Container {
    pub fn id(&self) -> &Id {
        &self.cell.id
    }

    pub fn tty(&self) -> bool {
        self.cell.record().tty()
    }

    pub(crate) fn record(&self) -> Arc<Record> {
        self.cell.record()
    }

    /// Writes a changed record down, then shows it. The gate is held by whoever calls; who waited for it until the container
    /// was removed does not bring it back.
    pub(crate) fn save(&self, record: Record) -> Result<()> {
        if self.record().gone {
            return Err(Error::not_found(format!("No such container: {}", self.cell.id)));
        }
        tokiox::waiting(|| self.rooms.store.put(&record))
            .context(|| format!("cannot write down container {}", self.cell.id.short()))?;
        self.cell.now.send_replace(Arc::new(record));
        Ok(())
    }

    /// Shows readers a record that is not worth a write: what differs from the one on disk may be lost with the daemon. The
    /// gate is held by whoever calls.
    pub(crate) fn show(&self, record: Record) {
        self.cell.now.send_replace(Arc::new(record));
    }

    /// The record after `event`, not yet written down.
    pub(crate) fn after(&self, event: Event) -> Result<Record> {
        let record = self.record();
        let state = record.state.after(event)?;
        let health = health::beside(&record, state.phase);
        Ok(Record { state, health, ..Record::clone(&record) })
    }

    /// Lets `event` happen.
    pub(crate) fn apply(&self, event: Event) -> Result<()> {
        self.save(self.after(event)?)
    }

    /// Appends an event about this container, with the attributes that Docker's events carry.
    pub(crate) fn event(&self, action: impl Into<String>, more: &[(&str, String)]) {
        let record = self.record();
        let mut attributes: BTreeMap<String, String> = record.labels();
        attributes.insert("image".to_owned(), record.config.image.clone());
        attributes.insert("name".to_owned(), record.name.clone());
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        self.rooms.event(action, &self.cell.id, attributes);
    }

    /// A line to the shim of a container that is up.
    pub(crate) fn shim(&self) -> Result<shim::Client> {
        shim::Client::connect(&self.rooms.exec_dir(&self.cell.id))
    }

    /// Refuses when no process of it is alive, in Docker's words.
    pub(crate) fn must_be_up(&self) -> Result<()> {
        if self.record().state.phase.is_up() {
            return Ok(());
        }
        Err(Error::conflict(format!("container {} is not running", self.cell.id)))
    }

    /// Runs `work` with the shim on a thread that may wait.
    pub(crate) async fn with_shim<T: Send + 'static>(
        &self,
        work: impl FnOnce(&shim::Client) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let this = self.clone();
        tokiox::blocking(move || work(&this.shim()?)).await
    }
}
