//! After a crash: what lives stays, the rest goes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use network::{CreateRequest, NetworkConfig, PortRequest, Protocol};
use stdx::Id;

use crate::lab::{Daemon, config, devices, ip, on_a_host, request, run, soon, talk};

#[test]
fn what_nobody_owns_is_released() {
    on_a_host(|| {
        let config = || config("gt-crash");
        let daemon = Daemon::start(config());
        let (alive, living) = daemon.attach("bridge");
        let (_, dying) = daemon.attach("bridge");
        let daemon = daemon.crash_and_start(config());
        assert_eq!(devices("veth").len(), 2);
        daemon.networks.recover(std::slice::from_ref(&alive)).unwrap();
        assert_eq!(devices("veth"), [living.endpoints[0].host_device()]);
        assert_eq!(daemon.findings(std::slice::from_ref(&alive)), Vec::<String>::new());
        assert!(talk(None, Ipv4Addr::new(172, 17, 0, 1), living.netns.as_ref()).is_some());
        daemon.networks.recover(&[alive]).unwrap();
        let (_, next) = daemon.attach("bridge");
        assert_eq!(ip(&next), ip(&dying), "its address is free");
    });
}

#[test]
fn a_port_of_who_is_gone_leads_nowhere() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-ports"));
        let mut web = request(&Id::random(), "bridge");
        web.ports.push(PortRequest {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ip: None,
            host_ports: None,
        });
        daemon.networks.attach(&web).unwrap();
        let daemon = daemon.crash_and_start(config("gt-ports"));
        daemon.networks.recover(&[]).unwrap();
        assert_eq!(daemon.endpoints_recorded(), 0);
        assert_eq!(daemon.findings(&[]), Vec::<String>::new());
    });
}

#[test]
fn a_record_without_a_device_is_released() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-half"));
        let (_, attachment) = daemon.attach("bridge");
        run(&["ip", "link", "del", &attachment.endpoints[0].host_device()]);
        assert_eq!(
            daemon.networks.check(&[]).unwrap().iter().filter(|one| one.invariant == "I4").count(),
            1
        );
        let daemon = daemon.crash_and_start(config("gt-half"));
        daemon.networks.recover(&[]).unwrap();
        assert_eq!(daemon.endpoints_recorded(), 0);
        assert_eq!(daemon.findings(&[]), Vec::<String>::new());
    });
}

#[test]
fn a_device_without_a_record_is_removed() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-stray"));
        run(&["ip", "link", "add", "vethabcdef0", "type", "veth", "peer", "name", "other0"]);
        daemon.networks.recover(&[]).unwrap();
        assert!(devices("veth").contains(&"vethabcdef0".to_owned()), "a name proves nothing");
        run(&["ip", "link", "set", "vethabcdef0", "master", "gt-stray"]);
        assert_eq!(
            daemon.findings(&[]),
            ["I4 vethabcdef0: a device on our bridge belongs to no endpoint"]
        );
        daemon.networks.recover(&[]).unwrap();
        assert_eq!(devices("veth"), Vec::<String>::new());
    });
}

#[test]
fn a_lost_bridge_comes_back_with_its_containers() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-lost"));
        let (container, attachment) = daemon.attach("bridge");
        run(&["ip", "link", "del", "gt-lost"]);
        let (other, _kept) = daemon.attach("bridge");
        daemon.networks.recover(&[container.clone(), other.clone()]).unwrap();
        assert_eq!(daemon.findings(&[container, other]), Vec::<String>::new());
        assert!(talk(None, Ipv4Addr::new(172, 17, 0, 1), attachment.netns.as_ref()).is_some());
    });
}

/// F22: nobody has to ask.
#[test]
fn a_bridge_that_is_taken_away_comes_back() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-taken"));
        let (container, attachment) = daemon.attach("bridge");
        run(&["ip", "link", "del", "gt-taken"]);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !daemon.findings(std::slice::from_ref(&container)).is_empty() {
            assert!(std::time::Instant::now() < end, "{:?}", daemon.findings(&[]));
            std::thread::yield_now();
        }
        let gateway = Ipv4Addr::new(172, 17, 0, 1);
        assert!(talk(None, gateway, attachment.netns.as_ref()).is_some());
        run(&["ip", "addr", "flush", "dev", "gt-taken"]);
        while !run(&["ip", "addr", "show", "dev", "gt-taken"]).contains("172.17.0.1/16") {
            assert!(std::time::Instant::now() < end, "its address does not come back");
            std::thread::yield_now();
        }
        assert!(talk(None, gateway, attachment.netns.as_ref()).is_some());
        run(&["ip", "link", "set", "gt-taken", "down"]);
        let back = soon(|| talk(None, gateway, attachment.netns.as_ref()));
        assert!(back.is_some(), "it stays down");
        assert_eq!(daemon.findings(&[container]), [""; 0]);
    });
}

