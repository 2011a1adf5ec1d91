//! Health checks. First what is asked, how often, and what the answers mean, decided without touching anything; then the
//! task that asks.
//!
//! The shim ends a probe whose time is over, so that a daemon that dies leaves none behind.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::container::{Config, HealthConfig, HealthSummary, HealthcheckResult};
use oci::image::Healthcheck;
use serde::{Deserialize, Serialize};
use stdx::time::Timestamp;
use stdx::{Error, Id, Result, duration};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Container;
use super::record::Record;
use super::state::Phase;

/// Docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: i64 = 3;
/// Results that are remembered, and how much of what each said.
const RESULTS: usize = 5;
const MOST_OUTPUT: usize = 4096;
/// The shortest time that is one.
const LEAST: i64 = 1_000_000;
/// A daemon that finds a thousand containers does not ask them all in one moment, but within this time.
const SPREAD: Duration = Duration::from_secs(5);

/// Docker's words for how a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Starting,
    Healthy,
    Unhealthy,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How a container that is checked is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    pub status: Status,
    pub failing_streak: i64,
    /// The latest results, oldest first.
    pub log: VecDeque<HealthcheckResult>,
}

/// What becomes of a container that has turned unhealthy. Docker knows only the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    Nothing,
    Restart,
    Stop,
    /// Its restart policy decides what comes next.
    Kill,
}

impl OnFailure {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "none" => Ok(Self::Nothing),
            "restart" => Ok(Self::Restart),
            "stop" => Ok(Self::Stop),
            "kill" => Ok(Self::Kill),
            other => Err(Error::invalid(format!(
                "invalid OnFailure in Healthcheck ({other}): must be one of none, restart, stop, kill"
            ))),
        }
    }
}

/// What is asked, and how often.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Check {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: i64,
    on_failure: OnFailure,
}

impl Check {
    /// `None` where nothing is to be asked.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let wanted = config.healthcheck.as_ref()?;
        let (kind, words) = wanted.test.split_first()?;
        let shell = || match config.shell.as_deref() {
            None | Some([]) => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            Some(shell) => shell.to_vec(),
        };
        let command = match kind.as_str() {
            "CMD" => words.to_vec(),
            "CMD-SHELL" => [&shell(), words].concat(),
            _ => return None,
        };
        let or = |nanos: i64, default| match u64::try_from(nanos) {
            Ok(nanos) if nanos > 0 => Duration::from_nanos(nanos),
            _ => default,
        };
        Some(Self {
            command,
            interval: or(wanted.interval, INTERVAL),
            timeout: or(wanted.timeout, TIMEOUT),
            start_period: or(wanted.start_period, Duration::ZERO),
            start_interval: or(wanted.start_interval, START_INTERVAL),
            retries: if wanted.retries > 0 { wanted.retries } else { RETRIES },
            // Checked when the container was made.
            on_failure: OnFailure::parse(&wanted.on_failure).unwrap_or(OnFailure::Nothing),
        })
    }

    /// How long to wait before the first probe of a container that has run for `ran`: next to nothing if it has just begun,
    /// anything if this daemon has found it. What is known of such a one is old, and is looked at again soon: when its
    /// first probe would have been due, but for a `share` between 0 and 1 of [`SPREAD`].
    fn first_pause(&self, status: Status, ran: Duration, share: f64) -> Duration {
        let pause = self.pause(status, ran);
        let due = match status {
            Status::Starting => pause.saturating_sub(ran),
            Status::Healthy | Status::Unhealthy => Duration::ZERO,
        };
        due.max(pause.min(SPREAD).mul_f64(share))
    }

    /// How long to wait before the next probe of a container that has run for `ran`.
    fn pause(&self, status: Status, ran: Duration) -> Duration {
        match status {
            Status::Starting if ran < self.start_period => self.start_interval,
            _ => self.interval,
        }
    }
}

impl Health {
    /// A run begins: what is known of the last one stays to be read.
    fn begun(before: Option<&Self>) -> Self {
        let log = before.map(|health| health.log.clone()).unwrap_or_default();
        Self { status: Status::Starting, failing_streak: 0, log }
    }

    /// A daemon finds the container running. It is taken to be as it was: Docker says `starting` until the next probe has
    /// passed, so that whoever sends work only to the healthy has nobody for an interval because a daemon was replaced.
    /// What counts anew is the row of failures: it has a gap in it, and nothing is restarted because of what was before.
    fn found(before: &Self) -> Self {
        Self { failing_streak: 0, ..before.clone() }
    }

