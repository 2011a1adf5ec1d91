//! Networks that users make.

use std::net::Ipv4Addr;

use network::{AttachRequest, CreateRequest, EndpointRequest, PoolRequest};
use stdx::{Id, Kind};

use crate::lab::{
    Daemon, INTERNET, UPLINK, config, devices, internet, ip, on_a_host, request, run, talk, within,
};

fn named(name: &str) -> CreateRequest {
    CreateRequest { name: name.to_owned(), ..CreateRequest::default() }
}

#[test]
fn networks_are_islands() {
    on_a_host(|| {
        let internet = internet();
        let daemon = Daemon::start(config("gt-isle"));
        daemon.networks.create(&named("front")).unwrap();
        daemon.networks.create(&named("back")).unwrap();
        let (_, front) = daemon.attach("front");
        let (_, peer) = daemon.attach("front");
        let (_, back) = daemon.attach("back");
        let (_, default) = daemon.attach("bridge");
        assert_eq!(ip(&front), Ipv4Addr::new(172, 18, 0, 2));
        assert_eq!(ip(&back), Ipv4Addr::new(172, 19, 0, 2));
        assert!(talk(front.netns.as_ref(), ip(&front), peer.netns.as_ref()).is_some());
        for other in [&back, &default] {
            assert_eq!(talk(front.netns.as_ref(), ip(&front), other.netns.as_ref()), None);
            assert_eq!(talk(other.netns.as_ref(), ip(other), front.netns.as_ref()), None);
        }
        assert_eq!(talk(Some(&internet), INTERNET, front.netns.as_ref()), Some(UPLINK.into()));
    });
}

#[test]
fn internal_networks_stay_inside() {
    on_a_host(|| {
        let internet = internet();
        let daemon = Daemon::start(config("gt-inner"));
        let network =
            daemon.networks.create(&CreateRequest { internal: true, ..named("inner") }).unwrap();
        let (_, one) = daemon.attach("inner");
        let (_, other) = daemon.attach("inner");
        assert_eq!(one.endpoints[0].gateway, None);
        assert!(talk(one.netns.as_ref(), ip(&one), other.netns.as_ref()).is_some());
        let gateway = network.ipam.config[0].gateway.unwrap();
        within(one.netns.as_ref().unwrap(), || {
            run(&["ip", "route", "add", "default", "via", &gateway.to_string()]);
        });
        assert_eq!(talk(Some(&internet), INTERNET, one.netns.as_ref()), None, "not even by force");
    });
}

#[test]
fn several_networks_and_chosen_addresses() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-many"));
        let pool = PoolRequest { subnet: "10.44.0.0/24".to_owned(), ..PoolRequest::default() };
        daemon.networks.create(&CreateRequest { pools: vec![pool], ..named("own") }).unwrap();
        daemon.networks.create(&named("auto")).unwrap();
        let wish = |network: &str, ip: Option<[u8; 4]>| EndpointRequest {
            network: network.to_owned(),
            ip: ip.map(Ipv4Addr::from),
            ..EndpointRequest::default()
        };
        let attach = |networks| {
            let request = AttachRequest {
                container: Id::random(),
                name: "web".to_owned(),
                networks,
                ports: Vec::new(),
                exposed: Vec::new(),
                dns: network::files::Dns::default(),
            };
            daemon.networks.attach(&request)
        };
        let both = attach(vec![wish("own", Some([10, 44, 0, 9])), wish("auto", None)]).unwrap();
        assert_eq!(both.endpoints[1].ifname, "eth1");
        let routes = within(both.netns.as_ref().unwrap(), || run(&["ip", "route"]));
        assert_eq!(routes.matches("default").count(), 1, "{routes}");
        assert!(
            routes.starts_with("default via 172.18.0.1 dev eth1"),
            "the first by name: {routes}"
        );

        let err = attach(vec![wish("own", Some([10, 44, 0, 9]))]).unwrap_err();
        assert_eq!(
            (err.kind(), err.to_string().as_str()),
            (Kind::Forbidden, "Address already in use")
        );
        let err = attach(vec![wish("auto", Some([172, 18, 0, 9]))]).unwrap_err();
        assert_eq!(
            err.to_string(),
            "user specified IP address is supported only when connecting to networks with user configured subnets"
        );
    });
}

