//! Connecting to a container that runs, and disconnecting from it: its namespace is entered, nothing in it stops.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use stdx::{Context, Error, Id, Result};

use crate::attend::Gone;
use crate::driver::{Inside, Namespace};
use crate::endpoint::{EndpointRequest, PortRequest};
use crate::networks::{Core, Networks};
use crate::records::{DriverKind, Endpoint, Network};
use crate::{gateway, netns};

impl Networks {
    /// Gives a container that runs in `namespace` one more network. Record first, kernel second, as at its start. Plugins
    /// hear of its `ports`.
    pub fn connect(
        &self,
        container: &Id,
        name: &str,
        wish: &EndpointRequest,
        ports: &[PortRequest],
        namespace: BorrowedFd<'_>,
    ) -> Result<Arc<Endpoint>> {
        let core = &self.core;
        let wish = &core.lease(wish)?;
        let (network, endpoint) = self
            .once_settled(|| core.take_one(container, name, wish))
            .inspect_err(|_| core.give_back(&wish.leases))?;
        let mut endpoints = [endpoint];
        let negotiated =
            core.guard(&endpoints).and_then(|()| core.negotiate(&mut endpoints, ports));
        let [endpoint] = endpoints;
        match negotiated.and_then(|()| core.enter(&network, &endpoint, namespace)) {
            Ok(()) => {
                core.keep_apart();
                core.tell("connect", &endpoint);
                Ok(endpoint)
            }
            Err(err) => {
                if let Err(err) = core.leave(&endpoint, Some(namespace)) {
                    tracing::error!(endpoint = %endpoint.endpoint_id, err = %err.chain(), "cannot take back a connection");
                }
                Err(err)
            }
        }
    }

    /// Takes a network away from a container. Without a namespace nothing of the container is left to be told.
    pub fn disconnect(
        &self,
        container: &Id,
        network: &Id,
        namespace: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let endpoint = self
            .connections(container)
            .into_iter()
            .find(|endpoint| endpoint.network_id == *network)
            .ok_or_else(|| {
                Error::not_found(format!(
                    "container {container} is not connected to network {network}"
                ))
            })?;
        self.core.leave(&endpoint, namespace)?;
        self.core.tell("disconnect", &endpoint);
        self.follow_way_out(container, namespace)
    }

    /// A container that runs is not linked to this one any more.
    pub fn unlink(&self, container: &Id, alias: &str, linked: &Id) -> Result<()> {
        for endpoint in self.connections(container) {
            let mut changed = Endpoint::clone(&endpoint);
            changed.links.retain(|link| (link.alias.as_str(), &link.container) != (alias, linked));
            if changed.links.len() == endpoint.links.len() {
                continue;
            }
            self.core.rewrite(&changed)?;
            self.core.carry_links(std::slice::from_ref(&endpoint))?;
            let theirs = self.connections(linked);
            for other in theirs.iter().filter(|other| other.network_id == endpoint.network_id) {
                self.core.forget_flows_between(&endpoint, other);
            }
        }
        Ok(())
    }

    /// A container is called otherwise from now on, by others on its networks, too.
    pub fn rename(&self, container: &Id, old: &str, new: &str) -> Result<()> {
        let _turn = self.core.turn();
        let renamed = self.connections(container).into_iter().map(|endpoint| {
            let mut endpoint = Endpoint::clone(&endpoint);
            new.clone_into(&mut endpoint.container_name);
            if let Some(first) = endpoint.dns_names.iter_mut().find(|name| *name == old) {
                new.clone_into(first);
            }
            Arc::new(endpoint)
        });
        let renamed: Vec<_> = renamed.collect();
        self.core.store.transaction(|tx| renamed.iter().try_for_each(|one| tx.put(&**one)))?;
        let mut model = self.core.model();
        for endpoint in renamed {
            model.endpoints.insert(endpoint.endpoint_id.clone(), endpoint);
        }
        Ok(())
    }
}

impl Core {
    fn take_one(
        &self,
        container: &Id,
        name: &str,
        wish: &EndpointRequest,
    ) -> Result<(Arc<Network>, Arc<Endpoint>)> {
        let _turn = self.turn();
        let model = self.model();
        let others = model.of(container);
        let endpoint = Arc::new(model.plan(container, name, wish, &others)?);
        let network = model.network(&endpoint.network_id)?;
        if self.drivers.of(network.driver).namespace() == Namespace::Host {
            return Err(Error::invalid(
                "cannot connect container to host network - container must be created in host network mode",
            ));
        }
        drop(model);
        self.store.put(&*endpoint)?;
        self.model().endpoints.insert(endpoint.endpoint_id.clone(), Arc::clone(&endpoint));
        Ok((network, endpoint))
    }

    pub(crate) fn enter(
        &self,
        network: &Network,
        endpoint: &Endpoint,
        namespace: BorrowedFd<'_>,
    ) -> Result<()> {
        let gateways = gateway::choose(&self.model().of(&endpoint.container));
        let driver = self.drivers.of(network.driver);
        netns::enter(namespace, |socket| {
            let mut inside = Inside { namespace: namespace.as_fd(), socket, untouched: false };
            driver.connect(network, endpoint, &mut inside).context(|| {
                format!(
                    "failed to create endpoint {} on network {}",
                    endpoint.container_name, network.name
                )
            })?;
            inside.route(&gateways)
        })
    }

    /// The way back from [`enter`](Self::enter), however far that came. The address is free when this returns.
    pub(crate) fn leave(
        &self,
        endpoint: &Arc<Endpoint>,
        namespace: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let gateways = {
            let mut model = self.model();
            model.leaving.insert(endpoint.endpoint_id.clone());
            gateway::choose(&model.of(&endpoint.container))
        };
        self.close(std::slice::from_ref(endpoint));
        self.cut_links(std::slice::from_ref(endpoint));
        self.withdraw(std::slice::from_ref(endpoint), Gone::Endpoints);
        let shared = self.model().networks.get(&endpoint.network_id).is_some_and(|network| {
            matches!(network.driver, DriverKind::Macvlan | DriverKind::Ipvlan | DriverKind::Overlay)
        });
        let furnished = namespace.filter(|_| !endpoint.ifname.is_empty());
        if let Some(namespace) = furnished.filter(|_| shared) {
            netns::enter(namespace, |socket| {
                Inside { namespace, socket, untouched: false }.drop_device(&endpoint.ifname)
            })?;
        }
        let device = endpoint.remote.as_ref().map(|remote| remote.device.as_str());
        if let (Some(namespace), Some(device)) = (furnished, device.filter(|name| !name.is_empty()))
        {
            let host = netns::own()?;
            netns::enter(namespace, |socket| {
                Inside { namespace, socket, untouched: false }.give_back(
                    &endpoint.ifname,
                    device,
                    host.as_fd(),
                )
            })?;
        }
        self.release(std::slice::from_ref(&endpoint.endpoint_id))?;
        if let Some(namespace) = furnished {
            netns::enter(namespace, |socket| {
                Inside { namespace, socket, untouched: false }.route(&gateways)
            })?;
        }
        Ok(())
    }
}
