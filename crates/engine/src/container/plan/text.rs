//! Text that becomes a line of a file, a name or an argument inside: it must not be able to become two.

use api::container::{Config, HostConfig};
use api::{Empty, Set};
use stdx::{Error, Result};

use super::or_else;
use crate::rooms::Settings;

/// Everything of a container's own configuration that is written somewhere as it is.
pub(super) fn check(config: &Config) -> Result<()> {
    check_env(config.env.as_deref().unwrap_or_default())?;
    check_words(config.entrypoint.iter().chain(&config.cmd).flatten())?;
    check_hostname(&config.hostname)?;
    check_domain(&config.domainname)
}

/// Names are not empty and lines of nothing; values are the program's affair.
pub(crate) fn check_env(env: &[String]) -> Result<()> {
    let name_of = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let wrong = |pair: &&String| {
        let name = name_of(pair);
        name.is_empty() || name.contains(['\n', '\r']) || pair.contains('\0')
    };
    match env.iter().find(wrong) {
        Some(pair) => {
            Err(Error::invalid(format!("invalid environment variable: {}", pair.escape_debug())))
        }
        None => Ok(()),
    }
}

/// A program's arguments end where they hold a zero byte.
pub(crate) fn check_words<'a>(words: impl IntoIterator<Item = &'a String>) -> Result<()> {
    match words.into_iter().find(|word| word.contains('\0')) {
        Some(word) => Err(Error::invalid(format!("invalid argument: {}", word.escape_debug()))),
        None => Ok(()),
    }
}

fn check_hostname(name: &str) -> Result<()> {
    let right = name.len() <= 63 && !name.starts_with('-') && !name.contains('/') && is_word(name);
    if right {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid hostname format: {}", name.escape_debug())))
}

fn check_domain(name: &str) -> Result<()> {
    // As long as the kernel's own name for it can be.
    if name.len() <= 64 && is_word(name) {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid domainname format: {}", name.escape_debug())))
}

/// Nothing that ends a word or a line of a file.
fn is_word(text: &str) -> bool {
    !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// Servers, search domains and options of `resolv.conf`.
pub(super) struct Dns {
    pub(super) servers: Vec<String>,
    pub(super) search: Vec<String>,
    pub(super) options: Vec<String>,
}

impl Dns {
    pub(super) fn of(host: &HostConfig, settings: &Settings) -> Result<Self> {
        let servers = or_else(&host.dns, &settings.dns);
        if let Some(bad) = servers.iter().find(|text| text.parse::<std::net::IpAddr>().is_err()) {
            return Err(Error::invalid(format!("IP address is not correctly formatted: {bad}")));
        }
        let search = or_else(&host.dns_search, &settings.dns_search);
        if let Some(bad) = search.iter().find(|text| text.len() > 255 || !is_word(text)) {
            return Err(Error::invalid(format!("{} is not a valid domain", bad.escape_debug())));
        }
        let options = or_else(&host.dns_options, &settings.dns_options);
        if let Some(bad) = options.iter().find(|text| !is_word(text)) {
            return Err(Error::invalid(format!("invalid DNS option: {}", bad.escape_debug())));
        }
        Ok(Self { servers, search, options })
    }
}

/// `name:address` or `name=address`.
pub(super) fn extra_hosts(host: &HostConfig) -> Result<Vec<String>> {
    let hosts = host.extra_hosts.clone().unwrap_or_default();
    for entry in &hosts {
        let bad = || Error::invalid(format!("bad format for add-host: {entry:?}"));
        let (name, address) = entry.split_once([':', '=']).ok_or_else(bad)?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if name.is_empty() || name.contains('#') || !is_word(name) {
            return Err(bad());
        }
        if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
            return Err(Error::invalid(format!("invalid IP address in add-host: {address:?}")));
        }
    }
    Ok(hosts)
}

/// Ports as Docker writes them, `80/tcp`, however they were written.
pub(crate) fn exposed_ports(wanted: &Set) -> Result<Set> {
    wanted.keys().map(|port| Ok((exposed_port(port)?, Empty {}))).collect()
}

/// One of them.
pub(super) fn exposed_port(text: &str) -> Result<String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, ""));
    let why = match number {
        "" => "value is empty",
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => "value out of range",
        _ => "invalid syntax",
    };
    let number: u16 = match number.parse() {
        Ok(parsed) if why == "value out of range" => parsed,
        _ if text.is_empty() => return Err(Error::invalid("invalid port: value is empty")),
        _ => {
            return Err(Error::invalid(format!("invalid port '{}': {why}", number.escape_debug())));
        }
    };
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" => "tcp".to_owned(),
        known @ ("tcp" | "udp" | "sctp") => known.to_owned(),
        other => return Err(Error::invalid(format!("invalid proto: {}", other.escape_debug()))),
    };
    Ok(format!("{number}/{protocol}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_one_way() {
        for (text, port) in
            [("80", "80/tcp"), ("80/TCP", "80/tcp"), ("0080/udp", "80/udp"), ("0/sctp", "0/sctp")]
        {
            assert_eq!(exposed_port(text).unwrap(), port);
        }
        for (text, words) in [
            ("", "invalid port: value is empty"),
            ("/tcp", "invalid port '': value is empty"),
            ("x", "invalid port 'x': invalid syntax"),
            ("-1/tcp", "invalid port '-1': invalid syntax"),
            ("+80", "invalid port '+80': invalid syntax"),
            ("80-90/tcp", "invalid port '80-90': invalid syntax"),
            ("99999/tcp", "invalid port '99999': value out of range"),
            ("80/tcp\n", "invalid proto: tcp\\n"),
        ] {
            assert_eq!(exposed_port(text).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn a_variable_has_a_name_of_one_line() {
        let check = |pair: &str| check_env(&[pair.to_owned()]).is_ok();
        assert!(["A", "A=", "A=x\ny", "a b=c", "é=1"].into_iter().all(check));
        assert!(!["", "=x", "A\nB=1", "A=\0", "A\0"].into_iter().any(check));
    }
}
