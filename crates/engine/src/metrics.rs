//! Figures for a monitor, in the text that Prometheus reads: those that dockerd has, by its names, and what each container
//! uses.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::container::Stats;
use futures_util::StreamExt;
use stdx::Result;
use stdx::histogram::{Counts, Times};

use crate::container::state::Phase;
use crate::system::System;

/// How many containers are looked at at a time, and how long one may take.
const AT_A_TIME: usize = 16;
const PATIENCE: Duration = Duration::from_secs(2);

/// What an action is called in a histogram of actions, and how long it took each time.
type Action<'a> = (&'a str, &'a Times);

/// A figure of a container: its name, its kind, what it is, and where it is found.
type Figure = (&'static str, &'static str, &'static str, fn(&Stats) -> f64);

/// What is counted while the engine works.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) changes: Times,
    pub(crate) commit: Times,
    pub(crate) create: Times,
    pub(crate) delete: Times,
    pub(crate) start: Times,
    /// Networks of a container that starts, and of one that has ended.
    pub(crate) allocate: Times,
    pub(crate) release: Times,
    pub(crate) system_info: Times,
    pub(crate) system_version: Times,
    /// Until a probe runs.
    pub(crate) health_check_start: Times,
    pub(crate) health_checks: AtomicU64,
    pub(crate) health_checks_failed: AtomicU64,
}

impl System {
    /// Everything, now.
    pub async fn metrics(&self) -> Result<String> {
        let metrics = &self.rooms().metrics;
        let mut text = Text::default();
        text.histograms(
            "engine_daemon_container_actions_seconds",
            "The number of seconds it takes to process each container action",
            "action",
            &[
                ("changes", &metrics.changes),
                ("commit", &metrics.commit),
                ("create", &metrics.create),
                ("delete", &metrics.delete),
                ("start", &metrics.start),
            ],
        );
        self.states(&mut text);
        self.engine(&mut text)?;
        let journal = &self.rooms().journal;
        text.gauge(
            "engine_daemon_events_subscribers_total",
            "The number of current subscribers to events",
            journal.listeners() as f64,
        );
        text.counter(
            "engine_daemon_events_total",
            "The number of events logged",
            journal.last() as f64,
        );
        text.begin(
            "engine_daemon_health_check_start_duration_seconds",
            "histogram",
            "The number of seconds it takes to prepare to run health checks",
        );
        text.histogram(
            "engine_daemon_health_check_start_duration_seconds",
            &[],
            &metrics.health_check_start.counts(),
        );
        text.counter(
            "engine_daemon_health_checks_failed_total",
            "The total number of failed health checks",
            metrics.health_checks_failed.load(Ordering::Relaxed) as f64,
        );
        text.counter(
            "engine_daemon_health_checks_total",
            "The total number of health checks",
            metrics.health_checks.load(Ordering::Relaxed) as f64,
        );
        text.histograms(
            "engine_daemon_host_info_functions_seconds",
            "The number of seconds it takes to call functions gathering info about the host",
            "function",
            &[("system_info", &metrics.system_info), ("system_version", &metrics.system_version)],
        );
        let images = self.rooms().images.actions();
        text.histograms(
            "engine_daemon_image_actions_seconds",
            "The number of seconds it takes to process each image action",
            "action",
            &[("delete", &images.delete), ("history", &images.history), ("pull", &images.pull)],
        );
        text.histograms(
            "engine_daemon_network_actions_seconds",
            "The number of seconds it takes to process each network action",
            "action",
            &[("allocate", &metrics.allocate), ("release", &metrics.release)],
        );
        process(&mut text);
        self.containers(&mut text).await;
        Ok(text.0)
    }

    fn states(&self, text: &mut Text) {
        let phases: Vec<Phase> =
            self.containers.all().iter().map(|one| one.record().state.phase).collect();
        let count = |wanted: fn(&&Phase) -> bool| phases.iter().filter(wanted).count() as f64;
        let name = "engine_daemon_container_states_containers";
        text.begin(name, "gauge", "The count of containers in various states");
        let up = |phase: &&Phase| matches!(phase, Phase::Running | Phase::Restarting);
        text.line(name, &[("state", "paused")], count(|phase| **phase == Phase::Paused));
        text.line(name, &[("state", "running")], count(up));
        let stopped =
            |phase: &&Phase| !matches!(phase, Phase::Running | Phase::Restarting | Phase::Paused);
        text.line(name, &[("state", "stopped")], count(stopped));
    }

    fn engine(&self, text: &mut Text) -> Result<()> {
        let about = self.about_the_host();
        text.gauge(
            "engine_daemon_engine_cpus_cpus",
            "The number of cpus that the host system of the engine has",
            about.cpus as f64,
        );
        let name = "engine_daemon_engine_info";
        let help = "The information related to the engine and the OS it is running on";
        text.begin(name, "gauge", help);
        text.line(
            name,
            &[
                ("architecture", &about.architecture),
                ("commit", ""),
                ("daemon_id", &about.id),
                ("graphdriver", self.rooms().storage.snapshots.name()),
                ("kernel", &about.kernel),
                ("os", &about.os),
                ("os_type", "linux"),
                ("os_version", &about.os_version),
                ("version", crate::system::VERSION),
            ],
            1.0,
        );
        text.gauge(
            "engine_daemon_engine_memory_bytes",
            "The number of bytes of memory that the host system of the engine has",
            about.memory as f64,
        );
        Ok(())
    }

