//! `docker create`: the request is understood, the writable layer prepared, the record written. Nothing runs.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use api::container::{Config, CreateBody, CreateResponse, HostConfig};
use image::Image;
use oci::image::RunConfig;
use rustix::fs::FileType;
use rustix::io::Errno;
use stdx::time::Timestamp;
use stdx::{Error, Id, Kind, Result};
use storage::layer::{self, Place};

use super::mounts::{MountPlan, ReadOnlyBinds, Source};
use super::plan::Plan;
use super::record::Record;
use super::state::State;
use super::volumes::{Foreign, Wish};
use super::{Cell, Container};
use super::{endpoints, health, links, reach};
use crate::registry::Registry;
use crate::{Containers, names};

#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    pub name: Option<String>,
    /// `os/arch[/variant]`, when the client asks for one.
    pub platform: Option<String>,
    pub body: CreateBody,
    pub read_only_binds: ReadOnlyBinds,
}

impl Containers {
    pub async fn create(&self, request: CreateRequest) -> Result<CreateResponse> {
        let (this, start) = (self.clone(), Instant::now());
        let made = tokiox::to_the_end(async move {
            tokiox::blocking(move || this.create_blocking(request)).await
        })
        .await?;
        self.rooms.metrics.create.since(start);
        Ok(made)
    }

    fn create_blocking(&self, request: CreateRequest) -> Result<CreateResponse> {
        let rooms = &self.rooms;
        let CreateRequest { name, platform, body, read_only_binds } = request;
        let name = name
            .filter(|name| !name.is_empty())
            .map(|name| names::parse(&name).map(str::to_owned))
            .transpose()?;
        let image = rooms.images.resolve(&body.config.image)?;
        check_platform(&image, platform.as_deref())?;
        let mut config = merge(body.config, image.run_config());
        config.exposed_ports = super::plan::exposed_ports(&config.exposed_ports)?;
        let mut host_config = body.host_config.unwrap_or_default();
        join_by_id(&mut host_config, &rooms.registry)?;
        let bindings = host_config.port_bindings.take().unwrap_or_default();
        host_config.port_bindings = Some(super::plan::port_bindings(bindings)?);
        rooms.resolve_secrets(&mut host_config)?;
        let mut warnings =
            super::plan::discard_here(&mut host_config.resources, &rooms.settings())?;
        let plan = Plan::of(&config, &host_config, read_only_binds, &rooms.settings())?;
        plan.check_process()?;
        plan.log.check_plugin(&rooms.settings())?;
        super::plan::fill_in(&mut host_config, &rooms.settings(), runtime::cgroup::Mode::detect()?);
        let endpoints =
            endpoints::endpoints(&plan, &host_config, body.networking_config, &rooms.networks)?;
        reach::check(&plan, endpoints.keys(), &rooms.networks)?;
        host_config.links = links::check(&plan, host_config.links.take(), rooms)?;
        warnings.extend(plan.warnings.iter().cloned());

        let id = Id::random();
        let name = self.reserve_name(name, &id)?;
        let container = Container {
            rooms: Arc::clone(rooms),
            cell: Arc::new(Cell::new(Record {
                id: id.clone(),
                name: name.clone(),
                created: Timestamp::now(),
                image: image.id.clone(),
                chain: image.chain.clone(),
                platform: image.config.os.clone(),
                driver: rooms.storage.snapshots.name().to_owned(),
                config,
                host_config,
                read_only_binds,
                mounts: Vec::new(),
                own_volumes: Vec::new(),
                of_others: Vec::new(),
                mounted_images: BTreeMap::new(),
                wanted_macs: endpoints::wanted_macs(&endpoints),
                endpoints,
                ports: Vec::new(),
                ids: None,
                id_range: None,
                state: State::default(),
                health: None,
                restart_count: 0,
                limits_pending: false,
                ports_pending: false,
                stopped_by_hand: false,
                removes_volumes: false,
                frozen_to_commit: false,
                gone: false,
            })),
        };
        let mut record = Record::clone(&container.record());
        let foreign = container
            .mounts_of_others(&mut record, &plan)
            .and_then(|()| container.make_foreign_volumes(&mut record, &plan));
        let made = foreign.and_then(|foreign| {
            container.make(&mut record, &image, &plan, &foreign)?;
            container.fill_foreign_volumes(&record, &plan).inspect_err(|_| {
                let _in_peace = rooms.creations.read().unwrap_or_else(PoisonError::into_inner);
                rooms.registry.remove(&id);
                container.unmake(&record);
            })
        });
        if let Err(error) = made {
            container.drop_own_foreign_volumes(&record);
            rooms.registry.release_name(&name, &id);
            return Err(error);
        }
        container.event("create", &[]);
        Ok(CreateResponse { id: id.to_string(), warnings })
    }

