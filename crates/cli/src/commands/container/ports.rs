//! `-p` and `--expose`, understood.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::container::{PortBinding, PortMap};
use stdx::{Error, Result};

/// What a container publishes: ports inside, each with the places outside.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Ports {
    pub(super) exposed: api::Set,
    pub(super) bindings: PortMap,
}

impl Ports {
    pub(super) fn of(publish: &[&str], expose: &[&str]) -> Result<Self> {
        let mut ports = Self::default();
        for spec in publish {
            let short = long_form(spec)?;
            for (port, binding) in published(short.as_deref().unwrap_or(spec))? {
                ports.exposed.insert(port.clone(), api::Empty {});
                ports.bindings.entry(port).or_default().get_or_insert_default().push(binding);
            }
        }
        for spec in expose {
            for port in exposed(spec)? {
                ports.exposed.insert(port, api::Empty {});
            }
        }
        Ok(ports)
    }
}

/// `published=8080,target=80,protocol=tcp` in the short form.
fn long_form(spec: &str) -> Result<Option<String>> {
    if !spec.contains('=') {
        return Ok(None);
    }
    let bad = || {
        Error::invalid(format!(
            "invalid publish opts format (should be name=value but got '{spec}')"
        ))
    };
    let mut parts = BTreeMap::new();
    for pair in spec.split(',') {
        let (key, value) = pair.split_once('=').ok_or_else(bad)?;
        parts.insert(key, value);
    }
    let get = |key: &str| parts.get(key).copied().unwrap_or_default();
    let protocol = parts.get("protocol").copied().unwrap_or("tcp");
    Ok(Some(format!("{}:{}/{protocol}", get("published"), get("target"))))
}

/// `[ip:][outside:]inside[/protocol]`, every part possibly a range.
fn published(spec: &str) -> Result<Vec<(String, PortBinding)>> {
    let (rest, inside) = match spec.rsplit_once(':') {
        Some((rest, inside)) => (rest, inside),
        None => ("", spec),
    };
    let (ip, outside) = match rest.rsplit_once(':') {
        Some((ip, outside)) => (ip, outside),
        None => ("", rest),
    };
    let (inside, protocol) = inside.split_once('/').unwrap_or((inside, "tcp"));
    let protocol = protocol.to_lowercase();
    let ip = match ip.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) => v6,
        None if ip.contains(':') => {
            return Err(Error::invalid(format!("invalid IP address: {ip}")));
        }
        None => ip,
    };
    if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
        return Err(Error::invalid(format!("invalid IP address: {ip}")));
    }
    if inside.is_empty() {
        return Err(Error::invalid(format!("no port specified: {spec}<empty>")));
    }
    let (from, to) =
        range(inside).ok_or_else(|| Error::invalid(format!("invalid containerPort: {inside}")))?;
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(Error::invalid(format!("invalid proto: {protocol}")));
    }
    let hosts = match outside {
        "" => None,
        outside => Some(
            range(outside).ok_or_else(|| Error::invalid(format!("invalid hostPort: {outside}")))?,
        ),
    };
    let one_for_range = hosts.is_some_and(|(first, last)| first != last) && from == to;
    if let Some((first, last)) = hosts
        && last - first != to - from
        && !one_for_range
    {
        return Err(Error::invalid(format!(
            "invalid ranges specified for container and host Ports: {inside} and {outside}"
        )));
    }
    Ok((0..=to - from)
        .map(|step| {
            let host_port = match hosts {
                None => String::new(),
                Some(_) if one_for_range => outside.to_owned(),
                Some((first, _)) => (first + step).to_string(),
            };
            (
                format!("{}/{protocol}", from + step),
                PortBinding { host_ip: ip.to_owned(), host_port },
            )
        })
        .collect())
}

fn exposed(spec: &str) -> Result<Vec<String>> {
    if spec.contains(':') {
        return Err(Error::invalid(format!("invalid port format for --expose: {spec}")));
    }
    let (ports, protocol) = spec.split_once('/').unwrap_or((spec, "tcp"));
    let (from, to) = range(ports).ok_or_else(|| {
        let culprit = ports.split('-').find(|part| part.parse::<u16>().is_err()).unwrap_or(ports);
        Error::invalid(format!(
            "invalid range format for --expose: {spec}, error: strconv.ParseUint: parsing {culprit:?}: invalid syntax"
        ))
    })?;
    Ok((from..=to).map(|port| format!("{port}/{}", protocol.to_lowercase())).collect())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (from.parse().ok()?, to.parse().ok()?);
    (from <= to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(spec: &str) -> String {
        match Ports::of(&[spec], &[]) {
            Ok(ports) => ports
                .bindings
                .iter()
                .flat_map(|(port, to)| {
                    to.iter()
                        .flatten()
                        .map(move |to| format!("{}:{}->{port}", to.host_ip, to.host_port))
                })
                .collect::<Vec<_>>()
                .join(" "),
            Err(err) => err.to_string(),
        }
    }

    #[test]
    fn published_ports() {
        for (spec, shown) in [
            ("80", ":->80/tcp"),
            ("8080:80", ":8080->80/tcp"),
            ("127.0.0.1:8080:80/udp", "127.0.0.1:8080->80/udp"),
            ("[::1]:8080:80", "::1:8080->80/tcp"),
            ("8000-8001:80-81", ":8000->80/tcp :8001->81/tcp"),
            ("8000-8010:80", ":8000-8010->80/tcp"),
            ("127.0.0.1::80", "127.0.0.1:->80/tcp"),
            ("published=8080,target=80", ":8080->80/tcp"),
            ("foo", "invalid containerPort: foo"),
            ("80:80:80:80", "invalid IP address: 80:80"),
            ("99999:80", "invalid hostPort: 99999"),
            (
                "80-90:80-85",
                "invalid ranges specified for container and host Ports: 80-85 and 80-90",
            ),
        ] {
            assert_eq!(show(spec), shown, "{spec}");
        }
    }

    #[test]
    fn exposed_ports() {
        let ports = Ports::of(&[], &["80-81/udp"]).unwrap();
        assert_eq!(ports.exposed.keys().collect::<Vec<_>>(), ["80/udp", "81/udp"]);
        assert_eq!(
            Ports::of(&[], &["x"]).unwrap_err().to_string(),
            "invalid range format for --expose: x, error: strconv.ParseUint: parsing \"x\": invalid syntax"
        );
    }
}
