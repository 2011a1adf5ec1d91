//! Containers that may not talk to each other: kept apart by their bridge, or by rules where those see all that it carries.
//! Whether they do is a switch of the host that anybody may turn at any time, and that tells nobody: it is looked at as long
//! as there is somebody to keep apart.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use stdx::{Context, Result};

use crate::driver::bridge::must_be_isolated;
use crate::netlink::Batch;
use crate::netlink::route::ENODEV;
use crate::networks::Core;
use crate::records::{Endpoint, Network};

const LOOK: Duration = Duration::from_millis(500);
/// Ports switched in one go: their answers have to fit into what a socket holds.
const TOGETHER: usize = 64;

impl Core {
    /// Begins to look, if there is somebody to keep apart and nobody looks yet.
    pub(crate) fn keep_apart(self: &Arc<Self>) {
        if self.apart().is_empty() || self.keeping_apart.swap(true, Ordering::SeqCst) {
            return;
        }
        let core = Arc::downgrade(self);
        let look = move || {
            let mut known = None;
            loop {
                // Nobody wakes it sooner, and it would not matter.
                thread::park_timeout(LOOK);
                let Some(core) = core.upgrade() else { return };
                if core.apart().is_empty() {
                    core.keeping_apart.store(false, Ordering::SeqCst);
                    // Somebody may have come between the question and the answer.
                    if core.apart().is_empty() || core.keeping_apart.swap(true, Ordering::SeqCst) {
                        return;
                    }
                }
                let looked = must_be_isolated().and_then(|isolated| {
                    if known.replace(isolated) == Some(isolated) {
                        return Ok(());
                    }
                    core.separate(isolated)
                });
                if let Err(err) = looked {
                    known = None;
                    tracing::error!(err = %err.chain(), "cannot keep containers apart");
                }
            }
        };
        let started = thread::Builder::new().name("bridge-monitor".to_owned()).spawn(look);
        if let Err(err) = started {
            self.keeping_apart.store(false, Ordering::SeqCst);
            tracing::error!(%err, "nobody looks after containers that are to be kept apart");
        }
    }

    /// Those who are kept apart from others of their network.
    fn apart(&self) -> Vec<(Arc<Network>, Arc<Endpoint>)> {
        let model = self.model();
        let silent = |endpoint: Arc<Endpoint>| {
            let network = model.networks.get(&endpoint.network_id)?;
            let silent = network.bridge.as_ref().is_some_and(|bridge| !bridge.icc);
            silent.then(|| (Arc::clone(network), endpoint))
        };
        model
            .present(|endpoint| !endpoint.ifname.is_empty())
            .into_iter()
            .filter_map(silent)
            .collect()
    }

    /// By their bridge, or not.
    fn separate(&self, isolated: bool) -> Result<()> {
        let apart = self.apart();
        // Who comes next is kept apart in the same way.
        if let Some((network, _)) = apart.first() {
            self.drivers.of(network.driver).ready(network)?;
        }
        for some in apart.chunks(TOGETHER) {
            let mut batch = Batch::new();
            for (_, endpoint) in some {
                batch.isolate_port(&endpoint.host_device(), isolated);
            }
            for reply in self.host.route().exchange(batch)? {
                // One that ends just now.
                reply.ok_or(&[ENODEV]).context(|| "cannot set a port of a bridge".to_owned())?;
            }
        }
        self.permit()
    }
}
