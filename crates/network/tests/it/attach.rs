//! Containers on the predefined networks.

use std::net::Ipv4Addr;

use network::{AttachRequest, EndpointRequest, NetworkConfig, namespace_at, namespace_of};
use stdx::{Id, Kind};

use crate::lab::{Daemon, config, devices, ip, on_a_host, request, run, talk, within};

#[test]
fn a_container_on_the_default_bridge() {
    on_a_host(|| {
        let daemon = Daemon::start(NetworkConfig::default());
        let (container, attachment) = daemon.attach("bridge");
        let endpoint = &attachment.endpoints[0];
        assert_eq!(endpoint.ip, Some(Ipv4Addr::new(172, 17, 0, 2)));
        assert_eq!((endpoint.prefix, endpoint.gateway), (16, Some(Ipv4Addr::new(172, 17, 0, 1))));
        assert_eq!(endpoint.mac.unwrap().to_string(), "02:42:ac:11:00:02");

        let netns = attachment.netns.as_ref().unwrap();
        within(netns, || {
            let link = run(&["ip", "-o", "link", "show", "eth0"]);
            assert!(link.contains("02:42:ac:11:00:02") && link.contains("mtu 1500"), "{link}");
            assert!(link.contains(",UP"), "{link}");
            let address = run(&["ip", "-o", "-4", "addr", "show", "eth0"]);
            assert!(address.contains("inet 172.17.0.2/16 brd 172.17.255.255"), "{address}");
            assert_eq!(
                run(&["ip", "route"]).lines().next().unwrap().trim(),
                "default via 172.17.0.1 dev eth0"
            );
            assert_eq!(run(&["ip", "-6", "-o", "addr", "show", "dev", "eth0"]), "");
            assert!(run(&["ip", "-6", "-o", "addr", "show", "dev", "lo"]).contains("::1/128"));
            let sysctl = |name: &str| {
                std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"))
                    .unwrap()
            };
            assert_eq!(
                (sysctl("all").trim(), sysctl("eth0").trim(), sysctl("lo").trim()),
                ("1", "1", "0")
            );
        });
        let gateway = Ipv4Addr::new(172, 17, 0, 1);
        assert_eq!(talk(None, gateway, Some(netns)), Some(ip(&attachment).into()));
        assert_eq!(talk(Some(netns), ip(&attachment), None), Some(gateway.into()));

        assert_eq!(devices("veth"), [endpoint.host_device()]);
        assert_eq!(run(&["ip", "-6", "-o", "addr", "show", "dev", &endpoint.host_device()]), "");
        assert_eq!(daemon.networks.connections(&container).len(), 1);
        assert_eq!(daemon.findings(&[container]), Vec::<String>::new());
    });
}

#[test]
fn two_containers_reach_each_other() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-two"));
        let (_, one) = daemon.attach("bridge");
        let (_, other) = daemon.attach("bridge");
        assert_ne!(ip(&one), ip(&other));
        assert_eq!(
            talk(one.netns.as_ref(), ip(&one), other.netns.as_ref()),
            Some(ip(&other).into())
        );
    });
}

#[test]
fn without_icc_only_the_host_is_reached() {
    on_a_host(|| {
        let daemon = Daemon::start(NetworkConfig { icc: false, ..config("gt-icc") });
        let (_, one) = daemon.attach("bridge");
        let (_, other) = daemon.attach("bridge");
        assert_eq!(talk(one.netns.as_ref(), ip(&one), other.netns.as_ref()), None);
        assert!(talk(None, Ipv4Addr::new(172, 17, 0, 1), one.netns.as_ref()).is_some());
    });
}

#[test]
fn without_icc_where_nobody_filters_bridges() {
    on_a_host(|| {
        for family in ["iptables", "ip6tables"] {
            // Absent where the kernel filters no bridges at all.
            let _absent =
                std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{family}"), "0");
        }
        let daemon = Daemon::start(NetworkConfig { icc: false, ..config("gt-apart") });
        let (_, one) = daemon.attach("bridge");
        let (_, other) = daemon.attach("bridge");
        assert_eq!(talk(one.netns.as_ref(), ip(&one), other.netns.as_ref()), None);
        assert!(talk(None, Ipv4Addr::new(172, 17, 0, 1), one.netns.as_ref()).is_some());
    });
}

#[test]
fn detach_leaves_nothing() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-leave"));
        let (container, attachment) = daemon.attach("bridge");
        daemon.networks.detach(&container);
        assert_eq!(daemon.networks.connections(&container).len(), 0);
        daemon.networks.settle();
        assert_eq!((devices("veth").len(), daemon.endpoints_recorded()), (0, 0));
        daemon.networks.detach(&container);
        drop(attachment);
        let (_, again) = daemon.attach("bridge");
        assert_eq!(ip(&again), Ipv4Addr::new(172, 17, 0, 2), "the address is free again");
    });
}

#[test]
fn attaching_again_replaces() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-again"));
        let (container, _first) = daemon.attach("bridge");
        let second = daemon.networks.attach(&request(&container, "bridge")).unwrap();
        daemon.networks.settle();
        assert_eq!(devices("veth"), [second.endpoints[0].host_device()]);
        assert_eq!(daemon.findings(&[container]), Vec::<String>::new());
    });
}

