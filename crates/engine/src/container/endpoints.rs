//! A container's place in its networks: what was asked for becomes what the network room is asked, and what it answers is
//! shown.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::container::{HostConfig, NetworkingConfig};
use api::network::{EndpointIpamConfig, EndpointSettings, Endpoints};
use network::{Egress, Endpoint, EndpointRequest, Link, Mac, Networks, Rate, listed};
use stdx::{Error, Id, Result};

use super::plan::{Network, Plan};
use super::record::Record;

/// The endpoints a new container will have, by network name, checked against the networks there are.
pub(crate) fn endpoints(
    plan: &Plan,
    host: &HostConfig,
    wanted: Option<NetworkingConfig>,
    networks: &Networks,
) -> Result<Endpoints> {
    let asked = wanted.and_then(|config| config.endpoints_config).unwrap_or_default();
    let mut problems = Vec::new();
    let mut endpoints = BTreeMap::new();
    for (name, settings) in asked {
        let name = if name == "default" { "bridge".to_owned() } else { name };
        let settings = settings.unwrap_or_default();
        // One that is not there may be there by the time of the start, which looks again.
        let network = networks.find(&name).ok();
        let known = network.as_ref().map_or(name.as_str(), |network| &network.name);
        if let Err(problem) = check(network.as_deref(), known, &settings) {
            problems.push(format!("invalid config for network {name}: {problem}"));
        }
        endpoints.insert(known.to_owned(), Box::new(settings));
    }
    if !problems.is_empty() {
        return Err(Error::invalid(listed(&problems)));
    }
    let own = match &plan.network {
        Network::None => "none".to_owned(),
        Network::Host => "host".to_owned(),
        Network::Container(_) => return Ok(BTreeMap::new()),
        Network::Named(name) => {
            networks.find(name).map_or_else(|_| name.clone(), |network| network.name.clone())
        }
    };
    Ok(with_own(endpoints, own, &host.network_mode))
}

/// Whoever names networks has these and no other, whatever the mode says; the mode's is for who names none. On the host's
/// network there is no other, and what is asked for beside it is refused at the start.
fn with_own(mut endpoints: Endpoints, own: String, mode: &str) -> Endpoints {
    if endpoints.contains_key(&own) {
        return endpoints;
    }
    match endpoints.remove(mode) {
        Some(mine) => drop(endpoints.insert(own, mine)),
        None if endpoints.is_empty() || own == "host" => {
            endpoints.insert(own, Box::default());
        }
        None => {}
    }
    endpoints
}

