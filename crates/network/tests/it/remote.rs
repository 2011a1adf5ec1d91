//! Networks of plugins, written here: one makes pairs of devices, one knows its addresses itself.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use network::{
    CreateRequest, EndpointRequest, NetworkConfig, PoolRequest, PortRequest, Protocol, Scope,
};
use plugin::{Places, Plugins};
use serde_json::json;
use stdx::Id;
use testkit::{Plugin, Reply};

use crate::lab::{Daemon, config, ip, on_a_host, run, talk, within};

/// A driver whose networks are bridges called `pb`, and whose devices are pairs with an end on it.
fn wires(directory: &Path) -> Plugin {
    let numbers = Mutex::new(BTreeMap::new());
    // Its threads are on the host that the test has made, as the test is.
    Plugin::start(directory, "wires", move |method, question| {
        let mut numbers = numbers.lock().expect("numbers");
        let next = numbers.len();
        let number = match question["EndpointID"].as_str() {
            Some(endpoint) => *numbers.entry(endpoint.to_owned()).or_insert(next),
            None => 0,
        };
        match method {
            "Plugin.Activate" => {
                Reply::Json(json!({"Implements": ["NetworkDriver", "IpamDriver"]}))
            }
            "NetworkDriver.GetCapabilities" => Reply::Json(json!({"Scope": "global"})),
            "NetworkDriver.CreateNetwork" => {
                let gateway =
                    question["IPv4Data"][0]["Gateway"].as_str().expect("a gateway").to_owned();
                run(&["ip", "link", "add", "pb", "type", "bridge"]);
                run(&["ip", "addr", "add", &gateway, "dev", "pb"]);
                run(&["ip", "link", "set", "pb", "up"]);
                Reply::Json(json!({}))
            }
            "NetworkDriver.DeleteNetwork" => {
                run(&["ip", "link", "del", "pb"]);
                Reply::Json(json!({}))
            }
            "NetworkDriver.CreateEndpoint" => Reply::Json(json!({
                "Interface": {"MacAddress": format!("02:00:00:00:00:{number:02x}")}
            })),
            "NetworkDriver.Join" => {
                let (ours, theirs) = (format!("po{number}"), format!("pc{number}"));
                run(&["ip", "link", "add", &ours, "type", "veth", "peer", "name", &theirs]);
                run(&["ip", "link", "set", &ours, "master", "pb", "up"]);
                Reply::Json(json!({
                    "InterfaceName": {"SrcName": theirs, "DstPrefix": "wire"},
                    "Gateway": "10.77.0.1",
                    "StaticRoutes": [
                        {"Destination": "10.78.0.0/16", "RouteType": 0, "NextHop": "10.77.0.9"},
                        {"Destination": "10.79.0.0/16", "RouteType": 1, "NextHop": ""},
                    ],
                }))
            }
            "NetworkDriver.Leave" | "NetworkDriver.DeleteEndpoint" => Reply::Json(json!({})),
            _ => Reply::Refuse(404, json!("page not found")),
        }
    })
}

pub(crate) fn with_plugins(bridge: &str, directory: &Path) -> NetworkConfig {
    let plugins = Plugins::new(Places::only(&[directory.to_owned()]));
    NetworkConfig { plugins: Some(Arc::new(plugins)), ..config(bridge) }
}

fn wired(name: &str) -> CreateRequest {
    CreateRequest {
        name: name.to_owned(),
        driver: "wires".to_owned(),
        pools: vec![PoolRequest {
            subnet: "10.77.0.0/24".to_owned(),
            gateway: "10.77.0.1".to_owned(),
            ..PoolRequest::default()
        }],
        options: BTreeMap::from([("colour".to_owned(), "red".to_owned())]),
        ..CreateRequest::default()
    }
}

fn asked(plugin: &Plugin) -> Vec<String> {
    let network = |method: &String| {
        method.split_once('.').filter(|(who, _)| *who != "Plugin").map(|(_, what)| what.to_owned())
    };
    plugin.calls().iter().filter_map(|(method, _)| network(method)).collect()
}

