//! What containers may reach outside of their networks, where that was said: rules as text and as values.
//!
//! A list replaces everything that would be reached otherwise: what is not on it is dropped. Addresses become elements of
//! the firewall's sets; names do when our own name server has told a container what they mean (`dns/server.rs`).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use stdx::{Error, Result};

use crate::records::{BridgeDevice, DriverKind, Endpoint, Network, Protocol};

/// As it is written down: a list of rules, an empty one for nothing at all, or the word `any`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub enum Egress {
    /// Whatever its networks say.
    Any,
    Only(Vec<Allowed>),
}

/// `example.com`, `*.example.com:443`, `10.0.0.0/8`, `192.0.2.1:53/udp`, `[2001:db8::/32]:443`. A port without a protocol
/// is TCP's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Allowed {
    pub whom: Whom,
    /// Every protocol and port when absent.
    pub port: Option<(Protocol, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    Addresses(IpNet),
    /// In lower case.
    Name(String),
    /// Every name that ends with a dot and this.
    Below(String),
}

const ANY: &str = "any";
/// In text (RFC 1035), and the longest part of it.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

impl Egress {
    /// What is said of an endpoint: by its container, else by its network. `None` where nothing restricts it.
    pub(crate) fn of<'a>(endpoint: &'a Endpoint, network: &'a Network) -> Option<&'a [Allowed]> {
        match endpoint.egress.as_ref().or(network.egress.as_ref())? {
            Self::Any => None,
            Self::Only(allowed) => Some(allowed),
        }
    }
}

impl TryFrom<Vec<String>> for Egress {
    type Error = Error;

    fn try_from(texts: Vec<String>) -> Result<Self> {
        match texts.as_slice() {
            [word] if word == ANY => Ok(Self::Any),
            rules => rules.iter().map(|rule| rule.parse()).collect::<Result<_>>().map(Self::Only),
        }
    }
}

impl From<Egress> for Vec<String> {
    fn from(egress: Egress) -> Self {
        match egress {
            Egress::Any => vec![ANY.to_owned()],
            Egress::Only(allowed) => allowed.iter().map(Allowed::to_string).collect(),
        }
    }
}

impl Allowed {
    /// Is this name, in lower case, meant?
    pub(crate) fn names(&self, name: &str) -> bool {
        match &self.whom {
            Whom::Addresses(_) => false,
            Whom::Name(wanted) => wanted == name,
            Whom::Below(domain) => name
                .strip_suffix(domain.as_str())
                .is_some_and(|host| host.len() > 1 && host.ends_with('.')),
        }
    }
}

impl FromStr for Allowed {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid(format!(
                "invalid egress rule {text:?}: it is not HOST[:PORT[/PROTOCOL]], where HOST is a name, *.DOMAIN, an address or \
                 a subnet"
            ))
        };
        let (whom, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (whom, rest) = rest.split_once(']').ok_or_else(bad)?;
                (whom, rest.strip_prefix(':').or((!rest.is_empty()).then_some("")))
            }
            None if subnet(text).is_some() => (text, None),
            None => text.rsplit_once(':').map_or((text, None), |(whom, port)| (whom, Some(port))),
        };
        let whom = match (subnet(whom), whom.strip_prefix("*.")) {
            (Some(subnet), _) => Whom::Addresses(subnet),
            (None, Some(domain)) => Whom::Below(name(domain).ok_or_else(bad)?),
            (None, None) => Whom::Name(name(whom).ok_or_else(bad)?),
        };
        let port = port.map(|port| port_of(port).ok_or_else(bad)).transpose()?;
        Ok(Self { whom, port })
    }
}

fn subnet(text: &str) -> Option<IpNet> {
    let subnet = text.parse::<IpNet>().ok();
    subnet.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).map(|subnet| subnet.trunc())
}

fn port_of(text: &str) -> Option<(Protocol, u16)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some((protocol.parse().ok()?, port))
}

