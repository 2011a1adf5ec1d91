//! How containers end.

use std::path::Path;
use std::time::{Duration, Instant};

use oci::runtime::{Memory, NamespaceType, Resources};

use crate::house::{House, OUTPUT, stream};

#[test]
fn out_of_memory_is_told_and_recorded() {
    let Some(house) = House::open() else { return };
    let mut launch = house.shell("tail -c 200000000 /dev/zero");
    launch.spec.linux.as_mut().unwrap().resources = Some(Resources {
        memory: Some(Memory { limit: Some(16 << 20), swap: Some(16 << 20), ..Memory::default() }),
        ..Resources::default()
    });
    let mut container = house.launch(launch);
    let exit = container.wait();
    assert_eq!((exit.code, exit.oom_killed), (137, true));
    assert!(container.client.state().unwrap().oom_seen);
}

#[test]
fn who_is_left_is_killed_also_without_a_pid_namespace() {
    let Some(house) = House::open() else { return };
    let mut launch = house.shell("sleep 1000 & echo $!; exit 0");
    launch
        .spec
        .linux
        .as_mut()
        .unwrap()
        .namespaces
        .retain(|namespace| namespace.kind != NamespaceType::Pid);
    let (mut client, theirs) = stream();
    launch.attach.push((OUTPUT, theirs));
    let begin = Instant::now();
    let mut container = house.launch(launch);
    let left = client.frames().0.trim().to_owned();
    assert_eq!(container.wait().code, 0);
    assert!(begin.elapsed() < Duration::from_secs(30));
    crate::house::eventually("the one left behind is gone", || {
        !Path::new(&format!("/proc/{left}")).exists()
    });
}

#[test]
fn the_cgroup_goes() {
    let Some(house) = House::open() else { return };
    let launch = house.shell("exit 0");
    let id = launch.id.clone();
    let mut container = house.launch(launch);
    container.wait();
    container.client.delete().unwrap();
    for controller in ["memory", "pids", "freezer", "unified", "."] {
        let path = format!("/sys/fs/cgroup/{controller}/gantry-shim-test/{id}");
        crate::house::eventually(&format!("{path} is gone"), || !Path::new(&path).exists());
    }
}

#[test]
fn a_client_that_does_not_take_its_output_does_not_delay_the_exit() {
    let Some(house) = House::open() else { return };
    let mut launch = house.shell("dd if=/dev/zero bs=1024 count=600 2>/dev/null");
    let (mut client, theirs) = stream();
    launch.attach.push((OUTPUT, theirs));
    let mut container = house.launch(launch);
    assert_eq!(container.wait().code, 0);
    container.client.delete().unwrap();
    // The shim waits for it, deleted or not.
    assert_eq!(client.frames().0.len(), 600 << 10);
}
