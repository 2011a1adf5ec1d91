//! How containers end.

use std::os::fd::AsFd;
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

#[test]
fn mounts_are_held_to_the_end_unless_the_host_shares_them() {
    let Some(house) = House::open() else { return };
    let own = rustix::process::pidfd_open(
        rustix::process::getpid(),
        rustix::process::PidfdFlags::empty(),
    );
    if sys::ns::mounts_of(own.unwrap().as_fd()).is_err() {
        eprintln!("skipped: the kernel has no such descriptors");
        return;
    }
    let holds_them = |launch| {
        let container = house.launch(launch);
        held_by(container.shim_pid).any(|name| name.starts_with("mnt:["))
    };
    assert!(holds_them(house.shell("exec sleep 1000")));
    let mut launch = house.shell("exec sleep 1000");
    launch.spec.mounts.push(oci::runtime::Mount {
        destination: "/tmp".into(),
        kind: "bind".to_owned(),
        source: Some(house.dir.path().to_owned()),
        options: vec!["rbind".to_owned()],
        ..Default::default()
    });
    assert!(!holds_them(launch));
}

/// Its devices are asked whether anybody was spoken to when nobody lives in it any more.
#[test]
fn the_network_namespace_is_held_to_the_end() {
    let Some(house) = House::open() else { return };
    let namespace = "/proc/self/ns/net";
    let mut launch = house.shell("exit 3");
    launch.netns = Some(std::fs::File::open(namespace).unwrap().into());
    let mut container = house.launch(launch);
    assert_eq!(container.wait().code, 3);
    let name = std::fs::read_link(namespace).unwrap();
    assert!(held_by(container.shim_pid).any(|held| *held == *name.to_string_lossy()));
}

/// What a process has open, by name.
fn held_by(pid: u32) -> impl Iterator<Item = String> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let names = fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    names.map(|name| name.to_string_lossy().into_owned())
}

#[test]
fn the_connection_ends_when_all_is_gone() {
    let Some(house) = House::open() else { return };
    let mut container = house.launch(house.shell("exit 3"));
    assert_eq!(container.wait().code, 3);
    let mut leaving = container.client.delete().unwrap().into_stream();
    assert!(!container.dir.exists());
    leaving.set_read_timeout(Some(crate::house::PATIENCE)).unwrap();
    assert_eq!(std::io::Read::read(&mut leaving, &mut [0]).unwrap(), 0);
}
