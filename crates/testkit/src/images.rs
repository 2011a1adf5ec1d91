//! Images made offline: tiny ones from bytes, and a busybox from the host's static binary.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Command;

use oci::image::{Descriptor, Index, Manifest, media_type};
use oci::{Digest, Platform};
use serde_json::{Value, json};

use crate::registry::Registry;

/// One thing in a layer.
#[derive(Clone, Debug)]
pub enum Entry {
    Directory(&'static str, u32),
    File(String, Vec<u8>, u32),
    Symlink(String, String),
}

impl Entry {
    pub fn file(path: &str, text: &str) -> Self {
        Self::File(path.to_owned(), text.as_bytes().to_vec(), 0o644)
    }
}

/// A layer: the same entries make the same bytes.
pub fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mtime(1_700_000_000);
    header.set_uid(0);
    header.set_gid(0);
    for entry in entries {
        let mut header = header.clone();
        header.set_size(0);
        let done = match entry {
            Entry::Directory(path, mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                builder.append_data(&mut header, path, std::io::empty())
            }
            Entry::File(path, bytes, mode) => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_mode(*mode);
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, path, bytes.as_slice())
            }
            Entry::Symlink(path, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                builder.append_link(&mut header, path, target)
            }
        };
        done.expect("a tar in memory takes any path a test makes");
    }
    builder.into_inner().expect("a tar in memory can be ended")
}

/// How layers travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub fn apply(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::None => bytes.to_vec(),
            Self::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).expect("writing to memory cannot fail");
                encoder.finish().expect("writing to memory cannot fail")
            }
            Self::Zstd => zstd::encode_all(bytes, 3).expect("writing to memory cannot fail"),
        }
    }
}

/// Whose media types are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Docker,
    Oci,
}

/// An image in memory.
#[derive(Clone, Debug)]
pub struct TestImage {
    pub config: Vec<u8>,
    /// Uncompressed, the lowest first.
    pub layers: Vec<Vec<u8>>,
}

/// An image as a registry has it.
#[derive(Clone, Debug)]
pub struct Packed {
    pub media_type: &'static str,
    pub manifest: Vec<u8>,
    pub blobs: Vec<Vec<u8>>,
}

impl Packed {
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub fn push(&self, registry: &Registry, repository: &str, tag: Option<&str>) -> Digest {
        for blob in &self.blobs {
            registry.put_blob(blob.clone());
        }
        registry.put_manifest(repository, tag, self.media_type, self.manifest.clone())
    }
}

impl TestImage {
    /// An image for the host's platform with this run configuration.
    pub fn new(layers: Vec<Vec<u8>>, run: &Value) -> Self {
        Self::for_platform(layers, run, &Platform::host())
    }

    pub fn for_platform(layers: Vec<Vec<u8>>, run: &Value, platform: &Platform) -> Self {
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
        let history: Vec<Value> = (0..layers.len())
            .map(|at| json!({ "created": "2024-01-02T03:04:05Z", "created_by": format!("/bin/sh -c #(nop) ADD {at} in / ") }))
            .collect();
        let mut config = json!({
            "architecture": platform.architecture,
            "config": run,
            "created": "2024-01-02T03:04:05.678Z",
            "history": history,
            "os": platform.os,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        if !platform.variant.is_empty() {
            config["variant"] = json!(platform.variant);
        }
        Self { config: config.to_string().into_bytes(), layers }
    }

    /// Two layers of one small file each; `seed` makes it another image.
    pub fn small(seed: &str) -> Self {
        let base = tar(&[Entry::Directory("etc/", 0o755), Entry::file("etc/base", "base\n")]);
        let top = tar(&[Entry::file("etc/seed", seed)]);
        Self::new(vec![base, top], &json!({ "Cmd": ["/none"], "Labels": { "seed": seed } }))
    }

    /// Debian's static busybox with all its applets, in one layer.
    pub fn busybox() -> Self {
        let binary = std::fs::read("/bin/busybox").expect("busybox-static is installed");
        let listed = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs");
        let applets = String::from_utf8(listed.stdout).expect("names of applets are ASCII");
        let mut entries = vec![
            Entry::Directory("bin/", 0o755),
            Entry::Directory("dev/", 0o755),
            Entry::Directory("etc/", 0o755),
            Entry::Directory("home/", 0o755),
            Entry::Directory("proc/", 0o755),
            Entry::Directory("root/", 0o700),
            Entry::Directory("sys/", 0o755),
            Entry::Directory("tmp/", 0o1777),
            Entry::Directory("usr/", 0o755),
            Entry::Directory("usr/bin/", 0o755),
            Entry::Directory("usr/sbin/", 0o755),
            Entry::Directory("var/", 0o755),
            Entry::Directory("var/spool/", 0o755),
            Entry::Directory("var/spool/mail/", 0o755),
            Entry::Directory("var/www/", 0o755),
            Entry::file("etc/passwd", PASSWD),
            Entry::file("etc/group", GROUP),
            Entry::File("bin/busybox".to_owned(), binary, 0o755),
        ];
        for applet in applets.lines().filter(|applet| !applet.is_empty() && *applet != "busybox") {
            entries.push(Entry::Symlink(format!("bin/{applet}"), "busybox".to_owned()));
        }
        entries.push(Entry::Symlink("usr/bin/env".to_owned(), "/bin/busybox".to_owned()));
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        Self::new(vec![tar(&entries)], &json!({ "Env": [path], "Cmd": ["sh"] }))
    }

    /// The digest of the configuration.
    pub fn id(&self) -> Digest {
        Digest::of(&self.config)
    }

    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| Digest::of(layer)).collect()
    }

