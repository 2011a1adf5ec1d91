//! Daemons, launchers and shims die; containers and what is known of them do not.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use shim::{Client, Event, Status};
use stdx::Kind;

use crate::house::{House, eventually, stream};

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

/// The process's parent, as /proc tells.
fn parent(number: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

#[test]
fn the_launcher_may_die() {
    let Some(house) = House::open() else { return };
    let mut first = house.launch(house.shell("read x < /tmp/none; exec sleep 1000"));
    let launcher = parent(first.shim_pid);
    kill_process(pid(launcher), Signal::KILL).unwrap();
    eventually("the shim is orphaned", || parent(first.shim_pid) != launcher);
    let mut second = house.launch(house.shell("exit 5"));
    assert_eq!(second.wait().code, 5);
    assert_eq!(first.client.state().unwrap().status, Status::Running);
    first.client.kill(9, shim::Whom::All).unwrap();
    assert_eq!(first.wait().code, 137);
}

#[test]
fn a_daemon_that_comes_back_misses_nothing() {
    let Some(house) = House::open() else { return };
    let launch = house.shell("sleep 0.2; exit 6");
    let dir = launch.dir.clone();
    // Launched, and nobody watches.
    house.launcher.launch(launch).unwrap();
    eventually("the record is written", || shim::exit::read(&dir).unwrap().is_some());
    assert_eq!(shim::exit::read(&dir).unwrap().unwrap().code, 6);
    let client = Client::connect(&dir).unwrap();
    let Some(Event::State(state)) = client.watch().unwrap().next().unwrap() else {
        panic!("no state")
    };
    assert_eq!(state.status, Status::Exited);
    assert_eq!(state.exit.unwrap().code, 6);
    client.delete().unwrap();
    assert!(!dir.exists());
}

#[test]
fn a_container_that_runs_cannot_be_deleted() {
    let Some(house) = House::open() else { return };
    let container = house.launch(house.shell("exec sleep 1000"));
    assert_eq!(container.client.delete().unwrap_err().kind(), Kind::Conflict);
}

#[test]
fn a_killed_shim_takes_its_container_along() {
    let Some(house) = House::open() else { return };
    let mut container = house.launch(house.shell("exec sleep 1000"));
    let init = container.pid;
    kill_process(pid(container.shim_pid), Signal::KILL).unwrap();
    while container.watch.next().unwrap().is_some() {}
    eventually("init is killed", || !Path::new(&format!("/proc/{init}")).exists());
    assert_eq!(shim::exit::read(&container.dir).unwrap(), None);
    let gone = shim::Client::connect(&container.dir).unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound);
}

#[test]
fn a_stopped_shim_is_unresponsive_and_nothing_else() {
    let Some(house) = House::open() else { return };
    let container = house.launch(house.shell("exec sleep 1000"));
    let shim = pid(container.shim_pid);
    kill_process(shim, Signal::STOP).unwrap();
    let refused = container.client.state().unwrap_err();
    kill_process(shim, Signal::CONT).unwrap();
    assert_eq!(
        (refused.kind(), refused.to_string().as_str()),
        (Kind::Unavailable, "shim unresponsive")
    );
    assert_eq!(container.client.state().unwrap().status, Status::Running);
}

#[test]
fn signals_of_a_terminal_do_not_reach_it() {
    let Some(house) = House::open() else { return };
    let container = house.launch(house.shell("exec sleep 1000"));
    for signal in [Signal::HUP, Signal::INT, Signal::TERM, Signal::PIPE] {
        kill_process(pid(container.shim_pid), signal).unwrap();
    }
    assert_eq!(container.client.state().unwrap().status, Status::Running);
}

#[test]
fn pausing() {
    let Some(house) = House::open() else { return };
    let mut container = house.launch(house.shell("while echo x; do sleep 0.01; done"));
    container.client.pause().unwrap();
    container.event(|event| matches!(event, Event::Paused).then_some(()));
    assert_eq!(container.client.state().unwrap().status, Status::Paused);
    assert_eq!(container.client.pause().unwrap_err().kind(), Kind::Conflict);
    let before = container.logged().len();
    let (_, theirs) = stream();
    container.client.attach(crate::house::OUTPUT, &theirs).unwrap();
    assert_eq!(container.logged().len(), before);
    container.client.resume().unwrap();
    container.event(|event| matches!(event, Event::Resumed).then_some(()));
    eventually("it goes on", || container.logged().len() > before);
    container.client.pause().unwrap();
    container.client.kill(9, shim::Whom::Init).unwrap();
    assert_eq!(container.wait().code, 137);
}

#[test]
fn processes_and_stats() {
    let Some(house) = House::open() else { return };
    let container = house.launch(house.shell("sleep 1000 & sleep 1000; true"));
    eventually("all are there", || container.client.processes().unwrap().len() == 3);
    assert!(container.client.processes().unwrap().contains(&container.pid));
    container.client.stats().unwrap();
}

#[test]
fn the_shim_is_small() {
    let Some(house) = House::open() else { return };
    let mut container = house.launch(house.shell("seq 1 100000; exec sleep 1000"));
    eventually("all was logged", || container.logged().len() == 100_000);
    let pss = |pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let of = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        (of("Private_Dirty:"), of("Pss:"))
    };
    eventually("it rests", || pss(container.shim_pid).0 < 1024);
    eprintln!(
        "shim: private dirty {} kB, PSS {} kB",
        pss(container.shim_pid).0,
        pss(container.shim_pid).1
    );
    container.client.kill(9, shim::Whom::Init).unwrap();
    container.wait();
}
