//! The three files every container gets: `/etc/hosts`, `/etc/resolv.conf`, `/etc/hostname`. Texts from values; whoever
//! calls writes them where they belong. Containers on the host's network get the host's own, unless something is added.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use stdx::{Context, Result};

/// Whom a container knows by name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hosts<'a> {
    /// Its own name; no line without addresses.
    pub hostname: &'a str,
    pub domain: &'a str,
    pub addresses: &'a [IpAddr],
    /// It speaks no IPv6.
    pub without_ipv6: bool,
    /// `--add-host`, with `host-gateway` already turned into an address.
    pub extra: &'a [(String, IpAddr)],
}

const LOCALHOST: &str = "127.0.0.1\tlocalhost\n";
const LOCALHOST6: &str = "\
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

/// `/etc/hosts`: loopback, what was added, the container itself.
pub fn hosts(hosts: &Hosts) -> String {
    let mut text = LOCALHOST.to_owned();
    if !hosts.without_ipv6 {
        text.push_str(LOCALHOST6);
    }
    let mut line =
        |ip: &IpAddr, names: &str| writeln!(text, "{ip}\t{names}").expect("a String takes all");
    for (name, ip) in hosts.extra {
        line(ip, name);
    }
    let names = own_names(hosts.hostname, hosts.domain);
    for ip in hosts.addresses {
        line(ip, &names);
    }
    text
}

/// What a container's line of itself names: the full name, however it was split, and its first word.
pub fn own_names(hostname: &str, domain: &str) -> String {
    let full = match domain {
        "" => hostname.to_owned(),
        domain => format!("{hostname}.{domain}"),
    };
    match full.split_once('.') {
        Some((first, _)) => format!("{full} {first}"),
        None => full,
    }
}

/// The text of an `/etc/hosts` with the lines of these names leading to these addresses, and only these. Lines are known by
/// their first two names: a third may have changed. They stand where they stood; other lines are whoever's wrote them.
pub fn point(text: &str, names: &str, addresses: &[IpAddr]) -> String {
    let is_theirs = |line: &&str| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|ip| ip.parse::<IpAddr>().is_ok())
            && words.take(2).eq(names.split_whitespace().take(2))
    };
    let lines: Vec<&str> = text.lines().collect();
    let place = lines.iter().position(is_theirs).unwrap_or(lines.len());
    let mut changed = String::new();
    for (number, line) in lines.iter().enumerate() {
        if number == place {
            changed.extend(addresses.iter().map(|ip| format!("{ip}\t{names}\n")));
        }
        if !is_theirs(line) {
            changed.push_str(line);
            changed.push('\n');
        }
    }
    if place == lines.len() {
        changed.extend(addresses.iter().map(|ip| format!("{ip}\t{names}\n")));
    }
    changed
}

/// `/etc/hostname`
pub fn hostname(name: &str) -> String {
    format!("{name}\n")
}

/// What was chosen with `--dns`, `--dns-search` and `--dns-option`, for the container or else for the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    pub servers: Vec<IpAddr>,
    /// A single `.` means: none.
    pub search: Vec<String>,
    pub options: Vec<String>,
}

/// A `resolv.conf` of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostResolver {
    pub path: PathBuf,
    pub text: String,
}

/// Does somebody, here or on the host, decide which names are tried as they are?
pub(crate) fn sets_ndots(dns: &Dns) -> bool {
    if !dns.options.is_empty() {
        return dns.options.iter().any(|option| is_ndots(option));
    }
    let host = host_resolver(None).map(|host| host.text).unwrap_or_default();
    Parsed::from(host.as_str()).options.into_iter().any(is_ndots)
}

impl HostResolver {
    /// The name servers it names.
    pub(crate) fn servers(&self) -> Vec<IpAddr> {
        Parsed::from(self.text.as_str()).servers
    }
}

/// Google's, Docker's last resort.
const PUBLIC: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)];
const PUBLIC6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888),
    Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8844),
];
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What systemd-resolved itself asks, when programs are sent to its stub.
const BEHIND_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
const RESOLVED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

/// The host's file that containers are to follow. A host without one is a host without name servers. Where we are not on
/// the host's network, what listens on its loopback is asked at `stand_in`.
pub fn host_resolver(stand_in: Option<IpAddr>) -> Result<HostResolver> {
    let host = read_host_resolver()?;
    Ok(match stand_in {
        Some(stand_in) => HostResolver { text: without_loopback(&host.text, stand_in), ..host },
        None => host,
    })
}