    /// Manifest and blobs for a registry.
    pub fn pack(&self, style: Style, compression: Compression) -> Packed {
        let layer_type = match (style, compression) {
            (Style::Docker, Compression::Gzip) => media_type::DOCKER_LAYER_GZIP,
            (Style::Docker, Compression::None) => media_type::DOCKER_LAYER,
            (Style::Oci, Compression::None) => media_type::OCI_LAYER,
            (Style::Oci, Compression::Gzip) => media_type::OCI_LAYER_GZIP,
            (_, Compression::Zstd) => media_type::OCI_LAYER_ZSTD,
        };
        let (manifest_type, config_type) = match style {
            Style::Docker => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
            Style::Oci => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
        };
        let mut blobs: Vec<Vec<u8>> =
            self.layers.iter().map(|layer| compression.apply(layer)).collect();
        let manifest = Manifest {
            schema_version: 2,
            media_type: manifest_type.to_owned(),
            artifact_type: String::new(),
            config: Descriptor::of(config_type, &self.config),
            layers: blobs.iter().map(|blob| Descriptor::of(layer_type, blob)).collect(),
            subject: None,
            annotations: BTreeMap::new(),
        };
        let manifest = serde_json::to_vec(&manifest).expect("a manifest is plain data");
        blobs.push(self.config.clone());
        Packed { media_type: manifest_type, manifest, blobs }
    }

    /// Puts it into a registry; the manifest's digest.
    pub fn push(&self, registry: &Registry, repository: &str, tag: &str) -> Digest {
        self.pack(Style::Docker, Compression::Gzip).push(registry, repository, Some(tag))
    }

    /// As `docker save` of old wrote it, and `docker load` of any age reads it.
    pub fn docker_archive(&self, tags: &[&str]) -> Vec<u8> {
        let config = format!("{}.json", self.id().hex());
        let layers: Vec<String> =
            self.diff_ids().iter().map(|diff| format!("{}/layer.tar", diff.hex())).collect();
        let manifest = json!([{ "Config": config, "RepoTags": tags, "Layers": layers }]);
        let mut entries = BTreeMap::new();
        for (name, bytes) in layers.iter().zip(&self.layers) {
            entries.insert(name.clone(), bytes.clone());
        }
        let mut files: Vec<Entry> =
            entries.into_iter().map(|(name, bytes)| Entry::File(name, bytes, 0o644)).collect();
        files.push(Entry::File(config, self.config.clone(), 0o644));
        files.push(Entry::File(
            "manifest.json".to_owned(),
            manifest.to_string().into_bytes(),
            0o644,
        ));
        tar(&files)
    }

    /// An OCI layout in a tar.
    pub fn oci_archive(&self, name: Option<&str>, compression: Compression) -> Vec<u8> {
        let packed = self.pack(Style::Oci, compression);
        let mut descriptor = Descriptor::of(packed.media_type, &packed.manifest);
        if let Some(name) = name {
            descriptor
                .annotations
                .insert("org.opencontainers.image.ref.name".to_owned(), name.to_owned());
        }
        let index = index_of(media_type::OCI_INDEX, vec![descriptor]);
        let mut files = vec![Entry::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)];
        for blob in packed.blobs.iter().chain([&packed.manifest]) {
            files.push(Entry::File(
                format!("blobs/sha256/{}", Digest::of(blob).hex()),
                blob.clone(),
                0o644,
            ));
        }
        files.push(Entry::File("index.json".to_owned(), index, 0o644));
        tar(&files)
    }
}

/// An index of these manifests.
pub fn index_of(media_type: &str, manifests: Vec<Descriptor>) -> Vec<u8> {
    let index = Index {
        schema_version: 2,
        media_type: media_type.to_owned(),
        artifact_type: String::new(),
        manifests,
        subject: None,
        annotations: BTreeMap::new(),
    };
    serde_json::to_vec(&index).expect("an index is plain data")
}

/// Puts images for several platforms under one tag; the index's digest.
pub fn push_index(
    registry: &Registry,
    repository: &str,
    tag: &str,
    images: &[(Platform, Packed)],
) -> Digest {
    let descriptors = images
        .iter()
        .map(|(platform, packed)| {
            packed.push(registry, repository, None);
            let mut descriptor = Descriptor::of(packed.media_type, &packed.manifest);
            descriptor.platform = Some(platform.clone());
            descriptor
        })
        .collect();
    let index = index_of(media_type::OCI_INDEX, descriptors);
    registry.put_manifest(repository, Some(tag), media_type::OCI_INDEX, index)
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
";

const GROUP: &str = "root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
mail:x:8:
www-data:x:33:
users:x:100:
nobody:x:65534:
";
