//! The container as its shim holds it: one process, its streams, its log, its execs, its end.

mod end;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use oci::runtime::{ConsoleSize, Process};
use rustix::event::PollFlags;
use rustix::process::{Pid, WaitOptions, WaitStatus};
use serde::Serialize;
use serde_json::Value;
use stdx::time::Timestamp;
use stdx::{Context, Error, Result};
use sys::process::Fork;

use crate::exec::{self, Asker, Exec, Starting, Wanted};
use crate::exit::{self, Exit};
use crate::logs::Log;
use crate::oom::Oom;
use crate::protocol::{
    AttachOptions, Event, ExecExit, ExecReply, Failure, LaunchCall, Request, Size, Stage, State,
    Status, Target, VERSION, Whom,
};
use crate::ring::Owed;
use crate::stdio::{Ends, Part, StdinMode, Stdio};
use crate::task::{self, Borrowed, Created, Streams, Task, failure, write_spec};

const SIGKILL: i32 = 9;

#[derive(Debug)]
pub(crate) struct Container {
    id: String,
    dir: PathBuf,
    task: Task,
    started_at: Timestamp,
    stdio: Stdio,
    log: Log,
    execs: Vec<Exec>,
    starting: Vec<Starting>,
    /// Children that ended while an exec was starting, and are none that is known.
    strays: Vec<Stray>,
    answers: Vec<(Asker, Result<Value, Failure>)>,
    exec_exits: VecDeque<ExecExit>,
    oom: Oom,
    paused: bool,
    phase: Phase,
    compressing: Option<Pid>,
    scratch: Vec<u8>,
    /// What watchers are to be told.
    news: Vec<Event>,
}

