//! Image documents: manifests, indexes and configurations, of OCI and of Docker's schema 2.
//!
//! These are words only. What arrives from outside is kept as the bytes it came in, because its name is their hash; the
//! types here are for reading it, and for writing what we make ourselves. Go's reader takes `null` for "not there" in
//! every place, so does ours.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use stdx::time::Timestamp;
use stdx::{Error, Result};

use crate::digest::Hasher;
use crate::{Digest, Platform};

/// What documents and layers are called on the wire.
pub mod media_type {
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_MANIFEST_V1: &str = "application/vnd.docker.distribution.manifest.v1+json";
    pub const DOCKER_MANIFEST_V1_SIGNED: &str =
        "application/vnd.docker.distribution.manifest.v1+prettyjws";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    pub const DOCKER_FOREIGN_LAYER: &str =
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

    /// What a client asks for when it wants whatever an image is described by.
    pub const MANIFESTS: [&str; 4] = [DOCKER_MANIFEST, DOCKER_LIST, OCI_INDEX, OCI_MANIFEST];

    /// A list of manifests, one a platform.
    pub fn is_index(text: &str) -> bool {
        text == OCI_INDEX || text == DOCKER_LIST
    }

    /// The manifest of one image.
    pub fn is_manifest(text: &str) -> bool {
        text == OCI_MANIFEST || text == DOCKER_MANIFEST
    }

    /// A file system layer in any form, foreign ones included.
    pub fn is_layer(text: &str) -> bool {
        text.starts_with("application/vnd.oci.image.layer.")
            || text.starts_with("application/vnd.docker.image.rootfs.")
    }
}

/// Where some bytes are: their name, their length, and what they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default, deserialize_with = "nullable")]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
}

impl Descriptor {
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: String::new(),
        }
    }

    /// Describes `bytes`.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }
}

/// One image: its configuration and its layers, the lowest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    #[serde(default, deserialize_with = "nullable")]
    pub schema_version: u32,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
    pub config: Descriptor,
    #[serde(default, deserialize_with = "nullable")]
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Several images under one name, usually one a platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    #[serde(default, deserialize_with = "nullable")]
    pub schema_version: u32,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
    #[serde(default, deserialize_with = "nullable")]
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a name in a registry leads to.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and it is taken apart at once"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    Manifest(Manifest),
    Index(Index),
}

impl Document {
    /// Reads a manifest or an index that was announced as `media_type` (empty or a generic type: not announced).
    ///
    /// The same bytes must not mean two things to two readers (CVE-2021-41190), so whatever could be taken for both,
    /// or calls itself something else than it was announced as, is refused.
    pub fn parse(announced: &str, bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Outline {
            #[serde(default, deserialize_with = "nullable")]
            schema_version: u32,
            #[serde(default, deserialize_with = "nullable")]
            media_type: String,
            config: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
            manifests: Option<serde::de::IgnoredAny>,
            fs_layers: Option<serde::de::IgnoredAny>,
        }
        let outline: Outline = read("manifest", bytes)?;
        let announced = announced.split(';').next().unwrap_or_default().trim();
        let announced = match announced {
            "application/json" | "application/octet-stream" | "text/plain" => "",
            media_type => media_type,
        };
        let old = [media_type::DOCKER_MANIFEST_V1, media_type::DOCKER_MANIFEST_V1_SIGNED];
        if outline.fs_layers.is_some() || outline.schema_version == 1 || old.contains(&announced) {
            return Err(Error::invalid(
                "media type \"application/vnd.docker.distribution.manifest.v1+prettyjws\" is no longer supported; \
                 suggest the author to upgrade the image to the OCI format or Docker Image manifest v2, schema 2",
            ));
        }
        // Whoever says what it is need not say of which version: there was never another.
        let unsaid = outline.schema_version == 0 && !announced.is_empty();
        if outline.schema_version != 2 && !unsaid {
            return Err(Error::invalid(format!(
                "unsupported manifest schema version {}",
                outline.schema_version
            )));
        }
        if !announced.is_empty()
            && !outline.media_type.is_empty()
            && announced != outline.media_type
        {
            return Err(Error::invalid(format!(
                "manifest is announced as {announced:?} but calls itself {:?}",
                outline.media_type
            )));
        }
        let named = if announced.is_empty() { outline.media_type.as_str() } else { announced };
        let as_manifest = outline.config.is_some() || outline.layers.is_some();
        let as_index = outline.manifests.is_some();
        match (as_manifest, as_index) {
            (true, true) => {
                Err(Error::invalid("ambiguous manifest: it has both layers and manifests"))
            }
            (true, false) if named.is_empty() || media_type::is_manifest(named) => {
                read("manifest", bytes).map(Self::Manifest)
            }
            (false, true) if named.is_empty() || media_type::is_index(named) => {
                read("manifest index", bytes).map(Self::Index)
            }
            _ if media_type::is_manifest(named)
                || media_type::is_index(named)
                || named.is_empty() =>
            {
                Err(Error::invalid(format!("manifest does not have the form of {named:?}")))
            }
            _ => Err(Error::invalid(format!("unsupported manifest media type {named:?}"))),
        }
    }
}

