//! `--security-opt`: what is confined, and how.

use api::container::HostConfig;
use stdx::{Error, Result};

use super::SeccompPlan;
use crate::apparmor::{DEFAULT, UNCONFINED};
use crate::rooms::Settings;

/// `--security-opt`.
pub(super) struct Security {
    pub(super) no_new_privileges: bool,
    pub(super) writable_cgroups: bool,
    /// `systempaths=unconfined`.
    pub(super) all_paths: bool,
    /// Empty: the default. Else `unconfined` or the profile's text.
    pub(super) seccomp: String,
    pub(super) apparmor: Option<String>,
}

impl Security {
    pub(super) fn of(host: &HostConfig, settings: &Settings) -> Result<Self> {
        let mut this = Self {
            no_new_privileges: settings.no_new_privileges,
            writable_cgroups: false,
            all_paths: false,
            seccomp: settings.seccomp_profile.clone(),
            apparmor: None,
        };
        for option in host.security_opt.iter().flatten() {
            let (key, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
                Some((key, value)) => (key, Some(value)),
                None => (option.as_str(), None),
            };
            let flag = || match value {
                None | Some("true") => Ok(true),
                Some("false") => Ok(false),
                Some(_) => Err(Error::invalid(format!("invalid --security-opt 2: \"{option}\""))),
            };
            match (key, value) {
                ("no-new-privileges", _) => this.no_new_privileges = flag()?,
                ("writable-cgroups", _) => this.writable_cgroups = flag()?,
                ("seccomp", Some("builtin")) => this.seccomp.clear(),
                ("seccomp", Some(value)) => value.clone_into(&mut this.seccomp),
                ("systempaths", Some("unconfined")) => this.all_paths = true,
                ("apparmor", Some(profile)) => this.apparmor = Some(profile.to_owned()),
                ("label", Some("disable")) => {}
                // Labels are for SELinux: where it is not, nobody asks for them.
                ("label", Some(_)) if !settings.selinux => {}
                ("label" | "credentialspec", Some(_)) => {
                    return Err(Error::not_implemented(format!(
                        "--security-opt {key} is not supported yet"
                    )));
                }
                _ => return Err(Error::invalid(format!("invalid --security-opt 2: \"{option}\""))),
            }
        }
        Ok(this)
    }
}

/// The AppArmor profile of all processes; empty where there is nobody to keep it. One that was asked for by name is kept,
/// or the container does not start.
pub(super) fn apparmor(wanted: Option<String>, privileged: bool, settings: &Settings) -> String {
    let profile = wanted
        .filter(|profile| !profile.is_empty())
        .unwrap_or_else(|| if privileged { UNCONFINED } else { DEFAULT }.to_owned());
    match !settings.apparmor && matches!(profile.as_str(), UNCONFINED | DEFAULT) {
        true => String::new(),
        false => profile,
    }
}

pub(crate) fn apparmor_profile(host: &HostConfig, settings: &Settings) -> Result<String> {
    Ok(apparmor(Security::of(host, settings)?.apparmor, host.privileged, settings))
}

/// A profile that cannot be understood stops the container, it does not weaken it.
pub(super) fn seccomp(wanted: &str, privileged: bool) -> Result<SeccompPlan> {
    match wanted {
        "unconfined" => Ok(SeccompPlan::Unconfined),
        "" if privileged => Ok(SeccompPlan::Unconfined),
        "" => Ok(SeccompPlan::Default),
        text => {
            runtime::seccomp::Profile::parse(text)?;
            Ok(SeccompPlan::Profile(text.to_owned()))
        }
    }
}
