//! `gantry network doctor`: a table for people, JSON for programs, and a status that says whether something is broken.

use serde_json::Value;
use testkit::house::shown;
use testkit::{House, TestImage};

#[test]
fn a_table_and_a_status() {
    let house = House::new();
    house.load(&TestImage::busybox().docker_archive(&["busybox:latest"]));
    let run = ["run", "-d", "--stop-signal", "KILL", "--name", "web", "-p", "127.0.0.1::80"];
    house.ok(&[&run[..], &["busybox", "sleep", "600"]].concat());
    let doctor = |words: &[&str]| {
        let words = [&["network", "doctor"], words].concat();
        house.gantry(&words).output().expect("it can be executed")
    };
    let answer = doctor(&["--format", "json"]);
    let report: Value = serde_json::from_slice(&answer.stdout).expect("JSON");
    let findings = report["Findings"].as_array().expect("a list");
    // What this host suffers from is not ours to know; what it says of it is.
    let broken = findings.iter().any(|one| one["Level"] == "broken");
    assert_eq!(answer.status.code(), Some(i32::from(broken)), "{}", shown(&answer));
    let port = &report["Ports"][0];
    assert_eq!((port["Container"].as_str(), port["Reach"].as_str()), (Some("web"), Some("host")));
    assert!(!findings.iter().any(|one| one["Subject"] == "web 80/tcp"), "{findings:?}");
    let table = shown(&doctor(&["web"]));
    assert!(table.contains("NETWORK") && table.contains("this host only"), "{table}");
    let unknown = doctor(&["nobody"]);
    assert!(!unknown.status.success() && shown(&unknown).contains("network nobody not found"));
    house.ok(&["rm", "-f", "web"]);
}
