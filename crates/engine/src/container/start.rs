//! The one way in: take what it needs, launch, and give everything back if that fails.

use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use api::network::Endpoints;
use network::{Attachment, PublishedPort};
use oci::runtime::{NamespaceType, Rootfs};
use runtime::seccomp::Compiled;
use shim::{Checkpoint, Launch, LaunchError, Launched};
use stdx::{Context, Error, Kind, Result};
use tokio::sync::MutexGuard;

use super::Container;
use super::plan::{Ipc, Network, Pid, Plan, SeccompPlan};
use super::record::Record;
use super::spec::{self, Surroundings};
use super::state::{Event, Phase};
use super::volumes::Held;
use super::{block_io, cdi, endpoints, tree};
use crate::apparmor::{self, DEFAULT};

impl Container {
    /// Starts the container; the answer comes when its program has been executed. `Kind::NotModified` when it runs.
    pub async fn start(&self) -> Result<()> {
        self.start_with(None).await
    }

    /// The same, where a checkpoint has left it.
    pub(crate) async fn start_with(&self, checkpoint: Option<Checkpoint>) -> Result<()> {
        let (this, start) = (self.clone(), Instant::now());
        tokiox::to_the_end(async move {
            let gate = this.cell.gate.lock().await;
            this.start_held(gate, checkpoint).await
        })
        .await?;
        self.rooms.metrics.start.since(start);
        Ok(())
    }

    pub(crate) async fn start_held(
        &self,
        gate: MutexGuard<'_, ()>,
        checkpoint: Option<Checkpoint>,
    ) -> Result<()> {
        let record = self.record();
        if record.gone {
            return Err(Error::not_found(format!("No such container: {}", record.id)));
        }
        match record.state.phase {
            Phase::Running => {
                return Err(Error::new(Kind::NotModified, "container is already running"));
            }
            Phase::Paused => {
                return Err(Error::conflict(
                    "cannot start a paused container, try unpause instead",
                ));
            }
            Phase::Removing => {
                return Err(Error::conflict(
                    "container is marked for removal and cannot be started",
                ));
            }
            Phase::Dead => {
                return Err(Error::conflict("container is marked dead and cannot be started"));
            }
            Phase::Created | Phase::Exited | Phase::Restarting => {}
        }
        let leaving = self.cell.live().leaving.take();
        if let Some(leaving) = leaving {
            // It only fails by being aborted, which nobody does.
            leaving.await.unwrap_or_default();
        }
        // Held until it is known that it runs: who comes next finds the volume with it.
        let _one_after_the_other = match tokiox::waiting(|| self.has_volumes_in_memory())? {
            true => Some(self.rooms.volumes_in_memory.lock().await),
            false => None,
        };
        let this = self.clone();
        let outcome = tokiox::blocking(move || this.acquire_and_launch(&record, checkpoint)).await;
        match outcome {
            Ok(Running { launched, endpoints, ports }) => {
                if let Err(error) = self.write_down(&launched, endpoints, ports) {
                    self.take_back(launched.watch).await;
                    self.clients_may_go();
                    return Err(error);
                }
                self.rooms.images.set_running(self.cell.id.as_str(), true);
                self.follow(launched.watch);
                self.tell_parents();
                self.tell_mounted(&self.record());
                self.event("start", &[]);
                Ok(())
            }
            Err(failure) => {
                self.release().await;
                let event =
                    Event::StartFailed { code: failure.exit_code, error: failure.error.chain() };
                let written = self.apply(event);
                // Whoever attached for this start has nothing to wait for.
                self.clients_may_go();
                written?;
                if self.record().host().auto_remove
                    && let Err(error) = self.remove_held(true).await
                {
                    tracing::warn!(container = %self.cell.id, error = %error.chain(), "cannot remove what did not start");
                }
                drop(gate);
                Err(failure.error)
            }
        }
    }

    fn write_down(
        &self,
        launched: &Launched,
        endpoints: Endpoints,
        ports: Vec<PublishedPort>,
    ) -> Result<()> {
        let mut record =
            self.after(Event::Started { pid: launched.pid, at: launched.started_at })?;
        record.stopped_by_hand = false;
        record.endpoints = endpoints;
        tokiox::waiting(|| self.rooms.tell_mountpoints(&record.id, &mut record.mounts))?;
        record.ports = ports;
        if self.record().state.phase != Phase::Restarting {
            record.restart_count = 0;
            self.cell.live().last_pause = None;
        }
        self.save(record)
    }

    /// What could not be written down does not run on.
    async fn take_back(&self, watch: shim::Watch) {
        if let Err(error) = self.with_shim(|shim| shim.kill(9, shim::Whom::All)).await {
            tracing::warn!(container = %self.cell.id, error = %error.chain(), "cannot take a start back");
        }
        let _exit_or_late = tokio::time::timeout(super::stop::DEATH, self.listen(watch)).await;
        self.release().await;
    }

