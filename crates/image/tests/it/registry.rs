//! Registries that refuse, want to know who we are, or try to find out more than that.

use image::{Credentials, Progress};
use oci::Reference;
use stdx::Result;
use testkit::registry::{Access, Fault};
use testkit::{Registry, TestImage};
use tokio::sync::mpsc;

use crate::Host;

async fn pull_as(host: &Host, name: &str, user: &str, password: &str) -> Result<()> {
    let reference = Reference::parse_normalized(name).unwrap();
    let (sender, mut messages) = mpsc::channel::<Progress>(16);
    let credentials = Credentials::basic(user, password);
    let pull = host.images.pull(&reference, None, Some(credentials), sender);
    let (outcome, ()) = tokio::join!(pull, async { while messages.recv().await.is_some() {} });
    outcome.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_in_dockers_words() {
    let (host, registry) = (Host::new(), Registry::start());
    TestImage::small("x").push(&registry, "x", "1");
    let at = registry.address();
    let check = async |name: &str, words: &str| {
        let (outcome, said) = host.pull(name).await;
        assert_eq!(outcome.unwrap_err().chain(), words, "{name}");
        assert_eq!(said, Vec::<String>::new(), "nothing is said before there is something to pull");
    };
    check(
        &format!("{at}/x:2"),
        &format!("manifest for {at}/x:2 not found: manifest unknown: manifest unknown"),
    )
    .await;
    check(
        &format!("{at}/y"),
        &format!(
            "repository {at}/y not found: name unknown: repository name not known to registry"
        ),
    )
    .await;
    let denied =
        r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    registry.fail("/manifests/", 1, Fault::Status(403, denied.to_owned()));
    check(
        &format!("{at}/z"),
        &format!(
            "pull access denied for {at}/z, repository does not exist or may require 'docker login': denied: requested \
             access to the resource is denied"
        ),
    )
    .await;
    registry.fail("/manifests/", 1, Fault::Status(500, "oops".to_owned()));
    check(&format!("{at}/x:1"), "received unexpected HTTP status: 500 Internal Server Error").await;
    registry.fail(
        "/manifests/",
        1,
        Fault::Status(
            429,
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"later"}]}"#.to_owned(),
        ),
    );
    check(&format!("{at}/x:1"), "toomanyrequests: later").await;
    registry.fail("/manifests/", 1, Fault::Status(404, "x".repeat(1 << 20)));
    let (outcome, _) = host.pull(&format!("{at}/x:1")).await;
    assert!(outcome.unwrap_err().chain().len() < 1000);
    drop(registry);
    check(
        &format!("{at}/x:1"),
        &format!("Get \"http://{at}/v2/\": dial tcp {at}: connect: connection refused"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_registry_is_given_up() {
    let (host, registry) = (Host::new(), Registry::start());
    registry.fail("/v2/", 1, Fault::Hang);
    let (outcome, _) = host.pull(&registry.reference("x:1")).await;
    let words = format!(
        "Get \"http://{}/v2/\": net/http: timeout awaiting response headers",
        registry.address()
    );
    assert_eq!(outcome.unwrap_err().chain(), words);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_open_the_door() {
    let user = || Some(("me".to_owned(), "secret".to_owned()));
    for access in [
        Access::Basic { user: "me".to_owned(), password: "secret".to_owned() },
        Access::Bearer { realm: None, user: user() },
    ] {
        let (host, registry) = (Host::new(), Registry::with_access(access));
        TestImage::small("x").push(&registry, "x", "1");
        let name = registry.reference("x:1");
        pull_as(&host, &name, "me", "secret").await.unwrap();
        let wrong = pull_as(&host, &name, "me", "wrong").await.unwrap_err();
        assert_eq!(wrong.kind(), stdx::Kind::Unauthorized, "{wrong:?}");
        assert!(host.pull(&name).await.0.is_err());
    }
    let (host, registry) =
        (Host::new(), Registry::with_access(Access::Bearer { realm: None, user: None }));
    TestImage::small("x").push(&registry, "x", "1");
    host.pull(&registry.reference("x:1")).await.0.unwrap();
    let asked = registry.seen().into_iter().find(|seen| seen.path.starts_with("/token")).unwrap();
    assert_eq!(asked.path, "/token?scope=repository%3Ax%3Apull&service=test");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_do_not_leave_the_registry() {
    let canary = Registry::start();
    // A token server elsewhere gets no credentials.
    let realm = Some(format!("http://{}/token", canary.address()));
    let (host, registry) =
        (Host::new(), Registry::with_access(Access::Bearer { realm, user: None }));
    TestImage::small("x").push(&registry, "x", "1");
    assert!(pull_as(&host, &registry.reference("x:1"), "me", "secret").await.is_err());
    assert!(!canary.seen().is_empty(), "the token server is asked, without credentials");
    assert!(
        canary
            .seen()
            .iter()
            .all(|seen| !seen.headers.contains_key("authorization") && !seen.path.contains("me"))
    );

    // Neither does whoever a redirect leads to.
    canary.forget_seen();
    let access = Access::Basic { user: "me".to_owned(), password: "secret".to_owned() };
    let (host, registry) = (Host::new(), Registry::with_access(access));
    let test = TestImage::small("x");
    test.push(&registry, "x", "1");
    test.push(&canary, "x", "1");
    for layer in &test.layers {
        let blob = oci::Digest::of(&testkit::images::Compression::Gzip.apply(layer));
        let path = format!("/v2/x/blobs/{blob}");
        registry.fail(&path, 1, Fault::Redirect(format!("http://{}{path}", canary.address())));
    }
    pull_as(&host, &registry.reference("x:1"), "me", "secret").await.unwrap();
    assert_eq!(canary.seen().len(), 2);
    assert!(canary.seen().iter().all(|seen| !seen.headers.contains_key("authorization")));
    // In circles nobody gets anywhere.
    let name = registry.reference("y:1");
    registry.fail("/v2/y/", 100, Fault::Redirect("/v2/y/manifests/1".to_owned()));
    assert!(
        pull_as(&host, &name, "me", "secret")
            .await
            .unwrap_err()
            .chain()
            .ends_with("stopped after 5 redirects")
    );
}
