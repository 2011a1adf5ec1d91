//! `network create`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::network::{ConfigReference, CreateBody, CreateResponse, Ipam, IpamConfig};

use crate::command::{Args, Call, Command};
use crate::commands::egress;
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind, Parsed};

pub(crate) static COMMAND: Command = Command {
    names: &["network create"],
    usage: "[OPTIONS] NETWORK",
    about: "Create a network",
    args: Args::Exactly(1),
    flags: &[
        Flag::new("attachable", Kind::Switch, "Enable manual container attachment"),
        Flag::new(
            "aux-address",
            Kind::Map,
            "Auxiliary IPv4 or IPv6 addresses used by Network driver (default map[])",
        ),
        Flag::new("config-from", Kind::Text, "The network from which to copy the configuration"),
        Flag::new("config-only", Kind::Switch, "Create a configuration only network"),
        Flag::new("driver", Kind::Text, "Driver to manage the Network (default \"bridge\")")
            .short('d'),
        Flag::new(
            "egress",
            Kind::List,
            "What may be reached outside of the networks (none, any, or allow=HOST[:PORT][,...])",
        )
        .beyond(),
        Flag::new("gateway", Kind::Strings, "IPv4 or IPv6 Gateway for the master subnet"),
        Flag::new("ingress", Kind::Switch, "Create swarm routing-mesh network"),
        Flag::new("internal", Kind::Switch, "Restrict external access to the network"),
        Flag::new("ip-range", Kind::Strings, "Allocate container ip from a sub-range"),
        Flag::new("ipam-driver", Kind::Text, "IP Address Management Driver (default \"default\")"),
        Flag::new("ipam-opt", Kind::Map, "Set IPAM driver specific options (default map[])"),
        Flag::new("ipv4", Kind::Switch, "Enable or disable IPv4 address assignment (default true)"),
        Flag::new("ipv6", Kind::Switch, "Enable or disable IPv6 address assignment"),
        Flag::new("label", Kind::List, "Set metadata on a network"),
        Flag::new("opt", Kind::Map, "Set driver specific options (default map[])").short('o'),
        Flag::new("scope", Kind::Text, "Control the network's scope"),
        Flag::new(
            "subnet",
            Kind::Strings,
            "Subnet in CIDR format that represents a network segment",
        ),
    ],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let body = body(&call.flags)?;
    let response = call.cli.client()?.post("/networks/create").json(&body)?.send().await?;
    let created: CreateResponse = response.json().await?;
    if !created.warning.is_empty() {
        call.cli.printer.complain(&format!("WARNING: {}", created.warning));
    }
    call.cli.printer.line(&created.id)
}