    /// Everything between the wish and the running process, on a thread that may wait.
    fn acquire_and_launch(
        &self,
        record: &Record,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Running, LaunchError> {
        let rooms = &self.rooms;
        let plan = record.plan(&rooms.settings())?;
        let mut mapped = self.user_namespace(record, &plan)?;
        let network = mapped.as_mut().and_then(|mapped| mapped.network.take());
        let start = Instant::now();
        let attachment = self.acquire_network(record, &plan, network)?;
        rooms.metrics.allocate.since(start);
        let data_dir = rooms.data_dir(&record.id);
        make_dir(&data_dir, 0o710)?;
        let dir = rooms.exec_dir(&record.id);
        make_dir(&dir, 0o700)?;
        let mut devices =
            plan.devices.iter().map(spec::Device::stat).collect::<Result<Vec<_>>>()?;
        if plan.privileged {
            devices = vec![spec::Device::all()?];
        }
        let joined = self.resolve_joins(&plan)?;
        let mut plan = self.with_identity_of_others(plan)?;
        let linked = self.linked(record)?;
        plan.env.splice(0..0, linked.iter().flat_map(|linked| linked.environment(&record.name)));
        let mut held = Held::default();
        let ids = mapped.as_ref().map(|mapped| &mapped.ids);
        let secrets = self.hand_over_secrets(&plan, ids, &mut held)?;
        let mut surroundings = Surroundings {
            id: record.id.to_string(),
            hostname: plan.hostname(&record.id),
            files: self.write_files(record, &plan, &attachment)?,
            mounts: self.resolve_mounts(record, &plan, mapped.as_ref(), &mut held)?,
            join: joined.namespaces,
            shares_shm: joined.shm.is_some(),
            ids: mapped.as_ref().map(|mapped| mapped.ids.clone()),
            devices: devices.concat(),
            block_io: block_io::look_up(&plan.block_devices)?,
            cgroups_path: spec::cgroups_path(
                rooms.settings().cgroup_driver,
                &plan.cgroup_parent,
                record.id.as_str(),
            ),
            groups: runtime::userns::groups_from_root(),
            cgroup_v2: runtime::cgroup::Mode::detect()? == runtime::cgroup::Mode::V2,
            seccomp: None,
        };
        surroundings.mounts.extend(secrets);
        if plan.apparmor == DEFAULT {
            apparmor::load_default()?;
        }
        let mut filter = self.filter(&plan)?;
        // Other runtimes have only the document; so has a supervisor that is told of a filter.
        if let Some(compiled) =
            filter.take_if(|filter| plan.runtime.is_some() || filter.program.notifies())
        {
            surroundings.seccomp = Some(compiled.profile.clone());
        }
        let endpoints = endpoints::connected(record, &attachment.endpoints, &rooms.networks);
        let ports = super::connect::published(&attachment);
        let mut logs = self.log_config(record).context(|| TASK.to_owned())?;
        logs.leave_keeping_to_plugin();
        let mut spec = spec::spec(&plan, &surroundings);
        cdi::inject(&mut spec, &plan.device_requests, &rooms.settings().cdi_spec_dirs)?;
        let launched = rooms.launcher.launch(Launch {
            id: record.id.to_string(),
            spec,
            rootfs: self.rootfs(record)?,
            netns: attachment.netns,
            userns: mapped.map(|mapped| mapped.user),
            trees: std::mem::take(&mut held.trees)
                .into_iter()
                .chain(joined.shm.map(|shm| (PathBuf::from("/dev/shm"), shm)))
                .collect(),
            logs,
            open_stdin: record.config.open_stdin,
            stdin_once: record.config.stdin_once,
            tty: record.config.tty,
            size: size(record.host().console_size),
            attach: std::mem::take(&mut self.cell.live().waiting_attaches),
            init: plan.init,
            filter: filter.map(|filter| filter.program.clone()),
            cgroup_driver: rooms.settings().cgroup_driver,
            runtime: plan.runtime.clone(),
            checkpoint,
            dir,
        });
        drop(held);
        let launched = launched.map_err(|failure| LaunchError {
            error: words(
                &format!("{TASK}: failed to create shim task: OCI runtime create failed"),
                failure.exit_code,
                failure.error,
            ),
            ..failure
        })?;
        Ok(Running { launched, endpoints, ports })
    }

    /// What goes with the container's end need not be written to disk by then.
    fn rootfs(&self, record: &Record) -> Result<Rootfs> {
        let mut rootfs = self.rooms.storage.snapshots.rootfs(record.id.as_str())?;
        if let Rootfs::Overlay { volatile, .. } = &mut rootfs {
            *volatile = record.host().auto_remove;
        }
        Ok(rootfs)
    }

    fn filter(&self, plan: &Plan) -> Result<Option<Arc<Compiled>>> {
        let profile = match &plan.seccomp {
            SeccompPlan::Unconfined => return Ok(None),
            SeccompPlan::Default => None,
            SeccompPlan::Profile(text) => Some(text.as_str()),
        };
        self.rooms.seccomp.compile(profile, plan.capabilities.iter().cloned()).map(Some)
    }

    /// `own` is a namespace for it that belongs to the container's users.
    fn acquire_network(
        &self,
        record: &Record,
        plan: &Plan,
        own: Option<OwnedFd>,
    ) -> Result<Attachment> {
        let networks = &self.rooms.networks;
        match &plan.network {
            Network::Container(other) => {
                // It is this container that cannot be started, not the other that was asked for.
                let path = self
                    .namespace_of(other, "net")
                    .map_err(|error| error.with_kind(Kind::Internal))
                    .context(|| "joining network namespace of container".to_owned())?;
                networks.join(&path)
            }
            Network::Host | Network::None | Network::Named(_) => self
                .attach_request(record, plan)
                .and_then(|request| networks.attach_in(&request, own))
                .context(|| "failed to set up container networking".to_owned()),
        }
    }

    /// Namespaces of other containers that this one lives in, and the shared memory that comes with one.
    fn resolve_joins(&self, plan: &Plan) -> Result<Joined> {
        let mut joined = Joined::default();
        if let Pid::Container(other) = &plan.pid {
            let path = self
                .namespace_of(other, "pid")
                .context(|| "failed to join PID namespace".to_owned())?;
            joined.namespaces.push((NamespaceType::Pid, path));
        }
        if let Ipc::Container(other) = &plan.ipc {
            let words = || "failed to join IPC namespace".to_owned();
            let path = self.namespace_of(other, "ipc").context(words)?;
            joined.namespaces.push((NamespaceType::Ipc, path));
            let other = self.rooms.registry.find(other)?.record();
            let theirs = other.plan(&self.rooms.settings())?;
            if !matches!(theirs.ipc, Ipc::Shareable) {
                return Err(Error::invalid(
                    "non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                ))
                .context(words);
            }
            joined.shm = Some(tree::clone_of(other.state.pid, "dev/shm").context(words)?);
        }
        Ok(joined)
    }

    /// A container in another's network bears its name: both read the same files.
    pub(crate) fn with_identity_of_others(&self, mut plan: Plan) -> Result<Plan> {
        if let Network::Container(other) = &plan.network
            && let Ok(other) = self.rooms.registry.find(other)
        {
            let other = other.record();
            let theirs = other.plan(&self.rooms.settings())?;
            plan.hostname = theirs.hostname(&other.id);
            plan.domainname = theirs.domainname;
        }
        Ok(plan)
    }

    pub(crate) fn namespace_of(&self, other: &str, kind: &str) -> Result<PathBuf> {
        let other = self.rooms.registry.find(other)?;
        let state = &other.record().state;
        match state.phase {
            phase if phase.is_up() => Ok(PathBuf::from(format!("/proc/{}/ns/{kind}", state.pid))),
            Phase::Restarting => Err(Error::conflict(format!(
                "container {} is restarting, wait until the container is running",
                other.id
            ))),
            _ => Err(Error::internal(format!("container {} is not running", other.id))),
        }
    }
}

/// What a failure begins with where all was there that a runtime needs.
pub(super) const TASK: &str = "failed to create task for container";

/// A failure of the runtime as Docker tells it. Its clients look into the sentence for what to exit with.
pub(super) fn words(what: &str, exit_code: i32, error: Error) -> Error {
    let kind = if matches!(exit_code, 126 | 127) { Kind::Invalid } else { error.kind() };
    let chain = error.chain();
    // Docker's daemon looks users up itself, before its runtime is asked.
    let lookups = ["unable to find user", "unable to find group", "uids and gids must be in range"];
    if lookups.iter().any(|begin| chain.starts_with(begin)) {
        return Error::new(kind, chain);
    }
    // Before any runtime is asked, too.
    if chain.starts_with("failed to initialize logging driver") {
        return Error::new(kind, format!("{TASK}: {chain}"));
    }
    // It makes the working directory when it makes the container.
    if what.starts_with("failed to create task")
        && let Some((_, rest)) = chain.split_once("chdir to cwd (\"")
        && let Some((cwd, "")) = rest.split_once("\") set in config.json failed: not a directory")
    {
        return Error::new(kind, format!("Cannot mkdir: {cwd} is not a directory"));
    }
    let begin = "unable to start container process: ";
    let begin = if chain.contains(begin) { "" } else { begin };
    Error::new(kind, format!("{what}: {begin}{chain}: unknown"))
}

/// What a container shares with others.
#[derive(Default)]
struct Joined {
    namespaces: Vec<(NamespaceType, PathBuf)>,
    shm: Option<OwnedFd>,
}

/// What a successful launch leaves in our hands.
struct Running {
    launched: Launched,
    endpoints: Endpoints,
    ports: Vec<PublishedPort>,
}

/// Height and width as clients send them; zeros mean that they do not know.
pub(crate) fn size([height, width]: [u32; 2]) -> Option<shim::Size> {
    let fit = |number: u32| u16::try_from(number).ok().filter(|number| *number > 0);
    Some(shim::Size { rows: fit(height)?, columns: fit(width)? })
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).context(|| format!("cannot make {}", path.display()))
        }
        _ => Ok(()),
    }
}
