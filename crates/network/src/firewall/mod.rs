//! One table of ours, rendered whole from the records and swapped in one transaction; and peace with other tables.

mod foreign;
mod nft;
mod rules;

use std::sync::Arc;

use stdx::Result;

use crate::config::NetworkConfig;
use crate::netlink::Socket;
use crate::records::Network;

/// The firewall of this daemon; nothing at all with `--iptables=false`.
pub(crate) struct Firewall {
    table: String,
    socket: Option<Socket>,
    warned: bool,
}

impl Firewall {
    pub(crate) fn open(config: &NetworkConfig) -> Result<Self> {
        let socket = if config.iptables { Some(Socket::netfilter()?) } else { None };
        Ok(Self { table: config.table(), socket, warned: false })
    }

    /// Makes the rules be as the networks need them; touches nothing where they are.
    pub(crate) fn ensure(&mut self, networks: &[Arc<Network>]) -> Result<()> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        let ruleset = rules::render(&self.table, networks.iter().map(|network| &**network));
        let differences = nft::difference(socket, &ruleset)?;
        if !differences.is_empty() {
            tracing::debug!(?differences, "setting the firewall");
            nft::apply(socket, &ruleset)?;
        }
        let bridges: Vec<&str> = networks
            .iter()
            .filter_map(|network| network.bridge.as_ref())
            .map(|bridge| bridge.name.as_str())
            .collect();
        foreign::let_through(socket, &self.table, &bridges)?;
        if !self.warned && foreign::legacy_iptables() {
            self.warned = true;
            tracing::warn!(
                "this host filters with iptables-legacy, which gantry cannot change: if the policy of its FORWARD chain \
                 is DROP, containers reach nothing until you allow it (iptables-legacy -I FORWARD -i BRIDGE -j ACCEPT, and -o)"
            );
        }
        Ok(())
    }

    /// How the kernel's table differs from what the networks need.
    pub(crate) fn difference(&mut self, networks: &[Arc<Network>]) -> Result<Vec<String>> {
        let Some(socket) = &mut self.socket else { return Ok(Vec::new()) };
        nft::difference(
            socket,
            &rules::render(&self.table, networks.iter().map(|network| &**network)),
        )
    }
}
