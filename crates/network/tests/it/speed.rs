//! How long it takes; printed, not judged: `cargo test -p network speed -- --nocapture`.

use std::time::{Duration, Instant};

use crate::lab::{Daemon, config, on_a_host};

#[test]
fn speed() {
    on_a_host(|| {
        const ROUNDS: u32 = 50;
        let daemon = Daemon::start(config("gt-speed"));
        let mut attaching: Vec<Duration> = Vec::new();
        let mut held = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            held.push(daemon.attach("bridge"));
            attaching.push(start.elapsed());
        }
        attaching.sort();
        let start = Instant::now();
        for (container, _) in &held {
            daemon.networks.detach(container).unwrap();
        }
        let detaching = start.elapsed() / ROUNDS;
        daemon.networks.settle();
        let gone = start.elapsed() / ROUNDS;
        println!(
            "attach: median {:?}, best {:?}, worst {:?}; detach: answered after {detaching:?}, gone after {gone:?} each",
            attaching[attaching.len() / 2],
            attaching[0],
            attaching[attaching.len() - 1],
        );
    });
}