#[test]
fn a_failed_attach_leaves_nothing() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-fail"));
        // Another device has its name, in one go: a bridge that is missing is made again soon.
        let swap =
            "link set gt-fail down\\nlink set gt-fail name elsewhere\\nlink add gt-fail type ifb";
        run(&["sh", "-c", &format!("printf '{swap}\\n' | ip -batch -")]);
        let err = daemon.networks.attach(&request(&Id::random(), "bridge")).unwrap_err();
        assert!(
            err.chain().starts_with("failed to create endpoint web on network bridge: "),
            "{}",
            err.chain()
        );
        daemon.networks.settle();
        assert_eq!((devices("veth").len(), daemon.endpoints_recorded()), (0, 0));
    });
}

#[test]
fn host_and_none_and_joining() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-kinds"));
        let (container, host) = daemon.attach("host");
        assert!(host.netns.is_none());
        assert_eq!(host.endpoints[0].ip, None);
        let host_network = daemon.networks.find("host").unwrap();
        assert_eq!(daemon.networks.endpoints(&host_network.id)[0].container, container);

        let (_, none) = daemon.attach("none");
        let links = within(none.netns.as_ref().unwrap(), || run(&["ip", "-o", "link"]));
        assert!(
            links.contains("lo:") && links.contains(",UP") && !links.contains("eth0"),
            "{links}"
        );
        assert_eq!(daemon.networks.none().unwrap().endpoints.len(), 0);

        let own = namespace_of(std::process::id()).unwrap();
        drop(own);
        assert!(daemon.networks.join("/proc/self/ns/net".as_ref()).unwrap().netns.is_some());
        assert_eq!(
            namespace_at("/etc/passwd".as_ref()).unwrap_err().to_string(),
            "/etc/passwd is not a network namespace"
        );
    });
}

#[test]
fn what_predefined_networks_refuse() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-refuse"));
        let wish = |network: &str| EndpointRequest {
            network: network.to_owned(),
            ..EndpointRequest::default()
        };
        let refusal = |networks: Vec<EndpointRequest>| {
            let request = AttachRequest {
                container: Id::random(),
                name: "web".to_owned(),
                networks,
                ports: Vec::new(),
                exposed: Vec::new(),
                dns: network::files::Dns::default(),
            };
            let err = daemon.networks.attach(&request).unwrap_err();
            (err.kind(), err.to_string())
        };
        assert_eq!(
            refusal(vec![wish("nope")]),
            (Kind::NotFound, "network nope not found".to_owned())
        );
        assert_eq!(
            refusal(vec![EndpointRequest {
                ip: Some(Ipv4Addr::new(172, 17, 0, 9)),
                ..wish("bridge")
            }])
            .1,
            "user specified IP address is supported on user defined networks only"
        );
        assert_eq!(
            refusal(vec![wish("host"), wish("bridge")]).1,
            "container sharing network namespace with another container or host cannot be connected to any other network"
        );
        assert_eq!(daemon.endpoints_recorded(), 0);
    });
}

/// N8.
#[test]
fn a_small_pool_runs_dry_and_recovers() {
    on_a_host(|| {
        let bip = Some("10.77.0.1/30".parse().unwrap());
        let daemon = Daemon::start(NetworkConfig { bip, ..config("gt-dry") });
        let (container, only) = daemon.attach("bridge");
        assert_eq!(ip(&only), Ipv4Addr::new(10, 77, 0, 2));
        let err = daemon.networks.attach(&request(&Id::random(), "bridge")).unwrap_err();
        assert!(
            err.to_string().starts_with(
                "no available IPv4 addresses on this network's address pools: bridge ("
            )
        );
        daemon.networks.detach(&container);
        daemon.networks.settle();
        daemon.attach("bridge");
    });
}

/// N8.
#[test]
fn the_subnet_avoids_the_hosts_routes() {
    on_a_host(|| {
        run(&["ip", "link", "add", "docker0", "type", "bridge"]);
        run(&["ip", "addr", "add", "172.17.0.1/16", "dev", "docker0"]);
        run(&["ip", "link", "set", "docker0", "up"]);
        let daemon = Daemon::start(config("gt-avoid"));
        let (_, attachment) = daemon.attach("bridge");
        assert_eq!(ip(&attachment), Ipv4Addr::new(172, 18, 0, 2));
        assert_eq!(daemon.networks.host_gateway(), [Ipv4Addr::new(172, 18, 0, 1)]);
    });
}

#[test]
fn two_daemons_side_by_side() {
    on_a_host(|| {
        let one = Daemon::start(config("gt-left"));
        let other = Daemon::start(config("gt-right"));
        let (left, at_left) = one.attach("bridge");
        let (right, at_right) = other.attach("bridge");
        assert_ne!(ip(&at_left).octets()[..2], ip(&at_right).octets()[..2]);
        one.networks.recover(std::slice::from_ref(&left)).unwrap();
        other.networks.recover(std::slice::from_ref(&right)).unwrap();
        assert_eq!(one.findings(&[left]), Vec::<String>::new());
        assert_eq!(other.findings(&[right]), Vec::<String>::new());
        assert_eq!(devices("veth").len(), 2);
        assert_eq!(
            talk(at_left.netns.as_ref(), ip(&at_left), at_right.netns.as_ref()),
            None,
            "bridges are islands"
        );
    });
}