/// Of one on which the host has no address, no address tells.
#[test]
fn a_bridge_of_which_the_host_keeps_out_comes_back() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-bare"));
        let mode = "com.docker.network.bridge.gateway_mode_ipv4".to_owned();
        let request = CreateRequest {
            name: "alone".to_owned(),
            internal: true,
            options: BTreeMap::from([(mode, "isolated".to_owned())]),
            ..CreateRequest::default()
        };
        let network = daemon.networks.create(&request).unwrap();
        let (one, server) = daemon.attach("alone");
        let (other, client) = daemon.attach("alone");
        let talk = || talk(server.netns.as_ref(), ip(&server), client.netns.as_ref());
        assert!(talk().is_some());
        let bridge = network.bridge.as_ref().unwrap();
        for words in [&["del"][..], &["set", "down"]] {
            let words = [&["ip", "link", words[0], &bridge.name][..], &words[1..]].concat();
            run(&words);
            assert!(soon(talk).is_some(), "{words:?}");
        }
        assert_eq!(daemon.findings(&[one, other]), [""; 0]);
    });
}

#[test]
fn identities_survive_and_configuration_wins() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-keep"));
        let ids = |daemon: &Daemon| -> Vec<(String, Id)> {
            daemon
                .networks
                .list()
                .iter()
                .map(|network| (network.name.clone(), network.id.clone()))
                .collect()
        };
        let before = ids(&daemon);
        assert_eq!(
            before.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["bridge", "host", "none"]
        );
        let daemon = daemon.crash_and_start(config("gt-keep"));
        assert_eq!(ids(&daemon), before);
        assert_eq!(daemon.networks.find(&before[0].1.as_str()[..10]).unwrap().name, "bridge");

        let bip = Some("10.88.0.1/24".parse().unwrap());
        let daemon = daemon.crash_and_start(NetworkConfig { bip, mtu: 1400, ..config("gt-keep") });
        let bridge = daemon.networks.find("bridge").unwrap();
        assert_eq!(bridge.id, before[0].1);
        assert_eq!(bridge.ipam.config[0].subnet.to_string(), "10.88.0.0/24");
        assert_eq!(bridge.options["com.docker.network.driver.mtu"], "1400");
        let addresses = run(&["ip", "-o", "-4", "addr", "show", "gt-keep"]);
        assert!(
            addresses.contains("10.88.0.1/24") && addresses.lines().count() == 1,
            "{addresses}"
        );
        assert_eq!(daemon.findings(&[]), Vec::<String>::new());
    });
}

#[test]
fn the_default_bridge_is_where_its_containers_may_be() {
    on_a_host(|| {
        let config = |part: &str| NetworkConfig {
            fixed_cidr: Some(part.parse().unwrap()),
            ..config("gt-part")
        };
        let told = |daemon: &Daemon| {
            let (container, attachment) = daemon.attach("bridge");
            let gateway = attachment.endpoints[0].gateway.unwrap();
            assert!(talk(None, gateway, attachment.netns.as_ref()).is_some());
            assert!(daemon.networks.detach(&container));
            (gateway.to_string(), ip(&attachment).to_string())
        };
        let is = |gateway: &str, address: &str| (gateway.to_owned(), address.to_owned());
        let daemon = Daemon::start(config("192.168.50.0/24"));
        assert_eq!(told(&daemon), is("192.168.50.1", "192.168.50.2"));
        let daemon = daemon.crash_and_start(config("192.168.51.0/24"));
        daemon.networks.recover(&[]).unwrap();
        assert_eq!(told(&daemon), is("192.168.51.1", "192.168.51.2"));
        // A part of what it has already.
        let daemon = daemon.crash_and_start(config("192.168.51.128/25"));
        daemon.networks.recover(&[]).unwrap();
        assert_eq!(told(&daemon), is("192.168.51.1", "192.168.51.128"));
    });
}
