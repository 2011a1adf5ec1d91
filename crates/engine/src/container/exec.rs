//! `docker exec`: one more process in a running container.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::exec::{CreateBody, Inspect, ProcessConfig, StartBody};
use stdx::{Error, Id, Result};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use super::attach::{self, Attached, DetachKeys, Over};
use super::plan;
use super::start::words;
use super::state::Phase;
use super::{Container, spec};

/// How long the end of an exec's stream waits for its exit code. The two come from the shim at the same time; later than
/// this comes only the code of an exec whose client has parted from it.
const EXIT_CODE_TIME: Duration = Duration::from_secs(2);
/// How many may be asked for in one container before more are refused.
const PER_CONTAINER: usize = 256;

/// All execs that somebody may still ask about.
#[derive(Default)]
pub(crate) struct Execs(Mutex<HashMap<String, Arc<Cell>>>);

struct Cell {
    id: String,
    container: Container,
    body: CreateBody,
    /// After so long the shim ends it.
    limit: Option<Duration>,
    now: Mutex<Now>,
    over: watch::Sender<bool>,
}

#[derive(Clone, Default)]
struct Now {
    running: bool,
    started: bool,
    exit_code: Option<i32>,
    ended: Option<Instant>,
    overdue: bool,
    pid: u32,
}

/// How an exec has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    code: i32,
    overdue: bool,
}

impl From<&shim::ExecExit> for Ended {
    fn from(exit: &shim::ExecExit) -> Self {
        Self { code: exit.code, overdue: exit.overdue }
    }
}

impl From<i32> for Ended {
    fn from(code: i32) -> Self {
        Self { code, overdue: false }
    }
}

/// What a program that was run for its answer has said.
pub(crate) struct Answer {
    pub(crate) code: i32,
    /// Its time was over before it ended.
    pub(crate) overdue: bool,
    said: Vec<u8>,
    cut: bool,
}

impl Answer {
    /// Both of its streams, as they came; dots stand for what was too much.
    pub(crate) fn output(&self) -> String {
        let dots = if self.cut { "..." } else { "" };
        format!("{}{dots}", String::from_utf8_lossy(&self.said))
    }
}

/// A handle on one exec.
#[derive(Clone)]
pub struct Exec(Arc<Cell>);

/// What a start gives the client.
#[derive(Debug)]
pub enum ExecStarted {
    Detached,
    Attached(Attached),
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Cell>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn find(&self, id: &str) -> Result<Exec> {
        let found = self.lock().get(id).cloned().map(Exec);
        found.ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }

    /// Forgets those of a container that is no more.
    pub(crate) fn forget(&self, container: &Id) {
        self.lock().retain(|_, exec| exec.container.id() != container);
    }

    /// The ids of those that run in a container.
    pub(crate) fn running_in(&self, container: &Id) -> Vec<String> {
        let all = self.lock();
        let mut ids: Vec<_> = all
            .values()
            .filter(|e| e.container.id() == container && e.now().running)
            .map(|e| e.id.clone())
            .collect();
        ids.sort();
        ids
    }
}

/// Finished ones are kept for those who ask for their code, until their container is full of them: then those go that have
/// waited longest. Who has just ended is still to be asked about.
fn to_forget<T: Ord>(mut finished: Vec<(T, String)>) -> impl Iterator<Item = String> {
    finished.sort();
    let half = finished.len().div_ceil(2);
    finished.into_iter().take(half).map(|(_, id)| id)
}

impl Cell {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Container {
    /// Prepares an exec; nothing runs yet. `called` is how the client calls the container.
    pub async fn exec_create(&self, called: &str, body: CreateBody) -> Result<String> {
        self.exec_prepare(called, body, None)
    }

    fn exec_prepare(
        &self,
        called: &str,
        body: CreateBody,
        limit: Option<Duration>,
    ) -> Result<String> {
        let record = self.record();
        if body.cmd.as_deref().unwrap_or_default().is_empty() {
            return Err(Error::invalid("No exec command specified"));
        }
        plan::check_env(body.env.as_deref().unwrap_or_default())?;
        plan::check_words(body.cmd.iter().flatten())?;
        self.may_exec(called)?;
        DetachKeys::parse(Some(&body.detach_keys))?;
        let id = Id::random().to_string();
        let command = body.cmd.clone().unwrap_or_default().join(" ");
        let exec = Cell {
            id: id.clone(),
            container: self.clone(),
            body,
            limit,
            now: Mutex::default(),
            over: watch::Sender::new(false),
        };
        {
            let mut all = self.rooms.execs.lock();
            let of_this = || all.values().filter(|other| other.container.id() == &record.id);
            if of_this().count() >= PER_CONTAINER {
                let finished: Vec<_> = of_this()
                    .filter_map(|other| Some((other.now().ended?, other.id.clone())))
                    .collect();
                if finished.is_empty() {
                    return Err(Error::conflict(format!(
                        "container {} has {PER_CONTAINER} execs already",
                        record.id
                    )));
                }
                for id in to_forget(finished) {
                    all.remove(&id);
                }
            }
            all.insert(id.clone(), Arc::new(exec));
        }
        self.event(format!("exec_create: {command}"), &[("execID", id.clone())]);
        Ok(id)
    }

