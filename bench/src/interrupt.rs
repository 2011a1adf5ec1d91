//! Being interrupted: whatever was started is taken down all the same.
//!
//! Ctrl-C goes to every process of the terminal's foreground, the daemons among them. So the work is done by a child in
//! a process group of its own, which hears of it from its parent only, ends its round with an error, and cleans up on
//! the way out.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};

/// Set when the work shall end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}

/// The parent: starts the child that measures, and hands on what it is told.
pub(crate) fn supervise(arguments: &[String]) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("measure")
        .args(arguments)
        .process_group(0)
        .spawn()
        .context("cannot start the measuring process")?;
    let pid = Pid::from_child(&child);
    on_signal(move || {
        let _gone = kill_process(pid, Signal::TERM);
    })?;
    finish(&mut child)
}

fn finish(child: &mut Child) -> Result<()> {
    let status = child.wait()?;
    if !status.success() {
        bail!("the measuring process ended with {status}");
    }
    Ok(())
}

/// The child: a flag that is set when the parent says so, or dies.
pub(crate) fn listen() -> Result<Stop> {
    let stop = Stop::default();
    let flag = stop.clone();
    on_signal(move || flag.0.store(true, Ordering::Relaxed))?;
    set_parent_process_death_signal(Some(Signal::TERM))?;
    Ok(stop)
}

/// Two at once would measure each other.
pub(crate) fn alone() -> Result<File> {
    let lock = File::create("/tmp/gantry-bench.lock")?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .context("another bench is running")?;
    Ok(lock)
}

/// Calls `act` on SIGINT and SIGTERM, from a thread of its own. Handlers are not inherited by programs executed later.
fn on_signal(act: impl Fn() + Send + 'static) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => act(),
                    _ = terminate.recv() => act(),
                }
            }
        });
    });
    Ok(())
}
