//! Images into archives and out of them.

use std::io::Cursor;

use image::{ImportRequest, NewImage};
use oci::image::{History, ImageConfig};
use testkit::images::{Compression, Entry, Style, tar};
use testkit::{Registry, TestImage};
use tokio::sync::mpsc;

use crate::Host;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_loads_as_the_same() {
    let host = Host::new();
    let (one, two) = (TestImage::small("one"), TestImage::small("two"));
    host.load(one.docker_archive(&["x:1", "y:1"])).await.0.unwrap();
    let (loaded, said) = host.load(two.oci_archive(Some("owner/x:2"), Compression::Gzip)).await;
    assert_eq!(
        (loaded.unwrap()[0].id.clone(), said),
        (two.id(), vec!["Loaded image: owner/x:2\n".to_owned()])
    );
    let archive = host.save(&["x:1", "owner/x"]).await;
    assert_eq!(
        archive,
        host.save(&["x:1", "owner/x"]).await,
        "the same images make the same archive"
    );
    host.check();
    let other = Host::new();
    let (loaded, said) = other.load(archive.clone()).await;
    assert_eq!(loaded.unwrap().len(), 2);
    assert_eq!(said, ["Loaded image: x:1\n", "Loaded image: owner/x:2\n"]);
    assert_eq!(other.images.resolve("x:1").unwrap().id, one.id());
    assert_eq!(other.images.resolve("owner/x:2").unwrap().id, two.id());
    assert_eq!(other.read(&other.images.resolve("owner/x:2").unwrap(), "etc/seed"), "two");
    assert_eq!(other.save(&["x:1", "owner/x"]).await, archive, "and so does the other host");
    other.check();
    // Without a name, by its ID.
    let nameless = host.save(&[one.id().short()]).await;
    let (_, said) = Host::new().load(nameless).await;
    assert_eq!(said, [format!("Loaded image ID: {}\n", one.id())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_image_is_saved_byte_for_byte() {
    let (host, registry) = (Host::new(), Registry::start());
    let test = TestImage::small("one");
    let packed = test.pack(Style::Docker, Compression::Gzip);
    packed.push(&registry, "x", Some("1"));
    let name = registry.reference("x:1");
    host.pull(&name).await.0.unwrap();
    let archive = host.save(&[&name]).await;
    for blob in packed.blobs.iter().chain([&packed.manifest]) {
        let found = archive.windows(blob.len().max(1)).any(|window| window == blob.as_slice());
        assert!(found, "a blob is not in the archive as it was pulled");
    }
    let other = Host::new();
    other.load(archive.clone()).await.0.unwrap();
    assert_eq!(other.images.resolve(&name).unwrap().id, test.id());
    assert_eq!(
        other.images.resolve(&name).unwrap().manifest.as_ref().unwrap().digest,
        packed.digest()
    );
    assert_eq!(other.save(&[&name]).await, archive);
    other.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_moves_to_what_is_loaded() {
    let host = Host::new();
    let (one, two) = (TestImage::small("one"), TestImage::small("two"));
    host.load(one.docker_archive(&["x:1"])).await.0.unwrap();
    let (_, said) = host.load(two.docker_archive(&["x:1"])).await;
    let moved = format!(
        "The image x:1 already exists, renaming the old one with ID {} to empty string\n",
        one.id()
    );
    assert_eq!(said, [moved, "Loaded image: x:1\n".to_owned()]);
    assert_eq!(host.images.resolve("x:1").unwrap().id, two.id());
    assert!(host.images.get(&one.id()).is_some());
    host.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_long_ago() {
    let host = Host::new();
    let test = TestImage::small("old");
    let (base, top) = ("a".repeat(64), "b".repeat(64));
    let json = |id: &str, parent: &str| {
        serde_json::json!({ "id": id, "parent": parent, "created": "2014-01-01T00:00:00Z", "architecture": "amd64",
            "os": "linux", "config": { "Cmd": ["/x"] }, "container_config": { "Cmd": ["/bin/sh", "-c", "step"] } })
        .to_string()
    };
    let archive = tar(&[
        Entry::file(&format!("{base}/VERSION"), "1.0"),
        Entry::file(&format!("{base}/json"), &json(&base, "")),
        Entry::File(format!("{base}/layer.tar"), test.layers[0].clone(), 0o644),
        Entry::file(&format!("{top}/json"), &json(&top, &base)),
        Entry::File(format!("{top}/layer.tar"), Compression::Gzip.apply(&test.layers[1]), 0o644),
        Entry::file("repositories", &serde_json::json!({ "x": { "old": top } }).to_string()),
    ]);
    let (loaded, said) = host.load(Compression::Gzip.apply(&archive)).await;
    loaded.unwrap();
    assert_eq!(said, ["Loaded image: x:old\n"]);
    let image = host.images.resolve("x:old").unwrap();
    assert_eq!(host.read(&image, "etc/seed"), "old");
    assert_eq!(
        (image.config.rootfs.diff_ids.clone(), image.run_config().cmd.clone()),
        (test.diff_ids(), vec!["/x".to_owned()])
    );
    assert_eq!(host.images.history("x:old").unwrap()[0].created_by, "/bin/sh -c step");
    host.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_world_comes_along() {
    let host = Host::new();
    host.images.load_embedded().await.unwrap();
    let image = host.images.resolve("hello-world").unwrap();
    assert_eq!(image.run_config().cmd, ["/hello"]);
    assert_eq!(image.repo_tags, ["hello-world:latest"]);
    host.images.load_embedded().await.unwrap();
    assert_eq!(host.images.count(), 1);
    host.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_becomes_an_image() {
    let host = Host::new();
    let layer = tar(&[Entry::file("etc/motd", "hello")]);
    let request = ImportRequest {
        repository: "imported".to_owned(),
        message: "by hand".to_owned(),
        changes: vec!["CMD [\"/bin/sh\"]".to_owned(), "ENV A=1".to_owned()],
        ..ImportRequest::default()
    };
    let (sender, mut messages) = mpsc::channel(4);
    let image = host
        .images
        .import(Cursor::new(Compression::Gzip.apply(&layer)), request.clone(), sender)
        .await
        .unwrap();
    assert_eq!(messages.recv().await.unwrap().status, Some(image.id.to_string()));
    assert_eq!(host.read(&image, "etc/motd"), "hello");
    assert_eq!(image.repo_tags, ["imported:latest"]);
    assert_eq!(image.config.rootfs.diff_ids, [oci::Digest::of(&layer)]);
    assert_eq!(
        (image.run_config().cmd.len(), image.run_config().env.as_slice()),
        (1, &["A=1".to_owned()][..])
    );
    let history = host.images.history("imported").unwrap();
    assert_eq!((history.len(), history[0].comment.as_str()), (1, "by hand"));
    let bad = ImportRequest { changes: vec!["RUN x".to_owned()], ..request };
    let (sender, _messages) = mpsc::channel(4);
    let refused = host.images.import(Cursor::new(layer), bad, sender).await.unwrap_err();
    assert_eq!(refused.to_string(), "run is not a valid change command");
    host.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_on_top_becomes_an_image() {
    let host = Host::new();
    let base = TestImage::small("base");
    host.load(base.docker_archive(&["base:1"])).await.0.unwrap();
    let layer = tar(&[Entry::file("etc/new", "new")]);
    let new = NewImage {
        by: image::By::Commit,
        parent: Some(base.id()),
        config: ImageConfig { author: "me".to_owned(), ..ImageConfig::default() },
        step: History { created_by: "sh".to_owned(), ..History::default() },
        reference: Some("top".parse().unwrap()),
    };
    let image = host
        .images
        .create_from_layer(new.clone(), move |out| Ok(out.write_all(&layer)?))
        .await
        .unwrap();
    assert_eq!(
        (host.read(&image, "etc/new"), host.read(&image, "etc/seed")),
        ("new".to_owned(), "base".to_owned())
    );
    assert_eq!(
        (image.parent.clone(), image.chain.len(), image.config.history.len()),
        (Some(base.id()), 3, 3)
    );
    let refused = host.images.remove(base.id().short(), Default::default()).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "conflict: unable to delete {} (cannot be forced) - image has dependent child images",
            base.id().short()
        )
    );
    let failed = host.images.create_from_layer(new, |_| Err(stdx::Error::internal("no"))).await;
    assert_eq!(failed.unwrap_err().to_string(), "no");
    // The parent has a name of its own and stays.
    host.images.remove("top", Default::default()).await.unwrap();
    assert!(host.images.get(&base.id()).is_some());
    host.check();
}