fn body(flags: &Parsed) -> Result<CreateBody> {
    let pairs = |name: &str| -> BTreeMap<String, String> {
        flags.map(name).into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let config_from = flags.get("config-from").filter(|name| !name.is_empty());
    Ok(CreateBody {
        name: flags.args[0].clone(),
        driver: flags.get("driver").unwrap_or("bridge").to_owned(),
        scope: flags.text("scope").to_owned(),
        enable_ipv4: flags.switch("ipv4"),
        enable_ipv6: flags.switch("ipv6"),
        ipam: Some(Ipam {
            driver: flags.get("ipam-driver").unwrap_or("default").to_owned(),
            options: Some(pairs("ipam-opt")),
            config: pools(flags)?,
        }),
        internal: flags.on("internal"),
        attachable: flags.on("attachable"),
        ingress: flags.on("ingress"),
        config_only: flags.on("config-only"),
        config_from: config_from.map(|name| ConfigReference { network: name.to_owned() }),
        options: Some(pairs("opt")),
        labels: Some(pairs("label")),
        egress: egress::rules(flags)?,
    })
}

/// Brings each range, gateway and auxiliary address to the subnet it lies in.
fn pools(flags: &Parsed) -> Result<Vec<IpamConfig>> {
    let subnets = flags.list("subnet");
    let (ranges, gateways) = (flags.list("ip-range"), flags.list("gateway"));
    if subnets.len() < ranges.len() || subnets.len() < gateways.len() {
        return Err(Failure::words("every ip-range or gateway must have a corresponding subnet"));
    }
    let mut pools: Vec<IpamConfig> = Vec::new();
    for subnet in &subnets {
        let clash = pools.iter().any(|pool| overlap(&pool.subnet, subnet));
        if clash {
            return Err(Failure::words(
                "multiple overlapping subnet configuration is not supported",
            ));
        }
        pools.push(IpamConfig { subnet: (*subnet).to_owned(), ..IpamConfig::default() });
    }
    for range in ranges {
        let pool = pools
            .iter_mut()
            .find(|pool| contains(&pool.subnet, range.split('/').next().unwrap_or_default()));
        match pool {
            Some(pool) if pool.ip_range.is_empty() => pool.ip_range = range.to_owned(),
            Some(pool) => {
                return Err(Failure::words(format!(
                    "cannot configure multiple ranges ({range}, {}) on the same subnet ({})",
                    pool.ip_range, pool.subnet
                )));
            }
            None => return Err(Failure::words(format!("no matching subnet for range {range}"))),
        }
    }
    for gateway in gateways {
        match pools.iter_mut().find(|pool| contains(&pool.subnet, gateway)) {
            Some(pool) if pool.gateway.is_empty() => pool.gateway = gateway.to_owned(),
            Some(pool) => {
                return Err(Failure::words(format!(
                    "cannot configure multiple gateways ({gateway}, {}) for the same subnet ({})",
                    pool.gateway, pool.subnet
                )));
            }
            None => {
                return Err(Failure::words(format!("no matching subnet for gateway {gateway}")));
            }
        }
    }
    for (name, address) in flags.map("aux-address") {
        match pools.iter_mut().find(|pool| contains(&pool.subnet, address)) {
            Some(pool) => {
                pool.auxiliary_addresses.insert(name.to_owned(), address.to_owned());
            }
            None => {
                return Err(Failure::words(format!(
                    "no matching subnet for aux-address {address}"
                )));
            }
        }
    }
    Ok(pools)
}

fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    }
}

fn subnet(text: &str) -> Option<(u128, u32, u32)> {
    let (address, length) = text.split_once('/')?;
    let (value, width) = bits(address.parse().ok()?);
    let length: u32 = length.parse().ok().filter(|length| *length <= width)?;
    Some((value, width, length))
}

fn same_head(a: u128, b: u128, length: u32) -> bool {
    length == 0 || a >> (128 - length) == b >> (128 - length)
}

fn contains(net: &str, address: &str) -> bool {
    let (Some((base, width, length)), Ok(address)) = (subnet(net), address.parse()) else {
        return false;
    };
    let (value, other) = bits(address);
    width == other && same_head(base, value, length)
}

fn overlap(a: &str, b: &str) -> bool {
    match (subnet(a), subnet(b)) {
        (Some((x, width, m)), Some((y, other, n))) => width == other && same_head(x, y, m.min(n)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Order;

    fn check(line: &str, expected: &str) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let flags = Parsed::parse(COMMAND.flags, Order::Mixed, &words).unwrap();
        let shown = match pools(&flags) {
            Ok(pools) => serde_json::to_string(&pools).unwrap(),
            Err(failure) => failure.text().to_owned(),
        };
        assert_eq!(shown, expected, "{line}");
    }

    #[test]
    fn what_lies_in_which_subnet() {
        check(
            "--subnet 10.1.0.0/16,10.2.0.0/16 --gateway 10.2.0.1 --ip-range 10.1.4.0/24 --aux-address a=10.1.0.9 n",
            r#"[{"Subnet":"10.1.0.0/16","IPRange":"10.1.4.0/24","AuxiliaryAddresses":{"a":"10.1.0.9"}},{"Subnet":"10.2.0.0/16","Gateway":"10.2.0.1"}]"#,
        );
        check(
            "--subnet 10.1.0.0/16 --gateway 10.2.0.1 n",
            "no matching subnet for gateway 10.2.0.1",
        );
        check("--gateway 10.2.0.1 n", "every ip-range or gateway must have a corresponding subnet");
        check(
            "--subnet 10.0.0.0/8,10.1.0.0/16 n",
            "multiple overlapping subnet configuration is not supported",
        );
    }
}
