//! What networks are asked for, and what becomes of it.

use std::collections::BTreeMap;

use stdx::Kind;

use super::bridge::*;
use super::*;
use crate::records::{
    BridgeDevice, GatewayMode, IpvlanFlag, IpvlanMode, MacvlanMode, ParentOrigin, ShareMode,
};

fn link(name: &str, kind: &str) -> Link {
    Link {
        index: 7,
        name: name.to_owned(),
        up: true,
        mtu: 1500,
        master: None,
        kind: kind.to_owned(),
    }
}

fn planned_beside(
    networks: Vec<&Network>,
    change: impl FnOnce(&mut CreateRequest),
) -> Result<Network> {
    planned_with(networks, None, change)
}

fn planned_with(
    networks: Vec<&Network>,
    plugin: Option<Character>,
    change: impl FnOnce(&mut CreateRequest),
) -> Result<Network> {
    let mut request = CreateRequest { name: "net".to_owned(), ..CreateRequest::default() };
    change(&mut request);
    let mut pools = AddressPool::docker();
    pools.push(AddressPool { base: "fd00:aa:bb::/48".parse().unwrap(), size: 64 });
    let default_options = BTreeMap::from([(
        "macvlan".to_owned(),
        BTreeMap::from([("parent".to_owned(), "eth0".to_owned())]),
    )]);
    plan(
        &request,
        &Surroundings {
            networks,
            devices: &[link("docker0", "bridge"), link("eth0", ""), link("veth0", "veth")],
            routes: &["172.17.0.0/16".parse().unwrap(), "fd00:aa:bb::/64".parse().unwrap()],
            default_pools: &pools,
            default_options: &default_options,
            plugin,
            pools: None,
        },
    )
}

#[track_caller]
fn planned(change: impl FnOnce(&mut CreateRequest)) -> Network {
    planned_beside(Vec::new(), change).unwrap()
}

fn subnet(subnet: &str, ip_range: &str, gateway: &str) -> PoolRequest {
    PoolRequest {
        subnet: subnet.to_owned(),
        ip_range: ip_range.to_owned(),
        gateway: gateway.to_owned(),
        auxiliary: BTreeMap::new(),
    }
}

fn option(request: &mut CreateRequest, name: &str, value: &str) {
    request.options.insert(name.to_owned(), value.to_owned());
}

#[track_caller]
fn refused(change: impl FnOnce(&mut CreateRequest), kind: Kind, words: &str) {
    let existing = planned(|request| {
        request.name = "taken".to_owned();
        request.pools = vec![subnet("10.1.0.0/16", "", "")];
        option(request, NAME, "br-taken");
    });
    let err = planned_beside(vec![&existing], change).unwrap_err();
    let words = words.replace("{id}", existing.id.as_str());
    let told = err.to_string();
    let told = match told.split_once("create network ") {
        Some((before, rest)) => format!("{before}create network NEW{}", &rest[64..]),
        None => told,
    };
    assert_eq!((err.kind(), told), (kind, words));
}

#[track_caller]
fn subnets(network: &Network) -> Vec<String> {
    let shown = |pool: &IpamPool| {
        let gateway = pool.gateway.map(|ip| ip.to_string()).unwrap_or_default();
        format!("{} {gateway}", pool.subnet).trim().to_owned()
    };
    network.ipam.config.iter().map(shown).collect()
}

#[test]
fn nothing_chosen() {
    let network = planned(|_| {});
    assert_eq!(subnets(&network), ["172.18.0.0/16 172.18.0.1"]);
    assert!(!network.ipam.config[0].chosen);
    let bridge = network.bridge.as_ref().unwrap();
    assert_eq!(bridge.address.unwrap().to_string(), "172.18.0.1/16");
    assert_eq!(bridge.name, format!("br-{}", network.id.short()));
    assert!(bridge.icc && bridge.masquerade && bridge.ours && bridge.mtu == 1500);
}

#[test]
fn both_families() {
    let network = planned(|request| request.enable_ipv6 = Some(true));
    assert_eq!(
        subnets(&network),
        ["172.18.0.0/16 172.18.0.1", "fd00:aa:bb:1::/64 fd00:aa:bb:1::1"]
    );
    assert_eq!(network.bridge.unwrap().address6.unwrap().to_string(), "fd00:aa:bb:1::1/64");
    let six = planned(|request| {
        request.enable_ipv4 = Some(false);
        request.enable_ipv6 = Some(true);
        request.pools = vec![subnet("2001:db8::/64", "2001:db8::ff00/120", "")];
    });
    assert_eq!(subnets(&six), ["2001:db8::/64 2001:db8::ff00"]);
    assert_eq!(six.bridge.unwrap().address, None);
    let ignored = planned(|request| request.pools = vec![subnet("2001:db8::/64", "", "")]);
    assert_eq!(subnets(&ignored), ["172.18.0.0/16 172.18.0.1"]);
    let by_option = planned(|request| option(request, ENABLE_IPV6, "1"));
    assert!(by_option.enable_ipv6);
}

