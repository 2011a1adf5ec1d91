//! Whether, and how soon, a container that exited starts again. Pure.

use std::time::Duration;

use stdx::{Error, Result};

/// First pause before a restart; doubled each time, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// A container that ran this long starts over with the first pause.
const SETTLED: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    No,
    Always,
    UnlessStopped,
    /// With the greatest number of restarts; 0 is without end.
    OnFailure(u32),
}

impl RestartPolicy {
    pub fn parse(name: &str, maximum: i64) -> Result<Self> {
        let retries = u32::try_from(maximum).map_err(|_| {
            Error::invalid("invalid restart policy: maximum retry count cannot be negative")
        })?;
        let policy = match name {
            // Docker before version 25 called none so, whatever the count.
            "" => return Ok(Self::No),
            "no" => Self::No,
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            "on-failure" => return Ok(Self::OnFailure(retries)),
            other => {
                return Err(Error::invalid(format!(
                    "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
                )));
            }
        };
        if retries > 0 {
            return Err(Error::invalid(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'",
            ));
        }
        Ok(policy)
    }

    /// After an exit with `code`, not asked for by anybody, with `restarts` before it.
    pub fn wants_restart(self, code: i32, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::Always | Self::UnlessStopped => true,
            Self::OnFailure(0) => code != 0,
            Self::OnFailure(maximum) => code != 0 && restarts < maximum,
        }
    }

    /// When the host comes up: should it run, having been `stopped` by hand, or not?
    pub fn wants_boot(self, stopped: bool, code: i32, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::Always => true,
            Self::UnlessStopped => !stopped,
            Self::OnFailure(_) => !stopped && self.wants_restart(code, restarts),
        }
    }
}

/// The pause before the next restart, given the one before it and how long the container ran since.
pub(crate) fn pause_after(last: Option<Duration>, ran: Duration) -> Duration {
    match last {
        Some(last) if ran < SETTLED => (last * 2).min(LONGEST),
        _ => FIRST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        assert!(RestartPolicy::parse("sometimes", 0).is_err());
        assert!(RestartPolicy::parse("always", 3).is_err());
        assert!(RestartPolicy::parse("no", 3).is_err());
        assert_eq!(RestartPolicy::parse("", 3).unwrap(), RestartPolicy::No);
        let five = RestartPolicy::parse("on-failure", 5).unwrap();
        assert!(five.wants_restart(1, 4));
        assert!(!five.wants_restart(1, 5));
        assert!(!five.wants_restart(0, 0));
        assert!(!RestartPolicy::UnlessStopped.wants_boot(true, 0, 0));
        assert!(RestartPolicy::Always.wants_boot(true, 0, 0));
        assert!(five.wants_boot(false, 1, 4) && !five.wants_boot(false, 1, 5));
    }

    #[test]
    fn pauses_double_until_it_settles() {
        let brief = Duration::from_secs(1);
        assert_eq!(pause_after(None, brief), FIRST);
        assert_eq!(pause_after(Some(FIRST), brief), FIRST * 2);
        assert_eq!(pause_after(Some(LONGEST), brief), LONGEST);
        assert_eq!(pause_after(Some(LONGEST), SETTLED), FIRST);
    }
}
