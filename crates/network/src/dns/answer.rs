//! What a question is answered with: from what we know, or by asking somebody else. Decided without waiting.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::wire::{self, Answer, Data, Outcome, Owner, Query, Record};
use super::zone::{self, Family, Member, Sight};
use crate::records::Protocol;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// We know.
    Answer(Answer),
    Fail(Outcome),
    /// We do not.
    Forward,
}

/// What of a container matters beside its networks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    /// Its resolver was told by hand (`ndots:N`) to try search domains first: a name without a dot is not for the world.
    pub(super) keeps_single_labels: bool,
    /// Turns the order of several addresses, so that each is first once.
    pub(super) turn: usize,
}

pub(super) fn decide(query: &Query, sights: &[Sight], manner: Manner) -> Decision {
    if query.speaks_unknown_version() {
        return Decision::Fail(Outcome::BadVersion);
    }
    if !matches!(query.class, wire::INTERNET | wire::ANY_CLASS) {
        return Decision::Forward;
    }
    let known = match query.kind {
        wire::A => addresses(query, sights, Family::V4, manner.turn),
        wire::AAAA => addresses(query, sights, Family::V6, manner.turn),
        // There is no such record, and whoever delivers mail goes on to ask for the address (RFC 5321, 5.1).
        wire::MX => zone::members(sights, &query.name).map(|_| Answer::default()),
        wire::PTR => pointer(query, sights),
        wire::SRV => services(query, sights),
        _ => None,
    };
    match known {
        Some(answer) => Decision::Answer(answer),
        None if manner.keeps_single_labels
            && matches!(query.kind, wire::A | wire::AAAA)
            && query.is_single_label() =>
        {
            Decision::Answer(Answer::default())
        }
        None => Decision::Forward,
    }
}

fn addresses(query: &Query, sights: &[Sight], family: Family, turn: usize) -> Option<Answer> {
    let mut found = zone::resolve(sights, &query.name, family)?;
    if !found.is_empty() {
        let by = turn % found.len();
        found.rotate_left(by);
    }
    let record = |ip| Record { owner: Owner::Asked, data: address(ip) };
    Some(Answer { records: found.into_iter().map(record).collect(), additional: Vec::new() })
}

fn address(ip: IpAddr) -> Data {
    match ip {
        IpAddr::V4(ip) => Data::A(ip),
        IpAddr::V6(ip) => Data::Aaaa(ip),
    }
}

fn pointer(query: &Query, sights: &[Sight]) -> Option<Answer> {
    let name = zone::reverse(sights, reversed(&query.name)?)?;
    let record = Record { owner: Owner::Asked, data: Data::Ptr(name) };
    Some(Answer { records: vec![record], additional: Vec::new() })
}

/// The address that a name such as `2.0.18.172.in-addr.arpa` means.
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let parts: Vec<u8> =
            digits.split('.').rev().map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let octets: [u8; 4] = parts.try_into().ok()?;
        return Some(Ipv4Addr::from(octets).into());
    }
    let mut number = 0u128;
    let mut count = 0;
    for digit in name.strip_suffix(".ip6.arpa")?.split('.').rev() {
        let digit = u128::from_str_radix(digit, 16).ok().filter(|_| digit.len() == 1)?;
        number = number << 4 | digit;
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(number).into())
}

/// `_http._tcp.web`: the port by its usual name or its number, where the members so called say that they listen there.
fn services(query: &Query, sights: &[Sight]) -> Option<Answer> {
    let mut labels = query.name.splitn(3, '.');
    let (service, protocol) = (labels.next()?.strip_prefix('_')?, labels.next()?);
    let protocol = match protocol {
        "_tcp" => Protocol::Tcp,
        "_udp" => Protocol::Udp,
        "_sctp" => Protocol::Sctp,
        _ => return None,
    };
    let (zone, members) = zone::members(sights, labels.next()?)?;
    let mut answer = Answer::default();
    let Some(port) = number(service) else { return Some(answer) };
    let listens = |member: &&std::sync::Arc<Member>| {
        member.services.iter().any(|one| (one.protocol, one.port) == (protocol, port))
    };
    for member in members.iter().filter(listens) {
        let Some(name) = member.names.first() else { continue };
        let target = format!("{name}.{}", zone.name);
        let addresses = member.ip.map(Data::A).into_iter().chain(member.ip6.map(Data::Aaaa));
        answer
            .additional
            .extend(addresses.map(|data| Record { owner: Owner::Other(target.clone()), data }));
        answer.records.push(Record { owner: Owner::Asked, data: Data::Srv { port, target } });
    }
    Some(answer)
}

