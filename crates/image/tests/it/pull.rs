//! Pulls that go well, and what goes wrong on the way without harm.

use std::time::Duration;

use oci::image::media_type;
use oci::{Digest, Platform};
use testkit::images::{Compression, Style, index_of, push_index};
use testkit::registry::Fault;
use testkit::{Registry, TestImage};

use crate::Host;

#[tokio::test(flavor = "multi_thread")]
async fn by_tag_as_docker_tells_it() {
    let (host, registry) = (Host::new(), Registry::start());
    let test = TestImage::small("one");
    let digest = test.push(&registry, "library/x", "1");
    let name = registry.reference("library/x:1");
    let (image, said) = host.pull(&name).await;
    let image = image.unwrap();
    assert_eq!(image.id, test.id());
    assert_eq!(image.repo_tags, std::slice::from_ref(&name));
    assert_eq!(image.repo_digests, [registry.reference(&format!("library/x@{digest}"))]);
    assert_eq!(host.read(&image, "etc/seed"), "one");
    assert_eq!(host.read(&image, "etc/base"), "base\n");
    let blobs: Vec<Digest> =
        test.layers.iter().map(|layer| Digest::of(&Compression::Gzip.apply(layer))).collect();
    assert_eq!(said[0], "1: Pulling from library/x");
    for blob in &blobs {
        let prefix = format!("{}: ", blob.short());
        let steps: Vec<&str> = said.iter().filter_map(|line| line.strip_prefix(&prefix)).collect();
        let expected =
            ["Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"];
        assert_eq!(steps, expected, "{said:?}");
    }
    let last = [format!("Digest: {digest}"), format!("Status: Downloaded newer image for {name}")];
    assert_eq!(said[said.len() - 2..], last);

    // Once more: nothing is fetched but the manifest.
    registry.forget_seen();
    let (again, said) = host.pull(&name).await;
    assert_eq!(again.unwrap().id, test.id());
    assert_eq!(registry.asked_for("/blobs/"), 0);
    let expected = [
        "1: Pulling from library/x".to_owned(),
        format!("Digest: {digest}"),
        format!("Status: Image is up to date for {name}"),
    ];
    assert_eq!(said, expected);
    assert_eq!(host.events(), vec![format!("pull {name} {}", registry.reference("library/x")); 2]);
    host.check();

    // The tag moves on: the old image stays, without a name.
    let two = TestImage::small("two");
    two.push(&registry, "library/x", "1");
    let (image, said) = host.pull(&name).await;
    assert_eq!(image.unwrap().id, two.id());
    assert!(said.contains(&format!("{}: Already exists", blobs[0].short())), "{said:?}");
    assert_eq!(host.images.get(&test.id()).unwrap().repo_tags, Vec::<String>::new());
    host.check();
    let host = host.restart();
    assert_eq!(host.images.resolve(&name).unwrap().id, two.id());
    host.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tag() {
    let (host, registry) = (Host::new(), Registry::start());
    let one = TestImage::small("one");
    let first = one.push(&registry, "x", "1");
    let second = TestImage::small("two").push(&registry, "x", "2");
    one.push(&registry, "x", "once-more");
    let name = registry.reference("x");
    let (outcome, said) = host.pull_all(&name).await;
    outcome.unwrap();
    let told: Vec<&String> = said
        .iter()
        .filter(|line| line.contains("Pulling from") || line.starts_with("Digest"))
        .collect();
    let expected = [
        "1: Pulling from x".to_owned(),
        format!("Digest: {first}"),
        "2: Pulling from x".to_owned(),
        format!("Digest: {second}"),
        "once-more: Pulling from x".to_owned(),
        format!("Digest: {first}"),
    ];
    assert_eq!(told, expected.iter().collect::<Vec<_>>());
    assert_eq!(said.last().unwrap(), &format!("Status: Downloaded newer image for {name}"));
    assert_eq!(host.events(), [format!("pull {name} {name}")]);
    // What a registry has on several pages.
    registry.forget_seen();
    registry.fail(
        "/tags/list",
        1,
        Fault::Header("link", "</v2/x/tags/list?last=1>; rel=\"next\"".to_owned()),
    );
    let (outcome, said) = host.pull_all(&name).await;
    outcome.unwrap();
    assert_eq!(registry.asked_for("/v2/x/tags/list?last=1"), 1);
    assert_eq!(said.last().unwrap(), &format!("Status: Image is up to date for {name}"));
    let missing = host.pull_all(&registry.reference("nope")).await.0.unwrap_err();
    assert_eq!(
        missing.to_string(),
        format!(
            "repository {} not found: name unknown: repository name not known to registry",
            registry.reference("nope")
        )
    );
    host.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn by_digest() {
    let (host, registry) = (Host::new(), Registry::start());
    let test = TestImage::small("one");
    let digest = test.push(&registry, "x", "1");
    let name = registry.reference(&format!("x@{digest}"));
    let (image, said) = host.pull(&name).await;
    let image = image.unwrap();
    assert_eq!(
        (image.repo_tags.len(), image.repo_digests.as_slice()),
        (0, std::slice::from_ref(&name))
    );
    assert_eq!(said[0], format!("{name}: Pulling from x"));
    assert_eq!(said[said.len() - 1], format!("Status: Downloaded newer image for {name}"));
    let (_, said) = host.pull(&name).await;
    assert_eq!(said[said.len() - 1], format!("Status: Image is up to date for {name}"));
    host.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_platform() {
    let (host, registry) = (Host::new(), Registry::start());
    let arm: Platform = "linux/arm64".parse().unwrap();
    let foreign: Platform = "linux/s390x".parse().unwrap();
    let of = |platform: &Platform| {
        let layer = testkit::images::tar(&[testkit::images::Entry::file(
            "etc/arch",
            &platform.architecture,
        )]);
        TestImage::for_platform(vec![layer], &serde_json::json!({}), platform)
    };
    let here = of(&Platform::host());
    let images = [
        (foreign.clone(), of(&foreign).pack(Style::Oci, Compression::Gzip)),
        (Platform::host(), here.pack(Style::Oci, Compression::Zstd)),
        (arm.clone(), of(&arm).pack(Style::Docker, Compression::None)),
    ];
    let digest = push_index(&registry, "x", "multi", &images);
    let name = registry.reference("x:multi");
    let (image, said) = host.pull(&name).await;
    let image = image.unwrap();
    assert_eq!(image.id, here.id());
    assert_eq!(host.read(&image, "etc/arch"), Platform::host().architecture);
    assert!(said.contains(&format!("Digest: {digest}")));
    let (image, _) = host.pull_for(&name, Some("linux/s390x")).await;
    assert_eq!(image.unwrap().platform(), foreign);
    let (missing, said) = host.pull_for(&name, Some("linux/ppc64le")).await;
    assert_eq!(
        missing.unwrap_err().chain(),
        "no matching manifest for linux/ppc64le in the manifest list entries"
    );
    assert_eq!(said, ["multi: Pulling from x"]);
    host.check();

    // An image that is what it is gets a warning.
    of(&foreign).pack(Style::Oci, Compression::None).push(&registry, "x", Some("single"));
    let (image, said) = host.pull_for(&registry.reference("x:single"), Some("linux/riscv64")).await;
    image.unwrap();
    let words = "was found but does not match the specified platform: wanted linux/riscv64, actual: linux/s390x";
    assert!(
        said.iter()
            .any(|line| line.starts_with("WARNING: image with reference") && line.ends_with(words)),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn in_every_packing_and_by_both_drivers() {
    for driver in ["overlay2", "vfs"] {
        let (host, registry) = (Host::with_driver(Some(driver)), Registry::start());
        for (at, (style, compression)) in [
            (Style::Docker, Compression::Gzip),
            (Style::Oci, Compression::Zstd),
            (Style::Oci, Compression::None),
        ]
        .into_iter()
        .enumerate()
        {
            let test = TestImage::small(&at.to_string());
            test.pack(style, compression).push(&registry, "x", Some(&at.to_string()));
            let (image, _) = host.pull(&registry.reference(&format!("x:{at}"))).await;
            let image = image.unwrap();
            assert_eq!(
                (&image.id, host.read(&image, "etc/seed")),
                (&test.id(), at.to_string()),
                "{driver} {compression:?}"
            );
        }
        host.check();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn side_by_side_everything_comes_once() {
    let (host, registry) = (Host::new(), Registry::start());
    let test = TestImage::small("one");
    test.push(&registry, "x", "1");
    let name = registry.reference("x:1");
    registry.fail("/blobs/", 9, Fault::Slow { piece: 64, pause: Duration::from_millis(2) });
    let pulls = (0..8).map(|_| host.pull(&name));
    for (image, _) in futures_util::future::join_all(pulls).await {
        assert_eq!(image.unwrap().id, test.id());
    }
    for layer in &test.layers {
        let blob = Digest::of(&Compression::Gzip.apply(layer));
        assert_eq!(registry.asked_for(blob.hex()), 1);
    }
    host.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_cut_goes_on_where_it_was() {
    for no_ranges in [false, true] {
        let (host, registry) = (Host::new(), Registry::start());
        let noise: String = (0..60_000)
            .map(|at: u32| char::from(b'a' + (at.wrapping_mul(2_654_435_761) >> 24) as u8 % 26))
            .collect();
        let layer = testkit::images::tar(&[testkit::images::Entry::file("etc/noise", &noise)]);
        let test = TestImage::new(vec![layer], &serde_json::json!({}));
        test.pack(Style::Oci, Compression::None).push(&registry, "x", Some("1"));
        let blob = test.diff_ids()[0].clone();
        registry.fail(blob.hex(), 1, Fault::Truncate(20_000));
        registry.fail(blob.hex(), 1, Fault::Status(503, String::new()));
        if no_ranges {
            registry.fail(blob.hex(), 1, Fault::NoRanges);
        }
        let (image, said) = host.pull(&registry.reference("x:1")).await;
        assert_eq!(host.read(&image.unwrap(), "etc/noise"), noise);
        assert!(said.iter().any(|line| line.ends_with("Retrying in 1 second")), "{said:?}");
        let ranges: Vec<_> =
            registry.seen().iter().filter_map(|seen| seen.headers.get("range").cloned()).collect();
        assert_eq!(ranges.len(), 2, "{ranges:?}");
        host.check();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_given_up_is_taken_up_again() {
    let (host, registry) = (Host::new(), Registry::start());
    let test = TestImage::busybox();
    test.pack(Style::Oci, Compression::None).push(&registry, "busybox", Some("latest"));
    let name = registry.reference("busybox");
    let blob = test.diff_ids()[0].clone();
    registry.fail(blob.hex(), 1, Fault::Slow { piece: 100_000, pause: Duration::from_millis(20) });
    {
        let reference = oci::Reference::parse_normalized(&name).unwrap();
        let (sender, mut messages) = tokio::sync::mpsc::channel(64);
        let pull = host.images.pull(&reference, None, None, sender);
        let enough = async {
            while let Some(message) = messages.recv().await {
                if message.detail.is_some_and(|detail| detail.current > 300_000) {
                    return;
                }
            }
        };
        tokio::select! {
            outcome = pull => panic!("the pull was faster than we: {outcome:?}"),
            () = enough => {}
        }
    }
    let (image, _) = host.pull(&name).await;
    assert!(host.read(&image.unwrap(), "etc/passwd").starts_with("root:"));
    let resumed = registry.seen().iter().any(|seen| seen.headers.contains_key("range"));
    assert!(resumed, "the second pull began from nothing");
    host.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_are_alike() {
    let (host, registry) = (Host::new(), Registry::start());
    let layer = TestImage::small("x").layers[0].clone();
    let test = TestImage::new(vec![layer.clone(), layer.clone(), layer], &serde_json::json!({}));
    test.push(&registry, "x", "1");
    let (image, _) = host.pull(&registry.reference("x:1")).await;
    assert_eq!(image.unwrap().chain.len(), 3);
    host.check();
    let none = TestImage::new(Vec::new(), &serde_json::json!({ "Cmd": ["/x"] }));
    none.push(&registry, "none", "1");
    let (image, _) = host.pull(&registry.reference("none:1")).await;
    assert_eq!(image.unwrap().id, none.id());
    host.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_in_an_index_but_no_deeper() {
    let (host, registry) = (Host::new(), Registry::start());
    let test = TestImage::small("deep");
    let packed = test.pack(Style::Oci, Compression::Gzip);
    packed.push(&registry, "x", None);
    let mut inner = (packed.media_type, packed.manifest.clone());
    for depth in 1..=4 {
        let descriptor = oci::image::Descriptor::of(inner.0, &inner.1);
        inner = (media_type::OCI_INDEX, index_of(media_type::OCI_INDEX, vec![descriptor]));
        let tag = depth.to_string();
        registry.put_manifest("x", Some(&tag), inner.0, inner.1.clone());
        let (outcome, _) = host.pull(&registry.reference(&format!("x:{tag}"))).await;
        match depth {
            1 | 2 => assert_eq!(outcome.unwrap().id, test.id()),
            _ => assert_eq!(
                outcome.unwrap_err().to_string(),
                "manifest list contains manifest lists nested too deeply"
            ),
        }
    }
}
