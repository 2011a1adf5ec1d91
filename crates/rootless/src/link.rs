//! The way out of the network namespace: what pasta and slirp4netns are told, and whether one of them is there.
//!
//! Both give the namespace one device, `tap0`, with the addresses that users of slirp4netns know, and speak for it with
//! sockets of the user's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use stdx::{Error, Result};

use crate::program;

/// The namespace's own address, and what is at the other end.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
pub(crate) const PREFIX: u8 = 24;
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Who asks the host's name server, wherever that is.
pub(crate) const DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 3));
pub(crate) const DEVICE: &str = "tap0";
/// The same of slirp4netns' IPv6, which it tells by router advertisements only.
pub(crate) const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100);
pub(crate) const PREFIX6: u8 = 64;
pub(crate) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
/// What both can carry.
pub(crate) const MTU: u32 = 65520;

/// Which program it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Whichever is installed: pasta, unless it is too old and there is slirp4netns.
    #[default]
    Any,
    Pasta,
    Slirp4netns,
    /// None: containers reach each other only.
    None,
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "" | "auto" => Ok(Self::Any),
            "pasta" => Ok(Self::Pasta),
            "slirp4netns" => Ok(Self::Slirp4netns),
            "none" => Ok(Self::None),
            _ => Err(Error::invalid("it is neither auto nor pasta, slirp4netns or none")),
        }
    }
}

/// A link to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) program: Program,
    pub(crate) path: PathBuf,
    pub(crate) mtu: u32,
    /// May the host's loopback be reached at the gateway's address?
    pub(crate) host_loopback: bool,
    /// Has the host a way out by IPv6?
    pub(crate) ipv6: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Pasta,
    Slirp4netns,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }
}

/// The program for a kind, by its place on this host. `None` where no link is wanted.
pub(crate) fn choose(kind: Kind, path: &str) -> Result<Option<(Program, PathBuf)>> {
    let candidates: &[Program] = match kind {
        Kind::Any => &[Program::Pasta, Program::Slirp4netns],
        Kind::Pasta => &[Program::Pasta],
        Kind::Slirp4netns => &[Program::Slirp4netns],
        Kind::None => return Ok(None),
    };
    let mut found: Vec<(Program, PathBuf)> = candidates
        .iter()
        .filter_map(|&candidate| Some((candidate, program::find(candidate.name(), path)?)))
        .collect();
    if let [(Program::Pasta, pasta), _] = found.as_slice()
        && !is_recent(&program::output(pasta, &["--version"], path))
    {
        found.swap(0, 1);
    }
    match (found.into_iter().next(), kind) {
        (Some(found), _) => Ok(Some(found)),
        (None, Kind::Slirp4netns) => {
            Err(Error::not_found("slirp4netns is not installed, and --rootless-link asks for it"))
        }
        (None, Kind::Pasta) => Err(Error::not_found(
            "pasta is not installed (its package is called passt), and --rootless-link asks for it",
        )),
        (None, _) => Err(Error::not_found(
            "neither pasta (its package is called passt) nor slirp4netns is installed: containers of a user need one of \
             them for their network, or --rootless-link=none to do without",
        )),
    }
}

/// Whether pasta, by what it says of its version, loses no end of a connection that was closed in the other direction
/// first: not before December 2023. Some builds know no version, and are older.
fn is_recent(version: &str) -> bool {
    const FIRST: u32 = 20_231_204;
    let digits = |word: &str| -> Option<u32> {
        let date: String = word.chars().filter(|letter| *letter != '_').take(8).collect();
        date.parse().ok().filter(|date| (20_000_000..30_000_000).contains(date))
    };
    let words = version.lines().next().unwrap_or_default().split([' ', '.', '~']);
    words.map(|word| word.trim_start_matches("git")).filter_map(digits).any(|date| date >= FIRST)
}

impl Link {
    /// The command line. `anchor` is the process that lives in the namespace, `pid_file` where pasta writes its own number,
    /// `ready` the descriptor by which slirp4netns tells that it is.
    pub(crate) fn args(&self, anchor: i32, pid_file: &str, ready: u32) -> Vec<String> {
        match self.program {
            Program::Pasta => self.pasta(anchor, pid_file),
            Program::Slirp4netns => self.slirp4netns(anchor, ready),
        }
    }

