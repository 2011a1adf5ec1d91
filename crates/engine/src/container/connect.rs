//! What ties a container to its networks: the request for a namespace, and the three files that name it inside.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::network::{EndpointSettings, Endpoints};
use network::files::{Dns, Speaks};
use network::{AttachRequest, Attachment, PublishedPort};
use stdx::{Context, Error, Result};

use super::plan::{Network, Plan};
use super::record::Record;
use super::{Container, endpoints};

impl Container {
    /// What the network room is asked for.
    pub(crate) fn attach_request(&self, record: &Record, plan: &Plan) -> Result<AttachRequest> {
        let bridge_links = self.resolve_links(record.host_config.links.as_deref())?;
        let one = |name: &str, settings: &EndpointSettings| {
            let links = match name {
                "bridge" => bridge_links.clone(),
                _ => self.resolve_links(settings.links.as_deref())?,
            };
            endpoints::request(record, name, settings, links)
        };
        // Without a default bridge, who would be on it is on no network.
        let nowhere = |name: &str| name == "bridge" && !self.rooms.networks.has_default_bridge();
        let wanted = record.endpoints.iter().filter(|(name, _)| !nowhere(name));
        let networks = wanted.map(|(name, settings)| one(name, settings));
        let mut networks = networks.collect::<Result<Vec<_>>>()?;
        // The one that gives the container its mode is `eth0`.
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

    /// The endpoints as `inspect` shows them, from the network room's own records: for a container that is adopted.
    pub(crate) fn connected_now(&self, record: &Record) -> Endpoints {
        let networks = &self.rooms.networks;
        endpoints::connected(record, &networks.connections(&record.id), networks)
    }

    /// What is bound on the host, from the network room's own records.
    pub(crate) fn published_now(&self, record: &Record) -> Vec<PublishedPort> {
        self.rooms.networks.published(&record.id)
    }

    /// Has the files say what the networks are now, of a container that runs. What its programs wrote beside stays.
    pub(crate) fn follow_networks(&self, record: &Record) -> Result<()> {
        let plan = record.plan(&self.rooms.settings())?;
        if matches!(plan.network, Network::Host | Network::Container(_)) {
            return Ok(());
        }
        let dir = self.rooms.exec_dir(&record.id);
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))
        };
        let connections = self.rooms.networks.connections(&record.id);
        let addresses: Vec<IpAddr> =
            connections.iter().flat_map(|endpoint| endpoint.addresses()).collect();
        let names = network::files::own_names(&plan.hostname(&record.id), &plan.domainname);
        let hosts = network::files::point(&read("hosts")?, &names, &addresses);
        write_in_place(&dir.join("hosts"), &hosts)?;
        // With its first network that has names it asks us from now on. A file of somebody's own is left alone.
        let (chosen, host) = (chosen_dns(&plan), self.rooms.networks.host_resolver()?);
        let inside = network::files::resolv_conf_inside(&host, &chosen);
        let plain = |speaks| network::files::resolv_conf(&host, &chosen, speaks);
        let wanted = match self.has_names(&connections) {
            true => inside.clone(),
            false => plain(spoken(&connections)),
        };
        let found = read("resolv.conf")?;
        let ours = [inside, plain(Speaks::Ipv4), plain(Speaks::Both)];
        if found != wanted && ours.contains(&found) {
            write_in_place(&dir.join("resolv.conf"), &wanted)?;
        }
        Ok(())
    }

    fn has_names(&self, endpoints: &[Arc<network::Endpoint>]) -> bool {
        self.rooms.networks.serves(endpoints)
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
                let named = attachment.endpoints.iter().filter(|endpoint| !endpoint.way_out);
                let addresses: Vec<_> = named.flat_map(|endpoint| endpoint.addresses()).collect();
                let mut extra = self.extra_hosts(plan)?;
                for linked in self.linked(record)? {
                    let names = linked.names();
                    extra.extend(linked.addresses().into_iter().map(|ip| (names.clone(), ip)));
                }
                network::files::hosts(&network::files::Hosts {
                    hostname: &hostname,
                    domain: &plan.domainname,
                    addresses: &addresses,
                    without_ipv6: endpoints::speaks_no_ipv6(&plan.sysctls),
                    extra: &extra,
                })
            }
        };
        let chosen = chosen_dns(plan);
        let host = self.rooms.networks.host_resolver()?;
        let resolv = match plan.network {
            // On the host's network its servers can be reached wherever they are, loopback too.
            Network::Host if chosen == Dns::default() => host.text,
            _ if self.has_names(&attachment.endpoints) => {
                network::files::resolv_conf_inside(&host, &chosen)
            }
            _ => network::files::resolv_conf(&host, &chosen, spoken(&attachment.endpoints)),
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

fn spoken(endpoints: &[Arc<network::Endpoint>]) -> Speaks {
    match endpoints.iter().any(|endpoint| endpoint.ip6.is_some()) {
        true => Speaks::Both,
        false => Speaks::Ipv4,
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
pub(crate) fn write_in_place(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).context(|| format!("cannot write {}", path.display()))
}
