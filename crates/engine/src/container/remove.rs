//! `docker rm`: the record first, then what it named; never "busy", never half.

use std::sync::PoisonError;
use std::time::Instant;

use stdx::{Error, Result};

use super::Container;
use super::record::Record;
use super::state::{Event, Phase};

#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveRequest {
    /// Kill it first if it is up.
    pub force: bool,
    /// Its anonymous volumes go too.
    pub volumes: bool,
}

impl Container {
    pub async fn remove(&self, request: RemoveRequest) -> Result<()> {
        let this = self.clone();
        tokiox::to_the_end(async move {
            loop {
                this.may_be_removed(request.force)?;
                if this.record().state.phase.is_up() {
                    this.stay_down().await?;
                    this.live_remove_wins();
                    this.bring_down(9, 5).await?;
                }
                let _gate = this.cell.gate.lock().await;
                if this.record().gone {
                    // Somebody else finished first: `--rm`, or a second `rm`.
                    return Err(Error::not_found(format!("No such container: {}", this.cell.id)));
                }
                // A start may have held the gate before us.
                if !this.record().state.phase.is_up() {
                    return this.remove_held(request.volumes).await;
                }
            }
        })
        .await
    }

    fn may_be_removed(&self, force: bool) -> Result<()> {
        let record = self.record();
        let advice = match record.state.phase {
            Phase::Running | Phase::Restarting => {
                "stop the container before removing or force remove"
            }
            Phase::Paused => "unpause and then stop the container before removing or force remove",
            _ => return Ok(()),
        };
        if force {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "cannot remove container \"/{}\": container is {}: {advice}",
            record.name,
            record.state.phase.name()
        )))
    }

    /// From here on the exit does not remove it a second time.
    fn live_remove_wins(&self) {
        self.cell.live().restarting_by_hand = true;
    }

    /// Removes it, with the gate held.
    pub(crate) async fn remove_held(&self, volumes: bool) -> Result<()> {
        let start = Instant::now();
        let mut record = self.after(Event::RemovalBegan)?;
        record.removes_volumes = volumes;
        self.save(record)?;
        self.finish_removal().await?;
        self.rooms.metrics.delete.since(start);
        Ok(())
    }

    /// What follows once it is written down that it goes. Each step may be repeated: when a daemon dies in here, the next
    /// one finishes.
    pub(crate) async fn finish_removal(&self) -> Result<()> {
        let record = self.record();
        let this = self.clone();
        let outcome = tokiox::blocking(move || {
            // Its mounts are nobody's any more: they may go in their own time.
            drop(this.release_blocking());
            this.remove_things(&record)
        })
        .await;
        if let Err(error) = outcome {
            self.apply(Event::RemovalFailed)?;
            return Err(error);
        }
        self.event("destroy", &[]);
        // Whoever waited for a start that will never be.
        self.clients_may_go();
        self.rooms.execs.forget(&self.cell.id);
        self.rooms.registry.remove(&self.cell.id);
        self.rooms.ids.give_back(&self.cell.id);
        self.rooms.execs.forget(&self.cell.id);
        self.cell.bury();
        let record = self.record();
        if record.removes_volumes && record.mounts.iter().any(super::volumes::is_foreign) {
            let this = self.clone();
            tokiox::blocking(move || this.drop_own_foreign_volumes(&record)).await;
        }
        Ok(())
    }

    fn remove_things(&self, record: &Record) -> Result<()> {
        let rooms = &self.rooms;
        rooms.storage.snapshots.remove(record.id.as_str())?;
        rooms.storage.discard(&rooms.data_dir(&record.id))?;
        self.drop_images(record)?;
        if record.removes_volumes && !record.own_volumes.is_empty() {
            // Nobody begins to use one between the question and the end.
            let _nobody = rooms.creations.write().unwrap_or_else(PoisonError::into_inner);
            let users = rooms.registry.users_of_volumes();
            let others = |name: &String| {
                users.get(name).is_some_and(|users| users.iter().any(|id| id != record.id.as_str()))
            };
            let foreign = |name: &&String| {
                record.mounts.iter().any(|m| m.name == **name && super::volumes::is_foreign(m))
            };
            for name in record.own_volumes.iter().filter(|name| !others(name) && !foreign(name)) {
                rooms.take_back_volume(name)?;
                rooms.volume_event("destroy", name, crate::volumes::LOCAL);
            }
        }
        rooms.store.delete::<Record>(record.id.as_str())
    }
}
