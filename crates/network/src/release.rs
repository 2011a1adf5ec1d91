//! After the answer: a worker takes endpoints out of the kernel, several at once when there are several, and makes
//! namespaces for those who come next.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use stdx::{Context, Id, Result};

use crate::attend::Gone;
use crate::netlink::Batch;
use crate::netlink::route::received;
use crate::networks::Core;
use crate::records::{DriverKind, Endpoint};

/// Detached containers that may wait; more are released by who detaches them.
const WAITING: usize = 1024;
/// Endpoints taken out in one go.
const TOGETHER: usize = 64;

/// Devices asked about in one go: all that is told of them has to fit into what a socket holds.
const LOOKED_AT: usize = 16;

enum Order {
    Release(Vec<Id>),
    /// Namespaces have been used.
    Prepare,
    /// Answered when all before it is done.
    Settle(SyncSender<()>),
}

/// The worker's front; the last one to drop it waits for what is left to do.
pub(crate) struct Releaser {
    orders: Option<SyncSender<Order>>,
    worker: Option<JoinHandle<()>>,
}

impl Releaser {
    pub(crate) fn start(core: &Arc<Core>) -> Result<Self> {
        let (orders, received) = sync_channel(WAITING);
        let core = Arc::clone(core);
        let worker = thread::Builder::new()
            .name("network-release".to_owned())
            .spawn(move || work(&core, &received))
            .context(|| "cannot start a thread".to_owned())?;
        Ok(Self { orders: Some(orders), worker: Some(worker) })
    }

    pub(crate) fn release(&self, core: &Core, ids: Vec<Id>) {
        let orders = self.orders.as_ref().expect("present until dropped");
        match orders.try_send(Order::Release(ids)) {
            Ok(()) => {}
            Err(
                TrySendError::Full(Order::Release(ids))
                | TrySendError::Disconnected(Order::Release(ids)),
            ) => {
                release(core, &ids);
            }
            Err(_) => unreachable!("what was sent comes back"),
        }
    }

    /// Has namespaces made in advance. Without them attaching takes longer, no more.
    pub(crate) fn prepare(&self) {
        let orders = self.orders.as_ref().expect("present until dropped");
        orders.try_send(Order::Prepare).unwrap_or_default();
    }

    pub(crate) fn settle(&self) {
        let (done, wait) = sync_channel(1);
        let orders = self.orders.as_ref().expect("present until dropped");
        if orders.send(Order::Settle(done)).is_ok() {
            // An error means that the worker has ended, and with it everything before.
            wait.recv().unwrap_or_default();
        }
    }
}

impl Core {
    /// Takes endpoints out of the kernel, then out of the records: their addresses are free only now.
    pub(crate) fn release(&self, ids: &[Id]) -> Result<()> {
        let present: Vec<_> = {
            let mut model = self.model();
            let present: Vec<_> =
                ids.iter().filter_map(|id| model.endpoints.get(id).cloned()).collect();
            model.leaving.extend(present.iter().map(|endpoint| endpoint.endpoint_id.clone()));
            present
        };
        self.withdraw(&present, Gone::Endpoints);
        let connected: Vec<_> =
            present.iter().filter(|endpoint| !endpoint.ifname.is_empty()).cloned().collect();
        let (foreign, ours): (Vec<_>, Vec<_>) =
            connected.into_iter().partition(|endpoint| endpoint.is_foreign());
        self.part(&foreign)?;
        let on_bridges = foreign.into_iter().filter(|endpoint| endpoint.remote.is_none());
        let bridged: Vec<_> = ours.into_iter().chain(on_bridges).collect();
        let heard_of = self.heard_of(&bridged);
        self.drivers.of(DriverKind::Bridge).disconnect(&bridged)?;
        self.shut(&present)?;
        self.forget_flows_of(&heard_of);
        {
            let _turn = self.turn();
            self.store.transaction(|tx| {
                ids.iter().try_for_each(|id| tx.delete::<Endpoint>(id.as_str()))
            })?;
            let mut model = self.model();
            for id in ids {
                model.endpoints.remove(id);
                model.leaving.remove(id);
                model.withdrawn.remove(id);
            }
        }
        self.unguard(&present)
    }

    /// Those who have sent a packet, or may have: of the others the kernel knows no flows. Most commands end without a word.
    fn heard_of(&self, endpoints: &[Arc<Endpoint>]) -> Vec<Arc<Endpoint>> {
        let mut heard_of = Vec::new();
        for some in endpoints.chunks(LOOKED_AT) {
            let mut batch = Batch::new();
            some.iter().for_each(|endpoint| batch.get_link(&endpoint.host_device()));
            let replies = self.host.farewell().exchange(batch).unwrap_or_default();
            let mut packets = replies.iter().map(received);
            let spoke = |_: &&Arc<Endpoint>| packets.next().flatten().is_none_or(|all| all > 0);
            heard_of.extend(some.iter().filter(spoke).cloned());
        }
        heard_of
    }
}

impl Drop for Releaser {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(Err(_)) = self.worker.take().map(JoinHandle::join) {
            tracing::error!("the network's release worker has panicked");
        }
    }
}

fn work(core: &Core, orders: &Receiver<Order>) {
    while let Ok(first) = orders.recv() {
        let mut ids = Vec::new();
        let mut settled = Vec::new();
        let mut prepare = false;
        let more = std::iter::from_fn(|| orders.try_recv().ok());
        for order in std::iter::once(first).chain(more.take(TOGETHER)) {
            match order {
                Order::Release(more) => ids.extend(more),
                Order::Prepare => prepare = true,
                Order::Settle(done) => settled.push(done),
            }
        }
        release(core, &ids);
        for done in settled {
            // Nobody waits any more: fine.
            done.send(()).unwrap_or_default();
        }
        if prepare && let Err(err) = core.ready.fill() {
            tracing::warn!(err = %err.chain(), "cannot make network namespaces in advance");
        }
    }
}

/// What could not be taken out stays recorded, address and all, for the next start to try again.
fn release(core: &Core, ids: &[Id]) {
    if let Err(err) = core.release(ids) {
        tracing::error!(endpoints = ?ids, err = %err.chain(), "cannot release endpoints");
    }
}
