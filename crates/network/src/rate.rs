//! How fast a container may send and receive, by each of its devices.
//!
//! Both are held back on the host's end of the pair, where nobody inside can change it: what the container receives is what
//! the host's end sends; what it sends takes a way through a device of its own (`ifb`), whose queue it waits in.

use serde::{Deserialize, Serialize};
use stdx::{Context, Error, Id, Result};

use crate::host::Host;
use crate::netlink::Batch;
use crate::netlink::queue::Bucket;
use crate::netlink::route::{EEXIST, ENODEV, EOPNOTSUPP};
use crate::networks::{Core, Networks};
use crate::records::{DriverKind, Endpoint, Network};

/// Bits a second, as the container sees it; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    #[serde(rename = "in")]
    pub inward: u64,
    #[serde(rename = "out")]
    pub outward: u64,
}

const ENOENT: i32 = 2;
const EINVAL: i32 = 22;

impl Rate {
    fn is_limit(self) -> bool {
        self != Self::default()
    }
}

/// Whether packets on this network pass a queue of ours.
pub(crate) fn check(network: &Network, rate: Option<Rate>) -> Result<()> {
    if !rate.is_some_and(Rate::is_limit)
        || matches!(network.driver, DriverKind::Bridge | DriverKind::Null)
    {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a net rate does not hold on network {} of driver {}: it needs a bridge",
        network.name,
        network.driver_name()
    )))
}

/// The device through which what an endpoint sends takes its way.
pub(crate) fn detour_of(endpoint: &Endpoint) -> String {
    format!("ifb{}", &endpoint.endpoint_id.as_str()[..7])
}

/// Has an endpoint's device be as fast as its record says. One of which nothing was ever said is left alone.
pub(crate) fn apply(host: &Host, endpoint: &Endpoint, mtu: u32) -> Result<()> {
    let Some(rate) = endpoint.rate else { return Ok(()) };
    let device = endpoint.host_device();
    let failed = || format!("cannot limit the rate of {device}");
    let mut route = host.route();
    let link = route.link(&device)?.context(|| format!("the device {device} is gone"))?;
    let mut batch = Batch::new();
    let tolerated: &[i32] = match rate.inward {
        0 => {
            batch.drop_limit(link.index);
            &[ENOENT, EINVAL]
        }
        bits => {
            batch.limit(link.index, Bucket::of(bits, mtu));
            &[]
        }
    };
    let replies = route.exchange(batch)?;
    replies.into_iter().try_for_each(|reply| reply.ok_or(tolerated).map(drop)).context(failed)?;

    let detour = detour_of(endpoint);
    if rate.outward == 0 {
        let mut batch = Batch::new();
        batch.drop_detour(link.index);
        let replies = route.exchange(batch)?;
        replies
            .into_iter()
            .try_for_each(|reply| reply.ok_or(&[ENOENT, EINVAL]).map(drop))
            .context(failed)?;
        return route.delete_links([detour.as_str()]);
    }
    let mut batch = Batch::new();
    batch.add_ifb(&detour);
    batch.link_up(&detour);
    for reply in route.exchange(batch)? {
        if reply.failure.as_ref().is_some_and(|failure| failure.errno == EOPNOTSUPP) {
            return Err(Error::not_implemented(
                "the kernel of this host has no ifb devices, which limit what a container sends",
            ));
        }
        // A name without a device: the one before says why.
        reply.ok_or(&[EEXIST, ENODEV]).context(failed)?;
    }
    let by = route.link(&detour)?.context(failed)?;
    let mut batch = Batch::new();
    batch.limit(by.index, Bucket::of(rate.outward, mtu));
    batch.detour(link.index, by.index);
    let replies = route.exchange(batch)?;
    replies.into_iter().try_for_each(|reply| reply.ok_or(&[EEXIST]).map(drop)).context(failed)
}

impl Networks {
    /// Has a container that runs be as fast as this from now on.
    pub fn limit(&self, container: &Id, rate: Option<Rate>) -> Result<()> {
        let core = &self.core;
        let endpoints = core.model().of(container);
        for endpoint in &endpoints {
            check(&*core.model().network(&endpoint.network_id)?, rate)?;
        }
        for endpoint in &endpoints {
            // Nothing said is not the same as nothing ever said: what there was is taken away.
            let limited =
                Endpoint { rate: Some(rate.unwrap_or_default()), ..Endpoint::clone(endpoint) };
            core.rewrite(&limited)?;
            core.limit(&limited)?;
        }
        Ok(())
    }

    /// Whether a rate holds on a network. In words, if not.
    pub fn check_rate(&self, network: &Id, rate: Option<Rate>) -> Result<()> {
        check(&*self.core.model().network(network)?, rate)
    }
}

impl Core {
    pub(crate) fn limit(&self, endpoint: &Endpoint) -> Result<()> {
        let network = self.model().network(&endpoint.network_id)?;
        match &network.bridge {
            Some(bridge) => apply(&self.host, endpoint, bridge.mtu),
            None => Ok(()),
        }
    }

    /// After a crash: what was written down holds.
    pub(crate) fn limit_again(&self) {
        let limited = self.model().present(|endpoint| endpoint.rate.is_some());
        for endpoint in limited {
            if let Err(err) = self.limit(&endpoint) {
                tracing::error!(container = %endpoint.container_name, err = %err.chain(), "a rate does not hold");
            }
        }
    }
}
