//! A table as a value, printed as `nft list table` prints it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::view::Mark;
use crate::netlink::route::VXLAN_PORT;
use crate::records::{Mac, Protocol};

/// Our table. Without bridges there is nothing to say, and no table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ruleset {
    pub(crate) family: Family,
    pub(crate) table: String,
    pub(crate) sets: Vec<Set>,
    pub(crate) chains: Vec<Chain>,
}

/// What a table is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Family {
    /// Packets of IPv4 and IPv6.
    #[default]
    Inet,
    /// Frames on bridges.
    Bridge,
}

/// A set, or a map where it has `data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    pub(crate) key: &'static [Field],
    pub(crate) data: &'static [Field],
    /// Each element, and how many reasons there are for it.
    pub(crate) elements: BTreeMap<Element, u32>,
    pub(crate) filled: Filled,
}

/// Whose business a set's elements are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Filled {
    /// They are part of the ruleset.
    #[default]
    ByUs,
    /// They come while containers run, each for a time of its own (`grants.rs`).
    ByAnswers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Device,
    Ipv4,
    Ipv6,
    /// A range of addresses; a set with one is an interval set.
    Subnet4,
    Subnet6,
    Mac,
    Protocol,
    Port,
    /// VXLAN's identifier of a network, with the byte behind it. To nft(8) an address: it cannot print what it has no
    /// name for.
    Network,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    pub(crate) key: Vec<Value>,
    pub(crate) data: Vec<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    Device(String),
    Subnet(IpNet),
    Address(IpAddr),
    Mac(Mac),
    Protocol(Protocol),
    Port(u16),
    Network(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) hook: Option<Hook>,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// After connections are looked up, and before addresses are translated.
    PreroutingMangle,
    PreroutingNat,
    OutputNat,
    Forward,
    Output,
    PostroutingNat,
    /// Before a bridge learns from a frame.
    BridgePrerouting,
}