#[test]
fn a_plugins_device_becomes_the_containers() {
    on_a_host(|| {
        let dir = tempfile::tempdir().unwrap();
        let plugin = wires(dir.path());
        let daemon = Daemon::start(with_plugins("gt-remote", dir.path()));
        let network = daemon.networks.create(&wired("red")).unwrap();
        assert_eq!((network.driver_name(), network.scope), ("wires", Scope::Global));
        let made = &plugin.asked("NetworkDriver.CreateNetwork")[0];
        assert_eq!(made["Options"]["com.docker.network.generic"], json!({"colour": "red"}));
        assert_eq!(
            made["IPv4Data"],
            json!([{"AddressSpace": "LocalDefault", "Pool": "10.77.0.0/24", "Gateway": "10.77.0.1/24"}])
        );
        let container = Id::random();
        let mut request = crate::lab::request(&container, "red");
        request.ports.push(PortRequest {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ip: None,
            host_ports: Some(8080..=8090),
        });
        let one = daemon.networks.attach(&request).unwrap();
        let (_, other) = daemon.attach("red");
        let outside = &plugin.asked("NetworkDriver.ProgramExternalConnectivity")[0]["Options"];
        assert_eq!(
            outside["com.docker.network.portmap"],
            json!([{"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8090}])
        );
        let endpoint = &one.endpoints[0];
        assert_eq!((endpoint.ifname.as_str(), ip(&one)), ("wire0", Ipv4Addr::new(10, 77, 0, 2)));
        assert_eq!(endpoint.mac.unwrap().to_string(), "02:00:00:00:00:00");
        assert!(talk(one.netns.as_ref(), ip(&one), other.netns.as_ref()).is_some());
        assert!(talk(None, Ipv4Addr::new(10, 77, 0, 1), one.netns.as_ref()).is_some());
        let netns = one.netns.as_ref().unwrap();
        let routes = within(netns, || run(&["ip", "-4", "route"]));
        let routes: Vec<&str> = routes.lines().map(str::trim).collect();
        assert_eq!(
            routes,
            [
                "default via 10.77.0.1 dev wire0",
                "10.77.0.0/24 dev wire0 proto kernel scope link src 10.77.0.2",
                "10.78.0.0/16 via 10.77.0.9 dev wire0",
                "10.79.0.0/16 dev wire0 scope link",
            ]
        );
        let device = within(netns, || run(&["ip", "link", "show", "wire0"]));
        assert!(device.contains("02:00:00:00:00:00"), "{device}");
        let join = &plugin.asked("NetworkDriver.Join")[0];
        assert_eq!(join["EndpointID"], json!(endpoint.endpoint_id));
        let before = asked(&plugin).len();
        daemon.networks.detach(&container);
        // Whoever detaches has told the plugin when he returns.
        let after = asked(&plugin).split_off(before);
        assert_eq!(after, ["RevokeExternalConnectivity", "Leave", "DeleteEndpoint"]);
        daemon.networks.detach(&other.endpoints[0].container);
        daemon.networks.remove("red").unwrap();
        assert_eq!(asked(&plugin).last().unwrap(), "DeleteNetwork");
        assert_eq!(daemon.endpoints_recorded(), 0);
    });
}

/// Who publishes ports has to know of them, and that he is to do it: with two, both would want the same.
#[test]
fn who_leads_out_publishes() {
    on_a_host(|| {
        let dir = tempfile::tempdir().unwrap();
        let plugin = wires(dir.path());
        let daemon = Daemon::start(with_plugins("gt-leads", dir.path()));
        let network = daemon.networks.create(&wired("red")).unwrap();
        let container = Id::random();
        let mut request = crate::lab::request(&container, "red");
        request.ports.push(PortRequest {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ip: None,
            host_ports: Some(8080..=8080),
        });
        request.exposed = vec![(Protocol::Udp, 53)];
        let attachment = daemon.networks.attach(&request).unwrap();
        let netns = attachment.netns.as_ref().unwrap();
        let exposed = json!([{"Proto": 6, "Port": 80}, {"Proto": 17, "Port": 53}]);
        let told = |method: &str| plugin.asked(&format!("NetworkDriver.{method}"));
        for method in ["CreateEndpoint", "Join", "ProgramExternalConnectivity"] {
            let options = &told(method)[0]["Options"];
            assert_eq!(options["com.docker.network.endpoint.exposedports"], exposed, "{method}");
        }
        // Another one leads out, and then it does again.
        let mut wish = crate::lab::request(&container, "bridge").networks.remove(0);
        wish.gw_priority = 1;
        let bridge = daemon
            .networks
            .connect(&container, "web", &wish, &request.ports, netns.as_fd())
            .unwrap();
        let both = network::AttachRequest {
            networks: vec![request.networks[0].clone(), wish],
            ..request.clone()
        };
        daemon.networks.attend(&both, netns.as_fd()).unwrap();
        assert_eq!(told("RevokeExternalConnectivity").len(), 1);
        daemon.networks.disconnect(&container, &bridge.network_id, Some(netns.as_fd())).unwrap();
        daemon.networks.attend(&request, netns.as_fd()).unwrap();
        assert_eq!(told("ProgramExternalConnectivity").len(), 2);
        assert_eq!(told("Join").len(), 1);
        daemon.networks.detach(&container);
        assert_eq!(told("RevokeExternalConnectivity").len(), 2);

        // Beside one that leads out already, it is asked for nothing of that kind; nor does it hear of its end.
        let mut wishes = crate::lab::request(&Id::random(), "bridge");
        wishes.networks[0].gw_priority = 1;
        wishes.networks.push(request.networks[0].clone());
        wishes.ports = request.ports.clone();
        daemon.networks.attach(&wishes).unwrap();
        daemon.networks.detach(&wishes.container);
        assert_eq!(told("ProgramExternalConnectivity").len(), 2);
        assert_eq!(told("RevokeExternalConnectivity").len(), 2);
        daemon.networks.remove(network.id.as_str()).unwrap();
    });
}

#[test]
fn more_and_fewer_while_it_runs() {
    on_a_host(|| {
        let dir = tempfile::tempdir().unwrap();
        let plugin = wires(dir.path());
        let daemon = Daemon::start(with_plugins("gt-remote2", dir.path()));
        let network = daemon.networks.create(&wired("red")).unwrap();
        let (container, attachment) = daemon.attach("bridge");
        let netns = attachment.netns.as_ref().unwrap();
        let wish = EndpointRequest { network: "red".to_owned(), ..EndpointRequest::default() };
        daemon.networks.connect(&container, "web", &wish, &[], netns.as_fd()).unwrap();
        let there = || within(netns, || run(&["ip", "-o", "link"])).contains("wire0");
        assert!(there());
        daemon.networks.disconnect(&container, &network.id, Some(netns.as_fd())).unwrap();
        assert!(!there());
        // The device is the plugin's again, under the name that it has given it.
        assert!(run(&["ip", "-o", "link"]).contains("pc0"));
        assert!(asked(&plugin).contains(&"DeleteEndpoint".to_owned()));
        assert_eq!(daemon.endpoints_recorded(), 1);
    });
}

#[test]
fn what_a_dead_daemon_had_is_over() {
    on_a_host(|| {
        let dir = tempfile::tempdir().unwrap();
        let plugin = wires(dir.path());
        let daemon = Daemon::start(with_plugins("gt-remote3", dir.path()));
        daemon.networks.create(&wired("red")).unwrap();
        let (living, _kept) = daemon.attach("red");
        let (_, dead) = daemon.attach("red");
        let dead = dead.endpoints[0].endpoint_id.clone();
        let daemon = daemon.crash_and_start(with_plugins("gt-remote3", dir.path()));
        daemon.networks.recover(std::slice::from_ref(&living)).unwrap();
        assert_eq!(plugin.asked("NetworkDriver.CreateNetwork").len(), 1);
        let over = plugin.asked("NetworkDriver.DeleteEndpoint");
        assert_eq!(over.len(), 1);
        assert_eq!(over[0]["EndpointID"], json!(dead));
        assert_eq!(daemon.findings(&[living]), [""; 0]);
    });
}

/// Each of these is an answer to `Join`.
#[test]
fn what_a_plugin_says_is_looked_at() {
    on_a_host(|| {
        let answer = Arc::new(Mutex::new(json!({})));
        let said = Arc::clone(&answer);
        let dir = tempfile::tempdir().unwrap();
        let plugin = Plugin::start(dir.path(), "odd", move |method, _| match method {
            "Plugin.Activate" => Reply::Json(json!({"Implements": ["NetworkDriver"]})),
            "NetworkDriver.GetCapabilities" => Reply::Json(json!({"Scope": "local"})),
            "NetworkDriver.Join" => Reply::Json(said.lock().unwrap().clone()),
            _ => Reply::Json(json!({})),
        });
        let daemon = Daemon::start(with_plugins("gt-remote4", dir.path()));
        let request = CreateRequest { driver: "odd".to_owned(), ..wired("odd") };
        daemon.networks.create(&request).unwrap();
        for (told, words) in [
            (json!({"Err": "no room"}), "remote: no room"),
            (json!({"Gateway": "x"}), "unable to parse Gateway \"x\""),
            (
                json!({"InterfaceName": {"SrcName": "../x", "DstPrefix": "eth"}}),
                "failed to set interface name",
            ),
            (
                json!({"InterfaceName": {"SrcName": "nothere", "DstPrefix": "eth"}}),
                "the driver's interface nothere does not exist",
            ),
        ] {
            *answer.lock().unwrap() = told;
            let container = Id::random();
            let request = crate::lab::request(&container, "odd");
            let error = daemon.networks.attach(&request).unwrap_err().chain();
            assert!(error.contains(words), "{error}");
            daemon.networks.settle();
            assert_eq!(daemon.endpoints_recorded(), 0);
        }
        let count = |method: &str| plugin.asked(&format!("NetworkDriver.{method}")).len();
        assert_eq!((count("CreateEndpoint"), count("DeleteEndpoint")), (4, 4));
        let nobody = CreateRequest { driver: "nobody".to_owned(), ..wired("n") };
        let error = daemon.networks.create(&nobody).unwrap_err().chain();
        assert_eq!(error, "plugin \"nobody\" not found");
    });
}

/// As a plugin that asks a DHCP server.
#[test]
fn addresses_that_only_the_driver_knows() {
    on_a_host(|| {
        let dir = tempfile::tempdir().unwrap();
        let plugin = Plugin::start(dir.path(), "dhcp", |method, _| {
            Reply::Json(match method {
                "Plugin.Activate" => json!({"Implements": ["NetworkDriver"]}),
                "NetworkDriver.GetCapabilities" => {
                    json!({"Scope": "local", "ConnectivityScope": "global", "GwAllocChecker": true})
                }
                "NetworkDriver.GwAllocCheck" => json!({"SkipIPv4": true, "SkipIPv6": false}),
                "NetworkDriver.CreateEndpoint" => {
                    json!({"Interface": {"Address": "10.64.7.9/16"}})
                }
                "NetworkDriver.Join" => {
                    run(&["ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1"]);
                    json!({"InterfaceName": {"SrcName": "d1", "DstPrefix": "eth"}, "Gateway": "10.64.0.1"})
                }
                "NetworkDriver.EndpointOperInfo" => json!({"Value": {"lease": "an hour"}}),
                _ => json!({}),
            })
        });
        let daemon = Daemon::start(with_plugins("gt-null", dir.path()));
        let request = CreateRequest {
            name: "lan".to_owned(),
            driver: "dhcp".to_owned(),
            ipam_driver: "null".to_owned(),
            options: BTreeMap::from([("bridge".to_owned(), "lan0".to_owned())]),
            ..CreateRequest::default()
        };
        let network = daemon.networks.create(&request).unwrap();
        let made = &plugin.asked("NetworkDriver.CreateNetwork")[0];
        assert_eq!(made["IPv4Data"], json!([{"AddressSpace": "null", "Pool": "0.0.0.0/0"}]));
        let options = &plugin.asked("NetworkDriver.GwAllocCheck")[0]["Options"];
        assert_eq!(options["com.docker.network.generic"], json!({"bridge": "lan0"}));
        let (container, attachment) = daemon.attach("lan");
        let asked_for = &plugin.asked("NetworkDriver.CreateEndpoint")[0]["Interface"];
        assert_eq!(*asked_for, json!({"Address": "", "AddressIPv6": "", "MacAddress": ""}));
        assert_eq!(ip(&attachment), Ipv4Addr::new(10, 64, 7, 9));
        let netns = attachment.netns.as_ref().unwrap();
        let routes = within(netns, || run(&["ip", "-4", "route"]));
        assert!(routes.contains("default via 10.64.0.1 dev eth0"), "{routes}");
        let endpoint = &attachment.endpoints[0].endpoint_id;
        assert_eq!(
            plugin.asked("NetworkDriver.EndpointOperInfo"),
            [json!({"NetworkID": network.id, "EndpointID": endpoint})]
        );
        assert!(daemon.networks.usage(&network).is_empty());
        // All addresses there are overlap with nobody's.
        let other = CreateRequest { name: "other".to_owned(), ..CreateRequest::default() };
        daemon.networks.create(&other).unwrap();
        assert_eq!(daemon.findings(&[container]), [""; 0]);

        // A gateway that is not needed is not taken.
        let numbered =
            CreateRequest { ipam_driver: String::new(), name: "own".to_owned(), ..request };
        assert_eq!(daemon.networks.create(&numbered).unwrap().ipam.config[0].gateway, None);
    });
}
