//! A daemon that makes groups by another driver than the one before it: containers stay where they are, and those that start
//! from then on are where they belong.

use std::path::Path;

use testkit::House;

use super::limits::{Driver, Parent, is_controllable, is_frozen, run};
use super::{scope_of, shows};
use crate::containers::house_with;

#[test]
fn from_ours_to_systemds() {
    changes(Driver::Cgroupfs, Driver::Systemd, House::stop);
}

#[test]
fn from_systemds_to_ours() {
    changes(Driver::Systemd, Driver::Cgroupfs, House::kill);
}

fn changes(from: Driver, to: Driver, end: fn(&mut House)) {
    if !Path::new("/run/systemd/system").exists() {
        return;
    }
    let name = format!("{from:?}_to_{to:?}");
    let [from, to] = [from, to].map(|driver| Parent::new(driver, &name));
    let mut house = house_with(&from.flags());
    for name in ["old", "paused", "stopped"] {
        run(&house, name);
        assert!(from.has(&house, name), "{name}");
    }
    let scope = scope_of(&house, "old");
    house.ok(&["pause", "paused"]);

    end(&mut house);
    house.set_flags(&to.flags());
    house.start();
    let told = house.ok(&["info", "-f", "{{.CgroupDriver}}"]);
    assert_eq!(told.trim(), to.driver_name());
    assert!(from.has(&house, "old"));
    is_controllable(&house, "old");
    assert!(is_frozen(&house, "paused"));
    house.ok(&["unpause", "paused"]);
    is_controllable(&house, "paused");
    house.ok(&["stop", "-t", "0", "stopped"]);
    assert_eq!(house.ok(&["wait", "stopped"]), "137\n");

    // Those that start now, again or for the first time.
    run(&house, "new");
    house.ok(&["start", "stopped"]);
    house.ok(&["restart", "-t", "0", "paused"]);
    for name in ["new", "stopped", "paused"] {
        assert!(to.has(&house, name), "{name}");
        is_controllable(&house, name);
    }
    house.check();
    for name in ["new", "stopped", "paused", "old"] {
        house.ok(&["rm", "-f", name]);
    }
    from.assert_empty();
    to.assert_empty();
    assert_eq!(shows(&scope, "LoadState"), "LoadState=not-found");
    house.check();
    drop(house);
}
