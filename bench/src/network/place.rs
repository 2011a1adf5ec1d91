//! Threads in other network namespaces: a socket belongs to where its thread was when it was made.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use sys::ns::setns;
use sys::process::CloneFlags;

/// A network namespace, kept open.
#[derive(Debug)]
pub(crate) struct Place(File);

impl Place {
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self(file))
    }

    pub(crate) fn of_process(pid: u32) -> Result<Self> {
        Self::at(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// Does something in there, on a thread that ends with it.
    pub(crate) fn within<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.0.as_fd(), CloneFlags::NEWNET).context("cannot enter a namespace")?;
                act()
            });
            inside.join().expect("it does not panic")
        })
    }
}
