//! Containers that may not reach everything: which names they may ask for, and what an answer opens to them before they
//! hear it.

use std::net::IpAddr;
use std::ops::DerefMut;
use std::time::Duration;

use stdx::Result;

use super::wire::{self, Query};
use crate::egress::Allowed;
use crate::firewall::grants::{Grant, Opener};
use crate::netd::protocol::{Leash, Sandbox};

/// Addresses of one answer that are opened; more are not.
const MOST: usize = 64;

/// May somebody else be asked this for a container? A question is a way out, too.
pub(super) fn may_ask(sandbox: &Sandbox, query: &Query) -> bool {
    let Some(leash) = &sandbox.leash else { return true };
    leash.loose || leash.ends.iter().any(|end| end.allowed.iter().any(|one| one.names(&query.name)))
}

/// Opens what an answer to this question says.
pub(super) fn open<O: DerefMut<Target = Opener>>(
    sandbox: &Sandbox,
    query: &Query,
    answer: &[u8],
    opener: impl FnOnce() -> O,
) -> Result<()> {
    let Some(leash) = &sandbox.leash else { return Ok(()) };
    let mut told = wire::addresses(answer, &query.name);
    told.retain(|(address, _)| leads_away(*address));
    told.truncate(MOST);
    let grants = grants(leash, &query.name, &told);
    if grants.is_empty() {
        return Ok(());
    }
    let good = told.iter().map(|(_, good)| *good).max().unwrap_or(Duration::ZERO);
    opener().open(&leash.table, &grants, good)
}

fn grants(leash: &Leash, name: &str, told: &[(IpAddr, Duration)]) -> Vec<Grant> {
    let mut grants = Vec::new();
    for end in &leash.ends {
        let meant = |one: &&Allowed| one.names(name);
        for port in end.allowed.iter().filter(meant).map(|one| one.port) {
            for from in &end.addresses {
                let to = told.iter().map(|(to, _)| *to).filter(|to| to.is_ipv4() == from.is_ipv4());
                grants.extend(to.map(|to| Grant { from: *from, to, port, name: name.to_owned() }));
            }
        }
    }
    grants
}

/// Whoever owns a name says what it means, and shall not open what is close by: the host, its link, everybody on it.
fn leads_away(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            !(ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast())
                && ip.octets()[0] != 0
        }
        IpAddr::V6(ip) => {
            let close = ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local();
            !(close || ip.is_multicast() || ip.to_ipv4_mapped().is_some())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::tests::question;
    use super::*;
    use crate::netd::protocol::{LeashEnd, Resolvers};

    fn leash(allowed: &[&str]) -> Leash {
        let end = LeashEnd {
            addresses: vec!["172.18.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            allowed: allowed.iter().map(|rule| rule.parse().unwrap()).collect(),
        };
        Leash { table: "gantry".to_owned(), ends: vec![end], loose: false }
    }

    #[test]
    fn questions() {
        let may = |leash: Option<Leash>, name: &str| {
            let sandbox = Sandbox {
                id: "c".to_owned(),
                seats: Vec::new(),
                resolvers: Resolvers::Host,
                keeps_single_labels: false,
                outward: true,
                leash,
            };
            let bytes = question(name, wire::A, None);
            may_ask(&sandbox, &Query::parse(&bytes).unwrap())
        };
        assert!(may(None, "anything"));
        let narrow = || Some(leash(&["example.com", "*.example.org:443", "10.0.0.0/8"]));
        assert!(may(narrow(), "Example.Com"));
        assert!(may(narrow(), "www.example.org"));
        assert!(!may(narrow(), "secret.example.com"));
        assert!(!may(Some(leash(&[])), "example.com"));
        assert!(may(Some(Leash { loose: true, ..leash(&[]) }), "example.com"));
    }

    #[test]
    fn what_an_answer_opens() {
        let opened = |allowed: &[&str], told: &[&str]| -> Vec<String> {
            let told: Vec<_> = told
                .iter()
                .map(|ip| (ip.parse().unwrap(), Duration::from_secs(5)))
                .filter(|(ip, _)| leads_away(*ip))
                .collect();
            let line = |grant: &Grant| format!("{} {} {:?}", grant.from, grant.to, grant.port);
            grants(&leash(allowed), "www.example.com", &told).iter().map(line).collect()
        };
        assert_eq!(
            opened(&["www.example.com", "*.example.com:443"], &["192.0.2.1", "2001:db8::1"]),
            [
                "172.18.0.2 192.0.2.1 None",
                "fd00::2 2001:db8::1 None",
                "172.18.0.2 192.0.2.1 Some((Tcp, 443))",
                "fd00::2 2001:db8::1 Some((Tcp, 443))",
            ]
        );
        assert_eq!(opened(&["example.com"], &["192.0.2.1"]), Vec::<String>::new());
        let close = [
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ];
        assert_eq!(opened(&["www.example.com"], &close), Vec::<String>::new());
    }
}
