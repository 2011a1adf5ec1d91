//! A person at a terminal: a program with a pty of its own, typed at and read from.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::house::PATIENCE;

/// A program and the screen it writes to.
pub struct Terminal {
    master: File,
    child: Child,
    /// Everything that came, and how much of it was waited for already.
    screen: String,
    read: usize,
}

impl Terminal {
    /// Starts a program as the leader of a session on a terminal of this size.
    pub fn spawn(command: &Command, rows: u16, columns: u16) -> Self {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pty");
        rustix::pty::grantpt(&master).expect("a pty of ours");
        rustix::pty::unlockpt(&master).expect("a pty of ours");
        let name = rustix::pty::ptsname(&master, Vec::new()).expect("a pty has a name");
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let line = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty())
            .expect("its other end");
        let terminal = |end: &OwnedFd| Stdio::from(end.try_clone().expect("a descriptor"));
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        session.env("TERM", "dumb");
        session.stdin(terminal(&line)).stdout(terminal(&line)).stderr(terminal(&line));
        size(&master, rows, columns);
        let child = session.spawn().expect("it can be executed");
        Self { master: File::from(master), child, screen: String::new(), read: 0 }
    }

    /// Another size, of which the kernel tells who sits there.
    pub fn resize(&self, rows: u16, columns: u16) {
        size(&self.master, rows, columns);
    }

    pub fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("somebody reads the terminal");
    }

    /// Reads on until this text has come; what came with it.
    pub fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let unread = &self.screen[self.read..];
            if let Some(at) = unread.find(text) {
                let came = unread[..at + text.len()].to_owned();
                self.read += came.len();
                return came;
            }
            assert!(self.more(deadline), "no {text:?} in {:?}", self.screen);
        }
    }

    /// Waits for the program's end; what came since, and how it ended.
    pub fn end(mut self) -> (String, ExitStatus) {
        let deadline = Instant::now() + PATIENCE;
        while self.more(deadline) {}
        let status = self.child.wait().expect("it ends");
        (self.screen[self.read..].to_owned(), status)
    }

    /// Whether anything more came.
    fn more(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = rustix::event::Timespec::try_from(left).expect("a minute is a time");
        let mut ready = [PollFd::new(&self.master, PollFlags::IN)];
        let came = poll(&mut ready, Some(&timeout)).expect("a pty can be waited for");
        assert!(came > 0, "nothing more came after {:?}", self.screen);
        let mut bytes = [0; 4096];
        // The other end closed reads as an error.
        match self.master.read(&mut bytes) {
            Ok(0) | Err(_) => false,
            Ok(length) => {
                self.screen.push_str(&String::from_utf8_lossy(&bytes[..length]));
                true
            }
        }
    }
}

fn size(terminal: impl std::os::fd::AsFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).expect("a terminal has a size");
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}
