//! The ruleset, as a value: rendered whole from the records, printed as `nft list table` prints it.
//!
//! Networks are elements of sets and maps, not rules of their own: a packet meets the same few rules however many there
//! are.

use std::fmt;

use ipnet::{IpNet, Ipv4Net};

use crate::records::Network;

/// Our table. Without bridges there is nothing to say, and no table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ruleset {
    pub(crate) table: String,
    pub(crate) sets: Vec<Set>,
    pub(crate) chains: Vec<Chain>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    pub(crate) elements: Elements,
}

/// What a set holds decides its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Elements {
    Devices(Vec<String>),
    DevicePairs(Vec<(String, String)>),
    /// A map from subnets to the chain that their packets jump to.
    Subnets(Vec<(Ipv4Net, String)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: String,
    pub(crate) hook: Option<Hook>,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Forward,
    PostroutingNat,
}

/// Matches from left to right, then what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule(pub(crate) Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    InputIn(&'static str),
    OutputIn(&'static str),
    OutputIsNot(String),
    /// Input and output device together are an element of the set.
    PairIn(&'static str),
    Established,
    SourceMap(&'static str),
    Masquerade,
    Accept,
    Drop,
    Goto(&'static str),
}

const BRIDGES: &str = "bridges";
const TALKING: &str = "icc";
const INTERNAL: &str = "internal";
const MASQUERADED: &str = "masquerade";
const INWARD: &str = "inward";

/// The rules these networks need.
pub(crate) fn render<'a>(table: &str, networks: impl IntoIterator<Item = &'a Network>) -> Ruleset {
    let (mut bridges, mut talking, mut internal) = (Vec::new(), Vec::new(), Vec::new());
    let (mut masqueraded, mut masquerades) = (Vec::new(), Vec::new());
    for network in networks {
        let Some(bridge) = &network.bridge else { continue };
        let name = &bridge.name;
        bridges.push(name.clone());
        if bridge.icc {
            talking.push((name.clone(), name.clone()));
        }
        if network.internal {
            internal.push(name.clone());
        } else if bridge.masquerade {
            let chain = format!("masquerade-{name}");
            masqueraded.extend(network.ipam.config.iter().filter_map(|pool| match pool.subnet {
                IpNet::V4(subnet) => Some((subnet, chain.clone())),
                IpNet::V6(_) => None,
            }));
            masquerades.push(Chain {
                name: chain,
                hook: None,
                rules: vec![Rule(vec![Term::OutputIsNot(name.clone()), Term::Masquerade])],
            });
        }
    }
    if bridges.is_empty() {
        return Ruleset { table: table.to_owned(), ..Ruleset::default() };
    }
    let sets = vec![
        Set { name: BRIDGES, elements: Elements::Devices(bridges) },
        Set { name: TALKING, elements: Elements::DevicePairs(talking) },
        Set { name: INTERNAL, elements: Elements::Devices(internal) },
        Set { name: MASQUERADED, elements: Elements::Subnets(masqueraded) },
    ];
    let mut chains = vec![
        // What is forwarded to a bridge of ours has to have a reason. What leaves one for elsewhere goes, unless the
        // network is internal. Everything else is not ours to judge.
        Chain {
            name: "forward".to_owned(),
            hook: Some(Hook::Forward),
            rules: vec![
                Rule(vec![Term::OutputIn(BRIDGES), Term::Goto(INWARD)]),
                Rule(vec![Term::InputIn(INTERNAL), Term::Drop]),
            ],
        },
        Chain {
            name: INWARD.to_owned(),
            hook: None,
            rules: vec![
                Rule(vec![Term::Established, Term::Accept]),
                Rule(vec![Term::PairIn(TALKING), Term::Accept]),
                Rule(vec![Term::Drop]),
            ],
        },
        Chain {
            name: "postrouting".to_owned(),
            hook: Some(Hook::PostroutingNat),
            rules: vec![Rule(vec![Term::SourceMap(MASQUERADED)])],
        },
    ];
    chains.extend(masquerades);
    Ruleset { table: table.to_owned(), sets, chains }
}

impl Ruleset {
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.table)?;
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
        let (word, kind, flags, elements): (_, _, _, Vec<String>) = match &self.elements {
            Elements::Devices(devices) => (
                "set",
                "ifname",
                "",
                devices.iter().map(|device| format!("\"{device}\"")).collect(),
            ),
            Elements::DevicePairs(pairs) => (
                "set",
                "ifname . ifname",
                "",
                pairs.iter().map(|(input, output)| format!("\"{input}\" . \"{output}\"")).collect(),
            ),
            Elements::Subnets(subnets) => (
                "map",
                "ipv4_addr : verdict",
                "\t\tflags interval\n",
                subnets.iter().map(|(subnet, chain)| format!("{subnet} : jump {chain}")).collect(),
            ),
        };
        write!(f, "\t{word} {} {{\n\t\ttype {kind}\n{flags}", self.name)?;
        if !elements.is_empty() {
            writeln!(f, "\t\telements = {{ {} }}", elements.join(",\n\t\t\t     "))?;
        }
        f.write_str("\t}\n")
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        match self.hook {
            None => {}
            Some(Hook::Forward) => {
                f.write_str("\t\ttype filter hook forward priority filter; policy accept;\n")?
            }
            Some(Hook::PostroutingNat) => {
                f.write_str("\t\ttype nat hook postrouting priority srcnat; policy accept;\n")?;
            }
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
        match self {
            Self::InputIn(set) => write!(f, "iifname @{set}"),
            Self::OutputIn(set) => write!(f, "oifname @{set}"),
            Self::OutputIsNot(device) => write!(f, "oifname != \"{device}\""),
            Self::PairIn(set) => write!(f, "iifname . oifname @{set}"),
            Self::Established => f.write_str("ct state established,related"),
            Self::SourceMap(map) => write!(f, "ip saddr vmap @{map}"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::{Expect, expect};

    use super::*;
    use crate::records::{BridgeDevice, DriverKind, Ipam, IpamPool};

    fn network(bridge: &str, address: &str) -> Network {
        let address: Ipv4Net = address.parse().unwrap();
        let pool = IpamPool {
            subnet: address.trunc().into(),
            ip_range: None,
            gateway: None,
            auxiliary: BTreeMap::new(),
            chosen: true,
        };
        let bridge = BridgeDevice {
            name: bridge.to_owned(),
            address: Some(address),
            ..BridgeDevice::default()
        };
        Network {
            ipam: Ipam { config: vec![pool], ..Ipam::default() },
            bridge: Some(bridge.clone()),
            ..Network::new(&bridge.name, DriverKind::Bridge)
        }
    }

    fn gantry0(change: impl FnOnce(&mut BridgeDevice)) -> Network {
        let mut network = network("gantry0", "172.17.0.1/16");
        change(network.bridge.as_mut().unwrap());
        network
    }

    #[track_caller]
    fn check(networks: &[Network], expected: Expect) {
        expected.assert_eq(&render("gantry", networks).to_string());
    }

    #[test]
    fn default_bridge() {
        check(
            &[gantry0(|_| {})],
            expect![[r#"
            table inet gantry {
            	set bridges {
            		type ifname
            		elements = { "gantry0" }
            	}

            	set icc {
            		type ifname . ifname
            		elements = { "gantry0" . "gantry0" }
            	}

            	set internal {
            		type ifname
            	}

            	map masquerade {
            		type ipv4_addr : verdict
            		flags interval
            		elements = { 172.17.0.0/16 : jump masquerade-gantry0 }
            	}

            	chain forward {
            		type filter hook forward priority filter; policy accept;
            		oifname @bridges goto inward
            		iifname @internal drop
            	}

            	chain inward {
            		ct state established,related accept
            		iifname . oifname @icc accept
            		drop
            	}

            	chain postrouting {
            		type nat hook postrouting priority srcnat; policy accept;
            		ip saddr vmap @masquerade
            	}

            	chain masquerade-gantry0 {
            		oifname != "gantry0" masquerade
            	}
            }
        "#]],
        );
    }

    #[test]
    fn no_masquerade() {
        check(
            &[gantry0(|bridge| bridge.masquerade = false)],
            expect![[r#"
            table inet gantry {
            	set bridges {
            		type ifname
            		elements = { "gantry0" }
            	}

            	set icc {
            		type ifname . ifname
            		elements = { "gantry0" . "gantry0" }
            	}

            	set internal {
            		type ifname
            	}

            	map masquerade {
            		type ipv4_addr : verdict
            		flags interval
            	}

            	chain forward {
            		type filter hook forward priority filter; policy accept;
            		oifname @bridges goto inward
            		iifname @internal drop
            	}

            	chain inward {
            		ct state established,related accept
            		iifname . oifname @icc accept
            		drop
            	}

            	chain postrouting {
            		type nat hook postrouting priority srcnat; policy accept;
            		ip saddr vmap @masquerade
            	}
            }
        "#]],
        );
    }

    #[test]
    fn no_talking() {
        check(
            &[gantry0(|bridge| bridge.icc = false)],
            expect![[r#"
            table inet gantry {
            	set bridges {
            		type ifname
            		elements = { "gantry0" }
            	}

            	set icc {
            		type ifname . ifname
            	}

            	set internal {
            		type ifname
            	}

            	map masquerade {
            		type ipv4_addr : verdict
            		flags interval
            		elements = { 172.17.0.0/16 : jump masquerade-gantry0 }
            	}

            	chain forward {
            		type filter hook forward priority filter; policy accept;
            		oifname @bridges goto inward
            		iifname @internal drop
            	}

            	chain inward {
            		ct state established,related accept
            		iifname . oifname @icc accept
            		drop
            	}

            	chain postrouting {
            		type nat hook postrouting priority srcnat; policy accept;
            		ip saddr vmap @masquerade
            	}

            	chain masquerade-gantry0 {
            		oifname != "gantry0" masquerade
            	}
            }
        "#]],
        );
    }

    #[test]
    fn several_networks_one_internal() {
        let mut internal = network("br-2", "172.19.0.1/16");
        internal.internal = true;
        check(
            &[gantry0(|_| {}), network("br-1", "172.18.0.1/16"), internal],
            expect![[r#"
            table inet gantry {
            	set bridges {
            		type ifname
            		elements = { "gantry0",
            			     "br-1",
            			     "br-2" }
            	}

            	set icc {
            		type ifname . ifname
            		elements = { "gantry0" . "gantry0",
            			     "br-1" . "br-1",
            			     "br-2" . "br-2" }
            	}

            	set internal {
            		type ifname
            		elements = { "br-2" }
            	}

            	map masquerade {
            		type ipv4_addr : verdict
            		flags interval
            		elements = { 172.17.0.0/16 : jump masquerade-gantry0,
            			     172.18.0.0/16 : jump masquerade-br-1 }
            	}

            	chain forward {
            		type filter hook forward priority filter; policy accept;
            		oifname @bridges goto inward
            		iifname @internal drop
            	}

            	chain inward {
            		ct state established,related accept
            		iifname . oifname @icc accept
            		drop
            	}

            	chain postrouting {
            		type nat hook postrouting priority srcnat; policy accept;
            		ip saddr vmap @masquerade
            	}

            	chain masquerade-gantry0 {
            		oifname != "gantry0" masquerade
            	}

            	chain masquerade-br-1 {
            		oifname != "br-1" masquerade
            	}
            }
        "#]],
        );
    }

    #[test]
    fn nothing_to_say() {
        let without = Network { bridge: None, ..gantry0(|_| {}) };
        assert!(render("gantry", &[without]).is_empty());
    }
}
