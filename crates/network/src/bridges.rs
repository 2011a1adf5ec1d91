//! A bridge that somebody took away comes back, with the containers that were on it.
//!
//! That it is gone is heard by its addresses: of devices there is news with every container, of addresses with networks only.

use std::net::IpAddr;
use std::sync::Weak;

use stdx::{Context, Result};
use sys::netlink::Protocol;

use crate::netlink::messages;
use crate::netlink::route::{ADDRESSES, address_gone};
use crate::networks::Core;
use crate::watch::Source;

pub(crate) fn source(core: Weak<Core>) -> Result<Source> {
    let news = sys::netlink::open(Protocol::Route, ADDRESSES)
        .context(|| "cannot watch the host's addresses".to_owned())?;
    let ours = Weak::clone(&core);
    let concerns = move |news: &[u8]| {
        let Some(core) = ours.upgrade() else { return false };
        // A network that is being removed is not in the model any more.
        messages(news)
            .filter_map(|message| address_gone(message.kind, message.body))
            .any(|address| core.is_of_a_bridge(address))
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

    fn mend_bridges(&self) -> Result<()> {
        tracing::warn!("somebody took a bridge or its address away; mending what is missing");
        self.ready()?;
        let links = self.host.route().links()?;
        self.reconnect(&links)
    }
}
