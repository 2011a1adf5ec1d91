//! Other bindings for a container that is there: what is published beside what was, and what is not any more. Pure.

use std::net::IpAddr;

use api::Set;
use api::container::{HostConfig, PortBinding, PortMap};
use network::PublishedPort;
use stdx::{Error, Result};

use super::ports::{host_ip, host_ports, port_bindings};
use super::text::exposed_port;

/// Changes what is asked for in `host`; what is published is exposed from then on. `bound` is what has become of it, of a container that runs: whoever withdraws a port
/// names what he sees.
pub(crate) fn rebind(
    host: &mut HostConfig,
    exposed: &mut Set,
    add: PortMap,
    remove: PortMap,
    bound: &[PublishedPort],
) -> Result<()> {
    let mut bindings = host.port_bindings.clone().unwrap_or_default();
    for (port, places) in port_bindings(remove)? {
        if host.publish_all_ports && exposed.contains_key(&port) {
            // From now on it is a list like any other.
            host.publish_all_ports = false;
            for port in exposed.keys() {
                let places = bindings.entry(exposed_port(port)?).or_default();
                let places = places.get_or_insert_default();
                if places.is_empty() {
                    places.push(PortBinding::default());
                }
            }
        }
        let bound: Vec<_> = bound.iter().filter(|one| named(one) == port).copied().collect();
        let mut there = bindings.remove(&port).flatten().unwrap_or_default();
        let anything = [PortBinding::default()];
        for place in places.as_deref().filter(|all| !all.is_empty()).unwrap_or(&anything) {
            withdraw(&mut there, &port, place, &bound)?;
        }
        if !there.is_empty() {
            bindings.insert(port, Some(there));
        }
    }
    for (port, places) in port_bindings(add)? {
        exposed.entry(port.clone()).or_default();
        let there = bindings.entry(port).or_default().get_or_insert_default();
        for place in places.filter(|all| !all.is_empty()).unwrap_or(vec![PortBinding::default()]) {
            if !there.contains(&place) {
                there.push(place);
            }
        }
    }
    host.port_bindings = Some(bindings);
    Ok(())
}

fn named(port: &PublishedPort) -> String {
    format!("{}/{}", port.container_port, port.protocol.as_str())
}

/// Bindings that say the same go first; if there is none, the one that a bound port is from.
fn withdraw(
    there: &mut Vec<PortBinding>,
    port: &str,
    place: &PortBinding,
    bound: &[PublishedPort],
) -> Result<()> {
    let (ip, number) = (host_ip(&place.host_ip)?, host_ports(&place.host_port)?);
    let mut kept = Vec::new();
    let mut found = false;
    for binding in there.iter() {
        let same_ip = ip.is_none() || host_ip(&binding.host_ip)? == ip;
        let same_number = number.is_none() || host_ports(&binding.host_port)? == number;
        match same_ip && same_number {
            true => found = true,
            false => kept.push(binding.clone()),
        }
    }
    if !found {
        let mut origin = None;
        for (index, binding) in there.iter().enumerate() {
            if let Some(rest) = without(binding, ip, place, bound)? {
                origin = Some((index, rest));
                break;
            }
        }
        let (index, rest) = origin.ok_or_else(|| not_published(port, place))?;
        kept = there.clone();
        kept.splice(index..=index, rest);
    }
    *there = kept;
    Ok(())
}

/// What is left of a binding without one of the places it was given; `None` if that is none of its places.
fn without(
    binding: &PortBinding,
    ip: Option<IpAddr>,
    place: &PortBinding,
    bound: &[PublishedPort],
) -> Result<Option<Vec<PortBinding>>> {
    let (own_ip, range) = (host_ip(&binding.host_ip)?, host_ports(&binding.host_port)?);
    let own = |one: &&PublishedPort| {
        own_ip.is_none_or(|own| own == one.host_ip)
            && range.as_ref().is_none_or(|range| range.contains(&one.host_port))
    };
    let wanted = |one: &&PublishedPort| {
        ip.is_none_or(|ip| ip == one.host_ip)
            && (place.host_port.is_empty() || one.host_port.to_string() == place.host_port)
    };
    let Some(hit) = bound.iter().filter(own).find(wanted) else {
        // Nothing is bound of one that does not run: `0.0.0.0` is how "everywhere" will be shown.
        let everywhere = own_ip.is_none() && ip.is_some_and(|ip| ip.is_unspecified());
        let same_number = place.host_port.is_empty() || binding.host_port == place.host_port;
        return Ok((bound.is_empty() && everywhere && same_number).then(Vec::new));
    };
    // A binding for everywhere stays, at the addresses that nobody named.
    let rest = bound
        .iter()
        .filter(own)
        .filter(|one| ip.is_some() && one.host_port == hit.host_port && one.host_ip != hit.host_ip);
    let at = |one: &PublishedPort| PortBinding {
        host_ip: one.host_ip.to_string(),
        host_port: binding.host_port.clone(),
    };
    Ok(Some(rest.map(at).collect()))
}

