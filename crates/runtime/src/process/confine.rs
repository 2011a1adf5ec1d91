//! The last steps, in the only order that works: each gives up what the next no longer needs.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::umask;
use stdx::{Context, Error, Kind, Result};

use super::{Labels, Plan};
use crate::channel::{Child, Message};
use crate::rlimits;
use crate::user::{self, Identity};

impl Plan {
    /// While the process is still privileged and where it was born: what needs the host.
    pub(crate) fn prepare(&self) -> Result<Labels> {
        if let Some(score) = self.process.oom_score_adj {
            set_oom_score(score)?;
        }
        self.scheduling.apply()?;
        self.open_labels()
    }

    /// Who the process will be, by the files of the container whose root is ours by now.
    pub(crate) fn identify(&self) -> Result<Identity> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, "/", flags, Mode::empty())
            .context(|| "cannot open the container's root".to_owned())?;
        user::identify(&self.process.user, root.as_fd())
    }

    /// From a privileged process in the container's file system to the user's, short of `execve`.
    pub(crate) fn confine(
        &self,
        identity: &Identity,
        labels: &Labels,
        parent: &Child,
    ) -> Result<()> {
        rlimits::apply(&self.process.rlimits)?;
        labels.apply()?;
        let cwd = self.open_cwd();
        self.own_stdio(identity)?;
        if self.process.no_new_privileges {
            rustix::thread::set_no_new_privs(true)
                .context(|| "unable to set no_new_privs".to_owned())?;
        } else {
            // Without no_new_privs a filter takes the privilege that is about to be dropped.
            self.filter_system_calls(parent)?;
        }
        self.capabilities.apply_bounding()?;
        self.become_user(identity)?;
        // The change of user may have made us dumpable: until `execve` we are a copy of the runtime.
        let behavior = rustix::process::DumpableBehavior::NotDumpable;
        rustix::process::set_dumpable_behavior(behavior)
            .context(|| "unable to become undumpable".to_owned())?;
        self.capabilities.apply_final()?;
        umask(Mode::from_raw_mode(self.process.user.umask.unwrap_or(0o022) & 0o777));
        self.enter_cwd(cwd)
    }

    /// The filter of a process with no_new_privs needs no privilege: it is the very last.
    pub(crate) fn filter_late(&self, parent: &Child) -> Result<()> {
        if self.process.no_new_privileges { self.filter_system_calls(parent) } else { Ok(()) }
    }

    fn filter_system_calls(&self, parent: &Child) -> Result<()> {
        let Some(program) = &self.seccomp else { return Ok(()) };
        match program.install()? {
            Some(listener) => parent.tell(&Message::Listener(listener)),
            None => Ok(()),
        }
    }

    /// As root, who may look into what the user may not: the directory may be the user's own under one that is not.
    fn open_cwd(&self) -> rustix::io::Result<OwnedFd> {
        open_directory(&self.process.cwd)
    }

    fn enter_cwd(&self, opened_as_root: rustix::io::Result<OwnedFd>) -> Result<()> {
        let path = self.process.cwd.display();
        let refuse = |errno: Errno| {
            let error = Err::<(), _>(errno)
                .context(|| format!("chdir to cwd (\"{path}\") set in config.json failed"));
            error.expect_err("it was one").with_kind(Kind::Invalid)
        };
        let directory = match opened_as_root {
            // Root in a user namespace may be shut out where the user is not.
            Err(Errno::ACCESS) => open_directory(&self.process.cwd).map_err(refuse)?,
            opened => opened.map_err(refuse)?,
        };
        rustix::process::fchdir(&directory).map_err(refuse)?;
        // Magic links were not followed; and if we are outside all the same, the kernel says so (CVE-2024-21626).
        let here = rustix::process::getcwd(Vec::new()).map_err(refuse)?;
        if here.to_bytes().starts_with(b"/") {
            Ok(())
        } else {
            Err(Error::invalid(format!(
                "current working directory {path:?} is outside of container mount namespace root"
            )))
        }
    }
}

fn open_directory(path: &std::path::Path) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(
        CWD,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )
}

/// Through the `/proc` of the host, before it is out of sight.
fn set_oom_score(score: i32) -> Result<()> {
    match std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        // Only CAP_SYS_RESOURCE lowers it, which a host may lack itself: a container gets what the host has.
        Err(err) if err.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        other => other.context(|| format!("cannot set oom_score_adj to {score}")),
    }
}
