//! `docker network connect` and `disconnect`: another network, or one less, whether it runs or not.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use api::network::EndpointSettings;
use network::namespace_of;
use stdx::{Error, Id, Kind, Result};

use super::record::Record;
use super::state::Phase;
use super::{Container, endpoints};
use crate::Containers;

impl Containers {
    /// Takes a network away from a container. With `force` an endpoint of a container that nobody knows any more goes, too.
    pub async fn disconnect_network(&self, name: &str, network: &str, force: bool) -> Result<()> {
        match self.find(name) {
            Ok(container) => container.disconnect_network(network, force).await,
            Err(error) if !force => Err(error),
            Err(_) => {
                let networks = self.rooms.networks.clone();
                let (name, network) = (name.to_owned(), networks.find(network)?);
                tokiox::blocking(move || {
                    let endpoint = networks
                        .endpoints(&network.id)
                        .into_iter()
                        .find(|endpoint| endpoint.container_name == name)
                        .ok_or_else(|| Error::not_found(format!("endpoint {name} not found")))?;
                    networks.disconnect(&endpoint.container, &network.id, None)
                })
                .await
            }
        }
    }
}

impl Container {
    /// Gives the container one more network: at once when it runs, else from its next start on.
    pub async fn connect_network(&self, network: &str, settings: EndpointSettings) -> Result<()> {
        let (this, network) = (self.clone(), network.to_owned());
        tokiox::to_the_end(async move {
            let _gate = this.cell.gate.lock().await;
            let this = this.clone();
            tokiox::blocking(move || this.connect_held(&network, settings)).await
        })
        .await
    }

    fn connect_held(&self, term: &str, mut settings: EndpointSettings) -> Result<()> {
        let networks = &self.rooms.networks;
        let mut record = self.changeable()?;
        let network = match networks.find(term) {
            // It may be there by the time of the start, which looks again.
            Err(error) if error.kind() == Kind::NotFound && !record.state.phase.is_up() => {
                record.endpoints.insert(term.to_owned(), Box::new(settings));
                return self.save(record);
            }
            found => found?,
        };
        endpoints::may_join(&record.host_config.network_mode, &record.endpoints, &network)?;
        endpoints::check(Some(&network), &network.name, &settings).map_err(Error::invalid)?;
        let name = network.name.clone();
        if !record.state.phase.is_up() {
            if record.endpoints.contains_key(&name) {
                return Ok(());
            }
            settings.network_id = network.id.to_string();
            if !settings.mac_address.is_empty() {
                record.wanted_macs.insert(name.clone(), settings.mac_address.clone());
            }
            record.endpoints.insert(name, Box::new(settings));
            return self.save(record);
        }
        let mac = std::mem::take(&mut settings.mac_address);
        if !mac.is_empty() {
            record.wanted_macs.insert(name.clone(), mac);
        }
        let links = self.resolve_links(settings.links.as_deref())?;
        let request = endpoints::request(&record, &name, &settings, links)?;
        let namespace = namespace_of(record.state.pid)?;
        let ports = record.plan(&self.rooms.settings())?.ports.requests;
        let endpoint =
            networks.connect(&record.id, &record.name, &request, &ports, namespace.as_fd())?;
        endpoints::show(&mut settings, &endpoint);
        record.endpoints.insert(name, Box::new(settings));
        if let Err(error) = self.finish_change(record, namespace.as_fd()) {
            networks.disconnect(self.id(), &network.id, Some(namespace.as_fd()))?;
            return Err(error);
        }
        Ok(())
    }

    /// What follows a change of networks: ports and names, files, and the record.
    fn finish_change(&self, mut record: Record, namespace: BorrowedFd<'_>) -> Result<()> {
        let plan = record.plan(&self.rooms.settings())?;
        let request = self.attach_request(&record, &plan)?;
        self.rooms.networks.attend(&request, namespace)?;
        record.ports = self.published_now(&record);
        self.follow_networks(&record)?;
        self.save(record)
    }

