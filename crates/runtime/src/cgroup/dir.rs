//! One control group directory, held open: its files are read and written through it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use rustix::io::Errno;
use stdx::{Context, Error, Kind, Result};

use super::{Missing, Setting};

#[derive(Debug)]
pub(super) struct Dir {
    path: PathBuf,
    fd: OwnedFd,
}

/// No controller's file is longer, except `cgroup.procs`.
const LONGEST: u64 = 16 << 20;

impl Dir {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self { path: path.to_owned(), fd })
    }

    pub(super) fn child(&self, name: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        Ok(Self { path: self.path.join(name), fd })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn has(&self, file: &str) -> bool {
        rustix::fs::accessat(&self.fd, file, rustix::fs::Access::EXISTS, AtFlags::empty()).is_ok()
    }

    pub(super) fn open_file(&self, file: &str, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(
            &self.fd,
            file,
            flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )?)
    }

    pub(super) fn try_read(&self, file: &str) -> io::Result<String> {
        let mut text = String::new();
        File::from(self.open_file(file, OFlags::RDONLY)?)
            .take(LONGEST)
            .read_to_string(&mut text)?;
        Ok(text)
    }

    pub(super) fn read(&self, file: &str) -> Result<String> {
        self.try_read(file).context(|| format!("open {}", self.path.join(file).display()))
    }

    /// One `write`: the kernel takes a value whole.
    pub(super) fn try_write(&self, file: &str, value: &str) -> io::Result<()> {
        File::from(self.open_file(file, OFlags::WRONLY)?).write_all(value.as_bytes())
    }

    pub(super) fn write(&self, file: &str, value: &str) -> Result<()> {
        // Docker shows runc's words here.
        self.try_write(file, value).context(|| {
            format!("failed to write {value:?}: write {}", self.path.join(file).display())
        })
    }

    /// Writes what belongs here. The kernel checks some values against others' present ones (a period against the quota,
    /// memory against memory and swap): what is invalid at first is tried again after the rest.
    pub(super) fn apply<'a>(&self, settings: impl Iterator<Item = &'a Setting>) -> Result<()> {
        let mut again = Vec::new();
        for setting in settings {
            match self.try_set(setting) {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                    again.push(setting)
                }
                done => self.judge(setting, done)?,
            }
        }
        for setting in again {
            self.judge(setting, self.try_set(setting))?;
        }
        Ok(())
    }

    fn try_set(&self, setting: &Setting) -> io::Result<()> {
        let done = self.try_write(&setting.file, &setting.value);
        let Missing::Instead { file, value } = &setting.missing else { return done };
        match &done {
            Err(error) if is_gone(error) || is_unweighed(error) => {
                match self.try_write(file, value) {
                    // As with runc: shares are for disks that are shared out.
                    Err(error) if is_unweighed(&error) => Ok(()),
                    done => done,
                }
            }
            _ => done,
        }
    }

    fn judge(&self, setting: &Setting, done: io::Result<()>) -> Result<()> {
        let Setting { file, value, missing, .. } = setting;
        let Err(error) = done else { return Ok(()) };
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT) if *missing == Missing::Ignore => Ok(()),
            Some(Errno::NOENT) => Err(not_here(file)),
            Some(Errno::BUSY) if file.starts_with("memory.") => {
                let usage = self.try_read("memory.usage_in_bytes").unwrap_or_default();
                let peak = self.try_read("memory.max_usage_in_bytes").unwrap_or_default();
                Err(Error::invalid(format!(
                    "unable to set memory limit to {value} (current usage: {}, peak usage: {})",
                    usage.trim(),
                    peak.trim()
                )))
            }
            _ => Err(error).context(|| {
                format!("failed to write {value:?}: write {}", self.path.join(file).display())
            }),
        }
    }

    /// The directories within.
    pub(super) fn children(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let again = rustix::fs::openat(
            &self.fd,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut buffer = Vec::with_capacity(8192);
        let mut entries = RawDir::new(&again, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if entry.file_type() == rustix::fs::FileType::Directory && name != b"." && name != b".."
            {
                names.push(String::from_utf8_lossy(name).into_owned());
            }
        }
        Ok(names)
    }

    /// All processes here and below, by the numbers they have for us.
    pub(super) fn processes(&self) -> Result<Vec<rustix::process::Pid>> {
        let mut found = Vec::new();
        self.collect(&mut found, DEEPEST)?;
        found.sort_unstable_by_key(|pid: &rustix::process::Pid| pid.as_raw_nonzero());
        found.dedup();
        Ok(found)
    }

    fn collect(&self, found: &mut Vec<rustix::process::Pid>, depth: usize) -> Result<()> {
        let text = match self.try_read("cgroup.procs") {
            // A threaded group (v2) has no list of processes, only one of threads.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => {
                self.read("cgroup.threads")?
            }
            // It was removed while we looked.
            Err(error) if is_gone(&error) => return Ok(()),
            text => {
                text.context(|| format!("open {}", self.path.join("cgroup.procs").display()))?
            }
        };
        // Zero is a process we cannot see from our pid namespace.
        found.extend(
            text.lines()
                .filter_map(|line| line.parse().ok())
                .filter_map(rustix::process::Pid::from_raw),
        );
        for name in self.children().unwrap_or_default() {
            match self.child(&name) {
                Ok(child) if depth > 0 => child.collect(found, depth - 1)?,
                Ok(_) => {
                    return Err(Error::internal(format!(
                        "{} is nested too deeply",
                        self.path.display()
                    )));
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Removes what is below, the innermost first. What is still occupied stays.
    pub(super) fn remove_children(&self, depth: usize) {
        for name in self.children().unwrap_or_default() {
            if rustix::fs::unlinkat(&self.fd, &*name, AtFlags::REMOVEDIR).is_ok() || depth == 0 {
                continue;
            }
            if let Ok(child) = self.child(&name) {
                child.remove_children(depth - 1);
            }
            // Whether it worked is seen by whoever removes this directory.
            let _ = rustix::fs::unlinkat(&self.fd, &*name, AtFlags::REMOVEDIR);
        }
    }
}

/// How deep a container's own groups are followed: each level holds a descriptor open meanwhile.
pub(super) const DEEPEST: usize = 128;

/// Nobody who hands out the time of this disk looks at weights.
fn is_unweighed(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::OPNOTSUPP)
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NODEV))
}

/// A limit that was asked for and that this host cannot keep.
fn not_here(file: &str) -> Error {
    Error::new(
        Kind::NotImplemented,
        format!("the host's cgroup has no {file}: the kernel does not support this limit"),
    )
}
