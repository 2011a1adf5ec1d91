//! `overlay`: one network on several hosts, over VXLAN, in a namespace of its own.
//!
//! The namespace has a bridge and the VXLAN device, and containers' devices are ports of the bridge. Its name in the file
//! system keeps it when the daemon is gone. The kernel answers for the containers of other hosts (ARP) and knows where each
//! is: nothing is flooded, and what comes from elsewhere than a peer is dropped by the firewall before VXLAN sees it.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use stdx::{Context, Error, Result};

use super::{Driver, Inside, Namespace};
use crate::host::Host;
use crate::netlink::route::{EEXIST, Pair, Vxlan};
use crate::netlink::{Batch, Socket};
use crate::netns;
use crate::records::{Endpoint, Mac, Network, OverlayDevice};

const BRIDGE: &str = "br0";
const VXLAN: &str = "vxlan0";
/// What VXLAN puts around a frame, with its Ethernet header: UDP and VXLAN, and the IP of the underlay.
const ENVELOPE: [u32; 2] = [50, 70];
/// Entries told to the kernel at once.
const TOGETHER: usize = 128;

pub(crate) struct OverlayDriver {
    host: Arc<Host>,
    /// Where namespaces have their names; gone after a reboot.
    directory: Option<PathBuf>,
}

impl OverlayDriver {
    pub(crate) fn new(host: Arc<Host>, directory: Option<PathBuf>) -> Self {
        Self { host, directory }
    }

    fn path(&self, network: &Network) -> Result<PathBuf> {
        let directory = self.directory.as_ref().ok_or_else(|| {
            Error::unavailable("there is no place for the namespaces of overlay networks")
        })?;
        Ok(directory.join(network.id.short()))
    }

    /// The network's namespace, made if it is not there.
    fn namespace(&self, network: &Network) -> Result<OwnedFd> {
        let path = self.path(network)?;
        if let Ok(namespace) = netns::namespace_at(&path) {
            return Ok(namespace);
        }
        let context = || format!("cannot make the namespace {}", path.display());
        std::fs::create_dir_all(path.parent().expect("it is in a directory")).context(context)?;
        File::create(&path).context(context)?;
        let (namespace, ()) = netns::create(None, netns::Ipv6::Off, |_, _| Ok(()))?;
        let source = sys::fd::path_for_others(namespace.as_fd());
        rustix::mount::mount_bind(&source, &path).context(context)?;
        Ok(namespace)
    }

    /// What the devices of a network on this host may carry.
    fn mtu(&self, device: &OverlayDevice) -> Result<u32> {
        let mut route = self.host.route();
        for link in route.links()? {
            let ours = route.addresses(link.index)?;
            if ours.iter().any(|address| address.addr() == device.local) {
                let envelope = ENVELOPE[usize::from(device.local.is_ipv6())];
                return Ok(device.mtu.unwrap_or(link.mtu.saturating_sub(envelope)));
            }
        }
        Err(Error::invalid(format!("this host does not have the address {}", device.local)))
    }

    fn add_vxlan(&self, device: &OverlayDevice, mtu: u32, namespace: &OwnedFd) -> Result<()> {
        let mut batch = Batch::new();
        batch.add_vxlan(&Vxlan {
            name: VXLAN,
            vni: device.vni,
            local: device.local,
            mtu,
            namespace: namespace.as_fd(),
        });
        let mut replies = self.host.route().exchange(batch)?.into_iter();
        let reply = replies.next().expect("one reply");
        if reply.failure.as_ref().is_some_and(|failure| failure.errno == EEXIST) {
            return Err(Error::conflict(format!(
                "another device of this host has the VXLAN network identifier {}",
                device.vni
            )));
        }
        reply.ok().map(drop).context(|| "cannot add the VXLAN device".to_owned())
    }
}

impl Driver for OverlayDriver {
    fn namespace(&self) -> Namespace {
        Namespace::Own
    }