    /// Takes a network away. What is connected through it is cut off; the container runs on.
    pub async fn disconnect_network(&self, network: &str, force: bool) -> Result<()> {
        let (this, network) = (self.clone(), network.to_owned());
        tokiox::to_the_end(async move {
            let _gate = this.cell.gate.lock().await;
            let this = this.clone();
            tokiox::blocking(move || this.disconnect_held(&network, force)).await
        })
        .await
    }

    fn disconnect_held(&self, term: &str, force: bool) -> Result<()> {
        let networks = &self.rooms.networks;
        let mut record = self.changeable()?;
        let found = networks.find(term);
        let up = record.state.phase.is_up();
        if !up || (found.is_err() && force) {
            let name = found.map_or_else(|_| term.to_owned(), |network| network.name.clone());
            if record.endpoints.remove(&name).is_none() {
                return Err(Error::internal(format!(
                    "container {} is not connected to the network {name}",
                    record.id
                )));
            }
            record.wanted_macs.remove(&name);
            return self.save(record);
        }
        let network = found?;
        if network.name == "host" && record.host_config.network_mode == "host" {
            return Err(Error::invalid(
                "cannot disconnect container from host network - container was created in host network mode",
            ));
        }
        let connected = networks.connections(&record.id);
        if !connected.iter().any(|endpoint| endpoint.network_id == network.id) {
            return Err(Error::internal(format!(
                "container {} is not connected to network {}",
                record.id, network.name
            )));
        }
        let namespace = namespace_of(record.state.pid)?;
        networks.disconnect(&record.id, &network.id, Some(namespace.as_fd()))?;
        record.endpoints.remove(&network.name);
        record.wanted_macs.remove(&network.name);
        self.finish_change(record, namespace.as_fd())
    }

    /// Others hear its new name.
    pub(crate) fn rename_endpoints(&self, old: &str) -> Result<()> {
        let record = self.record();
        self.rooms.networks.rename(&record.id, old, &record.name)?;
        if !record.state.phase.is_up() || record.host_config.network_mode.starts_with("container:")
        {
            return Ok(());
        }
        let plan = record.plan(&self.rooms.settings())?;
        let request = self.attach_request(&record, &plan)?;
        self.rooms.networks.attend(&request, namespace_of(record.state.pid)?.as_fd())
    }

    fn changeable(&self) -> Result<Record> {
        let record = self.record();
        if record.gone {
            return Err(Error::not_found(format!("No such container: {}", record.id)));
        }
        if matches!(record.state.phase, Phase::Removing | Phase::Dead) {
            return Err(Error::internal(format!(
                "Container {} is marked for removal and cannot be connected or disconnected to the network",
                record.id
            )));
        }
        Ok(Record::clone(&record))
    }

    /// Makes the networks of a container that was adopted be those of its record: a daemon may have died between the one
    /// and the other. What was not written down was not promised, and what is gone from the kernel is gone.
    pub(crate) fn agree_on_networks(&self) -> Result<()> {
        let networks = &self.rooms.networks;
        let mut record = Record::clone(&self.record());
        let real = networks.connections(&record.id);
        let promised = |endpoint_id: &Id| {
            record.endpoints.values().any(|one| one.endpoint_id == endpoint_id.as_str())
        };
        let unknown: Vec<_> = real
            .iter()
            .filter(|endpoint| !promised(&endpoint.endpoint_id))
            .map(Arc::clone)
            .collect();
        let there = |settings: &EndpointSettings| {
            settings.endpoint_id.is_empty()
                || real.iter().any(|one| one.endpoint_id.as_str() == settings.endpoint_id)
        };
        let before = record.endpoints.len();
        record.endpoints.retain(|_, settings| there(settings));
        if unknown.is_empty() && record.endpoints.len() == before {
            return Ok(());
        }
        tracing::info!(container = %record.id, unknown = unknown.len(), "finishing a change of networks");
        let namespace = namespace_of(record.state.pid).ok();
        for endpoint in unknown {
            let namespace = namespace.as_ref().map(AsFd::as_fd);
            networks.disconnect(&record.id, &endpoint.network_id, namespace)?;
        }
        if record.endpoints.len() != before {
            self.follow_networks(&record)?;
            record.ports = self.published_now(&record);
            self.save(record)?;
        }
        Ok(())
    }
}
