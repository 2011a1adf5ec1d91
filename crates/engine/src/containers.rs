//! All containers of this host: made here, found here, listed here.

use std::sync::Arc;

use api::container::{PruneReport, Summary};
use stdx::{Id, Kind, Result};

use crate::container::exec::Exec;
use crate::container::health;
use crate::container::remove::RemoveRequest;
use crate::container::state::Phase;
use crate::container::{Cell, Container};
use crate::filters::Filters;
use crate::rooms::{Parts, Rooms};

/// The handle that the doors hold. Clones share everything.
#[derive(Clone)]
pub struct Containers {
    pub(crate) rooms: Arc<Rooms>,
}

/// Which containers, and how much about each.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Those that do not run, too.
    pub all: bool,
    /// The newest only, whether they run or not.
    pub limit: Option<usize>,
    /// With sizes on disk.
    pub size: bool,
    pub filters: Filters,
}

impl Containers {
    /// Reads what is recorded. Nothing is adopted yet: see [`Containers::recover`].
    pub fn open(parts: Parts) -> Result<Self> {
        let rooms = Arc::new(Rooms::new(parts));
        let this = Self { rooms };
        this.load()?;
        Ok(this)
    }

    pub(crate) fn handle(&self, cell: Arc<Cell>) -> Container {
        Container { rooms: Arc::clone(&self.rooms), cell }
    }

    /// Every container, newest first.
    pub fn all(&self) -> Vec<Container> {
        self.rooms.registry.all().into_iter().map(|cell| self.handle(cell)).collect()
    }

    /// By id, name, or the beginning of an id.
    pub fn find(&self, word: &str) -> Result<Container> {
        Ok(self.handle(self.rooms.registry.find(word)?))
    }

    /// By the id that [`Container::exec_create`] gave.
    pub fn exec(&self, id: &str) -> Result<Exec> {
        self.rooms.execs.find(id)
    }

    pub async fn list(&self, options: ListOptions) -> Result<Vec<Summary>> {
        let mut summaries = Vec::new();
        self.each(options, |summary| summaries.push(summary)).await?;
        Ok(summaries)
    }