    fn ready(&self, network: &Network) -> Result<()> {
        let device = device(network)?;
        if !self.host.route().knows("vxlan")? {
            return Err(Error::not_implemented("the kernel of this host has no VXLAN devices"));
        }
        let mtu = self.mtu(device)?;
        let namespace = self.namespace(network)?;
        let there = netns::enter(namespace.as_fd(), |mut socket| socket.link(VXLAN))?;
        if there.is_none() {
            self.add_vxlan(device, mtu, &namespace)?;
        }
        netns::enter(namespace.as_fd(), |mut socket| furnish(&mut socket, device, mtu))
            .context(|| format!("cannot set up the overlay network {}", network.name))
    }

    fn remove(&self, network: &Network, _: &[Arc<Network>]) -> Result<()> {
        let path = self.path(network)?;
        if let Ok(namespace) = netns::namespace_at(&path) {
            // The name of the VXLAN network is free when this returns, not when the namespace is cleaned up.
            netns::enter(namespace.as_fd(), |mut socket| socket.delete_links([VXLAN]))?;
            let flags = rustix::mount::UnmountFlags::DETACH;
            rustix::mount::unmount(&path, flags)
                .context(|| format!("cannot unmount {}", path.display()))?;
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    fn connect(&self, network: &Network, endpoint: &Endpoint, inside: &mut Inside) -> Result<()> {
        let namespace = self.namespace(network)?;
        let container = inside.namespace;
        netns::enter(namespace.as_fd(), |mut socket| {
            let bridge = socket
                .link(BRIDGE)?
                .context(|| format!("the overlay network {} has no bridge", network.name))?;
            let mut batch = Batch::new();
            batch.add_pair(&Pair {
                host: &endpoint.host_device(),
                bridge: bridge.index,
                namespace: container,
                container: &endpoint.ifname,
                mac: endpoint.mac.context(|| "an endpoint has a MAC address".to_owned())?,
                mtu: bridge.mtu,
                isolated: false,
            });
            socket
                .execute(batch)
                .context(|| format!("cannot add the pair {}", endpoint.host_device()))
        })?;
        inside.furnish(endpoint)
    }

    /// A pair is gone with the container's end.
    fn disconnect(&self, _: &[Arc<Endpoint>]) -> Result<()> {
        Ok(())
    }
}

/// Inside of the network's namespace: the bridge with the VXLAN device as a port, and where everybody is.
fn furnish(socket: &mut Socket, device: &OverlayDevice, mtu: u32) -> Result<()> {
    let mut batch = Batch::new();
    batch.add_bridge(BRIDGE, Mac::random(), mtu);
    for reply in socket.exchange(batch)? {
        reply.ok_or(&[EEXIST])?;
    }
    let gone = |name: &'static str| move || format!("the device {name} vanished");
    let bridge = socket.link(BRIDGE)?.context(gone(BRIDGE))?;
    let vxlan = socket.link(VXLAN)?.context(gone(VXLAN))?;
    let mut batch = Batch::new();
    batch.bridge_up(BRIDGE, mtu);
    batch.set_master(VXLAN, bridge.index);
    socket.execute(batch)?;
    let everybody: Vec<(Ipv4Addr, IpAddr)> = device
        .peers
        .iter()
        .flat_map(|peer| {
            // A part of a subnet has no addresses that are nobody's.
            let (first, last) = (peer.range.network().to_bits(), peer.range.broadcast().to_bits());
            (first..=last).map(|bits| (Ipv4Addr::from_bits(bits), peer.vtep))
        })
        .collect();
    for some in everybody.chunks(TOGETHER) {
        let mut batch = Batch::new();
        for (container, vtep) in some {
            let mac = Mac::of((*container).into());
            batch.add_neighbour(vxlan.index, *container, mac);
            batch.add_forwarding(vxlan.index, mac, *vtep);
        }
        socket.execute(batch)?;
    }
    Ok(())
}

fn device(network: &Network) -> Result<&OverlayDevice> {
    network.overlay.as_ref().context(|| format!("network {} has no overlay", network.name))
}