    /// Of those that run. One that does not answer in time is left out.
    async fn containers(&self, text: &mut Text) {
        let up = self.containers.all().into_iter();
        let up = up.filter(|container| container.record().state.phase.is_up());
        let looks = up.map(|container| async move {
            let stats = tokio::time::timeout(PATIENCE, container.stats()).await.ok()?.ok()?;
            Some((container.record(), stats))
        });
        let mut all: Vec<_> = futures_util::stream::iter(looks)
            .buffer_unordered(AT_A_TIME)
            .filter_map(std::future::ready)
            .collect()
            .await;
        all.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
        let figures: [Figure; 6] = [
            ("cpu_usage_seconds_total", "counter", "Processor time used", |stats| {
                stats.cpu_stats.cpu_usage.total_usage as f64 / 1e9
            }),
            ("memory_usage_bytes", "gauge", "Memory in use, with the page cache", |stats| {
                stats.memory_stats.usage as f64
            }),
            ("memory_limit_bytes", "gauge", "Memory that may be used", |stats| {
                stats.memory_stats.limit as f64
            }),
            ("processes", "gauge", "Processes and threads", |stats| {
                stats.pids_stats.current as f64
            }),
            ("network_receive_bytes_total", "counter", "Bytes received", |stats| {
                stats.networks.values().map(|device| device.rx_bytes).sum::<u64>() as f64
            }),
            ("network_transmit_bytes_total", "counter", "Bytes sent", |stats| {
                stats.networks.values().map(|device| device.tx_bytes).sum::<u64>() as f64
            }),
        ];
        for (figure, kind, help, value) in figures {
            let name = format!("gantry_container_{figure}");
            text.begin(&name, kind, &format!("{help}, by a container"));
            for (record, stats) in &all {
                let labels = [
                    ("id", record.id.as_str()),
                    ("image", &record.config.image),
                    ("name", &record.name),
                ];
                text.line(&name, &labels, value(stats));
            }
        }
        let name = "gantry_container_restarts_total";
        text.begin(name, "counter", "Restarts by its policy, by a container");
        for (record, _) in &all {
            let labels = [
                ("id", record.id.as_str()),
                ("image", &record.config.image),
                ("name", &record.name),
            ];
            text.line(name, &labels, f64::from(record.restart_count));
        }
    }
}

/// What every process that is watched tells of itself.
fn process(text: &mut Text) {
    let own =
        |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let stat = own("stat");
    let fields: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    // The first behind the name is the third of all.
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0) as f64;
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    text.counter(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        (field(14) + field(15)) / ticks,
    );
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    text.gauge(
        "process_max_fds",
        "Maximum number of open file descriptors.",
        files.unwrap_or(u64::MAX) as f64,
    );
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count());
    text.gauge("process_open_fds", "Number of open file descriptors.", open as f64);
    text.gauge(
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        field(24) * rustix::param::page_size() as f64,
    );
    let host = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = host.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok());
    text.gauge(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        boot.unwrap_or(0.0) + field(22) / ticks,
    );
    text.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", field(23));
}

/// Lines on their way to a monitor.
#[derive(Default)]
struct Text(String);

impl Text {
    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        self.0 += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0 += name;
        for (index, (label, word)) in labels.iter().enumerate() {
            let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let before = if index == 0 { '{' } else { ',' };
            let _endless = write!(self.0, "{before}{label}=\"{word}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _endless = writeln!(self.0, " {value}");
    }

    /// One histogram for each action, told apart by a label.
    fn histograms(&mut self, name: &str, help: &str, label: &str, actions: &[Action]) {
        self.begin(name, "histogram", help);
        for (action, times) in actions {
            self.histogram(name, &[(label, action)], &times.counts());
        }
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], counts: &Counts) {
        let bucket = format!("{name}_bucket");
        for (end, count) in &counts.up_to {
            let end = end.as_secs_f64().to_string();
            self.line(&bucket, &[labels, &[("le", &end)]].concat(), *count as f64);
        }
        self.line(&bucket, &[labels, &[("le", "+Inf")]].concat(), counts.all as f64);
        self.line(&format!("{name}_sum"), labels, counts.sum.as_secs_f64());
        self.line(&format!("{name}_count"), labels, counts.all as f64);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.begin(name, "gauge", help);
        self.line(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.begin(name, "counter", help);
        self.line(name, &[], value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_break_out() {
        let mut text = Text::default();
        text.line("a", &[("b", "x\"\n\\"), ("c", "")], 1.5);
        text.counter("d", "What it is.", 3.0);
        assert_eq!(
            text.0,
            "a{b=\"x\\\"\\n\\\\\",c=\"\"} 1.5\n# HELP d What it is.\n# TYPE d counter\nd 3\n"
        );
    }

    #[test]
    fn histograms_end_with_everything() {
        let times = Times::default();
        times.since(std::time::Instant::now() - Duration::from_secs(60));
        let mut text = Text::default();
        text.histograms("t", "What.", "a", &[("b", &times)]);
        assert!(
            text.0.contains("# TYPE t histogram\nt_bucket{a=\"b\",le=\"0.005\"} 0\n"),
            "{}",
            text.0
        );
        assert!(
            text.0.contains("t_bucket{a=\"b\",le=\"10\"} 0\nt_bucket{a=\"b\",le=\"+Inf\"} 1\n"),
            "{}",
            text.0
        );
        assert!(text.0.ends_with("t_count{a=\"b\"} 1\n"), "{}", text.0);
    }
}
