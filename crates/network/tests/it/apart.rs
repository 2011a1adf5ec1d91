//! Bridges whose containers do not talk to each other: links open what is exposed, and a switch of the host nothing.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use network::{AttachRequest, Attachment, Link, NetworkConfig, Protocol};
use stdx::Id;

use crate::lab::{Daemon, config, ip, on_a_host, request, run, talk, within};

const SOON: Duration = Duration::from_millis(1200);
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether rules see what bridges carry. `false` where this host has no such switch.
fn filter_bridges(on: bool) -> bool {
    ["iptables", "ip6tables"].iter().all(|family| {
        let switch = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        Path::new(&switch).exists() && std::fs::write(switch, if on { "1" } else { "0" }).is_ok()
    })
}

fn silent(bridge: &str) -> Daemon {
    Daemon::start(NetworkConfig { icc: false, ..config(bridge) })
}

fn shop(daemon: &Daemon) -> (AttachRequest, Attachment, Vec<TcpListener>) {
    let mut request = request(&Id::random(), "bridge");
    request.exposed = vec![(Protocol::Tcp, 80)];
    let attachment = daemon.networks.attach(&request).unwrap();
    let doors = within(attachment.netns.as_ref().unwrap(), || {
        [80, 81].map(|port| TcpListener::bind(("0.0.0.0", port)).unwrap()).into()
    });
    (request, attachment, doors)
}

fn linked(daemon: &Daemon, to: &Id) -> (AttachRequest, Attachment) {
    let mut request = request(&Id::random(), "bridge");
    request.networks[0].links = vec![Link { alias: "db".to_owned(), container: to.clone() }];
    let attachment = daemon.networks.attach(&request).unwrap();
    (request, attachment)
}

fn enters(who: &Attachment, shop: &Attachment, port: u16) -> bool {
    let door = SocketAddr::new(ip(shop).into(), port);
    within(who.netns.as_ref().unwrap(), || TcpStream::connect_timeout(&door, SOON).is_ok())
}

#[track_caller]
fn comes_to_enter(who: &Attachment, shop: &Attachment, port: u16) {
    let end = Instant::now() + PATIENCE;
    while !enters(who, shop, port) {
        assert!(Instant::now() < end, "{port}");
    }
}

fn a_link(filtered: bool) {
    on_a_host(move || {
        if !filter_bridges(filtered) && filtered {
            return println!("skipped: this host has no br_netfilter");
        }
        let daemon = silent("gt-link");
        let (request, db, _doors) = shop(&daemon);
        let (parent, web) = linked(&daemon, &request.container);
        let (_, other) = daemon.attach("bridge");
        comes_to_enter(&web, &db, 80);
        assert!(!enters(&web, &db, 81), "not exposed");
        assert!(!enters(&other, &db, 80), "not linked");
        assert_eq!(talk(web.netns.as_ref(), ip(&web), db.netns.as_ref()), None, "one way only");

        // Over, though it was let in once.
        daemon.networks.unlink(&parent.container, "db", &request.container).unwrap();
        assert!(!enters(&web, &db, 80));
        assert_eq!(daemon.networks.connections(&parent.container)[0].links, []);

        // The next one at the address is not the one that was meant.
        let (parent, web) = linked(&daemon, &request.container);
        comes_to_enter(&web, &db, 80);
        daemon.networks.detach(&request.container);
        drop(db);
        daemon.networks.settle();
        let (_, heir, _doors) = shop(&daemon);
        assert!(!enters(&web, &heir, 80));
        daemon.networks.detach(&parent.container);
        let table = run(&["nft", "list", "set", "inet", "gantry-gt-link", "linked4"]);
        assert!(!table.contains("elements"), "{table}");
    });
}

#[test]
fn a_link_by_the_host() {
    a_link(false);
}

#[test]
fn a_link_by_the_bridge() {
    a_link(true);
}

#[test]
fn whoever_turns_the_switch_lets_nobody_in() {
    on_a_host(|| {
        if !filter_bridges(true) {
            return println!("skipped: this host has no br_netfilter");
        }
        let daemon = silent("gt-turn");
        let (first, one) = daemon.attach("bridge");
        let (second, other) = daemon.attach("bridge");
        let ports = || -> Vec<bool> {
            let shown = run(&["bridge", "-d", "link", "show"]);
            let word =
                |line: &str| line.contains("isolated o").then(|| line.contains("isolated on"));
            shown.lines().filter_map(word).collect()
        };
        let until = |expected: [bool; 2]| {
            let end = Instant::now() + PATIENCE;
            while ports() != expected {
                assert!(Instant::now() < end, "{:?}", ports());
                std::thread::yield_now();
            }
        };
        assert_eq!(ports(), [false, false], "the rules see to it");
        assert_eq!(talk(one.netns.as_ref(), ip(&one), other.netns.as_ref()), None);
        filter_bridges(false);
        until([true, true]);
        assert_eq!(talk(one.netns.as_ref(), ip(&one), other.netns.as_ref()), None);
        let known = [first, second];
        assert_eq!(daemon.findings(&known), [""; 0]);
        // Who comes now is kept apart in the same way; and back again.
        let (third, _next) = daemon.attach("bridge");
        assert_eq!(ports(), [true, true, true]);
        daemon.networks.detach(&third);
        daemon.networks.settle();
        filter_bridges(true);
        until([false, false]);
        assert_eq!(talk(one.netns.as_ref(), ip(&one), other.netns.as_ref()), None);
        assert_eq!(daemon.findings(&known), [""; 0]);
    });
}