/// A host's name without the dot at its end. What looks like a number is an address that somebody misspelt.
fn name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let letter = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    let label =
        |label: &str| (1..=LONGEST_LABEL).contains(&label.len()) && label.bytes().all(letter);
    let last = name.rsplit('.').next().unwrap_or_default();
    let right = name.len() <= LONGEST_NAME
        && name.split('.').all(label)
        && !last.bytes().all(|c| c.is_ascii_digit());
    right.then_some(name)
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whom = match &self.whom {
            Whom::Addresses(one) if one.prefix_len() == one.max_prefix_len() => {
                one.addr().to_string()
            }
            Whom::Addresses(subnet) => subnet.to_string(),
            Whom::Name(name) => name.clone(),
            Whom::Below(domain) => format!("*.{domain}"),
        };
        let Some((protocol, port)) = self.port else { return f.write_str(&whom) };
        if whom.contains(':') {
            write!(f, "[{whom}]:{port}")?
        } else {
            write!(f, "{whom}:{port}")?
        }
        if protocol == Protocol::Tcp { Ok(()) } else { write!(f, "/{}", protocol.as_str()) }
    }
}

impl TryFrom<String> for Allowed {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Allowed> for String {
    fn from(allowed: Allowed) -> Self {
        allowed.to_string()
    }
}

/// Whether what leaves a network passes by us, who could stop it.
pub(crate) fn check(network: &Network) -> Result<()> {
    let passes = |bridge: &BridgeDevice| {
        let mut set_aside = network.ipam.config.iter().flat_map(|pool| pool.auxiliary.keys());
        let elsewhere = set_aside.any(|name| name.starts_with("DefaultGatewayIPv"));
        bridge.ours && !bridge.inhibit_ipv4 && !elsewhere
    };
    match (network.driver, network.bridge.as_ref()) {
        (DriverKind::Bridge, Some(bridge)) if passes(bridge) => Ok(()),
        (DriverKind::Bridge, _) => Err(Error::invalid(format!(
            "egress rules do not hold on network {}: containers leave it by another gateway than this host",
            network.name
        ))),
        (DriverKind::Null, _) => Ok(()),
        (DriverKind::Host, _) => {
            Err(Error::invalid("conflicting options: egress rules and the host network"))
        }
        _ => Err(Error::invalid(format!(
            "egress rules do not hold on network {} of driver {}: they need a bridge",
            network.name,
            network.driver_name()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, shown: &str) {
        let allowed: Allowed = text.parse().unwrap();
        assert_eq!(allowed.to_string(), shown);
        assert_eq!(shown.parse::<Allowed>().unwrap(), allowed, "what is shown is understood");
    }

    #[test]
    fn what_can_be_said() {
        check("Example.COM.", "example.com");
        check("*.example.com:443", "*.example.com:443");
        check("registry:5000/tcp", "registry:5000");
        check("10.1.2.3/8", "10.0.0.0/8");
        check("10.0.0.0/8:5432", "10.0.0.0/8:5432");
        check("192.0.2.1/32:53/udp", "192.0.2.1:53/udp");
        check("2001:db8::1", "2001:db8::1");
        check("[2001:db8::/32]:443", "[2001:db8::/32]:443");
        check("[2001:db8::1]", "2001:db8::1");
        check("0.0.0.0/0:443", "0.0.0.0/0:443");
    }

    #[test]
    fn what_cannot() {
        for bad in [
            "",
            "*",
            "*.",
            ":443",
            "a..b",
            "a b",
            "x:",
            "x:0",
            "x:65536",
            "x:80/icmp",
            "a.*.b",
            "1.2.3",
            "300.1.2.3",
            "[2001:db8::1",
            "[::1]443",
            "10.0.0.0/33",
            "http://x",
            "x:80-90",
        ] {
            let words = bad.parse::<Allowed>().unwrap_err().to_string();
            assert!(words.starts_with(&format!("invalid egress rule {bad:?}")), "{words}");
        }
    }

    #[test]
    fn names_that_are_meant() {
        let named = |rule: &str, name: &str| rule.parse::<Allowed>().unwrap().names(name);
        assert!(named("example.com", "example.com"));
        assert!(!named("example.com", "www.example.com"));
        assert!(named("*.example.com", "a.b.example.com"));
        for other in ["example.com", "badexample.com", ".example.com", "example.com.evil.org"] {
            assert!(!named("*.example.com", other), "{other}");
        }
    }

    #[test]
    fn lists() {
        let list = |words: &[&str]| {
            Egress::try_from(words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(list(&["any"]).unwrap(), Egress::Any);
        assert_eq!(list(&[]).unwrap(), Egress::Only(Vec::new()));
        assert!(
            list(&["any", "10.0.0.0/8"]).is_ok_and(|list| list != Egress::Any),
            "a host may be called so"
        );
        assert_eq!(Vec::from(list(&["10.1.0.0/8"]).unwrap()), ["10.0.0.0/8"]);
    }
}
