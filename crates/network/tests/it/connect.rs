//! Networks of a container that runs: more of them, fewer, both families, and who leads out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use network::{AddressPool, CreateRequest, EndpointRequest, NetworkConfig, PoolRequest};
use stdx::{Id, Kind};

use crate::lab::{
    Daemon, config, devices, ip, new_namespace, on_a_host, request, run, talk, within,
};

fn dual(bridge: &str) -> NetworkConfig {
    let mut config = config(bridge);
    config
        .default_address_pools
        .push(AddressPool { base: "fd00:77:88::/48".parse().expect("a network"), size: 64 });
    config
}

fn named(name: &str) -> CreateRequest {
    CreateRequest { name: name.to_owned(), ..CreateRequest::default() }
}

fn with_ipv6(name: &str) -> CreateRequest {
    CreateRequest { enable_ipv6: Some(true), ..named(name) }
}

fn wish(network: &str) -> EndpointRequest {
    EndpointRequest { network: network.to_owned(), ..EndpointRequest::default() }
}

fn routes(netns: &OwnedFd, family: &str) -> Vec<String> {
    within(netns, || {
        let listing = run(&["ip", family, "route"]);
        let defaults = listing.lines().filter(|line| line.starts_with("default"));
        defaults
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                words[..5].join(" ")
            })
            .collect()
    })
}

fn sysctl(netns: &OwnedFd, name: &str) -> String {
    within(netns, || {
        let path = format!("/proc/sys/net/{}", name.replace('.', "/"));
        std::fs::read_to_string(path).expect("a sysctl").trim().to_owned()
    })
}

#[test]
fn both_families() {
    on_a_host(|| {
        let daemon = Daemon::start(dual("gt-both"));
        daemon.networks.create(&with_ipv6("six")).unwrap();
        let (container, one) = daemon.attach("six");
        let (_, other) = daemon.attach("six");
        let address: Ipv6Addr = "fd00:77:88::2".parse().unwrap();
        let endpoint = &one.endpoints[0];
        assert_eq!((endpoint.ip6, endpoint.prefix6), (Some(address), 64));
        assert_eq!(endpoint.gateway6, "fd00:77:88::1".parse().ok());
        // At once: nobody waits to see whether somebody else has it.
        assert!(talk(one.netns.as_ref(), address, other.netns.as_ref()).is_some());
        assert!(talk(None, endpoint.gateway6.unwrap(), one.netns.as_ref()).is_some());
        assert!(talk(one.netns.as_ref(), ip(&one), other.netns.as_ref()).is_some());
        let netns = one.netns.as_ref().unwrap();
        assert_eq!(routes(netns, "-6"), ["default via fd00:77:88::1 dev eth0"]);
        for (name, value) in [("all.disable_ipv6", "0"), ("eth0.accept_ra", "0")] {
            assert_eq!(sysctl(netns, &format!("ipv6.conf.{name}")), value, "{name}");
        }
        assert_eq!(daemon.findings(&[container, other.endpoints[0].container.clone()]), [""; 0]);
    });
}

#[test]
fn only_the_newer_family() {
    on_a_host(|| {
        let daemon = Daemon::start(dual("gt-six"));
        let request = CreateRequest {
            enable_ipv4: Some(false),
            pools: vec![PoolRequest {
                subnet: "2001:db8:1::/64".to_owned(),
                ..PoolRequest::default()
            }],
            ..with_ipv6("six")
        };
        daemon.networks.create(&request).unwrap();
        let chosen: Ipv6Addr = "2001:db8:1::77".parse().unwrap();
        let request = network::AttachRequest {
            container: Id::random(),
            name: "web".to_owned(),
            networks: vec![EndpointRequest { ip6: Some(chosen), ..wish("six") }],
            ports: Vec::new(),
            exposed: Vec::new(),
            dns: network::files::Dns::default(),
        };
        let one = daemon.networks.attach(&request).unwrap();
        let (_, other) = daemon.attach("six");
        assert_eq!((one.endpoints[0].ip, one.endpoints[0].ip6), (None, Some(chosen)));
        assert!(talk(one.netns.as_ref(), chosen, other.netns.as_ref()).is_some());
        assert_eq!(routes(one.netns.as_ref().unwrap(), "-4"), [""; 0]);
    });
}

