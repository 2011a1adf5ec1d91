//! Registries, spoken to. Read in this order: client (what is asked for), auth (how we may ask), connect (over what),
//! refusal (what they answer instead).
//!
//! What must stay true: credentials go to the registry they are for and to its token server, and nowhere else; a
//! registry that has to use TLS is never spoken to without; everything read has a bound and a deadline.

mod auth;
mod client;
mod connect;
mod refusal;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use client::{Registries, Repository};

/// How registries are used.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// Registries asked before Docker Hub: `https://mirror.example.com`.
    pub mirrors: Vec<String>,
    /// Registries that may be spoken to without TLS, or with TLS that proves nothing: `host[:port]`, an address or a
    /// subnet. Loopback always may.
    pub insecure: Vec<String>,
    pub concurrent_downloads: usize,
    /// How often a download is tried before it has failed.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles from then on.
    pub retry_delay: Duration,
    /// A registry that sends nothing for so long has failed.
    pub stall: Duration,
    /// Who has the host's network, where ours is a namespace of a user's: registries are reached from there, on its loopback
    /// too.
    pub outside: Option<Arc<rootless::Outside>>,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            insecure: Vec::new(),
            concurrent_downloads: 3,
            attempts: 5,
            retry_delay: Duration::from_secs(1),
            stall: Duration::from_secs(30),
            outside: None,
        }
    }
}

impl RegistryConfig {
    /// May this host be spoken to without proof of who it is?
    fn is_insecure(&self, authority: &str) -> bool {
        let host = host_of(authority);
        if host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
            return true;
        }
        self.insecure.iter().any(|allowed| match allowed.split_once('/') {
            Some((network, bits)) => host.parse().is_ok_and(|ip| in_subnet(ip, network, bits)),
            None => allowed == authority || allowed == host,
        })
    }
}

fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn in_subnet(ip: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            ip.to_bits() & mask == network.to_bits() & mask
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            ip.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    }
}

/// Who we say we are to one registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// Instead of name and password: a refresh token for the registry's token server.
    pub identity_token: String,
}

/// Secrets do not end up in logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    pub fn basic(username: &str, password: &str) -> Self {
        Self { username: username.to_owned(), password: password.to_owned(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_the_listed_are_insecure() {
        let insecure = ["reg.example:5000", "plain.example", "10.1.0.0/16", "fd00::/8"]
            .map(str::to_owned)
            .to_vec();
        let config = RegistryConfig { insecure, ..RegistryConfig::default() };
        for authority in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:5000",
            "reg.example:5000",
            "plain.example:80",
            "10.1.2.3:5000",
            "[fd12::1]:5",
        ] {
            assert!(config.is_insecure(authority), "{authority}");
        }
        for authority in [
            "registry-1.docker.io",
            "reg.example",
            "reg.example:5001",
            "10.2.0.1",
            "localhost.example",
        ] {
            assert!(!config.is_insecure(authority), "{authority}");
        }
    }
}
