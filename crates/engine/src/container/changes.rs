//! `docker diff`, `export` and the size of the writable layer.

use std::os::fd::AsFd;
use std::time::Instant;

use api::container::{Change, ChangeKind};
use stdx::Result;

use super::Container;
use crate::ByteStream;

impl Container {
    /// What differs from the image.
    pub async fn changes(&self) -> Result<Vec<Change>> {
        let start = Instant::now();
        let rooms = self.rooms.clone();
        let id = self.cell.id.clone();
        let changes = tokiox::blocking(move || {
            let changes = rooms.storage.snapshots.changes(id.as_str())?;
            let word = |kind| match kind {
                storage::layer::ChangeKind::Modified => ChangeKind::Modified,
                storage::layer::ChangeKind::Added => ChangeKind::Added,
                storage::layer::ChangeKind::Deleted => ChangeKind::Deleted,
            };
            Ok(changes
                .into_iter()
                .map(|change| Change {
                    kind: word(change.kind),
                    path: change.path.to_string_lossy().into_owned(),
                })
                .collect())
        })
        .await;
        self.rooms.metrics.changes.since(start);
        changes
    }

    /// The whole file system as a tar, flattened.
    pub async fn export(&self) -> Result<ByteStream> {
        let this = self.clone();
        // Opened before the answer begins, so that what cannot be opened is an error and not an empty tar.
        let root = tokiox::blocking(move || this.tree()).await?;
        let (mut writer, stream) = ByteStream::pair();
        tokio::task::spawn_blocking(move || {
            let outcome = storage::layer::export(root.as_fd(), &mut writer);
            writer.finish(outcome);
        });
        self.event("export", &[]);
        Ok(stream)
    }

    /// Bytes in the writable layer.
    pub(crate) async fn size_rw(&self) -> Result<u64> {
        let rooms = self.rooms.clone();
        let id = self.cell.id.clone();
        tokiox::blocking(move || rooms.storage.snapshots.usage(id.as_str())).await
    }
}
