//! Flows outlive what let them in: rules are asked about the first packet of each. When a port or an address goes, what the
//! kernel remembers of it goes, too, and whatever comes next is judged anew.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use stdx::Result;

use crate::firewall::view::Port;
use crate::netlink::Socket;
use crate::netlink::conntrack::{Asked, Flow, number};
use crate::networks::Core;
use crate::records::{Endpoint, Protocol, PublishedPort};
use crate::sysctl;

/// As long as there are no more flows than these, all are looked at. What the kernel picks out costs it a walk through its
/// table each time.
const CROWD: usize = 4096;
const WALKS: usize = 4;

impl Core {
    /// Addresses are about to be free: nobody's packets shall reach, or be taken for those of, whoever has them next.
    pub(crate) fn forget_flows_of(&self, endpoints: &[Arc<Endpoint>]) {
        let gone: BTreeSet<IpAddr> =
            endpoints.iter().flat_map(|endpoint| endpoint.addresses()).collect();
        if gone.is_empty() {
            return;
        }
        forget(&BTreeSet::new(), |flow| {
            gone.contains(&flow.original.source.ip()) || gone.contains(&flow.reply.source.ip())
        });
    }

    /// One of these asked the other, and shall ask again.
    pub(crate) fn forget_flows_between(&self, one: &Endpoint, other: &Endpoint) {
        forget(&BTreeSet::new(), |flow| {
            one.addresses().any(|ip| ip == flow.original.source.ip())
                && other.addresses().any(|ip| ip == flow.reply.source.ip())
        });
    }

    /// These ports do not lead to the endpoint any more.
    pub(crate) fn forget_flows_by<'a>(
        &self,
        endpoint: &Endpoint,
        gone: impl Iterator<Item = &'a PublishedPort>,
    ) {
        let gone: Vec<_> =
            gone.filter_map(|port| Some((*port, target(endpoint, *port)?))).collect();
        if gone.is_empty() {
            return;
        }
        let asked = gone.iter().map(|(port, target)| Asked {
            ipv6: target.is_ipv6(),
            protocol: port.protocol,
            port: if port.host_port == 0 { port.container_port } else { port.host_port },
        });
        forget(&asked.collect(), |flow| {
            gone.iter().any(|(port, target)| {
                flow.protocol == number(port.protocol)
                    && flow.reply.source == *target
                    && came_by(flow.original.target, *port)
            })
        });
    }

    /// Whoever kept sending datagrams while nobody had these ports is brought to who has them now.
    pub(crate) fn forget_strays(&self, new: &[Port]) {
        let udp = |port: &&Port| port.protocol == Protocol::Udp && port.host.1 != 0;
        let new: Vec<&Port> = new.iter().filter(udp).collect();
        if new.is_empty() {
            return;
        }
        let asked = new.iter().map(|port| Asked {
            ipv6: port.host.0.is_ipv6(),
            protocol: Protocol::Udp,
            port: port.host.1,
        });
        forget(&asked.collect(), |flow| {
            new.iter().any(|port| {
                let (ip, number_there) = port.host;
                let asked = flow.original.target;
                flow.protocol == number(Protocol::Udp)
                    && asked.port() == number_there
                    && asked.is_ipv4() == ip.is_ipv4()
                    && (ip.is_unspecified() || asked.ip() == ip)
                    && flow.reply.source != SocketAddr::from(port.container)
            })
        });
    }
}

/// Where the kernel sends what comes to a port; `None` where it is not the kernel who does.
fn target(endpoint: &Endpoint, port: PublishedPort) -> Option<SocketAddr> {
    let ip = match port.host_ip {
        IpAddr::V4(_) => endpoint.ip?.into(),
        IpAddr::V6(_) => endpoint.ip6?.into(),
    };
    Some(SocketAddr::new(ip, port.container_port))
}

fn came_by(asked: SocketAddr, port: PublishedPort) -> bool {
    // Reached at the container's own address.
    port.host_port == 0
        || asked.port() == port.host_port
            && (port.host_ip.is_unspecified() || asked.ip() == port.host_ip)
}

/// Has the kernel forget those of all flows that are meant.
pub(crate) fn forget_all(meant: impl Fn(&Flow) -> bool) {
    forget(&BTreeSet::new(), meant);
}

/// Has the kernel forget the flows that are meant. One that keeps none, or does not tell, is no failure of what was done.
fn forget(asked: &BTreeSet<Asked>, meant: impl Fn(&Flow) -> bool) {
    if let Err(err) = try_forget(asked, meant) {
        tracing::warn!(err = %err.chain(), "cannot have the kernel forget flows");
    }
}

/// `asked` is what these flows have in common that the kernel can look for; nothing is anything.
fn try_forget(asked: &BTreeSet<Asked>, meant: impl Fn(&Flow) -> bool) -> Result<()> {
    let count = sysctl::get("netfilter/nf_conntrack_count")?;
    let Some(count) = count.and_then(|count| count.parse::<usize>().ok()).filter(|all| *all > 0)
    else {
        return Ok(());
    };
    let mut socket = Socket::netfilter()?;
    let mut flows = Vec::new();
    if count <= CROWD || asked.is_empty() || asked.len() > WALKS {
        flows = socket.flows(None)?;
    } else {
        for one in asked {
            flows.extend(socket.flows(Some(one))?);
        }
    }
    flows.retain(meant);
    socket.forget(&flows)
}
