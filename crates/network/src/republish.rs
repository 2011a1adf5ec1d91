//! Other ports for a container that runs: what stays is not touched, what comes is taken before what goes is given back,
//! and a refusal leaves everything as it was.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use stdx::{Context, Id, Result};

use crate::attend::{announce, defaults, outward, place, published, routed};
use crate::endpoint::PortRequest;
use crate::netd::protocol::{Change, Place};
use crate::networks::{Core, Networks};
use crate::ports::{Bound, Defaults, Group, Need, groups};
use crate::records::{Endpoint, PublishedPort};

impl Networks {
    /// Publishes `after` of a container that runs, instead of `before`; answers what is bound then. Without `before` what is
    /// bound is made to fit, whatever it was asked for as.
    pub fn republish(
        &self,
        container: &Id,
        before: Option<&[PortRequest]>,
        after: &[PortRequest],
    ) -> Result<Vec<PublishedPort>> {
        self.core.republish(container, before, after)
    }
}

impl Core {
    fn republish(
        &self,
        container: &Id,
        before: Option<&[PortRequest]>,
        after: &[PortRequest],
    ) -> Result<Vec<PublishedPort>> {
        let endpoints = self.model().of(container);
        let Some(endpoint) = outward(&endpoints).map(|index| &endpoints[index]) else {
            return Ok(Vec::new());
        };
        let Some(device) = self.model().network(&endpoint.network_id)?.bridge.clone() else {
            return Ok(Vec::new());
        };
        let defaults = defaults(&device, endpoint);
        let Difference { stays, goes, comes } =
            difference(&endpoint.ports, before, after, defaults);
        // Places that something new meets are free for it only when they have been given back.
        let (first, later): (Vec<_>, Vec<_>) =
            goes.iter().partition(|gone| comes.iter().any(|group| meets(group, **gone)));
        self.unpublish(endpoint, &first)?;
        let bound = self
            .ports
            .bind_groups(&comes, |protocol, address| {
                self.model().holder(Place { protocol, address })
            })
            .context(|| {
                format!(
                    "driver failed programming external connectivity on endpoint {} ({})",
                    endpoint.container_name, endpoint.endpoint_id
                )
            })
            .inspect_err(|_| self.take_again(endpoint, &first))?;
        let mut changed = Endpoint::clone(endpoint);
        changed.ports = stays;
        changed.ports.extend(bound.iter().map(|bound| bound.port));
        changed.ports.sort_by_key(|port| in_order(after, defaults, *port));
        changed.ports.extend(routed(after, &device, endpoint));
        let changed = Arc::new(changed);
        if let Err(err) = self.exchange_ports(endpoint, &changed, bound, &later) {
            self.take_exchange_back(endpoint, &changed, &first);
            return Err(err);
        }
        let gone = |port: &&PublishedPort| !changed.ports.contains(port);
        self.forget_flows_by(endpoint, endpoint.ports.iter().filter(gone));
        Ok(changed.ports.clone())
    }

    fn exchange_ports(
        &self,
        before: &Arc<Endpoint>,
        after: &Arc<Endpoint>,
        bound: Vec<Bound>,
        gone: &[&PublishedPort],
    ) -> Result<()> {
        let mut changes: Vec<(Change, Vec<OwnedFd>)> =
            bound.into_iter().map(|bound| announce(after, bound)).collect();
        changes.extend(let_go(gone));
        self.rewrite(after)?;
        self.publish(std::slice::from_ref(before), std::slice::from_ref(after))?;
        self.netd.change(changes)
    }

    /// Everything as it was, as far as that can be had.
    fn take_exchange_back(
        &self,
        before: &Arc<Endpoint>,
        after: &Arc<Endpoint>,
        given_back: &[&PublishedPort],
    ) {
        let new: Vec<_> = after.ports.iter().filter(|port| !before.ports.contains(port)).collect();
        let outcome = self
            .rewrite(before)
            .and_then(|()| self.publish(std::slice::from_ref(after), std::slice::from_ref(before)))
            .and_then(|()| self.unpublish(after, &new));
        if let Err(err) = outcome {
            tracing::error!(container = %before.container_name, error = %err.chain(), "cannot take back a change of ports");
        }
        self.take_again(before, given_back);
    }

    /// Those that are this endpoint's; another's, by now, are not touched.
    fn unpublish(&self, endpoint: &Endpoint, ports: &[&PublishedPort]) -> Result<()> {
        let own = |port: &&&PublishedPort| {
            place(port).is_some_and(|place| {
                let own = published(endpoint, place, port.container_port);
                self.netd.holds(&Change::Publish(own))
            })
        };
        let own: Vec<_> = ports.iter().filter(own).copied().collect();
        self.netd.change(let_go(&own).collect())
    }

    fn take_again(&self, endpoint: &Endpoint, ports: &[&PublishedPort]) {
        for port in ports {
            let taken = self
                .ports
                .bind_again(**port)
                .and_then(|bound| self.netd.change(vec![announce(endpoint, bound)]));
            if let Err(err) = taken {
                tracing::error!(container = %endpoint.container_name, error = %err.chain(), "a published port was taken by somebody else meanwhile");
            }
        }
    }
}