#[test]
fn connected_while_it_runs() {
    on_a_host(|| {
        let daemon = Daemon::start(dual("gt-live"));
        daemon.networks.create(&named("front")).unwrap();
        let back = daemon.networks.create(&with_ipv6("back")).unwrap();
        let (container, attachment) = daemon.attach("front");
        let netns = attachment.netns.as_ref().unwrap();
        let (peer, reachable) = daemon.attach("back");
        let known = [container.clone(), peer];
        assert_eq!(talk(reachable.netns.as_ref(), ip(&reachable), Some(netns)), None);

        let endpoint =
            daemon.networks.connect(&container, "web", &wish("back"), &[], netns.as_fd());
        let endpoint = endpoint.unwrap();
        assert_eq!(endpoint.ifname, "eth1");
        assert!(talk(reachable.netns.as_ref(), ip(&reachable), Some(netns)).is_some());
        let six = reachable.endpoints[0].ip6.unwrap();
        assert!(talk(reachable.netns.as_ref(), six, Some(netns)).is_some());
        // Both families win over one, and then the name decides.
        assert_eq!(routes(netns, "-4"), ["default via 172.19.0.1 dev eth1"]);
        assert_eq!(routes(netns, "-6").len(), 1);
        assert_eq!(sysctl(netns, "ipv6.conf.eth0.disable_ipv6"), "1");
        assert_eq!(daemon.findings(&known), [""; 0]);

        let again = daemon.networks.connect(&container, "web", &wish("back"), &[], netns.as_fd());
        let again = again.unwrap_err();
        assert_eq!(
            (again.kind(), again.to_string().as_str()),
            (Kind::Forbidden, "endpoint with name web already exists in network back")
        );

        daemon.networks.disconnect(&container, &back.id, Some(netns.as_fd())).unwrap();
        assert_eq!(talk(reachable.netns.as_ref(), ip(&reachable), Some(netns)), None);
        assert_eq!(routes(netns, "-4"), ["default via 172.18.0.1 dev eth0"]);
        assert_eq!(routes(netns, "-6"), [""; 0]);
        assert_eq!(daemon.networks.connections(&container).len(), 1);
        assert_eq!(daemon.findings(&known), [""; 0]);

        let front = &attachment.endpoints[0].network_id;
        daemon.networks.disconnect(&container, front, Some(netns.as_fd())).unwrap();
        assert_eq!(routes(netns, "-4"), [""; 0]);
        let missing = daemon.networks.disconnect(&container, front, Some(netns.as_fd()));
        assert_eq!(missing.unwrap_err().kind(), Kind::NotFound);
    });
}

#[test]
fn priorities_names_and_settings() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-prio"));
        daemon.networks.create(&named("alpha")).unwrap();
        let prefix = CreateRequest {
            options: BTreeMap::from([(
                "com.docker.network.container_iface_prefix".to_owned(),
                "lan".to_owned(),
            )]),
            ..named("omega")
        };
        daemon.networks.create(&prefix).unwrap();
        let options = |name: &str, value: &str| {
            BTreeMap::from([(format!("com.docker.network.endpoint.{name}"), value.to_owned())])
        };
        let request = network::AttachRequest {
            container: Id::random(),
            name: "web".to_owned(),
            networks: vec![
                EndpointRequest { driver_opts: options("ifname", "wan"), ..wish("alpha") },
                EndpointRequest {
                    gw_priority: 5,
                    mac: "02:aa:bb:cc:dd:ee".parse().ok(),
                    link_local: vec![IpAddr::from([169, 254, 7, 7])],
                    driver_opts: options(
                        "sysctls",
                        "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.ifname.forwarding=0",
                    ),
                    ..wish("omega")
                },
            ],
            ports: Vec::new(),
            exposed: Vec::new(),
            dns: network::files::Dns::default(),
        };
        let attachment = daemon.networks.attach(&request).unwrap();
        let netns = attachment.netns.as_ref().unwrap();
        assert_eq!(routes(netns, "-4"), ["default via 172.19.0.1 dev lan0"]);
        assert_eq!(sysctl(netns, "ipv4.conf.lan0.log_martians"), "1");
        let links = within(netns, || run(&["ip", "-o", "addr"]) + &run(&["ip", "-o", "link"]));
        for expected in ["wan", "169.254.7.7/16", "02:aa:bb:cc:dd:ee"] {
            assert!(links.contains(expected), "{expected}: {links}");
        }
        let bad = EndpointRequest {
            driver_opts: options("sysctls", "net.ipv4.conf.IFNAME.nope=1"),
            ..wish("bridge")
        };
        let err = daemon
            .networks
            .connect(&request.container, "web", &bad, &[], netns.as_fd())
            .unwrap_err();
        assert!(err.chain().contains("failed to set sysctl"), "{}", err.chain());
        assert_eq!((devices("veth").len(), daemon.endpoints_recorded()), (2, 2));
        assert_eq!(daemon.findings(&[request.container]), [""; 0]);
    });
}