#[test]
fn removal_leaves_nothing_and_frees_the_subnet() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-rm"));
        let first = daemon.networks.create(&named("net")).unwrap();
        let (container, attachment) = daemon.attach("net");
        let err = daemon.networks.remove("net").unwrap_err();
        assert_eq!(
            (err.kind(), err.to_string()),
            (
                Kind::Forbidden,
                format!(
                    "error while removing network: network net has active endpoints (name:\"web\" id:\"{}\")",
                    attachment.endpoints[0].endpoint_id.short()
                )
            )
        );
        daemon.networks.detach(&container);
        daemon.networks.remove(first.id.short()).unwrap();
        assert_eq!(devices("bridge"), ["gt-rm"]);
        assert_eq!(daemon.findings(&[]), Vec::<String>::new());
        let second = daemon.networks.create(&named("net")).unwrap();
        assert_eq!(second.ipam.config[0].subnet, first.ipam.config[0].subnet);
        let err = daemon.networks.remove("bridge").unwrap_err();
        assert_eq!(err.to_string(), "bridge is a pre-defined network and cannot be removed");
    });
}

#[test]
fn they_survive_the_daemon_and_the_bridge() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-stay"));
        let network = daemon.networks.create(&named("net")).unwrap();
        let (container, attachment) = daemon.attach("net");
        run(&["ip", "link", "del", &network.bridge.as_ref().unwrap().name]);
        run(&["nft", "flush", "ruleset"]);
        let daemon = daemon.crash_and_start(config("gt-stay"));
        daemon.networks.recover(std::slice::from_ref(&container)).unwrap();
        assert_eq!(daemon.findings(&[container]), Vec::<String>::new());
        let gateway = network.bridge.as_ref().unwrap().address.unwrap().addr();
        assert!(talk(None, gateway, attachment.netns.as_ref()).is_some());
    });
}

/// N8: five containers fill a network of eight addresses, in whatever order they come and go nobody has another's; and a way
/// that the host is told of later, as a VPN does, is nobody's network.
#[test]
fn addresses_are_given_once() {
    on_a_host(|| {
        let daemon = Daemon::start(config("gt-once"));
        let pool = PoolRequest { subnet: "10.9.8.0/29".to_owned(), ..PoolRequest::default() };
        daemon.networks.create(&CreateRequest { pools: vec![pool], ..named("small") }).unwrap();
        let mut held: Vec<_> = (0..5).map(|_| daemon.attach("small")).collect();
        for round in [[4, 0, 2], [1, 3, 0], [2, 1, 2]] {
            let one_more = request(&Id::random(), "small");
            let err = daemon.networks.attach(&one_more).unwrap_err().to_string();
            assert!(err.starts_with("no available IPv4 addresses"), "{err}");
            for index in round {
                let (container, attachment) = held.remove(index.min(held.len() - 1));
                drop(attachment);
                daemon.networks.detach(&container);
            }
            while held.len() < 5 {
                held.push(daemon.attach("small"));
            }
            let mut addresses: Vec<_> = held.iter().map(|(_, one)| ip(one)).collect();
            addresses.sort();
            let all: Vec<_> = (2..7).map(|last| Ipv4Addr::new(10, 9, 8, last)).collect();
            assert_eq!(addresses, all);
        }

        run(&["ip", "link", "add", "vpn", "type", "bridge"]);
        run(&["ip", "link", "set", "vpn", "up"]);
        run(&["ip", "route", "add", "172.18.0.0/15", "dev", "vpn"]);
        let network = daemon.networks.create(&named("late")).unwrap();
        assert_eq!(network.ipam.config[0].subnet.to_string(), "172.20.0.0/16");
    });
}
