//! Labels of security modules, put on at `execve`. One that cannot be put on means that nothing starts.

use rustix::fs::{CWD, Mode, OFlags};
use stdx::{Context, Error, Result};

use super::{Label, Labels, Plan};

impl Plan {
    /// Opens where labels are written, in the `/proc` of the host: a container's could lead anywhere (CVE-2025-52881).
    pub(crate) fn open_labels(&self) -> Result<Labels> {
        let mut labels = Vec::new();
        let profile = self.process.apparmor_profile.as_str();
        if !matches!(profile, "" | "unconfined") || profile == "unconfined" && apparmor_enabled() {
            if !apparmor_enabled() {
                let words = "unable to apply apparmor profile: apparmor: config provided but apparmor not supported";
                return Err(Error::invalid(words));
            }
            // Its own file since 5.1; before, one for whichever module came first.
            let places = ["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"];
            let place = if open(places[0]).is_ok() { places[0] } else { places[1] };
            let file =
                open(place).context(|| format!("unable to apply apparmor profile {profile}"))?;
            let failure = format!(
                "unable to apply apparmor profile: apparmor failed to apply profile: write {place}"
            );
            labels.push(Label { file, text: format!("exec {profile}"), failure });
        }
        let label = self.process.selinux_label.as_str();
        if !label.is_empty() {
            if !selinux_enabled() {
                let words = "selinux label is specified in config, but selinux is disabled or not supported";
                return Err(Error::invalid(words));
            }
            let file = open("/proc/self/attr/exec")
                .context(|| format!("unable to apply selinux label {label}"))?;
            let failure = format!("unable to apply the label {label:?}");
            labels.push(Label { file, text: label.to_owned(), failure });
        }
        Ok(Labels(labels))
    }
}

impl Labels {
    pub(crate) fn apply(&self) -> Result<()> {
        for Label { file, text, failure } in &self.0 {
            rustix::io::write(file, text.as_bytes()).context(|| failure.clone())?;
        }
        Ok(())
    }
}

fn open(path: &str) -> rustix::io::Result<std::os::fd::OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

pub(crate) fn apparmor_enabled() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with(b"Y"))
}

pub(crate) fn selinux_enabled() -> bool {
    std::path::Path::new("/sys/fs/selinux/enforce").exists()
}