#[test]
fn who_comes_back_has_the_address_again() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-again"));
        let pool = PoolRequest { subnet: "10.45.0.0/30".to_owned(), ..PoolRequest::default() };
        daemon.networks.create(&CreateRequest { pools: vec![pool], ..named("tiny") }).unwrap();
        // The only address there is, asked for by name or not, at once after it was given back.
        for chosen in [Some([10, 45, 0, 2].into()), None, Some([10, 45, 0, 2].into()), None] {
            let request = network::AttachRequest {
                networks: vec![EndpointRequest { ip: chosen, ..wish("tiny") }],
                ..request(&Id::random(), "tiny")
            };
            let attachment = daemon.networks.attach(&request).unwrap();
            assert_eq!(ip(&attachment).octets(), [10, 45, 0, 2]);
            daemon.networks.detach(&request.container);
        }
    });
}

#[test]
fn a_host_that_keeps_out() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-iso"));
        let request = CreateRequest {
            internal: true,
            options: BTreeMap::from([(
                "com.docker.network.bridge.gateway_mode_ipv4".to_owned(),
                "isolated".to_owned(),
            )]),
            ..named("iso")
        };
        let network = daemon.networks.create(&request).unwrap();
        let bridge = &network.bridge.as_ref().unwrap().name;
        assert_eq!(run(&["ip", "-o", "addr", "show", "dev", bridge]), "");
        let (_, one) = daemon.attach("iso");
        let (_, other) = daemon.attach("iso");
        assert_eq!(ip(&one).octets(), [172, 18, 0, 1]);
        assert!(talk(one.netns.as_ref(), ip(&one), other.netns.as_ref()).is_some());
        assert_eq!(routes(one.netns.as_ref().unwrap(), "-4"), [""; 0]);
    });
}

#[test]
fn an_operators_bridge_stays() {
    on_a_host(|| {
        run(&["ip", "link", "add", "mine0", "type", "bridge"]);
        let daemon = Daemon::start(config("gt-mine"));
        let request = CreateRequest {
            options: BTreeMap::from([(
                "com.docker.network.bridge.name".to_owned(),
                "mine0".to_owned(),
            )]),
            ..named("net")
        };
        let network = daemon.networks.create(&request).unwrap();
        let (container, one) = daemon.attach("net");
        let gateway = network.bridge.as_ref().unwrap().address.unwrap().addr();
        assert!(talk(None, gateway, one.netns.as_ref()).is_some());
        daemon.networks.detach(&container);
        daemon.networks.remove("net").unwrap();
        assert!(devices("bridge").contains(&"mine0".to_owned()));
    });
}

/// For protocols that are not IP's, or addresses that somebody else gives.
#[test]
fn a_wire_without_addresses() {
    on_a_host(|| {
        run(&["ip", "link", "add", "wire0", "type", "veth", "peer", "name", "far0"]);
        run(&["ip", "link", "set", "wire0", "up"]);
        let daemon = Daemon::start(config("gt-bare"));
        let request = CreateRequest {
            driver: "macvlan".to_owned(),
            ipam_driver: "null".to_owned(),
            enable_ipv4: Some(false),
            options: BTreeMap::from([("parent".to_owned(), "wire0".to_owned())]),
            ..named("bare")
        };
        if let Err(err) = daemon.networks.create(&request) {
            assert_eq!(err.kind(), Kind::NotImplemented);
            return;
        }
        let (container, attachment) = daemon.attach("bare");
        let endpoint = &attachment.endpoints[0];
        assert_eq!((endpoint.ip, endpoint.ip6, endpoint.gateway), (None, None, None));
        assert!(endpoint.mac.is_some());
        let netns = attachment.netns.as_ref().unwrap();
        assert!(within(netns, || run(&["ip", "-o", "link", "show", "eth0"])).contains("UP"));
        assert_eq!(within(netns, || run(&["ip", "-o", "addr", "show", "eth0"])), "");
        assert_eq!(routes(netns, "-4"), [""; 0]);
        assert_eq!(daemon.findings(&[container]), [""; 0]);
    });
}

