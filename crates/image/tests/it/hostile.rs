//! What comes from outside and means no good: refused with a reason, and nothing of it stays.

use oci::Digest;
use oci::image::{Descriptor, media_type};
use serde_json::{Value, json};
use testkit::images::{Compression, Entry, Style, tar};
use testkit::registry::Fault;
use testkit::{Registry, TestImage};

use crate::Host;

/// Pulls a manifest made from a right one by `change`, and expects these words in the refusal.
async fn check_manifest(change: impl FnOnce(&mut Value), words: &str) {
    let (host, registry) = (Host::new(), Registry::start());
    let packed = TestImage::small("x").pack(Style::Oci, Compression::Gzip);
    packed.push(&registry, "x", None);
    let mut manifest: Value = serde_json::from_slice(&packed.manifest).unwrap();
    change(&mut manifest);
    let bytes = manifest.to_string().into_bytes();
    registry.put_manifest("x", Some("1"), media_type::OCI_MANIFEST, bytes);
    let (outcome, _) = host.pull(&registry.reference("x:1")).await;
    let chain = outcome.map(drop).unwrap_err().chain();
    assert!(chain.contains(words), "{chain:?} has not {words:?}");
    assert_eq!(host.images.count(), 0);
    host.images.collect().await.unwrap();
    assert_eq!(host.content(), (0, 0), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_lie() {
    let digest = |text: &str| json!(text);
    check_manifest(|m| m["manifests"] = json!([]), "ambiguous manifest").await;
    check_manifest(|m| m["mediaType"] = json!(media_type::DOCKER_MANIFEST), "calls itself").await;
    check_manifest(|m| m["schemaVersion"] = json!(1), "no longer supported").await;
    check_manifest(
        |m| m["layers"][0]["digest"] = digest("md5:00000000000000000000000000000000"),
        "unsupported digest algorithm",
    )
    .await;
    let upper = format!("sha256:{}", "A".repeat(64));
    check_manifest(|m| m["layers"][0]["digest"] = digest(&upper), "invalid checksum digest format")
        .await;
    check_manifest(
        |m| m["layers"][0]["digest"] = digest("sha256:abc"),
        "invalid checksum digest length",
    )
    .await;
    let path = format!("sha256:/../{}", "a".repeat(60));
    check_manifest(|m| m["config"]["digest"] = digest(&path), "invalid checksum digest format")
        .await;
    check_manifest(|m| m["layers"][0]["size"] = json!(-1), "cannot read manifest").await;
    let bigger = |m: &mut Value, by: i64| {
        m["layers"][1]["size"] = json!(m["layers"][1]["size"].as_i64().unwrap() + by)
    };
    check_manifest(|m| bigger(m, -1), "larger than the").await;
    check_manifest(|m| bigger(m, 1), "unexpected EOF").await;
    check_manifest(|m| m["config"]["size"] = json!(5), "its manifest says 5").await;
    check_manifest(|m| m["config"]["size"] = json!(1u64 << 40), "larger than").await;
    check_manifest(
        |m| m["config"]["mediaType"] = json!("application/x-evil"),
        "unsupported image configuration",
    )
    .await;
    check_manifest(
        |m| m["layers"][0]["mediaType"] = json!("text/html"),
        "unsupported layer media type",
    )
    .await;
    check_manifest(
        |m| m["layers"][0]["mediaType"] = json!(media_type::DOCKER_FOREIGN_LAYER),
        "foreign layers are not fetched",
    )
    .await;
    check_manifest(|m| drop(m["layers"].as_array_mut().unwrap().pop()), "2 diff ids for 1 layers")
        .await;
    check_manifest(|m| m["layers"].as_array_mut().unwrap().reverse(), "wrong diff id").await;
    check_manifest(
        |m| m["layers"] = json!(vec![m["layers"][0].clone(); 513]),
        "513 layers, 512 is the limit",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registries_that_lie() {
    let test = TestImage::small("x");
    let blob = Digest::of(&Compression::Gzip.apply(&test.layers[1]));
    for (path, fault, words) in [
        (blob.hex(), Fault::Corrupt, "filesystem layer verification failed for digest"),
        (
            blob.hex(),
            Fault::Header("content-encoding", "gzip".to_owned()),
            "encoding that was not asked for",
        ),
        (blob.hex(), Fault::Body(vec![0; 1 << 20]), "larger than the"),
        (blob.hex(), Fault::Body(b"short".to_vec()), "unexpected EOF"),
        (blob.hex(), Fault::Truncate(10), "unexpected EOF"),
        (test.id().hex(), Fault::Corrupt, "blob verification failed for digest"),
        (test.id().hex(), Fault::Body(vec![b' '; 9 << 20]), "larger than"),
        (
            "/manifests/",
            Fault::Header("docker-content-digest", blob.to_string()),
            "is not what the registry says it is",
        ),
        (
            "/manifests/",
            Fault::Header("content-type", media_type::OCI_INDEX.to_owned()),
            "manifest is announced as",
        ),
        (
            "/manifests/",
            Fault::Header("content-type", "text/html".to_owned()),
            "manifest is announced as",
        ),
        ("/manifests/", Fault::Body(vec![b' '; 5 << 20]), "larger than 4194304 bytes"),
        ("/manifests/", Fault::Body(b"null".to_vec()), "is not what the registry says it is"),
    ] {
        let (host, registry) = (Host::new(), Registry::start());
        test.push(&registry, "x", "1");
        registry.fail(path, 100, fault.clone());
        let (outcome, _) = host.pull(&registry.reference("x:1")).await;
        let chain = outcome.map(drop).unwrap_err().chain();
        assert!(chain.contains(words), "{fault:?}: {chain:?} has not {words:?}");
        host.images.collect().await.unwrap();
        assert_eq!((host.images.count(), host.content()), (0, (0, 0)), "{fault:?}");
        // What went wrong is forgotten when the registry is well again.
        registry.heal();
        let (image, _) = host.pull(&registry.reference("x:1")).await;
        assert_eq!(image.unwrap().id, test.id(), "{fault:?}");
        host.check();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_digest_only_that_will_do() {
    let (host, registry) = (Host::new(), Registry::start());
    let (one, two) = (TestImage::small("one"), TestImage::small("two"));
    let digest = one.push(&registry, "x", "1");
    let other = two.pack(Style::Docker, Compression::Gzip);
    other.push(&registry, "x", Some("2"));
    registry.fail("/manifests/", 1, Fault::Body(other.manifest));
    let (outcome, _) = host.pull(&registry.reference(&format!("x@{digest}"))).await;
    assert_eq!(
        outcome.unwrap_err().to_string(),
        format!("manifest verification failed for digest {digest}")
    );
}

/// Mutations of right documents: whatever becomes of them, nobody panics and nothing half stays.
#[tokio::test(flavor = "multi_thread")]
async fn documents_with_random_damage() {
    let (host, registry) = (Host::new(), Registry::start());
    let packed = TestImage::small("x").pack(Style::Oci, Compression::Gzip);
    packed.push(&registry, "x", Some("right"));
    let config = packed.blobs.last().unwrap().clone();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let mut damage = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(5) {
                0 => bytes[at] = random(256) as u8,
                1 => drop(bytes.remove(at)),
                2 => bytes.truncate(at.max(1)),
                3 => {
                    let piece: Vec<u8> = bytes[at..(at + 8).min(bytes.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => bytes[at] = b"0123456789\"{}[],:"[random(17)],
            }
        }
        bytes
    };
    for round in 0..300 {
        let manifest = if round % 2 == 0 {
            damage(&packed.manifest)
        } else {
            let config = damage(&config);
            let mut manifest: Value = serde_json::from_slice(&packed.manifest).unwrap();
            manifest["config"] =
                serde_json::to_value(Descriptor::of(media_type::OCI_CONFIG, &config)).unwrap();
            registry.put_blob(config);
            manifest.to_string().into_bytes()
        };
        registry.put_manifest("x", Some("damaged"), media_type::OCI_MANIFEST, manifest);
        let _whatever = host.pull(&registry.reference("x:damaged")).await;
    }
    host.images.collect().await.unwrap();
    host.check();
    host.pull(&registry.reference("x:right")).await.0.unwrap();
}

/// Loads an archive that must be refused with these words.
async fn check_archive(entries: &[Entry], words: &str) {
    let host = Host::new();
    let (outcome, said) = host.load(tar(entries)).await;
    let chain = outcome.map(drop).unwrap_err().chain();
    assert!(chain.contains(words), "{chain:?} has not {words:?}");
    assert_eq!(said, Vec::<String>::new());
    host.images.collect().await.unwrap();
    assert_eq!((host.images.count(), host.content()), (0, (0, 0)), "{words}");
    let outside = std::fs::read_dir(host.root())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name() == "evil")
        .count();
    assert_eq!(outside, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_that_lie() {
    let test = TestImage::small("x");
    let config = String::from_utf8(test.config.clone()).unwrap();
    let manifest = |config: &str, tags: &[&str], layers: &[&str]| {
        Entry::file(
            "manifest.json",
            &json!([{ "Config": config, "RepoTags": tags, "Layers": layers }]).to_string(),
        )
    };
    let layers = || {
        [
            Entry::File("0.tar".to_owned(), test.layers[0].clone(), 0o644),
            Entry::File("1.tar".to_owned(), test.layers[1].clone(), 0o644),
            Entry::file("c.json", &config),
        ]
        .to_vec()
    };
    let with = |entry: Entry| {
        let mut entries = layers();
        entries.push(entry);
        entries
    };
    check_archive(&layers(), "does not contain a manifest.json").await;
    check_archive(&with(manifest("nosuch.json", &[], &[])), "there is no file \"nosuch.json\"")
        .await;
    check_archive(&with(manifest("../c.json", &[], &[])), "there is no file").await;
    check_archive(&with(manifest("/etc/passwd", &[], &[])), "there is no file").await;
    check_archive(
        &with(manifest("c.json", &[], &["0.tar"])),
        "layers length mismatch: expected 2, got 1",
    )
    .await;
    check_archive(&with(manifest("c.json", &[], &["1.tar", "0.tar"])), "wrong diff id").await;
    check_archive(&with(manifest("c.json", &["X:1"], &["0.tar", "1.tar"])), "must be lowercase")
        .await;
    check_archive(&with(manifest("c.json", &["x"], &["0.tar", "1.tar"])), "invalid tag").await;
    check_archive(
        &with(Entry::Symlink("manifest.json".to_owned(), "c.json".to_owned())),
        "manifest.json is not a regular file",
    )
    .await;
    check_archive(&with(Entry::file("c.json", &config)), "is there twice").await;
    let loops = [
        Entry::Symlink("a".to_owned(), "b".to_owned()),
        Entry::Symlink("b".to_owned(), "a".to_owned()),
        manifest("a", &[], &[]),
    ];
    check_archive(&loops, "too many links").await;
    check_archive(
        &[Entry::file("manifest.json", &" ".repeat(5 << 20))],
        "larger than 4194304 bytes",
    )
    .await;
    check_archive(&[Entry::file("index.json", &" ".repeat(5 << 20))], "larger than 4194304 bytes")
        .await;
    check_archive(
        &[Entry::file("manifest.json", &"[".repeat(10_000))],
        "cannot read manifest.json",
    )
    .await;
    let wrong = format!("blobs/sha256/{}", "0".repeat(64));
    check_archive(&[Entry::file(&wrong, "x")], "is not what its name says").await;
    check_archive(&[Entry::file(&wrong, &"x".repeat(100_000))], "unexpected commit digest").await;
    check_archive(&[Entry::file("blobs/sha256/evil", "x")], "is no name for a blob").await;

    // Images of old with ids that are paths, and parents that go in circles.
    let repositories =
        |id: &str| Entry::file("repositories", &json!({ "x": { "1": id } }).to_string());
    check_archive(&[repositories("../../evil")], "image ID \"../../evil\" is invalid").await;
    let (a, b) = ("a".repeat(64), "b".repeat(64));
    let circle = [
        Entry::file(&format!("{a}/json"), &json!({ "parent": b }).to_string()),
        Entry::file(&format!("{b}/json"), &json!({ "parent": a }).to_string()),
        repositories(&a),
    ];
    check_archive(&circle, "is its own parent").await;
    check_archive(
        &[Entry::file(&format!("{a}/json"), &json!({ "parent": b }).to_string()), repositories(&a)],
        "there is no file",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stories_in_one_archive() {
    let (one, two) = (TestImage::small("one"), TestImage::small("two"));
    let packed = two.pack(Style::Oci, Compression::None);
    let mut descriptor = Descriptor::of(packed.media_type, &packed.manifest);
    descriptor
        .annotations
        .insert("io.containerd.image.name".to_owned(), "docker.io/library/x:1".to_owned());
    let index = testkit::images::index_of(media_type::OCI_INDEX, vec![descriptor]);
    let mut entries = vec![
        Entry::File("c.json".to_owned(), one.config.clone(), 0o644),
        Entry::File("0.tar".to_owned(), one.layers[0].clone(), 0o644),
        Entry::File("1.tar".to_owned(), one.layers[1].clone(), 0o644),
        Entry::file(
            "manifest.json",
            &json!([{ "Config": "c.json", "RepoTags": ["x:1"], "Layers": ["0.tar", "1.tar"] }])
                .to_string(),
        ),
        Entry::File("index.json".to_owned(), index, 0o644),
    ];
    for blob in packed.blobs.iter().chain([&packed.manifest]) {
        entries.push(Entry::File(
            format!("blobs/sha256/{}", Digest::of(blob).hex()),
            blob.clone(),
            0o644,
        ));
    }
    check_archive(&entries, "manifest.json and index.json have different images for x:1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_defused() {
    let host = Host::new();
    let bomb = Compression::Gzip.apply(&vec![0; 256 << 20]);
    let (outcome, _) = host.load(bomb).await;
    let chain = outcome.map(drop).unwrap_err().chain();
    assert!(chain.contains("budget") || chain.contains("does not contain"), "{chain}");
    assert_eq!(host.content(), (0, 0));
}
