//! What every driver does inside of a container's namespace: addresses, routes, sysctls.

use std::fs;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use stdx::{Context, Error, Result};

use super::Inside;
use crate::gateway::Gateways;
use crate::ipam::Family;
use crate::netlink::Batch;
use crate::netlink::route::{DefaultRoute, ENODEV, link_of};
use crate::records::Endpoint;
use crate::sysctl::Procfs;

impl Inside<'_> {
    /// Makes an endpoint's new device usable.
    pub(crate) fn furnish(&mut self, endpoint: &Endpoint) -> Result<()> {
        let name = &endpoint.ifname;
        let failed = || format!("cannot configure {name}");
        if endpoint.ip6.is_some() || !self.untouched {
            set_ipv6(endpoint)?;
        }
        // Before it is up: some decide what comes up with it.
        for sysctl in &endpoint.sysctls {
            set(sysctl, name)?;
        }
        let mut batch = Batch::new();
        batch.link_up(name);
        batch.get_link(name);
        let mut replies = self.socket.exchange(batch)?.into_iter();
        replies.next().expect("two replies").ok().context(failed)?;
        let link = link_of(replies.next().expect("two replies"))?.context(failed)?;
        let mut batch = Batch::new();
        for address in endpoint.networks().chain(endpoint.link_local.iter().map(on_link)) {
            batch.add_address(link.index, address);
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.socket.execute(batch).context(failed)
    }

    /// Has the default routes lead where they should, and nowhere else.
    pub(crate) fn route(&mut self, gateways: &Gateways) -> Result<()> {
        let failed = || "cannot set the default route".to_owned();
        for (family, endpoint) in [(Family::V4, &gateways.v4), (Family::V6, &gateways.v6)] {
            let Some(endpoint) = endpoint else {
                self.socket.drop_default_route(family).context(failed)?;
                continue;
            };
            let link = self
                .socket
                .link(&endpoint.ifname)?
                .context(|| format!("the device {} is gone", endpoint.ifname))?;
            let gateway = match family {
                Family::V4 => endpoint.gateway.map(IpAddr::from),
                Family::V6 => endpoint.gateway6.map(IpAddr::from),
            };
            let route = match gateway {
                Some(gateway) => DefaultRoute::Via(gateway, link.index),
                None => DefaultRoute::Link(family, link.index),
            };
            let mut batch = Batch::new();
            batch.set_default_route(route);
            self.socket.execute(batch).context(failed)?;
        }
        Ok(())
    }

    /// Gives a device back to `host` under the name it had there; one that is gone already is fine.
    pub(crate) fn give_back(
        &mut self,
        name: &str,
        device: &str,
        host: BorrowedFd<'_>,
    ) -> Result<()> {
        let Some(link) = self.socket.link(name)? else { return Ok(()) };
        let mut batch = Batch::new();
        batch.move_link(link.index, device, host);
        self.socket.execute(batch).context(|| format!("cannot give {name} back"))
    }

    /// As [`drop_device`](Self::drop_device), if it is of this kind.
    pub(crate) fn drop_device_of(&mut self, kind: &str, name: &str) -> Result<()> {
        match self.socket.link(name)? {
            Some(link) if link.kind == kind => self.drop_device(name),
            _ => Ok(()),
        }
    }

    /// Removes a device by its name in here; one that is gone already is fine.
    pub(crate) fn drop_device(&mut self, name: &str) -> Result<()> {
        let mut batch = Batch::new();
        batch.delete_link(name);
        let mut replies = self.socket.exchange(batch)?.into_iter();
        let reply = replies.next().expect("one reply");
        reply.ok_or(&[ENODEV]).map(drop).context(|| format!("cannot remove {name}"))
    }
}

/// IPv6 where there is an address for it, and nowhere else (CVE-2024-32473); no router tells a container where to go
/// (CVE-2020-13401); an address is not held back to see whether somebody else has it.
fn set_ipv6(endpoint: &Endpoint) -> Result<()> {
    let settings: &[(&str, &str)] = match endpoint.ip6 {
        Some(_) => &[("disable_ipv6", "0"), ("accept_ra", "0"), ("accept_dad", "0")],
        None => &[("disable_ipv6", "1")],
    };
    let proc = Procfs::open()?;
    for (name, value) in settings {
        let switch = format!("ipv6/conf/{}/{name}", endpoint.ifname);
        if let Err(err) = proc.set(&switch, value) {
            tracing::warn!(%switch, %err, "cannot set a device's IPv6");
        }
    }
    Ok(())
}

/// `net.ipv4.conf.IFNAME.log_martians=1`
fn set(sysctl: &str, device: &str) -> Result<()> {
    let bad = || Error::invalid(format!("invalid sysctl {sysctl}"));
    let (name, value) = sysctl.split_once('=').ok_or_else(bad)?;
    let words: Vec<&str> = name.splitn(5, '.').collect();
    let [net, family, part, _, last] = words[..] else { return Err(bad()) };
    if net != "net" || [family, part, last].iter().any(|word| word.contains('/')) {
        return Err(bad());
    }
    let file = format!("/proc/sys/net/{family}/{part}/{device}/{last}");
    fs::write(&file, value)
        .context(|| format!("failed to set sysctl {name} of {device} to {value}"))
}

fn on_link(address: &IpAddr) -> IpNet {
    match address {
        IpAddr::V4(ip) => Ipv4Net::new_assert(*ip, 16).into(),
        IpAddr::V6(ip) => Ipv6Net::new_assert(*ip, 64).into(),
    }
}
