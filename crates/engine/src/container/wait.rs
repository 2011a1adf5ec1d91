//! `docker wait`: told when a container is down, by which code.

use std::sync::Arc;

use api::container::{WaitError, WaitResponse};
use stdx::time::Timestamp;
use tokio::sync::watch;

use super::record::Record;
use super::state::{Phase, State};
use super::{Cell, Container};

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
    finished: Timestamp,
    records: watch::Receiver<Arc<Record>>,
    cell: Arc<Cell>,
}

impl Container {
    /// Begins to wait. Nothing that happens from here on is missed.
    pub fn wait(&self, condition: WaitCondition) -> Waiting {
        let records = self.cell.subscribe();
        let finished = records.borrow().state.finished_at;
        Waiting { condition, finished, records, cell: Arc::clone(&self.cell) }
    }
}

impl Waiting {
    /// The exit code when the condition holds.
    pub async fn done(mut self) -> WaitResponse {
        loop {
            let record = Arc::clone(&self.records.borrow_and_update());
            if record.gone || self.condition.holds(&record.state, self.finished) {
                drop(self.cell.telling());
                let answer = answer(&record.state);
                // Of one that is removed nothing is told but its code, though it may never have run.
                let over = record.gone || self.condition == WaitCondition::Removed;
                return if over { WaitResponse { error: None, ..answer } } else { answer };
            }
            if self.records.changed().await.is_err() {
                return answer(&record.state);
            }
        }
    }
}

impl WaitCondition {
    /// Whether it has come true since a moment when the last run had ended at `finished`.
    fn holds(self, state: &State, finished: Timestamp) -> bool {
        // Though it may be up again: a restart can be quicker than this look.
        let exited = state.finished_at != finished;
        match self {
            // An exit is one for Docker also when a restart follows.
            Self::NotRunning => exited || !state.phase.is_up() && state.phase != Phase::Restarting,
            Self::NextExit => exited,
            // A removal that failed is over too.
            Self::Removed => state.phase == Phase::Dead,
        }
    }
}

fn answer(state: &State) -> WaitResponse {
    let up = state.phase.is_up();
    let code = if up { state.last_exit_code } else { state.exit_code };
    // Why the last start failed, of one that has not run since.
    let why = Some(&state.error).filter(|error| !up && !error.is_empty());
    let error = why.map(|error| WaitError { message: error.clone() });
    WaitResponse { error, status_code: i64::from(code) }
}

#[cfg(test)]
mod tests {
    use super::super::state::Event;
    use super::*;

    fn at(seconds: i128) -> Timestamp {
        Timestamp::from_unix_nanos(seconds * 1_000_000_000)
    }

    fn after(state: &State, events: &[Event]) -> State {
        events.iter().fold(state.clone(), |state, event| state.after(event.clone()).unwrap())
    }

    /// Whoever waits sees states as they are when it looks: a run may have ended and another begun since.
    #[test]
    fn an_exit_is_not_missed_because_a_start_followed() {
        let started = |second| Event::Started { pid: 7, at: at(second) };
        let exited = Event::Exited { code: 3, at: at(5), oom_killed: false, error: String::new() };
        let up = after(&State::default(), &[started(1)]);
        let again = after(&up, &[exited, Event::RestartAwaited, started(6)]);
        for condition in [WaitCondition::NotRunning, WaitCondition::NextExit] {
            assert!(!condition.holds(&up, up.finished_at));
            assert!(condition.holds(&again, up.finished_at), "{condition:?}");
        }
        assert_eq!((again.exit_code, answer(&again).status_code), (0, 3));
    }

    #[test]
    fn a_start_that_failed_says_why() {
        let failed = Event::StartFailed { code: 127, error: "no such file".to_owned() };
        let state = after(&State::default(), &[failed]);
        let answer = answer(&state);
        assert_eq!(answer.status_code, 127);
        assert_eq!(answer.error.map(|error| error.message).as_deref(), Some("no such file"));
    }

    #[test]
    fn one_that_never_ran_is_not_running() {
        let state = State::default();
        assert!(WaitCondition::NotRunning.holds(&state, state.finished_at));
        assert!(!WaitCondition::NextExit.holds(&state, state.finished_at));
    }
}
