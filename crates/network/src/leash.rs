//! Endpoints that may not reach everything, and the firewall: told before a device is there, and after it has gone.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use stdx::{Error, Id, Result};

use crate::attend::is_served;
use crate::egress::{self, Egress};
use crate::endpoint::AttachRequest;
use crate::firewall::grants::Grant;
use crate::firewall::view::Guard;
use crate::model::Model;
use crate::netd::protocol::{Leash, LeashEnd};
use crate::networks::{Core, Networks};
use crate::records::Endpoint;

impl Networks {
    /// Has a container that runs in `namespace` reach from now on what `request` says, whatever it reached before. What is
    /// open and would not be let out any more ends.
    pub fn restrict(
        &self,
        egress: Option<&Egress>,
        request: &AttachRequest,
        namespace: BorrowedFd<'_>,
    ) -> Result<()> {
        let core = &self.core;
        let endpoints = core.model().of(&request.container);
        for endpoint in &endpoints {
            let restricted = Endpoint { egress: egress.cloned(), ..Endpoint::clone(endpoint) };
            if matches!(egress, Some(Egress::Only(_))) {
                egress::check(&*core.model().network(&endpoint.network_id)?)?;
            }
            core.check_rules(&restricted)?;
        }
        let before = core.model().reaches(&endpoints);
        for endpoint in &endpoints {
            core.rewrite(&Endpoint { egress: egress.cloned(), ..Endpoint::clone(endpoint) })?;
        }
        let endpoints = core.model().of(&request.container);
        core.hold_firewall(&endpoints);
        core.permit_change()?;
        core.attend(request, namespace)?;
        let leash = core.model().leash(&endpoints, core.config.table());
        let allowed = |from: IpAddr, name: &str, port| {
            let ends = leash.iter().flat_map(|leash| &leash.ends);
            let mut rules =
                ends.filter(|end| end.addresses.contains(&from)).flat_map(|end| &end.allowed);
            rules.any(|rule| rule.names(name) && rule.port == port)
        };
        let addresses: Vec<IpAddr> = endpoints.iter().flat_map(|one| one.addresses()).collect();
        let stays = |grant: &Grant| allowed(grant.from, &grant.name, grant.port);
        let granted = core.firewall().revoke(&addresses, stays)?;
        core.cut(&endpoints, &before, &granted);
        Ok(())
    }

    /// Does a container that is connected so ask us for names?
    pub fn serves(&self, endpoints: &[Arc<Endpoint>]) -> bool {
        let model = self.core.model();
        endpoints.iter().any(|endpoint| {
            let network = model.networks.get(&endpoint.network_id);
            network.is_some_and(|network| is_served(network, endpoint))
        })
    }

    /// Whether rules for what leaves it hold on a network. In words, if not.
    pub fn check_egress(&self, network: &Id) -> Result<()> {
        egress::check(&*self.core.model().network(network)?)
    }
}

impl Core {
    /// Has the firewall know of endpoints before they can send anything.
    pub(crate) fn guard(&self, endpoints: &[Arc<Endpoint>]) -> Result<()> {
        if !self.are_guarded(endpoints) {
            return Ok(());
        }
        endpoints.iter().try_for_each(|endpoint| self.check_rules(endpoint))?;
        self.hold_firewall(endpoints);
        self.permit_change()
    }

    /// Closes what names opened to endpoints that have gone, before others have their addresses.
    pub(crate) fn shut(&self, endpoints: &[Arc<Endpoint>]) -> Result<()> {
        if !self.are_guarded(endpoints) {
            return Ok(());
        }
        let addresses: Vec<IpAddr> = endpoints.iter().flat_map(|one| one.addresses()).collect();
        self.firewall().revoke(&addresses, |_| false).map(drop)
    }

    /// Has the firewall forget endpoints that have gone.
    pub(crate) fn unguard(&self, endpoints: &[Arc<Endpoint>]) -> Result<()> {
        if self.are_guarded(endpoints) { self.permit_change() } else { Ok(()) }
    }

    fn are_guarded(&self, endpoints: &[Arc<Endpoint>]) -> bool {
        let model = self.model();
        endpoints.iter().any(|endpoint| model.guard(endpoint).is_some())
    }

    /// Rules need somebody who keeps them.
    fn check_rules(&self, endpoint: &Endpoint) -> Result<()> {
        let kept = self.config.iptables && (endpoint.ip6.is_none() || self.config.ip6tables);
        if kept || self.model().guard(endpoint).is_none() {
            return Ok(());
        }
        Err(Error::invalid(
            "egress rules need the firewall, which this daemon leaves alone (--iptables=false or --ip6tables=false)",
        ))
    }
}

impl Model {
    fn guard(&self, endpoint: &Endpoint) -> Option<Guard> {
        Guard::of(self.networks.get(&endpoint.network_id)?, endpoint)
    }

    /// What these endpoints of one container may reach by names; `None` where nothing restricts them.
    pub(crate) fn leash(&self, endpoints: &[Arc<Endpoint>], table: String) -> Option<Leash> {
        let guards = endpoints.iter().filter_map(|endpoint| self.guard(endpoint));
        let end = |guard: Guard| LeashEnd { addresses: guard.addresses, allowed: guard.allowed };
        let ends: Vec<LeashEnd> = guards.map(end).collect();
        let leads_out = |endpoint: &Arc<Endpoint>| {
            let network = self.networks.get(&endpoint.network_id);
            self.guard(endpoint).is_none() && network.is_some_and(|network| !network.internal)
        };
        let loose = endpoints.iter().any(leads_out);
        (!ends.is_empty()).then_some(Leash { table, ends, loose })
    }
}