    fn reserve_name(&self, wanted: Option<String>, id: &Id) -> Result<String> {
        if let Some(name) = wanted {
            self.rooms.registry.reserve(&name, id)?;
            return Ok(name);
        }
        for attempt in 0.. {
            let name = names::random(attempt);
            match self.rooms.registry.reserve(&name, id) {
                Ok(()) => return Ok(name),
                Err(error) if error.kind() == Kind::Conflict && attempt < 100 => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("the loop ends by returning")
    }
}

impl Container {
    /// Everything on disk that a container has before it runs; the record last, as it makes the rest findable.
    fn make(
        &self,
        record: &mut Record,
        image: &Image,
        plan: &Plan,
        foreign: &BTreeMap<String, Foreign>,
    ) -> Result<()> {
        let rooms = &self.rooms;
        let _in_peace = rooms.creations.read().unwrap_or_else(PoisonError::into_inner);
        let made = rooms
            .images
            .hold(&image.id, record.id.as_str(), &record.config.image)
            .and_then(|()| rooms.storage.snapshots.prepare(record.id.as_str(), &record.chain))
            .and_then(|()| match plan.writable_size {
                Some(bytes) => rooms.storage.limit_container(record.id.as_str(), bytes),
                None => Ok(()),
            })
            .and_then(|()| self.make_working_directory(record))
            .and_then(|()| rooms.secrets_stay(&record.host_config))
            .and_then(|()| self.make_mounts(record, plan, foreign))
            .and_then(|()| super::userns::take(record, plan, rooms))
            .and_then(|()| self.save(record.clone()))
            .and_then(|()| rooms.store.delete::<Wish>(record.id.as_str()));
        match &made {
            Ok(()) => rooms.registry.insert(Arc::clone(&self.cell)),
            Err(_) => self.unmake(record),
        }
        made
    }

    /// Where its program will begin is there from now on, as Docker has it. What is mounted over it later is not asked.
    fn make_working_directory(&self, record: &Record) -> Result<()> {
        let (id, path) = (record.id.as_str(), record.config.working_dir.as_str());
        if matches!(path, "" | "/") {
            return Ok(());
        }
        let snapshots = &self.rooms.storage.snapshots;
        // A slash at its end asks for what links lead to.
        let found = Place::find(snapshots.view(id)?.as_fd(), format!("{path}/").as_bytes());
        let Err(error) = found else { return Ok(()) };
        let made = match error.kind() {
            Kind::NotFound => layer::make(
                snapshots.view_writable(id)?.as_fd(),
                path.as_bytes(),
                FileType::Directory,
            ),
            _ => Err(error),
        };
        let not_a_directory = Some(Errno::NOTDIR.raw_os_error());
        made.map_err(|error| match error.errno() == not_a_directory {
            true => Error::internal(format!("Cannot mkdir: {path} is not a directory")),
            false => error,
        })
    }

    /// Takes a half-made container apart again.
    fn unmake(&self, record: &Record) {
        let rooms = &self.rooms;
        rooms.ids.give_back(&record.id);
        let attempts = [
            rooms.storage.snapshots.remove(record.id.as_str()),
            self.drop_images(record),
            rooms.store.delete::<Record>(record.id.as_str()),
            rooms.store.delete::<Wish>(record.id.as_str()),
        ];
        for error in attempts
            .into_iter()
            .filter_map(Result::err)
            .filter(|error| error.kind() != Kind::NotFound)
        {
            tracing::warn!(container = %record.id, error = %error.chain(), "cannot take back a half-made container");
        }
        let of_others = |volume: &&String| {
            let has = |mount: &MountPlan| matches!(&mount.source, Source::Volume { name: Some(name), .. } if name == *volume);
            record.of_others.iter().any(has)
        };
        for volume in record.own_volumes.iter().filter(|volume| !of_others(volume)) {
            // A plugin's cannot be removed in here, and has no directory of ours.
            if let Err(error) = rooms.take_back_volume(volume) {
                tracing::warn!(container = %record.id, error = %error.chain(), "cannot take back an anonymous volume");
            }
        }
    }
}

/// Has the modes that join another container name it by its id: names change.
fn join_by_id(host: &mut HostConfig, registry: &Registry) -> Result<()> {
    let id_of = |mode: &str| {
        let other = mode.strip_prefix("container:").filter(|other| !other.is_empty())?;
        Some(registry.find(other).map(|other| format!("container:{}", other.id)))
    };
    for mode in [&mut host.pid_mode, &mut host.ipc_mode] {
        if let Some(by_id) = id_of(mode) {
            // Not "not found": a client would think of the image.
            *mode = by_id.map_err(|error| error.with_kind(Kind::Invalid))?;
        }
    }
    // Whose network it is need not be there yet, for Docker.
    if let Some(Ok(by_id)) = id_of(&host.network_mode) {
        host.network_mode = by_id;
    }
    Ok(())
}

fn check_platform(image: &Image, wanted: Option<&str>) -> Result<()> {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else { return Ok(()) };
    let wanted: oci::Platform = wanted.parse()?;
    if wanted.matches(&image.platform()) {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "image with reference {} was found but does not provide the specified platform ({wanted})",
        image.repo_tags.first().map_or_else(|| image.id.to_string(), Clone::clone)
    )))
}

