//! What ties a container to its networks: the request for a namespace, and the three files that name it inside.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use api::container::{HostConfig, NetworkingConfig};
use api::network::EndpointSettings;
use network::files::Dns;
use network::{AttachRequest, Attachment, EndpointRequest, Mac, Networks, PublishedPort};
use stdx::{Context, Error, Result};

use super::Container;
use super::plan::{Network, Plan};
use super::record::Record;

/// The endpoints a new container will have, checked against the networks there are.
pub(crate) fn endpoints(
    plan: &Plan,
    host: &HostConfig,
    wanted: Option<NetworkingConfig>,
    networks: &Networks,
) -> Result<BTreeMap<String, EndpointSettings>> {
    let mut asked: BTreeMap<String, EndpointSettings> = wanted
        .and_then(|config| config.endpoints_config)
        .unwrap_or_default()
        .into_iter()
        .map(|(name, settings)| {
            (
                if name == "default" { "bridge".to_owned() } else { name },
                settings.unwrap_or_default(),
            )
        })
        .collect();
    let own = match &plan.network {
        Network::None => "none".to_owned(),
        Network::Host => "host".to_owned(),
        Network::Container(_) => return Ok(BTreeMap::new()),
        // One that is not there may be there by the time of the start, which looks again.
        Network::Named(name) => {
            networks.find(name).map_or_else(|_| name.clone(), |network| network.name.clone())
        }
    };
    let mut endpoints = BTreeMap::new();
    let mine = asked.remove(&own).or_else(|| asked.remove(&host.network_mode)).unwrap_or_default();
    check_endpoint(&own, &mine)?;
    endpoints.insert(own, mine);
    for (name, settings) in asked {
        let name = networks.find(&name).map_or(name, |network| network.name.clone());
        check_endpoint(&name, &settings)?;
        endpoints.insert(name, settings);
    }
    Ok(endpoints)
}

fn check_endpoint(network: &str, settings: &EndpointSettings) -> Result<()> {
    let own_address = settings
        .ipam_config
        .as_ref()
        .is_some_and(|ipam| !ipam.ipv4_address.is_empty() || !ipam.ipv6_address.is_empty());
    if own_address && matches!(network, "bridge" | "host" | "none") {
        return Err(Error::invalid(
            "user specified IP address is supported on user defined networks only",
        ));
    }
    let aliases = settings.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty());
    if aliases && matches!(network, "bridge" | "host" | "none") {
        return Err(Error::invalid(
            "network-scoped aliases are only supported for user-defined networks",
        ));
    }
    if !settings.mac_address.is_empty() {
        parse_mac(&settings.mac_address)?;
    }
    Ok(())
}

fn parse_mac(text: &str) -> Result<Mac> {
    let bad = || Error::invalid(format!("invalid MAC address: {text}"));
    let mut bytes = [0u8; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = parts.next().and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or_else(bad)?;
    }
    if parts.next().is_some() { Err(bad()) } else { Ok(Mac(bytes)) }
}

impl Container {
    /// What the network room is asked for.
    pub(crate) fn attach_request(&self, record: &Record, plan: &Plan) -> Result<AttachRequest> {
        let one = |(name, settings): (&String, &EndpointSettings)| {
            let ip = settings
                .ipam_config
                .as_ref()
                .map(|ipam| ipam.ipv4_address.as_str())
                .filter(|text| !text.is_empty());
            let ip = ip
                .map(|text| {
                    text.parse::<Ipv4Addr>()
                        .map_err(|_| Error::invalid(format!("invalid IPv4 address: {text}")))
                })
                .transpose()?;
            let mac = match (settings.mac_address.as_str(), record.config.mac_address.as_str()) {
                ("", "") => None,
                ("", text) | (text, _) => Some(parse_mac(text)?),
            };
            Ok(EndpointRequest {
                network: name.clone(),
                aliases: settings.aliases.clone().unwrap_or_default(),
                ip,
                mac,
                ..EndpointRequest::default()
            })
        };
        let mut networks = record.endpoints.iter().map(one).collect::<Result<Vec<_>>>()?;
        // The one that gives the container its mode brings the default route.
        networks.sort_by_key(|request| request.network != record.host_config.network_mode);
        Ok(AttachRequest {
            container: record.id.clone(),
            name: record.name.clone(),
            networks,
            ports: plan.ports.requests.clone(),
            exposed: plan.ports.exposed.clone(),
            dns: chosen_dns(plan),
        })
    }

    /// The endpoints as `inspect` shows them of a container that runs.
    pub(crate) fn connected(
        record: &Record,
        attachment: &Attachment,
        networks: &Networks,
    ) -> BTreeMap<String, EndpointSettings> {
        let mut endpoints = record.endpoints.clone();
        for (name, settings) in &mut endpoints {
            if let Ok(network) = networks.find(name) {
                settings.network_id = network.id.to_string();
            }
            let endpoint = attachment.endpoints.iter().find(|one| one.network == *name);
            let Some(endpoint) = endpoint else { continue };
            settings.endpoint_id = endpoint.endpoint_id.to_string();
            settings.ip_address = endpoint.ip.map(|ip| ip.to_string()).unwrap_or_default();
            settings.ip_prefix_len =
                if endpoint.ip.is_some() { i64::from(endpoint.prefix) } else { 0 };
            settings.gateway = endpoint.gateway.map(|ip| ip.to_string()).unwrap_or_default();
            settings.mac_address = endpoint.mac.map(|mac| mac.to_string()).unwrap_or_default();
        }
        endpoints
    }

