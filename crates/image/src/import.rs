//! `docker import`: a tar of a file system becomes an image of one layer.

use std::io::Read;
use std::sync::Arc;

use oci::image::{History, ImageConfig};
use oci::{Platform, Reference};
use stdx::{Context, Error, Result};
use storage::layer::compression;
use tokio::sync::mpsc;

use crate::config::apply_changes;
use crate::create::{By, NewImage};
use crate::progress::{Progress, Reporter};
use crate::{Image, Images};

/// What the archive is to become.
#[derive(Clone, Debug, Default)]
pub struct ImportRequest {
    /// Its name; empty for none.
    pub repository: String,
    pub tag: String,
    /// A word about it for its history.
    pub message: String,
    /// Instructions of a Dockerfile: `CMD ["sh"]`, `ENV a=b`.
    pub changes: Vec<String>,
    /// What the programs in it were built for; this host if not given.
    pub platform: Option<Platform>,
}

impl Images {
    /// Makes an image of one layer from a tar in any compression.
    pub async fn import(
        &self,
        archive: impl Read + Send + 'static,
        request: ImportRequest,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Arc<Image>> {
        let reference = reference_of(&request)?;
        let mut config = ImageConfig { comment: request.message.clone(), ..ImageConfig::default() };
        if config.comment.is_empty() {
            "Imported from -".clone_into(&mut config.comment);
        }
        let platform = request.platform.clone().unwrap_or_else(Platform::host);
        if platform.os != "linux" {
            return Err(Error::invalid("operating system is not supported"));
        }
        (config.os, config.architecture, config.variant) =
            (platform.os, platform.architecture, platform.variant);
        apply_changes(&mut config.config, &request.changes)?;
        let step = History { comment: config.comment.clone(), ..History::default() };
        let new = NewImage { parent: None, config, step, reference, by: By::Import };
        let image = self
            .create_from_layer(new, move |out| {
                let mut tar = compression::decoder(archive)
                    .context(|| "cannot read the archive".to_owned())?;
                std::io::copy(&mut tar, out)
                    .map(drop)
                    .context(|| "cannot read the archive".to_owned())
            })
            .await?;
        Reporter::new(progress).say(Progress::status(image.id.to_string())).await;
        Ok(image)
    }
}

fn reference_of(request: &ImportRequest) -> Result<Option<Reference>> {
    if request.repository.is_empty() {
        return Ok(None);
    }
    let reference = Reference::parse_normalized(&request.repository)?;
    if reference.digest().is_some() {
        return Err(Error::invalid("cannot import digest reference"));
    }
    if request.tag.is_empty() {
        return Ok(Some(reference.with_default_tag()));
    }
    reference.with_tag(&request.tag).map(Some)
}
