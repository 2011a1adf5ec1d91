//! The one way out: an exit is written down, what was held is given back, and the policy decides what comes next.
//!
//! A running container has one task here that listens to its shim. Recovery starts the same task for every shim it
//! finds, so that what ended while the daemon was away goes through the same door.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use runtime::cgroup;
use shim::{Event as ShimEvent, Exit};
use stdx::{Error, Kind, Result};
use tokio::io::AsyncReadExt;

use super::exec::Ended;
use super::record::Record;
use super::restart_policy::{RestartPolicy, pause_after};
use super::state::{Event, Phase};
use super::{Container, endpoints};

/// How long an overlay may take to be written to disk before the next start does not wait for it any more.
const LEAVING: Duration = Duration::from_secs(30);
/// When to try again to write an exit down.
const AGAIN: Duration = Duration::from_secs(1);

impl Container {
    /// Listens to the shim from now on.
    pub(crate) fn follow(&self, watch: shim::Watch) {
        self.keep_checking();
        let this = self.clone();
        tokio::spawn(async move {
            match this.listen(watch).await {
                Ok(exit) => this.finish(exit).await,
                Err(error) => this.lose(&error),
            }
        });
    }

    /// The shim is not heard any more. Either it has died, and its container with it (the kernel kills the first process
    /// with its parent), or it has only let go of us.
    pub(crate) fn lose(&self, why: &Error) {
        tracing::warn!(container = %self.cell.id, error = %why.chain(), "lost the shim");
        let this = self.clone();
        tokio::spawn(async move { this.find_again().await });
    }

