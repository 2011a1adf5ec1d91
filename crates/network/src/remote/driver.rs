//! Networks that a plugin has: it makes the devices, we put them into containers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use plugin::{Failure, Patience, Plugin, Plugins};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stdx::{Context, Error, Result};

use super::{ask, find};
use crate::create::{Character, CreateRequest, Gateways};
use crate::driver::{Driver, Inside, Namespace};
use crate::endpoint::PortRequest;
use crate::host::Host;
use crate::ipam::Family;
use crate::netlink::Batch;
use crate::records::{
    Endpoint, Ipam, IpamPool, Mac, Network, Protocol, RemoteEndpoint, RemoteRoute, Scope,
};

const INTERFACE: &str = "NetworkDriver";
/// Options of whoever made the network are in here.
const GENERIC: &str = "com.docker.network.generic";
/// `IFNAMSIZ` without the NUL.
const DEVICE_NAME: usize = 15;
/// More routes than that are no answer.
const MOST_ROUTES: usize = 256;

pub(crate) struct RemoteDriver {
    plugins: Option<Arc<Plugins>>,
    host: Arc<Host>,
}

/// An answer in which nothing matters but that it is no refusal.
#[derive(Deserialize)]
struct Done {}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Capabilities {
    scope: String,
    gw_alloc_checker: bool,
}

