//! `docker kill`: a signal to the container's first process.

use stdx::{Error, Result};

use super::state::Phase;
use super::{Container, signal};

impl Container {
    /// Sends `wanted` (SIGKILL when nothing is named). A killed container does not restart by its policy.
    pub async fn kill(&self, wanted: Option<&str>) -> Result<()> {
        let number = match wanted {
            None | Some("") => 9,
            Some(text) => signal::parse(text)?,
        };
        let id = self.cell.id.clone();
        let phase = self.record().state.phase;
        if phase == Phase::Restarting && number == 9 {
            return self.stop_restarting().await;
        }
        if !phase.is_up() {
            return Err(Error::conflict(format!("container {id} is not running")));
        }
        let stop_signal = self.stop_signal();
        if number == 9 || number == stop_signal {
            // Docker counts these as the user's wish that it stays down.
            self.stopped_by_hand().await?;
        }
        let mut exited = self.cell.subscribe();
        self.with_shim(move |shim| shim.kill(number, shim::Whom::Init)).await?;
        self.event("kill", &[("signal", number.to_string())]);
        if number == 9 {
            // Clients expect a killed container to be down when the answer comes; a process stuck in the kernel is
            // reported by `inspect`, not by an answer that never comes.
            let down = exited.wait_for(|record| !record.state.phase.is_up());
            let _late = tokio::time::timeout(std::time::Duration::from_secs(10), down).await;
        }
        Ok(())
    }
}
