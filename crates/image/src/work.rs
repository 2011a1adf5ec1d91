//! Work that a crash would leave in pieces: it is written down before the first piece is stored.
//!
//! What a pull had fetched when it was killed is of use to the next one, and stays. A load, an import and a commit begin
//! anew: what they had stored goes when the next daemon wakes.

use serde::{Deserialize, Serialize};
use stdx::{Id, Result};

use crate::Images;

/// Something was begun and is not over.
#[derive(Debug, Serialize, Deserialize)]
struct WorkRecord {
    id: Id,
    /// For who reads the records.
    what: String,
}

impl state::Record for WorkRecord {
    const TABLE: &'static str = "image_work";

    fn key(&self) -> String {
        self.id.to_string()
    }
}

/// To be ended when nothing is left that the work did not mean to leave.
#[must_use]
pub(crate) struct Work {
    images: Images,
    id: Id,
}

impl Work {
    /// A record that stays has the next daemon look for nothing.
    pub(crate) fn end(self) {
        if let Err(error) = self.images.room.state.delete::<WorkRecord>(self.id.as_str()) {
            tracing::warn!(error = %error.chain(), "cannot write down that work on images is over");
        }
    }
}

impl Images {
    pub(crate) fn begin(&self, what: &str) -> Result<Work> {
        let record = WorkRecord { id: Id::random(), what: what.to_owned() };
        self.room.state.put(&record)?;
        Ok(Work { images: self.clone(), id: record.id })
    }

    /// Removes what the work of an earlier daemon has left: every layer and blob that nothing needs, if there was such work.
    /// To be asked before anybody can begin anything. Waits on the disk.
    pub fn take_back_unfinished(&self) -> Result<()> {
        let unfinished = self.room.state.list::<WorkRecord>()?;
        if unfinished.is_empty() {
            return Ok(());
        }
        let swept = self.collect_blocking()?;
        let (layers, blobs) = (swept.layers.len(), swept.blobs.len());
        for WorkRecord { id, what } in unfinished {
            tracing::info!(what, layers, blobs, "took back what unfinished work has left");
            self.room.state.delete::<WorkRecord>(id.as_str())?;
        }
        Ok(())
    }
}
