//! A bridge that somebody took away comes back, with the containers that were on it.

use std::sync::Weak;

use stdx::{Context, Result};
use sys::netlink::Protocol;

use crate::netlink::messages;
use crate::netlink::route::{LINKS, gone};
use crate::networks::Core;
use crate::watch::Source;

pub(crate) fn source(core: Weak<Core>) -> Result<Source> {
    let news = sys::netlink::open(Protocol::Route, LINKS)
        .context(|| "cannot watch the host's devices".to_owned())?;
    let ours = Weak::clone(&core);
    let concerns = move |news: &[u8]| {
        let Some(core) = ours.upgrade() else { return false };
        // A network that is being removed is not in the model any more.
        messages(news)
            .filter_map(|message| gone(message.kind, message.body))
            .any(|name| core.has_bridge(&name))
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
    fn has_bridge(&self, name: &str) -> bool {
        let model = self.model();
        let mut bridges = model.networks.values().filter_map(|network| network.bridge.as_ref());
        bridges.any(|bridge| bridge.name == name)
    }

    fn mend_bridges(&self) -> Result<()> {
        let links = self.host.route().links()?;
        let missing: Vec<String> = {
            let model = self.model();
            let bridges = model.networks.values().filter_map(|network| network.bridge.as_ref());
            bridges
                .filter(|bridge| !links.iter().any(|link| link.name == bridge.name))
                .map(|bridge| bridge.name.clone())
                .collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        tracing::warn!(bridges = ?missing, "somebody took bridges away; making them anew");
        self.ready()?;
        let links = self.host.route().links()?;
        self.reconnect(&links)
    }
}
