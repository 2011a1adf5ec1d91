//! The options of the bridge driver: text becomes the device that the kernel gets.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use stdx::{Error, Result};

use super::{Gateways, Surroundings, truth};
use crate::records::{BridgeDevice, GatewayMode, Network};

/// The MTU of networks that do not choose one; the daemon's `--mtu` is for the default bridge.
const MTU: u32 = 1500;
/// `IFNAMSIZ` without the NUL.
const DEVICE_NAME: usize = 15;

pub(super) const NAME: &str = "com.docker.network.bridge.name";
pub(super) const ICC: &str = "com.docker.network.bridge.enable_icc";
pub(super) const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
pub(super) const INHIBIT_IPV4: &str = "com.docker.network.bridge.inhibit_ipv4";
pub(super) const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
pub(super) const GATEWAY_MODE: &str = "com.docker.network.bridge.gateway_mode_ipv4";
pub(super) const GATEWAY_MODE6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
pub(super) const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";
pub(super) const HOST_IPV4: &str = "com.docker.network.host_ipv4";
pub(super) const HOST_IPV6: &str = "com.docker.network.host_ipv6";
pub(super) const CONTAINER_PREFIX: &str = "com.docker.network.container_iface_prefix";
pub(super) const DRIVER_MTU: &str = "com.docker.network.driver.mtu";

/// Which family's packets find a way out over the bridge.
pub(super) fn gateways(network: &Network) -> Result<Gateways> {
    let options = Options(network);
    let inhibited = options.flag(INHIBIT_IPV4, false)? && network.internal;
    Ok(Gateways {
        v4: options.gateway_mode(GATEWAY_MODE)? != GatewayMode::Isolated && !inhibited,
        v6: options.gateway_mode(GATEWAY_MODE6)? != GatewayMode::Isolated,
    })
}

/// The bridge of a network whose pools are complete.
pub(super) fn device(network: &Network, around: &Surroundings) -> Result<BridgeDevice> {
    let options = Options(network);
    let name = options.name()?;
    if let Some(other) = around
        .networks
        .iter()
        .find(|other| other.bridge.as_ref().is_some_and(|bridge| bridge.name == name))
    {
        return Err(Error::forbidden(format!(
            "cannot create network {} ({name}): conflicts with network {} ({name}): networks have same bridge name",
            network.id, other.id
        )));
    }
    let existing = around.devices.iter().find(|device| device.name == name);
    if existing.is_some_and(|device| device.kind != "bridge") {
        return Err(Error::conflict(format!("device {name} is not a bridge")));
    }
    let inhibit_ipv4 = options.flag(INHIBIT_IPV4, false)?;
    let masquerade = options.flag(MASQUERADE, true)?;
    let binding = options.address(HOST_BINDING)?;
    let mut device = BridgeDevice {
        name,
        mtu: options.mtu()?,
        icc: options.flag(ICC, true)?,
        masquerade,
        masquerade6: masquerade,
        gateway_mode: options.gateway_mode(GATEWAY_MODE)?,
        gateway_mode6: options.gateway_mode(GATEWAY_MODE6)?,
        host_binding: binding.filter(|ip| *ip != IpAddr::from([0, 0, 0, 0])),
        host_binding6: binding.filter(IpAddr::is_ipv6),
        host_ip: options.address(HOST_IPV4)?,
        host_ip6: options.address(HOST_IPV6)?,
        inhibit_ipv4,
        container_prefix: options.text(CONTAINER_PREFIX).unwrap_or_default().to_owned(),
        trusted: options.list(TRUSTED),
        ours: existing.is_none(),
        ..BridgeDevice::default()
    };
    let isolated = [device.gateway_mode, device.gateway_mode6].contains(&GatewayMode::Isolated);
    if isolated && !network.internal {
        return Err(Error::invalid(
            "gateway mode 'isolated' can only be used for an internal network",
        ));
    }
    let both = |family: fn(&IpNet) -> bool| {
        network.ipam.config.iter().filter(|pool| family(&pool.subnet)).count() > 1
    };
    if both(|net| matches!(net, IpNet::V4(_))) || both(|net| matches!(net, IpNet::V6(_))) {
        return Err(Error::forbidden("bridge driver doesn't support multiple subnets"));
    }
    for pool in &network.ipam.config {
        let host = pool.gateway.and_then(|host| IpNet::new(host, pool.subnet.prefix_len()).ok());
        match (pool.subnet, host) {
            (IpNet::V4(_), Some(IpNet::V4(host))) if !inhibit_ipv4 => device.address = Some(host),
            (IpNet::V6(subnet), host) => {
                check_ipv6(&subnet)?;
                if let Some(IpNet::V6(host)) = host {
                    device.address6 = Some(host);
                }
            }
            _ => {}
        }
        for (name, gateway) in &pool.auxiliary {
            let of_family = match pool.subnet {
                IpNet::V4(_) => "DefaultGatewayIPv4",
                IpNet::V6(_) => "DefaultGatewayIPv6",
            };
            if name == of_family && !pool.subnet.contains(gateway) {
                return Err(Error::invalid("default gateway ip must be part of the network"));
            }
        }
    }
    Ok(device)
}

