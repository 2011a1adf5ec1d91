//! A network whose driver and addresses are a plugin's, under the real docker command.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use testkit::house::{shown, succeed};
use testkit::{House, Netns, Plugin, Reply};

/// A driver whose network is a bridge, and whose addresses are counted from `.50` on.
fn wires(directory: &std::path::Path, netns: &Arc<Netns>) -> Plugin {
    let (numbers, host) = (Mutex::new(BTreeMap::new()), Arc::clone(netns));
    let next_address = Mutex::new(50);
    let ip = move |args: &str| {
        let mut command: Command = host.command("ip");
        command.args(args.split(' '));
        succeed(command);
    };
    Plugin::start(directory, "wires", move |method, question| {
        let mut numbers = numbers.lock().expect("numbers");
        let next = numbers.len();
        let number = match question["EndpointID"].as_str() {
            Some(endpoint) => *numbers.entry(endpoint.to_owned()).or_insert(next),
            None => 0,
        };
        let counted = || {
            let mut next = next_address.lock().expect("a number");
            *next += 1;
            format!("10.91.0.{next}/24")
        };
        Reply::Json(match method {
            "Plugin.Activate" => json!({"Implements": ["NetworkDriver", "IpamDriver"]}),
            "NetworkDriver.GetCapabilities" => json!({"Scope": "local"}),
            "NetworkDriver.CreateNetwork" => {
                ip("link add pb0 type bridge");
                ip("link set pb0 up");
                json!({})
            }
            "NetworkDriver.DeleteNetwork" => {
                ip("link del pb0");
                json!({})
            }
            "NetworkDriver.Join" => {
                ip(&format!("link add po{number} type veth peer name pc{number}"));
                ip(&format!("link set po{number} master pb0 up"));
                json!({"InterfaceName": {"SrcName": format!("pc{number}"), "DstPrefix": "wire"}})
            }
            "IpamDriver.GetDefaultAddressSpaces" => json!({"LocalDefaultAddressSpace": "here"}),
            "IpamDriver.RequestPool" => json!({"PoolID": "p", "Pool": "10.91.0.0/24"}),
            "IpamDriver.RequestAddress" => match question["Address"].as_str() {
                None | Some("") => json!({ "Address": counted() }),
                Some(wanted) => json!({ "Address": format!("{wanted}/24") }),
            },
            _ => json!({}),
        })
    })
}

#[test]
fn made_joined_left_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let netns = Arc::new(Netns::new());
    let plugin = wires(dir.path(), &netns);
    let places = dir.path().to_str().expect("a path in UTF-8");
    let mut house = House::within_with(&netns, &["--plugin-directory", places]);
    house.load(&testkit::TestImage::busybox().docker_archive(&["busybox:latest"]));
    let create = ["network", "create", "-d", "wires", "--ipam-driver", "wires", "-o", "a=b", "red"];
    house.ok(&create);
    let list =
        house.ok(&["network", "ls", "-f", "driver=wires", "--format", "{{.Name}} {{.Scope}}"]);
    assert_eq!(list, "red local\n");
    let red: Value = serde_json::from_str(&house.ok(&["network", "inspect", "red"])).expect("JSON");
    assert_eq!(red[0]["IPAM"]["Driver"], json!("wires"));
    assert_eq!(
        red[0]["IPAM"]["Config"],
        json!([{"Subnet": "10.91.0.0/24", "Gateway": "10.91.0.51"}])
    );
    assert!(house.ok(&["info", "-f", "{{.Plugins.Network}}"]).contains("wires"));

    let run = ["run", "-d", "--name", "ca", "--network", "red", "-p", "127.0.0.1:18080:80"];
    house.ok(&[&run[..], &["busybox", "sleep", "1000"]].concat());
    let seen = house.ok(&["exec", "ca", "ip", "-4", "-o", "addr", "show", "wire0"]);
    assert!(seen.contains("10.91.0.52/24"), "{seen}");
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    assert_eq!(house.ok(&["inspect", "-f", address, "ca"]), "10.91.0.52\n");
    // The plugin leads nowhere: what leads out is ours, and is not shown with the container.
    let first = "{{(index .IPAM.Config 0).Gateway}}";
    let gateway = house.ok(&["network", "inspect", "-f", first, "docker_gwbridge"]);
    let routes = house.ok(&["exec", "ca", "ip", "route"]);
    assert!(routes.contains(&format!("default via {} dev eth0", gateway.trim())), "{routes}");
    house.ok(&["exec", "ca", "ping", "-c", "1", "-w", "20", gateway.trim()]);
    assert_eq!(house.ok(&["port", "ca"]), "80/tcp -> 127.0.0.1:18080\n");
    let ping = ["busybox", "ping", "-c", "1", "-w", "20", "10.91.0.52"];
    house.ok(&[&["run", "--rm", "--network", "red", "--ip", "10.91.0.9"][..], &ping].concat());
    assert_eq!(
        plugin.asked("IpamDriver.ReleaseAddress"),
        [json!({"PoolID": "p", "Address": "10.91.0.9"})]
    );

    // The next daemon has what this one had.
    house.kill();
    house.start();
    house.ok(&["exec", "ca", "ip", "link", "show", "wire0"]);
    let busy = house.docker(&["network", "rm", "red"]).output().expect("docker");
    assert!(shown(&busy).contains("has active endpoints"), "{}", shown(&busy));
    house.ok(&["rm", "-f", "ca"]);
    house.ok(&["network", "rm", "red", "docker_gwbridge"]);
    let count = |method: &str| plugin.asked(method).len();
    assert_eq!(count("NetworkDriver.CreateEndpoint"), count("NetworkDriver.DeleteEndpoint"));
    assert_eq!(count("NetworkDriver.DeleteNetwork"), 1);
    assert_eq!(count("IpamDriver.RequestAddress"), count("IpamDriver.ReleaseAddress"));
    assert_eq!(count("IpamDriver.ReleasePool"), 1);

    // Who gives out no addresses leaves them to the driver.
    house.ok(&["network", "create", "-d", "wires", "--ipam-driver", "null", "blue"]);
    let blue: Value =
        serde_json::from_str(&house.ok(&["network", "inspect", "blue"])).expect("JSON");
    assert_eq!(
        blue[0]["IPAM"],
        json!({"Driver": "null", "Options": {}, "Config": [{"Subnet": "0.0.0.0/0"}]})
    );
    let bare = ["run", "--rm", "--network", "blue", "busybox", "ip", "-o", "addr", "show", "wire0"];
    assert_eq!(house.ok(&bare), "");
    house.ok(&["network", "rm", "blue"]);
    let nobody =
        house.docker(&["network", "create", "-d", "nobody", "n"]).output().expect("docker");
    let words = "Error response from daemon: plugin \"nobody\" not found";
    assert_eq!(shown(&nobody).trim(), words);
}
