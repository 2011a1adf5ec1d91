//! Secrets and configs: files that are kept by the engine and given to containers.

use serde::{Deserialize, Serialize};

use crate::StringMap;
use crate::json::is_default;

/// `GET /secrets/{id}`, `GET /configs/{id}`, and one item of their lists.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Secret {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: ObjectVersion,
    pub created_at: String,
    pub updated_at: String,
    pub spec: SecretSpec,
}

/// Changes must name the version that they are changes of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ObjectVersion {
    pub index: u64,
}

/// `POST /secrets/create`, `POST /secrets/{id}/update`, and the same of configs.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SecretSpec {
    pub name: String,
    pub labels: StringMap,
    /// In base64. Never told of a secret.
    #[serde(skip_serializing_if = "is_default")]
    pub data: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<Driver>,
    #[serde(skip_serializing_if = "is_default")]
    pub templating: Option<Driver>,
}

/// Without the data: what is printed ends up in a log.
impl std::fmt::Debug for SecretSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretSpec").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Driver {
    pub name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub options: StringMap,
}

/// The answer to both `create`s.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateResponse {
    #[serde(rename = "ID")]
    pub id: String,
}

/// A container's wish for a secret, in the shape that services have for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SecretReference {
    pub file: FileTarget,
    #[serde(rename = "SecretID")]
    pub secret_id: String,
    pub secret_name: String,
    /// Sent to the container's first process when the secret has been replaced.
    #[serde(skip_serializing_if = "is_default")]
    pub signal: String,
}

/// The same of a config.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ConfigReference {
    pub file: FileTarget,
    #[serde(rename = "ConfigID")]
    pub config_id: String,
    pub config_name: String,
}

/// What the file is inside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct FileTarget {
    pub name: String,
    #[serde(rename = "UID")]
    pub uid: String,
    #[serde(rename = "GID")]
    pub gid: String,
    pub mode: u32,
}

impl Default for FileTarget {
    fn default() -> Self {
        let root = || "0".to_owned();
        Self { name: String::new(), uid: root(), gid: root(), mode: 0o444 }
    }
}