/// Reads a JSON document that came from outside.
fn read<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|cause| Error::invalid(format!("cannot read {what}")).caused_by(cause))
}

/// An image's configuration: how it was made, what is in it, and how it wants to be run.
///
/// Fields are in the order Docker writes them, sorted; what we do not know is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    #[serde(deserialize_with = "nullable")]
    pub architecture: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(deserialize_with = "nullable")]
    pub config: RunConfig,
    /// The container it was committed from.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub container: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_config: Option<RunConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    #[serde(deserialize_with = "nullable")]
    pub os: String,
    #[serde(
        rename = "os.features",
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    #[serde(
        rename = "os.version",
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    #[serde(deserialize_with = "nullable")]
    pub rootfs: RootFs,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub variant: String,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ImageConfig {
    /// Reads a configuration that came from outside, and holds it to what every reader relies on.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let config: Self = read("image configuration", bytes)?;
        if config.rootfs.kind != "layers" && !config.rootfs.kind.is_empty() {
            return Err(Error::invalid(format!(
                "unsupported rootfs type {:?}",
                config.rootfs.kind
            )));
        }
        Ok(config)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self)
            .expect("an image configuration has only text keys and finite numbers")
    }

    /// What it was built for.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: if self.os.is_empty() { "linux".to_owned() } else { self.os.clone() },
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: self.variant.clone(),
        }
        .normalized()
    }

    /// The names of its layers with everything below them, the lowest first.
    pub fn chain(&self) -> Vec<ChainId> {
        chain_ids(&self.rootfs.diff_ids)
    }
}

/// How an image wants to be run: what `docker run` starts from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RunConfig {
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Set::is_empty")]
    pub exposed_ports: Set,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Set::is_empty")]
    pub volumes: Set,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Go's set of strings: an object with nothing in its values.
pub type Set = BTreeMap<String, Empty>;

/// `{}`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Empty {}

/// Whatever stands there, it means nothing.
impl<'de> Deserialize<'de> for Empty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self {})
    }
}

/// How to find out whether a container is well. Times are nanoseconds, 0 means Docker's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub interval: i64,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The layers by the digests of their uncompressed tars, the lowest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub diff_ids: Vec<Digest>,
}

impl RootFs {
    pub fn layers(diff_ids: Vec<Digest>) -> Self {
        Self { kind: "layers".to_owned(), diff_ids }
    }
}

/// One step in the making of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

/// The name of a layer together with everything below it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(Digest);

impl ChainId {
    /// The lowest layer: its chain is itself.
    pub fn base(diff: &Digest) -> Self {
        Self(diff.clone())
    }

    /// `diff` on top of this.
    pub fn then(&self, diff: &Digest) -> Self {
        let mut hasher = Hasher::sha256();
        hasher.update(self.0.as_str().as_bytes());
        hasher.update(b" ");
        hasher.update(diff.as_str().as_bytes());
        Self(hasher.finish())
    }

    pub fn digest(&self) -> &Digest {
        &self.0
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// 64 hex digits: a name for a directory.
    pub fn hex(&self) -> &str {
        self.0.hex()
    }
}

impl std::str::FromStr for ChainId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Self)
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The chain of each layer, for layers listed from the lowest.
pub fn chain_ids(diffs: &[Digest]) -> Vec<ChainId> {
    let mut chain: Vec<ChainId> = Vec::with_capacity(diffs.len());
    for diff in diffs {
        let next = chain.last().map_or_else(|| ChainId::base(diff), |below| below.then(diff));
        chain.push(next);
    }
    chain
}

