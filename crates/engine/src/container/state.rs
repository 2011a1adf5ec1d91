//! Where a container is in its life, and what may happen next. The only file that decides it.

use serde::{Deserialize, Serialize};
use stdx::time::Timestamp;
use stdx::units::human_duration;
use stdx::{Error, Result};

/// Docker's words for the places in a life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    #[default]
    Created,
    Running,
    Paused,
    /// Exited, and its restart policy will start it again after a pause.
    Restarting,
    Exited,
    Removing,
    /// Removal failed halfway; only removal is left.
    Dead,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }

    /// A process of it is alive.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// What can happen to a container.
#[derive(Clone, Debug)]
pub enum Event {
    Started {
        pid: u32,
        at: Timestamp,
    },
    /// The process could not be made; the code is what `docker run` exits with.
    StartFailed {
        code: i32,
        error: String,
    },
    Paused,
    Unpaused,
    Exited {
        code: i32,
        at: Timestamp,
        oom_killed: bool,
        error: String,
    },
    /// After an exit: it will be started again.
    RestartAwaited,
    /// A restart that was awaited is not wanted any more.
    RestartCancelled,
    RemovalBegan,
    RemovalFailed,
}

/// The state as it is remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub phase: Phase,
    /// Of the container's first process; 0 when there is none.
    pub pid: u32,
    pub exit_code: i32,
    /// Of the last run, also when another has begun: who waited for its end may come late.
    pub last_exit_code: i32,
    pub error: String,
    pub oom_killed: bool,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
}

impl State {
    /// The state after `event`, or why it cannot happen now.
    pub fn after(&self, event: Event) -> Result<Self> {
        let mut next = self.clone();
        match (self.phase, event) {
            (Phase::Created | Phase::Exited | Phase::Restarting, Event::Started { pid, at }) => {
                next = Self {
                    phase: Phase::Running,
                    pid,
                    started_at: at,
                    finished_at: self.finished_at,
                    last_exit_code: self.last_exit_code,
                    ..Self::default()
                };
            }
            (
                Phase::Created | Phase::Exited | Phase::Restarting,
                Event::StartFailed { code, error },
            ) => {
                next.phase =
                    if self.phase == Phase::Restarting { Phase::Exited } else { self.phase };
                next.pid = 0;
                next.exit_code = code;
                next.error = error;
            }
            (Phase::Running, Event::Paused) => next.phase = Phase::Paused,
            (Phase::Paused, Event::Unpaused) => next.phase = Phase::Running,
            (Phase::Running | Phase::Paused, Event::Exited { code, at, oom_killed, error }) => {
                next.phase = Phase::Exited;
                next.pid = 0;
                next.exit_code = code;
                next.last_exit_code = code;
                next.finished_at = at;
                next.oom_killed = oom_killed;
                next.error = error;
            }
            (Phase::Exited, Event::RestartAwaited) => next.phase = Phase::Restarting,
            (Phase::Restarting, Event::RestartCancelled) => next.phase = Phase::Exited,
            (
                Phase::Created | Phase::Exited | Phase::Restarting | Phase::Dead | Phase::Removing,
                Event::RemovalBegan,
            ) => {
                next.phase = Phase::Removing;
            }
            (Phase::Removing, Event::RemovalFailed) => next.phase = Phase::Dead,
            (Phase::Removing, _) => {
                return Err(Error::conflict(
                    "container is marked for removal and cannot be started",
                ));
            }
            (Phase::Dead, _) => {
                return Err(Error::conflict("container is dead and can only be removed"));
            }
            (phase, event) => {
                return Err(Error::conflict(format!(
                    "container is {}: {event:?} cannot happen to it",
                    phase.name()
                )));
            }
        }
        Ok(next)
    }

    /// The STATUS column of `docker ps`.
    pub fn describe(&self, now: Timestamp) -> String {
        let age = |since: Timestamp| human_duration((now.unix() - since.unix()).max(0));
        match self.phase {
            Phase::Created => "Created".to_owned(),
            Phase::Running => format!("Up {}", age(self.started_at)),
            Phase::Paused => format!("Up {} (Paused)", age(self.started_at)),
            Phase::Restarting => {
                format!("Restarting ({}) {} ago", self.exit_code, age(self.finished_at))
            }
            Phase::Exited if self.finished_at.is_never() => "Created".to_owned(),
            Phase::Exited => format!("Exited ({}) {} ago", self.exit_code, age(self.finished_at)),
            Phase::Removing => "Removal In Progress".to_owned(),
            Phase::Dead => "Dead".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i128) -> Timestamp {
        Timestamp::from_unix_nanos(seconds * 1_000_000_000)
    }

    fn life(events: &[Event]) -> Result<State> {
        events.iter().try_fold(State::default(), |state, event| state.after(event.clone()))
    }

    const fn started() -> Event {
        Event::Started { pid: 7, at: Timestamp::NEVER }
    }

    fn exited(code: i32) -> Event {
        Event::Exited { code, at: at(100), oom_killed: false, error: String::new() }
    }

    #[test]
    fn a_whole_life() {
        let state =
            life(&[started(), Event::Paused, Event::Unpaused, exited(3), Event::RemovalBegan])
                .unwrap();
        assert_eq!((state.phase, state.exit_code, state.pid), (Phase::Removing, 3, 0));
    }

    #[test]
    fn what_cannot_happen_is_refused() {
        for events in [
            vec![Event::Paused],
            vec![started(), started()],
            vec![started(), Event::RemovalBegan],
            vec![exited(0)],
            vec![Event::RemovalBegan, started()],
        ] {
            assert_eq!(life(&events).unwrap_err().kind(), stdx::Kind::Conflict, "{events:?}");
        }
    }

    #[test]
    fn a_start_forgets_the_last_exit() {
        let state = life(&[started(), exited(137), started()]).unwrap();
        assert_eq!((state.exit_code, state.error.as_str(), state.oom_killed), (0, "", false));
    }

    #[test]
    fn a_failed_start_keeps_a_created_container_created() {
        let state =
            life(&[Event::StartFailed { code: 127, error: "not found".to_owned() }]).unwrap();
        assert_eq!((state.phase, state.exit_code), (Phase::Created, 127));
    }

    #[test]
    fn as_ps_says_it() {
        let mut state = life(&[Event::Started { pid: 7, at: at(0) }]).unwrap();
        assert_eq!(state.describe(at(5)), "Up 5 seconds");
        state = state.after(exited(3)).unwrap();
        assert_eq!(state.describe(at(160)), "Exited (3) About a minute ago");
    }
}
