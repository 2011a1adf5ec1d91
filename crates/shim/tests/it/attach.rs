//! Clients come and go, close halves, and stand still; the container goes on.

use std::time::Instant;

use crate::house::{ALL, House, OUTPUT, PATIENCE, stream};

#[test]
fn the_end_of_stdin_is_the_end_of_stdin_once() {
    let Some(house) = House::open() else { return };
    let mut launch = house.shell("cat; echo done");
    (launch.open_stdin, launch.stdin_once) = (true, true);
    let (mut client, theirs) = stream();
    launch.attach.push((ALL, theirs));
    let mut container = house.launch(launch);
    client.send("hello\n");
    client.close_stdin();
    assert_eq!(client.frames().0, "hello\ndone\n");
    assert_eq!(container.wait().code, 0);
}

#[test]
fn all_that_was_sent_before_the_end_arrives() {
    let Some(house) = House::open() else { return };
    let mut launch = house.shell("sleep 0.3; cat | tail -c 8");
    (launch.open_stdin, launch.stdin_once) = (true, true);
    let (mut client, theirs) = stream();
    let (mut listener, listening) = stream();
    launch.attach.push((ALL, theirs));
    launch.attach.push((OUTPUT, listening));
    let mut container = house.launch(launch);
    // More than pipe and sockets hold, and then gone altogether.
    let writer = std::thread::spawn(move || {
        client.send(&"x".repeat(3 << 20));
        client.send("the end\n");
    });
    writer.join().unwrap();
    assert_eq!(container.wait().code, 0);
    assert_eq!(listener.frames().0, "the end\n");
}

#[test]
fn a_client_that_detaches_leaves_stdin_open() {
    let Some(house) = House::open() else { return };
    let mut launch = house.shell("while read line; do echo got $line; done");
    launch.open_stdin = true;
    let container = house.launch(launch);
    let (mut first, theirs) = stream();
    container.client.attach(ALL, &theirs).unwrap();
    drop(theirs);
    first.send("one\n");
    first.until("got one\n");
    first.close_stdin();
    // As Docker does it: who ends its stdin without ending the container's has detached.
    assert_eq!(first.raw(), b"");
    let (mut second, theirs) = stream();
    container.client.attach(ALL, &theirs).unwrap();
    drop(theirs);
    second.send("two\n");
    second.until("got two\n");
    container.client.close_stdin(shim::Target::Init).unwrap();
    second.raw();
}

#[test]
fn a_client_that_stands_still_harms_nobody() {
    let Some(house) = House::open() else { return };
    // 64 MiB, with a client that reads nothing and one that reads everything.
    let mut launch = house.shell("dd if=/dev/zero bs=65536 count=1024 2>/dev/null; echo; echo end");
    launch.logs.driver = shim::logs::Driver::None;
    let (mut still, theirs) = stream();
    let (mut busy, others) = stream();
    launch.attach.push((OUTPUT, theirs));
    launch.attach.push((OUTPUT, others));
    let reader = std::thread::spawn(move || busy.frames());
    let begin = Instant::now();
    let mut container = house.launch(launch);
    assert_eq!(container.wait().code, 0);
    assert!(begin.elapsed() < PATIENCE);
    // What was queued comes, then the count of what did not, and that this is a failure: all of it was his.
    let [out, err, failure] = still.streams();
    assert_eq!(failure, "the client took nothing for too long");
    let lost: usize = err
        .trim()
        .strip_prefix("overrun: ")
        .unwrap()
        .strip_suffix(" bytes lost")
        .unwrap()
        .parse()
        .unwrap();
    let whole = (64 << 20) + 1 + 4;
    assert_eq!(out.len() + lost, whole);
    assert!(out.len() >= 900 << 10);
    let (out, _) = reader.join().unwrap();
    assert_eq!(out.len(), whole);
}

#[test]
fn an_attached_client_that_vanishes_harms_nobody() {
    let Some(house) = House::open() else { return };
    let container = house.launch(house.shell("while sleep 0.01; do echo x; done"));
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", container.shim_pid)).unwrap().count();
    let before = descriptors();
    for _ in 0..200 {
        let (mut client, theirs) = stream();
        container.client.attach(ALL, &theirs).unwrap();
        drop(theirs);
        client.until("x\n");
    }
    // The last of them are missed when there is something to tell them.
    let after = descriptors();
    assert!(after < before + 8, "{before} descriptors were open, {after} are");
}
