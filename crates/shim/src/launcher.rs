//! The launcher: a process that forks shims and does nothing else.
//!
//! It is executed from a sealed copy of our program and has read nothing, opened nothing and started no thread, so that
//! each shim begins as small as a process can be. It lives as long as its socket to the daemon.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::WaitOptions;
use sys::process::Fork;

use crate::server;

/// Its `argv[0]`: the hat our program wears then.
pub const NAME: &str = "gantry-launcher";

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;

/// For `main`: runs the launcher if that is who we are, before anything else is done.
pub fn main_if_called(mut args: impl Iterator<Item = impl AsRef<OsStr>>) -> Option<ExitCode> {
    args.next().filter(|name| name.as_ref() == NAME).map(|_| main())
}

/// Forks a shim for each message on its standard input, until that ends.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run() -> io::Result<()> {
    rustix::thread::set_name(c"gantry-launcher")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    sys::process::close_all_but(&[])?;
    // A terminal's signals are for the daemon. Shims inherit this: whoever ends them ends a container, and does it by name.
    let blocked = sys::signal::Set::of(&[SIGHUP, SIGINT, SIGTERM, SIGCHLD]);
    sys::signal::set_mask(&blocked)?;
    // Every shim needs to know it, and has it from us.
    runtime::look_around();
    let children = sys::signal::Fd::new(&sys::signal::Set::of(&[SIGCHLD]))?;
    let socket = rustix::stdio::stdin();
    // Lives long and does one thing; what it has come by so far is not needed for that.
    sys::memory::forget_program()?;
    loop {
        let mut fds = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&children, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => drop(other?),
        }
        let (asked, ended) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if ended {
            while children.read()?.is_some() {}
            while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        }
        if asked {
            let received = sys::socket::recv_with_fds(socket, &mut [0; 64])?;
            if received.bytes == 0 {
                return Ok(());
            }
            for socket in received.fds {
                fork(socket)?;
            }
        }
    }
}

fn fork(socket: OwnedFd) -> io::Result<()> {
    match sys::process::fork() {
        Ok(Fork::Child) => {
            // A panic must not climb into the launcher's loop: there are two of us now.
            let code = std::panic::catch_unwind(|| become_shim(socket))
                .map_or(70, |done| i32::from(done.is_err()));
            sys::process::exit_now(code)
        }
        Ok(Fork::Parent { .. }) => Ok(()),
        // Too many processes: the daemon sees the socket end, and the launcher lives on.
        Err(err) if matches!(err.raw_os_error(), Some(11 | 12)) => Ok(()),
        Err(err) => Err(err),
    }
}

fn become_shim(socket: OwnedFd) -> io::Result<()> {
    sys::process::close_all_but(&[socket.as_fd()])?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    sys::fd::install_stdio(null.as_fd(), null.as_fd(), null.as_fd())?;
    drop(null);
    rustix::process::setsid()?;
    rustix::thread::set_name(c"gantry-shim")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    server::run(UnixStream::from(socket)).map_err(|error| io::Error::other(error.chain()))
}
