//! The way out of containers that are on an overlay network and on none that leads anywhere: a bridge more, on which nobody sees
//! anybody. Docker calls the network `docker_gwbridge`, and so do we: whoever made one by hand meant it.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use stdx::{Id, Kind, Result};

use crate::create::CreateRequest;
use crate::endpoint::EndpointRequest;
use crate::model::Model;
use crate::networks::{Core, Networks};
use crate::records::{DriverKind, Endpoint, Network};

const NAME: &str = "docker_gwbridge";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";

impl Networks {
    /// Makes the network, if one of these may need it and it is not there.
    pub(crate) fn prepare_way_out<'a>(
        &self,
        networks: impl IntoIterator<Item = &'a str>,
    ) -> Result<()> {
        let wanted = {
            let model = self.core.model();
            let mut found = networks.into_iter().filter_map(|name| model.find(name).ok());
            found.any(|network| may_need_one(&network)) && model.find(NAME).is_err()
        };
        if !wanted {
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
        self.prepare_way_out(others.iter().map(|endpoint| endpoint.network_id.as_str()))?;
        let missing = is_missing(&core.model(), &others);
        match (ways.first(), missing, namespace) {
            (Some(way), false, _) => core.leave(way, namespace),
            (None, true, Some(namespace)) => {
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

fn may_need_one(network: &Network) -> bool {
    network.driver == DriverKind::Overlay && !network.internal
}

/// Whether a container with these endpoints could go out, and has nobody to send it there.
pub(crate) fn is_missing(model: &Model, endpoints: &[Arc<Endpoint>]) -> bool {
    let abroad = |endpoint: &Arc<Endpoint>| {
        model.networks.get(&endpoint.network_id).is_some_and(|network| may_need_one(network))
    };
    let leads_out = |endpoint: &Arc<Endpoint>| {
        endpoint.gateway.is_some() || endpoint.gateway6.is_some() || endpoint.routed_by_link
    };
    endpoints.iter().any(abroad) && !endpoints.iter().any(leads_out)
}

/// The endpoint that leads out.
pub(crate) fn plan(model: &Model, container: &Id, others: &[Arc<Endpoint>]) -> Result<Endpoint> {
    let wish = EndpointRequest { network: NAME.to_owned(), ..EndpointRequest::default() };
    let name = format!("gateway_{}", container.short());
    let endpoint = model.plan(container, &name, &wish, others)?;
    Ok(Endpoint { way_out: true, ..endpoint })
}
