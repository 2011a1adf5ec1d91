//! Addresses of plugins, written here: one counts them, one remembers nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use network::{CreateRequest, PoolRequest};
use serde_json::{Value, json};
use stdx::Id;
use testkit::{Plugin, Reply};

use crate::lab::{Daemon, ip, on_a_host, request as request_of, talk};
use crate::remote::with_plugins;

/// Gives out addresses from `.100` on, and knows who has which.
fn counter(directory: &Path) -> (Arc<Mutex<Vec<String>>>, Plugin) {
    let given = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&given);
    let plugin = Plugin::start(directory, "counter", move |method, question| {
        let mut taken = taken.lock().expect("addresses");
        let address = question["Address"].as_str().unwrap_or_default();
        Reply::Json(match method {
            "Plugin.Activate" => json!({"Implements": ["IpamDriver"]}),
            "IpamDriver.GetDefaultAddressSpaces" => {
                json!({"LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "there"})
            }
            "IpamDriver.RequestPool" if question["Options"]["full"] == "1" => {
                json!({"Error": "no pools left"})
            }
            "IpamDriver.RequestPool" => json!({"PoolID": "p1", "Pool": "10.66.0.0/24", "Data": {}}),
            "IpamDriver.RequestAddress" => {
                let fresh = format!("10.66.0.{}", 100 + taken.len());
                let given = if address.is_empty() { fresh } else { address.to_owned() };
                taken.push(given.clone());
                json!({ "Address": format!("{given}/24") })
            }
            "IpamDriver.ReleaseAddress" => {
                taken.retain(|other| other != address);
                json!({})
            }
            "IpamDriver.ReleasePool" => {
                assert_eq!(question["PoolID"], "p1");
                json!({})
            }
            _ => json!({"Err": "what?"}),
        })
    });
    (given, plugin)
}

#[test]
fn addresses_by_a_plugin() {
    on_a_host(|| {
        let dir = tempfile::tempdir().unwrap();
        let (given, plugin) = counter(dir.path());
        let daemon = Daemon::start(with_plugins("gt-ipam", dir.path()));
        let taken = || given.lock().unwrap().clone();
        let request = CreateRequest {
            name: "counted".to_owned(),
            ipam_driver: "counter".to_owned(),
            ipam_options: Some(BTreeMap::from([("shape".to_owned(), "round".to_owned())])),
            ..CreateRequest::default()
        };
        let network = daemon.networks.create(&request).unwrap();
        assert_eq!(network.ipam.driver, "counter");
        assert_eq!(network.ipam.config[0].gateway, "10.66.0.100".parse().ok());
        assert_eq!(
            plugin.asked("IpamDriver.RequestPool"),
            [
                json!({"AddressSpace": "here", "Pool": "", "SubPool": "", "Options": {"shape": "round"}, "V6": false})
            ]
        );
        let (container, one) = daemon.attach("counted");
        let (_, other) = daemon.attach("counted");
        assert_eq!(ip(&one), Ipv4Addr::new(10, 66, 0, 101));
        assert!(talk(one.netns.as_ref(), ip(&one), other.netns.as_ref()).is_some());
        let mut wish = crate::lab::request(&Id::random(), "counted");
        wish.networks[0].ip = Some(Ipv4Addr::new(10, 66, 0, 7));
        let third = daemon.networks.attach(&wish).unwrap();
        assert_eq!(ip(&third), Ipv4Addr::new(10, 66, 0, 7));
        daemon.networks.detach(&container);
        daemon.networks.detach(&wish.container);
        assert_eq!(taken(), ["10.66.0.100", "10.66.0.102"]);
        daemon.networks.detach(&other.endpoints[0].container);
        daemon.networks.remove("counted").unwrap();
        assert_eq!(taken(), [""; 0]);
        assert_eq!(plugin.asked("IpamDriver.ReleasePool").len(), 1);

        // What cannot be made keeps nothing.
        let double = CreateRequest { name: "bridge".to_owned(), ..request.clone() };
        daemon.networks.create(&double).unwrap_err();
        assert_eq!((taken().len(), plugin.asked("IpamDriver.ReleasePool").len()), (0, 2));
        let full: Value = json!({"full": "1"});
        let options = serde_json::from_value(full).unwrap();
        let full = CreateRequest { ipam_options: Some(options), ..request };
        let error = daemon.networks.create(&full).unwrap_err().chain();
        assert_eq!(error, "remote: no pools left");
        let nobody = CreateRequest { ipam_driver: "nobody".to_owned(), ..full };
        let error = daemon.networks.create(&nobody).unwrap_err().chain();
        assert_eq!(error, "plugin \"nobody\" not found");
    });
}

/// Gives what it is asked for, and has a new name for it each time. It wants to know hardware addresses.
fn forgetful(directory: &Path) -> Plugin {
    let pools = Mutex::new(0);
    Plugin::start(directory, "forgetful", move |method, question| {
        let asked_for = |key: &str| question[key].as_str().filter(|text| !text.is_empty());
        Reply::Json(match method {
            "Plugin.Activate" => json!({"Implements": ["IpamDriver"]}),
            "IpamDriver.GetCapabilities" => {
                json!({"RequiresMACAddress": true, "RequiresRequestReplay": true})
            }
            "IpamDriver.GetDefaultAddressSpaces" => json!({"LocalDefaultAddressSpace": "here"}),
            "IpamDriver.RequestPool" => {
                let mut pools = pools.lock().expect("a number");
                *pools += 1;
                let subnet = asked_for("Pool").unwrap_or("10.67.0.0/24");
                json!({"PoolID": format!("p{pools}"), "Pool": subnet})
            }
            "IpamDriver.RequestAddress" => {
                let fresh = match question["Options"]["RequestAddressType"].as_str() {
                    Some(_) => "10.67.0.1",
                    None => "10.67.0.9",
                };
                json!({"Address": format!("{}/24", asked_for("Address").unwrap_or(fresh))})
            }
            _ => json!({}),
        })
    })
}

#[test]
fn who_remembers_nothing_is_asked_again() {
    on_a_host(|| {
        let dir = tempfile::tempdir().unwrap();
        let plugin = forgetful(dir.path());
        let daemon = Daemon::start(with_plugins("gt-replay", dir.path()));
        let request = CreateRequest {
            name: "lost".to_owned(),
            ipam_driver: "forgetful".to_owned(),
            ..CreateRequest::default()
        };
        daemon.networks.create(&request).unwrap();
        let (container, one) = daemon.attach("lost");
        let mac = one.endpoints[0].mac.unwrap().to_string();
        let with_mac = json!({"com.docker.network.endpoint.macaddress": mac});
        let asked = plugin.asked("IpamDriver.RequestAddress");
        assert_eq!(asked[1], json!({"PoolID": "p1", "Address": "", "Options": with_mac}));

        let daemon = daemon.crash_and_start(with_plugins("gt-replay", dir.path()));
        let before = plugin.calls().len();
        daemon.networks.recover(std::slice::from_ref(&container)).unwrap();
        // Who wants something of it comes after that.
        daemon.networks.attach(&request_of(&Id::random(), "lost")).unwrap_err();
        let calls: Vec<(String, Value)> = plugin.calls().split_off(before);
        let gateway = json!({"RequestAddressType": "com.docker.network.gateway"});
        let address = |address: &str, options: &Value| {
            let question = json!({"PoolID": "p2", "Address": address, "Options": options});
            ("IpamDriver.RequestAddress".to_owned(), question)
        };
        let wanted = calls.iter().filter(|(method, _)| method.starts_with("IpamDriver.Request"));
        let wanted: Vec<_> = wanted.cloned().collect();
        let pool = json!({
            "AddressSpace": "here", "Pool": "10.67.0.0/24", "SubPool": "", "Options": {}, "V6": false
        });
        assert_eq!(wanted[0], ("IpamDriver.RequestPool".to_owned(), pool));
        assert_eq!(wanted[1], address("10.67.0.1", &gateway));
        assert_eq!(wanted[2], address("10.67.0.9", &with_mac));
        // It is given back under the name that it has now.
        daemon.networks.detach(&container);
        daemon.networks.remove("lost").unwrap();
        let released = plugin.asked("IpamDriver.ReleaseAddress");
        assert!(released.iter().all(|question| question["PoolID"] == "p2"), "{released:?}");
        assert_eq!(plugin.asked("IpamDriver.ReleasePool"), [json!({"PoolID": "p2"})]);
        assert_eq!(plugin.asked("IpamDriver.GetCapabilities").len(), 2);
    });
}

/// What it calls its addresses is what the driver hears.
#[test]
fn a_driver_hears_whose_addresses_they_are() {
    on_a_host(|| {
        let dir = tempfile::tempdir().unwrap();
        let _counter = counter(dir.path());
        let plugin = Plugin::start(dir.path(), "lines", |method, _| {
            Reply::Json(match method {
                "Plugin.Activate" => json!({"Implements": ["NetworkDriver"]}),
                "NetworkDriver.GetCapabilities" => json!({"Scope": "local"}),
                "NetworkDriver.CreateEndpoint" => json!({"Err": "no room"}),
                _ => json!({}),
            })
        });
        let daemon = Daemon::start(with_plugins("gt-space", dir.path()));
        let request = CreateRequest {
            name: "spaced".to_owned(),
            driver: "lines".to_owned(),
            ipam_driver: "counter".to_owned(),
            ..CreateRequest::default()
        };
        daemon.networks.create(&request).unwrap();
        let made = &plugin.asked("NetworkDriver.CreateNetwork")[0];
        assert_eq!(made["IPv4Data"][0]["AddressSpace"], "here");
        let request = request_of(&Id::random(), "spaced");
        let error = daemon.networks.attach(&request).unwrap_err().chain();
        assert_eq!(error, "failed to create endpoint web on network spaced: remote: no room");
    });
}

/// A plugin does not know the host's routes.
#[test]
fn a_pool_that_overlaps_is_changed_for_another() {
    on_a_host(|| {
        let dir = tempfile::tempdir().unwrap();
        let given = Mutex::new(0);
        let plugin = Plugin::start(dir.path(), "blind", move |method, question| {
            Reply::Json(match method {
                "Plugin.Activate" => json!({"Implements": ["IpamDriver"]}),
                "IpamDriver.RequestPool" if question["Options"]["only"] == "1" => {
                    json!({"PoolID": "only", "Pool": "10.68.0.0/24"})
                }
                "IpamDriver.RequestPool" => {
                    let mut given = given.lock().expect("a number");
                    *given += 1;
                    json!({"PoolID": format!("p{given}"), "Pool": format!("10.68.{given}.0/24")})
                }
                "IpamDriver.RequestAddress" => json!({"Address": "10.68.2.1/24"}),
                _ => json!({}),
            })
        });
        crate::lab::run(&["ip", "link", "add", "lan", "type", "bridge"]);
        crate::lab::run(&["ip", "link", "set", "lan", "up"]);
        crate::lab::run(&["ip", "addr", "add", "10.68.0.9/23", "dev", "lan"]);
        let daemon = Daemon::start(with_plugins("gt-blind", dir.path()));
        let request = CreateRequest {
            name: "free".to_owned(),
            ipam_driver: "blind".to_owned(),
            ..CreateRequest::default()
        };
        let network = daemon.networks.create(&request).unwrap();
        assert_eq!(network.ipam.config[0].subnet.to_string(), "10.68.2.0/24");
        assert_eq!(plugin.asked("IpamDriver.ReleasePool"), [json!({"PoolID": "p1"})]);
        // One that has no other is not asked for ever.
        let only = BTreeMap::from([("only".to_owned(), "1".to_owned())]);
        let only =
            CreateRequest { name: "only".to_owned(), ipam_options: Some(only), ..request.clone() };
        let error = daemon.networks.create(&only).unwrap_err().chain();
        assert_eq!(
            error,
            "the pool 10.68.0.0/24 from the IPAM driver overlaps with a network or a route of this host"
        );
        // What was chosen is the chooser's affair.
        let chosen = PoolRequest { subnet: "10.68.0.0/24".to_owned(), ..PoolRequest::default() };
        let chosen = CreateRequest { name: "chosen".to_owned(), pools: vec![chosen], ..only };
        let error = daemon.networks.create(&chosen).unwrap_err().chain();
        assert!(error.contains("is not in its pool"), "{error}");
    });
}

#[test]
fn what_is_not_taken_back_keeps_nothing_else() {
    on_a_host(|| {
        let dir = tempfile::tempdir().unwrap();
        let plugin = Plugin::start(dir.path(), "miser", |method, question| {
            let address = question["Address"].as_str().filter(|text| !text.is_empty());
            Reply::Json(match method {
                "Plugin.Activate" => json!({"Implements": ["IpamDriver"]}),
                "IpamDriver.RequestPool" => json!({"PoolID": "p", "Pool": "10.69.0.0/24"}),
                "IpamDriver.RequestAddress" => {
                    json!({"Address": format!("{}/24", address.unwrap_or("10.69.0.1"))})
                }
                "IpamDriver.ReleaseAddress" => json!({"Err": "mine"}),
                _ => json!({}),
            })
        });
        let daemon = Daemon::start(with_plugins("gt-miser", dir.path()));
        let auxiliary = BTreeMap::from([("a".to_owned(), "10.69.0.7".to_owned())]);
        let pool =
            PoolRequest { subnet: "10.69.0.0/24".to_owned(), auxiliary, ..PoolRequest::default() };
        let request = CreateRequest {
            name: "lent".to_owned(),
            ipam_driver: "miser".to_owned(),
            pools: vec![pool],
            ..CreateRequest::default()
        };
        daemon.networks.create(&request).unwrap();
        daemon.networks.remove("lent").unwrap();
        assert_eq!(plugin.asked("IpamDriver.ReleaseAddress").len(), 2);
        assert_eq!(plugin.asked("IpamDriver.ReleasePool").len(), 1);
    });
}
