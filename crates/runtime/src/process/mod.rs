//! The process decided: program, surroundings, and what it may do; and the steps by which one of ours becomes it.
//!
//! Shared by a container's first process and by those that join it later.

mod confine;
mod lookup;
mod lsm;
mod schedule;
mod user;

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use oci::runtime::{Linux, NamespaceType, Process};
use stdx::{Error, Result};
use sys::process::StringArray;

pub(crate) use lookup::{Program, execute};

use crate::capabilities::{self, Sets};
use crate::seccomp;
use crate::user::Identity;

#[derive(Debug)]
pub(crate) struct Plan {
    process: Process,
    capabilities: Sets,
    seccomp: Option<seccomp::Program>,
    pub argv: Vec<CString>,
    env: Vec<CString>,
    pub scheduling: schedule::Scheduling,
    /// What is given less exactly than asked.
    pub warnings: Vec<String>,
}

impl Plan {
    /// `filter` is the document's seccomp profile where somebody has compiled it already.
    pub(crate) fn of(
        process: &Process,
        linux: &Linux,
        filter: Option<&seccomp::Program>,
    ) -> Result<Self> {
        if process.args.is_empty() {
            return Err(Error::invalid("args must not be empty"));
        }
        if process.cwd.as_os_str().is_empty() {
            return Err(Error::invalid("Cwd property must not be empty"));
        }
        if !process.cwd.is_absolute() {
            return Err(Error::invalid("Cwd must be an absolute path"));
        }
        let mut warnings = Vec::new();
        let (mut capabilities, unknown) = Sets::from_spec(process.capabilities.as_ref());
        if !unknown.is_empty() {
            warnings.push(format!(
                "ignoring unknown or unavailable capabilities: [{}]",
                unknown.join(" ")
            ));
        }
        let available = match linux.namespace(NamespaceType::User) {
            // Whoever enters one has all of them there.
            Some(_) => capabilities::known(),
            None => capabilities::available()?,
        };
        let lost = capabilities.limit_to(available);
        if lost != 0 {
            let names = capabilities::names_of(lost).join(" ");
            warnings.push(format!("this host does not have the capabilities [{names}]"));
        }
        let env = environment(&process.env)?;
        Ok(Self {
            argv: strings("argument", &process.args)?,
            env,
            capabilities,
            seccomp: match filter {
                Some(compiled) => Some(compiled.clone()),
                None => linux.seccomp.as_ref().map(seccomp::compile).transpose()?,
            },
            scheduling: schedule::Scheduling::of(process, linux)?,
            process: process.clone(),
            warnings,
        })
    }

    /// A supervisor would have to be told of the filter at the very last moment, after the program's start.
    pub(crate) fn notifies_late(&self) -> bool {
        self.process.no_new_privileges
            && self.seccomp.as_ref().is_some_and(seccomp::Program::notifies)
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    pub(crate) fn argv(&self) -> StringArray {
        StringArray::new(self.argv.clone())
    }

    /// The environment, with `HOME` where it says nothing of it.
    pub(crate) fn env(&self, identity: &Identity) -> Result<StringArray> {
        let mut env = self.env.clone();
        if !env.iter().any(|variable| variable.to_bytes().starts_with(b"HOME=")) {
            env.push(c_string("home directory", &format!("HOME={}", identity.home))?);
        }
        Ok(StringArray::new(env))
    }

    /// The value of `PATH` the program itself will have.
    pub(crate) fn search_path(&self) -> Option<&CStr> {
        self.env.iter().find_map(|variable| {
            let value = variable.to_bytes_with_nul().strip_prefix(b"PATH=")?;
            CStr::from_bytes_with_nul(value).ok()
        })
    }
}

/// Opened while the host's `/proc` is still in sight.
#[derive(Debug)]
pub(crate) struct Labels(Vec<Label>);

#[derive(Debug)]
struct Label {
    file: OwnedFd,
    text: String,
    /// What is said if it is not taken.
    failure: String,
}

/// The last of several settings of a variable counts, at the place of the first.
fn environment(env: &[String]) -> Result<Vec<CString>> {
    fn name(variable: &str) -> &str {
        variable.split_once('=').map_or(variable, |(name, _)| name)
    }
    let mut seen = HashSet::new();
    let mut last: Vec<&String> =
        env.iter().rev().filter(|variable| seen.insert(name(variable))).collect();
    last.reverse();
    if let Some(bad) =
        last.iter().find(|variable| !variable.contains('=') || variable.starts_with('='))
    {
        return Err(Error::invalid(format!("invalid environment variable: {bad:?}")));
    }
    last.into_iter().map(|variable| c_string("environment variable", variable)).collect()
}

fn strings(what: &str, strings: &[String]) -> Result<Vec<CString>> {
    strings.iter().map(|string| c_string(what, string)).collect()
}

fn c_string(what: &str, string: &str) -> Result<CString> {
    CString::new(string)
        .map_err(|_| Error::invalid(format!("{what} contains a null byte: {string:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(variables: &[&str]) -> Result<Vec<String>> {
        let variables: Vec<String> =
            variables.iter().map(|variable| (*variable).to_owned()).collect();
        Ok(environment(&variables)?
            .into_iter()
            .map(|variable| variable.into_string().unwrap())
            .collect())
    }

    #[test]
    fn the_last_setting_counts() {
        assert_eq!(env(&["A=1", "B=2", "A=3"]).unwrap(), ["B=2", "A=3"]);
        assert_eq!(env(&["A="]).unwrap(), ["A="]);
        assert!(env(&["A"]).is_err() && env(&["=A"]).is_err() && env(&["A=\0"]).is_err());
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let refusal =
            |process: Process| Plan::of(&process, &Linux::default(), None).unwrap_err().to_string();
        let process = Process { args: vec!["sh".into()], cwd: "/".into(), ..Process::default() };
        assert_eq!(refusal(Process { args: vec![], ..process.clone() }), "args must not be empty");
        assert_eq!(
            refusal(Process { cwd: "".into(), ..process.clone() }),
            "Cwd property must not be empty"
        );
        assert_eq!(refusal(Process { cwd: "x".into(), ..process }), "Cwd must be an absolute path");
    }
}