#[test]
fn everything_chosen() {
    let network = planned(|request| {
        request.internal = true;
        request.pools = vec![subnet("10.5.0.0/24", "10.5.0.128/25", "10.5.0.254")];
        for (name, value) in [
            (NAME, "mine0"),
            (ICC, "false"),
            (MASQUERADE, "F"),
            (DRIVER_MTU, "1400"),
            (GATEWAY_MODE, "routed"),
            (GATEWAY_MODE6, "nat-unprotected"),
            (HOST_BINDING, "127.0.0.1"),
            (HOST_IPV4, "192.0.2.1"),
            (TRUSTED, "eth0:eth1"),
            (CONTAINER_PREFIX, "lan"),
        ] {
            option(request, name, value);
        }
    });
    assert_eq!(
        network.bridge.unwrap(),
        BridgeDevice {
            name: "mine0".to_owned(),
            address: "10.5.0.254/24".parse().ok(),
            mtu: 1400,
            icc: false,
            masquerade: false,
            masquerade6: false,
            gateway_mode: GatewayMode::Routed,
            gateway_mode6: GatewayMode::NatUnprotected,
            host_binding: "127.0.0.1".parse().ok(),
            host_ip: "192.0.2.1".parse().ok(),
            trusted: vec!["eth0".to_owned(), "eth1".to_owned()],
            container_prefix: "lan".to_owned(),
            ..BridgeDevice::default()
        }
    );
    assert!(network.ipam.config[0].chosen);
}

#[test]
fn hosts_that_keep_out() {
    let isolated = planned(|request| {
        request.internal = true;
        option(request, GATEWAY_MODE, "isolated");
    });
    assert_eq!(subnets(&isolated), ["172.18.0.0/16"]);
    assert_eq!(isolated.bridge.unwrap().address, None);
    let inhibited = planned(|request| option(request, INHIBIT_IPV4, "true"));
    assert_eq!(subnets(&inhibited), ["172.18.0.0/16 172.18.0.1"]);
    assert_eq!(inhibited.bridge.unwrap().address, None);
    let existing = planned(|request| option(request, NAME, "docker0"));
    assert!(!existing.bridge.unwrap().ours, "an operator's bridge stays one");
}

#[test]
fn configurations() {
    let configuration = planned(|request| {
        request.name = "conf".to_owned();
        request.config_only = true;
        request.enable_ipv6 = Some(true);
        request.pools = vec![subnet("10.9.0.0/24", "", ""), subnet("fd01::/64", "", "")];
        request.labels.insert("a".to_owned(), "b".to_owned());
        option(request, DRIVER_MTU, "1300");
    });
    assert_eq!((configuration.driver, subnets(&configuration).len()), (DriverKind::Null, 2));
    let network = planned_beside(vec![&configuration], |request| {
        request.config_from = "conf".to_owned();
    })
    .unwrap();
    assert_eq!(subnets(&network), ["10.9.0.0/24 10.9.0.1", "fd01::/64 fd01::1"]);
    assert_eq!(network.bridge.unwrap().mtu, 1300);
    assert_eq!((network.labels["a"].as_str(), network.config_from.as_str()), ("b", "conf"));
    refused(
        |request| request.config_from = "taken".to_owned(),
        Kind::NotFound,
        "configuration network \"taken\" does not exist",
    );
    refused(
        |request| {
            request.config_from = "conf".to_owned();
            option(request, ICC, "true");
        },
        Kind::Forbidden,
        "network driver options are not supported if the network depends on a configuration network",
    );
}