/// The first server on loopback is replaced, others are the same host's.
fn without_loopback(text: &str, stand_in: IpAddr) -> String {
    let mut replaced = false;
    let mut out = String::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let server = match (words.next(), words.next()) {
            (Some("nameserver"), Some(address)) => address.parse::<IpAddr>().ok(),
            _ => None,
        };
        let line = match server {
            Some(server) if server.is_loopback() && replaced => continue,
            Some(server) if server.is_loopback() => {
                replaced = true;
                format!("nameserver {stand_in}")
            }
            _ => line.to_owned(),
        };
        out.push_str(&line);
        out.push('\n');
    }
    out
}

fn read_host_resolver() -> Result<HostResolver> {
    let read = |path: &str| match fs::read_to_string(path) {
        Ok(text) => Ok(HostResolver { path: path.into(), text }),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            Ok(HostResolver { path: path.into(), text: String::new() })
        }
        Err(err) => Err(err).context(|| format!("cannot read {path}")),
    };
    let own = read(RESOLV_CONF)?;
    if Parsed::from(own.text.as_str()).servers == [RESOLVED] && Path::new(BEHIND_RESOLVED).exists()
    {
        return read(BEHIND_RESOLVED);
    }
    Ok(own)
}

/// Does a container speak IPv6, too?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Ipv4,
    Both,
}

/// `/etc/resolv.conf` on the default bridge: the host's, without servers on loopback, which the container cannot reach,
/// and without IPv6 ones where it has no route to them.
pub fn resolv_conf(host: &HostResolver, dns: &Dns, speaks: Speaks) -> String {
    let mut chosen = Chosen::of(host, dns);
    let servers = &mut chosen.file.servers;
    let mut remarks = String::new();
    if dns.servers.is_empty() {
        let ipv6 = speaks == Speaks::Both;
        servers.retain(|server| (server.is_ipv4() || ipv6) && !server.is_loopback());
        if servers.is_empty() {
            servers.extend(PUBLIC.map(IpAddr::from));
            servers.extend(PUBLIC6.map(IpAddr::from).into_iter().filter(|_| ipv6));
            remarks.push_str("# Used default nameservers.\n");
        }
    }
    chosen.text(host, "legacy", &remarks)
}

/// `/etc/resolv.conf` on networks with names: our name server, which asks the others, and its word for it that it need not
/// be told of domains first.
pub fn resolv_conf_inside(host: &HostResolver, dns: &Dns) -> String {
    let mut chosen = Chosen::of(host, dns);
    let others = std::mem::replace(&mut chosen.file.servers, vec![crate::dns::ADDRESS.into()]);
    chosen.file.options.retain(|option| !is_ndots(option) || ndots(option).is_some());
    if !chosen.file.options.iter().any(|option| is_ndots(option)) {
        chosen.file.options.push("ndots:0");
        chosen.ndots_from = Some("internal");
    }
    // The host's are asked from the host.
    let shown = |server: &IpAddr| match dns.servers.is_empty() {
        true => format!("host({server})"),
        false => server.to_string(),
    };
    let remarks = match others.as_slice() {
        [] => "# NO EXTERNAL NAMESERVERS DEFINED\n".to_owned(),
        others => {
            let shown: Vec<_> = others.iter().map(shown).collect();
            format!("# ExtServers: [{}]\n", shown.join(" "))
        }
    };
    chosen.text(host, "internal resolver", &remarks)
}

fn is_ndots(option: &str) -> bool {
    option.split(':').next() == Some("ndots")
}

fn ndots(option: &str) -> Option<u32> {
    option.strip_prefix("ndots:")?.parse().ok()
}

/// The host's file with what was chosen instead.
struct Chosen<'a> {
    file: Parsed<'a>,
    overrides: Vec<&'static str>,
    ndots_from: Option<&'static str>,
}

impl<'a> Chosen<'a> {
    fn of(host: &'a HostResolver, dns: &'a Dns) -> Self {
        let mut file = Parsed::from(host.text.as_str());
        let mut overrides = Vec::new();
        if !dns.servers.is_empty() {
            overrides.push("nameservers");
            file.servers = dns.servers.clone();
        }
        if !dns.search.is_empty() {
            overrides.push("search");
            file.search =
                dns.search.iter().map(String::as_str).filter(|domain| *domain != ".").collect();
        }
        let mut who = "host";
        if !dns.options.is_empty() {
            overrides.push("options");
            who = "override";
            file.options = dns.options.iter().map(String::as_str).collect();
        }
        let ndots_from = file.options.iter().any(|option| is_ndots(option)).then_some(who);
        Self { file, overrides, ndots_from }
    }

