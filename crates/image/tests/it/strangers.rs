//! Other people's tools as a second opinion: skopeo reads what we write, and the other way round; Debian's registry serves
//! what we pull. Skipped aloud where they are not installed.

use std::path::Path;
use std::process::{Command, Stdio};

use testkit::TestImage;
use testkit::images::{Compression, Style};

use crate::Host;

fn is_here(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

fn skopeo(args: &[&str]) -> String {
    let output = Command::new("skopeo")
        .args(["--insecure-policy", "--tmpdir", "/var/tmp"])
        .args(args)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "skopeo {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn at(kind: &str, path: &Path, name: &str) -> String {
    format!("{kind}:{}:{name}", path.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_reads_and_writes_our_archives() {
    if !is_here("skopeo") {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let host = Host::new();
    let test = TestImage::small("one");
    host.load(test.docker_archive(&["x:1"])).await.0.unwrap();
    let ours = dir.path().join("ours.tar");
    std::fs::write(&ours, host.save(&["x:1"]).await).unwrap();
    // It understands both of our formats, and sees the same image in them.
    for kind in ["docker-archive", "oci-archive"] {
        let name = if kind == "docker-archive" { "x:1" } else { "1" };
        let raw = skopeo(&["inspect", "--raw", "--config", &at(kind, &ours, name)]);
        assert_eq!(oci::Digest::of(raw.as_bytes()), test.id(), "{kind}");
        // What it writes from that comes back as the same image.
        for to in ["docker-archive", "oci-archive"] {
            let theirs = dir.path().join(format!("{kind}-{to}.tar"));
            let from = at(kind, &ours, name);
            skopeo(&["copy", "--quiet", &from, &at(to, &theirs, "y:2")]);
            let other = Host::new();
            let (loaded, said) = other.load(std::fs::read(&theirs).unwrap()).await;
            let loaded = loaded.unwrap();
            assert_eq!(said, ["Loaded image: y:2\n"], "{kind} {to}");
            let image = other.images.get(&loaded[0].id).unwrap();
            assert_eq!(image.config.rootfs.diff_ids, test.diff_ids());
            if kind == to {
                // From one format to the other it writes the configuration anew.
                assert_eq!(image.id, test.id(), "{kind}");
            }
            other.check();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_pushes_and_we_pull() {
    if !is_here("skopeo") {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let archive = dir.path().join("x.tar");
    let test = TestImage::small("one");
    std::fs::write(&archive, test.docker_archive(&["x:1"])).unwrap();
    let registry = testkit::Registry::start();
    let name = registry.reference("deep/path/x:1");
    let to = format!("docker://{name}");
    skopeo(&[
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        &at("docker-archive", &archive, "x:1"),
        &to,
    ]);
    let host = Host::new();
    let (image, _) = host.pull(&name).await;
    assert_eq!(image.unwrap().id, test.id());
    host.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn debians_registry_serves_us() {
    if !is_here("skopeo") || !is_here("docker-registry") {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let port = testkit::port::free();
    let config = dir.path().join("config.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
        dir.path().join("data").display()
    );
    std::fs::write(&config, text).unwrap();
    let quiet = || Stdio::null();
    let server = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdout(quiet())
        .stderr(quiet())
        .spawn()
        .unwrap();
    let _server = Killed(server);
    for _ in 0..500 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let archive = dir.path().join("x.tar");
    let test = TestImage::busybox();
    std::fs::write(&archive, test.docker_archive(&["busybox:1"])).unwrap();
    let name = format!("127.0.0.1:{port}/busybox:1");
    let to = format!("docker://{name}");
    skopeo(&[
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        &at("docker-archive", &archive, "busybox:1"),
        &to,
    ]);
    let host = Host::new();
    let (image, _) = host.pull(&name).await;
    let image = image.unwrap();
    assert_eq!(image.id, test.id());
    assert!(host.read(&image, "etc/group").starts_with("root:"));
    let (missing, _) = host.pull(&format!("127.0.0.1:{port}/busybox:2")).await;
    assert_eq!(
        missing.unwrap_err().chain(),
        format!(
            "manifest for 127.0.0.1:{port}/busybox:2 not found: manifest unknown: manifest unknown"
        )
    );
    let digest = image.repo_digests[0].clone();
    host.images.remove(&name, Default::default()).await.unwrap();
    let (image, _) = host.pull(&digest).await;
    assert_eq!(
        image.unwrap().id,
        test.pack(Style::Docker, Compression::None)
            .blobs
            .last()
            .map(|raw| oci::Digest::of(raw))
            .unwrap()
    );
    host.check();
}

/// A server that ends with its test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _status = self.0.wait();
    }
}