    /// After one more result, of a probe begun when the container had run for `ran`.
    fn after(&self, check: &Check, result: HealthcheckResult, ran: Duration) -> Self {
        let mut next = self.clone();
        let failed = result.exit_code != 0;
        while next.log.len() >= RESULTS {
            next.log.pop_front();
        }
        next.log.push_back(result);
        if !failed {
            (next.status, next.failing_streak) = (Status::Healthy, 0);
        } else if self.status != Status::Starting || ran >= check.start_period {
            next.failing_streak = next.failing_streak.saturating_add(1);
            if next.failing_streak >= check.retries {
                next.status = Status::Unhealthy;
            }
        }
        next
    }

    fn row(&self, check: &Check) -> Row {
        if self.failing_streak == check.retries { Row::Complete } else { Row::Open }
    }

    /// In front of `docker ps`' eyes.
    pub(crate) fn describe(&self) -> &'static str {
        match self.status {
            Status::Starting => "health: starting",
            other => other.name(),
        }
    }

    pub(crate) fn told(&self) -> api::container::Health {
        api::container::Health {
            status: self.status.name().to_owned(),
            failing_streak: self.failing_streak,
            log: self.log.iter().cloned().collect(),
        }
    }
}

/// How a container is after its phase has changed. Who is not asked is not healthy: so Docker says of those that are
/// paused or down.
pub(super) fn beside(record: &Record, now: Phase) -> Option<Health> {
    let before = record.health.as_ref();
    let unwell = |health: &Health| Health { status: Status::Unhealthy, ..health.clone() };
    match (record.state.phase.is_up(), now) {
        (false, Phase::Running) => Check::of(&record.config).map(|_| Health::begun(before)),
        (true, Phase::Running) => before.cloned(),
        (true, _) => before.map(unwell),
        (false, _) => before.cloned(),
    }
}

/// For a line of `docker ps`.
pub(super) fn summary(record: &Record) -> HealthSummary {
    match &record.health {
        Some(health) if record.state.phase.is_up() => HealthSummary {
            status: health.status.name().to_owned(),
            failing_streak: health.failing_streak,
        },
        _ => HealthSummary { status: "none".to_owned(), failing_streak: 0 },
    }
}

/// What `--filter health=` may say.
pub(crate) fn check_filter(wanted: &str) -> Result<()> {
    const KNOWN: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];
    if KNOWN.contains(&wanted) {
        return Ok(());
    }
    let known = KNOWN.join(", ");
    Err(Error::invalid(format!(
        "invalid filter 'health={wanted}': invalid value for health ({wanted}): must be one of {known}"
    )))
}

pub(crate) fn filtered(record: &Record) -> &'static str {
    record.health.as_ref().map_or("none", |health| health.status.name())
}

/// What a request leaves out of its check, the image decides.
pub(super) fn inherit(
    wanted: Option<HealthConfig>,
    image: Option<&Healthcheck>,
) -> Option<HealthConfig> {
    let Some(image) = image else { return wanted };
    let mut merged = wanted.unwrap_or_default();
    if merged.test.is_empty() {
        merged.test.clone_from(&image.test);
    }
    let or = |field: &mut i64, image: i64| {
        if *field == 0 {
            *field = image;
        }
    };
    or(&mut merged.interval, image.interval);
    or(&mut merged.timeout, image.timeout);
    or(&mut merged.start_period, image.start_period);
    or(&mut merged.start_interval, image.start_interval);
    or(&mut merged.retries, image.retries);
    Some(merged)
}

/// Refuses what cannot be, in Docker's words where it has them.
pub(super) fn validate(config: &Config) -> Result<()> {
    let Some(wanted) = &config.healthcheck else { return Ok(()) };
    let short = |name: &str, nanos: i64| match nanos {
        0 => Ok(()),
        nanos if nanos < LEAST => {
            Err(Error::invalid(format!("{name} in Healthcheck cannot be less than 1ms")))
        }
        _ => Ok(()),
    };
    short("Interval", wanted.interval)?;
    short("Timeout", wanted.timeout)?;
    if wanted.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    short("StartPeriod", wanted.start_period)?;
    short("StartInterval", wanted.start_interval)?;
    OnFailure::parse(&wanted.on_failure)?;
    match wanted.test.split_first() {
        Some((kind, [])) if kind.starts_with("CMD") => {
            Err(Error::invalid(format!("Test in Healthcheck has no command behind {kind}")))
        }
        _ => super::plan::check_words(&wanted.test),
    }
}

