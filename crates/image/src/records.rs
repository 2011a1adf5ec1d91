//! What this room remembers, as it is stored.
//!
//! ```text
//! images       sha256:<config>                     → ImageRecord   the image: layers, sizes, where it came from
//! image_names  docker.io/library/busybox:latest    → NameRecord    tag → image
//!              docker.io/library/busybox@sha256:…  → NameRecord    digest in a registry → image
//! image_holds  <container id> sha256:<config>      → HoldRecord    who needs which image and layers
//! image_work   <random>                            → WorkRecord    a load or commit that is not over (`work.rs`)
//! ```
//!
//! The configuration is a blob in the content store under the image's own ID. A blob or layer that no record reaches is
//! garbage.

use std::collections::BTreeSet;

use oci::image::Descriptor;
use oci::{ChainId, Digest, Reference};
use serde::{Deserialize, Serialize};
use state::Record;
use stdx::time::Timestamp;

/// An image that is here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// The digest of its configuration.
    pub(crate) id: Digest,
    /// The lowest first.
    pub(crate) layers: Vec<LayerRecord>,
    /// The manifest it came with, when it came with one: what it is pushed and saved as.
    pub(crate) manifest: Option<Descriptor>,
    /// The image it was made from here, by a commit or a build.
    pub(crate) parent: Option<Digest>,
    pub(crate) last_tagged: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// The digest of the uncompressed tar.
    pub(crate) diff: Digest,
    pub(crate) chain: ChainId,
    /// Bytes of its files on disk.
    pub(crate) size: u64,
    /// Its tar in the content store, in the form it came in.
    pub(crate) blob: Descriptor,
}

/// A name of an image: a tag, or a digest that a registry knows it by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NameRecord {
    pub(crate) reference: Reference,
    pub(crate) image: Digest,
}

/// A container needs an image and, even when that was removed by force, its layers. It may need several: one to run, others
/// to look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HoldRecord {
    pub(crate) holder: String,
    pub(crate) image: Digest,
    /// By which it was asked for: `prune` spares them.
    pub(crate) names: BTreeSet<Reference>,
    pub(crate) chain: Vec<ChainId>,
}

impl Record for ImageRecord {
    const TABLE: &'static str = "images";

    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Record for NameRecord {
    const TABLE: &'static str = "image_names";

    fn key(&self) -> String {
        self.reference.to_string()
    }
}

impl Record for HoldRecord {
    const TABLE: &'static str = "image_holds";

    fn key(&self) -> String {
        hold_key(&self.holder, &self.image)
    }
}

pub(crate) fn hold_key(holder: &str, image: &Digest) -> String {
    format!("{holder} {image}")
}
