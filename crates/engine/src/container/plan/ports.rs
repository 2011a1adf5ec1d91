//! What a container publishes, and what it says that it listens on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use api::Set;
use api::container::{PortBinding, PortMap};
use network::{PortRequest, Protocol};
use stdx::{Error, Result};

use super::text::exposed_port;

/// Ports, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    pub requests: Vec<PortRequest>,
    pub exposed: Vec<(Protocol, u16)>,
}

impl Ports {
    /// What is bound and not exposed is looked at, and not published: whoever binds says both. `all`: what is exposed and
    /// not bound is published, too, wherever there is room.
    pub(super) fn of(exposed: &Set, bindings: Option<&PortMap>, all: Publish) -> Result<Self> {
        let mut ports = Self::default();
        let mut wanted: BTreeMap<String, Vec<&PortBinding>> = BTreeMap::new();
        for port in exposed.keys() {
            let port = exposed_port(port)?;
            ports.exposed.push(parse(&port)?);
            if all == Publish::All {
                wanted.entry(port).or_default();
            }
        }
        for (port, bindings) in bindings.into_iter().flatten() {
            let port = exposed_port(port)?;
            if port.starts_with("0/") {
                return Err(Error::invalid(format!("invalid port specification: {port:?}")));
            }
            wanted.entry(port).or_default().extend(bindings.iter().flatten());
        }
        for (port, bindings) in wanted {
            let (protocol, container_port) = parse(&port)?;
            let anywhere =
                PortRequest { protocol, container_port, host_ip: None, host_ports: None };
            let exposed = ports.exposed.contains(&(protocol, container_port));
            if bindings.is_empty() && exposed && all == Publish::All {
                ports.requests.push(anywhere.clone());
            }
            for binding in bindings {
                let (host_ip, host_ports) =
                    (host_ip(&binding.host_ip)?, host_ports(&binding.host_port)?);
                if exposed {
                    ports.requests.push(PortRequest { host_ip, host_ports, ..anywhere.clone() });
                }
            }
        }
        Ok(ports)
    }
}

/// `--publish-all`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publish {
    Asked,
    All,
}

/// `80/tcp`, as [`exposed_port`] writes it.
fn parse(port: &str) -> Result<(Protocol, u16)> {
    let bad = || Error::invalid(format!("invalid port specification: {port:?}"));
    let (number, protocol) = port.split_once('/').ok_or_else(bad)?;
    Ok((protocol.parse()?, number.parse().map_err(|_| bad())?))
}

pub(super) fn host_ip(text: &str) -> Result<Option<IpAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = |_| Error::invalid(format!("invalid IP address: {}", text.escape_debug()));
    text.parse().map(Some).map_err(bad)
}

/// A number, a range, or none at all; a protocol behind it is read over, as by Docker.
pub(super) fn host_ports(text: &str) -> Result<Option<RangeInclusive<u16>>> {
    let bad = || Error::invalid(format!("invalid port specification: {text:?}"));
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u16>().map_err(|_| bad()),
        false => Err(bad()),
    };
    let range = text.split_once('/').map_or(text, |(range, _)| range);
    if text.is_empty() {
        return Ok(None);
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (number(first)?, number(last)?);
    match (first, last) {
        (0, 0) => Ok(None),
        (0, _) => Err(Error::invalid(format!("invalid port range: {first}-{last}"))),
        _ if last < first => Err(bad()),
        _ => Ok(Some(first..=last)),
    }
}

/// The keys of `HostConfig.PortBindings` as Docker writes them, however they were written.
pub(crate) fn port_bindings(wanted: PortMap) -> Result<PortMap> {
    let mut bindings = PortMap::new();
    for (port, places) in wanted {
        let all = bindings.entry(exposed_port(&port)?).or_default();
        if let Some(places) = places {
            all.get_or_insert_default().extend(places);
        }
    }
    Ok(bindings)
}

#[cfg(test)]
mod tests {
    use api::Empty;

    use super::*;

    fn bindings(list: &[(&str, &str, &str)]) -> PortMap {
        let mut map = PortMap::new();
        for (port, ip, host_port) in list {
            let binding =
                PortBinding { host_ip: (*ip).to_owned(), host_port: (*host_port).to_owned() };
            map.entry((*port).to_owned()).or_default().get_or_insert_default().push(binding);
        }
        map
    }

    fn shown(exposed: &[&str], bound: &[(&str, &str, &str)], all: Publish) -> Vec<String> {
        let exposed: Set = exposed.iter().map(|port| ((*port).to_owned(), Empty {})).collect();
        let ports = match Ports::of(&exposed, Some(&bindings(bound)), all) {
            Ok(ports) => ports,
            Err(err) => return vec![err.to_string()],
        };
        let one = |request: &PortRequest| {
            let place = match (&request.host_ip, &request.host_ports) {
                (None, None) => "anywhere".to_owned(),
                (ip, ports) => format!("{ip:?} {ports:?}"),
            };
            format!("{}/{} {place}", request.container_port, request.protocol.as_str())
        };
        ports.requests.iter().map(one).collect()
    }

    #[test]
    fn what_is_asked_for() {
        let list = [("80/tcp", "", "8080"), ("80/tcp", "::1", "8000-8010"), ("53/UDP", "", "")];
        assert_eq!(
            shown(&["80/tcp", "443", "53/udp"], &list, Publish::Asked),
            [
                "53/udp anywhere",
                "80/tcp None Some(8080..=8080)",
                "80/tcp Some(::1) Some(8000..=8010)"
            ]
        );
        assert_eq!(
            shown(&["80", "443"], &[("80/tcp", "", "8080")], Publish::All),
            ["443/tcp anywhere", "80/tcp None Some(8080..=8080)"]
        );
        for all in [Publish::Asked, Publish::All] {
            assert_eq!(shown(&[], &list, all), [""; 0], "nobody says that it listens there");
        }
    }

    #[test]
    fn in_dockers_words() {
        for (port, ip, host_port, words) in [
            ("99999/tcp", "", "80", "invalid port '99999': value out of range"),
            ("x", "", "80", "invalid port 'x': invalid syntax"),
            ("0/tcp", "", "80", "invalid port specification: \"0/tcp\""),
            ("80/tcp", "", "x", "invalid port specification: \"x\""),
            ("80/tcp", "", "70000", "invalid port specification: \"70000\""),
            ("80/tcp", "", "90-80", "invalid port specification: \"90-80\""),
            ("80/tcp", "localhost", "80", "invalid IP address: localhost"),
        ] {
            assert_eq!(shown(&[], &[(port, ip, host_port)], Publish::Asked), [words]);
        }
    }

    #[test]
    fn keys_are_written_one_way() {
        let map = bindings(&[("80", "", "1"), ("80/TCP", "", "2"), ("53/udp", "", "3")]);
        let ports = port_bindings(map).unwrap();
        let counts: Vec<_> = ports
            .iter()
            .map(|(port, places)| (port.as_str(), places.as_ref().map_or(0, Vec::len)))
            .collect();
        assert_eq!(counts, [("53/udp", 1), ("80/tcp", 2)]);
    }
}
