//! F13, F14: a disk that fails to keep what was written, that turns read-only, or that does not answer at all. Nothing is
//! acknowledged that may be gone, looking goes on, and a new daemon on a mended disk has everything that was promised.

use std::thread::scope;
use std::time::Instant;

use serde_json::json;
use testkit::house::PATIENCE;
use testkit::{Disk, House};

use super::{LOOKS, Tracer, furnish, looks, until};

fn ping(house: &House) -> (u16, String) {
    let answer = house.api("GET", "/_ping", None);
    (answer.status, answer.text())
}

#[test]
fn f13_what_could_not_be_synced_is_not_promised() {
    let mut house = House::new();
    furnish(&house);
    let image = testkit::TestImage::small("more").docker_archive(&["more:latest"]);
    let tracer = Tracer::attach(&house, "fsync,fdatasync,syncfs:error=EIO");
    let loaded = house.send("POST", "/images/load?quiet=1", "application/x-tar", &image);
    assert!(loaded.status >= 500 || loaded.text().contains("error"), "{}", loaded.text());
    drop(tracer);
    // The kernel says it once and forgets; the daemon does not.
    let (status, words) = ping(&house);
    assert!(
        status == 500 && words.contains("degraded") && words.contains("the disk failed"),
        "{words}"
    );
    assert!(house.ok(&["info", "-f", "{{.Warnings}}"]).contains("the disk failed"));
    let again = house.send("POST", "/images/load?quiet=1", "application/x-tar", &image);
    assert!(again.status == 503 || again.text().contains("read-only"), "{}", again.text());
    looks(&house);
    assert_eq!(house.ok(&["exec", "kept", "cat", "/v/file"]), "kept\n");
    house.kill();
    house.start();
    assert_eq!(ping(&house), (200, "OK".to_owned()));
    house.load(&image);
    house.check();
}

#[test]
fn f13_records_that_could_not_be_written_are_not_promised() {
    let mut house = House::new();
    furnish(&house);
    let body = json!({"Name": "lost"});
    let tracer = Tracer::attach(&house, "pwrite64:error=EIO");
    let made = house.api("POST", "/networks/create", Some(&body));
    assert_eq!(made.status, 503, "{}", made.text());
    drop(tracer);
    assert_eq!(ping(&house).0, 500);
    let again = house.api("POST", "/networks/create", Some(&body));
    assert!(
        again.status == 503 && again.text().contains("records are read-only"),
        "{}",
        again.text()
    );
    looks(&house);
    // Whoever is in need can still end what runs; it is written down by the next daemon.
    let killed = house.api("POST", "/containers/kept/kill", None);
    assert!(killed.status < 300, "{}", killed.text());
    house.kill();
    house.start();
    until("the end is written down", || {
        house.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "kept"])
            == "exited 137\n"
    });
    assert_eq!(house.api("GET", "/networks/lost", None).status, 404);
    assert_eq!(house.api("POST", "/networks/create", Some(&body)).status, 201);
    house.check();
}

#[test]
fn f14_a_disk_that_turns_read_only() {
    let disk = Disk::new(48);
    let mut house = House::on(&disk.path().join("data"), &[], &[]);
    furnish(&house);
    house.ok(&["create", "--name", "made", "busybox", "echo", "made"]);
    disk.break_it();
    looks(&house);
    let create = json!({"Image": "busybox", "Cmd": ["true"]});
    let refused = house.api("POST", "/containers/create?name=lost", Some(&create));
    assert!(refused.status >= 500, "{}", refused.text());
    assert!(refused.text().contains("the disk failed"), "{}", refused.text());
    let refused = house.api("POST", "/networks/create", Some(&json!({"Name": "lost"})));
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(ping(&house).0, 500);
    assert_eq!(house.ok(&["exec", "kept", "cat", "/v/file"]), "kept\n");
    // A new daemon does not begin on it; one on the mended disk finds all that was there before.
    house.cut_the_power();
    disk.mend();
    house.start();
    assert_eq!(ping(&house), (200, "OK".to_owned()));
    assert_eq!(house.ok(&["inspect", "-f", "{{.State.ExitCode}}", "kept"]), "255\n");
    assert_eq!(house.ok(&["start", "-a", "made"]), "made\n");
    assert_eq!(house.api("GET", "/containers/lost/json", None).status, 404);
    house.check();
}

/// As when a server that keeps the disk is away for a while.
#[test]
fn f14_a_disk_that_does_not_answer() {
    let mut disk = Disk::new(48);
    let house = House::on(&disk.path().join("data"), &[], &[]);
    furnish(&house);
    let create = |name: &str| {
        let (client, path) = (house.client_of_api(), format!("/containers/create?name={name}"));
        let body = json!({"Image": "busybox", "Cmd": ["true"]});
        move || client.ask("POST", &path, Some(&body)).expect("the daemon answers").status
    };
    disk.freeze();
    let waiting = scope(|scope| {
        // More of them than the daemon has threads for its clients, and of every kind.
        let mut waiting: Vec<_> = (0..8).map(|n| scope.spawn(create(&format!("c{n}")))).collect();
        for path in [
            "/containers/kept/rename?name=other",
            "/containers/kept/pause",
            "/networks/create",
            "/volumes/create",
        ] {
            let client = house.client_of_api();
            let body = json!({"Name": "new"});
            waiting.push(
                scope.spawn(move || {
                    client.ask("POST", path, Some(&body)).expect("an answer").status
                }),
            );
        }
        let looks = LOOKS.iter().map(|path| {
            let client = house.client_of_api();
            scope.spawn(move || (path, client.ask("GET", path, None).map(|answer| answer.status)))
        });
        let looks: Vec<_> = looks.collect();
        let begin = Instant::now();
        while !looks.iter().all(|look| look.is_finished()) && begin.elapsed() < PATIENCE / 3 {
            std::thread::yield_now();
        }
        let silent = LOOKS.iter().zip(&looks).filter(|(_, look)| !look.is_finished());
        let silent: Vec<_> = silent.map(|(path, _)| path).collect();
        // A test that fails must not leave it frozen with the daemon on it.
        if !silent.is_empty() {
            disk.thaw();
            panic!("no answer: {silent:?}");
        }
        let answered: Vec<_> =
            looks.into_iter().map(|look| look.join().expect("an answer")).collect();
        let pinged = ping(&house);
        disk.thaw();
        assert!(answered.iter().all(|(_, status)| matches!(status, Ok(200))), "{answered:?}");
        assert_eq!(pinged, (200, "OK".to_owned()));
        waiting.into_iter().map(|one| one.join().expect("an answer")).collect::<Vec<_>>()
    });
    assert!(waiting.iter().all(|status| *status < 300), "{waiting:?}");
    house.check();
}
