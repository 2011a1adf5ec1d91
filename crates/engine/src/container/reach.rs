//! What a container may reach outside of its networks, and how fast: asked of the networks when it is made, told to them when that
//! changes while it runs.

use std::os::fd::AsFd;

use network::{Egress, Networks, namespace_of};
use stdx::Result;

use super::Container;
use super::plan::{Network, Plan};

/// Rules that would not hold are refused at once, as far as the networks are there yet.
pub(crate) fn check<'a>(
    plan: &Plan,
    names: impl Iterator<Item = &'a String>,
    networks: &Networks,
) -> Result<()> {
    for network in names.filter_map(|name| networks.find(name).ok()) {
        if matches!(plan.egress, Some(Egress::Only(_))) {
            networks.check_egress(&network.id)?;
        }
        networks.check_rate(&network.id, plan.rate)?;
    }
    Ok(())
}

impl Container {
    /// Has the networks of a container that runs do what its record says. The gate is held by whoever calls.
    pub(crate) async fn follow_reach(&self) -> Result<()> {
        let this = self.clone();
        tokiox::blocking(move || {
            let record = this.record();
            let plan = record.plan(&this.rooms.settings())?;
            let connections = this.rooms.networks.connections(&record.id);
            if matches!(plan.network, Network::Host | Network::Container(_)) {
                return Ok(());
            }
            let rate = plan.rate.unwrap_or_default();
            if connections.iter().any(|endpoint| endpoint.rate.unwrap_or_default() != rate) {
                this.rooms.networks.limit(&record.id, plan.rate)?;
            }
            if connections.iter().all(|endpoint| endpoint.egress == plan.egress) {
                return Ok(());
            }
            let request = this.attach_request(&record, &plan)?;
            let namespace = namespace_of(record.state.pid)?;
            this.rooms.networks.restrict(plan.egress.as_ref(), &request, namespace.as_fd())?;
            this.follow_networks(&record)
        })
        .await
    }
}
