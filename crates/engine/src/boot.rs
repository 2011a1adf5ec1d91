//! Boot: what restart policies want up comes up after what it depends on.
//!
//! Who depends on whom is in the records: links, volumes of others, namespaces of others, and what Compose has written into
//! labels. [`edges`] reads it, [`without_circles`] makes an order of it, and both are pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stdx::{Id, Kind};
use tokio::sync::{Semaphore, watch};

use crate::Containers;
use crate::container::health::Status;
use crate::container::mounts::VolumesFrom;
use crate::container::record::Record;
use crate::container::state::Phase;
use crate::container::{Container, exit};

/// How many start at a time: more only get into each other's way.
const AT_A_TIME: usize = 16;
/// How long others wait for one to be healthy, or done. Then they come up without: late is better than never.
const PATIENCE: Duration = Duration::from_secs(300);

const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const DEPENDS_ON: &str = "com.docker.compose.depends_on";

/// One container needs another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edge {
    on: Id,
    until: Until,
}

/// What everybody needs.
type Graph = BTreeMap<Id, Vec<Edge>>;

/// What the other must be first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Up,
    Healthy,
    Done,
}

/// What `record` needs. `find` knows containers by name and id, `services` by their project and service.
fn edges(
    record: &Record,
    find: impl Fn(&str) -> Option<Id>,
    services: &BTreeMap<(String, String), Vec<Id>>,
) -> Vec<Edge> {
    let host = &record.host_config;
    let modes = [&host.network_mode, &host.pid_mode, &host.ipc_mode];
    let joined = modes.into_iter().filter_map(|mode| mode.strip_prefix("container:"));
    let named = record.endpoints.values().filter_map(|settings| settings.links.as_ref());
    let links = host.links.iter().chain(named).flatten();
    let linked = links.map(|link| link.split(':').next().unwrap_or_default());
    let volumes: Vec<String> = host
        .volumes_from
        .iter()
        .flatten()
        .filter_map(|text| Some(VolumesFrom::parse(text).ok()?.container))
        .collect();
    let words = joined.chain(linked).chain(volumes.iter().map(String::as_str));
    let mut edges: Vec<Edge> =
        words.filter_map(&find).map(|on| Edge { on, until: Until::Up }).collect();
    let labels = record.labels();
    if let (Some(project), Some(needs)) = (labels.get(PROJECT), labels.get(DEPENDS_ON)) {
        for need in needs.split(',') {
            let mut parts = need.split(':');
            let service = parts.next().unwrap_or_default();
            let until = match parts.next() {
                Some("service_healthy") => Until::Healthy,
                Some("service_completed_successfully") => Until::Done,
                _ => Until::Up,
            };
            let ids = services.get(&(project.clone(), service.to_owned()));
            edges.extend(ids.into_iter().flatten().map(|on| Edge { on: on.clone(), until }));
        }
    }
    edges.retain(|edge| edge.on != record.id);
    edges
}

/// The same without the edges that lead back to where they come from: somebody has to be first. Also says which those were.
fn without_circles(graph: Graph) -> (Graph, Vec<(Id, Id)>) {
    let mut kept = Graph::new();
    let mut dropped = Vec::new();
    for (id, edges) in graph {
        for edge in edges {
            if reaches(&kept, &edge.on, &id) {
                dropped.push((id.clone(), edge.on));
            } else {
                kept.entry(id.clone()).or_default().push(edge);
            }
        }
        kept.entry(id).or_default();
    }
    (kept, dropped)
}

fn reaches(graph: &Graph, from: &Id, to: &Id) -> bool {
    let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(id) = left.pop() {
        if id == to {
            return true;
        }
        if seen.insert(id) {
            left.extend(graph.get(id).into_iter().flatten().map(|edge| &edge.on));
        }
    }
    false
}

impl Containers {
    /// Starts what is wanted up, in order. Nobody waits for it.
    pub(crate) fn boot(&self) {
        // From here on an exit's own pause decides.
        self.rooms.waking.store(false, Ordering::Release);
        let wanted: Vec<Container> = self.all().into_iter().filter(Container::wants_up).collect();
        if wanted.is_empty() {
            return;
        }
        let mut services: BTreeMap<(String, String), Vec<Id>> = BTreeMap::new();
        for container in self.all() {
            let mut labels = container.record().labels();
            if let (Some(project), Some(service)) = (labels.remove(PROJECT), labels.remove(SERVICE))
            {
                services.entry((project, service)).or_default().push(container.id().clone());
            }
        }
        let find = |word: &str| self.rooms.registry.find(word).ok().map(|cell| cell.id.clone());
        let graph = wanted
            .iter()
            .map(|one| (one.id().clone(), edges(&one.record(), find, &services)))
            .collect();
        let (mut graph, dropped) = without_circles(graph);
        for (container, other) in dropped {
            tracing::warn!(%container, %other, "containers depend on each other; this one does not wait");
        }
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        let (tell, told): (BTreeMap<_, _>, BTreeMap<_, _>) = wanted
            .iter()
            .map(|one| {
                let (tell, told) = watch::channel(false);
                ((one.id().clone(), tell), (one.id().clone(), told))
            })
            .unzip();
        let mut tell = tell;
        for container in wanted {
            let needs: Vec<_> = graph
                .remove(container.id())
                .unwrap_or_default()
                .into_iter()
                .filter_map(|edge| {
                    let other = self.rooms.registry.find(edge.on.as_str()).ok()?;
                    Some((edge.until, told.get(&edge.on).cloned(), self.handle(other)))
                })
                .collect();
            let (places, tell) = (Arc::clone(&places), tell.remove(container.id()));
            tokio::spawn(async move {
                for (until, told, other) in needs {
                    if let Some(mut told) = told {
                        // One that ended without a word has failed in a way of its own.
                        let _tried = told.wait_for(|tried| *tried).await;
                    }
                    other.is_ready(until).await;
                }
                if let Ok(_place) = places.acquire().await {
                    container.come_up().await;
                }
                if let Some(tell) = tell {
                    tell.send_replace(true);
                }
            });
        }
    }
}

