//! `docker pause` and `unpause`: the cgroup's freezer, not a signal.

use stdx::{Context, Error, Result};

use super::Container;
use super::state::{Event, Phase};

impl Container {
    /// Freezes every process in the container.
    pub async fn pause(&self) -> Result<()> {
        let this = self.clone();
        tokiox::to_the_end(async move {
            let _gate = this.cell.gate.lock().await;
            let id = &this.cell.id;
            match this.record().state.phase {
                Phase::Running => {}
                Phase::Paused => {
                    return Err(Error::conflict(format!("Container {id} is already paused")));
                }
                Phase::Restarting => {
                    return Err(Error::conflict(format!(
                        "Container {id} is restarting, wait until the container is running"
                    )));
                }
                _ => return Err(Error::conflict(format!("Container {id} is not running"))),
            }
            let paused = this.with_shim(shim::Client::pause).await;
            paused.context(|| format!("Cannot pause container {id}"))?;
            this.apply(Event::Paused)?;
            this.event("pause", &[]);
            Ok(())
        })
        .await
    }

    /// Lets them go on.
    pub async fn unpause(&self) -> Result<()> {
        let this = self.clone();
        tokiox::to_the_end(async move {
            let _gate = this.cell.gate.lock().await;
            if this.record().state.phase != Phase::Paused {
                return Err(Error::conflict(format!("Container {} is not paused", this.cell.id)));
            }
            this.with_shim(shim::Client::resume).await?;
            let mut record = this.after(Event::Unpaused)?;
            record.frozen_to_commit = false;
            this.save(record)?;
            this.event("unpause", &[]);
            Ok(())
        })
        .await
    }
}
