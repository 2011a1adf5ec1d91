//! Which of a container's networks leads out.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::records::Endpoint;

/// The endpoints that bring the default routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gateways {
    pub(crate) v4: Option<Arc<Endpoint>>,
    pub(crate) v6: Option<Arc<Endpoint>>,
}

/// The highest `gw-priority` wins; of equals one that leads out in both families; then the first by name.
pub(crate) fn choose(endpoints: &[Arc<Endpoint>]) -> Gateways {
    let mut order: Vec<&Arc<Endpoint>> = endpoints.iter().collect();
    order.sort_by_key(|endpoint| {
        let both = leads_out_v4(endpoint) && leads_out_v6(endpoint);
        (Reverse(endpoint.gw_priority), Reverse(both), &endpoint.network)
    });
    let first = |leads: fn(&Endpoint) -> bool| {
        order.iter().find(|endpoint| leads(endpoint)).map(|endpoint| Arc::clone(endpoint))
    };
    Gateways { v4: first(leads_out_v4), v6: first(leads_out_v6) }
}

fn leads_out_v4(endpoint: &Endpoint) -> bool {
    endpoint.gateway.is_some() || endpoint.routed_by_link && endpoint.ip.is_some()
}

fn leads_out_v6(endpoint: &Endpoint) -> bool {
    endpoint.gateway6.is_some() || endpoint.routed_by_link && endpoint.ip6.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{DriverKind, Network};

    fn endpoint(network: &str, priority: i64, families: &str) -> Arc<Endpoint> {
        let network = Network::new(network, DriverKind::Bridge);
        let mut endpoint = Endpoint::new(&network, &stdx::Id::random(), "web");
        endpoint.gw_priority = priority;
        endpoint.gateway = families.contains('4').then(|| [10, 0, 0, 1].into());
        endpoint.gateway6 = families.contains('6').then(|| "fd00::1".parse().unwrap());
        Arc::new(endpoint)
    }

    #[track_caller]
    fn check(endpoints: &[(&str, i64, &str)], expected: (&str, &str)) {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(name, priority, families)| endpoint(name, *priority, families))
            .collect();
        let chosen = choose(&endpoints);
        let name =
            |one: &Option<Arc<Endpoint>>| one.as_ref().map_or("-", |one| &one.network).to_owned();
        assert_eq!((name(&chosen.v4).as_str(), name(&chosen.v6).as_str()), expected);
    }

    #[test]
    fn who_leads_out() {
        check(&[], ("-", "-"));
        check(&[("b", 0, "4"), ("a", 0, "4")], ("a", "-"));
        check(&[("a", 0, "4"), ("b", 1, "4")], ("b", "-"));
        check(&[("a", -1, "4"), ("b", 0, "")], ("a", "-"));
        check(&[("a", 0, "4"), ("b", 0, "46")], ("b", "b"));
        check(&[("a", 1, "4"), ("b", 0, "46")], ("a", "b"));
    }
}
