//! `docker image inspect`: an image as the API tells it.

use api::image::{Config, Inspect, Metadata, RootFs};
use oci::image::RunConfig;
use stdx::Result;
use stdx::time::Timestamp;

use crate::{Image, Images};

impl Images {
    /// Everything that is known of an image.
    pub fn inspect(&self, name: &str) -> Result<Inspect> {
        let image = self.resolve(name)?;
        let mut answer = picture(&image);
        answer.graph_driver = Some(api::container::DriverData {
            data: None,
            name: self.room.storage.snapshots.name().to_owned(),
        });
        Ok(answer)
    }
}

fn picture(image: &Image) -> Inspect {
    let config = &image.config;
    Inspect {
        id: image.id.to_string(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        parent: image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        comment: config.comment.clone(),
        created: config.created.as_ref().map(Timestamp::to_string).unwrap_or_default(),
        docker_version: config.docker_version.clone(),
        author: config.author.clone(),
        config: Some(run_config(&config.config)),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os: if config.os.is_empty() { "linux".to_owned() } else { config.os.clone() },
        os_version: config.os_version.clone(),
        size: image.size as i64,
        root_fs: RootFs {
            r#type: "layers".to_owned(),
            layers: config.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
        },
        metadata: Metadata { last_tag_time: image.last_tagged },
        // A descriptor would say that the identifier is its digest: only a store that names images by manifests has it.
        ..Inspect::default()
    }
}

fn run_config(config: &RunConfig) -> Config {
    // The two are the same words of two documents; what one of them lacks is nobody's loss.
    serde_json::to_value(config).and_then(serde_json::from_value).unwrap_or_default()
}
