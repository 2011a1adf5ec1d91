//! `docker history`: the steps an image was made in, the last first.

use std::time::Instant;

use api::image::HistoryItem;
use stdx::time::Timestamp;
use stdx::{Error, Result};

use crate::Images;
use crate::catalog::{Catalog, Entry};

impl Images {
    /// The steps of an image, with the sizes of their layers.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryItem>> {
        let start = Instant::now();
        let catalog = self.catalog();
        let entry = catalog.resolve(name)?;
        let steps = steps(&catalog, entry)?;
        self.room.actions.history.since(start);
        Ok(steps)
    }
}

fn steps(catalog: &Catalog, entry: &Entry) -> Result<Vec<HistoryItem>> {
    let mut layers = entry.record.layers.iter();
    let mut steps = Vec::with_capacity(entry.config.history.len());
    for step in &entry.config.history {
        let size = if step.empty_layer {
            0
        } else {
            let layer = layers
                .next()
                .ok_or_else(|| Error::internal("too many non-empty layers in History section"))?;
            layer.size
        };
        steps.push(HistoryItem {
            comment: step.comment.clone(),
            created: step.created.map_or(0, Timestamp::unix),
            created_by: step.created_by.clone(),
            id: "<missing>".to_owned(),
            size: size as i64,
            tags: None,
        });
    }
    steps.reverse();
    // The images it was made from here, as far as they still are.
    let mut image = Some(entry);
    for step in &mut steps {
        let Some(entry) = image else { break };
        step.id = entry.record.id.to_string();
        let tags: Vec<String> = catalog
            .names_of(&entry.record.id)
            .iter()
            .filter(|name| name.digest().is_none())
            .map(oci::Reference::familiar)
            .collect();
        step.tags = (!tags.is_empty()).then_some(tags);
        image = entry
            .record
            .parent
            .as_ref()
            .and_then(|parent| catalog.images.get(parent))
            .map(AsRef::as_ref);
    }
    Ok(steps)
}
