//! What plugins are asked when a container is connected, and told when it goes.

use std::net::IpAddr;
use std::sync::Arc;

use stdx::Result;

use crate::endpoint::{EndpointRequest, PortRequest};
use crate::gateway;
use crate::networks::Core;
use crate::records::{Endpoint, Lease};
use crate::way_out;

impl Core {
    /// The wish with addresses in it, where a plugin gives them out.
    pub(crate) fn lease(&self, wish: &EndpointRequest) -> Result<EndpointRequest> {
        let network = self.model().find(&wish.network)?;
        let mut wish = wish.clone();
        if !network.ipam.is_remote() || network.config_only {
            return Ok(wish);
        }
        self.replay(&network.ipam.driver)?;
        // Its pools may be called otherwise since.
        let network = self.model().network(&network.id)?;
        let (leases, mac) = self.ipam.addresses(&network, &wish)?;
        (wish.leases, wish.mac) = (leases, mac.or(wish.mac));
        for lease in &wish.leases {
            match lease.address {
                IpAddr::V4(ip) => wish.ip = Some(ip),
                IpAddr::V6(ip) => wish.ip6 = Some(ip),
            }
        }
        Ok(wish)
    }

    pub(crate) fn lease_all(&self, wishes: &[EndpointRequest]) -> Result<Vec<EndpointRequest>> {
        let mut leased = Vec::with_capacity(wishes.len());
        for wish in wishes {
            match self.lease(wish) {
                Ok(wish) => leased.push(wish),
                Err(error) => {
                    leased.iter().for_each(|wish| self.give_back(&wish.leases));
                    return Err(error);
                }
            }
        }
        Ok(leased)
    }

    pub(crate) fn give_back(&self, leases: &[Lease]) {
        for lease in leases {
            self.ipam.give_back(&lease.driver, [], std::slice::from_ref(lease));
        }
    }

    /// Has plugins make their endpoints. What they say of them is written down.
    pub(crate) fn negotiate(
        &self,
        endpoints: &mut [Arc<Endpoint>],
        ports: &[PortRequest],
    ) -> Result<()> {
        for slot in endpoints {
            let endpoint = &*slot;
            if endpoint.remote.is_none() {
                continue;
            }
            let network = self.model().network(&endpoint.network_id)?;
            let taken: Vec<String> = self
                .model()
                .of(&endpoint.container)
                .iter()
                .filter(|other| other.endpoint_id != endpoint.endpoint_id)
                .map(|other| other.ifname.clone())
                .collect();
            let (agreed, outcome) =
                match self.drivers.remote.join(&network, endpoint, &taken, ports) {
                    Ok(agreed) => (agreed, Ok(())),
                    Err(error) => {
                        // It has taken back what it had done.
                        let mut untold = Endpoint::clone(endpoint);
                        if let Some(remote) = &mut untold.remote {
                            remote.told = false;
                        }
                        (untold, Err(error))
                    }
                };
            let agreed = Arc::new(agreed);
            self.store.put(&*agreed)?;
            self.model().endpoints.insert(agreed.endpoint_id.clone(), Arc::clone(&agreed));
            *slot = agreed;
            outcome?;
        }
        Ok(())
    }

    /// Tells the plugin whose network is a container's way out to publish its ports, and no other. What was shown to it is
    /// written down before, and in `endpoints`.
    pub(crate) fn follow_gateway(
        &self,
        endpoints: &mut [Arc<Endpoint>],
        ports: &[PortRequest],
    ) -> Result<()> {
        let chosen = gateway::choose(endpoints);
        let nobody = chosen.v4.is_none() && chosen.v6.is_none();
        let leads = |endpoint: &Endpoint| {
            let is_it = |one: &Arc<Endpoint>| one.endpoint_id == endpoint.endpoint_id;
            [&chosen.v4, &chosen.v6].into_iter().flatten().any(is_it)
                || nobody && way_out::leads_out(endpoint)
        };
        let mut changed: Vec<&mut Arc<Endpoint>> = endpoints
            .iter_mut()
            .filter(|one| one.remote.as_ref().is_some_and(|remote| remote.leads_out != leads(one)))
            .collect();
        // Who has ports gives them up before somebody else wants them.
        changed.sort_by_key(|endpoint| leads(endpoint));
        for slot in changed {
            let mut endpoint = Endpoint::clone(slot);
            let leads = leads(&endpoint);
            let remote = endpoint.remote.as_mut().expect("a plugin's");
            remote.leads_out = leads;
            let driver = remote.driver.clone();
            self.rewrite(&endpoint)?;
            self.drivers.remote.lead_out(&driver, &endpoint, leads.then_some(ports));
            *slot = Arc::new(endpoint);
        }
        Ok(())
    }

    /// Tells plugins that endpoints are over.
    pub(crate) fn part(&self, endpoints: &[Arc<Endpoint>]) -> Result<()> {
        use crate::driver::Driver;
        self.drivers.remote.disconnect(endpoints)?;
        endpoints.iter().for_each(|endpoint| self.give_back(&endpoint.leases));
        Ok(())
    }
}
