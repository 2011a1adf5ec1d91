//! How long it takes; printed, not judged: `cargo test -p network speed -- --nocapture`.

use std::time::{Duration, Instant};

use network::{AddressPool, CreateRequest, NetworkConfig};

use crate::lab::{Daemon, config, devices, on_a_host};

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
            daemon.networks.detach(container);
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

#[test]
fn many_at_once() {
    on_a_host(|| {
        const CLIENTS: usize = 8;
        const EACH: usize = 10;
        let daemon = Daemon::start(config("gt-crowd"));
        let start = Instant::now();
        let held: Vec<_> = std::thread::scope(|scope| {
            let client = || (0..EACH).map(|_| daemon.attach("bridge")).collect::<Vec<_>>();
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
        });
        let rate = held.len() as f64 / start.elapsed().as_secs_f64();
        println!("{CLIENTS} clients: {rate:.0} attached a second");
        let known: Vec<_> = held.iter().map(|(container, _)| container.clone()).collect();
        assert_eq!(daemon.findings(&known), Vec::<String>::new(), "no address twice");
        for container in &known {
            daemon.networks.detach(container);
        }
        daemon.networks.settle();
        assert_eq!((devices("veth").len(), daemon.endpoints_recorded()), (0, 0));
    });
}

/// The last network is to cost what the first did, and a daemon that finds them all is to be ready at once.
#[test]
#[ignore = "a thousand networks; prints how long each takes"]
fn a_thousand_networks() {
    on_a_host(|| {
        const NETWORKS: usize = 1000;
        const SOME: u32 = 20;
        let pool = AddressPool { base: "10.0.0.0/8".parse().unwrap(), size: 24 };
        let config =
            || NetworkConfig { default_address_pools: vec![pool], ..config("gt-thousand") };
        let daemon = Daemon::start(config());
        let took: Vec<Duration> = (0..NETWORKS)
            .map(|number| {
                let start = Instant::now();
                let name = format!("n{number}");
                let request = CreateRequest { name, ..CreateRequest::default() };
                daemon.networks.create(&request).unwrap();
                start.elapsed()
            })
            .collect();
        let first = took[..SOME as usize].iter().sum::<Duration>() / SOME;
        let last = took[NETWORKS - SOME as usize..].iter().sum::<Duration>() / SOME;
        let start = Instant::now();
        let daemon = daemon.crash_and_start(config());
        let ready = start.elapsed();
        println!("create: the first {first:?}, the last {last:?}; ready again after {ready:?}");
        assert_eq!(daemon.findings(&[]), Vec::<String>::new());
        assert_eq!(devices("bridge").len(), NETWORKS + 1);
    });
}
