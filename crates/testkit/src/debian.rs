//! A Debian with servers in it, made as such images are: a minimal system in one layer, the packages in the next.
//!
//! Made once per machine by debootstrap from where the machine's own packages come from, and kept.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oci::Digest;
use oci::image::{Descriptor, Manifest, media_type};
use serde_json::{Value, json};

use crate::images::index_of;

/// What makes the trees of the layers.
const SCRIPT: &str = include_str!("debian.sh");

/// Where what took long to make is kept between runs.
const CACHE: &str = "/var/cache/gantry-testkit";

/// The directory of an OCI layout with one image, named `nginx`.
pub fn nginx() -> PathBuf {
    let config = json!({
        "Env": [PATH, "NGINX_VERSION=1.22"],
        "Cmd": ["nginx", "-g", "daemon off;"],
        "ExposedPorts": { "80/tcp": {} },
        "Labels": { "maintainer": "somebody" },
        "StopSignal": "SIGQUIT",
    });
    image("nginx", &["nginx-light"], &config)
}

/// The same, named `servers`: PostgreSQL, Redis, nginx and Python. Which of them runs is for whoever runs it.
pub fn servers() -> PathBuf {
    let packages = ["postgresql-15", "redis-server", "nginx-light", "python3"];
    image("servers", &packages, &json!({ "Env": [PATH], "Cmd": ["bash"] }))
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn image(name: &str, packages: &[&str], config: &Value) -> PathBuf {
    std::fs::create_dir_all(CACHE).expect("a place for what is kept");
    let lock = File::create(Path::new(CACHE).join("lock")).expect("a lock file");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("a lock");
    let recipe = [SCRIPT, include_str!("debian.rs"), &packages.join(" ")].concat();
    let done = Path::new(CACHE).join(format!("{name}-{}", Digest::of(recipe.as_bytes()).short()));
    if !done.exists() {
        let making = tempfile::tempdir_in(CACHE).expect("a place to work in");
        make(making.path(), name, packages, config);
        std::fs::rename(making.path().join("layout"), &done).expect("a finished layout");
    }
    done
}

fn make(dir: &Path, name: &str, packages: &[&str], config: &Value) {
    run(dir, Command::new("unshare").args(["--mount", "sh", "-c", SCRIPT, "sh"]).args(packages));
    let blobs = dir.join("layout/blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("a place for blobs");
    let put = |media_type: &str, bytes: &[u8]| {
        let descriptor = Descriptor::of(media_type, bytes);
        std::fs::write(blobs.join(descriptor.digest.hex()), bytes).expect("a blob");
        descriptor
    };
    let mut diff_ids = Vec::new();
    let mut layers = Vec::new();
    for tree in ["base", "top"] {
        let script = format!("cd {tree} && tar --numeric-owner --sort=name -cf ../{tree}.tar *");
        run(dir, Command::new("sh").args(["-c", &script]));
        let tar = dir.join(format!("{tree}.tar"));
        diff_ids.push(Digest::of(&std::fs::read(&tar).expect("a layer")));
        run(dir, Command::new("gzip").arg("-n").arg(&tar));
        let packed = std::fs::read(tar.with_extension("tar.gz")).expect("a layer");
        layers.push(put(media_type::OCI_LAYER_GZIP, &packed));
    }
    let install = format!("/bin/sh -c apt-get install -y {}", packages.join(" "));
    let words = |key: &str| {
        config[key].as_array().map_or(String::new(), |list| {
            list.iter().map(Value::to_string).collect::<Vec<_>>().join(" ")
        })
    };
    let mut history = vec![
        json!({ "created": "2024-05-01T00:00:00Z", "created_by": "/bin/sh -c #(nop) ADD file:base in / " }),
        json!({ "created": "2024-05-01T00:00:01Z", "created_by": "/bin/sh -c #(nop)  CMD [\"bash\"]", "empty_layer": true }),
        json!({ "created": "2024-05-06T07:08:08Z", "created_by": install }),
    ];
    if let Some(signal) = config["StopSignal"].as_str() {
        let text = format!("/bin/sh -c #(nop)  STOPSIGNAL {signal}");
        history.push(
            json!({ "created": "2024-05-06T07:08:09Z", "created_by": text, "empty_layer": true }),
        );
    }
    let command = format!("/bin/sh -c #(nop)  CMD [{}]", words("Cmd"));
    history.push(
        json!({ "created": "2024-05-06T07:08:09Z", "created_by": command, "empty_layer": true }),
    );
    let config = json!({
        "architecture": oci::Platform::host().architecture,
        "os": "linux",
        "created": "2024-05-06T07:08:09.101112131Z",
        "config": config,
        "history": history,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        artifact_type: String::new(),
        config: put(media_type::OCI_CONFIG, config.to_string().as_bytes()),
        layers,
        subject: None,
        annotations: Default::default(),
    };
    let manifest = serde_json::to_vec(&manifest).expect("a manifest is plain data");
    let mut named = put(media_type::OCI_MANIFEST, &manifest);
    named.annotations.insert("org.opencontainers.image.ref.name".to_owned(), name.to_owned());
    let layout = dir.join("layout");
    let index = index_of(media_type::OCI_INDEX, vec![named]);
    std::fs::write(layout.join("index.json"), index).expect("an index");
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
}

/// Runs a step there; what it says is only of interest when it fails.
fn run(dir: &Path, command: &mut Command) {
    let said = dir.join("said");
    let log = File::create(&said).expect("a log");
    command.current_dir(dir).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a log")).stderr(log);
    let status = command.status().expect("it can be executed");
    let said = std::fs::read_to_string(&said).unwrap_or_default();
    assert!(status.success(), "{command:?}: {status}\n{said}");
}