#[test]
fn shared_devices() {
    let macvlan = planned(|request| request.driver = "macvlan".to_owned());
    let parent = macvlan.parent.clone().unwrap();
    assert_eq!((parent.name.as_str(), parent.origin), ("eth0", ParentOrigin::Existing));
    assert_eq!(parent.mode, ShareMode::Macvlan(MacvlanMode::Bridge));
    // What is beyond the wire is not ours to say.
    assert_eq!(subnets(&macvlan), ["172.18.0.0/16"]);
    let routed = planned(|request| {
        request.driver = "macvlan".to_owned();
        request.pools = vec![subnet("10.8.0.0/24", "", "10.8.0.254")];
    });
    assert_eq!(subnets(&routed), ["10.8.0.0/24 10.8.0.254"]);

    let ipvlan = planned(|request| {
        request.driver = "ipvlan".to_owned();
        request.pools = vec![subnet("10.8.0.0/24", "", ""), subnet("10.8.1.0/24", "", "")];
        option(request, "parent", "eth0.30");
        option(request, "ipvlan_mode", "l3s");
    });
    let parent = ipvlan.parent.as_ref().unwrap();
    assert_eq!(parent.origin, ParentOrigin::Vlan(30));
    assert_eq!(parent.mode, ShareMode::Ipvlan(IpvlanMode::L3s, IpvlanFlag::Bridge));
    assert_eq!(subnets(&ipvlan), ["10.8.0.0/24", "10.8.1.0/24"]);

    let alone = planned(|request| request.driver = "ipvlan".to_owned());
    let parent = alone.parent.as_ref().unwrap();
    assert_eq!(parent.name, format!("dm-{}", alone.id.short()));
    assert_eq!(
        (parent.origin, subnets(&alone)),
        (ParentOrigin::Dummy, vec!["172.18.0.0/16".to_owned()])
    );

    let second = planned_beside(vec![&macvlan], |request| {
        request.name = "second".to_owned();
        request.driver = "macvlan".to_owned();
        option(request, "macvlan_mode", "passthru");
    });
    assert_eq!(
        second.unwrap_err().to_string(),
        format!(
            "cannot use mode passthru, macvlan network {} is already using parent interface eth0",
            macvlan.id
        )
    );
}

#[test]
fn addresses_that_nobody_gives_out() {
    let without = |driver: &'static str, v4: bool, v6: bool| {
        move |request: &mut CreateRequest| {
            request.driver = driver.to_owned();
            request.ipam_driver = "null".to_owned();
            (request.enable_ipv4, request.enable_ipv6) = (Some(v4), Some(v6));
        }
    };
    for driver in ["bridge", "macvlan", "ipvlan"] {
        refused(without(driver, true, true), Kind::Invalid, "ipv4 pool is empty");
        refused(without(driver, false, true), Kind::Invalid, "ipv6 pool is empty");
    }
    refused(without("bridge", false, false), Kind::Invalid, "IPv4 or IPv6 must be enabled");
    refused(
        |request| {
            without("macvlan", true, false)(request);
            request.pools = vec![subnet("10.5.0.0/24", "", "")];
        },
        Kind::Invalid,
        "null ipam driver does not handle specific address pool requests",
    );
    let unnumbered = planned(without("macvlan", false, false));
    assert_eq!((unnumbered.ipam.driver.as_str(), subnets(&unnumbered).len()), ("null", 0));

    let by_a_plugin = planned_with(Vec::new(), Some(Character::default()), |request| {
        without("wires", true, true)(request);
        request.name = "dhcp".to_owned();
    })
    .unwrap();
    assert_eq!(subnets(&by_a_plugin), ["0.0.0.0/0", "::/0"]);
    // It has all addresses, and takes none from others.
    let beside = planned_beside(vec![&by_a_plugin], |_| {}).unwrap();
    assert_eq!(subnets(&beside), ["172.18.0.0/16 172.18.0.1"]);
}

#[test]
fn shared_devices_that_cannot_be() {
    let refuse = |options: &[(&str, &str)], words: &str| {
        refused(
            |request| {
                request.driver = "ipvlan".to_owned();
                options.iter().for_each(|(name, value)| option(request, name, value));
            },
            Kind::Invalid,
            words,
        );
    };
    refuse(&[("parent", "lo")], "loopback interface is not a valid ipvlan parent link");
    refuse(
        &[("parent", "nope")],
        "invalid subinterface vlan name nope, example formatting is eth0.10",
    );
    refuse(&[("parent", "nope.5")], "-o parent interface was not found on the host: nope");
    refuse(&[("parent", "eth0.5000")], "vlan id must be between 1-4094, received: 5000");
    refuse(
        &[("ipvlan_mode", "l4")],
        "requested ipvlan mode 'l4' is not valid, 'l2' mode is the ipvlan driver default",
    );
}

#[test]
fn names_and_drivers() {
    refused(|request| request.name.clear(), Kind::Invalid, "invalid name: ");
    refused(
        |request| request.name = "taken".to_owned(),
        Kind::Conflict,
        "network with name taken already exists",
    );
    refused(
        |request| request.name = "host".to_owned(),
        Kind::Forbidden,
        "operation is not permitted on predefined host network ",
    );
    refused(
        |request| request.driver = "weave".to_owned(),
        Kind::NotFound,
        "plugin \"weave\" not found",
    );
    refused(
        |request| request.driver = "host".to_owned(),
        Kind::Forbidden,
        "only one instance of \"host\" network is allowed",
    );
    refused(
        |request| request.ingress = true,
        Kind::Forbidden,
        "Ingress network can only be global scope network",
    );
    refused(
        |request| request.enable_ipv4 = Some(false),
        Kind::Invalid,
        "IPv4 or IPv6 must be enabled",
    );
}