fn let_go(ports: &[&PublishedPort]) -> impl Iterator<Item = (Change, Vec<OwnedFd>)> {
    ports.iter().filter_map(|port| place(port)).map(|place| (Change::Unpublish(place), Vec::new()))
}

/// What becomes of ports that are bound.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    stays: Vec<PublishedPort>,
    goes: Vec<PublishedPort>,
    comes: Vec<Group>,
}

/// Whoever is asked for as before keeps the number that it has.
fn difference(
    bound: &[PublishedPort],
    before: Option<&[PortRequest]>,
    after: &[PortRequest],
    defaults: Defaults,
) -> Difference {
    let after = groups(after, defaults);
    let before = before.map_or_else(|| after.clone(), |before| groups(before, defaults));
    let numbers = numbers(&before, bound);
    let mut outcome = Difference::default();
    for group in after {
        let same = |other: &Group| {
            (other.protocol, other.container_port, &other.host_ports)
                == (group.protocol, group.container_port, &group.host_ports)
        };
        let number = before.iter().position(same).and_then(|index| numbers[index]);
        let Some(number) = number else {
            outcome.comes.push(group);
            continue;
        };
        let mut missing = Vec::new();
        for (ip, need) in group.addresses {
            let port = PublishedPort {
                protocol: group.protocol,
                container_port: group.container_port,
                host_ip: ip,
                host_port: number,
            };
            match bound.contains(&port) {
                true => outcome.stays.push(port),
                false => missing.push((ip, need)),
            }
        }
        // An address that could not be had before is not asked for again.
        if missing.iter().any(|(_, need)| *need == Need::Asked) {
            let host_ports = Some(number..=number);
            outcome.comes.push(Group { host_ports, addresses: missing, ..group });
        }
    }
    let goes = bound.iter().filter(|port| port.host_port != 0 && !outcome.stays.contains(port));
    outcome.goes = goes.copied().collect();
    outcome
}

/// The number that each has on the host: exact ones first, as they were given.
fn numbers(groups: &[Group], bound: &[PublishedPort]) -> Vec<Option<u16>> {
    let mut free = bound.to_vec();
    let mut number = |group: &Group| {
        let fits = |port: &&PublishedPort| {
            let range = group.host_ports.as_ref();
            (port.protocol, port.container_port) == (group.protocol, group.container_port)
                && range.is_none_or(|range| range.contains(&port.host_port))
        };
        let whole = |number: u16| {
            let there = |ip: IpAddr| {
                free.iter().filter(fits).any(|port| (port.host_ip, port.host_port) == (ip, number))
            };
            let asked = group.addresses.iter().filter(|(_, need)| *need == Need::Asked);
            asked.clone().count() > 0 && asked.clone().all(|(ip, _)| there(*ip))
        };
        let found =
            free.iter().filter(fits).map(|port| port.host_port).find(|number| whole(*number))?;
        let ours = |port: &PublishedPort| {
            port.host_port == found
                && port.protocol == group.protocol
                && group.addresses.iter().any(|(ip, _)| *ip == port.host_ip)
        };
        free.retain(|port| !ours(port));
        Some(found)
    };
    groups.iter().map(&mut number).collect()
}

/// Whether what comes could need the place of what goes.
fn meets(group: &Group, gone: PublishedPort) -> bool {
    let range = group.host_ports.as_ref();
    let address = |ip: IpAddr| {
        ip.is_ipv4() == gone.host_ip.is_ipv4()
            && (ip == gone.host_ip || ip.is_unspecified() || gone.host_ip.is_unspecified())
    };
    group.protocol == gone.protocol
        && range.is_some_and(|range| range.contains(&gone.host_port))
        && group.addresses.iter().any(|(ip, _)| address(*ip))
}

