//! Clouds' services, by script: who we say we are, what is sent again, and how much goes at once.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use testkit::house::{shown, succeed};
use testkit::{House, Netns};

use super::servers::{Asked, http, next};

fn run(house: &House, name: &str, driver: &str, options: &[&str], command: &str) {
    let mut args = vec!["run", "-d", "--name", name, "--network", "none", "--log-driver", driver];
    for option in options {
        args.extend(["--log-opt", option]);
    }
    args.extend(["busybox", "sh", "-c", command]);
    house.ok(&args);
}

fn events(asked: &Asked) -> Vec<String> {
    let value: Value = serde_json::from_str(&asked.text()).expect("JSON");
    let events = value["logEvents"].as_array().into_iter().flatten();
    events.map(|event| event["message"].as_str().expect("a line").to_owned()).collect()
}

#[test]
fn awslogs() {
    let netns = Netns::new();
    // A machine with a role, a group that is not there, and a server that is busy, wants to see a token, and is content.
    let puts = AtomicU32::new(0);
    let (asked, address) = http(&netns, None, move |asked| {
        let refuse = |kind: &str, message: &str| {
            (400, json!({ "__type": kind, "message": message }).to_string())
        };
        match (asked.method.as_str(), asked.path.as_str(), asked.header("x-amz-target")) {
            ("PUT", "/latest/api/token", _) => (200, "ticket".to_owned()),
            ("GET", "/latest/meta-data/iam/security-credentials/", _) => (200, "role".to_owned()),
            ("GET", "/latest/meta-data/iam/security-credentials/role", _) => (
                200,
                json!({ "AccessKeyId": "AKIDROLE", "SecretAccessKey": "s", "Token": "session",
                        "Expiration": "2999-01-01T00:00:00Z" })
                .to_string(),
            ),
            ("GET", "/latest/dynamic/instance-identity/document", _) => {
                (200, json!({ "region": "eu-x-1" }).to_string())
            }
            (_, _, "Logs_20140328.CreateLogStream") if puts.load(Ordering::Relaxed) == 0 => {
                puts.store(1, Ordering::Relaxed);
                refuse("ResourceNotFoundException", "The specified log group does not exist.")
            }
            (_, _, "Logs_20140328.CreateLogStream") => {
                refuse("ResourceAlreadyExistsException", "The specified log stream already exists")
            }
            (_, _, "Logs_20140328.PutLogEvents") => match puts.fetch_add(1, Ordering::Relaxed) {
                1 => (500, String::new()),
                2 => refuse(
                    "InvalidSequenceTokenException",
                    "The given sequenceToken is invalid. The next expected sequenceToken is: 99",
                ),
                _ => (200, json!({ "nextSequenceToken": "100" }).to_string()),
            },
            _ => (200, String::new()),
        }
    });
    let machine = format!("http://{address}/");
    let house = super::beside::house(
        &netns,
        &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &machine), ("HOME", "/nonexistent")],
    );
    let place = format!("awslogs-endpoint=http://{address}");
    let common = [place.as_str(), "awslogs-group=g", "awslogs-stream=s"];
    let creating = [&common[..], &["awslogs-create-group=true"]].concat();
    run(&house, "aws", "awslogs", &creating, "seq 1 12000");
    let mut sent = Vec::new();
    let mut seen = Vec::new();
    while sent.len() < 12000 {
        let asked = next(&asked);
        match asked.header("x-amz-target").strip_prefix("Logs_20140328.") {
            Some("PutLogEvents") => {
                assert_eq!(asked.header("x-amz-security-token"), "session");
                let signed = asked.header("authorization").to_owned();
                assert!(
                    signed.contains("Credential=AKIDROLE/") && signed.contains("/eu-x-1/logs/")
                );
                assert!(signed.contains("x-amz-security-token"), "{signed}");
                let value: Value = serde_json::from_str(&asked.text()).expect("JSON");
                let lines = events(&asked);
                assert!(lines.len() <= 10000);
                seen.push((lines.len(), value["sequenceToken"].as_str().map(str::to_owned)));
                // The first two were refused.
                if seen.len() > 2 {
                    sent.extend(lines);
                }
            }
            Some(_) => {}
            None => {
                let ticket = asked.header("x-aws-ec2-metadata-token");
                assert!(asked.method == "PUT" || ticket == "ticket", "{asked:?}");
            }
        }
    }
    let expected: Vec<String> = (1..=12000).map(|number: u32| number.to_string()).collect();
    assert_eq!(sent, expected);
    assert_eq!(seen[0], (10000, None));
    assert_eq!(seen[2], (10000, Some("99".to_owned())));
    assert_eq!(seen[3], (2000, Some("100".to_owned())));
}

