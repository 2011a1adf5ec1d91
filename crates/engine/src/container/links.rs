//! `--link` on the default bridge: a container knows another by an alias, through its hosts file and its environment.

use std::collections::BTreeMap;
use std::sync::Arc;

use network::{Link, files};
use stdx::{Context, Error, Kind, Result};

use super::endpoints::{self, parse_link};
use super::plan::{Network, Plan};
use super::record::Record;
use super::{Container, connect};
use crate::Containers;
use crate::registry::Registry;
use crate::rooms::Rooms;

/// The one network that these links are on.
const BRIDGE: &str = "bridge";

/// A linked container, as the one that links to it sees it.
pub(crate) struct Linked {
    pub(crate) alias: String,
    pub(crate) child: Arc<Record>,
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
        if !record.endpoints.contains_key(BRIDGE) {
            return Ok(linked);
        }
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
            if !child.endpoints.contains_key(BRIDGE) {
                return Err(Error::internal(format!(
                    "Cannot link to /{}, as it does not belong to the default network",
                    child.name
                )));
            }
            linked.push(Linked { alias, child });
        }
        Ok(linked)
    }

    /// Forgets one of this container's links, and has it not be known inside any more.
    async fn unlink(&self, alias: &str, child: &Arc<Record>) -> Result<()> {
        let (this, child) = (self.clone(), Arc::clone(child));
        let alias = alias.to_owned();
        tokiox::to_the_end(async move {
            let _gate = this.cell.gate.lock().await;
            let this = this.clone();
            tokiox::blocking(move || this.unlink_held(&alias, &child)).await
        })
        .await
    }

    fn unlink_held(&self, alias: &str, child: &Arc<Record>) -> Result<()> {
        let mut record = Record::clone(&self.record());
        let rest = record.host_config.links.iter().flatten().filter(|text| {
            let link = parse_link(text);
            !link.is_ok_and(|(name, known_as)| {
                known_as == alias
                    && self.rooms.registry.find(&name).is_ok_and(|other| other.id == child.id)
            })
        });
        let rest: Vec<String> = rest.cloned().collect();
        record.host_config.links = (!rest.is_empty()).then_some(rest);
        let up = record.state.phase.is_up();
        self.save(record)?;
        if !up {
            return Ok(());
        }
        self.rooms.networks.unlink(self.id(), alias, &child.id)?;
        let linked = Linked { alias: alias.to_owned(), child: Arc::clone(child) };
        let path = self.rooms.exec_dir(self.id()).join("hosts");
        let text =
            std::fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))?;
        connect::write_in_place(&path, &files::point(&text, &linked.names(), &[]))
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
                let linked = Linked { alias, child: Arc::clone(&record) };
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

impl Containers {
    /// `docker rm --link`: `web/db` is what `web` calls a container by the name `db`. The container stays.
    pub async fn remove_link(&self, name: &str) -> Result<()> {
        let name = format!("/{}", name.trim_start_matches('/'));
        let Some((parent, alias)) = name.rsplit_once('/').filter(|(parent, _)| !parent.is_empty())
        else {
            self.find(&name[1..])?;
            return Err(Error::conflict(
                "Conflict, cannot remove the default link name of the container",
            ));
        };
        let missing = || Error::not_found(format!("No such container: {}", &name[1..]));
        let parent = self.find(parent).map_err(|_| missing())?;
        let linked_as = |text: &String| {
            let (child, _) = parse_link(text).ok().filter(|(_, known_as)| known_as == alias)?;
            self.find(&child).ok()
        };
        let links = parent.record().host_config.links.clone();
        let child = links.iter().flatten().find_map(linked_as).ok_or_else(missing)?;
        parent.unlink(alias, &child.record()).await
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
        let Some(bridge) = self.child.endpoints.get(BRIDGE) else { return Vec::new() };
        [&bridge.ip_address, &bridge.global_ipv6_address]
            .into_iter()
            .filter_map(|text| text.parse().ok())
            .collect()
    }

