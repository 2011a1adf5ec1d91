//! macvlan: containers have hardware addresses of their own on a wire of the host's.

use std::fs::File;
use std::thread;

use super::ipvlan::Wire;
use super::sleeper;
use crate::foreign::wait_for;

/// The kernel takes a dead container's namespace apart when it finds the time, or not before the last who holds it lets go.
#[test]
fn its_address_is_its_own_when_it_comes_back() {
    let wire = Wire::new();
    let house = wire.daemon();
    let create = ["network", "create", "-d", "macvlan", "-o", "parent=wire0"];
    house.ok(&[&create[..], &["--subnet", "10.66.0.0/24", "--gateway", "10.66.0.1", "net"]].concat());
    let own = ["--network", "net", "--ip", "10.66.0.21", "--mac-address", "02:42:0a:42:00:15"];
    sleeper(&house, "one", &own);
    for _ in 0..5 {
        house.ok(&["restart", "-t", "0", "one"]);
        assert!(wire.hears("10.66.0.21"));
    }
    let pid = house.ok(&["inspect", "-f", "{{.State.Pid}}", "one"]);
    let held = File::open(format!("/proc/{}/ns/net", pid.trim())).expect("it runs");
    thread::scope(|scope| {
        let again = scope.spawn(|| house.ok(&["restart", "-t", "0", "one"]));
        wait_for("it has ended", || {
            house.ok(&["inspect", "-f", "{{.State.Running}}", "one"]).trim() == "false"
        });
        drop(held);
        again.join().expect("it comes back");
    });
    assert!(wire.hears("10.66.0.21"));

    // Who has joined its network keeps the namespace, and nothing in it.
    let devices = ["exec", "two", "ls", "/sys/class/net"];
    sleeper(&house, "two", &["--network", "container:one"]);
    assert_eq!(house.ok(&devices), "eth0\nlo\n");
    house.ok(&["restart", "-t", "0", "one"]);
    assert!(wire.hears("10.66.0.21"));
    assert_eq!(house.ok(&devices), "lo\n");
    house.check();
}
