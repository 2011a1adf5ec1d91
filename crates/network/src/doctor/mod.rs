//! What is reachable from where, said from what the kernel has, and what stands in the way.
//!
//! `facts.rs` looks; everything here decides, from values.

mod facts;

use std::net::IpAddr;

use serde::Serialize;
use stdx::Result;

use crate::egress::Egress;
use crate::firewalld::{Standing, ZONE};
use crate::ipam;
use crate::networks::Networks;
use crate::records::{DriverKind, Endpoint, GatewayMode, Network, PublishedPort};
use facts::{Facts, Presence};
pub(crate) use facts::{Judge, Refusals, legacy_filters};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    pub networks: Vec<NetworkReport>,
    pub ports: Vec<PortReport>,
    pub findings: Vec<Diagnosis>,
}

impl Report {
    pub fn is_broken(&self) -> bool {
        self.findings.iter().any(|one| one.level == Level::Broken)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkReport {
    pub name: String,
    pub driver: String,
    /// Its device on the host; empty without one.
    pub bridge: String,
    pub subnets: Vec<String>,
    pub internal: bool,
    /// May its containers talk to each other?
    pub icc: bool,
    /// What its containers may reach outside; everything when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<String>>,
    pub reaches: String,
    pub reached_by: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortReport {
    pub container: String,
    pub network: String,
    pub protocol: &'static str,
    pub container_port: u16,
    pub host_ip: String,
    /// 0: it is reached at the container's own address.
    pub host_port: u16,
    pub reach: Reach,
}

/// From where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// By an address of the host that the internet knows.
    Anywhere,
    /// By whoever reaches an address of the host that only its neighbours know.
    Lan,
    Host,
    /// The rule that would lead there is missing, or others drop what comes.
    Nobody,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Diagnosis {
    pub level: Level,
    pub subject: String,
    pub problem: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something that should work does not.
    Broken,
    Warning,
    Note,
}

impl Networks {
    /// Examines all networks, or one, or those of one container by its name or id.
    pub fn doctor(&self, subject: Option<&str>) -> Result<Report> {
        let facts = Facts::gather(&self.core)?;
        let wanted = |facts: &Facts, term: &str| -> Result<Facts> {
            let of_container = |one: &&std::sync::Arc<Endpoint>| {
                one.container_name == term
                    || one.container.as_str() == term
                    || one.container.short() == term
            };
            let mine: Vec<_> = facts.endpoints.iter().filter(of_container).cloned().collect();
            let network = self.find(term);
            let networks = match &network {
                Ok(network) => vec![std::sync::Arc::clone(network)],
                Err(_) if !mine.is_empty() => facts
                    .networks
                    .iter()
                    .filter(|network| mine.iter().any(|one| one.network_id == network.id))
                    .cloned()
                    .collect(),
                Err(_) => return self.find(term).map(|_| facts.clone()),
            };
            let endpoints = match network {
                Ok(network) => facts
                    .endpoints
                    .iter()
                    .filter(|one| one.network_id == network.id)
                    .cloned()
                    .collect(),
                Err(_) => mine,
            };
            Ok(Facts { networks, endpoints, ..facts.clone() })
        };
        match subject {
            None => Ok(report(&facts)),
            Some(term) => Ok(report(&wanted(&facts, term)?)),
        }
    }
}

fn report(facts: &Facts) -> Report {
    let mut findings: Vec<Diagnosis> = host(facts);
    let mut ports = Vec::new();
    for endpoint in &facts.endpoints {
        let Some(network) = facts.networks.iter().find(|one| one.id == endpoint.network_id) else {
            continue;
        };
        for port in &endpoint.ports {
            let (port, found) = published(facts, network, endpoint, *port);
            findings.extend(found);
            ports.push(port);
        }
    }
    let mut networks = Vec::new();
    for network in facts.networks.iter().filter(|network| !network.config_only) {
        findings.extend(of_network(facts, network));
        networks.push(picture(network));
    }
    findings.extend(facts.differences.iter().map(|one| Diagnosis {
        level: Level::Broken,
        subject: one.subject.clone(),
        problem: one.problem.clone(),
    }));
    findings.sort_by(|a, b| (a.level, &a.subject).cmp(&(b.level, &b.subject)));
    findings.dedup();
    Report { networks, ports, findings }
}

fn picture(network: &Network) -> NetworkReport {
    let bridge = network.bridge.as_ref();
    let egress = match &network.egress {
        None | Some(Egress::Any) => None,
        Some(egress) => Some(Vec::from(egress.clone())),
    };
    let neighbours = if bridge.is_some_and(|bridge| !bridge.icc) { "" } else { "each other, " };
    let mode = bridge.map(|bridge| bridge.gateway_mode);
    let (reaches, reached_by) = match (bridge, network.internal) {
        (None, _) if network.driver == DriverKind::Null => {
            ("nothing".to_owned(), "nobody".to_owned())
        }
        (None, _) if network.driver == DriverKind::Host => {
            ("what this host reaches".to_owned(), "whoever reaches this host".to_owned())
        }
        (None, _) => ("what its driver lets it".to_owned(), "whom its driver lets".to_owned()),
        (Some(_), true) => (format!("{neighbours}this host"), "this host".to_owned()),
        (Some(_), false) => {
            let out = match &egress {
                None => "everything".to_owned(),
                Some(rules) if rules.is_empty() => "nothing outside".to_owned(),
                Some(rules) => rules.join(" "),
            };
            let by = match mode {
                Some(GatewayMode::NatUnprotected) => "everybody who knows the way, at every port",
                Some(GatewayMode::Routed) => {
                    "this host, everybody who knows the way at published ports"
                }
                _ => "this host, everybody at published ports",
            };
            (format!("{neighbours}{out}"), by.to_owned())
        }
    };
    NetworkReport {
        name: network.name.clone(),
        driver: network.driver_name().to_owned(),
        bridge: bridge.map(|bridge| bridge.name.clone()).unwrap_or_default(),
        subnets: network.ipam.config.iter().map(|pool| pool.subnet.to_string()).collect(),
        internal: network.internal,
        icc: bridge.is_none_or(|bridge| bridge.icc),
        egress,
        reaches,
        reached_by,
    }
}

/// From where a published port is reached, and what is wrong with that.
fn published(
    facts: &Facts,
    network: &Network,
    endpoint: &Endpoint,
    port: PublishedPort,
) -> (PortReport, Vec<Diagnosis>) {
    let PublishedPort { protocol, container_port, host_ip, host_port } = port;
    let subject = format!("{} {container_port}/{}", endpoint.container_name, protocol.as_str());
    let place = std::net::SocketAddr::new(host_ip, host_port);
    let mut findings = Vec::new();
    let mut find = |level, problem: String| {
        findings.push(Diagnosis { level, subject: subject.clone(), problem });
    };
    let mut reach = match host_ip {
        ip if ip.is_loopback() => Reach::Host,
        ip if ip.is_unspecified() => {
            let of_family = |address: &&IpAddr| address.is_ipv4() == ip.is_ipv4();
            let public =
                facts.addresses.iter().filter(of_family).any(|address| is_public(*address));
            if public { Reach::Anywhere } else { Reach::Lan }
        }
        ip if is_public(ip) => Reach::Anywhere,
        _ => Reach::Lan,
    };
    match facts.presence(network, endpoint, port) {
        Presence::Missing => {
            reach = Reach::Nobody;
            find(Level::Broken, format!("the firewall has no rule that leads {place} to it"));
        }
        Presence::Nobodys => find(
            Level::Note,
            "the firewall is not ours (--iptables=false): who reaches it is up to others"
                .to_owned(),
        ),
        Presence::There => {}
    }
    // Who has no address of the family is served by the host itself.
    let forwarded = endpoint.addresses().any(|ip| ip.is_ipv4() == host_ip.is_ipv4());
    if reach != Reach::Host && forwarded {
        let bridge = network.bridge.as_ref().map(|bridge| bridge.name.as_str()).unwrap_or_default();
        for judge in facts.judges(host_ip.is_ipv6()) {
            if judge.drops && !judge.lets(bridge) {
                reach = Reach::Nobody;
                find(
                    Level::Broken,
                    format!(
                        "chain {} drops what is forwarded, and does not let {bridge} through",
                        judge.name
                    ),
                );
            }
        }
    }
    if reach == Reach::Anywhere && host_ip.is_unspecified() && host_port != 0 {
        find(
            Level::Warning,
            format!(
                "{place} is reachable from the internet: publish on 127.0.0.1 or one address if that is not meant"
            ),
        );
    }
    if facts.ufw && matches!(reach, Reach::Anywhere | Reach::Lan) {
        let problem = if forwarded {
            "ufw does not judge published ports: its rules for what comes in are for the host itself"
        } else {
            "ufw judges it as a port of the host itself, which serves it for a container without such an address"
        };
        find(Level::Note, problem.to_owned());
    }
    let report = PortReport {
        container: endpoint.container_name.clone(),
        network: network.name.clone(),
        protocol: protocol.as_str(),
        container_port,
        host_ip: host_ip.to_string(),
        host_port,
        reach,
    };
    (report, findings)
}

fn of_network(facts: &Facts, network: &Network) -> Vec<Diagnosis> {
    let mut findings = Vec::new();
    let mut find = |level, problem: String| {
        findings.push(Diagnosis { level, subject: network.name.clone(), problem });
    };
    for pool in &network.ipam.config {
        // One route is its own.
        let strange = facts.routes.iter().find(|(route, device)| {
            let own = network.bridge.as_ref().is_some_and(|bridge| bridge.name == *device);
            !own && route.prefix_len() > 0 && ipam::overlap(route, &pool.subnet)
        });
        if let Some((route, device)) = strange.filter(|_| network.bridge.is_some()) {
            find(
                Level::Warning,
                format!("its subnet {} overlaps the host's route {route} by {device}", pool.subnet),
            );
        }
    }
    let Some(bridge) = network.bridge.as_ref().filter(|_| !network.internal) else {
        return findings;
    };
    for (index, (enabled, family)) in
        [(network.enable_ipv4, "IPv4"), (network.enable_ipv6, "IPv6")].into_iter().enumerate()
    {
        if enabled && !facts.forwarding[index] {
            find(
                Level::Broken,
                format!("the host does not forward {family} packets: nothing leaves it"),
            );
        }
        for judge in facts.judges(index == 1).filter(|_| enabled) {
            if judge.drops && !judge.lets(&bridge.name) {
                find(
                    Level::Broken,
                    format!(
                        "chain {} drops what is forwarded, and does not let {} through",
                        judge.name, bridge.name
                    ),
                );
            }
        }
    }
    if let Some((uplink, mtu)) = &facts.uplink
        && bridge.mtu > *mtu
    {
        find(
            Level::Warning,
            format!(
                "its MTU of {} is larger than that of {uplink}, {mtu}: long packets may be lost on the way",
                bridge.mtu
            ),
        );
    }
    findings
}

/// What concerns all networks.
fn host(facts: &Facts) -> Vec<Diagnosis> {
    let mut findings = Vec::new();
    let mut find = |level, problem: String| {
        findings.push(Diagnosis { level, subject: "host".to_owned(), problem });
    };
    if facts.unowned {
        find(Level::Warning, "this kernel cannot let our firewall table have an owner: whoever flushes it opens all networks until it is set again".to_owned());
    }
    if facts.legacy {
        find(Level::Warning, "iptables-legacy filters here, of which nothing can be said: see iptables-legacy -S FORWARD".to_owned());
    }
    for Refusals { chain, rules, everything } in &facts.refusals {
        match everything {
            true => find(
                Level::Warning,
                format!("chain {chain} refuses whatever its rules before do not let through"),
            ),
            false => find(
                Level::Note,
                format!("chain {chain} refuses some of what is forwarded, by {rules} of its rules"),
            ),
        }
    }
    match &facts.firewalld {
        Standing::Absent => {}
        Standing::Silent(reason) => {
            find(Level::Warning, format!("firewalld does not know of our bridges: {reason}"));
        }
        Standing::Follows { elsewhere } => {
            find(
                Level::Note,
                format!(
                    "firewalld judges what is forwarded: bridges of containers are in its zone {ZONE}"
                ),
            );
            for (bridge, zone) in elsewhere {
                find(
                    Level::Warning,
                    format!(
                        "{bridge} is in firewalld's zone {zone}, not {ZONE}: what that refuses does not reach its containers"
                    ),
                );
            }
        }
    }
    if facts.filtered {
        find(
            Level::Note,
            "what bridges carry is filtered like what is forwarded (bridge-nf-call-iptables)"
                .to_owned(),
        );
    }
    for device in facts.strict.iter().filter(|_| facts.default_routes > 1) {
        find(
            Level::Warning,
            format!(
                "{device} drops what came by another way than the answer takes (rp_filter=1), and there are {} default routes",
                facts.default_routes
            ),
        );
    }
    match facts.resolvers.as_slice() {
        [] => find(Level::Broken, "the host has no name server in /etc/resolv.conf".to_owned()),
        resolvers if resolvers.iter().all(|(_, answers)| !answers) => {
            let all: Vec<String> = resolvers.iter().map(|(server, _)| server.to_string()).collect();
            find(Level::Broken, format!("no name server of the host answers: {}", all.join(", ")));
        }
        resolvers => {
            for (server, _) in resolvers.iter().filter(|(_, answers)| !answers) {
                find(Level::Warning, format!("the name server {server} does not answer"));
            }
        }
    }
    if !facts.resolvers.is_empty() && facts.resolvers.iter().all(|(server, _)| server.is_loopback())
    {
        find(Level::Note, "the host's name servers listen on its loopback: containers on the default bridge cannot ask them, those on networks of their own ask through ours".to_owned());
    }
    findings
}

impl Judge {
    fn lets(&self, bridge: &str) -> bool {
        self.let_through.iter().any(|name| name == bridge)
    }
}

/// Whether an address is one that the internet has routes to.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || shared
                || ip.is_multicast())
        }
        IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests;
