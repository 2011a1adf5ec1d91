//! Who else can be asked: the name servers of the host, read again when they may have changed, or those that were chosen.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::files;
use crate::netd::protocol::{Resolvers, Sandbox};

/// As many as a resolver looks at.
const MOST: usize = 3;
/// How old an answer to "who are the host's servers?" may be.
const FRESH: Duration = Duration::from_secs(1);
/// How long a server that did not answer is asked last.
const DOUBT: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Upstream {
    pub(super) address: IpAddr,
    pub(super) from: From,
}

/// From where it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum From {
    /// Where the host's own programs ask it.
    Host,
    /// The container's namespace: it is the container's business whom it can reach.
    Container,
}

#[derive(Default)]
pub(super) struct Upstreams {
    /// For those of the host's servers that listen on its loopback, where that is not ours.
    stand_in: Option<IpAddr>,
    host: Mutex<Option<(Instant, Vec<IpAddr>)>>,
    doubted: Mutex<HashMap<Upstream, Instant>>,
}

impl Upstreams {
    pub(super) fn new(stand_in: Option<IpAddr>) -> Self {
        Self { stand_in, ..Self::default() }
    }

    /// In the order in which they are to be asked.
    pub(super) fn of(&self, sandbox: &Sandbox) -> Vec<Upstream> {
        let mut upstreams: Vec<Upstream> = match &sandbox.resolvers {
            Resolvers::Chosen(servers) => {
                // From a container on a leash nobody could be asked; what it may ask at all was decided before.
                let upstream = |&address: &IpAddr| {
                    let held = sandbox.outward && sandbox.leash.is_some() && !address.is_loopback();
                    Upstream { address, from: if held { From::Host } else { From::Container } }
                };
                servers.iter().filter(|address| **address != super::ADDRESS).map(upstream).collect()
            }
            // What an internal network's containers want to know shall not leave the host by its hand.
            Resolvers::Host if !sandbox.outward => Vec::new(),
            Resolvers::Host => {
                let upstream = |address| Upstream { address, from: From::Host };
                self.hosts().into_iter().map(upstream).collect()
            }
        };
        upstreams.truncate(MOST);
        let doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        upstreams.sort_by_key(|one| doubted.get(one).is_some_and(|since| since.elapsed() < DOUBT));
        upstreams
    }

    /// Whom to ask next: everybody once; then those who have not been silent to others, in turns.
    pub(super) fn next(&self, upstreams: &[Upstream], tried: &[usize]) -> usize {
        let doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        let order = |index: &usize| {
            let times = tried[*index];
            (times > 0, doubted.contains_key(&upstreams[*index]), times, *index)
        };
        (0..upstreams.len()).min_by_key(order).unwrap_or(0)
    }

    /// It did not answer when it was asked.
    pub(super) fn doubt(&self, upstream: Upstream) {
        let mut doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        doubted.retain(|_, since| since.elapsed() < DOUBT);
        doubted.insert(upstream, Instant::now());
    }

    pub(super) fn trust(&self, upstream: Upstream) {
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner).remove(&upstream);
    }

    fn hosts(&self) -> Vec<IpAddr> {
        let mut cached = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, servers)) = &*cached
            && when.elapsed() < FRESH
        {
            return servers.clone();
        }
        // While the file is being replaced it may be unreadable: those of a moment ago will do.
        let servers = match files::host_resolver(self.stand_in) {
            Ok(host) => host.servers(),
            Err(_) => cached.take().map(|(_, servers)| servers).unwrap_or_default(),
        };
        *cached = Some((Instant::now(), servers.clone()));
        servers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_asked_last() {
        let sandbox = Sandbox {
            id: "c".to_owned(),
            seats: Vec::new(),
            resolvers: Resolvers::Chosen(
                ["10.0.0.1", "127.0.0.11", "10.0.0.2", "10.0.0.3", "10.0.0.4"]
                    .map(|address| address.parse().unwrap())
                    .to_vec(),
            ),
            keeps_single_labels: false,
            outward: false,
            leash: None,
        };
        let upstreams = Upstreams::default();
        let order = || {
            let asked = upstreams.of(&sandbox);
            asked.iter().map(|one| one.address.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(order(), "10.0.0.1 10.0.0.2 10.0.0.3");
        let first = upstreams.of(&sandbox)[0];
        upstreams.doubt(first);
        assert_eq!(order(), "10.0.0.2 10.0.0.3 10.0.0.1");
        upstreams.trust(first);
        assert_eq!(order(), "10.0.0.1 10.0.0.2 10.0.0.3");
        let all = upstreams.of(&sandbox);
        assert_eq!(upstreams.next(&all, &[1, 1, 0]), 2);
        assert_eq!(upstreams.next(&all, &[2, 1, 1]), 1);
        upstreams.doubt(all[1]);
        assert_eq!(upstreams.next(&all, &[1, 0, 1]), 1);
        assert_eq!(upstreams.next(&all, &[2, 1, 1]), 2);
        upstreams.trust(all[1]);
        let inward = Sandbox { resolvers: Resolvers::Host, ..sandbox };
        assert_eq!(upstreams.of(&inward), Vec::new());
    }
}