    fn pasta(&self, anchor: i32, pid_file: &str) -> Vec<String> {
        let mut args = words("--quiet --config-net --no-dhcp --no-dhcpv6 --no-ra");
        // Ports are ours to publish, in neither direction pasta's.
        args.extend(words("-t none -u none -T none -U none"));
        args.extend(words(&format!(
            "--ns-ifname {DEVICE} --mtu {} --address {ADDRESS} --netmask {PREFIX} --gateway {GATEWAY} \
             --dns-forward {DNS} --pid {pid_file}",
            self.mtu
        )));
        if !self.host_loopback {
            args.push("--no-map-gw".to_owned());
        }
        // With IPv6 the gateway's address is asked for, and somebody must answer.
        if !self.ipv6 {
            args.push("--no-ndp".to_owned());
            args.push("--ipv4-only".to_owned());
        }
        args.push(anchor.to_string());
        args
    }

    fn slirp4netns(&self, anchor: i32, ready: u32) -> Vec<String> {
        let mut args = words(&format!(
            "--configure --mtu {} --cidr 10.0.2.0/{PREFIX} --ready-fd {ready} --enable-sandbox --enable-seccomp",
            self.mtu
        ));
        if !self.host_loopback {
            args.push("--disable-host-loopback".to_owned());
        }
        if self.ipv6 {
            args.push("--enable-ipv6".to_owned());
        }
        args.push(anchor.to_string());
        args.push(DEVICE.to_owned());
        args
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Whether there is a default route for IPv6, from the text of `/proc/net/ipv6_route`.
pub(crate) fn has_ipv6(routes: &str) -> bool {
    routes.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [to, length, .., device] = fields.as_slice() else { return false };
        to.bytes().all(|digit| digit == b'0') && *length == "00" && *device != "lo"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(program: Program) -> Link {
        Link { program, path: PathBuf::new(), mtu: 1400, host_loopback: false, ipv6: false }
    }

    #[test]
    fn what_pasta_is_told() {
        assert_eq!(
            link(Program::Pasta).args(7, "/r/link.pid", 5).join(" "),
            "--quiet --config-net --no-dhcp --no-dhcpv6 --no-ra -t none -u none -T none -U none --ns-ifname \
             tap0 --mtu 1400 --address 10.0.2.100 --netmask 24 --gateway 10.0.2.2 --dns-forward 10.0.2.3 --pid \
             /r/link.pid --no-map-gw --no-ndp --ipv4-only 7"
        );
        let open = Link { host_loopback: true, ipv6: true, ..link(Program::Pasta) };
        let args = open.args(7, "/r/link.pid", 5).join(" ");
        assert!(
            !["--no-map-gw", "--ipv4-only", "--no-ndp"].iter().any(|one| args.contains(one)),
            "{args}"
        );
    }

    #[test]
    fn what_slirp4netns_is_told() {
        assert_eq!(
            link(Program::Slirp4netns).args(7, "", 5).join(" "),
            "--configure --mtu 1400 --cidr 10.0.2.0/24 --ready-fd 5 --enable-sandbox --enable-seccomp \
             --disable-host-loopback 7 tap0"
        );
        let open = Link { host_loopback: true, ipv6: true, ..link(Program::Slirp4netns) };
        assert!(open.args(7, "", 5).join(" ").ends_with("--enable-seccomp --enable-ipv6 7 tap0"));
    }

    #[test]
    fn a_way_out_by_ipv6() {
        let local = "fe800000000000000000000000000000 40 00000000000000000000000000000000 00 \
                     00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n";
        let refused = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                       00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";
        let route = refused.replace("      lo", "eth0");
        assert!(!has_ipv6(&format!("{local}{refused}")));
        assert!(has_ipv6(&format!("{local}{refused}{route}")));
    }

    #[test]
    fn versions_of_pasta() {
        let recent = |version| is_recent(version);
        assert!(recent("pasta 2024_02_20.1e6f92b\nCopyright Red Hat\n"));
        assert!(recent("pasta 0.0~git20240220.1e6f92b-1"));
        assert!(!recent("pasta 2023_02_16.4663ccc"));
        assert!(!recent("pasta unknown version\nCopyright Red Hat\n"));
    }

    #[test]
    fn words_for_kinds() {
        assert_eq!("pasta".parse::<Kind>().unwrap(), Kind::Pasta);
        assert!("vpnkit".parse::<Kind>().is_err());
        assert_eq!(choose(Kind::None, "/nowhere").unwrap(), None);
    }
}
