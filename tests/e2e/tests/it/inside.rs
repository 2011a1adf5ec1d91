//! Being in a container's network without being in the container: for what its own tools cannot do, and for when no daemon
//! is there to be asked.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use testkit::House;

/// The first process of a container that runs.
pub(crate) fn pid(house: &House, name: &str) -> u32 {
    let pid = house.ok(&["inspect", "-f", "{{.State.Pid}}", name]);
    pid.trim().parse().expect("it runs")
}

/// Does something in the network namespace of a process, on a thread that ends with it.
pub(crate) fn within<T: Send>(pid: u32, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("it lives");
    in_namespace(&namespace, work)
}

/// The same, in any network namespace.
pub(crate) fn in_namespace<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let inside = || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).expect("root");
            work()
        };
        scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