/// What is wrong with what an endpoint shall be, in Docker's words. Without a network its subnets are not looked at.
pub(crate) fn check(
    network: Option<&network::Network>,
    name: &str,
    settings: &EndpointSettings,
) -> Result<(), String> {
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let mut problems = Vec::new();
    let own_address = !ipam.ipv4_address.is_empty() || !ipam.ipv6_address.is_empty();
    if is_predefined(name) {
        if own_address {
            problems.push(
                "user specified IP address is supported on user defined networks only".to_owned(),
            );
        }
        if settings.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
            problems.push(
                "network-scoped alias is supported only for containers in user defined networks"
                    .to_owned(),
            );
        }
    }
    match addresses(&ipam) {
        Err(wrong) => problems.extend(wrong),
        Ok(Addresses { v4, v6, .. }) if !is_predefined(name) => {
            let wanted = v4.map(IpAddr::from).into_iter().chain(v6.map(IpAddr::from));
            for (network, ip) in
                network.into_iter().flat_map(|net| wanted.clone().map(move |ip| (net, ip)))
            {
                problems.extend(Networks::check_address(network, ip).err());
            }
        }
        Ok(_) => {}
    }
    if !settings.mac_address.is_empty() && settings.mac_address.parse::<Mac>().is_err() {
        problems.push(format!("invalid MAC address {}", settings.mac_address));
    }
    let sysctls = settings.driver_opts.as_ref().and_then(|options| options.get(SYSCTLS));
    for sysctl in sysctls.into_iter().flat_map(|text| text.split(',')) {
        let words: Vec<&str> = sysctl.splitn(5, '.').collect();
        let right = matches!(words[..], [_, "ipv4" | "ipv6" | "mpls", _, "IFNAME" | "ifname", _]);
        if !right {
            problems.push(format!(
                "unrecognised network interface sysctl '{sysctl}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            ));
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(format!("invalid endpoint settings:\n{}", listed(&problems))),
    }
}

const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

pub(crate) fn is_predefined(network: &str) -> bool {
    matches!(network, "bridge" | "host" | "none" | "default")
}

/// What the network room is asked for.
pub(crate) fn request(
    record: &Record,
    name: &str,
    settings: &EndpointSettings,
    links: Vec<Link>,
) -> Result<EndpointRequest> {
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let Addresses { v4, v6, link_local } =
        addresses(&ipam).map_err(|problems| Error::invalid(listed(&problems)))?;
    let mac = match record.wanted_macs.get(name).map(String::as_str) {
        None | Some("") => None,
        Some(text) => Some(text.parse()?),
    };
    Ok(EndpointRequest {
        network: name.to_owned(),
        aliases: settings.aliases.clone().unwrap_or_default(),
        ip: v4,
        ip6: v6,
        without_ipv6: speaks_no_ipv6(&record.host_config.sysctls),
        link_local,
        mac,
        links,
        dns_names: if is_predefined(name) { Vec::new() } else { dns_names(record, settings) },
        gw_priority: settings.gw_priority,
        driver_opts: settings.driver_opts.clone().unwrap_or_default(),
        egress: record.host_config.egress.clone().map(Egress::try_from).transpose()?,
        rate: record
            .host_config
            .net_rate
            .map(|rate| Rate { inward: rate.r#in.unwrap_or(0), outward: rate.out.unwrap_or(0) }),
        ..EndpointRequest::default()
    })
}

/// Whether a container's own settings have its kernel know no IPv6, not even `::1`.
pub(crate) fn speaks_no_ipv6(sysctls: &BTreeMap<String, String>) -> bool {
    let off = |of: &str| sysctls.get(&format!("net.ipv6.conf.{of}.disable_ipv6"));
    ["all", "lo"].into_iter().filter_map(off).any(|value| value.trim() == "1")
}

/// The first is the one that an address is looked up as.
fn dns_names(record: &Record, settings: &EndpointSettings) -> Vec<String> {
    let mut names = vec![record.name.clone()];
    names.extend(settings.aliases.iter().flatten().cloned());
    names.push(record.id.short().to_owned());
    names.push(record.config.hostname.clone());
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    names
}

/// `db:database` in an endpoint's settings: a container, and what this one calls it.
pub(crate) fn parse_link(text: &str) -> Result<(String, String)> {
    let bad = || Error::invalid(format!("bad format for links: {text}"));
    let (name, alias) = match text.split_once(':') {
        _ if text.is_empty() => return Err(Error::invalid("empty string specified for links")),
        None => (text, text),
        Some((_, alias)) if alias.contains(':') => return Err(bad()),
        // As `inspect` shows them: `/db:/web/database`.
        Some((name, alias)) => (name, alias.rsplit('/').next().unwrap_or(alias)),
    };
    if name.is_empty() || alias.is_empty() {
        return Err(bad());
    }
    Ok((name.trim_start_matches('/').to_owned(), alias.trim_start_matches('/').to_owned()))
}

struct Addresses {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    link_local: Vec<IpAddr>,
}

fn addresses(ipam: &EndpointIpamConfig) -> Result<Addresses, Vec<String>> {
    let mut problems = Vec::new();
    let v4 = parse::<Ipv4Addr>(&ipam.ipv4_address).filter(|ip| !ip.is_unspecified());
    if v4.is_none() && !ipam.ipv4_address.is_empty() {
        problems.push(format!("invalid IPv4 address: {}", ipam.ipv4_address));
    }
    let v6 = parse::<Ipv6Addr>(&ipam.ipv6_address)
        .filter(|ip| !ip.is_unspecified() && ip.to_ipv4_mapped().is_none());
    if v6.is_none() && !ipam.ipv6_address.is_empty() {
        problems.push(format!("invalid IPv6 address: {}", ipam.ipv6_address));
    }
    let mut link_local = Vec::new();
    for text in &ipam.link_local_ips {
        match parse::<IpAddr>(text).filter(|ip| !ip.is_unspecified()) {
            Some(ip) => link_local.push(ip),
            None => problems.push(format!("invalid link-local IP address: {text}")),
        }
    }
    if problems.is_empty() { Ok(Addresses { v4, v6, link_local }) } else { Err(problems) }
}

fn parse<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// What an endpoint became, beside what was asked for.
pub(crate) fn show(settings: &mut EndpointSettings, endpoint: &Endpoint) {
    let text = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    let length = |there: bool, prefix: u8| if there { i64::from(prefix) } else { 0 };
    settings.network_id = endpoint.network_id.to_string();
    settings.endpoint_id = endpoint.endpoint_id.to_string();
    settings.mac_address = endpoint.mac.map(|mac| mac.to_string()).unwrap_or_default();
    settings.gateway = text(endpoint.gateway.map(IpAddr::from));
    settings.ip_address = text(endpoint.ip.map(IpAddr::from));
    settings.ip_prefix_len = length(endpoint.ip.is_some(), endpoint.prefix);
    settings.ipv6_gateway = text(endpoint.gateway6.map(IpAddr::from));
    settings.global_ipv6_address = text(endpoint.ip6.map(IpAddr::from));
    settings.global_ipv6_prefix_len = length(endpoint.ip6.is_some(), endpoint.prefix6);
    settings.dns_names = (!endpoint.dns_names.is_empty()).then(|| endpoint.dns_names.clone());
}

/// The endpoints as `inspect` shows them of a container that runs.
pub(crate) fn connected(
    record: &Record,
    endpoints: &[std::sync::Arc<Endpoint>],
    networks: &Networks,
) -> Endpoints {
    let mut shown = record.endpoints.clone();
    for (name, settings) in &mut shown {
        let id = networks.find(name).map(|network| network.id.clone());
        let mine = |one: &&std::sync::Arc<Endpoint>| {
            one.network == *name || id.as_ref().is_ok_and(|id| *id == one.network_id)
        };
        if let Some(endpoint) = endpoints.iter().find(mine) {
            show(settings, endpoint);
        } else if let Ok(id) = id {
            settings.network_id = id.to_string();
        }
    }
    shown
}

/// The endpoints as a list of containers shows them: where they are, not what was asked for but an address.
pub(crate) fn summary(endpoints: &Endpoints) -> Endpoints {
    let short = |settings: &EndpointSettings| EndpointSettings {
        ipam_config: settings
            .ipam_config
            .as_ref()
            .map(|ipam| EndpointIpamConfig { link_local_ips: Vec::new(), ..ipam.clone() }),
        links: None,
        aliases: None,
        driver_opts: None,
        dns_names: None,
        ..settings.clone()
    };
    endpoints.iter().map(|(name, settings)| (name.clone(), Box::new(short(settings)))).collect()
}

/// Forgets what only a running container has.
pub(crate) fn disconnected(endpoints: &mut Endpoints) {
    for settings in endpoints.values_mut() {
        **settings = EndpointSettings {
            ipam_config: settings.ipam_config.take(),
            links: settings.links.take(),
            aliases: settings.aliases.take(),
            driver_opts: settings.driver_opts.take(),
            gw_priority: settings.gw_priority,
            network_id: std::mem::take(&mut settings.network_id),
            dns_names: settings.dns_names.take(),
            ..EndpointSettings::default()
        };
    }
}

/// Whether a container that has `endpoints` may have another network.
pub(crate) fn may_join(
    mode: &str,
    endpoints: &Endpoints,
    network: &network::Network,
) -> Result<()> {
    const SHARED: &str = "container sharing network namespace with another container or host cannot be connected to any other network";
    if mode.starts_with("container:") {
        return Err(Error::invalid(SHARED));
    }
    if network.name == "host" && mode != "host" {
        return Err(Error::invalid(
            "cannot connect container to host network - container must be created in host network mode",
        ));
    }
    if endpoints.contains_key("host") && network.name != "host" {
        return Err(Error::invalid(SHARED));
    }
    let nobody = |name: &str| name == "none";
    if endpoints.keys().any(|name| *name != network.name && (nobody(name) || nobody(&network.name)))
    {
        return Err(Error::invalid(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ));
    }
    Ok(())
}

/// The MAC addresses that were asked for, by network name: endpoints show those they have.
pub(crate) fn wanted_macs(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let wanted = endpoints.iter().filter(|(_, settings)| !settings.mac_address.is_empty());
    wanted.map(|(name, settings)| (name.clone(), settings.mac_address.clone())).collect()
}

/// A link in the words of `inspect`.
pub(crate) fn shown_link(child: &str, parent: &str, alias: &str) -> String {
    format!("/{child}:/{parent}/{alias}")
}

/// Links that name a container that is there.
pub(crate) fn resolved(links: &[String], find: impl Fn(&str) -> Option<Id>) -> Result<Vec<Link>> {
    let mut resolved = Vec::new();
    for text in links {
        let (name, alias) = parse_link(text)?;
        match find(&name) {
            Some(container) => resolved.push(Link { alias, container }),
            None => tracing::warn!(link = %text, "a link to a container that is not there"),
        }
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn wrong(name: &str, change: impl FnOnce(&mut EndpointSettings), words: &str) {
        let mut settings = EndpointSettings::default();
        change(&mut settings);
        let problem = check(None, name, &settings).unwrap_err();
        assert_eq!(problem, format!("invalid endpoint settings:\n{words}"));
    }

    #[test]
    fn networks_that_are_named_are_all() {
        let names = |given: &[&str], own: &str, mode: &str| {
            let given = given.iter().map(|name| ((*name).to_owned(), Box::default()));
            with_own(given.collect(), own.to_owned(), mode).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(names(&[], "bridge", "bridge"), ["bridge"]);
        assert_eq!(names(&["a", "b"], "bridge", "bridge"), ["a", "b"]);
        assert_eq!(names(&["a", "b"], "a", "a"), ["a", "b"]);
        assert_eq!(names(&["b"], "a", "a"), ["b"]);
        assert_eq!(names(&["b"], "none", "none"), ["b"]);
        assert_eq!(names(&["0123"], "a", "0123"), ["a"]);
        assert_eq!(names(&["b"], "host", "host"), ["b", "host"]);
    }

    fn with_address(v4: &str, v6: &str) -> impl FnOnce(&mut EndpointSettings) {
        let ipam = EndpointIpamConfig {
            ipv4_address: v4.to_owned(),
            ipv6_address: v6.to_owned(),
            link_local_ips: Vec::new(),
        };
        move |settings| settings.ipam_config = Some(ipam)
    }

    #[test]
    fn what_cannot_be() {
        wrong(
            "bridge",
            with_address("172.17.0.9", ""),
            "user specified IP address is supported on user defined networks only",
        );
        wrong(
            "bridge",
            |settings| settings.aliases = Some(vec!["a".to_owned()]),
            "network-scoped alias is supported only for containers in user defined networks",
        );
        wrong(
            "mine",
            with_address("nonsense", "::"),
            "* invalid IPv4 address: nonsense\n* invalid IPv6 address: ::",
        );
        wrong(
            "mine",
            |settings| settings.mac_address = "02:42".to_owned(),
            "invalid MAC address 02:42",
        );
        wrong(
            "mine",
            |settings| {
                let option = (SYSCTLS.to_owned(), "net.ipv4.conf.eth0.x=1".to_owned());
                settings.driver_opts = Some([option].into());
            },
            "unrecognised network interface sysctl 'net.ipv4.conf.eth0.x=1'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'",
        );
        assert_eq!(check(None, "mine", &EndpointSettings::default()), Ok(()));
    }

    #[test]
    fn links() {
        let pair = |name: &str, alias: &str| Ok((name.to_owned(), alias.to_owned()));
        assert_eq!(parse_link("db").map_err(|_| ()), pair("db", "db"));
        assert_eq!(parse_link("db:data").map_err(|_| ()), pair("db", "data"));
        assert_eq!(parse_link("/db:/web/data").map_err(|_| ()), pair("db", "data"));
        for bad in ["a:b:c", ":b", "a:"] {
            let error = parse_link(bad).unwrap_err();
            assert_eq!(error.to_string(), format!("bad format for links: {bad}"));
        }
    }
}