/// Every device has addresses of `fe80::/64` already.
fn check_ipv6(subnet: &Ipv6Net) -> Result<()> {
    let link_local = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64);
    if subnet.addr().is_multicast() {
        return Err(Error::invalid(format!("multicast subnet '{subnet}' is not allowed")));
    }
    if subnet.trunc() != link_local && (link_local.contains(subnet) || subnet.contains(&link_local))
    {
        return Err(Error::invalid(format!(
            "'{subnet}' clashes with the Link-Local prefix 'fe80::/64'"
        )));
    }
    Ok(())
}

struct Options<'a>(&'a Network);

impl Options<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.options.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool> {
        let Some(text) = self.text(name) else { return Ok(default) };
        truth(text).ok_or_else(|| {
            unreadable(name, text, &format!("strconv.ParseBool: parsing {text:?}: invalid syntax"))
        })
    }

    fn address(&self, name: &str) -> Result<Option<IpAddr>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| unreadable(name, text, "nil ip"))
    }

    fn gateway_mode(&self, name: &str) -> Result<GatewayMode> {
        match self.text(name) {
            None | Some("nat") => Ok(GatewayMode::Nat),
            Some("nat-unprotected") => Ok(GatewayMode::NatUnprotected),
            Some("routed") => Ok(GatewayMode::Routed),
            Some("isolated") => Ok(GatewayMode::Isolated),
            Some(other) => Err(unreadable(name, other, &format!("unknown gateway mode {other}"))),
        }
    }

    fn mtu(&self) -> Result<u32> {
        let Some(text) = self.text(DRIVER_MTU) else { return Ok(MTU) };
        let number: i64 = text.parse().map_err(|_| {
            unreadable(DRIVER_MTU, text, &format!("strconv.Atoi: parsing {text:?}: invalid syntax"))
        })?;
        match u32::try_from(number) {
            Ok(0) => Ok(MTU),
            Ok(mtu) => Ok(mtu),
            Err(_) => Err(Error::invalid(format!("invalid MTU number: {number}"))),
        }
    }

    fn list(&self, name: &str) -> Vec<String> {
        let words = self.text(name).unwrap_or_default().split(':');
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    fn name(&self) -> Result<String> {
        match self.text(NAME) {
            Some(name)
                if name.len() > DEVICE_NAME
                    || name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
                    || matches!(name, "." | "..") =>
            {
                Err(Error::invalid(format!("invalid bridge name: {name}")))
            }
            Some(name) => Ok(name.to_owned()),
            None => Ok(format!("br-{}", self.0.id.short())),
        }
    }
}

fn unreadable(name: &str, value: &str, why: &str) -> Error {
    Error::invalid(format!("failed to parse {name} value: {value} ({why})"))
}
