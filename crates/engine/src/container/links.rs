//! `--link` on the default bridge: a container knows another by an alias, through its hosts file and its environment.

use std::collections::BTreeMap;

use network::{Link, files};
use stdx::{Context, Error, Kind, Result};

use super::endpoints::{self, parse_link};
use super::plan::{Network, Plan};
use super::record::Record;
use super::{Container, connect};
use crate::registry::Registry;
use crate::rooms::Rooms;

/// A linked container, as the one that links to it sees it.
pub(crate) struct Linked {
    pub(crate) alias: String,
    pub(crate) child: std::sync::Arc<Record>,
}

/// Checks the links of a container that is to be made, and has them name the others by their ids: names change.
pub(crate) fn check(
    plan: &Plan,
    links: Option<Vec<String>>,
    rooms: &Rooms,
) -> Result<Option<Vec<String>>> {
    let Some(links) = links.filter(|links| !links.is_empty()) else { return Ok(None) };
    // Networks of users have their own, in the endpoint's settings.
    if matches!(&plan.network, Network::Named(name) if name != "bridge") {
        return Ok(None);
    }
    let conflict = |what: &str| {
        Error::invalid(format!(
            "conflicting options: {what} can't be used with links. This would result in undefined behavior"
        ))
    };
    match &plan.network {
        Network::Host => return Err(conflict("host type networking")),
        Network::Container(_) => return Err(conflict("container type network")),
        Network::None | Network::Named(_) => {}
    }
    let by_id = |text: &String| {
        let (name, alias) = parse_link(text)?;
        // Not "not found": a client would think of the image.
        let child = rooms
            .registry
            .find(&name)
            .map_err(|error| error.with_kind(Kind::Invalid))
            .context(|| format!("could not get container for {name}"))?;
        if child.record().host_config.network_mode == "host" {
            return Err(conflict("host type networking"));
        }
        Ok(format!("{}:{alias}", child.id))
    };
    links.iter().map(by_id).collect::<Result<_>>().map(Some)
}

impl Container {
    /// The containers this one links to on the default bridge. All have to run.
    pub(crate) fn linked(&self, record: &Record) -> Result<Vec<Linked>> {
        let mut linked = Vec::new();
        for text in record.host_config.links.iter().flatten() {
            let (name, alias) = parse_link(text)?;
            // One that was removed is linked to no more.
            let Ok(child) = self.rooms.registry.find(&name) else { continue };
            let child = child.record();
            if !child.state.phase.is_up() {
                return Err(Error::internal(format!(
                    "Cannot link to a non running container: /{} AS /{}/{alias}",
                    child.name, record.name
                )));
            }
            linked.push(Linked { alias, child });
        }
        Ok(linked)
    }

    /// Links for the records of the network room, to whom there is.
    pub(crate) fn resolve_links(&self, links: Option<&[String]>) -> Result<Vec<Link>> {
        endpoints::resolved(links.unwrap_or_default(), |name| {
            self.rooms.registry.find(name).ok().map(|cell| cell.id.clone())
        })
    }

    /// Tells those that link to this container, and run, where it is now.
    pub(crate) fn tell_parents(&self) {
        let record = self.record();
        for cell in self.rooms.registry.all() {
            let parent = cell.record();
            if parent.host_config.links.is_none() || !parent.state.phase.is_up() {
                continue;
            }
            let links = parent.host_config.links.iter().flatten();
            let mine = links.filter_map(|text| parse_link(text).ok()).filter(|(name, _)| {
                self.rooms.registry.find(name).is_ok_and(|child| child.id == record.id)
            });
            for (_, alias) in mine {
                let linked = Linked { alias, child: std::sync::Arc::clone(&record) };
                let path = self.rooms.exec_dir(&parent.id).join("hosts");
                let told = std::fs::read_to_string(&path)
                    .map(|text| files::point(&text, &linked.names(), &linked.addresses()))
                    .context(|| format!("cannot read {}", path.display()))
                    .and_then(|text| connect::write_in_place(&path, &text));
                if let Err(error) = told {
                    tracing::warn!(container = %parent.id, error = %error.chain(), "cannot tell where a linked container is");
                }
            }
        }
    }
}

impl Registry {
    /// How containers are called by those that link to them, by their ids.
    pub(crate) fn names_by_link(&self) -> BTreeMap<String, Vec<String>> {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for cell in self.all() {
            let parent = cell.record();
            for text in parent.host_config.links.iter().flatten() {
                if let Ok((child, alias)) = parse_link(text) {
                    names.entry(child).or_default().push(format!("/{}/{alias}", parent.name));
                }
            }
        }
        names
    }

    /// Links as `inspect` shows them.
    pub(crate) fn shown_links(&self, record: &Record) -> Option<Vec<String>> {
        let links = record.host_config.links.as_ref()?;
        let shown = links.iter().map(|text| match parse_link(text) {
            Ok((name, alias)) => {
                let child = self.find(&name).map_or(name, |cell| cell.record().name.clone());
                endpoints::shown_link(&child, &record.name, &alias)
            }
            Err(_) => text.clone(),
        });
        Some(shown.collect())
    }
}

impl Linked {
    /// By its alias, its host name, and its own name.
    pub(crate) fn names(&self) -> String {
        let hostname = match self.child.config.hostname.as_str() {
            "" => self.child.id.short(),
            name => name,
        };
        let mut names = format!("{} {hostname}", self.alias);
        if self.alias != self.child.name {
            names.push(' ');
            names.push_str(&self.child.name);
        }
        names
    }

    pub(crate) fn addresses(&self) -> Vec<std::net::IpAddr> {
        let Some(bridge) = self.child.endpoints.get("bridge") else { return Vec::new() };
        [&bridge.ip_address, &bridge.global_ipv6_address]
            .into_iter()
            .filter_map(|text| text.parse().ok())
            .collect()
    }

    /// Variables that tell of the other's ports, name and variables.
    pub(crate) fn environment(&self, parent: &str) -> Vec<String> {
        let alias = self.alias.to_uppercase().replace('-', "_");
        let ip = self.addresses().first().map(|ip| ip.to_string()).unwrap_or_default();
        let mut ports: Vec<(u16, &str)> = self
            .child
            .config
            .exposed_ports
            .keys()
            .filter_map(|port| {
                let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                Some((number.parse().ok()?, protocol))
            })
            .collect();
        ports.sort_by_key(|(number, protocol)| (*number, *protocol != "tcp"));
        let mut env = Vec::new();
        if let Some((number, protocol)) = ports.first() {
            env.push(format!("{alias}_PORT={protocol}://{ip}:{number}"));
        }
        for (number, protocol) in &ports {
            let prefix = format!("{alias}_PORT_{number}_{}", protocol.to_uppercase());
            env.push(format!("{prefix}={protocol}://{ip}:{number}"));
            env.push(format!("{prefix}_ADDR={ip}"));
            env.push(format!("{prefix}_PORT={number}"));
            env.push(format!("{prefix}_PROTO={protocol}"));
        }
        env.push(format!("{alias}_NAME=/{parent}/{}", self.alias));
        for pair in self.child.config.env.iter().flatten() {
            match pair.split_once('=') {
                None | Some(("HOME" | "PATH", _)) => {}
                Some((name, value)) => env.push(format!("{alias}_ENV_{name}={value}")),
            }
        }
        env
    }
}
