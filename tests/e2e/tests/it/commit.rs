//! `docker commit`: what a container changed becomes an image, by both clients and as Debian's daemon has it.

use std::process::Command;

use serde_json::{Value, json};
use testkit::House;
use testkit::house::{shown, succeed};

use crate::containers::{house, now};
use crate::foreign::{Dockerd, theirs};

const CHANGES: [&str; 9] = [
    "ENV B=2 A=3",
    "CMD [\"cat\", \"/made\"]",
    "EXPOSE 80",
    "LABEL x=y",
    "USER 8",
    "VOLUME /v",
    "WORKDIR rel",
    "ONBUILD RUN x",
    "HEALTHCHECK --interval=3s CMD true",
];

/// Commits with everything, and tells what the images then are.
fn session(client: &dyn Fn(&[&str]) -> Command) -> String {
    let ok = |args: &[&str]| succeed(client(args));
    let make = "echo made > /made; rm /etc/group; chmod 700 /tmp";
    ok(&[
        "run",
        "--name",
        "ca",
        "--network",
        "none",
        "-e",
        "A=1",
        "-w",
        "/tmp",
        "--label",
        "l=1",
        "-v",
        "/data",
        "busybox",
        "sh",
        "-c",
        make,
    ]);
    let mut all = vec!["commit", "-a", "me", "-m", "a message"];
    CHANGES.iter().for_each(|change| all.extend(["-c", change]));
    let id = ok(&[&all[..], &["ca", "made:one"]].concat());
    assert!(id.starts_with("sha256:") && id.trim().len() == 71, "{id}");
    ok(&["commit", "ca", "made:two"]);
    ok(&["commit", "-c", "ENTRYPOINT [\"cat\"]", "ca", "made:three"]);

    let mut text = String::new();
    for name in ["made:one", "made:two", "made:three"] {
        let image: Value = serde_json::from_str(&ok(&["inspect", name])).expect("JSON");
        let image = &image[0];
        let config = &image["Config"];
        // What only Docker's config has of a container is nothing that an image could use.
        let of_images = [
            "User",
            "ExposedPorts",
            "Env",
            "Entrypoint",
            "Cmd",
            "Healthcheck",
            "Volumes",
            "WorkingDir",
            "Labels",
            "OnBuild",
        ];
        let mut note = |key: &str, value: Option<&Value>| {
            // Empty or not there, as each client likes it.
            if let Some(value) = value.filter(|value| !value.is_null() && **value != "") {
                text += &format!("{name} {key} {value}\n");
            }
        };
        of_images.iter().for_each(|key| note(key, config.get(key)));
        ["Author", "Comment", "Os", "Architecture"]
            .iter()
            .for_each(|key| note(key, image.get(key)));
        let layers = image["RootFS"]["Layers"].as_array().expect("a list").len();
        text += &format!("{name} {layers} layers\n");
    }
    text += &ok(&[
        "history",
        "--format",
        "{{.CreatedBy}}|{{.Comment}}|{{.Size}}",
        "--no-trunc",
        "made:one",
    ]);
    let look = ["run", "--rm", "--network", "none"];
    text += &ok(&[&look[..], &["made:one"]].concat());
    let list = "cat /made; ls /etc/group; stat -c %a /tmp; echo $A; pwd";
    text += &shown(
        &client(&[&look[..], &["made:two", "sh", "-c", list]].concat()).output().expect("it runs"),
    );
    text += &ok(&[&look[..], &["made:three", "/made"]].concat());
    for refused in [
        &["commit", "-c", "RUN x", "ca"][..],
        &["commit", "nobody"],
        &["commit", "ca", "Bad Name"],
        &["commit", "ca", "made:x:y"],
    ] {
        let output = client(refused).output().expect("it runs");
        text += &format!("{:?} {}", output.status.code(), shown(&output));
    }
    ok(&["rm", "-v", "ca"]);
    ok(&["rmi", "made:one", "made:two", "made:three"]);
    text
}

#[test]
fn two_clients_and_two_daemons_commit_alike() {
    let house = house();
    let docker = session(&|args| house.docker(args));
    let ours = session(&|args| house.gantry(args));
    assert_eq!(docker, ours);
    assert!(docker.contains("made:one Env [\"A=3\",\"PATH="), "{docker}");

    let dockerd = Dockerd::new(&theirs!("dockerd"));
    let theirs = session(&|args| dockerd.command(args));
    assert_eq!(theirs, ours);
}

fn status(house: &House, name: &str) -> String {
    house.ok(&["inspect", "-f", "{{.State.Status}}", name]).trim().to_owned()
}

#[test]
fn a_running_container_is_paused_meanwhile() {
    let house = house();
    house.ok(&["run", "-d", "--name", "told", "--network", "none", "busybox", "sleep", "1000"]);
    house.ok(&["exec", "told", "sh", "-c", "echo word > /word"]);
    let actions = || {
        let now = house.ok(&["system", "info", "-f", "{{.SystemTime}}"]);
        let told = ["events", "--since", "0", "--until", now.trim(), "--format", "{{.Action}}"];
        house.ok(&[&told[..], &["--filter", "container=told"]].concat())
    };
    house.ok(&["commit", "-m", "words", "told", "live"]);
    assert!(actions().ends_with("pause\ncommit\nunpause\n"), "{}", actions());
    assert_eq!(status(&house, "told"), "running");
    house.ok(&["commit", "--pause=false", "told", "live"]);
    assert!(actions().ends_with("unpause\ncommit\n"), "{}", actions());
    // One that is paused already stays so.
    house.ok(&["pause", "told"]);
    house.ok(&["commit", "told", "live"]);
    assert_eq!(status(&house, "told"), "paused");
    house.ok(&["unpause", "told"]);
    assert_eq!(house.ok(&["run", "--rm", "--network", "none", "live", "cat", "/word"]), "word\n");

    // With a configuration of its own, as other clients send one.
    let body = json!({"Cmd": ["cat", "/word"], "Env": ["Q=1"]});
    let answer = house.api("POST", "/commit?container=told&repo=own&comment=c", Some(&body));
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(house.ok(&["run", "--rm", "--network", "none", "own"]), "word\n");
    for (query, status) in
        [("", 400), ("container=nobody", 404), ("container=told&repo=a&tag=no%2F", 400)]
    {
        assert_eq!(house.api("POST", &format!("/commit?{query}"), None).status, status, "{query}");
    }
}

#[test]
fn what_is_told_of_it() {
    let house = house();
    house.ok(&["run", "-d", "--name", "ca", "--network", "none", "busybox", "sleep", "1000"]);
    house.ok(&["commit", "ca", "made:one"]);
    let last = house.api("GET", "/containers/ca/json", None).json();
    assert_eq!(last["State"]["Paused"], false);
    let format = "{{.Type}} {{.Action}}";
    let told = house.ok(&["events", "--since", "0", "--until", &now(), "--format", format]);
    let told: Vec<&str> = told.lines().skip_while(|line| *line != "container start").collect();
    let expected = [
        "container start",
        "container pause",
        "image create",
        "image tag",
        "container commit",
        "container unpause",
    ];
    assert_eq!(told, expected);
    house.ok(&["rm", "-f", "ca"]);
}