impl Container {
    /// Whether its policy wants it up when the daemon comes up.
    fn wants_up(&self) -> bool {
        let record = self.record();
        match record.state.phase {
            Phase::Restarting => true,
            Phase::Exited => exit::policy(&record).wants_boot(
                record.stopped_by_hand,
                record.state.exit_code,
                record.restart_count,
            ),
            _ => false,
        }
    }

    async fn come_up(&self) {
        // Somebody may have decided otherwise meanwhile.
        if self.record().gone || !self.wants_up() {
            return;
        }
        match self.start().await {
            Err(error) if error.kind() != Kind::NotModified => {
                tracing::warn!(container = %self.id(), error = %error.chain(), "cannot start at boot");
            }
            _ => {}
        }
    }

    /// Returns when it is what others wait for, or will not be.
    async fn is_ready(&self, until: Until) {
        let mut records = self.cell.subscribe();
        let ready = records.wait_for(|record| {
            let up = record.state.phase.is_up();
            match until {
                Until::Up => true,
                Until::Healthy => {
                    let health = record.health.as_ref().map(|health| health.status);
                    record.gone || !up || health.is_none_or(|status| status != Status::Starting)
                }
                Until::Done => record.gone || !up,
            }
        });
        if tokio::time::timeout(PATIENCE, ready).await.is_err() {
            tracing::warn!(container = %self.id(), "others wait for it no longer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(letter: char) -> Id {
        Id::parse(&letter.to_string().repeat(64)).unwrap()
    }

    fn graph(text: &str) -> Graph {
        text.split_whitespace()
            .map(|word| {
                let mut letters = word.chars();
                let own = id(letters.next().unwrap());
                (own, letters.map(|on| Edge { on: id(on), until: Until::Up }).collect())
            })
            .collect()
    }

    #[test]
    fn an_order_is_left_as_it_is() {
        let (kept, dropped) = without_circles(graph("abc bc c"));
        assert_eq!((kept, dropped), (graph("abc bc c"), Vec::new()));
    }

    #[test]
    fn of_a_circle_one_is_first() {
        let (kept, dropped) = without_circles(graph("ab bc ca"));
        assert_eq!((kept, dropped), (graph("ab bc c"), vec![(id('c'), id('a'))]));
        let (kept, dropped) = without_circles(graph("aa"));
        assert_eq!((kept, dropped), (graph("a"), vec![(id('a'), id('a'))]));
    }

    /// A record as it is written; what is not said is as a plain `create` leaves it.
    fn record(more: serde_json::Value) -> Record {
        let mut all = serde_json::json!({
            "id": "a".repeat(64), "name": "a", "created": "2026-01-01T00:00:00Z",
            "image": format!("sha256:{}", "0".repeat(64)), "chain": [], "config": {}, "host_config": {},
            "platform": "linux", "driver": "overlay2", "mounts": [], "own_volumes": [], "endpoints": {},
            "state": state(), "restart_count": 0, "stopped_by_hand": false,
        });
        for (key, value) in more.as_object().unwrap() {
            all[key] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    fn state() -> serde_json::Value {
        serde_json::to_value(crate::container::state::State::default()).unwrap()
    }

    #[test]
    fn what_is_read_as_a_need() {
        let find = |word: &str| (word.len() == 1).then(|| id(word.chars().next().unwrap()));
        let services = BTreeMap::from([
            (("p".to_owned(), "db".to_owned()), vec![id('d'), id('e')]),
            (("q".to_owned(), "cache".to_owned()), vec![id('f')]),
        ]);
        let needs = |more: serde_json::Value| -> Vec<String> {
            let word = |edge: Edge| format!("{} {:?}", &edge.on.as_str()[..1], edge.until);
            edges(&record(more), find, &services).into_iter().map(word).collect()
        };
        assert_eq!(needs(serde_json::json!({})), [""; 0]);
        assert_eq!(
            needs(serde_json::json!({"host_config": {
                "NetworkMode": "container:b", "PidMode": "container:c", "IpcMode": "host",
                "Links": ["d:alias"], "VolumesFrom": ["e:ro", "gone"],
            }})),
            ["b Up", "c Up", "d Up", "e Up"]
        );
        let labels = serde_json::json!({
            PROJECT: "p", SERVICE: "web",
            DEPENDS_ON: "db:service_healthy:false,cache:service_started:true,other",
        });
        assert_eq!(
            needs(serde_json::json!({"config": {"Labels": labels}})),
            ["d Healthy", "e Healthy"]
        );
        // Nobody waits for himself.
        assert_eq!(needs(serde_json::json!({"host_config": {"Links": ["a:me"]}})), [""; 0]);
    }
}