impl Container {
    /// Takes up the checks of a container that was found running. The gate is held by whoever calls.
    pub(crate) fn found_checked(&self) {
        let record = self.record();
        if let Some(health) = &record.health {
            self.show(Record { health: Some(Health::found(health)), ..Record::clone(&record) });
        }
    }

    /// Asks again and again how the container is, until this run is over.
    pub(crate) fn keep_checking(&self) {
        let record = self.record();
        // A shim that has let go of us for a moment is followed once more, and the container asked as before.
        if self.cell.live().checked.replace(record.state.started_at)
            == Some(record.state.started_at)
        {
            return;
        }
        if let Some(check) = Check::of(&record.config) {
            let this = self.clone();
            tokio::spawn(async move { this.check_until(check, record.state.started_at).await });
        } else if let Some(kind) = strange(&record.config) {
            tracing::warn!(container = %record.id, kind, "unknown kind of health check");
        }
    }

    async fn check_until(&self, check: Check, run: Timestamp) {
        let mut records = self.cell.subscribe();
        let share = share_of(self.id());
        let mut pause = self.pause_of(run, |status, ran| check.first_pause(status, ran, share));
        loop {
            // One that is paused is not asked, and waits a whole pause again when it goes on.
            if records.wait_for(|record| record.state.phase != Phase::Paused).await.is_err() {
                return;
            }
            if !is(run, &self.record()) {
                return;
            }
            tokio::select! {
                () = sleep_until(Instant::now() + pause) => {
                    let result = self.probe(&check).await;
                    if self.note(&check, run, result).await == Row::Complete {
                        self.react(check.on_failure).await;
                    }
                }
                () = interrupted(run, &mut records) => {}
            }
            pause = self.pause_of(run, |status, ran| check.pause(status, ran));
        }
    }

    fn pause_of(&self, run: Timestamp, pause: impl Fn(Status, Duration) -> Duration) -> Duration {
        let record = self.record();
        let status = record.health.as_ref().map_or(Status::Starting, |health| health.status);
        pause(status, since(run, Timestamp::now()))
    }

    async fn probe(&self, check: &Check) -> HealthcheckResult {
        let start = Timestamp::now();
        let answer = self.exec_for_answer(&check.command, check.timeout, MOST_OUTPUT).await;
        let (exit_code, output) = match answer {
            Ok(answer) if answer.overdue => {
                let limit = duration::format(check.timeout);
                let words = format!("Health check exceeded timeout ({limit})");
                let output = answer.output();
                (-1, if output.is_empty() { words } else { format!("{words}: {output}") })
            }
            Ok(answer) => (i64::from(answer.code), answer.output()),
            Err(error) => {
                tracing::debug!(container = %self.id(), error = %error.chain(), "a health check failed");
                (-1, error.chain())
            }
        };
        let metrics = &self.rooms.metrics;
        metrics.health_checks.fetch_add(1, Ordering::Relaxed);
        if exit_code != 0 {
            metrics.health_checks_failed.fetch_add(1, Ordering::Relaxed);
        }
        HealthcheckResult { start, end: Timestamp::now(), exit_code, output }
    }

    /// Remembers a result, if it is still about this run. Only what changes how the container is goes to disk: a probe that
    /// says what the last one said is not worth a write.
    async fn note(&self, check: &Check, run: Timestamp, result: HealthcheckResult) -> Row {
        let _gate = self.cell.gate.lock().await;
        let record = self.record();
        if !is(run, &record) || record.state.phase != Phase::Running {
            return Row::Open;
        }
        let before = record.health.clone().unwrap_or_else(|| Health::begun(None));
        let ran = since(run, result.start);
        let after = before.after(check, result, ran);
        let (status, row) = (after.status, after.row(check));
        let record = Record { health: Some(after), ..Record::clone(&record) };
        if status == before.status {
            self.show(record);
            return row;
        }
        if let Err(error) = self.save(record) {
            tracing::warn!(container = %self.id(), error = %error.chain(), "cannot write down how a container is");
            return Row::Open;
        }
        self.event(format!("health_status: {}", status.name()), &[]);
        row
    }