    /// An exit is not lost because a disk is full just now.
    async fn finish(&self, exit: Exit) {
        while let Err(error) = self.exited(exit.clone()).await {
            tracing::error!(container = %self.cell.id, error = %error.chain(), "cannot finish an exit");
            if !self.record().state.phase.is_up() {
                return;
            }
            if self.rooms.store.writable().is_err() {
                return self.only_show(&exit).await;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Tells of an exit that this daemon cannot write down any more. The shim keeps the record of it, and everything stays
    /// held, until the next daemon finds both.
    async fn only_show(&self, exit: &Exit) {
        let _gate = self.cell.gate.lock().await;
        let event = Event::Exited {
            code: exit.code,
            at: exit.at,
            oom_killed: exit.oom_killed,
            error: exit.reason.clone().unwrap_or_default(),
        };
        if let Ok(record) = self.after(event) {
            self.show(record);
            self.execs_ended();
            self.clients_may_go();
        }
    }

    /// Hears everything until the exit.
    pub(crate) async fn listen(&self, watch: shim::Watch) -> Result<Exit> {
        let (stream, mut decoder) = watch.into_parts();
        stream.set_nonblocking(true)?;
        let mut stream = tokio::net::UnixStream::from_std(stream)?;
        let mut buffer = [0u8; 4096];
        loop {
            while let Some(event) = ShimEvent::decode(&mut decoder)? {
                match event {
                    ShimEvent::Exit(exit) => return Ok(exit),
                    ShimEvent::ExecExit(exec) => self.exec_exited(&exec.id, Ended::from(&exec)),
                    ShimEvent::State(state) => {
                        for exec in &state.exec_exits {
                            self.exec_exited(&exec.id, Ended::from(exec));
                        }
                        if let Some(exit) = state.exit {
                            return Ok(exit);
                        }
                    }
                    ShimEvent::Oom => self.event("oom", &[]),
                    _ => {}
                }
            }
            match stream.read(&mut buffer).await? {
                // The record is on disk before anyone is told; the shim may have gone right behind it.
                0 => {
                    let dir = self.rooms.exec_dir(&self.cell.id);
                    return match tokiox::blocking(move || shim::exit::read(&dir)).await? {
                        Some(exit) => Ok(exit),
                        None => Err(stdx::Error::internal("the shim died")),
                    };
                }
                count => decoder.feed(&buffer[..count]),
            }
        }
    }

    /// Writes the exit down, gives everything back, and does what the policy says.
    pub(crate) async fn exited(&self, exit: Exit) -> Result<()> {
        let gate = self.cell.gate.lock().await;
        let before = self.record();
        let ran = before.state.started_at;
        let event = Event::Exited {
            code: exit.code,
            at: exit.at,
            oom_killed: exit.oom_killed,
            error: exit.reason.clone().unwrap_or_default(),
        };
        let mut record = self.after(event)?;
        let next = self.what_next(&record);
        if matches!(next, Next::Restart(_)) {
            record.state = record.state.after(Event::RestartAwaited)?;
            record.restart_count += 1;
        }
        endpoints::disconnected(&mut record.endpoints);
        record.ports.clear();
        self.part(&before).await;
        let seconds = (exit.at.unix_nanos() - ran.unix_nanos()).max(0) / 1_000_000_000;
        {
            let _telling = self.cell.telling();
            self.save(record)?;
            self.rooms.images.set_running(self.cell.id.as_str(), false);
            self.execs_ended();
            self.tell_unmounted(&before);
            self.event(
                "die",
                &[("exitCode", exit.code.to_string()), ("execDuration", seconds.to_string())],
            );
            self.clients_may_go();
        }
        match next {
            Next::Rest => self.release().await,
            // Gives everything back, and more.
            Next::Remove => self.remove_held(true).await?,
            Next::Restart(pause) => {
                self.release().await;
                self.restart_after(pause);
            }
        }
        drop(gate);
        Ok(())
    }

    /// Before anybody hears of the end: what others may want to have next. Whoever has waited for it finds its ports free, and
    /// its networks and volumes without it.
    async fn part(&self, record: &Record) {
        let named = |network: &String| !matches!(network.as_str(), "host" | "none");
        let connected = record.endpoints.keys().any(named);
        let foreign = record.mounts.iter().any(super::volumes::is_foreign);
        if !connected && !foreign {
            return;
        }
        let this = self.clone();
        tokiox::blocking(move || {
            this.disconnect();
            if foreign {
                this.unmount_foreign();
            }
        })
        .await;
    }

    /// Takes it out of its networks, if it is in any.
    fn disconnect(&self) {
        let start = Instant::now();
        if let Err(error) = self.unplug() {
            let id = &self.cell.id;
            tracing::warn!(container = %id, error = %error.chain(), "cannot take devices away from who lives on with them");
        }
        if self.rooms.networks.detach(&self.cell.id) {
            self.rooms.metrics.release.since(start);
        }
    }

    /// Whoever has joined its network keeps the namespace, but not devices with addresses that are free now.
    fn unplug(&self) -> Result<()> {
        let networks = &self.rooms.networks;
        if !networks.is_on_a_wire(&self.cell.id) {
            return Ok(());
        }
        let mode = format!("container:{}", self.cell.id);
        let all = self.rooms.registry.all();
        let mut joined = all
            .iter()
            .map(|cell| cell.record())
            .filter(|record| record.host_config.network_mode == mode && record.state.phase.is_up());
        let Some(record) = joined.next() else { return Ok(()) };
        let namespace = network::namespace_of(record.state.pid)?;
        networks.unplug(&self.cell.id, namespace.as_fd())
    }

    /// Tells plugins that this container uses their volumes no more. Those that were told are not told again.
    pub(super) fn unmount_foreign(&self) {
        let id = &self.cell.id;
        if let Err(error) = self.rooms.unmount_foreign(id) {
            tracing::warn!(container = %id, error = %error.chain(), "cannot give volumes back");
        }
    }

    fn what_next(&self, record: &Record) -> Next {
        let mut live = self.cell.live();
        if live.restarting_by_hand {
            return Next::Rest;
        }
        if record.host_config.auto_remove {
            return Next::Remove;
        }
        let policy = policy(record);
        if record.stopped_by_hand
            || !policy.wants_restart(record.state.exit_code, record.restart_count)
        {
            return Next::Rest;
        }
        let ran = record.state.finished_at.unix_nanos() - record.state.started_at.unix_nanos();
        let pause =
            pause_after(live.last_pause, Duration::from_nanos(u64::try_from(ran).unwrap_or(0)));
        live.last_pause = Some(pause);
        Next::Restart(pause)
    }

    /// Starts it again after `pause`, if that is still wanted then.
    pub(crate) fn restart_after(&self, pause: Duration) {
        // One that ended while no daemon lived waits until what it left has been taken back, and for its turn.
        if self.rooms.waking.load(Ordering::Acquire) {
            return;
        }
        let this = self.clone();
        let exit = self.record().state.finished_at;
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let gate = this.cell.gate.lock().await;
            let state = &this.record().state;
            // Not wanted any more, or another exit has its own pause.
            if state.phase != Phase::Restarting || state.finished_at != exit {
                return;
            }
            let failed = this.start_held(gate, None).await;
            if let Err(error) = failed {
                tracing::warn!(container = %this.cell.id, error = %error.chain(), "restart failed");
            }
        });
    }

    /// Gives back what [`super::start`] took. What is missing already is no failure; what cannot be given back is logged
    /// and found by recovery.
    pub(crate) async fn release(&self) {
        let this = self.clone();
        if let Some(leaving) = tokiox::blocking(move || this.release_blocking()).await {
            let gone = tokio::spawn(until_gone(leaving));
            self.cell.live().leaving = Some(gone);
        }
    }

    /// As [`Self::release`], on a thread that may wait. Answers the shim that still takes the mounts apart: the next start
    /// waits for it.
    pub(super) fn release_blocking(&self) -> Option<shim::Leaving> {
        let id = &self.cell.id;
        self.disconnect();
        if self.record().mounts.iter().any(super::volumes::is_foreign) {
            self.unmount_foreign();
        }
        let dir = self.rooms.exec_dir(id);
        let mut leaving = None;
        match shim::Client::connect(&dir) {
            // Its record is ours now; a shim that has gone already has nothing to be told.
            Ok(shim) => leaving = shim.delete().ok(),
            Err(error) if error.kind() == Kind::NotFound && dir.exists() => {
                if let Err(error) = take_cgroup_back(&dir) {
                    tracing::warn!(container = %id, error = %error.chain(), "cannot remove the cgroup");
                }
            }
            Err(_) => {}
        }
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(container = %id, %error, "cannot remove the run directory");
            }
            _ => {}
        }
        leaving
    }
}

/// Until a shim is done, or can be waited for no longer.
async fn until_gone(leaving: shim::Leaving) {
    let end = async {
        let stream = leaving.into_stream();
        stream.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(stream)?.read(&mut [0]).await
    };
    let _gone_or_late = tokio::time::timeout(LEAVING, end).await;
}

/// Does for a shim that was killed what it would have done: ends what is left in the cgroup, and the cgroup. That is where
/// the shim was told to make it, by its directory, and not where this daemon would.
pub(crate) fn take_cgroup_back(dir: &Path) -> Result<()> {
    let location = match shim::spec_of(dir) {
        Ok((_, location)) => location,
        // It came to nothing.
        Err(error) if error.errno() == Some(rustix::io::Errno::NOENT.raw_os_error()) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    match cgroup::Handle::open(&location) {
        Ok(cgroup) => cgroup.kill_all().and_then(|()| cgroup.destroy()),
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

enum Next {
    Rest,
    Remove,
    Restart(Duration),
}

/// The policy, checked when the container was made.
pub(crate) fn policy(record: &Record) -> RestartPolicy {
    let wanted = &record.host_config.restart_policy;
    RestartPolicy::parse(&wanted.name, wanted.maximum_retry_count).unwrap_or(RestartPolicy::No)
}