fn number(service: &str) -> Option<u16> {
    const KNOWN: &[(&str, u16)] = &[
        ("amqp", 5672),
        ("domain", 53),
        ("etcd-client", 2379),
        ("etcd-server", 2380),
        ("ftp", 21),
        ("http", 80),
        ("https", 443),
        ("imap", 143),
        ("imaps", 993),
        ("ldap", 389),
        ("ldaps", 636),
        ("mongodb", 27017),
        ("mqtt", 1883),
        ("mysql", 3306),
        ("ntp", 123),
        ("pop3", 110),
        ("postgresql", 5432),
        ("redis", 6379),
        ("sip", 5060),
        ("smtp", 25),
        ("ssh", 22),
        ("submission", 587),
        ("syslog", 514),
        ("xmpp-client", 5222),
        ("xmpp-server", 5269),
    ];
    let known = KNOWN.iter().find(|(name, _)| *name == service).map(|(_, port)| *port);
    known.or_else(|| service.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::{Expect, expect};

    use super::super::wire::tests::question;
    use super::super::zone::Service;
    use super::super::zone::tests::{member, zone};
    use super::*;

    #[track_caller]
    fn check(name: &str, kind: u16, manner: Manner, expected: Expect) {
        let mut web = member("1", &["web", "0123456789ab"], Some("172.18.0.2"), Some("fd00::2"));
        web.services = vec![Service { protocol: Protocol::Tcp, port: 80 }];
        let other = member("2", &["api", "all"], Some("172.18.0.3"), None);
        let third = member("3", &["db", "all"], Some("172.18.0.4"), None);
        let zone = zone("back", vec![web, other, third]);
        let links = BTreeMap::new();
        let bytes = question(name, kind, None);
        let query = Query::parse(&bytes).unwrap();
        let text = match decide(&query, &[Sight { zone: &zone, links: &links }], manner) {
            Decision::Answer(answer) => {
                let line = |record: &Record| match &record.owner {
                    Owner::Asked => format!("{:?}", record.data),
                    Owner::Other(name) => format!("{name} {:?}", record.data),
                };
                let all = answer.records.iter().chain(&answer.additional);
                format!("{:?}", all.map(line).collect::<Vec<_>>())
            }
            other => format!("{other:?}"),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn what_is_known() {
        let plain = Manner::default();
        check("Web", wire::A, plain, expect![[r#"["A(172.18.0.2)"]"#]]);
        check("web.back", wire::AAAA, plain, expect![[r#"["Aaaa(fd00::2)"]"#]]);
        check("api", wire::AAAA, plain, expect!["[]"]);
        check("api", wire::MX, plain, expect!["[]"]);
        check("all", wire::A, plain, expect![[r#"["A(172.18.0.3)", "A(172.18.0.4)"]"#]]);
        check(
            "all",
            wire::A,
            Manner { turn: 3, ..plain },
            expect![[r#"["A(172.18.0.4)", "A(172.18.0.3)"]"#]],
        );
    }

    #[test]
    fn backwards() {
        let plain = Manner::default();
        check("2.0.18.172.in-addr.arpa", wire::PTR, plain, expect![[r#"["Ptr(\"web.back\")"]"#]]);
        check(
            "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
            wire::PTR,
            plain,
            expect![[r#"["Ptr(\"web.back\")"]"#]],
        );
        for other in ["9.0.18.172.in-addr.arpa", "18.172.in-addr.arpa", "2.0.ip6.arpa", "web"] {
            check(other, wire::PTR, plain, expect!["Forward"]);
        }
    }

    #[test]
    fn services_of_who_listens() {
        let plain = Manner::default();
        for name in ["_http._tcp.web", "_80._tcp.web.back"] {
            check(
                name,
                wire::SRV,
                plain,
                expect![[
                    r#"["Srv { port: 80, target: \"web.back\" }", "web.back A(172.18.0.2)", "web.back Aaaa(fd00::2)"]"#
                ]],
            );
        }
        check("_http._udp.web", wire::SRV, plain, expect!["[]"]);
        check("_gopher._tcp.web", wire::SRV, plain, expect!["[]"]);
        check("_http._tcp.example.org", wire::SRV, plain, expect!["Forward"]);
        check("web", wire::SRV, plain, expect!["Forward"]);
    }

    #[test]
    fn what_is_not_known() {
        let plain = Manner::default();
        let keeps = Manner { keeps_single_labels: true, ..plain };
        check("example", wire::A, plain, expect!["Forward"]);
        check("example", wire::A, keeps, expect!["[]"]);
        check("example.org", wire::A, keeps, expect!["Forward"]);
        check("web", 16, plain, expect!["Forward"]);
    }
}
