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
        let not_running = || Error::conflict(format!("container {id} is not running"));
        let restarting = self.record().state.phase == Phase::Restarting;
        // Docker counts these as the user's wish that it stays down.
        let ends = number == 9 || number == self.stop_signal();
        if !(self.record().state.phase.is_up() || restarting && ends) {
            return Err(not_running());
        }
        if ends {
            self.stay_down().await?;
        }
        let mut exited = self.cell.subscribe();
        if restarting && !exited.borrow().state.phase.is_up() {
            return Ok(());
        }
        let this = self.clone();
        let send = move |shim: &shim::Client| {
            // The end that it brings is told after it.
            let _telling = this.cell.telling();
            shim.kill(number, shim::Whom::Init)?;
            this.event("kill", &[("signal", number.to_string())]);
            Ok(())
        };
        match self.with_shim(send).await {
            // It has ended by itself meanwhile.
            Err(_) if !exited.borrow().state.phase.is_up() => return Err(not_running()),
            outcome => outcome?,
        }
        if number == 9 {
            // Clients expect a killed container to be down when the answer comes; a process stuck in the kernel is
            // reported by `inspect`, not by an answer that never comes.
            let down = exited.wait_for(|record| !record.state.phase.is_up());
            let _late = tokio::time::timeout(std::time::Duration::from_secs(10), down).await;
            drop(self.cell.telling());
        }
        Ok(())
    }
}
