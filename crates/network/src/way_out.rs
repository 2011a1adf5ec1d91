//! The way out of containers that are on an overlay network, or a plugin's, and on none that leads anywhere: a bridge more,
//! on which nobody sees anybody. Docker calls the network `docker_gwbridge`, and so do we: whoever made one by hand meant it.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use stdx::{Id, Kind, Result};

use crate::create::CreateRequest;
use crate::endpoint::EndpointRequest;
use crate::model::Model;
use crate::networks::{Core, Networks};
use crate::records::{DriverKind, Endpoint, Network, RemoteEndpoint};

const NAME: &str = "docker_gwbridge";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";

impl Networks {
    /// Adds the endpoint that leads out to those of a container, if it needs one.
    pub(crate) fn add_way_out(
        &self,
        container: &Id,
        endpoints: &mut Vec<Arc<Endpoint>>,
    ) -> Result<()> {
        let core = &self.core;
        let missing = is_missing(&core.model(), endpoints);
        if !missing {
            return Ok(());
        }
        self.prepare_way_out()?;
        let (_, way) = self.once_settled(|| core.take_way_out(container))?;
        endpoints.push(way);
        core.hold_firewall(endpoints);
        core.keep_apart();
        core.guard(endpoints)
    }

    /// Makes the network, if it is not there.
    fn prepare_way_out(&self) -> Result<()> {
        if self.core.model().find(NAME).is_ok() {
            return Ok(());
        }
        let options = [(ICC, "false"), (MASQUERADE, "true")];
        let request = CreateRequest {
            name: NAME.to_owned(),
            options: options.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..CreateRequest::default()
        };
        match self.create(&request) {
            // Two containers that come at once.
            Err(err) if err.kind() == Kind::Conflict => Ok(()),
            made => made.map(drop),
        }
    }

    /// Has a container that runs in `namespace` have a way out if it needs one, and none otherwise.
    pub(crate) fn follow_way_out(
        &self,
        container: &Id,
        namespace: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let core = &self.core;
        let (ways, others): (Vec<_>, Vec<_>) =
            core.model().of(container).into_iter().partition(|endpoint| endpoint.way_out);
        let missing = is_missing(&core.model(), &others);
        match (ways.first(), missing, namespace) {
            (Some(way), false, _) => core.leave(way, namespace),
            (None, true, Some(namespace)) => {
                self.prepare_way_out()?;
                let (network, way) = core.take_way_out(container)?;
                core.keep_apart();
                core.enter(&network, &way, namespace).inspect_err(|_| {
                    if let Err(err) = core.leave(&way, Some(namespace)) {
                        tracing::error!(endpoint = %way.endpoint_id, err = %err.chain(), "cannot take back a way out");
                    }
                })
            }
            _ => Ok(()),
        }
    }
}

impl Core {
    fn take_way_out(&self, container: &Id) -> Result<(Arc<Network>, Arc<Endpoint>)> {
        let _turn = self.turn();
        let model = self.model();
        let way = Arc::new(plan(&model, container, &model.of(container))?);
        let network = model.network(&way.network_id)?;
        drop(model);
        self.store.put(&*way)?;
        self.model().endpoints.insert(way.endpoint_id.clone(), Arc::clone(&way));
        Ok((network, way))
    }
}

/// Whether a container with these endpoints could go out, and has nobody to send it there. What a plugin has has said so by
/// now.
fn is_missing(model: &Model, endpoints: &[Arc<Endpoint>]) -> bool {
    let abroad = |endpoint: &Arc<Endpoint>| {
        model.networks.get(&endpoint.network_id).is_some_and(|network| goes_out(network, endpoint))
    };
    endpoints.iter().any(abroad) && !endpoints.iter().any(|endpoint| leads_out(endpoint))
}

fn goes_out(network: &Network, endpoint: &Endpoint) -> bool {
    let wanted = match network.driver {
        DriverKind::Overlay => true,
        DriverKind::Plugin => endpoint.remote.as_ref().is_some_and(|remote| !remote.stays_in),
        _ => false,
    };
    wanted && !network.internal
}

pub(crate) fn leads_out(endpoint: &Endpoint) -> bool {
    let by_a_route = |remote: &RemoteEndpoint| {
        remote.routes.iter().any(|route| route.destination.prefix_len() == 0)
    };
    endpoint.gateway.is_some()
        || endpoint.gateway6.is_some()
        || endpoint.routed_by_link
        || endpoint.remote.as_ref().is_some_and(by_a_route)
}

/// The endpoint that leads out.
fn plan(model: &Model, container: &Id, others: &[Arc<Endpoint>]) -> Result<Endpoint> {
    let wish = EndpointRequest { network: NAME.to_owned(), ..EndpointRequest::default() };
    let name = format!("gateway_{}", container.short());
    let endpoint = model.plan(container, &name, &wish, others)?;
    Ok(Endpoint { way_out: true, ..endpoint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::RemoteRoute;

    fn plugins(change: impl FnOnce(&mut RemoteEndpoint)) -> (Network, Endpoint) {
        let network = Network { plugin: "x".to_owned(), ..Network::new("n", DriverKind::Plugin) };
        let mut endpoint = Endpoint::new(&network, &Id::random(), "web");
        change(endpoint.remote.as_mut().expect("a plugin's"));
        (network, endpoint)
    }

    #[test]
    fn a_plugin_without_a_gateway() {
        let (network, endpoint) = plugins(|_| {});
        assert!(goes_out(&network, &endpoint) && !leads_out(&endpoint));
        let inner = Network { internal: true, ..network };
        assert!(!goes_out(&inner, &endpoint), "an internal network leads nowhere");
        let (network, endpoint) = plugins(|remote| remote.stays_in = true);
        assert!(!goes_out(&network, &endpoint), "it says that none is wanted");
    }

    #[test]
    fn a_plugin_that_leads_out() {
        let (_, endpoint) = plugins(|_| {});
        let gateway = "10.0.0.1".parse().ok();
        assert!(leads_out(&Endpoint { gateway, ..endpoint }));
        let route = |to: &str| RemoteRoute { destination: to.parse().unwrap(), next_hop: None };
        for (to, leads) in [("10.1.0.0/16", false), ("0.0.0.0/0", true), ("::/0", true)] {
            let (_, endpoint) = plugins(|remote| remote.routes = vec![route(to)]);
            assert_eq!(leads_out(&endpoint), leads, "{to}");
        }
    }
}