/// For which families a network needs no address that leads out.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Skipped {
    #[serde(rename = "SkipIPv4")]
    v4: bool,
    #[serde(rename = "SkipIPv6")]
    v6: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Operation {
    value: Option<BTreeMap<String, Value>>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
struct Interface {
    address: Option<String>,
    #[serde(rename = "AddressIPv6")]
    address6: Option<String>,
    mac_address: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Created {
    interface: Option<Interface>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Joined {
    interface_name: Option<InterfaceName>,
    gateway: Option<String>,
    #[serde(rename = "GatewayIPv6")]
    gateway6: Option<String>,
    static_routes: Option<Vec<StaticRoute>>,
    disable_gateway_service: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct InterfaceName {
    src_name: Option<String>,
    dst_prefix: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct StaticRoute {
    destination: Option<String>,
    next_hop: Option<String>,
}

impl RemoteDriver {
    pub(crate) fn new(plugins: Option<Arc<Plugins>>, host: Arc<Host>) -> Self {
        Self { plugins, host }
    }

    fn plugin(&self, name: &str, patience: Patience) -> Result<Arc<Plugin>> {
        find(self.plugins.as_ref(), name, INTERFACE, patience)
    }

    /// Whether there is a driver of that name, and what the network that is asked for will be like.
    pub(crate) fn character(
        &self,
        name: &str,
        request: &CreateRequest,
        families: (bool, bool),
    ) -> Result<Character> {
        let plugin = self.plugin(name, Patience::None)?;
        let method = "NetworkDriver.GetCapabilities";
        let told: Capabilities = ask(&plugin, method, &(), Patience::None)?;
        let scope = match told.scope.as_str() {
            "local" => Scope::Local,
            "global" => Scope::Global,
            other => {
                return Err(Error::internal(format!(
                    "invalid capability: expecting 'local' or 'global', got {other}"
                )));
            }
        };
        if !told.gw_alloc_checker {
            return Ok(Character { scope, ..Character::default() });
        }
        let question = json!({ "Options": options(&request.options, families, request.internal) });
        let method = "NetworkDriver.GwAllocCheck";
        let skipped: Skipped = ask(&plugin, method, &question, Patience::None)?;
        Ok(Character { scope, gateways: Gateways { v4: !skipped.v4, v6: !skipped.v6 } })
    }

    /// Has the plugin make the endpoint and say what it is like. What it made is taken back if that cannot be used.
    ///
    /// `taken` are the names of the container's other devices.
    pub(crate) fn join(
        &self,
        network: &Network,
        endpoint: &Endpoint,
        taken: &[String],
        ports: &[PortRequest],
    ) -> Result<Endpoint> {
        let plugin = self.plugin(&network.plugin, Patience::Long)?;
        let ids = ids(endpoint);
        let interface = Interface {
            address: cidr(endpoint, Family::V4),
            address6: cidr(endpoint, Family::V6),
            mac_address: endpoint.mac.map(|mac| mac.to_string()),
        };
        let mut question = ids.clone();
        question["Interface"] = json!({
            "Address": interface.address.as_deref().unwrap_or_default(),
            "AddressIPv6": interface.address6.as_deref().unwrap_or_default(),
            "MacAddress": interface.mac_address.as_deref().unwrap_or_default(),
        });
        let ports = with_ports(endpoint, ports);
        question["Options"] = ports.clone();
        for (name, value) in &endpoint.driver_opts {
            question["Options"][name] = json!(value);
        }
        let created: Created =
            ask(&plugin, "NetworkDriver.CreateEndpoint", &question, Patience::Long)
                .map_err(Error::from)
                .context(|| {
                    format!(
                        "failed to create endpoint {} on network {}",
                        endpoint.container_name, network.name
                    )
                })?;
        let take_back = |method: &str| {
            let method = format!("NetworkDriver.{method}");
            if let Err(failure) = ask::<Done>(&plugin, &method, &ids, Patience::None) {
                let error = Error::from(failure);
                tracing::warn!(plugin = %plugin.name(), endpoint = %endpoint.endpoint_id, error = %error.chain(), "failed to roll back");
            }
        };
        let mut agreed = endpoint.clone();
        accept_interface(&mut agreed, created).inspect_err(|_| take_back("DeleteEndpoint"))?;
        let mut question = ids.clone();
        // A name and no more: the namespace is known by descriptors alone, and made when it is known what belongs there.
        question["SandboxKey"] =
            json!(format!("/var/run/docker/netns/{}", endpoint.container.short()));
        question["Options"] = ports;
        let joined = ask(&plugin, "NetworkDriver.Join", &question, Patience::Long)
            .inspect_err(|_| take_back("DeleteEndpoint"))?;
        accept_join(&mut agreed, joined, taken).inspect_err(|_| {
            take_back("Leave");
            take_back("DeleteEndpoint");
        })?;
        self.look_at(&plugin, &ids);
        Ok(agreed)
    }

    /// Has the plugin publish a container's ports, or not any more: one that leads out is to do so. Those that publish
    /// nothing do not know the question.
    pub(crate) fn lead_out(
        &self,
        driver: &str,
        endpoint: &Endpoint,
        ports: Option<&[PortRequest]>,
    ) {
        let mut question = ids(endpoint);
        let method = match ports {
            Some(ports) => {
                question["Options"] = with_ports(endpoint, ports);
                "NetworkDriver.ProgramExternalConnectivity"
            }
            None => "NetworkDriver.RevokeExternalConnectivity",
        };
        let told = self.plugin(driver, Patience::None).and_then(|plugin| {
            match ask::<Done>(&plugin, method, &question, Patience::None) {
                Ok(Done {}) | Err(Failure::Refused(404, _)) => Ok(()),
                Err(failure) => Err(failure.into()),
            }
        });
        if let Err(error) = told {
            tracing::warn!(plugin = %driver, endpoint = %endpoint.endpoint_id, error = %error.chain(), "a plugin does not change what is reached from outside");
        }
    }

    /// What a plugin has to say of an endpoint that is connected. Some count on being asked; Docker shows none of it either.
    fn look_at(&self, plugin: &Plugin, ids: &Value) {
        match ask::<Operation>(plugin, "NetworkDriver.EndpointOperInfo", ids, Patience::None) {
            Ok(Operation { value }) => {
                tracing::debug!(plugin = %plugin.name(), endpoint = %ids["EndpointID"], ?value, "a plugin's endpoint");
            }
            Err(failure) => {
                let error = Error::from(failure);
                tracing::debug!(plugin = %plugin.name(), error = %error.chain(), "a plugin says nothing of its endpoint");
            }
        }
    }

    /// Tells the plugin that an endpoint is over. That it does not like it, or is not there, keeps nobody from going on.
    fn part(&self, endpoint: &Endpoint, remote: &RemoteEndpoint) {
        let ids = ids(endpoint);
        let driver = &remote.driver;
        let revoke = remote.leads_out.then_some("RevokeExternalConnectivity");
        let told = self.plugin(driver, Patience::None).and_then(|plugin| {
            for method in revoke.into_iter().chain(["Leave", "DeleteEndpoint"]) {
                match ask::<Done>(&plugin, &format!("NetworkDriver.{method}"), &ids, Patience::None)
                {
                    Ok(Done {}) | Err(Failure::Refused(404, _)) => {}
                    Err(Failure::Refused(_, error)) => {
                        tracing::warn!(plugin = %driver, endpoint = %endpoint.endpoint_id, error = %error.chain(), "a plugin refuses to let go");
                    }
                    Err(Failure::Unheard(error)) => return Err(error),
                }
            }
            Ok(())
        });
        if let Err(error) = told {
            tracing::warn!(plugin = %driver, endpoint = %endpoint.endpoint_id, error = %error.chain(), "cannot tell a plugin that an endpoint is over");
        }
    }
}

impl Driver for RemoteDriver {
    fn namespace(&self) -> Namespace {
        Namespace::Own
    }

    fn create(&self, network: &Network) -> Result<()> {
        let plugin = self.plugin(&network.plugin, Patience::None)?;
        let (v4, v6): (Vec<_>, Vec<_>) =
            network.ipam.config.iter().partition(|pool| Family::of(&pool.subnet) == Family::V4);
        let space = match network.ipam.space.as_str() {
            "" if network.ipam.is_null() => Ipam::NULL,
            "" => "LocalDefault",
            space => space,
        };
        let data = |pools: Vec<&IpamPool>| {
            pools.into_iter().map(|one| pool(one, space)).collect::<Vec<_>>()
        };
        let question = json!({
            "NetworkID": network.id,
            "Options": options(
                &network.options,
                (network.enable_ipv4, network.enable_ipv6),
                network.internal,
            ),
            "IPv4Data": data(v4),
            "IPv6Data": data(v6),
        });
        ask::<Done>(&plugin, "NetworkDriver.CreateNetwork", &question, Patience::None)?;
        Ok(())
    }

    /// What a plugin has made once is its own affair.
    fn ready(&self, _: &Network) -> Result<()> {
        Ok(())
    }

    fn remove(&self, network: &Network, _: &[Arc<Network>]) -> Result<()> {
        let told = self.plugin(&network.plugin, Patience::None).and_then(|plugin| {
            let question = json!({ "NetworkID": network.id });
            let method = "NetworkDriver.DeleteNetwork";
            Ok(ask::<Done>(&plugin, method, &question, Patience::None)?)
        });
        if let Err(error) = told {
            // As Docker: or nobody would be rid of the networks of a plugin that is gone.
            tracing::warn!(network = %network.name, error = %error.chain(), "driver failed to delete network");
        }
        Ok(())
    }

    /// Brings the plugin's device in, under its name in there.
    fn connect(&self, _: &Network, endpoint: &Endpoint, inside: &mut Inside) -> Result<()> {
        let remote = endpoint.remote.as_ref().context(|| "a plugin's endpoint".to_owned())?;
        if remote.device.is_empty() {
            return Ok(());
        }
        let link = self.host.route().link(&remote.device)?.ok_or_else(|| {
            Error::not_found(format!("the driver's interface {} does not exist", remote.device))
        })?;
        let mut batch = Batch::new();
        batch.move_link(link.index, &endpoint.ifname, inside.namespace);
        self.host
            .route()
            .execute(batch)
            .context(|| format!("cannot move {} into the container", remote.device))?;
        if let Some(mac) = endpoint.mac {
            let mut batch = Batch::new();
            batch.set_mac(&endpoint.ifname, mac);
            inside
                .socket
                .execute(batch)
                .context(|| format!("cannot set the MAC address of {}", endpoint.ifname))?;
        }
        inside.furnish(endpoint)?;
        let index = inside
            .socket
            .link(&endpoint.ifname)?
            .context(|| format!("the device {} is gone", endpoint.ifname))?
            .index;
        for RemoteRoute { destination, next_hop } in &remote.routes {
            let mut batch = Batch::new();
            batch.add_route(*destination, *next_hop, index);
            inside
                .socket
                .execute(batch)
                .context(|| format!("cannot add the route to {destination}"))?;
        }
        Ok(())
    }

    fn disconnect(&self, endpoints: &[Arc<Endpoint>]) -> Result<()> {
        for endpoint in endpoints {
            if let Some(remote) = endpoint.remote.as_ref().filter(|remote| remote.told) {
                self.part(endpoint, remote);
            }
        }
        Ok(())
    }
}

/// What plugins are told of a network.
fn options(
    chosen: &BTreeMap<String, String>,
    (enable_ipv4, enable_ipv6): (bool, bool),
    internal: bool,
) -> Value {
    json!({
        GENERIC: chosen,
        "com.docker.network.enable_ipv4": enable_ipv4,
        "com.docker.network.enable_ipv6": enable_ipv6,
        "com.docker.network.internal": internal,
    })
}

fn ids(endpoint: &Endpoint) -> Value {
    json!({ "NetworkID": endpoint.network_id, "EndpointID": endpoint.endpoint_id })
}

/// What is to be published, as plugins are told.
fn with_ports(endpoint: &Endpoint, ports: &[PortRequest]) -> Value {
    let number = |protocol: Protocol| match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    };
    let published = ports.iter().map(|port| (port.protocol, port.container_port));
    let exposed: BTreeSet<_> = published.chain(endpoint.exposed.iter().copied()).collect();
    let exposed: Vec<Value> = exposed
        .into_iter()
        .map(|(protocol, port)| json!({ "Proto": number(protocol), "Port": port }))
        .collect();
    let map: Vec<Value> = ports
        .iter()
        .map(|port| {
            let (first, last) =
                port.host_ports.as_ref().map_or((0, 0), |range| (*range.start(), *range.end()));
            json!({
                "Proto": number(port.protocol), "IP": "", "Port": port.container_port,
                "HostIP": port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
                "HostPort": first, "HostPortEnd": last,
            })
        })
        .collect();
    json!({
        "com.docker.network.endpoint.exposedports": exposed,
        "com.docker.network.portmap": map,
    })
}

fn cidr(endpoint: &Endpoint, family: Family) -> Option<String> {
    let network = endpoint.networks().find(|network| Family::of(network) == family);
    network.map(|network| network.to_string())
}

/// A pool as plugins are told of it.
fn pool(pool: &IpamPool, space: &str) -> Value {
    let with_prefix = |ip: IpAddr| format!("{ip}/{}", pool.subnet.prefix_len());
    let auxiliary: BTreeMap<&String, String> =
        pool.auxiliary.iter().map(|(name, ip)| (name, with_prefix(*ip))).collect();
    let mut data = json!({ "AddressSpace": space, "Pool": pool.subnet.to_string() });
    if let Some(gateway) = pool.gateway {
        data["Gateway"] = json!(with_prefix(gateway));
    }
    if !auxiliary.is_empty() {
        data["AuxAddresses"] = json!(auxiliary);
    }
    data
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// What the plugin says of the device: it may add what is not said already, and no more.
fn accept_interface(endpoint: &mut Endpoint, created: Created) -> Result<()> {
    let Some(told) = created.interface else { return Ok(()) };
    let modified = |what: &str, why: &str| {
        Err(Error::forbidden(format!("driver modified interface {what}: {why}")))
    };
    if let Some(text) = given(&told.mac_address) {
        let mac: Mac = text.parse()?;
        if endpoint.mac.is_some_and(|known| known != mac) {
            return modified("MAC address", &format!("endpoint MAC address present ({mac})"));
        }
        endpoint.mac = Some(mac);
    }
    for text in [given(&told.address), given(&told.address6)].into_iter().flatten() {
        let network: IpNet =
            text.parse().map_err(|_| Error::invalid(format!("invalid CIDR address: {text}")))?;
        let family = Family::of(&network);
        if endpoint.networks().any(|known| Family::of(&known) == family && known != network) {
            return modified("address", &format!("endpoint interface IP present ({network})"));
        }
        match network {
            IpNet::V4(net) => (endpoint.ip, endpoint.prefix) = (Some(net.addr()), net.prefix_len()),
            IpNet::V6(net) => {
                (endpoint.ip6, endpoint.prefix6) = (Some(net.addr()), net.prefix_len());
            }
        }
    }
    Ok(())
}

fn accept_join(endpoint: &mut Endpoint, joined: Joined, taken: &[String]) -> Result<()> {
    let name = joined.interface_name.unwrap_or_default();
    let device = given(&name.src_name).unwrap_or_default().to_owned();
    let prefix = given(&name.dst_prefix).unwrap_or("eth");
    if !device.is_empty() && !is_device_name(&device) || !is_device_name(prefix) {
        return Err(Error::invalid(format!(
            "failed to set interface name: invalid name {device:?} or prefix {prefix:?}"
        )));
    }
    let chosen = endpoint.driver_opts.contains_key("com.docker.network.endpoint.ifname");
    if !chosen {
        let mut names = (0..).map(|number| format!("{prefix}{number}"));
        endpoint.ifname = names.find(|name| !taken.contains(name)).expect("numbers do not end");
    }
    if endpoint.ifname.len() > DEVICE_NAME {
        return Err(Error::invalid(format!("invalid interface name: {}", endpoint.ifname)));
    }
    endpoint.gateway = gateway::<Ipv4Addr>(&joined.gateway, "Gateway")?;
    endpoint.gateway6 = gateway::<Ipv6Addr>(&joined.gateway6, "GatewayIPv6")?;
    let routes = joined.static_routes.unwrap_or_default();
    if routes.len() > MOST_ROUTES {
        return Err(Error::invalid("the driver wants too many static routes"));
    }
    let routes = routes.iter().map(route).collect::<Result<_>>()?;
    let driver = endpoint.remote.take().map(|remote| remote.driver).unwrap_or_default();
    let stays_in = joined.disable_gateway_service;
    endpoint.remote =
        Some(RemoteEndpoint { driver, device, routes, stays_in, leads_out: false, told: true });
    Ok(())
}

fn gateway<T: std::str::FromStr>(told: &Option<String>, what: &str) -> Result<Option<T>> {
    let parse = |text: &str| {
        text.parse().map_err(|_| Error::invalid(format!("unable to parse {what} \"{text}\"")))
    };
    given(told).map(parse).transpose()
}

fn route(told: &StaticRoute) -> Result<RemoteRoute> {
    let text = given(&told.destination).unwrap_or_default();
    let destination: IpNet =
        text.parse().map_err(|_| Error::invalid(format!("invalid CIDR address: {text}")))?;
    let hop = |text: &str| {
        text.parse().map_err(|_| Error::invalid(format!("failed to parse nexthop IP {text}")))
    };
    let next_hop: Option<IpAddr> = given(&told.next_hop).map(hop).transpose()?;
    if next_hop.is_some_and(|hop| Family::of_address(hop) != Family::of(&destination)) {
        return Err(Error::invalid(format!("a route to {destination} leads into another family")));
    }
    Ok(RemoteRoute { destination: destination.trunc(), next_hop })
}

fn is_device_name(name: &str) -> bool {
    (1..=DEVICE_NAME).contains(&name.len())
        && !matches!(name, "." | ".." | "lo" | "all" | "default")
        && name.bytes().all(|c| c.is_ascii_graphic() && c != b'/' && c != b':')
}

#[cfg(test)]
mod tests {
    use stdx::Id;

    use super::*;
    use crate::records::DriverKind;

    fn endpoint() -> Endpoint {
        let network = Network { plugin: "x".to_owned(), ..Network::new("n", DriverKind::Plugin) };
        let mut endpoint = Endpoint::new(&network, &Id::random(), "web");
        (endpoint.ip, endpoint.prefix) = (Some(Ipv4Addr::new(10, 0, 0, 2)), 24);
        endpoint
    }

    fn join(answer: Value) -> Result<Endpoint> {
        let mut endpoint = endpoint();
        let joined = serde_json::from_value(answer).unwrap();
        accept_join(&mut endpoint, joined, &["eth0".to_owned()]).map(|()| endpoint)
    }

    #[test]
    fn joined() {
        let told = join(json!({
            "InterfaceName": {"SrcName": "p0", "DstPrefix": "eth"}, "Gateway": "10.0.0.1", "GatewayIPv6": null,
            "StaticRoutes": [{"Destination": "10.9.1.1/16", "RouteType": 0, "NextHop": "10.0.0.9"}, {"Destination": "10.8.0.0/16", "RouteType": 1}],
        }))
        .unwrap();
        assert_eq!((told.ifname.as_str(), told.gateway), ("eth1", "10.0.0.1".parse().ok()));
        let remote = told.remote.unwrap();
        assert_eq!((remote.driver.as_str(), remote.device.as_str()), ("x", "p0"));
        let routes: Vec<_> = remote.routes.iter().map(|r| r.destination.to_string()).collect();
        assert_eq!(routes, ["10.9.0.0/16", "10.8.0.0/16"]);
        assert!(!remote.stays_in);
        let alone = join(json!({"DisableGatewayService": true})).unwrap();
        assert!(alone.remote.unwrap().stays_in);
    }

    #[test]
    fn what_is_not_believed() {
        for bad in [
            json!({"InterfaceName": {"SrcName": "../x", "DstPrefix": "eth"}}),
            json!({"InterfaceName": {"SrcName": "lo", "DstPrefix": "eth"}}),
            json!({"InterfaceName": {"SrcName": "p0", "DstPrefix": "longer than a name"}}),
            json!({"InterfaceName": {"SrcName": "p0", "DstPrefix": "fourteen-long-"}, "Gateway": "x"}),
            json!({"Gateway": "::1"}),
            json!({"StaticRoutes": [{"Destination": "x"}]}),
            json!({"StaticRoutes": [{"Destination": "10.0.0.0/8", "NextHop": "::1"}]}),
            json!({"StaticRoutes": vec![json!({"Destination": "10.0.0.0/8"}); 1000]}),
        ] {
            assert!(join(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_added_and_not_changed() {
        let accept = |interface: Value| {
            let mut endpoint = endpoint();
            let created = serde_json::from_value(json!({ "Interface": interface })).unwrap();
            accept_interface(&mut endpoint, created).map(|()| endpoint)
        };
        let told = accept(json!({"AddressIPv6": "fd00::2/64", "MacAddress": "02:00:00:00:00:01"}));
        assert_eq!(told.unwrap().ip6, "fd00::2".parse().ok());
        accept(json!(null)).unwrap();
        accept(json!({"Address": "10.0.0.2/24"})).unwrap();
        for bad in
            [json!({"Address": "10.0.0.3/24"}), json!({"Address": "x"}), json!({"MacAddress": "x"})]
        {
            assert!(accept(bad.clone()).is_err(), "{bad}");
        }
    }
}