    /// Runs a health check's `command` for what it says, up to `most` bytes, and how it ends; no longer than `limit`.
    pub(crate) async fn exec_for_answer(
        &self,
        command: &[String],
        limit: Duration,
        most: usize,
    ) -> Result<Answer> {
        let body = CreateBody {
            cmd: Some(command.to_vec()),
            attach_stdout: true,
            attach_stderr: true,
            ..CreateBody::default()
        };
        let begun = Instant::now();
        let id = self.exec_prepare(self.id().as_str(), body, Some(limit))?;
        let exec = self.rooms.execs.find(&id)?;
        let answer = exec.answer(most, || self.rooms.metrics.health_check_start.since(begun)).await;
        // Nobody else knows of it.
        self.rooms.execs.lock().remove(&id);
        answer
    }

    fn may_exec(&self, called: &str) -> Result<()> {
        let record = self.record();
        match record.state.phase {
            Phase::Running => Ok(()),
            Phase::Paused => Err(Error::conflict(format!(
                "Container {called} is paused, unpause the container before exec"
            ))),
            Phase::Restarting => Err(Error::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                record.id
            ))),
            _ => Err(Error::conflict(format!("container {} is not running", record.id))),
        }
    }

    /// An exec of this container has ended.
    pub(crate) fn exec_exited(&self, id: &str, ended: Ended) {
        let Ok(Exec(exec)) = self.rooms.execs.find(id) else { return };
        {
            let mut now = exec.now();
            if now.exit_code.is_some() {
                return;
            }
            now.running = false;
            now.exit_code = Some(ended.code);
            now.ended = Some(Instant::now());
            now.overdue = ended.overdue;
        }
        exec.over.send_replace(true);
        self.event("exec_die", &[("execID", id.to_owned()), ("exitCode", ended.code.to_string())]);
    }

    /// The container has ended, and every exec with it.
    pub(crate) fn execs_ended(&self) {
        for id in self.rooms.execs.running_in(&self.cell.id) {
            self.exec_exited(&id, Ended::from(137));
        }
    }
}

impl Exec {
    /// Runs it. Once only.
    pub async fn start(&self, body: StartBody) -> Result<ExecStarted> {
        let exec = Arc::clone(&self.0);
        tokiox::to_the_end(async move { start(&exec, body).await }).await
    }

    /// Runs it, says when it does, and takes what it says until it ends.
    async fn answer(&self, most: usize, started: impl FnOnce()) -> Result<Answer> {
        let ExecStarted::Attached(mut attached) = self.start(StartBody::default()).await? else {
            return Err(Error::internal("an exec that was to be listened to runs detached"));
        };
        started();
        let (mut said, mut cut) = (Vec::new(), false);
        let mut frames = api::stream::Decoder::new();
        let mut buffer = [0; 4096];
        loop {
            let count = attached.stream.read(&mut buffer).await?;
            if count == 0 {
                break;
            }
            let mut bytes = &buffer[..count];
            while let Some((_, piece)) = frames.next(&mut bytes).map_err(|strange| {
                Error::internal(format!("an exec speaks strangely: {strange}"))
            })? {
                let room = most.saturating_sub(said.len()).min(piece.len());
                said.extend_from_slice(&piece[..room]);
                cut |= room < piece.len();
            }
        }
        // The stream ends with the process, but a shim that is killed ends it first.
        let mut over = self.0.over.subscribe();
        let _kept_by_us = over.wait_for(|over| *over).await;
        let now = self.0.now().clone();
        let code = now.exit_code.unwrap_or(NEVER_BEGAN);
        Ok(Answer { code, overdue: now.overdue, said, cut })
    }

