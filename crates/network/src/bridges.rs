//! A bridge that somebody took away, set down or stripped of its addresses is as it was a moment later, with the containers that
//! were on it.

use std::net::IpAddr;
use std::sync::Weak;

use stdx::{Context, Result};
use sys::netlink::Protocol;

use crate::netlink::messages;
use crate::netlink::route::{DEVICES_AND_ADDRESSES, address_gone, link_lost, what_is_lost};
use crate::networks::Core;
use crate::watch::Source;

pub(crate) fn source(core: Weak<Core>) -> Result<Source> {
    let failed = || "cannot watch the host's devices".to_owned();
    let news = sys::netlink::open(Protocol::Route, DEVICES_AND_ADDRESSES).context(failed)?;
    sys::netlink::hear_only(&news, &what_is_lost()).context(failed)?;
    let ours = Weak::clone(&core);
    let concerns = move |news: &[u8]| {
        let Some(core) = ours.upgrade() else { return false };
        // A network that is being removed is not in the model any more.
        messages(news).any(|message| {
            let address = address_gone(message.kind, message.body);
            let device = link_lost(message.kind, message.body);
            address.is_some_and(|address| core.is_of_a_bridge(address))
                || device.is_some_and(|device| core.is_our_bridge(&device))
        })
    };
    let changed = move || {
        let Some(core) = core.upgrade() else { return };
        if let Err(err) = core.mend_bridges() {
            tracing::error!(err = %err.chain(), "somebody took a bridge away, and it cannot be mended");
        }
    };
    Ok(Source { news, concerns: Box::new(concerns), changed: Box::new(changed) })
}

impl Core {
    fn is_of_a_bridge(&self, address: IpAddr) -> bool {
        let model = self.model();
        let mut bridges = model.networks.values().filter_map(|network| network.bridge.as_ref());
        bridges.any(|bridge| {
            let four = bridge.address.map(|net| IpAddr::from(net.addr()));
            let six = bridge.address6.map(|net| IpAddr::from(net.addr()));
            [four, six].contains(&Some(address))
        })
    }

    /// Whether the device is one that we made: of others it is their owner who says whether they are up.
    fn is_our_bridge(&self, device: &str) -> bool {
        let model = self.model();
        let mut bridges = model.networks.values().filter_map(|network| network.bridge.as_ref());
        bridges.any(|bridge| bridge.ours && bridge.name == device)
    }

    fn mend_bridges(&self) -> Result<()> {
        tracing::warn!(
            "somebody took a bridge or its address away, or set it down; mending what is missing"
        );
        self.ready()?;
        let links = self.host.route().links()?;
        self.reconnect(&links)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::net::{RecvFlags, recv};
    use sys::ns::unshare;
    use sys::process::CloneFlags;

    use super::*;

    #[test]
    fn only_what_is_lost_is_heard() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let host = std::thread::spawn(|| {
            unshare(CloneFlags::NEWNET).unwrap();
            let news = sys::netlink::open(Protocol::Route, 1).unwrap();
            sys::netlink::hear_only(&news, &what_is_lost()).unwrap();
            let ip = |words: &str| {
                assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success());
                let mut buffer = vec![0; 65536];
                let mut heard = Vec::new();
                while let Ok((length, _)) = recv(&news, &mut buffer[..], RecvFlags::DONTWAIT) {
                    let lost = messages(&buffer[..length]).map(|one| link_lost(one.kind, one.body));
                    heard.extend(lost.flatten());
                }
                heard
            };
            let nothing = Vec::<String>::new();
            assert_eq!(ip("link add lan type bridge"), nothing);
            assert_eq!(ip("link set lan up"), nothing);
            assert_eq!(ip("link add one type veth peer name other"), nothing);
            assert_eq!(ip("link set one master lan up"), nothing);
            assert_eq!(ip("link set lan down"), ["lan"]);
            assert!(ip("link del lan").contains(&"lan".to_owned()));
        });
        host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}