#[test]
fn awslogs_without_credentials() {
    let netns = Netns::new();
    let (_asked, address) = http(&netns, None, |_| (404, String::new()));
    let machine = format!("http://{address}");
    let house = super::beside::house(
        &netns,
        &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &machine), ("HOME", "/nonexistent")],
    );
    let create = |options: &[&str]| {
        let mut args = vec!["run", "--rm", "--network", "none", "--log-driver", "awslogs"];
        for option in options {
            args.extend(["--log-opt", option]);
        }
        args.extend(["busybox", "true"]);
        shown(&house.docker(&args).output().expect("docker"))
    };
    let refused = create(&["awslogs-group=g"]);
    assert!(refused.contains("Cannot determine region for awslogs driver"), "{refused}");
    let refused =
        create(&["awslogs-group=g", "awslogs-region=r", "awslogs-endpoint=http://127.0.0.1:1"]);
    assert!(refused.contains("NoCredentialProviders: no valid providers in chain"), "{refused}");
}

#[test]
fn gcplogs() {
    let netns = Netns::new();
    let (asked, address) = http(&netns, None, |asked| match asked.path.as_str() {
        "/token" => (200, json!({ "access_token": "granted", "expires_in": 3600 }).to_string()),
        "/v2/entries:write" => (200, "{}".to_owned()),
        "/computeMetadata/v1/project/project-id" => (200, "machines".to_owned()),
        "/computeMetadata/v1/instance/zone" => (200, "projects/1/zones/z-1".to_owned()),
        "/computeMetadata/v1/instance/name" => (200, "m".to_owned()),
        "/computeMetadata/v1/instance/id" => (200, "7".to_owned()),
        "/computeMetadata/v1/instance/service-accounts/default/token" => {
            (200, json!({ "access_token": "machine's", "expires_in": 3600 }).to_string())
        }
        _ => (404, String::new()),
    });
    let dir = tempfile::tempdir().expect("a place");
    let mut openssl = Command::new("openssl");
    openssl.current_dir(dir.path()).args(["genpkey", "-algorithm", "RSA", "-out", "key"]);
    succeed(openssl);
    let key = std::fs::read_to_string(dir.path().join("key")).expect("a key");
    let file = dir.path().join("credentials.json");
    let account = json!({
        "type": "service_account", "client_email": "somebody@example", "private_key": key,
        "private_key_id": "k", "token_uri": format!("http://{address}/token"),
    });
    std::fs::write(&file, account.to_string()).expect("a file");
    let file = file.display().to_string();
    let place = format!("gcp-endpoint=http://{address}");

    let house = super::beside::house(&netns, &[("GOOGLE_APPLICATION_CREDENTIALS", &file)]);
    let options = [place.as_str(), "gcp-project=p", "gcp-log-cmd=true", "gcp-meta-name=here"];
    run(&house, "service", "gcplogs", &options, "echo one; echo two");
    let granted = next(&asked);
    assert_eq!(granted.path, "/token");
    let assertion = granted.text().split("assertion=").nth(1).expect("a statement").to_owned();
    let claims = assertion.split('.').nth(1).expect("claims");
    let claims: Value =
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).expect("base64"))
            .expect("JSON");
    assert_eq!(claims["iss"], "somebody@example");
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/logging.write");
    let ping: Value = serde_json::from_str(&next(&asked).text()).expect("JSON");
    assert_eq!(ping["entries"][0]["logName"], "projects/p/logs/ping");
    let written = next(&asked);
    assert_eq!(written.header("authorization"), "Bearer granted");
    let body: Value = serde_json::from_str(&written.text()).expect("JSON");
    assert_eq!(body["logName"], "projects/p/logs/gcplogs-docker-driver");
    assert_eq!(body["resource"]["type"], "gce_instance");
    let payload = &body["entries"][0]["jsonPayload"];
    assert_eq!(payload["message"], "one");
    assert_eq!(payload["instance"], json!({ "name": "here" }));
    assert_eq!(payload["container"]["name"], "/service");
    assert_eq!(payload["container"]["command"], "sh -c echo one; echo two");
    assert_eq!(body["entries"][1]["jsonPayload"]["message"], "two");
    drop(house);

    // One of Google's machines says who it is itself.
    let host = address.to_string();
    let house =
        super::beside::house(&netns, &[("GCE_METADATA_HOST", &host), ("HOME", "/nonexistent")]);
    run(&house, "machine", "gcplogs", &[&place], "echo three");
    let written = loop {
        let asked = next(&asked);
        assert!(asked.path.starts_with("/v2/") || asked.header("metadata-flavor") == "Google");
        if asked.text().contains("three") {
            break asked;
        }
    };
    assert_eq!(written.header("authorization"), "Bearer machine's");
    let body: Value = serde_json::from_str(&written.text()).expect("JSON");
    assert_eq!(body["logName"], "projects/machines/logs/gcplogs-docker-driver");
    let labels = json!({ "instance_id": "7", "zone": "z-1" });
    assert_eq!(body["resource"], json!({ "type": "gce_instance", "labels": labels }));
}