    pub async fn resize(&self, height: u16, width: u16) -> Result<()> {
        let exec = &self.0;
        if !exec.now().running {
            return Err(Error::conflict(format!("exec process {} is not running", exec.id)));
        }
        let target = shim::Target::Exec(exec.id.clone());
        let size = shim::Size { rows: height, columns: width };
        exec.container.with_shim(move |shim| shim.resize(target, size)).await
    }

    pub fn inspect(&self) -> Inspect {
        let Cell { id, container, body, .. } = &*self.0;
        let now = self.0.now().clone();
        let command = body.cmd.clone().unwrap_or_default();
        let (entrypoint, arguments) = match command.split_first() {
            Some((first, rest)) => (first.clone(), rest.to_vec()),
            None => Default::default(),
        };
        Inspect {
            id: id.clone(),
            running: now.running,
            exit_code: now.exit_code.map(i64::from),
            process_config: ProcessConfig {
                tty: body.tty,
                entrypoint,
                arguments,
                privileged: Some(body.privileged),
                user: body.user.clone(),
            },
            open_stdin: body.attach_stdin,
            open_stdout: body.attach_stdout,
            open_stderr: body.attach_stderr,
            can_remove: now.exit_code.is_some(),
            container_id: container.id().to_string(),
            pid: i64::from(now.pid),
            ..Inspect::default()
        }
    }
}

async fn start(exec: &Arc<Cell>, body: StartBody) -> Result<ExecStarted> {
    let container = &exec.container;
    container.may_exec(container.id().as_str())?;
    {
        let mut now = exec.now();
        if now.started {
            let word = if now.running { "is already running" } else { "has already run" };
            return Err(Error::conflict(format!("Error: Exec command {} {word}", exec.id)));
        }
        now.started = true;
        now.running = true;
    }
    let outcome = run(exec, body).await;
    if let Err((code, _)) = &outcome {
        container.exec_exited(&exec.id, Ended::from(*code));
    }
    outcome.map_err(|(_, failure)| failure)
}

/// The exit code of one that cannot be begun.
const NEVER_BEGAN: i32 = 126;

async fn run(exec: &Arc<Cell>, body: StartBody) -> Result<ExecStarted, (i32, Error)> {
    let never_began = |error: Error| (NEVER_BEGAN, error);
    let (container, wanted) = (&exec.container, &exec.body);
    let record = container.record();
    let mut plan = record
        .plan(&container.rooms.settings())
        .and_then(|plan| container.with_identity_of_others(plan))
        .map_err(never_began)?;
    // Where one of them is down, nothing is told, and nobody is kept out.
    let linked = container.linked(&record).unwrap_or_default();
    plan.env.splice(0..0, linked.iter().flat_map(|linked| linked.environment(&record.name)));
    let keys = DetachKeys::parse(Some(&wanted.detach_keys)).map_err(never_began)?;
    let mut request = shim::ExecRequest {
        id: exec.id.clone(),
        process: spec::exec(&plan, &plan.hostname(&record.id), wanted),
        tty: wanted.tty,
        size: body.console_size.or(wanted.console_size).and_then(super::start::size),
        attach: None,
        limit: exec.limit,
    };
    let mut client = None;
    if !body.detach {
        let (ours, theirs) = attach::pair().map_err(never_began)?;
        let options = shim::AttachOptions {
            stdin: wanted.attach_stdin,
            stdout: wanted.attach_stdout,
            stderr: wanted.attach_stderr,
            framed: Some(!body.tty),
        };
        request.attach = Some((options, theirs));
        client = Some(attach::to_async(ours).map_err(never_began)?);
    }
    let command = wanted.cmd.clone().unwrap_or_default().join(" ");
    container.event(format!("exec_start: {command}"), &[("execID", exec.id.clone())]);
    let started = container
        .with_shim(move |shim| {
            Ok(shim.exec(request).map_err(|failure| {
                let code = failure.exit_code.filter(|code| *code == 127).unwrap_or(NEVER_BEGAN);
                (code, words("OCI runtime exec failed: exec failed", code, failure.error))
            }))
        })
        .await
        .unwrap_or_else(|lost| Err(never_began(lost)));
    exec.now().pid = started?;
    let Some(stream) = client else { return Ok(ExecStarted::Detached) };
    Ok(ExecStarted::Attached(Attached {
        tty: body.tty,
        stream,
        detach: (wanted.tty && wanted.attach_stdin).then_some(keys),
        replay: None,
        over: Some(Over::new(exec.over.subscribe()).within(EXIT_CODE_TIME)),
    }))
}
