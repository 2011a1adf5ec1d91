//! Images: lists, inspection, history, removal, and the progress that pulls, pushes, loads and builds print.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stdx::time::Timestamp;

use crate::container::{DriverData, HealthConfig};
use crate::json::is_default;
use crate::{Set, StringMap};

/// One item of `GET /images/json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Summary {
    /// -1: not counted.
    pub containers: i64,
    pub created: i64,
    pub id: String,
    pub labels: Option<StringMap>,
    pub parent_id: String,
    #[serde(skip_serializing_if = "is_default")]
    pub descriptor: Option<Descriptor>,
    pub repo_digests: Vec<String>,
    pub repo_tags: Vec<String>,
    /// -1: not computed.
    pub shared_size: i64,
    pub size: i64,
    /// Of clients below 1.44.
    #[serde(skip_serializing_if = "is_default")]
    pub virtual_size: i64,
}

/// `GET /images/{name}/json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Inspect {
    pub id: String,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    /// Dropped by 1.52, as `docker_version`.
    #[serde(skip_serializing_if = "is_default")]
    pub parent: String,
    #[serde(skip_serializing_if = "is_default")]
    pub comment: String,
    #[serde(skip_serializing_if = "is_default")]
    pub created: String,
    #[serde(skip_serializing_if = "is_default")]
    pub docker_version: String,
    #[serde(skip_serializing_if = "is_default")]
    pub author: String,
    pub config: Option<Config>,
    pub architecture: String,
    #[serde(skip_serializing_if = "is_default")]
    pub variant: String,
    pub os: String,
    #[serde(skip_serializing_if = "is_default")]
    pub os_version: String,
    pub size: i64,
    /// Of clients below 1.44.
    #[serde(skip_serializing_if = "is_default")]
    pub virtual_size: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub graph_driver: Option<DriverData>,
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    pub metadata: Metadata,
    #[serde(skip_serializing_if = "is_default")]
    pub descriptor: Option<Descriptor>,
}

/// What an image says about how to run it: the portable part of a container's configuration, without what only a
/// container can have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Config {
    #[serde(skip_serializing_if = "is_default")]
    pub user: String,
    #[serde(skip_serializing_if = "is_default")]
    pub exposed_ports: Set,
    #[serde(skip_serializing_if = "is_default")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "crate::json::words")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "crate::json::words")]
    pub cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub volumes: Set,
    #[serde(skip_serializing_if = "is_default")]
    pub working_dir: String,
    #[serde(skip_serializing_if = "is_default")]
    pub labels: StringMap,
    #[serde(skip_serializing_if = "is_default")]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "is_default")]
    pub args_escaped: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub healthcheck: Option<HealthConfig>,
    #[serde(skip_serializing_if = "is_default")]
    pub on_build: Vec<String>,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "crate::json::words")]
    pub shell: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RootFs {
    /// `layers`.
    #[serde(skip_serializing_if = "is_default")]
    pub r#type: String,
    /// Digests of the uncompressed layers, bottom first.
    #[serde(skip_serializing_if = "is_default")]
    pub layers: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Metadata {
    pub last_tag_time: Timestamp,
}

/// One item of `GET /images/{name}/history`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HistoryItem {
    pub comment: String,
    pub created: i64,
    pub created_by: String,
    /// `<missing>` where a layer belongs to no image of its own.
    pub id: String,
    pub size: i64,
    pub tags: Option<Vec<String>>,
}

/// One item of the answer to `DELETE /images/{name}`; exactly one of the two is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DeleteItem {
    #[serde(skip_serializing_if = "is_default")]
    pub deleted: String,
    #[serde(skip_serializing_if = "is_default")]
    pub untagged: String,
}

/// The answer to `POST /images/prune`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PruneReport {
    pub images_deleted: Option<Vec<DeleteItem>>,
    pub space_reclaimed: u64,
}

/// One item of `GET /images/search`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchResult {
    pub star_count: i64,
    pub is_official: bool,
    pub name: String,
    pub is_automated: bool,
    pub description: String,
}

/// The answer to `POST /commit`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CommitResponse {
    pub id: String,
}

/// One message of a progress stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Message {
    #[serde(skip_serializing_if = "is_default")]
    pub stream: String,
    #[serde(skip_serializing_if = "is_default")]
    pub status: String,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// The bar, drawn by the server for clients that cannot.
    #[serde(skip_serializing_if = "is_default")]
    pub progress: String,
    #[serde(skip_serializing_if = "is_default")]
    pub id: String,
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    /// The same words again, for clients that are older than `errorDetail`.
    #[serde(skip_serializing_if = "is_default")]
    pub error: String,
    /// `{"ID":"sha256:…"}`, `{"Tag":…,"Digest":…,"Size":…}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<Box<RawValue>>,
}

impl Message {
    /// The last message of a stream that failed.
    pub fn failure(words: &str) -> Self {
        Self {
            error_detail: Some(ErrorDetail { code: 0, message: words.to_owned() }),
            error: words.to_owned(),
            ..Self::default()
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressDetail {
    #[serde(skip_serializing_if = "is_default")]
    pub current: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub total: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub start: i64,
    #[serde(rename = "hidecounts", skip_serializing_if = "is_default")]
    pub hide_counts: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub units: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    #[serde(skip_serializing_if = "is_default")]
    pub code: i64,
    pub message: String,
}

/// OCI's descriptor of a blob.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub urls: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub data: String,
    #[serde(skip_serializing_if = "is_default")]
    pub platform: Option<Platform>,
    #[serde(skip_serializing_if = "is_default")]
    pub artifact_type: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(rename = "os.version", skip_serializing_if = "is_default")]
    pub os_version: String,
    #[serde(rename = "os.features", skip_serializing_if = "is_default")]
    pub os_features: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub variant: String,
}

/// `GET /distribution/{name}/json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DistributionInspect {
    pub descriptor: Descriptor,
    pub platforms: Vec<Platform>,
}
