//! `--init`: a process of ours stays as the container's first. It forwards signals to the program and buries orphans.
//!
//! No file is executed for it. It holds no descriptor but the standard streams, runs as the container's user with the
//! container's confinement, and is not dumpable: its memory is a copy of the runtime's.

use std::os::fd::AsFd;

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use stdx::{Context, Error, Result};
use sys::process::{StringArray, exit_now};
use sys::signal::{self, Set};

use super::Init;
use crate::channel::{Child, Message};
use crate::process::{self, Program};

const SIGCHLD: i32 = 17;
const SIGTTIN: i32 = 21;
const SIGTTOU: i32 = 22;
/// What the kernel sends for our own mistakes is not for the child.
const OWN: [i32; 6] = [4, 5, 7, 8, 11, 31];

/// Starts the program as a child and stays. Comes back only with the reason why it could not begin.
pub(super) fn run(init: &Init, program: &Program, argv: &StringArray, env: &StringArray) -> Error {
    match start(init, program, argv, env) {
        Ok(child) => stay(child),
        Err(error) => error,
    }
}

fn start(init: &Init, program: &Program, argv: &StringArray, env: &StringArray) -> Result<Pid> {
    let watched = Set::all().without(&OWN);
    let before = signal::set_mask(&watched).context(|| "cannot block signals".to_owned())?;
    match sys::process::fork_unwatched().context(|| "cannot fork".to_owned())? {
        Some(pid) => Ok(pid),
        None => {
            let error = become_program(init, &before, program, argv, env);
            let report = match &init.gate {
                Some(gate) => gate.report.as_fd(),
                None => init.parent.0.as_fd(),
            };
            if let Ok(report) = report.try_clone_to_owned() {
                // If nobody listens any more, there is nobody to tell.
                let _told = Child(report).tell(&Message::Failed(error));
            }
            exit_now(127)
        }
    }
}

fn become_program(
    init: &Init,
    mask: &Set,
    program: &Program,
    argv: &StringArray,
    env: &StringArray,
) -> Error {
    let prepare = || -> Result<()> {
        // A group of its own, in the foreground of the terminal if there is one, as tini does: keys reach the program only.
        rustix::process::setpgid(None, None).context(|| "setpgid".to_owned())?;
        if rustix::termios::isatty(rustix::stdio::stdin()) {
            // A stopped background group would wait for ever: the signal is blocked while we ask.
            let _foreground =
                rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpgrp());
        }
        init.process.filter_late(&init.parent)?;
        signal::set_mask(mask).context(|| "cannot unblock signals".to_owned())?;
        let first = 3 + init.options.preserve_fds;
        sys::process::close_on_exec_from(first).context(|| "cannot close descriptors".to_owned())
    };
    match prepare() {
        Ok(()) => process::execute(program, argv, env),
        Err(error) => error,
    }
}

/// Reaps and forwards until the program ends, and ends as it did.
fn stay(child: Pid) -> ! {
    // That the program could be executed is seen by the closing of its copy of the socket: ours must be gone.
    if sys::process::close_all_but(&[]).is_err() {
        exit_now(125);
    }
    // For `ps` in the container.
    let _named = rustix::thread::set_name(c"gantry-init");
    let watched = Set::all().without(&OWN);
    loop {
        match signal::wait(&watched) {
            Ok(info) if info.signal == SIGCHLD => {
                if let Some(code) = bury(child) {
                    exit_now(code);
                }
            }
            // For whoever has the terminal; we never read it.
            Ok(info) if matches!(info.signal, SIGTTIN | SIGTTOU) => {}
            Ok(info) => {
                // It may have ended this moment; SIGCHLD is on its way then.
                let _sent = signal::kill(child.as_raw_nonzero().get(), info.signal);
            }
            Err(_) => exit_now(125),
        }
    }
}

/// Takes the status of all that have ended. The program's own comes back as an exit code.
fn bury(child: Pid) -> Option<i32> {
    let mut code = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == child {
            code = code.or_else(|| exit_code(status));
        }
    }
    code
}

fn exit_code(status: WaitStatus) -> Option<i32> {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
}
