//! A network of a test's own: loopback and nothing else, so that any port is free.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::house::succeed;

/// A network namespace that lives as long as this value.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Default for Netns {
    fn default() -> Self {
        Self::new()
    }
}

impl Netns {
    pub fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let netns = Self { name: format!("gt-{}-{number}", std::process::id()) };
        succeed(ip(&["netns", "add", &netns.name]));
        succeed(ip(&["-n", &netns.name, "link", "set", "lo", "up"]));
        netns
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A program that will run inside, under the process id of what is spawned.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }
}

fn ip(args: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(args);
    command
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _gone = ip(&["netns", "delete", &self.name]).status();
    }
}