    /// Variables that tell of the other's ports, name and variables.
    pub(crate) fn environment(&self, parent: &str) -> Vec<String> {
        let alias = self.alias.to_uppercase().replace('-', "_");
        let ip = self.addresses().first().map(|ip| ip.to_string()).unwrap_or_default();
        let mut env = of_ports(&alias, &ip, exposed(&self.child));
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

/// TCP's first, then in the order of protocols and numbers.
fn exposed(child: &Record) -> Vec<(String, u16)> {
    let ports = child.config.exposed_ports.keys().filter_map(|port| {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        Some((protocol.to_owned(), number.parse().ok()?))
    });
    let mut ports: Vec<(String, u16)> = ports.collect();
    ports.sort_by_key(|(protocol, number)| (protocol != "tcp", protocol.clone(), *number));
    ports
}

/// The lowest is the one that is meant when none is named. Numbers that follow each other are told as a range, too.
fn of_ports(alias: &str, ip: &str, ports: Vec<(String, u16)>) -> Vec<String> {
    let mut env = Vec::new();
    let lowest = ports.iter().min_by_key(|(protocol, number)| (*number, protocol != "tcp"));
    if let Some((protocol, number)) = lowest {
        env.push(format!("{alias}_PORT={protocol}://{ip}:{number}"));
    }
    let follows = |one: &(String, u16), next: &(String, u16)| {
        one.0 == next.0 && one.1.checked_add(1) == Some(next.1)
    };
    for range in ports.chunk_by(follows) {
        let prefix = |(protocol, number): &(String, u16)| {
            format!("{alias}_PORT_{number}_{}", protocol.to_uppercase())
        };
        for port in range {
            let (protocol, number) = port;
            let prefix = prefix(port);
            env.push(format!("{prefix}={protocol}://{ip}:{number}"));
            env.push(format!("{prefix}_ADDR={ip}"));
            env.push(format!("{prefix}_PORT={number}"));
            env.push(format!("{prefix}_PROTO={protocol}"));
        }
        if let [start, .., end] = range {
            let prefix = prefix(start);
            env.push(format!("{prefix}_START={}://{ip}:{}", start.0, start.1));
            env.push(format!("{prefix}_PORT_START={}", start.1));
            env.push(format!("{prefix}_END={}://{ip}:{}", end.0, end.1));
            env.push(format!("{prefix}_PORT_END={}", end.1));
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_ports() {
        let ports = [("tcp", 80), ("tcp", 6379), ("tcp", 6380), ("tcp", 6381), ("udp", 6382)];
        let ports = ports.map(|(protocol, number)| (protocol.to_owned(), number)).to_vec();
        let env = of_ports("DB", "172.17.0.2", ports);
        let some = |begin: &str| -> Vec<&str> {
            env.iter().filter_map(|pair| pair.strip_prefix(begin)).collect()
        };
        assert_eq!(some("DB_PORT="), ["tcp://172.17.0.2:80"]);
        assert_eq!(
            some("DB_PORT_80_TCP"),
            ["=tcp://172.17.0.2:80", "_ADDR=172.17.0.2", "_PORT=80", "_PROTO=tcp"]
        );
        assert_eq!(
            some("DB_PORT_6379_TCP"),
            [
                "=tcp://172.17.0.2:6379",
                "_ADDR=172.17.0.2",
                "_PORT=6379",
                "_PROTO=tcp",
                "_START=tcp://172.17.0.2:6379",
                "_PORT_START=6379",
                "_END=tcp://172.17.0.2:6381",
                "_PORT_END=6381",
            ]
        );
        assert_eq!(some("DB_PORT_6382_UDP_PORT"), ["=6382"]);
        assert_eq!(of_ports("DB", "172.17.0.2", Vec::new()), [""; 0]);
        let ports = vec![("tcp".to_owned(), 80), ("udp".to_owned(), 53)];
        assert_eq!(of_ports("DB", "172.17.0.2", ports)[0], "DB_PORT=udp://172.17.0.2:53");
    }
}
