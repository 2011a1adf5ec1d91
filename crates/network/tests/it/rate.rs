//! How fast a container is, counted in what its queues let through.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;

use network::{Attachment, CreateRequest, Rate};
use stdx::Id;

use crate::lab::{Daemon, config, ip, on_a_host, request, run, talk, within};

/// In bytes. At a megabit a second it would take a quarter of a minute.
const FLOOD: u64 = 2_000_000;
const DATAGRAM: u64 = 1000;
const MEGABIT: u64 = 1_000_000;

fn attach(daemon: &Daemon, rate: Option<Rate>) -> (Id, Attachment) {
    let container = Id::random();
    let mut request = request(&container, "bridge");
    request.networks[0].rate = rate;
    (container, daemon.networks.attach(&request).unwrap())
}

fn flood(to: Ipv4Addr) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    for _ in 0..FLOOD / DATAGRAM {
        // What finds no room is lost, or refused by nobody who listens.
        let _lost = socket.send_to(&[0; DATAGRAM as usize], (to, 9));
    }
}

/// What a queue is: its kind and rate in bytes a second, what it let through and how often it held something back.
fn queue(device: &str) -> (String, u64, u64, u64) {
    let text = run(&["tc", "-j", "-s", "qdisc", "show", "dev", device, "root"]);
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or(0);
    let one = &all[0];
    let kind = one["kind"].as_str().unwrap_or_default().to_owned();
    (kind, number(&one["options"]["rate"]), number(&one["bytes"]), number(&one["overlimits"]))
}

fn detour(device: &str) -> String {
    device.replace("veth", "ifb")
}

fn inside(attachment: &Attachment) -> &OwnedFd {
    attachment.netns.as_ref().unwrap()
}

#[test]
fn both_ways() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-rate"));
        let rate = Rate { inward: MEGABIT, outward: 2 * MEGABIT };
        let (_, slow) = attach(&daemon, Some(rate));
        let (_, free) = attach(&daemon, None);
        let device = slow.endpoints[0].host_device();
        // Neighbours know each other: what waits for that is somebody else's queue.
        let known = |one: &Attachment| {
            assert!(talk(one.netns.as_ref(), ip(one), None).is_some());
        };
        known(&slow);
        flood(ip(&slow));
        let (kind, rate, bytes, held_back) = queue(&device);
        assert_eq!((kind.as_str(), rate), ("tbf", MEGABIT / 8));
        assert!(held_back > 0 && (1..FLOOD / 4).contains(&bytes), "{held_back} {bytes}");
        let gateway = slow.endpoints[0].gateway.unwrap();
        within(inside(&slow), || flood(gateway));
        let (kind, rate, bytes, held_back) = queue(&detour(&device));
        assert_eq!((kind.as_str(), rate), ("tbf", 2 * MEGABIT / 8));
        assert!(held_back > 0 && (1..FLOOD / 4).contains(&bytes), "{held_back} {bytes}");
        // What it sends comes out where it would have.
        assert!(talk(None, gateway, slow.netns.as_ref()).is_some());

        let device = free.endpoints[0].host_device();
        known(&free);
        flood(ip(&free));
        assert_ne!(queue(&device).0, "tbf");
        let sent = std::fs::read_to_string(format!("/sys/class/net/{device}/statistics/tx_bytes"));
        // The mount is of another host: where it does not know the device, nobody counts.
        assert!(sent.map_or(true, |sent| sent.trim().parse::<u64>().unwrap() >= FLOOD));
    });
}

#[test]
fn changed_lifted_and_kept() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-rates"));
        let (container, one) = attach(&daemon, None);
        let device = one.endpoints[0].host_device();
        let rates = |device: &str| (queue(device).1 * 8, queue(&detour(device)).1 * 8);
        let ifbs = || run(&["ip", "-o", "link", "show", "type", "ifb"]);
        assert_eq!(ifbs(), "");
        let limit = |daemon: &Daemon, inward, outward| {
            daemon.networks.limit(&container, Some(Rate { inward, outward })).unwrap();
        };
        limit(&daemon, 8 * MEGABIT, 16 * MEGABIT);
        assert_eq!(rates(&device), (8 * MEGABIT, 16 * MEGABIT));
        limit(&daemon, 80 * MEGABIT, 40_000 * MEGABIT);
        assert_eq!(rates(&device), (80 * MEGABIT, 40_000 * MEGABIT));
        // Somebody takes it away; the next daemon looks.
        run(&["tc", "qdisc", "del", "dev", &device, "root"]);
        run(&["tc", "qdisc", "del", "dev", &device, "ingress"]);
        let daemon = daemon.crash_and_start(config("gt-rates"));
        daemon.networks.recover(std::slice::from_ref(&container)).unwrap();
        assert_eq!(rates(&device), (80 * MEGABIT, 40_000 * MEGABIT));
        assert!(
            run(&["tc", "filter", "show", "dev", &device, "ingress"]).contains(&detour(&device))
        );
        limit(&daemon, 0, MEGABIT);
        assert_ne!(queue(&device).0, "tbf");
        daemon.networks.limit(&container, None).unwrap();
        assert_eq!(ifbs(), "");
        limit(&daemon, MEGABIT, MEGABIT);
        // On every network, from the beginning.
        let more = CreateRequest { name: "more".to_owned(), ..CreateRequest::default() };
        daemon.networks.create(&more).unwrap();
        let mut wish = request(&container, "more").networks.remove(0);
        wish.rate = Some(Rate { inward: MEGABIT, outward: 0 });
        let namespace = rustix::fd::AsFd::as_fd(inside(&one));
        let second = daemon.networks.connect(&container, "web", &wish, &[], namespace).unwrap();
        assert_eq!(queue(&second.host_device()).1 * 8, MEGABIT);
        daemon.networks.detach(&container);
        daemon.networks.settle();
        assert_eq!(ifbs(), "", "nothing is left");
    });
}

#[test]
fn where_it_does_not_hold() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-norate"));
        let mut request = request(&Id::random(), "host");
        request.networks[0].rate = Some(Rate { inward: 1, outward: 0 });
        let refused = daemon.networks.attach(&request).map(drop).unwrap_err().to_string();
        assert_eq!(
            refused,
            "a net rate does not hold on network host of driver host: it needs a bridge"
        );
    });
}