    /// Shows one after the other: all of them at once are more than all of their records.
    pub async fn each(
        &self,
        options: ListOptions,
        mut show: impl FnMut(Summary) + Send,
    ) -> Result<()> {
        let wanted = Wanted::of(self, &options)?;
        let links = self.rooms.registry.names_by_link();
        let mut shown = 0;
        for container in self.all() {
            if options.limit.is_some_and(|limit| shown >= limit) {
                break;
            }
            if wanted.holds(&container)? {
                match container.summary(options.size).await {
                    // What is being removed has no size any more.
                    Err(_) if container.record().state.phase == Phase::Removing => {}
                    summary => {
                        let mut summary = summary?;
                        summary.names.extend(links.get(&summary.id).into_iter().flatten().cloned());
                        show(summary);
                        shown += 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes those that do not run.
    pub async fn prune(&self, filters: Filters) -> Result<PruneReport> {
        filters.allow(&["until", "label", "label!"])?;
        let until = match filters.values("until").next() {
            Some(text) => Some(crate::container::inspect::parse_until(text)?),
            None => None,
        };
        let mut report = PruneReport::default();
        for container in self.all() {
            let record = container.record();
            let old_enough = until.is_none_or(|until| record.created < until);
            let idle = matches!(record.state.phase, Phase::Created | Phase::Exited | Phase::Dead);
            let labels = record.labels();
            let chosen = filters.labels("label", &labels)
                && !(filters.has("label!") && filters.labels("label!", &labels));
            if !(old_enough && idle && chosen) {
                continue;
            }
            let size = container.size_rw().await.unwrap_or(0);
            match container.remove(RemoveRequest::default()).await {
                Ok(()) => {
                    report
                        .containers_deleted
                        .get_or_insert_default()
                        .push(container.id().to_string());
                    report.space_reclaimed += size;
                }
                // Started or removed meanwhile: not ours to prune any more.
                Err(error) if matches!(error.kind(), Kind::Conflict | Kind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        self.rooms.pruned(state::EventKind::Container, report.space_reclaimed);
        Ok(report)
    }
}

/// The filters of a list, understood once.
struct Wanted<'a> {
    filters: &'a Filters,
    all: bool,
    task: Option<bool>,
    ids: Vec<Id>,
    ancestors: Vec<String>,
    before: Option<stdx::time::Timestamp>,
    since: Option<stdx::time::Timestamp>,
    exited: Vec<i32>,
}

impl<'a> Wanted<'a> {
    fn of(containers: &Containers, options: &'a ListOptions) -> Result<Self> {
        const KNOWN: &[&str] = &[
            "ancestor",
            "before",
            "exited",
            "expose",
            "health",
            "id",
            "is-task",
            "isolation",
            "label",
            "name",
            "network",
            "publish",
            "since",
            "status",
            "volume",
        ];
        let filters = &options.filters;
        filters.allow(KNOWN)?;
        for wanted in filters.values("health") {
            health::check_filter(wanted)?;
        }
        for status in filters.values("status") {
            const STATES: [&str; 7] =
                ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
            if !STATES.contains(&status) {
                let known = STATES.join(", ");
                return Err(stdx::Error::invalid(format!(
                    "invalid filter 'status={status}': invalid value for state ({status}): must be one of {known}"
                )));
            }
        }
        for (what, wanted) in ["publish", "expose"]
            .into_iter()
            .flat_map(|what| filters.values(what).map(move |wanted| (what, wanted)))
        {
            check_ports(what, wanted)?;
        }
        let made = |name: &str| match filters.values(name).next() {
            Some(word) => containers.find(word).map(|container| Some(container.record().created)),
            None => Ok(None),
        };
        let exited = filters
            .values("exited")
            .map(|text| {
                text.parse().map_err(|_| {
                    stdx::Error::invalid(format!(
                        "invalid filter 'exited={text}': strconv.Atoi: parsing {text:?}: invalid syntax"
                    ))
                })
            })
            .collect::<Result<Vec<i32>>>()?;
        // An image's name means the image it names now with all that was made of it, and whatever was made from a name spelt
        // so.
        let mut ancestors = Vec::new();
        for word in filters.values("ancestor") {
            ancestors.push(word.to_owned());
            if let Ok(image) = containers.rooms.images.resolve(word) {
                let family = containers.rooms.images.with_descendants(&image.id);
                ancestors.extend(family.iter().map(ToString::to_string));
            }
        }
        // The beginning of one container's id, and of no other's.
        let ids =
            filters.values("id").filter_map(|word| containers.rooms.registry.by_id(word)).collect();
        Ok(Self {
            filters,
            all: options.all || options.limit.is_some() || filters.has("status"),
            task: filters.flag("is-task")?,
            ids,
            ancestors,
            before: made("before")?,
            since: made("since")?,
            exited,
        })
    }

    fn holds(&self, container: &Container) -> Result<bool> {
        let record = container.record();
        let filters = self.filters;
        let state = &record.state;
        let up = state.phase.is_up() || state.phase == Phase::Restarting;
        let image = record.image.to_string();
        Ok((self.all || up)
            && filters.exact("status", state.phase.name())
            && (self.exited.is_empty()
                || (!state.phase.is_up()
                    && !state.finished_at.is_never()
                    && self.exited.contains(&state.exit_code)))
            // Names are asked for with the slash that they have in the API, and without.
            && (filters.matches("name", &record.name)
                || filters.matches("name", &format!("/{}", record.name)))
            && (!filters.has("id") || self.ids.contains(&record.id))
            && filters.labels("label", &record.labels())
            && (!filters.has("ancestor")
                || self
                    .ancestors
                    .iter()
                    .any(|wanted| *wanted == image || *wanted == record.config.image))
            && self.before.is_none_or(|at| record.created < at)
            && self.since.is_none_or(|at| record.created > at)
            && filters.any("network", |wanted| {
                record.endpoints.iter().any(|(name, endpoint)| {
                    name == wanted || endpoint.network_id.starts_with(wanted)
                })
            })
            && filters.any("volume", |wanted| {
                record.mounts.iter().any(|mount| {
                    // What has no name is known by where it comes from.
                    let name = if mount.name.is_empty() { &mount.source } else { &mount.name };
                    mount.destination == wanted || name == wanted
                })
            })
            // The one or the other: the only two names that are alternatives.
            && (!(filters.has("expose") || filters.has("publish"))
                || filters.values("expose").any(|wanted| exposes(&record, wanted))
                || filters.values("publish").any(|wanted| publishes(&record, wanted)))
            && filters.exact("health", health::filtered(&record))
            && self.task != Some(true))
    }
}

/// `80`, `80-90`, with or without a protocol behind a slash.
fn check_ports(what: &str, wanted: &str) -> Result<()> {
    if wanted.contains(':') {
        let words = format!("filter for '{what}' should not contain ':': {wanted}");
        return Err(stdx::Error::invalid(words));
    }
    let range = wanted.split_once('/').map_or(wanted, |(range, _)| range);
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match [first, last].into_iter().find(|port| port.parse::<u16>().is_err()) {
        None => Ok(()),
        Some(port) => {
            let number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            let why = if number { "value out of range" } else { "invalid syntax" };
            Err(stdx::Error::invalid(format!(
                "error while looking up for {what} {wanted}: strconv.ParseUint: parsing {port:?}: {why}"
            )))
        }
    }
}

fn publishes(record: &crate::container::record::Record, wanted: &str) -> bool {
    let (port, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = port.split_once('-').unwrap_or((port, port));
    let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { return false };
    record
        .ports
        .iter()
        .any(|port| port.protocol.as_str() == protocol && (first..=last).contains(&port.host_port))
}

fn exposes(record: &crate::container::record::Record, wanted: &str) -> bool {
    let (port, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = port.split_once('-').unwrap_or((port, port));
    let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { return false };
    record.has_ports()
        && record.config.exposed_ports.keys().any(|exposed| {
            let (number, kind) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
            kind == protocol
                && number.parse().is_ok_and(|number: u16| (first..=last).contains(&number))
        })
}
