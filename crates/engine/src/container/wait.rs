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
        // Though it may be up again: a restart can be quicker than this look.
        let exited = record.state.finished_at != self.finished;
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
    let state = &record.state;
    let code = if state.phase.is_up() { state.last_exit_code } else { state.exit_code };
    WaitResponse { status_code: i64::from(code), ..WaitResponse::default() }
}

#[cfg(test)]
mod tests {
    use super::super::state::{Event, State};
    use super::*;
    use stdx::time::Timestamp;

    fn at(seconds: i128) -> Timestamp {
        Timestamp::from_unix_nanos(seconds * 1_000_000_000)
    }

    fn after(state: &State, events: &[Event]) -> State {
        events.iter().fold(state.clone(), |state, event| state.after(event.clone()).unwrap())
    }

    /// Whoever waits sees records as they are when it looks: a run may have ended and another begun since.
    #[test]
    fn an_exit_is_not_missed_because_a_start_followed() {
        let started = |second| Event::Started { pid: 7, at: at(second) };
        let exited = Event::Exited { code: 3, at: at(5), oom_killed: false, error: String::new() };
        let up = after(&State::default(), &[started(1)]);
        let again = after(&up, &[exited.clone(), Event::RestartAwaited, started(6)]);
        assert_eq!((again.exit_code, again.last_exit_code), (0, 3));
        let mut record = crate::container::record::tests::record();
        record.state = up;
        let cell = super::super::Cell::new(record.clone());
        for condition in [WaitCondition::NotRunning, WaitCondition::NextExit] {
            let records = cell.subscribe();
            let waiting = Waiting { condition, finished: record.state.finished_at, records };
            assert!(!waiting.holds(&record));
            let now = Record { state: again.clone(), ..record.clone() };
            assert!(waiting.holds(&now), "{condition:?}");
            assert_eq!(answer(&now).status_code, 3);
        }
    }
}