#[test]
fn pools_that_cannot_be() {
    refused(
        |request| request.pools = vec![subnet("10.1.2.0/24", "", "")],
        Kind::Forbidden,
        "invalid pool request: Pool overlaps with other one on this address space",
    );
    refused(
        |request| {
            request.pools = vec![subnet("10.2.0.0/24", "", ""), subnet("10.2.0.0/16", "", "")];
        },
        Kind::Forbidden,
        "invalid pool request: Pool overlaps with other one on this address space",
    );
    refused(
        |request| {
            request.pools = vec![subnet("10.2.0.0/24", "", ""), subnet("10.3.0.0/24", "", "")];
        },
        Kind::Forbidden,
        "bridge driver doesn't support multiple subnets",
    );
    refused(
        |request| request.pools = vec![subnet("10.5.0.1/24", "10.6.0.0/25", "10.7.0.1")],
        Kind::Invalid,
        "invalid network config:\n\
         * invalid subnet 10.5.0.1/24: it should be 10.5.0.0/24\n\
         * invalid ip-range 10.6.0.0/25: parent subnet 10.5.0.1/24 doesn't contain ip-range\n\
         * invalid gateway 10.7.0.1: parent subnet 10.5.0.1/24 doesn't contain this address",
    );
    refused(
        |request| request.pools = vec![subnet("10.5.0.0/24", "fd00::/64", "")],
        Kind::Invalid,
        "invalid network config:\ninvalid ip-range fd00::/64: parent subnet is an IPv4 block",
    );
    refused(
        |request| {
            request.enable_ipv6 = Some(true);
            request.pools = vec![subnet("fe80::/80", "", "")];
        },
        Kind::Invalid,
        "'fe80::/80' clashes with the Link-Local prefix 'fe80::/64'",
    );
}

/// Nobody else can have these.
#[test]
fn addresses_that_cannot_be_set_aside() {
    for gateway in ["10.5.0.0", "10.5.0.255"] {
        refused(
            |request| request.pools = vec![subnet("10.5.0.0/24", "", gateway)],
            Kind::Internal,
            &format!("failed to allocate gateway ({gateway}): Address already in use"),
        );
    }
    for other in ["10.5.0.0", "10.5.0.1", "10.5.0.255"] {
        let auxiliary = BTreeMap::from([("a".to_owned(), other.to_owned())]);
        let pool = PoolRequest { auxiliary, ..subnet("10.5.0.0/24", "", "10.5.0.1") };
        refused(
            |request| request.pools = vec![pool],
            Kind::Internal,
            &format!("failed to allocate secondary ip address (a:{other}): Address already in use"),
        );
    }
}

/// Some read a number with a zero before it as octal.
#[test]
fn blocks_are_written_in_one_way() {
    for block in ["010.5.0.0/24", "10.05.0.0/24", "10.5.0.0/+24", "10.5.0.0/", "fe80::%eth0/64"] {
        refused(
            |request| request.pools = vec![subnet(block, "", "")],
            Kind::Invalid,
            &format!(
                "invalid network config:\ninvalid subnet {block}: invalid CIDR block notation"
            ),
        );
    }
}

#[test]
fn options_that_cannot_be() {
    let refuse = |name: &'static str, value: &'static str, words: &str| {
        refused(|request| option(request, name, value), Kind::Invalid, words);
    };
    refuse(
        ICC,
        "maybe",
        "failed to parse com.docker.network.bridge.enable_icc value: maybe (strconv.ParseBool: parsing \"maybe\": invalid syntax)",
    );
    refuse(
        GATEWAY_MODE,
        "open",
        "failed to parse com.docker.network.bridge.gateway_mode_ipv4 value: open (unknown gateway mode open)",
    );
    refuse(
        GATEWAY_MODE,
        "isolated",
        "gateway mode 'isolated' can only be used for an internal network",
    );
    refuse(DRIVER_MTU, "-1", "invalid MTU number: -1");
    refused(
        |request| option(request, NAME, "br-taken"),
        Kind::Forbidden,
        "cannot create network NEW (br-taken): conflicts with network {id} (br-taken): networks have same bridge name",
    );
    refused(
        |request| option(request, NAME, "veth0"),
        Kind::Conflict,
        "device veth0 is not a bridge",
    );
}
