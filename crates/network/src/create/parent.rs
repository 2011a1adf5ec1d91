//! The options of macvlan and ipvlan: which device of the host is shared, and how.

use stdx::{Error, Result};

use super::Surroundings;
use crate::records::{
    DriverKind, IpvlanFlag, IpvlanMode, MacvlanMode, Network, ParentDevice, ParentOrigin, ShareMode,
};

pub(super) fn device(network: &Network, around: &Surroundings) -> Result<ParentDevice> {
    let mode = mode(network)?;
    let name = network.options.get("parent").map(String::as_str).unwrap_or_default();
    let driver = network.driver.as_str();
    if name == "lo" {
        return Err(Error::invalid(format!(
            "loopback interface is not a valid {driver} parent link"
        )));
    }
    if name.is_empty() {
        let name = format!("dm-{}", network.id.short());
        return Ok(ParentDevice { name, mode, origin: ParentOrigin::Dummy });
    }
    let origin = match shared_with(mode, name, around)? {
        Some(other) => other.origin,
        None if around.devices.iter().any(|device| device.name == name) => ParentOrigin::Existing,
        None => ParentOrigin::Vlan(vlan(name, around)?),
    };
    Ok(ParentDevice { name: name.to_owned(), mode, origin })
}

fn mode(network: &Network) -> Result<ShareMode> {
    let option = |name: &str| network.options.get(name).map(String::as_str).unwrap_or_default();
    if network.driver == DriverKind::Macvlan {
        return Ok(ShareMode::Macvlan(match option("macvlan_mode") {
            "" | "bridge" => MacvlanMode::Bridge,
            "private" => MacvlanMode::Private,
            "vepa" => MacvlanMode::Vepa,
            "passthru" => MacvlanMode::Passthru,
            other => {
                return Err(Error::invalid(format!(
                    "requested macvlan mode '{other}' is not valid, 'bridge' mode is the macvlan driver default"
                )));
            }
        }));
    }
    let mode = match option("ipvlan_mode") {
        "" | "l2" => IpvlanMode::L2,
        "l3" => IpvlanMode::L3,
        "l3s" => IpvlanMode::L3s,
        other => {
            return Err(Error::invalid(format!(
                "requested ipvlan mode '{other}' is not valid, 'l2' mode is the ipvlan driver default"
            )));
        }
    };
    let flag = match option("ipvlan_flag") {
        "" | "bridge" => IpvlanFlag::Bridge,
        "private" => IpvlanFlag::Private,
        "vepa" => IpvlanFlag::Vepa,
        other => {
            return Err(Error::invalid(format!(
                "requested ipvlan flag '{other}' is not valid, 'bridge' is the ipvlan driver default"
            )));
        }
    };
    Ok(ShareMode::Ipvlan(mode, flag))
}

/// Another network's parent of this name, when both may have it.
fn shared_with<'a>(
    mode: ShareMode,
    name: &str,
    around: &'a Surroundings,
) -> Result<Option<&'a ParentDevice>> {
    let passthru = ShareMode::Macvlan(MacvlanMode::Passthru);
    let mut shared = None;
    for other in &around.networks {
        let Some(parent) = other.parent.as_ref().filter(|parent| parent.name == name) else {
            continue;
        };
        let refusal = match (mode, parent.mode) {
            (ShareMode::Macvlan(_), ShareMode::Macvlan(_)) if mode == passthru => format!(
                "cannot use mode passthru, macvlan network {} is already using parent interface {name}",
                other.id
            ),
            (ShareMode::Macvlan(_), ShareMode::Macvlan(_)) if parent.mode == passthru => format!(
                "macvlan network {} is already using parent interface {name} in mode passthru",
                other.id
            ),
            (ShareMode::Ipvlan(..), ShareMode::Ipvlan(..)) => {
                format!("network dm-{} is already using parent interface {name}", other.id.short())
            }
            _ => {
                shared = Some(parent);
                continue;
            }
        };
        return Err(Error::forbidden(refusal));
    }
    Ok(shared)
}

/// The number in `eth0.10`.
fn vlan(name: &str, around: &Surroundings) -> Result<u16> {
    if !name.contains('.') {
        return Err(Error::invalid(format!(
            "invalid subinterface vlan name {name}, example formatting is eth0.10"
        )));
    }
    let parts: Vec<&str> = name.split('.').collect();
    let [device, number] = parts[..] else {
        return Err(Error::invalid(format!(
            "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received {name}"
        )));
    };
    let number: i64 = number.parse().map_err(|_| {
        Error::invalid(format!(
            "unable to parse a valid vlan id from: {number} (ex. eth0.10 for vlan 10)"
        ))
    })?;
    if !around.devices.iter().any(|other| other.name == device) {
        return Err(Error::invalid(format!(
            "-o parent interface was not found on the host: {device}"
        )));
    }
    u16::try_from(number).ok().filter(|number| (1..=4094).contains(number)).ok_or_else(|| {
        Error::invalid(format!("vlan id must be between 1-4094, received: {number}"))
    })
}