/// `null` is the same as nothing.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(of: &str) -> Digest {
        Digest::of(of.as_bytes())
    }

    #[test]
    fn chains_are_the_images_specifications() {
        let (a, b, c) = (digest("a"), digest("b"), digest("c"));
        let chain = chain_ids(&[a.clone(), b.clone(), c.clone()]);
        let second = Digest::of(format!("{a} {b}").as_bytes());
        assert_eq!(chain[0].digest(), &a);
        assert_eq!(chain[1].digest(), &second);
        assert_eq!(chain[2].digest(), &Digest::of(format!("{second} {c}").as_bytes()));
    }

    #[test]
    fn a_document_means_one_thing() {
        let descriptor = format!(r#"{{"mediaType":"m","digest":"{}","size":1}}"#, digest("x"));
        let manifest =
            format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor}]}}"#);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{descriptor}]}}"#);
        let both =
            format!(r#"{{"schemaVersion":2,"manifests":[],"layers":[],"config":{descriptor}}}"#);
        let twice = format!(r#"{{"schemaVersion":2,"manifests":[],"manifests":[{descriptor}]}}"#);
        let named = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{descriptor}}}"#,
            media_type::OCI_MANIFEST
        );
        let check = |announced: &str, text: &str, expected: &str| {
            let found = match Document::parse(announced, text.as_bytes()) {
                Ok(Document::Manifest(_)) => "manifest".to_owned(),
                Ok(Document::Index(_)) => "index".to_owned(),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected, "{announced} {text}");
        };
        check("", &manifest, "manifest");
        check("application/json", &manifest, "manifest");
        check(media_type::DOCKER_MANIFEST, &manifest, "manifest");
        check(media_type::OCI_INDEX, &index, "index");
        check(
            media_type::OCI_INDEX,
            &manifest,
            "manifest does not have the form of \"application/vnd.oci.image.index.v1+json\"",
        );
        check("", &both, "ambiguous manifest: it has both layers and manifests");
        check("", &twice, "cannot read manifest");
        check(media_type::OCI_MANIFEST, &named, "manifest");
        check(
            media_type::DOCKER_MANIFEST,
            &named,
            "manifest is announced as \"application/vnd.docker.distribution.manifest.v2+json\" but calls itself \
             \"application/vnd.oci.image.manifest.v1+json\"",
        );
        check("text/html", &manifest, "unsupported manifest media type \"text/html\"");
        check("", r#"{"schemaVersion":3}"#, "unsupported manifest schema version 3");
        check("", "{}", "unsupported manifest schema version 0");
        let unsaid = manifest.replace(r#""schemaVersion":2,"#, "");
        assert_ne!(unsaid, manifest);
        check(media_type::OCI_MANIFEST, &unsaid, "manifest");
        check("", &unsaid, "unsupported manifest schema version 0");
        check("", "<html>", "cannot read manifest");
    }

    #[test]
    fn a_configuration_keeps_what_it_does_not_know() {
        let text = r#"{"architecture":"amd64","config":{"Env":null,"Cmd":["sh"],"Volumes":{"/data":{}},"Hostname":"h"},
            "os":"linux","rootfs":{"type":"layers","diff_ids":null},"moby.buildkit.trace":"x","created":"2020-01-01T00:00:00Z"}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert_eq!(config.extra["moby.buildkit.trace"], "x");
        assert_eq!(
            String::from_utf8(config.to_bytes()).unwrap(),
            r#"{"architecture":"amd64","config":{"Cmd":["sh"],"Volumes":{"/data":{}},"Hostname":"h"},"created":"2020-01-01T00:00:00Z","os":"linux","rootfs":{"type":"layers"},"moby.buildkit.trace":"x"}"#
        );
        assert_eq!(ImageConfig::parse(&config.to_bytes()).unwrap(), config);
        assert!(ImageConfig::parse(br#"{"rootfs":{"type":"base+layers"}}"#).is_err());
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert!(ImageConfig::parse(deep.as_bytes()).is_err());
    }
}
