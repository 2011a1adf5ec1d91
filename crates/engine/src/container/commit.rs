//! `docker commit`: what a container has changed becomes one more layer, and how it is configured an image.

use std::time::Instant;

use api::container::{Config, HealthConfig};
use image::{By, NewImage, apply_changes};
use oci::image::{Empty, Healthcheck, History, ImageConfig, RunConfig};
use oci::{Digest, Reference};
use stdx::{Error, Result};

use super::Container;
use super::create::merge;
use super::state::{Event, Phase};

#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// The name of the image; empty for none.
    pub repository: String,
    pub tag: String,
    pub author: String,
    pub message: String,
    /// Instructions of a Dockerfile: `CMD ["sh"]`, `ENV a=b`.
    pub changes: Vec<String>,
    /// Nothing in it moves meanwhile.
    pub pause: bool,
    /// Instead of the container's own, which fills in what is left out.
    pub config: Option<Config>,
}

impl Container {
    /// Makes an image of the container; its id.
    pub async fn commit(&self, request: CommitRequest) -> Result<Digest> {
        let this = self.clone();
        let start = Instant::now();
        let image =
            tokiox::to_the_end(async move { this.commit_to_the_end(request).await }).await?;
        self.rooms.metrics.commit.since(start);
        Ok(image)
    }

    async fn commit_to_the_end(&self, request: CommitRequest) -> Result<Digest> {
        let record = self.record();
        let id = &record.id;
        let cannot =
            |why: &str| Error::conflict(format!("You cannot commit container {id} which is {why}"));
        match record.state.phase {
            Phase::Dead => return Err(cannot("Dead")),
            Phase::Removing => return Err(cannot("being removed")),
            _ => {}
        }
        let reference = reference_of(&request)?;
        let new = self.image_of(&request, reference.clone())?;
        let frozen = request.pause && self.freeze().await?;
        let storage = self.rooms.storage.clone();
        let name = id.to_string();
        let made = self
            .rooms
            .images
            .create_from_layer(new, move |out| storage.snapshots.diff(&name, out))
            .await;
        if let Ok(image) = &made {
            let named = reference.map(|reference| reference.familiar()).unwrap_or_default();
            let id = image.id.to_string();
            self.event(
                "commit",
                &[("comment", request.message), ("imageID", id), ("imageRef", named)],
            );
        }
        if frozen {
            self.thaw().await;
        }
        Ok(made?.id.clone())
    }

    fn image_of(&self, request: &CommitRequest, reference: Option<Reference>) -> Result<NewImage> {
        let record = self.record();
        let own = run_config(&record.config);
        let mut wanted = request.config.as_ref().map_or_else(|| own.clone(), run_config);
        apply_changes(&mut wanted, &request.changes)?;
        let merged = run_config(&merge(config(wanted), &own));
        Ok(NewImage {
            parent: Some(record.image.clone()),
            config: ImageConfig {
                author: request.author.clone(),
                comment: request.message.clone(),
                config: merged,
                container: record.id.to_string(),
                container_config: Some(own),
                ..ImageConfig::default()
            },
            step: History {
                author: request.author.clone(),
                comment: request.message.clone(),
                created_by: record.config.cmd.clone().unwrap_or_default().join(" "),
                ..History::default()
            },
            reference,
            by: By::Commit,
        })
    }

    /// Pauses it, if it runs, and remembers why: a daemon that dies here must not leave it so.
    pub(crate) async fn freeze(&self) -> Result<bool> {
        let _gate = self.cell.gate.lock().await;
        if self.record().state.phase != Phase::Running {
            return Ok(false);
        }
        let mut record = super::Record::clone(&self.record());
        record.frozen_to_commit = true;
        self.save(record)?;
        if let Err(error) = self.with_shim(shim::Client::pause).await {
            tracing::warn!(container = %self.cell.id, error = %error.chain(), "committed without a pause");
            return Ok(true);
        }
        self.apply(Event::Paused)?;
        self.event("pause", &[]);
        Ok(true)
    }

    /// Lets go on what was paused to be committed, unless somebody has done that, or ended it.
    pub(crate) async fn thaw(&self) {
        let _gate = self.cell.gate.lock().await;
        if let Err(error) = self.thaw_held().await {
            tracing::error!(container = %self.cell.id, error = %error.chain(), "cannot let go on what was paused to be committed");
        }
    }

    pub(crate) async fn thaw_held(&self) -> Result<()> {
        let mut record = super::Record::clone(&self.record());
        if !std::mem::take(&mut record.frozen_to_commit) || record.gone {
            return Ok(());
        }
        if record.state.phase == Phase::Paused {
            self.with_shim(shim::Client::resume).await?;
            self.apply(Event::Unpaused)?;
            self.event("unpause", &[]);
            record = super::Record::clone(&self.record());
            record.frozen_to_commit = false;
        }
        self.save(record)
    }
}

fn reference_of(request: &CommitRequest) -> Result<Option<Reference>> {
    if request.repository.is_empty() {
        return Ok(None);
    }
    let name = Reference::parse_normalized(&request.repository)?;
    if !name.is_name_only() {
        let name = &request.repository;
        return Err(Error::invalid(format!("unexpected repository name: {name}")));
    }
    match request.tag.as_str() {
        "" => Ok(Some(name.with_default_tag())),
        tag => name.with_tag(tag).map(Some),
    }
}

/// What of a container's configuration an image has.
fn run_config(config: &Config) -> RunConfig {
    let list = |values: &Option<Vec<String>>| values.clone().unwrap_or_default();
    let set = |names: &mut dyn Iterator<Item = &String>| {
        names.map(|name| (name.clone(), Empty {})).collect()
    };
    RunConfig {
        user: config.user.clone(),
        exposed_ports: set(&mut config.exposed_ports.keys()),
        env: list(&config.env),
        entrypoint: list(&config.entrypoint),
        cmd: list(&config.cmd),
        healthcheck: config.healthcheck.as_ref().map(|check| Healthcheck {
            test: check.test.clone(),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        args_escaped: config.args_escaped,
        volumes: set(&mut config.volumes.iter().flat_map(|volumes| volumes.keys())),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone().unwrap_or_default().into_iter().collect(),
        on_build: list(&config.on_build),
        stop_signal: config.stop_signal.clone(),
        stop_timeout: config.stop_timeout,
        shell: list(&config.shell),
        ..RunConfig::default()
    }
}

/// The same as a request: what is not said is to be inherited.
fn config(run: RunConfig) -> Config {
    let given = |list: Vec<String>| (!list.is_empty()).then_some(list);
    Config {
        user: run.user,
        exposed_ports: run.exposed_ports.into_keys().map(|port| (port, api::Empty {})).collect(),
        env: given(run.env),
        entrypoint: given(run.entrypoint),
        cmd: given(run.cmd),
        healthcheck: run.healthcheck.map(|check| HealthConfig {
            test: check.test,
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
            ..HealthConfig::default()
        }),
        args_escaped: run.args_escaped,
        volumes: Some(run.volumes.into_keys().map(|path| (path, api::Empty {})).collect()),
        working_dir: run.working_dir,
        labels: Some(run.labels.into_iter().collect()),
        on_build: given(run.on_build),
        stop_signal: run.stop_signal,
        stop_timeout: run.stop_timeout,
        shell: given(run.shell),
        ..Config::default()
    }
}