#[derive(Debug)]
enum Phase {
    Running,
    /// Init has ended; the streams may have not.
    Draining {
        exit: Exit,
        until: Instant,
    },
    /// Everything was read, but the record could not be written: try again.
    Unrecorded {
        exit: Exit,
        again: Instant,
    },
    /// The record is on disk; the cgroup remains until everybody is told.
    Recorded {
        exit: Exit,
        cgroup: Remains,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remains {
    Yes,
    No,
}

#[derive(Debug)]
struct Stray {
    pid: Pid,
    code: i32,
    at: Timestamp,
}

/// Whose part is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Oom,
    Init(Part),
    Exec(usize, Part),
    Starting(usize),
    Log,
}

impl Container {
    /// Brings it to life: answers when the user's program has been executed.
    pub(crate) fn launch(call: LaunchCall, mut passed: Vec<OwnedFd>) -> Result<Self, Failure> {
        let at = |stage| move |error| failure(stage, error);
        let ours = usize::from(call.userns) + usize::from(call.netns) + call.trees.len();
        if passed.len() != ours + call.attach.len() {
            return Err(failure(
                Stage::Create,
                Error::invalid("descriptors are missing from the launch request"),
            ));
        }
        let userns = call.userns.then(|| passed.remove(0));
        let netns = call.netns.then(|| passed.remove(0));
        let streams_to_attach = passed.split_off(call.trees.len());
        let trees = call.trees.iter().cloned().zip(passed).collect();
        exit::forget(&call.dir).map_err(at(Stage::Create))?;
        write_spec(&call.dir, &call.spec).map_err(at(Stage::Create))?;
        let log = Log::open(&call.logs).map_err(at(Stage::Create))?;

        let mode = match (call.open_stdin, call.stdin_once) {
            (false, _) => StdinMode::Closed,
            (true, false) => StdinMode::Open,
            (true, true) => StdinMode::Once,
        };
        let (mut stdio, ends) = streams(call.tty, mode).map_err(at(Stage::Create))?;
        for (options, stream) in call.attach.iter().zip(streams_to_attach) {
            let stream = UnixStream::from(stream);
            stdio.attach(*options, stream, Owed::All).map_err(at(Stage::Create))?;
        }
        stdio.wait_not_for_ever();

        let around = task::location(&call).ok().and_then(|group| group.oom_kills_around());
        let mut created = Created::new(&call, Borrowed { userns, netns, trees }, ends)?;
        if let Some(master) = created.terminal.take() {
            stdio.set_master(master).map_err(at(Stage::Create))?;
            if let Some(size) = call.size {
                stdio.resize(size).map_err(at(Stage::Create))?;
            }
        }
        let mut task = created.start()?;
        let oom = Oom::of(&mut task.cgroup, around);
        Ok(Self {
            id: call.id,
            dir: call.dir,
            task,
            started_at: Timestamp::now(),
            stdio,
            log,
            execs: Vec::new(),
            starting: Vec::new(),
            strays: Vec::new(),
            answers: Vec::new(),
            exec_exits: VecDeque::new(),
            oom,
            paused: false,
            phase: Phase::Running,
            compressing: None,
            scratch: Vec::new(),
            news: Vec::new(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.task.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub(crate) fn started_at(&self) -> Timestamp {
        self.started_at
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn state(&self) -> State {
        State {
            id: self.id.clone(),
            version: VERSION,
            shim_pid: std::process::id(),
            pid: self.pid(),
            status: match (&self.phase, self.paused) {
                (Phase::Recorded { .. }, _) => Status::Exited,
                (_, true) => Status::Paused,
                (_, false) => Status::Running,
            },
            started_at: self.started_at,
            exit: self.exit().cloned(),
            oom_seen: self.oom.seen(),
            execs: self.execs.iter().filter(|exec| exec.is_running()).map(Exec::state).collect(),
            exec_exits: self.exec_exits.iter().cloned().collect(),
            log_lines_dropped: self.log.dropped(),
        }
    }

    /// Its end, once the record is on disk.
    pub(crate) fn exit(&self) -> Option<&Exit> {
        match &self.phase {
            Phase::Recorded { exit, .. } => Some(exit),
            Phase::Running | Phase::Draining { .. } | Phase::Unrecorded { .. } => None,
        }
    }

    pub(crate) fn has_clients(&self) -> bool {
        self.stdio.has_clients()
            || !self.log.is_sent()
            || !self.starting.is_empty()
            || self.execs.iter().any(|exec| exec.stdio.has_clients())
    }

    pub(crate) fn take_news(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.news)
    }

    /// What is asked of a container and answered at once. The shim's own affairs (watching, deleting) are the server's.
    pub(crate) fn answer(
        &mut self,
        request: Request,
        passed: Vec<OwnedFd>,
    ) -> Result<Value, Failure> {
        Ok(match request {
            Request::State => value(&self.state()),
            Request::Kill { signal, whom } => value(&self.kill(signal, whom)?),
            Request::Pause => value(&self.pause()?),
            Request::Resume => value(&self.resume()?),
            Request::Update { resources } => {
                self.must_run()?;
                value(&self.task.cgroup.update(&resources)?)
            }
            Request::Stats => {
                self.must_run()?;
                value(&self.task.cgroup.stats()?)
            }
            Request::Processes => {
                self.must_run()?;
                let processes = self.task.processes()?;
                value(&processes.iter().map(|pid| pid.as_raw_nonzero().get()).collect::<Vec<_>>())
            }
            Request::Resize { target, size } => value(&self.stdio_of(&target)?.resize(size)?),
            Request::CloseStdin { target } => value(&self.stdio_of(&target)?.close_stdin()),
            Request::Attach { options } => {
                let stream = passed
                    .into_iter()
                    .next()
                    .ok_or_else(|| Error::invalid("no stream to attach"))?;
                value(&self.attach(options, UnixStream::from(stream))?)
            }
            Request::RotateLogs => value(&self.log.rotate()?),
            Request::ReopenLogs => value(&self.log.reopen()?),
            Request::Exec { .. } | Request::Watch | Request::Delete => {
                return Err(Error::internal("not the container's to answer").into());
            }
        })
    }

    fn must_run(&self) -> Result<()> {
        match self.phase {
            Phase::Running => Ok(()),
            _ => Err(Error::conflict(format!("container {} is not running", self.id))),
        }
    }

    fn kill(&mut self, signal: i32, whom: Whom) -> Result<()> {
        self.must_run()?;
        match whom {
            Whom::Init => sys::signal::send(self.task.pidfd.as_fd(), signal)
                .context(|| format!("cannot send signal {signal}"))?,
            Whom::All if signal == SIGKILL && !self.task.has_no_group() => {
                self.task.cgroup.kill_all()?;
            }
            Whom::All => {
                for pid in self.task.processes()? {
                    // Who has ended meanwhile needs no signal.
                    let _gone = sys::signal::kill(pid.as_raw_nonzero().get(), signal);
                }
            }
        }
        if self.paused && signal == SIGKILL {
            // A frozen task dies when it thaws.
            self.resume()?;
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<()> {
        self.must_run()?;
        if self.paused {
            return Err(Error::conflict(format!("container {} is already paused", self.id)));
        }
        if let Err(error) = self.task.cgroup.freeze() {
            // Half frozen is not a state anybody can be left in.
            self.task.cgroup.thaw()?;
            return Err(error);
        }
        self.paused = true;
        self.news.push(Event::Paused);
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        self.must_run()?;
        if !self.paused {
            return Err(Error::conflict(format!("container {} is not paused", self.id)));
        }
        self.task.cgroup.thaw()?;
        self.paused = false;
        self.news.push(Event::Resumed);
        Ok(())
    }

    fn stdio_of(&mut self, target: &Target) -> Result<&mut Stdio> {
        match target {
            Target::Init => {
                self.must_run()?;
                Ok(&mut self.stdio)
            }
            Target::Exec(id) => {
                let exec = self.execs.iter_mut().find(|exec| exec.id == *id && exec.is_running());
                exec.map(|exec| &mut exec.stdio)
                    .ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
            }
        }
    }

    fn attach(&mut self, options: AttachOptions, stream: UnixStream) -> Result<()> {
        if matches!(self.phase, Phase::Recorded { .. } | Phase::Unrecorded { .. }) {
            return Err(Error::conflict(format!("container {} is not running", self.id)));
        }
        self.stdio.attach(options, stream, Owed::WhatItTakes)
    }

    /// Begins an exec; its answer comes later.
    pub(crate) fn exec(
        &mut self,
        asker: Asker,
        process: &Process,
        wanted: Wanted,
    ) -> Result<(), Failure> {
        let Wanted { id, terminal, client, limit } = wanted;
        self.must_run()?;
        if self.paused {
            return Err(Error::conflict(format!(
                "container {} is paused, unpause the container before exec",
                self.id
            ))
            .into());
        }
        if self.execs.iter().any(|exec| exec.id == id && exec.is_running())
            || self.starting.iter().any(|starting| starting.id == id)
        {
            return Err(Error::conflict(format!("exec {id} is already running")).into());
        }
        if self.execs.len() + self.starting.len() >= exec::MOST {
            return Err(Error::conflict(format!(
                "{} execs are running in this container already",
                exec::MOST
            ))
            .into());
        }
        let mode = match &client {
            Some((options, _)) if options.stdin => StdinMode::Once,
            _ => StdinMode::Closed,
        };
        let (mut stdio, ends) = streams(matches!(terminal, Terminal::Yes(_)), mode)?;
        if let Some((options, stream)) = client {
            stdio.attach(options, stream, Owed::All)?;
        }
        let mut process = process.clone();
        if let Terminal::Yes(Some(Size { rows, columns })) = terminal {
            // The program finds its terminal as large as it is.
            process.console_size = Some(ConsoleSize { height: rows, width: columns });
        }
        let work = || self.task.exec(&self.id, &self.dir, &process, ends);
        let starting = Starting::begin(asker, (id, limit), stdio, work)?;
        self.starting.push(starting);
        Ok(())
    }

    /// The helper of an exec has spoken, or has died.
    fn exec_has_started(&mut self, index: usize) {
        if index >= self.starting.len() {
            return;
        }
        let (asker, outcome) = self.starting.remove(index).finish();
        let outcome = outcome.map(|exec| {
            let reply = ExecReply { pid: exec.state().pid };
            let early = self.strays.iter().position(|stray| stray.pid == exec.pid);
            self.execs.push(exec);
            if let Some(early) = early {
                let Stray { pid, code, at } = self.strays.remove(early);
                self.exec_ended(pid, code, at);
            }
            value(&reply)
        });
        if self.starting.is_empty() {
            self.strays.clear();
        }
        self.answers.push((asker, outcome));
    }

    /// What was asked for earlier, and by whom.
    pub(crate) fn take_answers(&mut self) -> Vec<(Asker, Result<Value, Failure>)> {
        std::mem::take(&mut self.answers)
    }

    /// Everything to wait for.
    pub(crate) fn watch<'a>(&'a self, mut add: impl FnMut(Source, BorrowedFd<'a>, PollFlags)) {
        if let Some(oom) = self.oom.as_fd() {
            add(Source::Oom, oom, PollFlags::IN);
        }
        // Until a log server takes more; what is left at the end is read in any case.
        let held = self.log.holds_up() && matches!(self.phase, Phase::Running);
        self.stdio.watch(|part, fd, flags| {
            if !(held && matches!(part, Part::Output(_))) {
                add(Source::Init(part), fd, flags);
            }
        });
        if let Some((fd, flags)) = self.log.interest() {
            add(Source::Log, fd, flags);
        }
        for (index, starting) in self.starting.iter().enumerate() {
            add(Source::Starting(index), starting.as_fd(), PollFlags::IN);
        }
        for (index, exec) in self.execs.iter().enumerate() {
            exec.stdio.watch(|part, fd, flags| add(Source::Exec(index, part), fd, flags));
        }
    }

    pub(crate) fn ready(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Oom => self.look_for_oom(),
            Source::Init(part) => self.stdio.ready(part, flags, &mut self.scratch, &mut self.log),
            Source::Starting(index) => self.exec_has_started(index),
            Source::Log => self.log.ready(flags),
            Source::Exec(index, part) => {
                if let Some(exec) = self.execs.get_mut(index) {
                    exec.stdio.ready(part, flags, &mut self.scratch, &mut Log::None);
                }
            }
        }
    }

    fn look_for_oom(&mut self) {
        if self.oom.is_news(&self.task.cgroup) {
            self.news.push(Event::Oom);
        }
    }

    /// Children have ended: init, execs, the log's compressor, and orphans of a container that shares its pids.
    pub(crate) fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let code = code_of(status);
            if pid == self.task.pid {
                self.init_ended(code);
            } else if self.compressing == Some(pid) {
                self.compressing = None;
                self.log.compressed();
            } else if !self.exec_ended(pid, code, Timestamp::now()) && !self.starting.is_empty() {
                // Perhaps an exec that was quicker than the news of it.
                self.strays.push(Stray { pid, code, at: Timestamp::now() });
            }
        }
    }

    /// Whether that was one.
    fn exec_ended(&mut self, pid: Pid, code: i32, at: Timestamp) -> bool {
        let Some(exec) = self.execs.iter_mut().find(|exec| exec.pid == pid && exec.is_running())
        else {
            return false;
        };
        let exit = exec.exited(code, at);
        if self.exec_exits.len() == exec::REMEMBERED {
            self.exec_exits.pop_front();
        }
        self.exec_exits.push_back(exit.clone());
        self.news.push(Event::ExecExit(exit));
        true
    }

    /// Gives back memory that only a busy container needs.
    pub(crate) fn rest(&mut self) {
        self.scratch = Vec::new();
        self.log.rest();
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.scratch.capacity() > 0
    }

    /// Compresses a rotated file in a process of its own: 20 MB take a moment, and the pipe must be drained meanwhile.
    fn compress(&mut self) {
        let Some(work) = self.log.compress() else { return };
        match sys::process::fork() {
            Ok(Fork::Child) => {
                // The container's streams and clients are not its to hold.
                let closed = sys::process::close_all_but(&[]);
                let done =
                    closed.is_ok() && rustix::process::nice(10).is_ok() && work.run().is_ok();
                sys::process::exit_now(i32::from(!done));
            }
            Ok(Fork::Parent { pid, .. }) => self.compressing = Some(pid),
            Err(_) => self.log.compressed(),
        }
    }
}

/// Whether a process gets a terminal, and of what size.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Terminal {
    No,
    Yes(Option<Size>),
}

impl Terminal {
    pub(crate) fn of(tty: bool, size: Option<Size>) -> Self {
        if tty { Self::Yes(size) } else { Self::No }
    }
}

fn streams(tty: bool, mode: StdinMode) -> Result<(Stdio, Streams)> {
    if tty {
        return Ok((Stdio::terminal(mode)?, Streams::Terminal));
    }
    let (stdio, Ends { stdin, stdout, stderr }) = Stdio::pipes(mode)?;
    Ok((stdio, Streams::Pipes { stdin, stdout, stderr }))
}

fn value(answer: &impl Serialize) -> Value {
    serde_json::to_value(answer).expect("answers are plain data with text keys")
}

fn code_of(status: WaitStatus) -> i32 {
    status
        .exit_status()
        .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
        .unwrap_or(255)
}