/// Ports are told in the order in which they are asked for.
fn in_order(
    requests: &[PortRequest],
    defaults: Defaults,
    port: PublishedPort,
) -> (usize, SocketAddr) {
    let groups = groups(requests, defaults);
    let fits = |group: &Group| {
        (group.protocol, group.container_port) == (port.protocol, port.container_port)
            && group.host_ports.as_ref().is_none_or(|range| range.contains(&port.host_port))
            && group.addresses.iter().any(|(ip, _)| *ip == port.host_ip)
    };
    let index = groups.iter().position(fits).unwrap_or(groups.len());
    (index, SocketAddr::new(port.host_ip, port.host_port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Protocol;

    const ANYWHERE: Defaults = Defaults { v4: None, v6: None, takes_v4: true, takes_v6: true };

    /// `ip:first-last:port`, every part but the last possibly empty.
    fn request(text: &str) -> PortRequest {
        let mut parts = text.rsplitn(3, ' ');
        let container_port = parts.next().unwrap().parse().unwrap();
        let range = parts.next().unwrap_or_default();
        let host_ports = (!range.is_empty() && range != "any").then(|| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            first.parse().unwrap()..=last.parse().unwrap()
        });
        let host_ip = parts.next().filter(|ip| !ip.is_empty()).map(|ip| ip.parse().unwrap());
        PortRequest { protocol: Protocol::Tcp, container_port, host_ip, host_ports }
    }

    fn bound(text: &str) -> PublishedPort {
        let (place, container_port) = text.split_once(" -> ").unwrap();
        let place: SocketAddr = place.parse().unwrap();
        PublishedPort {
            protocol: Protocol::Tcp,
            container_port: container_port.parse().unwrap(),
            host_ip: place.ip(),
            host_port: place.port(),
        }
    }

    fn shown(port: &PublishedPort) -> String {
        format!("{} -> {}", SocketAddr::new(port.host_ip, port.host_port), port.container_port)
    }

    #[track_caller]
    fn check(there: &[&str], before: Option<&[&str]>, after: &[&str], expected: [&[&str]; 3]) {
        let requests = |texts: &[&str]| texts.iter().map(|text| request(text)).collect::<Vec<_>>();
        let there: Vec<_> = there.iter().map(|text| bound(text)).collect();
        let before = before.map(requests);
        let outcome = difference(&there, before.as_deref(), &requests(after), ANYWHERE);
        let comes = |group: &Group| {
            let ips: Vec<_> = group.addresses.iter().map(|(ip, _)| ip.to_string()).collect();
            let range = group.host_ports.as_ref().map_or("any".to_owned(), |range| match range {
                one if one.start() == one.end() => one.start().to_string(),
                range => format!("{}-{}", range.start(), range.end()),
            });
            format!("{} {range} {}", ips.join("+"), group.container_port)
        };
        assert_eq!(outcome.stays.iter().map(shown).collect::<Vec<_>>(), expected[0], "stays");
        assert_eq!(outcome.goes.iter().map(shown).collect::<Vec<_>>(), expected[1], "goes");
        assert_eq!(outcome.comes.iter().map(comes).collect::<Vec<_>>(), expected[2], "comes");
    }

    #[test]
    fn one_more_and_one_less() {
        let web = ["0.0.0.0:8080 -> 80", "[::]:8080 -> 80"];
        check(
            &web,
            Some(&["8080 80"]),
            &["8080 80", "127.0.0.1 9090 90"],
            [&web, &[], &["127.0.0.1 9090 90"]],
        );
        check(&web, Some(&["8080 80"]), &[], [&[], &web, &[]]);
        check(&[], Some(&[]), &["any 80"], [&[], &[], &["0.0.0.0+:: any 80"]]);
        // On a host without IPv6.
        check(&web[..1], Some(&["8080 80"]), &["8080 80"], [&web[..1], &[], &[]]);
    }

    #[test]
    fn numbers_that_nobody_chose_stay() {
        let there =
            ["0.0.0.0:8080 -> 80", "[::]:8080 -> 80", "0.0.0.0:32768 -> 80", "[::]:32768 -> 80"];
        check(&there, Some(&["8080 80", "any 80"]), &["any 80"], [&there[2..], &there[..2], &[]]);
        check(&there, Some(&["8080 80", "any 80"]), &["8080 80"], [&there[..2], &there[2..], &[]]);
        let ranged = ["127.0.0.1:8003 -> 80"];
        check(
            &ranged,
            Some(&["127.0.0.1 8000-8010 80"]),
            &["127.0.0.1 8000-8010 80", "81 81"],
            [&ranged, &[], &["0.0.0.0+:: 81 81"]],
        );
        // One more address has the same number.
        check(
            &ranged,
            Some(&["127.0.0.1 8000-8010 80"]),
            &["127.0.0.1 8000-8010 80", "127.0.0.2 8000-8010 80"],
            [&ranged, &[], &["127.0.0.2 8003 80"]],
        );
    }

    #[test]
    fn a_place_may_lead_elsewhere_or_be_narrowed() {
        let web = ["0.0.0.0:8080 -> 80", "[::]:8080 -> 80"];
        check(&web, Some(&["8080 80"]), &["8080 81"], [&[], &web, &["0.0.0.0+:: 8080 81"]]);
        check(
            &web,
            Some(&["8080 80"]),
            &["127.0.0.1 8080 80"],
            [&[], &web, &["127.0.0.1 8080 80"]],
        );
        let gone = |text, port| meets(&groups(&[request(text)], ANYWHERE)[0], bound(port));
        assert!(gone("127.0.0.1 8080 80", web[0]));
        assert!(!gone("127.0.0.1 8080 80", web[1]));
        assert!(!gone("8081 80", web[0]));
        assert!(!gone("any 80", web[0]), "another number is found");
    }

    #[test]
    fn what_was_left_halfway_is_made_to_fit() {
        let there = ["0.0.0.0:32768 -> 80", "[::]:32768 -> 80", "0.0.0.0:99 -> 9", "[::]:99 -> 9"];
        check(
            &there,
            None,
            &["any 80", "8080 80"],
            [&there[..2], &there[2..], &["0.0.0.0+:: 8080 80"]],
        );
    }
}