    /// Ends it as a fault of its own does: what its restart policy says of that holds.
    async fn kill_all(&self) -> Result<()> {
        let this = self.clone();
        let kill = move |shim: &shim::Client| {
            // The end that it brings is told after it.
            let _telling = this.cell.telling();
            shim.kill(9, shim::Whom::All)?;
            this.event("kill", &[("signal", "9".to_owned())]);
            Ok(())
        };
        self.with_shim(kill).await
    }

    async fn react(&self, on_failure: OnFailure) {
        if self.record().stopped_by_hand || self.cell.live().restarting_by_hand {
            return;
        }
        let outcome = match on_failure {
            OnFailure::Nothing => return,
            OnFailure::Restart => self.restart(None, None).await,
            OnFailure::Stop => self.stop(None, None).await,
            OnFailure::Kill => self.kill_all().await,
        };
        match outcome {
            Ok(()) => {
                tracing::info!(container = %self.id(), ?on_failure, "an unhealthy container was dealt with");
            }
            // It has ended by itself meanwhile.
            Err(_) if !self.record().state.phase.is_up() => {}
            Err(error) => {
                tracing::warn!(container = %self.id(), error = %error.chain(), "cannot deal with an unhealthy container");
            }
        }
    }
}

/// How far the failures in a row have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    Open,
    /// With this one there are as many as make a container unhealthy. Those behind it add nothing.
    Complete,
}

/// A container's place among all, between 0 and 1.
fn share_of(id: &Id) -> f64 {
    let digits = u32::from_str_radix(&id.as_str()[..8], 16).expect("an id is of hex digits");
    f64::from(digits) / f64::from(u32::MAX)
}

/// Whether the record is still about this run.
fn is(run: Timestamp, record: &Record) -> bool {
    !record.gone && record.state.phase.is_up() && record.state.started_at == run
}

/// Waits for the end of this run, or for it to be paused.
async fn interrupted(run: Timestamp, records: &mut watch::Receiver<std::sync::Arc<Record>>) {
    let over =
        |record: &std::sync::Arc<Record>| !is(run, record) || record.state.phase == Phase::Paused;
    let _over_or_gone = records.wait_for(over).await;
}