/// Matches from left to right, then what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule(pub(crate) Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    Family(Ip),
    InputIn(&'static str),
    OutputIn(Is, &'static str),
    /// Input and output device together are an element of the set.
    PairIn(&'static str),
    NotFromLoopback,
    /// From an address of `127.0.0.0/8`, or to one.
    FromLocalhost,
    ToLocalhost(Is),
    /// To `::1`.
    ToLocalhost6(Is),
    SourceIn(Ip, &'static str),
    /// Source and destination address together are an element of the set.
    PathIn(Ip, &'static str),
    /// The same with protocol and port.
    PathPortIn(Ip, &'static str),
    /// Destination address and input device together are an element of the set.
    TargetInputIn(Ip, &'static str),
    /// Source address and output device together are an element of the set.
    SourceOutputIn(Ip, Is, &'static str),
    /// Destination address, protocol and port together are an element of the set.
    TargetIn(Ip, &'static str),
    /// Input device, both addresses, protocol and port together are an element of the set.
    LinkIn(&'static str),
    /// To where VXLAN listens.
    Vxlan,
    /// VXLAN's identifier is an element of the set.
    NetworkIn(&'static str),
    /// Source address and VXLAN's identifier together are an element of the set.
    SourceNetworkIn(Ip, Is, &'static str),
    /// Destination is an address of this host.
    ToHost,
    /// Destination is no single machine's address, or one of this host.
    ToNobodyElse,
    /// Destination is an address of the device it came in by.
    ToInputDevice(Is),
    /// The answer would not go out by the device this came in by.
    NoWayBack,
    Icmp(Ip),
    /// "There is a shorter way than by me."
    Redirect(Ip),
    /// "Who has this address?" and its answer, in IPv6.
    Discovery,
    /// A frame's device, and the hardware and network addresses it comes from, together are an element of the set.
    FrameIn(Ip, &'static str),
    /// The same, of who asks for a neighbour in IPv4.
    AskerIn(&'static str),
    /// What devices with IPv6 say before they have an address, and at the one they gave themselves: no more than
    /// discovery of neighbours and routers.
    LinkLocalDiscovery,
    UnspecifiedDiscovery,
    Connection(Connection),
    Marked(Mark),
    /// Translate to what the map has for destination address, protocol and port.
    TranslateTarget(Ip, &'static str),
    /// Translate to what the map has for protocol and port.
    TranslatePort(Ip, &'static str),
    Masquerade,
    Accept,
    Drop,
    Goto(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ip {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    Yes,
    Not,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    Established,
    /// Not yet known, or not understood.
    NewOrInvalid,
    /// Its destination was translated.
    Translated,
}

impl Ruleset {
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    pub(crate) fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }

    pub(crate) fn set_mut(&mut self, name: &str) -> Option<&mut Set> {
        self.sets.iter_mut().find(|set| set.name == name)
    }
}

impl Set {
    pub(crate) fn is_interval(&self) -> bool {
        self.key.iter().any(|field| matches!(field, Field::Subnet4 | Field::Subnet6))
    }

    pub(crate) fn is_map(&self) -> bool {
        !self.data.is_empty()
    }

    pub(crate) fn add(&mut self, element: Element) {
        *self.elements.entry(element).or_default() += 1;
    }
}

impl Element {
    pub(crate) fn of<const N: usize>(key: [Value; N]) -> Self {
        Self { key: key.into(), data: Vec::new() }
    }

    pub(crate) fn leads_to(self, address: IpAddr, port: u16) -> Self {
        Self { data: vec![Value::Address(address), Value::Port(port)], ..self }
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.family, self.table)?;
        for (index, set) in self.sets.iter().enumerate() {
            write!(f, "{}{set}", if index == 0 { "" } else { "\n" })?;
        }
        for chain in &self.chains {
            write!(f, "\n{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_map() { "map" } else { "set" };
        write!(f, "\t{word} {} {{\n\t\ttype {}", self.name, joined(self.key))?;
        if self.is_map() {
            write!(f, " : {}", joined(self.data))?;
        }
        writeln!(f)?;
        if self.is_interval() {
            writeln!(f, "\t\tflags interval")?;
        }
        if self.filled == Filled::ByAnswers {
            writeln!(f, "\t\tflags timeout")?;
        }
        if !self.elements.is_empty() {
            let elements: Vec<String> = self.elements.keys().map(Element::to_string).collect();
            writeln!(f, "\t\telements = {{ {} }}", elements.join(",\n\t\t\t     "))?;
        }
        f.write_str("\t}\n")
    }
}

fn joined<T: fmt::Display>(parts: &[T]) -> String {
    let parts: Vec<String> = parts.iter().map(T::to_string).collect();
    parts.join(" . ")
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "ifname",
            Self::Ipv4 | Self::Subnet4 | Self::Network => "ipv4_addr",
            Self::Ipv6 | Self::Subnet6 => "ipv6_addr",
            Self::Mac => "ether_addr",
            Self::Protocol => "inet_proto",
            Self::Port => "inet_service",
        })
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(&self.key))?;
        if self.data.is_empty() { Ok(()) } else { write!(f, " : {}", joined(&self.data)) }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(name) => write!(f, "\"{name}\""),
            Self::Subnet(subnet) if subnet.prefix_len() == subnet.max_prefix_len() => {
                write!(f, "{}", subnet.addr())
            }
            Self::Subnet(subnet) => write!(f, "{subnet}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Mac(mac) => write!(f, "{mac}"),
            Self::Protocol(protocol) => f.write_str(protocol.as_str()),
            Self::Port(port) => write!(f, "{port}"),
            Self::Network(vni) => write!(f, "{}", Ipv4Addr::from(vni << 8)),
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if let Some(hook) = self.hook {
            let words = match hook {
                Hook::PreroutingMangle => "type filter hook prerouting priority mangle",
                Hook::PreroutingNat => "type nat hook prerouting priority dstnat",
                Hook::OutputNat => "type nat hook output priority -100",
                Hook::Forward => "type filter hook forward priority filter",
                Hook::Output => "type filter hook output priority filter",
                Hook::PostroutingNat => "type nat hook postrouting priority srcnat",
                Hook::BridgePrerouting => "type filter hook prerouting priority dstnat",
            };
            writeln!(f, "\t\t{words}; policy accept;")?;
        }
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        f.write_str("\t}\n")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.0.iter().enumerate() {
            write!(f, "{}{term}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = |is: &Is| if *is == Is::Yes { "" } else { "!= " };
        match self {
            Self::Family(Ip::V4) => f.write_str("meta nfproto ipv4"),
            Self::Family(Ip::V6) => f.write_str("meta nfproto ipv6"),
            Self::InputIn(set) => write!(f, "iifname @{set}"),
            Self::OutputIn(is, set) => write!(f, "oifname {}@{set}", not(is)),
            Self::PairIn(set) => write!(f, "iifname . oifname @{set}"),
            Self::NotFromLoopback => f.write_str("iifname != \"lo\""),
            Self::FromLocalhost => f.write_str("ip saddr 127.0.0.0/8"),
            Self::ToLocalhost(is) => write!(f, "ip daddr {}127.0.0.0/8", not(is)),
            Self::ToLocalhost6(is) => write!(f, "ip6 daddr {}::1", not(is)),
            Self::SourceIn(ip, set) => write!(f, "{ip} saddr @{set}"),
            Self::PathIn(ip, set) => write!(f, "{ip} saddr . {ip} daddr @{set}"),
            Self::PathPortIn(ip, set) => {
                write!(f, "{ip} saddr . {ip} daddr . meta l4proto . th dport @{set}")
            }
            Self::TargetInputIn(ip, set) => write!(f, "{ip} daddr . iifname @{set}"),
            Self::SourceOutputIn(ip, is, set) => {
                write!(f, "{ip} saddr . oifname {}@{set}", not(is))
            }
            Self::TargetIn(ip, set) => write!(f, "{ip} daddr . meta l4proto . th dport @{set}"),
            Self::LinkIn(set) => {
                write!(f, "iifname . ip saddr . ip daddr . meta l4proto . th dport @{set}")
            }
            Self::Vxlan => write!(f, "udp dport {VXLAN_PORT}"),
            Self::NetworkIn(set) => write!(f, "@th,96,32 @{set}"),
            Self::SourceNetworkIn(ip, is, set) => {
                write!(f, "{ip} saddr . @th,96,32 {}@{set}", not(is))
            }
            Self::ToHost => f.write_str("fib daddr type local"),
            Self::ToNobodyElse => f.write_str("fib daddr type != unicast"),
            Self::ToInputDevice(is) => write!(f, "fib daddr . iif type {}local", not(is)),
            Self::NoWayBack => f.write_str("fib saddr . iif oif missing"),
            Self::Icmp(Ip::V4) => f.write_str("meta l4proto icmp"),
            Self::Icmp(Ip::V6) => f.write_str("meta l4proto ipv6-icmp"),
            Self::Redirect(Ip::V4) => f.write_str("icmp type redirect"),
            Self::Redirect(Ip::V6) => f.write_str("icmpv6 type nd-redirect"),
            Self::Discovery => f.write_str("icmpv6 type 133-136"),
            Self::FrameIn(ip, set) => write!(f, "iifname . ether saddr . {ip} saddr @{set}"),
            Self::AskerIn(set) => write!(f, "iifname . ether saddr . arp saddr ip @{set}"),
            Self::LinkLocalDiscovery => f.write_str("ip6 saddr fe80::/10 icmpv6 type 130-136"),
            Self::UnspecifiedDiscovery => f.write_str("ip6 saddr :: icmpv6 type 130-136"),
            Self::Connection(Connection::Established) => {
                f.write_str("ct state established,related")
            }
            Self::Connection(Connection::NewOrInvalid) => f.write_str("ct state invalid,new"),
            Self::Connection(Connection::Translated) => f.write_str("ct status dnat"),
            Self::Marked(Mark { value, mask: u32::MAX }) => write!(f, "meta mark {value:#010x}"),
            Self::Marked(Mark { value, mask }) => {
                write!(f, "meta mark & {mask:#010x} == {value:#010x}")
            }
            Self::TranslateTarget(ip, map) => {
                write!(f, "dnat {ip} to {ip} daddr . meta l4proto . th dport map @{map}")
            }
            Self::TranslatePort(ip, map) => {
                write!(f, "dnat {ip} to meta l4proto . th dport map @{map}")
            }
            Self::Masquerade => f.write_str("masquerade"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        })
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        })
    }
}

/// Whether an address is one that only the host itself can send to.
pub(crate) fn is_localhost(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == Ipv4Addr::LOCALHOST.octets()[0],
        IpAddr::V6(address) => address.is_loopback(),
    }
}