    fn text(&self, host: &HostResolver, how: &str, remarks: &str) -> String {
        let mut text = format!(
            "# Generated by gantry.\n# This file can be edited; gantry will not make further changes once it\n\
             # has been modified.\n\n{file}\n# Based on host file: '{path}' ({how})\n{remarks}# Overrides: [{overrides}]\n",
            file = self.file,
            path = host.path.display(),
            overrides = self.overrides.join(" "),
        );
        if let Some(who) = self.ndots_from {
            writeln!(text, "# Option ndots from: {who}").expect("a String takes all");
        }
        text
    }
}

/// What of a `resolv.conf` matters.
#[derive(Default)]
struct Parsed<'a> {
    servers: Vec<IpAddr>,
    search: Vec<&'a str>,
    options: Vec<&'a str>,
    /// Lines nobody here understands are kept.
    other: Vec<&'a str>,
}

impl<'a> From<&'a str> for Parsed<'a> {
    fn from(text: &'a str) -> Self {
        let mut parsed = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            match words.next() {
                None => {}
                Some("nameserver") => parsed
                    .servers
                    .extend(words.next().and_then(|server| server.parse::<IpAddr>().ok())),
                // The last of either wins.
                Some("domain" | "search") => parsed.search = words.collect(),
                Some("options") => parsed.options.extend(words),
                Some(_) => parsed.other.push(line),
            }
        }
        parsed
    }
}

