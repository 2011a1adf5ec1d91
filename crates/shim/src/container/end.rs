//! The way from the end of the first process to a record on disk: what is left in its streams, who is told, what goes.

use std::time::{Duration, Instant};

use stdx::time::Timestamp;

use super::{Container, Phase, Remains};
use crate::exec::{self, Exec};
use crate::exit::{self, Exit};
use crate::protocol::Event;

impl Container {
    pub(super) fn init_ended(&mut self, code: i32) {
        let at = Timestamp::now();
        // Before anything else: the group may go at any moment.
        if self.oom.is_last_news(&self.task.cgroup, code) {
            self.news.push(Event::Oom);
        }
        self.oom.stop();
        for starting in &self.starting {
            starting.give_up();
        }
        // What cannot be killed now is tried again until the streams are drained.
        let _later = self.task.cgroup.kill_all();
        if self.paused {
            let _later = self.task.cgroup.thaw();
            self.paused = false;
        }
        let exit = Exit { code, at, oom_killed: self.oom.seen(), reason: None };
        self.stdio.wait_no_more();
        self.phase = Phase::Draining { exit, until: Instant::now() + exec::DRAIN };
    }

    /// What is due. After it, [`Self::take_news`] has what it brought.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.log.flush();
        self.compress();
        self.stdio.flush_clients();
        self.stdio.sweep();
        for exec in &mut self.execs {
            exec.stdio.flush_clients();
            exec.stdio.sweep();
            exec.tick(now);
        }
        self.execs.retain(|exec| !exec.is_over());
        match &self.phase {
            Phase::Draining { exit, until } => {
                let silent = self.stdio.is_drained() && !self.execs.iter().any(Exec::is_running);
                if silent || now >= *until {
                    let exit = exit.clone();
                    self.stdio.end(&mut self.log);
                    self.log.end();
                    self.record(exit, now);
                }
            }
            Phase::Unrecorded { exit, again } if now >= *again => {
                let exit = exit.clone();
                self.record(exit, now);
            }
            Phase::Recorded { .. } => self.stdio.drop_the_stuck(now),
            Phase::Running | Phase::Unrecorded { .. } => {}
        }
    }

    /// First the disk, then the watchers. A disk that does not take it (full) is asked again every second, and the exit
    /// stays in memory meanwhile.
    fn record(&mut self, exit: Exit, now: Instant) {
        match exit::write(&self.dir, &exit) {
            Ok(()) => {
                self.news.push(Event::Exit(exit.clone()));
                self.phase = Phase::Recorded { exit, cgroup: Remains::Yes };
            }
            // Somebody has removed the directory: there is no place for a record, and nobody to look there for one.
            Err(_) if !self.dir.exists() => {
                self.news.push(Event::Exit(exit.clone()));
                self.phase = Phase::Recorded { exit, cgroup: Remains::Yes };
            }
            Err(error) => {
                crate::server::report(&self.dir, &error);
                self.phase = Phase::Unrecorded { exit, again: now + Duration::from_secs(1) };
            }
        }
    }

    /// Everybody has been told; what takes long may be done now.
    pub(crate) fn after_telling(&mut self) {
        if let Phase::Recorded { cgroup: remains @ Remains::Yes, .. } = &mut self.phase {
            *remains = Remains::No;
            if let Err(error) = self.task.clean_up() {
                crate::server::report(&self.dir, &error);
            }
        }
    }

    /// Its mounts go, and its network namespace. Takes as long as the disk takes to be written to.
    pub(crate) fn let_go(&mut self) {
        self.task.let_go();
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let own = match &self.phase {
            Phase::Running => self.stdio.next_release(),
            Phase::Draining { until, .. } => Some(*until),
            Phase::Unrecorded { again, .. } => Some(*again),
            Phase::Recorded { .. } => self.stdio.next_deadline(),
        };
        let log = self.log.next_deadline();
        self.execs.iter().filter_map(Exec::next_deadline).chain(own).chain(log).min()
    }
}