/// The request's configuration over the image's. Docker's rules: what the request leaves out, the image decides; lists of
/// variables, labels and ports are joined; an entrypoint in the request drops the image's command.
pub(super) fn merge(mut wanted: Config, theirs: &RunConfig) -> Config {
    let given = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let or = |field: &mut String, image: &str| {
        if field.is_empty() {
            image.clone_into(field);
        }
    };
    or(&mut wanted.user, &theirs.user);
    or(&mut wanted.working_dir, &theirs.working_dir);
    or(&mut wanted.stop_signal, &theirs.stop_signal);
    for port in theirs.exposed_ports.keys() {
        wanted.exposed_ports.entry(port.clone()).or_default();
    }
    for path in theirs.volumes.keys() {
        wanted.volumes.get_or_insert_default().entry(path.clone()).or_default();
    }
    let labels = wanted.labels.get_or_insert_default();
    for (key, value) in &theirs.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let mut env = wanted.env.take().unwrap_or_default();
    let name_of = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    for pair in &theirs.env {
        if !env.iter().any(|own| name_of(own) == name_of(pair)) {
            env.push(pair.clone());
        }
    }
    // Nothing is null, for Docker.
    wanted.env = given(&env);
    wanted.volumes = wanted.volumes.filter(|volumes| !volumes.is_empty());
    if wanted.entrypoint.as_deref().is_none_or(<[String]>::is_empty) {
        if wanted.cmd.as_deref().is_none_or(<[String]>::is_empty) {
            wanted.cmd = given(&theirs.cmd);
        }
        if wanted.entrypoint.is_none() {
            wanted.entrypoint = given(&theirs.entrypoint);
        }
    }
    // `--entrypoint ""` arrives as a list of one empty text: it clears the image's.
    if wanted.entrypoint.as_deref() == Some(&[String::new()]) {
        wanted.entrypoint = None;
    }
    wanted.healthcheck = health::inherit(wanted.healthcheck, theirs.healthcheck.as_ref());
    if let Some(clean) = super::mounts::absolute(&wanted.working_dir) {
        wanted.working_dir = clean;
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<Vec<String>> {
        Some(text.split(' ').map(str::to_owned).collect())
    }

    fn image() -> RunConfig {
        RunConfig {
            entrypoint: vec!["/entry".to_owned()],
            cmd: vec!["default".to_owned()],
            env: vec!["A=1".to_owned(), "B=2".to_owned()],
            ..RunConfig::default()
        }
    }

    #[test]
    fn a_command_keeps_the_entrypoint() {
        let merged = merge(Config { cmd: words("x"), ..Config::default() }, &image());
        assert_eq!((merged.entrypoint, merged.cmd), (words("/entry"), words("x")));
    }

    #[test]
    fn an_entrypoint_drops_the_command() {
        let merged = merge(Config { entrypoint: words("sh"), ..Config::default() }, &image());
        assert_eq!((merged.entrypoint, merged.cmd), (words("sh"), None));
    }

    #[test]
    fn an_empty_entrypoint_clears_the_images() {
        let merged =
            merge(Config { entrypoint: words(""), cmd: words("x"), ..Config::default() }, &image());
        assert_eq!((merged.entrypoint, merged.cmd), (None, words("x")));
    }

    #[test]
    fn a_directory_is_written_cleanly_and_the_shell_is_the_images() {
        let wanted = Config { working_dir: "/../up/./here/".to_owned(), ..Config::default() };
        let image = RunConfig { shell: vec!["/bin/ash".to_owned()], ..image() };
        let merged = merge(wanted, &image);
        assert_eq!((merged.working_dir.as_str(), merged.shell), ("/up/here", None));
    }

    #[test]
    fn variables_are_joined() {
        let merged = merge(Config { env: words("B=x"), ..Config::default() }, &image());
        assert_eq!(merged.env, words("B=x A=1"));
        let empty = Config { env: Some(Vec::new()), volumes: Some([].into()), ..Config::default() };
        let merged = merge(empty, &RunConfig::default());
        assert_eq!((merged.env, merged.volumes), (None, None));
    }
}