fn not_published(port: &str, place: &PortBinding) -> Error {
    let at = match (place.host_ip.as_str(), place.host_port.as_str()) {
        ("", "") => String::new(),
        ("", number) => format!(" at {number}"),
        (ip, "") => format!(" at {ip}"),
        (ip, number) if ip.contains(':') => format!(" at [{ip}]:{number}"),
        (ip, number) => format!(" at {ip}:{number}"),
    };
    Error::invalid(format!("port {port} is not published{at}"))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use network::Protocol;

    use super::*;

    /// `ip|port->inside/protocol`
    fn map(list: &[&str]) -> PortMap {
        let mut map = PortMap::new();
        for text in list {
            let (place, port) = text.split_once("->").unwrap();
            let (ip, host_port) = place.split_once('|').unwrap();
            let binding = PortBinding { host_ip: ip.to_owned(), host_port: host_port.to_owned() };
            map.entry(port.to_owned()).or_default().get_or_insert_default().push(binding);
        }
        map
    }

    fn bound(text: &str) -> PublishedPort {
        let (place, inside) = text.split_once("->").unwrap();
        let place: SocketAddr = place.parse().unwrap();
        PublishedPort {
            protocol: Protocol::Tcp,
            container_port: inside.parse().unwrap(),
            host_ip: place.ip(),
            host_port: place.port(),
        }
    }

    struct Case<'a> {
        asked: &'a [&'a str],
        exposed: &'a [&'a str],
        bound: &'a [&'a str],
    }

    impl Case<'_> {
        fn change(&self, add: &[&str], remove: &[&str]) -> Vec<String> {
            let mut host = HostConfig {
                port_bindings: Some(map(self.asked)),
                publish_all_ports: !self.exposed.is_empty(),
                ..HostConfig::default()
            };
            let exposed = self.exposed.iter().map(|port| ((*port).to_owned(), api::Empty {}));
            let bound: Vec<_> = self.bound.iter().map(|text| bound(text)).collect();
            let changed = rebind(&mut host, &mut exposed.collect(), map(add), map(remove), &bound);
            if let Err(err) = changed {
                return vec![err.to_string()];
            }
            let all = host.publish_all_ports.then(|| "all".to_owned());
            let bindings = host.port_bindings.unwrap();
            let shown = bindings.iter().flat_map(|(port, places)| {
                places
                    .iter()
                    .flatten()
                    .map(move |at| format!("{}|{}->{port}", at.host_ip, at.host_port))
            });
            all.into_iter().chain(shown).collect()
        }
    }

    const WEB: Case = Case {
        asked: &["|8080->80/tcp", "127.0.0.1|->80/tcp"],
        exposed: &[],
        bound: &["0.0.0.0:8080->80", "[::]:8080->80", "127.0.0.1:32768->80"],
    };

    #[test]
    fn one_more() {
        let all = ["|8080->80/tcp", "127.0.0.1|->80/tcp", "|53->53/udp"];
        let sorted = ["|53->53/udp", "|8080->80/tcp", "127.0.0.1|->80/tcp"];
        assert_eq!(WEB.change(&all[2..], &[]), sorted);
        assert_eq!(WEB.change(&all, &[]), sorted, "what is there is there once");
        assert_eq!(WEB.change(&["|8080->80"], &[])[0], "|8080->80/tcp", "however it is written");
    }

    #[test]
    fn one_less() {
        assert_eq!(WEB.change(&[], &["|8080->80"]), ["127.0.0.1|->80/tcp"]);
        assert_eq!(WEB.change(&[], &["|32768->80"]), ["|8080->80/tcp"], "as it is seen");
        assert_eq!(WEB.change(&[], &["127.0.0.1|->80"]), ["|8080->80/tcp"]);
        assert_eq!(WEB.change(&[], &["|->80"]), [""; 0], "all of it");
        assert_eq!(
            WEB.change(&[], &["0.0.0.0|8080->80"]),
            ["::|8080->80/tcp", "127.0.0.1|->80/tcp"],
            "the other family stays"
        );
        let stopped = Case { bound: &[], ..WEB };
        assert_eq!(stopped.change(&[], &["0.0.0.0|8080->80"]), ["127.0.0.1|->80/tcp"]);
        assert_eq!(
            WEB.change(&["|8080->81"], &["|8080->80"]),
            ["127.0.0.1|->80/tcp", "|8080->81/tcp"]
        );
    }

    #[test]
    fn what_is_not_there_cannot_go() {
        for (place, words) in [
            ("|->81", "port 81/tcp is not published"),
            ("|9->80", "port 80/tcp is not published at 9"),
            ("::1|->80", "port 80/tcp is not published at ::1"),
            ("::1|9->80", "port 80/tcp is not published at [::1]:9"),
            ("127.0.0.9|8080->80", "port 80/tcp is not published at 127.0.0.9:8080"),
            ("x|->80", "invalid IP address: x"),
            ("|x->80", "invalid port specification: \"x\""),
        ] {
            assert_eq!(WEB.change(&[], &[place]), [words]);
        }
    }

    #[test]
    fn all_but_one() {
        let all = Case {
            asked: &["|8080->80/tcp"],
            exposed: &["80/tcp", "443/tcp", "53/udp"],
            bound: &["0.0.0.0:8080->80", "0.0.0.0:32768->443"],
        };
        assert_eq!(all.change(&[], &["|->443"]), ["|->53/udp", "|8080->80/tcp"]);
        assert_eq!(all.change(&[], &["|32768->443"]), ["|->53/udp", "|8080->80/tcp"]);
        assert_eq!(all.change(&[], &["|8080->80"]), ["|->443/tcp", "|->53/udp"]);
        assert_eq!(all.change(&["|9->9"], &[]), ["all", "|8080->80/tcp", "|9->9/tcp"]);
    }
}
