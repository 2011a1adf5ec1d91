//! `docker stop` and `restart`: ask, wait, insist.

use std::time::Duration;

use stdx::{Error, Kind, Result};

use super::record::Record;
use super::state::{Event, Phase};
use super::{Container, signal};

/// Seconds between asking and insisting, when nobody says.
const GRACE: i64 = 10;
/// How long a killed process may take to die before we say so instead of waiting on.
pub(super) const DEATH: Duration = Duration::from_secs(5);

const STUCK: &str = "its first process is stuck in the kernel";

impl Container {
    /// Stops the container with `wanted` or its stop signal, and kills it `timeout` seconds later (negative: never).
    /// `Kind::NotModified` when it is not running.
    pub async fn stop(&self, wanted: Option<&str>, timeout: Option<i64>) -> Result<()> {
        let number = match wanted {
            None | Some("") => self.stop_signal(),
            Some(text) => signal::parse(text)?,
        };
        let phase = self.record().state.phase;
        if !phase.is_up() && phase != Phase::Restarting {
            return Err(Error::new(Kind::NotModified, "container is already stopped"));
        }
        let this = self.clone();
        let grace = timeout.unwrap_or_else(|| this.record().config.stop_timeout.unwrap_or(GRACE));
        tokiox::to_the_end(async move {
            this.stay_down().await?;
            this.bring_down(number, grace).await?;
            drop(this.cell.telling());
            this.event("stop", &[]);
            Ok(())
        })
        .await
    }

    /// Stops, if it runs, and starts again.
    pub async fn restart(&self, wanted: Option<&str>, timeout: Option<i64>) -> Result<()> {
        let number = match wanted {
            None | Some("") => self.stop_signal(),
            Some(text) => signal::parse(text)?,
        };
        let this = self.clone();
        tokiox::to_the_end(async move {
            if this.record().state.phase == Phase::Restarting {
                this.stay_down().await?;
            }
            if this.record().state.phase.is_up() {
                let grace =
                    timeout.unwrap_or_else(|| this.record().config.stop_timeout.unwrap_or(GRACE));
                // A container with `--rm` lives through its own restart.
                this.cell.live().restarting_by_hand = true;
                let down = this.bring_down(number, grace).await;
                this.cell.live().restarting_by_hand = false;
                down?;
                drop(this.cell.telling());
                this.event("stop", &[]);
            }
            match this.start().await {
                Err(error) if error.kind() == Kind::NotModified => {}
                outcome => outcome?,
            }
            this.event("restart", &[]);
            Ok(())
        })
        .await
    }

    /// Signals, waits, kills, waits. Returns when the exit has been written down, at once when there is nothing to end.
    pub(crate) async fn bring_down(&self, number: i32, grace: i64) -> Result<()> {
        let mut records = self.cell.subscribe();
        if !records.borrow().state.phase.is_up() {
            return Ok(());
        }
        let was_paused = self.record().state.phase == Phase::Paused;
        // Told before it is sent: the end that it brings is told after it.
        self.event("kill", &[("signal", number.to_string())]);
        let sent = self.with_shim(move |shim| shim.kill(number, shim::Whom::Init)).await;
        if was_paused && sent.is_ok() {
            // A frozen process cannot hear; what was sent is waiting for it when it thaws.
            match self.unpause().await {
                Err(error) if error.kind() != Kind::Conflict => return Err(error),
                _ => {}
            }
        }
        if sent.is_ok() {
            let down = records.wait_for(|record| !record.state.phase.is_up());
            let heard = match u64::try_from(grace) {
                Ok(seconds) => {
                    tokio::time::timeout(Duration::from_secs(seconds), down).await.is_ok()
                }
                Err(_) => down.await.is_ok(),
            };
            if heard {
                return Ok(());
            }
        }
        // The shim of a container that has just ended may be gone already: what counts is the record.
        if records.borrow().state.phase.is_up() {
            self.event("kill", &[("signal", "9".to_owned())]);
        }
        let killed = self.with_shim(|shim| shim.kill(9, shim::Whom::All)).await;
        let down = records.wait_for(|record| !record.state.phase.is_up());
        let died = tokio::time::timeout(DEATH, down).await.is_ok();
        match (died, killed) {
            (true, _) => Ok(()),
            (false, Err(error)) => Err(error),
            (false, Ok(())) => {
                self.cannot_die().await;
                // Docker's words for it are the middle ones.
                Err(Error::internal(format!(
                    "container {} is unkillable: tried to kill container, but did not receive an exit event: {STUCK}",
                    self.cell.id,
                )))
            }
        }
    }

    /// Says where everybody looks that a process stays alive whatever it is sent; its end, if it comes, says otherwise.
    async fn cannot_die(&self) {
        let _gate = self.cell.gate.lock().await;
        let mut record = Record::clone(&self.record());
        if record.state.phase.is_up() {
            record.state.error = format!("unkillable: {STUCK}");
            self.show(record);
        }
    }

    /// Remembers that a user wants it down, before it goes down. A restart that was waited for is not wanted any more; one
    /// that has begun holds the gate, and whoever called finds the container up.
    pub(crate) async fn stay_down(&self) -> Result<()> {
        let _gate = self.cell.gate.lock().await;
        let mut record = Record::clone(&self.record());
        if record.state.phase == Phase::Restarting {
            record.state = record.state.after(Event::RestartCancelled)?;
        } else if record.stopped_by_hand {
            return Ok(());
        }
        record.stopped_by_hand = true;
        match self.save(record.clone()) {
            // A disk that has failed keeps nobody from ending what runs on it.
            Err(error) if self.rooms.store.writable().is_err() => {
                tracing::warn!(container = %record.id, error = %error.chain(), "not written down: it shall stay down");
                self.show(record);
                Ok(())
            }
            outcome => outcome,
        }
    }

    pub(crate) fn stop_signal(&self) -> i32 {
        // Checked when the container was made; an image's nonsense is SIGTERM.
        signal::parse(&self.record().config.stop_signal).unwrap_or(15)
    }
}