fn since(run: Timestamp, now: Timestamp) -> Duration {
    let nanos = now.unix_nanos() - run.unix_nanos();
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// What stands where `CMD`, `CMD-SHELL` or `NONE` should.
fn strange(config: &Config) -> Option<&str> {
    let kind = config.healthcheck.as_ref()?.test.first()?.as_str();
    (kind != "NONE").then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(test: &[&str], change: impl FnOnce(&mut HealthConfig)) -> Config {
        let mut check = HealthConfig {
            test: test.iter().map(|&word| word.to_owned()).collect(),
            ..HealthConfig::default()
        };
        change(&mut check);
        Config { healthcheck: Some(check), ..Config::default() }
    }

    fn check(change: impl FnOnce(&mut HealthConfig)) -> Check {
        Check::of(&config(&["CMD", "true"], change)).unwrap()
    }

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// The codes of probes, one a second, and how the container is after each.
    fn life(check: &Check, codes: &[i64]) -> String {
        let mut health = Health::begun(None);
        let mut story = Vec::new();
        for (ran, code) in (0..).zip(codes) {
            let result = HealthcheckResult { exit_code: *code, ..HealthcheckResult::default() };
            health = health.after(check, result, seconds(ran));
            story.push(format!("{} {}", health.status.name(), health.failing_streak));
        }
        assert!(health.log.len() <= RESULTS);
        story.join(", ")
    }

    #[test]
    fn a_streak_of_failures_makes_unhealthy() {
        assert_eq!(
            life(&check(|_| {}), &[1, 1, 1, 0, 1, 1, -1, 1]),
            "starting 1, starting 2, unhealthy 3, healthy 0, healthy 1, healthy 2, unhealthy 3, unhealthy 4"
        );
        assert_eq!(life(&check(|check| check.retries = 1), &[2, 0]), "unhealthy 1, healthy 0");
    }

    #[test]
    fn a_start_period_forgives_until_the_first_success() {
        let check = check(|check| (check.start_period, check.retries) = (3_000_000_000, 2));
        assert_eq!(
            life(&check, &[1, 1, 1, 1, 1]),
            "starting 0, starting 0, starting 0, starting 1, unhealthy 2"
        );
        assert_eq!(life(&check, &[0, 1, 1]), "healthy 0, healthy 1, unhealthy 2");
    }

    #[test]
    fn pauses_are_dockers() {
        let plain = check(|_| {});
        assert_eq!(plain.pause(Status::Starting, seconds(0)), seconds(30));
        let slow = check(|check| check.start_period = 100_000_000_000);
        assert_eq!(slow.pause(Status::Starting, seconds(0)), seconds(5));
        assert_eq!(slow.pause(Status::Healthy, seconds(0)), seconds(30));
        assert_eq!(slow.pause(Status::Starting, seconds(90)), seconds(5));
        assert_eq!(slow.pause(Status::Starting, seconds(100)), seconds(30));
    }

    #[test]
    fn one_that_is_found_is_asked_soon() {
        let plain = check(|_| {});
        for status in [Status::Healthy, Status::Unhealthy] {
            assert_eq!(plain.first_pause(status, seconds(1), 0.0), Duration::ZERO);
            assert_eq!(plain.first_pause(status, seconds(900), 1.0), SPREAD);
        }
        let starting = |ran| plain.first_pause(Status::Starting, seconds(ran), 0.4);
        assert_eq!(
            [starting(0), starting(10), starting(29), starting(900)].map(|t| t.as_secs()),
            [30, 20, 2, 2]
        );
        let quick = check(|check| check.interval = 100_000_000);
        assert_eq!(quick.first_pause(Status::Healthy, seconds(9), 0.5), Duration::from_millis(50));
    }

    /// Neither is a container restarted for failures of which a daemon before has already made something, nor is one that is
    /// ill still forgotten because that daemon did not come to it.
    #[test]
    fn failures_before_a_daemon_are_not_in_the_row() {
        let check = check(|_| {});
        let failed = || HealthcheckResult { exit_code: 1, ..HealthcheckResult::default() };
        for status in [Status::Healthy, Status::Unhealthy] {
            let before = Health { status, failing_streak: 2, log: VecDeque::new() };
            let mut health = Health::found(&before);
            assert_eq!(health.status, status);
            let rows = [(); 5].map(|()| {
                health = health.after(&check, failed(), seconds(60));
                health.row(&check) == Row::Complete
            });
            assert_eq!(rows, [false, false, true, false, false]);
        }
    }

    #[test]
    fn what_is_run() {
        let command = |config: &Config| Check::of(config).map(|check| check.command.join(" "));
        let of = |test: &[&str]| command(&config(test, |_| {}));
        assert_eq!(of(&["CMD", "a", "b c"]).as_deref(), Some("a b c"));
        assert_eq!(of(&["CMD-SHELL", "a | b"]).as_deref(), Some("/bin/sh -c a | b"));
        let mut own = config(&["CMD-SHELL", "x"], |_| {});
        own.shell = Some(vec!["bash".to_owned(), "-ec".to_owned()]);
        assert_eq!(command(&own).as_deref(), Some("bash -ec x"));
        for nothing in [&[][..], &["NONE"], &["FTP", "x"]] {
            assert_eq!(of(nothing), None);
        }
    }

    #[test]
    fn refusals_are_dockers() {
        let refusal = |test: &[&str], change: fn(&mut HealthConfig)| {
            validate(&config(test, change)).unwrap_err().to_string()
        };
        assert_eq!(
            refusal(&["CMD", "x"], |check| check.interval = 1),
            "Interval in Healthcheck cannot be less than 1ms"
        );
        assert_eq!(
            refusal(&["CMD", "x"], |check| check.start_interval = -5),
            "StartInterval in Healthcheck cannot be less than 1ms"
        );
        assert_eq!(
            refusal(&["CMD", "x"], |check| check.retries = -1),
            "Retries in Healthcheck cannot be negative"
        );
        assert_eq!(refusal(&["CMD"], |_| {}), "Test in Healthcheck has no command behind CMD");
        assert_eq!(
            refusal(&["CMD", "x"], |check| check.on_failure = "pray".to_owned()),
            "invalid OnFailure in Healthcheck (pray): must be one of none, restart, stop, kill"
        );
    }

    #[test]
    fn an_image_fills_in_what_is_left_out() {
        let image = Healthcheck {
            test: vec!["CMD".to_owned(), "i".to_owned()],
            interval: 7,
            ..Healthcheck::default()
        };
        assert_eq!(inherit(None, None), None);
        assert_eq!(inherit(None, Some(&image)).unwrap().test, image.test);
        let wanted = HealthConfig { interval: 9, retries: 2, ..HealthConfig::default() };
        let merged = inherit(Some(wanted), Some(&image)).unwrap();
        assert_eq!((merged.test, merged.interval, merged.retries), (image.test, 9, 2));
    }
}
