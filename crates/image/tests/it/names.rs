//! Names, holds, removal and what remains.

use image::{Filters, ListOptions, RemoveOptions};
use testkit::TestImage;

use crate::Host;

#[tokio::test(flavor = "multi_thread")]
async fn tags_come_and_go() {
    let host = Host::new();
    let test = TestImage::small("one");
    let (loaded, said) = host.load(test.docker_archive(&["x:1"])).await;
    assert_eq!(loaded.unwrap()[0].id, test.id());
    assert_eq!(said, ["Loaded image: x:1\n"]);
    host.images.tag("x:1", "other/name").unwrap();
    assert_eq!(host.images.resolve("other/name").unwrap().repo_tags, ["x:1", "other/name:latest"]);
    assert_eq!(
        host.images.tag("nosuch", "y").unwrap_err().to_string(),
        "No such image: nosuch:latest"
    );
    assert_eq!(
        host.images.tag("x:1", "Y").unwrap_err().to_string(),
        "invalid reference format: repository name (library/Y) must be lowercase"
    );
    let digest = test.id();
    assert_eq!(
        host.images.tag("x:1", &format!("y@{digest}")).unwrap_err().to_string(),
        "refusing to create a tag with a digest reference"
    );
    let host = host.restart();
    let removed = host.images.remove("x:1", RemoveOptions::default()).await.unwrap();
    assert_eq!(serde_json::to_string(&removed).unwrap(), r#"[{"Untagged":"x:1"}]"#);
    let image = host.images.resolve(digest.short()).unwrap();
    let removed = host.images.remove("other/name", RemoveOptions::default()).await.unwrap();
    let expected: Vec<String> =
        [r#"{"Untagged":"other/name:latest"}"#.to_owned(), format!(r#"{{"Deleted":"{digest}"}}"#)]
            .into_iter()
            .chain(image.chain.iter().rev().map(|chain| format!(r#"{{"Deleted":"{chain}"}}"#)))
            .collect();
    assert_eq!(serde_json::to_string(&removed).unwrap(), format!("[{}]", expected.join(",")));
    assert_eq!(host.content(), (0, 0));
    let id = digest.as_str();
    let told = host.events();
    assert_eq!(
        told[told.len() - 5..],
        [
            format!("load {id} {id}"),
            format!("tag {id} other/name:latest"),
            format!("untag {id} {id}"),
            format!("untag {id} {id}"),
            format!("delete {id} {id}")
        ]
    );
    host.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_outlive_their_image_for_a_container() {
    let host = Host::new();
    let test = TestImage::small("one");
    host.load(test.docker_archive(&["x:1"])).await.0.unwrap();
    let container = "c".repeat(64);
    host.images.hold(&test.id(), &container, "x:1").unwrap();
    let refused = host.images.remove("x:1", RemoveOptions::default()).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "conflict: unable to remove repository reference \"x:1\" (must force) - container cccccccccccc is using its \
             referenced image {}",
            test.id().short()
        )
    );
    let removed = host
        .images
        .remove("x:1", RemoveOptions { force: true, ..RemoveOptions::default() })
        .await
        .unwrap();
    assert_eq!(removed.len(), 2, "the layers are held: {removed:?}");
    assert!(host.images.get(&test.id()).is_none());
    // Also across a restart, and against the sweeper.
    let host = host.restart();
    host.images.collect().await.unwrap();
    assert_eq!(host.content().1, 2);
    assert_eq!(host.images.holders(), [(container.clone(), test.id())]);
    host.images.drop_hold(&test.id(), &container).unwrap();
    assert_eq!(host.content().1, 0);
    host.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_layers_stay_with_the_other_image() {
    let host = Host::new();
    let (one, two) = (TestImage::small("one"), TestImage::small("two"));
    host.load(one.docker_archive(&["x:1"])).await.0.unwrap();
    host.load(two.docker_archive(&["x:2"])).await.0.unwrap();
    assert_eq!(host.content().1, 3);
    let listed =
        host.images.list(&ListOptions { shared_size: true, ..ListOptions::default() }).unwrap();
    assert!(listed.iter().all(|summary| summary.shared_size == 5), "{listed:?}");
    host.images.hold(&two.id(), "container", "x:2").unwrap();
    let all = Filters { dangling: Some(false), ..Filters::default() };
    let report = host.images.prune(&all).await.unwrap();
    assert_eq!(report.space_reclaimed, 3);
    assert_eq!(host.content().1, 2);
    assert_eq!(host.read(&host.images.resolve("x:2").unwrap(), "etc/base"), "base\n");
    host.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_kill_left_is_swept() {
    let host = Host::new();
    let test = TestImage::small("one");
    host.load(test.docker_archive(&["x:1"])).await.0.unwrap();
    host.storage.content.put(b"half of a pull").unwrap();
    let stray = testkit::images::tar(&[testkit::images::Entry::file("a", "b")]);
    let chain = oci::ChainId::base(&oci::Digest::of(&stray));
    host.storage.snapshots.unpack(&chain, None, &mut stray.as_slice()).unwrap();
    let swept = host.images.collect().await.unwrap();
    assert_eq!((swept.blobs.len(), swept.layers, swept.layer_bytes), (1, vec![chain], 1));
    assert_eq!(host.read(&host.images.resolve("x:1").unwrap(), "etc/seed"), "one");
    host.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_and_history() {
    let host = Host::new();
    let test = TestImage::small("one");
    host.load(test.docker_archive(&["x:1"])).await.0.unwrap();
    let inspect = host.images.inspect("x:1").unwrap();
    assert_eq!((inspect.size, inspect.created.as_str()), (8, "2024-01-02T03:04:05.678Z"));
    assert_eq!(
        inspect.root_fs.layers,
        test.diff_ids().iter().map(ToString::to_string).collect::<Vec<_>>()
    );
    assert_eq!(inspect.config.unwrap().labels["seed"], "one");
    // It has a manifest, whose digest is not what it is known by.
    assert_eq!(inspect.descriptor, None);
    let history = host.images.history("x:1").unwrap();
    let rows: Vec<_> =
        history.iter().map(|row| (row.id.as_str(), row.size, row.tags.clone())).collect();
    let id = test.id();
    assert_eq!(rows, [(id.as_str(), 3, Some(vec!["x:1".to_owned()])), ("<missing>", 5, None)]);
    assert_eq!(host.images.count(), 1);
    let usage = host.images.usage().await.unwrap();
    assert_eq!((usage.total_size, usage.reclaimable, usage.active_count), (8, 8, 0));
}