#[test]
fn containers_on_the_hosts_wire() {
    on_a_host(|| {
        let there = new_namespace();
        let path = format!("/proc/{}/fd/{}", std::process::id(), there.as_raw_fd());
        run(&[
            "ip", "link", "add", "wire0", "type", "veth", "peer", "name", "far0", "netns", &path,
        ]);
        run(&["ip", "link", "set", "wire0", "up"]);
        within(&there, || {
            run(&["ip", "addr", "add", "10.66.0.1/24", "dev", "far0"]);
            run(&["ip", "link", "set", "far0", "up"]);
        });
        let daemon = Daemon::start(config("gt-wire"));
        for driver in ["macvlan", "ipvlan"] {
            let request = CreateRequest {
                driver: driver.to_owned(),
                options: BTreeMap::from([("parent".to_owned(), "wire0".to_owned())]),
                pools: vec![PoolRequest {
                    subnet: "10.66.0.0/24".to_owned(),
                    gateway: "10.66.0.1".to_owned(),
                    ..PoolRequest::default()
                }],
                ..named(driver)
            };
            match daemon.networks.create(&request) {
                Ok(_) => {}
                Err(err) => {
                    let expected = format!("the kernel of this host has no {driver} devices");
                    assert_eq!((err.kind(), err.to_string()), (Kind::NotImplemented, expected));
                    assert!(daemon.networks.find(driver).is_err(), "nothing is left of it");
                    continue;
                }
            }
            let (container, one) = daemon.attach(driver);
            let (second, other) = daemon.attach(driver);
            let netns = one.netns.as_ref().unwrap();
            assert!(talk(Some(netns), ip(&one), other.netns.as_ref()).is_some());
            assert!(talk(Some(&there), [10, 66, 0, 1], Some(netns)).is_some());
            assert_eq!(routes(netns, "-4"), ["default via 10.66.0.1 dev eth0"]);

            // One more while it runs, and less again: nothing stays in the container.
            let (third, bridged) = daemon.attach("bridge");
            let netns = bridged.netns.as_ref().unwrap();
            daemon.networks.connect(&third, "web", &wish(driver), &[], netns.as_fd()).unwrap();
            assert!(talk(Some(&there), [10, 66, 0, 1], Some(netns)).is_some());
            assert_eq!(
                daemon.findings(&[container.clone(), second.clone(), third.clone()]),
                [""; 0]
            );
            let network = daemon.networks.find(driver).unwrap();
            daemon.networks.disconnect(&third, &network.id, Some(netns.as_fd())).unwrap();
            let left = within(netns, || run(&["ip", "-o", "link"]));
            assert!(!left.contains("eth1"), "{left}");

            for container in [container, second, third] {
                daemon.networks.detach(&container);
            }
            drop((one, other));
            daemon.networks.remove(driver).unwrap();
            assert!(run(&["ip", "-o", "link"]).contains("wire0"), "the operator's stays");
        }
    });
}

/// N8.
#[test]
fn a_thousand_networks_worth_of_subnets() {
    on_a_host(|| {
        let pool = AddressPool { base: "10.0.0.0/8".parse().unwrap(), size: 24 };
        let daemon = Daemon::start(NetworkConfig {
            default_address_pools: vec![pool],
            iptables: false,
            ..config("gt-many")
        });
        // Configurations take no devices; real networks do. Both in one model, each with a subnet that is its own.
        for number in 0..1000 {
            let request = CreateRequest {
                config_only: true,
                pools: vec![PoolRequest {
                    subnet: format!("10.{}.{}.0/24", number / 256, number % 256),
                    ..PoolRequest::default()
                }],
                ..named(&format!("conf{number}"))
            };
            daemon.networks.create(&request).unwrap();
        }
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..50 {
            let network = daemon.networks.create(&named(&format!("net{number}"))).unwrap();
            assert!(seen.insert(network.ipam.config[0].subnet), "each has its own");
        }
        let err = daemon
            .networks
            .create(&CreateRequest { config_from: "conf3".to_owned(), ..named("copy") })
            .unwrap_err();
        assert!(err.to_string().contains("overlaps"), "its subnet is net2's: {err}");
        assert_eq!(daemon.findings(&[]), [""; 0]);
    });
}