    /// As [`Container::connected`], from the network room's own records: for a container that is adopted.
    pub(crate) fn connected_now(&self, record: &Record) -> BTreeMap<String, EndpointSettings> {
        let endpoints = self.rooms.networks.connections(&record.id);
        Self::connected(record, &Attachment { netns: None, endpoints }, &self.rooms.networks)
    }

    /// What is bound on the host, from the network room's own records.
    pub(crate) fn published_now(&self, record: &Record) -> Vec<PublishedPort> {
        let endpoints = self.rooms.networks.connections(&record.id);
        published(&Attachment { netns: None, endpoints })
    }

    /// Forgets what only a running container has.
    pub(crate) fn disconnected(endpoints: &mut BTreeMap<String, EndpointSettings>) {
        for settings in endpoints.values_mut() {
            *settings = EndpointSettings {
                ipam_config: settings.ipam_config.take(),
                links: settings.links.take(),
                aliases: settings.aliases.take(),
                driver_opts: settings.driver_opts.take(),
                gw_priority: settings.gw_priority,
                network_id: std::mem::take(&mut settings.network_id),
                ..EndpointSettings::default()
            };
        }
    }

    /// Writes hosts, resolv.conf and hostname, and says where they are to be seen. They are written anew at each start and
    /// lie with what a run has, in memory on most hosts.
    pub(crate) fn write_files(
        &self,
        record: &Record,
        plan: &Plan,
        attachment: &Attachment,
    ) -> Result<Vec<(PathBuf, &'static str)>> {
        let dir = self.rooms.exec_dir(&record.id);
        if let Network::Container(other) = &plan.network {
            // Those of the container whose network it is.
            let other = self.rooms.registry.find(other)?;
            let dir = self.rooms.exec_dir(&other.id);
            return Ok(files_in(&dir));
        }
        let hostname = plan.hostname(&record.id);
        let hosts = match plan.network {
            Network::Host => {
                let mut text = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
                for (name, address) in self.extra_hosts(plan)? {
                    text.push_str(&format!("{address}\t{name}\n"));
                }
                text
            }
            _ => {
                let addresses: Vec<_> = attachment
                    .endpoints
                    .iter()
                    .filter_map(|endpoint| endpoint.ip.map(IpAddr::from))
                    .collect();
                network::files::hosts(&network::files::Hosts {
                    hostname: &hostname,
                    domain: &plan.domainname,
                    addresses: &addresses,
                    extra: &self.extra_hosts(plan)?,
                })
            }
        };
        let chosen = chosen_dns(plan);
        let host = network::files::host_resolver()?;
        let named = |endpoint: &std::sync::Arc<network::Endpoint>| {
            let network = self.rooms.networks.find(endpoint.network_id.as_str());
            network.is_ok_and(|network| network::has_names(&network))
        };
        let resolv = match plan.network {
            // On the host's network its servers can be reached wherever they are, loopback too.
            Network::Host if chosen == Dns::default() => host.text,
            _ if attachment.endpoints.iter().any(named) => {
                network::files::resolv_conf_inside(&host, &chosen)
            }
            _ => network::files::resolv_conf(&host, &chosen),
        };
        for (name, text) in
            [("hosts", hosts), ("resolv.conf", resolv), ("hostname", format!("{hostname}\n"))]
        {
            write_in_place(&dir.join(name), &text)?;
        }
        Ok(files_in(&dir))
    }

    /// `--add-host`, with the host's own addresses put in where they were asked for.
    fn extra_hosts(&self, plan: &Plan) -> Result<Vec<(String, IpAddr)>> {
        let mut hosts = Vec::new();
        for entry in &plan.extra_hosts {
            let (name, address) =
                entry.split_once([':', '=']).context(|| format!("bad extra host {entry}"))?;
            let addresses = match address.trim_start_matches('[').trim_end_matches(']') {
                "host-gateway" => self.rooms.networks.host_gateway(),
                text => vec![text.parse().map_err(|_| {
                    Error::invalid(format!("invalid IP address in add-host: \"{text}\""))
                })?],
            };
            if addresses.is_empty() {
                return Err(Error::internal("unable to derive the IP value for host-gateway"));
            }
            hosts.extend(addresses.into_iter().map(|address| (name.to_owned(), address)));
        }
        Ok(hosts)
    }
}

fn chosen_dns(plan: &Plan) -> Dns {
    Dns {
        servers: plan.dns.iter().filter_map(|text| text.parse().ok()).collect(),
        search: plan.dns_search.clone(),
        options: plan.dns_options.clone(),
    }
}

/// What of the attachment's endpoints is bound on the host.
pub(crate) fn published(attachment: &Attachment) -> Vec<PublishedPort> {
    attachment.endpoints.iter().flat_map(|endpoint| endpoint.ports.iter().copied()).collect()
}

fn files_in(dir: &Path) -> Vec<(PathBuf, &'static str)> {
    vec![
        (dir.join("resolv.conf"), "/etc/resolv.conf"),
        (dir.join("hostname"), "/etc/hostname"),
        (dir.join("hosts"), "/etc/hosts"),
    ]
}

/// The file keeps its inode: a container that joins this one's network sees what is written later.
fn write_in_place(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).context(|| format!("cannot write {}", path.display()))
}