impl std::fmt::Display for Parsed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for server in &self.servers {
            writeln!(f, "nameserver {server}")?;
        }
        if !self.search.is_empty() {
            writeln!(f, "search {}", self.search.join(" "))?;
        }
        if !self.options.is_empty() {
            writeln!(f, "options {}", self.options.join(" "))?;
        }
        self.other.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[test]
    fn a_loopback_that_is_not_ours_has_a_stand_in() {
        let text =
            "search a\nnameserver 127.0.0.1\nnameserver ::1\nnameserver 10.0.0.1\noptions x\n";
        assert_eq!(
            without_loopback(text, "10.0.2.3".parse().unwrap()),
            "search a\nnameserver 10.0.2.3\nnameserver 10.0.0.1\noptions x\n"
        );
    }

    #[test]
    fn hosts_file() {
        let text = hosts(&Hosts {
            hostname: "web",
            domain: "example.org",
            addresses: &["172.17.0.2".parse().unwrap()],
            without_ipv6: false,
            extra: &[("db".to_owned(), "10.0.0.9".parse().unwrap())],
        });
        expect![[r#"
            127.0.0.1	localhost
            ::1	localhost ip6-localhost ip6-loopback
            fe00::	ip6-localnet
            ff00::	ip6-mcastprefix
            ff02::1	ip6-allnodes
            ff02::2	ip6-allrouters
            10.0.0.9	db
            172.17.0.2	web.example.org web
        "#]]
        .assert_eq(&text);
        assert!(
            hosts(&Hosts {
                hostname: "web",
                addresses: &["10.1.1.1".parse().unwrap()],
                ..Hosts::default()
            })
            .ends_with("10.1.1.1\tweb\n")
        );
        let nowhere = Hosts { hostname: "web", ..Hosts::default() };
        assert_eq!(hosts(&nowhere), [LOCALHOST, LOCALHOST6].concat());
        assert_eq!(hosts(&Hosts { without_ipv6: true, ..nowhere }), LOCALHOST);
        for (hostname, domain, names) in [
            ("web", "", "web"),
            ("web", "a.org", "web.a.org web"),
            ("web.a.org", "", "web.a.org web"),
            ("web.b", "a.org", "web.b.a.org web"),
        ] {
            assert_eq!(own_names(hostname, domain), names);
        }
        assert_eq!(hostname("web"), "web\n");
    }

    #[test]
    fn hosts_that_move() {
        let text = "127.0.0.1\tlocalhost\n10.0.0.2\tweb\n# mine\n10.0.0.9 other web\n";
        let two = ["10.0.0.3".parse().unwrap(), "fd00::3".parse().unwrap()];
        assert_eq!(
            point(text, "web", &two),
            "127.0.0.1\tlocalhost\n10.0.0.3\tweb\nfd00::3\tweb\n# mine\n10.0.0.9 other web\n"
        );
        let none = point(text, "web", &[]);
        assert_eq!(none, "127.0.0.1\tlocalhost\n# mine\n10.0.0.9 other web\n");
        assert_eq!(point(&none, "web", &two[..1]), none + "10.0.0.3\tweb\n");
    }

    #[track_caller]
    fn check(host: &str, dns: &Dns, expected: Expect) {
        let host = HostResolver { path: RESOLV_CONF.into(), text: host.to_owned() };
        let text = resolv_conf(&host, dns, Speaks::Ipv4);
        expected.assert_eq(text.split_once("\n\n").unwrap().1);
    }

    #[test]
    fn servers_of_ipv6_are_for_those_who_speak_it() {
        let servers = |host: &str, dns: &Dns, speaks| -> Vec<String> {
            let host = HostResolver { path: RESOLV_CONF.into(), text: host.to_owned() };
            let text = resolv_conf(&host, dns, speaks);
            text.lines()
                .filter_map(|line| line.strip_prefix("nameserver "))
                .map(str::to_owned)
                .collect()
        };
        let (none, host) = (Dns::default(), "nameserver ::1\nnameserver fd00::53\n");
        assert_eq!(servers(host, &none, Speaks::Both), ["fd00::53"]);
        assert_eq!(servers(host, &none, Speaks::Ipv4), ["8.8.8.8", "8.8.4.4"]);
        assert_eq!(
            servers("nameserver ::1\n", &none, Speaks::Both),
            ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"]
        );
        let chosen = Dns { servers: vec!["fd00::1".parse().unwrap()], ..Dns::default() };
        assert_eq!(servers(host, &chosen, Speaks::Ipv4), ["fd00::1"], "whoever chose it knows");
    }

    #[test]
    fn follows_the_host() {
        check(
            "# by hand\nnameserver 10.0.0.53\nnameserver 127.0.0.1\nnameserver ::1\nnameserver fd00::53\nsearch a.example b.example\noptions ndots:1\nsortlist 10.0.0.0\n",
            &Dns::default(),
            expect![[r#"
                nameserver 10.0.0.53
                search a.example b.example
                options ndots:1
                sortlist 10.0.0.0

                # Based on host file: '/etc/resolv.conf' (legacy)
                # Overrides: []
                # Option ndots from: host
            "#]],
        );
    }

    #[test]
    fn falls_back_to_public_servers() {
        check(
            "nameserver 127.0.0.1\ndomain example.org\n",
            &Dns::default(),
            expect![[r#"
                nameserver 8.8.8.8
                nameserver 8.8.4.4
                search example.org

                # Based on host file: '/etc/resolv.conf' (legacy)
                # Used default nameservers.
                # Overrides: []
            "#]],
        );
    }

    #[test]
    fn what_was_chosen_wins() {
        check(
            "nameserver 10.0.0.53\nsearch a.example\noptions ndots:1\n",
            &Dns {
                servers: vec!["127.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
                search: vec![".".to_owned()],
                options: vec!["ndots:5".to_owned(), "rotate".to_owned()],
            },
            expect![[r#"
                nameserver 127.0.0.1
                nameserver fd00::1
                options ndots:5 rotate

                # Based on host file: '/etc/resolv.conf' (legacy)
                # Overrides: [nameservers search options]
                # Option ndots from: override
            "#]],
        );
    }

    #[track_caller]
    fn check_inside(host: &str, dns: &Dns, expected: Expect) {
        let host = HostResolver { path: RESOLV_CONF.into(), text: host.to_owned() };
        let text = resolv_conf_inside(&host, dns);
        expected.assert_eq(text.split_once("\n\n").unwrap().1);
    }

    #[test]
    fn inside_there_is_one_server() {
        check_inside(
            "nameserver 10.0.0.53\nnameserver 127.0.0.53\nsearch a.example\noptions edns0\n",
            &Dns::default(),
            expect![[r#"
                nameserver 127.0.0.11
                search a.example
                options edns0 ndots:0

                # Based on host file: '/etc/resolv.conf' (internal resolver)
                # ExtServers: [host(10.0.0.53) host(127.0.0.53)]
                # Overrides: []
                # Option ndots from: internal
            "#]],
        );
        check_inside(
            "options ndots:x\n",
            &Dns::default(),
            expect![[r#"
                nameserver 127.0.0.11
                options ndots:0

                # Based on host file: '/etc/resolv.conf' (internal resolver)
                # NO EXTERNAL NAMESERVERS DEFINED
                # Overrides: []
                # Option ndots from: internal
            "#]],
        );
        check_inside(
            "nameserver 10.0.0.53\n",
            &Dns {
                servers: vec!["10.1.1.1".parse().unwrap(), "fd00::1".parse().unwrap()],
                search: vec!["b.example".to_owned()],
                options: vec!["ndots:2".to_owned()],
            },
            expect![[r#"
                nameserver 127.0.0.11
                search b.example
                options ndots:2

                # Based on host file: '/etc/resolv.conf' (internal resolver)
                # ExtServers: [10.1.1.1 fd00::1]
                # Overrides: [nameservers search options]
                # Option ndots from: override
            "#]],
        );
    }
}
