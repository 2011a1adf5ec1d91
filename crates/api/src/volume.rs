//! Volumes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::StringMap;
use crate::json::is_default;

/// `GET /volumes/{name}`, and one item of `GET /volumes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Volume {
    #[serde(skip_serializing_if = "is_default")]
    pub created_at: String,
    pub driver: String,
    pub labels: Option<StringMap>,
    pub mountpoint: String,
    pub name: String,
    pub options: Option<StringMap>,
    /// `local`, `global`.
    pub scope: String,
    /// Whatever the driver tells.
    #[serde(skip_serializing_if = "is_default")]
    pub status: BTreeMap<String, serde_json::Value>,
    #[serde(skip_serializing_if = "is_default")]
    pub usage_data: Option<UsageData>,
}

/// -1 where not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UsageData {
    pub ref_count: i64,
    pub size: i64,
}

/// `POST /volumes/create`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename = "CreateOptions", rename_all = "PascalCase")]
pub struct CreateBody {
    #[serde(skip_serializing_if = "is_default")]
    pub driver: String,
    #[serde(skip_serializing_if = "is_default")]
    pub driver_opts: StringMap,
    #[serde(skip_serializing_if = "is_default")]
    pub labels: StringMap,
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
}

/// `POST /gantry/volumes/{name}/clone`: ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CloneBody {
    pub name: String,
    pub labels: StringMap,
    /// Labelled as one, and named after the moment if it has no name.
    pub snapshot: bool,
    /// Containers that use the volume go on meanwhile.
    pub no_pause: bool,
}

/// `GET /volumes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ListResponse {
    pub volumes: Vec<Volume>,
    pub warnings: Option<Vec<String>>,
}

/// The answer to `POST /volumes/prune`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PruneReport {
    pub volumes_deleted: Option<Vec<String>>,
    pub space_reclaimed: u64,
}
