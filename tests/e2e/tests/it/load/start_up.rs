//! L6: a daemon that has much on record is there as soon as one that has little: what does not run is not touched.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use state::Store;
use testkit::{House, TestImage};

use super::{ask, measure, resident, start, together};
use crate::containers::house;

/// A container's record, or the one that holds its image: changed by nobody but its daemon, and here.
macro_rules! rows {
    ($name:ident, $table:literal, $key:literal) => {
        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        struct $name(Value);

        impl state::Record for $name {
            const TABLE: &'static str = $table;

            fn key(&self) -> String {
                self.0[$key].as_str().expect("it has one").to_owned()
            }
        }
    };
}
rows!(Row, "containers", "id");
rows!(Hold, "image_holds", "holder");

fn id(at: usize) -> String {
    format!("{at:064x}")
}

/// Writes down `count` containers that have ended, as like the one called `ended` as brothers.
fn write_down(house: &House, count: usize) {
    let store = Store::open(&house.data_root().join("state.db")).expect("nobody has it open");
    let all = store.list::<Row>().expect("records");
    let ended = all.into_iter().find(|row| row.0["name"] == "ended").expect("a record").0;
    let holds = store.list::<Hold>().expect("records");
    let hold = holds.into_iter().find(|hold| hold.0["holder"] == ended["id"]).expect("a record").0;
    let brothers = |tx: &state::Transaction<'_>| {
        for at in 0..count {
            let (mut row, mut held) = (ended.clone(), hold.clone());
            row["id"] = id(at).into();
            row["name"] = format!("brother{at}").into();
            held["holder"] = id(at).into();
            tx.put(&Row(row))?;
            tx.put(&Hold(held))?;
        }
        Ok(())
    };
    store.transaction(brothers).expect("room for records");
}

fn forget(house: &House, count: usize) {
    let store = Store::open(&house.data_root().join("state.db")).expect("nobody has it open");
    let all = |tx: &state::Transaction<'_>| {
        for at in 0..count {
            tx.delete::<Row>(&id(at))?;
            tx.delete::<Hold>(&id(at))?;
        }
        Ok(())
    };
    store.transaction(all).expect("it was written");
}

/// Returns how long the next daemon takes until it has answered, and what it weighs then, in KiB.
fn start_up(stopped: usize, images: usize, running: usize) -> (Duration, u64) {
    let mut house = house();
    let client = house.client_of_api();
    together(8, running, |at| start(&client, &format!("runs{at}"), &["sleep", "86400"], json!({})));
    house.ok(&["run", "--name", "ended", "--network", "none", "busybox", "true"]);
    together(4, images, |at| {
        let name = format!("image{at}:latest");
        let archive = TestImage::small(&name).docker_archive(&[&name]);
        let loaded = client.send("POST", "/images/load?quiet=1", "application/x-tar", &archive);
        assert_eq!(loaded.expect("the daemon answers").status, 200);
    });
    let listed = |house: &House, all: &str| {
        let list =
            ask(&house.client_of_api(), "GET", &format!("/containers/json{all}"), &Value::Null);
        list.as_array().expect("a list").len()
    };
    house.kill();
    write_down(&house, stopped);
    let begin = Instant::now();
    house.start();
    assert_eq!(listed(&house, ""), running);
    let taken = begin.elapsed();
    assert_eq!(listed(&house, "?all=1"), running + stopped + 1);
    let last =
        ask(&client, "GET", &format!("/containers/brother{}/json", stopped - 1), &Value::Null);
    assert_eq!(
        (&last["State"]["Status"], &last["Id"]),
        (&json!("exited"), &json!(id(stopped - 1)))
    );
    let weight = resident(&house);
    println!("{stopped} stopped, {images} images, {running} running: {taken:?}, {weight} KiB");
    house.kill();
    forget(&house, stopped);
    house.start();
    assert_eq!(listed(&house, "?all=1"), running + 1);
    (taken, weight)
}

#[test]
fn l6_much_on_record() {
    start_up(500, 20, 6);
}

#[test]
#[ignore = "a minute, and only worth something on a quiet machine; `STOPPED`, `IMAGES` and `RUNNING` say how many"]
fn l6_full_size() {
    let (stopped, images) = (measure("STOPPED", 10_000), measure("IMAGES", 2_000));
    let (taken, weight) = start_up(stopped, images, measure("RUNNING", 200));
    assert!(taken < Duration::from_secs(3) && weight < 150 << 10, "{taken:?}, {weight} KiB");
}
