//! `docker wait`: told when a container is down, by which code.

use std::sync::Arc;

use api::container::WaitResponse;
use tokio::sync::watch;

use super::Container;
use super::record::Record;
use super::state::Phase;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// Not running now: at once for one that was never started.
    #[default]
    NotRunning,
    NextExit,
    Removed,
}

/// A wait that has begun; the client's headers can be sent before its end.
pub struct Waiting {
    condition: WaitCondition,
    /// When the last run had ended as the wait began.
    finished: stdx::time::Timestamp,
    records: watch::Receiver<Arc<Record>>,
}

impl Container {
    /// Begins to wait. Nothing that happens from here on is missed.
    pub fn wait(&self, condition: WaitCondition) -> Waiting {
        let records = self.cell.subscribe();
        let finished = records.borrow().state.finished_at;
        Waiting { condition, finished, records }
    }
}

impl Waiting {
    /// The exit code when the condition holds.
    pub async fn done(mut self) -> WaitResponse {
        loop {
            let record = Arc::clone(&self.records.borrow_and_update());
            if self.holds(&record) {
                return answer(&record);
            }
            if self.records.changed().await.is_err() {
                return answer(&record);
            }
        }
    }

    fn holds(&self, record: &Record) -> bool {
        let phase = record.state.phase;
        let exited = !phase.is_up() && record.state.finished_at != self.finished;
        if record.gone {
            return true;
        }
        match self.condition {
            // An exit is one for Docker also when a restart follows.
            WaitCondition::NotRunning => exited || !phase.is_up() && phase != Phase::Restarting,
            WaitCondition::NextExit => exited,
            // A removal that failed is over too.
            WaitCondition::Removed => phase == Phase::Dead,
        }
    }
}

fn answer(record: &Record) -> WaitResponse {
    WaitResponse { status_code: i64::from(record.state.exit_code), ..WaitResponse::default() }
}
